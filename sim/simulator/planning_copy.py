"""A copy of a machine's model to plan through: cheaper or smoother than the machine, and open about it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import mujoco

from robots.errors import ConfigurationError, UnknownNameError

INTEGRATORS = {"euler": mujoco.mjtIntegrator.mjINT_EULER, "rk4": mujoco.mjtIntegrator.mjINT_RK4,
               "implicit": mujoco.mjtIntegrator.mjINT_IMPLICIT, "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST}


@dataclass(frozen=True)
class PlanningCopy:
    """How the copy differs from the machine; None: not at all."""

    substeps: int | None = None
    """Physics steps in a control period: fewer are coarser and faster."""
    integrator: str | None = None
    """euler, rk4, implicit or implicitfast."""
    softened: bool = False
    """Contacts begin from nothing (solimp[0] = 0): derivatives exist where a contact begins."""
    cold_starts: bool = False
    """Forces of contacts and limits are not looked for from the last step's on: they are the same to the solver's tolerance, where it
    gets there. Found faster where the samples shake the robot or contacts are few (a step of a walker or a humanoid takes a tenth less),
    slower where it moves smoothly on many contacts (a tenth more)."""

    def __post_init__(self) -> None:
        if self.substeps is not None and self.substeps < 1:
            raise ConfigurationError(f"PlanningCopy.substeps: expected at least 1, got {self.substeps}")
        if self.integrator is not None and self.integrator not in INTEGRATORS:
            raise UnknownNameError("integrator", self.integrator, INTEGRATORS)

    def of(self, model: mujoco.MjModel, control_dt: float) -> tuple[mujoco.MjModel, int, tuple[str, ...]]:
        """Return the copy of `model`, its physics steps in a control period of `control_dt` [s], and its differences in words.

        ConfigurationError where the period is no whole number of the model's own steps.
        """
        copied, differences = copy.copy(model), []
        own = round(control_dt / model.opt.timestep)
        if own < 1 or not math.isclose(own * model.opt.timestep, control_dt, rel_tol=1e-6):
            raise ConfigurationError(f"a control period of {control_dt:g} s is no whole number of physics steps of "
                                     f"{model.opt.timestep:g} s")
        substeps = own if self.substeps is None else self.substeps
        if substeps != own:
            copied.opt.timestep = control_dt / substeps
            differences.append(f"physics steps of {copied.opt.timestep * 1e3:g} ms instead of {model.opt.timestep * 1e3:g} ms")
        if self.integrator is not None and INTEGRATORS[self.integrator] != model.opt.integrator:
            copied.opt.integrator = INTEGRATORS[self.integrator]
            before = next(name for name, number in INTEGRATORS.items() if number == model.opt.integrator)
            differences.append(f"integrator {self.integrator} instead of {before}")
        if self.softened:
            copied.geom_solimp[:, 0] = 0.0
            copied.pair_solimp[:, 0] = 0.0
            differences.append("contacts that begin from nothing (solimp[0] = 0)")
        if self.cold_starts:
            copied.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_WARMSTART)
            differences.append("forces of constraints without warm starts")
        return copied, substeps, tuple(differences)
