"""What keeps BPF from carrying: the workers carry then, and the daemon says why.

Hosts that lack something are made by a mount namespace of the daemon's own, programs of others by
tc and tcx, a full map by entries of the test's.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from carrying import Carried, programs_at
from clients import Client, asked, await_rounds, hold
from failing import control
from inside import InsideBalancer
from processes import workers
from sharing import Shared
from waiting import wait_until

from paraglider.bpf import syscall
from paraglider.bpf.layout import EVENT, EVENT_CLOSED, FLOW, LAYOUT_VERSION, RING_BYTES
from paraglider.errors import PlatformError
from paraglider.host.bpffs import find_pins
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP, Topology
from tests.bpf.programs import OK, UNSPEC, fills, returns

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
PAYLOAD = 300_000
PLACES = 63  # programs at tcx of an interface (BPF_MPROG_MAX)


@pytest.fixture
def carrier(request: pytest.FixtureRequest) -> str:
    """The default, where a test does not name another."""
    return getattr(request, "param", "auto")


@pytest.fixture
def service(service: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Workers decide about flows in all tests of this file."""
    return partial(service, decide="python")


Transferring = Callable[[int], tuple[Topology, LabBalancer, list[Client]]]


@pytest.fixture
def transferring(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, tmp_path: Path
) -> Transferring:
    """A factory of networks with one backend, a balancer, and a client of each family that moves so
    many bytes in each round.
    """

    def start(size: int) -> tuple[Topology, LabBalancer, list[Client]]:
        net = topology(backends=1)
        serve_peer(net, 9000)
        services = [service(family, ports=9000, backends=1) for family in FAMILIES]
        running = balancer(net, config(*services), trouble=True)
        clients = [
            Client(net.client, tmp_path / f"{family}", "rounds", VIP[family], 9000, size)
            for family in FAMILIES
        ]
        return net, running, clients

    return start


class Lack(NamedTuple):
    """A ``command`` before the daemon's that takes something from its host; who carries then, and
    ``why``.
    """

    command: str
    carrier: str
    why: str


LACKS = {
    "no libbpf": Lack(
        'mount --bind /dev/null "$(realpath "$(find /usr/lib -name libbpf.so.1)")" && exec "$@"',
        "worker",
        "libbpf.so.1 cannot be loaded",
    ),
    "no BTF": Lack('mount -t tmpfs none /sys/kernel/btf && exec "$@"', "bpf", ""),
    "no capability": Lack(
        'exec capsh --drop=cap_bpf,cap_sys_admin -- -c \'exec "$0" "$@"\' "$@"',
        "worker",
        "Operation not permitted",
    ),
}


def lack(monkeypatch: pytest.MonkeyPatch, name: str) -> Lack:
    """Start daemons on a host with that lack from now on."""
    found, whole = LACKS[name], InsideBalancer.daemon_command
    assert isinstance(whole, property)
    before = ["unshare", "--mount", "sh", "-ec", found.command, "sh"]

    def command(running: InsideBalancer) -> list[str]:
        assert whole.fget is not None
        return [*before, *whole.fget(running)]

    monkeypatch.setattr(InsideBalancer, "daemon_command", property(command))
    return found


@pytest.mark.parametrize("name", LACKS)
def test_a_host_that_lacks_something(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any,
    monkeypatch: pytest.MonkeyPatch, name: str,
) -> None:  # fmt: skip
    """The daemon starts, and serves; log, `carrier` and metrics have who carries, and why. BTF is
    not needed.
    """
    net = topology()
    serve(net, udp=())
    text = config(*(service(family, ports=80) for family in FAMILIES))
    lacking = lack(monkeypatch, name)
    running = balancer(net, text)
    assert all(ask(net, "tcp", VIP[family], 80, 6).total() == 6 for family in FAMILIES)
    assert f'event="carrier of flows" carrier={lacking.carrier} ' in running.log()
    found = control(running).get("carrier")
    assert found["carrier"] == lacking.carrier
    assert lacking.why in found["reason"]
    assert bool(found["reason"]) == bool(lacking.why)
    assert programs_at(net.balancer, "eth0") == (lacking.carrier == "bpf")


