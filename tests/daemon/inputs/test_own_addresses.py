"""Tests of ``paraglider.daemon.inputs.own_addresses``: addresses of the host that change."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface
from math import inf
from typing import Any

import pytest

from paraglider.config.addresses import Filled, fill_addresses
from paraglider.config.load import parse
from paraglider.config.model import BackendConfig
from paraglider.config.types import IPInterface
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.inputs import own_addresses as module
from paraglider.daemon.inputs.own_addresses import PERIOD, RETRY, OwnAddressInput
from paraglider.daemon.messages import HostAddresses
from paraglider.daemon.settings import Read

FILE = """\
network: {private: {interface: eth1, gateway: [{interface: eth1}]}}
services:
  - {name: a, vip: 192.0.2.1/24, protocol: tcp, ports: 80, forward: offload,
     snat: {interface: eth1}, backends: [10.0.0.1]}
"""


#: a list of backends that may have changed since the file was read
OLD = {"a": (BackendConfig.model_validate({"address": "10.0.0.1"}),)}


class World:
    """A host, as it is reported, and what follows it; time passes with each look."""

    def __init__(self, text: str = FILE) -> None:
        self.host: dict[str, tuple[IPInterface, ...]] = {"eth1": (ip_interface("10.0.0.2/8"),)}
        loaded = parse(text, "f")
        self.read = Read(loaded, fill_addresses(loaded.config, (4, 6), self.host).config, (), OLD)
        self.conditions = Conditions()
        self.report: HostAddresses | None = None
        self.input = OwnAddressInput(self.conditions, self.read, lambda: self.report)
        self.now = 100.0

    def move(self, *addresses: str) -> None:
        """The interface gets other addresses."""
        self.host = {"eth1": tuple(map(ip_interface, addresses))}
        self.report = HostAddresses(interfaces=("eth0", "eth1"), addresses=self.host)

    def look(self) -> str | None:
        """The source address to be applied at the next look; None if nothing is to be."""
        self.now += PERIOD
        found = self.input.changed(self.now)
        assert self.input.wait(self.now) == PERIOD
        if found is None:
            return None
        assert found == replace(self.read, config=found.config, listed={})
        return str(found.config.services[0].snat_address)

    def lines(self) -> list[str]:
        """What `paraglider health` says."""
        return [standing.line for standing in self.conditions]


def test_a_change_that_lasts_is_applied() -> None:
    """One that was there at a single look is not, nor one that ends."""
    world = World()
    assert [world.look() for _ in range(3)] == [None] * 3
    world.move("10.0.0.3/8")
    assert world.look() is None
    world.move("10.0.0.2/8")
    assert [world.look() for _ in range(2)] == [None] * 2
    world.move("10.0.0.3/8")
    assert [world.look() for _ in range(2)] == [None, "10.0.0.3"]
    config = fill_addresses(world.read.config, (4, 6), world.host).config
    world.read = replace(world.read, config=config)
    world.input.note_applied(world.read)
    assert [world.look() for _ in range(3)] == [None] * 3


def test_what_is_refused_is_tried_again_later() -> None:
    """Another change at once."""
    world = World()
    world.move("10.0.0.3/8")
    found = [world.look() for _ in range(int(RETRY / PERIOD) + 3)]
    assert [n for n, one in enumerate(found) if one] == [1, 1 + RETRY / PERIOD]
    world.move("10.0.0.4/8")
    assert [world.look() for _ in range(2)] == [None, "10.0.0.4"]


def test_an_address_that_is_gone_stays_in_use() -> None:
    """That is a condition: of `snat` clients are not served, and it ends with the next address."""
    world = World()
    world.move()
    assert [world.look() for _ in range(3)] == [None] * 3
    snat, gateway = world.lines()
    gone = "eth1 has no IPv4 address of this host's own; the last one stays in use"
    assert snat.startswith(f"service a: `snat`: {gone}")
    assert gateway.startswith(f"network: `gateway`: {gone}")
    assert world.conditions.status == "unhealthy"
    world.move("10.0.0.2/8")
    assert world.look() is None
    assert world.lines() == []


FIXED = FILE.replace("[{interface: eth1}]", "[]").replace("{interface: eth1}", "10.0.0.9")


def test_a_file_without_interfaces_is_not_compared() -> None:
    """Until one that has some is applied; the conditions of the one before end."""
    world = World(FIXED)
    assert world.input.wait(1.0) == inf
    other = World()
    world.input.note_applied(other.read)
    assert world.input.wait(1.0) == 0.0
    other.move()
    assert other.look() is None
    assert len(other.lines()) == 2
    other.input.note_applied(World(FIXED).read)
    assert other.lines() == []


def test_a_report_that_says_nothing_new_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hundreds of services a comparison takes milliseconds."""
    world, times = World(), 0

    def counted(*given: Any) -> Filled:
        nonlocal times
        times += 1
        return fill_addresses(*given)

    monkeypatch.setattr(module, "fill_addresses", counted)
    world.move("10.0.0.2/8")
    assert [world.look() for _ in range(9)] == [None] * 9
    assert times == 1
    world.input.note_applied(world.read)
    assert [world.look() for _ in range(9)] == [None] * 9
    assert times == 2


def test_a_report_about_the_file_before() -> None:
    """Does not have the interfaces of this one, which may have addresses nevertheless; one that
    this host lacks is in no report.
    """
    world = World()
    world.report = HostAddresses(interfaces=("eth0", "eth1"), addresses={"eth0": ()})
    assert [world.look() for _ in range(3)] == [None] * 3
    assert world.lines() == []
    world.report = HostAddresses(interfaces=("eth0",), addresses={})
    assert world.look() is None
    assert "there is no interface `eth1` on this host" in world.lines()[0]
