"""A plan that was decided on: which command it has for every moment, and where it expects the robot then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dynamics.state_space import StateSpace
from robots.command import CommandSpec


@dataclass(frozen=True, eq=False)
class CommittedPlan:
    """A plan and its place on the robot's own clock (`Observation.stamp_ns`).

    Its actions hold for a period each. Before its beginning it has its first one, after its end its last one; who acts asks `spent_at`
    and decides: what moves at a plan's end moves on, and no plan says where.
    """

    start_ns: int
    """When the first action begins [ns]."""
    observed_ns: int
    """When the state was observed that it was planned from [ns]."""
    period_ns: int
    """Of an action [ns]."""
    actions: np.ndarray
    """(H, nu)"""
    states: np.ndarray | None
    """(H + 1, nx) expected at the actions' beginnings and at the end; None where the planner does not tell."""
    gains: np.ndarray | None
    """(H, nu, ndx) feedback about the expected states, as `Plan.gains`."""
    seconds: float = 0.0
    """Time that planning took [s]."""

    @property
    def end_ns(self) -> int:
        """When the last action ends [ns]."""
        return self.start_ns + len(self.actions) * self.period_ns

    def step_at(self, time_ns: int) -> int:
        """Return which action's period `time_ns` [ns] lies in: negative before the beginning, H or more after the end."""
        return (time_ns - self.start_ns) // self.period_ns

    def spent_at(self, time_ns: int) -> bool:
        """Return whether the plan has ended at `time_ns` [ns]."""
        return time_ns >= self.end_ns

    def action_at(self, time_ns: int) -> np.ndarray:
        """Return the action (nu,) at `time_ns` [ns]."""
        return self.actions[self._inside(self.step_at(time_ns))]

    def expected_at(self, time_ns: int, space: StateSpace) -> np.ndarray:
        """Return the state (nx,) expected at `time_ns` [ns], between two of the plan's on the shortest way from one to the other; the
        first before its beginning, the last after its end. Only where the plan has states.
        """
        at = min(max((time_ns - self.start_ns) / self.period_ns, 0.0), float(len(self.actions)))
        step = self._inside(int(at))
        before, after = torch.from_numpy(self.states[step]), torch.from_numpy(self.states[step + 1])
        return space.integrate(before, (at - step) * space.difference(before, after)).numpy()

    def feedback_at(self, time_ns: int) -> np.ndarray | None:
        """Return the gains (nu, ndx) at `time_ns` [ns]; None where there are none, or none any more."""
        if self.gains is None or self.states is None or self.spent_at(time_ns):
            return None
        return self.gains[self._inside(self.step_at(time_ns))]

    def command_for(self, begins_ns: int, x: np.ndarray, space: StateSpace, command: CommandSpec) -> np.ndarray:
        """Return the command (nu,) inside the box for the control period that begins at `begins_ns` [ns] in state x (nx,):
        clip(action + gain @ difference(expected, x)).

        The action is the one in whose time the period's middle lies, so that stamps that jitter do not jump between two.
        """
        middle = begins_ns + self.period_ns // 2
        values, gain = self.action_at(middle), self.feedback_at(middle)
        if gain is not None:
            expected = torch.from_numpy(self.expected_at(begins_ns, space))
            values = values + gain @ space.difference(expected, torch.from_numpy(x)).numpy()
        return command.clip(values)

    def _inside(self, step: int) -> int:
        return min(max(step, 0), len(self.actions) - 1)


@dataclass(frozen=True, eq=False)
class Way:
    """What was decided on for the next N periods, from the robot's state to where a new plan is to begin."""

    actions: np.ndarray
    """(N, nu)"""
    states: np.ndarray
    """(N + 1, nx) about which there is feedback; any state where there is none."""
    gains: np.ndarray
    """(N, nu, ndx) zero where there are none."""

    @classmethod
    def nowhere(cls, x: np.ndarray, space: StateSpace, nu: int) -> Way:
        """The way of no periods from x (nx,): a plan is to begin at once."""
        return cls(np.zeros((0, nu)), x[None], np.zeros((0, nu, space.ndx)))

    def joining(self, actions: np.ndarray, states: np.ndarray | None, gains: np.ndarray | None, periods: int) -> Way:
        """Return the way that goes along another plan, of `actions` (H, nu), `states` (H + 1, nx) and `gains` (H, nu, ndx), from that one's
        beginning on, which lies `periods` before the way's end; never in the first period, which is lived already.
        """
        joined = Way(self.actions.copy(), self.states.copy(), self.gains.copy())
        begins = len(self.actions) - periods
        for period in range(max(begins, 1), len(self.actions)):
            step = period - begins
            joined.actions[period], joined.gains[period] = actions[min(step, len(actions) - 1)], 0.0
            if step < len(actions) and gains is not None and states is not None:
                joined.states[period], joined.gains[period] = states[step], gains[step]
        return joined


def way_along(plans: Sequence[CommittedPlan], now_ns: int, x: np.ndarray, applied: np.ndarray, periods: int, space: StateSpace) -> Way:
    """Return the way from x (nx,) at `now_ns` [ns] over `periods`, the first of them under the command `applied` (nu,), then along `plans`,
    each from its beginning until the next one's; after the end of the last its last action holds on.
    """
    period = plans[0].period_ns
    actions, states = np.zeros((periods, len(applied))), np.tile(x, (periods + 1, 1))
    gains = np.zeros((periods, len(applied), space.ndx))
    actions[0] = applied
    for step in range(1, periods):
        begins = now_ns + step * period
        plan = plan_at(plans, begins)
        middle = begins + period // 2
        actions[step], gain = plan.action_at(middle), plan.feedback_at(middle)
        if gain is not None:
            states[step], gains[step] = plan.expected_at(begins, space), gain
    return Way(actions, states, gains)


def plan_at(plans: Sequence[CommittedPlan], begins_ns: int) -> CommittedPlan:
    """Return the one of `plans`, in the order of their beginnings, that decides the period that begins at `begins_ns` [ns]: the newest
    that has begun by its middle, or the first where none has.
    """
    middle = begins_ns + plans[0].period_ns // 2
    return next((plan for plan in reversed(plans) if plan.start_ns <= middle), plans[0])
