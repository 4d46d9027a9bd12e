"""The last DNS answers, in a file in /run, for a daemon that starts while DNS does not answer.

Lives here: the file, with its content as plain data; the daemon interprets the data.
Rules: as for the state of the set-up: the name contains the network namespace's cookie, a file of
an earlier boot is ignored, and the file is replaced atomically. A damaged file is ignored: the next
answer replaces it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paraglider.host.ownership import RUN_DIRECTORY, boot_id, replace_file, state_path

VERSION = 1

Plain = dict[str, Any]


class DnsCacheFile:
    """The file of one network namespace, this one when ``cookie`` is None."""

    def __init__(self, directory: Path = RUN_DIRECTORY, cookie: int | None = None) -> None:
        self.path = state_path(directory, cookie, "answers")

    def load(self) -> list[Plain]:
        """The stored answers; empty if there are none since the host was booted."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if (content["version"], content["boot"]) != (VERSION, boot_id()):
                return []
            return [answer for answer in content["answers"] if isinstance(answer, dict)]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def store(self, answers: Sequence[Plain]) -> None:
        """Replace the file; without answers, remove it. Raises ``OSError``."""
        if not answers:
            self.path.unlink(missing_ok=True)
            return
        content = {"version": VERSION, "boot": boot_id(), "answers": list(answers)}
        replace_file(self.path, json.dumps(content, indent=1))
