"""Which compiled kernels this processor can run, each probed against float64 before it is trusted."""

from __future__ import annotations

import functools
import logging
from itertools import pairwise

import torch

from dynamics.forward import FoldedNetwork, input_width
from dynamics.fused import FusedRollouts, PackedNetwork
from dynamics.kernels.compiled import Kernel, compile_kernel
from dynamics.propagation import TrajectorySamplingInfinity
from dynamics.state_space import Channel, StateSpace
from dynamics.workers import Workers
from robots.errors import UnknownNameError

logger = logging.getLogger(__name__)

KERNELS = ("float32", "bfloat16")
LARGEST_ERRORS = {"float32": 1e-5, "bfloat16": 0.02}
"""Relative errors of a change of state, against float64, above which a kernel is not used."""


@functools.cache
def trusted_kernel(name: str) -> Kernel | None:
    """Return the kernel `name`, float32 or bfloat16, or None where this processor lacks its instructions or rounds too coarsely.

    It is compiled and probed at its first use in a process (0.4 s).
    """
    if name not in KERNELS:
        raise UnknownNameError("kernel", name, KERNELS)
    kernel = compile_kernel(name)
    if kernel is None:
        logger.info("%s kernel: this processor lacks the instructions; torch does its work", name)
        return None
    error = probed_error(kernel)
    if not error <= LARGEST_ERRORS[name]:
        logger.warning("%s kernel: relative error %.1e, expected at most %.0e; torch does its work", name, error, LARGEST_ERRORS[name])
        return None
    logger.info("%s kernel: relative error %.1e", name, error)
    return kernel


def available_kernels() -> tuple[str, ...]:
    """Return the names of the kernels that can be trusted on this processor."""
    return tuple(name for name in KERNELS if trusted_kernel(name) is not None)


def probed_error(kernel: Kernel) -> float:
    """Return the largest error of one step of a random network by `kernel`, against float64, relative to the largest change."""
    space = StateSpace([Channel("q", ("angle",), (0,), "angle"), Channel("dq", ("rate",), (0,))])
    generator = torch.Generator().manual_seed(0)
    widths = (input_width(space, 1), 40, 40, 2 * space.no)
    weights = tuple(torch.randn(2, a, b, generator=generator) / a**0.5 for a, b in pairwise(widths))
    biases = tuple(torch.randn(2, 1, b, generator=generator) for b in widths[1:])
    bounds = (torch.full((2, 1, space.no), 0.1), torch.full((2, 1, space.no), 0.1))
    network = FoldedNetwork(space, 1, weights, biases, bounds, torch.ones(space.no), None)
    propagation, candidates = TrajectorySamplingInfinity(), 40
    noise = propagation.noise(1, 2, candidates, space.no, generator, common=True)
    x0, actions = torch.tensor([1.0, -0.5]), torch.rand(candidates, 1, 1, generator=generator)
    workers = Workers(1)
    try:
        got = FusedRollouts(PackedNetwork(network, kernel), propagation, 2, candidates, 1, workers).states(x0, actions, noise)[0] - x0
    finally:
        workers.close()
    inputs = torch.cat([x0, x0[:1].sin(), x0[:1].cos()]).expand(candidates, -1)
    hidden = torch.cat([inputs, actions[:, 0]], -1).double()
    for n, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = torch.matmul(hidden, weight.double()) + bias.double()
        hidden = torch.nn.functional.silu(hidden) if n < len(weights) - 1 else hidden
    mean, raw = hidden.chunk(2, -1)  # (E, N, no)
    expected = mean + (1 / (0.1 + (-raw).exp()) + 0.1).sqrt() * noise.normal[0]
    return float((got - expected).abs().max() / expected.abs().max())
