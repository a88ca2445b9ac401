"""Multiple shooting on states with rotations: exact derivatives, a free body turned and flown, bounds on what is no rotation."""

from __future__ import annotations

from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
import torch

from planners.cost import Cost
from planners.ilqr import FDDP, ILQRConfig
from planners.multiple_shooting import MultipleShooting, MultipleShootingConfig
from planners.plan import PlanStatus
from planners.shooting_program import ShootingProgram
from robots.command import CommandSpec
from robots.errors import ConfigurationError
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.simulator_evaluator import SimulatorEvaluator
from sim.simulator.simulator_model import SimulatorModel
from tests.planners.ilqr_parts import BODY, DT, TURNED, body, box, plan, seeded, tumble, turned_away

pytest.importorskip("casadi")
# four propellers that push along the body's z and turn it by their drag
FLYER = """
<mujoco>
  <option timestep="0.02" integrator="implicitfast" density="1.2" viscosity="2e-5"/>
  <worldbody>
    <body name="flyer" pos="0 0 1">
      <freejoint name="flyer"/><geom type="box" size="0.2 0.15 0.03" mass="1"/>
      <site name="a" pos="0.2 0.2 0"/><site name="b" pos="-0.2 0.2 0"/><site name="c" pos="-0.2 -0.2 0"/><site name="d" pos="0.2 -0.2 0"/>
    </body>
  </worldbody>
  <actuator>
    <general site="a" gear="0 0 1 0 0 0.1" ctrlrange="0 6"/><general site="b" gear="0 0 1 0 0 -0.1" ctrlrange="0 6"/>
    <general site="c" gear="0 0 1 0 0 0.1" ctrlrange="0 6"/><general site="d" gear="0 0 1 0 0 -0.1" ctrlrange="0 6"/>
  </actuator>
</mujoco>"""


def shooting(**config) -> MultipleShooting:
    same = body()
    evaluator = SimpleNamespace(model=same.evaluator.model, cost=same.evaluator.cost)
    return MultipleShooting(evaluator, box(3, 1.5), DT, MultipleShootingConfig(**({"horizon": 25} | config)))


def test_derivatives_are_those_of_differences():
    program, rng, step = ShootingProgram(body().problem, 3), np.random.default_rng(0), 1e-6
    states = BODY.integrate(TURNED.expand(3, 7), torch.from_numpy(rng.normal(size=(3, 6)))).numpy()
    program.begin(TURNED.numpy(), states)
    z = rng.normal(size=program.size)  # rotations about a radian from the reference
    assert program.size == 3 * (6 + 3)
    moved = [[program.cost_and_gaps(z + sign * step * unit) for sign in (-1, 1)] for unit in np.eye(program.size)]
    np.testing.assert_allclose(program.gradient(z), [(b[0] - a[0]) / (2 * step) for a, b in moved], rtol=1e-6, atol=1e-6)
    dense = np.zeros(program.jacobian_pattern.shape)
    dense[program.jacobian_pattern.places] = program.jacobian(z)
    np.testing.assert_allclose(dense, np.stack([(b[1] - a[1]) / (2 * step) for a, b in moved], axis=1), atol=1e-7)


def test_at_the_reference_the_hessian_is_the_costs_own():
    """Elsewhere the coordinates' curvature is left out."""
    program, step = ShootingProgram(body().problem, 3), 1e-5
    states = BODY.integrate(TURNED.expand(3, 7), torch.from_numpy(np.random.default_rng(0).normal(size=(3, 6)))).numpy()
    program.begin(TURNED.numpy(), states)
    z = program.joined(program.coordinates.of(states), np.full((3, 3), 0.2))
    upper = np.zeros((program.size, program.size))
    upper[program.hessian_pattern.places] = program.hessian(z, 1.0)
    slopes = [[program.gradient(z + sign * step * unit) for sign in (-1, 1)] for unit in np.eye(program.size)]
    full = np.stack([(b - a) / (2 * step) for a, b in slopes])
    np.testing.assert_allclose(upper, np.triu(full), atol=1e-4 * np.abs(full).max())


