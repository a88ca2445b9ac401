"""Planning beside an arm: what a run learned plans in a process of its own, for as long as it takes, while the arm goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dynamics.workers import Workers, checked_threads
from experiments.arm_reaching import reaching_model, reaching_planner
from experiments.arm_robots import CLIENTS
from experiments.arm_run import ArmRun
from hw_bridge.reaching import offset_command, reaching_state_space
from policies.asynchronous.config import AsynchronousConfig
from policies.asynchronous.plan_memory import PlanSizes
from policies.asynchronous.policy import AsynchronousPolicy
from policies.asynchronous.process_worker import ProcessWorker
from policies.asynchronous.request_planner import RequestPlanner
from policies.planning_ahead import PlanningAhead
from policies.policy import Policy
from robots.arms.arm import Arm

PATIENCE = 10.0
"""Longest wait for a plan while the arm waits too, at rest [s]."""
ADVICE = "plan on more cores (--threads) or on a faster computer, and let nothing else run on it"
"""Against a planner that is too slow: what it plans with was learned and is certified as it is."""
_MODEL = "model."


@dataclass(frozen=True)
class RunPlanner:
    """Makes what plans through a run's model, in the process that is to plan."""

    path: Path
    """Folder of the run."""
    threads: int | None = None
    """Cores to plan with; None: all but one, which the servo loop needs."""

    def __call__(self) -> RequestPlanner:
        """Return it; StoreError where the run learned nothing."""
        run = ArmRun.open(self.path)
        arm, config = CLIENTS[run.config.robot].arm(), run.config.reaching
        model = reaching_model(arm, config)
        tensors = run.learned().tensors
        model.load_tensors({name.removeprefix(_MODEL): value for name, value in tensors.items() if name.startswith(_MODEL)})
        planner = reaching_planner(arm, config, model, Workers(cores_beside(self.threads)))
        return RequestPlanner(planner, model, offset_command(arm, config.reaching))


def cores_beside(threads: int | None) -> int:
    """Return on how many cores to plan where `threads` are wanted: by default on all but one, at least on one."""
    return max(checked_threads(None) - 1, 1) if threads is None else threads


@contextlib.contextmanager
def planning_beside(run: ArmRun, arm: Arm, threads: int | None) -> Iterator[AsynchronousPolicy]:
    """A context with a policy whose planner works in a process of its own. Where that is lost or too slow, the plan in hand is followed to
    its end, and then nothing is commanded any more: the supervisor brakes and holds the arm.
    """
    config, space = run.config.reaching, reaching_state_space(arm)
    sizes = PlanSizes(config.search.horizon, space.nx, space.ndx, arm.spec.nv)
    with ProcessWorker(RunPlanner(run.path, threads), sizes) as worker:
        yield AsynchronousPolicy(worker, space, offset_command(arm, config.reaching), config.reaching.period, "icem",
                                 AsynchronousConfig(patience=PATIENCE, advice=ADVICE))


def planning_words(policy: Policy) -> str:
    """Return in a line whether the plans of the last episode kept up with the arm; empty of a policy that does not know."""
    if isinstance(policy, AsynchronousPolicy):
        return policy.report.words()
    if not isinstance(policy, PlanningAhead):
        return ""
    if not policy.late:
        return "every plan was ready in time"
    return (f"{policy.late} of {policy.plans} plans were not ready in time, and the arm was without a new command meanwhile: "
            "--asynchronous plans beside the arm")
