"""docs/direct.md: the script that it shows is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHOWN = re.compile(
    r"<!-- backend-setup: (?P<service>\S+) (?P<backend>\S+) -->\n```sh\n(?P<text>.*?)```", re.DOTALL
)


def test_the_script_that_is_shown_is_printed() -> None:
    """The page has the command's output for its example file. ``UPDATE_GOLDEN=1`` writes it into
    the page.
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
