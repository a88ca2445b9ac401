"""The page's desk at the bridge: presses of the stop button, and wishes one at a time, each answered in words."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from hw_bridge.client import BridgeClient
from hw_bridge.page.feed import LIVE_S, Feed
from robots.errors import HardwareError

WISHES = ("hold", "arm", "activate", "resume", "reset", "disarm")
STOP = "stop"
CONFIRM_S = 1.0
"""A stop that the bridge has not confirmed within this is said to be unheard [s]."""
USE_BUTTON = "USE THE EMERGENCY STOP BUTTON OF THE ARM"


@dataclass(frozen=True)
class Reply:
    """What came of a press."""

    ok: bool
    text: str


class Desk:
    """What the buttons do. Any thread may call it; a stop never waits for a wish."""

    def __init__(self, client: BridgeClient, feed: Feed, watch_only: bool = False) -> None:
        """`watch_only`: nothing but a stop is passed on."""
        self._client, self._feed, self._watch_only = client, feed, watch_only
        self._wishing, self._stopping = threading.Lock(), threading.Lock()
        self.pending: str | None = None
        """The wish that the bridge has not answered yet."""

    def press(self, verb: str) -> Reply:
        """Do what the button `verb` says (STOP or one of WISHES) and return the bridge's answer."""
        reply = self._stop() if verb == STOP else self._wish(verb)
        self._feed.note(f"button {verb}", reply.text)
        return reply

    def _stop(self) -> Reply:
        pressed_ns = time.monotonic_ns()
        with self._stopping:
            self._client.press_stop("the stop button")
        ends = time.monotonic() + CONFIRM_S
        while time.monotonic() < ends:
            if self._feed.stopped_since(pressed_ns):
                return Reply(True, f"stopped; the bridge confirmed it within {(time.monotonic_ns() - pressed_ns) * 1e-6:.0f} ms")
            time.sleep(0.005)
        return Reply(False, f"the stop was sent, but the bridge has NOT confirmed it within {CONFIRM_S:.0f} s: {USE_BUTTON}")

    def _wish(self, verb: str) -> Reply:
        if verb not in WISHES:
            return Reply(False, f"unknown button {verb!r}; known: {', '.join((STOP, *WISHES))}")
        if self._watch_only:
            return Reply(False, f"{verb!r} was not sent: this arm is only watched, and nothing is to be written to it")
        if not self._wishing.acquire(blocking=False):
            return Reply(False, f"the bridge has not answered to {self.pending!r} yet; wait for its answer (STOP is heard all the same)")
        try:
            # What a bridge does not hear now it might obey minutes later, when nobody expects it any more.
            if self._feed.age() > LIVE_S:
                return Reply(False, f"{verb!r} was not sent: the bridge is not live; if the arm must stop, {USE_BUTTON}")
            self.pending = verb
            self._client.wish(verb)
            return Reply(True, f"{verb}: done")
        except HardwareError as error:
            return Reply(False, str(error))
        finally:
            self.pending = None
            self._wishing.release()
