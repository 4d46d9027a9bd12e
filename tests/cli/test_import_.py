"""Tests of ``paraglider.cli.import_``: stdout, stderr, and the exit codes."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from paraglider.cli.errors import run_command
from paraglider.cli.main import main
from paraglider.config.load import load

SAMPLES = Path(__file__).parents[1] / "config" / "importers" / "samples"


def outcome(*arguments: str) -> Any:
    """The exit code of `paraglider` with ``arguments``."""
    with pytest.raises(SystemExit) as caught:
        run_command(main, "paraglider", arguments)
    return caught.value.code


def test_output_is_a_configuration_file(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """stdout is a valid file; settings without a counterpart are on stderr, with their line."""
    assert outcome("import", str(SAMPLES / "loaded.config")) == 0
    printed = capfd.readouterr()
    (tmp_path / "c").write_text(printed.out)
    assert [service.name for service in load(tmp_path / "c").services] == ["loaded"]
    assert printed.err.startswith(f"warning: {SAMPLES / 'loaded.config'}:12:9: `nfq_len` 1000000")
    assert len(printed.err.splitlines()) == printed.out.count("# line ")


def test_glider_given_to_check(capfd: pytest.CaptureFixture[str]) -> None:
    """A glider.yaml needs no import: -c takes it as it is."""
    assert outcome("check", "-c", str(SAMPLES / "glider.yaml")) == 0
    assert "service=frontend vip=166.1.101.2/32 protocol=tcp ports=4444" in capfd.readouterr().out


def test_mode_and_format_by_option(capfd: pytest.CaptureFixture[str]) -> None:
    """--from gives the format, --mode gives Convey's mode."""
    file = str(SAMPLES / "proxy.toml")
    assert outcome("import", "--from", "convey", "--mode", "dsr", file) == 0
    assert capfd.readouterr().out.count("return: direct") == 2
    assert outcome("import", "--from", "glider", file) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"{file}:")


def test_standard_input(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`ipvsadm-save -n | paraglider import -` works."""
    content = io.BytesIO((SAMPLES / "ipvsadm.save").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    assert outcome("import", "-") == 0
    printed = capfd.readouterr()
    assert "- name: tcp-192.0.2.10-80\n" in printed.out
    assert printed.err.startswith("warning: standard input:1:1: ")


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02\x01\xff", b"hello\n", b"frontend: &a [*a]"])
def test_refusal_prints_nothing(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, content: bytes
) -> None:
    """Garbage is one message on stderr with its place, nothing on stdout, exit 1."""
    file = tmp_path / "f"
    file.write_bytes(content)
    assert outcome("import", str(file)) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(f"{file}:1:")


def test_missing_file(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No file, no traceback."""
    assert outcome("import", str(tmp_path / "f")) == 1
    expected = f"{tmp_path / 'f'}: there is no such file; name the file to import\n"
    assert capfd.readouterr().err == expected
