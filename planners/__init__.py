"""What to do, if the model is right? Costs, risk and sampling planners."""
