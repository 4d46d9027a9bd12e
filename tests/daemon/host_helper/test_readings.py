"""One reading of the kernel's tables: by family, with the errors of unreadable ones."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from paraglider.daemon.host_helper import readings
from paraglider.daemon.messages import Reading
from paraglider.forward.openings import REFUSED, TABLE
from paraglider.netfilter.connections import Fill
from paraglider.netfilter.nfnetlink import CounterValue

FILL = Fill(5, 100, 0)
CARRIED = {0x5200_0000: {"requests": CounterValue(3, 300)}}


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv4 has all tables, IPv6 none; the others cannot be read."""

    def known(family: int) -> bool:
        if family not in (4, 6):
            raise PermissionError(1, "Operation not permitted")
        return family == 4

    def named(family: int, table: str, names: Iterable[str]) -> dict[str, int] | None:
        assert table == TABLE
        return {name: at for at, name in enumerate(names)} if known(family) else None

    monkeypatch.setattr(
        readings, "table_counters", lambda family: {"unanswered": 1} if known(family) else None
    )
    monkeypatch.setattr(
        readings, "carried_counters", lambda family: CARRIED if known(family) else {}
    )
    monkeypatch.setattr(readings, "named_counters", named)
    monkeypatch.setattr(readings, "fill", lambda: FILL)


def test_all_there_is() -> None:
    """A family without a table is None, not nothing."""
    assert readings.read((4, 6)) == Reading(
        tables={4: {"unanswered": 1}, 6: None},
        carried={4: CARRIED, 6: {}},
        refused={4: {"tcp": 0, "udp": 1, "icmp": 2}, 6: None},
        fill=FILL,
    )


def test_a_family_that_cannot_be_read() -> None:
    """Its error is in the answer, and the other family is read."""
    found = readings.read((5, 4))
    assert found.errors == {5: "[Errno 1] Operation not permitted"}
    assert list(found.tables) == list(found.carried) == list(found.refused) == [4]
    assert found.fill == FILL


def test_no_family() -> None:
    """How full conntrack is comes with every reading."""
    assert readings.read(()) == Reading(fill=FILL)


def test_refused_flows_are_counted_by_protocol() -> None:
    """By protocol, not by the kernel's names of the counters."""
    found = readings.refused_counters(4)
    assert found is not None
    assert set(found) == set(REFUSED)
    assert readings.refused_counters(6) is None
    with pytest.raises(OSError, match="not permitted"):
        readings.refused_counters(7)
