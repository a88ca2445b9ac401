"""The log of a deployment: MCAP, written by a process of its own."""
