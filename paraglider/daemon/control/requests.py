"""The requests of the control socket: HTTP and JSON under /v1/, and the message that each one is.

    GET  /v1/services   /v1/backends?service=   /v1/workers   /v1/carrier   /v1/node   /v1/status
    GET  /v1/health     /v1/health?of=node      /v1/health?vip=ADDRESS&when=any|all
    GET  /v1/announce           an answer without end, see ``http.announce``
    GET  /v1/metrics            the same in Prometheus' format
    GET  /v1/flows?client=&backend=&service=&limit=
    POST /v1/backends/SERVICE/BACKEND   {"state": "drain", "weight": 3}
    POST /v1/flows/kill                 {"client": …, "backend": …, "service": …} or {"all": true}
    POST /v1/reload                     {"force": true}
    POST /v1/carrier                    {"state": "on"} or {"state": "off"}
    POST /v1/node                       {"state": "drain", "until_restart": true} or …"ready"

The http process sends the message; the supervisor reads the same request and compares
(``connections``).

Lives here: ``RawRequest``, ``parse``, ``message_of``, ``build``, ``object_in``.
Rules: pure. Types and sizes are checked here; the supervisor's handlers decide about the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import ValidationError

from paraglider.daemon.messages import (
    AnnounceRequest,
    CarrierRequest,
    FlowsRequest,
    KillRequest,
    Listener,
    Message,
    NodeRequest,
    ReloadRequest,
    SetRequest,
    ShowRequest,
    View,
)
from paraglider.errors import OperatorError
from paraglider.forward.flows import Match

#: bytes of a request's body
LARGEST: Final = 64 << 10
#: the input of a request: JSON, or the parameters of a query
Words = dict[str, Any]

_VIEWS: Final = get_args(View)
_END: Final = b"\r\n\r\n"
Request = TypeVar("Request", bound=Message)


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request as it was sent: its method, its target and its body."""

    method: str
    target: str
    body: bytes = b""


def parse(data: bytes) -> RawRequest | None:
    """The request that ``data`` begins with; None while it is incomplete (RFC 9112).

    Raises ValueError if it is not a request, or the length of its body is not known.
    """
    head, end, rest = data.partition(_END)
    if not end:
        return None
    first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    method, target, _version = first.split(" ")
    fields = [line.partition(":")[::2] for line in lines]
    lengths = {value.strip() for name, value in fields if name.lower() == "content-length"}
    if len(lengths) > 1 or any(name.lower() == "transfer-encoding" for name, _ in fields):
        raise ValueError("the length of the body is not known")
    length = int(lengths.pop()) if lengths else 0
    if not 0 <= length <= LARGEST:
        raise ValueError("the body is too long")
    return RawRequest(method, target, rest[:length]) if len(rest) >= length else None


def message_of(request: RawRequest, connection: int) -> Message | None:
    """The message that ``request`` is, None if there is no such request; ``connection`` is the
    number of its connection.

    Raises ``OperatorError`` for a field of a wrong type, ``BadRequestError`` for a malformed
    request.
    """
    try:
        url = urlsplit(request.target)
    except ValueError:
        raise BadRequestError("the target is malformed") from None
    version, *path = (unquote(part) for part in url.path.removeprefix("/").split("/"))
    words: Words = dict(parse_qsl(url.query, keep_blank_values=True))
    method = "GET" if request.method == "HEAD" else request.method
    if version != "v1":
        return None
    match (method, *path):
        case ("GET", "metrics"):
            return ShowRequest(listener="control", connection=connection, view="status")
        case ("GET", "announce"):
            return AnnounceRequest(listener="control", connection=connection)
        case ("GET", "flows"):
            limit = words.get("limit", "")
            if limit.isascii() and limit.isdecimal() and len(limit) < 10:
                words["limit"] = int(limit)
            return build(FlowsRequest, words, "control", connection, match=_match(words))
        case ("GET", view) if view in _VIEWS:
            return build(ShowRequest, words, "control", connection, view=view)
        case ("POST", "backends", service, backend):
            own = {"service": service, "backend": backend, "token": None}
            return build(SetRequest, object_in(request.body), "control", connection, **own)
        case ("POST", "flows", "kill"):
            words = object_in(request.body)
            return build(KillRequest, words, "control", connection, match=_match(words))
        case ("POST", "reload"):
            return build(ReloadRequest, object_in(request.body), "control", connection)
        case ("POST", "carrier"):
            return build(CarrierRequest, object_in(request.body), "control", connection)
        case ("POST", "node"):
            return build(NodeRequest, object_in(request.body), "control", connection)
    return None


def build(
    kind: type[Request],
    words: Mapping[str, Any],
    listener: Listener,
    connection: int = 0,
    **own: object,
) -> Request:
    """A request of ``kind`` with the fields in ``words``, and ``own``, which take precedence.

    Raises ``OperatorError``, without the value, if a value has a wrong type or is too large.
    """
    known = {name: value for name, value in words.items() if name in kind.model_fields}
    fields = {**known, **own, "type": kind.model_fields["type"].default}
    fields |= {"listener": listener, "connection": connection}
    try:
        return kind.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = ".".join(map(str, first["loc"])) or "the request"
        raise OperatorError(f"`{name}` is not valid", first["msg"].lower()) from None


def object_in(body: bytes) -> Words:
    """The JSON object in the body of a request; empty without a body. Raises
    ``BadRequestError``.
    """
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise BadRequestError("the body is no JSON") from None
    if not isinstance(found, dict):
        raise BadRequestError("the body is no JSON object")
    return found


class BadRequestError(Exception):
    """The request is malformed."""


def _match(words: Words) -> Words:
    """The selected flows; raises ``OperatorError``."""
    return Match.of(words).words()
