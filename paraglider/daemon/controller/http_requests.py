"""The requests of the http process, and what they may do.

A request of the stats page goes to the read-only handlers; one of the control socket to all
handlers, if a client of the control socket made it (``control.connections``).

Lives here: ``HttpRequests``.
Rules: the process is not trusted.
"""

from __future__ import annotations

from typing import Any

from paraglider.daemon import log
from paraglider.daemon.control.connections import ControlConnections
from paraglider.daemon.controller.handlers import Handlers, Reply
from paraglider.daemon.controller.readonly_handlers import ReadOnlyHandlers
from paraglider.daemon.messages import ClientRequest, Refusal
from paraglider.errors import OperatorError

_REMEDY = "send it whole, with its Content-Length, at most 64 KiB"


class HttpRequests:
    """Passes requests to ``handlers``; ``token`` is the hash of the page's token, ``control`` has
    the requests that clients of the control socket made (None: there are none).
    """

    def __init__(
        self, handlers: Handlers, token: bytes | None, control: ControlConnections | None
    ) -> None:
        self._handlers = handlers
        self._read_only = ReadOnlyHandlers(handlers, token)
        self._control = control
        self._log: Any = log.logger()

    def handle(self, request: ClientRequest, reply: Reply) -> None:
        """Answer ``request`` by calling ``reply`` once, now or later."""
        if request.listener == "stats":
            self._read_only.handle(request, reply)
        elif self._control is not None and self._control.requested(request):
            self._handlers.handle(request, reply)
        else:
            self._log.warning("control socket: request refused, no client made it")
            what = "this request was not read at the control socket"
            reply(Refusal.of(OperatorError(what, _REMEDY)))
