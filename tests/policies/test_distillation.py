"""A planner is distilled where the network's own mistakes lead, and what the network sees of the model's states is a view of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynamics.linear import LinearConfig, LinearModel
from dynamics.state_space import Channel, StateSpace
from planners.cost import Cost
from planners.plan import Plan, PlanReport, PlanStatus
from policies.distillation import DistillationConfig, DistillationReport, distil
from policies.neural_policy import NeuralPolicy
from policies.policy_search import PolicySearchConfig, improve_policy
from policies.receding_horizon import RecedingHorizonPolicy
from policies.student import ThroughView
from robots.command import CommandMode, CommandSpec
from robots.errors import ConfigurationError, NumericalError

DT = 0.1
SPACE = StateSpace([Channel("q", ("p",), (0,)), Channel("goal", ("goal",), (0,), model_input=False), Channel("dq", ("v",), (0,))])
SEEN = StateSpace([Channel("miss", ("miss",), (0,)), Channel("dq", ("v",), (0,))])
COMMAND = CommandSpec(CommandMode.ACTUATOR, ("u",), np.array([-2.0]), np.array([2.0]), "N")
HALF = 2.0
STARTS = torch.rand(200, 3, generator=torch.Generator().manual_seed(3)) * torch.tensor([1.0, 0.8, 0.6]) - torch.tensor([0.5, 0.4, 0.3])
CONFIG = DistillationConfig(hidden=(32,), rounds=3, rollouts=40, steps=15, updates=400, batch_size=64, learning_rate=1e-2)
SHORT = DistillationConfig(hidden=(8,), rounds=3, rollouts=4, steps=5, updates=3)


def missing(x: torch.Tensor) -> torch.Tensor:
    """What the network sees: the way to the goal, and the velocity."""
    return torch.stack([x[..., 1] - x[..., 0], x[..., 2]], dim=-1)


def law(x: torch.Tensor) -> torch.Tensor:
    """The expert's command (..., 1)."""
    return (2.0 * missing(x)[..., :1] - 1.5 * x[..., 2:]).clamp(-HALF, HALF)


def point_mass(gain: float = 1.0, std: float = 1e-9) -> LinearModel:
    """p' = p + gain * DT v, goal' = goal, v' = v + DT u; inputs are p, v, u and 1."""
    model = LinearModel(SPACE, 1, DT, LinearConfig())
    change = torch.zeros(4, 3, dtype=torch.float64)
    change[1, 0], change[2, 2] = gain * DT, DT
    model.load_tensors({"coefficients": change, "std": torch.full((3,), std, dtype=torch.float64), "fits": torch.tensor(1)})
    return model


class LawPlanner:
    """Plans `law`, and keeps what it is asked about, an entry an episode: the seed's first number, and all states."""

    horizon = 1

    def __init__(self) -> None:
        self.asked: list[list[torch.Tensor]] = []
        self.draws: list[float] = []

    def expert(self) -> RecedingHorizonPolicy:
        self.asked.append([])
        mine = len(self.asked) - 1

        class One:
            horizon = 1

            def plan(_, x0, previous, generator, deadline=None):
                if not self.asked[mine]:
                    self.draws.append(float(torch.rand(1, generator=generator)))
                self.asked[mine].append(x0.clone())
                return Plan(law(x0.unsqueeze(0)), None, None, 0.0, PlanStatus.ITERATIONS, PlanReport(0.0, 1, 1, 0, 1.0), DT)

        return RecedingHorizonPolicy(One(), SPACE, COMMAND, "law")

    def states(self, config: DistillationConfig) -> torch.Tensor:
        """(rounds, rollouts, steps, nx)"""
        return torch.stack([torch.stack(states) for states in self.asked]).view(config.rounds, config.rollouts, config.steps, -1)


class Stubborn:
    """Commands 0.7 whatever it is taught."""

    command = COMMAND

    def __init__(self) -> None:
        self.parameters = {"weight": torch.zeros(1, requires_grad=True)}
        self.standardised: list[torch.Tensor] = []

    def standardise(self, x: torch.Tensor) -> None:
        self.standardised.append(x)

    def action(self, x: torch.Tensor) -> torch.Tensor:
        return 0.7 + 0.0 * x[..., :1] * self.parameters["weight"]


class MissCost(Cost):
    """Squared way to the goal and a little for commands and speed."""

    def terms(self, x, u):
        return {"miss": missing(x)[..., 0].square(), "rest": 0.01 * u.square().sum(-1) + 0.1 * x[..., 2].square()}

    def terminal(self, x):
        return missing(x)[..., 0].square()


def network(hidden: tuple[int, ...] = CONFIG.hidden, seed: int = 0) -> NeuralPolicy:
    return NeuralPolicy(SEEN, COMMAND, hidden, seed)


