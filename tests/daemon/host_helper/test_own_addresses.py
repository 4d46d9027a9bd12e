"""Tests of ``paraglider.daemon.host_helper.own_addresses``: what is reported, and when."""

from __future__ import annotations

from ipaddress import ip_interface

from paraglider.config.load import parse
from paraglider.config.model import Config
from paraglider.config.types import IPInterface
from paraglider.daemon.host_helper.own_addresses import AddressReporter
from paraglider.daemon.messages import FROM_ROLE, HostAddresses, Message
from paraglider.errors import PlatformError


def config(snat: str) -> Config:
    """A file with one service."""
    service = "{name: a, vip: 192.0.2.1/24, protocol: tcp, ports: 80, forward: offload"
    return parse(f"services: [{service}, snat: {snat}, backends: [10.0.0.1]}}]", "f").config


class World:
    """A host, and what was reported of it, as the supervisor gets it."""

    def __init__(self, snat: str) -> None:
        self.host: dict[str, tuple[IPInterface, ...]] = {
            "eth0": (ip_interface("192.0.2.9/24"),),
            "eth1": (ip_interface("10.0.0.2/8"), ip_interface("fd00::2/64")),
        }
        self.readings = 0
        self.reports: list[HostAddresses] = []
        self.reporter = AddressReporter(config(snat), self.notify, self.read)

    def read(self) -> dict[str, tuple[IPInterface, ...]]:
        """The addresses; the kernel may refuse them."""
        self.readings += 1
        if not self.host:
            raise PlatformError("no memory")
        return self.host

    def notify(self, message: Message) -> None:
        """The supervisor's end."""
        text = message.model_dump_json()
        self.reports.append(FROM_ROLE["host helper"].validate_json(text))

    def refreshed(self) -> list[HostAddresses]:
        """What is reported at the next call."""
        self.reports.clear()
        self.reporter.refresh()
        return self.reports


def test_a_change_is_reported_once() -> None:
    """Of the interfaces that the file names, and the names of all."""
    world = World("{interface: eth1}")
    (first,) = world.refreshed()
    assert first.interfaces == ("eth0", "eth1")
    assert first.addresses == {"eth1": world.host["eth1"]}
    assert world.refreshed() == []
    world.host["eth0"] = ()
    assert world.refreshed() == []
    world.host["eth1"] = ()
    assert [report.addresses for report in world.refreshed()] == [{"eth1": ()}]
    del world.host["eth1"]
    assert [(each.interfaces, each.addresses) for each in world.refreshed()] == [(("eth0",), {})]


def test_another_file_is_about_other_interfaces() -> None:
    """Without any, the host is not read."""
    world = World("10.0.0.9")
    assert world.refreshed() == []
    assert world.readings == 0
    world.reporter.apply_config(config("{interface: eth0}"))
    assert [list(report.addresses) for report in world.refreshed()] == [["eth0"]]
    world.reporter.apply_config(config("{interface: eth1}"))
    assert [list(report.addresses) for report in world.refreshed()] == [["eth1"]]


def test_a_kernel_that_refuses_is_asked_again() -> None:
    """Nothing is reported meanwhile, least of all that the addresses are gone."""
    world = World("{interface: eth1}")
    host, world.host = world.host, {}
    assert world.refreshed() == []
    world.host = host
    assert len(world.refreshed()) == 1
