"""Sizes: a file or a folder that grows beyond these is divided."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "paraglider"
LINES = 400
DAEMON_LINES = 1500


def lines(path: Path) -> int:
    """The lines of a file."""
    return path.read_text(encoding="utf-8").count("\n")


def test_no_file_is_longer_than_400_lines() -> None:
    """Of the package, in whatever language."""
    kinds = ("*.py", "*.pyx", "*.pxd", "*.bpf.c", "*.h")
    sources = [path for kind in kinds for path in PACKAGE.rglob(kind)]
    assert len(sources) > 300  # the package was read
    assert {str(path): lines(path) for path in sources if lines(path) > LINES} == {}


def test_no_folder_of_the_daemon_has_more_than_1500_lines() -> None:
    """Each is one subject that can be read at one sitting."""
    folders = [PACKAGE / "daemon", *(p for p in (PACKAGE / "daemon").rglob("*") if p.is_dir())]
    sizes = {str(folder): sum(map(lines, folder.glob("*.py"))) for folder in folders}
    assert len(sizes) > 10
    assert {folder: size for folder, size in sizes.items() if size > DAEMON_LINES} == {}
