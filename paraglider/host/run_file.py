"""A small file in /run that the next daemon reads.

Lives here: ``RunFile``.
Rules: as for the state of the set-up: the name contains the network namespace's cookie, a file of
an earlier boot is ignored, and the file is replaced atomically. A damaged file is ignored too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paraglider.host.ownership import boot_id, replace_file, state_path


class RunFile:
    """The file for ``purpose`` of one network namespace, this one when ``cookie`` is None.
    ``version`` is that of its content.
    """

    def __init__(self, directory: Path, cookie: int | None, purpose: str, version: int) -> None:
        self.path = state_path(directory, cookie, purpose)
        self._version = version

    def load(self) -> dict[str, Any]:
        """The content; empty if there is none of this boot and version."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if (content["version"], content["boot"]) != (self._version, boot_id()):
                return {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return dict(content)

    def store(self, content: dict[str, Any]) -> None:
        """Replace the file; remove it if ``content`` is empty. Raises ``OSError``."""
        if not content:
            self.path.unlink(missing_ok=True)
            return
        whole = {"version": self._version, "boot": boot_id(), **content}
        replace_file(self.path, json.dumps(whole, indent=1))
