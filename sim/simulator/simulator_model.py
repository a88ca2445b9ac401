"""MuJoCo as a `DynamicsModel`: one control period at a time, whole rollouts, rollouts under feedback, and derivatives."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor

from dynamics.linearize import check_rows
from dynamics.model import Prediction
from dynamics.workers import checked_threads
from planners.compiler.compiled_cost import CompiledCost
from robots.errors import ConfigurationError, ShapeError
from sim.simulator.closed_loops import ClosedLoops
from sim.simulator.contacts import may_touch
from sim.simulator.engine import refuse_python_callbacks
from sim.simulator.kernels import STEP
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.profiling_clock import stop_profiling_clock
from sim.simulator.rollouts import Rollouts
from sim.simulator.tangent import TangentArithmetic
from sim.simulator.transitions import Transitions


class SimulatorModel:
    """A model of one control period of `substeps` physics steps, each with the command held. It shares nothing with the robot it is to
    control but the model of the machine.

    Readings are sensors, which MuJoCo evaluates at the beginning of a physics step: they lag the state by one of these. A state that
    diverges becomes NaN, and stays so. Results do not depend on the number of threads.
    """

    def __init__(self, model: mujoco.MjModel, space: PhysicsSpace, substeps: int, threads: int | None = None,
                 variants: Sequence[mujoco.MjModel] = (), differences: Sequence[str] = ()) -> None:
        """`variants`: models of the same layout with other masses, frictions, ...: rollouts then have one particle for each of them.
        `differences`: how the model differs from the machine, in words.

        ConfigurationError for a model without actuators or whose islands fall asleep, and, then and whenever it is rolled out or
        differentiated, while a Python function is one of MuJoCo's callbacks.
        """
        refuse_python_callbacks()
        if substeps < 1:
            raise ConfigurationError(f"substeps: expected at least 1, got {substeps}")
        if model.nu < 1:
            raise ConfigurationError("SimulatorModel: this model has no actuators; there is nothing to plan")
        if model.opt.enableflags & int(mujoco.mjtEnableBit.mjENBL_SLEEP):
            raise ConfigurationError("SimulatorModel: in this model islands fall asleep, which rollouts that share their memory cannot do; "
                                     "plan through a copy without it: model.opt.enableflags &= ~mujoco.mjtEnableBit.mjENBL_SLEEP")
        stop_profiling_clock()
        model, *variants = (_without_idle_work(m, space) for m in (model, *variants))
        self.state_space, self.nu = space, model.nu
        if variants:
            _check_layout(model, variants)
        self.variants, self.differences = tuple(variants), tuple(differences)
        self.substeps, self.threads = substeps, checked_threads(threads)
        self.periods = 0
        """Control periods simulated so far, of all rollouts and for derivatives: what planning costs whatever the computer."""
        self._model, self._tangent = model, TangentArithmetic(space)
        setting = model, space, self._tangent, substeps, self.threads
        self._rollouts = Rollouts(model, space, substeps, self.threads, self.variants)
        self._alone = Rollouts(model, space, substeps, self.threads) if variants else self._rollouts
        self._closed_loops = ClosedLoops(*setting)
        self._transitions = Transitions(*setting) if Transitions.know(model) else None

    @property
    def trimmed(self) -> mujoco.MjModel:
        """What is rolled out: the model, without work that changes no bit of the motion. Read it, do not write to it."""
        return self._model

    @property
    def particles(self) -> int:
        """P, rollouts of every plan."""
        return max(1, len(self.variants))

    def predict(self, x: Tensor, u: Tensor) -> Prediction:
        """See `DynamicsModel.predict`; a simulator has no doubts."""
        mean = self.step(x, u)
        none = mean.new_zeros(*mean.shape[:-1], self.state_space.no)
        return Prediction(mean, none, none)

    def step(self, x: Tensor, u: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See `DynamicsModel.step`. Gradients are finite differences."""
        if torch.is_grad_enabled() and (x.requires_grad or u.requires_grad):
            return _Step.apply(x, u, self)
        batch = torch.broadcast_shapes(x.shape[:-1], u.shape[:-1])
        flat_x = x.detach().expand(*batch, x.shape[-1]).reshape(-1, x.shape[-1]).double().cpu().numpy()
        flat_u = u.detach().expand(*batch, u.shape[-1]).reshape(-1, u.shape[-1]).double().cpu().numpy()
        y = torch.from_numpy(self._from(flat_x, flat_u[:, None])[:, 0].copy())
        return y.to(x.dtype).reshape(*batch, -1)

    def rollouts(self, x0: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the states (P, N, H, nx) that N plans `actions` (N, H, nu) lead to from x0 (nx,), one particle for every variant.

        A buffer that the next call overwrites. What diverged is NaN from then on.
        """
        return self._rolled_out(x0, actions, None)[0]

    def charged(self, x0: np.ndarray, actions: np.ndarray, cost: CompiledCost) -> np.ndarray:
        """Return what the rollouts of `rollouts` cost (P, N): a buffer that the next call overwrites. NaN where they diverged.

        ShapeError for a cost of other states or commands.
        """
        if cost.sizes != (self.state_space.nx, self.nu):
            raise ShapeError(f"SimulatorModel: expected a cost of states and commands of {self.state_space.nx} and {self.nu} entries, got "
                             f"one of {cost.sizes[0]} and {cost.sizes[1]}")
        return self._rolled_out(x0, actions, cost)[1]

    def _rolled_out(self, x0: np.ndarray, actions: np.ndarray, cost: CompiledCost | None) -> tuple[np.ndarray, np.ndarray]:
        if x0.ndim != 1:
            raise ShapeError(f"SimulatorModel: expected one state to roll out from, got shape {x0.shape}")
        self._check(x0, actions)
        self.periods += self.particles * actions.shape[0] * actions.shape[1]
        return self._rollouts.run(x0, actions, cost)

    def roll_out_feedback(self, x0: np.ndarray, states: np.ndarray, actions: np.ndarray, steps: np.ndarray, feedforward: np.ndarray,
                          gains: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return states (N, H + 1, nx) and commands (N, H, nu) of N closed loops from x0 (nx,): in period t
        u = clip(actions[t] + steps * feedforward[t] + gains[t] @ difference(states[t], x), lower, upper).

        `states` (H + 1, nx), `actions` and `feedforward` (H, nu), `gains` (H, nu, ndx), `steps` (N,). What diverged is NaN from then on.
        """
        self.periods += len(steps) * len(actions)
        return self._closed_loops.run(x0, states, actions, steps, feedforward, gains, lower, upper)

    def linearize(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return A (T, ndx, ndx) and B (T, ndx, nu) float64 of one period from x (T, nx) under u (T, nu), on the tangent.

        Forward differences: MuJoCo's own of every physics step, one after the other by the chain rule, where it makes any of this model
        (not with Runge-Kutta or delays); else of all of the period's steps at once. A command at or above the upper end of its range
        is stepped down. Rows are NaN where the physics diverge.
        """
        x, u = np.asarray(x, dtype=np.float64), np.asarray(u, dtype=np.float64)
        check_rows(self, x, u)
        self.periods += len(x) * (1 + len(self._tangent.moved) + self.nu)
        return self._by_rollouts(x, u) if self._transitions is None else self._transitions.run(x, u)

    def _by_rollouts(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return A and B by a rollout for each entry that may be stepped."""
        count, moved = len(x), self._tangent.moved
        columns = 1 + len(moved) + self.nu
        starts, commands = np.repeat(x[:, None], columns, axis=1), np.repeat(u[:, None], columns, axis=1)
        for column, entry in enumerate(moved, start=1):
            starts[:, column] = self._tangent.step(x, entry, STEP)
        limited = self._model.actuator_ctrllimited.astype(bool)
        down = np.where(limited & (u + STEP > self._model.actuator_ctrlrange[:, 1]), -STEP, STEP)  # (T, nu)
        for i in range(self.nu):
            commands[:, 1 + len(moved) + i, i] += down[:, i]
        ends, _ = self._alone.run(starts.reshape(-1, x.shape[1]), commands.reshape(-1, 1, self.nu))
        ends = ends[0, :, 0].reshape(count, columns, -1)
        slopes = self._tangent.difference(ends[:, :1], ends[:, 1:])  # (T, columns - 1, ndx)
        a = np.tile(self._tangent.constant_rows, (count, 1, 1))
        a[:, :, moved] += slopes[:, :len(moved)].transpose(0, 2, 1) / STEP
        b = slopes[:, len(moved):].transpose(0, 2, 1) / down[:, None, :]
        return a, np.ascontiguousarray(b)

    def _from(self, starts: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return states (N, H, nx) from N starts (N, nx) under `actions` (N, H, nu); a buffer."""
        self._check(starts, actions)
        self.periods += len(starts) * actions.shape[1]
        return self._alone.run(starts, actions)[0][0]

    def _check(self, x: np.ndarray, u: np.ndarray) -> None:
        """ShapeError for states (nx,) or (N, nx) and commands (N, H, nu) that are none of the model's, or do not fit together."""
        if x.shape[-1] != self.state_space.nx or u.shape[-1] != self.nu:
            raise ShapeError(f"SimulatorModel: expected states of {self.state_space.nx} and commands of {self.nu} entries, got "
                             f"{x.shape[-1]} and {u.shape[-1]}")
        if u.ndim != 3 or not u.shape[0] or not u.shape[1] or x.shape[:-1] not in ((), u.shape[:1]):
            raise ShapeError("SimulatorModel: expected one state, or one for each of N plans (N, H, nu) of at least one period, got "
                             f"{x.shape} and {u.shape}")


def _without_idle_work(model: mujoco.MjModel, space: PhysicsSpace) -> mujoco.MjModel:
    """Return the model, or a copy that leaves out what changes no bit of the motion: sensors that no reading is of (a tenth of a
    humanoid's step), the search for islands of constraints where all that moves is one tree, which is one island (a tenth again), and the
    search for contacts where no two shapes can touch (a sixth of an arm's).
    """
    off, disable = 0, mujoco.mjtDisableBit
    if "sensordata" not in space.fields:
        off |= int(disable.mjDSBL_SENSOR)
    if model.ntree == 1:
        off |= int(disable.mjDSBL_ISLAND)
    if not may_touch(model):
        off |= int(disable.mjDSBL_CONTACT)
    if not off:
        return model
    model = copy.copy(model)
    model.opt.disableflags |= off
    return model


def _check_layout(model: mujoco.MjModel, variants: Sequence[mujoco.MjModel]) -> None:
    """Raise ConfigurationError for a variant that is not of the model's layout: MuJoCo's threads would end the process."""
    try:
        Batch(model, len(variants), 1).set_models(list(variants))
    except mujoco.FatalError as error:
        raise ConfigurationError(f"SimulatorModel: variants have all of the model's bodies, joints, shapes, ...: {error}") from error


class _Step(torch.autograd.Function):
    """A step whose backward pass multiplies by the finite differences."""

    @staticmethod
    def forward(x: Tensor, u: Tensor, model: SimulatorModel) -> Tensor:
        return model.step(x.detach(), u.detach())

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
        x, u, model = inputs
        ctx.save_for_backward(x, u, output)
        ctx.model = model

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        x, u, y = ctx.saved_tensors
        space, batch = ctx.model.state_space, upstream.shape[:-1]
        wide_x, wide_u = x.expand(*batch, x.shape[-1]).reshape(-1, x.shape[-1]), u.expand(*batch, u.shape[-1]).reshape(-1, u.shape[-1])
        a, b = (torch.from_numpy(found) for found in ctx.model.linearize(wide_x.double().numpy(), wide_u.double().numpy()))
        with torch.enable_grad():
            still = torch.zeros(len(wide_x), space.ndx, dtype=y.dtype, requires_grad=True)
            moved = space.integrate(y.reshape(-1, y.shape[-1]).detach(), still)
            along, = torch.autograd.grad(moved, still, upstream.reshape(-1, y.shape[-1]))  # (n, ndx) the gradient on y's tangent
            here = wide_x.detach().clone().requires_grad_()
            tangent = space.difference(wide_x.detach(), here)
            back, = torch.autograd.grad(tangent, here, torch.einsum("nij,ni->nj", a.to(y.dtype), along))
        grad_u = torch.einsum("nij,ni->nj", b.to(y.dtype), along)
        return _summed(back.reshape(*batch, -1), x), _summed(grad_u.reshape(*batch, -1), u), None


def _summed(gradient: Tensor, like: Tensor) -> Tensor:
    """Return the gradient for a tensor that was broadcast."""
    while gradient.ndim > like.ndim:
        gradient = gradient.sum(0)
    for dimension, size in enumerate(like.shape):
        if size == 1 and gradient.shape[dimension] != 1:
            gradient = gradient.sum(dimension, keepdim=True)
    return gradient
