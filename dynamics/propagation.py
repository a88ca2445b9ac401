"""How uncertainty travels through a learned model: E, DS, TS1, TSinf and MM (Chua et al. 2018, section 4).

Particles stand in slots: the state is (P, N, nx) for P particles of N candidate plans. Every candidate has the same
slots, so members are dealt out equally within each candidate and no gather is needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from dynamics.forward import Forward
from robots.errors import ConfigurationError, UnknownNameError


@dataclass(frozen=True)
class RolloutNoise:
    """All randomness of one batch of rollouts, drawn before any of it runs."""

    normal: Tensor | None
    """(H, P, N, no) standard normal draws of every slot; N is 1 where all candidates share them; None: no noise."""
    slots: Tensor | None
    """(H, P) for every step, the slot that each particle stands in (TS1); None: particle p stays in slot p."""

    def to(self, device: torch.device) -> RolloutNoise:
        """Return the noise on a device: it is drawn on the processor, so that a seed means the same everywhere."""
        return RolloutNoise(None if self.normal is None else self.normal.to(device), None if self.slots is None else self.slots.to(device))

    def candidates(self, portion: slice) -> RolloutNoise:
        """Return the noise of a portion of the candidates."""
        if self.normal is None or self.normal.shape[2] == 1:
            return self
        return RolloutNoise(self.normal[:, :, portion], self.slots)


class Following(Enum):
    """What one particle follows for one step."""

    ITS_MEMBER = "the member whose slot it stands in"
    ALL_MEMBERS = "the Gaussian with the mean and variance of all members together"


class Propagation(ABC):
    """One way to carry a distribution of states through one control period."""

    name: str
    shuffles = False
    """True where particles change their slot, and so their member, at every step."""
    draws = True
    """True where noise is drawn."""
    fused: Following | None = None
    """What a particle follows, for the compiled kernel; None: only torch can do it."""

    def check(self, particles: int, members: int) -> None:
        """Raise ConfigurationError unless this propagation can run `particles` through `members`."""
        if particles < 1:
            raise ConfigurationError(f"particles: expected at least 1, got {particles}")

    @abstractmethod
    def step(self, forward: Forward, u: Tensor, normal: Tensor | None) -> None:
        """Advance `forward`'s states (P, N, nx) by commands u (N, nu), with noise (P, N or 1, no) where it is given."""

    def noise(self, horizon: int, particles: int, candidates: int, no: int, generator: torch.Generator | None,
              common: bool) -> RolloutNoise:
        """Return the noise of `candidates` rollouts; `common`: all candidates meet the same (no generator: none)."""
        if generator is None:
            return RolloutNoise(None, None)
        normal = torch.randn(horizon, particles, 1 if common else candidates, no, generator=generator) if self.draws else None
        slots = torch.rand(horizon, particles, generator=generator).argsort(dim=1) if self.shuffles else None
        return RolloutNoise(normal, slots)


class Expectation(Propagation):
    """E: the mean of the members' means; no uncertainty travels, so one particle says all."""

    name = "E"
    draws = False
    fused = Following.ALL_MEMBERS

    def check(self, particles: int, members: int) -> None:
        if particles != 1:
            raise ConfigurationError(f"propagation E carries one particle (the mean), got particles={particles}")

    def step(self, forward: Forward, u: Tensor, normal: Tensor | None) -> None:
        mean, _ = forward.outputs(u, rows_of_all=True)  # (E, N, no)
        forward.move(mean.mean(0).unsqueeze(0))


class DistributionSampling(Propagation):
    """DS: every particle is drawn from the Gaussian with the ensemble's mean and total variance at its state."""

    name = "DS"
    fused = Following.ALL_MEMBERS

    def step(self, forward: Forward, u: Tensor, normal: Tensor | None) -> None:
        output = _ensemble_sample(forward, u, normal)
        forward.move(output)


