"""`paraglider reload`: the daemon's answer as text and as JSON."""

from __future__ import annotations

import json
from typing import Any


def test_what_changed_is_printed(daemon: Any, say: Any) -> None:
    """A line for each thing, and for each that takes a restart."""
    answer = {"changed": ["service web: strategy rr → wrr"], "restart": ["user takes a restart"]}
    daemon.answers["/v1/reload"] = (200, answer)
    said = "service web: strategy rr → wrr\nnot changed: user takes a restart\n"
    assert say("reload") == (0, said, "")
    code, out, _ = say("reload", "--json")
    assert (code, json.loads(out)) == (0, answer)
    assert daemon.asked == [("POST", "/v1/reload", {})] * 2


def test_nothing_changed(daemon: Any, say: Any) -> None:
    """The output says so."""
    daemon.answers["/v1/reload"] = (200, {"changed": [], "restart": []})
    assert say("reload") == (0, "no changes\n", "")


def test_mistakes_of_the_file_are_reported_as_by_check(daemon: Any, say: Any) -> None:
    """One line each, with its place, and exit code 1."""
    lines = ["/etc/p.conf:1:2: no; yes", "/etc/p.conf:3:4: no; yes"]
    refusal = {"error": "\n".join(lines), "remedy": "", "lines": lines}
    daemon.answers["/v1/reload"] = (400, refusal)
    assert say("reload") == (1, "", "/etc/p.conf:1:2: no; yes\n/etc/p.conf:3:4: no; yes\n")


def test_flows_may_end(daemon: Any, say: Any) -> None:
    """Only with --force."""
    daemon.answers["/v1/reload"] = (200, {"changed": [], "restart": []})
    say("reload", "--force")
    assert daemon.asked == [("POST", "/v1/reload", {"force": True})]
