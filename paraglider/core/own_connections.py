"""Connections that a backend has opened itself, told from its answers.

Where a service has all ports, a backend's segment in mid-stream may be an answer of a flow that
began at another balancer, or of a connection of the backend's own, which must pass unchanged. So
the client is asked: the segment is sent as an answer of the VIP, by a flow that is adopted. A
client goes on with its flow. To a stranger the segment belongs to no connection: it answers RST, or
nothing for ``ASKED_SECONDS``, and the backend repeats the segment, which passes unchanged then.

Lives here: ``OwnConnections``.
Rules: time is an argument; memory is bounded. A connection whose SYN was seen is never asked about.
"""

from __future__ import annotations

from typing import Final

#: seconds within which a client goes on with a flow, and most flows for which that is waited for
ASKED_SECONDS: Final = 1.0
ASKED_MOST: Final = 100_000
#: seconds without a packet after which a connection is forgotten (the idle timeout of RFC 5382),
#: and most connections
OWN_SECONDS: Final = 7440.0
OWN_MOST: Final = 100_000


class OwnConnections:
    """Those of backends, by the keys of the backends' packets."""

    def __init__(self) -> None:
        self._own: dict[bytes, float] = {}  # until when; the oldest first
        self._asked: dict[bytes, float] = {}  # until when a client may go on; the oldest first

    def add(self, key: bytes, now: float) -> None:
        """The packets with ``key`` are of a connection of the backend's own."""
        self._asked.pop(key, None)
        self._own.pop(key, None)
        self._own[key] = now + OWN_SECONDS
        if len(self._own) > OWN_MOST:
            del self._own[next(iter(self._own))]

    def has(self, key: bytes, now: float) -> bool:
        """Whether a packet with ``key`` is of such a connection, which is remembered for longer."""
        until = self._own.get(key, 0.0)
        if now < until < now + OWN_SECONDS / 2:
            self.add(key, now)
        return now < until

    def ask(self, key: bytes, now: float) -> None:
        """A flow was adopted by a packet with ``key``: its client has to go on with it."""
        self._asked.pop(key, None)
        self._asked[key] = now + ASKED_SECONDS
        if len(self._asked) > ASKED_MOST:
            del self._asked[next(iter(self._asked))]

    def is_asked(self, key: bytes) -> bool:
        """Whether the client has not gone on yet."""
        return key in self._asked

    def is_overdue(self, key: bytes, now: float) -> bool:
        """Whether it has not, and had time enough."""
        return now >= self._asked.get(key, now + 1.0)

    def answer(self, key: bytes) -> bool:
        """The client need not go on with the flow, or has; returns whether it was asked."""
        return self._asked.pop(key, None) is not None
