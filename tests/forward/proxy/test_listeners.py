"""The listening sockets of proxy workers, on loopback and on addresses without an interface."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import TIMEOUT

from paraglider.config.model import Config
from paraglider.config.route import RouteConfig
from paraglider.config.types import IPAddress
from paraglider.errors import OperatorError
from paraglider.forward.proxy.listeners import ProxyListener, find_listener, open_listeners

HOSTS = {4: "127.0.0.1", 6: "::1"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
#: an address of this process alone, for ports that others may have: other runs share the host
OWN = os.getpid() & 0xFFFF
HERE = f"127.21.{OWN >> 8}.{OWN & 255}"
NOWHERE = {4: f"198.18.{OWN >> 8}.{OWN & 255}", 6: f"2001:db8:ffff::{OWN + 1:x}"}


def config(vip: str, ports: Any, forward: str = "proxy") -> Config:
    """A configuration with one service."""
    service = {
        "name": "web",
        "vip": vip,
        "protocol": "tcp",
        "ports": ports,
        "forward": forward,
        "backends": ["10.0.0.1" if "." in vip else "fd00::1"],
    }
    return Config.model_validate({"services": [service]})


def free_port(family: int = 4) -> int:
    """A free port."""
    with socket.socket(FAMILY[family]) as end:
        end.bind((HOSTS[family], 0))
        port: int = end.getsockname()[1]
        return port


def nobody(vip: IPAddress) -> None:
    """Every VIP is there."""
    raise AssertionError(vip)


def drained(end: socket.socket) -> int:
    """How many connections waited at ``end``."""
    for count in itertools.count():
        try:
            end.accept()[0].close()
        except BlockingIOError:
            return count
    raise AssertionError


@pytest.fixture
def opened() -> Iterator[list[tuple[ProxyListener, ...]]]:
    """Rows of listeners; those that are still open at the end are closed."""
    rows: list[tuple[ProxyListener, ...]] = []
    yield rows
    for row in rows:
        for listener in row:
            listener.release()


@pytest.mark.parametrize("family", [4, 6])
def test_workers_share_an_address(family: int, opened: Any) -> None:
    """Each worker has its own socket, and together they accept every connection."""
    port = free_port(family)
    opened += open_listeners(config(HOSTS[family], port), 2, nobody)
    assert [len(row) for row in opened] == [1, 1]
    ends = [row[0] for row in opened]
    for listener in ends:
        listener.socket.listen(listener.backlog)
        assert (listener.service, listener.port) == ("web", port.to_bytes(2, "big"))
        assert listener.vip == socket.inet_pton(FAMILY[family], HOSTS[family])
    clients = [socket.create_connection((HOSTS[family], port), TIMEOUT) for _ in range(32)]
    taken = [drained(listener.socket) for listener in ends]
    assert sum(taken) == len(clients)
    assert all(taken)  # by a hash of the client's end: none with probability 2 to the -31
    for client in clients:
        client.close()


def test_a_client_meets_one_worker(opened: Any) -> None:
    """If it is to, at every port of an address; else any."""
    opened += open_listeners(config(HERE, [20010, 20011]), 2, nobody)
    both = [[row[number] for row in opened] for number in (0, 1)]
    assert {(one.sockets, one.key % 2) for one in (*both[0], *both[1])} == {(2, 1)}
    assert len({one.key for one in (*both[0], *both[1])}) == 1
    for ends in both:
        for listener in ends:
            listener.socket.listen(64)
            listener.steer(by_client=True)
    for by_client, port, count in ((True, 20010, 8), (True, 20011, 8), (False, 20010, 32)):
        ends = both[port - 20010]
        ends[1].steer(by_client=by_client)
        clients = [socket.create_connection((HERE, port), TIMEOUT) for _ in range(count)]
        taken = [drained(listener.socket) for listener in ends]
        assert sum(taken) == count
        assert all(taken) is not by_client
        for client in clients:
            client.close()


def test_one_worker_needs_no_steering(opened: Any) -> None:
    """Its socket has no program."""
    ((listener,),) = rows = open_listeners(config(HERE, 20012), 1, nobody)
    opened += rows
    for by_client in (True, False):
        listener.steer(by_client=by_client)


def test_every_port_of_a_service(opened: Any) -> None:
    """Lists and ranges: a socket each; services of another forward have none."""
    opened += open_listeners(config(HERE, [19999, "20000-20002"]), 1, nobody)
    found = sorted(int.from_bytes(listener.port, "big") for listener in opened[0])
    assert found == [19999, 20000, 20001, 20002]
    assert open_listeners(config(HERE, 20003, "nat"), 2, nobody) == [(), ()]


def test_routes_have_no_sockets(opened: Any) -> None:
    """The service listens for them."""
    alone = config(HERE, 20004)
    (service,) = alone.services
    route = RouteConfig(service="web", sni=("a.example",))
    other = service.model_copy(update={"name": "other", "route": route})
    opened += open_listeners(alone.model_copy(update={"services": (service, other)}), 1, nobody)
    assert [listener.service for listener in opened[0]] == ["web"]


@pytest.mark.parametrize("holder", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_port_that_is_in_use(holder: str, opened: Any) -> None:
    """The operator's error names service, address, port and process, also if the holder shares the
    port; no socket stays open.
    """
    family = 6 if holder == "::1" else 4
    kind = socket.AF_INET6 if ":" in holder else socket.AF_INET
    other = free_port(family)
    with socket.socket(kind) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((holder, 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(OperatorError) as error:
            open_listeners(config(HOSTS[family], [other, port]), 2, nobody)
        host = f"[{HOSTS[family]}]" if family == 6 else HOSTS[family]
        name = Path("/proc/self/comm").read_text().strip()
        wanted = f"service `web`: {host}:{port} is in use by process {os.getpid()} ({name})"
        assert error.value.what == wanted
        assert "another port" in error.value.remedy
    socket.create_server((HOSTS[family], other), family=FAMILY[family]).close()  # nobody has it


@pytest.mark.parametrize("family", [4, 6])
def test_a_vip_that_no_interface_has(family: int, opened: Any) -> None:
    """It is bound, and reported once."""
    vip, told = NOWHERE[family], list[str]()
    rows = open_listeners(config(vip, [8080, 8081]), 2, lambda a: told.append(str(a)))
    opened += rows
    assert told == [vip]
    assert [len(row) for row in rows] == [2, 2]
    assert rows[0][0].socket.getsockname()[:2] == (vip, 8080)


def test_close_ends_accepting_in_all_processes(opened: Any) -> None:
    """After `close` no process accepts, though another has the socket too; it can listen again
    there.
    """
    port = free_port()
    ((listener,),) = open_listeners(config(HOSTS[4], port), 1, nobody)
    with listener.socket.dup() as other:
        listener.socket.listen()
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOSTS[4], port), TIMEOUT)
        other.listen()
        socket.create_connection((HOSTS[4], port), TIMEOUT).close()


def test_closed_before_it_listens(opened: Any) -> None:
    """That is no error."""
    ((listener,),) = open_listeners(config(HOSTS[4], free_port()), 1, nobody)
    listener.close()


def test_no_process_listens() -> None:
    """Then there is no name."""
    address = config(HOSTS[4], 1).services[0].vip.ip
    assert find_listener(address, free_port()) is None


def test_a_descriptor_that_is_closed_meanwhile_is_skipped(tmp_path: Path) -> None:
    """It belongs to a process that holds the socket by another one."""
    net = tmp_path / "self" / "net"
    net.mkdir(parents=True)
    (net / "tcp").write_text(
        "  sl  local_address rem_address   st tx rx tr when retrnsmt uid timeout inode\n"
        "   0: 00000000:0050 00000000:0000 0A 0:0 0:0 0 0 0 4711\n"
    )
    held = tmp_path / "7" / "fd"
    held.mkdir(parents=True)
    (held / "3").touch()  # no link: reading it fails, as for one that is gone
    (held / "4").symlink_to("socket:[4711]")
    (tmp_path / "7" / "comm").write_text("nginx\n")
    address = config(HOSTS[4], 1).services[0].vip.ip
    assert find_listener(address, 80, tmp_path) == "process 7 (nginx)"
    assert find_listener(address, 81, tmp_path) is None
