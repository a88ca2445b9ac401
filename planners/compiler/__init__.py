"""Costs written in torch become machine code: their values along trajectories, and their derivatives."""
