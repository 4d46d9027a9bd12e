"""The facts and descriptions of tunnels."""

from __future__ import annotations

import pytest

from paraglider.config.model import Service
from paraglider.forward.tunnel.method import TunnelMethod


def service(family: int, **changes: object) -> Service:
    """A tunnel service."""
    vip, backend = {4: ("192.168.0.11", "10.0.0.1"), 6: ("2001:db8::11", "fd00:10::1")}[family]
    base = {"name": "a", "vip": vip, "protocol": "tcp", "ports": 80, "backends": [backend]}
    return Service.model_validate({**base, "forward": "tunnel", **changes})


@pytest.mark.parametrize(
    ("family", "changes", "wanted"),
    [
        (4, {}, "(IPv4 in IPv4, 20 bytes)"),
        (6, {}, "(IPv6 in IPv6, 40 bytes)"),
        (4, {"encapsulation": {"type": "gue"}}, "(GUE, UDP port 6080, 32 bytes)"),
        (6, {"encapsulation": {"type": "gue", "port": 9}}, "(GUE, UDP port 9, 52 bytes)"),
    ],
)
def test_what_check_says(family: int, changes: dict[str, object], wanted: str) -> None:
    """The encapsulation, and by how much packets become longer."""
    assert wanted in TunnelMethod().describe(service(family, **changes))


@pytest.mark.parametrize(
    ("changes", "wanted", "absent"),
    [
        (
            {"carrier": "worker"},
            "a worker sends every packet of the clients on in an outer header (",
            "BPF",
        ),
        ({"carrier": "worker"}, "needs NFQUEUE and raw sockets, no conntrack", "Linux"),
        (
            {"carrier": "bpf"},
            "a BPF program in the kernel sends the client's others on in an",
            "hash",
        ),
        ({"carrier": "bpf"}, "raw sockets, Linux 6.7 with BPF, no conntrack", "for speed"),
        ({}, "raw sockets, Linux 6.7 with BPF for speed, no conntrack", "every packet"),
        (
            {"decide": "hash", "strategy": "maglev"},
            "each packet in an outer header (IPv4 in IPv4, 20 bytes) to the backend of its hash",
            "a worker decides",
        ),
    ],
)
def test_what_check_says_of_the_carrier(
    changes: dict[str, object], wanted: str, absent: str
) -> None:
    """What sends the packets, and what the kernel must have."""
    said = TunnelMethod().describe(service(4, **changes))
    assert wanted in said
    assert absent not in said


def test_answers_are_direct() -> None:
    """Whatever the file says, and backends must decapsulate."""
    method = TunnelMethod()
    assert method.answers(service(4)) == "direct"
    need, why = method.backend_need(service(4))
    assert need == "decapsulate"
    assert "outer header" in why
