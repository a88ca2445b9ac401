"""What was lived through? Episodes and their store."""
