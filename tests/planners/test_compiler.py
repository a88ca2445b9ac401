"""A cost that is compiled is the cost: its values and derivatives are torch's, and what cannot be compiled is left to torch."""

from __future__ import annotations

import gc
import logging
import math
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamics.state_space import Channel, StateSpace
from planners.compiler.compiled_cost import CompiledCost, compiled_cost
from planners.compiler.expression import NotCompilable
from planners.compiler.tracing import trace
from planners.cost import Cost
from planners.cost_expansion import expand_cost

FLAT = StateSpace([Channel("q", ("a", "b", "c"), (0, 1, 2)), Channel("dq", ("d", "e", "f"), (0, 1, 2))])
ROTATIONS = StateSpace([Channel("q", ("z",), (0,)), Channel("q", ("w", "x", "y", "k"), (1, 2, 3, 4), "quaternion"),
                        Channel("q", ("a",), (5,), "angle")])
NU = 2


class Given(Cost):
    """running(x, u) is a function's value, the terminal cost that of the state with no command."""

    pure = True

    def __init__(self, function) -> None:
        self._function = function

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"given": self._function(x, u), "effort": 0.5 * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        return 2.0 * self._function(x, x[..., :NU])


def in_place(x: Tensor, u: Tensor) -> Tensor:
    y = x.clone()
    y[..., 1:3] = u * x[..., :2]
    y[..., 0] += 3.0
    y[..., [3, 5]] *= 2.0
    return y.square().sum(-1) * y[..., 4]


WEIGHT = torch.tensor([[1.0, 2.0, -0.5], [0.3, -1.0, 0.7]], dtype=torch.float64)
FUNCTIONS = {
    "arithmetic": lambda x, u: (x[..., 0] * u[..., 0] - 2.0 / (3.0 + x[..., 1].square()) + 1.0 - x[..., 2] + -x[..., 3] / u[..., 1].exp()),
    "powers": lambda x, u: x[..., 0] ** 2 + x[..., 1] ** 3 + x[..., 2] ** 4 + (2 + x[..., 3].square()) ** -1.7
              + (1 + x[..., 4].square()) ** (0.5 + u[..., 0].square()) + (1 + x[..., 5].square()).rsqrt(),
    "trigonometry": lambda x, u: torch.sin(x[..., 0]) * torch.cos(x[..., 1]) + torch.tan(0.3 * x[..., 2])
                    + torch.atan2(x[..., 3], x[..., 4]) + torch.atan(x[..., 5])
                    + torch.asin(torch.sin(u[..., 0]) * 0.9) + torch.acos(torch.cos(u[..., 1]) * 0.9),
    "exponentials": lambda x, u: torch.exp(x[..., 0]) + torch.log(2 + x[..., 1].square()) + torch.log1p(x[..., 2].square())
                    + torch.expm1(x[..., 3]) + torch.sinh(x[..., 4]) + torch.cosh(x[..., 5]) + torch.tanh(u[..., 0]) + torch.erf(u[..., 1]),
    "bends": lambda x, u: torch.sigmoid(x[..., 0]) + torch.nn.functional.softplus(3 * x[..., 1]) + torch.relu(x[..., 2]) * x[..., 3]
             + torch.sinc(x[..., 4]) + x[..., 5].abs() * u[..., 0],
    "limits": lambda x, u: x.clamp(-0.5, 0.6).square().sum(-1) + torch.clamp_min(u, 0.1).prod(-1) + torch.maximum(x[..., 0], x[..., 1]) ** 2
              + torch.minimum(x[..., 2], x[..., 3] * u[..., 0]),
    "choices": lambda x, u: torch.where((x[..., 0] > 0) & (x[..., 1] <= 0.2) | ~(u[..., 0] >= x[..., 2]),
                                        x[..., 3].square(), x[..., 4] ** 3)
               + (x[..., 5] < 0).to(x.dtype) * u[..., 1].square() + (x > 0.1).sum(-1) * u[..., 0] + (x > -9.0).all(-1) * u[..., 0],
    "steps": lambda x, u: torch.floor(3 * x[..., 0]) * x[..., 1] + torch.ceil(x[..., 2]) + torch.round(2 * x[..., 3]) * u[..., 0]
             + torch.sign(x[..., 4]) * x[..., 5] + torch.remainder(x[..., 1], math.pi) * x[..., 2]
             + x.amax(-1) * x.amin(-1),
    "norms": lambda x, u: torch.linalg.vector_norm(x[..., :3], dim=-1) * u[..., 0] + (x[..., 3:] - 1).norm(dim=-1, keepdim=True).squeeze(-1)
             + x.abs().mean(-1) + torch.linalg.vector_norm(x, ord=1, dim=-1),
    "products": lambda x, u: ((x[..., :3] @ WEIGHT.T) * u).sum(-1) + torch.einsum("...i,ij,...j->...", u, WEIGHT, x[..., 3:])
                + torch.linalg.cross(x[..., :3], x[..., 3:]).square().sum(-1),
    "shapes": lambda x, u: torch.cat([x[..., 2:4], u], -1).reshape(*u.shape[:-1], 2, 2).transpose(-1, -2).square().sum((-1, -2))
              + torch.stack(x.unbind(-1)[::-1], -1)[..., :2].mul(u).sum(-1) + x.split(2, dim=-1)[1].sum(-1) ** 2,
    "in place": in_place,
    "constant": lambda x, u: torch.ones(x.shape[:-1], dtype=x.dtype),
}


