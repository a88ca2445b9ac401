"""Where the members disagree more than usual the arm is slowed before it is commanded, and where they know nothing it stands still."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dynamics.model import Prediction
from dynamics.state_space import Channel, StateSpace
from planners.cost import ZeroCost
from policies.episode_loop import EpisodeSource, run_episode
from policies.planning_ahead import PlansAhead
from policies.policy import Policy
from policies.simple import ScriptedPolicy
from policies.uncertainty_gate import GateConfig, GatedPolicy, UncertaintyGate, usual_spread
from robots.command import Command, CommandMode, CommandSpec
from robots.errors import ConfigurationError
from robots.limits import JointLimits
from robots.observation import NO_POSE, Observation
from robots.spec import RobotSpec

SPACE = StateSpace([Channel("q", ("p",), (0,)), Channel("dq", ("v",), (0,))])
COMMAND = CommandSpec(CommandMode.ACTUATOR, ("u",), np.array([-1.0]), np.array([1.0]), "N")
SPEC = RobotSpec("slider", ("p",), 1, JointLimits.unlimited(1), 0.1, (COMMAND,))
CONFIG = GateConfig(quantile=0.9, slow_from=1.0, stop_at=3.0, slowest=0.2)
FALLBACK = Command(CommandMode.ACTUATOR, np.array([-0.25]))
GENERATOR = torch.Generator().manual_seed(0)
LIVED_X, LIVED_U = torch.randn(1000, 2, generator=GENERATOR), torch.randn(1000, 1, generator=GENERATOR)


class Doubtful:
    """Members spread by |p| + |u| / 10 and by |v|, each in a unit of its own."""

    state_space, nu = SPACE, 1

    def __init__(self, units: tuple[float, float] = (1.0, 1.0)) -> None:
        self.units = torch.tensor(units)

    def predict(self, x, u):
        spread = torch.stack([x[..., 0].abs() + 0.1 * u[..., 0].abs(), x[..., 1].abs()], dim=-1) * self.units
        return Prediction(x, torch.zeros_like(spread), spread)

    def step(self, x, u, generator=None):
        return x


class Slider:
    """Stands where the script of positions says; notes the share of the limits that it had when a command came."""

    spec = SPEC

    def __init__(self, places: list[float]) -> None:
        self.places, self.share, self.heard = places, math.nan, []

    def throttle(self, share: float) -> None:
        self.share = share

    def reset(self, seed: int) -> Observation:
        self.k = 0
        return self.observe()

    def send(self, command: Command) -> Command:
        self.heard.append((self.share, float(command.values[0])))
        return command

    def tick(self) -> Observation:
        self.k += 1
        return self.observe()

    def observe(self) -> Observation:
        return Observation(self.k * 10**8, np.array([self.places[self.k]]), np.zeros(1), np.zeros(1), NO_POSE)

    def close(self) -> None:
        pass


class Thinking:
    """A policy that plans ahead, and keeps what it was told."""

    provenance, plan_seconds = "thinking", 0.125

    def __init__(self) -> None:
        self.seeds, self.told = [], []

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)

    def act(self, observation: Observation) -> Command:
        return Command(CommandMode.ACTUATOR, np.zeros(1))

    def ahead(self, observation: Observation, applied: Command) -> None:
        self.told.append((observation, applied))


def gate(config: GateConfig = CONFIG) -> UncertaintyGate:
    """One that takes 1 for usual in the position, and looks at little else."""
    return UncertaintyGate(Doubtful(), torch.tensor([1.0, 1e6]), config)


def place(disagreement: float) -> float:
    """Return where the gate sees so much disagreement about a command of 0."""
    return disagreement * math.sqrt(2.0)  # of two outputs, one disagrees


def gated(robot: Slider, policy: Policy | None = None, **options: int) -> GatedPolicy:
    policy = policy or ScriptedPolicy(COMMAND, lambda seconds, observation: np.zeros(1))
    return GatedPolicy(policy, gate(), SPACE, robot.throttle, lambda seen: FALLBACK, **options)


def live(robot: Slider, policy: Policy, steps: int):
    return run_episode(EpisodeSource(robot, SPACE, COMMAND, ZeroCost(), "slide"), policy, steps, seed=7, trial=0, provenance="gated")


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99, 1.0])
def test_the_asked_share_of_what_was_lived_is_usual(quantile):
    config = GateConfig(quantile=quantile)
    judge = UncertaintyGate(Doubtful(), usual_spread(Doubtful(), LIVED_X, LIVED_U, config), config)
    disagreement = judge.disagreement(LIVED_X, LIVED_U)
    assert float((disagreement <= 1.0 + 1e-6).double().mean()) == pytest.approx(quantile, abs=2e-3)
    assert disagreement.max() == pytest.approx(1.0) if quantile == 1.0 else disagreement.max() > 1.0


def test_every_output_counts_alike_whatever_its_unit():
    judges = [UncertaintyGate(Doubtful(units), usual_spread(Doubtful(units), LIVED_X, LIVED_U)) for units in ((1.0, 1.0), (1e-3, 1e4))]
    one, other = (judge.disagreement(LIVED_X, LIVED_U) for judge in judges)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=0)
    moved = [judges[1].disagreement(torch.tensor([[p, v]]), torch.zeros(1, 1)).item() for p, v in ((9.0, 0.0), (0.0, 9.0))]
    assert moved[0] == pytest.approx(moved[1], rel=0.15) and moved[0] > 2.0
    assert judges[0].disagreement(torch.zeros(1, 2), torch.full((1, 1), 90.0)) > 2.0, "commands that were never tried count too"


def test_a_model_that_was_sure_of_all_that_it_lived_doubts_all_else():
    x, u = torch.zeros(5, 2), torch.zeros(5, 1)
    judge = UncertaintyGate(Doubtful(), usual_spread(Doubtful(), x, u))
    assert judge.share(float(judge.disagreement(x[0], u[0]))) == 1.0
    assert judge.share(float(judge.disagreement(torch.tensor([0.1, 0.0]), u[0]))) == 0.0
    with pytest.raises(ConfigurationError, match="at least one lived transition"):
        usual_spread(Doubtful(), x[:0], u[:0])


@pytest.mark.parametrize("config", [CONFIG, GateConfig(), GateConfig(slowest=1.0), GateConfig(slow_from=0.5, stop_at=0.6)])
def test_more_disagreement_never_means_more_speed(config):
    judge = gate(config)
    asked = np.linspace(0.0, 2 * config.stop_at, 2001)
    shares = np.array([judge.share(float(d)) for d in asked])
    assert (np.diff(shares) <= 0).all()
    assert (shares[asked <= config.slow_from] == 1.0).all() and (shares[asked >= config.stop_at] == 0.0).all()
    between = shares[(asked > config.slow_from) & (asked < config.stop_at)]
    assert (between >= config.slowest).all() and between.min() == config.slowest
    for unknown in (math.nan, math.inf):
        assert judge.share(unknown) == 0.0


def test_the_arm_is_slowed_before_its_command_and_stands_still_where_the_gate_shuts():
    robot = Slider([place(d) for d in (0.0, 0.9, 2.0, 2.9, 3.1, 50.0, 0.5, 0.0)])
    policy = gated(robot)
    episode = live(robot, policy, 7)
    shares, commands = zip(*robot.heard, strict=True)
    assert shares == pytest.approx([1.0, 1.0, 0.5, 0.2, 0.2, 0.2, 1.0], abs=1e-6)
    assert list(commands) == [0.0, 0.0, 0.0, 0.0, -0.25, -0.25, 0.0]
    assert (policy.slowed, policy.shut) == (2, 2)
    assert episode.commanded[:, 0].tolist() == list(commands)


def test_what_is_no_number_is_no_reason_to_act():
    class Broken(Doubtful):
        def predict(self, x, u):
            spread = torch.full((*x.shape[:-1], 2), math.nan)
            return Prediction(x, spread, spread)

    robot = Slider([0.0])
    policy = GatedPolicy(Thinking(), UncertaintyGate(Broken(), torch.ones(2), CONFIG), SPACE, robot.throttle, lambda seen: FALLBACK)
    assert policy.act(robot.reset(0)) is FALLBACK and policy.shut == 1 and robot.share == CONFIG.slowest


def test_a_new_episode_begins_at_full_speed_with_nothing_counted():
    robot = Slider([place(d) for d in (2.0, 5.0, 5.0)])
    policy = gated(robot, Thinking())
    live(robot, policy, 2)
    assert (policy.slowed, policy.shut) == (1, 1) and robot.share == CONFIG.slowest
    policy.reset(9)
    assert (policy.slowed, policy.shut) == (0, 0) and robot.share == 1.0 and policy.policy.seeds == [7, 9]


def test_a_judge_that_is_asked_now_and_then_judges_those_until_the_next_time_too():
    robot = Slider([place(d) for d in (0.0, 2.0, 2.0, 2.0, 9.0, 0.0, 9.0, 9.0)])
    policy = gated(robot, every=3)
    live(robot, policy, 7)
    shares, commands = zip(*robot.heard, strict=True)
    assert shares == pytest.approx([1.0] * 3 + [0.5] * 3 + [0.2], abs=1e-6) and list(commands) == [0.0] * 6 + [-0.25]
    assert (policy.slowed, policy.shut) == (3, 1)
    robot.places[0] = place(2.0)
    policy.act(robot.reset(0))
    policy.reset(0)
    policy.act(robot.reset(0))
    assert robot.share == pytest.approx(0.5), "a new episode's first command is judged whenever the last one was"


def test_the_policy_behind_the_gate_still_plans_ahead_with_what_was_applied():
    robot, thinking = Slider([place(d) for d in (0.0, 9.0, 0.0)]), Thinking()
    policy = gated(robot, thinking)
    assert isinstance(policy, PlansAhead) and policy.provenance == "thinking" and policy.plan_seconds == 0.125
    episode = live(robot, policy, 2)
    assert [applied.values.tolist() for _, applied in thinking.told] == [[0.0], [-0.25]], "the fallback, where it was that"
    assert [seen.q[0] for seen, _ in thinking.told] == episode.x[:2, 0].tolist() and (episode.plan_seconds == 0.125).all()
    plain = gated(robot)
    assert plain.plan_seconds is None and live(robot, plain, 2).steps == 2


@pytest.mark.parametrize("options", [{"quantile": 0.0}, {"quantile": 1.1}, {"slowest": 0.0}, {"slowest": 2.0}, {"slow_from": 0.0},
                                     {"slow_from": 4.0}, {"stop_at": math.nan}])
def test_settings_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigurationError, match="GateConfig"):
        GateConfig(**options)
