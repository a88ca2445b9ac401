"""Fitting of an ensemble beside mbrl-lib's: seconds an epoch, and how likely held-out transitions are after as many passes or steps."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from dynamics.dataset import TransitionData, transition_data
from dynamics.fitting import FitConfig, fit_epochs, make_optimiser, take_turns
from dynamics.kernel_choice import KERNELS, trusted_kernel
from dynamics.losses import GaussianLikelihood, squared_error
from dynamics.matmul import enable_fast_float32
from dynamics.network import Parameters, bounded_log_variance, forward, new_network
from dynamics.normaliser import Normaliser
from dynamics.workers import Workers
from experiments.bench.peers.running import peer_is_installed, run_peer
from experiments.bench.result import Bar, BenchResult, Cell, machine
from policies.episode_loop import EpisodeSource, run_episode
from policies.simple import RandomPolicy
from sim.catalog import make_task

MEMBERS, HIDDEN = 7, (200, 200, 200, 200)
"""mbrl-lib's own PETS configuration."""
WEIGHT_DECAY = 3e-5
"""Of mbrl-lib's cart-pole."""
BATCH, LARGE_BATCH = 256, 1024
"""The first is mbrl-lib's."""
PEER_LEARNING_RATE, LEARNING_RATE = 1e-3, 2e-3
"""mbrl-lib's, constant; ours falls along half a cosine, so that its mean is the same. 1024 rows a step learn as well with 2e-3 as
with 4e-3 after 32 passes over 50 000, and better after 8."""
EPOCHS = {5_000: 20, 50_000: 8}
"""Passes over so many transitions; large batches are also judged after LARGE_BATCH / BATCH times as many, which are as many steps:
no more wall-clock than mbrl-lib's, if an epoch is as many times faster."""
HELD_OUT, EPISODE_STEPS = 5_000, 200
RATIO_BARS = {(5_000, BATCH, "float32"): 2.2, (5_000, BATCH, "bfloat16"): 2.7, (50_000, LARGE_BATCH, "bfloat16"): 4.0}
"""Times faster than mbrl-lib at its own batch."""
LIKELIHOOD_BAR = 0.0
"""Nats an output by which held-out transitions may be less likely than under mbrl-lib's fit."""
COLUMNS = ("transitions", "who", "batch", "step", "passes", "s an epoch", "GFLOP/s", "of the peak", "x mbrl-lib", "held-out NLL [nat]")


@dataclass(frozen=True)
class FitData:
    """Standardised transitions, float32: learned from, and held out."""

    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor

    def save(self, path: Path) -> None:
        """Write them where a peer reads them."""
        np.savez(path, **{name: getattr(self, name).numpy() for name in self.__dataclass_fields__})


@dataclass
class TimedFit:
    """One way of fitting, and what it took."""

    transitions: int
    who: str
    products: str
    batch: int
    learning_rate: float
    epochs: int
    """Passes over the data."""
    seconds: list[float] = field(default_factory=list)
    """Of an epoch, one for each round."""
    likelihoods: list[float] = field(default_factory=list)
    """Held-out negative log-likelihood [nat] an output, one for each round."""

    @property
    def is_peer(self) -> bool:
        """Whether it is mbrl-lib's."""
        return self.who == "mbrl-lib"


def random_transitions(count: int) -> TransitionData:
    """Return at least `count` transitions of the cart-pole under random commands, every other episode with held ones."""
    task = make_task("cartpole")
    with task.robot() as robot:
        command = robot.spec.command(None)
        source = EpisodeSource(robot, task.state_space, command, task.cost, task.name)
        episodes = {number: run_episode(source, RandomPolicy(command, 8 if number % 2 else 1), EPISODE_STEPS, seed=number, trial=number,
                                        provenance="random") for number in range(math.ceil(count / EPISODE_STEPS))}
    return transition_data(episodes, task.state_space)


