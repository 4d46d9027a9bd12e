"""The log: one line per event, on standard error or to syslog (structlog).

Lives here: ``set_up``, ``logger``, the formats (``STYLES``), and ``Repeats``, which suppresses
repeated lines.
Rules: state changes and errors, never packets or their content. Set up once per process, before
privileges are dropped: no file is opened later. Logging never blocks and never fails: lines that
cannot be written are lost, and the next line that can be written has their number.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import os
import socket
import sys
import syslog
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

from paraglider.errors import OperatorError
from paraglider.host.streams import FALLBACK, Outlet, Send, outlet_of

#: key=value · JSON · to syslog, facility daemon, as key=value · JSON under systemd, else text
STYLES: Final = ("auto", "text", "json", "syslog")

#: lines of one event about one object in PERIOD seconds; further ones are only counted
BURST: Final = 10
PERIOD: Final = 60.0
#: most distinct objects that are counted; with more, counting starts over
_MOST: Final = 4096
_SYSLOG: Final = "/dev/log"
_LOST: Final = "lines of the log were lost"
#: the fields that identify an object
_THING: Final = ("role", "worker", "service", "backend", "vip")

_PRIORITIES: Final = {
    "debug": syslog.LOG_DEBUG,
    "info": syslog.LOG_INFO,
    "warning": syslog.LOG_WARNING,
    "error": syslog.LOG_ERR,
    "critical": syslog.LOG_CRIT,
}

Event = MutableMapping[str, Any]


def set_up(debug: bool = False, style: str = "auto") -> None:
    """Log from level info on, with ``debug`` from debug on; ``style`` is one of ``STYLES``.

    From then on ``sys.stderr`` never blocks either. Raises ``OperatorError`` if there is no syslog
    daemon.
    """
    processors: list[Any] = [Repeats(), structlog.processors.add_log_level]
    journal = style == "auto" and _is_journal(sys.stderr)
    encoding = "utf-8" if journal else sys.stderr.encoding
    outlet = outlet_of(sys.stderr.fileno())
    sys.stderr = io.TextIOWrapper(outlet, encoding, FALLBACK, write_through=True)
    lines = _Lines(outlet, encoding)
    if style == "syslog":  # which adds the time itself
        lines = _Syslog(Outlet(_syslog()))
    else:
        processors.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    processors.append(structlog.processors.format_exc_info)
    if style == "json" or journal:
        processors.append(structlog.processors.JSONRenderer(ensure_ascii="utf" not in encoding))
    else:
        order = ["timestamp", "level", "event"]
        processors.append(
            structlog.processors.LogfmtRenderer(
                key_order=order, drop_missing=True, bool_as_flag=False
            )
        )
    if journal:
        processors.append(_with_priority)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if debug else logging.INFO
        ),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )


def logger(**context: Any) -> Any:
    """A logger whose every line carries ``context``."""
    return structlog.get_logger(**context)


@dataclass(slots=True)
class _Burst:
    until: float
    lines: int = 0


class Repeats:
    """A processor that lets BURST lines of one event about one object pass in PERIOD seconds.

    The last of them has the seconds without further lines (``quiet_for``), the next one after that
    the number of suppressed lines (``held_back``). Debug lines all pass, and so do lines about lost
    lines, which are retried until one is written. ``now`` is a clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counts: dict[tuple[object, ...], _Burst] = {}

    def __call__(self, _logger: object, method: str, event: Event) -> Event:
        """Let the line pass, or raise ``structlog.DropEvent``."""
        if method == "debug" or event.get("event") == _LOST:
            return event
        key = (event.get("event"), *(event.get(name) for name in _THING))
        now = self._now()
        count = self._counts.get(key)
        if count is None or now >= count.until:
            if count is None and len(self._counts) >= _MOST:
                self._counts.clear()
            if count is not None and count.lines > BURST:
                event["held_back"] = count.lines - BURST
            count = self._counts[key] = _Burst(now + PERIOD)
        count.lines += 1
        if count.lines > BURST:
            raise structlog.DropEvent
        if count.lines == BURST:
            event["quiet_for"] = math.ceil(count.until - now)
        return event


def _is_journal(stream: TextIO) -> bool:
    """Whether ``stream`` leads into systemd's journal (systemd.exec(5), JOURNAL_STREAM)."""
    named = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


def _with_priority(_logger: object, method: str, line: str) -> str:
    """The finished line, prefixed with its level for the journal (sd-daemon(3))."""
    return f"<{_PRIORITIES[method]}>{line}"


def _syslog() -> Send:
    """Sends to syslog. Connects now, since processes in a chroot see no /dev/log; after a restart
    of syslog, processes that see it connect again.
    """
    if not Path(_SYSLOG).exists():
        raise OperatorError(
            f"there is no syslog here: {_SYSLOG} is missing",
            "install one (rsyslog, systemd-journald), or leave `--log syslog` out",
        )
    time.tzset()  # processes in a chroot see no time zones either
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    end.setblocking(False)

    def send(data: bytes) -> int:
        try:
            return end.send(data)
        except BlockingIOError:
            raise
        except OSError:
            end.connect(_SYSLOG)
            return end.send(data)

    with contextlib.suppress(OSError):
        end.connect(_SYSLOG)
    return send


class _Lines:
    """A logger that passes finished lines to ``outlet``; each level is a method."""

    def __init__(self, outlet: Outlet, encoding: str) -> None:
        self._outlet = outlet
        self._encoding = encoding
        self._telling = False
        self._told = False

    def __getattr__(self, method: str) -> Callable[[str], None]:
        if method not in _PRIORITIES:
            raise AttributeError(method)
        return functools.partial(self._write, method)

    def _write(self, method: str, line: str) -> None:
        """Write ``line``, and ahead of it how many were lost."""
        outlet = self._outlet
        if self._telling:  # in the middle of the call below
            before = outlet.lost
            self._told = outlet.put(self._form(method, line))
            outlet.lost = before  # this line itself need not be counted
            return
        lost = outlet.lost
        if lost:
            self._telling, self._told = True, False
            try:
                logger().warning(_LOST, lines=lost)
            finally:
                self._telling = False
            if self._told:
                outlet.lost -= lost
        outlet.put(self._form(method, line))

    def _form(self, _method: str, line: str) -> bytes:
        return f"{line}\n".encode(self._encoding, FALLBACK)


class _Syslog(_Lines):
    """A logger that sends finished lines to syslog, formatted by RFC 3164, section 4.1."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(outlet, "utf-8")

    def _form(self, method: str, line: str) -> bytes:
        priority = syslog.LOG_DAEMON | _PRIORITIES[method]
        at = time.strftime("%b %e %H:%M:%S")
        return f"<{priority}>{at} paraglider[{os.getpid()}]: {line}".encode(errors=FALLBACK)
