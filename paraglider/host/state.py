"""The changes of a set-up in this network namespace, stored in a file for the undo.

Lives here: the file and its format, and the lock that serializes set-ups.
Rules: network namespaces share /run, so the file's name contains the namespace's cookie. A change
is stored before it is applied and removed after it is undone, so that an interrupted set-up can be
undone. The file is replaced atomically. During a run each step is appended as a line to a journal
beside the file, at a constant cost per step.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from paraglider.errors import OperatorError, PlatformError, as_root
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
TIMEOUT: Final = 5.0


class StateFile:
    """The stored changes of one network namespace, in the order in which they were applied.

    ``owner`` is the command that owns them; ``purpose`` separates the set-up of a balancer from
    that of a backend.
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
        self._begun = False  # whether this object has checked or started the journal

    def load(self) -> list[Change]:
        """The stored changes; empty if there is no file or it is of an earlier boot.

        Raises ``OperatorError`` when another owner stored them, or the file is not one of ours.
        """
        content = stored(self.path)
        if content is None:
            return []
        if content["owner"] != self.owner:
            raise OperatorError(
                f"this host is set up by `{content['owner']}`",
                f"undo that first: {as_root(UNDONE_BY[content['owner']])}",
            )
        try:
            changes = [from_record(record) for record in content["changes"]]
            return list(self._replayed(changes).values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(self.path, error) from error

    def store(self, changes: Iterable[Change]) -> None:
        """Replace the file and remove the journal; without changes, remove both.

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
        """Store ``change``; replaces one with the same identity."""
        self._append({"put": to_record(change)})

    def drop(self, change: Change) -> None:
        """Remove ``change`` from the state."""
        self._append({"drop": list(change.identity)})

    def _replayed(self, changes: Iterable[Change]) -> dict[tuple[str, ...], Change]:
        """``changes`` by identity, with the journal's entries applied."""
        found = {change.identity: change for change in changes}
        lines = self.journal.read_bytes().split(b"\n") if self.journal.exists() else [b""]
        for line in lines[:-1]:  # the last one is empty, or incomplete
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
                # A journal without its file, or of an earlier boot, is invalid.
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
                f"cannot store the state of the set-up in {self.path}: {error.strerror}",
                "nothing was changed, because it could not be undone",
            ) from error


@contextmanager
def setup_lock(directory: Path = RUN_DIRECTORY) -> Iterator[None]:
    """Hold the set-up lock of this network namespace; raises ``OperatorError`` when another process
    holds it, ``PlatformError`` when it cannot be created.
    """
    try:
        lock = LockFile(lock_path("lock", directory))
    except BlockingIOError:
        raise OperatorError(
            "another set-up of paraglider is running here", "wait until it has ended"
        ) from None
    with lock:
        yield


@contextmanager
def wait_for_setup_lock(timeout: float = TIMEOUT) -> Iterator[None]:
    """As ``setup_lock``, but waits up to ``timeout`` seconds: the daemon's reconciler may hold the
    lock for a repair.
    """
    until = time.monotonic() + timeout
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(setup_lock())
                break
            except OperatorError:
                if time.monotonic() >= until:
                    raise
            time.sleep(0.05)
        yield
