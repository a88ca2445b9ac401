"""dm_control's soft indicator of a range, in torch: what its rewards are made of, for costs that planners can differentiate."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def tolerance(x: Tensor, low: float = 0.0, high: float = 0.0, margin: float = 0.0, at_margin: float = 0.1,
              shape: str = "gaussian") -> Tensor:
    """Return 1 where x (...,) lies in [low, high], falling to `at_margin` at a distance of `margin` beyond (0: at once to nothing).

    `shape`: 'gaussian', or 'linear' or 'quadratic', which reach 0 and stay there. As `dm_control.utils.rewards.tolerance`
    (Tassa et al. 2018, https://arxiv.org/abs/1801.00690).
    """
    beyond = torch.clamp_min(low - x, 0.0) + torch.clamp_min(x - high, 0.0)
    if margin == 0.0:
        return (beyond == 0.0).to(x.dtype)
    distance = beyond / margin
    match shape:
        case "gaussian":
            return torch.exp(distance.square() * math.log(at_margin))
        case "linear":
            scaled = distance * (1.0 - at_margin)
            return torch.where(scaled < 1.0, 1.0 - scaled, torch.zeros_like(scaled))
        case "quadratic":
            scaled = distance.square() * (1.0 - at_margin)
            return torch.where(scaled < 1.0, 1.0 - scaled, torch.zeros_like(scaled))
    raise ValueError(f"tolerance: expected the shape gaussian, linear or quadratic, got {shape!r}")
