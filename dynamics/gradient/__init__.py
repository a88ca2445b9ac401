"""Gradient steps of a perceptron as compiled code: products, losses, Adam, and the loop over an epoch's batches."""
