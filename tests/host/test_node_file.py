"""The file of a drained balancer: valid as a whole or ignored, per boot and namespace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paraglider.host import node_file, ownership
from paraglider.host.node_file import NodeFile


@pytest.fixture
def file(tmp_path: Path) -> NodeFile:
    """A file that is not there yet, nor its directory."""
    return NodeFile(tmp_path / "run", 0x2A)


def test_stored_loaded_and_removed(file: NodeFile) -> None:
    """Only root can read the file, which exists only while the balancer is drained."""
    assert file.load() is None
    file.store(1_700_000_000.5)
    assert file.path.name == "node-2a.json"
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.load() == 1_700_000_000.5
    file.store(None)
    file.store(None)
    assert file.load() is None
    assert list(file.path.parent.iterdir()) == []


def test_of_an_earlier_boot(file: NodeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ignored."""
    file.store(5.0)
    monkeypatch.setattr(node_file, "boot_id", lambda: "another")
    assert file.load() is None


@pytest.mark.parametrize(
    "since", ['"then"', "null", "[]", "NaN", "-1", "1e300", "Infinity", "9" * 5000]
)
def test_a_time_that_is_none(file: NodeFile, since: str) -> None:
    """Nothing was drained then."""
    file.store(5.0)
    text = file.path.read_text(encoding="utf-8")
    assert text.count("5.0") == 1
    file.path.write_text(text.replace("5.0", since))
    assert file.load() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '{"version": 1}',
        json.dumps({"version": 99, "boot": ownership.boot_id(), "drained_since": 5.0}),
        "\udc80",
    ],
)
def test_a_damaged_one_is_nothing(file: NodeFile, text: str) -> None:
    """No bytes raise; the next drain makes it whole."""
    file.store(5.0)
    file.path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert file.load() is None
    file.store(6.0)
    assert file.load() == 6.0
