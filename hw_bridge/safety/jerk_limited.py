"""Set-points that can always stop: one joint's jerk-limited motion, and the set of states from which braking keeps every limit.

A state is (q, v, a) of the set-point. Between two writes the jerk is constant or follows the brake, so that set-points sampled at any
instants have divided differences within the limits of velocity, acceleration and jerk. A state is *safe* if braking from it, as fast
as acceleration and jerk allow, stays within every limit; the brake leads from safe states to safe states. So each period takes the
jerk that tracks best among those that end in a safe state, and the brake where there is none: by induction no limit is ever broken,
whatever the target and however long the period. Compiled by numba; symbols: A, J, V are the limits of |a|, |jerk|, |v|.
"""

from __future__ import annotations

import math

import numba
import numpy as np

POSITION_LIMITED, VELOCITY_LIMITED, ACCELERATION_LIMITED, BRAKED = 1, 2, 4, 8
"""Bits of what `follow` and `follow_velocity` report."""

_ROUNDS = 26
_SLACK = 1e-9
"""What rounding may add in one period; far below what any encoder sees."""
_SAFE_SLACK = 1e-6
_BANDWIDTH = 40.0
"""Of the linear tracking of small errors [rad/s]; slower where the period is long."""


@numba.njit(cache=True)
def brake_times(v: float, a: float, A: float, J: float) -> tuple[float, float, float, float]:
    """Return (sign, t1, t2, t3) of the fastest stop: jerk -sign J for t1, none for t2 and sign J for t3 [s]."""
    rest = v + a * abs(a) / (2.0 * J)  # the velocity left when the acceleration is brought to 0 at once
    sign = 1.0 if rest >= 0.0 else -1.0
    v, a = sign * v, sign * a
    peak = math.sqrt(max(J * v + 0.5 * a * a, 0.0))
    hold = 0.0
    if peak > A:
        peak = A
        hold = max((v + (0.5 * a * a - A * A) / J) / A, 0.0)
    return sign, max((a + peak) / J, 0.0), hold, peak / J


@numba.njit(cache=True)
def moved(q: float, v: float, a: float, jerk: float, t: float) -> tuple[float, float, float]:
    """Return (q, v, a) after `t` seconds of constant jerk."""
    return (q + t * (v + t * (a / 2.0 + t * jerk / 6.0)), v + t * (a + t * jerk / 2.0), a + t * jerk)


@numba.njit(cache=True)
def braked(q: float, v: float, a: float, t: float, A: float, J: float) -> tuple[float, float, float]:
    """Return (q, v, a) after `t` seconds of the fastest stop; at rest from its end on."""
    sign, t1, t2, t3 = brake_times(v, a, A, J)
    if t >= t1 + t2 + t3:
        return stopped_at(q, v, a, A, J), 0.0, 0.0
    step = min(t, t1)
    q, v, a = moved(q, v, a, -sign * J, step)
    t -= step
    step = min(t, t2)
    q, v, a = moved(q, v, a, 0.0, step)
    return moved(q, v, a, sign * J, max(t - step, 0.0))


@numba.njit(cache=True)
def stopped_at(q: float, v: float, a: float, A: float, J: float) -> float:
    """Return the position at which the fastest stop ends."""
    sign, t1, t2, t3 = brake_times(v, a, A, J)
    q, v, a = moved(q, v, a, -sign * J, t1)
    q, v, a = moved(q, v, a, 0.0, t2)
    return moved(q, v, a, sign * J, t3)[0]


@numba.njit(cache=True)
def brake_top(q: float, v: float, a: float, A: float, J: float) -> float:
    """Return the highest position on the way of the fastest stop."""
    if v + a * abs(a) / (2.0 * J) >= 0.0:
        return max(q, stopped_at(q, v, a, A, J))
    if v <= 0.0:
        return q
    # Still rising, but braked too hard to end there: it turns where v = 0, before the hold.
    t = (-a - math.sqrt(max(a * a - 2.0 * J * v, 0.0))) / J
    _, t1, _, _ = brake_times(v, a, A, J)
    if t <= t1:
        return moved(q, v, a, J, t)[0]
    q, v, a = moved(q, v, a, J, t1)
    return q + (v * v / (2.0 * abs(a)) if a < 0.0 and v > 0.0 else 0.0)