@pytest.mark.parametrize("carrier", ["bpf"], indirect=True)
def test_a_service_that_needs_bpf(
    topology: Any, config: Any, service: Any, balancer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `carrier: bpf` the daemon does not start there: one line has the service, the reason and
    the remedy.
    """
    net = topology()
    lack(monkeypatch, "no libbpf")
    running = balancer(net, config(service(4, ports=80)), start=False)
    with pytest.raises(PlatformError, match="ended with exit 2") as caught:
        running.start()
    running.stop()
    *_, line = caught.value.what.splitlines()
    assert line.startswith("paraglider: service `web4` has `carrier: bpf`, but libbpf.so.1 cannot")
    assert line.endswith("or set `carrier: worker`")


class Other:
    """A tcx program of somebody else's at ``device`` of ``namespace``, that returns ``value``."""

    def __init__(self, namespace: Namespace, device: str, value: int) -> None:
        self._program = returns(value)
        with namespace.entered():
            self._link = syscall.attach_tcx(self._program, socket.if_nametoindex(device))

    def leave(self) -> None:
        """Detach it, but keep the descriptors."""
        syscall.detach_link(self._link)

    def close(self) -> None:
        """Detach it."""
        os.close(self._link)
        os.close(self._program)


@pytest.fixture
def others() -> Iterator[Callable[..., Other]]:
    """A function that attaches an ``Other``, detached after the test."""
    made: list[Other] = []

    def attach(namespace: Namespace, device: str, value: int) -> Other:
        made.append(Other(namespace, device, value))
        return made[-1]

    yield attach
    for one in made:
        one.close()


def transfers(net: Topology, peer: Any) -> None:
    """Both ways, both families; each arrives whole."""
    for family in FAMILIES:
        for verb in ("up", "down"):
            result = peer(net.client, verb, VIP[family], 9000, PAYLOAD)
            assert result["sent"] == result["arrived"]


@pytest.fixture(scope="module")
def beside(sharing: Any) -> Shared:
    """A network for what programs of others do."""
    shared: Shared = sharing(backends=1)
    shared.serve_peer(9000)
    return shared


@pytest.mark.parametrize("devices", [("eth0",), ("eth1",), ("eth0", "eth1")], ids="+".join)
def test_a_program_that_takes_all_before_ours(
    beside: Shared, service: Any, peer: Any, others: Any, devices: tuple[str, ...]
) -> None:
    """As Cilium's may: ours sees none of the packets of these interfaces, the workers have them.
    Connections with one direction by the worker and one by BPF arrive whole, end, and leave no
    entry.
    """
    services = [service(family, ports=9000, backends=1) for family in FAMILIES]
    running = beside.balancer(beside.config(*services))
    carried = Carried(running)
    control(running).post("carrier", {"state": "off"})
    for device in devices:
        others(beside.net.balancer, device, OK)
    control(running).post("carrier", {"state": "on"})  # behind those
    before = carried.counts()
    transfers(beside.net, peer)
    if len(devices) == 2:
        assert carried.counts() == before
    else:
        assert carried.counted("carried") > before.get("carried", 0)
    for family in FAMILIES:
        carried.until(lambda f=family: not carried.flags(6, f), "no entry of an ended connection")


@pytest.mark.parametrize("devices", [("eth0",), ("eth0", "eth1")], ids="+".join)
def test_interfaces_without_room_for_ours(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any,
    others: Any, devices: tuple[str, ...],
) -> None:  # fmt: skip
    """Others have all places at tcx there, so the kernel refuses ours: the workers carry what
    comes in, `carrier`, `show` and `health` have it, until there is room.
    """
    net = topology(backends=1)
    serve_peer(net, 9000)
    taken = [others(net.balancer, device, UNSPEC) for device in devices for _ in range(PLACES)]
    services = [service(family, ports=9000, backends=1) for family in FAMILIES]
    running = balancer(net, config(*services))
    get = control(running).get
    wait_until(lambda: set(get("carrier")["failed"]) == set(devices), running.log)
    transfers(net, peer)
    found = get("carrier")
    every = len(devices) == 2
    assert found["carrier"] == ("worker" if every else "bpf")
    assert found["reason"].startswith("no interface has the program: eth0: other programs") == every
    assert found["devices"] == ([] if every else ["eth1"])
    assert {row["carrier"] for row in get("services")} == {"worker" if every else "bpf"}
    # On a busy machine there may be conditions of processes too.
    conditions = {row["object"]: row["text"] for row in get("health")["conditions"]}
    refused = {name: text for name, text in conditions.items() if name.startswith("interface ")}
    assert set(refused) == {f"interface {device}" for device in devices}
    assert "the BPF program is not attached, so workers carry" in refused["interface eth0"]
    for one in taken[::PLACES]:
        one.leave()
    wait_until(lambda: get("carrier")["devices"] == ["eth0", "eth1"], running.log)
    assert get("carrier")["carrier"] == "bpf"
    wait_until(lambda: get("health")["healthy"], running.log)
    with Carried(running).carrying(2 * PAYLOAD):  # half
        transfers(net, peer)


def test_programs_of_others_beside_ours(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any,
    others: Any,
) -> None:  # fmt: skip
    """One before ours that lets packets pass, and a clsact filter, which runs after ours: BPF
    carries, the filter sees the other packets, and both are there after the set-up is undone.
    """
    net = topology(backends=1)
    serve_peer(net, 9000)
    for namespace in (net.client, *net.backends):
        namespace.ip("link set eth0 gso_max_segs 1")  # or a transfer may have a few packets only
    here = net.balancer
    others(here, "eth0", UNSPEC)
    here.ip("link add seen type veth peer name copies", "link set seen up", "link set copies up")
    here.run(["tc", "qdisc", "add", "dev", "eth0", "clsact"])
    mirror = "protocol all u32 match u32 0 0 action mirred egress mirror dev seen"
    here.run(["tc", "filter", "add", "dev", "eth0", "ingress", *mirror.split()])
    services = [service(family, ports=9000, backends=1) for family in FAMILIES]
    running = balancer(net, config(*services))
    carried = Carried(running)
    with carried.counting("carried", 50):
        transfers(net, peer)
    copied = int(here.run(["cat", "/sys/class/net/seen/statistics/tx_packets"]).stdout)
    assert carried.counted("syn") <= copied < carried.counted("carried")
    assert programs_at(here, "eth0") == 2
    running.stop()
    running.undo()
    assert programs_at(here, "eth0") == 1
    shown = here.run(["tc", "filter", "show", "dev", "eth0", "ingress"]).stdout
    assert "mirred" in shown


def test_an_interface_goes_and_comes(transferring: Transferring) -> None:
    """It is set down and up, then removed and made again: connections live, and are carried again
    as soon as it is back.
    """
    net, running, clients = transferring(50_000)
    carried = Carried(running)

    def go_on() -> None:
        """Both have some more rounds, which BPF carries."""
        with carried.counting("carried", 50):
            await_rounds(clients, running)

    go_on()
    net.balancer.ip("link set eth1 down")
    wait_until(lambda: "eth1" not in control(running).get("carrier")["devices"], running.log)
    net.balancer.ip("link set eth1 up")
    go_on()
    wait_until(lambda: "eth1" in control(running).get("carrier")["devices"], running.log)

    address = net.balancer.run(["cat", "/sys/class/net/eth1/address"]).stdout.strip()
    net.balancer.ip("link del eth1")
    wait_until(lambda: "eth1" not in control(running).get("carrier")["devices"], running.log)
    net.balancer.ip(
        f"link add eth1 address {address} type veth peer name balancer netns {net.switch.name}",
        "link set eth1 up",
    )
    net.switch.ip("link set balancer up", "link set balancer master br0")
    go_on()
    assert [one.end().startswith('{"rounds": ') for one in clients] == [True] * 2


def test_a_full_map(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any
) -> None:
    """The workers carry flows for which it has no room, count them, and say so once a minute; when
    there is room again, BPF carries.
    """
    net = topology()
    serve(net, udp=())
    running = balancer(net, config(service(4, ports=80), flows={"max": 1000}))
    carried = Carried(running)
    entries = carried.maps.flows[6, 4]
    value = FLOW.pack(0, 0, 0, 0, 255, 0, 0)  # of a worker that there is not
    numbers, filled = itertools.count(), list[bytes]()
    get = lambda what: control(running).get("carrier")[what]  # noqa: E731

    def none_is_carried() -> bool:
        """Of nine connections, since the map is full."""
        while not entries.insert(key := next(numbers).to_bytes(entries.key_size, "big"), value):
            filled.append(key)
        before = carried.counted("carried")
        assert ask(net, "tcp", VIP[4], 80, 9).total() == 9
        return carried.counted("carried") == before

    # The worker's walk over the map after its start may still remove such entries.
    wait_until(none_is_carried, running.log)
    wait_until(lambda: get("refused") >= 9, running.log)
    wait_until(lambda: "the kernel refuses BPF entries (E2BIG: " in running.log(), running.log)
    wait_until(lambda: get("flows") == 0, running.log)
    for key in filled:
        entries.delete(key)
    assert set(asked(hold(net, 4, 9))) == {"backend1", "backend2", "backend3"}
    wait_until(lambda: get("flows") == 9, running.log)


def test_a_full_ring(transferring: Transferring) -> None:
    """A worker that stands still has a full ring, and events of connections that end are lost: they
    are counted, and it reads its flows again, so that no entry and no connection is left.
    """
    net, running, clients = transferring(1000)
    carried = Carried(running)
    await_rounds(clients, running)
    with net.balancer.entered():
        pins = find_pins()
    assert pins is not None
    ring = syscall.pinned(pins, f"ring-0-{LAYOUT_VERSION}")
    filling = fills(ring, EVENT_CLOSED, EVENT.size)
    (worker,) = workers(running)
    os.kill(worker, signal.SIGSTOP)
    with contextlib.suppress(ProcessLookupError):  # it may be missed, and replaced
        try:
            syscall.run_program(filling, bytes(64), 1, repeat=RING_BYTES // EVENT.size)
            with carried.counting("events_lost", 2):
                ended = [client.end() for client in clients]
        finally:
            os.kill(worker, signal.SIGCONT)
    assert all(line.startswith('{"rounds": ') for line in ended)
    for family in FAMILIES:
        carried.until(lambda f=family: not carried.flags(6, f), "no entry of an ended connection")

    def live() -> int:
        states = [flow["state"] for flow in control(running).get("flows")["flows"]]
        return states.count("established")

    wait_until(lambda: live() == 0, running.log)
    for number in (pins, ring, filling):
        os.close(number)


def test_two_daemons_on_one_host(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """In two network namespaces: each has its own program, maps and pins, and the end of one leaves
    the other at work.
    """
    nets = [topology(backends=1) for _ in range(2)]
    found = []
    for number, net in enumerate(nets):
        serve_peer(net, 9000)
        services = [service(family, ports=9000, backends=1) for family in FAMILIES]
        text = config(*services).replace("control.sock", f"control{number}.sock")
        found.append(balancer(net, text))
    for running, net in zip(found, nets, strict=True):
        with Carried(running).carrying(PAYLOAD):
            transfers(net, peer)
    first, second = found
    first.stop()
    first.undo()
    assert programs_at(nets[0].balancer, "eth0") == 0
    assert programs_at(nets[1].balancer, "eth0") == 1
    with nets[1].balancer.entered():
        pins = find_pins()
    assert pins is not None
    os.close(pins)
    with Carried(second).carrying(PAYLOAD):
        transfers(nets[1], peer)
