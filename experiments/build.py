"""Puts the parts of a run together from its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Self

from dynamics.catalog import make_model
from dynamics.reward import RewardModel
from dynamics.value import ValueModel
from dynamics.workers import Workers
from episodes.store import EpisodeStore
from experiments.config import RunConfig
from planners.catalog import make_planner
from planners.evaluation import PlanEvaluator
from planners.learned_cost import LearnedCost
from policies.episode_loop import EpisodeSource
from policies.model_based import Learner, LearningListener
from policies.neural_policy import NeuralPolicy
from sim.catalog import make_task
from sim.task import Task


@dataclass(frozen=True)
class BuiltRun:
    """A learner with the robot and the threads that belong to it; a context manager that releases both."""

    task: Task
    learner: Learner
    workers: Workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.learner.source.robot.close()
        self.workers.close()


def build_run(config: RunConfig, store: EpisodeStore, listener: LearningListener, threads: int | None = None) -> BuiltRun:
    """Return a learner for `config`, its episodes kept in `store`; unknown names and unfit settings are refused here."""
    task = make_task(config.task)
    workers = Workers(threads)
    robot = task.robot()
    command = robot.spec.command(config.mode)
    space, control_dt = task.state_space, robot.spec.control_dt
    model = make_model(config.model, space, command.nu, control_dt, config.ensemble, config.seed)
    reward_model = RewardModel(space, command.nu, config.reward, config.seed) if task.cost is None else None
    value_model = ValueModel(space, config.value, config.seed) if task.cost is None else None
    cost = task.cost if task.cost is not None else LearnedCost(reward_model, value_model, command)
    evaluator = PlanEvaluator(model, cost, config.evaluation, workers)
    planner = make_planner(config.planner, evaluator, command, control_dt, config.search)
    policy = NeuralPolicy(space, command, config.policy_search.hidden, config.seed) if config.algorithm == "2.0" else None
    source = EpisodeSource(robot, space, command, task.cost, task.name)
    learner = Learner(source, store, model, reward_model, value_model, planner, policy, config.learning, config.policy_search,
                      config.seed, listener)
    return BuiltRun(task, learner, workers)
