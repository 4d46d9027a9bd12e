"""The monitor's unsent results: the newest of each subject, sent in few messages.

Lives here: ``Outbox``.
Rules: results within WAIT seconds are sent in one message. While the supervisor has not read the
last message nothing is sent, and only the newest result of each backend, name and file is kept, so
a slow supervisor gets the newest state, never a backlog.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Final, Protocol

from paraglider.daemon.messages import DnsFailure, DnsUpdate, FileChanged, HealthNews, Message
from paraglider.health.results import AgentReport, CheckReport, DiscoveredHost, HealthChange

#: seconds to wait for further results
WAIT: Final = 0.01
#: most results in one message: what the supervisor handles at a time
MOST: Final = 512

News = CheckReport | HealthChange | DiscoveredHost | AgentReport
DiscoveryNews = DnsUpdate | DnsFailure | FileChanged


class NewsReceiver(Protocol):
    """What the outbox needs of ``ipc.LoopEndpoint``."""

    @property
    def pending(self) -> bool:
        """Whether the supervisor has not read all that was sent."""

    def send(self, message: Message) -> None:
        """Send ``message``."""


class Outbox:
    """Collects results; sends them to the endpoint given to ``open``, on the running loop."""

    def __init__(self) -> None:
        self._peer: NewsReceiver | None = None
        self._due: asyncio.TimerHandle | None = None
        self._health: dict[tuple[object, ...], News] = {}
        self._found: dict[object, DiscoveryNews] = {}

    def open(self, peer: NewsReceiver) -> None:
        """Send to ``peer`` from now on."""
        self._peer = peer
        self._schedule()

    def close(self) -> None:
        """Stop sending."""
        self._peer = None
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def add_health(self, news: News) -> None:
        """Add a result of the checker."""
        about = (news.address,) if isinstance(news, DiscoveredHost) else news[:2]
        key = (type(news), *about)
        self._health.pop(key, None)  # the newest comes last
        self._health[key] = news
        self._schedule()

    def add_discovery(self, news: DiscoveryNews) -> None:
        """Add a DNS answer or a changed file."""
        key = news.file if isinstance(news, FileChanged) else news.name
        self._found.pop(key, None)
        self._found[key] = news
        self._schedule()

    def _schedule(self) -> None:
        if self._peer is not None and self._due is None and (self._health or self._found):
            self._due = asyncio.get_running_loop().call_later(WAIT, self._send)

    def _send(self) -> None:
        self._due = None
        if self._peer is None:
            return
        while not self._peer.pending and (message := self._next()) is not None:
            self._peer.send(message)
        self._schedule()

    def _next(self) -> Message | None:
        """The next message, changes of health first; None if there is none."""
        if not self._health:
            return self._found.pop(next(iter(self._found))) if self._found else None
        changed = [key for key in self._health if key[0] is not CheckReport]
        keys = list(islice(changed or self._health, MOST))
        return _message(self._health.pop(key) for key in keys)


def _message(news: Iterator[News]) -> HealthNews:
    reports: list[CheckReport] = []
    changes: list[HealthChange] = []
    hosts: list[DiscoveredHost] = []
    agents: list[AgentReport] = []
    for one in news:
        if isinstance(one, CheckReport):
            reports.append(one)
        elif isinstance(one, HealthChange):
            changes.append(one)
        elif isinstance(one, AgentReport):
            agents.append(one)
        else:
            hosts.append(one)
    return HealthNews(
        reports=tuple(reports), changes=tuple(changes), hosts=tuple(hosts), agents=tuple(agents)
    )
