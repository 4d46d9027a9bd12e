"""Removes labs: processes, set-ups, namespaces and files; also labs that were kept or killed.

Lives here: ``remove``, ``down``, and the notes of the kept labs, by which ``down`` finds them.
Rules: a balancer's set-up is undone before its namespace goes, since the host's /run has a part of
it. All may be called again.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from paraglider.errors import PlatformError
from paraglider.lab import direct, namespace
from paraglider.lab.balancer import unmount_pins
from paraglider.lab.namespace import Namespace

STATE = Path("/run/paraglider")
_CONFIG = "paraglider.conf"
_ONLY = "-balancer"


def remove(
    prefix: str, directory: Path, *, undo: bool = True, started: Collection[int] = ()
) -> None:
    """Stop a lab's daemons, undo their set-ups, remove its namespaces and files. Of ``started``
    processes of the balancers one may not be in its namespace yet.

    Raises ``PlatformError`` when a namespace is left.
    """
    configs = _configs(prefix, directory)
    try:
        needing = next(filter(direct.needed, configs.values()), None)
        for name in namespace.names() if needing is not None else ():
            if needing is not None and name.startswith(f"{prefix}-backend"):
                direct.undo(Namespace(name, attach=True), needing)
        present = configs.keys() & set(namespace.names()) if undo else set()
        if present:
            namespace.end_processes(*present, started=started)
        for name in sorted(present):
            attached, option = Namespace(name, attach=True), ["-c", str(configs[name])]
            if name.endswith(_ONLY):  # one of the two has set it up
                attached.run([sys.executable, "-m", "paraglider", "stop", *option])
            attached.run([sys.executable, "-m", "paraglider.cli.setup_host", *option, "--undo"])
    finally:
        namespace.remove_all(prefix)
        shutil.rmtree(directory, ignore_errors=True)
        note_path(prefix).unlink(missing_ok=True)
    left = [name for name in namespace.names() if name.startswith(f"{prefix}-")]
    if left:
        raise PlatformError(f"namespaces are left: {', '.join(left)}", "ip netns delete NAME")


def notes() -> dict[Path, dict[str, str]]:
    """The notes of the kept labs."""
    found = {}
    for path in sorted(STATE.glob("lab-*.json")):
        with contextlib.suppress(OSError, ValueError):
            found[path] = json.loads(path.read_text(encoding="utf-8"))
    return found


def note_path(prefix: str) -> Path:
    """Where the note of a kept lab is."""
    return STATE / f"lab-{prefix}.json"


def down() -> list[str]:
    """Remove every kept lab, and leftovers of killed ones; returns the prefixes."""
    removed = []
    for note in notes().values():
        remove(note["prefix"], Path(note["directory"]))
        removed.append(note["prefix"])
    removed += sorted({name.rpartition("-")[0] for name in namespace.stale()})
    unmount_pins()
    return removed


def prepare() -> None:
    """Remove what labs have left that were killed."""
    namespace.stale(keep=[note["prefix"] for note in notes().values()])
    unmount_pins()


def _configs(prefix: str, directory: Path) -> dict[str, Path]:
    """The configuration files of the balancers, by the names of their namespaces: a lab's only one
    has it in ``directory``, one of several in a directory of its own there.
    """
    found = {f"{prefix}-{path.parent.name}": path for path in directory.glob(f"lb*/{_CONFIG}")}
    if (only := directory / _CONFIG).exists():
        found[f"{prefix}{_ONLY}"] = only
    return found
