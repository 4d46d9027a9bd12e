"""`paraglider top`: a live screen of the daemon's status, or one screen without a terminal."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import pytest

COUNTS = ("flows", "conns", "packets_in", "packets_out", "bytes_in", "bytes_out")


def status(each: int) -> dict[str, Any]:
    """An answer in which everything has counted ``each``."""
    counts = dict.fromkeys(COUNTS, each)
    service = {"service": "web", "vip": "192.168.0.11", "protocol": "tcp", "ports": "80"}
    service |= {"forward": "nat", "strategy": "rr", "backends": 1, "ready": 1}
    backend = {"service": "web", "backend": "10.0.0.1", "state": "ready", "seconds": 5.0}
    backend |= {"weight": 1, "check": None}
    worker = {"name": "worker 0 on core 0", "up": True, "pid": 5, "seconds": 5.0}
    worker |= {"flows": each, "bound": 1000, "packets": each, "busy": 0.5, "queue": None}
    return {
        "services": [service | counts],
        "backends": [backend | counts],
        "workers": [worker],
        "health": {"healthy": True, "problems": []},
    }


@pytest.fixture
def live(daemon: Any, in_terminal: Any) -> Any:
    """`paraglider top` in a terminal, as soon as there is a frame."""
    daemon.answers["/v1/status"] = (200, status(4711))
    program = [sys.executable, "-m", "paraglider", "-c", daemon.file]
    screen = in_terminal([*program, "top", "--interval", "0.1"])
    screen.until(lambda: len(screen.lines) == 24 and "q quit" in screen.lines[-1])
    return screen


def assert_restored(screen: Any) -> None:
    """The terminal is as it was before."""
    assert screen.settings == screen.settings_before
    assert (screen.taken, screen.cursor) == (False, True)


def test_the_screen_is_updated(live: Any, daemon: Any) -> None:
    """The screen has the daemon's status, and later its next one; q exits and restores the
    terminal.
    """
    live.until(lambda: any(line.startswith("  -> 10.0.0.1") for line in live.lines))
    live.until(lambda: any(" 4711 " in line for line in live.lines))
    daemon.answers["/v1/status"] = (200, status(5000))
    live.until(lambda: any(" 5000 " in line for line in live.lines))
    live.press("c")
    live.until(lambda: "by conns" in live.lines[-1])
    live.press("q")
    assert live.end() == 0
    assert_restored(live)


def test_it_follows_the_window(live: Any) -> None:
    """A frame is as large as the terminal is now."""
    live.resize(100, 12)
    live.until(lambda: len(live.lines) == 12 and {len(line) for line in live.lines} == {100})
    live.resize(5, 3)
    live.until(lambda: [len(line) for line in live.lines] == [5, 5, 5])
    live.press("q")
    assert live.end() == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP), (signal.SIGINT, 130)],
)
def test_a_signal_leaves_the_terminal_as_it_was(live: Any, number: int, code: int) -> None:
    """The program ends by that signal."""
    live.process.send_signal(number)
    assert live.end() == code
    assert_restored(live)


def test_it_can_be_put_aside(live: Any) -> None:
    """While it is stopped the terminal belongs to the shell; afterwards it continues."""
    live.process.send_signal(signal.SIGTSTP)
    live.until(lambda: not live.taken)
    live.until(lambda: live.settings == live.settings_before)
    # It stops after it has given the terminal back, and what goes on before it stops is lost.
    stopped = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
    live.until(lambda: os.waitid(os.P_PID, live.process.pid, stopped))
    live.process.send_signal(signal.SIGCONT)
    live.until(lambda: live.taken)
    live.press("q")
    assert live.end() == 0
    assert_restored(live)


def test_a_daemon_that_goes_away_and_comes_back(live: Any, daemon: Any) -> None:
    """The last frame stays with the reason below, until there is an answer again."""
    daemon.answers["/v1/status"] = (
        503,
        {"error": "the supervisor does not answer", "remedy": "wait"},
    )
    live.until(lambda: "the supervisor does not answer; wait; retrying" in live.lines[-1])
    assert any("10.0.0.1" in line for line in live.lines)
    daemon.answers["/v1/status"] = (200, status(5000))
    live.until(lambda: "q quit" in live.lines[-1])


def test_without_a_terminal_there_is_one_frame(daemon: Any, say: Any) -> None:
    """It prints one screen with a note; with --once without the note."""
    daemon.answers["/v1/status"] = (200, status(4711))
    code, out, err = say("top", "--interval", "0.1")
    assert (code, err) == (0, "standard output is not a terminal: printing one screen (--once)\n")
    assert "-> 10.0.0.1" in out
    assert "worker 0 on core 0" in out
    assert "\x1b" not in out
    assert say("top", "--once", "--interval", "0.1") == (0, out, "")


def test_json_has_the_rates(daemon: Any, say: Any) -> None:
    """The daemon's answer, with rates."""
    daemon.answers["/v1/status"] = (200, status(4711))
    code, out, err = say("top", "--json", "--interval", "0.1")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)["backends"]
    assert row["conns"] == 4711
    assert row["rates"]["conns"] == 0.0


def test_no_daemon_takes_no_screen(in_terminal: Any, tmp_path: Any) -> None:
    """A mistake is one line, as everywhere."""
    file = tmp_path / "paraglider.conf"
    file.write_text("control: {socket: /run/no-such.sock}\n")
    screen = in_terminal([sys.executable, "-m", "paraglider", "-c", str(file), "top"])
    assert screen.end() == 1
    assert screen.said.startswith("paraglider: no paraglider answers at /run/no-such.sock")
    assert_restored(screen)
