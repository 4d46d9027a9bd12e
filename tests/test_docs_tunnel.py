"""docs/tunnel.md: its file is valid, its numbers are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paraglider.cli.errors import run_command
from paraglider.cli.main import main
from paraglider.config.load import load, parse
from paraglider.core.encapsulation import OVERHEAD
from paraglider.core.verdict import REASON_NAMES
from paraglider.forward.tunnel.datapath import TOLD_SECONDS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "tunnel.md").read_text(encoding="utf-8")


def test_the_example_is_valid() -> None:
    """The file on the page, and the file that it names: tunnels only, both families and types."""
    match = re.search(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None
    (service,) = parse(match[1], "tunnel.md").config.services
    assert (service.forward, service.encapsulation.udp_port) == ("tunnel", 6080)
    services = load(ROOT / "conf" / "tunnel.conf").services
    assert {service.forward for service in services} == {"tunnel"}
    assert {service.family for service in services} == {4, 6}
    assert {service.encapsulation.type for service in services} == {"ipip", "gue"}


def test_its_numbers_are_the_programs() -> None:
    """The lengths of the headers, the minutes, the reasons."""
    assert f"| {OVERHEAD[4][0]}, {OVERHEAD[6][0]} |" in TEXT
    assert f"| {OVERHEAD[4][1]}, {OVERHEAD[6][1]} |" in TEXT
    assert TOLD_SECONDS == 600
    assert "once in ten minutes" in TEXT
    for reason in ("too_big", "hop_limit", "unsent"):
        assert reason in REASON_NAMES
        assert f"`{reason}`" in TEXT


def test_the_commands_of_the_devices_are_printed(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """By `backend-setup`, in this order, for the file of the page."""
    match = re.search(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    shown = re.search(r"^<!-- devices -->\n```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None
    assert shown is not None
    file = tmp_path / "tunnel.conf"
    file.write_text(match[1])
    command = ["backend-setup", "-c", str(file), "web", "--backend", "10.1.0.1"]
    with pytest.raises(SystemExit) as caught:
        run_command(main, "paraglider", [*command, "--decapsulation", "kernel"])
    assert caught.value.code == 0
    lines = capfd.readouterr().out.splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]
    assert commands[-6:] == shown[1].splitlines()
    assert "# ip -4 fou del port 6080 local 10.1.0.1" in lines
    assert "# ip link del dev ipip-0a010001" in lines
