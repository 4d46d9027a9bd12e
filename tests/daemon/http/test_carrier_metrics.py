"""Tests of ``paraglider.daemon.http.carrier_metrics``: the carrier, and packets left to workers."""

from __future__ import annotations

from typing import Any

from paraglider.daemon.http.carrier_metrics import CARRIER
from paraglider.daemon.http.exposition import exposed

BPF: dict[str, Any] = {
    "carrier": "bpf",
    "reason": "",
    "flows": 8,
    "refused": 2,
    "packets": {"carried": 90, "syn": 5, "vlan": 0, "events_lost": 1},
}


def text(of_service: str | None, **changes: Any) -> set[str]:
    """The samples where a service has that carrier."""
    services = [{"carrier": None}, {"carrier": of_service}]
    status = {"services": services, "carrier": {**BPF, **changes}}
    lines = exposed([CARRIER], status).decode().splitlines()
    return {line for line in lines if not line.startswith("#")}


def test_bpf() -> None:
    """Its flows, and every packet that its program saw once, by reason; zeros too, for rates."""
    assert text("bpf") == {
        'paraglider_carrier_info{carrier="bpf",reason=""} 1.0',
        "paraglider_carrier_flows 8.0",
        "paraglider_carrier_refused_flows_total 2.0",
        'paraglider_carrier_packets_total{reason="carried"} 90.0',
        'paraglider_carrier_packets_total{reason="syn"} 5.0',
        'paraglider_carrier_packets_total{reason="vlan"} 0.0',
        "paraglider_carrier_lost_events_total 1.0",
    }


def test_xdp() -> None:
    """What it carried is counted as packets; what it left to tc is counted there, and beside."""
    found = text("xdp", carrier="xdp", packets={"carried": 9, "xdp": 90, "neighbour": 3})
    assert 'paraglider_carrier_info{carrier="xdp",reason=""} 1.0' in found
    assert {line for line in found if "packets" in line} == {
        'paraglider_carrier_packets_total{reason="carried"} 9.0',
        'paraglider_carrier_packets_total{reason="xdp"} 90.0',
        'paraglider_carrier_xdp_left_packets_total{reason="neighbour"} 3.0',
    }


def test_the_worker() -> None:
    """With the reason, and without packets that no program saw."""
    found = text("worker", carrier="worker", reason="no libbpf", flows=0, refused=0, packets={})
    assert 'paraglider_carrier_info{carrier="worker",reason="no libbpf"} 1.0' in found
    assert not [line for line in found if "packets" in line or "events" in line]


def test_methods_with_one_carrier_have_none_of_this() -> None:
    """There is nothing to choose."""
    assert text(None) == set()
