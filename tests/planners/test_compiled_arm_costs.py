"""The costs of arms that reach are compiled too, through the kinematics of the arm."""

from __future__ import annotations

import numpy as np
import pytest

from hw_bridge.reaching import ReachingConfig, ReachingCost, reaching_state_space
from planners.compiler.compiled_cost import CompiledCost
from planners.cost_expansion import expand_cost
from robots.arms.ur5e import ur5e
from sim.catalog import make_task

ARM, BULLET = ur5e(), make_task("bullet:panda-reach-position")


@pytest.mark.parametrize(("cost", "space", "nu"), [(ReachingCost(ARM, ReachingConfig()), reaching_state_space(ARM), ARM.spec.nv),
                                                   (BULLET.cost, BULLET.state_space, 7)])
def test_they_are_what_torch_finds(cost, space, nu):
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(9, space.nx)), 0.3 * rng.normal(size=(8, nu))
    found, expected = CompiledCost(cost, space, nu).expand(states, actions), expand_cost(cost, space, states, actions)
    for ours, theirs in zip(found, (expected.gradient, expected.hessian, expected.end_gradient, expected.end_hessian), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12 * np.abs(theirs).max())
