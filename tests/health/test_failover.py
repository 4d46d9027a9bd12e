"""Tests of ``paraglider.health.failover``: one sweep of a simulated network.

Tables define which hosts answer pings and accept connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
from collections.abc import Iterator
from typing import Any, cast

import pytest

from paraglider.config.health import Failover
from paraglider.config.types import IPAddress
from paraglider.health import failover
from paraglider.health.failover import ALL_NODES, is_ours, sweep_hosts
from paraglider.health.pinger import EchoRequest, Pinger
from paraglider.health.sweep import MOST, SweepResult
from paraglider.health.targets import Scope

EVERYBODY = ipaddress.ip_address("10.255.255.255")
FIRST, SECOND, THIRD = (ipaddress.ip_address(f"10.0.0.{number}") for number in (1, 2, 3))
SIXTH = ipaddress.ip_address("fd00:10::6")
SETTINGS: dict[str, Any] = {"enabled": True, "port_alive": 80}
#: seconds for an answer; the later ones for a machine that is too busy to see one in time
TIMEOUTS = (0.2, 5.0, 30.0)


class Net:
    """The simulated network, and the requests it got; replaces ``Pinger``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.group: list[IPAddress] = []
        self.alone: list[IPAddress] = []
        self.unsent: dict[IPAddress, OSError] = {}
        self.serving: dict[IPAddress, OSError | None] = {}
        self.asked: list[tuple[IPAddress, IPAddress | None, str]] = []
        self.under_way = self.most = 0
        self.timeout = 0.0
        monkeypatch.setattr(failover, "connected", self.connect)

    @contextlib.contextmanager
    def echo_request(self) -> Iterator[EchoRequest]:
        """As ``Pinger.echo_request``."""
        yield EchoRequest(1)

    def send(
        self,
        request: EchoRequest,
        to: IPAddress,
        *,
        source: IPAddress | None = None,
        interface: str = "",
    ) -> None:
        """As ``Pinger.send``; replies arrive immediately."""
        self.asked.append((to, source, interface))
        if to in self.unsent:
            raise self.unsent[to]
        replied = self.group if to in (EVERYBODY, ALL_NODES) else [to] if to in self.alone else []
        request.answers.update(dict.fromkeys(replied))
        request.replied.set()

    async def connect(self, address: IPAddress, port: int) -> None:
        """As ``probes.exchange.connected``; never returns for an unknown host."""
        assert port == 80
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            if address not in self.serving:
                await asyncio.Event().wait()
            error = self.serving[address]
            if error is not None:
                raise error
        finally:
            self.under_way -= 1

    def sweep_hosts(
        self, *known: IPAddress, discover: bool = False, **scope: Any
    ) -> dict[IPAddress, SweepResult]:
        """One sweep, in which those of ``serving`` were in time."""
        for self.timeout in TIMEOUTS:
            self.asked.clear()
            settings = Failover(**SETTINGS, timeout=self.timeout, discover=discover)
            where = Scope(settings, **{"broadcasts": (EVERYBODY,), **scope})
            found = asyncio.run(sweep_hosts(cast(Pinger, self), where, known))
            told = (found[host].detail for host in self.serving.keys() & found)
            if not any("timed out" in detail for detail in told):
                break
        return found


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    """A network in which no host answers yet."""
    return Net(monkeypatch)


def test_hosts_that_answer_the_broadcast_get_a_connection(net: Net) -> None:
    """A host must answer the ping and accept a connection; hosts that answered are not pinged
    again.
    """
    net.group = [FIRST, SECOND, THIRD]
    net.serving = {FIRST: None, SECOND: OSError(errno.ECONNREFUSED, "refused")}
    found = net.sweep_hosts(FIRST, SECOND, THIRD)
    assert found[FIRST] == SweepResult(alive=True, detail="answers a ping, and port 80")
    assert found[SECOND] == SweepResult(alive=False, detail="port 80: connection refused")
    why = f"port 80: connect timed out after {net.timeout:g} s"
    assert found[THIRD] == SweepResult(alive=False, detail=why)
    assert [to for to, _, _ in net.asked] == [EVERYBODY]


def test_hosts_that_ignore_broadcasts_are_pinged(net: Net) -> None:
    """Most hosts ignore broadcasts; a host that does not answer its own ping is down, without a
    connection.
    """
    net.alone = [FIRST]
    net.serving = {FIRST: None}
    found = net.sweep_hosts(FIRST, SECOND)
    assert found[FIRST].alive
    assert found[SECOND] == SweepResult(alive=False, detail="no answer to ping")
    assert {to for to, _, _ in net.asked} == {EVERYBODY, FIRST, SECOND}
    assert net.most == 1


def test_a_ping_that_cannot_be_sent_has_its_reason(net: Net) -> None:
    """The cause is the kernel's, for a broadcast that fails as well as for one host."""
    net.unsent = dict.fromkeys((EVERYBODY, FIRST), OSError(errno.ENETUNREACH, "unreachable"))
    (found,) = net.sweep_hosts(FIRST).values()
    assert not found.alive
    assert found.detail.startswith("ping: network is unreachable")


def test_other_hosts_only_with_discover(net: Net) -> None:
    """Without ``discover`` other hosts that answer are ignored."""
    net.group = [FIRST, SECOND]
    net.serving = dict.fromkeys(net.group)
    assert list(net.sweep_hosts(FIRST)) == [FIRST]
    assert list(net.sweep_hosts(FIRST, discover=True)) == [FIRST, SECOND]


def test_addresses_that_are_never_backends(net: Net) -> None:
    """VIPs and gateways, link-local addresses, and our own: they are not even connected to."""
    ours = ipaddress.ip_address("127.0.0.1")
    near = ipaddress.ip_address("fe80::1")
    net.group = [FIRST, SECOND, ours, near]
    net.serving = dict.fromkeys(net.group)
    assert list(net.sweep_hosts(discover=True, never=frozenset({SECOND}))) == [FIRST]


def test_a_network_full_of_answers(net: Net) -> None:
    """At most MOST other hosts are checked, some at a time; known hosts always are."""
    others = [ipaddress.ip_address(0x0A010000 + n) for n in range(MOST + 50)]
    net.group = [*others, FIRST]
    net.serving = dict.fromkeys(net.group)
    found = net.sweep_hosts(FIRST, discover=True)
    assert len(found) == MOST + 1
    assert found[FIRST].alive
    assert 1 < net.most <= failover._AT_ONCE


def test_all_nodes_are_asked_from_an_address_of_ours(net: Net) -> None:
    """The source is the first address of the interface; with known hosts an
    address towards them.
    """
    gateways = (ipaddress.ip_address("fd00:10::fe"), ipaddress.ip_address("fd00:10::ff"))
    net.group = [SIXTH]
    net.serving = {SIXTH: None}
    found = net.sweep_hosts(SIXTH, broadcasts=(), interface="eth1", sources=gateways)
    assert found[SIXTH].alive
    assert net.asked == [(ALL_NODES, gateways[0], "eth1")]


def test_the_host_itself_is_ours() -> None:
    """Whichever way the kernel would go to it; a neighbour is not."""
    assert is_ours(ipaddress.ip_address("127.0.0.1"))
    assert is_ours(ipaddress.ip_address("::1"))
    assert not is_ours(ipaddress.ip_address("192.0.2.1"))
