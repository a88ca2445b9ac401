"""The compiled backward pass of iLQR: gains and feedforward of a linear-quadratic model, with commands in a box.

All in one file: numba's cache notices when a file changes, but not when a file that it calls into does.
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

FINE, INDEFINITE, NON_FINITE = 0, 1, 2
"""How a backward pass ended; see `planners.linear_quadratic.Outcome`."""
ITERATIONS_MAX = 100
"""Projected Newton needs as many as the active set changes, a handful."""
SMALLEST_PIVOT = 1e-14
"""A pivot of Cholesky's factor below this share of its diagonal entry is round-off, not curvature."""
ON_BOUND = 1e-12
"""Nearer than this share of 1 + |bound| is on the bound: beside it, the next step would be as short as the way there."""
ARMIJO, SHORTER, STEP_MIN = 0.1, 0.6, 1e-30
"""Share of the promised decrease that a step must reach, what a step that does not is multiplied by, and where that ends."""
LANES = 8
"""Doubles of a vector; rows are padded to a multiple. Processors with shorter vectors take two or four for one."""
CONTRACT = {"contract"}
"""Products and sums may become one instruction; nothing is reordered, and NaN stays NaN."""


VECTOR, INTEGERS, LANE = ir.VectorType(ir.DoubleType(), LANES), ir.VectorType(ir.IntType(64), LANES), ir.IntType(32)


@intrinsic
def _add_rows(typingctx, out, row, scale, start, start_row, coefficients, first, stride, rows, first_row, count, vectors):
    """out[row] = scale * start[start_row] + sum over k < count of coefficients.flat[first + k * stride] * rows[first_row + k].

    Of the first LANES * vectors columns, which all arrays but `coefficients` have. In vectors by name: numba leaves loops over so few
    columns in scalars, or spends more on checks than on sums.
    """
    integer = types.int64
    signature = types.void(out, integer, types.float64, start, integer, coefficients, integer, integer, rows, integer, integer, integer)

    def generate(context, builder, signature, arguments):
        out, row, scale, start, start_row, coefficients, first, stride, rows, first_row, count, vectors = arguments
        out, start, coefficients, rows = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 3, 5, 8))
        factor, total = _spread(builder, scale, VECTOR), cgutils.alloca_once(builder, VECTOR)
        with cgutils.for_range(builder, vectors) as block:
            column = builder.mul(block.index, ir.Constant(row.type, LANES))
            builder.store(builder.fmul(factor, builder.load(_place(builder, start, start_row, column), align=8)), total)
            with cgutils.for_range(builder, count) as k:
                coefficient = builder.load(builder.gep(coefficients.data, [builder.add(first, builder.mul(k.index, stride))]))
                line = builder.load(_place(builder, rows, builder.add(first_row, k.index), column), align=8)
                product = builder.fmul(_spread(builder, coefficient, VECTOR), line, flags=("contract",))
                builder.store(builder.fadd(product, builder.load(total), flags=("contract",)), total)
            builder.store(builder.load(total), _place(builder, out, row, column), align=8)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _join_row(typingctx, out, row, left, left_first, left_count, right, right_first, right_count, vectors):
    """out[row] = left.flat[left_first:][:left_count], then right.flat[right_first:][:right_count], then zeros: LANES * vectors columns.

    A row that was written number by number is slow to read as vectors: the processor waits until it is in the cache.
    """
    integer = types.int64
    signature = types.void(out, integer, left, integer, integer, right, integer, integer, integer)

    def generate(context, builder, signature, arguments):
        out, row, left, left_first, left_count, right, right_first, right_count, vectors = arguments
        out, left, right = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2, 5))
        mask = ir.VectorType(ir.IntType(1), LANES)
        load = cgutils.get_or_insert_function(builder.module, ir.FunctionType(VECTOR, [VECTOR.as_pointer(), LANE, mask, VECTOR]),
                                              f"llvm.masked.load.v{LANES}f64.p0")

        def loaded(array, first, wanted, otherwise):
            place = builder.bitcast(builder.gep(array.data, [first]), VECTOR.as_pointer())
            return builder.call(load, [place, ir.Constant(LANE, 8), wanted, otherwise])

        with cgutils.for_range(builder, vectors) as block:
            column = builder.mul(block.index, ir.Constant(row.type, LANES))
            columns = builder.add(_spread(builder, column, INTEGERS), ir.Constant(INTEGERS, list(range(LANES))))
            on_left, known = (builder.icmp_signed("<", columns, _spread(builder, end, INTEGERS))
                              for end in (left_count, builder.add(left_count, right_count)))
            found = loaded(left, builder.add(left_first, column), on_left, ir.Constant(VECTOR, [0.0] * LANES))
            on_right = builder.and_(known, builder.not_(on_left))
            found = loaded(right, builder.sub(builder.add(right_first, column), left_count), on_right, found)
            builder.store(found, _place(builder, out, row, column), align=8)
        return context.get_dummy_value()

    return signature, generate


