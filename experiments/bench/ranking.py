"""How well few particles rank plans, and whether a plan found with them is as good: on models of our own tasks."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from scipy.stats import spearmanr
from torch import Tensor

from dynamics.catalog import LearnedModel, make_model
from dynamics.dataset import transition_data
from dynamics.fitting import FitConfig
from dynamics.kernel_choice import trusted_kernel
from dynamics.neural_ensemble import EnsembleConfig
from dynamics.workers import Workers
from experiments.bench.result import Bar, BenchResult, Cell, machine
from experiments.config import settings_for
from experiments.learn import learn, new_run
from planners.catalog import make_planner
from planners.cem import CEM, CEMConfig
from planners.cost import Cost
from planners.evaluation import EvaluationConfig, PlanEvaluator
from planners.icem import ICEM, ICEMConfig
from planners.sampling import SamplingPlanner
from robots.command import CommandSpec
from robots.errors import NumericalError
from sim.catalog import make_task

TRIALS = {"cartpole": 4, "reacher7": 3, "pendulum": 3}
"""Tasks, and how many trials each lives before its model is looked at: one of them random."""
ENSEMBLE = EnsembleConfig(hidden=(128, 128, 128), fit=FitConfig(batch_size=64, epochs=100, largest_updates=1200))
STATES, POPULATION = 20, 100
"""Lived states, and candidate plans from each."""
TRUTH_PARTICLES = 1000
TRUTH_PORTION = 50
"""Plans whose true cost is found at a time: bounds the memory."""
VARIANTS = {"20 independent": (20, False), "20 common": (20, True), "5 independent": (5, False), "5 common": (5, True)}
"""Particles, and whether all candidates meet the same noise."""
BEST_SHARE = 0.1
KERNEL_CORRELATION_BAR = 0.999
RETURN_STATES, WARM_STARTS = 20, 2
"""Lived states of the cart-pole that plans are judged from, and the periods before each that the planner has planned already."""
RETURN_SEARCH = CEMConfig(horizon=25, population=350, iterations=5, elites=35, smallest_variance=0.0)
"""The population and the iterations of mbrl-lib's cart-pole."""
SMALL_SEARCH = ICEMConfig(horizon=25, population=120, iterations=3, elites=12, beta=1.0)
"""A search that finds as good a plan with fewer candidates."""
STANDARD_ERRORS_BAR = 2.0
COLUMNS = ("model", "what", "mean", "standard error", "worst", "best 10 % in common")


@dataclass(frozen=True)
class Trained:
    """A task's model, fitted to a few episodes that its planner lived, and what it is looked at with."""

    model: LearnedModel
    cost: Cost
    command: CommandSpec
    control_dt: float
    lived: Tensor
    """(n, nx) states of the episodes."""
    states: Tensor
    """(STATES, nx) some of them."""
    population: Tensor
    """(STATES, POPULATION, H, nu) plans from there as the planner samples them in its first iteration."""

    def evaluator(self, particles: int, common: bool, kernel: str, workers: Workers) -> PlanEvaluator:
        """Return costs under TSinf, by so many particles."""
        config = EvaluationConfig("TSinf", particles, common, kernel=kernel)
        return PlanEvaluator(self.model, self.cost, config, workers)

    def costs(self, particles: int, common: bool, kernel: str, seed: int, workers: Workers) -> Tensor:
        """Return the costs (STATES, POPULATION) of the candidates; what is drawn depends on the seed and the state alone."""
        evaluator = self.evaluator(particles, common, kernel, workers)
        portion = TRUTH_PORTION if particles == TRUTH_PARTICLES else POPULATION
        costs = []
        for number, (x0, plans) in enumerate(zip(self.states, self.population, strict=True)):
            generator = torch.Generator().manual_seed(1000 * seed + number)
            costs.append(torch.cat([evaluator.costs(x0, some, generator) for some in plans.split(portion)]))
        return torch.stack(costs)


