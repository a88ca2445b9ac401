"""The safety supervisor: what every command passes on its way to the arm."""
