"""Fused kernels of an ensemble's rollouts, compiled at first use by LLVM for the processor at hand."""
