"""The package's metadata is consistent, and the scripts run from any directory."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import paraglider
from paraglider import _compiled

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = (
    "scripts/bootstrap",
    "scripts/demo",
    "scripts/fuzz",
    "scripts/lint",
    "scripts/test",
    ".ci/run",
)


def setup_output(*arguments: str) -> str:
    """The output of ``setup.py``, where only setuptools can be imported; nothing is compiled."""
    done = subprocess.run(
        [sys.executable, "setup.py", *arguments],
        env={**os.environ, _compiled.PURE: "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_version_is_read_without_importing() -> None:
    """``setup.py`` prints the version of the package without its dependencies."""
    assert setup_output("--version").splitlines()[-1] == paraglider.__version__


def test_what_is_installed_is_this_version() -> None:
    """The installed metadata belongs to this code (else scripts/bootstrap has not been run)."""
    assert importlib.metadata.version("paraglider") == paraglider.__version__


def test_the_console_script_points_at_the_entry() -> None:
    """``paraglider`` is the entry of the command line."""
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="paraglider")
    assert script.value == "paraglider.cli.main:entry"
    assert callable(script.load())


def imported_roots(source: str) -> set[str]:
    """The top-level packages that Python ``source`` imports."""
    roots: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.partition(".")[0])
    return roots


def test_what_is_imported_is_required() -> None:
    """The package's third-party imports are in ``setup.py``'s requirements."""
    # pydantic pins its own pydantic_core, whose types its errors have.
    projects = {
        "dns": "dnspython",
        "prctl": "python-prctl",
        "prometheus_client": "prometheus-client",
        "pydantic_core": "pydantic",
        "yaml": "pyyaml",
    }
    required = {
        re.split(r"[<>=\[; ]", line, maxsplit=1)[0].lower()
        for line in importlib.metadata.requires("paraglider") or []
        if "extra ==" not in line
    }
    imported: set[str] = set()
    for path in (ROOT / "paraglider").rglob("*.py"):
        imported |= imported_roots(path.read_text(encoding="utf-8"))
    foreign = imported - set(sys.stdlib_module_names) - {"paraglider"}
    assert {projects.get(name, name) for name in foreign} <= required


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_parse(script: str) -> None:
    """Each script is executable, stops at the first error, and is valid bash."""
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in path.read_text()
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0


def test_bootstrap_refuses_what_it_does_not_know() -> None:
    """An unknown option is refused with the right usage, from any directory."""
    done = subprocess.run(
        [str(ROOT / "scripts/bootstrap"), "--tset"], cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "unknown option --tset; use scripts/bootstrap [--test]" in done.stderr


@pytest.mark.root
@pytest.mark.timeout(600)  # it starts hundreds of programs, and nothing promises how fast
def test_bootstrap_again_changes_nothing() -> None:
    """After an installation, another run prints and installs nothing."""
    stamp = ROOT / ".venv" / ".paraglider-stamp"
    before = stamp.stat().st_mtime_ns
    compiled = _compiled.compiled_files(ROOT / "paraglider")
    times = [file.stat().st_mtime_ns for file in compiled]
    done = subprocess.run(
        [str(ROOT / "scripts/bootstrap"), "--test"], cwd="/", capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert stamp.stat().st_mtime_ns == before
    # Git may have touched a source that is the same: the modules are made fresh, not anew.
    assert _compiled.compiled_files(ROOT / "paraglider") == compiled
    assert all(file.stat().st_mtime_ns > time for file, time in zip(compiled, times, strict=True))


LINK = re.search(
    r"^link\(\) \{\n.*?^\}\n",
    (ROOT / "scripts/bootstrap").read_text(),
    re.MULTILINE | re.DOTALL,
)


def linked(place: Path, clone: Path) -> tuple[str, str]:
    """What `scripts/bootstrap` of ``clone`` makes of the command in ``place``, and what it says."""
    assert LINK is not None
    text = LINK[0].replace("/usr/local/bin", str(place))
    script = f"set -euo pipefail\nvenv={clone}/.venv\n{text}link paraglider"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    return str((place / "paraglider").readlink()), done.stderr


def test_the_command_of_another_clone(tmp_path: Path) -> None:
    """It is repointed, which is said; one that is gone, or the clone's own, is no matter."""
    for name in ("one", "two"):
        program = tmp_path / name / ".venv/bin/paraglider"
        program.parent.mkdir(parents=True)
        program.touch()
    (place := tmp_path / "bin").mkdir()
    one, two = (tmp_path / name for name in ("one", "two"))
    assert linked(place, one) == (f"{one}/.venv/bin/paraglider", "")
    assert linked(place, one) == (f"{one}/.venv/bin/paraglider", "")
    target, said = linked(place, two)
    assert target == f"{two}/.venv/bin/paraglider"
    assert said == (
        f"bootstrap: {place}/paraglider was {one}/.venv/bin/paraglider of another clone,"
        f" now it is {target}\n"
    )
    (two / ".venv/bin/paraglider").unlink()
    assert linked(place, one) == (f"{one}/.venv/bin/paraglider", "")


