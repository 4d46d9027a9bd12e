"""The requests of the control socket: HTTP and JSON under /v1/, each handed to the hub.

    GET  /v1/services   /v1/backends?service=   /v1/workers   /v1/health   /v1/status
    GET  /v1/metrics            the same as Prometheus reads it
    GET  /v1/flows?client=&backend=&service=&limit=
    POST /v1/backends/SERVICE/BACKEND   {"state": "drain", "weight": 3}
    POST /v1/flows/kill                 {"client": …, "backend": …, "service": …} or {"all": true}
    POST /v1/reload

Rules: nothing is judged here but shape and size; what a request means is the hub's to say. Every
answer but the metrics is JSON; an error is {"error": what, "remedy": what would be right}. The
process is locked in when the first request comes: what aiohttp imports late is imported by
``warm_up``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from paraglider.daemon.http import metrics
from paraglider.daemon.http.exposition import CONTENT_TYPE
from paraglider.daemon.processes.channel import Message
from paraglider.daemon.processes.spec import PATIENCE
from paraglider.errors import PlatformError

#: asks the hub; raises ``PlatformError``
Ask = Callable[[Message], Awaitable[Message]]
#: told of the connection of a request
Waits = Callable[[asyncio.BaseTransport | None], object]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: bytes of a request's body
LARGEST: Final = 64 << 10
_STATUS: Final = {"operator": HTTPStatus.BAD_REQUEST, "platform": HTTPStatus.SERVICE_UNAVAILABLE}


def application(ask: Ask, waits: Waits = lambda _: None) -> web.Application:
    """The requests, answered by ``ask``; ``waits`` is told of one whose answer may take long."""
    app = web.Application(client_max_size=LARGEST, middlewares=[json_errors])
    for name in ("services", "backends", "workers", "health", "status", "flows"):
        app.router.add_get(f"/v1/{name}", _reader(ask, name))
    app.router.add_get("/v1/metrics", _metrics(ask))
    app.router.add_post("/v1/backends/{service}/{backend}", _setter(ask))
    app.router.add_post("/v1/flows/kill", _poster(ask, "kill"))
    app.router.add_post("/v1/reload", _poster(ask, "reload", waits))
    return app


#: seconds that a request at hand has at the end: less than the supervisor's patience, since a
#: stream has no end of its own
SHUTDOWN: Final = PATIENCE / 4


def runner(app: web.Application) -> web.AppRunner:
    """What serves ``app``: one request a connection, and no log of its own."""
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
    """Takes faults of ours; what is no HTTP is a client's, and would fill the log."""
    logger = logging.getLogger("paraglider.http")
    if not logger.filters:
        logger.addFilter(_not_theirs)
    return logger


def _not_theirs(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


def warm_up() -> None:
    """Have one request of each outcome answered, so that nothing is left to import."""
    asyncio.run(_warm_up())


async def _warm_up() -> None:
    async def ask(_request: Message) -> Message:
        return {"ok": []}

    made = runner(application(ask))
    await made.setup()
    await rehearse(made, ("GET /v1/health", "POST /v1/flows/kill", "GET /nowhere", "no request"))
    await made.cleanup()


async def rehearse(made: web.AppRunner, requests: Iterable[str]) -> None:
    """Have ``requests``, the first words of each, answered to nobody."""
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
    """What makes a handler of each connection; ``runner`` has been set up."""
    if runner.server is None:
        raise ValueError("the runner is not set up")
    return runner.server


def _reader(ask: Ask, name: str) -> Handler:
    async def read(request: web.Request) -> web.StreamResponse:
        words: Message = {key: value for key, value in request.query.items() if key != "do"}
        if words.get("limit", "").isdecimal():
            words["limit"] = int(words["limit"])
        return answer(await ask({**words, "do": name}))

    return read


def _metrics(ask: Ask) -> Handler:
    async def show(_request: web.Request) -> web.StreamResponse:
        reply = await ask({"do": "status"})
        return metrics_of(reply["ok"]) if "ok" in reply else answer(reply)

    return show


def metrics_of(status: Message) -> web.Response:
    """The answer that says ``status`` to Prometheus."""
    return web.Response(body=metrics.render(status), headers={"Content-Type": CONTENT_TYPE})


def _poster(ask: Ask, name: str, waits: Waits = lambda _: None) -> Handler:
    async def post(request: web.Request) -> web.StreamResponse:
        waits(request.transport)
        return answer(await ask({**await body_of(request), "do": name}))

    return post


def _setter(ask: Ask) -> Handler:
    async def change(request: web.Request) -> web.StreamResponse:
        which = {key: request.match_info[key] for key in ("service", "backend")}
        return answer(await ask({**await body_of(request), **which, "do": "set"}))

    return change


async def body_of(request: web.Request) -> Message:
    """The JSON object that the request carries; one without a body carries an empty one."""
    try:
        body = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError):
        raise _BadRequestError("the body is no JSON") from None
    if not isinstance(body, dict):
        raise _BadRequestError("the body is no JSON object")
    return body


class _BadRequestError(Exception):
    """The request cannot be understood."""


def answer(reply: Message) -> web.Response:
    """The hub's reply as a response."""
    if "ok" in reply:
        return web.json_response(reply["ok"])
    status = _STATUS.get(reply.get("fault", ""), HTTPStatus.INTERNAL_SERVER_ERROR)
    said = {key: value for key, value in reply.items() if key in ("error", "remedy", "lines")}
    return web.json_response({"error": "no answer", "remedy": "", **said}, status=status)


def _refusal(status: int, what: str, remedy: str = "") -> web.Response:
    return web.json_response({"error": what, "remedy": remedy}, status=status)


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors are JSON too, and every answer ends its connection."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = _refusal(error.status, error.reason.lower())
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except _BadRequestError as error:
        response = _refusal(HTTPStatus.BAD_REQUEST, str(error), "send a JSON object")
    except PlatformError as error:
        response = _refusal(HTTPStatus.SERVICE_UNAVAILABLE, error.what, error.remedy)
    response.force_close()
    return response
