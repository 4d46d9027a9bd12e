"""The flood's segments, as scapy judges them."""

from __future__ import annotations

from typing import Any

import pytest

from bench import syns

HARDWARE = bytes(range(6))
VIP = {4: "192.168.0.11", 6: "2001:db8::11"}


@pytest.mark.parametrize("family", [4, 6])
def test_segments_are_right(family: int) -> None:
    """SYN alone, to the VIP, with right checksums, from addresses of the network that differ."""
    import scapy.layers.inet
    import scapy.layers.inet6  # noqa: F401 - to be known to Ether
    from scapy.layers.l2 import Ether

    made = syns.frames(HARDWARE, VIP[family], 80, syns.NETWORKS[family], 50)
    sources = set()
    for frame in made:
        packet: Any = Ether(frame)
        layer = packet["IP" if family == 4 else "IPv6"]
        assert (layer.dst, packet["TCP"].dport, str(packet["TCP"].flags)) == (VIP[family], 80, "S")
        sources.add((layer.src, packet["TCP"].sport))
        again = packet.copy()
        del again["TCP"].chksum
        if family == 4:
            del again["IP"].chksum
        assert bytes(again) == frame
    assert len(sources) == 50
    prefix = "198.1" if family == 4 else "2001:db8:f:"
    assert all(source.startswith(prefix) for source, _ in sources)
