"""Makes dm_control run with a newer MuJoCo than it was generated for, and without a display."""

from __future__ import annotations

import logging
import os
import sys

logger = logging.getLogger(__name__)


def prepare_dm_control() -> None:
    """Import dm_control so that its physics can be built; must precede any other use of it. Calling it again does no harm.

    Two things are put right:

    - dm_control 1.0.50 lists arrays of MjModel and MjData (`flexvert_J` and others) which MuJoCo 4 dropped, and fails on
      the first missing one. The names that the classes lack are taken off its list; nothing of dm_control reads them.
    - dm_control chooses its OpenGL at import, from the environment variable MUJOCO_GL, and takes GLFW where that is unset.
      Without a display GLFW aborts the process at the first picture. There dm_control is given EGL instead, or, where that
      does not start either, no OpenGL: pictures then raise an error. MUJOCO_GL is left as it was.
    """
    if "dm_control" not in sys.modules:
        _import_rendering()
    import mujoco
    from dm_control.mujoco.wrapper.mjbindings import sizes

    for structure, type_ in (("mjmodel", mujoco.MjModel), ("mjdata", mujoco.MjData)):
        arrays = sizes.array_sizes[structure]
        for name in [name for name in arrays if not hasattr(type_, name)]:
            del arrays[name]


def _import_rendering() -> None:
    """Import the part of dm_control that chooses the OpenGL, while MUJOCO_GL says what can work here."""
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or not sys.platform.startswith("linux")
    if display or wanted not in ("", "glfw"):
        return
    before = os.environ.get("MUJOCO_GL")
    try:
        for backend in ("egl", "disable") if not wanted else ("disable",):
            os.environ["MUJOCO_GL"] = backend
            try:
                import dm_control._render  # noqa: F401
            except (ImportError, AttributeError, OSError) as error:  # what PyOpenGL raises where libraries are missing
                logger.info("dm_control's OpenGL backend %r does not start: %s", backend, error)
            else:
                return
    finally:
        del os.environ["MUJOCO_GL"]
        if before is not None:
            os.environ["MUJOCO_GL"] = before
