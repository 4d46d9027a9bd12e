"""The documentation has the figures of the record."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import docs
from bench.host import ROOT
from bench.results import Results
from paraglider.errors import OperatorError

RECORD = ROOT / "bench" / "results" / "latest.json"
BLOCK = "before\n<!-- bench: rates -->\nold\n<!-- bench: end -->\nafter\n"


def test_fill_replaces_a_block_and_nothing_else(results: Results) -> None:
    """The text between the markers is replaced, the rest stays."""
    text = docs.fill(BLOCK, results)
    assert text.startswith("before\n<!-- bench: rates -->\n|  | connections/s |")
    assert text.endswith("\n<!-- bench: end -->\nafter\n")
    assert "old" not in text
    assert docs.fill(text, results) == text


def test_a_record_without_cpu_a_unit_leaves_its_block_empty(results: Results) -> None:
    """Earlier records have none, and no empty table takes its place."""
    block = BLOCK.replace("rates", "units")
    assert "| connection, µs |" in docs.fill(block, results)
    for peer in results.peers:
        peer.rounds = [{"connections": 1.0} for _ in peer.rounds]
    emptied = "before\n<!-- bench: units -->\n<!-- bench: end -->\nafter\n"
    assert docs.fill(block, results) == emptied


def test_fill_leaves_text_without_blocks(results: Results) -> None:
    """A document without markers stays as it is."""
    assert docs.fill("nothing here\n", results) == "nothing here\n"


def test_write_without_a_record(tmp_path: Path) -> None:
    """Without a record the error has the command that creates one."""
    with pytest.raises(OperatorError, match="latest.json; run (sudo )?scripts/bench first"):
        docs.write(tmp_path, tmp_path)


def test_write_fills_both_documents(tmp_path: Path, results: Results) -> None:
    """The README gets the rates, the page on performance everything."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "latest.json").write_text(results.to_json())
    (tmp_path / "README.md").write_text(BLOCK)
    page = tmp_path / "docs" / "performance.md"
    page.write_text(BLOCK.replace("rates", "all"))
    docs.write(tmp_path, tmp_path)
    assert "10.0k" in (tmp_path / "README.md").read_text()
    assert "### Bars: ratios" in page.read_text()


@pytest.mark.parametrize("name", ["README.md", "docs/performance.md"])
def test_the_documents_have_the_record(name: str) -> None:
    """The blocks in the documentation are those of the record (else run scripts/bench --docs)."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "<!-- bench: " in text
    assert docs.fill(text, Results.from_json(RECORD.read_text(encoding="utf-8"))) == text