def fit_data(lived: TransitionData, count: int) -> FitData:
    """Return the first `count` transitions to learn from and the last HELD_OUT, of other episodes, to judge by."""
    space = make_task("cartpole").state_space
    inputs = torch.cat([space.features(lived.x), lived.u], dim=-1)
    targets = space.target(lived.x, lived.x_next)
    scaled = []
    for values in (inputs, targets):
        normaliser = Normaliser.fit(values[:count])
        scaled.append(normaliser.normalise(values).float())
    return FitData(scaled[0][:count], scaled[1][:count], scaled[0][-HELD_OUT:], scaled[1][-HELD_OUT:])


def fit_once(data: FitData, fit: TimedFit, seed: int, workers: Workers, epochs: int | None = None) -> tuple[float, float]:
    """Fit new members (`epochs` instead of the fit's passes), and return the seconds of one and the held-out negative log-likelihood."""
    outputs, n, epochs = data.targets.shape[1], len(data.inputs), epochs or fit.epochs
    config = FitConfig(learning_rate=fit.learning_rate, batch_size=fit.batch, epochs=epochs, largest_updates=10**9, products=fit.products)
    generator = torch.Generator().manual_seed(seed)
    members, fits = [], []
    started = time.perf_counter()
    for member in range(MEMBERS):
        parameters = new_network((data.inputs.shape[1], *HIDDEN, 2 * outputs), generator)
        parameters["variance_max"] = torch.full((outputs,), 0.5, requires_grad=True)
        parameters["variance_min"] = torch.full((outputs,), -10.0, requires_grad=True)
        members.append(parameters)
        rows = torch.randint(n, (n,), generator=generator)  # as mbrl-lib's bootstrap
        fits.append(fit_epochs(parameters, make_optimiser(parameters, (WEIGHT_DECAY,) * (len(HIDDEN) + 1)), GaussianLikelihood(outputs),
                               data.inputs, data.targets, rows, None, squared_error, config,
                               torch.Generator().manual_seed(seed * MEMBERS + member)))
    take_turns(fits, workers)
    seconds = (time.perf_counter() - started) / epochs
    return seconds, statistics.mean(negative_log_likelihood(m, data.test_inputs, data.test_targets) for m in members)


@torch.no_grad()
def negative_log_likelihood(parameters: Parameters, inputs: Tensor, targets: Tensor) -> float:
    """Return the mean negative log-likelihood [nat] of targets (n, out), an output."""
    mean, raw = forward(parameters, inputs).chunk(2, dim=-1)
    log_variance = bounded_log_variance(raw, parameters["variance_min"], parameters["variance_max"])
    return float(((mean - targets).square() * torch.exp(-log_variance) + log_variance).mean()) / 2 + 0.5 * math.log(2 * math.pi)


def gflop(data: FitData) -> float:
    """Return the multiplications and additions of an epoch's products [1e9], forwards, for the weights, and backwards."""
    widths = (data.inputs.shape[1], *HIDDEN, 2 * data.targets.shape[1])
    return 6 * sum(a * b for a, b in pairwise(widths)) * len(data.inputs) * MEMBERS / 1e9


