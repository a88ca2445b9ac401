"""Pictures of MuJoCo scenes without a screen."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
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
    """Quick: no shadows, reflections, haze or anti-aliasing, and coarse shapes; for pictures that a network looks at."""
    FILM = "film"
    """Shadows, but no anti-aliasing, reflections or haze: for long videos, at a quarter of a pretty picture's time."""
    PRETTY = "pretty"
    """Shadows, reflections and 4x anti-aliasing; for videos that people look at."""


@dataclass(frozen=True)
class _Effort:
    """What a quality means to MuJoCo."""

    samples: int
    """Samples a pixel against jagged edges; 0 for none."""
    shadow_pixels: int
    """Side of the shadow map; 0 draws none."""
    reflections: bool
    haze: bool
    roundness: tuple[int, int, int] | None
    """Slices and stacks of a round shape, and quads along a box's edge; None leaves the model's own."""
    floor_cells: int
    """Most cells along the side of a plane that only directional lights shine on: they light all of it alike. The half-cheetah's
    800 m floor asks for 1600, which take ten times as long as the robot."""


_EFFORTS = {
    Quality.TRAINING: _Effort(samples=0, shadow_pixels=0, reflections=False, haze=False, roundness=(8, 6, 2), floor_cells=20),
    Quality.FILM: _Effort(samples=0, shadow_pixels=1024, reflections=False, haze=False, roundness=(16, 12, 2), floor_cells=20),
    Quality.PRETTY: _Effort(samples=4, shadow_pixels=2048, reflections=True, haze=True, roundness=None, floor_cells=100),
}


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
        self._graphics = _start_graphics(self.quality)
        effort = _EFFORTS[self.quality]
        self._context: mujoco.MjrContext | None = _context(_drawn_model(model, effort))
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = effort.shadow_pixels > 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = effort.reflections
        self._scene.flags[mujoco.mjtRndFlag.mjRND_HAZE] = effort.haze

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


def _start_graphics(quality: Quality):
    """Return a current OpenGL context of the backend that MUJOCO_GL names, or raise RenderingUnavailableError.

    It is one of MuJoCo's GLContext classes, which share no base, so the type is not named.
    """
    default = {"linux": "egl", "darwin": "cgl"}.get(sys.platform, "glfw")
    backend = os.environ.get("MUJOCO_GL", "").strip().lower() or default
    try:
        with _threads_of_software_drawing(quality):
            graphics = _context_class(backend)(640, 480)
            graphics.make_current()
            _check_current(backend)
    except (ImportError, OSError, AttributeError, RuntimeError) as error:  # what the backends raise where libraries are missing
        raise RenderingUnavailableError(
            f"cannot draw pictures: OpenGL backend {backend!r} did not start ({type(error).__name__}: {error}). On Debian and Ubuntu "
            "install libegl1 and libgl1-mesa-dri, or choose another backend with the environment variable MUJOCO_GL "
            "(egl, osmesa, glfw)") from error
    return graphics


def _threads_of_software_drawing(quality: Quality) -> AbstractContextManager[None]:
    """Let Mesa's software OpenGL, if it starts in here, draw training pictures in the calling thread, unless LP_NUM_THREADS is set.

    Handing a small picture to other threads takes longer than drawing it, and they would take the cores from planners; large ones
    gain from a thread a core. The first start in a process decides for all of it, and pictures are the same to the bit either way.
    """
    return environment_default("LP_NUM_THREADS", "0") if quality is Quality.TRAINING else nullcontext()


@contextmanager
def environment_default(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for what starts in here, unless the user set it."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


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


def _drawn_model(model: mujoco.MjModel, effort: _Effort) -> mujoco.MjModel:
    """Return a copy of `model` whose shapes, shadows and samples are those of `effort`, and whose buffer is still to grow.

    Only making a context reads them. The physics' own model is never written, not even for a moment: another thread may step it.
    """
    drawn = copy.copy(model)
    drawn.vis.global_.offwidth = drawn.vis.global_.offheight = 1  # `picture` makes it as large as needed; clearing it takes time
    drawn.vis.quality.offsamples, drawn.vis.quality.shadowsize = effort.samples, effort.shadow_pixels
    if effort.roundness is not None:
        drawn.vis.quality.numslices, drawn.vis.quality.numstacks, drawn.vis.quality.numquads = effort.roundness
    if (drawn.light_type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL).all():  # a lamp's spot on the floor is as fine as the cells
        planes = drawn.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
        half_sides, spacing = drawn.geom_size[planes, :2].max(axis=1), drawn.geom_size[planes, 2]
        drawn.geom_size[planes, 2] = np.maximum(spacing, 2 * half_sides / effort.floor_cells)
    return drawn


def _context(model: mujoco.MjModel) -> mujoco.MjrContext:
    """Return what MuJoCo keeps in the current OpenGL context to draw `model`."""
    try:
        return mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    except mujoco.FatalError as error:
        raise RenderingUnavailableError(f"cannot draw pictures: MuJoCo could not use the OpenGL that started ({error}); choose another "
                                        "with the environment variable MUJOCO_GL (egl, osmesa, glfw)") from error
