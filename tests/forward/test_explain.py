"""Tests of ``paraglider.forward.explain``: flows by a file and a daemon's listings."""

from __future__ import annotations

import ipaddress
import json

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet

from paraglider.config.load import parse
from paraglider.core import flow
from paraglider.core.client_hello import Hello
from paraglider.core.explain import DecisionStep
from paraglider.core.impact import Impact
from paraglider.core.strategies import STRATEGIES, NewFlow
from paraglider.forward import explain
from paraglider.forward.explain import Capture, Situation, compare, impacts, spelled
from paraglider.forward.listing import NOTHING, LiveState, backends_in, flow_key, flows_in

TEXT = """\
network: {exempt: ["192.168.0.11:53/udp", "192.0.2.9"]}
services:
  - name: web
    vip: 192.168.0.11
    protocol: tcp
    ports: 80
    strategy: maglev
    backends: [10.0.0.1, {address: 10.0.0.2, port: 8080}, 10.0.0.3]
  - name: all
    vip: 192.168.0.11
    protocol: any
    affinity: client
    backends: [10.0.0.1, 10.0.0.2]
"""
VIP = "192.168.0.11"


def situation(text: str = TEXT, live: LiveState = NOTHING) -> Situation:
    """The situation by ``text`` and ``live``."""
    return Situation(parse(text, "f").config.seeded(1), STRATEGIES, live)


def new(port: int, client: str = "192.0.2.1", protocol: int = flow.TCP, own: int = 1000) -> NewFlow:
    """A flow to the VIP."""
    ends = (ipaddress.ip_address(client), own, ipaddress.ip_address(VIP), port)
    return NewFlow(protocol, flow_key(*ends), 0.0)


def listed(backend: str, service: str, port: int, client: str = "192.0.2.1") -> dict[str, object]:
    """A live flow as the daemon lists it."""
    return {
        "service": service,
        "protocol": "tcp",
        "client": client,
        "client_port": 1000,
        "vip": VIP,
        "port": port,
        "backend": backend,
    }


KERNEL = "the kernel, by a table of the backends"


@pytest.mark.parametrize(
    ("keys", "known", "protocol", "step"),
    [
        ("decide: auto", {}, flow.TCP, f"{KERNEL}, where BPF carries"),
        ("decide: auto", {"web": ""}, flow.TCP, KERNEL),
        ("decide: auto", {"web": "no room"}, flow.TCP, "a worker: no room"),
        ("decide: auto, return: direct", {}, flow.TCP, f"{KERNEL}, where BPF carries"),
        ("decide: auto, forward: dsr, strategy: wrr", {"web": ""}, flow.TCP, KERNEL),
        ("decide: auto, forward: tunnel, strategy: maglev", {"web": ""}, flow.TCP, KERNEL),
        ("decide: auto, carrier: worker", {}, flow.TCP, "a worker: the workers carry its flows"),
        ("decide: auto, affinity: client", {}, flow.TCP, "a worker: `affinity: client`: a worker"),
        ("decide: auto", {"web": ""}, flow.ICMP, "a worker: the kernel decides about TCP and UDP"),
        ("decide: python", {"web": "`decide: python`"}, flow.TCP, None),
        ("", {}, flow.TCP, None),
        ("forward: offload", {}, flow.TCP, None),
        (
            "forward: dsr, strategy: maglev, decide: hash",
            {"web": ""},
            flow.TCP,
            KERNEL.replace(",", ", for each packet by itself,"),
        ),
    ],
)
def test_who_decides(keys: str, known: dict[str, str], protocol: int, step: str | None) -> None:
    """By the file, or as the daemon says; nothing where the file leaves it to the workers."""
    text = (
        "network: {public: {interface: eth0}, private: {interface: eth1}}\n"
        f"services: [{{name: web, vip: {VIP}, protocol: any, {keys + ', ' if keys else ''}"
        "backends: [10.0.0.1, 10.0.0.2]}]\n"
    )
    ports = 7 if protocol == flow.ICMP else 80
    found = situation(text, LiveState(deciding=known)).explain(new(ports, protocol=protocol, own=7))
    steps = [each.text for each in found.why if each.about == "decides"]
    assert len(steps) == (step is not None)
    assert steps == [] or steps[0].startswith(step or "")


