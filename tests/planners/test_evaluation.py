"""Costs of plans: equal luck, survival, risk, and no graphs in the workers' threads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dynamics.kernel_choice import available_kernels
from planners import evaluation
from planners.cost import Cost, ZeroCost
from planners.evaluation import EvaluationConfig, PlanEvaluator
from planners.learned_cost import LearnedCost
from robots.errors import ConfigurationError, UnknownNameError

X0 = torch.tensor([1.0, 0.2])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def actions_of(n: int, horizon: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, horizon, 1, generator=seeded(seed))


def test_costs_are_running_costs_from_the_start_and_the_terminal_cost(double_integrator, QuadraticCost, lived_cost, workers):
    evaluator = PlanEvaluator(double_integrator(), QuadraticCost(), EvaluationConfig("E", 1), workers)
    actions = actions_of(7)
    expected = [lived_cost(X0.double().numpy(), a.double().numpy()) for a in actions]
    torch.testing.assert_close(evaluator.costs(X0, actions, seeded()), torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-5)


def test_identical_candidates_get_identical_costs_under_common_random_numbers(double_integrator, QuadraticCost, workers):
    actions = actions_of(50)
    actions[37] = actions[3]
    for common in (True, False):
        config = EvaluationConfig("TSinf", 4, common_random_numbers=common, rows_per_portion=64)
        costs = PlanEvaluator(double_integrator(0.1), QuadraticCost(), config, workers).costs(X0, actions, seeded())
        assert (costs[37] == costs[3]).item() == common


def test_expected_costs_agree_with_the_noise_of_the_model(double_integrator, QuadraticCost, workers):
    std, actions = 0.1, actions_of(1, 1)
    config = EvaluationConfig("TSinf", 20_000, rows_per_portion=20_000)
    cost = float(PlanEvaluator(double_integrator(std), QuadraticCost(), config, workers).costs(X0, actions, seeded())[0])
    certain = float(PlanEvaluator(double_integrator(), QuadraticCost(), EvaluationConfig("E", 1), workers).costs(X0, actions, None)[0])
    # the terminal cost gains trace(Q_END) std^2; its spread is about 2 sqrt(10 * cost) std: five standard errors
    assert cost - certain == pytest.approx(12 * std**2, abs=5 * 2 * math.sqrt(10 * certain) * std / math.sqrt(20_000))


def test_survival_weighs_what_comes_later_and_the_terms_say_so(double_integrator, QuadraticCost, workers):
    actions = actions_of(1, 4)
    survives = 0.7
    evaluator = PlanEvaluator(double_integrator(), QuadraticCost(survives=survives), EvaluationConfig("TSinf", 2), workers)
    cost = QuadraticCost()
    states = evaluator.explain(X0, actions[0]).states
    expected = sum(survives**t * float(cost.running(states[t], actions[0, t])) for t in range(4))
    expected += survives**4 * float(cost.terminal(states[4]))
    assert float(evaluator.costs(X0, actions, None)[0]) == pytest.approx(expected, rel=1e-5)
    assert sum(evaluator.explain(X0, actions[0]).cost_by_term.values()) == pytest.approx(expected, rel=1e-5)


class ConstantTerm(Cost):
    """Charges one a period, without looking, and the command."""

    def terms(self, x, u):
        return {"living": torch.tensor(1.0), "command": u[..., 0]}

    def terminal(self, x):
        return x.new_zeros(())


def test_terms_that_broadcast_are_charged_once_a_period(double_integrator, workers):
    evaluator = PlanEvaluator(double_integrator(), ConstantTerm(), EvaluationConfig("TSinf", 3), workers)
    actions = torch.full((2, 5, 1), 0.5)
    assert evaluator.explain(X0, actions[0]).cost_by_term == pytest.approx({"living": 5.0, "command": 2.5, "terminal": 0.0})
    torch.testing.assert_close(evaluator.costs(X0, actions, seeded()), torch.full((2,), 7.5))


class Recorder(ZeroCost):
    """Notes whether gradients were on, and whether one particle is to diverge."""

    def __init__(self, bad: float = 0.0) -> None:
        self.gradients: list[bool] = []
        self.bad, self.weight = bad, torch.ones((), requires_grad=True)

    def terminal(self, x):
        self.gradients.append(torch.is_grad_enabled() or (self.weight * x).requires_grad)
        value = x.new_zeros(x.shape[:-1])
        value[0] = self.bad
        return value


def test_no_graph_is_built_in_the_workers_threads(double_integrator, workers):
    cost = Recorder()
    with torch.enable_grad():
        costs = PlanEvaluator(double_integrator(), cost, EvaluationConfig("TSinf", 2), workers).costs(
            X0, actions_of(1000), seeded())
    assert len(cost.gradients) == 2 and not any(cost.gradients) and not costs.requires_grad


@pytest.mark.parametrize("risk", ["mean", "worst", "cvar:0.5", "exponential:1", "exponential:-1"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_diverged_particle_makes_a_plan_infinitely_bad_under_every_risk(double_integrator, workers, risk, bad):
    config = EvaluationConfig("TSinf", 4, risk=risk)
    costs = PlanEvaluator(double_integrator(), Recorder(bad), config, workers).costs(X0, actions_of(3), seeded())
    assert costs.tolist() == [math.inf] * 3


def test_a_sum_of_particles_that_leaves_the_numbers_downwards_is_infinitely_bad(double_integrator, workers):
    class Abyss(ZeroCost):
        def terminal(self, x):
            return x.new_full(x.shape[:-1], -3e38)

    costs = PlanEvaluator(double_integrator(), Abyss(), EvaluationConfig("TSinf", 4), workers).costs(X0, actions_of(3), seeded())
    assert costs.tolist() == [math.inf] * 3


def test_a_plan_that_overflows_costs_infinity(double_integrator, QuadraticCost, workers):
    actions = actions_of(3)
    actions[1] = 1e30
    costs = PlanEvaluator(double_integrator(), QuadraticCost(), EvaluationConfig("TSinf", 2), workers).costs(X0, actions, seeded())
    assert costs.isfinite().tolist() == [True, False, True] and costs[1] == math.inf


def test_costs_do_not_depend_on_the_candidates_beside_them_under_common_random_numbers(double_integrator, QuadraticCost, workers):
    evaluator = PlanEvaluator(double_integrator(0.1), QuadraticCost(), EvaluationConfig("TSinf", 4), workers)
    actions = actions_of(40)
    torch.testing.assert_close(evaluator.costs(X0, actions, seeded())[:9], evaluator.costs(X0, actions[:9], seeded()), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kernel", ["auto", "torch"])
def test_buffers_of_many_sizes_are_forgotten_again(double_integrator, QuadraticCost, workers, kernel):
    evaluator = PlanEvaluator(double_integrator(), QuadraticCost(), EvaluationConfig("TSinf", 2, kernel=kernel), workers)
    for n in range(1, 80):
        first = evaluator.costs(X0, actions_of(n), seeded())
        assert torch.equal(evaluator.costs(X0, actions_of(n), seeded()), first)
    assert 1 <= len(evaluator._free) + len(evaluator._fused) <= evaluation.LARGEST_SIZES
    assert all(len(free) <= workers.threads for free in evaluator._free.values())


def test_a_failing_cost_is_raised_and_the_evaluator_stays_usable(double_integrator, workers):
    class Failing(ZeroCost):
        broken = True

        def terminal(self, x):
            if self.broken:
                raise ValueError("no cost today")
            return super().terminal(x)

    cost = Failing()
    evaluator = PlanEvaluator(double_integrator(), cost, EvaluationConfig("TSinf", 2), workers)
    for _ in range(3):
        with pytest.raises(ValueError, match="no cost today"):
            evaluator.costs(X0, actions_of(600), seeded())
    cost.broken = False
    assert not evaluator.costs(X0, actions_of(600), seeded()).any()


@pytest.mark.parametrize("kernel", available_kernels())
@pytest.mark.parametrize(("propagation", "particles"), [("E", 1), ("DS", 4), ("TS1", 4), ("TSinf", 4)])
@pytest.mark.parametrize("horizon", [1, 6])
def test_plans_cost_with_the_kernel_what_they_cost_with_torch(double_integrator, QuadraticCost, workers, kernel, propagation, particles,
                                                              horizon):
    actions = actions_of(70, horizon)
    costs = []
    for name in (kernel, "torch"):
        config = EvaluationConfig(propagation, particles, risk="worst", kernel=name)
        evaluator = PlanEvaluator(double_integrator(0.1), QuadraticCost(survives=0.9), config, workers)
        assert evaluator.kernel == name
        costs.append(evaluator.costs(X0, actions, seeded()))
        explained = evaluator.explain(X0, actions[3])
        assert explained.states.shape == (horizon + 1, 2) and torch.equal(explained.states[0], X0)
        costs.append(torch.tensor(list(explained.cost_by_term.values())))
    torch.testing.assert_close(costs[0], costs[2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(costs[1], costs[3], rtol=1e-5, atol=1e-5)


def test_the_kernel_follows_a_model_that_was_fitted_again(double_integrator, QuadraticCost, workers):
    model = double_integrator()
    evaluator = PlanEvaluator(model, QuadraticCost(), EvaluationConfig("TSinf", 2), workers)
    before = evaluator.costs(X0, actions_of(5), seeded())
    model.load_tensors(double_integrator(gain=3.0).tensors())
    assert torch.equal(evaluator.costs(X0, actions_of(5), seeded()), before)
    evaluator.refresh()
    fresh = PlanEvaluator(double_integrator(gain=3.0), QuadraticCost(), EvaluationConfig("TSinf", 2), workers)
    assert torch.equal(evaluator.costs(X0, actions_of(5), seeded()), fresh.costs(X0, actions_of(5), seeded()))


def test_what_a_kernel_cannot_do_is_done_by_torch_or_refused_in_words(double_integrator, QuadraticCost, workers, monkeypatch):
    def evaluator(propagation: str, kernel: str) -> PlanEvaluator:
        return PlanEvaluator(double_integrator(), QuadraticCost(), EvaluationConfig(propagation, 2, kernel=kernel), workers)

    with pytest.raises(UnknownNameError, match="bfloat16"):
        EvaluationConfig(kernel="float16")
    assert evaluator("MM", "auto").kernel == "torch"
    if available_kernels():
        with pytest.raises(ConfigurationError, match=r"'float32' cannot be used.*MM"):
            evaluator("MM", "float32")
    monkeypatch.setattr(evaluation, "trusted_kernel", lambda name: None)
    assert evaluator("TSinf", "auto").kernel == "torch"
    with pytest.raises(ConfigurationError, match="lacks the instructions"):
        evaluator("TSinf", "bfloat16")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigurationError, match="no GPU"):
            evaluator("TSinf", "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("propagation", ["DS", "TS1", "TSinf", "MM"])
def test_plans_cost_on_a_gpu_what_they_cost_on_the_processor(double_integrator, QuadraticCost, workers, propagation):
    costs = [PlanEvaluator(double_integrator(0.1), QuadraticCost(), EvaluationConfig(propagation, 4, kernel=kernel), workers).costs(
        X0, actions_of(70), seeded()) for kernel in ("cuda", "torch")]
    torch.testing.assert_close(*costs, rtol=1e-4, atol=1e-4)


class FakeValue:
    """What comes after a plan is worth its last position times `worth`."""

    worth = 0.0

    def predict(self, x):
        return self.worth * x[..., 0]


class FakeReward:
    """A reward model of which all is known."""

    sees_endings = True
    reward_scale = 2.0

    def predict(self, x, u):
        return x[..., 0] + 0 * u[..., 0], torch.full(x.shape[:-1], 0.25) + 0 * u[..., 0]


def test_a_learned_cost_is_the_negative_reward_until_the_predicted_end(double_integrator, command, workers):
    model = FakeReward()
    cost = LearnedCost(model, FakeValue(), command(), effort=0.0)
    evaluator = PlanEvaluator(double_integrator(), cost, EvaluationConfig("TSinf", 2), workers)
    actions = torch.zeros(1, 3, 1)
    p = X0[0] + 0.1 * X0[1] * torch.arange(3)
    assert float(evaluator.costs(X0, actions, None)[0]) == pytest.approx(-float((p * 0.75 ** torch.arange(3)).sum()), rel=1e-5)
    model.sees_endings = False
    assert float(evaluator.costs(X0, actions, None)[0]) == pytest.approx(-float(p.sum()), rel=1e-5)


def test_a_plan_is_worth_its_learned_value_at_the_end_unless_it_ended_before(double_integrator, command, workers):
    model, value, actions = FakeReward(), FakeValue(), torch.zeros(1, 3, 1)
    value.worth = 10.0
    cost = LearnedCost(model, value, command(), effort=0.0)
    assert torch.equal(cost.terminal(torch.tensor([[2.0, 7.0], [-1.0, 0.0]])), torch.tensor([-20.0, 10.0]))
    evaluator = PlanEvaluator(double_integrator(), cost, EvaluationConfig("TSinf", 2), workers)
    value.worth = 0.0
    without = float(evaluator.costs(X0, actions, None)[0])
    value.worth = 10.0
    last = float(X0[0] + 0.3 * X0[1])
    assert float(evaluator.costs(X0, actions, None)[0]) == pytest.approx(without - 0.75**3 * 10.0 * last, rel=1e-4)
    assert evaluator.explain(X0, actions[0]).cost_by_term["terminal"] == pytest.approx(-(0.75**3) * 10.0 * last, rel=1e-4)
    model.sees_endings = False
    value.worth = 0.0
    without = float(evaluator.costs(X0, actions, None)[0])
    value.worth = 10.0
    assert float(evaluator.costs(X0, actions, None)[0]) == pytest.approx(without - 10.0 * last, rel=1e-4)


def test_a_learned_cost_charges_effort_as_a_share_of_the_lived_rewards(command):
    x, u = torch.zeros(3, 2), torch.tensor([[-1.0], [2.0], [5.0]])
    cost = LearnedCost(FakeReward(), FakeValue(), command(-1.0, 5.0), effort=0.1)
    torch.testing.assert_close(cost.running(x, u), torch.tensor([0.2, 0.0, 0.2]))
    charged, survives = cost.charge(x, u)
    assert torch.equal(charged, cost.running(x, u)) and torch.equal(survives, cost.survival(x, u))
    with pytest.raises(ConfigurationError, match="effort"):
        LearnedCost(FakeReward(), FakeValue(), command(), effort=-1.0)


def test_costs_of_a_transition_charge_the_state_it_led_to(QuadraticCost):
    cost = QuadraticCost()
    x, u, x_next = torch.tensor([1.0, 0.0]), torch.tensor([2.0]), torch.tensor([0.0, 1.0])
    assert float(cost.transition(x, u, x_next)) == float(cost.running(x_next, u)) == pytest.approx(0.1 + 0.04)
    assert float(cost.running(x, u)) == pytest.approx(sum(float(v) for v in cost.terms(x, u).values()))
    assert np.isfinite(float(cost.terminal(x))) and float(ZeroCost().running(x, u)) == 0.0


@pytest.mark.parametrize("change", [{"particles": 0}, {"rows_per_portion": 0}, {"risk": "cvar:2"}, {"risk": "exponential:0"},
                                    {"risk": "cvar:x"}])
def test_bad_evaluations_are_refused(change):
    with pytest.raises(ConfigurationError):
        EvaluationConfig(**change)


def test_unknown_names_are_refused_with_the_known_ones(double_integrator, workers):
    with pytest.raises(UnknownNameError, match="TSinf"):
        EvaluationConfig(propagation="TS2")
    with pytest.raises(UnknownNameError, match="cvar"):
        EvaluationConfig(risk="median")
    with pytest.raises(ConfigurationError, match="one particle"):
        PlanEvaluator(double_integrator(), ZeroCost(), EvaluationConfig("E", 2), workers)
