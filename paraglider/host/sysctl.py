"""Kernel parameters, read and written as files below /proc/sys.

Lives here: access to one parameter, and the snapshot of a group of them.
Rules: a key is a path below /proc/sys (``net/ipv4/conf/eth0.5/forwarding``), because interface
names can contain dots; ``dotted`` converts it for sysctl(8).
"""

from __future__ import annotations

import os
from pathlib import Path

from paraglider.errors import PlatformError

PROC_SYS = Path("/proc/sys")


class Sysctl:
    """The parameters below ``root``."""

    def __init__(self, root: Path = PROC_SYS) -> None:
        self._root = root

    def read(self, key: str) -> str | None:
        """The value of ``key``; None if the kernel has no such parameter."""
        try:
            return (self._root / key).read_text(encoding="ascii").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise PlatformError(f"cannot read {dotted(key)}: {error.strerror}") from error

    def write(self, key: str, value: str) -> None:
        """Set ``key``; raises ``PlatformError`` when the kernel refuses."""
        try:
            with (self._root / key).open("r+", encoding="ascii") as file:
                file.write(value)
        except OSError as error:
            raise PlatformError(
                f"cannot set {dotted(key)} to {value}: {error.strerror}",
                f"in a container, set it on the host: docker run --sysctl {dotted(key)}={value}",
            ) from error

    def writable(self, key: str) -> bool:
        """False if the parameter's file system is mounted read-only."""
        return os.access(self._root / key, os.W_OK)

    def interfaces(self, family: int) -> tuple[str, ...]:
        """The interfaces that have parameters of ``family``, without `all` and `default`."""
        base = self._root / "net" / _FAMILY[family] / "conf"
        if not base.is_dir():
            return ()
        names = sorted(entry.name for entry in base.iterdir())
        return tuple(name for name in names if name not in ("all", "default"))

    def snapshot(self, pattern: str) -> dict[str, str]:
        """The values of all parameters whose keys match the glob ``pattern``."""
        files = (path for path in self._root.glob(pattern) if path.is_file())
        keys = sorted(str(path.relative_to(self._root)) for path in files)
        return {key: value for key in keys if (value := self.read(key)) is not None}


def conf(family: int, interface: str, name: str) -> str:
    """The key of parameter ``name`` of an interface (or `all`, `default`)."""
    return f"net/{_FAMILY[family]}/conf/{interface}/{name}"


def neigh(family: int, interface: str, name: str) -> str:
    """The key of parameter ``name`` of an interface's neighbours."""
    return f"net/{_FAMILY[family]}/neigh/{interface}/{name}"


def dotted(key: str) -> str:
    """``key`` in sysctl(8)'s syntax: dots between the parts, a slash for a dot within a part."""
    return ".".join(part.replace(".", "/") for part in key.split("/"))


_FAMILY = {4: "ipv4", 6: "ipv6"}
