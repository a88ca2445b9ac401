"""The operator's page, on a real bridge to the UR5e's twin: over HTTP, and in headless Chromium where that is installed."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import http.client
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from hw_bridge.bridge import BridgeConfig
from hw_bridge.client import BridgeProcess
from hw_bridge.page.access import checked_loopback
from hw_bridge.page.server import OperatorPage
from hw_bridge.realtime.privileges import RealTimeConfig
from hw_bridge.safety.config import SafetyConfig
from hw_bridge.safety.rules import State
from hw_bridge.twins.twin import TwinProcess
from robots.arms.ur5e import ur5e
from robots.errors import ConfigurationError, HardwareError

pytest.importorskip("rtde_control")
ADDRESS = "127.0.61.2"
ROOT = Path(__file__).resolve().parents[2]
# A busy test machine is late now and then; actions may be old, so that a hung policy is not held before the button is pressed.
SAFETY = SafetyConfig(policy_period=0.05, observation_age_max=1.0, gap_max=1.0, clock_drift_max=2.0, action_age_max=20.0,
                      tracking_error_max=0.4, extrapolation=0.1)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
POLICY = """
import contextlib, sys, numpy as np
from hw_bridge.client import BridgeClient
from hw_bridge.robot import BridgeRobot
from robots.arms.ur5e import ur5e
from robots.command import Command, CommandMode
from robots.errors import HardwareError
robot = BridgeRobot(BridgeClient(sys.argv[1], ur5e()), CommandMode.JOINT_POSITION, 0.05)
start, k = robot.reset(0).q, 0
print("acting", flush=True)
while True:
    k += 1
    with contextlib.suppress(HardwareError):  # the test machine is busy
        robot.send(Command(CommandMode.JOINT_POSITION, start + 0.15 * np.sin(0.1 * k)))
    robot.tick()
"""


class Page:
    """The page's process and a browser's view of it."""

    def __init__(self, bridge: str) -> None:
        command = [sys.executable, "-m", "hw_bridge.page", bridge, "ur5e"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        line = self.process.stdout.readline()
        self.url = line.removeprefix("operator page: ").strip()
        self.host = urlsplit(self.url).netloc
        self.token = parse_qs(urlsplit(self.url).query)["token"][0]

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
        """Return status and body; `headers` replace those that the page itself would send, None leaves one out."""
        sent = {"Host": self.host, "Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.host, timeout=25)
        with contextlib.closing(connection):
            connection.request(method, path, body, {name: value for name, value in sent.items() if value is not None})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def press(self, button: str) -> tuple[int, str]:
        """Return status and the bridge's words."""
        status, text = self.ask("POST", "/press", json.dumps({"button": button}))
        return status, json.loads(text)["text"]

    def state(self, after: int = 0) -> dict:
        status, text = self.ask("GET", f"/state?after={after}")
        assert status == 200
        return json.loads(text)

    def await_state(self, wanted: str, seconds: float = 20.0) -> dict:
        return until(lambda: (p := self.state()) and p["state"] == wanted and p, seconds, lambda: self.state()["cause"])

    def close(self) -> None:
        self.process.terminate()
        try:
            assert self.process.wait(30.0) == 0
        finally:
            self.process.kill()
            self.process.stdout.close()


