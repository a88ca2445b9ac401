"""What candidate plans cost under a learned model: whole-horizon rollouts, shared between threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dynamics.forward import FoldedNetwork
from dynamics.fused import WHAT_IT_CANNOT, FusedRollouts, PackedNetwork, supports
from dynamics.kernel_choice import KERNELS, trusted_kernel
from dynamics.model import DynamicsModel, EnsembleModel
from dynamics.propagation import Propagation, RolloutNoise, make_propagation
from dynamics.rollout import Rollouts
from dynamics.workers import Workers, portions
from planners.cost import Cost
from planners.risk import make_risk
from robots.errors import ConfigurationError, UnknownNameError

LARGEST_SIZES = 12
"""Batch sizes whose buffers are kept from one evaluation to the next."""
STATES_PER_PORTION = 8192
"""Predicted states that one thread charges at a time."""
KERNEL_CHOICES = ("auto", *KERNELS, "torch", "cuda")


@dataclass(frozen=True)
class EvaluationConfig:
    """How plans are rolled out and judged."""

    propagation: str = "TSinf"
    """E, DS, TS1, TSinf or MM."""
    particles: int = 5
    """Rollouts of each plan; with TS1 and TSinf a multiple of the members."""
    common_random_numbers: bool = True
    """All candidates meet the same noise: they are compared under equal luck, so that far fewer particles rank as well."""
    risk: str = "mean"
    """mean, worst, cvar:SHARE or exponential:THETA over the particles."""
    kernel: str = "auto"
    """float32 or bfloat16: compiled for this processor; torch: works everywhere; cuda: torch on a GPU; auto: the first of bfloat16,
    float32 and torch that this processor and the model allow (`reflexarc bench ranking`: bfloat16 ranks plans as float32 does)."""
    rows_per_portion: int = 320
    """Particles x candidates that one thread rolls out at a time with torch; part of the result's arithmetic, the thread count
    is not."""

    def __post_init__(self) -> None:
        make_propagation(self.propagation)
        make_risk(self.risk)
        if self.kernel not in KERNEL_CHOICES:
            raise UnknownNameError("kernel", self.kernel, KERNEL_CHOICES)
        if self.particles < 1:
            raise ConfigurationError(f"particles: expected at least 1, got {self.particles}")
        if self.rows_per_portion < 1:
            raise ConfigurationError(f"rows_per_portion: expected at least 1, got {self.rows_per_portion}")


@dataclass(frozen=True)
class Explanation:
    """What one plan is expected to do."""

    states: Tensor | None
    """(H + 1, nx) mean over the particles."""
    states_std: Tensor | None
    """(H + 1, nx) their spread."""
    cost_by_term: dict[str, float]


NOTHING_EXPLAINED = Explanation(None, None, {})
"""Where nobody asked."""


class Evaluator(Protocol):
    """What plans cost under some model, learned or simulated."""

    model: DynamicsModel
    cost: Cost
    dtype: torch.dtype
    """Of the states that it computes with."""

    def costs(self, x0: Tensor, actions: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the risk-adjusted costs (N,) of plans actions (N, H, nu) from x0 (nx,); not finite becomes +inf. The plans are a buffer,
        which the planner writes over later."""
        ...

    def explain(self, x0: Tensor, actions: Tensor) -> Explanation:
        """Return what the plan actions (H, nu) is expected to do and pay, by term: the mean over the particles, without model noise."""
        ...


