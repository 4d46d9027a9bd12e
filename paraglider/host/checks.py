"""Checks before the set-up changes anything and before the daemon starts.

Lives here: the checks of root, of the workers' user and chroot directory, and of the VIPs that only
backends may have.
Rules: a check changes nothing and raises ``OperatorError``.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterable
from pathlib import Path

from paraglider.config.model import Service
from paraglider.errors import OperatorError, as_root
from paraglider.host.netlink import Netlink

DEFAULT_CHROOT = "/var/run/empty"
"""The only chroot directory that the set-up creates; it does not survive a reboot."""


def check_root(command: str) -> None:
    """Raise ``OperatorError`` unless the process runs as root; ``command`` is for the remedy."""
    if os.geteuid() != 0:
        raise OperatorError(f"{command} needs root", f"run it as root: {as_root(command)}")


def check_user(name: str, key: str = "user") -> tuple[int, int]:
    """The user and group id of ``name``, the value of ``key`` in the file; raises
    ``OperatorError`` when there is no such user.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise OperatorError(
            f"there is no user {name!r}", f"set `{key}` to an existing one, such as nobody"
        ) from None
    return entry.pw_uid, entry.pw_gid


def check_chroot(path: str) -> None:
    """Raise ``OperatorError`` unless ``path`` is a directory."""
    place = Path(path)
    if not place.exists():
        remedy = (
            "run paraglider.config, which creates it"
            if path == DEFAULT_CHROOT
            else f"create it: {as_root(f'mkdir -p {path}')}"
        )
        raise OperatorError(f"the chroot directory {path} does not exist", remedy)
    if not place.is_dir():
        raise OperatorError(
            f"the chroot {path} is not a directory", "set `chroot` to an empty directory"
        )


def check_vips(services: Iterable[Service]) -> None:
    """Raises ``OperatorError`` where a VIP is an address of this host that only the backends
    may have.

    Its packets would be delivered locally, because the local table precedes all policy rules.
    """
    for service in services:
        if not service.method.owns_vip and _is_local(service):
            vip = service.vip.ip
            raise OperatorError(
                f"the VIP {vip} of `{service.name}` is an address of this host; under"
                f" `forward: {service.forward}` the backends alone have it",
                f"remove it (ip address show to {vip} tells where it is), or use another forward",
            )


def _is_local(service: Service) -> bool:
    """Whether the VIP is an address of an interface, or has a local route: only then does the
    kernel choose it as the source to itself. It routes a new IPv6 address some time later.
    """
    if Netlink().has_address(service.vip.ip):
        return True
    vip = str(service.vip.ip)
    family = socket.AF_INET if service.family == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((vip, 9))  # sends nothing
        except OSError:
            return False
        source: str = probe.getsockname()[0]
    return source == vip
