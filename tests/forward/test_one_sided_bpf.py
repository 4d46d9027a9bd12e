"""Half flows that BPF carries: what the worker learns from their entries, and what it leaves to it.

The maps and the program are those of ``bpf_world``.
"""

from __future__ import annotations

import errno

import pytest
from bpf_world import LEASE, MemoryMap, Worker, client_key, entries, web, worker
from packets import V4

from paraglider.bpf.layout import DIRECT
from paraglider.bpf.layout import ESTABLISHED as PROVEN
from paraglider.core import flow_states as states
from paraglider.core.flow import TCP, UDP
from paraglider.core.flow_states import UNSEEN_WINDOW
from paraglider.core.pool import Event
from paraglider.core.service import VirtualService
from paraglider.core.verdict import MARK
from paraglider.forward.bpf.entry import FlowEntry

KEY = client_key(1000)


def routed(**changes: object) -> VirtualService:
    """A service whose backends have the VIP."""
    return web(**{"direct": True, "routed": True, "method": "dsr", **changes})


def marked(one: Worker, *, lease: bool) -> bool:
    """Whether the last packet went to its backend by a mark, with a lease or without."""
    return one.verdict & 0xFF == MARK and bool(one.verdict >> 8 & LEASE) is lease


def test_a_flow_is_installed_once_it_is_proven() -> None:
    """A SYN and what a forger may send fill no map. The packet that proves the client asks for a
    lease too, by which nft learns of it; the next ones are the program's.
    """
    one = worker(routed())
    one.packet(TCP, KEY, "S", seq=1)
    assert marked(one, lease=False)
    for number in (1, 2):
        assert not one.packet(TCP, KEY, "A", number / 8, seq=2 * number, ack=70)
        assert marked(one, lease=False)
        assert one.carrier.carried == 0
    assert not one.packet(TCP, KEY, "A", 1.0, seq=9, ack=90)
    assert marked(one, lease=True)
    flow = one.flows.forward[TCP][KEY]
    assert (flow.state, one.carrier.carried) == (states.ESTABLISHED, 1)
    one.check()
    (value,) = entries(one.maps.flows[TCP, 4]).values()
    assert FlowEntry.unpack(value).flags & (DIRECT | PROVEN) == DIRECT | PROVEN
    assert one.packet(TCP, KEY, "A", 2.0, seq=9)
    assert one.carrier.packets(flow) == (1, 0)


def test_the_second_datagram_installs() -> None:
    """A flood of first ones fills no map; services with an answer to each query have no flows."""
    one = worker(routed())
    assert not any(one.packet(UDP, KEY, now=now) for now in (0.0, 1.0))
    assert one.packet(UDP, KEY, now=2.0)
    assert one.carrier.carried == 1
    one = worker(routed(udp_reply=5.0))
    assert not any(one.packet(UDP, KEY, now=float(now)) for now in range(5))


def test_the_end_of_a_flow() -> None:
    """A RST passes the worker, and the FIN of a client that nft may not know. The worker reads the
    client's number in the entry first, and gives no lease: the last segment ends the flow.
    """
    for after in (states.CLIENT_DONE, states.CLIENT_RESET):
        one = worker(routed())
        flow = one.open_routed()
        far = 1 << 19
        for step in range(1, 9):
            assert one.packet(TCP, KEY, "A", float(step), seq=step * far)
        forged, right = (1 << 31, 8 * far + 100)
        for number, state in ((forged, states.ESTABLISHED), (right, after)):
            flags = "FA" if after == states.CLIENT_DONE else "R"
            assert not one.packet(TCP, KEY, flags, 9.0, seq=number, ack=500)
            assert flow.state == state
            if state != states.ESTABLISHED:
                assert marked(one, lease=False)
        assert one.carrier.carried == (after == states.CLIENT_DONE)
        one.check()
        if after == states.CLIENT_DONE:
            assert one.packet(TCP, KEY, "A", 9.1, seq=right + 1, ack=501)
            one.carrier.sync(9.2)
            assert (flow.state, one.carrier.carried) == (states.TIME_WAIT, 0)
            one.check()


def test_a_known_clients_fin_passes_no_worker() -> None:
    """The worker hears of it, and of the last ACK."""
    one = worker(routed())
    flow = one.open_routed()
    one.program.known.add(KEY[:4])
    assert one.packet(TCP, KEY, "FA", 1.0, seq=7, ack=500)
    one.carrier.sync(1.1)
    assert (flow.state, one.carrier.carried) == (states.CLIENT_DONE, 1)
    one.check()
    assert one.packet(TCP, KEY, "A", 1.2, seq=8, ack=501)
    one.carrier.sync(1.3)
    assert (flow.state, one.carrier.carried) == (states.TIME_WAIT, 0)


