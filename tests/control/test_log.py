"""The log: one line of key=value an event, and nothing below its level."""

from __future__ import annotations

import subprocess
import sys


def logged(*lines: str, debug: bool = False) -> list[str]:
    """What a process of its own writes to standard error for ``lines`` of Python."""
    script = "\n".join(("from paraglider.control import log", f"log.set_up({debug})", *lines))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_line_an_event() -> None:
    """Time, level and event come first, then the keys of the event and of its logger."""
    (line,) = logged("log.logger(worker=3).info('worker ready', core=5)")
    words = line.split(" ", 2)
    assert words[0].startswith("timestamp=20")
    assert words[0].endswith("Z")
    assert words[1] == "level=info"
    assert words[2].startswith('event="worker ready" ')
    assert set(words[2].removeprefix('event="worker ready" ').split()) == {"worker=3", "core=5"}


def test_debug_lines_only_with_debug() -> None:
    """Without ``-D`` the details stay out, with it they are there."""
    lines = ("log.logger().debug('detail')", "log.logger().warning('matter')")
    assert len(logged(*lines)) == 1
    assert len(logged(*lines, debug=True)) == 2


def test_an_event_stays_on_one_line() -> None:
    """A line break in a value, or a traceback, does not make two events of one."""
    (line,) = logged("log.logger().info('odd', value='two\\nlines \"quoted\"')")
    assert r"two\nlines \"quoted\"" in line
    (line,) = logged(
        "try:",
        "    1 / 0",
        "except ZeroDivisionError:",
        "    log.logger().exception('worker failed')",
    )
    assert "level=error" in line
    assert "ZeroDivisionError" in line


def test_a_logger_made_before_the_set_up() -> None:
    """Who asked for a logger early logs like the rest."""
    script = "\n".join(
        (
            "from paraglider.control import log",
            "early = log.logger(worker=1)",
            "log.set_up()",
            "early.info('hello')",
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "event=hello worker=1" in done.stderr
