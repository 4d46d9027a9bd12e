"""The host changes under a daemon at work: links, firewalls, sysctls; the service goes on, and
`health` and the log tell of it.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from offloading import FAMILIES, service

from paraglider.daemon.http.client import ControlClient
from paraglider.lab.topology import VIP, Topology

pytestmark = pytest.mark.root

FOREIGN = """
table inet hostfw {
  chain forward {
    type filter hook forward priority 10; policy accept;
    ct state established,related accept
    ct status dnat accept
    reject with icmpx admin-prohibited
  }
}
"""

MAY_DROP = """
table inet mayfw {
  chain forward {
    type filter hook forward priority 10; policy accept;
    tcp dport 80 drop
  }
}
"""
BACKENDS = 3


def until(done: Callable[[], object], running: Any) -> None:
    """Wait for ``done``; a host that is busy may take its time."""
    deadline = time.monotonic() + 40
    while not done():
        assert time.monotonic() < deadline, running.log()
        time.sleep(0.1)


def answered(net: Topology, ask: Any, *families: int) -> bool:
    """Whether all connections of the client are answered; refused ones are what is to be mended."""
    try:
        return all(ask(net, "tcp", VIP[family], 80, 3).total() == 3 for family in families)
    except AssertionError:
        return False


def both(net: Topology, ask: Any) -> bool:
    """Whether both families are answered."""
    return answered(net, ask, *FAMILIES)


def flap(net: Topology) -> None:
    """Every link of the balancer goes down and up again."""
    for name in ("eth0", "eth1"):
        net.balancer.ip(f"link set {name} down")
        net.balancer.ip(f"link set {name} up")


def reload_firewall(net: Topology) -> None:
    """As netfilter-persistent does it: the filter table of a file, which knows nothing of us."""
    for program in ("iptables", "ip6tables"):
        net.balancer.run(
            [f"{program}-restore"],
            text="*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\nCOMMIT\n",
        )


def flush(net: Topology) -> None:
    """As `systemctl reload nftables` does it."""
    net.balancer.run(["nft", "flush", "ruleset"])


def legacy(net: Topology) -> None:
    """Another firewall begins to use iptables-legacy."""
    for program in ("iptables-legacy", "ip6tables-legacy"):
        net.balancer.run([program, "-P", "FORWARD", "DROP"])


def switch_off(net: Topology) -> None:
    """Another program's sysctls are applied."""
    net.balancer.sysctl("net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")


def drop_addresses(net: Topology) -> None:
    """A network manager that knows nothing of us takes our addresses away."""
    for family, prefix in ((4, 24), (6, 64)):
        address = f"{VIP[family]}/{prefix}"
        net.balancer.run(["ip", "address", "del", address, "dev", "eth0"])


EVENTS = (flap, reload_firewall, flush, legacy, switch_off, drop_addresses)


def test_the_host_changes_without_a_daemon(
    topology: Any, serve: Any, config: Any, start: Any, ask: Any, tmp_path: Path
) -> None:
    """`start --watch` puts back what is taken away, follows what is started meanwhile, is alone,
    leaves the host as it is at its end, and ends when all is taken back.
    """
    net = topology()
    serve(net)
    running = start(net, config(*(service(family, forward="offload") for family in FAMILIES)))
    log = tmp_path / "keeper.log"

    def watch() -> subprocess.Popen[bytes]:
        said = log.read_text().count("event=ready") if log.exists() else 0
        with log.open("ab") as file:
            process = net.balancer.popen(
                [*running.setup_command, "--watch"], stdout=file, stderr=file
            )
        until(lambda: log.read_text().count("event=ready") > said, running)
        return process

    keeper = watch()
    for event in (flap, reload_firewall, flush, switch_off, drop_addresses):
        told = log.read_text().count("restored")
        event(net)
        until(lambda told=told: log.read_text().count("restored") > told, running)  # type: ignore[misc]
        until(lambda: both(net, ask), running)
    second = net.balancer.run([*running.setup_command, "--watch"], check=False)
    assert second.returncode == 1
    assert "another `paraglider start --watch` keeps this host" in second.stderr
    running.config.write_text(config(service(4, forward="offload")))
    running.set_up()
    flush(net)
    until(lambda: answered(net, ask, 4), running)
    keeper.terminate()
    assert keeper.wait(40) == 0
    assert ask(net, "tcp", VIP[4], 80, 3).total() == 3
    keeper = watch()
    running.undo()
    assert keeper.wait(40) == 0
    assert "Traceback" not in log.read_text()
    assert "PARAGLIDER" not in net.balancer.run(["iptables-save"]).stdout
    assert "paraglider" not in net.balancer.run(["nft", "list", "ruleset"]).stdout


@pytest.mark.parametrize("forward", ["nat", "offload"])
def test_the_host_changes(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, forward: str
) -> None:
    """Whatever is taken away is back soon, named in the log; at the end of it all is well, a chain
    that drops is named while it is there, and an undo leaves nothing of ours.
    """
    net = topology()
    serve(net)
    running = balancer(
        net, config(*(service(family, forward=forward) for family in FAMILIES)), trouble=True
    )
    control = ControlClient(str(running.config.parent.parent / "control.sock"))

    def healthy() -> bool:
        return bool(control.get("health")["healthy"])

    def unanswered() -> int:
        return sum("no answer passed here" in line for line in control.get("health")["problems"])

    until(lambda: both(net, ask) and healthy(), running)
    for event in EVENTS:
        told = running.log().count("restored")
        event(net)
        until(lambda told=told: running.log().count("restored") > told, running)  # type: ignore[misc]
        until(lambda: both(net, ask) and healthy(), running)
    # A chain of which nobody can say that it drops: told of by what happens.
    net.balancer.run(["nft", "-f", "-"], text=MAY_DROP)
    for family in FAMILIES:
        vip = VIP[family] if family == 4 else f"[{VIP[family]}]"
        for _ in range(2 * BACKENDS):
            net.client.popen(["curl", "-sm", "60", "-o", "/dev/null", f"http://{vip}/"])
    until(lambda: unanswered() == len(FAMILIES), running)
    net.balancer.run(["nft", "delete", "table", "inet", "mayfw"])
    until(lambda: both(net, ask) and healthy(), running)
    if forward == "nat":
        net.balancer.run(["nft", "-f", "-"], text=FOREIGN)
        until(lambda: "chain inet hostfw forward" in str(control.get("health")), running)
        net.balancer.run(["nft", "delete", "table", "inet", "hostfw"])
        until(lambda: both(net, ask) and healthy(), running)
    assert running.stop() == 0
    running.undo()
    for program in ("iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy"):
        assert "PARAGLIDER" not in net.balancer.run([f"{program}-save"]).stdout
    # What the undo has taken back is put back by nobody.
    assert net.balancer.run(["sysctl", "-n", "net.ipv4.ip_forward"]).stdout.strip() == "0"
