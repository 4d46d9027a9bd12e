"""Giving up privileges, for good: what the parent keeps, what a worker keeps.

The order matters. Groups and the bounding set go while we may still change them; chroot needs
root; the user id goes with ``keep_caps`` set, which keeps the permitted set across it; then every
capability but the named ones goes, and no_new_privs shuts the way back (prctl(2),
capabilities(7)). The death signal comes last: a change of credentials clears it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import prctl

from paraglider.errors import PlatformError

#: what the supervising parent needs after start-up: to start and to stop workers
PARENT_CAPABILITIES = (
    prctl.CAP_NET_ADMIN,
    prctl.CAP_SYS_CHROOT,
    prctl.CAP_SETUID,
    prctl.CAP_SETGID,
    prctl.CAP_SETPCAP,
    prctl.CAP_KILL,
    prctl.CAP_NET_RAW,  # for the reconciler, which has no more than its parent
)

#: what changing addresses, routes and rules needs; iptables-legacy speaks through a raw socket
RECONCILER_CAPABILITIES = (prctl.CAP_NET_ADMIN, prctl.CAP_NET_RAW)

#: what the kernel asks of a worker at every verdict, and of the tracker
NEEDED = (prctl.CAP_NET_ADMIN,)


def limit(*keep: int) -> None:
    """Stay root with the capabilities ``keep`` alone, and without a way back to the others.

    Raises PlatformError when the kernel refuses, as it does where root lacks CAP_SETPCAP.
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


def limit_parent() -> None:
    """As ``limit``, for the supervisor: without the rights that supervising does not need."""
    limit(*PARENT_CAPABILITIES)


def drop(
    uid: int,
    gid: int,
    chroot: str,
    keep: tuple[int, ...] = NEEDED,
    ahead: Callable[[], object] | None = None,
) -> None:
    """Lock this process into ``chroot`` as ``uid``:``gid`` with the capabilities ``keep`` alone.

    ``ahead`` is called while the files of the host can still be read, though as ``uid`` already and
    without a capability in effect: of those that it could take, ``keep`` and CAP_SYS_CHROOT, none
    makes it root again.

    A worker keeps CAP_NET_ADMIN: the kernel asks for it at every verdict, of the socket's opener
    and of its sender (net/netfilter/nfnetlink.c, nfnetlink_rcv). Everything imported lazily must
    be imported before. Raises PlatformError when the kernel refuses a step; the process must then
    end.
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
    """Make ``call`` without a capability in effect, then go to ``place`` and have it as root
    directory; raises ``OSError``.
    """
    prctl.cap_effective.limit()
    call()
    prctl.set_caps((prctl.CAP_SYS_CHROOT, prctl.CAP_EFFECTIVE, True))
    os.fchdir(place)
    os.close(place)
    os.chroot(".")
    prctl.cap_effective.limit()


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the process ``parent`` ends, however it ends."""
    prctl.set_pdeathsig(signal.SIGTERM)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal.SIGTERM)


def _refused(error: OSError) -> PlatformError:
    return PlatformError(
        f"the kernel refuses to give up privileges: {error}",
        "start as root with its full set of capabilities",
    )