class MomentMatching(Propagation):
    """MM: as DS, then the particles of each plan are refitted, per dimension, by a Gaussian and drawn from it again."""

    name = "MM"

    def check(self, particles: int, members: int) -> None:
        if particles < 2:
            raise ConfigurationError(f"propagation MM fits a Gaussian to the particles and needs at least 2, got {particles}")

    def noise(self, horizon: int, particles: int, candidates: int, no: int, generator: torch.Generator | None,
              common: bool) -> RolloutNoise:
        twice = super().noise(2 * horizon, particles, candidates, no, generator, common)
        if twice.normal is None:
            return twice
        return RolloutNoise(twice.normal.view(horizon, 2 * particles, *twice.normal.shape[2:]), None)

    def step(self, forward: Forward, u: Tensor, normal: Tensor | None) -> None:
        particles = forward.particles
        start = forward.x[:1].clone()
        output = _ensemble_sample(forward, u, None if normal is None else normal[:particles])
        forward.move(output)
        if normal is None:
            return
        space = forward.network.state_space
        moved = forward.x.clone()
        dx = space.difference(start.expand_as(moved), moved)  # (P, N, ndx) about one particle, so that angles do not wrap
        mean, std = dx.mean(0), dx.std(0)  # unbiased: the bias of few particles would grow at every step
        again = torch.zeros_like(dx)
        again[..., space.output_tangents] = normal[particles:].expand(particles, dx.shape[1], -1)
        forward.x.copy_(space.integrate(start.expand_as(moved), mean + std * again))
        forward.stop_at_bounds()


class _TrajectorySampling(Propagation):
    """Every particle follows the member whose slot it stands in."""

    fused = Following.ITS_MEMBER

    def check(self, particles: int, members: int) -> None:
        if particles < 1 or particles % members:
            raise ConfigurationError(f"propagation {self.name} deals particles equally to members: expected a multiple of {members}, "
                                     f"got particles={particles}")

    def step(self, forward: Forward, u: Tensor, normal: Tensor | None) -> None:
        mean, std = forward.outputs(u, rows_of_all=False)  # (E, P/E N, no)
        shape = (forward.particles, forward.candidates, -1)
        if normal is None or std is None:
            forward.move(mean.reshape(shape))
            return
        if std.shape[1] == 1:  # constant noise, (E, 1, no)
            std = std.expand(-1, mean.shape[1], -1)
        forward.move(torch.addcmul(mean.reshape(shape), std.reshape(shape), normal))


class TrajectorySamplingOne(_TrajectorySampling):
    """TS1: particles are dealt to members anew at every step."""

    name = "TS1"
    shuffles = True


class TrajectorySamplingInfinity(_TrajectorySampling):
    """TSinf: a particle keeps its member, so that the two kinds of uncertainty stay apart along the plan."""

    name = "TSinf"


PROPAGATIONS: dict[str, type[Propagation]] = {
    kind.name: kind for kind in (Expectation, DistributionSampling, TrajectorySamplingOne, TrajectorySamplingInfinity, MomentMatching)
}


def make_propagation(name: str) -> Propagation:
    """Return the propagation called `name`; UnknownNameError lists the known ones."""
    if name not in PROPAGATIONS:
        raise UnknownNameError("propagation", name, PROPAGATIONS)
    return PROPAGATIONS[name]()


def _ensemble_sample(forward: Forward, u: Tensor, normal: Tensor | None) -> Tensor:
    """Return outputs (P, N, no) drawn from the ensemble's mean and total variance (no noise: the mean)."""
    mean, std = forward.outputs(u, rows_of_all=True)  # (E, P N, no)
    shape = (forward.particles, forward.candidates, -1)
    centre = mean.mean(0)
    if normal is None:
        return centre.view(shape)
    variance = mean.var(0, correction=0)
    if std is not None:
        variance = variance + std.square().mean(0)
    return torch.addcmul(centre.view(shape), variance.sqrt_().view(shape), normal)
