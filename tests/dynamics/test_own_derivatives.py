"""Models that know their own derivatives or roll feedback out themselves: all give arrays, and refuse what does not fit together."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from dynamics.ensemble_mean import EnsembleMean
from dynamics.feedback_rollout import FeedbackRollouts, roll_out_feedback
from dynamics.linear import LinearConfig, LinearModel
from dynamics.linearize import LinearizableModel, linearize
from dynamics.model import DynamicsModel
from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble
from dynamics.state_space import Channel, StateSpace
from experiments.bench.control_problems import car
from robots.errors import ShapeError
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.simulator_model import SimulatorModel

SPACE = StateSpace([Channel("q", ("a",), (0,), "angle"), Channel("dq", ("v", "w"), (0, 1))])
ROLLING = """
<mujoco>
  <option integrator="{integrator}"/>
  <worldbody><geom type="plane" size="5 5 1"/>
    <body pos="0 0 0.1"><freejoint/><geom size="0.1"/><site name="middle"/></body>
  </worldbody>
  <actuator><general site="middle" gear="1 0 0 0 0 0"/><general site="middle" gear="0 0 0 0 1 0"/></actuator>
</mujoco>"""


def simulator(integrator: str) -> SimulatorModel:
    machine = mujoco.MjModel.from_xml_string(ROLLING.format(integrator=integrator))
    return SimulatorModel(machine, PhysicsSpace(machine), 2, 1)


def ensemble(compiled: bool) -> EnsembleMean:
    config = EnsembleConfig(members=2, hidden=(8,), weight_decay=(0.0,))
    return EnsembleMean(NeuralEnsemble(SPACE, 2, 0.1, config, seed=0), compiled=compiled)


OWN = {"formulas": car, "ensemble": lambda: ensemble(True), "ensemble by torch": lambda: ensemble(False),
       "MuJoCo's differences": lambda: simulator("implicitfast"), "whole periods": lambda: simulator("RK4")}


@pytest.fixture(params=sorted(OWN))
def model(request: pytest.FixtureRequest) -> DynamicsModel:
    return OWN[request.param]()


@pytest.fixture(params=[*sorted(OWN), "nothing"])
def any_model(request: pytest.FixtureRequest) -> DynamicsModel:
    return plain_model() if request.param == "nothing" else OWN[request.param]()


def plain_model() -> DynamicsModel:
    """Return one that has nothing of its own."""
    model = LinearModel(SPACE, 2, 0.1, LinearConfig())
    model.load_tensors({"coefficients": torch.full((SPACE.nf + 3, 3), 0.1, dtype=torch.float64), "std": torch.ones(3, dtype=torch.float64),
                        "fits": torch.tensor(1)})
    return model


def rows(model: DynamicsModel, n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, u = 0.1 * rng.normal(size=(n, model.state_space.nx)), 0.1 * rng.normal(size=(n, model.nu))
    for start, *_ in model.state_space.quaternions:
        x[:, start:start + 4] = [1.0, 0.0, 0.0, 0.0]
    return x, u


def test_derivatives_are_arrays_that_stay_as_they_are(model):
    assert isinstance(model, LinearizableModel) and isinstance(model, FeedbackRollouts)
    x, u = rows(model)
    for given in ((x, u), (np.asfortranarray(x), u), (np.repeat(x, 2, axis=0)[::2], u.copy())):
        a, b = model.linearize(*given)
        n = model.state_space.ndx
        for found, shape in ((a, (4, n, n)), (b, (4, n, model.nu))):
            assert type(found) is np.ndarray and found.dtype == np.float64 and found.shape == shape and found.flags.c_contiguous
    kept = a.copy(), b.copy()
    model.linearize(x[::-1] + 0.3, u + 0.3)
    assert np.array_equal(a, kept[0]) and np.array_equal(b, kept[1])
    for found, same in zip(linearize(model, x, u), kept, strict=True):
        assert np.array_equal(found, same)


@pytest.mark.parametrize("wrong", ["fewer commands", "states cut short", "wide commands", "one state"])
def test_states_and_commands_that_do_not_fit_together_are_not_differentiated(any_model, wrong):
    x, u = rows(any_model)
    given = {"fewer commands": (x, u[:-1]), "states cut short": (x[:, :-1], u), "wide commands": (x, np.repeat(u, 2, axis=1)),
             "one state": (x[0], u[0])}[wrong]
    for ask in (lambda *given: linearize(any_model, *given), getattr(any_model, "linearize", None)):
        if ask is not None:
            with pytest.raises(ShapeError, match="expected states and commands"):
                ask(*given)


@pytest.mark.parametrize("name", ["x0", "states", "actions", "feedforward", "gains", "lower", "upper", "steps"])
def test_feedback_that_does_not_fit_together_is_not_rolled_out(any_model, name):
    x, u = rows(any_model)
    states, nu = np.concatenate([x, x[:1]]), any_model.nu
    given = {"x0": x[0], "states": states, "actions": u, "steps": np.ones(2), "feedforward": u,
             "gains": np.zeros((4, nu, any_model.state_space.ndx)), "lower": np.full(nu, -1.0), "upper": np.ones(nu)}
    wrong = given[name][None] if name == "steps" else given[name][:-1]
    for ask in (lambda **given: roll_out_feedback(any_model, **given), getattr(any_model, "roll_out_feedback", None)):
        if ask is not None:
            reached, commands = ask(**given)
            assert type(reached) is type(commands) is np.ndarray and reached.shape == (2, *states.shape) and commands.shape == (2, *u.shape)
            with pytest.raises(ShapeError, match=r"roll_out_feedback: expected (states|" + name + ")"):
                ask(**given | {name: wrong})


def test_gaps_that_do_not_fit_are_not_closed():
    for chosen in (car(), plain_model()):
        x, u = rows(chosen)
        given = (x[0], np.concatenate([x, x[:1]]), u, np.full(1, 0.5), u, np.zeros((4, chosen.nu, chosen.state_space.ndx)),
                 np.full(chosen.nu, -1.0), np.ones(chosen.nu))
        with pytest.raises(ShapeError, match="expected gaps"):
            getattr(chosen, "roll_out_with_gaps", lambda *given, model=chosen: roll_out_feedback(model, *given))(*given, np.zeros((3, 3)))


@pytest.mark.parametrize(("x", "u"), [((3, 5), (3, 2)), ((3, 4), (3, 1)), ((3,), (2,))])
def test_formulas_step_only_states_and_commands_of_their_own_size(x, u):
    with pytest.raises(ShapeError, match="expected states of 4 and commands of 2"):
        car().step(torch.zeros(x), torch.zeros(u))
