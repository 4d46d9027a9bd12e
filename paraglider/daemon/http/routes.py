"""The HTTP of the control socket: each request is sent to the supervisor (``control.requests``).

Rules: every answer except the metrics is JSON; an error is {"error": what, "remedy": how to correct
it}. The first request comes when the process is in its chroot, so ``rehearse`` makes aiohttp's late
imports happen before.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any, Final, get_args

from aiohttp import web
from aiohttp.http import HttpProcessingError

from paraglider.daemon.control.requests import LARGEST, BadRequestError, RawRequest, message_of
from paraglider.daemon.http import metrics
from paraglider.daemon.http.exposition import CONTENT_TYPE
from paraglider.daemon.messages import Message, Refusal, ReloadRequest, Result, View
from paraglider.daemon.processes.spec import EXIT_TIMEOUT
from paraglider.errors import OperatorError, PlatformError

#: sends a request to the supervisor, returns its answer; raises ``PlatformError``
Ask = Callable[[Message], Awaitable[Message]]
#: called with the connection of a request
Waits = Callable[[asyncio.BaseTransport | None], object]
#: the number of a connection, see ``control.handover``
NumberOf = Callable[[asyncio.BaseTransport | None], int]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: lets a connection last this many seconds
Keep = Callable[[asyncio.BaseTransport | None, float], None]

#: one request of each outcome, for ``rehearse``
REHEARSAL: Final = ("GET /v1/health", "POST /v1/flows/kill", "GET /nowhere", "no request")
_STATUS: Final = {"operator": HTTPStatus.BAD_REQUEST, "platform": HTTPStatus.SERVICE_UNAVAILABLE}


def application(ask: Ask, number_of: NumberOf, waits: Waits = lambda _: None) -> web.Application:
    """The application: ``ask`` answers the requests, ``number_of`` returns the number of a
    request's connection, ``waits`` is called for a connection whose answer may take long.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        raw = RawRequest(request.method, request.raw_path, await request.read())
        message = message_of(raw, number_of(request.transport))
        if message is None:
            raise web.HTTPNotFound
        if isinstance(message, ReloadRequest):
            waits(request.transport)
        reply = await ask(message)
        if request.path == "/v1/metrics" and isinstance(reply, Result):
            return metrics_of(reply.value)
        return answer(reply)

    app = web.Application(client_max_size=LARGEST, middlewares=[json_errors])
    for view in (*get_args(View), "flows", "metrics"):
        app.router.add_get(f"/v1/{view}", handle)
    for path in ("backends/{service}/{backend}", "flows/kill", "reload", "carrier", "node"):
        app.router.add_post(f"/v1/{path}", handle)
    return app


#: seconds for open requests to end when the process stops: less than the supervisor's timeout,
#: since a stream does not end by itself
SHUTDOWN: Final = EXIT_TIMEOUT / 4


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
    """Answer the request lines ``requests``, so that all imports have happened."""
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


def metrics_of(status: dict[str, Any]) -> web.Response:
    """The response with ``status`` in Prometheus' format."""
    return web.Response(body=metrics.render(status), headers={"Content-Type": CONTENT_TYPE})


def answer(reply: Message) -> web.Response:
    """The supervisor's answer as a response."""
    if isinstance(reply, Result):
        return web.json_response(reply.value)
    if not isinstance(reply, Refusal):
        return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "no answer")
    body: dict[str, Any] = {"error": reply.error, "remedy": reply.remedy}
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
    except BadRequestError as error:
        response = _refusal(HTTPStatus.BAD_REQUEST, str(error), "send a JSON object")
    except OperatorError as error:
        response = _refusal(HTTPStatus.BAD_REQUEST, error.what, error.remedy)
    except PlatformError as error:
        response = _refusal(HTTPStatus.SERVICE_UNAVAILABLE, error.what, error.remedy)
    response.force_close()
    return response
