"""The stream of samples (server-sent events), for a bounded number of clients.

Rules: a client that does not read is disconnected after SLOW seconds; unsent data is bounded by the
buffer sizes. A stream ends after LONGEST seconds, and the browser opens another.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from paraglider.daemon.http.routes import Keep
from paraglider.daemon.web.feed import Feed

#: concurrent streams
MOST: Final = 64
#: seconds that a client may leave a sample unread
SLOW: Final = 10.0
#: duration of a stream in seconds
LONGEST: Final = 900.0
#: milliseconds after which a browser reconnects
_RETRY: Final = 2000


class Streams:
    """The streams of ``feed``."""

    def __init__(
        self,
        feed: Feed,
        keep: Keep,
        *,
        most: int = MOST,
        slow: float = SLOW,
        longest: float = LONGEST,
    ) -> None:
        self._feed = feed
        self._keep = keep
        self._most = most
        self._slow = slow
        self._longest = longest
        self._open = 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Send samples to a client until it disconnects."""
        if self._open >= self._most:
            raise web.HTTPServiceUnavailable(
                reason="Too many streams at a time", headers={"Retry-After": "10"}
            )
        self._open += 1
        try:
            return await self._stream(request)
        finally:
            self._open -= 1

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        # Ends before the connection limiter's deadline, so that the stream ends in good order.
        self._keep(request.transport, self._longest + 2 * self._slow)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.force_close()
        try:
            async with asyncio.timeout(self._longest):
                await response.prepare(request)
                await self._send(response, f"retry: {_RETRY}\n\n".encode())
                number = 0
                while True:
                    number, text = await self._feed.after(number)
                    await self._send(response, b"event: sample\ndata: " + text + b"\n\n")
        except (TimeoutError, ConnectionError):
            if request.transport is not None and request.transport.get_write_buffer_size():
                request.transport.abort()  # unsent data is discarded
        return response

    async def _send(self, response: web.StreamResponse, text: bytes) -> None:
        async with asyncio.timeout(self._slow):
            await response.write(text)
