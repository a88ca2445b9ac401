"""The URDF that the controller hands to its clients: libfranka builds its dynamics and its velocity limits from it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import mujoco
import numpy as np

from robots.arms.arm import Arm

FLANGE = "link8"
"""libfranka takes this link for the flange."""
VELOCITY_OFFSET = 10.0
DECELERATION = 100.0
"""Large: the velocity limits do not shrink near the position limits, as on a Panda. (The FR3's do; this twin leaves that out.)"""


def urdf(arm: Arm) -> str:
    """Return the URDF of `arm`, named as its spec, with links link0 to link8 and joints joint1 to joint7."""
    model, limits = arm.model(), arm.spec.limits
    root = ET.Element("robot", name=arm.spec.name)
    for number in range(8):
        _link(root, model, model.body(f"link{number}").id)
    ET.SubElement(root, "link", name=FLANGE)
    for i in range(7):
        body = model.body(f"link{i + 1}").id
        joint = ET.SubElement(root, "joint", name=f"joint{i + 1}", type="revolute")
        _origin(joint, model.body_pos[body], model.body_quat[body])
        ET.SubElement(joint, "parent", link=f"link{i}")
        ET.SubElement(joint, "child", link=f"link{i + 1}")
        ET.SubElement(joint, "axis", xyz="0 0 1")
        ET.SubElement(joint, "limit", lower=_text(limits.position_min[i]), upper=_text(limits.position_max[i]),
                      velocity=_text(limits.velocity_max[i]), effort=_text(limits.torque_max[i]))
        ET.SubElement(joint, "position_based_velocity_limits", velocity_offset=str(VELOCITY_OFFSET), deceleration_limit=str(DECELERATION))
    site = model.site(arm.spec.end_effector_frames[0])
    joint = ET.SubElement(root, "joint", name="flange_mount", type="fixed")
    _origin(joint, site.pos, site.quat)
    ET.SubElement(joint, "parent", link="link7")
    ET.SubElement(joint, "child", link=FLANGE)
    return ET.tostring(root, encoding="unicode")


def _link(root: ET.Element, model: mujoco.MjModel, body: int) -> None:
    link = ET.SubElement(root, "link", name=model.body(body).name)
    inertial = ET.SubElement(link, "inertial")
    _origin(inertial, model.body_ipos[body], model.body_iquat[body])
    ET.SubElement(inertial, "mass", value=_text(model.body_mass[body]))
    principal = [_text(value) for value in model.body_inertia[body]]
    ET.SubElement(inertial, "inertia", ixx=principal[0], iyy=principal[1], izz=principal[2], ixy="0", ixz="0", iyz="0")


def _origin(parent: ET.Element, position: np.ndarray, quaternion: np.ndarray) -> None:
    """Add an origin: roll, pitch and yaw of a quaternion wxyz, about fixed axes."""
    w, x, y, z = (float(value) for value in quaternion)
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = np.arcsin(np.clip(2 * (w * y - z * x), -1.0, 1.0))
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    ET.SubElement(parent, "origin", xyz=" ".join(map(_text, position)), rpy=" ".join(map(_text, (roll, pitch, yaw))))


def _text(number: float) -> str:
    return repr(float(number))
