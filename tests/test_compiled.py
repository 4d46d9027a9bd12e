"""Compiled modules: all if they were built and are up to date, otherwise none."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import paraglider
from paraglider import _compiled

PACKAGE = Path(paraglider.__file__).parent
MODULES = sorted(
    {
        ".".join(source.relative_to(PACKAGE.parent).with_suffix("").parts)
        for ending in ("*.pxd", "*.pyx")
        for source in PACKAGE.rglob(ending)
    }
)

#: tells where a module was loaded from, in a process of its own
TELL = "import importlib, sys; print(importlib.import_module(sys.argv[1]).__file__)"


def test_the_list_of_the_build() -> None:
    """``setup.py`` compiles just the modules that have their types beside them."""
    setup = (PACKAGE.parent / "setup.py").read_text(encoding="utf-8")
    listed = re.findall(r'^    "(paraglider/[\w/]+)\.pyx?",$', setup, re.MULTILINE)
    assert sorted(listed) == [module.replace(".", "/") for module in MODULES]


def loaded_from(module: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The file from which a new interpreter loads ``module``, with ``environment`` added."""
    clean = {name: value for name, value in os.environ.items() if name != _compiled.PURE}
    return subprocess.run(
        [sys.executable, "-c", TELL, module],
        capture_output=True,
        text=True,
        env={**clean, **environment},
        cwd=PACKAGE.parent,
    )


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
@pytest.mark.parametrize("module", MODULES)
def test_the_packet_path_is_compiled(module: str) -> None:
    """With a compiler, scripts/bootstrap has compiled every module of the list."""
    assert loaded_from(module).stdout.strip().endswith(EXTENSION_SUFFIXES[0])


@pytest.mark.parametrize("module", [m for m in MODULES if "._" not in m])
def test_pure_means_interpreted(module: str) -> None:
    """With PARAGLIDER_PURE every module is loaded from its source."""
    assert loaded_from(module, PARAGLIDER_PURE="1").stdout.strip().endswith(".py")


def test_what_exists_only_compiled_is_absent_when_pure() -> None:
    """The compiled batch cannot be had then, so that its interpreted twin serves."""
    done = loaded_from("paraglider.netfilter.queue._batch", PARAGLIDER_PURE="1")
    assert "ModuleNotFoundError" in done.stderr


def test_this_run_uses_the_selected_build() -> None:
    """The tests run the build that the environment selects."""
    nat = importlib.import_module("paraglider.forward.nat.datapath")
    pure = bool(os.environ.get(_compiled.PURE)) or shutil.which("cc") is None
    assert Path(str(nat.__file__)).suffix == (".py" if pure else ".so")


def test_an_edited_source_is_stale(tmp_path: Path) -> None:
    """If a source or its types are newer than the compiled module, all run interpreted."""
    compiled = tmp_path / f"hot{EXTENSION_SUFFIXES[0]}"
    source, types = tmp_path / "hot.py", tmp_path / "hot.pxd"
    for file, age in ((compiled, 1000), (source, 1001), (types, 1004)):
        file.touch()
        os.utime(file, (age, age))
    assert _compiled.stale(tmp_path) == []
    os.utime(types, (2000, 2000))
    assert _compiled.stale(tmp_path) == [types]
    os.utime(source, (2000, 2000))
    assert set(_compiled.stale(tmp_path)) == {source, types}


def test_a_stale_package_gets_the_finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``choose`` installs the finder of sources only if needed."""
    monkeypatch.delenv(_compiled.PURE, raising=False)
    monkeypatch.setattr(sys, "meta_path", [])
    _compiled.choose(tmp_path)
    assert sys.meta_path == []
    monkeypatch.setenv(_compiled.PURE, "1")
    _compiled.choose(tmp_path)
    assert sys.meta_path == [_compiled.InterpretedFinder]


def test_the_finder_leaves_others_alone() -> None:
    """Packages, and modules that are not ours, are found as ever."""
    find = _compiled.InterpretedFinder.find_spec
    assert find("json.decoder", None) is None
    assert find("paraglider.core", [str(PACKAGE)]) is None
    spec = find("paraglider.forward.nat.datapath", [str(PACKAGE / "forward" / "nat")])
    assert spec is not None
    assert str(spec.origin).endswith("datapath.py")
