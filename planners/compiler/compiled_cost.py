"""A cost that was written in torch, compiled."""

from __future__ import annotations

import ctypes
import functools
import logging
import threading
import weakref
from collections.abc import Callable
from ctypes import _CFuncPtr

import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from dynamics.state_space import StateSpace
from planners.compiler import assembly
from planners.compiler.derivatives import at_zero, gradient, hessian
from planners.compiler.expression import NotCompilable, Number, Scalar, Tape
from planners.compiler.tracing import trace
from planners.cost import Cost
from planners.torch_expansion import expanded_by_torch, nearby
from robots.errors import ShapeError

logger = logging.getLogger(__name__)
_CHECKED = 8
"""States at which what was compiled is compared with torch before it is trusted; a quarter of them for derivatives."""
_CLOSE = 1e-9
"""Largest difference from torch that rounding explains, of the largest number."""


class CompiledCost:
    """The values of a `pure` cost, and its derivatives from when they are first asked for; NotCompilable where it cannot be.

    Values are those of torch but for rounding, sums over time are taken in its order; not a number stays so. It does not keep the cost.
    """

    def __init__(self, cost: Cost, space: StateSpace, nu: int) -> None:
        self._cost, self._space, self._nu = weakref.ref(cost), space, nu
        self.sizes = space.nx, nu
        """Entries of the states and commands that it charges."""
        self._names = [*self._terms_of(cost), "terminal"]
        module, sizes = ir.Module("cost"), {"x": space.nx, "u": nu}
        ended = trace(lambda x: [cost.terminal(x)], {"x": space.nx})
        _assemble(assembly.totals, module, "totals", trace(lambda x, u: [cost.running(x, u)], sizes), ended, True)
        _assemble(assembly.totals, module, "terms", trace(lambda x, u: list(cost.terms(x, u).values()), sizes), ended, False)
        functions = assembly.compiled(module, {"totals": assembly.TOTALS, "terms": assembly.TOTALS})
        self._totals, self._terms = functions["totals"], functions["terms"]
        self.totals_at = ctypes.cast(self._totals, ctypes.c_void_p).value
        """Address of the function of `totals`, see `assembly.totals`: for compiled code, as long as this lives."""
        self._check_values(cost)

    def totals(self, x0: np.ndarray, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return costs (N,) of plans actions (N, H, nu) through states (N, H, nx), the first one left from x0 (nx,), or (N, nx).

        ShapeError for others.
        """
        return self._sums(self._totals, x0, states, actions, 1)[:, 0]

    def by_term(self, x0: np.ndarray, states: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Return the sums (N,) of every term, and of 'terminal'; see `totals`."""
        return dict(zip(self._names, self._sums(self._terms, x0, states, actions, len(self._names)).T, strict=True))

    @property
    def expands(self) -> bool:
        """Whether `expand` can be called; compiles it, so that no plan has to."""
        return self._expansion is not None

    @property
    def slopes_known(self) -> bool:
        """Whether `slopes` can be called; compiles it."""
        return self._gradients is not None

    def expand(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return gradient (H, n), Hessian (H, n, n), n = ndx + nu, and gradient (ndx,) and Hessian (ndx, ndx) of the end, at
        states (H + 1, nx) and actions (H, nu), finite."""
        return self._along(self._expansion, states, actions)

    def slopes(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradients alone, (H, n) and (ndx,), see `expand`."""
        found = self._along(self._gradients, states, actions, second=False)
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

    def _along(self, functions: tuple[_CFuncPtr, _CFuncPtr] | None, states: np.ndarray, actions: np.ndarray,
               second: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if functions is None:
            raise NotCompilable("its derivatives")
        if states.shape != (len(actions) + 1, self._space.nx) or actions.shape[1:] != (self._nu,):
            raise ShapeError(f"compiled cost: expected (H + 1, {self._space.nx}) and (H, {self._nu}), got {states.shape} and "
                             f"{actions.shape}")
        states, actions = np.ascontiguousarray(states, np.float64), np.ascontiguousarray(actions, np.float64)
        horizon, ndx = len(actions), self._space.ndx
        n = ndx + self._nu
        bends = (np.zeros((horizon, n, n)), np.zeros((ndx, ndx))) if second else (np.empty(0), np.empty(0))  # unwritten by slopes alone
        found = np.zeros((horizon, n)), bends[0], np.zeros(ndx), bends[1]
        running, terminal = functions
        running(_at(states), _at(actions), horizon, _at(found[0]), _at(found[1]))
        terminal(_at(states[horizon]), 0, 1, _at(found[2]), _at(found[3]))
        return found

    @functools.cached_property
    def _expansion(self) -> tuple[_CFuncPtr, _CFuncPtr] | None:
        return self._derived(second=True)

    @functools.cached_property
    def _gradients(self) -> tuple[_CFuncPtr, _CFuncPtr] | None:
        return self._derived(second=False)

    def _derived(self, second: bool) -> tuple[_CFuncPtr, _CFuncPtr] | None:
        cost = self._cost()
        if cost is None:
            raise RuntimeError("the cost is gone that this was compiled from: keep it for as long as it is planned with")
        try:
            module, sizes = ir.Module("expansion"), {"x": self._space.nx, "u": self._nu}
            _assemble(assembly.expansion, module, "running", *self._derivatives(cost.running, True, second), sizes)
            _assemble(assembly.expansion, module, "terminal", *self._derivatives(lambda x, u: cost.terminal(x), False, second), sizes)
            functions = assembly.compiled(module, {"running": 5, "terminal": 5})
            self._check_derivatives(cost, (functions["running"], functions["terminal"]), second)
        except NotCompilable as reason:
            _tell(f"derivatives of {type(cost).__name__} are not compiled", reason)
            return None
        return functions["running"], functions["terminal"]

    def _derivatives(self, function: Callable[[Tensor, Tensor], Tensor], with_commands: bool,
                     second: bool) -> tuple[Tape, list[Number | Scalar], dict]:
        """Return the tape of the derivatives by [dx, du] at no change, the first and the second ones."""
        space = self._space
        tape, (result,) = trace(lambda x, u, dx: [function(nearby(space, x, dx), u)], {"x": space.nx, "u": self._nu, "dx": space.ndx})
        variables = [tape.variable("dx", i) for i in range(space.ndx)]
        variables += [tape.variable("u", i) for i in range(self._nu)] if with_commands else []
        slopes = gradient(tape, result, variables)
        bends = hessian(tape, slopes, variables) if second else {}
        at, results = at_zero([*slopes, *bends.values()], "dx")
        return at, results[:len(slopes)], dict(zip(bends, results[len(slopes):], strict=True))

    def _terms_of(self, cost: Cost) -> list[str]:
        """Return the names of the cost's terms."""
        x, u = (torch.full((size,), 0.5, dtype=torch.float64) for size in (self._space.nx, self._nu))
        try:
            ends, terms = cost.survival(x, u) is not None, cost.terms(x, u)
        except Exception as error:  # whatever a user's function may raise of a single state
            raise NotCompilable(f"it cannot charge a single state and command, without leading dimensions: {error!r}") from error
        if ends:
            raise NotCompilable("it ends episodes with a probability, which sums do not weigh")
        return list(terms)

    def _drawn(self, *shape: int) -> tuple[np.ndarray, np.ndarray]:
        """Return states (*shape + 1, nx) and commands (*shape, nu) to be compared at."""
        rng, (*rows, horizon) = np.random.default_rng(0), shape
        x, u = rng.normal(size=(*rows, horizon + 1, self._space.nx)), rng.normal(size=(*shape, self._nu))
        for start, *_ in self._space.quaternions:
            x[..., start:start + 4] /= np.linalg.norm(x[..., start:start + 4], axis=-1, keepdims=True)
        return x, u

    def _check_values(self, cost: Cost) -> None:
        """NotCompilable unless the compiled values are torch's."""
        x, u = self._drawn(_CHECKED, 1)
        with torch.no_grad():
            states, actions = torch.from_numpy(x), torch.from_numpy(u)
            ended = cost.terminal(states[:, 1])
            expected = {"running": cost.running(states[:, 0], actions[:, 0]) + ended, "terminal": ended}
            expected |= cost.terms(states[:, 0], actions[:, 0])
        found = {"running": self.totals(x[:, 0], x[:, 1:], u)} | self.by_term(x[:, 0], x[:, 1:], u)
        for name, theirs in expected.items():
            _compare(f"{name!r}", found[name], theirs.numpy())

    def _check_derivatives(self, cost: Cost, functions: tuple[_CFuncPtr, _CFuncPtr], second: bool) -> None:
        """NotCompilable unless the compiled derivatives are torch's, wherever torch has any."""
        x, u = self._drawn(_CHECKED // 4)
        found, expected = self._along(functions, x, u, second), expanded_by_torch(cost, self._space, x, u)
        for k in range(0, 4, 1 if second else 2):
            _compare(f"derivative {k}", found[k], expected[k])


_kept: weakref.WeakKeyDictionary[Cost, dict[tuple[int, int], tuple[StateSpace, CompiledCost | None]]] = weakref.WeakKeyDictionary()
_keeping = threading.Lock()


def compiled_cost(cost: Cost, space: StateSpace, nu: int) -> CompiledCost | None:
    """Return the cost compiled, once for all planners; None where it does not say that it is pure or cannot be: torch then computes it."""
    if not cost.pure:
        return None
    with _keeping:
        known = {} if type(cost).__hash__ is None else _kept.setdefault(cost, {})  # a dataclass may have no hash: not kept
        if (id(space), nu) not in known:
            try:
                made = CompiledCost(cost, space, nu)
            except NotCompilable as reason:
                _tell(f"{type(cost).__name__} is not compiled", reason)
                made = None
            known[id(space), nu] = space, made
        return known[id(space), nu][1]


def _assemble(write: Callable[..., None], module: ir.Module, *arguments: object) -> None:
    """Write instructions; NotCompilable where torch mixes kinds of numbers in a way that is not known here."""
    try:
        write(module, *arguments)
    except (ValueError, TypeError, AttributeError) as error:
        raise NotCompilable(f"it mixes numbers and truths in a way that is not known here: {error}") from error


def _compare(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    there = np.isfinite(expected)
    largest = max(1.0, float(np.abs(expected[there]).max(initial=0.0)))
    off = float(np.abs(np.where(there, found - np.where(there, expected, 0.0), 0.0)).max(initial=0.0))
    if not off <= _CLOSE * largest:
        raise NotCompilable(f"its {what} is off torch's by {off:.3g}: does it choose by the values of numbers, remember, detach, or "
                            "compute in float32?")


def _tell(what: str, reason: NotCompilable) -> None:
    logger.warning("%s, planning is slower: %s", what, reason)


def _at(array: np.ndarray) -> int:
    return array.ctypes.data
