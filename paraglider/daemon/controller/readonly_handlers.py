"""The hub's answers to the process of the stats page, which speaks with anybody.

    status    how things are
    set       a backend's state or weight, given the token

Rules: nothing else is answered, and of a change nothing but these words is handed on. It is looked
at like one from the control socket (``desk``).
"""

from __future__ import annotations

from typing import Any, Final

from paraglider.daemon import log
from paraglider.daemon.controller.handlers import Handlers, Reply, refusal
from paraglider.daemon.processes.channel import Message
from paraglider.daemon.web import token
from paraglider.errors import OperatorError

_WORDS: Final = ("service", "backend", "state", "weight")


class ReadOnlyHandlers:
    """In front of ``desk``; ``wanted`` is the hash of the token, None where nobody changes
    anything.
    """

    def __init__(self, desk: Handlers, wanted: bytes | None) -> None:
        self._desk = desk
        self._wanted = wanted
        self._log: Any = log.logger()

    def take(self, request: Message, reply: Reply) -> None:
        """Answer ``request`` by calling ``reply`` once, now or later."""
        if request.get("do") == "status":
            self._desk.take({"do": "status"}, reply)
        elif request.get("do") != "set":
            reply(refusal(OperatorError("there is no such request")))
        elif self._wanted is None:
            remedy = "set `admin: true` under `stats`, or use `paraglider set`"
            reply(refusal(OperatorError("this page changes nothing", remedy)))
        elif not token.right(request.get("token"), self._wanted):
            self._log.warning("stats page: a change was asked for with a wrong token")
            remedy = "the file with the token is `token_file` under `stats`, or stats.token"
            reply(refusal(OperatorError("that is not the token", remedy)))
        else:
            words: Message = {name: request[name] for name in _WORDS if name in request}
            self._desk.take({**words, "do": "set"}, reply)
