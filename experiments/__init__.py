"""What do we run? The command line, reports and benchmarks."""
