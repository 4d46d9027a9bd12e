"""What the file may say and this version does not do yet: one table, one refusal.

Lives here: ``NOT_YET`` and ``unsupported``, with which the daemon and ``check`` refuse clearly.
Rules: a version that brings one of these deletes its line, and nothing else. Pure.
"""

from __future__ import annotations

import re

from paraglider.config.model import Config
from paraglider.config.problem import Path, Problem

STRATEGY_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)

# (key, value) → what to write instead.
NOT_YET: dict[tuple[str, str], str] = {}


def unsupported(config: Config) -> list[Problem]:
    """What ``config`` asks for and this version cannot do."""
    asked: list[tuple[Path, str]] = [(("queue", "io"), config.queue.io)]
    for index, service in enumerate(config.services):
        asked.append((("services", index, "forward"), service.forward))
    problems = [_refusal(path, value) for path, value in asked]
    return [problem for problem in problems if problem is not None]


def _refusal(path: Path, value: str) -> Problem | None:
    key = str(path[-1])
    remedy = NOT_YET.get((key, value))
    if remedy is None:
        return None
    return Problem(path, f"`{key}: {value}` is not in this version", remedy)
