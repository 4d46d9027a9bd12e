"""Tests of ``paraglider.daemon.monitor.outbox``: the newest news, in few messages."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable

from waiting import TIMEOUT

from paraglider.core.pool import Event
from paraglider.daemon.messages import DnsFailure, DnsName, FileChanged, HealthNews, Message
from paraglider.daemon.monitor.outbox import MOST, Outbox
from paraglider.health.codes import Code
from paraglider.health.results import CheckReport, DiscoveredHost, HealthChange

NAME = DnsName("_web._tcp.example", "", 4)
HOST = DiscoveredHost(True, ipaddress.ip_address("10.0.0.9"), "answers", 1.0)


class Supervisor:
    """Records messages; ``pending`` while it does not read."""

    def __init__(self) -> None:
        self.pending = False
        self.sent: list[Message] = []

    def send(self, message: Message) -> None:
        """See ``outbox.NewsReceiver``."""
        self.sent.append(message)


def report(number: int, at: float = 0.0) -> CheckReport:
    """A check of one of many backends."""
    return CheckReport("web", f"10.0.0.{number}", True, Code.L4OK, "connected", 0.01, at)


def change(number: int, event: Event, at: float = 0.0) -> HealthChange:
    """A backend that went up or down."""
    assert event is Event.CHECK_PASSED or event is Event.CHECK_FAILED
    return HealthChange("web", f"10.0.0.{number}", event, "refused", at)


def on_loop(play: Callable[[Outbox, Supervisor], Awaitable[None]]) -> None:
    """Run ``play``."""

    async def main() -> None:
        outbox = Outbox()
        async with asyncio.timeout(TIMEOUT):
            await play(outbox, Supervisor())
        outbox.close()

    asyncio.run(main())


async def until(true: Callable[[], object]) -> None:
    """Wait for it."""
    while not true():
        await asyncio.sleep(0.001)


def test_results_go_together() -> None:
    """Results within a moment are one message, with those from before it was opened."""

    async def play(outbox: Outbox, supervisor: Supervisor) -> None:
        outbox.add_health(report(1))
        outbox.open(supervisor)
        outbox.add_health(change(1, Event.CHECK_FAILED))
        outbox.add_health(HOST)
        outbox.add_health(report(2))
        await until(lambda: len(supervisor.sent) == 2)
        assert supervisor.sent == [
            HealthNews(changes=(change(1, Event.CHECK_FAILED),), hosts=(HOST,)),
            HealthNews(reports=(report(1), report(2))),
        ]

    on_loop(play)


def test_a_supervisor_that_does_not_read_gets_the_newest() -> None:
    """Nothing is sent meanwhile; then the newest result of each backend, name and file."""

    async def play(outbox: Outbox, supervisor: Supervisor) -> None:
        outbox.open(supervisor)
        supervisor.pending = True
        for at in range(100):
            event = Event.CHECK_PASSED if at % 2 else Event.CHECK_FAILED
            outbox.add_health(report(1, at))
            outbox.add_health(change(1, event, at))
            outbox.add_discovery(DnsFailure(name=NAME, why=f"answer {at}"))
            outbox.add_discovery(FileChanged(file="/etc/web"))
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)  # more than it waits for others
        assert supervisor.sent == []
        supervisor.pending = False
        await until(lambda: len(supervisor.sent) == 4)
        assert supervisor.sent == [
            HealthNews(changes=(change(1, Event.CHECK_PASSED, 99),)),
            HealthNews(reports=(report(1, 99),)),
            DnsFailure(name=NAME, why="answer 99"),
            FileChanged(file="/etc/web"),
        ]

    on_loop(play)


def test_messages_are_bounded() -> None:
    """No message has more than MOST results."""

    async def play(outbox: Outbox, supervisor: Supervisor) -> None:
        outbox.open(supervisor)
        for number in range(MOST + 1):
            outbox.add_health(report(number))
        await until(lambda: len(supervisor.sent) == 2)
        sizes = [len(m.reports) for m in supervisor.sent if isinstance(m, HealthNews)]
        assert sizes == [MOST, 1]

    on_loop(play)
