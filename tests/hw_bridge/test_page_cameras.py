"""The operator's page shows cameras, grey where they are not live; without a bridge that runs, for the cameras are apart from it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import threading
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from hw_bridge.cameras.client import CameraProcess
from hw_bridge.cameras.source import CameraSource
from hw_bridge.channels import Channels
from hw_bridge.page.desk import STOP, WISHES, Desk
from hw_bridge.page.pictures import WIDTH_MAX, Pictures
from hw_bridge.page.server import OperatorPage
from robots.arms.ur5e import ur5e

BRIDGE = f"page-cameras-{os.getpid()}"
GREEN = (20, 200, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Wide green pictures."""
    path = tmp_path_factory.mktemp("pictures")
    for k in range(10):
        iio.imwrite(path / f"{k}.png", np.broadcast_to(np.array(GREEN, np.uint8), (300, 800, 3)))
    return path


@pytest.fixture
def camera(folder):
    with CameraProcess(CameraSource.parse(f"wrist={folder},rate=20,loop"), BRIDGE) as process:
        yield process


@pytest.fixture
def page():
    """A page of a bridge whose boards are there, and on which one old state is told; of the camera 'wrist', and one that never comes."""
    channels = Channels.create(BRIDGE, ur5e().spec.nv)
    channels.state.publish()
    with OperatorPage(BRIDGE, ur5e(), cameras=("wrist", "never")) as page:
        server = threading.Thread(target=page.serve)
        server.start()
        yield page
        page.close()
        server.join()
    channels.close()


def ask(page: OperatorPage, path: str, token: str | None = None) -> tuple[int, str, bytes]:
    """Return status, kind and body."""
    host = page.access.hosts[0]
    with contextlib.closing(http.client.HTTPConnection(host, timeout=20)) as connection:
        connection.request("GET", path, headers={"Authorization": f"Bearer {page.access.token if token is None else token}"})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read()


def told(page: OperatorPage, name: str = "wrist") -> dict:
    cameras = json.loads(ask(page, "/state")[2])["cameras"]
    return next(camera for camera in cameras if camera["name"] == name)


def is_live(camera: dict) -> bool:
    return camera["age_s"] is not None and camera["age_s"] <= camera["stale_s"]


def notes(page: OperatorPage) -> list[str]:
    return [f"{event['kind']}: {event['text']}" for event in json.loads(ask(page, "/state")[2])["events"]]


def until(look, seconds: float = 20.0, words=lambda: ""):
    """Return what `look` returns once it is true."""
    ends = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < ends, f"waited for {seconds} s: {words()}"
        time.sleep(0.02)
    return found


def test_the_newest_picture_comes_small_and_only_with_the_token(page, camera):
    assert until(lambda: is_live(told(page)))
    first = told(page)["sequence"]
    until(lambda: told(page)["sequence"] > first)
    status, kind, body = ask(page, "/picture?camera=wrist")
    picture = iio.imread(io.BytesIO(body))
    assert (status, kind) == (200, "image/jpeg") and picture.shape == (150, 400, 3) and picture.shape[1] <= WIDTH_MAX
    assert np.abs(picture.mean(axis=(0, 1)) - GREEN).max() < 5
    for token in ("", "wrong", f"{page.access.token}x"):
        status, _, body = ask(page, "/picture?camera=wrist", token)
        assert status == 403 and b"token" in body
    assert ask(page, f"/picture?camera=wrist&token={page.access.token}", "")[0] == 403
    for other in ("/picture?camera=never", "/picture?camera=../../etc", "/picture"):
        assert ask(page, other)[0] == 404


def test_a_camera_that_hangs_or_is_not_there_is_not_live_and_one_that_comes_back_is(page, camera, folder):
    until(lambda: is_live(told(page)))
    assert not any("camera wrist: not there" in note for note in notes(page))
    assert told(page, "never") == {"name": "never", "sequence": None, "age_s": None, "stale_s": 0.5, "words": "not there", "rate": None,
                                   "missing": None, "unlogged": None}
    camera.process.send_signal(signal.SIGSTOP)
    try:
        stale = until(lambda: not is_live(seen := told(page)) and seen)
        assert stale["age_s"] > stale["stale_s"] == 0.5 and ask(page, "/picture?camera=wrist")[0] == 200
        assert any("camera wrist: gives no picture any more" in note for note in notes(page))
    finally:
        camera.process.send_signal(signal.SIGCONT)
    until(lambda: is_live(told(page)))
    camera.process.kill()
    camera.process.wait()
    until(lambda: not is_live(told(page)))
    with CameraProcess(CameraSource.parse(f"wrist={folder},rate=20,loop"), BRIDGE):
        until(lambda: is_live(told(page)))
        assert sum("camera wrist: live" in note for note in notes(page)) == 3


def test_why_a_camera_ended_is_said(page, folder):
    with CameraProcess(CameraSource.parse(f"wrist={folder},rate=50"), BRIDGE):
        until(lambda: "at its end" in told(page)["words"])
        assert any("camera wrist: the file is at its end" in note for note in notes(page))


def test_a_page_that_only_watches_passes_on_nothing_but_a_stop(page):
    watching = Desk(page.desk._client, page.feed, watch_only=True)
    board = page.desk._client.channels.wishes["page"]
    for verb in WISHES:
        reply = watching.press(verb)
        assert not reply.ok and "only watched" in reply.text and board.read().value is None
    watching.press(STOP)
    assert int(board.read().value["stops"]) == 1


def test_slow_cameras_may_be_older(folder):
    with CameraProcess(CameraSource.parse(f"slow={folder},rate=0.5"), BRIDGE):
        pictures = Pictures(BRIDGE, ["slow"], lambda kind, words: None)
        assert until(lambda: pictures.told()[0]["stale_s"] == 6.0)
        pictures.close()


def test_in_a_browser_the_picture_is_shown_and_grey_when_it_is_old(page, camera, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from test_page import CHROMIUM, Browser
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with contextlib.closing(Browser(tmp_path)) as browser:
        def see(look):
            return until(look, 30.0, lambda: browser.look("document.body.innerText"))

        browser.call("Page.navigate", url=page.url)
        tile = "document.querySelector('#cameras figure')"
        see(lambda: browser.look(f"{tile} && {tile}.querySelector('img').naturalWidth") == 400)
        see(lambda: browser.look(f"{tile}.className") == "" and browser.text("#cameras figcaption").startswith("wrist"))
        before = browser.look(f"{tile}.querySelector('img').src")
        see(lambda: browser.look(f"{tile}.querySelector('img').src") != before)
        assert "never · NO PICTURE" in browser.text("#cameras figure:nth-child(2)")
        camera.process.send_signal(signal.SIGSTOP)
        try:
            see(lambda: browser.look(f"{tile}.className") == "stale" and "NOT LIVE" in browser.text("#cameras figcaption"))
            assert "grayscale(1)" in browser.look(f"getComputedStyle({tile}.querySelector('img')).filter")
        finally:
            camera.process.send_signal(signal.SIGCONT)
        see(lambda: browser.look(f"{tile}.className") == "")
        (tmp_path / "page.png").write_bytes(browser.screenshot())
