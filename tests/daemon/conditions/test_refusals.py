"""New flows that the kernel refused, as counts and conditions; with fake counters."""

from __future__ import annotations

from typing import Any

from paraglider.config.model import Config
from paraglider.daemon.conditions.assessor import LATELY
from paraglider.daemon.conditions.refusals import Refusals
from paraglider.daemon.stats.kernel_readings import INTERVAL


def config(*forwards: tuple[str, str]) -> Config:
    """A service for each forward and VIP."""
    backends = {".": "10.0.0.1", ":": "fd00::1"}
    services: list[dict[str, Any]] = [
        {
            "name": f"s{number}",
            "vip": vip,
            "protocol": "tcp",
            "ports": 80,
            "forward": forward,
            "backends": [backends[":" if ":" in vip else "."]],
        }
        for number, (forward, vip) in enumerate(forwards)
    ]
    return Config.model_validate({"services": services})


V4, V6 = "192.168.0.11/24", "2001:db8::11/64"


class Air:
    """Counters by family, and the monitor."""

    def __init__(self, wanted: Config) -> None:
        self.tables: dict[int, dict[str, int] | None] = {}
        self.asked: list[int] = []
        self.refusals = Refusals(wanted, self._counters)
        self.now = 100.0

    def _counters(self, family: int) -> dict[str, int] | None:
        self.asked.append(family)
        return self.tables.get(family)

    def update(self, seconds: float = INTERVAL) -> list[str]:
        """The conditions ``seconds`` later."""
        self.now += seconds
        return list(self.refusals.update(self.now))


def test_what_grows_is_a_condition_for_a_while() -> None:
    """Earlier counts are no condition; each protocol has its own."""
    air = Air(config(("nat", V4)))
    air.tables[4] = {"tcp": 5, "udp": 0, "icmp": 0}
    assert air.update() == []
    air.tables[4] = {"tcp": 6, "udp": 0, "icmp": 0}
    assert air.update() == ["new connections"]
    air.tables[4] = {"tcp": 6, "udp": 1, "icmp": 0}
    assert sorted(air.update()) == ["new UDP flows", "new connections"]
    assert air.update(LATELY) == []


def test_counts_are_of_all_families() -> None:
    """Families with queued services: openings of offload and proxy are never refused."""
    air = Air(config(("nat", V4), ("dsr", V6)))
    air.tables = {4: {"tcp": 1, "udp": 2, "icmp": 3}, 6: {"tcp": 10, "udp": 20, "icmp": 30}}
    air.update()
    assert air.refusals.counts == {"refused_tcp": 11, "refused_udp": 22, "refused_icmp": 33}
    air.refusals.apply_config(config(("offload", V4), ("dsr", V6)))
    assert air.refusals.counts == {"refused_tcp": 10, "refused_udp": 20, "refused_icmp": 30}
    air.refusals.apply_config(config(("offload", V4)))
    assert air.refusals.counts == {}


def test_without_a_table_nothing_is_wrong() -> None:
    """Nor if the kernel refuses the request; a recreated table begins at 0."""
    air = Air(config(("nat", V4)))
    assert air.update() == []
    assert air.refusals.counts == {"refused_tcp": 0, "refused_udp": 0, "refused_icmp": 0}
    air.tables[4] = {"tcp": 5}
    assert air.update() == []
    air.tables[4] = {"tcp": 0}
    assert air.update() == []

    def refuse(_family: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    air.refusals._counters = refuse
    assert air.update() == []
