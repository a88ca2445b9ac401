"""Multilayer perceptrons of the members of an ensemble, each a dict of its own leaf tensors."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

Parameters = dict[str, Tensor]
"""`weight0, bias0, ...` of the layers, (in, out) and (out,), and further named tensors such as the bounds of the noise."""


def new_network(widths: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Return a perceptron from widths[0] inputs to widths[-1] outputs.

    Weights are normal with sigma = 1 / (2 sqrt(fan_in)), truncated at two sigma; biases are zero (Chua et al. 2018, released code).
    """
    parameters: Parameters = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
        weight = torch.empty(fan_in, fan_out)
        sigma = 1.0 / (2.0 * math.sqrt(fan_in))
        torch.nn.init.trunc_normal_(weight, std=sigma, a=-2 * sigma, b=2 * sigma, generator=generator)
        parameters[f"weight{layer}"] = weight.requires_grad_()
        parameters[f"bias{layer}"] = torch.zeros(fan_out, requires_grad=True)
    return parameters


def layer_count(parameters: Parameters) -> int:
    """Return the number of layers of a perceptron."""
    return sum(1 for name in parameters if name.startswith("weight"))


def forward(parameters: Parameters, inputs: Tensor) -> Tensor:
    """Return the outputs (..., out) for inputs (..., in); swish between the layers."""
    hidden = inputs
    layers = layer_count(parameters)
    for layer in range(layers):
        hidden = torch.matmul(hidden, parameters[f"weight{layer}"]) + parameters[f"bias{layer}"]
        if layer < layers - 1:
            hidden = torch.nn.functional.silu(hidden)
    return hidden


def stack(members: list[Parameters]) -> Parameters:
    """Return the members' parameters with a leading E: weights (E, in, out), biases (E, 1, out), others (E, 1, n)."""
    return {name: torch.stack([m[name] if name.startswith("weight") else m[name].unsqueeze(0) for m in members]) for name in members[0]}


def bounded_log_variance(raw: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return `raw` bent softly into (lower, upper): the double softplus of Chua et al. 2018, appendix A.1."""
    log_variance = upper - torch.nn.functional.softplus(upper - raw)
    return lower + torch.nn.functional.softplus(log_variance - lower)
