"""Neighbours learn at once where the VIPs are, and no route that bypasses the balancer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from directing import directed
from waiting import wait_until

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
    """Give the client a neighbour entry with another host for the VIPs."""
    for vip in VIP.values():
        net.client.ip(f"neigh replace {vip} lladdr {WRONG} dev eth0 nud stale")


def believed(net: Topology, family: int) -> str:
    """The hardware address that the client has for the VIP."""
    shown = net.client.run(["ip", "-j", OPTION[family], "neigh", "show", "to", VIP[family]]).stdout
    (entry,) = json.loads(shown)
    return str(entry["lladdr"])


def await_told(net: Topology) -> None:
    """Wait until the client has the right entry; it sends nothing that would correct it."""
    mine = hardware(net.balancer, "eth0")

    def found() -> set[str]:
        return {believed(net, family) for family in VIP}

    wait_until(lambda: found() == {mine}, found)


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
    """Have the first backend send packets that leave by the link on which they came.

    conntrack's NAT drops the redirect for the first packet of a connection (Linux,
    net/netfilter/nf_nat_proto.c: nf_nat_icmp_reply_translation). After nine ignored redirects, a
    host gets none until it was silent for 20 s (net/ipv4/route.c: ip_rt_send_redirect): in IPv4,
    each round has another source address.
    """
    ping = ["ping", "-n", "-c", "2", "-i", "0.05", "-W", "0.1"]
    if family == 4:
        sender = f"10.0.0.{next(SENDERS)}"
        net.backends[0].ip(f"addr replace {sender}/32 dev eth0")
        ping += ["-I", sender]
    net.backends[0].run([*ping, FAR[family]], check=False)
    net.backends[0].run(["ip", OPTION[family], "route", "flush", "cache"])


def redirected(net: Topology, family: int) -> bool:
    """Whether a few packets give the backend a redirect."""
    before = redirects(net, family)
    for _ in range(3):
        send_round(net, family)
    return redirects(net, family) > before


def await_redirect(net: Topology, family: int) -> None:
    """Send until the backend gets a redirect: the kernel sends them ever more rarely."""
    before = redirects(net, family)

    def redirected() -> bool:
        send_round(net, family)
        return redirects(net, family) > before

    wait_until(redirected)


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
    """The VIPs are announced, are not sources of the host's own packets, and
    no redirects are sent.
    """
    net = topology()
    mislead(net)
    text = config(*(service(family, ports=80, forward=forward) for family in VIP))
    one = balancer(net, text, start=False)
    await_told(net)
    assert {family: source(net, family) for family in VIP} == BALANCER
    lead_back(net)
    assert [redirected(net, family) for family in VIP] == [False, False]
    # Without this rule the kernel sends redirects to the backend.
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
    """By the host with their proxy entries."""
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
    """By the daemon, as all VIPs at its start."""
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
