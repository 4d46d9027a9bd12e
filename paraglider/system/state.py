"""What a set-up changed in this network namespace, kept in a file so that it can be undone.

Lives here: the file and its format, and the lock that keeps two set-ups apart.
Rules: /run is shared by network namespaces, so the file's name has the namespace's cookie. A
change is stored before it is made: a set-up that dies half-way can still be undone. The file is
replaced as a whole, never written in place.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from paraglider.errors import OperatorError, PlatformError
from paraglider.system.changes.base import Change
from paraglider.system.changes.records import from_record, to_record
from paraglider.system.owner import (
    RUN_DIRECTORY,
    SET_UP,
    UNDONE_BY,
    VERSION,
    boot_id,
    damaged,
    replace_file,
    state_path,
    stored,
)

_LOCK = "\0paraglider-setup"


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
        self.owner = owner

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
            return [from_record(record) for record in content["changes"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(self.path, error) from error

    def store(self, changes: Iterable[Change]) -> None:
        """Replace the file; without changes, remove it.

        The directory stays: other namespaces and the daemon use it.
        """
        records = [to_record(change) for change in changes]
        try:
            if not records:
                self.path.unlink(missing_ok=True)
                return
            content = {
                "version": VERSION,
                "boot": boot_id(),
                "owner": self.owner,
                "changes": records,
            }
            replace_file(self.path, json.dumps(content, indent=1))
        except OSError as error:
            raise PlatformError(
                f"cannot keep the state of the set-up in {self.path}: {error.strerror}",
                "without it nothing could be undone, so nothing is changed",
            ) from error


@contextmanager
def only_one() -> Iterator[None]:
    """Hold the lock of this network namespace; raises ``OperatorError`` when another does."""
    # Abstract Unix sockets belong to a network namespace and vanish with their process.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        try:
            lock.bind(_LOCK)
        except OSError as error:
            raise OperatorError(
                "another set-up of paraglider is at work here", "wait until it has ended"
            ) from error
        yield
