"""A flow table whose flows are carried elsewhere: their carrier is told of them, and asked."""

from __future__ import annotations

from packets import V4, backend, packed

from paraglider.core.flow import TCP, Flow, FlowTimeouts
from paraglider.core.flow_states import ESTABLISHED, GONE, TIME_WAIT
from paraglider.core.flow_table import FlowTable
from paraglider.core.journal import Journal, size_of, write_header
from paraglider.core.pool import Pool
from paraglider.core.restore import Translations, restore
from paraglider.core.service import VirtualService
from paraglider.core.strategies import create
from paraglider.core.strategies.base import Context
from paraglider.core.translation import Translation

VIP = packed(V4.vip)


class Kernel:
    """Carries flows and knows when each was last seen."""

    def __init__(self) -> None:
        self.seen: dict[bytes, float] = {}

    def install(self, flow: Flow) -> int:
        """A flow more."""
        assert flow.forward_key not in self.seen
        self.seen[flow.forward_key] = flow.seen
        return 0

    def remove(self, flow: Flow) -> None:
        """A flow less."""
        del self.seen[flow.forward_key]

    def last_seen(self, flow: Flow) -> float:
        """As the test has set it."""
        return self.seen[flow.forward_key]


def opened(table: FlowTable, translation: Translation, port: int, now: float) -> Flow:
    """An established flow from the client's ``port``."""
    assert table.make_room(TCP, now)
    key = packed(V4.client) + translation.vip + port.to_bytes(2, "big") + b"\0\x50"
    flow = table.open(TCP, key, translation.reverse_key(key), translation, now)
    table.move(flow, ESTABLISHED, now)
    return flow


def carried(bound: int = 10) -> tuple[FlowTable, Kernel, Translation]:
    """A table of flows that a kernel carries."""
    table, kernel = FlowTable(FlowTimeouts(), bound), Kernel()
    table.carrier = kernel
    return table, kernel, Translation(VIP, 80, backend(V4.backends[0]))


def test_flows_that_the_carrier_saw_do_not_expire() -> None:
    """They expire when their time is over from the packet that the carrier saw last."""
    table, kernel, translation = carried()
    silent, busy = (opened(table, translation, port, 0.0) for port in (1000, 1001))
    kernel.seen[busy.forward_key] = 5000.0
    table.expire(7500.0)
    assert (silent.state, busy.state, busy.seen) == (GONE, ESTABLISHED, 5000.0)
    assert list(kernel.seen) == [busy.forward_key]
    table.expire(12_400.0)
    assert busy.state == ESTABLISHED
    table.expire(12_500.0)
    assert (busy.state, kernel.seen) == (GONE, {})


def test_flows_that_the_carrier_saw_are_not_evicted() -> None:
    """Another one makes room, or none: the answers of the backend do not pass the worker."""
    table, kernel, translation = carried(bound=2)
    silent, busy = (opened(table, translation, port, 0.0) for port in (1000, 1001))
    for flow in (silent, busy):
        kernel.seen[flow.forward_key] = 7300.0
    assert not table.make_room(TCP, 7400.0)
    kernel.seen[busy.forward_key] = 14_000.0
    assert table.make_room(TCP, 14_600.0)
    assert (silent.state, busy.state) == (GONE, ESTABLISHED)
    table.move(busy, TIME_WAIT, 14_600.0)
    opened(table, translation, 1002, 14_600.0)
    assert table.make_room(TCP, 14_700.0)
    assert busy.state == GONE
    assert len(kernel.seen) == len(table) == 1


def test_restored_flows_are_installed() -> None:
    """The worker before may have had another carrier."""
    pool = Pool([backend(V4.backends[0])])
    strategy = create("rr", Context("web", 0, None))
    service = VirtualService("web", VIP, (TCP,), ((80, 80),), pool, strategy)
    (translation,) = service.translations.values()
    memory = bytearray(size_of(4))
    write_header(memory, 4, bytes(16))
    before = FlowTable(FlowTimeouts(), 10)
    before.journal = Journal(memory)
    before.journal.complete = True
    flow = opened(before, translation, 1000, 0.0)
    table, kernel, _ = carried()
    restore(table, Journal(memory), Translations([service]), 1.0)
    assert list(kernel.seen) == [flow.forward_key]
