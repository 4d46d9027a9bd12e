"""The probe fills the real flow table and empties it; no time is asserted."""

from __future__ import annotations

import itertools
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from bench import builds, core, core_probe
from bench.results import CoreResult
from paraglider.core.packet import parse
from paraglider.errors import OperatorError, PlatformError


def test_every_packet_opens_a_flow_of_its_own() -> None:
    """The segments are whole, go to the VIP, and no two have the same key."""
    packets = list(itertools.islice(core_probe.syns(), core_probe.PORTS + 2))
    parsed = parse(packets[-1], 0, len(packets[-1]))
    assert parsed.reason < 0
    assert parsed.key[4:8] == bytes([192, 168, 0, 11])
    assert len({bytes(packet[12:24]) for packet in packets}) == len(packets)


@pytest.mark.parametrize("strategy", core.BUILT_IN)
def test_the_probe_fills_the_table_of_every_strategy(strategy: str) -> None:
    """As a separate process with the interpreted build, with figures at every size."""
    result = core.measure(builds.INTERPRETED, strategy, (200, 1000))
    assert result.missing is None
    assert [size.flows for size in result.sizes] == [200, 1000]
    assert result.growth() is not None
    assert result.expire_pause_ms is not None


@pytest.mark.root
def test_the_probe_loads_a_class_of_the_users_own() -> None:
    """Policies are loaded as a daemon would; that takes files that are root's."""
    result = core.measure(builds.INTERPRETED, core.STRATEGIES[-1], (100,))
    assert result.missing is None
    assert result.sizes


def test_a_strategy_that_is_not_there_has_a_reason() -> None:
    """An unknown strategy is missing, with the words of the configuration's check."""
    result = core.measure(builds.INTERPRETED, "nobody", (100,))
    assert result.missing is not None
    assert "nobody" in result.missing
    assert result.sizes == []


def test_a_build_that_is_not_there_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without compiled modules the row has the reason and no figures."""
    monkeypatch.setattr(builds, "missing", lambda _build: "not built")
    assert core.measure(builds.COMPILED, "rr", (100,)) == CoreResult("compiled", "rr", "not built")


@pytest.mark.parametrize("error", [PlatformError("x: exit 1: boom"), OperatorError("no", "do")])
def test_a_probe_that_fails_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, error: PlatformError | OperatorError
) -> None:
    """A probe that breaks does not end the bench."""

    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(builds, "missing", lambda _build: None)
    monkeypatch.setattr(core, "execute", fail)
    found = core.measure(builds.COMPILED, "rr", (100,)).missing
    assert found is not None
    assert found.startswith("failed: ")


@pytest.mark.parametrize(
    ("file", "build"),
    [("/x/nat.py", "interpreted"), ("/x/nat.cpython-311-x86_64-linux-gnu.so", "compiled")],
)
def test_the_build_is_derived_from_the_file(file: str, build: str) -> None:
    """An extension module is compiled, a source is interpreted."""
    suffix = EXTENSION_SUFFIXES[0]
    assert builds.of_file(file.replace(".cpython-311-x86_64-linux-gnu.so", suffix)) == build
