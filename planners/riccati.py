"""The compiled backward pass of iLQR: gains and feedforward of a linear-quadratic model, with commands in a box.

All in one file: numba's cache notices when a file changes, but not when a file that it calls into does.
"""

from __future__ import annotations

import numba
import numpy as np

FINE, INDEFINITE, NON_FINITE = 0, 1, 2
"""How a backward pass ended; see `planners.linear_quadratic.Outcome`."""
NO_MINIMUM = -1
"""Returned by `solve_box_qp` in place of a number of free unknowns."""
ITERATIONS_MAX = 100
"""Projected Newton needs as many as the active set changes, a handful."""
SMALLEST_PIVOT = 1e-14
"""A pivot of Cholesky's factor below this share of its diagonal entry is round-off, not curvature."""
ON_BOUND = 1e-12
"""Nearer than this share of 1 + |bound| is on the bound: beside it, the next step would be as short as the way there."""
ARMIJO, SHORTER, STEP_MIN = 0.1, 0.6, 1e-30
"""Share of the promised decrease that a step must reach, what a step that does not is multiplied by, and where that ends."""
CONTRACT = {"contract"}
"""Products and sums may become one instruction; nothing is reordered, and NaN stays NaN."""


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def factorise_free(hessian: np.ndarray, free: np.ndarray, count: int, factor: np.ndarray) -> bool:
    """Write Cholesky's lower factor of rows and columns free[:count] into `factor` (m, m); False where they are indefinite."""
    for i in range(count):
        for j in range(i + 1):
            rest = hessian[free[i], free[j]]
            for k in range(j):
                rest -= factor[i, k] * factor[j, k]
            if j < i:
                factor[i, j] = rest / factor[j, j]
            elif rest > SMALLEST_PIVOT * hessian[free[i], free[i]]:
                factor[i, i] = np.sqrt(rest)
            else:
                return False
    return True


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def solve_factored(factor: np.ndarray, free: np.ndarray, count: int, rows: np.ndarray) -> None:
    """Solve factor factor' y = rows[free[:count]] for all columns of `rows` (m, n), in place."""
    columns = rows.shape[1]
    for i in range(count):
        for k in range(i):
            for c in range(columns):
                rows[free[i], c] -= factor[i, k] * rows[free[k], c]
        for c in range(columns):
            rows[free[i], c] /= factor[i, i]
    for i in range(count - 1, -1, -1):
        for k in range(i + 1, count):
            for c in range(columns):
                rows[free[i], c] -= factor[k, i] * rows[free[k], c]
        for c in range(columns):
            rows[free[i], c] /= factor[i, i]


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def solve_box_qp(hessian: np.ndarray, gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray, x: np.ndarray, free: np.ndarray,
                 factor: np.ndarray, work: np.ndarray) -> int:
    """Minimise x' hessian x / 2 + gradient' x over lower <= x <= upper (m,), and return how many unknowns end off their bounds.

    `x` (m,) holds a first guess and then the solution, bounds met exactly; bounds may be infinite. `free` (m,) int64 receives the
    indices off the bounds in its first places, `factor` (m, m) Cholesky's factor of their block of `hessian`: what the gains are
    solved with. `work` (3, m, 1) is scratch. Returns NO_MINIMUM where the block of free unknowns is not positive definite. Projected
    Newton (Tassa, Mansard & Todorov 2014).
    """
    m = len(x)
    count = -1  # of free unknowns at the last factorisation
    exact = False  # x minimises over the free unknowns, the others held
    slope, newton, moved = work[0], work[1], work[2]
    for i in range(m):
        x[i] = min(max(x[i], lower[i]), upper[i])
    for _ in range(ITERATIONS_MAX):
        now_free, changed = 0, False
        for i in range(m):
            if x[i] - lower[i] < ON_BOUND * (1.0 + abs(lower[i])):
                x[i] = lower[i]
            elif upper[i] - x[i] < ON_BOUND * (1.0 + abs(upper[i])):
                x[i] = upper[i]
        for i in range(m):
            slope[i, 0] = gradient[i]
            for j in range(m):
                slope[i, 0] += hessian[i, j] * x[j]
            clamped = (x[i] <= lower[i] and slope[i, 0] > 0.0) or (x[i] >= upper[i] and slope[i, 0] < 0.0)
            if not clamped:
                changed = changed or now_free >= count or free[now_free] != i
                free[now_free] = i
                now_free += 1
        changed = changed or now_free != count
        if exact and not changed:
            return count
        count = now_free
        if changed and not factorise_free(hessian, free, count, factor):
            return NO_MINIMUM
        for i in range(m):
            newton[i, 0] = -slope[i, 0]
            moved[i, 0] = 0.0
        solve_factored(factor, free, count, newton)
        step = 1.0
        while True:
            exact = step == 1.0
            for c in range(count):
                i = free[c]
                to = x[i] + step * newton[i, 0]
                inside = min(max(to, lower[i]), upper[i])
                exact = exact and inside == to
                moved[i, 0] = inside - x[i]
            promised = change = 0.0  # of the objective, to first order and exactly
            for i in range(m):
                promised += slope[i, 0] * moved[i, 0]
                change += slope[i, 0] * moved[i, 0]
                for j in range(m):
                    change += 0.5 * moved[i, 0] * hessian[i, j] * moved[j, 0]
            if exact or change <= ARMIJO * promised:
                break
            step *= SHORTER
            if step < STEP_MIN:
                return count
        for c in range(count):
            i = free[c]
            x[i] = min(max(x[i] + step * newton[i, 0], lower[i]), upper[i])
    return count


