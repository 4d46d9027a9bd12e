"""Becomes another user who can run this source tree, and runs a program as that.

``python as_user.py USER CAPABILITY PROGRAM [ARGUMENT…]``, as root and in a mount namespace of its
own, such as `ip netns exec` makes: the program inherits CAPABILITY, as of a systemd unit with
``AmbientCapabilities``. A clone in a directory that only root may enter stays where it is, for this
user too: in place of that directory there is an empty one, which has the clone alone.
Rules: standard library only; the process id stays.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_MS_BIND = 1 << 12
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(user: str, capability: str, *command: str) -> None:
    """See the head of the file."""
    os.umask(0o022)
    trees = {_ROOT, Path(sys.prefix), Path(sys.base_prefix)}
    opened = {tree: os.open(tree, os.O_PATH) for tree in sorted(trees)}
    for tree, number in opened.items():
        for above in reversed(tree.parents):
            if not above.exists() or above.stat().st_mode & 0o001:
                continue
            _mount(b"tmpfs", above, b"tmpfs", 0, b"mode=0755")
        if not os.path.samestat(os.fstat(number), _found(tree)):
            tree.mkdir(mode=0o755, parents=True, exist_ok=True)
            _mount(b"/proc/self/fd/%d" % number, tree, None, _MS_BIND, None)
    sets = [f"--{name}-caps=+{capability}" for name in ("inh", "ambient")]
    own = [f"--reuid={user}", f"--regid={user}", "--clear-groups", *sets]
    os.execvp("setpriv", ["setpriv", *own, f"--bounding-set=-all,+{capability}", *command])


def _found(tree: Path) -> os.stat_result:
    """What is at ``tree`` now; of nothing, what is above it."""
    return tree.stat() if tree.exists() else _found(tree.parent)


def _mount(source: bytes, at: Path, kind: bytes | None, flags: int, data: bytes | None) -> None:
    if _LIBC.mount(source, bytes(at), kind, ctypes.c_ulong(flags), data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{at}: {os.strerror(number)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
