"""IPOPT through casadi (https://web.casadi.org): how it is loaded, set and asked how it went."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from robots.errors import MissingExtraError

EXTRA = "collocation"


class SolverStatus(StrEnum):
    """How IPOPT ended."""

    SOLVED = "solved"
    INFEASIBLE = "infeasible"
    """It came to rest where the constraints are violated as little as possible nearby: there may be no solution."""
    ITERATION_LIMIT = "iteration limit"
    TIME_LIMIT = "time limit"
    NOT_FINITE = "not finite"
    """The model or the cost, or a derivative, is NaN or infinite where IPOPT could not avoid it."""
    FAILED = "failed"
    """None of these; the message says what."""


STATUSES = {
    "Solve_Succeeded": SolverStatus.SOLVED,
    "Solved_To_Acceptable_Level": SolverStatus.SOLVED,
    "Infeasible_Problem_Detected": SolverStatus.INFEASIBLE,
    "Maximum_Iterations_Exceeded": SolverStatus.ITERATION_LIMIT,
    "Maximum_CpuTime_Exceeded": SolverStatus.TIME_LIMIT,
    "Maximum_WallTime_Exceeded": SolverStatus.TIME_LIMIT,
    "User_Requested_Stop": SolverStatus.TIME_LIMIT,
    "Invalid_Number_Detected": SolverStatus.NOT_FINITE,
}
"""By IPOPT's own names; we only ask it to stop when time is up."""


def load_casadi() -> Any:
    """Return the module; MissingExtraError where it is not installed."""
    try:
        import casadi
    except ImportError as error:
        raise MissingExtraError("collocation (casadi)", EXTRA) from error
    return casadi


def solver_options(iterations: int, tolerance: float) -> dict[str, object]:
    """Return options for `casadi.nlpsol(..., 'ipopt', ...)`: quiet, one solve repeats another."""
    return {"ipopt.print_level": 0, "ipopt.sb": "yes", "print_time": False, "show_eval_warnings": False, "ipopt.max_iter": iterations,
            "ipopt.tol": tolerance, "ipopt.linear_solver": "mumps", "ipopt.bound_relax_factor": 0.0}


def how_it_ended(solver: Any) -> tuple[SolverStatus, str, int]:
    """Return the status of the last solve, IPOPT's words for it and the iterations it took."""
    statistics = solver.stats()
    words = statistics["return_status"]
    return STATUSES.get(words, SolverStatus.FAILED), words.replace("_", " "), int(statistics["iter_count"])


@contextmanager
def numpy_functions_of_casadi() -> Iterator[None]:
    """Let NumPy's functions (np.sin) be called with casadi's symbols: casadi warns that they will behave otherwise one day."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
