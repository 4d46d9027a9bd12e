"""Drops privileges permanently, in the supervisor and in its processes.

The order matters. Groups and the bounding set are dropped first, while that is permitted; chroot
needs root; ``keep_caps`` keeps the permitted set across the change of the user id; then all other
capabilities are dropped, and no_new_privs prevents regaining them (prctl(2), capabilities(7)). The
death signal is set last, because a change of credentials clears it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import prctl

from paraglider.errors import PlatformError

#: capabilities of the supervisor after start-up, to start and stop processes
PARENT_CAPABILITIES = (
    prctl.CAP_NET_ADMIN,
    prctl.CAP_SYS_CHROOT,
    prctl.CAP_SETUID,
    prctl.CAP_SETGID,
    prctl.CAP_SETPCAP,
    prctl.CAP_KILL,
    prctl.CAP_NET_RAW,  # for the reconciler, which inherits from the supervisor
)

#: capabilities to change addresses, routes and rules; iptables-legacy uses a raw socket
RECONCILER_CAPABILITIES = (prctl.CAP_NET_ADMIN, prctl.CAP_NET_RAW)

#: what the host helper, and so the supervisor, needs beside for links of the BPF carrier
CARRIER_CAPABILITIES = (prctl.CAP_BPF,)

#: the capability that the kernel requires of a worker for verdicts, and of the conntrack counter
NEEDED = (prctl.CAP_NET_ADMIN,)


def limit(*keep: int) -> None:
    """Stay root with only the capabilities ``keep``, permanently.

    Raises PlatformError when the kernel refuses, for example when root lacks CAP_SETPCAP.
    """
    try:
        os.setgroups([])
        prctl.capbset.limit(*keep)
        prctl.cap_inheritable.limit()
        prctl.cap_effective.limit(*keep)
        prctl.cap_permitted.limit(*keep)
        prctl.set_no_new_privs(1)
    except OSError as error:
        raise _refused(error) from error


def renounce() -> None:
    """Give up all capabilities of a process that is not root, permanently: programs inherit the
    ambient ones that the unit of ExaBGP or BIRD has.
    """
    try:
        prctl.cap_effective.limit()
        prctl.cap_inheritable.limit()
        prctl.cap_permitted.limit()  # and with it the ambient set
        prctl.set_no_new_privs(1)
    except OSError as error:
        raise _refused(error) from error


def limit_parent(*more: int) -> None:
    """As ``limit``, with the capabilities of the supervisor and ``more``."""
    limit(*PARENT_CAPABILITIES, *more)


def drop(
    uid: int,
    gid: int,
    chroot: str,
    keep: tuple[int, ...] = NEEDED,
    ahead: Callable[[], object] | None = None,
) -> None:
    """Chroot this process into ``chroot`` as ``uid``:``gid`` with only the capabilities ``keep``.

    ``ahead`` is called before chroot, as ``uid`` and with an empty effective set. The permitted set
    is ``keep`` and CAP_SYS_CHROOT, none of which can regain root.

    A worker keeps CAP_NET_ADMIN: the kernel requires it at every verdict, of the socket's opener
    and of its sender (net/netfilter/nfnetlink.c, nfnetlink_rcv). All lazy imports must be done
    before. Raises PlatformError when the kernel refuses a step; the process must then exit.
    """
    try:
        os.setgroups([])
        prctl.capbset.limit()
        prctl.set_keepcaps(True)
        if ahead is None:
            os.chroot(chroot)
            os.chdir("/")
        else:
            place = os.open(chroot, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        prctl.cap_inheritable.limit()
        if ahead is not None:
            prctl.set_no_new_privs(1)
            prctl.cap_permitted.limit(*keep, prctl.CAP_SYS_CHROOT)
            _ahead(ahead, place)
        prctl.cap_permitted.limit(*keep)
        prctl.set_caps(*((one, prctl.CAP_EFFECTIVE, True) for one in keep))
        prctl.set_keepcaps(False)
        prctl.set_no_new_privs(1)
    except OSError as error:
        raise _refused(error) from error


def _ahead(call: Callable[[], object], place: int) -> None:
    """Run ``call`` with an empty effective set, then chroot to ``place``; raises ``OSError``."""
    prctl.cap_effective.limit()
    call()
    prctl.set_caps((prctl.CAP_SYS_CHROOT, prctl.CAP_EFFECTIVE, True))
    os.fchdir(place)
    os.close(place)
    os.chroot(".")
    prctl.cap_effective.limit()


def die_with_parent(parent: int) -> None:
    """Make the kernel send SIGTERM to this process when the process ``parent`` ends."""
    prctl.set_pdeathsig(signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), signal.SIGTERM)


def _refused(error: OSError) -> PlatformError:
    return PlatformError(
        f"cannot drop privileges: {error}",
        "start as root with its full set of capabilities",
    )
