"""A plan through an ensemble (PETS: CEM over particles) beside mbrl-lib's, at the sizes of mbrl-lib's own configurations."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from dynamics.dataset import TransitionData
from dynamics.fitting import FitConfig
from dynamics.kernel_choice import KERNELS as COMPILED
from dynamics.kernel_choice import trusted_kernel
from dynamics.matmul import enable_fast_float32
from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble
from dynamics.state_space import Channel, Kind, StateSpace, Target
from dynamics.workers import Workers
from experiments.bench.peers.running import peer_is_installed, run_peer
from experiments.bench.ranking import SMALL_SEARCH
from experiments.bench.result import Bar, BenchResult, Cell, machine
from planners.cem import CEM, CEMConfig
from planners.cost import Cost
from planners.evaluation import EvaluationConfig, PlanEvaluator
from planners.icem import ICEM
from planners.plan import Plan
from planners.sampling import SamplingPlanner
from robots.command import CommandMode, CommandSpec

KERNELS = ("torch", *COMPILED)
"""What can roll plans out; a kernel that this processor lacks is left out."""
MEMBERS, HIDDEN, PARTICLES, ITERATIONS = 5, (200, 200, 200, 200), 20, 5
"""What plans in mbrl-lib: the 5 best of its 7 members."""
PROPAGATION = "TS1"
"""As mbrl-lib's default ('random_model')."""
FEW_PARTICLES = 5
"""Under TSinf, with common random numbers, the plans found are as good as with 20 without (`reflexarc bench ranking`)."""
CONTROL_DT = 0.02
"""[s] nothing depends on it."""
PLANS_A_ROUND = 2
SMALL_CANDIDATES = 302
"""Of SMALL_SEARCH (bench ranking) once it is warm: 120 + 96 + 76 drawn, elites kept from before, and the mean."""
RATIO_BARS = {("cartpole", "torch"): 3.0, ("cartpole", "float32"): 4.5, ("cartpole", "bfloat16"): 8.0,
              ("cheetah", "float32"): 4.0, ("cheetah", "bfloat16"): 7.0}
"""Times faster than mbrl-lib as it is installed, at the same arithmetic."""
SHARE_BAR = 0.72
"""Of the processor's peak, float32 at the size of the cart-pole."""
EQUAL_QUALITY_BAR = 25.0
"""Times faster than mbrl-lib's plan to a plan of equal return, at the size of the cart-pole."""
SMALLEST_STEADY_SHARE = 0.8
"""Of the highest peak of all rounds: a lower one means that something else was running."""
COLUMNS = ("size", "candidates", "particles", "who", "seconds", "GFLOP", "GFLOP/s", "of the peak", "x mbrl-lib")


class DistanceCost(Cost):
    """As cheap as the rewards of mbrl-lib's environments: squares of two states, and 0.1 |u|^2."""

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"distance": self.terminal(x), "control": 0.1 * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        return x[..., 0].square() + x[..., 2].square()


@dataclass(frozen=True)
class PlanSize:
    """One of mbrl-lib's PETS configurations."""

    name: str
    channels: tuple[Channel, ...]
    nu: int
    population: int
    horizon: int
    elites: int
    momentum: float
    space: StateSpace = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", StateSpace(self.channels))

    def gflop(self, particles: int = PARTICLES, candidates: int | None = None) -> float:
        """Return the multiplications and additions of a plan's layers [1e9], each particle through one member, by the widths that
        the model needs: what an implementation multiplies beyond that (zero rows, padding) is not counted. `candidates`: of all
        iterations together; None: as many as mbrl-lib's."""
        widths = (self.space.nf + self.nu, *HIDDEN, 2 * self.space.no)
        row = 2 * sum(a * b for a, b in pairwise(widths))
        return (candidates or ITERATIONS * self.population) * particles * self.horizon * row / 1e9


