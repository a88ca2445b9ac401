"""Scripts that run other people's software beside ours, each by the Python of an environment of its own."""
