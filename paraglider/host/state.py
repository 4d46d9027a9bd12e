"""What a set-up changed in this network namespace, kept in a file so that it can be undone.

Lives here: the file and its format, and the lock that keeps two set-ups apart.
Rules: /run is shared by network namespaces, so the file's name has the namespace's cookie. A
change is noted before it is made, and dropped when it is taken back: a set-up that dies half-way
can be undone, and what it never reached is not in it. The file is replaced as a whole, never
written in place; while steps are taken they go, a line each, into a journal beside it, which costs
the same however much is stored.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from paraglider.errors import OperatorError, PlatformError
from paraglider.host.changes.base import Change
from paraglider.host.changes.records import from_record, to_record
from paraglider.host.lock import LockFile
from paraglider.host.ownership import (
    RUN_DIRECTORY,
    SET_UP,
    UNDONE_BY,
    VERSION,
    boot_id,
    damaged,
    lock_path,
    replace_file,
    state_path,
    stored,
)

#: seconds that a set-up waits for another to end
PATIENCE: Final = 5.0


class StateFile:
    """The stored changes of one network namespace, in the order in which they were made.

    ``owner`` is who made them, or is to; ``purpose`` keeps those of the balancer's set-up apart
    from those of a backend's.
    """

    def __init__(
        self,
        directory: Path = RUN_DIRECTORY,
        cookie: int | None = None,
        owner: str = SET_UP,
        *,
        purpose: str = "setup",
    ) -> None:
        self.path = state_path(directory, cookie, purpose)
        self.journal = self.path.with_suffix(".journal")
        self.owner = owner
        self._begun = False  # whether this object has begun the journal, or goes on with it

    def load(self) -> list[Change]:
        """The stored changes; none where there is no file or it is of an earlier boot.

        Raises ``OperatorError`` when they are another owner's, or the file is not one of ours.
        """
        content = stored(self.path)
        if content is None:
            return []
        if content["owner"] != self.owner:
            raise OperatorError(
                f"this host is set up by `{content['owner']}`",
                f"undo that first: sudo {UNDONE_BY[content['owner']]}",
            )
        try:
            changes = [from_record(record) for record in content["changes"]]
            return list(self._replayed(changes).values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(self.path, error) from error

    def store(self, changes: Iterable[Change]) -> None:
        """Replace the file, and end the journal; without changes, remove both.

        The directory stays: other namespaces and the daemon use it.
        """
        records = [to_record(change) for change in changes]
        with self._kept():
            if records:
                self._replace(records)
            else:
                self.path.unlink(missing_ok=True)
            self.journal.unlink(missing_ok=True)
            self._begun = False

    def note(self, change: Change) -> None:
        """Store ``change``, in place of one of the same identity."""
        self._append({"put": to_record(change)})

    def drop(self, change: Change) -> None:
        """Store ``change`` no longer."""
        self._append({"drop": list(change.identity)})

    def _replayed(self, changes: Iterable[Change]) -> dict[tuple[str, ...], Change]:
        """``changes`` by identity, after what the journal has."""
        found = {change.identity: change for change in changes}
        lines = self.journal.read_bytes().split(b"\n") if self.journal.exists() else [b""]
        for line in lines[:-1]:  # behind the last line's end is nothing, or a line torn off
            entry = json.loads(line)
            if "put" in entry:
                change = from_record(entry["put"])
                found[change.identity] = change
            else:
                found.pop(tuple(entry["drop"]), None)
        return found

    def _append(self, entry: dict[str, Any]) -> None:
        with self._kept():
            if not self._begun and stored(self.path) is None:
                # A journal without its file, or of an earlier boot, is of nothing.
                self.journal.unlink(missing_ok=True)
                self._replace([])
            self._begun = True
            handle = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(handle, "ab") as file:
                file.write(json.dumps(entry).encode() + b"\n")

    def _replace(self, records: list[dict[str, Any]]) -> None:
        content = {"version": VERSION, "boot": boot_id(), "owner": self.owner, "changes": records}
        replace_file(self.path, json.dumps(content, indent=1))

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PlatformError(
                f"cannot keep the state of the set-up in {self.path}: {error.strerror}",
                "without it nothing could be undone, so nothing is changed",
            ) from error


@contextmanager
def only_one(directory: Path = RUN_DIRECTORY) -> Iterator[None]:
    """Hold the lock of this network namespace; raises ``OperatorError`` when another does,
    ``PlatformError`` when there can be none.
    """
    try:
        lock = LockFile(lock_path("lock", directory))
    except BlockingIOError:
        raise OperatorError(
            "another set-up of paraglider is at work here", "wait until it has ended"
        ) from None
    with lock:
        yield


@contextmanager
def in_turn(patience: float = PATIENCE) -> Iterator[None]:
    """As ``only_one``, but another has ``patience`` seconds to end: the daemon's reconciler may be
    putting something back.
    """
    until = time.monotonic() + patience
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(only_one())
                break
            except OperatorError:
                if time.monotonic() >= until:
                    raise
            time.sleep(0.05)
        yield
