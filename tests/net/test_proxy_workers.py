"""The processes of ``forward: proxy``: their privileges, their sockets, their deaths, their end."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from proxying import Client, events, service, workers
from services import url
from waiting import wait_until

from paraglider.core.strategies import STRATEGIES
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
TRANSFERS = 7000
CLIENTS = 6
LONG = 64_000_000  # bytes: more than fits between the ends


def listening(net: Topology) -> list[str]:
    """The listening sockets of the balancer."""
    return net.balancer.run(["ss", "-Hltn"]).stdout.splitlines()


def test_privileges(topology: Any, config: Any, balancer: Any, tmp_path: Path) -> None:
    """Each worker runs as nobody without groups and capabilities, in a chroot, on its core; it has
    only its own sockets.
    """
    net: Topology = topology()
    running = balancer(net, config(service(4, ports=[80, 443]), service(6), workers=2))
    pids = workers(running)
    assert len(pids) == 2
    assert len(listening(net)) == 6
    nobody = pwd.getpwnam("nobody")
    cores = set()
    for pid in pids:
        text = Path(f"/proc/{pid}/status").read_text()
        found = dict(line.split(":\t", 1) for line in text.splitlines())
        assert found["Uid"].split() == [str(nobody.pw_uid)] * 4
        assert found["Gid"].split() == [str(nobody.pw_gid)] * 4
        assert found["Groups"].split() == []
        assert {int(found[name], 16) for name in found if name.startswith("Cap")} == {0}
        assert found["NoNewPrivs"] == "1"
        assert Path(f"/proc/{pid}/root").resolve() == tmp_path / "empty"
        (core,) = os.sched_getaffinity(pid)
        cores.add(core)
        held = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        sockets = [name for name in held if name.startswith("socket:")]
        # Its own three, its channel, what wakes its loop, and the sign that a daemon is here.
        assert len(sockets) < 3 + 5
    assert len(cores) == 2


def test_a_port_that_is_taken(topology: Any, serve: Any, config: Any, balancer: Any) -> None:
    """The daemon names the holder and exits; all sockets that it had opened are closed."""
    net: Topology = topology(vips=(f"{VIP[4]}/24",))
    text = config(service(4, ports=[80, 443]), service(6))
    running: LabBalancer = balancer(net, text, start=False)
    directory = running.config.parent
    conf = directory / "nginx.conf"
    conf.write_text(
        f"daemon off; user root; pid {directory}/nginx.pid; error_log {directory}/error.log;"
        f" events {{}} http {{ access_log off; client_body_temp_path {directory}/b;"
        f" proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;"
        f" uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;"
        " server { listen 443; } }"
    )
    other = net.balancer.popen(["nginx", "-c", str(conf)])
    wait_until(lambda: listening(net), running.log)
    before = listening(net)
    done = net.balancer.run(running.daemon_command, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"service `web4`: {VIP[4]}:443 is in use by process " in last
    assert "(nginx)" in last
    assert "Traceback" not in done.stderr
    assert listening(net) == before
    assert other.poll() is None


def test_a_second_instance(topology: Any, config: Any, balancer: Any) -> None:
    """It does not share the port with the first, though workers of one daemon do."""
    net: Topology = topology()
    running = balancer(net, config(service(4), workers=2))
    second = net.balancer.run(running.daemon_command, check=False)
    assert second.returncode == 1
    assert f"{VIP[4]}:80 is in use by process " in second.stderr
    assert len(listening(net)) == 2


def test_before_the_set_up(topology: Any, serve: Any, config: Any, balancer: Any, ask: Any) -> None:
    """The daemon starts without the VIP and warns; once it is added, clients are served.
    `paraglider start` is refused, with or without a set-up, and changes nothing.
    """
    net: Topology = topology()
    serve(net, udp=())
    running: LabBalancer = balancer(net, config(service(4)), start=False)
    running.undo()
    running.start()
    assert 'remedy="run paraglider.config"' in running.log()
    static = running.config.with_name("static.conf")
    static.write_text(config(service(4, forward="offload")))
    program = [sys.executable, "-m", "paraglider", "start", "-c", str(static)]
    refused = net.balancer.run(program, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("paraglider: a daemon runs here: process ")
    assert VIP[4] not in net.balancer.run(["ip", "address"]).stdout
    assert net.balancer.run(["nft", "list", "ruleset"]).stdout == ""
    running.set_up()
    assert ask(net, "tcp", VIP[4], 80, 3).total() == 3


def test_a_client_keeps_its_backend(topology: Any, serve: Any, config: Any, balancer: Any) -> None:
    """With `affinity: client` all connections of a client go to one backend, whatever the strategy,
    and though there are two workers; several clients go to several, of both workers.
    """
    net: Topology = topology(clients=CLIENTS)
    serve(net, udp=())
    ports = dict(zip(STRATEGIES, range(8000, 8100), strict=False))
    services = [
        service(
            family,
            name=f"{strategy}{family}",
            ports=port,
            strategy=strategy,
            affinity="client",
            backends=[{"address": backend_address(family, n), "port": 80} for n in (1, 2, 3)],
        )
        for family in FAMILIES
        for strategy, port in ports.items()
    ]
    running = balancer(net, config(*services, workers=2))
    for family, port in product(FAMILIES, ports.values()):
        met = [backends_of(net, family, number, port) for number in range(CLIENTS)]
        assert [len(backends) for backends in met] == [1] * CLIENTS, port
        assert len(set.union(*met)) > 1

    def shown() -> str:
        return net.balancer.run([*running.daemon_command, "show", "workers", "--json"]).stdout

    def both_have_some() -> bool:
        rows = [row for row in json.loads(shown()) if row["role"] == "proxy worker"]
        return len(rows) == 2 and all(row.get("counts", {}).get("conns") for row in rows)

    wait_until(both_have_some, shown)


def backends_of(net: Topology, family: int, number: int, port: int) -> set[str]:
    """The backends that eight connections of a client go to."""
    source = net.client_address(family, number)
    command = ["curl", "-sS", "--fail", "--interface", source, "-H", "Connection: close"]
    return set(net.client.run([*command, *[url(family, port=port)] * 8]).stdout.split())


def test_a_worker_is_killed(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """The other one continues, the dead one's backlog waits for the next, which has the same
    restrictions.
    """
    net: Topology = topology()
    serve(net, udp=())
    running = balancer(net, config(*map(service, FAMILIES), workers=2), trouble=True)
    before = workers(running)
    os.kill(before[0], signal.SIGKILL)
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 80, 20).total() == 20
    wait_until(lambda: len(events(running, "proxy worker ready")) >= 3, running.log)
    after = workers(running)
    assert after[1] == before[1]
    assert after[0] != before[0]
    assert "CapEff:\t0000000000000000" in Path(f"/proc/{after[0]}/status").read_text()
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 80, 20).total() == 20


def test_a_stop_lets_connections_end(
    topology: Any, serve_peer: Any, config: Any, balancer: Any, peer: Any
) -> None:
    """After SIGTERM a running download is completed, and no new connection is accepted."""
    net: Topology = topology()
    serve_peer(net, TRANSFERS)
    # A busy machine may take longer for the rest of it than the default.
    running = balancer(net, config(service(4, ports=TRANSFERS), timeouts={"drain": 60}))
    client = Client(net.client, "halves", VIP[4], TRANSFERS, LONG)
    assert client.said() == '"half"'
    os.kill(running.pid, signal.SIGTERM)
    wait_until(lambda: not listening(net), running.log)
    assert peer(net.client, "connect", VIP[4], TRANSFERS) == {"error": "ECONNREFUSED"}
    told = json.loads(client.go_on())
    assert told["sent"] == told["arrived"]
    assert running.stop() == 0
    assert events(running, "stopped")


def test_a_stop_has_an_end(topology: Any, serve_peer: Any, config: Any, balancer: Any) -> None:
    """A connection that does not end is reset after `timeouts.drain`, and the daemon exits 0."""
    net: Topology = topology()
    net.client.sysctl("net.ipv4.tcp_rmem=4096 131072 4000000")  # half of it fits there else
    serve_peer(net, TRANSFERS)
    text = config(service(4, ports=TRANSFERS), timeouts={"drain": 1})
    running = balancer(net, text)
    client = Client(net.client, "halves", VIP[4], TRANSFERS, LONG)
    assert client.said() == '"half"'
    pids = [running.pid, *workers(running)]
    assert running.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert listening(net) == []
    assert json.loads(client.go_on()) == {"error": "ECONNRESET"}


def test_nothing_is_left(topology: Any, serve: Any, config: Any, balancer: Any, ask: Any) -> None:
    """After stop and undo the host has neither the VIPs nor a socket nor a rule, as before."""
    net: Topology = topology()
    serve(net, udp=())

    def state() -> tuple[str, ...]:
        commands = (
            ["ip", "-br", "address"],
            ["iptables-save"],
            ["ss", "-Hltn"],
            ["nft", "list", "ruleset"],
        )
        return tuple(net.balancer.run(command).stdout for command in commands)

    before = state()
    running = balancer(net, config(*map(service, FAMILIES)))
    ask(net, "tcp", VIP[4], 80, 3)
    assert running.stop() == 0
    running.undo()
    assert state() == before
