"""A cost that was written in torch, compiled."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from ctypes import _CFuncPtr

import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from dynamics.state_space import StateSpace
from planners.compiler import assembly
from planners.compiler.arithmetic import NotCompilable
from planners.compiler.derivatives import at_zero, gradient, hessian
from planners.compiler.expression import Number, Scalar, Tape
from planners.compiler.tracing import trace
from planners.cost import Cost
from planners.nearby import nearby
from robots.errors import ShapeError

logger = logging.getLogger(__name__)
LARGEST = 20_000
"""Numbers that a cost may be computed from, derivatives included; larger ones (a learned cost's network) are torch's."""
_CHECKED = 8
"""States at which what was compiled is compared with torch before it is trusted."""


class CompiledCost:
    """The values and derivatives of a `pure` cost; NotCompilable where it cannot be.

    Values are those of torch but for rounding, sums over time are taken in its order; not a number stays so.
    """

    def __init__(self, cost: Cost, space: StateSpace, nu: int) -> None:
        self._cost, self._space, self._nu = cost, space, nu
        if cost.survival(*self._example()) is not None:
            raise NotCompilable("it ends episodes with a probability, which sums do not weigh")
        self._of_values = self._compile_totals(lambda x, u: [cost.running(x, u)], True)
        self._check()

    def totals(self, x0: np.ndarray, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return costs (N,) of plans actions (N, H, nu) through states (N, H, nx), the first one left from x0 (nx,), or (N, nx).

        ShapeError for others.
        """
        return self._sums(self._of_values, x0, states, actions, 1)[:, 0]

    def by_term(self, x0: np.ndarray, states: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Return the sums (N,) of every term, and of 'terminal'; see `totals`."""
        names, function = self._of_terms
        return dict(zip(names, self._sums(function, x0, states, actions, len(names)).T, strict=True))

    def expand(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Return gradient (H, n), Hessian (H, n, n), n = ndx + nu, and gradient (ndx,) and Hessian (ndx, ndx) of the end, at
        states (H + 1, nx) and actions (H, nu), finite; None where derivatives are too many to compile."""
        if self._of_derivatives is None:
            return None
        running, terminal = self._of_derivatives
        if states.shape != (len(actions) + 1, self._space.nx) or actions.shape[1:] != (self._nu,):
            raise ShapeError(f"compiled cost: expected (H + 1, {self._space.nx}) and (H, {self._nu}), got {states.shape} and "
                             f"{actions.shape}")
        states, actions = np.ascontiguousarray(states, np.float64), np.ascontiguousarray(actions, np.float64)
        horizon, ndx = len(actions), self._space.ndx
        n = ndx + self._nu
        found = np.zeros((horizon, n)), np.zeros((horizon, n, n)), np.zeros(ndx), np.zeros((ndx, ndx))
        running(_at(states), _at(actions), horizon, _at(found[0]), _at(found[1]))
        terminal(_at(states[horizon]), 0, 1, _at(found[2]), _at(found[3]))
        return found

    def slopes(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradient (H, n) and that of the end (ndx,), see `expand`; NotCompilable where derivatives are too many."""
        found = self.expand(states, actions)
        if found is None:
            raise NotCompilable("its derivatives are too many")
        return found[0], found[2]

    def _sums(self, function: _CFuncPtr, x0: np.ndarray, states: np.ndarray, actions: np.ndarray, count: int) -> np.ndarray:
        samples, horizon = actions.shape[:2]
        nx = self._space.nx
        if (x0.shape not in ((nx,), (samples, nx)) or states.shape != (samples, horizon, nx) or actions.shape[2:] != (self._nu,)
                or horizon < 1):
            raise ShapeError(f"compiled cost: expected ({nx},), (N, H, {nx}) and (N, H, {self._nu}), got {x0.shape}, {states.shape} and "
                             f"{actions.shape}")
        x0, states, actions = (a if a.strides[-1] == a.itemsize and a.dtype == np.float64 else np.ascontiguousarray(a, np.float64)
                               for a in (x0, states, actions))
        sums = np.empty((samples, count))
        function(_at(x0), x0.strides[0] if x0.ndim == 2 else 0, _at(states), states.strides[0], states.strides[1],
                 _at(actions), actions.strides[0], actions.strides[1], samples, horizon, _at(sums))
        return sums

    @functools.cached_property
    def _of_terms(self) -> tuple[list[str], _CFuncPtr]:
        names = list(self._cost.terms(*self._example()))
        return [*names, "terminal"], self._compile_totals(lambda x, u: list(self._cost.terms(x, u).values()), False)

    def _example(self) -> tuple[Tensor, Tensor]:
        """Return a state and a command."""
        return torch.full((self._space.nx,), 0.5, dtype=torch.float64), torch.full((self._nu,), 0.5, dtype=torch.float64)

    def _compile_totals(self, running: Callable[[Tensor, Tensor], Sequence[Tensor]], together: bool) -> _CFuncPtr:
        sizes = {"x": self._space.nx, "u": self._nu}
        module = ir.Module("cost")
        running_tape, ended = trace(running, sizes), trace(lambda x: [self._cost.terminal(x)], {"x": sizes["x"]})
        _check_size(*running_tape, *ended)
        assembly.totals(module, "totals", running_tape, ended, together)
        return assembly.compiled(module, {"totals": assembly.TOTALS})["totals"]

    @functools.cached_property
    def _of_derivatives(self) -> tuple[_CFuncPtr, _CFuncPtr] | None:
        try:
            return self._compile_derivatives()
        except NotCompilable as reason:
            logger.warning("the derivatives of %s are not compiled, planning with them is slower: %s", type(self._cost).__name__, reason)
            return None

    def _compile_derivatives(self) -> tuple[_CFuncPtr, _CFuncPtr]:
        module, sizes = ir.Module("expansion"), {"x": self._space.nx, "u": self._nu}
        assembly.expansion(module, "running", *self._derivatives(self._cost.running, True), sizes)
        assembly.expansion(module, "terminal", *self._derivatives(lambda x, u: self._cost.terminal(x), False), sizes)
        functions = assembly.compiled(module, {"running": 5, "terminal": 5})
        return functions["running"], functions["terminal"]

    def _derivatives(self, function: Callable[[Tensor, Tensor], Tensor], with_commands: bool) -> tuple[Tape, list[Number | Scalar], dict]:
        """Return the tape of the derivatives by [dx, du] at no change, the first and the second ones."""
        space = self._space
        tape, (result,) = trace(lambda x, u, dx: [function(nearby(space, x, dx), u)], {"x": space.nx, "u": self._nu, "dx": space.ndx})
        variables = [tape.variable("dx", i) for i in range(space.ndx)]
        variables += [tape.variable("u", i) for i in range(self._nu)] if with_commands else []
        slopes = gradient(tape, result, variables)
        bends = hessian(tape, slopes, variables)
        _check_size(tape, [*slopes, *bends.values()])
        at, results = at_zero([*slopes, *bends.values()], "dx")
        return at, results[:len(slopes)], dict(zip(bends, results[len(slopes):], strict=True))

    def _check(self) -> None:
        """NotCompilable unless the compiled values are torch's."""
        generator = np.random.default_rng(0)
        x, u = generator.normal(size=(_CHECKED, 2, self._space.nx)), generator.normal(size=(_CHECKED, 1, self._nu))
        found = self.totals(x[:, 0], x[:, 1:], u)
        with torch.no_grad():
            states, actions = torch.from_numpy(x), torch.from_numpy(u)
            expected = (self._cost.running(states[:, 0], actions[:, 0]) + self._cost.terminal(states[:, 1])).numpy()
        if not np.allclose(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True):
            raise NotCompilable(f"compiled it is {found.tolist()}, in torch {expected.tolist()}: does it choose by the values of numbers, "
                                "or remember?")


def compiled_cost(cost: Cost, space: StateSpace, nu: int) -> CompiledCost | None:
    """Return the cost compiled, or None where it does not say that it is pure or cannot be compiled: torch then computes it."""
    if not cost.pure:
        return None
    try:
        return CompiledCost(cost, space, nu)
    except NotCompilable as reason:
        logger.warning("%s is not compiled, planning with it is slower: %s", type(cost).__name__, reason)
        return None


def _check_size(*parts: object) -> None:
    for tape, results in zip(parts[::2], parts[1::2], strict=True):
        count = len(tape.behind(results))
        if count > LARGEST:
            raise NotCompilable(f"it is computed from {count} numbers, more than {LARGEST}")


def _at(array: np.ndarray) -> int:
    return array.ctypes.data
