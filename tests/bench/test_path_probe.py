"""Whole connections through a worker's packet path."""

from __future__ import annotations

import pytest

from bench.path_probe import BACKENDS, main, packet_path, packets, run


@pytest.mark.parametrize(("method", "count"), [("nat", 10), ("dsr", 5)])
def test_connections_are_opened_and_closed(method: str, count: int) -> None:
    """All packets are of flows, which are closing at the end; none is refused."""
    path = packet_path(method)
    connections = [packets(backend, answers=method == "nat") for backend in BACKENDS]
    assert {len(each) for each in connections} == {count}
    assert run(path.handle, connections, 30) > 0
    assert path.groups == {"active": 0, "closing": 30, "half_open": 0}
    assert path.counts() == {}
    conns = [backend.conns for service in path.services for backend in service.pool.backends]
    assert conns == [10, 10, 10]


def test_it_prints_the_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one connection, without the loop's own."""
    monkeypatch.setattr("sys.argv", ["path_probe", "nat", "100"])
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("gc.disable", lambda: None)
    main()
    assert capsys.readouterr().out.endswith(" us a connection\n")
