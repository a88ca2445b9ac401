"""The rewards of dm_control's tasks as costs over simulated states, as their authors wrote them down
(Tassa et al. 2018, https://arxiv.org/abs/1801.00690). A plan's score is never these, but what the task itself pays."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from planners.cost import Cost
from robots.errors import UnknownNameError
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.tolerance import tolerance

INFINITY = math.inf


class RewardCost(Cost):
    """1 - reward: a control period that goes well costs nothing."""

    pure = True

    def __init__(self, space: PhysicsSpace) -> None:
        self._names = space.names

    def entry(self, name: str) -> int:
        """Return which entry of x is called `name`; UnknownNameError where none is."""
        if name not in self._names:
            raise UnknownNameError("entry of the state", name, self._names)
        return self._names.index(name)

    @abstractmethod
    def reward(self, x: Tensor, u: Tensor | None) -> Tensor:
        """Return the reward (...,) that plans look for, at most 1, in states x (..., nx) under commands u (..., nu); None: no command,
        which is the best."""

    def paid(self, x: Tensor, u: Tensor | None) -> Tensor:
        """Return what the task itself pays (...,), where plans look for more than that."""
        return self.reward(x, u)

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"missing reward": 1.0 - self.reward(x, u)}

    def terminal(self, x: Tensor) -> Tensor:
        return 1.0 - self.reward(x, None)


def _effort(u: Tensor | None, share: float) -> Tensor | float:
    """Return 1 for no effort, falling to 1 - share for the largest one."""
    return 1.0 if u is None else 1.0 - share + share * tolerance(u, margin=1.0, at_margin=0.0, shape="quadratic").mean(-1)


class CartPoleCost(RewardCost):
    """cartpole-balance and cartpole-swingup."""

    def __init__(self, space: PhysicsSpace) -> None:
        super().__init__(space)
        self._cart, self._pole, self._rate = self.entry("slider"), self.entry("hinge_1"), self.entry("hinge_1_rate")

    def reward(self, x: Tensor, u: Tensor | None) -> Tensor:
        upright = (torch.cos(x[..., self._pole]) + 1.0) / 2.0
        centred = (1.0 + tolerance(x[..., self._cart], margin=2.0)) / 2.0
        slow = (1.0 + tolerance(x[..., self._rate], margin=5.0)) / 2.0
        return upright * centred * slow * _effort(u, 0.2)


class AcrobotCost(RewardCost):
    """acrobot-swingup: the tip within 0.2 m of its target, 4 m up."""

    def __init__(self, space: PhysicsSpace) -> None:
        super().__init__(space)
        self._tip = [self.entry("tip_0"), self.entry("tip_1")]

    def reward(self, x: Tensor, u: Tensor | None) -> Tensor:
        away = torch.linalg.vector_norm(x[..., self._tip] - x.new_tensor([0.0, 4.0]), dim=-1)
        return tolerance(away, 0.0, 0.2, margin=1.0)


class ReacherCost(RewardCost):
    """reacher-easy and reacher-hard. The task pays nothing but at the target, which tells a planner no way there: this cost also falls
    with the distance."""

    def __init__(self, space: PhysicsSpace, radii: float) -> None:
        super().__init__(space)
        self._target, self._finger = ([self.entry(f"{name}_{i}") for i in range(2)] for name in ("target", "finger"))
        self._radii = radii

    def reward(self, x: Tensor, u: Tensor | None) -> Tensor:
        away = self._away(x)
        return 0.5 * tolerance(away, 0.0, self._radii, margin=0.02) + 0.5 * (1.0 - away / 0.5)

    def paid(self, x: Tensor, u: Tensor | None) -> Tensor:
        return tolerance(self._away(x), 0.0, self._radii)

    def _away(self, x: Tensor) -> Tensor:
        return torch.sqrt((x[..., self._target] - x[..., self._finger]).square().sum(-1) + 1e-12)


class CheetahCost(RewardCost):
    """cheetah-run: up to 10 m/s."""

    def __init__(self, space: PhysicsSpace) -> None:
        super().__init__(space)
        self._speed = self.entry("torso_velocity_0")

    def reward(self, x: Tensor, u: Tensor | None) -> Tensor:
        return tolerance(x[..., self._speed], 10.0, INFINITY, margin=10.0, at_margin=0.0, shape="linear")


class WalkerCost(RewardCost):
    """walker-stand (0 m/s), walker-walk (1 m/s) and walker-run (8 m/s)."""

    def __init__(self, space: PhysicsSpace, speed: float) -> None:
        super().__init__(space)
        self._height, self._upright = self.entry("torso_height"), self.entry("torso_upright")
        self._velocity, self._wanted = self.entry("torso_velocity_0"), speed

    def reward(self, x: Tensor, u: Tensor | None) -> Tensor:
        standing = tolerance(x[..., self._height], 1.2, INFINITY, margin=0.6)
        stand = (3.0 * standing + (1.0 + x[..., self._upright]) / 2.0) / 4.0
        if self._wanted == 0.0:
            return stand
        moving = tolerance(x[..., self._velocity], self._wanted, INFINITY, margin=self._wanted / 2.0, at_margin=0.5, shape="linear")
        return stand * (5.0 * moving + 1.0) / 6.0


class HopperCost(RewardCost):
    """hopper-stand, and hopper-hop at 2 m/s.

    The task pays nothing for a torso that is almost high enough, and no less for one that is about to fall: this cost also falls on
    the way up, and where it stands with the torso upright, still and above the foot.
    """

    def __init__(self, space: PhysicsSpace, hop: bool) -> None:
        super().__init__(space)
        self._torso, self._foot = ([self.entry(f"{name}_centre_{i}") for i in range(2)] for name in ("torso", "foot"))
        self._velocity, self._upright, self._hop = self.entry("torso_velocity_0"), self.entry("torso_upright"), hop

    def reward(self, x: Tensor, u: Tensor | None) -> Tensor:
        ahead, height = (x[..., self._torso] - x[..., self._foot]).unbind(-1)
        standing = tolerance(height, 0.6, 2.0, margin=0.1)
        if self._hop:
            standing = 0.8 * standing + 0.2 * tolerance(height, 0.6, 2.0, margin=0.6)
            return standing * tolerance(x[..., self._velocity], 2.0, INFINITY, margin=1.0, at_margin=0.5, shape="linear")
        rising = ((height + 0.2) / 0.8).clamp(0.0, 1.0)
        upright = (1.0 + x[..., self._upright]) / 2.0
        still = tolerance(x[..., self._velocity], margin=1.0)
        above = tolerance(ahead, margin=0.4)
        return 0.5 * standing * _effort(u, 0.2) + 0.2 * rising + 0.1 * (upright + still + above)

    def paid(self, x: Tensor, u: Tensor | None) -> Tensor:
        height = x[..., self._torso[1]] - x[..., self._foot[1]]
        standing = tolerance(height, 0.6, 2.0)
        if not self._hop:
            return standing * _effort(u, 0.2)
        return standing * tolerance(x[..., self._velocity], 2.0, INFINITY, margin=1.0, at_margin=0.5, shape="linear")


class HumanoidCost(RewardCost):
    """humanoid-stand (0 m/s), humanoid-walk (1 m/s) and humanoid-run (10 m/s).

    A product of height, uprightness and calm pays nothing to who lies, and as much as ever to who is about to fall: this cost also falls
    with the height of the head, and with the torso upright and, where it will be in 0.2 s, above the feet.
    """

    def __init__(self, space: PhysicsSpace, speed: float) -> None:
        super().__init__(space)
        self._head, self._upright = self.entry("head_height"), self.entry("torso_upright")
        self._velocity, self._wanted = [self.entry("torso_velocity_0"), self.entry("torso_velocity_1")], speed
        self._torso, self._right, self._left = ([self.entry(f"{name}_{i}") for i in range(2)]
                                                for name in ("torso_place", "right_foot", "left_foot"))

    def reward(self, x: Tensor, u: Tensor | None) -> Tensor:
        rising = (x[..., self._head] / 1.4).clamp(0.0, 1.0)
        upright = (1.0 + x[..., self._upright]) / 2.0
        ahead = x[..., self._torso] + 0.2 * x[..., self._velocity] - (x[..., self._right] + x[..., self._left]) / 2.0
        above = tolerance(torch.sqrt(ahead.square().sum(-1) + 1e-12), margin=0.4)
        return 0.5 * self.paid(x, u) + 0.25 * rising + 0.1 * upright + 0.15 * above

    def paid(self, x: Tensor, u: Tensor | None) -> Tensor:
        standing = tolerance(x[..., self._head], 1.4, INFINITY, margin=0.35)
        upright = tolerance(x[..., self._upright], 0.9, INFINITY, margin=1.9, at_margin=0.0, shape="linear")
        stand = standing * upright * _effort(u, 0.2)
        if self._wanted == 0.0:
            return stand * tolerance(x[..., self._velocity], margin=2.0).mean(-1)
        speed = torch.sqrt(x[..., self._velocity].square().sum(-1) + 1e-12)
        moving = tolerance(speed, self._wanted, INFINITY, margin=self._wanted, at_margin=0.0, shape="linear")
        return stand * (5.0 * moving + 1.0) / 6.0
