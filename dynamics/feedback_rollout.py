"""Many rollouts of one time-varying feedback policy with different step lengths, through any model: iLQR's line search."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dynamics.model import DynamicsModel
from dynamics.rollout import roll_out
from dynamics.state_space import StateSpace
from robots.errors import ShapeError


@runtime_checkable
class FeedbackRollouts(DynamicsModel, Protocol):
    """A model that rolls feedback policies out itself, faster than one `step` after the other."""

    def roll_out_feedback(self, x0: np.ndarray, states: np.ndarray, actions: np.ndarray, steps: np.ndarray, feedforward: np.ndarray,
                          gains: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return states (N, H + 1, nx) and actions (N, H, nu), see `roll_out_feedback`."""
        ...


def lone_rollouts_pay(model: DynamicsModel) -> bool:
    """Return whether one rollout takes far less than a batch of them, so that a line search does well to try its likeliest step alone.

    By the model's own `lone_rollouts_pay`; False where it has none: through torch a batch takes hardly longer than one.
    """
    return getattr(model, "lone_rollouts_pay", False)


def check_feedback(space: StateSpace, nu: int, **given: np.ndarray) -> None:
    """Raise ShapeError unless the arguments of `roll_out_feedback`, by their names, fit together: compiled code does not see it."""
    horizon = len(given["actions"])
    shapes = {"x0": (space.nx,), "states": (horizon + 1, space.nx), "actions": (horizon, nu), "feedforward": (horizon, nu),
              "gains": (horizon, nu, space.ndx), "lower": (nu,), "upper": (nu,), "steps": (np.size(given["steps"]),),
              "gaps": (horizon, space.ndx)}
    for name, array in given.items():
        if np.shape(array) != shapes[name]:
            raise ShapeError(f"roll_out_feedback: expected {name} of {shapes[name]}, got {np.shape(array)}")


def roll_out_feedback(model: DynamicsModel, x0: np.ndarray, states: np.ndarray, actions: np.ndarray, steps: np.ndarray,
                      feedforward: np.ndarray, gains: np.ndarray, lower: np.ndarray, upper: np.ndarray,
                      gaps: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return states (N, H + 1, nx) and actions (N, H, nu) float64 of N rollouts from x0 (nx,), along the model's mean.

    Rollout n does u_t = actions[t] + steps[n] * feedforward[t] + gains[t] @ difference(states[t], x_t), clipped into lower and upper
    (nu,), about states (H + 1, nx) and actions (H, nu), with gains (H, nu, ndx). A rollout that diverged holds NaN or infinity.

    `gaps` (H, ndx): differences from states[t + 1] to where the dynamics lead from states[t] under actions[t]; a rollout of step s
    then goes on beside where the model leads, so that 1 - s of every gap stays open (Mastalli et al. 2020). Only where gaps
    stay open is the model's own `roll_out_feedback` not used.
    """
    if gaps is not None and (np.asarray(steps) == 1.0).all():
        gaps = None
    own = getattr(model, "roll_out_feedback", None)
    if gaps is None and own is not None:
        return own(x0, states, actions, steps, feedforward, gains, lower, upper)
    return roll_out_feedback_by_torch(model, x0, states, actions, steps, feedforward, gains, lower, upper, gaps)


def roll_out_feedback_by_torch(model: DynamicsModel, x0: np.ndarray, states: np.ndarray, actions: np.ndarray, steps: np.ndarray,
                               feedforward: np.ndarray, gains: np.ndarray, lower: np.ndarray, upper: np.ndarray,
                               gaps: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return what `roll_out_feedback` does, by one `step` of all rollouts after the other."""
    space = model.state_space
    check_feedback(space, model.nu, x0=x0, states=states, actions=actions, steps=steps, feedforward=feedforward, gains=gains, lower=lower,
                   upper=upper, **({} if gaps is None else {"gaps": gaps}))
    about, nominal, forward, feedback, low, high = (torch.as_tensor(v, dtype=torch.float64)
                                                    for v in (states, actions, feedforward, gains, lower, upper))
    step = torch.as_tensor(steps, dtype=torch.float64).unsqueeze(-1)  # (N, 1)
    behind = None if gaps is None else torch.as_tensor(gaps, dtype=torch.float64)

    def act(t: int, x: Tensor) -> Tensor:
        if behind is not None and t > 0:
            x = x.copy_(space.integrate(x, (step - 1) * behind[t - 1]))
        u = nominal[t] + step * forward[t] + space.difference(about[t], x.double()) @ feedback[t].T
        return torch.minimum(torch.maximum(u, low), high)

    start = torch.as_tensor(x0, dtype=torch.float64).expand(len(steps), -1)
    with torch.no_grad():
        reached, commands = roll_out(model, start, act, len(actions))
        if behind is not None:
            reached[-1] = space.integrate(reached[-1], (step - 1) * behind[-1])
    return reached.double().transpose(0, 1).contiguous().numpy(), commands.transpose(0, 1).contiguous().numpy()