def teach(config: DistillationConfig, seed: int = 0, std: float = 1e-2, model: LinearModel | None = None) -> tuple[
        NeuralPolicy, DistillationReport]:
    policy = network(config.hidden)
    report = distil(ThroughView(policy, missing), LawPlanner().expert, model or point_mass(std=std), STARTS, config, seed)
    return policy, report


def test_a_linear_expert_is_learned_through_a_view_and_the_error_falls():
    policy, report = teach(CONFIG)
    assert report.errors[0] > 0.15 and report.errors[1] < 0.03 and report.errors[2] < 0.75 * report.errors[1]
    with torch.no_grad():
        wrong = (policy.action(missing(STARTS)) - law(STARTS)).square().mean().sqrt() / HALF
    assert wrong < 0.05
    assert report.states == CONFIG.rounds * CONFIG.rollouts * CONFIG.steps


def test_the_planner_acts_first_then_the_network_and_the_planner_says_what_it_would_have_done():
    planner, student = LawPlanner(), Stubborn()
    report = distil(student, planner.expert, point_mass(), STARTS, SHORT, 0)
    states = planner.states(SHORT)
    lived = (states[:, :, 1:, 2] - states[:, :, :-1, 2]) / DT  # what was commanded, as the model tells it
    torch.testing.assert_close(lived[0], law(states[0, :, :-1]).squeeze(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(lived[1:], torch.full_like(lived[1:], 0.7), atol=1e-5, rtol=0)
    wrong = (0.7 - law(states)) / HALF
    assert report.errors == pytest.approx(wrong.square().mean((1, 2, 3)).sqrt().tolist(), rel=1e-4)
    (seen,) = student.standardised
    assert torch.equal(seen.sort(0).values, states[0].flatten(0, 1).float().sort(0).values), "scaled by what the planner lived through"


def test_rollouts_begin_at_the_starts_each_with_an_expert_of_its_own():
    planner = LawPlanner()
    told = []
    report = distil(Stubborn(), planner.expert, point_mass(), STARTS, SHORT, 0, lambda done, planned: told.append((done, planned)))
    first = planner.states(SHORT)[:, :, 0].flatten(0, 1)
    assert len(first) == SHORT.rounds * SHORT.rollouts and all((x.float() == STARTS).all(-1).any() for x in first)
    assert len(first.unique(dim=0)) > 3 and len(set(planner.draws)) == len(first), "another start and seed each"
    assert told == [(4 * k, report.states) for k in range(1, 16)]


def test_everything_comes_from_the_seed():
    torch.manual_seed(1)
    one = teach(SHORT)[0].tensors()
    torch.manual_seed(2)
    same, other = teach(SHORT)[0].tensors(), teach(SHORT, seed=1)[0].tensors()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_that_leaves_the_numbers_is_told_in_words():
    runaway = point_mass(gain=1e20)
    coefficients = runaway.tensors()["coefficients"]
    coefficients[0, 0] = 1e20
    runaway.load_tensors(runaway.tensors() | {"coefficients": coefficients})
    with pytest.raises(NumericalError, match="left the numbers in round 0 after 2 control periods"):
        teach(SHORT, model=runaway)


@pytest.mark.parametrize("name", ["rounds", "rollouts", "steps", "updates", "batch_size", "learning_rate"])
def test_settings_that_cannot_be_are_refused(name):
    for value in (0, -1, float("nan")):
        with pytest.raises(ConfigurationError, match=name):
            DistillationConfig(**{name: value})


def test_a_policy_through_a_view_is_the_policy():
    policy, x = network(), torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    through = ThroughView(policy, missing)
    assert through.parameters is policy.parameters and through.command is policy.command
    through.standardise(x)
    other = network()
    other.standardise(missing(x))
    assert torch.equal(through.action(x), policy.action(missing(x)))
    assert all(torch.equal(value, other.tensors()[name]) for name, value in policy.tensors().items())


def test_policy_search_through_a_view_improves_the_policy_behind_it():
    policy, config = network(), PolicySearchConfig(horizon=12, rollouts=60, updates=80, learning_rate=1e-2)
    before = policy.tensors()
    history = improve_policy(ThroughView(policy, missing), point_mass(std=1e-3), MissCost(), STARTS, config, 0)
    assert np.mean(history[-10:]) < 0.6 * np.mean(history[:5])
    after = policy.tensors()
    assert all(torch.equal(before[name], after[name]) == name.startswith("input") for name in before)
    plain, viewed = (NeuralPolicy(SPACE, COMMAND, (8,), 0) for _ in range(2))
    few = PolicySearchConfig(horizon=3, rollouts=4, updates=3)
    histories = [improve_policy(student, point_mass(), MissCost(), STARTS, few, 0) for student in (plain, ThroughView(viewed, lambda x: x))]
    assert histories[0] == histories[1]
    assert all(torch.equal(value, viewed.tensors()[name]) for name, value in plain.tensors().items())
