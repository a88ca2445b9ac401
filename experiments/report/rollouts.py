"""Predicted against lived: the model is rolled along the commands of a lived trial, and must say what came of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dynamics.model import EnsembleModel
from dynamics.propagation import TrajectorySamplingInfinity
from dynamics.rollout import predict_trajectory
from episodes.episode import Episode
from experiments.report.drawing import INK, SERIES, Key, Plot, new_axes
from experiments.report.numbers import number

PARTICLES = 200
"""About as many follow each rollout, the same number for every member of the model."""
_LARGEST_ROLLOUTS = 5
_LEVELS = (0.05, 0.25, 0.75, 0.95)


@dataclass(frozen=True)
class Rollouts:
    """Rollouts of S starts over H periods, for the model's no outputs."""

    names: tuple[str, ...]
    time: np.ndarray
    """(T+1,) [s]."""
    lived: np.ndarray
    """(T+1, no); of a rotation, the rotation vector from the first state [rad]."""
    starts: tuple[int, ...]
    """S indices of `time`."""
    mean: np.ndarray
    """(S, H+1, no) mean of the particles; NaN where none is finite."""
    quantiles: np.ndarray
    """(4, S, H+1, no) of `_LEVELS`."""
    stochastic: bool
    """True where the particles differ, so that bands mean something."""

    @property
    def horizon(self) -> int:
        """H [control period]."""
        return self.mean.shape[1] - 1

    def relative_errors(self) -> np.ndarray:
        """Return (no,) the root mean square error of the mean relative to the lived spread; 0 where nothing moves."""
        lived = np.stack([self.lived[s: s + self.horizon + 1] for s in self.starts])
        error = np.sqrt(np.square(np.nan_to_num(self.mean - lived, nan=1e6, posinf=1e6, neginf=-1e6)).mean(axis=(0, 1)))
        spread = self.lived.std(axis=0)
        return np.where(spread > 1e-9, error / np.maximum(spread, 1e-9), 0.0)


def predict_along(model: EnsembleModel, episode: Episode, horizon: int, seed: int) -> Rollouts:
    """Return TSinf rollouts of `model` under the applied commands of `episode`, from up to five starts."""
    space, steps = model.state_space, episode.steps
    horizon = min(horizon, steps)
    apart = min(_LARGEST_ROLLOUTS, max(1, steps // horizon))  # so that rollouts do not overlap
    starts = tuple(np.unique(np.linspace(0, steps - horizon, apart).round().astype(int)).tolist())
    particles = model.members * -(-PARTICLES // model.members)
    x, u = torch.from_numpy(episode.x.copy()), torch.from_numpy(episode.applied.copy()).float()
    lived = _tangent_curve(episode, model)
    generator = torch.Generator().manual_seed(seed)
    followed = []
    for start in starts:
        states = predict_trajectory(model, TrajectorySamplingInfinity(), particles, x[start].float(), u[start:start + horizon], generator)
        truth = x[start:start + horizon + 1].unsqueeze(1)  # (H + 1, 1, nx)
        miss = space.difference(truth, states.double())[..., space.output_tangents]  # angles and rotations by the shorter way
        followed.append(lived[start:start + horizon + 1, None] + miss.numpy())
    cloud = np.stack(followed)  # (S, H + 1, P, no)
    cloud = np.where(np.isfinite(cloud), cloud, np.nan)
    finite = np.isfinite(cloud).all(axis=2)  # (S, H + 1, no)
    safe = np.where(finite[:, :, None], cloud, 0.0)
    mean = np.where(finite, safe.mean(axis=2), np.nan)
    quantiles = np.where(finite, np.quantile(safe, _LEVELS, axis=2), np.nan)
    mean[:, 0] = quantiles[:, :, 0] = lived[list(starts)]  # known exactly: no rounding to float32
    width = np.nanmax(quantiles[3] - quantiles[0]) if finite.any() else 0.0
    return Rollouts(space.output_names, episode.time, lived, starts, mean, quantiles, bool(width > 1e-9))


def rollout_plots(rollouts: Rollouts, largest: int = 6) -> list[Plot]:
    """Return one plot for each of the `largest` outputs with the largest relative error, that one first."""
    errors = rollouts.relative_errors()
    order = [i for i in np.argsort(-errors, kind="stable").tolist() if errors[i] > 0][:largest] or [0]
    width = 420.0 if len(order) in (1, 2, 4) else 330.0  # two columns or three
    return [_plot(rollouts, i, float(errors[i]), width) for i in order]


def rollout_legend(rollouts: Rollouts) -> tuple[Key, ...]:
    """Return the legend that all of `rollout_plots` share."""
    bands = (Key("50 % of the model's futures", SERIES[0], "area"), Key("90 %", SERIES[0], "faint")) if rollouts.stochastic else ()
    return (Key("lived", INK, "broad"), Key("predicted, mean", SERIES[0]), *bands)


def _plot(rollouts: Rollouts, output: int, error: float, width: float) -> Plot:
    figure, axes = new_axes("time [s]", width=width, height=215)
    lived = rollouts.lived[:, output]
    axes.plot(rollouts.time, lived, color=INK, linewidth=3.4, alpha=0.38, solid_capstyle="round")
    for s, start in enumerate(rollouts.starts):
        time = rollouts.time[start: start + rollouts.horizon + 1]
        if rollouts.stochastic:
            q05, q25, q75, q95 = rollouts.quantiles[:, s, :, output]
            axes.fill_between(time, q05, q95, color=SERIES[0], alpha=0.18, linewidth=0)
            axes.fill_between(time, q25, q75, color=SERIES[0], alpha=0.32, linewidth=0)
        axes.plot(time, rollouts.mean[s, :, output], color=SERIES[0], linewidth=1.5)
        axes.plot(time[:1], lived[start: start + 1], "o", color=SERIES[0], markersize=4.5)
    low, high = float(lived.min()), float(lived.max())
    margin = max(high - low, 1e-6)
    drawn = rollouts.quantiles[:, :, :, output]
    lowest, highest = (float(np.nanmin(drawn)), float(np.nanmax(drawn))) if np.isfinite(drawn).any() else (low, high)
    axes.set_ylim(max(min(low, lowest), low - 0.7 * margin) - 0.06 * margin, min(max(high, highest), high + 0.7 * margin) + 0.06 * margin)
    axes.margins(x=0.01)
    return Plot(rollouts.names[output], figure, f"Root mean square error of the mean, relative to the lived spread: {number(error)}.",
                (), f"error {number(error, 2)} of the lived spread")


def _tangent_curve(episode: Episode, model: EnsembleModel) -> np.ndarray:
    """Return (T+1, no) what the plots show of the lived states: entries as they are, rotations from the first state."""
    space = model.state_space
    x = torch.from_numpy(episode.x.copy())
    curve = space.difference(x[:1], x)[..., space.output_tangents].numpy().copy()
    curve[:, space.output_entries.numpy()] = episode.x[:, space.output_states.numpy()]
    return curve