def living(*flows: dict[str, object]) -> LiveState:
    """The live state of a listing of these flows."""
    return LiveState(flows_in(json.dumps(list(flows)), "f"))


def test_every_forward_is_explained() -> None:
    """The result does not depend on the forward method."""
    picked = set()
    for forward in ("nat", "offload", "dsr"):
        text = TEXT.replace("{address: 10.0.0.2, port: 8080}", "10.0.0.2")
        sides = "network: {public: {interface: eth0}, private: {interface: eth1}, "
        text = text.replace("network: {", sides)
        found = situation(text.replace("protocol", f"forward: {forward}\n    protocol"))
        backend = found.explain(new(80)).backend
        picked.add(backend.name if backend is not None else None)
    assert len(picked) == 1
    assert None not in picked


@pytest.mark.parametrize(
    ("asked", "exempt"),
    [
        (new(53, protocol=flow.UDP), "192.168.0.11:53/udp"),
        (new(53), None),
        (new(80, client="192.0.2.9"), "192.0.2.9"),
        (new(0, client="192.0.2.9", protocol=flow.ICMP), "192.0.2.9"),
        (new(80), None),
    ],
)
def test_exempt(asked: NewFlow, exempt: str | None) -> None:
    """An exempt flow is not balanced, and that is the first step."""
    found = situation().explain(asked)
    about = [step.about for step in found.why]
    if exempt is None:
        assert found.service is not None
        assert "exempt" not in about
    else:
        assert (found.service, found.backend, about) == (None, None, ["exempt"])
        assert found.why[0].text == f"`exempt` has {exempt}: the packet is not balanced"


def test_exempt_port_is_no_echo() -> None:
    """An exempt port applies to TCP and UDP, as in the rules."""
    text = TEXT.replace("192.168.0.11:53/udp", "192.168.0.11:53")
    assert situation(text).explain(new(53)).service is None
    assert situation(text).explain(new(53, protocol=flow.ICMP)).service is not None


def test_live_flow_keeps_its_backend() -> None:
    """A flow of the listing stays at its backend, even if that is no longer in the pool."""
    for backend in ("10.0.0.1", "10.0.0.2:8080", "10.0.0.9"):
        found = situation(live=living(listed(backend, "web", 80))).explain(new(80))
        assert found.backend is not None
        assert found.backend.name == backend
        assert found.why[-1].about == "flow"


def test_live_flow_binds_its_client() -> None:
    """With affinity, another flow of a listed client gets its backend."""
    known = situation(live=living(listed("10.0.0.2", "all", 5000)))
    found = known.explain(new(5001))
    assert found.backend is not None
    assert (found.backend.name, found.why[-1].about) == ("10.0.0.2", "affinity")
    assert known.explain(new(5001, client="192.0.2.2")).backend is None


def test_states_and_weights_of_the_daemon() -> None:
    """A backend that the operator drained takes no new flow; a weight is the live one."""
    states = [
        {"service": "all", "backend": "10.0.0.1", "state": "drain", "weight": 1},
        {"service": "web", "backend": "10.0.0.1", "state": "down", "weight": 1},
        {"service": "web", "backend": "10.0.0.2:8080", "state": "drain-down", "weight": 1},
        {"service": "web", "backend": "10.0.0.3", "state": "ready", "weight": 7},
        {"service": "gone", "backend": "10.0.0.3", "state": "maint", "weight": 7},
        {"service": "web", "backend": "10.0.0.8", "state": "maint", "weight": 7},
    ]
    found = situation(live=LiveState((), backends_in(json.dumps(states), "f")))
    web, every = found.services
    assert [str(backend.state) for backend in web.pool.backends] == ["down", "drain-down", "ready"]
    assert [backend.weight for backend in web.pool.ready] == [7]
    assert [backend.name for backend in every.pool.ready] == ["10.0.0.2"]


