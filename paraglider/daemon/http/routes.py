"""The requests of the control socket: HTTP and JSON under /v1/, each sent to the supervisor.

    GET  /v1/services   /v1/backends?service=   /v1/workers   /v1/health   /v1/status
    GET  /v1/metrics            the same in Prometheus' format
    GET  /v1/flows?client=&backend=&service=&limit=
    POST /v1/backends/SERVICE/BACKEND   {"state": "drain", "weight": 3}
    POST /v1/flows/kill                 {"client": …, "backend": …, "service": …} or {"all": true}
    POST /v1/reload

Rules: types and sizes are checked here (``messages.FromHttp``); the supervisor decides about the
rest. Every answer except the metrics is JSON; an error is {"error": what, "remedy": how to correct
it}. The process is in its chroot when the first request comes: ``rehearse`` makes aiohttp's late
imports happen before.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeVar, get_args

from aiohttp import web
from aiohttp.http import HttpProcessingError
from pydantic import ValidationError

from paraglider.daemon.http import metrics
from paraglider.daemon.http.exposition import CONTENT_TYPE
from paraglider.daemon.messages import (
    FlowsRequest,
    KillRequest,
    Listener,
    Message,
    Refusal,
    ReloadRequest,
    Result,
    SetRequest,
    ShowRequest,
    View,
)
from paraglider.daemon.processes.spec import PATIENCE
from paraglider.errors import OperatorError, PlatformError
from paraglider.forward.flows import Match

#: sends a request to the supervisor, returns its answer; raises ``PlatformError``
Ask = Callable[[Message], Awaitable[Message]]
#: called with the connection of a request
Waits = Callable[[asyncio.BaseTransport | None], object]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: lets a connection last this many seconds
Keep = Callable[[asyncio.BaseTransport | None, float], None]
#: the input of a request: JSON, or the parameters of a query
Words = dict[str, Any]

#: bytes of a request's body
LARGEST: Final = 64 << 10
#: one request of each outcome, for ``rehearse``
REHEARSAL: Final = ("GET /v1/health", "POST /v1/flows/kill", "GET /nowhere", "no request")
_STATUS: Final = {"operator": HTTPStatus.BAD_REQUEST, "platform": HTTPStatus.SERVICE_UNAVAILABLE}


def application(ask: Ask, waits: Waits = lambda _: None) -> web.Application:
    """The application; ``ask`` answers the requests, ``waits`` is called for one whose answer may
    take long.
    """
    app = web.Application(client_max_size=LARGEST, middlewares=[json_errors])
    for view in get_args(View):
        app.router.add_get(f"/v1/{view}", _shower(ask, view))
    app.router.add_get("/v1/flows", _flows(ask))
    app.router.add_get("/v1/metrics", _metrics(ask))
    app.router.add_post("/v1/backends/{service}/{backend}", setter(ask, "control"))
    app.router.add_post("/v1/flows/kill", _killer(ask))
    app.router.add_post("/v1/reload", _reloader(ask, waits))
    return app


#: seconds that an open request has at the stop: less than the supervisor's timeout, since a
#: stream has no end of its own
SHUTDOWN: Final = PATIENCE / 4


def runner(app: web.Application) -> web.AppRunner:
    """The server of ``app``: one request per connection, no access log."""
    return web.AppRunner(
        app,
        access_log=None,
        logger=faults(),
        handle_signals=False,
        shutdown_timeout=SHUTDOWN,
        keepalive_timeout=0,
        lingering_time=0,
        max_line_size=8190,
        max_field_size=8190,
    )


def faults() -> logging.Logger:
    """Logs internal errors only; a client that does not speak HTTP would fill the log."""
    logger = logging.getLogger("paraglider.http")
    if not logger.filters:
        logger.addFilter(_not_theirs)
    return logger


def _not_theirs(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


async def rehearse(made: web.AppRunner, requests: Iterable[str]) -> None:
    """Answer the request lines ``requests``, so that no import is left for later."""
    for first in requests:
        request = f"{first} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}"
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(server_of(made), theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(request.encode())
        await reader.read()
        writer.close()


def server_of(runner: web.AppRunner) -> web.Server:
    """The factory of connection handlers; ``runner`` has been set up."""
    if runner.server is None:
        raise ValueError("the runner is not set up")
    return runner.server


def _shower(ask: Ask, view: View) -> Handler:
    async def show(request: web.Request) -> web.StreamResponse:
        return answer(await ask(build(ShowRequest, request.query, "control", view=view)))

    return show


def _flows(ask: Ask) -> Handler:
    async def show(request: web.Request) -> web.StreamResponse:
        words: Words = dict(request.query)
        if words.get("limit", "").isdecimal():
            words["limit"] = int(words["limit"])
        return answer(await ask(build(FlowsRequest, words, "control", match=_match(words))))

    return show


def _metrics(ask: Ask) -> Handler:
    async def show(_request: web.Request) -> web.StreamResponse:
        reply = await ask(ShowRequest(listener="control", view="status"))
        return metrics_of(reply.value) if isinstance(reply, Result) else answer(reply)

    return show


def metrics_of(status: Words) -> web.Response:
    """The response with ``status`` in Prometheus' format."""
    return web.Response(body=metrics.render(status), headers={"Content-Type": CONTENT_TYPE})


