"""Benchmarks: figures beside their bars."""
