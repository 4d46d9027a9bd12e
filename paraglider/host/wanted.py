"""The configuration of the last set-up, stored in a file beside the state of the set-up.

The state (``state``) has the changes, for the undo; this file has the desired state, from which
missing objects are restored, by the daemon's reconciler or without a daemon.

Lives here: ``Wanted``, and its file, one entry per family.
Rules: as the state, the file belongs to one network namespace and to one boot, and is replaced as a
whole. It is written when a set-up has succeeded, and loses a family when that is undone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from paraglider.config.model import Config
from paraglider.errors import PlatformError
from paraglider.host.ownership import (
    RUN_DIRECTORY,
    SET_UP,
    VERSION,
    boot_id,
    damaged,
    replace_file,
    state_path,
    stored,
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The desired state of ``family``: ``config``, with workers on ``cores``, which are empty for a
    static set-up. ``owner`` is ``ownership.SET_UP`` or ``STARTED``.
    """

    family: int
    config: Config
    cores: tuple[int, ...]
    owner: str = SET_UP


class WantedFile:
    """The file of the network namespace with ``cookie``, this one when None."""

    def __init__(self, directory: Path = RUN_DIRECTORY, cookie: int | None = None) -> None:
        self.path = state_path(directory, cookie, "wanted")

    def load(self) -> list[Wanted]:
        """The desired state of each family; empty without a set-up.

        Raises ``OperatorError`` when the file is not one of ours.
        """
        content = stored(self.path)
        if content is None:
            return []
        try:
            return [
                Wanted(
                    int(family),
                    Config.model_validate(entry["config"]),
                    tuple(int(core) for core in entry["cores"]),
                    content["owner"],
                )
                for family, entry in sorted(content["families"].items())
            ]
        except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(self.path, error) from error

    def set(
        self, config: Config, families: Iterable[int], cores: tuple[int, ...], owner: str
    ) -> None:
        """Set the desired state of ``families``; other families are not changed."""
        changed = frozenset(families) & {service.family for service in config.services}
        entry = {"config": config.model_dump(mode="json", by_alias=True), "cores": list(cores)}
        self._replace(families, {str(family): entry for family in changed}, owner)

    def drop(self, families: Iterable[int]) -> None:
        """Remove the desired state of ``families``."""
        self._replace(families, {}, SET_UP)

    def _replace(self, families: Iterable[int], new: dict[str, Any], owner: str) -> None:
        """Have ``new`` in place of ``families``; ``owner`` is whose the file is if nothing of it
        is kept. Other families stay as they are written.
        """
        before = stored(self.path) or {"owner": owner, "families": {}}
        gone = {str(family) for family in families}
        try:
            kept = {name: one for name, one in before["families"].items() if name not in gone}
            owner = before["owner"] if kept else owner
        except (KeyError, TypeError, AttributeError) as error:
            raise damaged(self.path, error) from error
        try:
            if not kept and not new:
                self.path.unlink(missing_ok=True)
                return
            content = {
                "version": VERSION,
                "boot": boot_id(),
                "owner": owner,
                "families": dict(sorted({**kept, **new}.items())),
            }
            replace_file(self.path, json.dumps(content))
        except OSError as error:
            raise PlatformError(
                f"cannot store the desired state of the host in {self.path}: {error.strerror}",
                "without it the daemon could not repair the host",
            ) from error
