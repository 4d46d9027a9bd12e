"""The routes of the stats page: one table, ``application``.

    GET  /                  the page                  GET  /static/FILE
    GET  /api/v1/status     all of a sample           GET  /events     samples, as they come
    GET  /api/v1/services   /api/v1/backends?service=   /api/v1/workers   /api/v1/health
    GET  /api/v1/node       /api/v1/peers             this and other balancers (`stats.peers`)
    GET  /api/v1/history?service=                     what the charts begin with
    GET  /healthz    /readyz          200 or 503, see ``probes``
    GET  /stats.csv  /;csv  as HAProxy's              GET  /metrics    as Prometheus'
    POST /api/v1/backends/SERVICE/BACKEND   {"state": "drain", "weight": 3}, with a token

Rules: GET requests are answered from the feed, never by a request to the supervisor; changes go to
the supervisor, which checks the token. Files are read at the start, and no others are served. The
process is in its chroot when the first request comes: ``REHEARSAL`` makes aiohttp's late imports
happen before.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from aiohttp import web

from paraglider.daemon.control.requests import build, object_in
from paraglider.daemon.http.routes import Ask, Handler, answer, json_errors, metrics_of
from paraglider.daemon.messages import SetRequest
from paraglider.daemon.web import csv_table, guard
from paraglider.daemon.web.events import Streams
from paraglider.daemon.web.feed import Feed, of_service
from paraglider.daemon.web.guard import RequestGuard
from paraglider.daemon.web.peers import Peers
from paraglider.daemon.web.probes import PATHS, probe

#: bytes of a request's body
LARGEST: Final = 4 << 10
#: the header with the token
TOKEN: Final = "X-Paraglider-Token"  # noqa: S105 - its name
#: one request of each outcome, for ``rehearse``
REHEARSAL: Final = (
    *("GET /", "GET /api/v1/history", "GET /api/v1/peers", "GET /stats.csv"),
    *("POST /", "GET /no", "no request"),
)
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class File:
    """One file of the page; ``tag`` identifies its version."""

    body: bytes
    kind: str
    tag: str


def files() -> dict[str, File]:
    """The files of the page by their names."""
    found = {}
    for entry in importlib.resources.files("paraglider.daemon.web").joinpath("static").iterdir():
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix in _TYPES:
            body = entry.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[entry.name] = File(body, _TYPES[suffix], tag)
    return found


class Shown(NamedTuple):
    """What the page shows: its files, samples, streams of these, and other balancers."""

    static: Mapping[str, File]
    feed: Feed
    streams: Streams
    peers: Peers


def application(shown: Shown, guarded: RequestGuard, ask: Ask) -> web.Application:
    """The application, which answers with ``shown``; ``ask`` sends changes to the supervisor."""
    static, feed, streams, peers = shown
    app = web.Application(client_max_size=LARGEST, middlewares=[json_errors, _guarding(guarded)])
    app.on_response_prepare.append(_add_headers)
    add = app.router
    add.add_get("/", _file(static, "index.html"))
    add.add_get("/static/{name}", _file(static))
    add.add_get("/events", streams.serve, allow_head=False)
    add.add_get("/api/v1/status", _shown(lambda _: feed.now()))
    add.add_get("/api/v1/services", _shown(lambda _: feed.now()["services"]))
    add.add_get("/api/v1/backends", _shown(lambda r: of_service(feed.now()["backends"], _named(r))))
    add.add_get("/api/v1/workers", _shown(lambda _: feed.now()["workers"]))
    add.add_get("/api/v1/health", _shown(lambda _: feed.now()["health"]))
    add.add_get("/api/v1/node", _shown(lambda _: feed.now()["node"]))
    add.add_get("/api/v1/peers", _shown(lambda _: peers.rows(feed.now())))
    add.add_get("/api/v1/history", _shown(lambda r: feed.history.plain(_named(r))))
    for path in PATHS:
        add.add_get(path, _probe(feed))
    for path in ("/stats.csv", "/;csv"):
        add.add_get(path, _csv(feed))
    add.add_get("/metrics", _metrics(feed))
    add.add_post("/api/v1/backends/{service}/{backend}", _setter(ask))
    return app


def _setter(ask: Ask) -> Handler:
    """The handler that changes a backend; the header TOKEN carries the token."""

    async def change(request: web.Request) -> web.StreamResponse:
        own: dict[str, Any] = {key: request.match_info[key] for key in ("service", "backend")}
        words = object_in(await request.read())
        given = request.headers.get(TOKEN)
        return answer(await ask(build(SetRequest, words, "stats", **own, token=given)))

    return change


def _shown(what: Callable[[web.Request], Any]) -> Handler:
    async def show(request: web.Request) -> web.StreamResponse:
        return web.json_response(what(request))

    return show


def _named(request: web.Request) -> str | None:
    return request.query.get("service")


def _csv(feed: Feed) -> Handler:
    async def show(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=csv_table.table(feed.now()), content_type="text/csv")

    return show


def _probe(feed: Feed) -> Handler:
    async def answer_probe(request: web.Request) -> web.StreamResponse:
        return probe(request.path, request.query.get("of"), feed.now(), feed.late)

    return answer_probe


def _metrics(feed: Feed) -> Handler:
    async def show(_request: web.Request) -> web.StreamResponse:
        return metrics_of(feed.now())

    return show


def _file(static: Mapping[str, File], always: str | None = None) -> Handler:
    async def show(request: web.Request) -> web.StreamResponse:
        found = static.get(always or request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        headers = {"ETag": found.tag, "Cache-Control": "no-cache", "Content-Type": found.kind}
        if request.headers.get("If-None-Match") == found.tag:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        return web.Response(body=found.body, headers=headers)

    return show


def _guarding(guarded: RequestGuard) -> Any:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        guarded.check(request)
        return await handler(request)

    return check


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in guard.HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = guard.HEADERS["Server"]  # aiohttp has put its version there
