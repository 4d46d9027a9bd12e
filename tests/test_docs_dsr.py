"""docs/dsr.md: its outputs are printed, its file is valid, its numbers are right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from paraglider.config.load import load, parse
from paraglider.forward.dsr.host import PRIORITY, needs
from paraglider.forward.dsr.leases import LONGEST, TABLE
from paraglider.host.changes.base import Host
from paraglider.host.changes.routes import entry_change

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "dsr.md"
EXAMPLE = ROOT / "conf" / "dsr.conf"


def test_the_example_is_valid() -> None:
    """The file on the page, and the file that it names: dsr only, both families, any."""
    match = re.search(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None
    (service,) = parse(match[1], "dsr.md").config.services
    assert service.forward == "dsr"
    services = load(EXAMPLE).services
    assert {service.forward for service in services} == {"dsr"}
    assert {service.family for service in services} == {4, 6}
    assert {service.protocol for service in services} == {"tcp", "udp", "any"}


def test_the_commands_that_are_shown_are_printed() -> None:
    """Those for one VIP and one backend are in the set-up's dry run."""
    match = re.search(r"<!-- dry-run -->\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert match is not None
    shown = [line for line in match[1].splitlines() if line.startswith("ip ")]
    entries = needs(load(EXAMPLE), 4).routing
    printed = [entry_change(4, entry).script(Host()).strip() for entry in entries]
    assert len(shown) == 4
    assert [line for line in printed if line in shown] == shown


def test_what_a_backend_gets_is_printed() -> None:
    """The parts of the script on the page that do not depend on this host's parameters."""
    command = [sys.executable, "-m", "paraglider", "backend-setup", "web"]
    options = ["-c", str(EXAMPLE), "--backend", "10.0.0.1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    line = "ip address add 192.168.0.11/32 dev lo\n"
    assert line in done.stdout
    assert line in PAGE.read_text(encoding="utf-8")


def test_its_numbers_are_the_programs() -> None:
    """The lease, the priority, the name of the table."""
    text = " ".join(PAGE.read_text().split())
    assert f"A lease lasts {LONGEST} seconds" in text
    assert f"rules of priority {PRIORITY}" in text
    assert f"nft list table ip {TABLE}`" in text
