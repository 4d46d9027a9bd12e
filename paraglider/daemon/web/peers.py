"""The pages of other balancers (`stats.peers`), whose status this page shows beside its own.

Rules: nobody is asked while nobody looks: a request for the rows has the peers asked for WATCHED
seconds, all at once, every INTERVAL at most; and rows are made once of what is known. So the number
of clients does not matter. A peer has DEADLINE seconds and LONGEST bytes; what it answers is shown
and compared, never acted on. Peers are addresses, since the process is in its chroot, without a
resolver.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from paraglider.config.types import parse_endpoint
from paraglider.daemon.web.fleet import Fleet, Row
from paraglider.host.remote import Unreached

#: of a peer in the configuration
SCHEME: Final = "http://"
#: seconds between two requests to a peer
INTERVAL: Final = 2.0
#: seconds for which a request of a client has the peers asked
WATCHED: Final = 20.0
#: seconds of a peer's answer
DEADLINE: Final = 2.0
#: bytes of a peer's answer: 1,000 services with 8 backends each
LONGEST: Final = 8 << 20
_PATH: Final = "/api/v1/status"
_HEAD: Final = b"\r\n\r\n"


class Peers:
    """The balancers of which ``urls`` are the pages: "http://ADDRESS:PORT"."""

    def __init__(self, urls: Iterable[str], *, interval: float = INTERVAL) -> None:
        self._urls = tuple(urls)
        self._interval = interval
        self._wanted = asyncio.Event()
        self._asked = 0.0  # when a client asked last, by the loop's clock
        self._answers: dict[str, Any] = dict.fromkeys(self._urls, Unreached("not asked yet"))
        #: the rows, and the sample and the answers that they were made of
        self._shown: tuple[Row, dict[str, Any], dict[str, Any]] | None = None

    async def run(self) -> None:
        """Ask the peers while clients want their rows; never returns."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._wanted.wait()
            if clock() - self._asked > WATCHED:
                self._wanted.clear()
                continue
            began = clock()
            found = await asyncio.gather(*map(fetch, self._urls))
            self._answers = dict(zip(self._urls, found, strict=True))
            # However many peers there are: at most half of the time goes into their answers.
            await asyncio.sleep(max(self._interval, clock() - began))

    def rows(self, own: Row) -> dict[str, Any]:
        """The rows of this balancer, whose sample is ``own``, and of its peers, by their names."""
        self._asked = asyncio.get_running_loop().time()
        self._wanted.set()
        if self._shown is not None and self._shown[0] is own and self._shown[1] is self._answers:
            return self._shown[2]
        answers: dict[str, Any] = {str(own.get("host", "")): own}
        for url, answer in self._answers.items():
            if not _is_same(answer, own):
                answers[_name(url, answer, answers)] = answer
        fleet = Fleet(answers)
        rows = {"nodes": fleet.node_rows(), "services": fleet.service_rows()}
        self._shown = own, self._answers, rows
        return rows


async def fetch(url: str) -> Any:
    """The status at ``url``, or ``Unreached``."""
    try:
        async with asyncio.timeout(DEADLINE):
            return await _fetch(url)
    except TimeoutError:
        return Unreached(f"no answer within {DEADLINE:g} s")
    except OSError as error:
        # asyncio puts the address into the text of the error.
        return Unreached(os.strerror(error.errno).lower() if error.errno else str(error))
    except (ValueError, RecursionError):
        return Unreached("what answers is no paraglider")


async def _fetch(url: str) -> Any:
    """As ``fetch``; raises OSError, and ValueError for what is no status. HTTP/1.0, so that the
    answer ends with its connection (RFC 9112, 6.3).
    """
    where = url.removeprefix(SCHEME)
    address, port = parse_endpoint(where)
    reader, writer = await asyncio.open_connection(str(address), port)
    try:
        request = f"GET {_PATH} HTTP/1.0\r\nHost: {where}\r\nAccept-Encoding: identity\r\n\r\n"
        writer.write(request.encode())
        parts, size = [], 0
        while part := await reader.read(1 << 16):
            parts.append(part)
            size += len(part)
            if size > LONGEST:
                return Unreached("the answer is too long")
    finally:
        writer.close()
    head, end, body = b"".join(parts).partition(_HEAD)
    if not end or head.split(maxsplit=2)[1:2] != [b"%d" % HTTPStatus.OK]:
        words = head.partition(b"\r\n")[0].decode(errors="replace")[:100]
        return Unreached(words if words.isprintable() and words else "no answer of HTTP")
    return json.loads(body)


def _is_same(answer: Any, own: Row) -> bool:
    """Whether a peer is this balancer, whose file lists all."""
    keys = ("host", "daemon")
    return isinstance(answer, dict) and all(answer.get(key) == own.get(key) for key in keys)


def _name(url: str, answer: Any, taken: Iterable[str]) -> str:
    """The host's name, unless another has it; its address if there is no answer."""
    name = answer.get("host") if isinstance(answer, dict) else None
    where = url.removeprefix(SCHEME)
    if not isinstance(name, str) or not name or name in taken:
        return where
    return name[:64] if name.isprintable() else where
