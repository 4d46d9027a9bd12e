"""Whether code in a directory is root's alone, so that running it gives nobody root's rights.

Lives here: ``untrusted``.
Rules: as sshd judges keys and sudo judges plug-ins: every file, every directory that leads to
it, and what symbolic links point at. Looks and changes nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

ROOT = frozenset({0})
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def untrusted(directory: Path, owners: frozenset[int] = ROOT) -> tuple[str, str] | None:
    """What lets somebody beside ``owners`` (user ids) change the code in ``directory``.

    The finding and its remedy, of the first such place; None when there is none.
    """
    top = directory.resolve()
    seen: set[Path] = set()
    for place in _tree(top):
        for step in (place, *place.parents):
            if step in seen:
                break  # and so is all that leads to it
            seen.add(step)
            found = _finding(step, step is not place, owners)
            if found is not None:
                return found
    return None


def _tree(top: Path) -> Iterator[Path]:
    """``top`` and all that it holds, symbolic links followed, each place once."""
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
        return None  # a link to nothing: no code there
    if status.st_uid not in owners and status.st_uid != 0:
        return (
            f"{place} belongs to user {status.st_uid}, who could run code as root by it",
            f"sudo chown root {place}",
        )
    # In a directory such as /tmp nobody can replace what is root's.
    sticky = leads_there and status.st_mode & stat.S_ISVTX
    if status.st_mode & _OTHERS and not sticky:
        return (
            f"{place} may be written by others than root, who could run code as root by it",
            f"sudo chmod go-w {place}",
        )
    return None
