"""Whether this balancer was drained by the operator, in a file in /run, for the next daemon.

Lives here: ``NodeFile``.
Rules: as for the state of the set-up: the name contains the network namespace's cookie, a file of
an earlier boot is ignored, and the file is replaced atomically. There is a file only while the
balancer is drained. A damaged file is ignored: a balancer that nobody drained must be announced.
"""

from __future__ import annotations

import json
from pathlib import Path

from paraglider.host.ownership import RUN_DIRECTORY, boot_id, replace_file, state_path

VERSION = 1
_LATEST = 1 << 35  # seconds since the epoch: no clock says so


class NodeFile:
    """The file of one network namespace, this one when ``cookie`` is None."""

    def __init__(self, directory: Path = RUN_DIRECTORY, cookie: int | None = None) -> None:
        self.path = state_path(directory, cookie, "node")

    def load(self) -> float | None:
        """Since when the balancer is drained, in seconds since the epoch; None if it is not."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if (content["version"], content["boot"]) != (VERSION, boot_id()):
                return None
            since = float(content["drained_since"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return None
        return since if 0 <= since < _LATEST else None

    def store(self, drained_since: float | None) -> None:
        """Replace the file; remove it if the balancer is not drained. Raises ``OSError``."""
        if drained_since is None:
            self.path.unlink(missing_ok=True)
            return
        content = {"version": VERSION, "boot": boot_id(), "drained_since": drained_since}
        replace_file(self.path, json.dumps(content))
