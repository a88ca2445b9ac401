"""The page's HTTP server: one document, its data in JSON, and one address to press buttons at. Loopback only, and only with the token."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from hw_bridge.client import BridgeClient
from hw_bridge.page.access import Access, checked_loopback
from hw_bridge.page.desk import Desk
from hw_bridge.page.feed import Feed, arm_words
from hw_bridge.page.pictures import Pictures
from hw_bridge.realtime.segment import Segment
from robots.arms.arm import Arm
from robots.command import CommandMode
from robots.errors import ConfigurationError, HardwareError

_LOG = logging.getLogger(__name__)
_BODY_BYTES = 256
_IDLE_S = 10.0
"""A connection that says nothing for so long is closed [s]."""


class OperatorPage:
    """Serves the page of one running bridge. A context manager; `serve` blocks until `close` is called from elsewhere."""

    def __init__(self, name: str, arm: Arm, mode: CommandMode = CommandMode.JOINT_POSITION, address: str = "127.0.0.1",
                 port: int = 0, cameras: Sequence[str] = (), watch_only: bool = False) -> None:
        """`name`: of the bridge; `mode`: what its policies command; `port` 0: any free one; `cameras`: names of those that are shown;
        `watch_only`: no button does anything but the stop button.
        """
        checked_loopback(address)
        with contextlib.ExitStack() as stack:
            stack.callback(_take_seat(name).close)
            client = BridgeClient(name, arm, desk="page")
            stack.callback(client.close)
            self._server = _listen(address, port, partial(_Request, self))
            stack.callback(self._server.server_close)
            self.feed = Feed(client)
            stack.callback(self.feed.close)
            self.pictures = Pictures(name, cameras, self.feed.note)
            stack.callback(self.pictures.close)
            self._closing = stack.pop_all()
        self.desk = Desk(client, self.feed, watch_only)
        self.access = Access.at(address, self._server.server_address[1])
        self.facts = arm_words(arm, mode, name)
        """What of the arm never changes, for /arm."""
        self.url = f"http://{self.access.hosts[0]}/?token={self.access.token}"
        """What to open in a browser; whoever has it can press the buttons."""

    def serve(self) -> None:
        """Answer requests until `close`."""
        self._server.serve_forever(0.1)

    def close(self) -> None:
        """End `serve` (from another thread) and let go of the bridge."""
        self._server.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        _LOG.debug("a connection broke off", exc_info=True)


class _Request(BaseHTTPRequestHandler):
    """One connection of a browser."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "reflexarc", ""
    timeout = _IDLE_S

    def __init__(self, page: OperatorPage, *arguments: object) -> None:
        self.page = page
        super().__init__(*arguments)

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        asked = parse_qs(address.query)
        token = asked.get("token", [None])[0] if address.path == "/" else None
        if not self._admitted(token):
            return
        if address.path == "/":
            nonce = secrets.token_urlsafe(16)
            self._send(HTTPStatus.OK, _document().replace("{{nonce}}", nonce).encode(), "text/html; charset=utf-8", nonce)
        elif address.path == "/arm":
            self._send_json(HTTPStatus.OK, self.page.facts)
        elif address.path == "/state":
            after = asked.get("after", ["0"])[0]
            picture = self.page.feed.picture(_number(after) or 0)
            self._send_json(HTTPStatus.OK, {**picture, "pending": self.page.desk.pending, "cameras": self.page.pictures.told()})
        elif address.path == "/picture":
            self._send_picture(asked.get("camera", [""])[0])
        elif address.path == "/press":
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "a button is pressed by POST alone")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is nothing at {address.path}; there are /, /arm, /state, /picture and /press")

    def do_POST(self) -> None:
        if not self._admitted(None):
            return
        if urlsplit(self.path).path != "/press":
            return self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "POST is for /press alone")
        if wrong := self.page.access.refuse_origin(self.headers.get("Origin")):
            return self._refuse(HTTPStatus.FORBIDDEN, wrong)
        length = _number(self.headers.get("Content-Length", ""))
        if self.headers.get_content_type() != "application/json" or length is None or length > _BODY_BYTES:
            return self._refuse(HTTPStatus.BAD_REQUEST, f'expected application/json of at most {_BODY_BYTES} bytes, {{"button": NAME}}')
        try:
            button = json.loads(self.rfile.read(length))["button"]
        except (ValueError, KeyError, TypeError):
            return self._refuse(HTTPStatus.BAD_REQUEST, 'expected {"button": NAME}')
        reply = self.page.desk.press(str(button))
        self._send_json(HTTPStatus.OK if reply.ok else HTTPStatus.CONFLICT, asdict(reply))

    def _admitted(self, asked_token: str | None) -> bool:
        access = self.page.access
        wrong = access.refuse_host(self.headers.get("Host")) or access.refuse_token(self.headers.get("Authorization"), asked_token)
        if wrong:
            self._refuse(HTTPStatus.FORBIDDEN, wrong)
        return not wrong

    def _send_picture(self, camera: str) -> None:
        picture = self.page.pictures.newest(camera)
        if picture is None:
            return self._refuse(HTTPStatus.NOT_FOUND, f"there is no picture of a camera {camera!r}")
        self._send(HTTPStatus.OK, picture, "image/jpeg")

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        self.close_connection = True  # a body that was not read would be taken for the next request
        self._send(status, words.encode(), "text/plain; charset=utf-8")

    def _send_json(self, status: HTTPStatus, value: object) -> None:
        self._send(status, json.dumps(value, allow_nan=False).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, nonce: str = "") -> None:
        own = f"'nonce-{nonce}'" if nonce else "'none'"
        self.send_response(status)
        for name, value in {
            "Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin",
            "Content-Security-Policy": f"default-src 'none'; script-src {own}; style-src {own}; connect-src 'self'; img-src 'self' blob:; "
                                       "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        }.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *arguments: object) -> None:
        _LOG.debug("%s", self.command)  # not the address: it may hold the token


def _take_seat(name: str) -> Segment:
    """Return what marks that this process is the bridge's one page; its lock ends with the process, however that ends."""
    try:  # two pages would count their presses apart, and the bridge would overhear one of them
        return Segment.create(f"{name}.page", 64)
    except ConfigurationError as error:
        raise ConfigurationError(f"bridge {name!r} has a page already; use that one, or end its process first") from error


def _listen(address: str, port: int, handler: object) -> _Server:
    try:
        return _Server((address, port), handler)
    except (OSError, OverflowError) as error:
        raise HardwareError(f"the page cannot listen at {address}:{port}: {error}; take another port, or 0 for any free one") from error


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None


@cache
def _document() -> str:
    """Return the page, its style and its script in one, so that no part of it needs a request of its own."""
    folder = files("hw_bridge.page")
    text = folder.joinpath("page.html").read_text("utf-8")
    for place, name in (("{{style}}", "page.css"), ("{{plots}}", "plots.js"), ("{{cameras}}", "cameras.js"), ("{{script}}", "page.js")):
        text = text.replace(place, folder.joinpath(name).read_text("utf-8"))
    return text
