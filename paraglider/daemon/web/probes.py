"""The answers to probes of orchestrators and of other load balancers: 200 or 503.

    GET /healthz           503 when `paraglider health` is unhealthy
    GET /readyz            503 when it is unhealthy or draining: as its --exit-code
    GET /…?of=node         of this balancer alone: its backends do not count

Lives here: ``probe`` and PATHS.
Rules: pure, from the last sample; the body is the text of `paraglider health`. A sample that is
too old, since the supervisor does not answer, is a 503.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from paraglider.errors import OperatorError, PlatformError

#: the paths, and the words of `paraglider health` for which each answers 503
PATHS: Final = {"/healthz": ("unhealthy",), "/readyz": ("unhealthy", "draining")}
#: seconds by which a sample may be late
LATE: Final = 10.0


def probe(path: str, of: str | None, sample: Mapping[str, Any], late: float) -> web.Response:
    """The answer of ``path`` by ``sample``, whose successor is ``late`` by so many seconds.

    ``of`` is None or "node". Raises ``OperatorError`` for another, ``PlatformError`` if late.
    """
    if of not in (None, "node"):
        raise OperatorError(f"there is no health of {of!r}", "write of=node, or leave it out")
    if late > LATE:
        raise PlatformError(f"the supervisor has not answered for {late:.0f} s")
    lines = [sample["node"]["health"]]
    if of is None:
        lines = [sample["health"]["status"], *sample["health"]["problems"]]
    failed = lines[0] in PATHS[path]
    status = HTTPStatus.SERVICE_UNAVAILABLE if failed else HTTPStatus.OK
    return web.Response(status=status, text="\n".join(lines) + "\n")
