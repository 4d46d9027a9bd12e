"""`paraglider set backend`: from the words of the command line to a request, and its answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

ANSWER = {"service": "web", "backend": "[fd00::1]:80", "state": "drain", "weight": 3}


def test_a_state_and_a_weight(daemon: Any, say: Any) -> None:
    """The path has the quoted name of the backend; the new state is printed."""
    path = "/v1/backends/web/%5Bfd00%3A%3A1%5D%3A80"
    daemon.answers[path] = (200, ANSWER)
    said = "web/[fd00::1]:80: state drain, weight 3\n"
    assert say("set", "backend", "web/[fd00::1]:80", "state", "drain") == (0, said, "")
    code, out, _ = say("set", "backend", "web/[fd00::1]:80", "weight", "3", "--json")
    assert (code, json.loads(out)) == (0, ANSWER)
    assert daemon.asked == [("POST", path, {"state": "drain"}), ("POST", path, {"weight": 3})]


def test_all_services(daemon: Any, say: Any) -> None:
    """`*` is sent as it is; each backend of the answer has its line."""
    rows = [ANSWER, {**ANSWER, "service": "mail", "backend": "fd00::1"}]
    daemon.answers["/v1/backends/%2A/fd00%3A%3A1"] = (200, {"backends": rows})
    code, out, err = say("set", "backend", "*/fd00::1", "state", "drain")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "web/[fd00::1]:80: state drain, weight 3",
        "mail/fd00::1: state drain, weight 3",
    ]
    assert [body for _, _, body in daemon.asked] == [{"state": "drain"}]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("web", "state", "drain"), "'web' is not SERVICE/BACKEND; for example web/10.0.0.1"),
        (("web/", "state", "drain"), "'web/' is not SERVICE/BACKEND"),
        (("web/10.0.0.1", "weight", "-1"), "No such option"),
        (("web/10.0.0.1", "weight", "heavy"), "weight 'heavy' is not a number; give 0 or more"),
        (("web/10.0.0.1", "colour", "red"), "'colour' is not one of"),
        (("web/10.0.0.1", "wait", "3"), "'wait' is not one of 'state', 'weight'. Did you mean 'w"),
    ],
)
def test_mistakes_are_reported_without_a_request(
    daemon: Any, say: Any, words: tuple[str, ...], error: str
) -> None:
    """One line, exit code 1, and no request."""
    code, out, err = say("set", "backend", *words)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert error in err
    assert daemon.asked == []
