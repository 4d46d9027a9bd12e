"""What neighbours are to know: where the VIPs are, at once, and no way past the balancer."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from directing import directed

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import BALANCER, PUBLIC_PREFIX, VIP, Topology

pytestmark = pytest.mark.root

WRONG = "02:00:00:00:00:99"
FAR = {4: "203.0.113.1", 6: "2001:db8:99::1"}
REDIRECTS = {4: "IcmpInRedirects", 6: "Icmp6InRedirects"}
OPTION = {4: "-4", 6: "-6"}
# The last byte of the addresses from which the rounds of IPv4 come.
SENDERS = itertools.cycle(range(100, 250))


def hardware(namespace: Namespace, interface: str) -> str:
    """The hardware address of an interface."""
    return namespace.run(["cat", f"/sys/class/net/{interface}/address"]).stdout.strip()


def mislead(net: Topology) -> None:
    """Have the client believe that another host has the VIPs."""
    for vip in VIP.values():
        net.client.ip(f"neigh replace {vip} lladdr {WRONG} dev eth0 nud stale")


def believed(net: Topology, family: int) -> str:
    """Where the client would send what is for the VIP."""
    shown = net.client.run(["ip", "-j", OPTION[family], "neigh", "show", "to", VIP[family]]).stdout
    (entry,) = json.loads(shown)
    return str(entry["lladdr"])


def await_told(net: Topology) -> None:
    """Wait until the client knows better; it sends nothing by which it could find out itself."""
    mine = hardware(net.balancer, "eth0")
    deadline = time.monotonic() + 20
    while {believed(net, family) for family in VIP} != {mine}:
        assert time.monotonic() < deadline, [believed(net, family) for family in VIP]
        time.sleep(0.02)


def source(net: Topology, family: int) -> str:
    """The address that the balancer's own packets to the client have."""
    to = net.client_address(family)
    shown = net.balancer.run(["ip", "-j", OPTION[family], "route", "get", to]).stdout
    return str(json.loads(shown)[0]["prefsrc"])


def redirects(net: Topology, family: int) -> int:
    """How many redirects the first backend has got."""
    name = REDIRECTS[family]
    shown = net.backends[0].run(["nstat", "-jasz", name]).stdout
    return int(json.loads(shown)["kernel"][name])


def send_round(net: Topology, family: int) -> None:
    """Have the first backend send packets that go on by the link on which they came.

    Of the first packet of a connection conntrack's NAT lets no redirect pass (Linux,
    net/netfilter/nf_nat_proto.c: nf_nat_icmp_reply_translation). After nine redirects that it
    ignored, a host is told of none until it was silent for 20 s (net/ipv4/route.c:
    ip_rt_send_redirect): in IPv4, each round comes from another address.
    """
    ping = ["ping", "-n", "-c", "2", "-i", "0.05", "-W", "0.1"]
    if family == 4:
        sender = f"10.0.0.{next(SENDERS)}"
        net.backends[0].ip(f"addr replace {sender}/32 dev eth0")
        ping += ["-I", sender]
    net.backends[0].run([*ping, FAR[family]], check=False)
    net.backends[0].run(["ip", OPTION[family], "route", "flush", "cache"])


def redirected(net: Topology, family: int) -> bool:
    """Whether the backend is told of the shorter way, by a few packets."""
    before = redirects(net, family)
    for _ in range(3):
        send_round(net, family)
    return redirects(net, family) > before


def await_redirect(net: Topology, family: int) -> None:
    """Send until the backend is told of it: the kernel sends redirects ever more rarely."""
    before, deadline = redirects(net, family), time.monotonic() + 60
    while redirects(net, family) == before:
        assert time.monotonic() < deadline
        send_round(net, family)


def lead_back(net: Topology) -> None:
    """The way from the balancer to ``FAR`` leads to the second backend, a router on the link."""
    shown = (
        net.backends[1]
        .run(["ip", "-j", "-6", "addr", "show", "dev", "eth0", "scope", "link"])
        .stdout
    )
    found = (address for link in json.loads(shown) for address in link.get("addr_info", ()))
    (local,) = (address["local"] for address in found if address)
    net.balancer.ip(
        f"route add {FAR[4]} via 10.0.0.2 dev eth1", f"route add {FAR[6]} via {local} dev eth1"
    )


@pytest.mark.parametrize("forward", ["nat", "offload"])
def test_neighbours_and_the_host_know_what_is_whose(
    topology: Callable[..., Topology],
    config: Callable[..., str],
    service: Callable[..., dict[str, Any]],
    balancer: Callable[..., Any],
    forward: str,
) -> None:
    """The VIPs are announced, are no source of the host's own, and nobody is redirected."""
    net = topology()
    mislead(net)
    text = config(*(service(family, ports=80, forward=forward) for family in VIP))
    one = balancer(net, text, start=False)
    await_told(net)
    assert {family: source(net, family) for family in VIP} == BALANCER
    lead_back(net)
    assert [redirected(net, family) for family in VIP] == [False, False]
    # The very rule does it: without it the kernel tells the backend.
    net.balancer.run(["ip6tables", "-D", "OUTPUT", "-j", "PARAGLIDER-REDIRECT"])
    await_redirect(net, 6)
    # Nor does the parameter of IPv4 have to be writable.
    for name in ("all", "eth1"):
        net.balancer.sysctl(f"net.ipv4.conf.{name}.send_redirects=1")
    assert not redirected(net, 4)
    net.balancer.run(["iptables", "-D", "OUTPUT", "-j", "PARAGLIDER-REDIRECT"])
    await_redirect(net, 4)
    assert one.set_up().returncode == 0


def test_the_vips_of_dsr_are_announced_too(
    topology: Callable[..., Topology],
    config: Callable[..., str],
    service: Callable[..., dict[str, Any]],
    balancer: Callable[..., Any],
) -> None:
    """By the host that answers for them."""
    net = directed(topology)
    mislead(net)
    text = config(*(service(family, ports=80, forward="dsr") for family in VIP))
    balancer(net, text, start=False)
    await_told(net)


def test_a_vip_that_is_put_back_is_announced(
    topology: Callable[..., Topology],
    config: Callable[..., str],
    service: Callable[..., dict[str, Any]],
    balancer: Callable[..., Any],
) -> None:
    """By the daemon, as all are when it starts: it came to this host."""
    net = topology()
    text = config(*(service(family, ports=80) for family in VIP))
    one = balancer(net, text, start=False, trouble=True)
    mislead(net)
    one.start()
    await_told(net)
    mislead(net)
    for family, vip in VIP.items():
        net.balancer.ip(f"address del {vip}/{PUBLIC_PREFIX[family]} dev eth0")
    await_told(net)
