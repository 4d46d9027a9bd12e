"""docs/stats.md: its examples are valid, its numbers the program's, its requests are answered."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from paraglider.config.load import parse
from paraglider.daemon.http import process
from paraglider.daemon.web import events, history, peers, routes, sample, token
from paraglider.daemon.web.feed import Feed
from paraglider.daemon.web.guard import RequestGuard

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "stats.md").read_text(encoding="utf-8")
_WORDS = {2.0: "two"}
SERVICE = "services: [{name: a, vip: 192.168.0.11/24, protocol: tcp, backends: [10.0.0.1]}]\n"


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_the_examples_are_valid(text: str) -> None:
    """Each is a section that the daemon accepts."""
    assert parse(text + SERVICE, "stats.md").config.stats is not None


def test_its_numbers_are_the_programs() -> None:
    """Bounds equal those of the code."""
    text = " ".join(PAGE.split())
    assert f"{process.MOST} connections at a time, {events.MOST} streams" in text
    assert f"{process.LIFETIME:.0f} seconds for a request" in text
    assert f"{routes.LARGEST >> 10} KB of body" in text
    assert f"unread for {events.SLOW:.0f} seconds" in text
    assert f"ends after {events.LONGEST / 60:.0f} minutes" in text
    assert f"last {sample.HALF_LIFE:.0f} seconds" in text
    assert f"means of {history.STEP} seconds" in text
    assert f"with {token.SHORTEST} characters" in text
    assert f"`{routes.TOKEN}`" in text
    assert f"every {_WORDS[peers.INTERVAL]} seconds for all clients" in text
    assert f"at most {peers.DEADLINE:g} seconds and {peers.LONGEST >> 20} MB each" in text
    head = routes.files()["uPlot.iife.min.js"].body[:200].decode()
    version = re.search(r"\(v([\d.]+)\)", head)
    assert version is not None
    assert f"uPlot) {version[1]}" in PAGE


def test_its_requests_are_those_there_are() -> None:
    """Every path of the table is answered, and every one that is answered is in the table."""

    async def ask(_request: object) -> dict[str, object]:
        return {}

    async def paths() -> set[str]:
        feed = Feed(ask, {})
        streams = events.Streams(feed, lambda *_: None)
        shown = routes.Shown(routes.files(), feed, streams, peers.Peers(()))
        app = routes.application(shown, RequestGuard(()), ask)
        return {str(resource.canonical) for resource in app.router.resources()}

    served = {
        path.replace("{service}", "SERVICE").replace("{backend}", "BACKEND")
        for path in asyncio.run(paths())
    }
    table = set(re.findall(r"[` ](/[\w/.;]*)[`?]", PAGE.partition("## For programs")[2]))
    assert served - {"/", "/static/{name}"} == {path for path in table if path != "/"}


def test_links_lead_to_files() -> None:
    """Every file that the page links to is there."""
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
