"""Runs a command for which only the owner and root may enter the project's directory.

Started as ``python closed_tree.py OWNER LATE COMMAND …`` by ``test_closed_tree``: in a new mount
namespace the directory, and that of the interpreter's environment, are covered by an overlay of
themselves with mode 700, owned by the user id OWNER. The command keeps the process id;
NOTIFY_SOCKET is the first of its few variables, as systemd may order them, and it writes late
imports into the file LATE (``late/sitecustomize.py``).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLONE_NEWNS = 0x20000


def close(directory: Path, owner: int, room: Path) -> None:
    """Cover ``directory``; writes go to ``room``."""
    upper, work = room / "upper", room / "work"
    for made in (room, upper, work):
        made.mkdir()
    os.chown(upper, owner, owner)
    upper.chmod(0o700)
    options = f"lowerdir={directory},upperdir={upper},workdir={work}"
    command = ["mount", "-t", "overlay", "-o", options, "overlay", str(directory)]
    subprocess.run(command, check=True)


def main() -> None:
    """See the head of the file."""
    owner, late, *command = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    room = Path(tempfile.mkdtemp())  # a mount point that is empty again when the command has ended
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(room)], check=True)
    trees = {ROOT, Path(sys.prefix)}
    for number, tree in enumerate(sorted(trees)):
        if not any(other in tree.parents for other in trees):
            close(tree, int(owner), room / str(number))
    os.chdir(room)  # where nothing is that could be imported
    variables = {
        "NOTIFY_SOCKET": "/nowhere",
        "PATH": os.environ["PATH"],
        "LATE_IMPORTS": late,
        "PYTHONPATH": str(Path(__file__).parent / "late"),
    }
    os.execve(command[0], command, variables)


if __name__ == "__main__":
    main()
