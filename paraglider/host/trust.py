"""Checks that only root can change the code in a directory, before root imports it.

Lives here: ``untrusted``.
Rules: as sshd does with keys and sudo with plug-ins, checks every file, all its parent directories
and the targets of symbolic links. Changes nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from paraglider.errors import as_root

ROOT = frozenset({0})
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def untrusted(directory: Path, owners: frozenset[int] = ROOT) -> tuple[str, str] | None:
    """The first file or directory that lets users other than ``owners`` (user ids) change the code
    in ``directory``, as a message and its remedy; None if there is none.
    """
    top = directory.resolve()
    seen: set[Path] = set()
    for place in _tree(top):
        for step in (place, *place.parents):
            if step in seen:
                break  # its parents have been checked too
            seen.add(step)
            found = _finding(step, step is not place, owners)
            if found is not None:
                return found
    return None


def _tree(top: Path) -> Iterator[Path]:
    """``top`` and everything below it, each once, following symbolic links."""
    pending, met = [top], {top}
    while pending:
        place = pending.pop()
        yield place
        if place.is_dir():
            inside = {entry.resolve() for entry in place.iterdir()} - met
            met |= inside
            pending += sorted(inside)


def _finding(place: Path, leads_there: bool, owners: frozenset[int]) -> tuple[str, str] | None:
    try:
        status = place.stat()
    except FileNotFoundError:
        return None  # a dangling link: no code
    if status.st_uid not in owners and status.st_uid != 0:
        return (
            f"{place} belongs to user {status.st_uid}, who could run code as root by it",
            as_root(f"chown root {place}"),
        )
    # In a directory such as /tmp others cannot replace root's files.
    sticky = leads_there and status.st_mode & stat.S_ISVTX
    if status.st_mode & _OTHERS and not sticky:
        return (
            f"{place} may be written by others than root, who could run code as root by it",
            as_root(f"chmod go-w {place}"),
        )
    return None
