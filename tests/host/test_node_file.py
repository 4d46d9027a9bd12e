"""The file of a drained balancer, which is there only while it is drained."""

from __future__ import annotations

from pathlib import Path

import pytest

from paraglider.host.node_file import NodeFile


@pytest.fixture
def file(tmp_path: Path) -> NodeFile:
    """A file that is not there yet, nor its directory."""
    return NodeFile(tmp_path / "run", 0x2A)


def test_stored_loaded_and_removed(file: NodeFile) -> None:
    """Since when it is drained."""
    assert file.load() is None
    file.store(1_700_000_000.5)
    assert file.path.name == "node-2a.json"
    assert file.load() == 1_700_000_000.5
    file.store(None)
    assert file.load() is None
    assert list(file.path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "since", ['"then"', "null", "[]", "NaN", "-1", "1e300", "Infinity", "9" * 5000, "9" * 400]
)
def test_a_time_that_is_none(file: NodeFile, since: str) -> None:
    """Nothing was drained then."""
    file.store(5.0)
    text = file.path.read_text(encoding="utf-8")
    assert text.count("5.0") == 1
    file.path.write_text(text.replace("5.0", since))
    assert file.load() is None
    file.store(6.0)
    assert file.load() == 6.0
