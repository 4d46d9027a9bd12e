"""The supervisor's answers to requests of the stats page, which any client may send.

    status    services, backends, processes and health
    set       set a backend's state or weight; needs the token

Rules: nothing else is answered. A change is handled like one from the control socket.
"""

from __future__ import annotations

from typing import Any

from paraglider.daemon import log
from paraglider.daemon.controller.handlers import Handlers, Reply
from paraglider.daemon.messages import Message, Refusal, SetRequest, ShowRequest
from paraglider.daemon.web import token
from paraglider.errors import OperatorError


class ReadOnlyHandlers:
    """Restricts ``handlers``; ``wanted`` is the hash of the token, None for a read-only page."""

    def __init__(self, handlers: Handlers, wanted: bytes | None) -> None:
        self._handlers = handlers
        self._wanted = wanted
        self._log: Any = log.logger()

    def handle(self, request: Message, reply: Reply) -> None:
        """Answer ``request`` by calling ``reply`` once, now or later."""
        if isinstance(request, ShowRequest) and request.view == "status":
            self._handlers.handle(request, reply)
        elif not isinstance(request, SetRequest):
            reply(Refusal.of(OperatorError("there is no such request")))
        elif self._wanted is None:
            remedy = "set `admin: true` under `stats`, or use `paraglider set`"
            reply(Refusal.of(OperatorError("this page changes nothing", remedy)))
        elif not token.matches(request.token, self._wanted):
            self._log.warning("stats page: change refused, wrong token")
            remedy = "the file with the token is `token_file` under `stats`, or stats.token"
            reply(Refusal.of(OperatorError("that is not the token", remedy)))
        else:
            self._handlers.handle(request, reply)
