"""The listing of the services of `start`."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import PlatformError
from paraglider.forward.static.checks import kernel_only
from paraglider.forward.static.rules import served, static_table
from paraglider.host.changes.base import Change
from paraglider.host.changes.links import AddressChange
from paraglider.host.changes.table import TableChange
from paraglider.host.static_status import static_services
from paraglider.netfilter.nft import Nft
from paraglider.netfilter.rules.nft import counter

WEB = {
    "name": "web",
    "vip": "192.168.0.11/24",
    "protocol": "tcp",
    "ports": 80,
    "strategy": "wrr",
    "backends": [{"address": "10.0.0.1", "weight": 3}, {"address": "10.0.0.2", "port": 8080}],
}


def change() -> TableChange:
    """The state of one service."""
    config = kernel_only(Config.model_validate({"services": [WEB]}))
    table = static_table(config, 4, (), 1)
    assert table is not None
    return TableChange(4, table.text, list(table.marks), served=served(config, 4))


class Counting(Nft):
    """Counters set by the test."""

    def __init__(self, counts: dict[str, tuple[int, int]] | None) -> None:
        self._counts = counts

    def counters(self, family: int) -> dict[str, tuple[int, int]] | None:
        """As set by the test."""
        return self._counts


def test_every_backend_with_its_counts() -> None:
    """Connections are the packets that began one; a counter that is not there has counted 0."""
    table = change()
    mark = table.served[0]["backends"][0]["mark"]
    counts = {
        counter(mark, "begun"): (2, 120),
        counter(mark, "requests"): (10, 1000),
        counter(mark, "replies"): (8, 90000),
    }
    others: list[Change] = [AddressChange(4, "eth0", "192.168.0.11/24"), TableChange(6, "", [])]
    (service,) = static_services([*others, table], Counting(counts))
    assert (service.name, service.vip, service.ports) == ("web", "192.168.0.11", "80")
    first, second = service.backends
    assert (first.address, first.port, first.weight, first.share) == ("10.0.0.1", 80, 3, 0.75)
    assert first.conns == 2
    assert (first.packets_in, first.bytes_in) == (10, 1000)
    assert (first.packets_out, first.bytes_out) == (8, 90000)
    assert (second.port, second.conns, second.bytes_out) == (8080, 0, 0)


def test_nothing_started_is_nothing_listed() -> None:
    """The kernel is not queried."""
    assert static_services([], Counting(None)) == []


def test_a_missing_table_is_an_error() -> None:
    """An error is raised instead of zeros."""
    with pytest.raises(PlatformError, match="paraglider is missing.*`paraglider start` restores"):
        static_services([change()], Counting(None))


@pytest.mark.root
def test_the_kernel_s_counters(inside: Any) -> None:
    """The counters of a real table, from nft's listing."""
    nft = Nft()
    assert nft.counters(4) is None
    nft.load(change().text)
    assert set((nft.counters(4) or {}).values()) == {(0, 0)}
    (service,) = static_services([change()], nft)
    assert [backend.conns for backend in service.backends] == [0, 0]
    nft.remove(4)