def test_a_flow_that_goes_on_lives() -> None:
    """Its idle timeout counts from the packet that the program saw last, not from the worker's."""
    one = worker(routed())
    flow = one.open_routed()
    limit = one.flows.timeouts.by_state[states.ESTABLISHED]
    assert one.packet(TCP, KEY, "A", limit - 1.0)
    one.flows.expire(limit + 10.0)
    assert (len(one.flows), one.carrier.carried) == (1, 1)
    one.flows.expire(2 * limit + 10.0)
    assert (flow.state, one.carrier.carried) == (states.GONE, 0)
    one.check()


def test_a_lost_backend_and_a_killed_flow() -> None:
    """The program gives the packets back; leases end too. A killed client is refused."""
    service = routed(life={"on_down": "reset"})
    one = worker(service)
    flow = one.open_routed()
    backend = flow.translation.backend
    service.pool.apply(backend, Event.CHECK_FAILED)
    one.carrier.sync(2.0)
    assert one.ended == [1]
    assert not one.packet(TCP, KEY, "A", 3.0)
    assert KEY not in one.flows.forward[TCP]
    one.check()
    assert not one.packet(TCP, KEY, "S", 3.5)
    assert one.flows.forward[TCP][KEY].translation.backend is not backend
    one.path.end(one.flows.forward[TCP][KEY], 4.0)
    one.carrier.sync(4.0)
    assert one.ended == [1, 2]
    assert not one.packet(TCP, KEY, "A", 5.0)
    assert KEY not in one.flows.forward[TCP]
    one.check()


def test_what_the_kernel_refuses_has_leases() -> None:
    """A full map: the flow is carried as without BPF, and installed when there is room."""
    one = worker(routed())
    flows = one.maps.flows[TCP, 4]
    assert isinstance(flows, MemoryMap)
    flows.refusal = errno.E2BIG
    flow = one.open_routed()
    assert (flow.carried, one.carrier.counts()["carrier_refused"]) == (0, 2)
    assert marked(one, lease=True)
    flows.refusal = 0
    assert not one.packet(TCP, KEY, "A", 40.0)
    assert one.packet(TCP, KEY, "A", 41.0)


def test_off_and_on() -> None:
    """Off, leases carry, unseen by the worker; on, the client's number is learnt anew."""
    one = worker(routed())
    flow = one.open_routed()
    one.carrier.switch(False)
    one.settle(1.0)
    assert not one.packet(TCP, KEY, "A", 2.0)
    assert marked(one, lease=True)
    one.carrier.switch(True)
    one.settle(3.0)
    far = 1 << 30
    assert one.packet(TCP, KEY, "A", 4.0, seq=far)
    assert not one.packet(TCP, KEY, "FA", 5.0, seq=far + 10)
    assert flow.state == states.CLIENT_DONE


@pytest.mark.parametrize("carried", [True, False])
def test_packets_are_counted_where_BPF_counts(carried: bool) -> None:  # noqa: N802
    """A worker counts those that pass it; without BPF it does not see all, and says nothing."""
    service = routed()
    one = worker(service)
    one.carrier.configure([service] if carried else [], [] if carried else [service])
    flow = one.open_routed()
    counters = one.carrier.counters(flow.translation.backend)
    assert counters["flows"] == 1
    assert counters.get("packets_out") == (4 if carried else None)
    assert counters.get("bytes_out") == (4 * 40 if carried else None)
    assert "packets_back" not in counters


@pytest.mark.parametrize(
    ("flags", "state"), [("FA", states.CLIENT_DONE), ("R", states.CLIENT_DONE)]
)
def test_an_upload_under_leases_ends(flags: str, state: int) -> None:
    """More bytes than any window pass unseen; the flow hears of the end all the same. Afterwards
    the ACK of the backend's FIN closes it.
    """
    service = routed()
    one = worker(service)
    one.carrier.configure([], [service])
    flow = one.open_routed()
    assert marked(one, lease=True)
    far = 1 << 30
    assert not one.packet(TCP, KEY, "A", 30.0, seq=far, ack=70)
    assert not one.packet(TCP, KEY, flags, 31.0, seq=2 * far, ack=700)
    assert flow.state == state
    if flags == "FA":
        assert not one.packet(TCP, KEY, "A", 31.1, seq=2 * far + 1, ack=701)
        assert flow.state == states.TIME_WAIT


@pytest.mark.parametrize("method", ["dsr", "nat"])
def test_the_worker_carries_a_while(method: str) -> None:
    """An interface without the program: the worker's number is newer than the entry's. It goes into
    the entry, so that the program, when it is back, takes the FIN, and a forged RST does not end
    the flow.
    """
    one = worker(routed() if method == "dsr" else web(direct=True))
    flow = one.open_routed()
    far, now = 1 << 22, 10.0
    for step in range(1, 5):
        assert one.packet(TCP, KEY, "A", now + step, seq=step * far)
    one.program.attached = False
    for step in range(5, 30):
        assert not one.packet(TCP, KEY, "A", now + step, seq=step * far)
    one.check()
    assert abs(one.entry(flow).ack - 29 * far) < UNSEEN_WINDOW
    assert one.entry(flow).packets_out >= 4
    one.program.attached = True
    assert one.packet(TCP, KEY, "A", 50.0, seq=30 * far)
    assert not one.packet(TCP, KEY, "R", 51.0, seq=(30 * far + (1 << 31)) & 0xFFFFFFFF)
    assert flow.state == states.ESTABLISHED
    one.program.known.add(KEY[:4])
    assert one.packet(TCP, KEY, "FA", 52.0, seq=30 * far + 10)
    one.carrier.sync(52.1)
    assert flow.state == states.CLIENT_DONE


