"""A flow table with a carrier: which calls the carrier gets, and how its answers are used."""

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
    """Carries established flows; knows when each was last seen, and which are closed."""

    def __init__(self, table: FlowTable) -> None:
        self.seen: dict[bytes, float] = {}
        self.closed: set[bytes] = set()
        self.restored: list[Flow] = []
        self._table = table

    def restore(self, flow: Flow) -> None:
        """A flow of a journal."""
        self.restored.append(flow)

    def moved(self, flow: Flow) -> None:
        """A flow more, or one less."""
        if flow.state == ESTABLISHED:
            assert flow.forward_key not in self.seen
            self.seen[flow.forward_key] = flow.seen
            flow.carried = 1
        elif flow.carried:
            self.remove(flow)

    def refresh(self, flow: Flow) -> bool:
        """As the test has set it."""
        seen = self.seen[flow.forward_key]
        news = seen > flow.seen
        flow.seen = max(flow.seen, seen)
        if flow.forward_key in self.closed:
            self._table.move(flow, TIME_WAIT, flow.seen)
            return True
        return news

    def remove(self, flow: Flow) -> None:
        """A flow less."""
        del self.seen[flow.forward_key]
        flow.carried = 0


def opened(table: FlowTable, translation: Translation, port: int, now: float) -> Flow:
    """An established flow from the client's ``port``."""
    assert table.make_room(TCP, now)
    key = packed(V4.client) + translation.vip + port.to_bytes(2, "big") + b"\0\x50"
    flow = table.open(TCP, key, translation.reverse_key(key), translation, now)
    table.move(flow, ESTABLISHED, now)
    return flow


def carried(bound: int = 10) -> tuple[FlowTable, Kernel, Translation]:
    """A table of flows that a kernel carries."""
    table = FlowTable(FlowTimeouts(), bound)
    kernel = table.carrier = Kernel(table)
    return table, kernel, Translation(VIP, 80, backend(V4.backends[0]))


def test_flows_that_the_carrier_saw_do_not_expire() -> None:
    """They time out after the last packet that the carrier saw."""
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


def test_carried_flows_count_for_three_in_the_budget() -> None:
    """To ask the carrier and to remove the entry takes twice as long as to remove the flow."""
    table, _, translation = carried()
    for port in range(1000, 1004):
        opened(table, translation, port, 0.0)
    assert table.expire(8000.0, 6) == 6
    assert (len(table), table.expired) == (2, 2)
    assert table.expire(8000.0) == 6


def test_flows_that_the_carrier_saw_are_not_evicted() -> None:
    """Another flow is evicted, or none: the backend's answers bypass the worker."""
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


def test_flows_that_the_carrier_saw_close_make_room() -> None:
    """Their state is that of the carrier before another flow is evicted for a new one."""
    table, kernel, translation = carried(bound=2)
    _, closed = (opened(table, translation, port, 0.0) for port in (1000, 1001))
    kernel.closed.add(closed.forward_key)
    kernel.seen[closed.forward_key] = 10.0
    assert not table.make_room(TCP, 20.0)  # nothing has asked for it
    assert table.refresh(closed)
    assert (closed.state, closed.seen, table.closing) == (TIME_WAIT, 10.0, 1)
    assert not table.refresh(closed)
    assert table.make_room(TCP, 20.0)
    assert closed.state == GONE


def test_a_flow_that_the_carrier_saw_close_expires_as_a_closed_one() -> None:
    """Its time is over from the packet that the carrier saw last."""
    table, kernel, translation = carried()
    flow = opened(table, translation, 1000, 0.0)
    kernel.seen[flow.forward_key] = 7430.0
    kernel.closed.add(flow.forward_key)
    table.expire(7450.0)
    assert (flow.state, kernel.seen) == (TIME_WAIT, {})
    table.expire(7495.0)
    assert (flow.state, len(table), table.expired) == (GONE, 0, 1)


def test_the_carrier_gets_restored_flows() -> None:
    """Whether they are carried still is its to find out."""
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
    assert [(each.forward_key, each.state) for each in kernel.restored] == [
        (flow.forward_key, ESTABLISHED)
    ]