def rank_correlations(costs: Tensor, others: Tensor) -> np.ndarray:
    """Return Spearman's rank correlation (n,) of every row of costs (n, N) with that of the others; NumericalError for +inf."""
    if not (costs.isfinite().all() and others.isfinite().all()):
        raise NumericalError("ranking: a candidate's cost is not finite, the model has not learned enough to be looked at")
    return np.array([spearmanr(a, b).statistic for a, b in zip(costs.numpy(), others.numpy(), strict=True)])


def best_in_common(costs: Tensor, others: Tensor) -> float:
    """Return which share of the cheapest BEST_SHARE by costs (n, N) is among the cheapest by others, mean over the rows."""
    count = max(1, round(BEST_SHARE * costs.shape[1]))
    chosen, by_others = (set_of.topk(count, largest=False).indices.tolist() for set_of in (costs, others))
    return sum(len(set(a) & set(b)) for a, b in zip(chosen, by_others, strict=True)) / (count * len(chosen))


def sample_plans(planner: SamplingPlanner, count: int, generator: torch.Generator) -> Tensor:
    """Return plans (count, H, nu) as the planner draws them in its first iteration, about the middle of the box."""
    middle = ((planner.lower + planner.upper) / 2).expand(planner.parameterisation.parameters, -1)
    drawn: list[Tensor] = []
    while sum(map(len, drawn)) < count:
        sampled = planner.sample(planner.begin(middle.clone(), None), 0, generator).clamp(planner.lower, planner.upper)
        drawn.append(planner.parameterisation.actions(sampled).clamp(planner.lower, planner.upper))
    return torch.cat(drawn)[:count]


