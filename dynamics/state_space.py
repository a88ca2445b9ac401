"""What of an observation is the state, which entries are angles or rotations, and how states are subtracted and moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from robots.errors import ConfigurationError, ShapeError, UnknownNameError
from robots.observation import Observation


class Kind(StrEnum):
    """What the entries of a channel are."""

    LINEAR = "linear"
    ANGLE = "angle"
    """Angles [rad]; differences are wrapped to [-pi, pi], a model sees sine and cosine."""
    QUATERNION = "quaternion"
    """One unit quaternion wxyz, four entries; its tangent is a rotation vector [rad], a model sees the rotation matrix."""


class Target(StrEnum):
    """What a model predicts of a channel."""

    DIFFERENCE = "difference"
    """The change over one control period."""
    ABSOLUTE = "absolute"
    """The next value itself."""
    CONSTANT = "constant"
    """Nothing: the channel stays as it is during an episode (a goal)."""


@dataclass(frozen=True)
class Channel:
    """A stretch of the state that comes from one place of the observation."""

    source: str
    """'q', 'dq', 'tau', 'ee_pose', or a name in `Observation.extra`."""
    names: tuple[str, ...]
    """One name an entry, for reports."""
    indices: tuple[int, ...]
    """Which entries of the source, in order."""
    kind: Kind = Kind.LINEAR
    target: Target = Target.DIFFERENCE
    model_input: bool = True
    """False where the dynamics do not depend on it (a position along flat ground, a goal)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "indices", tuple(int(i) for i in self.indices))
        object.__setattr__(self, "kind", Kind(self.kind))
        object.__setattr__(self, "target", Target(self.target))
        if not self.indices or len(self.names) != len(self.indices):
            raise ConfigurationError(f"channel of {self.source!r}: expected one name for each of at least one index, "
                                     f"got {len(self.names)} names and {len(self.indices)} indices")
        if min(self.indices) < 0:
            raise ConfigurationError(f"channel of {self.source!r}: expected indices of at least 0, got {self.indices}")
        if self.kind is Kind.QUATERNION and len(self.indices) != 4:
            raise ConfigurationError(f"channel of {self.source!r}: a quaternion has four entries, got {len(self.indices)}")
        if self.kind is Kind.QUATERNION and self.target is Target.ABSOLUTE:
            raise ConfigurationError(f"channel of {self.source!r}: a quaternion is predicted as a difference or is constant")


