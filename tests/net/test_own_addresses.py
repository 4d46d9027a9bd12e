"""One file for all hosts: `snat` and gateways name an interface, and each host has its own address.

The balancer's addresses on the private side are the host's own here, not added by the set-up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from evenly import assert_even
from failing import control
from offloading import FAMILIES, service
from sharing import vip
from waiting import wait_until

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import GATEWAY, PRIVATE_PREFIX, PUBLIC_PREFIX, Topology

pytestmark = pytest.mark.root

OWN = {"interface": "eth1"}
NETWORK = {"public": {"interface": "eth0"}, "private": {"interface": "eth1", "gateway": [OWN]}}
#: other addresses of the balancer
OTHER = {4: "10.0.0.253", 6: "fd00:10::fd"}
MASKED = 2  # the number of a VIP


def services() -> list[dict[str, Any]]:
    """Of each family one by nat, and one of which the backends see the balancer."""
    masked = {"ports": 80, "snat": OWN}
    return [
        made
        for family in FAMILIES
        for made in (
            service(family, forward="nat", ports=8080),
            service(family, name=f"masked{family}", **masked)
            | {"vip": f"{vip(family, MASKED)}/{PUBLIC_PREFIX[family]}"},
        )
    ]


@pytest.fixture
def net(topology: Any, serve: Any) -> Topology:
    """A network whose balancer has addresses on the private side."""
    made: Topology = topology(gateways=True)
    serve(made, http=(80, 8080), udp=())
    return made


def source(net: Topology, family: int) -> str:
    """The client's address as a backend sees it."""
    host = vip(family, MASKED)
    command = ["curl", "-sS", "-m", "20", f"http://{f'[{host}]' if family == 6 else host}/from"]
    return net.client.run(command).stdout.strip()


def addresses(net: Topology) -> set[str]:
    """The balancer's addresses on the private side."""
    listed = json.loads(net.balancer.run(["ip", "-j", "address", "show", "eth1"]).stdout)
    return {each["local"] for each in listed[0]["addr_info"] if each["scope"] == "global"}


def change(net: Topology, what: str, table: dict[int, str]) -> None:
    """Add or delete the addresses of ``table``."""
    for family in FAMILIES:
        nodad = ["nodad"] if (family, what) == (6, "add") else []
        address = f"{table[family]}/{PRIVATE_PREFIX[family]}"
        net.balancer.run(["ip", "address", what, address, "dev", "eth1", *nodad])


def health(running: LabBalancer) -> str:
    """What `paraglider health` says."""
    return json.dumps(control(running).get("health"))


def test_backends_see_and_use_the_hosts_own_address(
    net: Topology, balancer: Callable[..., LabBalancer], config: Callable[..., str], ask: Any
) -> None:
    """And keep it when the set-up is undone, since it was there before."""
    before = addresses(net)
    assert before == set(GATEWAY.values())
    running = balancer(net, config(*services(), network=NETWORK))
    for family in FAMILIES:
        assert source(net, family) == GATEWAY[family]
        assert_even(ask, net, "tcp", vip(family, 1), 8080)
    running.stop()
    running.undo()
    assert addresses(net) == before


def test_an_address_that_changes_is_followed(
    net: Topology, balancer: Callable[..., LabBalancer], config: Callable[..., str]
) -> None:
    """While the interface has none, the last one stays, and `health` tells; the next is used for
    new connections. Changes of the file that nobody asked for are not applied with it.
    """
    running = balancer(net, config(*services(), network=NETWORK))
    assert [source(net, family) for family in FAMILIES] == list(GATEWAY.values())
    running.config.write_text("mistakes: [")
    change(net, "delete", GATEWAY)
    gone = [f"eth1 has no IPv{family} address of this host's own" for family in FAMILIES]
    wait_until(lambda: all(each in health(running) for each in gone), running.log)
    assert "the last one stays in use" in health(running)
    change(net, "add", OTHER)
    wait_until(lambda: all(OTHER[family] in running.log() for family in FAMILIES), running.log)
    wait_until(lambda: "eth1 has no" not in health(running), running.log)
    # The host helper loads the kernel's table after that.
    wait_until(
        lambda: [source(net, family) for family in FAMILIES] == list(OTHER.values()), running.log
    )


def test_the_kernel_alone(
    net: Topology, start: Callable[..., Any], config: Callable[..., str]
) -> None:
    """`paraglider start` takes the addresses of the host at its start."""
    masked = [made for made in services() if "snat" in made]
    start(net, config(*masked, network=NETWORK))
    assert [source(net, family) for family in FAMILIES] == list(GATEWAY.values())
