"""``forward: proxy`` end to end: the backends of connections, and the relayed bytes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from evenly import assert_even
from inside import InsideBalancer
from proxying import Client, events, fetch, service, workers
from services import url
from serving import listens
from waiting import wait_until

from paraglider.lab.topology import CLIENT, GATEWAY, VIP, Topology, backend_address

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
TRANSFERS = 7000
LONG = 50_000_000  # bytes
KIBIBYTE = 1024

#: nginx that says whom the PROXY protocol names; version 1 or 2 it sees by itself
TELLING = """\
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 8081 proxy_protocol; listen [::]:8081 proxy_protocol;
        set $vip "$proxy_protocol_server_addr $proxy_protocol_server_port";
        location / {{ return 200 "$proxy_protocol_addr $vip $remote_addr\\n"; }}
    }}
}}
"""


def mapped(family: int, port: int) -> list[dict[str, Any]]:
    """All backends, at ``port``."""
    return [{"address": backend_address(family, n), "port": port} for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def world(sharing: Any) -> tuple[Topology, InsideBalancer]:
    """A network, and a balancer with one worker: HTTP, mapped ports, a range of ports, transfers,
    and backends of which the first refuses, or all.
    """
    shared = sharing()
    shared.serve(http=(80, 8001), udp=())
    shared.serve_peer(TRANSFERS)
    services = []
    for family in FAMILIES:
        rest = [{"address": backend_address(family, n), "port": 80} for n in (2, 3)]
        refusing = {"address": backend_address(family, 1), "port": 9}
        services += [
            service(family),
            service(family, name=f"m{family}", ports=8002, backends=mapped(family, 80)),
            service(family, name=f"r{family}", ports=[7999, "8000-8001"]),
            service(family, name=f"bulk{family}", ports=TRANSFERS),
            service(family, name=f"first{family}", ports=82, backends=[refusing, *rest]),
            service(family, name=f"none{family}", ports=81, backends=mapped(family, 9)),
        ]
    return shared.net, shared.balancer(shared.config(*services))


def test_distribution_and_what_the_backends_see(
    world: tuple[Topology, InsideBalancer], ask: Any
) -> None:
    """In turn over IPv4 and IPv6, to mapped ports, and to any port of a range; backends see the
    balancer's address. Without rules: nothing is queued.
    """
    net, _ = world
    for family in FAMILIES:
        assert_even(ask, net, "tcp", VIP[family], 80)
        assert ask(net, "tcp", VIP[family], 8001, 6).total() == 6
        assert_even(ask, net, "tcp", VIP[family], 8002)
        assert fetch(net.client, url(family, "/from")) == GATEWAY[family]
    assert "PARAGLIDER" not in net.balancer.run(["iptables-save"]).stdout


def test_two_workers_share_the_connections(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """Both accept some of them, and all are answered."""
    net: Topology = topology()
    serve(net, udp=())
    running = balancer(net, config(*map(service, FAMILIES), workers=2), "-D")
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 80, 30).total() == 30
    wait_until(lambda: len(events(running, "new flow")) == 60, running.log)
    taken = {line.partition(" core=")[2].split()[0] for line in events(running, "new flow")}
    assert len(taken) == 2


def test_transfers(world: tuple[Topology, InsideBalancer], peer: Any) -> None:
    """10 MB arrive complete in both directions; a client that has shut down writing is still
    answered, and reads the end after the answer.
    """
    net, _ = world
    for family in FAMILIES:
        for way in ("up", "down"):
            told = peer(net.client, way, VIP[family], TRANSFERS, LONG // 5)
            assert told["sent"] == told["arrived"]
        told = peer(net.client, "finish", VIP[family], TRANSFERS, LONG // 10)
        assert told["sent"] == told["arrived"]
        assert told["after"] == 0


def resident(pid: int) -> int:
    """Bytes of memory that the process has to itself."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) * KIBIBYTE


def test_a_slow_reader(world: tuple[Topology, InsideBalancer]) -> None:
    """A client that stops in the middle of a long answer makes the worker hold back the backend,
    not the answer.
    """
    net, running = world
    (worker,) = workers(running)
    before = resident(worker)
    clients = [Client(net.client, "halves", VIP[4], TRANSFERS, LONG) for _ in range(4)]
    for client in clients:
        assert client.said() == '"half"'
    assert resident(worker) - before < LONG / 10
    for client in clients:
        told = json.loads(client.go_on())
        assert told["sent"] == told["arrived"]


def test_backends_that_refuse(world: tuple[Topology, InsideBalancer], ask: Any, peer: Any) -> None:
    """A backend that refuses is skipped without the client noticing; if all refuse, the client is
    reset.
    """
    net, running = world
    for family in FAMILIES:
        answers = ask(net, "tcp", VIP[family], 82, 12)
        assert answers.total() == 12
        assert set(answers) == {"backend2", "backend3"}
        assert peer(net.client, "hear", VIP[family], 81) == {"error": "ECONNRESET"}
    refused = "service=first4 backend=10.0.0.1:9 refused="
    wait_until(
        lambda: any(refused in x for x in events(running, "backend does not accept connections")),
        running.log,
    )


def test_a_backend_that_does_not_answer(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """A backend that drops packets is skipped after the connect timeout."""
    net: Topology = topology()
    serve(net, udp=())
    net.backends[0].run(["iptables", "-A", "INPUT", "-p", "tcp", "-j", "DROP"])
    running = balancer(net, config(service(4), timeouts={"connect": 1}))
    answers = ask(net, "tcp", VIP[4], 80, 3)
    assert answers.total() == 3
    assert "backend1" not in answers
    wait_until(lambda: "timeouts=" in running.log(), running.log)


def test_proxy_protocol(topology: Any, config: Any, balancer: Any, tmp_path: Path) -> None:
    """nginx gets the client, the VIP and the destination port, by both versions."""
    net: Topology = topology()
    for number, backend in enumerate(net.backends):
        directory = tmp_path / f"telling{number}"
        directory.mkdir()
        (directory / "nginx.conf").write_text(TELLING.format(directory=directory))
        backend.popen(["nginx", "-c", str(directory / "nginx.conf")])
    ports = {"v1": 80, "v2": 81}
    services = [
        service(f, name=f"{v}-{f}", ports=port, proxy_protocol=v, backends=mapped(f, 8081))
        for f in FAMILIES
        for v, port in ports.items()
    ]
    balancer(net, config(*services))
    for backend in net.backends:
        wait_until(partial(listens, backend, 8081))
    for family in FAMILIES:
        for port in ports.values():
            told = fetch(net.client, url(family, port=port)).split()
            assert told == [CLIENT[family], VIP[family], str(port), GATEWAY[family]]


def test_beside_nat(topology: Any, serve: Any, config: Any, balancer: Any, ask: Any) -> None:
    """One file, one VIP: some ports are a proxy's, all others are rewritten, UDP too."""
    net: Topology = topology()
    serve(net, http=(80, 8080), udp=(5353,))
    rest = [service(f, name=f"all{f}", protocol="any", forward="nat") for f in FAMILIES]
    rest = [{key: value for key, value in one.items() if key != "ports"} for one in rest]
    running = balancer(net, config(*map(service, FAMILIES), *rest))
    assert len(workers(running)) == 1
    for family in FAMILIES:
        assert_even(ask, net, "tcp", VIP[family], 80)
        assert_even(ask, net, "tcp", VIP[family], 8080)
        assert ask(net, "udp", VIP[family], 5353, 6).total() == 6
        assert fetch(net.client, url(family, "/from")) == GATEWAY[family]
        assert fetch(net.client, url(family, "/from", 8080)) == CLIENT[family]
