"""docs/sources.md and conf/sources.conf: the examples load, the numbers are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from paraglider.cli.main import main
from paraglider.config import listing
from paraglider.config.load import load, parse
from paraglider.config.sources import origins
from paraglider.daemon.inputs import sources
from paraglider.daemon.monitor import discovery, dns_lookup

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "conf" / "sources.conf"


def blocks(language: str) -> list[str]:
    """The examples in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_examples() -> None:
    """The configurations of the page are valid, and the file's services are the page's."""
    configs = [parse(block, "docs/sources.md").config for block in blocks("yaml")]
    assert len(configs) == 2
    shown = {name: where for config in configs for name, where in origins(config).items()}
    assert origins(load(EXAMPLE)) == shown


def test_the_list() -> None:
    """The file of backends on the page is one."""
    (text,) = blocks("text")
    found = listing.parse(text, ())
    assert [(str(b.address), b.weight) for b in found.backends] == [
        ("10.0.0.4", 2),
        ("10.0.0.5", 1),
    ]
    assert not found.problems


@pytest.mark.parametrize("written", [True, False])
def test_check_accepts_the_example(tmp_path: Path, written: bool) -> None:
    """`paraglider check` takes the example when its file of backends is there, and only then."""
    file = tmp_path / "mail.backends"
    text = EXAMPLE.read_text(encoding="utf-8")
    config = tmp_path / "paraglider.conf"
    config.write_text(text.replace("/etc/paraglider/mail.backends", str(file)), encoding="utf-8")
    if written:
        file.write_text("10.0.0.4 weight=2\n10.0.0.5\n")
    done = CliRunner().invoke(main, ["check", "-c", str(config)], standalone_mode=False)
    if not written:
        assert f"{file}: there is no such file" in str(done.exception)
        return
    assert done.exception is None
    mail = next(line for line in done.output.splitlines() if line.startswith("service=mail"))
    assert f"backends=2 weight=3 listed_in={file}" in mail
    assert "backends=0 weight=0 listed_in=dns:_web._tcp.service.consul" in done.output


def test_numbers() -> None:
    """The numbers on the page are those of the code."""
    flat = " ".join(PAGE.split())
    for words in (
        f"lists {listing.MOST} backends at most",
        f"after {discovery.LEAST:g} s at least and {discovery.MOST:g} s at most",
        f"up to {discovery.LONGEST_WAIT:g} s",
        f"waits {dns_lookup.FIRST_TIMEOUT:g} s for the DNS",
    ):
        assert words in flat
    assert (sources.QUIET, sources.REMINDER) == (60, 3600)
