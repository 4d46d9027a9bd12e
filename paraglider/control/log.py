"""The log: key=value lines on standard error, one an event (structlog).

Rules: state changes and faults, never a packet and never its content. Set up once a process,
before privileges go: nothing here reads a file later.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def set_up(debug: bool = False) -> None:
    """Log to standard error, from level debug on when ``debug``, else from info on."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", "event"], bool_as_flag=False
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if debug else logging.INFO
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def logger(**context: Any) -> Any:
    """A logger whose every line carries ``context``."""
    return structlog.get_logger(**context)
