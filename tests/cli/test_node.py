"""`paraglider node`: its requests, its output, and how it waits until no packets come."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from paraglider.cli.node import SILENCE, await_silence, packets

DRAINED = {"state": "drain", "since": "2026-01-01T00:00:00+00:00", "seconds": 63.0, "kept": True}
READY = {**DRAINED, "state": "ready"}
UNTIL_READY = "draining for 1m3s, not to be announced until `paraglider node ready`\n"
UNTIL_RESTART = "draining for 1m3s, not to be announced until the daemon's next start\n"


def row(packets_in: int | None, bytes_in: int | None = None, conns: int | None = 0) -> Any:
    """A service as far as it matters."""
    return {"packets_in": packets_in, "bytes_in": bytes_in, "conns": conns}


def test_what_is_asked_for_and_said(daemon: Any, say: Any) -> None:
    """To look changes nothing; the answer is the state."""
    for answer, words, line in (
        (DRAINED, ("show",), UNTIL_READY),
        (READY, ("ready",), "ready\n"),
        (DRAINED, ("drain",), UNTIL_READY),
        ({**DRAINED, "kept": False}, ("drain", "--until-restart"), UNTIL_RESTART),
        (
            {**READY, "kept": False},
            ("ready",),
            "ready until the daemon's next start, see its log\n",
        ),
    ):
        daemon.answers["/v1/node"] = (200, answer)
        assert say("node", *words) == (0, line, "")
        assert json.loads(say("node", *words, "--json")[1]) == answer
    asked = [(method, body) for method, path, body in daemon.asked[::2] if path == "/v1/node"]
    assert asked == [
        ("GET", None),
        ("POST", {"state": "ready"}),
        ("POST", {"state": "drain", "until_restart": False}),
        ("POST", {"state": "drain", "until_restart": True}),
        ("POST", {"state": "ready"}),
    ]


def test_waiting(daemon: Any, say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drained first; the wait ends with the packets, or with its time, and both are well."""
    daemon.answers["/v1/node"] = (200, DRAINED)
    daemon.answers["/v1/services"] = (200, [row(5)])
    monkeypatch.setattr("paraglider.cli.node.SILENCE", 0.0)
    assert say("node", "drain", "--wait", "60") == (
        0,
        f"{UNTIL_READY}no packets come any more\n",
        "",
    )
    assert [path for _, path, _ in daemon.asked[:2]] == ["/v1/node", "/v1/services"]
    monkeypatch.setattr("paraglider.cli.node.SILENCE", 3600.0)
    said = say("node", "drain", "--wait", "0.1")
    assert said == (0, f"{UNTIL_READY}packets may still come after 0.1 s\n", "")
    assert json.loads(say("node", "drain", "--wait", "0.1", "--json")[1]) == {
        **DRAINED,
        "silent": False,
    }


def test_a_daemon_that_cannot_answer_for_a_moment(daemon: Any, say: Any) -> None:
    """Ends no wait: whether packets come is not known meanwhile."""
    daemon.answers["/v1/node"] = (200, DRAINED)
    daemon.answers["/v1/services"] = (503, {"error": "the supervisor does not answer"})
    said = say("node", "drain", "--wait", "0.5")
    assert said == (0, f"{UNTIL_READY}packets may still come after 0.5 s\n", "")
    assert len(daemon.asked) > 2


def test_no_daemon(say: Any, tmp_path: Any) -> None:
    """The end of a unit whose daemon is gone has nothing to drain."""
    file = tmp_path / "other.conf"
    file.write_text("control: {socket: /run/no-such.sock}\n")
    code, out, err = say("node", "drain", "--wait", "60", "-c", str(file))
    assert (code, out) == (1, "")
    assert err.startswith("paraglider: no paraglider answers at /run/no-such.sock")


class Clock:
    """A clock that goes only while it is slept, and readings by time."""

    def __init__(self, reading: Callable[[float], int | None]) -> None:
        self.now = 0.0
        self._reading = reading

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def wait(self, seconds: float) -> tuple[bool, float]:
        """Whether it became silent, and when that was known."""
        found = await_silence(
            lambda: self._reading(self.now), seconds, lambda: self.now, self.sleep
        )
        return found, self.now


def test_silence_is_a_number_that_stays() -> None:
    """For SILENCE seconds, wherever they begin; a number that falls, of another worker, is news."""
    assert Clock(lambda _: 7).wait(60.0) == (True, SILENCE)
    assert Clock(lambda now: int(min(now, 5.0) * 4)).wait(60.0) == (True, 5.0 + SILENCE)
    assert Clock(lambda now: 9 if now < 1.0 else 3).wait(60.0) == (True, 1.0 + SILENCE)


def test_packets_that_go_on() -> None:
    """The wait is over at its end, and no later; none without time."""
    assert Clock(lambda now: int(now * 4)).wait(5.1) == (False, 5.1)
    assert Clock(lambda _: 7).wait(SILENCE / 2) == (False, SILENCE / 2)
    assert Clock(lambda _: 7).wait(0.0) == (False, 0.0)


def test_packets_that_are_not_counted() -> None:
    """Nothing is known of them, so they may come as long as the wait lasts."""
    assert Clock(lambda _: None).wait(9.0) == (False, 9.0)
    assert Clock(lambda now: None if now < 3.0 else 7).wait(9.0) == (True, 3.0 + SILENCE)


def test_what_is_counted() -> None:
    """Packets, the bytes of a proxy, connections; unknown for a service of which only those are."""
    assert packets([row(5, 100, 2), row(None, 50, 1), row(None, None, 0)]) == 158
    assert packets([row(None, None, None)]) == 0
    assert packets([row(5), row(None, None, 1)]) is None
