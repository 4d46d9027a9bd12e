"""Every page of docs/: links, named tests, and configurations are valid.

The other content of a page is tested in ``test_docs_NAME.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paraglider.config.load import parse

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FORWARDS = ("nat", "direct", "offload", "dsr", "tunnel", "proxy", "static", "any")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@each_page
def test_links_lead_to_files(page: Path) -> None:
    """Links to files of the repository, and to headings of other pages."""
    for target, heading in re.findall(r"\]\(([^)#:\s]*)#?([^)\s:]*)\)", page.read_text("utf-8")):
        file = page.parent / target if target else page
        assert file.exists(), target
        if heading and file.suffix == ".md":
            assert heading in headings(file), f"{target}#{heading}"


def headings(page: Path) -> set[str]:
    """The anchors of its headings, as the usual viewers compute them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@each_page
def test_the_tests_that_are_named_exist(page: Path) -> None:
    """A reader can run each of them."""
    for file, test in re.findall(r"`(tests/\S+\.py)(?:::(\w+))?`", page.read_text("utf-8")):
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text("utf-8"), f"{file}::{test}"


@each_page
def test_configurations_are_valid(page: Path) -> None:
    """Complete configurations: `paraglider check` accepts them."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    for block in blocks:
        if re.search(r"^services:\n", block, re.MULTILINE) and "vip:" in block:
            assert parse(block, page.name).config.services


@pytest.mark.parametrize("name", FORWARDS)
def test_every_way_of_forwarding_has_a_page(name: str) -> None:
    """With an example in conf/ that it names; `tests/cli/test_check.py` checks them all."""
    text = (ROOT / "docs" / f"{name}.md").read_text("utf-8")
    example = "paraglider" if name == "nat" else name
    assert f"(../conf/{example}.conf)" in text
    assert (ROOT / "conf" / f"{example}.conf").is_file()


def test_the_modules_that_are_named_exist() -> None:
    """The architecture names files and folders of the package or of the repository as they are."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(r"`((?:[a-z_]+/)+[\w.]*)`", text)
    assert len(named) > 50
    places = (ROOT / "paraglider" / "daemon", ROOT / "paraglider", ROOT)
    assert [n for n in named if not any((place / n).exists() for place in places)] == []
