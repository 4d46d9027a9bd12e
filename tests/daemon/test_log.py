"""The log: one line per event in the configured style, filtered by level, repetitions bounded."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from waiting import TIMEOUT

from paraglider.daemon import log
from paraglider.errors import OperatorError
from paraglider.host.streams import Outlet

#: makes its first argument /dev/log, and runs the rest
MOUNTED = """
mount --make-rprivate / && mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 &&
ln -s "$1" /dev/log && shift && exec "$@"
"""


def logged(*lines: str, debug: bool = False, style: str = "text") -> list[str]:
    """The standard error of a process that runs ``lines`` of Python."""
    begin = ("from paraglider.daemon import log", f"log.set_up({debug}, {style!r})")
    script = "\n".join((*begin, *lines))
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
    """Without ``-D`` there are no debug lines."""
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
    """A logger created before the set-up logs like all others."""
    script = "\n".join(
        (
            "from paraglider.daemon import log",
            "early = log.logger(worker=1)",
            "log.set_up()",
            "early.info('hello')",
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "event=hello worker=1" in done.stderr


def test_json_on_request() -> None:
    """With ``json`` each line is an object, for any values."""
    (line,) = logged("log.logger(worker=3).error('odd', cause=OSError('why'))", style="json")
    told = json.loads(line)
    assert told.pop("timestamp").startswith("20")
    assert told == {"level": "error", "event": "odd", "worker": 3, "cause": "OSError('why')"}


def test_json_with_the_level_in_the_journal(tmp_path: Path) -> None:
    """If standard error is systemd's journal, lines are JSON after the level's number."""
    journal = tmp_path / "journal"
    lines = (
        "from paraglider.daemon import log",
        "log.set_up()",
        "log.logger().warning('look')",
        "try:",
        "    1 / 0",
        "except ZeroDivisionError:",
        "    log.logger().exception('worker failed')",
    )
    with journal.open("wb") as stream:
        status = os.fstat(stream.fileno())
        subprocess.run(
            [sys.executable, "-c", "\n".join(lines)],
            stderr=stream,
            env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            check=True,
            timeout=TIMEOUT,
        )
    warning, error = journal.read_text().splitlines()
    assert (warning[:3], error[:3]) == ("<4>", "<3>")
    assert json.loads(warning[3:])["event"] == "look"
    assert "ZeroDivisionError" in json.loads(error[3:])["exception"]


def test_another_journal_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in a service has JOURNAL_STREAM too; where standard error goes elsewhere, text."""
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    (line,) = logged("log.logger().info('hello')", style="auto")
    assert line.endswith("level=info event=hello")


@pytest.mark.root
def test_syslog_on_request(tmp_path: Path) -> None:
    """With ``syslog`` lines go to /dev/log with facility daemon, also from a chroot."""
    place = tmp_path / "log"
    script = (
        "import os; from paraglider.daemon import log",
        f"log._SYSLOG = {str(place)!r}",
        "log.set_up(style='syslog')",
        "early = log.logger()",
        f"os.chroot({str(tmp_path)!r}) if os.fork() == 0 else os.wait()",
        "early.error('out', service='web')",
    )
    program = [sys.executable, "-c", "\n".join(script)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(place))
        listening.settimeout(TIMEOUT)
        # glibc knows /dev/log alone: a mount namespace of the script's own has ours there.
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", MOUNTED, "sh", str(place), *program],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        said = [listening.recv(4096).decode() for _ in range(2)]
    for line in said:
        assert line.startswith("<27>")  # daemon (3) · 8 + error (3)
        assert re.search(r"paraglider\[\d+\]: level=error event=out service=web", line)


def test_no_syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a listener an error says so."""
    monkeypatch.setattr(log, "_SYSLOG", str(tmp_path / "log"))
    with pytest.raises(OperatorError, match="there is no syslog here"):
        log.set_up(style="syslog")


def repeated(repeats: log.Repeats, method: str = "info", **event: object) -> dict[str, object]:
    """The line, or nothing if it was suppressed."""
    try:
        return dict(repeats(None, method, dict(event)))
    except structlog.DropEvent:
        return {}


def test_repeats_are_held_back_and_counted() -> None:
    """The burst passes, its last line announces the suppression, and the count is logged later."""
    now = 1000.0
    repeats = log.Repeats(lambda: now)
    lines = [repeated(repeats, event="gone", service="web") for _ in range(log.BURST + 5)]
    assert lines[: log.BURST - 1] == [{"event": "gone", "service": "web"}] * (log.BURST - 1)
    assert lines[log.BURST - 1]["quiet_for"] == log.PERIOD
    assert lines[log.BURST :] == [{}] * 5
    now += log.PERIOD
    assert repeated(repeats, event="gone", service="web")["held_back"] == 5
    now += log.PERIOD
    assert "held_back" not in repeated(repeats, event="gone", service="web")


def test_what_differs_is_no_repeat() -> None:
    """Two hundred backends that go down are two hundred lines, and debug lines all pass."""
    repeats = log.Repeats(lambda: 0.0)
    assert all(repeated(repeats, event="down", backend=f"10.0.0.{n}") for n in range(200))
    assert all(repeated(repeats, "debug", event="new flow") for _ in range(200))


def test_repeats_are_bounded() -> None:
    """The memory of repetitions is bounded."""
    repeats = log.Repeats(lambda: 0.0)
    assert all(repeated(repeats, event="down", backend=str(n)) for n in range(10_000))
    assert len(repeats._counts) <= log._MOST


def test_a_reader_that_is_slow() -> None:
    """Logging never waits: lines without room are dropped, and their number is logged before the
    next line. Other writers to standard error do not wait either.
    """
    script = """
import os, sys
from paraglider.daemon import log
log.set_up(style="text")
for number in range(5000):
    log.logger().info("turn", service=number)
sys.stderr.write("x" * 5000 + "\\n")
os.write(1, b"done\\n")
sys.stdin.readline()
log.logger().info("last")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "done\n"
    found = os.read(process.stderr.fileno(), 1 << 20).decode()
    process.stdin.write("\n")
    process.stdin.close()
    found += process.stderr.read()
    assert process.wait() == 0
    process.stdout.close()
    process.stderr.close()
    *lines, last = found.splitlines()
    turns = [line for line in lines if "event=turn" in line]
    told = [line for line in lines if 'level=warning event="lines of the log were lost"' in line]
    assert [line for line in lines if line not in turns + told and set(line) != {"x"}] == []
    assert lines[-1] in told
    # The long line may have been cut off and ended, or lost.
    assert sum(int(line.rpartition("lines=")[2]) for line in told) + len(turns) in (5000, 5001)
    assert "event=last" in last


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_disk_that_is_full(style: str) -> None:
    """A log that cannot be written ends nothing."""
    script = f"""
import sys
from paraglider.daemon import log
log.set_up(style={style!r})
log.logger().error("one")
sys.stderr.write("two\\n")
sys.stderr.flush()
"""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-c", script], stderr=full, stdout=full)
    assert done.returncode == 0


def test_a_syslog_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A syslog that does not read delays nothing; when it reads again it gets the lines."""
    place = tmp_path / "log"
    monkeypatch.setattr(log, "_SYSLOG", str(place))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(str(place))
        outlet = Outlet(log._syslog())
        while outlet.put(b"<27>words"):
            assert outlet.lost == 0
    place.unlink()
    assert not outlet.put(b"<27>nobody")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(str(place))
        assert outlet.put(b"<27>again")
        assert second.recv(100) == b"<27>again"
