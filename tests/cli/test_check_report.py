"""Tests of ``paraglider.cli.check_report``: the same findings as text and as data."""

from __future__ import annotations

from paraglider.cli.check_report import CheckedService, FileReport
from paraglider.config.diagnostics import ConfigError, Mark, PlacedProblem
from paraglider.errors import PlatformError

SERVICE = CheckedService({"service": "a", "forward": "nat", "weight": 3}, "is nat.", "rr picks.")
WARNING = PlacedProblem("f", Mark(2, 7), "`a`: wrong", "write b", ("services", 0, "a"))


def test_text() -> None:
    """What carries flows, the file, three lines a service; the chains that drop its packets."""
    report = FileReport("f", services=[SERVICE])
    summary = ["service=a forward=nat weight=3", "  nat: is nat.", "  rr picks."]
    assert list(report.lines()) == ["f: ok", *summary]
    report.carrier, report.chains = "bpf", ("ip filter FORWARD", "inet f fwd")
    assert list(report.lines()) == [
        "carrier: bpf",
        "f: ok, but this host drops it: chain ip filter FORWARD, inet f fwd",
        *summary,
    ]


def test_data() -> None:
    """Numbers are numbers; a warning without a place has null for it."""
    report = FileReport("f", [WARNING, "no BPF here", "no route; add one"], "worker", (), [SERVICE])
    unknown = dict.fromkeys(("file", "path", "line", "column"))
    assert report.data() == {
        "file": "f",
        "valid": True,
        "exit_code": 0,
        "errors": [],
        "warnings": [
            {
                "file": "f",
                "path": "services[0].a",
                "line": 2,
                "column": 7,
                "message": "`a`: wrong",
                "remedy": "write b",
            },
            {**unknown, "message": "no BPF here", "remedy": None},
            {**unknown, "message": "no route", "remedy": "add one"},
        ],
        "carrier": "worker",
        "services": [
            {
                "service": "a",
                "forward": "nat",
                "weight": 3,
                "about_forward": "is nat.",
                "about_strategy": "rr picks.",
            }
        ],
    }


def test_errors() -> None:
    """Each mistake of the file by itself, or what ended the check; the exit code of the command."""
    about_file = PlacedProblem("g", None, "there is no such file", "name one")
    found = FileReport("f").data(ConfigError([WARNING, about_file, "a line of a daemon"]))
    assert (found["valid"], found["exit_code"]) == (False, 1)
    assert [each["message"] for each in found["errors"]] == [
        "`a`: wrong",
        "there is no such file",
        "a line of a daemon",
    ]
    assert [each["line"] for each in found["errors"]] == [2, None, None]
    assert [each["path"] for each in found["errors"]] == ["services[0].a", None, None]
    refused = FileReport("").data(PlatformError("no netlink", "load it"))
    assert (refused["file"], refused["exit_code"]) == (None, 2)
    (error,) = refused["errors"]
    assert (error["message"], error["remedy"], error["file"]) == ("no netlink", "load it", None)
