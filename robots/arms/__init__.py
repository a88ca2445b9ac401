"""Arms that people own: limits, shape and mass of each, as its maker publishes them."""
