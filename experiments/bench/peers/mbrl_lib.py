"""Measures mbrl-lib (`mbrl` 0.2.0) as it is installed: its planning step, and its fit of an ensemble.

Run by `.peers/mbrl/bin/python` (`make bench-peers` builds it); imports nothing of Reflexarc. The last line of the output is
one JSON object. Sizes, planner and model are those of mbrl-lib's own PETS configurations (its `pets_cartpole` and
`pets_halfcheetah`): 7 members of which 5 plan, 4 hidden layers of 200 with SiLU, 20 particles, every particle through another
member at every step (TS1), inputs normalised in float64, rewards not learned.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import omegaconf
import torch
from mbrl.env import reward_fns, termination_fns
from mbrl.models import GaussianMLP, ModelEnv, ModelTrainer, OneDTransitionRewardModel
from mbrl.models.util import EnsembleLinearLayer
from mbrl.planning import create_trajectory_optim_agent_for_model
from mbrl.types import TransitionBatch
from mbrl.util.math import gaussian_nll
from mbrl.util.replay_buffer import BootstrapIterator

MEMBERS, PLANNING_MEMBERS, PARTICLES = 7, 5, 20
WEIGHT_DECAY = 3e-5
"""Of its cart-pole."""
SYNTHETIC_TRANSITIONS, SYNTHETIC_EPOCHS = 500, 3
"""Enough for rollouts that stay finite."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's names for `mallopt`."""


@dataclass(frozen=True)
class Size:
    """One of mbrl-lib's PETS configurations."""

    states: int
    actions: int
    population: int
    horizon: int
    elite_ratio: float
    alpha: float
    cheetah: bool = False
    iterations: int = 5


SIZES = {
    # 5 iterations x 350 plans x 20 particles x 15 periods x 2 (5 200 + 3 200 200 + 200 8) = 128.7 GFLOP
    "cartpole": Size(states=4, actions=1, population=350, horizon=15, elite_ratio=0.1, alpha=0.1),
    # 5 iterations x 400 plans x 20 particles x 30 periods x 2 (24 200 + 3 200 200 + 200 36) = 316.8 GFLOP
    "cheetah": Size(states=18, actions=6, population=400, horizon=30, elite_ratio=0.16, alpha=0.12, cheetah=True),
}


