"""Tests of ``paraglider.host.snapshot``: modules from memory, as they were."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paraglider.errors import OperatorError
from paraglider.host import snapshot
from paraglider.host.snapshot import Snapshot


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A module that names its version, a package with and one without an __init__."""
    (tmp_path / "snap_one.py").write_text("version = 1\n")
    for name in ("snap_pack", "snap_bare"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inner.py").write_text("import snap_one\nfrom . import beside\n")
        (tmp_path / name / "beside.py").write_text("here = __name__\n")
    (tmp_path / "snap_pack/__init__.py").write_text("whole = True\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("snap_")]:
        del sys.modules[name]


def test_modules_are_as_they_were(directory: Path) -> None:
    """Imported modules are those that were read, with their names and places; reading executes
    nothing.
    """
    files = Snapshot(directory)
    (directory / "snap_one.py").write_text("version = 2\n")
    (directory / "snap_pack/inner.py").unlink()
    assert "snap_one" not in sys.modules
    with files.importable():
        inner = importlib.import_module("snap_pack.inner")
        bare = importlib.import_module("snap_bare.inner")
    assert inner.snap_one.version == 1
    assert inner.beside.here == "snap_pack.beside"
    assert bare.beside.here == "snap_bare.beside"
    assert sys.modules["snap_pack"].whole
    assert inner.__file__ == str(directory / "snap_pack/inner.py")
    for name in ("snap_one", "snap_pack", "snap_pack.inner", "snap_bare", "snap_bare.inner"):
        assert files.has(sys.modules[name])
    assert not files.has(sys)
    assert list(directory.rglob("*.pyc")) == []
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("snap_pack.more")


def test_a_later_load_forgets_modules(directory: Path) -> None:
    """Modules of an earlier load are forgotten."""
    with Snapshot(directory).importable():
        importlib.import_module("snap_one")
    (directory / "snap_one.py").write_text("version = 3\n")
    with Snapshot(directory).importable():
        assert importlib.import_module("snap_one").version == 3
    assert not any(isinstance(finder, Snapshot) for finder in sys.meta_path)


def test_it_is_bounded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with more than there may be is refused; a link that leads nowhere is named."""
    monkeypatch.setattr(snapshot, "MOST", 20)
    with pytest.raises(OperatorError, match="MiB of Python files"):
        Snapshot(directory)
    monkeypatch.undo()
    (directory / "gone.py").symlink_to("nowhere")
    with pytest.raises(OperatorError, match=r"gone\.py cannot be read"):
        Snapshot(directory)
