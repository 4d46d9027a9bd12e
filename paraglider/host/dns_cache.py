"""What the DNS answered last, in a file of /run: for a daemon that starts while nobody answers.

Lives here: the file, with its content as plain data; what the data means is
``daemon.controller.dns_cache``'s.
Rules: as for the state of the set-up: the name has the network namespace's cookie, a file of an
earlier boot counts for nothing, and it is replaced as a whole. It holds nothing that the next
answer does not bring again, so one that is damaged is nothing too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paraglider.host.ownership import RUN_DIRECTORY, boot_id, replace_file, state_path

VERSION = 1

Plain = dict[str, Any]


class AnswersFile:
    """The file of one network namespace, this one when ``cookie`` is None."""

    def __init__(self, directory: Path = RUN_DIRECTORY, cookie: int | None = None) -> None:
        self.path = state_path(directory, cookie, "answers")

    def load(self) -> list[Plain]:
        """What was stored last since the host was started."""
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
