"""Geometric motion planning for arms: collision checks, collision-free joint paths, and their timing."""
