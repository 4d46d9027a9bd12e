"""Puts the record (``latest.json``) into the documentation, between markers.

Rules: the text between ``<!-- bench: NAME -->`` and ``<!-- bench: end -->`` is written only here,
and a test compares it with the record.
"""

from __future__ import annotations

from pathlib import Path

from bench import report
from bench.results import Results
from paraglider.errors import OperatorError, as_root

RECORD = "latest"


def blocks(results: Results) -> dict[str, str]:
    """The text of every block by its name."""
    when = report.circumstances(results)
    remarks = "".join(f"* {line}\n" for line in report.remarks(results))
    return {
        "units": f"{report.units(results).markdown()}\n\n" if report.has_units(results) else "",
        "rates": f"{report.rates(results).markdown()}\n\n{when}\n",
        "all": "".join(
            f"### {grid.title}\n\n{grid.markdown()}\n\n" for grid in report.all_grids(results)
        )
        + f"{when}\n"
        + (f"\n{remarks}" if remarks else ""),
    }


def fill(text: str, results: Results) -> str:
    """``text`` with all its blocks as ``results`` has them."""
    for name, block in blocks(results).items():
        begin, end = f"<!-- bench: {name} -->\n", "<!-- bench: end -->"
        before, mark, rest = text.partition(begin)
        if mark:
            text = before + mark + block + end + rest.partition(end)[2]
    return text


def write(root: Path, directory: Path) -> None:
    """Fill README.md and docs/performance.md under ``root`` with the record of ``directory``.

    Raises ``OperatorError`` if there is no record.
    """
    record = directory / f"{RECORD}.json"
    if not record.exists():
        raise OperatorError(f"there is no {record}", f"run {as_root('scripts/bench')} first")
    results = Results.from_json(record.read_text(encoding="utf-8"))
    for name in ("README.md", "docs/performance.md"):
        file = root / name
        file.write_text(fill(file.read_text(encoding="utf-8"), results), encoding="utf-8")
