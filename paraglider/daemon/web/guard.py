"""What keeps other people's web pages away: who is meant, where a request comes from, headers.

A page elsewhere can have a browser send requests here, and by DNS rebinding under a name of its
own that leads to this address. So the name that is asked for must be ours; a request that another
page caused is answered only where a person follows a link; a change must say a token besides.

Rules: pure but for aiohttp's request; a refusal is an aiohttp error. The port of ``Host`` does not
matter, for a tunnel may have another; an ``Origin`` must be the same as ``Host``, port and all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from aiohttp import web

#: sent with everything
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
    """Looks at requests; ``names`` are what this host is called beside its addresses."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}

    def check(self, request: web.Request) -> None:
        """Raise ``HTTPMisdirectedRequest`` or ``HTTPForbidden`` where ``request`` is not for us."""
        host = request.headers.getall("Host", [])
        if len(host) != 1 or not self._ours(host[0], _here(request)):
            raise web.HTTPMisdirectedRequest(
                reason="This is not the name of this host: see stats.names"
            )
        origins = request.headers.getall("Origin", [])
        # With TLS ahead of us the origin is https, and the rest the same.
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
    """Whether a person followed a link, to the page itself."""
    mode = request.headers.get("Sec-Fetch-Mode")
    return request.method == "GET" and request.path == "/" and mode == "navigate"


def _name_of(host: str) -> str:
    """The name or address in a Host header, without the port; empty where it is neither."""
    if host.startswith("["):
        address, bracket, rest = host[1:].partition("]")
        good = bracket and (not rest or (rest[0] == ":" and rest[1:].isdecimal()))
        return address if good else ""
    name, colon, port = host.lower().partition(":")
    return name.rstrip(".") if not colon or port.isdecimal() else ""


def _here(request: web.Request) -> str | None:
    """The address of ours that the connection reached."""
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return name[0] if isinstance(name, tuple) else None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
