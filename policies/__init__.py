"""Who acts, and how did it learn? Policies, the episode loop and model-based reinforcement learning."""
