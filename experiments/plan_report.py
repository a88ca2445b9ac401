"""What a person wants to know of plans: what they cost by term, which limits bind, whether they foresaw what came, and what they left."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dynamics.state_space import StateSpace
from planners.cost import Cost
from planners.evaluation import Evaluator
from planners.icem import ICEM, ICEMConfig
from planners.plan import Plan
from planners.planner import PlannerConfig
from policies.receding_horizon import RecedingHorizonPolicy
from robots.command import Command, CommandSpec
from robots.observation import Observation

OFFLINE_POPULATION, OFFLINE_ROUNDS = 500, 60


def print_setting(console: Console, planner: str, config: PlannerConfig, differences: Sequence[str], machine: Sequence[str]) -> None:
    """Print how `planner` is set, how the model planned through differs from the machine, and how that was altered behind its back."""
    setting = ", ".join(f"{field.name} {getattr(config, field.name)}" for field in dataclasses.fields(config))
    console.print(f"{planner}: {setting}", highlight=False)
    console.print("planned through: " + ("; ".join(differences) or "the machine's own model, unchanged"), highlight=False)
    if machine:
        console.print(f"the machine: {', '.join(machine)} of its own; the planner is not told", highlight=False)


def score_words(scores: Sequence[float]) -> str:
    """Return what the episodes scored, in words."""
    spread = f", from {min(scores):.2f} to {max(scores):.2f}" if len(scores) > 1 else ""
    return f"score: median {np.median(scores):.2f}{spread} over {len(scores)} episode(s)"


class PlanLog:
    """A receding-horizon policy that remembers every state it planned from, and every plan."""

    def __init__(self, policy: RecedingHorizonPolicy) -> None:
        self._policy = policy
        self.provenance = policy.provenance
        self.states: list[Tensor] = []
        """(nx,) each."""
        self.plans: list[Plan] = []
        self.actions: list[np.ndarray] = []
        """(nu,) what was commanded."""
        self.plan_seconds: float | None = None

    def reset(self, seed: int) -> None:
        self._policy.reset(seed)
        self.states, self.plans, self.actions = [], [], []

    def act(self, observation: Observation) -> Command:
        state = self._policy.state(observation)
        command = self._policy.act_in(state)
        self.states.append(state)
        self.plans.append(self._policy.plan)
        self.actions.append(command.values)
        self.plan_seconds = self._policy.plan_seconds
        return command

    @property
    def milliseconds(self) -> np.ndarray:
        """(T,) time of every plan [ms]."""
        return np.array([plan.report.seconds * 1e3 for plan in self.plans])

    @property
    def rounds(self) -> np.ndarray:
        """(T,) iterations of every plan."""
        return np.array([plan.report.iterations for plan in self.plans])

    @property
    def effective(self) -> np.ndarray:
        """(T,) candidates that shaped every plan."""
        return np.array([plan.report.effective_samples for plan in self.plans])


@dataclass(frozen=True)
class Foresight:
    """What plans expected beside what came."""

    expected: float
    """Cost of a plan, median over the episode."""
    achieved: float
    """Cost of the same stretch as it was lived, planned anew in every period; the same plans."""
    improved: float
    """Share of plans whose stretch was lived at no more than their cost."""
    state_error: float
    """Largest entry of the difference between the next state and the one expected, median."""

    def table(self, log: PlanLog) -> Table:
        """Return it for a terminal, with the terms that plans pay and the share of periods in which each limit bound."""
        table = Table(title="the plans", show_header=False)
        table.add_row("cost expected of a plan, median", f"{self.expected:.5g}")
        table.add_row("  and lived, planning anew in every period", f"{self.achieved:.5g}")
        table.add_row("  lived at no more than expected", f"{self.improved:.0%}")
        table.add_row("next state, off by at most", f"{self.state_error:.3g}")
        for name in log.plans[0].report.cost_by_term:
            paid = np.median([plan.report.cost_by_term.get(name, np.nan) for plan in log.plans])
            table.add_row(f"expected of {name!r}", f"{paid:.5g}")
        limits = [plan.report.active_limits for plan in log.plans if plan.report.active_limits]
        if limits:
            table.add_row("on a limit, by command", ", ".join(f"{share:.0%}" for share in np.mean(limits, axis=0)))
        failed = sum(plan.report.nonfinite for plan in log.plans)
        table.add_row("candidates that diverged", f"{failed} of {sum(plan.report.samples for plan in log.plans)}")
        return table


def foresight(log: PlanLog, cost: Cost, space: StateSpace) -> Foresight:
    """Return what the plans of one episode expected beside what came. Plans whose stretch the episode does not cover are left out."""
    states = torch.stack(log.states).double()  # (T, nx)
    actions = torch.from_numpy(np.array(log.actions))
    charged = cost.running(states, actions)
    expected, achieved, errors = [], [], []
    for t, plan in enumerate(log.plans[:-1]):
        errors.append(float(space.difference(plan.states[1].double(), states[t + 1]).abs().max()))
        end = t + len(plan.actions)
        if end < len(states):
            expected.append(sum(plan.report.cost_by_term.values()))
            achieved.append(float(charged[t:end].sum() + cost.terminal(states[end])))
    if not expected:
        return Foresight(float("nan"), float("nan"), float("nan"), float(np.median(errors)) if errors else float("nan"))
    lived = np.array(achieved) <= np.array(expected) + 1e-9 * np.abs(expected)
    return Foresight(float(np.median(expected)), float(np.median(achieved)), float(lived.mean()), float(np.median(errors)))


def offline_cost(evaluator: Evaluator, command: CommandSpec, control_dt: float, plan: Plan, seed: int) -> float:
    """Return the least cost that iCEM finds from where `plan` begins with OFFLINE_POPULATION candidates in OFFLINE_ROUNDS rounds."""
    config = ICEMConfig(horizon=len(plan.actions), population=OFFLINE_POPULATION, iterations=OFFLINE_ROUNDS, elites=25, decay=1.0)
    found = ICEM(evaluator, command, control_dt, config).plan(plan.states[0], None, torch.Generator().manual_seed(seed))
    return min(found.cost, plan.cost)
