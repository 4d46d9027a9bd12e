"""How often something is done, as the documents say it: each such sentence names its constant."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from paraglider.daemon.conditions import unanswered
from paraglider.daemon.web import feed
from paraglider.daemon.workers import proxy_worker
from paraglider.health import rise_and_fall
from paraglider.host import file_watch
from paraglider.netfilter.queue import reader

DOCS = Path(__file__).parents[1] / "docs"
WORDS = {"once": 1, "twice": 2, "twenty times": 20}

#: page → what the words before " a second" say → seconds in the code, in the order of the page
SAID = {
    "architecture.md": (
        feed.INTERVAL,
        reader.TICK,
        reader.TICK,
        file_watch.PAUSE,
        unanswered.INTERVAL,
    ),
    "health.md": (rise_and_fall.HINTED,),
    "metrics.md": (reader.TICK, proxy_worker.TICK),
    "performance.md": (reader.TICK,),
    "stats.md": (feed.INTERVAL, feed.INTERVAL),
}


def said(page: str) -> list[int]:
    """How often a second the page says that something is done, sentence by sentence."""
    text = " ".join((DOCS / page).read_text().split())
    return [
        WORDS[word] for word in re.findall(r"(\w+(?: times)?) a second\b", text) if word in WORDS
    ]


@pytest.mark.parametrize("page", sorted(SAID))
def test_how_often(page: str) -> None:
    """What the page says is what the code does."""
    assert said(page) == [round(1 / seconds) for seconds in SAID[page]]


def test_no_other_page_says_it() -> None:
    """A new sentence of that kind gets a line in the table above."""
    found = Counter(file.name for file in DOCS.glob("*.md") for _ in said(file.name))
    assert found == {page: len(seconds) for page, seconds in SAID.items()}
