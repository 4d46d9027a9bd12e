"""The flood's segments, as scapy judges them."""

from __future__ import annotations

from typing import Any

import pytest

from bench import syns

HARDWARE = bytes(range(6))
VIP = {4: "192.168.0.11", 6: "2001:db8::11"}


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("kind", syns.KINDS)
@pytest.mark.parametrize("family", [4, 6])
def test_packets_are_right(family: int, kind: str, again: bool) -> None:
    """A segment or a datagram to the VIP, with correct checksums, from different addresses of
    the network; repeated ones have another port.
    """
    import scapy.layers.inet
    import scapy.layers.inet6  # noqa: F401 - to be known to Ether
    from scapy.layers.l2 import Ether

    made = syns.frames(HARDWARE, VIP[family], 80, syns.NETWORKS[family], 50, kind)
    sources = set()
    for frame in made:
        moved = bytearray(frame)
        if again:
            header = 34 if family == 4 else 54
            syns.change_port(moved, header, syns.KINDS[kind][1])
            assert moved[header : header + 2] != frame[header : header + 2]
        packet: Any = Ether(bytes(moved))
        layer = packet["IP" if family == 4 else "IPv6"]
        protocol = "UDP" if kind == "udp" else "TCP"
        inner = packet[protocol]
        assert (layer.dst, inner.dport) == (VIP[family], 80)
        assert kind == "udp" or str(inner.flags) == {"tcp": "S", "stray": "A"}[kind]
        sources.add((layer.src, inner.sport))
        copy = packet.copy()
        del copy[protocol].chksum
        if family == 4:
            del copy["IP"].chksum
        assert bytes(copy) == bytes(moved)
    assert len(sources) == 50
    prefix = "198.1" if family == 4 else "2001:db8:f:"
    assert all(source.startswith(prefix) for source, _ in sources)
