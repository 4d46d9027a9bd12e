"""The common part of the commands that query a daemon: its socket, and the output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paraglider.cli.common_options import control_client, print_json, print_table
from paraglider.cli.main import Options
from paraglider.errors import OperatorError


def options(config: str | None = None) -> Options:
    """The options of a command line."""
    return Options(config, frozenset({4, 6}), failover=False)


def test_the_file_leads_to_the_daemon(tmp_path: Path, nobody_at_the_default_socket: str) -> None:
    """A subcommand's own -c is before that of the command; without a socket it is the default."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("control: {socket: /run/first.sock}\n")
    second.write_text("services: []\n")
    assert control_client(options(str(first))).path == "/run/first.sock"
    assert control_client(options(str(first)), str(second)).path == nobody_at_the_default_socket
    assert control_client(options(str(second)), str(first)).path == "/run/first.sock"


def test_no_file_at_all_is_the_default(
    monkeypatch: pytest.MonkeyPatch, nobody_at_the_default_socket: str
) -> None:
    """Without a file the default socket is used."""

    def none(_path: object) -> Path:
        raise OperatorError("there is no file")

    monkeypatch.setattr("paraglider.cli.common_options.find_config", none)
    assert control_client(options()).path == nobody_at_the_default_socket


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A mistyped name does not lead to another daemon."""
    with pytest.raises(OperatorError, match=r"typo\.conf cannot be read: No such file"):
        control_client(options(str(tmp_path / "typo.conf")))


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """The output equals the answer, with names as they are."""
    answer: Any = {"name": "münchen", "list": [1, None]}
    print_json(answer)
    said = capsys.readouterr().out
    assert json.loads(said) == answer
    assert "münchen" in said


def test_paper_is_wide(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal lines are not cut, unless COLUMNS is set."""
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table("x" * 150 + " [b]")
    assert capsys.readouterr().out == "x" * 150 + " [b]\n"
    monkeypatch.setenv("COLUMNS", "40")
    print_table("x" * 50)
    assert len(capsys.readouterr().out.splitlines()) == 2
