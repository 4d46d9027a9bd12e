"""``paraglider backend-setup`` on backends: its changes, its output, its undo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unsent import pinged

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import GATEWAY, VIP, Topology, backend_address

pytestmark = pytest.mark.root

LOOKED_AT = (
    ["nft", "list", "ruleset"],
    ["iptables-save"],
    ["ip6tables-save"],
    ["ip", "address"],
    ["ip", "-4", "route", "show", "table", "all"],
    ["ip", "-6", "route", "show", "table", "all"],
    ["ip", "rule"],
    ["sysctl", "-a", "-r", r"^net\.ipv[46]\.(conf|ip_)"],
)


def state_of(backend: Namespace) -> str:
    """Everything that the command may change, as the host's own programs show it."""
    backend.await_routed()
    shown = (backend.run(command).stdout for command in LOOKED_AT)
    lines = (line for text in shown for line in text.splitlines())
    # How long addresses and routes still live counts down by itself; iptables-save has the time.
    return "\n".join(line for line in lines if "stable_secret" not in line and line[:1] != "#")


@pytest.fixture
def file(tmp_path: Path, config: Any, service: Any) -> Callable[..., Path]:
    """A function that writes a file with a service of each family, called web4 and web6."""

    def write(**keys: Any) -> Path:
        path = tmp_path / "copy.conf"
        services = [service(f, **{"ports": 80, **keys}) for f in (4, 6)]
        path.write_text(config(*services))
        return path

    return write


WAYS: dict[str, dict[str, Any]] = {
    "dsr": {"forward": "dsr"},
    "direct": {"return": "direct"},
    "any": {"return": "direct", "protocol": "any", "ports": "1-65535"},
    "via": {},
}


@pytest.mark.parametrize("way", WAYS)
def test_applied_twice_and_undone(topology: Any, backend_setup: Any, file: Any, way: str) -> None:
    """The second run changes nothing, the undo restores the original, byte for byte."""
    net: Topology = topology(backends=1, direct=True)
    (backend,) = net.backends
    # A host with a life of its own: a firewall, and a default route that is not ours.
    backend.run(["iptables", "-A", "INPUT", "-s", "192.0.2.0/24", "-j", "DROP"])
    backend.ip(*(f"route replace default via {backend_address(f, 9)}" for f in (4, 6)))
    backend.sysctl("net.ipv4.conf.all.rp_filter=1")
    path = file(**WAYS[way])
    before = state_of(backend)
    done = backend_setup(backend, path, "web4", "web6", "--apply")
    after = state_of(backend)
    assert after != before
    again = backend_setup(backend, path, "web4", "web6", "--apply")
    assert {line.split()[0] for line in again.stdout.splitlines()[:-1]} == {"unchanged"}
    assert len(again.stdout.splitlines()) == len(done.stdout.splitlines())
    assert state_of(backend) == after
    backend_setup(backend, path, "web4", "web6", "--undo")
    assert state_of(backend) == before
    assert backend_setup(backend, path, "--undo").stdout == "nothing to undo\n"


@pytest.mark.parametrize("way", ["dsr", "direct", "via"])
def test_the_script_does_the_same(topology: Any, backend_setup: Any, file: Any, way: str) -> None:
    """The printed script, run by a shell, does the same as --apply; printing changes nothing."""
    net: Topology = topology(backends=1, direct=True)
    (backend,) = net.backends
    path = file(**WAYS[way])
    before = state_of(backend)
    script = backend_setup(backend, path, "web4", "web6").stdout
    assert script.startswith("#!/bin/sh -e\n")
    assert state_of(backend) == before
    backend_setup(backend, path, "web4", "web6", "--apply")
    applied = state_of(backend)
    backend_setup(backend, path, "--undo")
    backend.run(["sh", "-e"], text=script)
    assert state_of(backend) == applied


