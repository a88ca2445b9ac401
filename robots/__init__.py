"""What is the machine? Specs, observations, commands, limits, kinematics and the error tree."""