def _killer(ask: Ask) -> Handler:
    async def kill(request: web.Request) -> web.StreamResponse:
        words = await body_of(request)
        return answer(await ask(build(KillRequest, words, "control", match=_match(words))))

    return kill


def _reloader(ask: Ask, waits: Waits) -> Handler:
    async def reload(request: web.Request) -> web.StreamResponse:
        waits(request.transport)
        return answer(await ask(build(ReloadRequest, await body_of(request), "control")))

    return reload


def setter(ask: Ask, listener: Listener, token: str = "") -> Handler:
    """The handler that changes a backend; ``token`` is the header that carries the token."""

    async def change(request: web.Request) -> web.StreamResponse:
        own = {key: request.match_info[key] for key in ("service", "backend")}
        given = request.headers.get(token) if token else None
        words = await body_of(request)
        return answer(await ask(build(SetRequest, words, listener, **own, token=given)))

    return change


def _match(words: Words) -> Words:
    """The selected flows; raises ``OperatorError``."""
    return Match.of(words).words()


Request = TypeVar("Request", bound=Message)


def build(
    kind: type[Request], words: Mapping[str, Any], listener: Listener, **own: object
) -> Request:
    """A request of ``kind`` with the fields in ``words``, and ``own``, which take precedence.

    Raises ``OperatorError``, without the value, if a value has a wrong type or is too large.
    """
    known = {name: value for name, value in words.items() if name in kind.model_fields}
    fields = {**known, **own, "type": kind.model_fields["type"].default, "listener": listener}
    try:
        return kind.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = ".".join(map(str, first["loc"])) or "the request"
        raise OperatorError(f"`{name}` is not valid", first["msg"].lower()) from None


async def body_of(request: web.Request) -> Words:
    """The JSON object in the body of the request; empty without a body."""
    try:
        body = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError):
        raise _BadRequestError("the body is no JSON") from None
    if not isinstance(body, dict):
        raise _BadRequestError("the body is no JSON object")
    return body


class _BadRequestError(Exception):
    """The request is malformed."""


def answer(reply: Message) -> web.Response:
    """The supervisor's answer as a response."""
    if isinstance(reply, Result):
        return web.json_response(reply.value)
    if not isinstance(reply, Refusal):
        return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "no answer")
    body: Words = {"error": reply.error, "remedy": reply.remedy}
    if reply.lines:
        body["lines"] = list(reply.lines)
    return web.json_response(body, status=_STATUS[reply.fault])


def _refusal(status: int, what: str, remedy: str = "") -> web.Response:
    return web.json_response({"error": what, "remedy": remedy}, status=status)


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Return errors as JSON, and close the connection after every answer."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = _refusal(error.status, error.reason.lower())
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except _BadRequestError as error:
        response = _refusal(HTTPStatus.BAD_REQUEST, str(error), "send a JSON object")
    except OperatorError as error:
        response = _refusal(HTTPStatus.BAD_REQUEST, error.what, error.remedy)
    except PlatformError as error:
        response = _refusal(HTTPStatus.SERVICE_UNAVAILABLE, error.what, error.remedy)
    response.force_close()
    return response