def _names(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{i}" for i in range(count))


SIZES = (
    # 5 iterations x 350 plans x 20 particles x 15 periods x 2 (5 200 + 3 200 200 + 200 8) = 128.7 GFLOP
    PlanSize("cartpole", (Channel("q", _names("q", 4), range(4)),), nu=1, population=350, horizon=15, elites=35, momentum=0.1),
    # the model sees 15 states, and one more as sine and cosine, and predicts 18: `pets_halfcheetah`
    # 5 iterations x 400 plans x 20 particles x 30 periods x 2 (24 200 + 3 200 200 + 200 36) = 316.8 GFLOP
    PlanSize("cheetah", (Channel("q", ("velocity",), (0,), target=Target.ABSOLUTE, model_input=False), Channel("q", ("height",), (1,)),
                         Channel("q", ("pitch",), (2,), Kind.ANGLE), Channel("q", _names("q", 15), range(3, 18))),
             nu=6, population=400, horizon=30, elites=64, momentum=0.12),
)


def small_model(size: PlanSize, workers: Workers) -> NeuralEnsemble:
    """Return an ensemble of this size that has learned to stay nearly where it is, so that rollouts stay finite."""
    generator = torch.Generator().manual_seed(0)
    n, nx = 500, size.space.nx
    x = torch.randn(n, nx, generator=generator, dtype=torch.float64)
    u = torch.rand(n, size.nu, generator=generator, dtype=torch.float64) * 2 - 1
    x_next = x + 0.01 * torch.randn(n, nx, generator=generator, dtype=torch.float64)
    nothing = torch.zeros(n, dtype=torch.float64)
    config = EnsembleConfig(MEMBERS, HIDDEN, weight_decay=(3e-5,), fit=FitConfig(epochs=5))
    model = NeuralEnsemble(size.space, size.nu, CONTROL_DT, config, seed=0)
    model.fit(TransitionData(x, u, x_next, nothing + CONTROL_DT, nothing, nothing.bool(), torch.zeros(n, dtype=torch.long)), workers)
    return model


def command_box(nu: int) -> CommandSpec:
    """Return commands (nu,) between -1 and 1."""
    return CommandSpec(CommandMode.ACTUATOR, _names("u", nu), -np.ones(nu), np.ones(nu), unit="1")


class Timed:
    """Our planner at one size with one kernel, and the seconds of its plans."""

    def __init__(self, size: PlanSize, kernel: str, few: bool, model: NeuralEnsemble, workers: Workers, small: bool = False) -> None:
        """`few`: FEW_PARTICLES with common random numbers, else PARTICLES that each meet their own noise, as mbrl-lib's do;
        `small`: iCEM with the few candidates that find as good a plan, else CEM with as many as mbrl-lib."""
        self.size, self.kernel = size, kernel
        self.particles = FEW_PARTICLES if few else PARTICLES
        config = EvaluationConfig("TSinf" if few else PROPAGATION, self.particles, common_random_numbers=few, kernel=kernel)
        setting = PlanEvaluator(model, DistanceCost(), config, workers), command_box(size.nu), CONTROL_DT
        self.candidates = SMALL_CANDIDATES if small else ITERATIONS * size.population
        self.same_work = not few and not small
        self._planner: SamplingPlanner
        if small:
            self._planner = ICEM(*setting, replace(SMALL_SEARCH, horizon=size.horizon))
        else:
            search = CEMConfig(size.horizon, size.population, ITERATIONS, elites=size.elites, momentum=size.momentum, smallest_variance=0.0)
            self._planner = CEM(*setting, search)
        self._generator = torch.Generator().manual_seed(0)
        self._previous: Plan | None = None
        self.seconds: list[float] = []

    def plan(self, timed: bool = True) -> None:
        """Plan as within an episode, from the last plan."""
        x0 = 0.01 * torch.randn(self.size.space.nx, generator=self._generator)
        started = time.perf_counter()
        self._previous = self._planner.plan(x0, self._previous, self._generator)
        if timed:
            self.seconds.append(time.perf_counter() - started)


class TimedPeer:
    """mbrl-lib's planner at one size, and the seconds of its plans."""

    def __init__(self, size: PlanSize, threads: int, tuned: bool) -> None:
        self.size, self.kernel, self.particles = size, "mbrl-lib, tuned" if tuned else "mbrl-lib", PARTICLES
        self.candidates, self.same_work = ITERATIONS * size.population, True
        self._arguments = ("--size", size.name, "--threads", threads, *(["--tuned"] if tuned else []))
        self.seconds: list[float] = []
        self.gflop = 0.0
        """As counted from the layers that it multiplied."""

    def plan(self) -> None:
        """Make PLANS_A_ROUND plans in a process of its own."""
        measured = run_peer("mbrl", "mbrl_lib.py", "plan", *self._arguments, "--repeats", PLANS_A_ROUND)
        self.seconds += measured["all_seconds"]
        self.gflop = measured["gflop"]


def available_kernels(console: Console) -> list[str]:
    """Return the KERNELS that this processor can run; says which it cannot."""
    lacking = [name for name in COMPILED if trusted_kernel(name) is None]
    for name in lacking:
        console.print(f"kernel {name}: this processor lacks it, left out", highlight=False)
    return [name for name in KERNELS if name not in lacking]


def peaks(threads: int, kernels: list[str]) -> dict[str, float]:
    """Return the processor's limit [GFLOP/s] for what each kernel does: multiply-adds in registers on `threads` threads, where a
    kernel can be compiled to measure them (torch: those of float32)."""
    measured = {name: trusted_kernel(name).measured_peak(threads) for name in kernels if name in COMPILED}
    return measured | ({"torch": measured["float32"]} if "float32" in measured else {})


def disturbed(limits: list[dict[str, float]]) -> bool:
    """Return whether the peaks (`peaks`, by round) say that this process did not have its cores to itself all the time."""
    return any(min(values) < SMALLEST_STEADY_SHARE * max(values) for values in zip(*(limit.values() for limit in limits), strict=True))


def bench_plan_ensemble(console: Console, seeds: int, threads: int | None) -> BenchResult:
    """Time plans in `seeds` rounds, mbrl-lib's and ours by turns, so that a machine that drifts slows all alike."""
    enable_fast_float32()
    kernels = available_kernels(console)
    with_peer = peer_is_installed("mbrl", console)
    workers = Workers(threads)
    try:
        ours: list[Timed] = []
        for size in SIZES:
            model = small_model(size, workers)
            ours += [Timed(size, kernel, few, model, workers) for few in (False, True) for kernel in kernels]
            ours += [Timed(size, kernels[-1], True, model, workers, small=True)]
        theirs = [TimedPeer(size, workers.threads, tuned) for size in SIZES for tuned in (False, True)] if with_peer else []
        limits = [peaks(workers.threads, kernels)]
        for timed in ours:
            timed.plan(timed=False)
        for number in range(seeds):
            console.print(f"round {number + 1} of {seeds}", highlight=False)
            for size in SIZES:
                _round([t for t in theirs if t.size is size], [t for t in ours if t.size is size])
            limits.append(peaks(workers.threads, kernels))
    finally:
        workers.close()
    if disturbed(limits):
        console.print("another program took a core while this ran: NO RATIO BELOW HOLDS, since torch's own threads (mbrl-lib's) suffer "
                      "most by that; run it again on a machine that does nothing else", highlight=False)
    highest = {name: max(limit[name] for limit in limits) for name in limits[0]}
    rows, bars = judge(ours, theirs, highest)
    console.print("20 particles: the same arithmetic as mbrl-lib's, noise drawn for each particle; 5: with common random numbers, which "
                  ""
                  "find as good a plan (bench ranking); the fewest candidates: iCEM 120 x 3. GFLOP: of the layers. Of the peak: of "
                  "multiply-adds in registers, measured between "
                  "the rounds: " + ", ".join(f"{name} {limit:.0f} GFLOP/s" for name, limit in highest.items()) +
                  ". Tuned: torch's products through oneDNN, memory kept by malloc.", highlight=False)
    return BenchResult("plan-ensemble", COLUMNS, rows, bars, machine(threads))


def _round(theirs: list[TimedPeer], ours: list[Timed]) -> None:
    """Let ours plan, then the peers, then ours for the rest of PLANS_A_ROUND."""
    for timed in [*ours, *theirs, *ours * (PLANS_A_ROUND - 1)]:
        timed.plan()


def judge(ours: list[Timed], theirs: list[TimedPeer], limits: dict[str, float]) -> tuple[list[tuple[Cell, ...]], list[Bar]]:
    """Return the table's rows and the bars; without a peer there are no ratios, and no bars for them."""
    installed = {t.size.name: statistics.median(t.seconds) for t in theirs if t.kernel == "mbrl-lib"}
    rows: list[tuple[Cell, ...]] = []
    bars: list[Bar] = []
    quickest = 0.0
    for timed in [*theirs, *ours]:
        seconds, gflop = statistics.median(timed.seconds), timed.size.gflop(timed.particles, timed.candidates)
        if isinstance(timed, TimedPeer) and abs(timed.gflop - gflop) > 1e-3 * gflop:
            raise RuntimeError(f"mbrl-lib multiplied {timed.gflop:.1f} GFLOP at size {timed.size.name}, expected {gflop:.1f}")
        limit = limits.get(timed.kernel)
        share = None if limit is None else gflop / seconds / limit
        ratio = installed[timed.size.name] / seconds if installed else None
        rows.append((timed.size.name, timed.candidates, timed.particles, timed.kernel, seconds, gflop, gflop / seconds, share, ratio))
        key = (timed.size.name, timed.kernel)
        if ratio is not None and timed.same_work and key in RATIO_BARS:
            bars.append(Bar(f"{' '.join(key)} x mbrl-lib", ratio, RATIO_BARS[key], at_least=True))
        if share is not None and timed.same_work and key == ("cartpole", "float32"):
            bars.append(Bar("cartpole float32 share of the peak", share, SHARE_BAR, at_least=True))
        if ratio is not None and not timed.same_work and timed.size.name == "cartpole":
            quickest = max(quickest, ratio)
    if quickest:
        bars.append(Bar("cartpole, a plan of equal return, x mbrl-lib", quickest, EQUAL_QUALITY_BAR, at_least=True))
    return rows, bars
