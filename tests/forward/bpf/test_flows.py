"""Tests of ``paraglider.forward.bpf.flows``: the entries of flows, whatever the kernel says."""

from __future__ import annotations

import errno
from collections import Counter

import pytest
from bpf_world import WIDE, MemoryMap, MemoryRing, Worker, client_key, web, worker
from packets import V4, backend

from paraglider.bpf.layout import ALIAS, ESTABLISHED, FIN_BACK, REPLIED
from paraglider.core import flow_states as states
from paraglider.core.flow import TCP, Flow
from paraglider.errors import PlatformError
from paraglider.forward.bpf.context import BpfContext
from paraglider.forward.bpf.entry import ALIASED, NOT_CARRIED, PLAIN, UNKNOWN, FlowEntry
from paraglider.forward.bpf.flows import REPORT_INTERVAL, CarriedFlows
from paraglider.forward.bpf.slots import Slots


def table_of(one: Worker, index: int = 0, workers: int = 1) -> CarriedFlows:
    """The entries of the flows of a worker, as a carrier of its own sees them."""
    slots = Slots(one.maps)
    slots.configure(one.path.balancer.services.services, ())
    return CarriedFlows(BpfContext(one.maps, MemoryRing(), index, workers), slots, one.flows)


def opened(one: Worker, client: int = 1000) -> Flow:
    """A flow of one SYN, which has no entry yet."""
    one.carrier.switch(False)
    one.packet(TCP, client_key(client), "S", 5.0)
    return one.flows.forward[TCP][client_key(client)]


@pytest.mark.parametrize(("ports", "says"), [(((80, 80),), PLAIN), (WIDE, ALIASED)])
def test_an_installed_flow_says_what_it_has(ports: tuple[tuple[int, int], ...], says: int) -> None:
    """An entry, or an alias too; nothing once it is removed, and each change is counted once."""
    one = worker(web(ports=ports))
    flow, flows = opened(one), table_of(one)
    for _ in range(2):
        flows.install(flow)
        assert (flow.carried, flows.count) == (says, 1)
    assert FlowEntry.unpack(one.maps.flows[TCP, 4].get(flow.forward_key) or b"").slot > 0
    assert len(content(one)) == says
    for _ in range(2):
        flows.remove(flow)
        assert (flow.carried, flows.count, content(one)) == (NOT_CARRIED, 0, {})


def test_what_is_read_settles_a_flow_of_which_nothing_is_known() -> None:
    """It has its entry, and gets the alias that it lacks; without an entry it is not carried."""
    one = worker(web(ports=WIDE))
    flow, flows = opened(one), table_of(one)
    flows.install(flow)
    del content(one)[flow.reverse_key]
    flow.carried, flows.count = UNKNOWN, 0
    assert flows.read(flow) == one.entry(flow)
    assert (flow.carried, flows.count) == (ALIASED, 1)
    assert FlowEntry.unpack(content(one)[flow.reverse_key]).flags == ALIAS
    content(one).clear()
    flow.carried = UNKNOWN
    assert flows.read(flow) is None
    assert flow.carried == NOT_CARRIED


def test_an_entry_of_another_flow_with_the_same_ports_is_not_believed() -> None:
    """It is removed if it is this worker's, and left where another one answers for it."""
    one = worker()
    flow, flows = opened(one), table_of(one, 0, 2)
    for owner in (0, 1):
        other = FlowEntry(1, REPLIED | ESTABLISHED, 0, flow.translation.slot + 1, owner)
        content(one)[flow.forward_key] = other.pack()
        flow.carried = UNKNOWN
        assert flows.read(flow) is None
        assert flow.carried == NOT_CARRIED
        assert (flow.forward_key in content(one)) is (owner == 1)


def test_the_first_worker_answers_for_those_that_are_no_more() -> None:
    """Every other one for its own entries."""
    one = worker()
    first, last = table_of(one, 0, 2), table_of(one, 1, 2)
    mine = [[flows.is_own(FlowEntry(0, 0, owner=n)) for n in range(4)] for flows in (first, last)]
    assert mine == [[True, False, True, True], [False, True, False, False]]


def test_what_is_off_installs_nothing() -> None:
    """Nor does a flow without a slot get an entry; neither is a refusal."""
    one = worker()
    flow, flows = opened(one), table_of(one)
    flows.on = False
    flows.install(flow)
    flows.on, flow.translation.slot = True, 0
    flows.install(flow)
    assert (content(one), flows.refused, flows.refusals) == ({}, 0, Counter())