@numba.njit(cache=True)
def breaks_above(q: float, v: float, a: float, jerk: float, dt: float, top: float, V: float, A: float, J: float,
                 slack: float = _SLACK) -> int:
    """Return 0 if `dt` of `jerk` and then the brake stay below the upper limits, else the bit of the limit that breaks."""
    q1, v1, a1 = moved(q, v, a, jerk, dt)
    if a1 > A + slack:
        return ACCELERATION_LIMITED
    peak = v1 + a1 * a1 / (2.0 * J) if a1 > 0.0 else v1
    if a > 0.0 and a1 < 0.0:
        peak = max(peak, v - a * a / (2.0 * jerk))
    if peak > V + slack:
        return VELOCITY_LIMITED
    highest = brake_top(q1, v1, a1, A, J)
    if v > 0.0 and v1 < 0.0:
        highest = max(highest, q + v * dt + 0.5 * max(a, 0.0) * dt * dt)
    if highest > top + slack:
        return POSITION_LIMITED
    return 0


@numba.njit(cache=True)
def _highest_jerk(q: float, v: float, a: float, dt: float, top: float, V: float, A: float, J: float) -> tuple[float, int]:
    """Return the highest jerk that breaks no upper limit, and what limited it; (-inf, bit) where there is none."""
    why = breaks_above(q, v, a, J, dt, top, V, A, J)
    if why == 0:
        return J, 0
    low, high = -J, J
    if breaks_above(q, v, a, low, dt, top, V, A, J) != 0:
        return -math.inf, why
    for _ in range(_ROUNDS):
        middle = 0.5 * (low + high)
        if breaks_above(q, v, a, middle, dt, top, V, A, J) == 0:
            low = middle
        else:
            high = middle
    return low, why


@numba.njit(cache=True)
def _miss(q: float, v: float, a: float, jerk: float, dt: float, target: float, rate: float, A: float, J: float, velocity: bool) -> float:
    """Return by how much braking relative to the moving target passes it, after `dt` of `jerk`; it rises with the jerk."""
    q, v, a = moved(q, v, a, jerk, dt)
    if velocity:
        return v - rate + a * abs(a) / (2.0 * J)
    return stopped_at(q - target, v - rate, a, A, J)


@numba.njit(cache=True)
def _linear_jerk(q: float, v: float, a: float, dt: float, target: float, rate: float, bend: float, velocity: bool) -> float:
    """Return the jerk that lets a small error die out without overshoot: critically damped, every pole at -w."""
    w = min(_BANDWIDTH, 0.3 / max(dt, 1e-6))
    rate -= bend * dt  # where the target was when the period began
    target -= (rate + 0.5 * bend * dt) * dt
    if velocity:
        return w * (w * (rate - v) - 2.0 * a)
    return w * (w * (w * (target - q) + 3.0 * (rate - v)) + 3.0 * (bend - a))


@numba.njit(cache=True)
def _step(q: float, v: float, a: float, dt: float, target: float, rate: float, bend: float, bottom: float, top: float, V: float,
          A: float, J: float, velocity: bool) -> tuple[float, float, float, int]:
    high, why_high = _highest_jerk(q, v, a, dt, top, V, A, J)
    negative, why_low = _highest_jerk(-q, -v, -a, dt, -bottom, V, A, J)
    low = -negative
    if low > high:
        q, v, a = braked(q, v, a, dt, A, J)
        return q, v, a, why_high | why_low | BRAKED
    limited = 0
    jerk = _linear_jerk(q, v, a, dt, target, rate, bend, velocity)
    if abs(jerk) <= J:
        if jerk > high:
            jerk, limited = high, why_high
        elif jerk < low:
            jerk, limited = low, why_low
    elif _miss(q, v, a, high, dt, target, rate, A, J, velocity) <= 0.0:
        jerk, limited = high, why_high
    elif _miss(q, v, a, low, dt, target, rate, A, J, velocity) >= 0.0:
        jerk, limited = low, why_low
    else:
        for _ in range(_ROUNDS):
            jerk = 0.5 * (low + high)
            if _miss(q, v, a, jerk, dt, target, rate, A, J, velocity) <= 0.0:
                low = jerk
            else:
                high = jerk
        jerk = low
    q, v, a = moved(q, v, a, jerk, dt)
    return q, v, a, limited


@numba.njit(cache=True)
def follow(state: np.ndarray, following: np.ndarray, target: np.ndarray, rate: np.ndarray, bend: np.ndarray, dt: float,
           limits: np.ndarray, velocity: bool, reasons: np.ndarray) -> None:
    """Write to `following` (3, n) the state that tracks the target best and stays safe, `dt` seconds after `state` (3, n): q, v, a.

    target, rate, bend: (n,) position [rad], velocity [rad/s] and acceleration [rad/s^2] of the target at the end of the period; small
    errors die out linearly, large ones in the shortest time. `velocity`: track the rate alone.
    limits: (5, n) lowest and highest position, V, A, J. reasons: (n,) int64, what limited each joint, as bits.
    """
    for i in range(state.shape[1]):
        following[0, i], following[1, i], following[2, i], reasons[i] = _step(
            state[0, i], state[1, i], state[2, i], dt, target[i], rate[i], bend[i],
            limits[0, i], limits[1, i], limits[2, i], limits[3, i], limits[4, i], velocity)


