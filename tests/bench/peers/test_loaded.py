"""The row of loaded: its configuration in its own form, and a reason where it is not built."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.network import BACKENDS, VIP
from bench.peers.loaded import Loaded, loaded_configuration, loaded_rules
from paraglider.config.importers.formats import draft_of
from paraglider.forward.load import accepted


def test_the_configuration_is_loadeds() -> None:
    """Our importer reads it: the VIP, one backend, rr."""
    _, draft = draft_of(loaded_configuration(), "loaded.config", "loaded")
    (service,) = accepted(draft, "loaded.config").config.services
    assert str(service.vip.ip) == VIP
    assert [str(backend.address) for backend in service.backends] == [BACKENDS[0]]
    assert service.strategy == "rr"


def test_both_directions_are_queued() -> None:
    """Requests to the VIP and answers of the backends, in the one queue that is read."""
    queued = [line for line in loaded_rules().splitlines() if "NFQUEUE" in line]
    assert [line.split()[1] for line in queued] == ["PREROUTING", "FORWARD"]
    assert all(line.endswith("--queue-num 0") for line in queued)


def test_it_is_missing_where_it_is_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason says where it is from."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "github.com/stealth/loaded" in str(Loaded().missing())
    program = tmp_path / "loaded"
    program.write_text("")
    program.chmod(0o755)
    assert Loaded().missing() is None
