"""docs/proxy.md: its example is valid, and the messages that it explains exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paraglider.config.load import parse
from paraglider.config.model import TimeoutsConfig
from paraglider.core.client_hello import MOST, Hello
from paraglider.core.hello_routes import RouteTable
from paraglider.forward.proxy.checks import MOST_PORTS
from paraglider.forward.proxy.relay import BUFFER

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "proxy.md").read_text(encoding="utf-8")
FLAT = " ".join(PAGE.split())


def test_the_example_is_valid() -> None:
    """It is a proxy of TCP, and `paraglider check` accepts it."""
    match = re.search(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None
    (service,) = parse(match[1], "proxy.md").config.services
    assert service.forward == "proxy"


def test_its_numbers_are_the_programs() -> None:
    """Defaults and bounds equal those of the code."""
    timeouts = TimeoutsConfig()
    assert f"`timeouts.connect` ({timeouts.connect} s)" in FLAT
    assert f"`timeouts.established` ({timeouts.established:,} s)" in FLAT
    assert f"`timeouts.hello` ({timeouts.hello} s)" in FLAT
    assert f"more than {MOST // 1024} KiB of one" in FLAT
    assert f"`timeouts.drain` seconds ({timeouts.drain})" in FLAT
    assert f"{BUFFER // 1024} KiB" in FLAT
    assert f"{MOST_PORTS:,} ports at most" in (ROOT / "conf" / "proxy.conf").read_text()


@pytest.mark.parametrize(
    ("hello", "service"),
    [
        (Hello("api.example", ("http/1.1", "h2")), "api"),
        (Hello("api.example"), None),
        (Hello("www.shop.example"), "web._wildcard.shop.example"),
        (Hello("shop.example"), None),
        (Hello("a.b.shop.example"), None),
        (Hello("other.example", ("imap",)), "mail"),
        (Hello("", ("imap",)), "mail"),
    ],
)
def test_its_routes_take_what_it_says(hello: Hello, service: str | None) -> None:
    """The table below the example is that of its routes."""
    example = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]
    table = RouteTable[str]()
    for each in parse(example, "proxy.md").config.services:
        if each.route is not None:
            table.add(each.route.match, each.name)
    assert table.find(hello) == service


@pytest.mark.parametrize(
    ("message", "file"),
    [
        ("is in use", "forward/proxy/listeners.py"),
        ("no interface has the VIP, clients cannot reach it", "daemon/process_specs.py"),
        ("backend does not accept connections", "daemon/workers/proxy_worker.py"),
        ("no socket left to accept with", "daemon/workers/proxy_worker.py"),
    ],
)
def test_the_messages_it_explains_are_said(message: str, file: str) -> None:
    """Each is on the page and in the code."""
    assert message in PAGE
    assert message in (ROOT / "paraglider" / file).read_text(encoding="utf-8")
