"""The output and the criteria of ``bench.soak``; ``tests/net/test_soak.py`` runs it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.soak import FORWARDS, Outcome, configuration, table, wait_until
from paraglider.config.load import load
from paraglider.errors import PlatformError


def outcome(lost: int, why: dict[str, int]) -> Outcome:
    """Two kinds of flows, one of which lost some."""
    flows = [
        {"kind": "echo", "family": 4, "open": 20, "lost": 0},
        {"kind": "transfer", "family": 6, "open": 200, "lost": lost},
    ]
    return Outcome(flows, why, Counter({"supervisor SIGKILL": 2, "paraglider/0 SIGSTOP": 1}))


def test_the_table_has_every_kind_and_the_sum() -> None:
    """With the injected faults, so that a run without faults is recognizable."""
    lines = table({"nat": outcome(0, {}), "dsr": outcome(3, {"reset by peer": 3})})
    assert lines[0].split() == ["forward", "flow", "family", "open", "lost"]
    assert ["nat", "transfer", "IPv6", "200", "0"] in [line.split() for line in lines]
    assert "dsr: 3 lost: reset by peer" in lines
    assert "nat: 3 faults: paraglider/0 SIGSTOP 1, supervisor SIGKILL 2" in lines
    assert lines[-1] == "3 established flows lost"


def test_connections_that_end_with_their_process_are_counted_apart() -> None:
    """They are counted, but not as lost."""
    row = {"kind": "of others", "family": "4/6", "open": 220, "lost": 0}
    lines = table({"proxy": Outcome([row], {}, Counter(), 75)})
    assert "proxy: 75 connections ended with who carried them" in lines
    assert lines[-1] == "0 established flows lost"


@pytest.mark.parametrize("forward", FORWARDS)
def test_the_file_is_good(forward: str, tmp_path: Path) -> None:
    """TCP and UDP of both families, with default settings, by the forward that is tried (a proxy
    has no UDP).
    """
    path = tmp_path / "paraglider.conf"
    path.write_text(configuration(forward, tmp_path, 1), encoding="utf-8")
    services = load(path).services
    assert {(s.family, s.protocol, s.forward) for s in services} == {
        (family, protocol, FORWARDS[forward]["forward"])
        for family in (4, 6)
        for protocol in (("tcp",) if forward == "proxy" else ("tcp", "udp"))
    }


def test_what_does_not_come_true_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that does not restart ends the run with an error."""
    monkeypatch.setattr("bench.soak.TIMEOUT", 0.0)
    with pytest.raises(PlatformError, match="all serve"):
        wait_until(lambda: False, "all serve")
