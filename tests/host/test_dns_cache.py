"""The file with the last DNS answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paraglider.host.dns_cache import VERSION, DnsCacheFile
from paraglider.host.run_file import RunFile

SAID: list[dict[str, Any]] = [{"do": "answer", "name": "a"}, {"do": "answer", "name": "b"}]


@pytest.fixture
def file(tmp_path: Path) -> DnsCacheFile:
    """A file that is not there yet, nor its directory."""
    return DnsCacheFile(tmp_path / "run", 0x2A)


def test_stored_loaded_and_removed(file: DnsCacheFile) -> None:
    """Without answers it is removed."""
    assert file.load() == []
    file.store(SAID)
    assert file.path.name == "answers-2a.json"
    assert file.load() == SAID
    file.store(SAID[:1])
    assert file.load() == SAID[:1]
    file.store([])
    assert list(file.path.parent.iterdir()) == []


@pytest.mark.parametrize("answers", [7, None, [7, None], "ab"])
def test_what_is_no_answer_is_nothing(file: DnsCacheFile, tmp_path: Path, answers: Any) -> None:
    """The next answer makes the file whole."""
    RunFile(tmp_path / "run", 0x2A, "answers", VERSION).store({"answers": answers})
    assert file.load() == []
    file.store(SAID)
    assert file.load() == SAID
