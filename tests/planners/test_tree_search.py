"""Trees over finite actions: the best of all sequences where all is done, honest visits, and no plan without a finite cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamics.rollout import roll_out
from dynamics.state_space import Channel, StateSpace
from planners.catalog import make_planner, planner_config_type
from planners.cost import Cost
from planners.evaluation import Explanation, explained, particle_costs
from planners.plan import Plan, PlanStatus
from planners.tree import Node, Tree
from planners.tree_search import TreeSearchPlanner, advantage, completed
from robots.command import CommandMode, CommandSpec
from robots.errors import ConfigurationError, UnknownNameError

TREES = ["gumbel", "puct"]
X0 = torch.zeros(1, dtype=torch.float64)
PERIODS = 5


class Line:
    """A walk along the integers: every step goes where it is told to."""

    state_space = StateSpace([Channel("q", ("p",), (0,))])
    nu = 1

    def step(self, x: Tensor, u: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x + u


@dataclass
class Tolls(Cost):
    """Every place has its toll, +inf where it is closed, and another one for staying; a step costs a little."""

    seed: int = 0
    closed: Callable[[Tensor], Tensor] = field(default=lambda place: torch.zeros_like(place, dtype=torch.bool))
    survives: float | None = None

    def __post_init__(self) -> None:
        self._tolls = torch.rand(2, 101, generator=seeded(self.seed), dtype=torch.float64) * 10 - 3

    def _toll(self, x: Tensor, kind: int) -> Tensor:
        place = x[..., 0].round()
        return torch.where(self.closed(place), torch.inf, self._tolls[kind, place.long().clamp(-50, 50) + 50])

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"toll": self._toll(x, 0), "step": 0.01 * u[..., 0].square() + 0.001 * u[..., 0]}

    def terminal(self, x: Tensor) -> Tensor:
        return self._toll(x, 1)

    def survival(self, x: Tensor, u: Tensor) -> Tensor | None:
        if self.survives is None:
            return None
        return torch.full(torch.broadcast_shapes(x.shape[:-1], u.shape[:-1]), self.survives, dtype=x.dtype)


class MeanEvaluator:
    """What a plan costs under the model itself."""

    dtype = torch.float64

    def __init__(self, cost: Cost) -> None:
        self.model, self.cost = Line(), cost

    def costs(self, x0: Tensor, actions: Tensor, generator: torch.Generator | None) -> Tensor:
        costs = particle_costs(self.cost, x0, self._states(x0, actions).unsqueeze(1), actions.double())[0]
        return torch.where(costs.isfinite(), costs, torch.inf)

    def explain(self, x0: Tensor, actions: Tensor) -> Explanation:
        return explained(self.cost, x0, self._states(x0, actions.unsqueeze(0)), actions.double())

    def _states(self, x0: Tensor, actions: Tensor) -> Tensor:
        states, _ = roll_out(self.model, x0.expand(len(actions), -1), lambda t, x: actions[:, t].double(), actions.shape[1])
        return states[1:]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planner(name: str, cost: Cost | None = None, nu: int = 1, **config: object) -> TreeSearchPlanner:
    limit = np.ones(nu)
    command = CommandSpec(CommandMode.ACTUATOR, tuple(f"u{i}" for i in range(nu)), -limit, limit, "m")
    config = {"horizon": PERIODS, "hold": 1, "levels": (3,), "simulations": 1000} | config
    return make_planner(name, MeanEvaluator(cost or Tolls()), command, 0.1, planner_config_type(name)(**config))


def costs_of(cost: Cost, plans: Tensor, discount: float = 1.0) -> Tensor:
    """Sum the costs (N,) of plans (N, H, 1) period by period."""
    x, total, weight = X0.expand(len(plans), -1), torch.zeros(len(plans), dtype=torch.float64), 1.0
    for u in plans.double().unbind(1):
        survival = cost.survival(x, u)
        total, weight = total + weight * cost.running(x, u), weight * discount * (1.0 if survival is None else survival)
        x = x + u
    return total + weight * cost.terminal(x)


def cost_of(cost: Cost, actions: Tensor, discount: float = 1.0) -> float:
    return float(costs_of(cost, actions.unsqueeze(0), discount))


def every_plan(levels: int, hold: int = 1) -> Tensor:
    """All plans (N, H, 1) over a grid of the command, each choice held."""
    choices = torch.tensor(list(itertools.product(torch.linspace(-1, 1, levels).tolist(), repeat=-(-PERIODS // hold))))
    return choices.repeat_interleave(hold, dim=1)[:, :PERIODS].unsqueeze(-1)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize(("seed", "config", "survives"), [
    (0, {}, None), (1, {"levels": (4,)}, None), (2, {"hold": 2}, None), (6, {"discount": 0.4}, None), (6, {}, 0.4),
    (3, {"rollout": "random"}, None), (4, {"rollout_periods": 0}, None), (5, {"rollout_periods": 2, "rollout": "random"}, None),
])
def test_a_tree_that_is_done_holds_the_best_of_all_sequences(name, seed, config, survives):
    tolls, discount = Tolls(seed, survives=survives), config.get("discount", 1.0)
    plan = planner(name, tolls, simulations=10_000, **config).plan(X0, None, seeded(seed))
    plans = every_plan(config.get("levels", (3,))[0], config.get("hold", 1))
    costs = costs_of(tolls, plans, discount)
    assert plan.status is PlanStatus.CONVERGED and plan.report.iterations < 10_000
    assert cost_of(tolls, plan.actions, discount) == pytest.approx(float(costs.min()), abs=1e-9)
    assert plan.cost == pytest.approx(cost_of(tolls, plan.actions), abs=1e-9), "what is stated is not discounted: it is what a plan costs"
    if seed == 6:
        assert costs.argmin() != costs_of(Tolls(seed), plans).argmin(), "the weights must matter for this to say anything"


@pytest.mark.parametrize("seed", range(4))
def test_a_fraction_of_the_sequences_finds_a_good_one(seed):
    tolls = Tolls(seed)
    everything = costs_of(tolls, every_plan(3)).sort().values
    for name in TREES:
        plan = planner(name, tolls, simulations=60).plan(X0, None, seeded(seed))
        assert plan.status is PlanStatus.ITERATIONS and plan.cost <= everything[len(everything) // 20], (name, plan.cost, everything[:5])


@pytest.mark.parametrize("seed", range(2))
def test_more_simulations_are_never_worse(seed):
    costs = [planner("puct", Tolls(seed), simulations=n).plan(X0, None, seeded()).cost for n in (1, 3, 6, 12, 25, 50, 100, 200)]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(costs)), costs
    constant = min(cost_of(Tolls(seed), torch.full((PERIODS, 1), value)) for value in (-1.0, 0.0, 1.0))
    assert costs[0] == pytest.approx(constant), "the first simulation takes the best of the rollouts that hold"


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("simulations", [1, 2, 7, 40, 200])
def test_visits_are_the_simulations(name, simulations):
    plan = planner(name, simulations=simulations, levels=(5,)).plan(X0, None, seeded())
    assert sum(plan.report.visits) == plan.report.iterations == simulations and len(plan.report.visits) == 5


def test_every_node_was_entered_by_the_visit_before_its_own():
    tree = grown(planner("puct", Tolls(3)), 150)
    nodes, entered = [tree.root], 0
    while nodes:
        node = nodes.pop()
        for action, child in node.children.items():
            assert child.visits.sum() == node.visits[action] - 1 and child.held == action and child.depth == node.depth + 1
            assert node.costs[action] == child.costs[child.visits > 0].min()
            nodes.append(child)
            entered += 1
    assert entered > 20 and tree.samples == 3 * (entered + 1)


def grown(made: TreeSearchPlanner, simulations: int, preferred: list[int] | None = None) -> Tree:
    tree = Tree(made.evaluator.model, made.evaluator.cost, X0, made.choices, made.config, preferred, seeded())
    for _ in range(simulations):
        tree.simulate(made._choose)
    return tree


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("considered", "simulations"), [(3, 50), (4, 3), (1, 10), (2, 16)])
def test_gumbel_looks_only_at_the_actions_it_sampled(seed, considered, simulations):
    made = planner("gumbel", Tolls(seed), levels=(9,), considered=considered, simulations=simulations)
    plan = made.plan(X0, None, seeded(seed))
    noise = -torch.log(-torch.log(torch.rand(9, generator=seeded(seed), dtype=torch.float64)))
    sampled = set(noise.topk(min(considered, simulations)).indices.tolist())
    visited = {action for action, visits in enumerate(plan.report.visits) if visits}
    assert visited == sampled
    assert int((made.choices - plan.actions[0]).abs().sum(-1).argmin()) in sampled


def test_gumbel_halves_what_it_considers():
    plan = planner("gumbel", levels=(4,), considered=4, simulations=16).plan(X0, None, seeded())
    assert sorted(plan.report.visits) == [2, 2, 6, 6], "two rounds of eight: two each, then four each"
    plan = planner("gumbel", levels=(8,), considered=8, simulations=48).plan(X0, None, seeded())
    assert sorted(plan.report.visits) == [2, 2, 2, 2, 6, 6, 14, 14], "three rounds of sixteen"


def test_gumbel_samples_the_prior_without_replacement():
    """Of two actions the one with nine times the prior comes first nine times of ten."""
    made = planner("gumbel", levels=(2,), considered=1, simulations=1, previous_share=0.8)
    previous = planner("puct", Tolls(1), levels=(2,)).plan(X0, None, seeded())
    preferred = int(made.parameterisation.shifted(previous.memory.mean)[0] > 0)
    first = sum(made.plan(X0, previous, seeded(seed)).report.visits[preferred] for seed in range(100))
    assert abs(first - 90) < 4 * math.sqrt(100 * 0.9 * 0.1)


@pytest.mark.parametrize("name", TREES)
def test_one_seed_gives_one_tree(name):
    def plan(seed: int) -> Plan:
        return planner(name, simulations=40, levels=(7,), considered=3).plan(X0, None, seeded(seed)) if name == "gumbel" else planner(
            name, simulations=40, levels=(7,), rollout="random").plan(X0, None, seeded(seed))

    first, again = plan(3), plan(3)
    assert torch.equal(first.actions, again.actions) and first.report.visits == again.report.visits and first.cost == again.cost
    assert any(plan(seed).report.visits != first.report.visits for seed in range(4, 10))


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("seed", range(2))
def test_a_finite_plan_is_found_among_closed_places(name, seed):
    """Only one way leads out, to the left: to hold any action, or to start with another one, ends in a closed place."""
    way = torch.tensor([0.0, -1.0, -2.0])

    def closed(place: Tensor) -> Tensor:
        return ~(place.unsqueeze(-1) == way).any(-1)

    class OneWay(Tolls):
        def terminal(self, x: Tensor) -> Tensor:
            return torch.where(x[..., 0] == -2.0, 0.0, torch.nan)

    cost = OneWay(seed, closed)
    plan = planner(name, cost, simulations=2000).plan(X0, None, seeded(seed))
    costs = costs_of(cost, every_plan(3))
    assert 0 < costs.isfinite().sum() < 30 and math.isfinite(plan.cost) and plan.report.nonfinite > 0
    assert plan.cost == pytest.approx(float(costs[costs.isfinite()].min()))


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("simulations", [2, 3, 10, 50])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_finite_is_never_chosen_where_something_finite_was_seen(name, simulations, seed):
    cost = Tolls(seed, lambda place: place > 0)
    plan = planner(name, cost, simulations=simulations).plan(X0, None, seeded(seed))
    assert math.isfinite(plan.cost) and plan.actions.cumsum(0).max() <= 0


@pytest.mark.parametrize("name", TREES)
def test_without_a_finite_cost_there_is_no_plan(name):
    plan = planner(name, Tolls(closed=lambda place: torch.ones_like(place, dtype=torch.bool))).plan(X0, None, seeded())
    assert plan.status is PlanStatus.NO_FINITE_COST and plan.actions is None and plan.cost == math.inf and plan.memory is None


@pytest.mark.parametrize("name", TREES)
def test_a_deadline_leaves_the_line_found_so_far(name):
    plan = planner(name, simulations=50, levels=(5,)).plan(X0, None, seeded(), deadline=1e-9)
    assert plan.status is PlanStatus.DEADLINE and plan.report.iterations == 1 and sum(plan.report.visits) == 1
    assert plan.actions.unique().numel() == 1, "one rollout, which holds"


@pytest.mark.parametrize("name", TREES)
def test_actions_hold_and_the_last_one_holds_to_the_end(name):
    plan = planner(name, horizon=11, hold=3, simulations=4).plan(X0, None, seeded())
    assert plan.actions.shape == (11, 1)
    assert all(plan.actions[start:start + 3].unique().numel() == 1 for start in range(0, 11, 3))
    assert torch.isin(plan.actions, torch.tensor([-1.0, 0.0, 1.0])).all()


def test_the_prior_prefers_the_previous_plan_as_long_as_it_is_followed():
    made = planner("puct", Tolls(5))
    previous = made.plan(X0, None, seeded())
    preferred = made._nearest(made.parameterisation.shifted(previous.memory.mean))
    few = grown(made, 2, preferred)
    assert few.root.visits[preferred[0]] and not grown(made, 2).root.visits[preferred[0]], "which nobody would have tried so early"
    tree = grown(made, 30, preferred)
    assert tree.root.prior[preferred[0]] == pytest.approx(0.5 + 0.5 / 3) and tree.root.prior.sum() == pytest.approx(1.0)
    for action, child in tree.root.children.items():
        assert child.follows_previous == (action == preferred[0])
        assert child.prior.max() == pytest.approx(0.5 + 0.5 / 3 if child.follows_previous else 1 / 3)


def test_grids_and_lists_of_actions():
    assert planner("puct", nu=2, levels=(2, 3)).choices.tolist() == [
        [-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 0.0], [1.0, 1.0]]
    assert planner("puct", nu=2, levels=(1, 2)).choices.tolist() == [[0.0, -1.0], [0.0, 1.0]]
    assert planner("puct", nu=2, actions=((0.5, 0.0), (0.0, -0.5))).choices.tolist() == [[0.5, 0.0], [0.0, -0.5]]


@pytest.mark.parametrize(("nu", "config", "words"), [
    (7, {"levels": (3,)}, "3 x 3 x 3 x 3 x 3 x 3 x 3 make 2187 actions.*fewer levels"),
    (2, {"levels": (3, 3, 3)}, "one for each command"),
    (1, {"levels": (1,)}, "2 to 1000 actions"),
    (1, {"actions": ((0.5,), (1.5,))}, r"between \[-1.0\] and \[1.0\]"),
    (2, {"actions": ((0.5,), (0.1,))}, "lists of 2 numbers"),
])
def test_actions_that_do_not_fit_are_refused_in_words(nu, config, words):
    with pytest.raises(ConfigurationError, match=words):
        planner("puct", nu=nu, **config)


@pytest.mark.parametrize("change", [{"simulations": 0}, {"hold": 0}, {"levels": ()}, {"levels": (0,)}, {"discount": 0.0}, {"discount": 1.1},
                                    {"rollout_periods": -1}, {"previous_share": 1.0}, {"horizon": 0}])
@pytest.mark.parametrize("name", TREES)
def test_bad_trees_are_refused(name, change):
    with pytest.raises(ConfigurationError):
        planner_config_type(name)(**change)
    with pytest.raises(UnknownNameError, match="hold"):
        planner_config_type(name)(rollout="holt")


@pytest.mark.parametrize(("name", "change"), [("puct", {"exploration": 0.0}), ("gumbel", {"considered": 0}),
                                              ("gumbel", {"visit_scale": -1.0}), ("gumbel", {"value_scale": 0.0})])
def test_bad_walks_are_refused(name, change):
    with pytest.raises(ConfigurationError):
        planner_config_type(name)(**change)


def test_values_lie_between_the_worst_and_the_best_that_is_known():
    np.testing.assert_allclose(advantage(np.array([3.0, 1.0, 2.0, np.inf])), [0.0, 1.0, 0.5, 0.0])
    np.testing.assert_allclose(advantage(np.array([2.0, 2.0])), [0.0, 0.0])
    np.testing.assert_allclose(advantage(np.array([2.0, np.inf])), [1.0, 0.0])
    np.testing.assert_allclose(advantage(np.full(3, np.inf)), 0.0)
    costs = np.random.default_rng(0).normal(size=20)
    np.testing.assert_allclose(advantage(costs), advantage(1e4 * costs - 7.0), atol=1e-9)


def node(estimate: float, prior: list[float], costs: list[float], visits: list[int]) -> Node:
    count = len(prior)
    made = Node(1, estimate, None, np.array(prior), np.array(costs), np.zeros(count, dtype=bool), *torch.zeros(3, count), False)
    made.visits = np.array(visits)
    return made


def test_actions_of_which_nothing_is_known_are_completed_by_the_mix_of_what_is():
    # (10 + 3 visits (0.5 4 + 0.25 8) / 0.75) / (1 + 3)
    np.testing.assert_allclose(completed(node(10.0, [0.5, 0.25, 0.25], [4.0, 8.0, np.inf], [2, 1, 0])), [4.0, 8.0, 26 / 4])
    np.testing.assert_allclose(completed(node(10.0, [0.5, 0.5], [1.0, 2.0], [0, 0])), [1.0, 2.0])
    np.testing.assert_allclose(completed(node(np.inf, [0.5, 0.5], [1.0, np.inf], [4, 0])), [1.0, 1.0])
    np.testing.assert_allclose(completed(node(6.0, [0.5, 0.5], [np.inf, 2.0], [4, 0])), [np.inf, 2.0])
    np.testing.assert_allclose(completed(node(6.0, [0.5, 0.5], [np.inf, np.inf], [1, 0])), [np.inf, np.inf])