def _spread(builder, number, vector):
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(LANE, 0))
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(LANE, LANES), [0] * LANES))


def _place(builder, array, row, column):
    at = builder.add(builder.mul(row, builder.extract_value(array.shape, 1)), column)
    return builder.bitcast(builder.gep(array.data, [at]), VECTOR.as_pointer())


@numba.njit(cache=True, fastmath=CONTRACT, error_model="numpy", forceinline=True)
def factorise_free(hessian: np.ndarray, free: np.ndarray, factor: np.ndarray) -> bool:
    """Factorise the Hessian's rows and columns that are `free` (m,) as L D L' into `factor` (m, m); False where they are not positive
    definite.

    As what solves with it takes them: -L below the diagonal, 1 / D on it, and (L D)' above; zeros on and below it for what is not free.
    """
    for i in range(len(free)):
        for j in range(i + 1):
            rest = hessian[i, j]
            for k in range(j):
                rest += factor[k, i] * factor[j, k]
            if not free[i]:
                factor[j, i] = factor[i, j] = 0.0
            elif j < i:
                factor[j, i] = rest
                factor[i, j] = -rest * factor[j, j]
            elif rest > SMALLEST_PIVOT * hessian[i, i]:
                factor[i, i] = 1.0 / rest
            else:
                return False
    return True


@numba.njit(cache=True, fastmath=CONTRACT, error_model="numpy", forceinline=True)
def solve_free(factor: np.ndarray, x: np.ndarray) -> None:
    """Solve L D L' y = x (m,) for what is free, in place; the others become zero."""
    for i in range(1, len(x)):
        for k in range(i):
            x[i] += factor[i, k] * x[k]
    for i in range(len(x) - 1, -1, -1):
        x[i] *= factor[i, i]
        for k in range(i + 1, len(x)):
            x[i] += factor[k, i] * x[k]


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def solve_box_qp(hessian: np.ndarray, gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray, x: np.ndarray, free: np.ndarray,
                 factor: np.ndarray, slope: np.ndarray, newton: np.ndarray, moved: np.ndarray) -> bool:
    """Minimise x' hessian x / 2 + gradient' x over lower <= x <= upper (m,); False where its free block is not positive definite.

    `x` (m,) holds a first guess and then the solution, bounds met exactly; bounds may be infinite. `free` (m,) bool receives which unknowns
    end off their bounds, `factor` (m, m) that of their block (`factorise_free`): what the gains are solved with. The last three (m,) are
    scratch. Projected Newton (Tassa, Mansard & Todorov 2014); a minimum inside the box is found at once.
    """
    m = len(x)
    for i in range(m):
        free[i], newton[i] = True, -gradient[i]
    if factorise_free(hessian, free, factor):
        solve_free(factor, newton)
        inside = True
        for i in range(m):
            inside = inside and lower[i] < newton[i] < upper[i]
        if inside:
            for i in range(m):
                x[i] = newton[i]
            return True
    exact = first = True  # exact: x minimises over the free unknowns, the others held
    for i in range(m):
        x[i] = min(max(x[i], lower[i]), upper[i])
    for _ in range(ITERATIONS_MAX):
        changed = first
        for i in range(m):
            if x[i] - lower[i] < ON_BOUND * (1.0 + abs(lower[i])):
                x[i] = lower[i]
            elif upper[i] - x[i] < ON_BOUND * (1.0 + abs(upper[i])):
                x[i] = upper[i]
        for i in range(m):
            slope[i] = gradient[i]
            for j in range(m):
                slope[i] += hessian[i, j] * x[j]
            clamped = (x[i] <= lower[i] and slope[i] > 0.0) or (x[i] >= upper[i] and slope[i] < 0.0)
            changed = changed or free[i] == clamped
            free[i] = not clamped
        if exact and not changed:
            return True
        if changed and not factorise_free(hessian, free, factor):
            return False
        first = False
        for i in range(m):
            newton[i] = -slope[i] if free[i] else 0.0
        solve_free(factor, newton)
        step = 1.0
        while True:
            exact = step == 1.0
            for i in range(m):
                to = x[i] + step * newton[i]
                inside = min(max(to, lower[i]), upper[i])
                exact = exact and inside == to
                moved[i] = inside - x[i]
            promised = change = 0.0  # of the objective, to first order and exactly
            for i in range(m):
                promised += slope[i] * moved[i]
                change += slope[i] * moved[i]
                for j in range(m):
                    change += 0.5 * moved[i] * hessian[i, j] * moved[j]
            if exact or change <= ARMIJO * promised:
                break
            step *= SHORTER
            if step < STEP_MIN:
                return True
        for i in range(m):
            x[i] = min(max(x[i] + step * newton[i], lower[i]), upper[i])
    return True


