"""Tensors of a model by name: what a checkpoint holds, and the refusal of one that belongs elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dynamics.network import Parameters
from robots.errors import ShapeError

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of a parameter; each is stored as `<parameter>.<moment>`, and absent before the first fit."""


def network_tensors(parameters: Parameters, optimiser: torch.optim.Adam, prefix: str = "") -> dict[str, Tensor]:
    """Return copies of a network's parameters and Adam's moments, by name."""
    state: dict[str, Tensor] = {}
    for name, value in parameters.items():
        state[prefix + name] = value.detach().contiguous().clone()
        state |= {f"{prefix}{name}.{key}": moment.contiguous().clone() for key, moment in optimiser.state.get(value, {}).items()}
    return state


def load_network(state: Mapping[str, Tensor], parameters: Parameters, optimiser: torch.optim.Adam, prefix: str = "") -> None:
    """Take over what `network_tensors` returned, once `check_tensors` has passed it."""
    for name, value in parameters.items():
        with torch.no_grad():
            value.copy_(state[prefix + name])
        optimiser.state.pop(value, None)
        moments = {key: state[f"{prefix}{name}.{key}"].clone() for key in MOMENTS if f"{prefix}{name}.{key}" in state}
        if moments:
            optimiser.state[value] = moments


def check_tensors(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise ShapeError unless `state` has the names and shapes of `own`; Adam's moments may be there or not."""
    expected = {name: value.shape for name, value in own.items() if not _is_moment(name)}
    for name, shape in expected.items():
        if name not in state or state[name].shape != shape:
            got = tuple(state[name].shape) if name in state else "nothing"
            raise ShapeError(f"checkpoint: expected {name!r} of shape {tuple(shape)}, got {got}; it belongs to another configuration")
    for name, value in state.items():
        owner, _, moment = name.rpartition(".")
        if name in expected:
            continue
        if not _is_moment(name) or owner not in expected or (moment != "step" and value.shape != expected[owner]):
            raise ShapeError(f"checkpoint: did not expect {name!r} of shape {tuple(value.shape)}; it belongs to another configuration")


def _is_moment(name: str) -> bool:
    return name.rpartition(".")[2] in MOMENTS
