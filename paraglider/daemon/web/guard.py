"""Protection against requests of other web pages: checks of Host and Origin, security headers.

A foreign page can make a browser send requests here, by DNS rebinding even under its own host name.
So ``Host`` must be a name of this server; a cross-site request is answered only if the user follows
a link; a change also needs a token.
Rules: pure except for aiohttp's request; a refusal is an aiohttp error. The port of ``Host`` is not
checked, because a tunnel may have another; ``Origin`` must equal ``Host``, including the port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from paraglider.daemon.web.probes import PATHS

#: sent with every response
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "paraglider",
}


class RequestGuard:
    """Checks requests; ``names`` are the host's names, beside its addresses."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}

    def check(self, request: web.Request) -> None:
        """Raise ``HTTPMisdirectedRequest`` or ``HTTPForbidden`` if ``request`` is not
        acceptable.
        """
        host = request.headers.getall("Host", [])
        if not host and request.path in PATHS:
            return  # HTTP/1.0, as HAProxy's checks; browsers always send a Host
        if len(host) != 1 or not self._ours(host[0], _here(request)):
            raise web.HTTPMisdirectedRequest(
                reason="This is not the name of this host: see stats.names"
            )
        origins = request.headers.getall("Origin", [])
        # Behind a TLS proxy the origin is https, and the rest the same.
        own = {f"{scheme}://{host[0].lower()}" for scheme in ("http", "https")}
        if not own.issuperset(origin.lower() for origin in origins):
            raise web.HTTPForbidden(reason="Another page asks")
        site = request.headers.get("Sec-Fetch-Site", "none")
        if site not in ("none", "same-origin") and not _followed(request):
            raise web.HTTPForbidden(reason="Another page asks")

    def _ours(self, host: str, here: str | None) -> bool:
        name = _name_of(host)
        if name in self._names:
            return True
        found, ours = _address(name), _address(here or "")
        return found is not None and found == ours


def _followed(request: web.Request) -> bool:
    """Whether the user followed a link to the page itself."""
    mode = request.headers.get("Sec-Fetch-Mode")
    return request.method == "GET" and request.path == "/" and mode == "navigate"


def _name_of(host: str) -> str:
    """The name or address in a Host header, without the port; empty if it is neither."""
    if host.startswith("["):
        address, bracket, rest = host[1:].partition("]")
        good = bracket and (not rest or (rest[0] == ":" and rest[1:].isdecimal()))
        return address if good else ""
    name, colon, port = host.lower().partition(":")
    return name.rstrip(".") if not colon or port.isdecimal() else ""


def _here(request: web.Request) -> str | None:
    """The local address of the connection."""
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return name[0] if isinstance(name, tuple) else None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