class StateSpace:
    """The state `x (nx,)`, its tangent `dx (ndx,)`, the model's input `features (nf,)` and its output `(no,)`.

    `no` counts the tangent entries a model predicts: all but those of constant channels.
    All tensor methods take any leading batch dimensions and keep dtype and device.
    """

    def __init__(self, channels: Sequence[Channel], differences: Sequence[tuple[str, str]] = ()) -> None:
        """`differences`: names of two plain entries each; a model also reads the first less the second.

        For bodies that act on each other where they meet. The place itself of a body that rests is one number an episode:
        standardised, it tells a model which episode it is in, and every new episode is unlike all before.
        """
        self.channels = tuple(channels)
        if not self.channels:
            raise ConfigurationError("StateSpace: expected at least one channel, got none")
        self.names = tuple(name for channel in self.channels for name in channel.names)
        if len(set(self.names)) != len(self.names):
            raise ConfigurationError(f"StateSpace: names of entries must differ, got {self.names}")
        self.nx = len(self.names)
        linear_inputs, angles, angle_inputs, absolute, plain_outputs = [], [], [], [], []
        self.quaternions: list[tuple[int, int, int, bool]] = []
        """Of every rotation: its first entry in x, in dx, in the output (-1: constant), and whether a model reads it."""
        x = dx = out = 0
        linear_dx, linear_x, output_dx = [], [], []
        for channel in self.channels:
            n = len(channel.indices)
            tangent = 3 if channel.kind is Kind.QUATERNION else n
            predicted = channel.target is not Target.CONSTANT
            if channel.kind is Kind.QUATERNION:
                self.quaternions.append((x, dx, out if predicted else -1, channel.model_input))
            else:
                linear_x += range(x, x + n)
                linear_dx += range(dx, dx + n)
                if channel.kind is Kind.ANGLE:
                    angles += range(dx, dx + n)
                    angle_inputs += range(x, x + n) if channel.model_input else []
                elif channel.model_input:
                    linear_inputs += range(x, x + n)
                if predicted:
                    plain_outputs += [(x + i, out + i) for i in range(n)]
                if channel.target is Target.ABSOLUTE:
                    absolute += range(dx, dx + n)
            if predicted:
                output_dx += range(dx, dx + tangent)
                out += tangent
            x, dx = x + n, dx + tangent
        self.ndx, self.no = dx, out
        if out == 0:
            raise ConfigurationError("StateSpace: every channel is constant; a model would have nothing to predict")
        self.linear_inputs = torch.tensor(linear_inputs, dtype=torch.long)
        """Entries of x that enter the features as they are."""
        self.angle_inputs = torch.tensor(angle_inputs, dtype=torch.long)
        """Entries of x that enter the features as sine, then cosine."""
        self.output_states = torch.tensor([x for x, _ in plain_outputs], dtype=torch.long)
        """Entries of x that the outputs at `output_entries` move."""
        self.output_entries = torch.tensor([o for _, o in plain_outputs], dtype=torch.long)
        self._linear_x, self._linear_dx = torch.tensor(linear_x, dtype=torch.long), torch.tensor(linear_dx, dtype=torch.long)
        self._angles_dx = torch.tensor(angles, dtype=torch.long)
        self.output_tangents = torch.tensor(output_dx, dtype=torch.long)
        """(no,) entry of dx that each output is about."""
        is_absolute = torch.zeros(self.ndx, dtype=torch.bool)
        is_absolute[absolute] = True
        self.absolute_outputs = is_absolute[self.output_tangents]
        """(no,) True where a model's output is the next value itself."""
        self.differences = tuple((first, second) for first, second in differences)
        """Pairs of names of entries."""
        self.difference_inputs = torch.tensor([self._entries(pair) for pair in self.differences], dtype=torch.long).reshape(-1, 2)
        """(nd, 2) entries of x that enter the features as the first less the second."""
        inputs = sum(1 for *_, model_input in self.quaternions if model_input)
        self.nf = len(linear_inputs) + 2 * len(angle_inputs) + 9 * inputs + len(self.differences)
        self.output_names = tuple(name for name, keep in zip(self._tangent_names(), self._predicted_mask(), strict=True) if keep)

    @property
    def has_quaternions(self) -> bool:
        """True where a channel is a rotation, so that nx and ndx differ."""
        return bool(self.quaternions)

    def state(self, observation: Observation) -> np.ndarray:
        """Return `x (nx,)` float64 of an observation; ShapeError or UnknownNameError if it lacks a channel."""
        parts = []
        for channel in self.channels:
            if channel.source in ("q", "dq", "tau", "ee_pose"):
                source = getattr(observation, channel.source)
            elif channel.source in observation.extra:
                source = observation.extra[channel.source]
            else:
                raise UnknownNameError("source of a state channel", channel.source, ["q", "dq", "tau", "ee_pose", *observation.extra])
            if max(channel.indices) >= len(source):
                raise ShapeError(f"state channel {channel.source!r}: needs entry {max(channel.indices)}, the observation has {len(source)}")
            parts.append(source[list(channel.indices)])
        return np.concatenate(parts)

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        """Return `dx (..., ndx)` that leads from x to y (..., nx): `integrate(x, difference(x, y))` is y, angles modulo 2 pi."""
        x, y = torch.broadcast_tensors(x, y)
        dx = x.new_empty(*x.shape[:-1], self.ndx)
        dx[..., self._linear_dx] = y[..., self._linear_x] - x[..., self._linear_x]
        if len(self._angles_dx):
            dx[..., self._angles_dx] = wrap_angle(dx[..., self._angles_dx])
        for start, tangent, *_ in self.quaternions:
            dx[..., tangent:tangent + 3] = quaternion_log(quaternion_multiply(quaternion_conjugate(x[..., start:start + 4]),
                                                                              y[..., start:start + 4]))
        return dx

    def integrate(self, x: Tensor, dx: Tensor) -> Tensor:
        """Return the state (..., nx) reached from x by the tangent step dx (..., ndx)."""
        x, dx = _broadcast_leading(x, dx)
        y = x.clone()
        y[..., self._linear_x] += dx[..., self._linear_dx]
        for start, tangent, *_ in self.quaternions:
            y[..., start:start + 4] = quaternion_multiply(x[..., start:start + 4], quaternion_exp(dx[..., tangent:tangent + 3]))
        return y

    def features(self, x: Tensor) -> Tensor:
        """Return the model's input (..., nf): linear entries, sines, cosines, rotation matrices row by row, then differences."""
        parts = [x[..., self.linear_inputs]]
        if len(self.angle_inputs):
            angles = x[..., self.angle_inputs]
            parts += [torch.sin(angles), torch.cos(angles)]
        parts += [rotation_matrix(x[..., start:start + 4]).flatten(-2) for start, _, _, use in self.quaternions if use]
        if self.differences:
            parts.append(x[..., self.difference_inputs[:, 0]] - x[..., self.difference_inputs[:, 1]])
        return torch.cat(parts, dim=-1)

    def target(self, x: Tensor, x_next: Tensor) -> Tensor:
        """Return what a model is to predict (..., no) for the step from x to x_next (..., nx)."""
        target = self.difference(x, x_next)
        if self.absolute_outputs.any():
            target[..., self.output_tangents[self.absolute_outputs]] = self._absolute(x_next)
        return target[..., self.output_tangents]

    def advance(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the next state (..., nx) from x (..., nx) and a model's output (..., no): the inverse of `target`."""
        x, output = _broadcast_leading(x, output.to(x.dtype))
        dx = output.new_zeros(*output.shape[:-1], self.ndx)
        dx[..., self.output_tangents] = output
        y = self.integrate(x, dx)
        if self.absolute_outputs.any():
            y[..., self._absolute_states()] = output[..., self.absolute_outputs]
        return y

    def bounds_around(self, x: Tensor, beyond: float) -> tuple[Tensor, Tensor]:
        """Return the smallest and largest values (nx,) float32 of states x (n, nx), moved apart by `beyond` times their distance.

        Only what the model both reads as a plain number, by itself or in a difference, and predicts is bounded; angles turn, and
        what is not read cannot go wrong: these may go anywhere.
        """
        smallest, largest = self.unbounded()
        read = torch.cat([self.linear_inputs, self.difference_inputs.flatten()]).unique()
        bounded = read[torch.isin(read, self.output_states)]
        low, high = x[:, bounded].aminmax(dim=0)
        smallest[bounded] = (low - beyond * (high - low)).float()
        largest[bounded] = (high + beyond * (high - low)).float()
        return smallest, largest

    def unbounded(self) -> tuple[Tensor, Tensor]:
        """Return bounds (nx,) float32 that hold nothing back."""
        return torch.full((self.nx,), -torch.inf), torch.full((self.nx,), torch.inf)

    def _entries(self, difference: tuple[str, str]) -> tuple[int, int]:
        """Return the entries of x that a difference is of."""
        plain = {name for channel in self.channels if channel.kind is Kind.LINEAR for name in channel.names}
        for name in difference:
            if name not in self.names:
                raise UnknownNameError("entry of the state", name, self.names)
        if len(set(difference)) != 2 or not plain.issuperset(difference):
            raise ConfigurationError(f"StateSpace: a difference is of two entries, none of an angle or a rotation, got {difference}")
        first, second = difference
        return self.names.index(first), self.names.index(second)

    def _absolute_states(self) -> Tensor:
        return self.output_states[self.absolute_outputs[self.output_entries]]

    def _absolute(self, x: Tensor) -> Tensor:
        return x[..., self._absolute_states()]

    def _tangent_names(self) -> list[str]:
        names: list[str] = []
        for channel in self.channels:
            names += [f"{channel.names[0]}_{axis}" for axis in "xyz"] if channel.kind is Kind.QUATERNION else channel.names
        return names

    def _predicted_mask(self) -> list[bool]:
        kept = set(self.output_tangents.tolist())
        return [i in kept for i in range(self.ndx)]

    def to_json(self) -> dict:
        """Return the space as plain JSON values; `StateSpace.from_json` reads them back."""
        channels = [{"source": c.source, "names": list(c.names), "indices": list(c.indices), "kind": str(c.kind), "target": str(c.target),
                     "model_input": c.model_input} for c in self.channels]
        return {"channels": channels, "differences": [list(pair) for pair in self.differences]}

    @classmethod
    def from_json(cls, values: dict) -> StateSpace:
        """Return the space that `to_json` described."""
        return cls([Channel(**channel) for channel in values["channels"]], values["differences"])


def _broadcast_leading(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    batch = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    return x.expand(*batch, x.shape[-1]), y.expand(*batch, y.shape[-1])


def wrap_angle(angle: Tensor) -> Tensor:
    """Return `angle` [rad] wrapped to [-pi, pi]."""
    return angle - 2 * torch.pi * torch.round(angle / (2 * torch.pi))


def quaternion_conjugate(q: Tensor) -> Tensor:
    """Return the conjugate of quaternions wxyz (..., 4)."""
    return q * q.new_tensor([1.0, -1.0, -1.0, -1.0])


def quaternion_multiply(p: Tensor, q: Tensor) -> Tensor:
    """Return the Hamilton product of quaternions wxyz (..., 4)."""
    pw, pv, qw, qv = p[..., :1], p[..., 1:], q[..., :1], q[..., 1:]
    w = pw * qw - (pv * qv).sum(-1, keepdim=True)
    return torch.cat([w, pw * qv + qw * pv + torch.linalg.cross(pv, qv)], dim=-1)


def quaternion_exp(rotation: Tensor) -> Tensor:
    """Return the unit quaternion wxyz (..., 4) of a rotation vector (..., 3) [rad]."""
    half = 0.5 * torch.linalg.vector_norm(rotation, dim=-1, keepdim=True)
    return torch.cat([torch.cos(half), 0.5 * rotation * torch.sinc(half / torch.pi)], dim=-1)


def quaternion_log(q: Tensor) -> Tensor:
    """Return the rotation vector (..., 3) [rad], of length at most pi, of a unit quaternion wxyz (..., 4)."""
    q = torch.where(q[..., :1] < 0, -q, q)
    norm = torch.linalg.vector_norm(q[..., 1:], dim=-1, keepdim=True)
    scale = torch.where(norm > 1e-12, 2 * torch.atan2(norm, q[..., :1]) / norm.clamp_min(1e-12), torch.full_like(norm, 2.0))
    return scale * q[..., 1:]


def rotation_matrix(q: Tensor) -> Tensor:
    """Return the rotation matrix (..., 3, 3) of a quaternion wxyz (..., 4), normalised first."""
    w, x, y, z = torch.nn.functional.normalize(q, dim=-1).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
