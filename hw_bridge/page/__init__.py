"""The operator's page: what the person beside the arm sees and presses, a process of its own beside the bridge."""