def test_a_backend_whose_packets_pass_the_worker() -> None:
    """Its answers come by an interface without the program: the entry's number is that of the
    handshake, and the client's RST still ends the flow.
    """
    one = worker(web())
    flow = one.open()
    far = 1 << 25
    one.program.attached = False
    one.packet(TCP, flow.reverse_key, "A", 1.0, ack=far)
    one.flows.refresh(flow)
    assert not one.packet(TCP, flow.forward_key, "R", 2.0, seq=far)
    assert flow.state == states.CLIENT_RESET


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_forged_packet_between_two_services(protocol: int) -> None:
    """Its key is that of answers which bypass this host, while the program may have decided: it
    opens a flow like any other.
    """
    services = (
        routed(strategy="maglev"),
        routed(name="other", ports=((443, 443),), strategy="maglev"),
    )
    one = worker(*services)
    one.carrier.configure(services, (), services)
    one.settle(0.5)
    forged = client_key(443, 80, V4.vip, V4.vip)
    one.packet(protocol, forged, "S")
    one.packet(protocol, client_key(80, 443, V4.vip, V4.vip), "A", 1.0)
    assert len(one.flows) == 2


@pytest.mark.parametrize("method", ["dsr", "nat"])
def test_a_segment_that_waited_in_the_queue(method: str) -> None:
    """While later ones were carried: its number is old, and does not replace the entry's, by which
    the program recognizes the FIN.
    """
    one = worker(routed() if method == "dsr" else web(direct=True))
    flow = one.open_routed()
    far, now = 1 << 22, 10.0
    for step in range(1, 9):
        assert one.packet(TCP, KEY, "A", now + step, seq=step * far)
    one.program.attached = False
    assert not one.packet(TCP, KEY, "A", 19.0, seq=1)
    assert one.entry(flow).ack == 8 * far
    one.program.attached = True
    one.program.known.add(KEY[:4])
    assert one.packet(TCP, KEY, "FA", 20.0, seq=8 * far + 10)
    one.carrier.sync(20.1)
    assert flow.state == states.CLIENT_DONE


@pytest.mark.parametrize("method", ["dsr", "nat"])
def test_the_program_is_ahead_of_the_queue(method: str) -> None:
    """Megabytes of a burst that the program cannot carry wait in the queue while it carries the
    end of the burst: that moves its number, so the FIN is recognized.
    """
    one = worker(routed() if method == "dsr" else web(direct=True))
    flow = one.open_routed()
    assert one.packet(TCP, KEY, "A", 11.0, seq=6_000_000)
    assert one.entry(flow).ack == 6_000_000
    one.program.known.add(KEY[:4])
    assert one.packet(TCP, KEY, "FA", 12.0, seq=6_000_100)
    one.carrier.sync(12.1)
    assert flow.state == states.CLIENT_DONE


@pytest.mark.parametrize("state", [states.ESTABLISHED, states.CLIENT_DONE, states.UNCONFIRMED])
def test_flows_from_before_a_hash_time_out(state: int) -> None:
    """A reload to `decide: hash` leaves their entries, half-open ones get one, and each ends by the
    timeout of its state, after the last packet that the program saw.
    """
    service = routed()
    one = worker(service)
    sent = [("S", 1, 0), ("A", 2, 70), ("A", 4, 70), ("A", 9, 90), ("FA", 9, 90)]
    count = {states.UNCONFIRMED: 2, states.ESTABLISHED: 4, states.CLIENT_DONE: 5}[state]
    for number, (flags, seq, ack) in enumerate(sent[:count]):
        one.packet(TCP, KEY, flags, number / 8, seq=seq, ack=ack)
    flow = one.flows.forward[TCP][KEY]
    assert flow.state == state
    one.carrier.configure([service], (), [service])
    for _ in range(3):
        one.carrier.sync(1.0)
    assert one.packet(TCP, KEY, "A", 2.0, seq=9, ack=90)  # by its entry, not by a hash
    timeout = one.flows.timeouts.by_state[flow.state]
    one.flows.expire(timeout)
    assert KEY in one.flows.forward[TCP]
    one.flows.expire(2 * timeout + 5)
    assert not one.flows.forward[TCP]
    assert not entries(one.maps.flows[TCP, 4])
