"""States of the supervisor and the rules that can fire, as the log and the operator's page name them."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class State(IntEnum):
    """Where the supervisor stands."""

    DISCONNECTED = 0
    """No measurement yet."""
    IDLE = 1
    """Measured, nothing is written."""
    ARMED = 2
    """The arm is held where it stands; the policy is not heard."""
    ACTIVE = 3
    """The policy's targets are followed."""
    HOLD = 4
    """Braked, and held there; a person may resume."""
    FAULT = 5
    """Stopped for something that must be looked at; a person may reset."""
    ESTOP = 6
    """Stopped by a person; latched until a person resets."""


class Rule(IntFlag):
    """What the supervisor did to a command, or why it stopped; bits, so that a log row holds all of a period."""

    NONE = 0
    NON_FINITE = 1 << 0
    """The action held NaN or infinity: rejected."""
    SHAPE = 1 << 1
    """The action had another length: rejected."""
    SPEC = 1 << 2
    """The action was made for another arm, mode, unit, frame or joint order: rejected."""
    OLD_ACTION = 1 << 3
    """The action is older than the last stop, or came out of order: not heard."""
    ACTION_AGE = 1 << 4
    """The newest action is too old."""
    CLAMPED = 1 << 5
    """The target jumped, and was cut to the clamp band."""
    REJECTED = 1 << 6
    """The target jumped beyond the reject band."""
    POSITION = 1 << 7
    VELOCITY = 1 << 8
    ACCELERATION = 1 << 9
    """Acceleration or jerk."""
    TORQUE = 1 << 10
    TORQUE_RATE = 1 << 11
    WORKSPACE = 1 << 12
    """The end effector would leave its box."""
    TOOL_SPEED = 1 << 13
    COLLISION = 1 << 14
    """Links would come too near to each other or to what is around them."""
    BRAKED = 1 << 15
    """No allowed motion tracks the target: this period brakes."""
    OBSERVATION_AGE = 1 << 16
    CAMERA_AGE = 1 << 17
    BUS_ERRORS = 1 << 18
    DEVICE_CLOCK = 1 << 19
    """The controller's clock stood still or jumped."""
    GAP = 1 << 20
    """Our own loop stood still."""
    TRACKING = 1 << 21
    """The arm is not where its set-points are."""
    VENDOR = 1 << 22
    """The arm's own controller stopped."""
    OPERATOR = 1 << 23
    """A person asked."""
    EMERGENCY = 1 << 24
    BAD_MEASUREMENT = 1 << 25
    """What was measured holds NaN, jumped, or lies outside the limits."""
    BLEND = 1 << 26
    """Starting: slowed."""
    UNCERTAIN = 1 << 27
    """The policy asked for less speed, because its model is unsure."""

    def words(self) -> str:
        """Return the names of the rules that fired, for people."""
        return ", ".join(rule.name.lower().replace("_", " ") for rule in Rule if rule and rule in self)


HARMLESS = Rule.BLEND | Rule.UNCERTAIN | Rule.ACCELERATION
"""Not interventions: what starts gently, what the policy asked for, and targets that are rounded off."""
