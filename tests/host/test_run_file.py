"""A file for the next daemon: valid as a whole or ignored, per boot and namespace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paraglider.host import ownership, run_file
from paraglider.host.run_file import RunFile

SAID = {"what": [1, "two"]}


@pytest.fixture
def file(tmp_path: Path) -> RunFile:
    """A file that is not there yet, nor its directory."""
    return RunFile(tmp_path / "run", 0x2A, "thing", 7)


def test_stored_loaded_and_removed(file: RunFile) -> None:
    """Only root can read the file; without content it is removed."""
    assert file.load() == {}
    file.store(SAID)
    assert file.path.name == "thing-2a.json"
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.load()["what"] == SAID["what"]
    file.store({"what": 3})
    assert file.load()["what"] == 3
    file.store({})
    file.store({})
    assert file.load() == {}
    assert list(file.path.parent.iterdir()) == []


def test_of_an_earlier_boot(file: RunFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ignored and replaced."""
    file.store(SAID)
    monkeypatch.setattr(run_file, "boot_id", lambda: "another")
    assert file.load() == {}
    file.store(SAID)
    assert file.load()["what"] == SAID["what"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '{"version": 7}',
        json.dumps({"version": 99, "boot": ownership.boot_id(), **SAID}),
        f'{{"version": 7, "boot": "{ownership.boot_id()}", "what": {"9" * 5000}}}',
        "\udc80",
    ],
)
def test_a_damaged_one_is_nothing(file: RunFile, text: str) -> None:
    """No bytes raise; the next content makes it whole."""
    file.store(SAID)
    file.path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert file.load() == {}
    file.store(SAID)
    assert file.load()["what"] == SAID["what"]
