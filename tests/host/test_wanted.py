"""The desired state of the host, stored beside the state: per family, for one boot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import OperatorError, PlatformError
from paraglider.host import wanted as module
from paraglider.host.ownership import SET_UP, STARTED
from paraglider.host.wanted import Wanted, WantedFile


def config(*vips: str) -> Config:
    """A service a VIP."""
    services = [
        {"name": f"s{i}", "vip": vip, "protocol": "tcp", "ports": 80, "backends": [backend]}
        for i, (vip, backend) in enumerate(
            (vip, "fd00:10::1" if ":" in vip else "10.0.0.1") for vip in vips
        )
    ]
    return Config.model_validate({"services": services})


@pytest.fixture
def file(tmp_path: Path) -> WantedFile:
    """The file of an unused namespace."""
    return WantedFile(tmp_path, 1)


def test_what_was_put_comes_back(file: WantedFile) -> None:
    """The stored configuration per family is loaded; a family without services is not stored."""
    both, four = config("192.0.2.1/24", "2001:db8::1/64"), config("192.0.2.2/24")
    file.set(both, (4, 6), (0, 2), SET_UP)
    assert file.load() == [Wanted(4, both, (0, 2)), Wanted(6, both, (0, 2))]
    file.set(four, (4,), (1,), SET_UP)
    assert file.load() == [Wanted(4, four, (1,)), Wanted(6, both, (0, 2))]
    file.set(four, (4, 6), (1,), SET_UP)
    assert [one.family for one in file.load()] == [4]


def test_what_is_undone_is_wanted_no_more(file: WantedFile) -> None:
    """Without any family the file is removed."""
    file.set(config("192.0.2.1/24", "2001:db8::1/64"), (4, 6), (), STARTED)
    file.drop((6,))
    assert [(one.family, one.owner, one.cores) for one in file.load()] == [(4, STARTED, ())]
    file.drop((4, 6))
    assert not file.path.exists()
    assert file.load() == []
    file.drop((4,))


def test_another_boot_wants_nothing(file: WantedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of an earlier boot is ignored."""
    file.set(config("192.0.2.1/24"), (4,), (0,), SET_UP)
    monkeypatch.setattr("paraglider.host.ownership.boot_id", lambda: "another")
    assert file.load() == []


@pytest.mark.parametrize("text", ["", "{}", '{"version": 1}'])
def test_a_file_that_is_none_of_ours(file: WantedFile, text: str) -> None:
    """An invalid file is reported as damaged."""
    file.path.write_text(text)
    with pytest.raises(OperatorError):
        file.load()


def test_a_file_without_families(file: WantedFile) -> None:
    """It is damaged for writers too, and is not changed."""
    file.set(config("192.0.2.1/24"), (4,), (0,), SET_UP)
    content = json.loads(file.path.read_text())
    del content["families"]
    file.path.write_text(json.dumps(content))
    with pytest.raises(OperatorError):
        file.set(config("2001:db8::1/64"), (6,), (0,), SET_UP)
    with pytest.raises(OperatorError):
        file.drop((4,))
    assert json.loads(file.path.read_text()) == content


def test_a_full_disk(file: WantedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the consequence."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "replace_file", full)
    with pytest.raises(PlatformError, match="No space left") as caught:
        file.set(config("192.0.2.1/24"), (4,), (0,), SET_UP)
    assert "repair" in caught.value.remedy