def test_backends_that_the_file_does_not_list() -> None:
    """A source of backends is not read; the daemon's listing has them."""
    text = TEXT.replace("[10.0.0.1, 10.0.0.2]", "{file: /etc/backends}")
    unknown = situation(text)
    assert unknown.explain(new(81)).backend is None
    assert unknown.source_of(unknown.services[1]) == "/etc/backends"
    state = {"service": "all", "backend": "10.0.0.7", "state": "ready", "weight": 2}
    known = situation(text, LiveState((), backends_in(json.dumps([state]), "f")))
    found = known.explain(new(81)).backend
    assert found is not None
    assert (found.name, found.weight) == ("10.0.0.7", 2)


def packets(*frames: Packet) -> list[bytes | None]:
    """Packets as a capture has them."""
    return [bytes(frame) for frame in frames]


def test_capture() -> None:
    """Each flow to a service once, with its packets; other packets are counted by kind."""
    syn = IP(src="192.0.2.1", dst=VIP) / TCP(sport=1, dport=80, flags="S")
    late = IP(src="192.0.2.1", dst=VIP) / TCP(sport=2, dport=80, flags="A")
    answer = IP(src=VIP, dst="192.0.2.1") / TCP(sport=80, dport=1, flags="SA")
    name = IP(src="192.0.2.1", dst=VIP) / UDP(sport=3, dport=5353)
    echo = IP(src="192.0.2.1", dst=VIP) / ICMP(type=8, id=7)
    error = IP(src="192.0.2.1", dst=VIP) / ICMP(type=3) / (IP() / UDP())
    other = IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=1, dport=80)
    frames = [*packets(syn, syn, late, answer, name, echo, error, other), None, b"", b"\x45"]
    capture = Capture().add_packets(frames, situation().balancer.services)
    seen = [
        (f.flow.protocol_name, f.flow.client_port, f.packets, f.has_first)
        for f in capture.flows.values()
    ]
    assert seen == [
        ("tcp", 1, 2, True),
        ("tcp", 2, 1, False),
        ("udp", 3, 1, True),
        ("icmp", 7, 1, True),
    ]
    assert capture.counts == {
        "to_services": 5,
        "from_services": 1,
        "of_others": 1,
        "not_flows": 3,
        "not_ip": 1,
    }


def test_capture_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound further flows are counted, not kept."""
    monkeypatch.setattr(explain, "MOST_FLOWS", 3)
    flows = (IP(src="192.0.2.1", dst=VIP) / TCP(sport=port, dport=80) for port in range(10))
    capture = Capture().add_packets(packets(*flows), situation().balancer.services)
    assert len(capture.flows) == 3
    assert capture.counts == {"to_services": 3, "of_further_flows": 7}


def test_compare() -> None:
    """Each service with its successor, its hash space and shares."""
    text = TEXT.replace(", 10.0.0.3]", "]").replace("name: all", "name: rest")
    web, every = compare(situation(), situation(text))
    assert (web.before.name, web.after is not None and web.after.name) == ("web", "web")
    assert web.moved is not None
    assert web.moved.share == pytest.approx(1 / 3, abs=0.02)
    assert web.shares["10.0.0.3"] == (pytest.approx(1 / 3, abs=0.001), 0.0)
    assert (every.after is not None and every.after.name, every.moved) == ("rest", None)
    assert every.shares == {"10.0.0.1": (0.5, 0.5), "10.0.0.2": (0.5, 0.5)}
    assert [spelled(piece) for piece in every.pieces][-1] == "icmp"


def test_compare_with_a_service_that_goes() -> None:
    """The ports of a removed service go to another service that claims them, or to none."""
    gone = TEXT.partition("  - name: all")[0]
    web, every = compare(situation(), situation(gone))
    assert (web.after is not None, every.after) == (True, None)
    assert [spelled(piece) for piece in every.pieces] == [
        "tcp 1-79",
        "tcp 81-65535",
        "udp",
        "icmp",
    ]


def test_compare_with_ports_that_change_hands() -> None:
    """Each service that gets some of the ports is listed."""
    changes = compare(situation(), situation(TEXT.replace("ports: 80", "ports: 81")))
    told = [
        (each.before.name, [spelled(p) for p in each.pieces], each.after and each.after.name)
        for each in changes
    ]
    assert told == [
        ("web", ["tcp 80"], "all"),
        ("all", ["tcp 1-79", "tcp 82-65535", "udp", "icmp"], "all"),
        ("all", ["tcp 81"], "web"),
    ]


def test_impacts() -> None:
    """Live flows by their impact; flows of no service are left out."""
    live = living(
        listed("10.0.0.3", "web", 80),
        listed("10.0.0.1", "all", 81),
        listed("10.0.0.2", "all", 82, client="192.0.2.2"),
    )
    before = situation(live=live)
    after = situation(TEXT.replace("10.0.0.2]", "10.0.0.4]").replace(", 10.0.0.3]", "]"))
    flows = [(each.flow, each.backend) for each in live.flows]
    stranger = NewFlow(flow.TCP, bytes(12), 0.0)
    found = impacts([*flows, (stranger, None)], before, after, lives=True)
    assert found == {"web": {Impact.LOST: 1}, "all": {Impact.KEPT: 1, Impact.LOST: 1}}
    anew = impacts(
        [(new(80, own=port), None) for port in range(300)], situation(), after, lives=False
    )
    assert anew["web"].total() == 300
    assert 60 < anew["web"][Impact.LOST] < 140
    assert anew["web"][Impact.KEPT] > anew["web"][Impact.MOVED]


@pytest.mark.parametrize(
    ("snat", "source"),
    [
        ("10.0.0.9", "the backend sees 10.0.0.9 as the source"),
        ("{interface: eth1}", "the backend sees the balancer's address on eth1 as the source"),
    ],
)
def test_the_source_that_the_backend_sees(snat: str, source: str) -> None:
    """It is the last step, where the file has one."""
    text = TEXT.partition("  - name: all")[0] + f"    forward: offload\n    snat: {snat}\n"
    assert situation(text).explain(new(80)).why[-1] == DecisionStep("source", source)
    assert situation().explain(new(80)).why[-1].about != "source"


ROUTED = f"""\
services:
  - name: web
    vip: {VIP}
    protocol: tcp
    ports: 443
    forward: proxy
    strategy: maglev
    backends: [10.0.0.1]
    route:
      - {{sni: "*.a.example", name: wild, backends: [10.0.0.2, 10.0.0.3]}}
      - {{alpn: h2, backends: [10.0.0.4], name: two}}
