"""Fits an arm's parameters to recorded motion with mujoco.sysid: the model, driven by measured torques, must go where the arm went.

The residuals are those of many short windows, whose first state is measured. A weak prior around the arm's description keeps what the
motion does not tell where it was. Windows, not samples, count as independent in the intervals (Liang and Zeger's sandwich: what
neighbouring samples share would make them far too narrow), and what half a servo period between torque and motion would change is added:
no log tells the moment of a measurement better.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from hw_bridge.identification.parameters import ArmParameters, bounds, names, spread
from hw_bridge.identification.prediction import Prediction, PredictionError, sysid
from hw_bridge.identification.windows import MOVING, Windows, spaced
from robots.arms.arm import Arm
from robots.errors import NumericalError

HELD_OUT = 0.25
"""Share of the motion, its end, that nothing is fitted to."""
MOST_HELD_OUT = 60
_PASSES = ((20, 8), (80, 5))
"""Windows and iterations of each fit; each joint's errors are weighed by what the fit before left of them."""
_START = 0.05
"""The first fit begins with this share of a parameter's spread: an arm whose friction is taken too high sticks, and tells nothing."""
_INSIDE = 2e-3
"""A fit begins this share of the range inside the bounds."""
_HALF_95 = 1.96
_LEAST_MOVED = 5
"""A joint that moves in fewer windows sticks: its friction is only known to be enough, and nothing else of it at all."""


@dataclass(frozen=True)
class Identified:
    """What was found. Vectors (4 + 3 nv,) in the order of `ArmParameters`."""

    names: tuple[str, ...]
    value: np.ndarray
    half_width: np.ndarray
    """Half of the 95 % interval."""
    prior: np.ndarray
    spread: np.ndarray
    """The prior's standard deviation."""
    held_out: PredictionError
    """Of the identified model."""
    held_out_prior: PredictionError
    """Of the arm as it is described."""
    windows: int
    """Fitted to."""
    held_out_windows: int

    @property
    def parameters(self) -> ArmParameters:
        """The parameters as such."""
        return ArmParameters.from_vector(self.value)

    @property
    def identifiable(self) -> np.ndarray:
        """(4 + 3 nv,) bool: the interval is narrow beside the value, or beside what could have been."""
        return self.half_width < np.maximum(0.3 * np.abs(self.value), 0.15 * self.spread)


def identify(windows: Windows, arm: Arm) -> Identified:
    """Return the parameters that predict the windows best; the last of them are held out."""
    toolbox = sysid()
    cut = len(windows) - round(HELD_OUT * len(windows))
    prior, width, (low, high) = ArmParameters.of(arm).vector(), spread(arm), bounds(arm)
    inside = _INSIDE * (high - low)
    parameter = toolbox.Parameter(arm.spec.name, prior, low, high)
    value, scale = prior + _START * width, 0.05 * arm.spec.limits.velocity_max
    for most, iterations in _PASSES:
        fitted = windows.take(spaced(cut, most))
        fit = _Fit(Prediction(fitted, arm), prior, width, scale)
        parameter.update_from_vector(np.clip(value, low + inside, high - inside))
        found, _ = toolbox.optimize(toolbox.ParameterDict({arm.spec.name: parameter}), fit.residual, "mujoco", verbose=False,
                                    max_iters=iterations, x_scale=width, eps=1e-5, xtol=1e-4, output=io.StringIO())
        value = np.clip(found.as_vector(), low, high)
        scale = fit.left(value)
    shifted = Prediction(fitted.later(0.5 * windows.period), arm)
    half = _Fit(fit.prediction, prior, width, scale).half_width(value, shifted)
    half = np.where(np.concatenate([np.zeros(4, bool), *[_stuck(fitted, arm)] * 3]), np.maximum(half, _HALF_95 * width), half)
    held = windows.take(cut + spaced(len(windows) - cut, MOST_HELD_OUT))
    truth = Prediction(held, arm)
    return Identified(names(arm), value, half, prior, width, truth.error(value), truth.error(prior), len(fitted), len(held))


def _stuck(windows: Windows, arm: Arm) -> np.ndarray:
    """Return (nv,) bool: the joints that hardly move."""
    moves = (np.abs(windows.dq) > MOVING * arm.spec.limits.velocity_max).mean(axis=1) > 0.5  # (k, nv)
    return moves.sum(axis=0) < _LEAST_MOVED


class _Fit:
    """What is minimised: errors of prediction, and distance from the prior."""

    def __init__(self, prediction: Prediction, prior: np.ndarray, spread: np.ndarray, scale: np.ndarray) -> None:
        self.prediction, self._prior, self._spread, self._scale = prediction, prior, spread, scale

    def by_window(self, vectors: np.ndarray) -> np.ndarray:
        """Return (p, k, r) residuals; a window's squares sum to about 2 nv where errors are as large as expected."""
        errors = self.prediction.errors(vectors) / self._scale
        if not np.isfinite(errors).all():
            raise NumericalError("the model's motion left the numbers while it was fitted; are the log's torques in N·m?")
        return errors.reshape(*errors.shape[:2], -1) / np.sqrt(errors.shape[2])

    def residual(self, x: np.ndarray, parameters: object) -> tuple[list[np.ndarray], None, None]:
        """Return what mujoco.sysid minimises the squares of, (r,) or (r, p) for `x` (4 + 3 nv,) or (4 + 3 nv, p)."""
        vectors = np.clip(np.atleast_2d(x.T), *parameters.get_bounds())
        both = np.concatenate([self.by_window(vectors).reshape(len(vectors), -1), (vectors - self._prior) / self._spread], axis=1)
        return [both[0] if x.ndim == 1 else both.T], None, None

    def left(self, value: np.ndarray) -> np.ndarray:
        """Return (nv,) what is left of each joint's errors at `value` [rad/s]."""
        left = np.sqrt((self.prediction.errors(value[None]) ** 2).mean(axis=(0, 1, 2, 3)))
        return np.maximum(left, 1e-3 * self._scale)

    def half_width(self, value: np.ndarray, shifted: Prediction) -> np.ndarray:
        """Return (4 + 3 nv,) half of the 95 % interval of the estimate `value`; `shifted` predicts with torques half a period off."""
        nudge = 1e-4 * self._spread
        residuals = self.by_window(np.concatenate([value[None], value + np.diag(nudge)]))
        slope = np.moveaxis(residuals[1:] - residuals[0], 0, 2) / nudge  # (k, r, x)
        push = np.einsum("krx,kr->kx", slope, residuals[0])
        prior = np.diag(self._spread**-2)
        inverse = np.linalg.inv(np.einsum("krx,kry->xy", slope, slope) + prior)
        covariance = inverse @ (push.T @ push + prior) @ inverse
        other = _Fit(shifted, self._prior, self._spread, self._scale).by_window(value[None])[0] - residuals[0]
        return _HALF_95 * np.sqrt(np.diag(covariance)) + np.abs(inverse @ np.einsum("krx,kr->x", slope, other))
