"""Datagrams up to the longest that there are, through nat: longer than a queue carries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from carrying import every_io
from unsent import pinged

from paraglider.lab.topology import VIP, backend_address

pytestmark = pytest.mark.root

LINKS = Path(__file__).parent / "links.py"
#: bytes of UDP payload around what a queue carries whole (65,531 with the headers), and the most
SIZES = {4: (65_503, 65_504, 65_507), 6: (65_483, 65_484, 65_507)}

# Answers whole datagrams, from the address and the port that they came to.
ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", int(sys.argv[1])))
print("listening", flush=True)
while True:
    data, client = s.recvfrom(1 << 16)
    s.sendto(data[::-1], client)
"""

# Prints for each size whether the answer is the datagram, the other way round.
ASK = """
import os, socket, sys
vip, port, *sizes = sys.argv[1:]
s = socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(60)
s.connect((vip, int(port)))
for size in map(int, sizes):
    data = os.urandom(size)
    s.send(data)
    print(s.recv(1 << 16) == data[::-1])
"""


@every_io
def test_the_longest_datagrams(
    topology: Any, config: Any, service: Any, balancer: Any, io: str
) -> None:
    """They and their answers arrive complete, with and without a mapped port, in both families,
    with any checksum offload; so does the longest ping.
    """
    net = topology(backends=2)
    for backend, port in zip(net.backends, (9000, 9001), strict=True):
        server = backend.popen([sys.executable, "-c", ECHO, str(port)], stdout=subprocess.PIPE)
        assert server.stdout is not None
        assert server.stdout.readline() == b"listening\n"
    services = []
    for family in (4, 6):
        one, two = backend_address(family, 1), backend_address(family, 2)
        every = service(family, name=f"every{family}", protocol="any", ports="all")
        del every["ports"]
        mapped = service(family, name=f"mapped{family}", protocol="udp", ports=53)
        every["backends"], mapped["backends"] = [one], [{"address": two, "port": 9001}]
        services += [every, mapped]
    balancer(net, config(*services, queue={"io": io}))
    for finished in ("by links", "by the stack"):
        for family in (4, 6):
            for port in (9000, 53):
                command = [sys.executable, "-c", ASK, VIP[family], str(port)]
                said = net.client.run([*command, *map(str, SIZES[family])], timeout=60).stdout
                assert said.split() == ["True"] * len(SIZES[family]), (finished, family, port)
        for namespace in net.namespaces:
            namespace.run([sys.executable, str(LINKS), "sums"])
    for family in (4, 6):
        size = "65507" if family == 4 else "65527"
        pinged(net.client, VIP[family], "-s", size, count=3)