def content(one: Worker) -> dict[bytes, bytes]:
    """All entries of TCP over IPv4."""
    flows = one.maps.flows[TCP, 4]
    assert isinstance(flows, MemoryMap)
    return flows.content


def test_a_fin_that_the_worker_sees_is_in_the_entry() -> None:
    """One with IP options, say; with the other FIN, by the program, the connection is closed."""
    one = worker()
    flow = one.open()
    one.program.attached = False
    one.packet(TCP, flow.reverse_key, "FA", 1.0)
    one.program.attached = True
    assert flow.state == states.FIN_BACKEND
    assert one.entry(flow).flags == REPLIED | ESTABLISHED | FIN_BACK
    assert one.entry(flow).packets_out == 1
    assert one.packet(TCP, flow.forward_key, "FA", 2.0)
    one.carrier.sync(2.1)
    assert flow.state == states.TIME_WAIT
    one.check()


def test_both_fins_one_by_each() -> None:
    """The worker has the last one: it waits for the last ACK itself."""
    one = worker()
    flow = one.open()
    assert one.packet(TCP, flow.forward_key, "FA", 1.0)
    one.program.attached = False
    one.packet(TCP, flow.reverse_key, "FA", 1.0)
    assert flow.state == states.LAST_ACK
    one.check()


def test_a_flow_that_the_operator_ends_is_carried_no_more() -> None:
    """Nor are the packets of its backend."""
    one = worker(web(ports=WIDE))
    flow = one.open()
    one.path.end(flow, 1.0)
    assert not one.packet(TCP, flow.forward_key, "A", 1.0)
    assert not one.packet(TCP, flow.reverse_key, "A", 1.0)
    one.check()


@pytest.mark.parametrize("ports", [((80, 80),), WIDE], ids=["origin", "alias"])
def test_a_full_map_leaves_flows_to_the_worker(ports: tuple[tuple[int, int], ...]) -> None:
    """Counted, and reported once a minute; they are carried when they next may be."""
    one = worker(web(ports=ports), entries=3)
    for port in range(1000, 1004):
        one.packet(TCP, client_key(port), "S")
    carried = 3 if ports != WIDE else 1
    assert (one.carrier.carried, one.carrier.counts()) == (
        carried,
        {"carrier_refused": 4 - carried},
    )
    one.check()
    with pytest.raises(PlatformError, match=f"E2BIG: {4 - carried}"):
        one.carrier.sync(1.0)
    one.packet(TCP, client_key(1004), "S")
    one.carrier.sync(2.0)
    flow = one.flows.forward[TCP][client_key(1003)]
    assert not one.packet(TCP, flow.reverse_key, "SA", 2.0, seq=70)
    one.path.end(one.flows.forward[TCP][client_key(1000)], 2.0)
    assert not one.packet(TCP, flow.forward_key, "A", 2.0, ack=71)
    assert one.packet(TCP, flow.forward_key, "A", 2.0, ack=71)
    one.check()
    with pytest.raises(PlatformError):
        one.carrier.sync(1.0 + REPORT_INTERVAL)


def test_refusals_of_the_kernel_raise_nowhere_else() -> None:
    """EPERM from every map: the packets of all flows pass the worker."""
    one = worker()
    flows = one.maps.flows[TCP, 4]
    assert isinstance(flows, MemoryMap)
    flow = one.open()
    flows.refusal = errno.EPERM

    def get(key: bytes) -> bytes | None:
        raise OSError(errno.EPERM, "refused")

    flows.get = get  # type: ignore[method-assign]
    assert not one.flows.refresh(flow)
    one.program.attached = False
    one.packet(TCP, client_key(1001), "S")
    one.packet(TCP, flow.forward_key, "R", 1.0)
    with pytest.raises(PlatformError, match="EPERM"):
        one.carrier.sync(1.0)


def test_two_services_on_one_backend() -> None:
    """Both VIPs at one port: the program finds each flow's own by its origin or its alias."""
    backends = [backend(V4.backends[0])]
    one = worker(web(backends=backends), web(name="b", vip=V4.other_vip, backends=backends))
    flow = one.open(1000)
    key = client_key(1001, vip=V4.other_vip)
    one.packet(TCP, key, "S")
    other = one.flows.forward[TCP][key]
    assert one.packet(TCP, other.reverse_key, "SA", seq=1)
    assert one.packet(TCP, other.forward_key, "A", ack=2)
    one.carrier.sync(0.1)
    assert (flow.state, other.state) == (states.ESTABLISHED, states.ESTABLISHED)
    one.check()