@numba.njit(cache=True, fastmath=CONTRACT, error_model="numpy", forceinline=True)
def _multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Write a b into `out`."""
    rows, inner = a.shape
    columns = b.shape[1]
    for i in range(rows):
        for j in range(columns):
            out[i, j] = a[i, 0] * b[0, j]
        for k in range(1, inner):
            for j in range(columns):
                out[i, j] += a[i, k] * b[k, j]


@numba.njit(cache=True, fastmath=CONTRACT, error_model="numpy", forceinline=True)
def _add_lower(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Add a' b to `out`, on and below its diagonal."""
    inner, rows = a.shape
    for i in range(rows):
        columns = min(i + 1, b.shape[1])
        for k in range(inner):
            for j in range(columns):
                out[i, j] += a[k, i] * b[k, j]


@numba.njit(cache=True)
def _lower_is_finite(q_xu: np.ndarray, q: np.ndarray) -> bool:
    total = 0.0
    for i in range(len(q_xu)):
        total += q_xu[i] - q_xu[i]
        for j in range(i + 1):
            total += q[i, j] - q[i, j]
    return total == 0.0  # what is finite less itself is zero


@numba.njit(cache=True, fastmath=CONTRACT, error_model="numpy")
def backward_pass(a: np.ndarray, b: np.ndarray, gradient: np.ndarray, hessian: np.ndarray, end_gradient: np.ndarray,
                  end_hessian: np.ndarray, gaps: np.ndarray, lowest: np.ndarray, highest: np.ndarray, control_weight: float,
                  state_weight: float, states: tuple[int, ...] = (), commands: tuple[int, ...] = ()
                  ) -> tuple[int, np.ndarray, np.ndarray, float, float]:
    """Return an outcome's number, feedforward, gains, and slope and curvature of the expected change; see `planners.linear_quadratic`.

    With F = [A B] every block of Q is at once Q = l'' + F' V_xx F (Tassa et al. 2012; box: Tassa et al. 2014; gaps: Mastalli
    et al. 2020). `states` and `commands`: tuples of any ndx and nu integers have the pass compiled for these
    sizes alone, since a tuple's length is part of its type; empty ones for any size.
    """
    horizon, n, m = b.shape
    if len(states) > 0:
        n, m = len(states), len(commands)
    feedforward, gains = np.zeros((horizon, m)), np.zeros((horizon, m, n))
    v_x, v_xx = np.empty(n), np.empty((n, n))
    f, vf = np.empty((n, n + m)), np.empty((n, n + m))
    q_xu, q = np.empty(n + m), np.empty((n + m, n + m))
    q_u, regular_uu, regular_ux = np.empty(m), np.empty((m, m)), np.empty((m, n))
    free, factor, on_gain = np.zeros(m, np.int64), np.zeros((m, m)), np.empty((m, n))
    k_t, work = np.zeros(m), np.empty((3, m, 1))
    slope = curvature = 0.0
    for i in range(n):
        v_x[i] = end_gradient[i]
        for j in range(n):
            v_xx[i, j] = end_hessian[i, j]
    for t in range(horizon - 1, -1, -1):
        for i in range(n):
            for j in range(n):
                f[i, j] = a[t, i, j]
            for j in range(m):
                f[i, n + j] = b[t, i, j]
        if len(gaps):  # V_x + V_xx gap
            for i in range(n):
                for j in range(n):
                    v_x[i] += v_xx[i, j] * gaps[t, j]
        _multiply(v_xx, f, vf)
        for i in range(n + m):  # Q_xu = l_xu + F' V_x, Q = l'' + F' V_xx F
            q_xu[i] = gradient[t, i]
            for k in range(n):
                q_xu[i] += f[k, i] * v_x[k]
            for j in range(i + 1):
                q[i, j] = hessian[t, i, j]
        _add_lower(f, vf, q)
        if not _lower_is_finite(q_xu, q):
            return NON_FINITE, feedforward, gains, slope, curvature

        for i in range(m):
            q_u[i] = q_xu[n + i]
            for j in range(i):
                q[n + j, n + i] = q[n + i, n + j]
            for j in range(m):
                regular_uu[i, j] = q[n + max(i, j), n + min(i, j)]
            for j in range(n):
                regular_ux[i, j] = q[n + i, j]
            regular_uu[i, i] += control_weight
        if state_weight > 0.0:
            for k in range(n):
                for i in range(m):
                    for j in range(m):
                        regular_uu[i, j] += state_weight * b[t, k, i] * b[t, k, j]
                    for j in range(n):
                        regular_ux[i, j] += state_weight * b[t, k, i] * a[t, k, j]

        count = solve_box_qp(regular_uu, q_u, lowest[t], highest[t], k_t, free, factor, work)  # k_t: warm from the next knot's
        if count == NO_MINIMUM:
            return INDEFINITE, feedforward, gains, slope, curvature
        gain = gains[t]
        for c in range(count):
            for j in range(n):
                gain[free[c], j] = -regular_ux[free[c], j]
        solve_factored(factor, free, count, gain)  # clamped rows stay zero

        # V_x = Q_x + K'(Q_uu k + Q_u) + Q_ux'k, V_xx = Q_xx + K'(Q_uu K + Q_ux) + Q_ux'K: of the model as it is, not regularised
        for i in range(m):
            q_uu_k = 0.0
            for j in range(m):
                q_uu_k += q[n + i, n + j] * k_t[j]
            feedforward[t, i] = k_t[i]
            slope += k_t[i] * q_u[i]
            curvature += k_t[i] * q_uu_k
            for j in range(n):
                q_xu[j] += gain[i, j] * (q_uu_k + q_u[i]) + q[n + i, j] * k_t[i]
                on_gain[i, j] = q[n + i, j]
            for k in range(m):
                for j in range(n):
                    on_gain[i, j] += q[n + i, n + k] * gain[k, j]
        for i in range(n):
            v_x[i] = q_xu[i]
            for j in range(i + 1):
                v_xx[i, j] = q[i, j]
        _add_lower(gain, on_gain, v_xx)
        for i in range(m):
            for j in range(n):
                regular_ux[i, j] = q[n + i, j]
        _add_lower(regular_ux, gain, v_xx)
        for i in range(n):
            for j in range(i):
                v_xx[j, i] = v_xx[i, j]
    return FINE, feedforward, gains, slope, curvature


