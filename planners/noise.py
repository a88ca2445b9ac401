"""Random draws for sampling planners."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SQRT_HALF = math.sqrt(0.5)


def truncated_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return standard normal draws truncated at two sigma, by the inverse of the distribution function."""
    tail = 0.5 * math.erfc(2.0 * _SQRT_HALF)
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64) * (1 - 2 * tail) + tail
    return torch.special.ndtri(uniform).float()


def coloured_noise(samples: int, steps: int, nu: int, beta: float, generator: torch.Generator) -> Tensor:
    """Return noise (samples, steps, nu) of unit variance whose power spectrum along time falls as f^-beta.

    Timmer & Koenig 1995, as used by iCEM (Pinneri et al. 2020): 0 is white, 1 pink, 2 red.
    """
    if steps == 1 or beta == 0.0:
        return torch.randn(samples, steps, nu, generator=generator)
    frequency = torch.fft.rfftfreq(steps)
    frequency[0] = frequency[1]
    scale = frequency.pow(-beta / 2)
    bins = len(scale)
    real, imaginary = torch.randn(2, samples, nu, bins, generator=generator) * scale
    imaginary[..., 0] = 0.0
    real[..., 0] *= math.sqrt(2.0)
    if steps % 2 == 0:
        imaginary[..., -1] = 0.0
        real[..., -1] *= math.sqrt(2.0)
    weights = scale[1:].clone()
    if steps % 2 == 0:
        weights[-1] *= _SQRT_HALF
    sigma = 2.0 * math.sqrt(float((weights**2).sum() + 0.5 * scale[0] ** 2)) / steps
    noise = torch.fft.irfft(torch.complex(real, imaginary), n=steps, dim=-1) / sigma
    return noise.transpose(-1, -2).contiguous()
