"""`GET /v1/announce`: an answer without end that tells the health of the VIPs that are announced.

One JSON object a line:

    {"loads": 1, "vips": {VIP: {"announce": true, "status": "healthy", "why": ""}, …}}
                        first, and after a reload that changes `announce`: of all VIPs
    {"vips": {…}}       of those that have changed
    {}                  nothing has changed

The supervisor sends what has changed, and from time to time that nothing has; no line is written
without its word, so a client notices a supervisor that hangs.

Lives here: ``VipStreams``.
Rules: at most MOST clients. A client that does not read gets the newest state when it does, and is
disconnected after SLOW seconds. Nobody waits for a client.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from math import inf
from typing import Any, Final

from aiohttp import web

from paraglider.daemon.http.routes import Ask, Keep, NumberOf, answer
from paraglider.daemon.messages import AnnounceRequest, Result, VipNews

#: concurrent clients
MOST: Final = 16
#: seconds that a client may leave a line unread
SLOW: Final = 10.0
#: seconds between two looks whether a client is still there, while there is nothing to tell
_LOOK: Final = 1.0

_Row = tuple[bool, str, str]


class VipStreams:
    """The answers to clients; ``update`` gets what the supervisor sends."""

    def __init__(self, *, most: int = MOST, slow: float = SLOW) -> None:
        self._most = most
        self._slow = slow
        self._open = 0
        self._number = 0  # of the last message
        self._whole = 0  # of the last one with all VIPs; 0: there was none
        self._loads = 0
        self._rows: dict[str, tuple[int, _Row]] = {}  # number of the last change; oldest first
        self._changed = asyncio.Condition()
        self._wakes: set[asyncio.Task[None]] = set()

    def update(self, news: VipNews) -> None:
        """The supervisor has sent ``news``."""
        self._number += 1
        if news.loads is not None:
            self._loads, self._whole, self._rows = news.loads, self._number, {}
        for vip, row in news.vips.items():
            self._rows.pop(vip, None)
            self._rows[vip] = self._number, row
        task = asyncio.get_running_loop().create_task(self._wake())
        self._wakes.add(task)
        task.add_done_callback(self._wakes.discard)

    async def serve(
        self, request: web.Request, ask: Ask, number_of: NumberOf, keep: Keep
    ) -> web.StreamResponse:
        """Answer ``request`` until its client disconnects."""
        if self._open >= self._most:
            raise web.HTTPServiceUnavailable(reason="Too many clients are told what to announce")
        self._open += 1
        try:
            number = number_of(request.transport)
            reply = await ask(AnnounceRequest(listener="control", connection=number))
            if not isinstance(reply, Result):
                return answer(reply)
            keep(request.transport, inf)
            return await self._stream(request)
        finally:
            self._open -= 1

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.force_close()
        seen = 0
        try:
            await response.prepare(request)
            while True:
                await self._after(seen, request)
                line, seen = self._line(seen), self._number
                async with asyncio.timeout(self._slow):
                    await response.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()  # unsent data is discarded
        return response

    async def _after(self, seen: int, request: web.Request) -> None:
        """Wait for a message after ``seen``; raises ConnectionResetError if the client is gone."""
        while not (self._whole and self._number > seen):
            if request.transport is None:
                raise ConnectionResetError
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK), self._changed:
                    await self._changed.wait()

    def _line(self, seen: int) -> dict[str, Any]:
        """What a client lacks that has had message ``seen``."""
        whole = seen < self._whole
        vips: dict[str, Any] = {}
        for vip, (number, (announce, status, why)) in reversed(self._rows.items()):
            if not whole and number <= seen:
                break
            vips[vip] = {"announce": announce, "status": status, "why": why}
        if whole:
            return {"loads": self._loads, "vips": vips}
        return {"vips": vips} if vips else {}

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()
