"""The parts of the Franka twin: its wire, its sockets, its reflexes, its controller."""