def cheetah_features(x: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """Return what its half-cheetah's model sees of states x (n, 18): not the first, the third as sine and cosine; (n, 18)."""
    if isinstance(x, np.ndarray):
        return cheetah_features(torch.from_numpy(x)).numpy()
    return torch.cat([x[..., 1:2], x[..., 2:3].sin(), x[..., 2:3].cos(), x[..., 3:]], dim=-1)


def make_model(in_size: int, out_size: int, **wrapping: object) -> OneDTransitionRewardModel:
    """Return its ensemble as its configuration `gaussian_mlp_ensemble` has it."""
    ensemble = GaussianMLP(in_size, out_size, torch.device("cpu"), num_layers=4, ensemble_size=MEMBERS, hid_size=200,
                           propagation_method="random_model", learn_logvar_bounds=False,
                           activation_fn_cfg={"_target_": "torch.nn.SiLU"})
    return OneDTransitionRewardModel(ensemble, normalize=True, normalize_double_precision=True, learned_rewards=False, **wrapping)


def batches(x: np.ndarray, u: np.ndarray, x_next: np.ndarray, batch_size: int, rng: np.random.Generator) -> BootstrapIterator:
    """Return its iterator: every member sees its own n draws with replacement, shuffled every epoch; float64 as its PETS stores it."""
    nothing = np.zeros(len(x))
    columns = (x, u, x_next, nothing, nothing, nothing)
    transitions = TransitionBatch(*(column.astype(np.float64) for column in columns))
    return BootstrapIterator(transitions, batch_size, MEMBERS, shuffle_each_epoch=True, permute_indices=False, rng=rng)


def plan(size: Size, repeats: int) -> dict[str, object]:
    """Return the seconds of `repeats` plans, each its agent's whole planning step from a start of its own."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = make_model(size.states + size.actions, size.states, target_is_delta=True, num_elites=PLANNING_MEMBERS,
                       obs_process_fn=cheetah_features if size.cheetah else None, no_delta_list=[0] if size.cheetah else None)
    x = rng.normal(size=(SYNTHETIC_TRANSITIONS, size.states))
    u = rng.uniform(-1, 1, size=(SYNTHETIC_TRANSITIONS, size.actions))
    x_next = x + 0.01 * rng.normal(size=x.shape)
    data = batches(x, u, x_next, 256, rng)
    model.update_normalizer(data.transitions)
    ModelTrainer(model, optim_lr=1e-3, weight_decay=WEIGHT_DECAY).train(data, num_epochs=SYNTHETIC_EPOCHS, silent=True)
    box = SimpleNamespace(shape=(size.actions,), low=-np.ones(size.actions, np.float32), high=np.ones(size.actions, np.float32))
    robot = SimpleNamespace(observation_space=SimpleNamespace(shape=(size.states,)), action_space=box)
    kind = ("halfcheetah", "no_termination") if size.cheetah else ("cartpole", "cartpole")
    environment = ModelEnv(robot, model, getattr(termination_fns, kind[1]), getattr(reward_fns, kind[0]), torch.Generator().manual_seed(0))
    agent = create_trajectory_optim_agent_for_model(environment, omegaconf.OmegaConf.create({
        # a hydra newer than the one it pins would build the optimiser too early, before its bounds are known
        "_target_": "mbrl.planning.TrajectoryOptimizerAgent", "_recursive_": False, "action_lb": "???", "action_ub": "???",
        "planning_horizon": size.horizon, "replan_freq": 1,
        "optimizer_cfg": {"_target_": "mbrl.planning.CEMOptimizer", "num_iterations": size.iterations, "elite_ratio": size.elite_ratio,
                          "population_size": size.population, "alpha": size.alpha, "lower_bound": "???", "upper_bound": "???",
                          "return_mean_elites": True, "device": "cpu", "clipped_normal": False}}), num_particles=PARTICLES)
    operations = 0

    def count(layer: EnsembleLinearLayer, _: object, output: torch.Tensor) -> None:
        nonlocal operations
        operations += 2 * layer.in_size * output.numel()

    hooks = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, EnsembleLinearLayer)]
    agent.act(0.01 * rng.normal(size=size.states))  # warms up, and is counted
    for hook in hooks:
        hook.remove()
    seconds = []
    for _ in range(repeats):
        start = 0.01 * rng.normal(size=size.states)
        started = time.perf_counter()
        agent.act(start)
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    return {"seconds": median, "all_seconds": seconds, "gflop": operations / 1e9, "gflops": operations / 1e9 / median}


class TimedTrainer(ModelTrainer):
    """Its trainer; what it spends on scoring the data after every epoch is kept apart."""

    scoring = 0.0
    """Seconds spent on scores since this was last set to zero."""

    def evaluate(self, *arguments: object, **named: object) -> torch.Tensor:
        started = time.perf_counter()
        scores = super().evaluate(*arguments, **named)
        self.scoring += time.perf_counter() - started
        return scores


def fit(path: str, batch_size: int, epochs: int, learning_rate: float, seed: int) -> dict[str, object]:
    """Return the seconds of every epoch and how likely held-out targets are after it.

    Its trainer also scores all training data after every epoch, to keep the best weights: `seconds` are without that,
    `seconds_with_scores` with it, as it is installed; `nll` is of the last weights.
    The file holds inputs (n, in), targets (n, out), test_inputs (m, in) and test_targets (m, out), float32. Likelihoods are
    Gaussian negative log-likelihoods [nat] per output in the targets' units, with log(2 pi) / 2, mean over test rows and members.
    """
    torch.manual_seed(seed)
    with np.load(path) as file:
        inputs, targets, test_inputs, test_targets = (file[name] for name in ("inputs", "targets", "test_inputs", "test_targets"))
    model = make_model(inputs.shape[1], targets.shape[1], target_is_delta=False)
    width = targets.shape[1]  # its batches want states before and after of one width; which inputs are called commands is all one
    if inputs.shape[1] < width:
        sys.exit(f"expected at least as many inputs as targets, got {inputs.shape[1]} and {width}")
    data = batches(inputs[:, :width], inputs[:, width:], targets, batch_size, np.random.default_rng(seed))
    model.update_normalizer(data.transitions)
    trainer = TimedTrainer(model, optim_lr=learning_rate, weight_decay=WEIGHT_DECAY)
    normalised = model.input_normalizer.normalize(torch.from_numpy(test_inputs).double()).float()
    wanted = torch.from_numpy(test_targets)
    whole, training, likelihoods = [], [], []

    def judge() -> float:
        with torch.no_grad():
            mean, log_variance = model.model(normalised, use_propagation=False)  # (E, m, out) each
            return float(gaussian_nll(mean, log_variance, wanted.expand_as(mean), reduce=False).mean()) / 2 + 0.5 * np.log(2 * np.pi)

    def epoch_ended(*_: object) -> None:
        nonlocal started
        training.append(time.perf_counter() - started - trainer.scoring)
        scores = trainer.scoring / (1 if len(training) > 1 else 2)  # the first epoch has one before and one after
        whole.append(training[-1] + scores)
        likelihoods.append(judge())
        trainer.scoring, started = 0.0, time.perf_counter()

    started = time.perf_counter()
    trainer.train(data, num_epochs=epochs, callback=epoch_ended, silent=True)
    return {"seconds": statistics.median(training), "all_seconds": training,
            "seconds_with_scores": statistics.median(whole), "all_seconds_with_scores": whole,
            "nll": likelihoods[-1], "all_nll": likelihoods, "nll_of_the_weights_it_keeps": judge()}


def tune() -> None:
    """Set the two switches that make torch on this kind of machine faster: oneDNN's products, and memory that is not given back."""
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    libc = ctypes.CDLL("libc.so.6")
    for name in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
        if libc.mallopt(name, 2**31 - 1) != 1:
            sys.exit("mallopt refused a threshold")


def main() -> None:
    """Measure what the command line asks for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    planning, fitting = commands.add_parser("plan"), commands.add_parser("fit")
    for command in (planning, fitting):
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--tuned", action="store_true", help="with the switches that make torch faster on this kind of machine")
    planning.add_argument("--size", choices=SIZES, required=True)
    planning.add_argument("--repeats", type=int, default=3)
    fitting.add_argument("--data", required=True)
    fitting.add_argument("--batch-size", type=int, default=256)
    fitting.add_argument("--epochs", type=int, required=True)
    fitting.add_argument("--learning-rate", type=float, default=1e-3)
    fitting.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.tuned:
        tune()
    if options.command == "plan":
        measured = plan(SIZES[options.size], options.repeats)
    else:
        measured = fit(options.data, options.batch_size, options.epochs, options.learning_rate, options.seed)
    print(json.dumps({"peer": "mbrl-lib", "threads": options.threads, "tuned": options.tuned, "torch": torch.__version__} | measured))


if __name__ == "__main__":
    main()