def some_states(lived: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` of the lived states (n, nx), each at most once."""
    return lived[torch.randperm(len(lived), generator=generator)[:count]]


def bench_ranking(console: Console, seeds: int, threads: int | None) -> BenchResult:
    """Compare the ranks that few particles give candidate plans with those of many, and the plans found with few with those of more.

    `seeds` is the number of noise seeds that the ranks are averaged over.
    """
    rows: list[tuple[Cell, ...]] = []
    gains, kernel_correlations, bars = [], [], []
    precise = "float32" if trusted_kernel("float32") is not None else "torch"
    coarse = "bfloat16" if trusted_kernel("bfloat16") is not None else None
    workers = Workers(threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for task, trials in TRIALS.items():
                trained = _train(task, trials, Path(folder), console, workers)
                found = _rank(trained, seeds, precise, workers)
                rows += [(task, name, *_summary(values), in_common) for name, (values, in_common) in found.items()]
                gains.append(float((found["5 common"][0] - found["20 independent"][0]).mean()))
                if coarse is not None:
                    both = [trained.costs(5, True, kernel, seed=1, workers=workers) for kernel in (precise, coarse)]
                    correlations = rank_correlations(*both)
                    kernel_correlations.append(float(correlations.mean()))
                    rows.append((task, f"{coarse} against {precise}", *_summary(correlations), best_in_common(*both)))
                if task == "cartpole":
                    for name, extra in _extra_costs(trained, precise, coarse or precise, workers).items():
                        error = float(extra.std(ddof=1) / len(extra) ** 0.5)
                        rows.append((task, f"cost of a plan: {name} ({coarse or precise}) - CEM, 20 independent", *_summary(extra), None))
                        bars.append(Bar(f"plan by {name} dearer than by CEM with 20 independent, in standard errors",
                                        float(extra.mean()) / error, STANDARD_ERRORS_BAR, at_least=False))
    finally:
        workers.close()
    console.print(f"rank correlation with {TRUTH_PARTICLES} independent particles, {STATES} states x {POPULATION} plans x {seeds} seeds; "
                  f"the plans' costs by {TRUTH_PARTICLES} particles, {RETURN_STATES} states", highlight=False)
    bars.insert(0, Bar("rank correlation of 5 common - 20 independent, least of the models", min(gains), 0.0, at_least=True))
    if kernel_correlations:
        bars.append(Bar(f"rank correlation of {coarse} with {precise}, least of the models", min(kernel_correlations),
                        KERNEL_CORRELATION_BAR, at_least=True))
    return BenchResult("ranking", COLUMNS, rows, bars, machine(threads))


def _train(name: str, trials: int, folder: Path, console: Console, workers: Workers) -> Trained:
    """Learn a task for a few trials, fit a model to all of them, and draw the states and plans that it is looked at with."""
    console.print(f"{name}: learning for {trials} trials", highlight=False)
    task = make_task(name)
    settings = settings_for(name, task.episode_steps)
    settings = replace(settings, learning=replace(settings.learning, trials=trials), ensemble=ENSEMBLE)
    run = new_run(settings, folder, name)
    learn(run, console, workers.threads)
    episodes = {trial: run.store().read(trial) for trial in range(trials)}
    with task.robot() as robot:
        command, control_dt = robot.spec.command(settings.mode), robot.spec.control_dt
    model = make_model(settings.model, task.state_space, command.nu, control_dt, settings.ensemble, settings.seed)
    model.fit(transition_data(episodes, task.state_space), workers)
    evaluator = PlanEvaluator(model, task.cost, settings.evaluation, workers)
    planner = make_planner(settings.planner, evaluator, command, control_dt, settings.search)
    generator = torch.Generator().manual_seed(0)
    lived = torch.from_numpy(np.concatenate([episode.x for episode in episodes.values()])).float()
    states = some_states(lived, STATES, generator)
    population = torch.stack([sample_plans(planner, POPULATION, generator) for _ in states])
    return Trained(model, task.cost, command, control_dt, lived, states, population)


def _rank(trained: Trained, seeds: int, kernel: str, workers: Workers) -> dict[str, tuple[np.ndarray, float]]:
    """Return for every variant the rank correlations with the truth (STATES,), mean over the seeds, and the best in common."""
    truth = trained.costs(TRUTH_PARTICLES, False, kernel, seed=0, workers=workers)
    found = {}
    for name, (particles, common) in VARIANTS.items():
        costs = [trained.costs(particles, common, kernel, seed, workers) for seed in range(1, seeds + 1)]
        correlations = np.mean([rank_correlations(truth, c) for c in costs], axis=0)
        found[name] = (correlations, float(np.mean([best_in_common(truth, c) for c in costs])))
    return found


def _extra_costs(trained: Trained, precise: str, quick: str, workers: Workers) -> dict[str, np.ndarray]:
    """Return what plans with 5 common particles, by CEM and by the smaller search, cost more than those by CEM with 20 independent
    ones, (RETURN_STATES,) each. All are warm-started along what was lived, and judged by TRUTH_PARTICLES under the same noise."""
    few = trained.evaluator(5, True, quick, workers)
    box = trained.command, trained.control_dt
    planners = {"reference": CEM(trained.evaluator(20, False, precise, workers), *box, RETURN_SEARCH),
                "CEM, 5 common": CEM(few, *box, RETURN_SEARCH), "iCEM 120 x 3, 5 common": ICEM(few, *box, SMALL_SEARCH)}
    judge = trained.evaluator(TRUTH_PARTICLES, True, precise, workers)
    costs: dict[str, list[float]] = {name: [] for name in planners}
    within = len(trained.lived) // TRIALS["cartpole"]  # states of an episode
    starts = torch.randperm(len(trained.lived) - WARM_STARTS, generator=torch.Generator().manual_seed(2))
    starts = starts[starts % within < within - WARM_STARTS][:RETURN_STATES]
    for number, start in enumerate(starts.tolist()):
        plans = []
        for planner in planners.values():
            plan, generator = None, torch.Generator().manual_seed(number)
            for x0 in trained.lived[start: start + WARM_STARTS + 1]:
                plan = planner.plan(x0, plan, generator)
            plans.append(plan.actions)
        judged = judge.costs(x0, torch.stack(plans), torch.Generator().manual_seed(10_000 + number))
        for name, cost in zip(planners, judged.tolist(), strict=True):
            costs[name].append(cost)
    reference = np.array(costs.pop("reference"))
    return {name: np.array(values) - reference for name, values in costs.items()}


def _summary(values: np.ndarray) -> tuple[float, float, float]:
    """Return mean, its standard error, and the lowest value."""
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5), float(values.min())
