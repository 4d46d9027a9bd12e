"""Tests of ``paraglider.daemon.web.csv_table``: the table that HAProxy's readers read."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from paraglider.daemon.web.csv_table import COLUMNS, table

COUNTS = {"flows": 4, "conns": 10, "bytes_in": 100, "bytes_out": None, "flows_per_second": 2.6}


def backend(state: str = "ready", check: Any = None, **changes: Any) -> dict[str, Any]:
    """A row of a backend."""
    row = {"service": "web", "backend": "10.0.0.1", "state": state, "weight": 3, "check": check}
    return {**row, "seconds": 12.7, "failed_checks": 5, "downs": 1, **COUNTS, **changes}


def lines(*backends: dict[str, Any], ready: int = 1) -> list[dict[str, str]]:
    """The table of a service with ``backends``."""
    service = {"service": "web", "ready": ready, **COUNTS}
    text = table({"services": [service], "backends": list(backends)})
    assert text.startswith("# pxname,svname,qcur,")
    assert all(line.endswith(",") for line in text.splitlines())
    return list(csv.DictReader(io.StringIO(text.removeprefix("# "))))


def test_lines() -> None:
    """A service is a FRONTEND, its backends and a BACKEND; unknown values are empty."""
    front, server, back = lines(backend())
    assert tuple(front)[:-1] == COLUMNS
    assert (front["svname"], front["status"], front["type"]) == ("FRONTEND", "OPEN", "0")
    assert (back["svname"], back["status"], back["type"]) == ("BACKEND", "UP", "1")
    assert (back["act"], back["weight"], back["lastchg"]) == ("1", "3", "12")
    assert (server["svname"], server["type"], server["sid"]) == ("10.0.0.1", "2", "1")
    for line in (front, server, back):
        assert (line["scur"], line["stot"], line["bin"], line["bout"]) == ("4", "10", "100", "")
        assert (line["rate"], line["qcur"]) == ("3", "")
    assert (server["chkfail"], server["chkdown"]) == ("5", "1")


@pytest.mark.parametrize(
    ("state", "check", "status", "act"),
    [
        ("ready", None, "no check", "1"),
        ("ready", {"passed": True, "code": "L7OK", "took": 0.0124}, "UP", "1"),
        ("down", {"passed": False, "code": "L4TOUT", "took": 1.0}, "DOWN", "0"),
        ("drain", None, "DRAIN", "0"),
        ("maint", None, "MAINT", "0"),
        ("drain-down", None, "DOWN", "0"),
    ],
)
def test_states(state: str, check: Any, status: str, act: str) -> None:
    """A state has the word that HAProxy has for it."""
    _, server, _ = lines(backend(state, check))
    assert (server["status"], server["act"]) == (status, act)
    expected = (
        ("", "") if check is None else ("L7OK", "12") if check["passed"] else ("L4TOUT", "1000")
    )
    assert (server["check_status"], server["check_duration"]) == expected


def test_names_are_quoted() -> None:
    """A name cannot add columns, and a service without a backend is down."""
    _, server, back = lines(backend(backend='a,"b'), ready=0)
    assert server["svname"] == 'a,"b'
    assert back["status"] == "DOWN"
