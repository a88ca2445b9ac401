"""Pictures show the scene, the same twice, and touch neither the physics nor the model."""

import os
import subprocess
import sys
from contextlib import contextmanager

import gymnasium
import mujoco
import numpy as np
import pytest

from robots.errors import ConfigurationError, UnknownNameError
from sim.gymnasium_export import make_task_env, register_with_gymnasium
from sim.rendering import Quality, RenderingUnavailableError, SceneRenderer
from sim.task import CameraRequest
from sim.tasks import OWN_TASKS


@pytest.fixture(scope="module", autouse=True)
def graphics():
    try:
        with OWN_TASKS["pendulum"]().robot() as robot:
            SceneRenderer(robot.model, Quality.TRAINING).close()
    except RenderingUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", OWN_TASKS)
def test_every_camera_shows_something_else(name):
    with OWN_TASKS[name]().robot() as robot:
        robot.reset(0)
        pictures = [robot.render(96, 64, camera) for camera in robot.camera_names]
        assert "front" in robot.camera_names
        for picture in pictures:
            assert picture.shape == (64, 96, 3)
            assert picture.dtype == np.uint8
            assert picture.std() > 10  # not one colour
        assert len({picture.tobytes() for picture in pictures}) == len(pictures)
        assert np.array_equal(robot.render(96, 64), pictures[0])


def test_the_sky_is_above_the_floor():
    with OWN_TASKS["cartpole"]().robot() as robot:
        robot.reset(0)
        picture = robot.render(80, 60, "front").astype(int)
        assert (picture[:5, :, 2] - picture[:5, :, 0]).mean() > (picture[-5:, :, 2] - picture[-5:, :, 0]).mean() + 5


def test_requested_cameras_are_in_every_observation_and_follow_the_motion():
    with OWN_TASKS["half-cheetah"]().robot(CameraRequest(("tracking", "front"), 48, 32)) as robot:
        first = robot.reset(0)
        assert [(camera.name, camera.width, camera.height) for camera in robot.spec.cameras] == [("tracking", 48, 32), ("front", 48, 32)]
        for _ in range(5):
            last = robot.tick()
        assert set(first.frames) == {"tracking", "front"}
        assert last.frames["front"].image.shape == (32, 48, 3)
        assert (first.frames["front"].sequence, last.frames["front"].sequence) == (0, 5)
        assert last.frames["front"].captured_ns == last.stamp_ns
        assert not np.array_equal(first.frames["front"].image, last.frames["front"].image)


def test_pictures_change_nothing_and_repeat():
    with OWN_TASKS["cartpole"]().robot(CameraRequest(("front",))) as seeing, OWN_TASKS["cartpole"]().robot() as blind:
        before = seeing.model.vis.quality.offsamples, seeing.model.vis.quality.shadowsize
        seeing.reset(2)
        blind.reset(2)
        for _ in range(5):
            seen = seeing.tick()
            assert np.array_equal(seeing.render(32, 32), seeing.render(32, 32))
            assert np.array_equal(seen.q, blind.tick().q)
        assert (seeing.model.vis.quality.offsamples, seeing.model.vis.quality.shadowsize) == before


def test_pretty_pictures_have_shadows_and_may_be_larger_than_the_buffer():
    with OWN_TASKS["pusher7"]().robot() as robot:
        robot.reset(0)
        assert robot.render(800, 600).shape == (600, 800, 3)
        data = mujoco.MjData(robot.model)
        mujoco.mj_forward(robot.model, data)
        pictures = {}
        for quality in Quality:
            renderer = SceneRenderer(robot.model, quality)
            pictures[quality] = renderer.picture(data, 0, 200, 150).astype(int)
            renderer.close()
            renderer.close()
        assert (pictures[Quality.TRAINING] - pictures[Quality.PRETTY]).max(-1).clip(0).mean() > 1  # shadows darken


@contextmanager
def renderers(model: mujoco.MjModel):
    """Give a training and a pretty renderer of one model."""
    training, pretty = SceneRenderer(model, Quality.TRAINING), SceneRenderer(model, Quality.PRETTY)
    yield training, pretty
    training.close()
    pretty.close()


def coloured(picture: np.ndarray) -> np.ndarray:
    """Return the pixels of a half-cheetah's torso, head and thighs, which alone are orange and blue; shadow and mirror are grey."""
    return np.abs(picture[:, :, 0].astype(int) - picture[:, :, 2]) > 70


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()


def test_training_pictures_show_the_robot_where_pretty_ones_do():
    with OWN_TASKS["half-cheetah"]().robot() as robot:
        model = robot.model
    data = mujoco.MjData(model)
    pictures = {}
    with renderers(model) as both:
        for thigh in (-1.0, 0.7):
            data.joint("front_thigh").qpos[:] = data.joint("back_thigh").qpos[:] = thigh
            mujoco.mj_forward(model, data)
            pictures[thigh] = [renderer.picture(data, 0, 64, 64) for renderer in both]
    for training, pretty in pictures.values():
        grey = [picture.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3, 4)).ravel() for picture in (training, pretty)]
        assert np.corrcoef(grey)[0, 1] > 0.94
        assert coloured(training).sum() > 80
        assert overlap(coloured(training), coloured(pretty)) > 0.7
    limbs = [coloured(training) for training, _ in pictures.values()]
    assert overlap(*limbs) < 0.5


