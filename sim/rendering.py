"""Pictures of MuJoCo scenes without a screen."""

from __future__ import annotations

import os
import sys
from enum import StrEnum

import mujoco
import numpy as np

from robots.errors import ConfigurationError, UserError

_GEOMETRIES_MAX = 10_000


class RenderingUnavailableError(UserError):
    """This machine has no working OpenGL for pictures without a screen."""


class Quality(StrEnum):
    """How much work goes into a picture."""

    TRAINING = "training"
    """Quick: no shadows, reflections or anti-aliasing; for pictures that a network looks at."""
    PRETTY = "pretty"
    """Shadows, reflections and 4x anti-aliasing; for videos that people look at."""


class SceneRenderer:
    """Draws one MuJoCo model; holds one OpenGL context until `close`. Use it from the thread that made it.

    Raises RenderingUnavailableError where OpenGL cannot be started. The environment variable MUJOCO_GL chooses how:
    'egl', 'osmesa', 'glfw' or 'cgl'; unset, EGL on Linux. It is read here, when the first picture is wanted, and not at
    the import of mujoco, so setting it after that import works too.
    """

    def __init__(self, model: mujoco.MjModel, quality: Quality) -> None:
        self.quality = Quality(quality)
        self._model = model
        self._scene = mujoco.MjvScene(model, maxgeom=_GEOMETRIES_MAX)
        self._options = mujoco.MjvOption()
        self._graphics = _start_graphics()
        self._context: mujoco.MjrContext | None = _context_of_quality(model, self.quality)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        pretty = self.quality is Quality.PRETTY
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = pretty
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = pretty

    def picture(self, data: mujoco.MjData, camera: int, width: int, height: int) -> np.ndarray:
        """Return the view (height, width, 3) uint8 RGB of `data` through camera number `camera` (-1: the free camera).

        Poses in `data` must be up to date (`mj_forward`, or kinematics, centres of mass and camera poses).
        """
        if self._context is None:
            raise UserError("this renderer is closed; make a new one")
        if width < 1 or height < 1:
            raise ConfigurationError(f"picture: expected a positive size [pixel], got {width} x {height}")
        self._graphics.make_current()
        if width > self._context.offWidth or height > self._context.offHeight:
            mujoco.mjr_resizeOffscreen(max(width, self._context.offWidth), max(height, self._context.offHeight), self._context)
        view = mujoco.MjvCamera()
        if camera < 0:
            mujoco.mjv_defaultFreeCamera(self._model, view)
        else:
            view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera
        mujoco.mjv_updateScene(self._model, data, self._options, None, view, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene)
        image = np.empty((height, width, 3), dtype=np.uint8)
        rectangle = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(image, None, rectangle, self._context)
        return np.ascontiguousarray(image[::-1])  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Free the OpenGL context. Calling it twice does no harm."""
        if self._context is None:
            return
        context, self._context = self._context, None
        self._graphics.make_current()
        context.free()
        self._graphics.free()


def _start_graphics():
    """Return a current OpenGL context of the backend that MUJOCO_GL names, or raise RenderingUnavailableError.

    It is one of MuJoCo's GLContext classes, which share no base, so the type is not named.
    """
    default = {"linux": "egl", "darwin": "cgl"}.get(sys.platform, "glfw")
    backend = os.environ.get("MUJOCO_GL", "").strip().lower() or default
    try:
        graphics = _context_class(backend)(640, 480)
        graphics.make_current()
        _check_current(backend)
    except (ImportError, OSError, AttributeError, RuntimeError) as error:  # what the backends raise where libraries are missing
        raise RenderingUnavailableError(
            f"cannot draw pictures: OpenGL backend {backend!r} did not start ({type(error).__name__}: {error}). On Debian and Ubuntu "
            "install libegl1 and libgl1-mesa-dri, or choose another backend with the environment variable MUJOCO_GL "
            "(egl, osmesa, glfw)") from error
    return graphics


def _check_current(backend: str) -> None:
    """Raise RuntimeError where GLFW opened no window, which it does not say by itself: without a display, mostly."""
    if backend == "glfw":
        import glfw

        if not glfw.get_current_context():
            raise RuntimeError("it opened no window; is there a display?")


def _context_class(backend: str) -> type:
    """Return MuJoCo's GLContext class of a backend; the module is imported only now, since importing it loads OpenGL."""
    if backend == "egl":
        from mujoco.egl import GLContext
    elif backend == "osmesa":
        from mujoco.osmesa import GLContext
    elif backend == "glfw":
        from mujoco.glfw import GLContext
    elif backend == "cgl":
        from mujoco.cgl import GLContext
    else:
        raise ConfigurationError(f"environment variable MUJOCO_GL: expected egl, osmesa, glfw or cgl, got {backend!r}; "
                                 "unset it or set it to one of these before asking for pictures")
    return GLContext


def _context_of_quality(model: mujoco.MjModel, quality: Quality) -> mujoco.MjrContext:
    """Return a rendering context; samples and shadows are read from the model when it is made, so they are set for that moment."""
    settings = model.vis.quality
    before = settings.offsamples, settings.shadowsize
    settings.offsamples, settings.shadowsize = (4, 4096) if quality is Quality.PRETTY else (0, 0)
    try:
        return mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    except mujoco.FatalError as error:
        raise RenderingUnavailableError(f"cannot draw pictures: MuJoCo could not use the OpenGL that started ({error}); choose another "
                                        "with the environment variable MUJOCO_GL (egl, osmesa, glfw)") from error
    finally:
        settings.offsamples, settings.shadowsize = before
