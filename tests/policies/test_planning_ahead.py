"""Planning ahead takes a period's delay away, and nothing else: where the model is right, it acts as if planning took no time."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dynamics.linear import LinearConfig, LinearModel
from dynamics.state_space import Channel, StateSpace
from dynamics.workers import Workers
from episodes.store import EpisodeStore
from experiments.build import build_run
from experiments.config import settings_for
from experiments.quiet import Quiet
from planners.catalog import make_planner
from planners.cost import Cost
from planners.evaluation import EvaluationConfig, PlanEvaluator
from planners.icem import ICEMConfig
from planners.plan import Plan, PlanReport, PlanStatus
from policies.episode_loop import EpisodeSource, run_episode
from policies.model_based import Learner, LearningConfig, algorithm
from policies.planning_ahead import PlanningAhead, PlansAhead
from policies.receding_horizon import RecedingHorizonPolicy
from robots.command import Command, CommandMode, CommandSpec
from robots.errors import NumericalError
from robots.limits import JointLimits
from robots.observation import NO_POSE, Observation
from robots.spec import RobotSpec

DT = 0.1
SPACE = StateSpace([Channel("q", ("p",), (0,)), Channel("dq", ("v",), (0,))])
COMMAND = CommandSpec(CommandMode.ACTUATOR, ("u",), np.array([-3.0]), np.array([3.0]), "N")
SPEC = RobotSpec("slider", ("p",), 1, JointLimits.unlimited(1), DT, (COMMAND,))
NEVER_LATE = 1e6


def double_integrator() -> LinearModel:
    model = LinearModel(SPACE, 1, DT, LinearConfig())
    change = torch.tensor([[0.0, 0.0], [DT, 0.0], [0.5 * DT**2, DT], [0.0, 0.0]], dtype=torch.float64)
    model.load_tensors({"coefficients": change, "std": torch.full((2,), 1e-6, dtype=torch.float64), "fits": torch.tensor(1)})
    return model


MODEL = double_integrator()


def follow(x: torch.Tensor, u: np.ndarray) -> torch.Tensor:
    """What the model says of the next state, (nx,) float32."""
    return MODEL.predict(x.float(), torch.as_tensor(u.copy()).float()).mean


class Slider:
    """Follows the model to the last bit, but does only a share of what it is told, and may be pushed; notes what it is asked."""

    spec = SPEC

    def __init__(self, share: float = 1.0, push: float = 0.0, notes: list[str] | None = None) -> None:
        self.share, self.push, self.notes = share, push, [] if notes is None else notes

    def reset(self, seed: int) -> Observation:
        self.periods, self.x = 0, torch.tensor([1.0, 0.2])
        return self.observe()

    def send(self, command: Command) -> Command:
        self.notes.append("send")
        self.applied = self.share * command.values
        return Command(command.mode, self.applied)

    def tick(self) -> Observation:
        self.notes.append("tick")
        self.periods += 1
        self.x = follow(self.x, self.applied) + torch.tensor([0.0, self.push])
        return self.observe()

    def observe(self) -> Observation:
        p, v = self.x.double().numpy()
        return Observation(int(self.periods * DT * 1e9), np.array([p]), np.array([v]), np.zeros(1), NO_POSE)

    def close(self) -> None:
        pass


class LawPlanner:
    """u = -p - v and on, a little less each period; notes every state that it is asked about."""

    horizon = 5

    def __init__(self) -> None:
        self.asked: list[torch.Tensor] = []
        self.fails_at: int | None = None

    def plan(self, x0, previous, generator, deadline=None):
        self.asked.append(x0.double())
        report = PlanReport(0.0, 1, 1, 0, 1.0)
        if len(self.asked) - 1 == self.fails_at:
            return Plan(None, None, None, float("inf"), PlanStatus.NO_FINITE_COST, report, DT)
        actions = -x0.float().sum() * torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6]).unsqueeze(-1)
        return Plan(actions, None, None, 0.0, PlanStatus.ITERATIONS, report, DT)


class PositionCost(Cost):
    """p^2 and u."""

    def terms(self, x, u):
        return {"position": x[..., 0].square(), "command": 0.01 * u.square().sum(-1)}

    def terminal(self, x):
        return x.square().sum(-1)


def of_law(replan_every: int = 1, control_dt: float = NEVER_LATE) -> tuple[LawPlanner, PlanningAhead]:
    planner = LawPlanner()
    return planner, PlanningAhead(RecedingHorizonPolicy(planner, SPACE, COMMAND, "law", replan_every), MODEL, control_dt)


def live(robot: Slider, policy, steps: int = 8):
    return run_episode(EpisodeSource(robot, SPACE, COMMAND, PositionCost(), "slide"), policy, steps, seed=3, trial=0, provenance="law")


class Noting:
    """Passes everything on to a policy and notes when it was asked; `told` holds what `ahead` was handed."""

    def __init__(self, policy: PlanningAhead, notes: list[str]) -> None:
        self.policy, self.provenance, self.notes = policy, policy.provenance, notes
        self.told: list[tuple[Observation, Command]] = []

    def reset(self, seed: int) -> None:
        self.policy.reset(seed)

    def act(self, observation: Observation) -> Command:
        self.notes.append("act")
        return self.policy.act(observation)

    def ahead(self, observation: Observation, applied: Command) -> None:
        self.notes.append("ahead")
        self.told.append((observation, applied))
        self.policy.ahead(observation, applied)


def test_the_loop_lets_it_think_once_the_command_is_sent_and_tells_it_what_was_applied():
    notes: list[str] = []
    policy = Noting(of_law()[1], notes)
    assert isinstance(policy, PlansAhead) and not isinstance(RecedingHorizonPolicy(LawPlanner(), SPACE, COMMAND, "law"), PlansAhead)
    episode = live(Slider(share=0.5, notes=notes), policy, 5)
    assert notes == ["act", "send", "ahead", "tick"] * 5
    assert [applied.values.tolist() for _, applied in policy.told] == episode.applied.tolist()
    assert (episode.applied != episode.commanded).all()
    assert [seen.q[0] for seen, _ in policy.told] == episode.x[:-1, 0].tolist()


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("push", [0.0, 0.3])
def test_a_command_is_planned_for_where_the_model_says_the_robot_will_be(share, push):
    planner, policy = of_law()
    episode = live(Slider(share, push), policy)
    x, asked = torch.from_numpy(episode.x.copy()), planner.asked[1:]  # the first plan is one that nobody plays
    assert torch.equal(asked[0], x[0])  # nothing was known before: planned in `act`
    predicted = torch.stack([follow(x[k], episode.applied[k]) for k in range(episode.steps)]).double()
    assert torch.equal(torch.stack(asked[1:]), predicted)  # x_{k+1} = f(x_k, what was applied)
    assert (push > 0.0) == bool((predicted[:, 1] != x[1:, 1]).any())
    np.testing.assert_array_equal(episode.commanded[1:, 0], -predicted[:-1].float().sum(-1).double().numpy())


def test_where_the_model_is_right_nothing_differs_from_planning_in_no_time():
    """Also not by the plan that nobody plays."""
    episodes, workers = [], Workers(1)
    for ahead in (True, False):
        evaluator = PlanEvaluator(MODEL, PositionCost(), EvaluationConfig("TSinf", 2), workers)
        planner = make_planner("icem", evaluator, COMMAND, DT, ICEMConfig(horizon=6, population=30, elites=5))
        policy = RecedingHorizonPolicy(planner, SPACE, COMMAND, "icem")
        episodes.append(live(Slider(), PlanningAhead(policy, MODEL, DT) if ahead else policy))
    workers.close()
    for field in ("x", "commanded", "applied", "cost"):
        assert np.array_equal(getattr(episodes[0], field), getattr(episodes[1], field)), field
    assert np.ptp(episodes[0].commanded) > 0.5 and abs(episodes[0].x[-1, 0]) < 0.5


@pytest.mark.parametrize("replan_every", [1, 3])
def test_planning_happens_in_act_at_the_beginning_alone_and_its_time_is_that_of_the_command(replan_every):
    planner, policy = of_law(replan_every)
    robot = Slider()
    observation = robot.reset(0)
    assert policy.plan_seconds is None
    for k in range(6):
        before = len(planner.asked)
        command = policy.act(observation)
        assert len(planner.asked) - before == (k == 0)
        assert (policy.plan_seconds is not None) == (k % replan_every == 0)  # played on where None
        policy.ahead(observation, robot.send(command))
        observation = robot.tick()
    policy.reset(0)
    before = len(planner.asked)
    policy.act(observation)
    assert len(planner.asked) == before + 1, "a command made for another episode is forgotten"
    assert torch.equal(planner.asked[-1], torch.from_numpy(SPACE.state(observation)))


def test_a_command_is_played_once_and_without_word_of_what_was_sent_it_plans_in_act():
    planner, policy = of_law()
    robot = Slider()
    observation = robot.reset(0)
    policy.ahead(observation, robot.send(policy.act(observation)))
    observation = robot.tick()
    for planned in (2, 3, 4):
        policy.act(observation)
        assert len(planner.asked) == planned


def test_the_plan_that_nobody_plays_may_fail_and_leaves_nothing_behind():
    planner, policy = of_law()
    planner.fails_at = 0
    policy.reset(0)
    assert len(planner.asked) == 1 and policy.plan_seconds is None
    assert live(Slider(), policy).steps == 8


def test_plans_that_take_longer_than_a_period_are_counted_since_reset():
    for control_dt, late in ((1e-9, 8), (NEVER_LATE, 0)):
        _, policy = of_law(control_dt=control_dt)
        live(Slider(), policy)
        assert policy.late == late
        policy.reset(0)
        assert policy.late == 0


@pytest.mark.parametrize(("gate", "late"), [(0.04, 0), (0.08, 8)])
def test_what_a_gate_and_sending_take_is_the_plan_s_no_more_but_not_the_wait_for_the_first_plan(gate, late, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("policies.planning_ahead.time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Slow(LawPlanner):
        def plan(self, x0, previous, generator, deadline=None):
            now[0] += 0.05
            return super().plan(x0, previous, generator, deadline)

    class Sending(Slider):
        def send(self, command):
            now[0] += gate
            return super().send(command)

    policy = PlanningAhead(RecedingHorizonPolicy(Slow(), SPACE, COMMAND, "law"), MODEL, DT)
    live(Sending(), policy)
    assert (policy.late, policy.plans) == (late, 8)


def test_a_plan_that_fails_ahead_of_time_ends_the_episode_with_what_was_lived_and_is_not_acted_on():
    planner, policy = of_law()
    planner.fails_at = 4
    episode = live(Slider(), policy)
    assert episode.steps == 2 and episode.truncated and np.isfinite(episode.x).all()
    planner, policy = of_law()
    planner.fails_at = 1
    robot = Slider()
    observation = robot.reset(0)
    applied = robot.send(policy.act(observation))
    with pytest.raises(NumericalError, match="no finite cost"):
        policy.ahead(observation, applied)
    policy.act(observation)
    assert torch.equal(planner.asked[-1], torch.from_numpy(SPACE.state(observation)))


def built_learner(folder, plan_ahead: bool) -> tuple[Learner, PlanningAhead | RecedingHorizonPolicy]:
    settings = settings_for("pendulum", 200)
    config = replace(settings, algorithm="1.5",
                     learning=LearningConfig(trials=2, random_trials=1, episode_steps=8, plan_ahead=plan_ahead),
                     ensemble=replace(settings.ensemble, hidden=(8,), weight_decay=(1e-4,), members=2,
                                      fit=replace(settings.ensemble.fit, epochs=3)),
                     evaluation=replace(settings.evaluation, particles=2),
                     search=replace(settings.search, horizon=4, population=6, elites=2, iterations=2))
    with build_run(config, EpisodeStore(folder), Quiet(), 1) as built:
        algorithm("1.5")(built.learner)
        return built.learner, built.learner.planning_policy(1)


def test_a_learner_plans_ahead_where_it_is_told_to(tmp_path):
    learner, policy = built_learner(tmp_path / "ahead", True)
    assert isinstance(policy, PlanningAhead) and not isinstance(built_learner(tmp_path / "plain", False)[1], PlansAhead)
    assert policy.provenance == learner.records[1].provenance == "icem"
    episodes = [EpisodeStore(tmp_path / name).read(1) for name in ("ahead", "plain")]
    assert all(np.isfinite(e.plan_seconds).all() and e.steps == 8 for e in episodes)
    assert np.array_equal(episodes[0].x[:2], episodes[1].x[:2]), "the first command is planned for the same state"
    assert not np.array_equal(episodes[0].x[2:], episodes[1].x[2:]), "the second one sees the model's error"
