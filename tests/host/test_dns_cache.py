"""The file with the last DNS answers: valid as a whole or ignored, per boot and namespace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paraglider.host import dns_cache, ownership
from paraglider.host.dns_cache import DnsCacheFile

SAID: list[dict[str, Any]] = [{"do": "answer", "name": "a"}, {"do": "answer", "name": "b"}]


@pytest.fixture
def file(tmp_path: Path) -> DnsCacheFile:
    """A file that is not there yet, nor its directory."""
    return DnsCacheFile(tmp_path / "run", 0x2A)


def test_stored_loaded_and_removed(file: DnsCacheFile) -> None:
    """Only root can read the file; without answers it is removed, with its directory."""
    assert file.load() == []
    file.store(SAID)
    assert file.path.name == "answers-2a.json"
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.load() == SAID
    file.store(SAID[:1])
    assert file.load() == SAID[:1]
    file.store([])
    file.store([])
    assert list(file.path.parent.iterdir()) == []


def test_of_an_earlier_boot(file: DnsCacheFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ignored and replaced."""
    file.store(SAID)
    monkeypatch.setattr(dns_cache, "boot_id", lambda: "another")
    assert file.load() == []
    file.store(SAID[:1])
    assert file.load() == SAID[:1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '{"version": 1}',
        json.dumps({"version": 99, "boot": ownership.boot_id(), "answers": SAID}),
        json.dumps({"version": 1, "boot": ownership.boot_id(), "answers": 7}),
        json.dumps({"version": 1, "boot": ownership.boot_id(), "answers": [7, None]}),
        "\udc80",
    ],
)
def test_a_damaged_one_is_nothing(file: DnsCacheFile, text: str) -> None:
    """No bytes raise; the next answer makes it whole."""
    file.store(SAID)
    file.path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert file.load() == []
    file.store(SAID)
    assert file.load() == SAID
