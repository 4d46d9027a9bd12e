"""Packets that the kernel splits later (GSO), over UDP and TCP; SCTP passes unchanged."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from carrying import every_io

from paraglider.lab.topology import VIP, backend_address

pytestmark = pytest.mark.root


@every_io
def test_segmented_udp(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, peer: Any, io: str
) -> None:
    """Datagrams that leave the client as one (UDP_SEGMENT) arrive each with a right checksum, in
    both families, at the same port and at a mapped one.

    The backend's kernel drops a datagram whose checksum is wrong, so those that arrive are right;
    its echoes come the same way back.
    """
    net = topology(backends=1)
    serve(net, http=(), udp=(9000,))
    services = [
        service(family, name=f"udp{family}-{port}", protocol="udp", ports=port)
        | {"backends": [{"address": backend_address(family, 1), "port": 9000}]}
        for family in (4, 6)
        for port in (9000, 9001)
    ]
    balancer(net, config(*services, queue={"io": io}))
    for family in (4, 6):
        for port in (9000, 9001):
            result = peer(net.client, "segments", VIP[family], port, 40, 1000)
            assert result == {"sent": 40, "echoed": 40}, (family, port)


def test_sctp_is_left_alone(topology: Any, config: Any, service: Any, balancer: Any) -> None:
    """SCTP to the VIP of an all-ports service meets the local stack, which has no such protocol."""
    net = topology(backends=1)
    balancer(net, config(service(4, protocol="any")))
    program = (
        "import socket;"
        "s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132);"
        "e = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP);"
        "e.settimeout(6)\n"
        "for _ in range(10):\n"  # the kernel may omit an error, see ``peer.udp``
        f"    s.sendto(bytes(20), ({VIP[4]!r}, 0))\n"
        "    try: error, (host, _) = e.recvfrom(2000)\n"
        "    except TimeoutError: continue\n"
        "    print(host, *error[20:22])\n"
        "    break\n"
    )
    # ICMP 3, 2: protocol unreachable
    told = net.client.run([sys.executable, "-c", program], timeout=90)
    assert told.stdout.split() == [VIP[4], "3", "2"]