"""


@pytest.mark.parametrize(
    ("hello", "service", "step"),
    [
        (None, "web", "no name and no protocol is given (--sni, --alpn): the service's own"),
        (Hello("b.example"), "web", "none takes b.example: the service's own backends"),
        (Hello("b.example", ("h2", "h3")), "two", "`two` takes b.example with h2, h3"),
        (Hello("", ("h2",)), "two", "`two` takes no name with h2"),
        (Hello("x.a.example", ("h2",)), "wild", "`wild` takes x.a.example with h2"),
    ],
)
def test_routes(hello: Hello | None, service: str, step: str) -> None:
    """By the ClientHello; the first step says so."""
    found = situation(ROUTED).explain(new(443), hello)
    assert found.service is not None
    assert (found.service.name, found.why[0].about) == (service, "route")
    assert found.why[0].text.startswith(step)
    assert found.backend in found.service.pool.backends


def test_live_flows_of_a_route() -> None:
    """They are the route's also where another file is compared, by its name."""
    live = living(listed("10.0.0.2", "wild", 443), listed("10.0.0.1", "web", 443, "192.0.2.2"))
    before = situation(ROUTED, live)
    found = before.explain(new(443))
    assert found.service is not None
    assert (found.service.name, found.backend and found.backend.name) == ("wild", "10.0.0.2")
    assert found.why[0].text == "the connection is one of `wild`"
    flows = [(each.flow, each.backend) for each in live.flows]
    after = situation(ROUTED.replace("10.0.0.2, ", ""))
    assert impacts(flows, before, after, lives=True) == {
        "wild": {Impact.LOST: 1},
        "web": {Impact.KEPT: 1},
    }
    same, gone = situation(ROUTED), situation(ROUTED.replace("wild", "wide"))
    assert impacts(flows, before, same, lives=True)["wild"] == {Impact.KEPT: 1}
    told = [
        (each.before.name, each.after and each.after.name, [spelled(p) for p in each.pieces])
        for each in compare(same, gone)
    ]
    ports = ["tcp 443"]
    assert told == [("web", "web", ports), ("wild", None, ports), ("two", "two", ports)]
