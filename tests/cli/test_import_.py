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


@pytest.mark.parametrize(
    "sample",
    [
        *("keepalived.conf", "haproxy.cfg", "nginx.conf"),
        *("iptables.save", "iptables.sh", "ipvsadm.list", "ipvsadm.sh"),
    ],
)
def test_files_of_other_balancers(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, sample: str
) -> None:
    """Each becomes a file that `check` accepts, with a warning for each comment of a line."""
    assert outcome("import", str(SAMPLES / sample)) == 0
    printed = capfd.readouterr()
    (tmp_path / "c").write_text(printed.out)
    assert load(tmp_path / "c").services
    assert outcome("check", "-c", str(tmp_path / "c")) == 0
    warnings = [line for line in printed.err.splitlines() if line.startswith("warning: ")]
    assert warnings == printed.err.splitlines()
    assert {line.split("; ")[0].split(": ", 2)[2] for line in warnings} == {
        line.split("; ")[0].split(": ", 1)[1]
        for line in printed.out.splitlines()
        if line.strip().startswith("# line ")
    }


def test_included_files(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """They are read beside the file, and named with their lines."""
    (tmp_path / "nginx.conf").write_text("stream {\n  include db.conf;\n  include gone.conf;\n}\n")
    (tmp_path / "db.conf").write_text(
        "server {\n  listen 192.0.2.1:3306;\n  proxy_pass 10.0.0.1:3306;\n  deny all;\n}\n"
    )
    assert outcome("import", str(tmp_path / "nginx.conf")) == 0
    printed = capfd.readouterr()
    missing, denied = printed.err.splitlines()
    assert missing.startswith(f"warning: {tmp_path / 'nginx.conf'}:3:3: no file is called ")
    assert denied.startswith(f"warning: {tmp_path / 'db.conf'}:4:3: `deny all` has no counterpart")
    assert f"# line 4 of '{tmp_path / 'db.conf'}'"[:60] in printed.out
    (tmp_path / "db.conf").write_text("include nginx.conf;\n")
    assert outcome("import", str(tmp_path / "nginx.conf")) == 1
    assert capfd.readouterr().err.startswith(f"{tmp_path / 'db.conf'}:1:1: ")


def test_warnings_come_with_a_mistake(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Why nothing is left to take over is said, too."""
    (tmp_path / "f").write_text("listen web\n  bind :80\n  mode http\n")
    assert outcome("import", str(tmp_path / "f")) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    warning, mistake = printed.err.splitlines()
    assert warning.startswith(f"warning: {tmp_path / 'f'}:1:1: `listen web` is `mode http`")
    assert mistake.startswith(f"{tmp_path / 'f'}:1:1: there is no frontend or listen in `mode tcp`")


@pytest.mark.parametrize(
    "name", ["ipvsadm", "keepalived", "haproxy", "nginx", "iptables", "loaded", "convey", "glider"]
)
def test_no_file_at_all(capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    """A directory, a binary and ten megabytes are one message each, whatever the format."""
    (tmp_path / "binary").write_bytes(b"\x7fELF\x02\x01\xff" * 99)
    (tmp_path / "large").write_bytes(b"x" * 10_000_001)
    (tmp_path / "line").write_bytes(b"x" * 9_999_999)
    for file in ("", "binary", "large", "line"):
        assert outcome("import", "--from", name, str(tmp_path / file)) == 1
        printed = capfd.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(str(tmp_path / file).rstrip("/"))
        assert len(printed.err) < 500
