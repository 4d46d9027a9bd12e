"""A request of the control socket as the message that it is, or why it is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.daemon.control.requests import (
    LARGEST,
    BadRequestError,
    RawRequest,
    build,
    message_of,
    object_in,
    parse,
)
from paraglider.daemon.messages import (
    AnnounceRequest,
    CarrierRequest,
    FlowMatch,
    FlowsRequest,
    KillRequest,
    Message,
    NodeRequest,
    ReloadRequest,
    SetRequest,
    ShowRequest,
)
from paraglider.errors import OperatorError

HERE: Any = {"listener": "control", "connection": 7}


def sent(first: str, body: str = "", *, fields: str = "") -> bytes:
    """A request that begins with ``first``."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{first} HTTP/1.1\r\nHost: a\r\n{length}{fields}\r\n{body}".encode()


@pytest.mark.parametrize(
    ("first", "body", "message"),
    [
        ("GET /v1/status", "", ShowRequest(**HERE, view="status")),
        ("HEAD /v1/health", "", ShowRequest(**HERE, view="health")),
        ("GET /v1/metrics", "", ShowRequest(**HERE, view="status")),
        ("GET http://paraglider/v1/workers", "", ShowRequest(**HERE, view="workers")),
        ("GET /v1/backends?service=web", "", ShowRequest(**HERE, view="backends", service="web")),
        (
            "GET /v1/flows?client=192.0.2.0/24&limit=5&type=kill",
            "",
            FlowsRequest(**HERE, match=FlowMatch(client="192.0.2.0/24"), limit=5),
        ),
        (
            "POST /v1/backends/web/%5Bfd00::1%5D:80",
            '{"weight": 3, "listener": "stats", "connection": 1, "service": "x", "token": "t"}',
            SetRequest(**HERE, service="web", backend="[fd00::1]:80", weight=3),
        ),
        ("POST /v1/flows/kill", '{"all": true}', KillRequest(**HERE, all=True)),
        ("POST /v1/reload", "", ReloadRequest(**HERE)),
        ("POST /v1/carrier", '{"state": "on"}', CarrierRequest(**HERE, state="on")),
        ("GET /v1/node", "", ShowRequest(**HERE, view="node")),
        ("GET /v1/health?of=node", "", ShowRequest(**HERE, view="health", of="node")),
        (
            "GET /v1/health?vip=2001:db8::1&when=all",
            "",
            ShowRequest(**HERE, view="health", vip="2001:db8::1", when="all"),
        ),
        ("GET /v1/announce", "", AnnounceRequest(**HERE)),
        ("POST /v1/announce", "", None),
        ("POST /v1/node", '{"state": "ready"}', NodeRequest(**HERE, state="ready")),
        (
            "POST /v1/node",
            '{"state": "drain", "until_restart": true}',
            NodeRequest(**HERE, state="drain", until_restart=True),
        ),
        ("POST /v1/reload", '{"force": true}', ReloadRequest(**HERE, force=True)),
        ("POST /v1/status", "", None),
        ("GET /v1/nosuch", "", None),
        ("GET /v2/status", "", None),
        ("GET /", "", None),
        ("DELETE /v1/backends/web/b", "", None),
    ],
)
def test_what_is_meant(first: str, body: str, message: Message | None) -> None:
    """Words of the query, the path and the body; the connection is that of the client."""
    request = parse(sent(first, body))
    assert request is not None
    assert message_of(request, 7) == message


@pytest.mark.parametrize(
    "data",
    [b"", b"GET /v1/st", sent("POST /v1/reload", "{}")[:-1], sent("GET /v1/status")[:-1]],
)
def test_a_part_of_a_request_is_none_yet(data: bytes) -> None:
    """More may come."""
    assert parse(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"no request\r\n\r\n",
        sent("POST /v1/reload", fields="Transfer-Encoding: chunked\r\n"),
        sent("POST /v1/reload", "{}", fields="Content-Length: 3\r\n"),
        sent("POST /v1/reload", fields="Content-Length: -1\r\n"),
        sent("POST /v1/reload", fields="Content-Length: two\r\n"),
        sent("POST /v1/reload", fields=f"Content-Length: {LARGEST + 1}\r\n"),
    ],
)
def test_a_request_whose_end_is_not_known(data: bytes) -> None:
    """Two readers could differ about it, so it is none."""
    with pytest.raises(ValueError, match="."):
        parse(data)


@given(st.binary(max_size=200))
def test_garbage_is_no_request(data: bytes) -> None:
    """Only ValueError and its own errors come out of it."""
    try:
        found = parse(data + b"\r\n\r\n")
        if found is not None:
            message_of(found, 1)
    except (ValueError, BadRequestError, OperatorError):
        pass


@pytest.mark.parametrize("target", ["http://[", "/v1/flows?limit=" + "9" * 5000])
def test_a_malformed_target(target: str) -> None:
    """It is the client's error."""
    with pytest.raises((BadRequestError, OperatorError)):
        message_of(RawRequest("GET", target), 1)


@pytest.mark.parametrize(
    ("first", "body"),
    [
        ("GET /v1/health?of=all", ""),
        ("GET /v1/health?vip=192.0.2.1&when=some", ""),
        ("POST /v1/node", ""),
        ("POST /v1/node", '{"state": "maint"}'),
        ("POST /v1/node", '{"state": "drain", "until_restart": "yes"}'),
    ],
)
def test_a_word_that_there_is_not(first: str, body: str) -> None:
    """Is the operator's mistake, and no other request."""
    method, target = first.split()
    with pytest.raises(OperatorError, match="is not valid"):
        message_of(RawRequest(method, target, body.encode()), 1)


def test_the_body_is_an_object() -> None:
    """Without one there are no words."""
    assert object_in(b"") == {}
    for body in (b"{", b"[1]", b"7", b"[" * 60_000, b"\xff"):
        with pytest.raises(BadRequestError):
            object_in(body)


def test_what_is_own_takes_precedence() -> None:
    """And a value of a wrong type is named without the value."""
    made = build(SetRequest, {"service": "x", "weight": 1}, "stats", service="a", backend="b")
    assert made == SetRequest(listener="stats", service="a", backend="b", weight=1)
    with pytest.raises(OperatorError, match="`weight` is not valid") as caught:
        build(SetRequest, {"weight": "heavy"}, "stats", service="a", backend="b")
    assert "heavy" not in str(caught.value)
