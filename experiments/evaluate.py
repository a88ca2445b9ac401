"""Any robot by name, driven by a random policy or by what a run has learned; nothing is learned from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dynamics.matmul import enable_fast_float32
from episodes.episode import Episode
from episodes.store import EpisodeStore
from experiments.build import build_run
from experiments.config import RunConfig
from experiments.quiet import Quiet
from experiments.run_directory import RunDirectory
from policies.episode_loop import EpisodeSource, run_episode
from policies.model_based import Learner
from policies.policy import Policy
from policies.simple import RandomPolicy
from robots.errors import ConfigurationError, StoreError
from sim.catalog import make_task


@dataclass(frozen=True)
class Evaluation:
    """What a policy earned."""

    task: str
    policy: str
    mode: str | None
    """Command mode; None: the robot's default."""
    seeds: list[int]
    returns: list[float]
    steps: list[int]
    plan_milliseconds: list[float | None]
    """Median planning time of every episode [ms]."""


def evaluate(task_name: str, policy: str, episodes: int, steps: int | None, seed: int, mode: str | None, keep: Path | None,
             threads: int | None, console: Console) -> tuple[Evaluation, list[Episode]]:
    """Live `episodes` episodes of a task under 'random' or the run in folder `policy`; return what they earned, and them.

    Raises UserError for an unknown task, a run of another task, or a run without a model yet.
    """
    task = make_task(task_name)
    if episodes < 1:
        raise ConfigurationError(f"--episodes: expected at least 1, got {episodes}")
    if not 0 <= seed < 2**32 - episodes:
        raise ConfigurationError(f"--seed: expected 0 <= seed < 2^32 - episodes, got {seed}")
    if steps is not None and steps < 1:
        raise ConfigurationError(f"--steps: expected at least 1 control period, got {steps}")
    store = EpisodeStore(keep) if keep is not None else None
    if policy == "random":
        with task.robot() as robot:
            command = robot.spec.command(mode)
            source = EpisodeSource(robot, task.state_space, command, task.cost, task.name)
            lived = _live(source, RandomPolicy(command), None, episodes, steps or task.episode_steps, seed, console)
    else:
        enable_fast_float32()
        run = RunDirectory.open(Path(policy))
        _check(run.config, task.name, mode)
        mode = run.config.mode
        checkpoint = run.load()
        if checkpoint is None:
            raise StoreError(f"{policy}: this run has no checkpoint yet; go on with it first: reflexarc resume {policy}")
        with build_run(run.config, run.store(), Quiet(), threads) as built:
            built.learner.restore(checkpoint.tensors, checkpoint.records)
            if built.learner.model.fits == 0:
                raise StoreError(f"{policy}: its model was never fitted; go on with it first: reflexarc resume {policy}")
            lived = _live(built.learner.source, _acting(built.learner, run.config), built.learner.model.fits, episodes,
                          steps or run.config.learning.episode_steps, seed, console)
    for episode in lived if store is not None else []:
        store.append(episode)
    return Evaluation(task.name, policy, mode, [e.metadata.seed for e in lived], [e.total_return for e in lived],
                      [e.steps for e in lived], [_median_plan(e) for e in lived]), lived


def _acting(learner: Learner, config: RunConfig) -> Policy:
    if learner.policy is not None:
        return learner.policy
    return learner.planning_policy(config.learning.replan_every if config.algorithm == "1.5" else config.search.horizon)


def _check(config: RunConfig, task: str, mode: str | None) -> None:
    if config.task != task:
        raise ConfigurationError(f"the run learned {config.task!r}, not {task!r}: its model knows another robot. Evaluate it with: "
                                 f"reflexarc evaluate {config.task} --policy ...")
    if mode is not None and mode != config.mode:
        raise ConfigurationError(f"--mode: the run learned with mode {config.mode or 'default'!r}, got {mode!r}; leave --mode out")


def _live(source: EpisodeSource, policy: Policy, version: int | None, episodes: int, steps: int, seed: int,
          console: Console) -> list[Episode]:
    numbers = track(range(episodes), "episodes", console=console, transient=True, disable=not console.is_terminal)
    return [run_episode(source, policy, steps, seed=seed + i, trial=i, provenance=policy.provenance, model_version=lambda: version)
            for i in numbers]


def _median_plan(episode: Episode) -> float | None:
    return float(np.median(episode.planned_seconds) * 1e3) if len(episode.planned_seconds) else None


def print_evaluation(console: Console, result: Evaluation) -> None:
    """Print what was earned: a line an episode, then median and spread."""
    table = Table(title=f"{result.task} under {result.policy}")
    for column in ("episode", "seed", "steps", "return", "plan [ms]"):
        table.add_column(column, justify="right")
    for i, (seed, steps, earned, plan) in enumerate(zip(result.seeds, result.steps, result.returns, result.plan_milliseconds, strict=True)):
        table.add_row(str(i), str(seed), str(steps), f"{earned:.2f}", "-" if plan is None else f"{plan:.1f}")
    console.print(table)
    returns = np.array(result.returns)
    console.print(f"return: median {np.median(returns):.2f}, from {returns.min():.2f} to {returns.max():.2f}, mean {returns.mean():.2f}, "
                  f"std {returns.std():.2f} over {len(returns)} episodes", highlight=False)
