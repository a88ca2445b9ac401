"""A trajectory problem as a nonlinear program of casadi: multiple shooting, with derivatives from the model and the cost themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dynamics.linearize import linearize
from planners.cost_expansion import CostExpansion
from planners.rotation_coordinates import Blocks, RotationCoordinates
from planners.trajectory_problem import Trajectory, TrajectoryProblem


class ShootingProgram:
    """Unknowns z = [u_0, x_1, u_1, x_2, ..., u_{H-1}, x_H], rotations as `RotationCoordinates` have them; constraints
    difference(x_{t+1}, step(x_t, u_t)) = 0, angles modulo a turn.

    The Hessian is the cost's alone: curvature of the dynamics and of the coordinates is left out, as in iLQR, and IPOPT corrects what is
    indefinite.
    """

    def __init__(self, problem: TrajectoryProblem, horizon: int) -> None:
        self.problem, self.horizon = problem, horizon
        self.ndx, self.nu = problem.space.ndx, problem.nu
        self.coordinates = RotationCoordinates(problem.space)
        self.size = horizon * (self.ndx + self.nu)
        self.x0 = np.zeros(problem.space.nx)
        """(nx,) the start."""
        self._at: bytes | None = None
        self._trajectory: Trajectory | None = None
        self._expansion: CostExpansion | None = None
        blocks = np.arange(self.size).reshape(horizon, self.nu + self.ndx)
        self._of_u, self._of_x = blocks[:, : self.nu], blocks[:, self.nu:]  # (H, nu), (H, ndx) places in z; of x_{t+1}
        rows = np.arange(horizon * self.ndx).reshape(horizon, self.ndx, 1)
        self._own = self._places_of_own_slopes()  # of a gap by the state that it leads from
        self.jacobian_pattern = Pattern((horizon * self.ndx, self.size), [
            (rows[1:], self._of_x[:-1, None, :]), (rows, self._of_u[:, None, :]), (rows[:, self._own[0], 0], self._of_x[:, self._own[1]])])
        middle = np.concatenate([self._of_x[:-1], self._of_u[1:]], axis=1)  # (H - 1, ndx + nu) places of [x_t, u_t]
        self._upper = np.triu_indices(self.ndx + self.nu)
        self._upper_u, self._upper_x = np.triu_indices(self.nu), np.triu_indices(self.ndx)
        self.hessian_pattern = Pattern((self.size, self.size), [
            (self._of_u[0][self._upper_u[0]], self._of_u[0][self._upper_u[1]]),
            (middle[:, self._upper[0]], middle[:, self._upper[1]]),
            (self._of_x[-1][self._upper_x[0]], self._of_x[-1][self._upper_x[1]])])

    def begin(self, x0: np.ndarray, states: np.ndarray) -> None:
        """Start from x0 (nx,), with rotations counted from those of states (H, nx), which are to lie near the solution's."""
        self.x0, self._at = x0, None
        self.coordinates.refer_to(states)

    def joined(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return z (size,) of coordinates (H, ndx) of the states after the start and actions (H, nu)."""
        return np.concatenate([actions, states], axis=1).ravel()

    def split(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the states (H + 1, nx), from the start on, and the actions (H, nu) in z."""
        return np.vstack([self.x0, self.coordinates.states(z[self._of_x])]), z[self._of_u]

    def solver(self, casadi: Any, options: dict[str, object], stop: Callable[[], bool]) -> _Solver:
        """Return IPOPT for this program; it is stopped before the iteration in which `stop` is true."""
        return _Solver(casadi, self, options, stop)

    def cost_and_gaps(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the cost, and the constraints (H * ndx,)."""
        trajectory = self._follow(z)
        return trajectory.cost if np.isfinite(trajectory.cost) else np.nan, self._gaps(trajectory).ravel()

    def gradient(self, z: np.ndarray) -> np.ndarray:
        """Return the cost's gradient (size,)."""
        cost = self._expand(z)
        result = np.empty(self.size)
        by_state = np.vstack([cost.lx[1:], cost.end_gradient])[:, None]
        result[self._of_u], result[self._of_x] = cost.lu, self.coordinates.times(by_state, self.coordinates.slopes(z[self._of_x]))[:, 0]
        return result

    def jacobian(self, z: np.ndarray) -> np.ndarray:
        """Return the constraints' derivatives where there are any, column by column."""
        trajectory, coordinates = self._follow(z), self.coordinates
        a, b = linearize(self.problem.model, trajectory.states[:-1], trajectory.actions)
        slopes, (by_end, by_start) = coordinates.slopes(z[self._of_x]), coordinates.difference_slopes(self._gaps(trajectory))
        one = np.tile(np.eye(self.ndx), (self.horizon, 1, 1))
        own = -coordinates.times(coordinates.times(one, by_start), slopes)[:, self._own[0], self._own[1]]
        a = coordinates.times(coordinates.into(by_end, a)[1:], [block[:-1] for block in slopes])
        return self.jacobian_pattern.values([a, coordinates.into(by_end, b), own])

    def hessian(self, z: np.ndarray, weight: float) -> np.ndarray:
        """Return the upper triangle of the cost's Hessian where it has entries, times `weight`, column by column."""
        cost, coordinates, slopes = self._expand(z), self.coordinates, self.coordinates.slopes(z[self._of_x])

        def on_both_sides(hessian: np.ndarray, slopes: Blocks) -> np.ndarray:
            return coordinates.into([block.transpose(0, 2, 1) for block in slopes], coordinates.times(hessian, slopes))

        middle = on_both_sides(cost.hessian[1:], [block[:-1] for block in slopes])
        end = on_both_sides(cost.end_hessian[None], [block[-1:] for block in slopes])[0]
        return weight * self.hessian_pattern.values([cost.luu[0][self._upper_u], middle[:, self._upper[0], self._upper[1]],
                                                     end[self._upper_x]])

    def _gaps(self, trajectory: Trajectory) -> np.ndarray:
        """Return the constraints (H, ndx)."""
        return trajectory.gaps if trajectory.gaps is not None else np.zeros((self.horizon, self.ndx))

    def _places_of_own_slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns of a plain number by itself, and of a rotation by itself."""
        one, anything = np.eye(self.ndx)[None], np.ones((1, 3, 3))
        return np.nonzero(self.coordinates.times(one, [anything for _ in self.problem.space.quaternions])[0])

    def _follow(self, z: np.ndarray) -> Trajectory:
        if self._trajectory is None or self._at != z.tobytes():
            self._at, self._expansion = z.tobytes(), None
            self._trajectory = self.problem.with_gaps(*self.split(z))
        return self._trajectory

    def _expand(self, z: np.ndarray) -> CostExpansion:
        trajectory = self._follow(z)
        if self._expansion is None:
            self._expansion = self.problem.expanded_cost(trajectory)
        return self._expansion


class Pattern:
    """Where a sparse matrix has entries, given in blocks of (rows, columns) that broadcast."""

    def __init__(self, shape: tuple[int, int], blocks: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self.shape = shape
        pairs = [np.broadcast_arrays(rows, columns) for rows, columns in blocks]
        rows, columns = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
        self._order = np.lexsort((rows, columns))
        self.places = rows[self._order], columns[self._order]
        """Rows and columns of the entries, column by column as casadi counts them."""

    def values(self, blocks: Sequence[np.ndarray]) -> np.ndarray:
        """Return the blocks' entries in casadi's order."""
        return np.concatenate([block.ravel() for block in blocks])[self._order]

    def sparsity(self, casadi: Any) -> Any:
        """Return the pattern as casadi's."""
        return casadi.Sparsity.triplet(*self.shape, *(place.tolist() for place in self.places))


class _Solver:
    """casadi's interface to IPOPT, fed by callbacks into Python."""

    def __init__(self, casadi: Any, program: ShootingProgram, options: dict[str, object], stop: Callable[[], bool]) -> None:
        dense, none = casadi.Sparsity.dense, casadi.Sparsity(0, 0)
        jacobian, hessian = program.jacobian_pattern.sparsity(casadi), program.hessian_pattern.sparsity(casadi)
        constraints = jacobian.size1()
        scalar, z, g = dense(1, 1), dense(program.size, 1), dense(constraints, 1)
        self._error: BaseException | None = None

        def vector(value: Any) -> np.ndarray:
            return np.array(value).ravel()

        def callback(name: str, inputs: dict[str, Any], outputs: dict[str, Any], compute: Callable[..., list]) -> Any:
            return _callback(casadi, name, inputs, outputs, self._guarded(compute))

        cost = callback("cost", {"z": z}, {"f": scalar}, lambda z: [program.cost_and_gaps(vector(z))[0]])
        gaps = callback("gaps", {"z": z}, {"g": g}, lambda z: [program.cost_and_gaps(vector(z))[1]])
        gradient = callback("nlp_grad_f", {"x": z, "p": none}, {"f": scalar, "grad:f:x": z}, lambda z, p: [
            program.cost_and_gaps(vector(z))[0], program.gradient(vector(z))])
        slopes = callback("nlp_jac_g", {"x": z, "p": none}, {"g": g, "jac:g:x": jacobian}, lambda z, p: [
            program.cost_and_gaps(vector(z))[1], casadi.DM(jacobian, program.jacobian(vector(z)))])
        curvature = callback("nlp_hess_l", {"x": z, "p": none, "lam:f": scalar, "lam:g": g}, {"triu:hess:gamma:x:x": hessian},
                             lambda z, p, weight, multipliers: [casadi.DM(hessian, program.hessian(vector(z), float(weight)))])
        known = {"f": scalar, "x": z, "lam_x": z, "g": g, "lam_g": g}
        progress = callback("progress", {name: known.get(name, none) for name in casadi.nlpsol_out()}, {"stop": scalar},
                            lambda *_: [float(stop())])
        self._alive = (cost, gaps, gradient, slopes, curvature, progress)  # casadi does not keep them
        unknown = casadi.MX.sym("z", program.size)
        self.ipopt = casadi.nlpsol("shooting", "ipopt", {"x": unknown, "f": cost(unknown), "g": gaps(unknown)}, options | {
            "grad_f": gradient, "jac_g": slopes, "hess_lag": curvature, "iteration_callback": progress, "no_nlp_grad": True,
            "calc_lam_p": False})

    def solve(self, z: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Return where IPOPT ended (size,), from z (size,), within bounds (size,); what the model or the cost raised is raised again."""
        self._error = None
        found = self.ipopt(x0=z, lbx=lower, ubx=upper, lbg=0.0, ubg=0.0)
        if self._error is not None:
            raise self._error
        return np.clip(np.array(found["x"]).ravel(), lower, upper)

    def _guarded(self, compute: Callable[..., list]) -> Callable[..., list]:
        """Return `compute`, its error remembered: IPOPT would take it for a point that cannot be evaluated."""
        def guarded(*arguments: Any) -> list:
            try:
                return compute(*arguments)
            except BaseException as error:
                self._error = self._error or error
                raise
        return guarded


def _callback(casadi: Any, name: str, inputs: dict[str, Any], outputs: dict[str, Any], compute: Callable[..., list]) -> Any:
    """Return a function of casadi's that calls `compute`; names and sparsities of what goes in and out are in order."""
    ins, outs = list(inputs.items()), list(outputs.items())

    class Called(casadi.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.construct(name, {})

        def get_n_in(self) -> int:
            return len(ins)

        def get_n_out(self) -> int:
            return len(outs)

        def get_name_in(self, i: int) -> str:
            return ins[i][0]

        def get_name_out(self, i: int) -> str:
            return outs[i][0]

        def get_sparsity_in(self, i: int) -> Any:
            return ins[i][1]

        def get_sparsity_out(self, i: int) -> Any:
            return outs[i][1]

        def eval(self, arguments: Sequence[Any]) -> list:
            return compute(*arguments)

    return Called()