def until(look, seconds: float = 20.0, words=lambda: ""):
    """Return what `look` returns once it is true."""
    ends = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < ends, f"waited for {seconds} s: {words()}"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A bridge to a twin, and its page."""
    config = BridgeConfig("ur5e", ADDRESS, safety=SAFETY, log=str(tmp_path_factory.mktemp("log") / "log.mcap"),
                          real_time=RealTimeConfig(lock_memory=False))
    with TwinProcess("ur5e", "--address", ADDRESS), BridgeProcess(config) as bridge, contextlib.closing(Page(bridge.ready["name"])) as page:
        yield bridge, page


@pytest.fixture
def bridge(running):
    """The bridge in IDLE."""
    bridge = running[0]
    ends = time.monotonic() + 10.0
    while (state := bridge.client.state().state) is not State.IDLE:
        assert time.monotonic() < ends
        with contextlib.suppress(HardwareError):
            bridge.client.wish("reset" if state in (State.ESTOP, State.FAULT) else "disarm" if state is not State.ACTIVE else "hold")
    return bridge


@pytest.fixture
def page(running, bridge):
    return until(lambda: running[1].state()["state"] == "IDLE" and running[1])


@pytest.fixture
def policy(bridge):
    """A policy's process that moves the arm."""
    process = subprocess.Popen([sys.executable, "-c", POLICY, bridge.ready["name"]], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "acting\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_state_arrives_and_goes_on(page, bridge):
    first = page.state()
    assert first["live"] and first["age_s"] < 0.5 and first["ticks"] > 0
    last = first["samples"][-1]
    assert last["q"] == pytest.approx(bridge.client.state().q, abs=0.05) and len(last["tau"]) == 6 and last["reference"] is None
    later = until(lambda: page.state(last["n"])["samples"])
    assert later[0]["n"] == last["n"] + 1 and later[0]["t"] > last["t"]
    facts = json.loads(page.ask("GET", "/arm")[1])
    assert facts["joints"] == list(ur5e().spec.joint_names)
    assert facts["limits"]["position_max"] == pytest.approx(ur5e().spec.limits.position_max, abs=1e-4)


def test_wishes_are_obeyed_and_refusals_come_in_the_bridges_words(page, bridge):
    status, words = page.press("activate")
    assert status == 409 and "IDLE" in words and bridge.client.state().state is State.IDLE
    assert page.press("arm") == (200, "arm: done")
    shown = page.await_state("ARMED")
    assert shown["samples"][-1]["reference"] is not None
    assert page.press("disarm")[0] == 200 and page.await_state("IDLE")
    status, words = page.press("close")
    assert status == 409 and "unknown button" in words and bridge.process.poll() is None
    kinds = {event["kind"] for event in page.state()["events"]}
    assert {"ARMED", "IDLE", "button arm", "button activate"} <= kinds


def test_stop_works_while_the_policy_hangs_and_latches(page, bridge, policy):
    page.await_state("ACTIVE")
    policy.send_signal(signal.SIGSTOP)
    assert bridge.client.state().state is State.ACTIVE
    status, words = page.press("stop")
    assert status == 200 and "confirmed" in words
    assert bridge.client.state().state is State.ESTOP
    assert "a person at the page" in page.await_state("ESTOP")["cause"]
    status, words = page.press("arm")
    assert status == 409 and "ESTOP" in words
    until(lambda: page.press("reset")[0] == 200)
    page.await_state("IDLE")


def test_without_the_token_nothing_is_told_and_nothing_happens(page, bridge):
    stop = json.dumps({"button": "stop"})
    for token in (None, "", "Bearer", "Bearer wrong", f"Bearer {page.token}x", f"Bearer {page.token[:-1]}", f"Basic {page.token}"):
        for method, path, body in (("GET", "/", None), ("GET", "/state", None), ("GET", "/arm", None), ("POST", "/press", stop)):
            status, text = page.ask(method, path, body, Authorization=token)
            assert status == 403 and "token" in text and page.token not in text
    assert page.ask("GET", "/?token=wrong", Authorization=None)[0] == 403
    # In the address it opens the document alone, so that no link and no form of another page presses a button.
    assert page.ask("GET", f"/?token={page.token}", Authorization=None)[0] == 200
    assert page.ask("GET", f"/state?token={page.token}", Authorization=None)[0] == 403
    assert page.ask("POST", f"/press?token={page.token}", stop, Authorization=None)[0] == 403
    assert page.ask("POST", "/press", stop, Authorization=None, Cookie=f"token={page.token}")[0] == 403
    assert bridge.client.state().state is State.IDLE


def test_other_hosts_origins_methods_and_bodies_are_refused(page, bridge):
    stop, port = json.dumps({"button": "stop"}), page.host.split(":")[1]
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1:{int(port) - 1}", ""):
        assert page.ask("GET", "/state", Host=host)[0] == 403
        assert page.ask("POST", "/press", stop, Host=host)[0] == 403
    assert page.ask("GET", "/state", Host=f"localhost:{port}")[0] == 200
    for origin in ("http://evil.example", "null", f"https://{page.host}", "http://127.0.0.1:1"):
        assert page.ask("POST", "/press", stop, Origin=origin)[0] == 403
    assert page.ask("GET", "/press")[0] == 405 and page.ask("GET", "/press?button=stop")[0] == 405
    assert page.ask("POST", "/state", stop)[0] == 405
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"):
        assert page.ask(method, "/press")[0] in (405, 501)
    assert page.ask("POST", "/press", stop, Content_Type="text/plain")[0] == 400
    for body in ("", "stop", "[]", "7", '{"verb": "stop"}', "[" * 250, " " * 300 + stop):
        assert page.ask("POST", "/press", body)[0] == 400
    assert page.ask("GET", "/../server.py")[0] == 404
    assert bridge.client.state().state is State.IDLE


def test_the_document_needs_nothing_from_elsewhere(page):
    status, text = page.ask("GET", "/")
    assert status == 200 and "{{" not in text
    assert "http://" not in text and "https://" not in text and "src=" not in text and "<link" not in text


def test_only_loopback_is_listened_on_and_a_bridge_has_one_page(running):
    for address in ("0.0.0.0", "192.168.1.2", "::", "localhost", ""):
        with pytest.raises(ConfigurationError, match="loopback"):
            checked_loopback(address)
    with pytest.raises(ConfigurationError, match="has a page already"):
        OperatorPage(running[0].ready["name"], ur5e())
    with pytest.raises(HardwareError, match="does the process that makes it run"):
        OperatorPage("no-such-bridge", ur5e())


def test_a_wish_that_was_not_answered_is_withdrawn(bridge):
    bridge.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(HardwareError, match="did not answer"):
            bridge.client.wish("disarm", timeout=0.2)
    finally:
        bridge.process.send_signal(signal.SIGCONT)
    ticks = bridge.client.state().tick
    until(lambda: bridge.client.state().tick > ticks + 50)
    answer = bridge.client.channels.answers["cli"].read().value["text"].item().decode()
    assert "unknown wish ''" in answer  # else it would have been tried, and refused as "cannot disarm"


class Browser:
    """Headless Chromium over the pipes of its DevTools protocol (JSON, each message ended by a zero byte)."""

    def __init__(self, folder: Path, size: str = "1200,800") -> None:
        out_read, self._out = os.pipe()
        self._in, in_write = os.pipe()
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 64) for end in (out_read, in_write)]  # away from 3 and 4
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe", f"--window-size={size}",
                   "--hide-scrollbars", "--disable-dev-shm-usage", f"--user-data-dir={folder}", "about:blank"]
        with open(os.devnull, "r+b") as null:
            actions = [(os.POSIX_SPAWN_DUP2, null.fileno(), 1), (os.POSIX_SPAWN_DUP2, null.fileno(), 2),
                       (os.POSIX_SPAWN_DUP2, theirs[0], 3), (os.POSIX_SPAWN_DUP2, theirs[1], 4)]
            self.pid = os.posix_spawn(CHROMIUM, [CHROMIUM, *options], {**os.environ, "HOME": str(folder)}, file_actions=actions)
        for end in (out_read, in_write, *theirs):
            os.close(end)
        self._number, self._rest, self._session = 0, b"", {}
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **parameters: object) -> dict:
        """Return the result of a DevTools method."""
        self._number += 1
        os.write(self._out, json.dumps({"id": self._number, "method": method, "params": parameters, **self._session}).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                assert select.select([self._in], [], [], 60.0)[0], f"no answer to {method}"
                got = os.read(self._in, 1 << 20)
                assert got, f"Chromium ended during {method}"
                self._rest += got
            line, self._rest = self._rest.split(b"\0", 1)
            message = json.loads(line)
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                return message["result"]

    def look(self, expression: str) -> object:
        """Return the value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def text(self, selector: str) -> str:
        return self.look(f"document.querySelector({selector!r}).innerText")

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element, as a person does."""
        x, y = self.look(f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector({selector!r}).getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def wish(self, verb: str) -> None:
        """Press a button once it may be pressed."""
        until(lambda: not self.look(f"document.querySelector('[data-wish={verb}]').disabled"), 20.0)
        self.click(f"[data-wish={verb}]")

    def space(self) -> None:
        for kind in ("keyDown", "keyUp"):
            text = " " if kind == "keyDown" else ""
            self.call("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", text=text, windowsVirtualKeyCode=32)

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)  # its children end as their pipes to it break
        os.waitpid(self.pid, 0)
        os.close(self._out)
        os.close(self._in)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_in_a_browser_it_shows_the_live_arm_and_its_buttons_and_space_bar_work(page, bridge, tmp_path):
    with contextlib.closing(Browser(tmp_path)) as browser:
        def see(look, seconds=30.0):
            return until(look, seconds, lambda: browser.look("document.body.innerText"))

        def reach(wanted):
            """Press what leads there; a busy machine may have made a fault of it in between."""
            def step():
                if (shown := browser.text("#state")) != wanted:
                    browser.wish({"IDLE": "arm", "HOLD": "disarm", "FAULT": "reset", "ESTOP": "reset"}[shown])
                return shown == wanted
            see(step)
            see(lambda: not browser.look("waitingFor"))  # its answer would come after, and in place of, that of the next button

        browser.call("Page.navigate", url=page.url)
        see(lambda: browser.look("document.title") == "IDLE · ur5e")
        assert browser.text("#state") == "IDLE" and "shoulder pan" in browser.text("#rows")
        see(lambda: browser.text("#rows .joint:nth-child(2) .value").startswith("−"))
        shown = browser.look("newest.ticks")
        see(lambda: browser.look("newest.ticks") > shown)
        assert browser.look("[...document.querySelectorAll('#rows canvas')].every(c => c.getContext('2d').getImageData(0, 0, c.width, "
                            "c.height).data.some(v => v > 0))")

        browser.wish("activate")
        see(lambda: "IDLE" in browser.text("#answer") and browser.look("document.querySelector('#answer').className") == "no")
        reach("ARMED")
        browser.look("document.querySelector('[data-wish=activate]').focus()")
        browser.space()  # stops, and does not press the button that has the focus
        see(lambda: browser.text("#state") == "ESTOP")
        assert bridge.client.state().state is State.ESTOP
        reach("IDLE")
        browser.click("#stop")
        see(lambda: browser.text("#state") == "ESTOP" and "confirmed" in browser.text("#answer"))
        assert bridge.client.state().state is State.ESTOP

        bridge.process.send_signal(signal.SIGSTOP)
        try:
            see(lambda: browser.look("document.title") == "NOT LIVE")
            see(lambda: "emergency stop button of the arm" in browser.text("#gone"))
            see(lambda: browser.look("document.querySelector('[data-wish=reset]').disabled"))
            see(lambda: "grayscale(1)" in browser.look("getComputedStyle(document.querySelector('#joints')).filter"))
        finally:
            bridge.process.send_signal(signal.SIGCONT)
        see(lambda: browser.look("document.title") == "ESTOP · ur5e")
        page.process.send_signal(signal.SIGSTOP)  # the page's own process
        try:
            see(lambda: browser.look("document.title") == "NOT LIVE")
        finally:
            page.process.send_signal(signal.SIGCONT)
        see(lambda: browser.look("document.title") == "ESTOP · ur5e")


def test_a_bridge_that_is_gone_is_not_live_and_what_was_wished_then_is_never_obeyed(page, bridge):
    bridge.process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: not page.state()["live"])
        assert page.state()["age_s"] > 0.5
        status, words = page.press("arm")
        assert status == 409 and "not live" in words and "EMERGENCY STOP BUTTON" in words
        status, words = page.press("stop")
        assert status == 409 and "NOT confirmed" in words and "EMERGENCY STOP BUTTON" in words
    finally:
        bridge.process.send_signal(signal.SIGCONT)
    # The stop that it did not hear then is heard as it wakes up; the wish is not.
    assert page.await_state("ESTOP")["live"]
    assert "ARMED" not in {event["kind"] for event in page.state()["events"][-6:]}
