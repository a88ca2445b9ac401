"""Which models can have contacts at all."""

from __future__ import annotations

import mujoco
import numpy as np


def may_touch(model: mujoco.MjModel) -> bool:
    """Return whether contacts are possible: any two geoms that would collide, a pair that is said to, or what bends."""
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT:
        return False
    meet = np.bitwise_or.reduce(model.geom_contype, initial=0) & np.bitwise_or.reduce(model.geom_conaffinity, initial=0)
    return bool(meet) or model.npair > 0 or model.nflex > 0
