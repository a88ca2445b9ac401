"""What a plan pays: named, differentiable terms of states and commands."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Cost(ABC):
    """A cost over states x (..., nx) and commands u (..., nu); lower is better.

    A plan x_0, u_0, ..., u_{H-1}, x_H pays the sum of `running(x_t, u_t)` and `terminal(x_H)`. All methods are
    differentiable in torch, take any leading batch dimensions that broadcast, and keep dtype and device.
    A reward r is the cost -r.
    """

    pure: bool = False
    """True promises that it stays the same function of x and u alone, whatever happens, and takes no branch by the value of a number
    (torch.where instead): planners then compile it, values and derivatives (`planners.compiler`). Derived classes promise it too."""

    @abstractmethod
    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        """Return the named terms (...,) of the running cost; they add up to `running`."""

    def running(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the cost (...,) of being in x (..., nx) and doing u (..., nu) for one control period."""
        return _sum(self.terms(x, u))

    @abstractmethod
    def terminal(self, x: Tensor) -> Tensor:
        """Return the cost (...,) of ending a plan in x (..., nx)."""

    def transition_terms(self, x: Tensor, u: Tensor, x_next: Tensor) -> dict[str, Tensor]:
        """Return the named terms (...,) that a lived period is charged: by default those of the state it led to.

        A task that charges the state it left overrides this; the two differ only in where an episode's sum begins.
        """
        return self.terms(x_next, u)

    def transition(self, x: Tensor, u: Tensor, x_next: Tensor) -> Tensor:
        """Return the cost (...,) that a lived period from x to x_next is charged."""
        return _sum(self.transition_terms(x, u, x_next))

    def survival(self, x: Tensor, u: Tensor) -> Tensor | None:
        """Return the probability (...,) that the episode goes on after u in x, or None where it always does.

        A planner weighs what comes later by the product of these.
        """
        return None

    def charge(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return `running` and `survival` together: a learned cost computes both at once."""
        return self.running(x, u), self.survival(x, u)


def _sum(terms: dict[str, Tensor]) -> Tensor:
    first, *others = terms.values()
    for term in others:
        first = first + term
    return first


class ZeroCost(Cost):
    """Costs nothing: for collecting data before there is anything to aim at."""

    pure = True

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"zero": torch.zeros(torch.broadcast_shapes(x.shape[:-1], u.shape[:-1]), dtype=x.dtype, device=x.device)}

    def terminal(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])