def test_a_renderer_changes_neither_the_model_nor_another_renderer():
    with OWN_TASKS["half-cheetah"]().robot() as robot:
        model = robot.model
    before = np.empty(mujoco.mj_sizeModel(model), dtype=np.uint8)
    after = np.empty_like(before)
    mujoco.mj_saveModel(model, buffer=before)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    alone = SceneRenderer(model, Quality.PRETTY)
    expected = alone.picture(data, 0, 96, 64)
    with renderers(model) as (training, pretty):
        quick = training.picture(data, 0, 96, 64)
        assert np.array_equal(alone.picture(data, 0, 96, 64), expected)
        assert np.array_equal(pretty.picture(data, 0, 96, 64), expected)
        assert np.array_equal(training.picture(data, 0, 96, 64), quick)
    alone.close()
    assert not np.array_equal(quick, expected)
    mujoco.mj_saveModel(model, buffer=after)
    assert np.array_equal(before, after)


def test_while_a_renderer_is_made_the_model_is_never_written(monkeypatch):
    with OWN_TASKS["half-cheetah"]().robot() as robot:
        model = robot.model
    settings, sizes, make = model.vis.quality.shadowsize, model.geom_size.copy(), mujoco.MjrContext

    def looking(drawn: mujoco.MjModel, font: int) -> mujoco.MjrContext:
        assert drawn is not model and drawn.vis.quality.shadowsize != settings
        assert model.vis.quality.shadowsize == settings and np.array_equal(model.geom_size, sizes)
        return make(drawn, font)

    monkeypatch.setattr(mujoco, "MjrContext", looking)
    with renderers(model):
        pass


def test_the_spot_of_a_lamp_is_on_a_large_floor_too():
    model = mujoco.MjModel.from_xml_string("""<mujoco><visual><headlight active="0"/></visual><worldbody>
        <light pos="2 2 3" dir="0 0 -1" cutoff="25"/><geom type="plane" size="40 40 0.5"/><camera pos="2 2 8"/></worldbody></mujoco>""")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = SceneRenderer(model, Quality.TRAINING)
    picture = renderer.picture(data, 0, 64, 64).astype(int)
    renderer.close()
    assert picture[30:34, 30:34].mean() - picture[:4].mean() > 30  # lit at the corners of cells only: with 4 m cells it would be dark


def test_threads_of_software_drawing_change_no_picture():
    program = ("import hashlib, os, sys, mujoco; from sim.rendering import Quality, SceneRenderer; from sim.tasks import OWN_TASKS; "
               "robot = OWN_TASKS['half-cheetah']().robot(); data = mujoco.MjData(robot.model); mujoco.mj_forward(robot.model, data); "
               "before = dict(os.environ); both = [SceneRenderer(robot.model, quality) for quality in Quality]; "
               "assert os.environ == before; print(*(hashlib.sha256(one.picture(data, 0, 96, 64)).hexdigest() for one in both))")
    environment = {name: value for name, value in os.environ.items() if name != "LP_NUM_THREADS"}
    alone, threaded = (subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                                      env=environment | threads)
                       for threads in ({}, {"LP_NUM_THREADS": "2"}))
    assert alone.stdout == threaded.stdout and len(set(alone.stdout.split())) == len(Quality)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a display is always there")
def test_glfw_without_a_display_is_refused_in_words(monkeypatch):
    pytest.importorskip("glfw")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with OWN_TASKS["pendulum"]().robot() as robot, pytest.warns(Warning), pytest.raises(RenderingUnavailableError, match="display"):
        SceneRenderer(robot.model, Quality.TRAINING)


def test_wrong_requests_are_refused():
    with OWN_TASKS["cartpole"]().robot() as robot:
        robot.reset(0)
        with pytest.raises(UnknownNameError, match="tracking"):
            robot.render(32, 32, "traking")
        with pytest.raises(ConfigurationError, match="positive size"):
            robot.render(0, 32)


def test_environments_render_arrays():
    register_with_gymnasium()
    env = gymnasium.make("reflexarc/pendulum-v0", render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (480, 640, 3)
    env.close()
    silent = make_task_env("pendulum")
    silent.reset(seed=0)
    assert silent.render() is None
    silent.close()


def test_a_backend_that_does_not_start_says_what_to_install(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "direct3d")
    with OWN_TASKS["cartpole"]().robot() as robot, pytest.raises(ConfigurationError, match="egl, osmesa"):
        robot.reset(0)
        robot.render(8, 8)


def test_importing_draws_nothing_and_a_forgotten_renderer_ends_quietly():
    program = ("import os, sys; before = dict(os.environ); import sim.tasks, sim.rendering; assert dict(os.environ) == before; "
               "assert 'mujoco.egl' not in sys.modules or os.environ.get('MUJOCO_GL') == 'egl'; "
               "robot = sim.tasks.OWN_TASKS['cartpole']().robot(); robot.reset(0); robot.render(16, 16)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
