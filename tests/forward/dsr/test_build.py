"""From the configuration to the packet path of dsr: marks, timeouts, bounds."""

from __future__ import annotations

from typing import Any

from paraglider.config.model import Config
from paraglider.core.flow_states import (
    ESTABLISHED,
    ICMP_OPEN,
    RESET,
    SYN_SENT,
    TIME_WAIT,
    UDP_OPEN,
)
from paraglider.forward.dsr.leases import LONGEST
from paraglider.forward.dsr.marks import route_marks
from paraglider.forward.one_sided import OneSidedDatapath
from paraglider.forward.worker_datapath import build as build_worker
from paraglider.netfilter.rules.marks import LEASE


def config(*services: dict[str, Any], **top: Any) -> Config:
    """These services, on a port and with backends of their own."""
    base = {"vip": "192.168.0.11/24", "protocol": "tcp", "forward": "dsr"}
    whole = [
        {"name": f"s{i}", **base, "ports": 80 + i, "backends": ["10.0.0.1", f"10.0.0.{2 + i}"], **s}
        for i, s in enumerate(services)
    ]
    return Config.model_validate({"services": whole, **top})


def build(wanted: Config) -> OneSidedDatapath:
    """The packet path of the dsr services of a configuration."""
    datapath = build_worker(wanted, 0, 0.0)._datapaths["dsr"]
    assert isinstance(datapath, OneSidedDatapath)
    return datapath


def test_only_services_of_dsr() -> None:
    """Services of other methods are left out."""
    path = build(config({}, {"forward": "nat"}, {}))
    assert [service.name for service in path.balancer.services.services] == ["s0", "s2"]


def test_marks_are_those_of_the_policy_rules() -> None:
    """A backend of two services has one way, whichever family it is of."""
    six = {"vip": "2001:db8::11/64", "backends": ["fd00:10::1"]}
    wanted = config({}, {}, six)
    path = build(wanted)
    marks = {str(a): m for f in (4, 6) for a, m in route_marks(wanted, f).items()}
    assert {b.name: verdict >> 8 for b, verdict in path.carrier.verdicts.items()} == marks
    assert {b.name: verdict >> 8 for b, verdict in path.carrier._leased.items()} == {
        name: mark | LEASE for name, mark in marks.items()
    }


def test_flows_are_kept_for_a_lease_longer() -> None:
    """For a lease its packets may have passed unseen; half-open and closed flows have no lease."""
    limits = {"syn": 240, "established": 7440, "closed": 70, "udp": 300, "icmp": 60}
    path = build(config({}, timeouts=limits, flows={"max": 7}))
    seconds = path.flows.timeouts.by_state
    assert [seconds[state] for state in (ESTABLISHED, UDP_OPEN)] == [
        limits[name] + LONGEST for name in ("established", "udp")
    ]
    assert [seconds[state] for state in (TIME_WAIT, RESET)] == [70, 70]
    assert [seconds[state] for state in (SYN_SENT, ICMP_OPEN)] == [240, 60]
    assert path.flows.bound == 7
