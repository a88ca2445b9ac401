"""The trapezoidal profile that servos put between a goal and their position loop."""

from __future__ import annotations

import math


def follow_profile(setpoint: float, speed: float, goal: float, speed_max: float, acceleration: float, tick: float) -> tuple[float, float]:
    """Return set-point [rad] and speed [rad/s] one `tick` [s] later, on the way to `goal`; infinite limits lead there at once."""
    rest = goal - setpoint
    wanted = min(math.sqrt(2.0 * acceleration * abs(rest)) if rest else 0.0, speed_max, abs(rest) / tick)
    change = acceleration * tick
    speed = min(max(math.copysign(wanted, rest), speed - change), speed + change)
    return setpoint + speed * tick, speed