def test_a_new_start_is_not_taken_for_the_old_one():
    program, z = ShootingProgram(body().problem, 2), np.zeros(18)
    gaps = []
    for start in (TURNED, tumble(TURNED, torch.ones(3, dtype=torch.float64))):
        program.begin(start.numpy(), TURNED.expand(2, 7).numpy())
        gaps.append(program.cost_and_gaps(z)[1].copy())
    assert not np.allclose(*gaps)


def test_a_body_is_turned_back_at_the_cost_of_ilqr():
    found, other = shooting().plan(TURNED, None, seeded()), plan(body(), TURNED)
    assert found.status is PlanStatus.CONVERGED and found.cost == pytest.approx(other.cost, rel=1e-4)
    assert float(turned_away(found.states[-1])) < 0.02 and found.report.defect < 1e-6
    torch.testing.assert_close(found.states[1:], tumble(found.states[:-1], found.actions))
    assert found.actions.abs().max() <= 1.5
    again = shooting().plan(TURNED, None, seeded())
    assert torch.equal(found.actions, again.actions) and found.cost == again.cost
    assert shooting().plan(found.states[1], found, seeded()).cost < found.cost


def test_bounds_and_goals_are_kept_beside_rotations():
    free, bound = (shooting(**config).plan(TURNED, None, seeded()) for config in (
        {}, {"state_bounds": (("p", -0.5, 0.5),), "goal": (("q", 0.3),)}))
    assert free.states[1:, 4].abs().max() > 0.6 and bound.status is PlanStatus.CONVERGED
    assert bound.states[1:, 4].abs().max() <= 0.5 + 1e-4 and float(bound.states[-1, 5]) == pytest.approx(0.3, abs=1e-4)
    for change in ({"state_bounds": (("w", 0.0, 1.0),)}, {"goal": (("x", 0.0),)}):
        with pytest.raises(ConfigurationError, match="entries of a rotation"):
            shooting(**change)


class There(Cost):
    """To a place, upright and at rest, with little thrust beside that of hovering."""

    def __init__(self, space: PhysicsSpace) -> None:
        self._space = space
        self._goal = torch.tensor([0.5, -0.3, 1.4, 1.0, *[0.0] * 9], dtype=torch.float64)
        self._weights = torch.tensor([2.0] * 3 + [1.0] * 3 + [0.05] * 6, dtype=torch.float64)

    def terms(self, x, u):
        return {"away": 0.05 * self._away(x), "thrust": 1e-3 * (u - 9.81 / 4).square().sum(-1)}

    def terminal(self, x):
        return 5.0 * self._away(x)

    def _away(self, x):
        return (self._weights * self._space.difference(self._goal, x).square()).sum(-1)


def test_a_flying_body_in_mujoco_goes_where_fddp_takes_it():
    """iLQR does not: its first rollouts spin on, and it ends with the body turned the other way round, at four times the cost."""
    machine = mujoco.MjModel.from_xml_string(FLYER)
    space = PhysicsSpace(machine)
    assert space.nx == 13 and space.ndx == 12
    evaluator = SimulatorEvaluator(SimulatorModel(machine, space, 2, 1), There(space))
    low, high = machine.actuator_ctrlrange.T.copy()
    command = CommandSpec("actuator", ("a", "b", "c", "d"), low, high, "N")
    x0 = space.integrate(torch.tensor([0.0, 0, 1, 1, *[0] * 9], dtype=torch.float64),
                         torch.tensor([0, 0, 0, 0.6, -0.4, 1.0, 0, 0, 0, 1.0, 0, 0], dtype=torch.float64))  # tilted and tumbling
    found = MultipleShooting(evaluator, command, 0.04, MultipleShootingConfig(horizon=25)).plan(x0, None, seeded())
    other = FDDP(evaluator, command, 0.04, ILQRConfig(horizon=25)).plan(x0, None, seeded())
    assert found.status is PlanStatus.CONVERGED and found.cost == pytest.approx(other.cost, rel=1e-4)
    assert float((found.states[-1, :3] - torch.tensor([0.5, -0.3, 1.4])).norm()) < 0.1 and found.report.defect < 1e-4
    assert (found.actions >= 0).all() and (found.actions <= 6).all()
    x = x0
    for u, reached in zip(found.actions, found.states[1:], strict=True):
        x = evaluator.model.step(x, u)
        assert torch.allclose(x, reached, atol=1e-9)
