"""Pictures of the engines that are not our own: asked for, of the right size, and without a trace in the episode."""

from __future__ import annotations

import numpy as np
import pytest

from robots.command import Command
from robots.robot import Robot
from sim.catalog import make_task
from sim.rendering import RenderingUnavailableError
from sim.task import CameraRequest

CAMERAS = {
    "dmc:cheetah-run": "side", "dmc:reach_site_features": "front_close", "dmc:quadruped-escape": "free",
    "gym:HalfCheetah-v5": "track", "gym:Reacher-v5": "free", "gym:Ant-v5": "track",
    "bullet:panda-reach": "front", "bullet:kuka-reach-position": "top",
}


def started(name: str, cameras: CameraRequest | None = None) -> Robot:
    """Return a robot that can draw, after a reset; skips the test where this machine has no OpenGL."""
    robot = make_task(name).robot(cameras)
    try:
        robot.reset(0)
        robot.render(8, 8)
    except RenderingUnavailableError as error:
        robot.close()
        if name.startswith("bullet:"):
            raise  # PyBullet draws without OpenGL
        pytest.skip(str(error))
    return robot


@pytest.mark.parametrize(("name", "camera"), CAMERAS.items())
def test_pictures_on_request_show_the_motion_and_change_nothing(name: str, camera: str) -> None:
    with started(name, CameraRequest((camera,), 48, 32)) as seeing, started(name) as blind:
        spec = seeing.spec.command()
        assert [(c.name, c.width, c.height) for c in seeing.spec.cameras] == [(camera, 48, 32)] and not blind.spec.cameras
        images = []
        for count in range(1, 7):
            for robot in (seeing, blind):
                robot.send(Command(spec.mode, spec.maximum if count % 4 else spec.minimum))
            seen, unseen = seeing.tick(), blind.tick()
            frame = seen.frames[camera]
            assert frame.image.shape == (32, 48, 3) and frame.image.std() > 1.0
            assert frame.captured_ns == frame.received_ns == seen.stamp_ns and frame.sequence == count
            assert not unseen.frames
            np.testing.assert_array_equal(seen.q, unseen.q)
            for key in seen.extra:
                np.testing.assert_array_equal(seen.extra[key], unseen.extra[key])
            images.append(frame.image)
        assert (images[0] != images[-1]).any()


@pytest.mark.parametrize("name", CAMERAS)
def test_render_shows_every_camera_in_any_size(name: str) -> None:
    with started(name) as robot:
        for camera in (None, *robot.camera_names):
            for width, height in ((40, 24), (24, 40)):
                picture = robot.render(width, height, camera)
                assert picture.shape == (height, width, 3) and picture.dtype == np.uint8
        np.testing.assert_array_equal(robot.render(40, 24), robot.render(40, 24, robot.camera_names[0]))


def test_a_vision_task_puts_its_pictures_into_frames_and_not_into_the_state() -> None:
    try:
        task = make_task("dmc:reach_site_vision")
    except RenderingUnavailableError as error:
        pytest.skip(str(error))
    assert "vision" in task.tags and not any("front_close" in name for name in task.state_space.names)
    with task.robot() as robot:
        for observation in (robot.reset(0), robot.tick()):
            assert observation.frames["front_close"].image.shape == (84, 84, 3)
            assert len(task.state_space.state(observation)) == task.state_space.nx < 100
        assert [(c.name, c.width) for c in robot.spec.cameras] == [("front_close", 84)]


def test_an_environment_that_cannot_draw_says_what_is_missing() -> None:
    with make_task("gym:Pendulum-v1").robot() as robot:
        robot.reset(0)
        try:
            picture = robot.render(30, 20)
        except RenderingUnavailableError as error:
            assert "pygame" in str(error)
        else:
            assert picture.shape == (20, 30, 3)
