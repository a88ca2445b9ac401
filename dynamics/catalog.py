"""Dynamics models by name."""

from __future__ import annotations

from dataclasses import replace

from dynamics.linear import LinearConfig, LinearModel
from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble
from dynamics.state_space import StateSpace
from robots.errors import UnknownNameError

MODELS: dict[str, str] = {
    "probabilistic-ensemble": "several networks that predict mean and noise (PETS)",
    "deterministic-ensemble": "several networks that predict the mean",
    "probabilistic": "one network that predicts mean and noise",
    "deterministic": "one network that predicts the mean (Nagabandi et al.)",
    "linear": "ridge regression with constant noise: the baseline",
}

LearnedModel = NeuralEnsemble | LinearModel


def model_members(name: str, config: EnsembleConfig) -> int:
    """Return how many members model `name` has under `config`; UnknownNameError lists the known models."""
    if name not in MODELS:
        raise UnknownNameError("dynamics model", name, MODELS)
    return config.members if name.endswith("ensemble") else 1


def make_model(name: str, state_space: StateSpace, nu: int, control_dt: float, config: EnsembleConfig, seed: int) -> LearnedModel:
    """Return model `name` of a state space and nu commands, one step being control_dt [s]."""
    members = model_members(name, config)
    if name == "linear":
        return LinearModel(state_space, nu, control_dt, LinearConfig(), seed)
    shaped = replace(config, members=members, probabilistic=name.startswith("probabilistic"))
    return NeuralEnsemble(state_space, nu, control_dt, shaped, seed)
