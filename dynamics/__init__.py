"""What happens next? Learned models of a robot, how they are fitted, propagated and judged."""