@numba.njit(cache=True, fastmath=CONTRACT, error_model="numpy")
def backward_pass(a: np.ndarray, b: np.ndarray, gradient: np.ndarray, hessian: np.ndarray, end_gradient: np.ndarray,
                  end_hessian: np.ndarray, gaps: np.ndarray, lowest: np.ndarray, highest: np.ndarray, control_weight: float,
                  state_weight: float, states: tuple[int, ...] = (), commands: tuple[int, ...] = ()
                  ) -> tuple[int, np.ndarray, np.ndarray, float, float]:
    """Return an outcome's number, feedforward, gains, and slope and curvature of the expected change; see `planners.linear_quadratic`.

    With F = [A B] every block of Q is at once Q = l'' + F' V_xx F (Tassa et al. 2012; box: Tassa et al. 2014; gaps: Mastalli
    et al. 2020). Rows are padded with what is never looked at. `states` and `commands`: tuples of any ndx and nu integers have the pass
    compiled for these sizes alone, since a tuple's length is part of its type; empty ones for any size.
    """
    horizon, n, m = b.shape
    if len(states) > 0:
        n, m = len(states), len(commands)
    feedforward, gains = np.zeros((horizon, m)), np.zeros((horizon, m, n))
    vectors, state_vectors = (n + m + LANES - 1) // LANES, (n + LANES - 1) // LANES
    width = LANES * vectors
    f, vf, v_xx, v_x = np.zeros((n, width)), np.zeros((n, width)), np.zeros((n, width)), np.zeros((1, width))
    q, q_xu, nearer = np.zeros((n + m, width)), np.zeros((1, width)), np.zeros((m, width))
    gain, on_gain, nothing, zeros = np.zeros((m, width)), np.zeros((m, width)), np.zeros((1, width)), np.zeros(m)
    q_u, regular_uu, k_t, along_k, weighted = np.empty(m), np.empty((m, m)), np.zeros(m), np.empty(m), np.empty(n)
    low, high, scratch_1, scratch_2, scratch_3 = np.empty(m), np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    free, factor = np.zeros(m, np.bool_), np.zeros((m, m))
    slope = curvature = 0.0
    for i in range(n):
        v_x[0, i] = end_gradient[i]
        for j in range(n):
            v_xx[i, j] = end_hessian[i, j]
    for t in range(horizon - 1, -1, -1):
        for i in range(n):
            _join_row(f, i, a, (t * n + i) * n, n, b, (t * n + i) * m, m, vectors)
        if len(gaps):  # V_x + V_xx gap
            for i in range(n):
                for j in range(n):
                    v_x[0, i] += v_xx[i, j] * gaps[t, j]
        for i in range(n):
            _add_rows(vf, i, 0.0, vf, i, v_xx, i * width, 1, f, 0, n, vectors)
        _join_row(q_xu, 0, gradient, t * (n + m), n + m, gradient, 0, 0, vectors)
        _add_rows(q_xu, 0, 1.0, q_xu, 0, v_x, 0, 1, f, 0, n, vectors)  # Q_xu = l_xu + F' V_x
        for i in range(n + m):  # Q = l'' + F' V_xx F: on and below the diagonal of Q_xx, and all of Q_ux and Q_uu
            reach = vectors if i >= n else i // LANES + 1
            _join_row(q, i, hessian, (t * (n + m) + i) * (n + m), n + m, hessian, 0, 0, reach)
            _add_rows(q, i, 1.0, q, i, f, i, width, vf, 0, n, reach)
        # Zero times what is finite; what is not in Q_xx shows in the next knot's Q_ux.
        _add_rows(nothing, 0, 0.0, q_xu, 0, zeros, 0, 1, q, n, m, vectors)
        anything = 0.0
        for j in range(n + m):
            anything += nothing[0, j]
        if anything != 0.0:
            return NON_FINITE, feedforward, gains, slope, curvature

        regular, of_commands = q, n  # Q_ux and Q_uu, regularised, are rows from of_commands on
        if state_weight > 0.0:
            regular, of_commands = nearer, 0
            for i in range(m):
                for k in range(n):
                    weighted[k] = state_weight * b[t, k, i]
                _add_rows(nearer, i, 1.0, q, n + i, weighted, 0, 1, f, 0, n, vectors)
        for i in range(m):
            for j in range(m):
                regular_uu[i, j] = regular[of_commands + i, n + j]
            regular_uu[i, i] += control_weight
            q_u[i], low[i], high[i] = q_xu[0, n + i], lowest[t, i], highest[t, i]
        # k_t: warm from the next knot's
        if not solve_box_qp(regular_uu, q_u, low, high, k_t, free, factor, scratch_1, scratch_2, scratch_3):
            return INDEFINITE, feedforward, gains, slope, curvature
        for i in range(m):  # L D L' gain = -Q_ux, zero for clamped commands
            _add_rows(gain, i, -1.0, regular, of_commands + i, factor, i * m, 1, gain, 0, i, state_vectors)
        for i in range(m - 1, -1, -1):
            _add_rows(gain, i, factor[i, i], gain, i, factor, (i + 1) * m + i, m, gain, i + 1, m - i - 1, state_vectors)
            for j in range(n):
                gains[t, i, j] = gain[i, j]

        # V_x = Q_x + K'(Q_uu k + Q_u) + Q_ux'k, V_xx = Q_xx + K'(Q_uu K + Q_ux) + Q_ux'K: of the model as it is, not regularised
        for i in range(m):
            along_k[i] = 0.0
            for j in range(m):
                along_k[i] += q[n + i, n + j] * k_t[j]
            feedforward[t, i] = k_t[i]
            slope += k_t[i] * q_u[i]
            curvature += k_t[i] * along_k[i]
            along_k[i] += q_u[i]
            _add_rows(on_gain, i, 1.0, q, n + i, q, (n + i) * width + n, 1, gain, 0, m, state_vectors)
        _add_rows(v_x, 0, 1.0, q_xu, 0, k_t, 0, 1, q, n, m, state_vectors)
        _add_rows(v_x, 0, 1.0, v_x, 0, along_k, 0, 1, gain, 0, m, state_vectors)
        for i in range(n):
            reach = i // LANES + 1
            _add_rows(v_xx, i, 1.0, q, i, q, n * width + i, width, gain, 0, m, reach)
            _add_rows(v_xx, i, 1.0, v_xx, i, gain, i, width, on_gain, 0, m, reach)
            for j in range(i):
                v_xx[j, i] = v_xx[i, j]
    return FINE, feedforward, gains, slope, curvature
