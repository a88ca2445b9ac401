"""What planners ask and say alike: whether a command is on a limit, and whether a deadline is a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from planners.planner import ON_LIMIT, check_deadline, on_limit
from robots.errors import ConfigurationError


@pytest.mark.parametrize("of", [np.array, torch.tensor])
def test_as_near_as_a_millionth_of_half_the_range_is_on_the_limit(of):
    lower, upper = np.array([-3.0, 0.0, -1e-4, 100.0]), np.array([1.0, 1e6, 1e-4, 300.0])
    half = (upper - lower) / 2
    for share, expected in ((0.0, True), (0.99 * ON_LIMIT, True), (1.01 * ON_LIMIT, False), (1.0, False), (-1.0, True)):
        for command in (lower + share * half, upper - share * half):
            assert on_limit(of(command), of(lower), of(upper)) == (expected,) * 4
    mixed = np.array([1.0, 5e5, -1e-4, 200.0])
    assert on_limit(of(mixed), of(lower), of(upper)) == (True, False, True, False)


def test_the_rule_does_not_depend_on_the_unit():
    command, lower, upper = np.array([1.0 - 1.5e-6, 1.0 - 0.5e-6]), -np.ones(2), np.ones(2)
    for unit in (1e-9, 1.0, 1e9):
        assert on_limit(unit * command, unit * lower, unit * upper) == (False, True)


def test_limits_that_are_none_are_never_met():
    lower, upper = np.array([-math.inf, 0.5, -math.inf, 0.5]), np.array([math.inf, math.inf, 2.0, math.inf])
    assert on_limit(np.array([1e300, 0.5, 2.0, 1e9]), lower, upper) == (False, True, True, False)


def test_float32_commands_are_on_their_own_limits():
    lower, upper = torch.tensor([0.1]), torch.tensor([0.7])
    assert on_limit(lower.clone(), lower, upper) == on_limit(upper.clone(), lower, upper) == (True,)


def test_commands_of_another_size_than_the_limits_are_an_error():
    with pytest.raises(ValueError, match="argument"):
        on_limit(np.zeros(2), np.zeros(3), np.ones(3))


def test_a_deadline_is_a_number_or_none():
    for fine in (None, 0.0, -1.0, math.inf, -math.inf, 3):
        check_deadline(fine)
    with pytest.raises(ConfigurationError, match=r"deadline.*nan"):
        check_deadline(math.nan)