@numba.njit(cache=True)
def follow_slower(state: np.ndarray, following: np.ndarray, target: np.ndarray, rate: np.ndarray, bend: np.ndarray, dt: float,
                  limits: np.ndarray, velocity_max: np.ndarray, speed: float, velocity: bool, reasons: np.ndarray) -> None:
    """As `follow`, with V = speed * velocity_max (n,), which is written to `limits`; reasons: (n + 1,), the last the union of all."""
    n = state.shape[1]
    for i in range(n):
        limits[2, i] = speed * velocity_max[i]
    follow(state, following, target, rate, bend, dt, limits, velocity, reasons)
    union = 0
    for i in range(n):
        union |= reasons[i]
    reasons[n] = union


@numba.njit(cache=True)
def stop_of(state: np.ndarray, peak: np.ndarray, end: np.ndarray, limits: np.ndarray) -> tuple[float, float]:
    """Return how long [s] and at most how far [rad] a joint goes in the fastest stop from `state` (3, n); writes where it ends to `end`
    (3, n) and the velocities (n,) left when the accelerations are brought to 0 at once to `peak`.
    """
    duration = brake_duration(state, limits)
    brake(state, end, duration, limits)
    furthest = 0.0
    for i in range(state.shape[1]):
        peak[i] = state[1, i] + state[2, i] * abs(state[2, i]) / (2.0 * limits[4, i])
        furthest = max(furthest, abs(end[0, i] - state[0, i]))
    return duration, furthest


@numba.njit(cache=True)
def brake(state: np.ndarray, following: np.ndarray, t: float, limits: np.ndarray) -> None:
    """Write to `following` (3, n) the state after `t` seconds of the fastest stop from `state` (3, n); limits as for `follow`."""
    for i in range(state.shape[1]):
        following[0, i], following[1, i], following[2, i] = braked(state[0, i], state[1, i], state[2, i], t, limits[3, i], limits[4, i])


@numba.njit(cache=True)
def brake_duration(state: np.ndarray, limits: np.ndarray) -> float:
    """Return how long the fastest stop of all joints takes [s]."""
    longest = 0.0
    for i in range(state.shape[1]):
        _, t1, t2, t3 = brake_times(state[1, i], state[2, i], limits[3, i], limits[4, i])
        longest = max(longest, t1 + t2 + t3)
    return longest


@numba.njit(cache=True)
def is_safe(state: np.ndarray, limits: np.ndarray) -> bool:
    """Return whether braking from `state` (3, n) keeps every limit."""
    for i in range(state.shape[1]):
        q, v, a = state[0, i], state[1, i], state[2, i]
        bottom, top, V, A, J = limits[0, i], limits[1, i], limits[2, i], limits[3, i], limits[4, i]
        if not (math.isfinite(q) and math.isfinite(v) and math.isfinite(a)) or abs(a) > A + _SAFE_SLACK or abs(v) > V + _SAFE_SLACK:
            return False
        if (breaks_above(q, v, a, 0.0, 0.0, top, V, A, J, _SAFE_SLACK) != 0
                or breaks_above(-q, -v, -a, 0.0, 0.0, -bottom, V, A, J, _SAFE_SLACK) != 0):
            return False
    return True


def worst_brake_duration(velocity_max: np.ndarray, acceleration_max: np.ndarray, jerk_max: np.ndarray) -> float:
    """Return the longest that a stop from any safe state can take [s]: from full speed, the acceleration still at its limit."""
    A, J = acceleration_max, jerk_max
    return float(np.max((velocity_max + A * A / J) / A + 2.0 * A / J))


def warm_up(n: int) -> None:
    """Compile everything for `n` joints, so that no first call costs a period."""
    state, other, reasons = np.zeros((3, n)), np.zeros((3, n)), np.zeros(n + 1, np.int64)
    limits = np.outer([-1.0, 1.0, 1.0, 1.0, 1.0], np.ones(n))
    for velocity in (False, True):
        follow_slower(state, other, state[0], state[1], state[2], 0.001, limits, state[1], 1.0, velocity, reasons)
    brake(state, other, 0.001, limits)
    stop_of(state, np.zeros(n), other, limits)
    is_safe(state, limits)
