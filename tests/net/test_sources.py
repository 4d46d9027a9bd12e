"""Backends listed elsewhere, end to end: a file and a name server that change, and fail."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from failing import LONG, Load, Peer, control
from naming import FAMILIES, NAME, PORT, NameServer
from waiting import wait_until

from paraglider.host.ownership import RUN_DIRECTORY
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that all users may enter, as /etc is; pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="paraglider-sources-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def network(sharing: Any) -> Topology:
    """Three backends with servers."""
    made = sharing()
    made.serve(http=(80, 81), udp=())
    for port in (9000, 9001):
        made.serve_peer(port)
    net: Topology = made.net
    return net


def listed(running: LabBalancer, family: int, name: str = "web") -> set[str]:
    """The backends that a service has now and that may take flows."""
    found = control(running).get("backends", service=f"{name}{family}")
    return {row["backend"] for row in found if row["state"] == "ready"}


def await_backends(running: LabBalancer, *numbers: int, names: tuple[str, ...] = ("web",)) -> None:
    """Wait until the services have these backends, and all processes with
    flows have applied it.
    """
    wanted = {family: {backend_address(family, n) for n in numbers} for family in FAMILIES}
    wait_until(
        lambda: all(listed(running, f, name) == wanted[f] for f in FAMILIES for name in names),
        running.log,
    )
    for family in FAMILIES:  # answered when all that came before has been done
        for name in names:
            first = backend_address(family, numbers[0])
            control(running).set_backend(f"{name}{family}", first, weight=1)


def test_a_file_that_changes_under_load(
    network: Topology,
    config: Any,
    service: Any,
    balancer: Any,
    open_directory: Path,
    tmp_path: Path,
) -> None:
    """Backends are added and removed with the lines of a file: no connection fails, and one to a
    removed backend continues. An invalid list changes nothing.
    """
    net = network
    kinds = (("web", "nat", 80, 9000), ("bulk", "offload", 81, 9001))
    names = ("web", "bulk")
    files = {family: open_directory / f"web{family}" for family in FAMILIES}

    def write(*numbers: int) -> None:
        for family, file in files.items():
            new = file.with_suffix(".new")
            new.write_text("".join(f"{backend_address(family, n)}\n" for n in numbers))
            new.replace(file)

    def answers(count: int) -> set[str]:
        found = {frozenset(load.more(count)) for load in loads}
        assert len(found) == 1, found
        return set(*found)

    write(1, 2)
    services = [
        {
            **service(family, name=f"{name}{family}", ports=[http, peer], forward=forward),
            "backends": {"file": str(file)},
        }
        for name, forward, http, peer in kinds
        for family, file in files.items()
    ]
    running = balancer(net, config(*services))
    loads = [
        Load(net, family, tmp_path / f"load{port}-{family}", port, LONG)
        for _, _, port, _ in kinds
        for family in FAMILIES
    ]
    idle = [
        Peer(net.client, tmp_path / f"idle{port}-{family}-{n}", "pause", VIP[family], port)
        for _, _, _, port in kinds
        for family in FAMILIES
        for n in range(2)  # one to each backend
    ]
    try:
        assert all(peer.begun() for peer in idle)
        assert answers(20) == {"backend1", "backend2"}
        write(2, 3)
        await_backends(running, 2, 3, names=names)
        assert answers(20) == {"backend2", "backend3"}
        for file in files.values():
            file.write_text("10.0.0.1 10.0.0.2\n")
        wait_until(
            lambda: (
                running.log().count("source of backends fails") >= 2
                and all(f"{file}:1:10" in running.log() for file in files.values())
            ),
            running.log,
        )
        assert answers(10) == {"backend2", "backend3"}
        assert not [a for load in loads for a in load.answers() if a.startswith("error")]
        assert not [end for end in (peer.end() for peer in idle) if "error" in end]
    finally:
        for load in loads:
            load.stop()


@pytest.fixture
def name_server(network: Topology, tmp_path: Path) -> Iterator[Callable[[Topology], NameServer]]:
    """A factory of name servers in the balancer's namespace."""
    made: list[NameServer] = []

    def make(net: Topology) -> NameServer:
        made.append(NameServer(net.balancer, tmp_path / "hosts"))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def from_dns(
    network: Topology, config: Any, service: Any, balancer: Any, name_server: Any
) -> Callable[..., tuple[Topology, NameServer, LabBalancer]]:
    """A function that balances over the backends of a name server, at first ``numbers``."""

    def start(*numbers: int) -> tuple[Topology, NameServer, LabBalancer]:
        net = network
        server: NameServer = name_server(net)
        server.serve(*numbers)
        source = {"dns": NAME, "server": f"127.0.0.1:{PORT}"}
        services = [{**service(family, ports=80), "backends": source} for family in FAMILIES]
        return net, server, balancer(net, config(*services))

    return start


def answered(ask: Any, net: Topology, *numbers: int) -> bool:
    """Whether these backends share the flows of both families."""
    wanted = {f"backend{n}": 5 for n in numbers}
    return all(ask(net, "tcp", VIP[f], 80, 5 * len(numbers)) == wanted for f in FAMILIES)


def test_a_name_server_that_changes_and_dies(from_dns: Any, ask: Any) -> None:
    """A service has the backends of its SRV records, from the start and after changes, and keeps
    the last ones when the server no longer answers. The next daemon starts with the last answers,
    and follows later ones; an undo removes them.
    """
    net, server, running = from_dns(1, 2)
    await_backends(running, 1, 2)
    assert answered(ask, net, 1, 2)
    server.serve(2, 3)
    await_backends(running, 2, 3)
    assert answered(ask, net, 2, 3)
    assert "source of backends" not in running.log()
    server.kill()
    wait_until(lambda: "source of backends fails" in running.log(), running.log)
    assert answered(ask, net, 2, 3)
    running.stop()
    running.set_up()
    running.start()
    assert running.log().count("begins with what it answered last") == 2
    assert answered(ask, net, 2, 3)
    server.serve(3)
    await_backends(running, 3)
    assert answered(ask, net, 3)
    running.stop()
    kept = set(RUN_DIRECTORY.glob("answers-*.json"))
    running.undo()
    assert len(kept - set(RUN_DIRECTORY.glob("answers-*.json"))) == 1


def test_a_start_without_an_answer(from_dns: Any, ask: Any) -> None:
    """A service without backends refuses at once, and works as soon as it has some."""
    net, server, running = from_dns()
    assert running.log().count("has no backends until there are some") == 2
    assert [listed(running, family) for family in FAMILIES] == [set()] * 2
    refused = net.client.run(["curl", "-sS", f"http://{VIP[4]}/"], check=False)
    assert refused.returncode == 7, refused.stderr  # curl(1): it could not connect
    server.serve(1, 2)
    await_backends(running, 1, 2)
    assert answered(ask, net, 1, 2)
