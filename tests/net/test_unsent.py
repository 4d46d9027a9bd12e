"""What a kernel could not send is asked for again, and nothing else.

The kernel's buffer for ICMP messages is not filled here: it is that of all network namespaces, so
other tests would get no ICMP error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from unsent import pinged, result_of, unsent_in
from waiting import await_connected, wait_until

from paraglider.lab.namespace import Namespace

pytestmark = pytest.mark.root

Links = dict[str, Namespace]
#: a route with an MTU below IPv4's least: the kernel sends nothing by it (net/ipv4/ip_output.c:
#: ip_setup_cork), and counts each ICMP message that it could not send
NOT_SENT = "10.0.0.1/32 dev eth0 mtu lock 60"


@pytest.fixture
def links() -> Iterator[Links]:
    """A link from `client` to `server`, without rates of ICMP errors."""
    made: Links = {}
    try:
        for name in ("client", "server"):
            made[name] = Namespace(f"u{os.getpid()}-{name}")
            made[name].sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv4.icmp_msgs_per_sec=100000")
        made["client"].ip(f"link add eth0 type veth peer name eth0 netns {made['server'].name}")
        for end, each in enumerate(made.values(), 1):
            each.ip(f"address add 10.0.0.{end}/16 dev eth0", "link set eth0 up")
        for each in made.values():
            await_connected(each, "eth0")
        yield made
    finally:
        for each in made.values():
            each.close()


@pytest.mark.parametrize("what", ["error", "reply"])
def test_what_a_kernel_could_not_send_is_asked_for_again(links: Links, what: str) -> None:
    """The server's error about a closed port, and its echo reply: its kernel counts them."""
    client, server = links["client"], links["server"]

    def ask() -> None:
        if what == "reply":
            pinged(client, "10.0.0.2")
        else:
            assert result_of(client, "udp", "10.0.0.2", 999, 9) == {"error": "ECONNREFUSED"}

    server.ip(f"route add {NOT_SENT}")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask)
        try:
            wait_until(lambda: unsent_in(server) > 0)
            assert not answer.done()
        finally:
            server.ip(f"route delete {NOT_SENT}")
        answer.result()


def test_what_no_kernel_has_lost_is_not_repeated(links: Links) -> None:
    """A server that does not answer gets one ping, and the client fails."""
    links["server"].sysctl("net.ipv4.icmp_echo_ignore_all=1")
    with pytest.raises(AssertionError, match="100% packet loss"):
        pinged(links["client"], "10.0.0.2", "-W", "1")
    with links["server"].entered():
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, numbers = (line.split() for line in lines if line.startswith("Icmp:"))
    assert numbers[names.index("InEchos")] == "1"
