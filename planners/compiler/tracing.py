"""What a function in torch computes of single vectors, written on a tape: every tensor becomes an array of numbers."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planners.compiler.arithmetic import ELEMENTWISE, Arithmetic, as_array, plain
from planners.compiler.expression import NotCompilable, Number, Scalar, Tape
from planners.compiler.shapes import SHAPES

_TRACING = threading.Lock()
"""Torch traces one function at a time."""


def trace(function: Callable[..., Sequence[Tensor]], sizes: Mapping[str, int]) -> tuple[Tape, list[Number | Scalar]]:
    """Return the tape of function(*vectors), float64 vectors of `sizes`, and its results, which are single numbers.

    NotCompilable for an operation that is not known here, and for one that depends on a number's value.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # a second, which only who compiles spends

    examples = [torch.full((size,), 0.5, dtype=torch.float64) for size in sizes.values()]
    try:
        with _TRACING:
            graph = make_fx(function)(*examples).graph
    except Exception as error:  # whatever a user's function may raise on proxies
        raise NotCompilable(f"torch cannot trace it: {error}") from error
    tape = Tape()
    given = [np.asarray([tape.variable(name, i) for i in range(size)], object) for name, size in sizes.items()]
    try:
        return tape, _Reader(Arithmetic(tape), graph.owning_module).read(graph, given)
    except NotCompilable:
        raise
    except Exception as error:  # torch has more ways to call its operations than are known here
        raise NotCompilable(f"it calls torch in a way that is not known here: {error!r}") from error


class _Reader:
    """Goes through torch's graph."""

    def __init__(self, arithmetic: Arithmetic, module: torch.nn.Module) -> None:
        self._arithmetic, self._module = arithmetic, module
        self._values: dict[torch.fx.Node, Any] = {}

    def read(self, graph: torch.fx.Graph, given: Sequence[np.ndarray]) -> list[Number | Scalar]:
        vectors = iter(given)
        for node in graph.nodes:
            match node.op:
                case "placeholder":
                    self._values[node] = next(vectors)
                case "get_attr":
                    self._values[node] = _constant(getattr(self._module, node.target))
                case "call_function":
                    self._values[node] = self._call(node)
                case "output":
                    return [_single(v) for v in self._known(node.args[0])]
        raise NotCompilable("it returns nothing")

    def _known(self, argument: Any) -> Any:
        return torch.fx.node.map_arg(argument, self._values.__getitem__)

    def _call(self, node: torch.fx.Node) -> Any:
        if node.target is operator.getitem:
            return self._known(node.args[0])[node.args[1]]
        written = node.target.overloadpacket.__name__
        name, arguments, options = written.strip("_"), self._known(list(node.args)), self._known(dict(node.kwargs))
        if name in ELEMENTWISE:
            if options:
                raise NotCompilable(f"it uses torch's {written} with {', '.join(options)}")
            result = self._arithmetic.each(ELEMENTWISE[name], *arguments)
        else:
            known = SHAPES.get(name) or getattr(self._arithmetic, name, None)
            if known is None:
                raise NotCompilable(f"it uses torch's {written}")
            result = known(*arguments, **options)
        if not written.endswith("_"):
            return result
        arguments[0][...] = result  # in place
        return arguments[0]


def _constant(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return tensor.double().numpy() if tensor.is_floating_point() else tensor.numpy()


def _single(value: Any) -> Number | Scalar:
    if np.size(value) != 1:
        raise NotCompilable(f"for one state and command it returns numbers of the shape {np.shape(value)}, not one")
    return plain(as_array(value).reshape(-1)[0])
