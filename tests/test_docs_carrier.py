"""docs/carrier.md: its reasons are those of the program, and its defaults those of the file."""

from __future__ import annotations

import re
from pathlib import Path

from paraglider.bpf.layout import REASONS
from paraglider.config.model import Service

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "carrier.md").read_text(encoding="utf-8")


def rows(head: str) -> list[str]:
    """The first column, in ticks, of the table that follows ``head``."""
    table = PAGE.split(head, 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `(\w+)`", table, re.MULTILINE)


def test_every_reason_is_explained() -> None:
    """In the order of the program's counters."""
    assert rows("<!-- reasons -->") == list(REASONS)


def test_every_value_of_the_key_is_explained() -> None:
    """With the default marked as such."""
    field = Service.model_fields["carrier"]
    assert set(rows("by the key `carrier`:\n\n| `carrier` |")) == {"auto", "bpf", "xdp", "worker"}
    assert f"| `{field.default}` (default) |" in PAGE
