"""`paraglider start`: balancing by the kernel, with real servers and clients.

Refusals, roll-back and undo are in ``tests/cli/test_start.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sharing import Shared
from waiting import TIMEOUT

from paraglider.lab.balancer import StaticBalancer
from paraglider.lab.topology import (
    BALANCER,
    CLIENT,
    GATEWAY,
    PUBLIC_PREFIX,
    VIP,
    Topology,
    backend_address,
    direct_address,
)

pytestmark = pytest.mark.root

FAMILIES = [4, 6]
PEER = Path(__file__).parent / "peer.py"
WEIGHTS = {"backend1": 6, "backend2": 4, "backend3": 2}
Start = Callable[..., StaticBalancer]


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """The network with its servers."""
    made: Shared = sharing()
    made.serve(http=(80, 8000, 8080))
    made.serve_peer(9000)
    return made


def url(family: int, port: int, path: str = "/") -> str:
    """A URL on the VIP."""
    host = VIP[family] if family == 4 else f"[{VIP[family]}]"
    return f"http://{host}:{port}{path}"


def counts(balancer: StaticBalancer, what: str) -> dict[str, list[int]]:
    """The counter ``what`` in ``show``, by service, for its backends in order."""
    services = balancer.show()["services"]
    return {s["name"]: [backend[what] for backend in s["backends"]] for s in services}


def change(balancer: StaticBalancer, text: str) -> str:
    """Write another file in place of the one that was started, and start it."""
    balancer.config.write_text(text)
    return balancer.set_up().stdout


def test_weights_are_exact(
    shared: Shared, config: Any, service: Any, start: Start, ask: Any
) -> None:
    """3:2:1 is 6, 4 and 2 of twelve, over TCP and UDP, and `show` has counted just that."""
    net = shared.net
    web = {f: service(f, ports=80, strategy="wrr", weights=(3, 2, 1)) for f in FAMILIES}
    echo = [{**web[f], "name": f"udp{f}", "protocol": "udp", "ports": 5353} for f in FAMILIES]
    running = start(net, config(*web.values(), *echo))
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 80, 12) == WEIGHTS
        assert ask(net, "udp", VIP[family], 5353, 12) == WEIGHTS
    begun = counts(running, "conns")
    assert begun == {name: [6, 4, 2] for name in ("web4", "udp4", "web6", "udp6")}
    # A datagram there and one back each.
    for what in ("packets_in", "packets_out"):
        found = counts(running, what)
        assert found["udp4"] == found["udp6"] == [6, 4, 2]
        assert min(found["web4"] + found["web6"]) > 4


def test_ports_are_mapped_and_sources_changed(
    shared: Shared, config: Any, service: Any, start: Start, ask: Any
) -> None:
    """The backends see the client, or what `snat` names; on a port of their own, of TCP and UDP."""
    net = shared.net
    services = []
    for family in FAMILIES:
        plain, masked = (
            {**service(family), "backends": [{"address": backend_address(family, n), "port": 8080}]}
            for n in (1, 2)
        )
        snat = {"name": f"masked{family}", "forward": "offload", "snat": GATEWAY[family]}
        services += [{**plain, "ports": 80}, {**masked, "ports": 81, **snat}]
        echo = [{"address": backend_address(family, n), "port": 5353} for n in (1, 2, 3)]
        names = {"name": f"names{family}", "protocol": "udp", "ports": 53, "backends": echo}
        services.append({**service(family), **names})
    start(net, config(*services))
    for family in FAMILIES:
        assert ask(net, "udp", VIP[family], 53, 6) == {f"backend{n}": 2 for n in (1, 2, 3)}
        for port, seen in ((80, CLIENT[family]), (81, GATEWAY[family])):
            answer = net.client.run(["curl", "-sS", url(family, port, "/from")]).stdout
            assert answer.strip() == seen


@pytest.mark.parametrize("keep", [{"strategy": "source"}, {"affinity": "client"}])
def test_a_client_keeps_its_backend(
    shared: Shared,
    config: Any,
    service: Any,
    start: Start,
    ask: Any,
    keep: dict[str, str],
) -> None:
    """For any protocol: TCP, UDP and ping of one client go to one backend of `any`."""
    net = shared.net
    running = start(net, config(*(service(f, protocol="any", **keep) for f in FAMILIES)))
    for family in FAMILIES:
        (tcp,) = ask(net, "tcp", VIP[family], 80, 6)
        (udp,) = ask(net, "udp", VIP[family], 5353, 6)
        assert tcp == udp
        assert ask(net, "ping", VIP[family], 0, 3) == {"": 3}
    for begun in counts(running, "conns").values():
        assert sorted(begun)[:2] == [0, 0]
        assert sum(begun) >= 15  # a ping that is lost is sent again


def test_many_clients_are_spread_by_their_hash(
    topology: Any, serve: Any, config: Any, service: Any, start: Start
) -> None:
    """Sixty client addresses find all three backends, and each one the same again."""
    net = topology(clients=60)
    serve(net, udp=())
    running = start(net, config(*(service(f, ports=80, strategy="source") for f in FAMILIES)))
    for family in FAMILIES:
        sources = [net.client_address(family, number) for number in range(60)]
        script = (
            "import http.client, sys\n"
            "for source in sys.argv[2:]:\n"
            "    one = http.client.HTTPConnection(sys.argv[1], 80, source_address=(source, 0))\n"
            "    one.request('GET', '/')\n"
            "    print(one.getresponse().read().decode())\n"
        )
        command = [sys.executable, "-c", script, VIP[family], *sources]
        first, second = (net.client.run(command).stdout for _ in range(2))
        assert first == second
        begun = counts(running, "conns")[f"web{family}"]
        assert min(begun) >= 10
        assert sum(begun) == 120


def test_ranges_all_ports_and_echo(
    shared: Shared, config: Any, service: Any, start: Start, ask: Any
) -> None:
    """Some ports of a VIP belong to one service, the rest to another; pings take turns too."""
    net = shared.net
    some = [service(family, ports=["8000-8010"], backends=1) for family in FAMILIES]
    rest = [{**service(f, protocol="any"), "name": f"rest{f}"} for f in FAMILIES]
    running = start(net, config(*rest, *some))
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 8000, 3) == {"backend1": 3}
        assert ask(net, "tcp", VIP[family], 80, 6) == {f"backend{n}": 2 for n in (1, 2, 3)}
        assert ask(net, "udp", VIP[family], 5353, 6) == {f"backend{n}": 2 for n in (1, 2, 3)}
        assert ask(net, "ping", VIP[family], 0, 6) == {"": 6}
        begun = counts(running, "conns")[f"rest{family}"]
        assert sum(begun) >= 18  # a ping that is lost is sent again
        assert max(begun) - min(begun) <= 1


def test_exempt_endpoints_are_not_balanced(
    shared: Shared, config: Any, service: Any, start: Start, peer: Any
) -> None:
    """Packets of an exempt client go to the host itself, which has no server."""
    net = shared.net
    text = config(*(service(family, ports=80) for family in FAMILIES))
    exempt = f"network:\n  exempt: ['{CLIENT[4]}', '{CLIENT[6]}']\n"
    running = start(net, text.replace("network:\n", exempt))
    for family in FAMILIES:
        assert peer(net.client, "connect", VIP[family], 80) == {"error": "ECONNREFUSED"}
    change(running, text)
    for family in FAMILIES:
        assert peer(net.client, "connect", VIP[family], 80) != {"error": "ECONNREFUSED"}


def test_through_a_firewall_that_drops(
    shared: Shared,
    config: Any,
    service: Any,
    start: Start,
    ask: Any,
    peer: Any,
) -> None:
    """A policy of DROP on FORWARD applies to everything except balanced
    packets of both directions.
    """
    net = shared.net
    start(net, config(*(service(family, ports=80) for family in FAMILIES)))
    try:
        policies(net, "DROP")
        for family in FAMILIES:
            assert ask(net, "tcp", VIP[family], 80, 6).total() == 6
            backend = backend_address(family, 1)
            net.client.ip(f"route add {backend} via {BALANCER[family]}")
            assert peer(net.client, "connect", backend, 80, 1) == {"error": "timed out"}
            net.client.ip(f"route del {backend} via {BALANCER[family]}")
    finally:
        policies(net, "ACCEPT")


def policies(net: Topology, target: str) -> None:
    """Set the policy of FORWARD."""
    for program in ("iptables", "ip6tables"):
        net.balancer.run([program, "-P", "FORWARD", target])


def test_a_changed_file_breaks_no_flow(
    shared: Shared, config: Any, service: Any, start: Start
) -> None:
    """Long transfers go on, also from backends that the file has no more; new flows go by the
    file, and the counters of the backends that stay are not lost.
    """
    net = shared.net
    running = start(net, config(*(service(f, ports=9000, backends=2) for f in FAMILIES)))
    transfers = [
        net.client.popen(
            [sys.executable, str(PEER), "halves", VIP[family], "9000", "40000000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for family in (4, 4, 6, 6)
    ]
    for transfer in transfers:
        assert transfer.stdout is not None
        assert transfer.stdout.readline() == b'"half"\n'
    assert counts(running, "conns") == {"web4": [1, 1], "web6": [1, 1]}
    said = change(running, config(*(service(f, ports=9000, backends=1) for f in FAMILIES)))
    assert said.count("1 backend, 1 gone in place of another") == 2
    assert counts(running, "conns") == {"web4": [1], "web6": [1]}
    for transfer in transfers:
        output, _ = transfer.communicate(b"\n", timeout=TIMEOUT)
        result = json.loads(output)
        assert result["arrived"] == result["sent"]
    before = counts(running, "bytes_out")
    for family in FAMILIES:
        for _ in range(2):
            net.client.run([sys.executable, str(PEER), "down", VIP[family], "9000", "1000000"])
    assert counts(running, "conns") == {"web4": [3], "web6": [3]}
    for name, (sent,) in counts(running, "bytes_out").items():
        assert sent - before[name][0] > 2_000_000


def test_flows_end_with_stop(shared: Shared, config: Any, service: Any, start: Start) -> None:
    """They have no translation then: a client that continues gets RST at once."""
    net = shared.net
    vips = [f"{VIP[family]}/{PUBLIC_PREFIX[family]} dev eth0" for family in FAMILIES]
    net.balancer.ip(*(f"addr add {vip}" for vip in vips))
    running = start(net, config(*(service(family, ports=9000) for family in FAMILIES)))
    held = [
        net.client.popen(
            [sys.executable, str(PEER), "pause", VIP[family], "9000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for family in FAMILIES
    ]
    for one in held:
        assert one.stdout is not None
        assert one.stdout.readline() == b'"connected"\n'
    running.undo()
    for one in held:
        output, _ = one.communicate(b"\n", timeout=TIMEOUT)
        assert json.loads(output) == {"error": "ECONNRESET"}
    net.balancer.ip(*(f"addr del {vip}" for vip in vips))


@pytest.mark.parametrize("one", [False, True], ids=["two links", "one link"])
def test_the_go_paraglider_s_file(
    topology: Any, serve: Any, start: Start, ask: Any, tmp_path: Path, one: bool
) -> None:
    """A glider.yaml as it is, with `-config` in front, on a host that has its addresses; `bind` and
    `privateip` may be one address where clients and backends are on one link.
    """
    net = topology(direct=one)
    serve(net, http=(5555,))
    private = VIP[4] if one else GATEWAY[4]
    net.balancer.ip(f"addr add {VIP[4]}/24 dev eth0", f"addr add {GATEWAY[4]}/8 dev eth1")
    net.balancer.run(["iptables", "-P", "FORWARD", "DROP"])
    where = direct_address if one else backend_address
    backends = [f"{where(4, number)}:5555" for number in (1, 2, 3)]
    frontend = {"bind": f"{VIP[4]}:4444", "privateip": private, "backends": backends}
    file = tmp_path / "glider.yaml"
    file.write_text(yaml.safe_dump({"frontend": frontend}))
    program = [sys.executable, "-m", "paraglider", "-config", str(file)]
    net.balancer.run([*program, "start"])
    try:
        assert ask(net, "tcp", VIP[4], 4444, 6) == {f"backend{n}": 2 for n in (1, 2, 3)}
        answer = net.client.run(["curl", "-sS", f"http://{VIP[4]}:4444/from"]).stdout
        assert answer.strip() == private
    finally:
        net.balancer.run([*program, "stop"])
    assert "paraglider" not in net.balancer.run(["nft", "list", "ruleset"]).stdout


def test_show_for_a_terminal(
    shared: Shared, config: Any, service: Any, start: Start, ask: Any
) -> None:
    """A line per service and per backend, of both families; a missing table is reported."""
    net = shared.net
    start(net, config(service(4, ports=80), service(6, ports=80)))
    ask(net, "tcp", VIP[6], 80, 3)
    program = [sys.executable, "-m", "paraglider", "show"]
    lines = [" ".join(line.split()) for line in net.balancer.run(program).stdout.splitlines()]
    assert lines[1].startswith(f"web4 {VIP[4]}:80 tcp rr 0 0 0 0 0")
    assert lines[5].startswith(f"web6 [{VIP[6]}]:80 tcp rr 3 ")
    assert [line.split()[1:4] for line in lines[6:]] == [
        [f"[{backend_address(6, number)}]:80", "1", "33.3%"] for number in (1, 2, 3)
    ]
    net.balancer.run(["nft", "delete", "table", "ip6", "paraglider"])
    done = net.balancer.run(program, check=False)
    assert done.returncode == 2
    assert "the table ip6 paraglider is missing" in done.stderr