TRUTHS = {
    "chosen truths": lambda x, u: torch.where(x[..., 2] > 0, x[..., 0] > 0, x[..., 1] > 0) * x[..., 3],
    "their product": lambda x, u: (x > -1).prod(-1) * x[..., 3] + (x > 0).amax(-1),
    "numbers as truths": lambda x, u: torch.logical_and(x[..., 0], torch.floor(x[..., 1])) * x[..., 2] + x.floor().all(-1)
                         + torch.logical_not(x[..., 3].floor()) + x[..., :2].floor().any(-1),
    "places that were computed": lambda x, u: x[..., torch.tensor([0, 1]) + 1].sum(-1) + x.masked_fill(x > 0, 2.0).sum(-1)
                                 + torch.hypot(x[..., 0], x[..., 1]) + x[..., 0].isnan(),
}


def trajectories(space: StateSpace, samples: int, horizon: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return states (N, H + 1, nx) and commands (N, H, nu)."""
    rng = np.random.default_rng(seed)
    states = 0.7 * rng.normal(size=(samples, horizon + 1, space.nx))
    for start, *_ in space.quaternions:
        states[..., start:start + 4] /= np.linalg.norm(states[..., start:start + 4], axis=-1, keepdims=True)
    return states, rng.normal(size=(samples, horizon, NU))


def by_torch(cost: Cost, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    x, u = torch.from_numpy(states), torch.from_numpy(actions)
    return (cost.running(x[:, :-1], u).sum(-1) + cost.terminal(x[:, -1])).numpy()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_torchs(name):
    cost, (states, actions) = Given(FUNCTIONS[name]), trajectories(FLAT, 20, 7)
    found = CompiledCost(cost, FLAT, NU).totals(states[:, 0], states[:, 1:], actions)
    np.testing.assert_allclose(found, by_torch(cost, states, actions), rtol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_torchs(name):
    cost, (states, actions) = Given(FUNCTIONS[name]), trajectories(FLAT, 1, 30)
    states[0, 4] = [0.0, 0.0, 0.0, 0.0, 0.1, 0.0]  # where bends are
    if name in ("trigonometry", "norms", "steps"):
        states[0, 4] = np.arange(1, 7)  # torch itself has none there, or halves
    found = CompiledCost(cost, FLAT, NU).expand(states[0], actions[0])
    expected = expand_cost(cost, FLAT, states[0], actions[0])
    for ours, theirs in zip(found, (expected.gradient, expected.hessian, expected.end_gradient, expected.end_hessian), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_derivatives_on_rotations_are_torchs():
    goal = torch.nn.functional.normalize(torch.tensor([1.0, 0.2, -0.3, 0.4], dtype=torch.float64), dim=0)
    cost = Given(lambda x, u: (x[..., 1:5] * goal).sum(-1).square() * torch.cos(u[..., 0]) + x[..., 2] * x[..., 5] + x[..., 0] ** 2)
    states, actions = trajectories(ROTATIONS, 1, 12)
    found = CompiledCost(cost, ROTATIONS, NU).expand(states[0], actions[0])
    expected = expand_cost(cost, ROTATIONS, states[0], actions[0])
    assert found[1].shape == (12, 7, 7)
    for ours, theirs in zip(found, (expected.gradient, expected.hessian, expected.end_gradient, expected.end_hessian), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_slope_of_a_norm_at_zero_is_zero():
    cost = Given(lambda x, u: torch.linalg.vector_norm(x[..., :2], dim=-1))
    gradient, hessian, *_ = CompiledCost(cost, FLAT, NU).expand(np.zeros((2, 6)), np.zeros((1, 2)))
    assert not gradient.any() and np.isfinite(hessian).all()


def test_terms_add_up():
    cost, (states, actions) = Given(FUNCTIONS["arithmetic"]), trajectories(FLAT, 5, 4)
    compiled = CompiledCost(cost, FLAT, NU)
    by_term = compiled.by_term(states[0, 0], states[:, 1:], actions)
    assert list(by_term) == ["given", "effort", "terminal"]
    np.testing.assert_allclose(by_term["effort"], 0.5 * np.square(actions).sum((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(sum(by_term.values()), compiled.totals(states[0, 0], states[:, 1:], actions), rtol=1e-12)


def test_views_are_read_where_they_lie():
    cost, (states, actions) = Given(FUNCTIONS["products"]), trajectories(FLAT, 6, 5)
    compiled = CompiledCost(cost, FLAT, NU)
    expected = compiled.totals(states[:, 0], np.ascontiguousarray(states[:, 1:]), actions)
    every_other = np.repeat(states[:, 1:], 2, axis=1)[:, ::2]
    one_by_one = np.ascontiguousarray(actions.transpose(2, 0, 1)).transpose(1, 2, 0)  # entries of a command far apart
    np.testing.assert_array_equal(compiled.totals(states[:, 0], every_other, one_by_one), expected)
    held = np.broadcast_to(actions[:1], actions.shape)
    np.testing.assert_array_equal(compiled.totals(states[:, 0], states[:, 1:], held),
                                  compiled.totals(states[:, 0], states[:, 1:], np.ascontiguousarray(held)))


@pytest.mark.parametrize("name", ["arithmetic", "limits", "choices", "norms"])
def test_what_is_no_number_stays_so(name):
    cost, (states, actions) = Given(FUNCTIONS[name]), trajectories(FLAT, 6, 3)
    for i in range(6):
        states[i, 2, i] = math.nan
    found, expected = CompiledCost(cost, FLAT, NU).totals(states[:, 0], states[:, 1:], actions), by_torch(cost, states, actions)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


@pytest.mark.parametrize("name", TRUTHS)
def test_truths_count_as_torch_counts_them(name):
    cost, (states, actions) = Given(TRUTHS[name]), trajectories(FLAT, 20, 3)
    found = CompiledCost(cost, FLAT, NU).totals(states[:, 0], states[:, 1:], actions)
    np.testing.assert_allclose(found, by_torch(cost, states, actions), rtol=1e-12)


def test_remainders_are_torchs_at_multiples():
    cost = Given(lambda x, u: torch.remainder(x[..., 0], 0.1) + 3 * torch.div(x[..., 1], x[..., 2], rounding_mode="floor")
                 + torch.remainder(x[..., 3], -0.7) + torch.fmod(x[..., 4], 0.3))
    states, actions = np.zeros((40, 2, 6)), np.zeros((40, 1, 2))
    states[:, :, 0], states[:, :, 1] = (0.1 * np.arange(-20, 20))[:, None], (0.1 * np.arange(40) - 2.0)[:, None]
    states[:, :, 2], states[:, :, 3], states[:, :, 4] = 0.1, 1e9, (0.3 * np.arange(-20, 20))[:, None]
    found = CompiledCost(cost, FLAT, NU).totals(states[:, 0], states[:, 1:], actions)
    np.testing.assert_allclose(found, by_torch(cost, states, actions), rtol=1e-9, atol=1e-9)


def test_slopes_far_out_and_at_the_origin_are_numbers_where_torchs_are():
    cost = Given(lambda x, u: torch.sigmoid(x[..., 0]) + torch.nn.functional.softplus(100 * x[..., 1]) + torch.atan2(x[..., 2], x[..., 3])
                 + x[..., 4].abs() ** (1 + x[..., 5].square()))
    states = np.array([[-720.0, 9.0, 0, 0, 0, 0.5], [720.0, -9.0, 0, 0, 0, 0.5], [0.0, 0, 0, 0, 0, 0]])
    compiled, actions = CompiledCost(cost, FLAT, NU), np.zeros((2, 2))
    gradient, end = compiled.slopes(states, actions)
    expected = expand_cost(cost, FLAT, states, actions)
    np.testing.assert_allclose(gradient, expected.gradient, atol=1e-12)
    np.testing.assert_allclose(end, expected.end_gradient, atol=1e-12)


def test_gradients_alone_are_those_of_the_expansion():
    cost, (states, actions) = Given(FUNCTIONS["trigonometry"]), trajectories(FLAT, 1, 9)
    compiled = CompiledCost(cost, FLAT, NU)
    gradient, _, end, _ = compiled.expand(states[0], actions[0])
    alone, end_alone = compiled.slopes(states[0], actions[0])
    np.testing.assert_allclose(alone, gradient, rtol=1e-12)
    np.testing.assert_allclose(end_alone, end, rtol=1e-12)


def test_what_torch_does_not_differentiate_is_left_to_it(caplog):
    cost = Given(lambda x, u: x[..., 0].detach() * x[..., 0])
    compiled = CompiledCost(cost, FLAT, NU)
    assert not compiled.expands and not compiled.slopes_known and "detach" in caplog.text
    with pytest.raises(NotCompilable):
        compiled.expand(np.zeros((3, 6)), np.zeros((2, 2)))
    states, actions = trajectories(FLAT, 1, 3)
    assert (expand_cost(cost, FLAT, states[0], actions[0], compiled).gradient[:, 0] == states[0, :3, 0]).all()


def test_networks_are_left_to_torch_before_they_cost_much():
    layers = torch.nn.Sequential(torch.nn.Linear(6, 200), torch.nn.Tanh(), torch.nn.Linear(200, 1)).double().requires_grad_(False)
    small = torch.nn.Linear(6, 1).double().requires_grad_(False)
    states, actions = trajectories(FLAT, 4, 2)
    cost = Given(lambda x, u: small(x).squeeze(-1).square())
    found = CompiledCost(cost, FLAT, NU).totals(states[:, 0], states[:, 1:], actions)
    np.testing.assert_allclose(found, by_torch(cost, states, actions), rtol=1e-12)
    wide = torch.nn.Sequential(torch.nn.Linear(6, 200), torch.nn.Tanh(), torch.nn.Linear(200, 200), torch.nn.Tanh(), layers[2]).double()
    with pytest.raises(NotCompilable, match="more than"):
        CompiledCost(Given(lambda x, u: wide(x).squeeze(-1)), FLAT, NU)


def test_a_cost_is_compiled_once_for_all_planners_and_forgotten_with_it():
    cost = Given(FUNCTIONS["powers"])
    first = compiled_cost(cost, FLAT, NU)
    assert first is not None and compiled_cost(cost, FLAT, NU) is first and compiled_cost(cost, ROTATIONS, NU) is not first
    gone = weakref.ref(cost)
    del cost
    gc.collect()
    assert gone() is None


def test_a_cost_without_a_hash_is_compiled_too():
    @dataclass
    class Weighted(Given):
        weight: float

        def __post_init__(self) -> None:
            super().__init__(lambda x, u: self.weight * x[..., 0])

    assert Weighted.__hash__ is None and compiled_cost(Weighted(2.0), FLAT, NU) is not None


def test_threads_compile_side_by_side():
    costs = [Given(function) for function in list(FUNCTIONS.values())[:4]]
    with ThreadPoolExecutor(4) as pool:
        assert all(made is not None for made in pool.map(lambda cost: compiled_cost(cost, FLAT, NU), costs))


def branching(x: Tensor, u: Tensor) -> Tensor:
    return x[..., 0] if bool((x[..., 0] > 0).all()) else 2.0 * x[..., 1]


def behind_torchs_back(x: Tensor, u: Tensor) -> Tensor:
    return x[..., 0] * torch.from_numpy(np.sin(x.detach().numpy()[..., 1]))


REFUSED = {"a branch": branching, "another library": behind_torchs_back, "an unknown operation": lambda x, u: torch.special.i0(x[..., 0]),
           "a whole vector": lambda x, u: x, "randomness": lambda x, u: x[..., 0] * torch.rand(()),
           "entries picked by numbers": lambda x, u: x[..., (x[..., 0] > 0).long()]}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compiled_is_refused(name):
    with pytest.raises(NotCompilable):
        CompiledCost(Given(REFUSED[name]), FLAT, NU)


def test_a_cost_that_remembers_is_found_out():
    calls = []

    def remembers(x: Tensor, u: Tensor) -> Tensor:
        calls.append(1)
        return x[..., 0] * len(calls)

    with pytest.raises(NotCompilable, match="does it choose by the values of numbers, remember"):
        CompiledCost(Given(remembers), FLAT, NU)


def test_who_is_not_pure_or_not_compilable_is_left_to_torch(caplog):
    impure, branches = Given(FUNCTIONS["powers"]), Given(branching)
    impure.pure = False
    with caplog.at_level(logging.WARNING):
        assert compiled_cost(impure, FLAT, NU) is None and not caplog.messages
        assert compiled_cost(branches, FLAT, NU) is None
    assert "Given is not compiled, planning is slower: torch cannot trace it" in caplog.text


def test_a_cost_that_ends_episodes_is_left_to_torch():
    cost = Given(FUNCTIONS["powers"])
    cost.survival = lambda x, u: torch.sigmoid(x[..., 0])
    with pytest.raises(NotCompilable, match="ends episodes with a probability"):
        CompiledCost(cost, FLAT, NU)


def test_what_is_the_same_is_computed_once():
    tape, results = trace(lambda x: [torch.sin(x[0]) * torch.sin(x[0]) + torch.sin(x[0])], {"x": 1})
    assert sum(number.operation == "sin" for number in tape.behind(results)) == 1
