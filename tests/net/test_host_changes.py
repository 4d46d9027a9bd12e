"""Changes of the host while the daemon runs: links, firewalls, sysctls; they are repaired, and
`health` and the log report them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from offloading import FAMILIES, service
from waiting import TIMEOUT, wait_until

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


def answered(net: Topology, ask: Any, *families: int) -> bool:
    """Whether all connections of the client are answered."""
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
    """As netfilter-persistent does it: loads a filter table without our rules."""
    for program in ("iptables", "ip6tables"):
        net.balancer.run(
            [f"{program}-restore"],
            text="*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\nCOMMIT\n",
        )


def flush(net: Topology) -> None:
    """As `systemctl reload nftables` does it."""
    net.balancer.run(["nft", "flush", "ruleset"])


def legacy(net: Topology) -> None:
    """Another firewall starts using iptables-legacy."""
    for program in ("iptables-legacy", "ip6tables-legacy"):
        net.balancer.run([program, "-P", "FORWARD", "DROP"])


def switch_off(net: Topology) -> None:
    """Another program sets its sysctls."""
    net.balancer.sysctl("net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")


def drop_addresses(net: Topology) -> None:
    """A network manager removes our addresses."""
    for family, prefix in ((4, 24), (6, 64)):
        address = f"{VIP[family]}/{prefix}"
        net.balancer.run(["ip", "address", "del", address, "dev", "eth0"])


EVENTS = (flap, reload_firewall, flush, legacy, switch_off, drop_addresses)


def test_the_host_changes_without_a_daemon(
    topology: Any, serve: Any, config: Any, start: Any, ask: Any, tmp_path: Path
) -> None:
    """`start --watch` restores removed objects, follows later runs of `start`, runs only once,
    leaves the host unchanged at its end, and exits after `stop`.
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
        wait_until(lambda: log.read_text().count("event=ready") > said, running.log)
        return process

    keeper = watch()
    for event in (flap, reload_firewall, flush, switch_off, drop_addresses):
        told = log.read_text().count("restored")
        event(net)
        wait_until(lambda told=told: log.read_text().count("restored") > told, running.log)  # type: ignore[misc]
        wait_until(lambda: both(net, ask), running.log)
    second = net.balancer.run([*running.setup_command, "--watch"], check=False)
    assert second.returncode == 1
    assert "another `paraglider start --watch` keeps this host" in second.stderr
    running.config.write_text(config(service(4, forward="offload")))
    running.set_up()
    flush(net)
    wait_until(lambda: answered(net, ask, 4), running.log)
    keeper.terminate()
    assert keeper.wait(TIMEOUT) == 0
    assert ask(net, "tcp", VIP[4], 80, 3).total() == 3
    keeper = watch()
    running.undo()
    assert keeper.wait(TIMEOUT) == 0
    assert "Traceback" not in log.read_text()
    assert "PARAGLIDER" not in net.balancer.run(["iptables-save"]).stdout
    assert "paraglider" not in net.balancer.run(["nft", "list", "ruleset"]).stdout


@pytest.mark.parametrize("forward", ["nat", "offload"])
def test_the_host_changes(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, forward: str
) -> None:
    """Every removed object is soon restored, and named in the log; at the end there is no
    condition, a chain that drops packets is reported while it exists, and the undo removes
    everything.
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

    wait_until(lambda: both(net, ask) and healthy(), running.log)
    for event in EVENTS:
        told = running.log().count("restored")
        event(net)
        wait_until(lambda told=told: running.log().count("restored") > told, running.log)  # type: ignore[misc]
        wait_until(lambda: both(net, ask) and healthy(), running.log)
    # Whether this chain drops is not known from its rules: unanswered connections report it.
    net.balancer.run(["nft", "-f", "-"], text=MAY_DROP)
    for family in FAMILIES:
        vip = VIP[family] if family == 4 else f"[{VIP[family]}]"
        for _ in range(2 * BACKENDS):
            net.client.popen(["curl", "-sm", "60", "-o", "/dev/null", f"http://{vip}/"])
    wait_until(lambda: unanswered() == len(FAMILIES), running.log)
    net.balancer.run(["nft", "delete", "table", "inet", "mayfw"])
    wait_until(lambda: both(net, ask) and healthy(), running.log)
    if forward == "nat":
        net.balancer.run(["nft", "-f", "-"], text=FOREIGN)
        wait_until(lambda: "chain inet hostfw forward" in str(control.get("health")), running.log)
        net.balancer.run(["nft", "delete", "table", "inet", "hostfw"])
        wait_until(lambda: both(net, ask) and healthy(), running.log)
    assert running.stop() == 0
    running.undo()
    for program in ("iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy"):
        assert "PARAGLIDER" not in net.balancer.run([f"{program}-save"]).stdout
    # Nothing restores what the undo has reverted.
    assert net.balancer.run(["sysctl", "-n", "net.ipv4.ip_forward"]).stdout.strip() == "0"