def bench_fit_ensemble(console: Console, seeds: int, threads: int | None) -> BenchResult:
    """Fit with seeds 0, 1, ..., mbrl-lib and ours by turns, so that a machine that drifts slows all alike."""
    enable_fast_float32()
    kinds = [name for name in KERNELS if trusted_kernel(name) is not None] or ["float32"]
    with_peer = peer_is_installed("mbrl", console)
    lived = random_transitions(max(EPOCHS) + HELD_OUT)
    fits: list[TimedFit] = []
    for count, epochs in EPOCHS.items():
        if with_peer:
            fits.append(TimedFit(count, "mbrl-lib", "float32", BATCH, PEER_LEARNING_RATE, epochs))
        fits += [TimedFit(count, f"ours, {kind}", kind, batch, LEARNING_RATE, passes)
                 for batch, passes in ((BATCH, epochs), (LARGE_BATCH, epochs), (LARGE_BATCH, epochs * LARGE_BATCH // BATCH))
                 for kind in kinds]
    data = {count: fit_data(lived, count) for count in EPOCHS}
    workers = Workers(threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = {count: Path(folder) / f"{count}.npz" for count in EPOCHS}
            for count, file in files.items():
                data[count].save(file)
            for fit in fits:  # compiles
                if not fit.is_peer and fit.transitions == min(EPOCHS):
                    fit_once(data[fit.transitions], fit, 0, workers, epochs=1)
            peaks: dict[str, float] = {}
            for seed in range(seeds):
                for kind in kinds:  # the best of all rounds: the processor's clock drifts
                    if (kernel := trusted_kernel(kind)) is not None:
                        peaks[kind] = max(peaks.get(kind, 0.0), kernel.measured_peak(workers.threads))
                console.print(f"round {seed + 1} of {seeds}", highlight=False)
                for fit in fits:
                    if fit.is_peer:
                        measured = run_peer("mbrl", "mbrl_lib.py", "fit", "--data", files[fit.transitions], "--batch-size", fit.batch,
                                            "--epochs", fit.epochs, "--threads", workers.threads, "--learning-rate", fit.learning_rate,
                                            "--seed", seed)
                        seconds, likelihood = measured["seconds"], measured["nll"]
                    else:
                        seconds, likelihood = fit_once(data[fit.transitions], fit, seed, workers)
                    fit.seconds.append(seconds)
                    fit.likelihoods.append(likelihood)
    finally:
        workers.close()
    rows, bars = judge(fits, {count: gflop(d) for count, d in data.items()}, peaks)
    floors = ", ".join(f"{count} transitions in {kind} {gflop(data[count]) / peak:.3f} s"
                       for count in EPOCHS for kind, peak in peaks.items())
    console.print(f"{MEMBERS} members, hidden layers {HIDDEN}. A bar on a likelihood is after as many steps as mbrl-lib's: the same passes "
                  "at its batch; with larger batches more passes, in no more wall-clock where the bar on the time is met. Ours with "
                  "its own schedule (half a cosine) and learned bounds of the noise, mbrl-lib as installed, without the "
                  "scores of the training data that it takes after every pass. "
                  f"Floor of an epoch, its products at the processor's peak: {floors or 'not measured'}", highlight=False)
    return BenchResult("fit-ensemble", COLUMNS, rows, bars, machine(threads))


def judge(fits: list[TimedFit], work: dict[int, float], peaks: dict[str, float]) -> tuple[list[tuple[Cell, ...]], list[Bar]]:
    """Return the table and the bars of what was measured; `work` is an epoch's [GFLOP], `peaks` the processor's [GFLOP/s]."""
    peers = {fit.transitions: fit for fit in fits if fit.is_peer}
    rows: list[tuple[Cell, ...]] = []
    bars = []
    for fit in fits:
        seconds, likelihood = statistics.median(fit.seconds), statistics.median(fit.likelihoods)
        rate, peer = work[fit.transitions] / seconds, peers.get(fit.transitions)
        # of the same round, so that what slows the machine for minutes cancels
        ratio = statistics.median(a / b for a, b in zip(peer.seconds, fit.seconds, strict=True)) if peer else None
        share = rate / peaks[fit.products] if fit.products in peaks else None
        rows.append((fit.transitions, fit.who, fit.batch, fit.learning_rate, fit.epochs, seconds, rate, share, ratio, likelihood))
        bar = RATIO_BARS.get((fit.transitions, fit.batch, fit.products))
        judged = fit.epochs == EPOCHS[fit.transitions] * fit.batch // BATCH  # as many steps
        if peer and bar is not None and not fit.is_peer and judged:
            name = f"{fit.products}, {fit.transitions} transitions, batch {fit.batch}, {fit.epochs} passes"
            bars.append(Bar(f"{name}: times faster than mbrl-lib", ratio, bar, at_least=True))
            bars.append(Bar(f"{name}: held-out NLL above mbrl-lib's", likelihood - statistics.median(peer.likelihoods), LIKELIHOOD_BAR,
                            at_least=False, unit="nat"))
    return rows, bars
