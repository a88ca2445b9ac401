"""State spaces of every kind, and small data sets from known systems."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from dynamics.catalog import MODELS, LearnedModel, make_model
from dynamics.dataset import TransitionData
from dynamics.fitting import FitConfig
from dynamics.neural_ensemble import EnsembleConfig
from dynamics.state_space import Channel, StateSpace
from dynamics.workers import Workers

SPACES = {
    "linear": StateSpace([Channel("q", ("p",), (0,)), Channel("dq", ("v",), (0,))]),
    "angles apart": StateSpace([
        Channel("q", ("a",), (0,), "angle"), Channel("dq", ("v", "w"), (0, 1), target="absolute"),
        Channel("q", ("b", "c"), (1, 2), "angle"), Channel("goal", ("g",), (0,), target="constant", model_input=False)]),
    "unread and absolute": StateSpace([
        Channel("q", ("along",), (0,), model_input=False), Channel("q", ("pitch",), (1,), "angle"), Channel("goal", ("g",), (0,),
        target="constant"), Channel("dq", ("v",), (0,), target="absolute"), Channel("dq", ("rate",), (1,))]),
    "rotations": StateSpace([
        Channel("q", ("z",), (0,)), Channel("q", ("qw", "qx", "qy", "qz"), (1, 2, 3, 4), "quaternion"), Channel("q", ("a",), (5,), "angle"),
        Channel("goal", ("gw", "gx", "gy", "gz"), (0, 1, 2, 3), "quaternion", "constant", False),
        Channel("dq", ("v",), (0,), target="absolute"), Channel("dq", ("spin",), (1,))]),
    "differences": StateSpace([
        Channel("q", ("body",), (0,), model_input=False), Channel("q", ("tip", "other"), (1, 2)), Channel("q", ("a",), (3,), "angle"),
        Channel("goal", ("g",), (0,), target="constant", model_input=False), Channel("dq", ("v",), (0,))],
        [("tip", "body"), ("body", "g"), ("tip", "other")]),
}
NU = 2


@pytest.fixture(scope="session", params=sorted(SPACES))
def space(request: pytest.FixtureRequest) -> StateSpace:
    return SPACES[request.param]


@pytest.fixture(scope="session", params=sorted(MODELS))
def model_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    workers = Workers()
    yield workers
    workers.close()


def random_states(space: StateSpace, n: int, generator: torch.Generator) -> Tensor:
    """Return states (n, nx) float64 with unit quaternions and angles of several turns."""
    x = 2 * torch.randn(n, space.nx, generator=generator, dtype=torch.float64)
    for start, *_ in space.quaternions:
        x[:, start:start + 4] = torch.nn.functional.normalize(x[:, start:start + 4], dim=-1)
    return x


@pytest.fixture(scope="session", name="random_states")
def _random_states() -> Callable[[StateSpace, int, torch.Generator], Tensor]:
    return random_states


def smooth_data(space: StateSpace, n: int = 120, seed: int = 0, dt: float = 0.1) -> TransitionData:
    """Return n transitions, in episodes of 30, of a smooth nonlinear system on any space, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    x, u = random_states(space, n, generator), torch.rand(n, NU, generator=generator, dtype=torch.float64) * 2 - 1
    mix = torch.randn(space.nf + NU, space.no, generator=generator, dtype=torch.float64)
    output = 0.1 * torch.tanh(0.5 * torch.cat([space.features(x), u], dim=-1) @ mix)
    output = output + 0.01 * torch.randn(output.shape, generator=generator, dtype=torch.float64)
    cost = x[:, 0].square() + u.square().sum(-1)
    return TransitionData(x, u, space.advance(x, output), torch.full((n,), dt, dtype=torch.float64), cost,
                          torch.zeros(n, dtype=torch.bool), torch.arange(n) // 30)


@pytest.fixture(scope="session", name="smooth_data")
def _smooth_data() -> Callable[..., TransitionData]:
    return smooth_data


def small_model(name: str, space: StateSpace, seed: int = 0, members: int = 2, control_dt: float = 0.1, **fit: float) -> LearnedModel:
    """Return a model of two members and two hidden layers of 16, fitted for few epochs."""
    config = EnsembleConfig(members, (16, 16), weight_decay=(1e-5,), fit=FitConfig(**({"epochs": 3, "batch_size": 32} | fit)))
    return make_model(name, space, NU, control_dt, config, seed)


@pytest.fixture(scope="session", name="small_model")
def _small_model() -> Callable[..., LearnedModel]:
    return small_model
