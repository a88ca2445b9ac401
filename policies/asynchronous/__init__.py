"""Planning beside the robot instead of in its control period: plans as functions of time, and what takes their delay away."""
