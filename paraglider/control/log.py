"""The log: one line an event, on standard error or to syslog (structlog).

Lives here: ``set_up``, ``logger``, the ways of writing (``STYLES``), and ``Repeats``, which holds
back what is said over and over.
Rules: state changes and faults, never a packet and never its content. Set up once a process,
before privileges go: nothing here opens a file later.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
import syslog
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

from paraglider.errors import OperatorError

#: key=value · JSON · to syslog, facility daemon, as key=value · JSON under systemd, else text
STYLES: Final = ("auto", "text", "json", "syslog")

#: lines of one event about one thing in PERIOD seconds; then only their number is told
BURST: Final = 10
PERIOD: Final = 60.0
#: things that are told apart; when there are more, the count begins anew
_MOST: Final = 4096
_SYSLOG: Final = "/dev/log"
#: what tells one thing from another
_THING: Final = ("role", "worker", "service", "backend")

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

    Raises ``OperatorError`` where nobody takes what goes to syslog.
    """
    processors: list[Any] = [Repeats(), structlog.processors.add_log_level]
    factory: Callable[..., Any] = structlog.WriteLoggerFactory(file=sys.stderr)
    journal = style == "auto" and _is_journal(sys.stderr)
    if style == "syslog":  # which tells the time itself
        _open_syslog()
        factory = _Syslog
    else:
        processors.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    processors.append(structlog.processors.format_exc_info)
    if style == "json" or journal:
        processors.append(structlog.processors.JSONRenderer(ensure_ascii=False))
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
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )


def logger(**context: Any) -> Any:
    """A logger whose every line carries ``context``."""
    return structlog.get_logger(**context)


@dataclass(slots=True)
class _Count:
    until: float
    lines: int = 0


class Repeats:
    """A processor that lets BURST lines of one event about one thing pass in PERIOD seconds.

    The last of them tells for how many seconds there are no more (``quiet_for``), the first one
    afterwards how many there were (``held_back``). Debug lines, which somebody asked for, all
    pass. ``now`` is a clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counts: dict[tuple[object, ...], _Count] = {}

    def __call__(self, _logger: object, method: str, event: Event) -> Event:
        """Let the line pass, or raise ``structlog.DropEvent``."""
        if method == "debug":
            return event
        key = (event.get("event"), *(event.get(name) for name in _THING))
        now = self._now()
        count = self._counts.get(key)
        if count is None or now >= count.until:
            if count is None and len(self._counts) >= _MOST:
                self._counts.clear()
            if count is not None and count.lines > BURST:
                event["held_back"] = count.lines - BURST
            count = self._counts[key] = _Count(now + PERIOD)
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
    """The finished line with its level in front, as the journal takes it (sd-daemon(3))."""
    return f"<{_PRIORITIES[method]}>{line}"


def _open_syslog() -> None:
    """Connect now, since later processes see no /dev/log."""
    if not Path(_SYSLOG).exists():
        raise OperatorError(
            f"there is no syslog here: {_SYSLOG} is missing",
            "install one (rsyslog, systemd-journald), or leave `--log syslog` out",
        )
    syslog.openlog("paraglider", syslog.LOG_PID | syslog.LOG_NDELAY, syslog.LOG_DAEMON)


class _Syslog:
    """A logger that gives finished lines to syslog; each level is a method."""

    def __init__(self, *_: object) -> None:
        return

    def __getattr__(self, method: str) -> Callable[[str], None]:
        if method not in _PRIORITIES:
            raise AttributeError(method)
        return functools.partial(syslog.syslog, _PRIORITIES[method])