def test_a_command_of_others_stays(tmp_path: Path) -> None:
    """A link to anything else is not touched, and it is said what to use."""
    (tmp_path / "paraglider").symlink_to("/bin/true")
    target, said = linked(tmp_path, tmp_path)
    assert target == "/bin/true"
    assert said.endswith(f"is not ours and stays; use {tmp_path}/.venv/bin/paraglider\n")


def test_the_license_is_the_one_that_is_said() -> None:
    """The metadata and the license file name the same license."""
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert setup_output("--license").splitlines()[-1] == "MIT"


@pytest.mark.parametrize("name", ["paraglider", "paraglider-announce"])
def test_the_units_are_locked_in(name: str) -> None:
    """`systemd-analyze security` finds an exposure of 4.0 at most."""
    unit = ROOT / "conf" / f"{name}.service"
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=40"]
    done = subprocess.run([*command, str(unit)], capture_output=True, text=True)
    assert "Overall exposure level" in done.stdout
    assert done.returncode == 0, done.stdout


def test_the_page_is_part_of_the_package(tmp_path: Path) -> None:
    """The stats page's files are installed with it, including uPlot's licence."""
    setup_output("-q", "build_py", "--build-lib", str(tmp_path))
    static = Path("paraglider/daemon/web/static")
    built = {path.name for path in (tmp_path / static).iterdir()}
    assert built == {path.name for path in (ROOT / static).iterdir()}
    assert {"index.html", "page.js", "uPlot.iife.min.js", "uPlot.LICENSE.txt"} <= built
    assert "MIT" in (tmp_path / static / "uPlot.LICENSE.txt").read_text()


def build_carrier(into: Path, **environment: str) -> str:
    """What ``setup.py build_bpf`` says on its way to ``into``."""
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_bpf", "--build-lib", str(into)],
        env={**os.environ, "PARAGLIDER_PURE": "1", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_the_bpf_programs_are_part_of_the_package(tmp_path: Path) -> None:
    """A build has their objects, which are the same wherever and whenever they are built, and are
    those of this clone (else scripts/bootstrap has not been run).
    """
    assert build_carrier(tmp_path) == ""
    for name in ("carrier.bpf.o", "decap.bpf.o"):
        built = (tmp_path / "paraglider/bpf" / name).read_bytes()
        assert built[:4] == b"\x7fELF"
        assert built[18:20] in (b"\xf7\0", b"\0\xf7")  # EM_BPF
        assert str(ROOT).encode() not in built
        assert built == (ROOT / "paraglider/bpf" / name).read_bytes()


def test_without_a_compiler_there_is_no_carrier(tmp_path: Path) -> None:
    """A build without clang says so, succeeds, and leaves no object of before."""
    assert "no clang" in build_carrier(tmp_path, PATH=str(tmp_path))
    clang = tmp_path / "clang"
    clang.write_text("#!/bin/sh\nexit 1\n")
    clang.chmod(0o755)
    assert "does not build" in build_carrier(tmp_path, PATH=str(tmp_path))
    assert not list(tmp_path.rglob("*.o"))


def test_nothing_of_ours_fixes_the_hash_of_dictionaries() -> None:
    """Keys of flow tables come from strangers: Python's hash of them is random in each process
    (PYTHONHASHSEED unset), and nothing that we ship sets it.
    """
    shipped = [*(ROOT / "conf").iterdir(), *(ROOT / "scripts").rglob("*"), ROOT / "setup.py"]
    for file in shipped:
        if file.is_file():
            assert "PYTHONHASHSEED" not in file.read_text(errors="replace"), file
    program = "print(hash(b'key of a flow'))"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"}
    hashes = {
        subprocess.check_output([sys.executable, "-c", program], env=environment) for _ in range(3)
    }
    assert len(hashes) == 3
