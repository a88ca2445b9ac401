"""The joints of Franka's arms beside their inertia."""

from __future__ import annotations

import numpy as np

from hw_bridge.twins.plant import Mechanics
from robots.arms.panda import TORQUE_MAX


def franka_mechanics() -> Mechanics:
    """Return what is left of the joints once their torque sensors close the inner loop: little friction, no play. Approximate: the
    maker's description gives 0.2 N·m of friction and rotors of 0.6 kg·m^2 at the joint, of which the torque loop hides a part; how much,
    and the viscous part, are ours.
    """
    wrist = np.array([1, 1, 1, 1, 0.5, 0.5, 0.5])
    return Mechanics(viscous=0.5 * wrist, coulomb=0.2 * wrist, armature=np.full(7, 0.2), torque_max=np.array(TORQUE_MAX),
                     backlash=np.zeros(7), encoder_step=np.full(7, 2 * np.pi / 2**20))
