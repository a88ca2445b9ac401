"""Who may see the page and press its buttons: whoever knows the token, asks this machine by its own name, and comes from this page."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Self

from robots.errors import ConfigurationError

TOKEN_BYTES = 24
_SCHEME = "Bearer "


@dataclass(frozen=True)
class Access:
    """The rules for one page at `address`:`port`. There is no cookie: a browser sends nothing by itself that another page could use."""

    token: str
    hosts: tuple[str, ...]
    """What the Host header may say; another name means that a stranger's name was pointed at this machine (DNS rebinding)."""

    @classmethod
    def at(cls, address: str, port: int) -> Self:
        """Return the rules of a page at `address`:`port`, with a new random token."""
        return cls(secrets.token_urlsafe(TOKEN_BYTES), (f"{address}:{port}", f"localhost:{port}"))

    def refuse_host(self, host: str | None) -> str:
        """Return why a request with this Host header is refused; empty where it is not."""
        if host in self.hosts:
            return ""
        return f"this page answers only at {' or '.join(self.hosts)}, got {host!r}; open the address that was printed when it was started"

    def refuse_origin(self, origin: str | None) -> str:
        """Return why a wish from a page of this Origin is refused; empty where it is not, or where no browser sent it."""
        if origin is None or origin in {f"http://{host}" for host in self.hosts}:
            return ""
        return f"buttons are pressed on this page alone, not from {origin!r}"

    def refuse_token(self, header: str | None, asked: str | None = None) -> str:
        """Return why a request is refused that names its token in the Authorization header or, on a first visit, in its address (`asked`);
        empty where it is not. The comparison takes the same time whatever was got."""
        got = header.removeprefix(_SCHEME) if header and header.startswith(_SCHEME) else asked or ""
        if hmac.compare_digest(got.encode(errors="replace"), self.token.encode()):
            return ""
        return "the token is missing or not this page's: open the address that was printed when it was started (each start has a new one)"


def checked_loopback(address: str) -> str:
    """Return `address`; ConfigurationError unless it is one of 127.0.0.0/8, which no other machine can reach."""
    try:
        loopback = IPv4Address(address).is_loopback
    except AddressValueError:
        loopback = False
    if not loopback:
        raise ConfigurationError(f"the operator page listens on loopback only (127.x.x.x), got {address!r}; to see it from another machine "
                                 "forward its port: ssh -L PORT:127.0.0.1:PORT THIS-MACHINE")
    return address