@numba.njit(cache=True, fastmath=CONTRACT, error_model="numpy")
def model_change(a: np.ndarray, b: np.ndarray, gradient: np.ndarray, hessian: np.ndarray, end_gradient: np.ndarray,
                 end_hessian: np.ndarray, gaps: np.ndarray, feedforward: np.ndarray, gains: np.ndarray) -> tuple[float, float]:
    """Return slope and curvature, along the step length, of the model's own cost where a step also closes gaps.

    The model's states move in proportion to the step, so its cost is exactly step * slope + step^2 / 2 * curvature.
    """
    horizon, n, m = b.shape
    z, moved = np.zeros(n + m), np.zeros(n)  # [dx, du] of the full step
    slope = curvature = 0.0
    for t in range(horizon):
        for i in range(m):
            z[n + i] = feedforward[t, i]
            for j in range(n):
                z[n + i] += gains[t, i, j] * z[j]
        for i in range(n + m):
            slope += gradient[t, i] * z[i]
            for j in range(n + m):
                curvature += z[i] * hessian[t, i, j] * z[j]
        for i in range(n):
            moved[i] = gaps[t, i]
            for j in range(n):
                moved[i] += a[t, i, j] * z[j]
            for j in range(m):
                moved[i] += b[t, i, j] * z[n + j]
        for i in range(n):
            z[i] = moved[i]
    for i in range(n):
        slope += end_gradient[i] * z[i]
        for j in range(n):
            curvature += z[i] * end_hessian[i, j] * z[j]
    return slope, curvature
