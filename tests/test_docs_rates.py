"""Frequencies in the documents: each such sentence names its constant."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from paraglider.daemon.conditions import unanswered
from paraglider.daemon.host_helper import turns
from paraglider.daemon.web import feed
from paraglider.daemon.workers import proxy_worker, worker
from paraglider.forward.tunnel import carrier
from paraglider.health import rise_and_fall
from paraglider.host import file_watch
from paraglider.netfilter.queue import reader

DOCS = Path(__file__).parents[1] / "docs"
WORDS = {"once": 1, "twice": 2, "five times": 5, "twenty times": 20}

#: page → what the words before " a second" say → seconds in the code, in the order of the page
SAID = {
    "architecture.md": (
        feed.INTERVAL,
        reader.TICK,
        reader.TICK,
        reader.IDLE_TICK,
        worker.COUNTERS_INTERVAL,
        file_watch.PAUSE,
        carrier.PATH_SECONDS,
        unanswered.INTERVAL,
    ),
    "carrier.md": (turns.POLL,),
    "health.md": (rise_and_fall.HINTED,),
    "metrics.md": (worker.COUNTERS_INTERVAL, proxy_worker.TICK),
    "performance.md": (worker.COUNTERS_INTERVAL,),
    "stats.md": (feed.INTERVAL, feed.INTERVAL),
    "tunnel.md": (carrier.PATH_SECONDS,),
}


def said(page: str) -> list[int]:
    """The frequencies of a page, by sentence."""
    text = " ".join((DOCS / page).read_text().split())
    return [
        WORDS[word] for word in re.findall(r"(\w+(?: times)?) a second\b", text) if word in WORDS
    ]


@pytest.mark.parametrize("page", sorted(SAID))
def test_how_often(page: str) -> None:
    """The frequency on the page is that of the code."""
    assert said(page) == [round(1 / seconds) for seconds in SAID[page]]


def test_no_other_page_has_such_a_sentence() -> None:
    """A new sentence of that kind gets a line in the table above."""
    found = Counter(file.name for file in DOCS.glob("*.md") for _ in said(file.name))
    assert found == {page: len(seconds) for page, seconds in SAID.items()}
