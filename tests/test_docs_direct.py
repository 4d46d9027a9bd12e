"""docs/direct.md and docs/any.md: what they print is printed, what they say is tested is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["direct.md", "any.md"]
SHOWN = re.compile(
    r"<!-- backend-setup: (?P<service>\S+) (?P<backend>\S+) -->\n```sh\n(?P<text>.*?)```", re.DOTALL
)


@pytest.mark.parametrize("page", PAGES)
def test_the_tests_that_are_named_exist(page: str) -> None:
    """A reader can run each of them."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / page).read_text())
    assert len(named) > 3
    for file, function in named:
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), function


def test_the_script_that_is_shown_is_printed() -> None:
    """The page has what the command prints for its example file.

    ``UPDATE_GOLDEN=1`` writes it into the page.
    """
    page = ROOT / "docs" / "direct.md"
    text = page.read_text(encoding="utf-8")
    match = SHOWN.search(text)
    assert match is not None
    command = [sys.executable, "-m", "paraglider", "backend-setup", match["service"]]
    options = ["-c", str(ROOT / "conf" / "direct.conf"), "--backend", match["backend"]]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    if os.environ.get("UPDATE_GOLDEN"):
        page.write_text(text.replace(f"```sh\n{match['text']}```", f"```sh\n{done.stdout}```"))
        match = SHOWN.search(page.read_text(encoding="utf-8"))
        assert match is not None
    assert match["text"] == done.stdout
