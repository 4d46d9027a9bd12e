"""The man pages: whole, and of one mind with the program and the schema."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paraglider.cli.main import COMMANDS
from paraglider.cli.man import pages, write
from paraglider.forward.schema import schema


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the written pages."""
    place = tmp_path_factory.mktemp("man")
    write(place)
    return place


def page(name: str) -> str:
    """The text of a page without roff's escapes."""
    (made,) = (page for page in pages("2026-01-02") if page.name == name)
    return re.sub(r"\\f[BR]|\\&", "", str(made)).replace(r"\-", "-")


def keys(part: dict[str, Any], parts: dict[str, Any]) -> Iterator[str]:
    """Every key below a section of the schema."""
    for key, field in part["properties"].items():
        yield key
        for name in re.findall(r"#/\$defs/(\w+)'", str(field)):
            yield from keys(parts[name], parts)


def test_three_pages(folder: Path) -> None:
    """Each is in the directory of its section."""
    made = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.?"))
    assert made == ["man5/paraglider.conf.5", "man8/paraglider.8", "man8/paraglider.config.8"]


def test_every_command_with_its_options() -> None:
    """Everything that `--help` lists is in paraglider(8), also of subcommands of groups."""
    text = page("paraglider")
    for name in COMMANDS:
        assert f'.SS "{name}"' in text
    for option in ("--queue-length LEN", "--log [auto|text|json|syslog]", "--against FILE"):
        assert option in text
    assert "\n.TP\n-h, --help\n" in text


def test_every_key_of_the_file() -> None:
    """Each key of the schema, at any depth, is in paraglider.conf(5) with its description."""
    text = page("paraglider.conf")
    whole = schema()
    for key in set(keys(whole, whole["$defs"])):
        assert re.search(rf"^(.*\.)?{key}(:|$)|^\.SH \"{key.upper()}\"", text, re.MULTILINE), key
    assert "services[].check.expect.status" in text
    assert "default /var/run/empty" in text


def test_the_page_of_the_setup_has_exit_codes() -> None:
    """paraglider.config(8) has the options and the exit codes."""
    text = page("paraglider.config")
    assert "--undo" in text
    assert "the platform refused" in text


def test_the_date_is_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SOURCE_DATE_EPOCH makes two builds of one tree alike."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    write(tmp_path)
    assert '"1970-01-02"' in (tmp_path / "man8/paraglider.8").read_text()


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="needs mandoc: scripts/bootstrap --test")
def test_nothing_to_complain_of(folder: Path) -> None:
    """mandoc's lint finds neither an error nor a matter of style."""
    files = [str(path) for path in sorted(folder.rglob("*.?"))]
    done = subprocess.run(["mandoc", "-T", "lint", *files], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
