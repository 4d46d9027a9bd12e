"""Tests of ``paraglider.daemon.web.guard``: checks of Host and Origin."""

from __future__ import annotations

from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from paraglider.daemon.web.guard import HEADERS, RequestGuard


class Transport:
    """A connection that reached ``address``."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The address of ours."""
        return (self.address, 9777) if name == "sockname" else default


def checked(here: str = "127.0.0.1", method: str = "GET", path: str = "/x", **headers: str) -> int:
    """The status of a request with ``headers``; 200 if it is accepted."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = cast(Any, Transport(here))
    request = make_mocked_request(method, path, headers=named, transport=transport)
    try:
        RequestGuard(["LB.example.org."]).check(request)
    except web.HTTPException as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize(
    ("host", "here", "expected"),
    [
        ("127.0.0.1:9777", "127.0.0.1", 200),
        ("localhost", "127.0.0.1", 200),
        ("lb.example.org.:80", "10.0.0.1", 200),
        ("[::1]:9777", "::1", 200),
        ("[0:0:0:0:0:0:0:1]", "::1", 200),
        ("10.0.0.2", "10.0.0.1", 421),
        ("::1", "::1", 421),
        ("[::1", "::1", 421),
        ("[::1]x", "::1", 421),
        ("[::1]:x", "::1", 421),
        ("localhost:9777x", "127.0.0.1", 421),
        ("localhost.evil.example", "127.0.0.1", 421),
        ("", "", 421),
        ("evil.example", "127.0.0.1", 421),
    ],
)
def test_host(host: str, here: str, expected: int) -> None:
    """Host is one of our names, or the address of the connection."""
    assert checked(here, Host=host) == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:9777", 200),
        ("HTTPS://LOCALHOST:9777", 200),
        ("http://localhost", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_origin(origin: str, expected: int) -> None:
    """Origin is this page: the same name and port."""
    assert checked(Host="localhost:9777", Origin=origin) == expected


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_host(path: str) -> None:
    """A browser always sends one, so none is another page's; a wrong one is refused."""
    assert checked(path=path) == 200
    assert checked(path=path, Host="localhost") == 200
    assert checked(path=path, Host="evil.example") == 421
    assert checked(path="/api/v1/status") == 421


def test_another_page_may_only_lead_here() -> None:
    """A cross-site request is accepted only for a followed link."""
    elsewhere = {"Host": "localhost", "Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert checked(path="/", **elsewhere) == 200
    assert checked(path="/", method="POST", **elsewhere) == 403
    assert checked(path="/api/v1/status", **elsewhere) == 403
    assert checked(path="/", **{**elsewhere, "Sec_Fetch_Mode": "no-cors"}) == 403
    assert checked(Host="localhost", Sec_Fetch_Site="same-origin") == 200


def test_nothing_inline_is_allowed() -> None:
    """The policy that browsers get names no exception."""
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