class PlanEvaluator:
    """Costs of plans from x0 under a snapshot of a model; make a new one (or `refresh`) after a refit.

    ConfigurationError where the configured kernel cannot be used here, or not for this model.
    """

    dtype = torch.float32

    def __init__(self, model: EnsembleModel, cost: Cost, config: EvaluationConfig, workers: Workers) -> None:
        self.model, self.cost, self.config = model, cost, config
        self.workers = workers
        self._propagation: Propagation = make_propagation(config.propagation)
        self._propagation.check(config.particles, model.members)
        self._risk = make_risk(config.risk)
        self._portion = max(1, config.rows_per_portion // config.particles)
        self._network: FoldedNetwork | None = None
        self._packed: PackedNetwork | None = None
        self._fused: dict[tuple[int, int], FusedRollouts] = {}
        """By candidates and horizon; what was used last is the last."""
        self._free: dict[int, list[Rollouts]] = {}
        """torch's buffers that no thread is using, by the number of candidates; what was used last is the last."""
        self._take_snapshot()  # a kernel that cannot be used is refused here, not after the first trial

    def refresh(self) -> None:
        """Take a new snapshot of the model's weights before the next evaluation."""
        self._network, self._packed, self._fused, self._free = None, None, {}, {}

    @property
    def kernel(self) -> str:
        """What rolls out the present model: float32, bfloat16, torch or cuda."""
        self._take_snapshot()
        if self._packed is not None:
            return self._packed.kernel.name
        return "cuda" if self.config.kernel == "cuda" else "torch"

    @torch.no_grad()
    def costs(self, x0: Tensor, actions: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the risk-adjusted costs (N,) of plans actions (N, H, nu) from x0 (nx,); not finite becomes +inf."""
        count, horizon, _ = actions.shape
        noise = self._propagation.noise(horizon, self.config.particles, count, self.model.state_space.no, generator,
                                        self.config.common_random_numbers)
        states = self._states(x0, actions, noise)

        def charge(piece: slice) -> Tensor:
            particle_costs = self._particle_costs(x0, states[:, :, piece], actions[piece])
            # a risk measure may overlook a particle that diverged (the mean of the worst does not see -inf)
            return torch.where(particle_costs.isfinite().all(0), self._risk(particle_costs), torch.inf)

        pieces = portions(count, max(1, STATES_PER_PORTION // (horizon * self.config.particles)))
        costs = torch.cat(self.workers.map(charge, pieces))
        return torch.where(costs.isfinite(), costs, torch.inf)

    @torch.no_grad()
    def explain(self, x0: Tensor, actions: Tensor) -> Explanation:
        """Return what the plan actions (H, nu) is expected to do and pay, by term: the mean over the particles, without model noise."""
        noise = self._propagation.noise(len(actions), self.config.particles, 1, self.model.state_space.no, None, True)
        lived = self._states(x0, actions.unsqueeze(0), noise)[:, :, 0]  # (H, P, nx)
        return explained(self.cost, x0, lived, actions)

    @torch.no_grad()  # here again: the caller's setting does not hold in the workers' threads
    def _particle_costs(self, x0: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        return particle_costs(self.cost, x0, states, actions)

    def _states(self, x0: Tensor, actions: Tensor, noise: RolloutNoise) -> Tensor:
        """Return states (H, P, N, nx) of plans actions (N, H, nu); a buffer of the kernel's may be overwritten by the next call."""
        self._take_snapshot()
        if self._packed is not None:
            return self._fused_rollouts(*actions.shape[:2]).states(x0, actions, noise)
        pieces = [slice(0, len(actions))] if self.config.kernel == "cuda" else portions(len(actions), self._portion)
        for size in {piece.stop - piece.start for piece in pieces}:
            self._free[size] = self._free.pop(size, [])
        _forget_oldest(self._free)
        states = torch.empty(actions.shape[1], self.config.particles, len(actions), len(x0))

        def roll_out(piece: slice) -> None:
            free = self._free[piece.stop - piece.start]
            try:
                rollouts = free.pop()
            except IndexError:
                rollouts = Rollouts(self.model, self._propagation, self.config.particles, piece.stop - piece.start, self._network)
            for t, x in enumerate(rollouts.states(x0, actions[piece], noise.candidates(piece))):
                states[t, :, piece] = x
            free.append(rollouts)

        self.workers.map(roll_out, pieces)
        return states

    def _fused_rollouts(self, candidates: int, horizon: int) -> FusedRollouts:
        key = (candidates, horizon)
        rollouts = self._fused.pop(key, None)
        if rollouts is None:
            rollouts = FusedRollouts(self._packed, self._propagation, self.config.particles, candidates, horizon, self.workers)
        self._fused[key] = rollouts
        _forget_oldest(self._fused)
        return rollouts

    def _take_snapshot(self) -> None:
        """Have a snapshot of the model's weights, packed for the kernel where one is used."""
        if self._network is not None:
            return
        network, chosen = self.model.folded(), self.config.kernel
        if chosen == "cuda":
            if not torch.cuda.is_available():
                raise ConfigurationError("kernel 'cuda' cannot be used: torch sees no GPU here; use kernel 'auto'")
            network = network.to(torch.device("cuda"))
        elif chosen != "torch":
            names = ("bfloat16", "float32") if chosen == "auto" else (chosen,)
            kernel = next(filter(None, map(trusted_kernel, names)), None)
            usable = supports(network, self._propagation)
            if kernel is not None and usable:
                self._packed = PackedNetwork(network, kernel)
            elif chosen != "auto":
                raise ConfigurationError(f"kernel {chosen!r} cannot be used: " + (
                    "this processor lacks the instructions" if kernel is None else f"{WHAT_IT_CANNOT}, which only torch does")
                    + "; use kernel 'auto' or 'torch'")
        self._network = network


def particle_costs(cost: Cost, x0: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    """Return costs (P, n) of particles that went through states (H, P, n, nx) from x0 (nx,) under plans actions (n, H, nu)."""
    commands = actions.transpose(0, 1).unsqueeze(1)  # (H, 1, n, nu)
    begun, goes_on = cost.charge(x0.expand_as(states[0, :1]), commands[0])  # (1, n)
    terminal = cost.terminal(states[-1])
    if len(states) == 1:
        return begun + (terminal if goes_on is None else goes_on * terminal)
    charged, survives = cost.charge(states[:-1], commands[1:])  # (H - 1, P, n)
    if goes_on is None or survives is None:
        return begun + charged.sum(0) + terminal
    alive = torch.cat([goes_on.expand_as(survives[:1]), survives]).cumprod(0)  # probability to live to see x_1, ..., x_H
    return begun + (alive[:-1] * charged).sum(0) + alive[-1] * terminal


def explained(cost: Cost, x0: Tensor, lived: Tensor, actions: Tensor) -> Explanation:
    """Return what particles pay, by term, that went through `lived` (H, P, nx) from x0 (nx,) under the plan actions (H, nu)."""
    states = torch.cat([x0.expand(1, *lived.shape[1:]), lived])
    charged = cost.terms(states[:-1], actions.unsqueeze(1))
    weight = torch.ones(len(states), states.shape[1])  # (H + 1, P) probability that the episode still goes on
    survival = cost.survival(states[:-1], actions.unsqueeze(1))
    if survival is not None:
        weight[1:] = survival.cumprod(0)
    by_term = {name: float((weight[:-1] * value).mean(1).sum()) for name, value in charged.items()}
    by_term["terminal"] = float((weight[-1] * cost.terminal(states[-1])).mean())
    return Explanation(states.mean(1), states.std(1, correction=0), by_term)


def _forget_oldest(buffers: dict) -> None:
    """Keep the LARGEST_SIZES entries that were put in last."""
    while len(buffers) > LARGEST_SIZES:
        del buffers[next(iter(buffers))]