def test_the_vip_of_a_dsr_backend(topology: Any, backend_setup: Any, file: Any) -> None:
    """The host accepts packets for the VIP; it neither announces it nor uses it as a source."""
    net: Topology = topology(backends=1)
    (backend,) = net.backends
    backend_setup(backend, file(forward="dsr"), "web4", "web6", "--apply")
    shown = backend.run(["ip", "address", "show", "dev", "lo"]).stdout
    assert f"inet {VIP[4]}/32 scope global lo" in shown
    assert f"inet6 {VIP[6]}/128 scope global nodad deprecated" in shown
    for family in (4, 6):
        # The balancer's own neighbour table: who says to have the VIP on the private link?
        route = f"route add {VIP[family]} dev eth1"
        net.balancer.ip(f"address add {GATEWAY[family]}/{8 if family == 4 else 64} dev eth1", route)
        pinged(net.balancer, backend_address(family, 1))
        ping = ["ping", "-c", "1", "-W", "1", VIP[family]]
        assert net.balancer.run(ping, check=False).returncode != 0
        # By its hardware address a packet for the VIP is taken, and answered from the VIP.
        hardware = backend.run(["cat", "/sys/class/net/eth0/address"]).stdout.strip()
        net.balancer.ip(f"neighbour replace {VIP[family]} lladdr {hardware} dev eth1")
        pinged(net.balancer, VIP[family])
        way = backend.run(["ip", "route", "get", GATEWAY[family]]).stdout
        assert f"src {backend_address(family, 1)}" in way


def test_dsr_end_to_end(
    topology: Any,
    backend_setup: Any,
    serve: Any,
    config: Any,
    service: Any,
    balancer: Any,
    ask: Any,
) -> None:
    """The command does everything that the backends of a dsr service need."""
    net = topology(direct=True)
    serve(net)
    for backend in net.backends:
        backend.sysctl("net.ipv4.conf.all.rp_filter=1")
    running = balancer(net, config(*(service(f, ports=80, forward="dsr") for f in (4, 6))))
    for backend in net.backends:
        backend_setup(backend, running.config, "web4", "web6", "--apply")
    for family in (4, 6):
        answers = ask(net, "tcp", VIP[family], 80, 6)
        assert answers == {"backend1": 2, "backend2": 2, "backend3": 2}


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"forward": "proxy"}, "the balancer connects by itself"),
        ({"forward": "offload", "snat": GATEWAY[4]}, "packets come from the balancer's"),
    ],
)
def test_nothing_is_needed(
    topology: Any,
    backend_setup: Any,
    config: Any,
    service: Any,
    tmp_path: Path,
    keys: dict[str, Any],
    why: str,
) -> None:
    """The output has the reason, and nothing is changed."""
    net: Topology = topology(backends=1)
    (backend,) = net.backends
    path = tmp_path / "c"
    path.write_text(config(service(4, ports=80, **keys)))
    before = state_of(backend)
    done = backend_setup(backend, path, "web4", "--apply")
    assert done.stdout.startswith(f"nothing to do for `web4`: {why}")
    assert "# Nothing to do." in backend_setup(backend, path, "web4").stdout
    assert state_of(backend) == before


def test_refusals_change_nothing(topology: Any, backend_setup: Any, file: Any) -> None:
    """On a host that is no backend, for an unknown service, and if the VIP would be announced."""
    net: Topology = topology(backends=1)
    (backend,) = net.backends
    path = file(forward="dsr")
    done = backend_setup(net.client, path, "web4", "--apply", check=False)
    assert (done.returncode, "this host is no backend of `web4`" in done.stderr) == (1, True)
    done = backend_setup(backend, path, "wbe4", "--apply", check=False)
    assert (done.returncode, "there is no service 'wbe4'" in done.stderr) == (1, True)
    backend.ip(f"address add {VIP[4]}/24 dev eth0")
    before = state_of(backend)
    done = backend_setup(backend, path, "web4", "--apply", check=False)
    assert (done.returncode, f"the VIP {VIP[4]} is on eth0" in done.stderr) == (1, True)
    # Neither the service that could be set up, nor the one that could not.
    done = backend_setup(backend, path, "web6", "web4", "--apply", check=False)
    assert done.returncode == 1
    assert state_of(backend) == before
