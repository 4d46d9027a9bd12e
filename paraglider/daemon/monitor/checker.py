"""The process that looks at the backends: the hub's orders in, news out (``health.messages``).

It runs as nobody without any capability: the sockets for pings are opened by the supervisor and
inherited, which is why no rights are left where answers of strangers are read. It is locked in
like a worker, unless there are programs to run (`type: exec`), which need the host's files: then
``chroot`` is "/". It knows nothing that the hub could not tell it again, so one that dies is
replaced, and given the targets anew.

Lives here: ``CheckerSpec``, ``run``, ``chroot_for``, ``echo_for``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from paraglider.config.model import Config
from paraglider.daemon.monitor.ipc_endpoint import Mouth, serve
from paraglider.daemon.processes.bootstrap import introduce, lock_in, refused
from paraglider.daemon.processes.spec import Equipment, Spec
from paraglider.errors import ParagliderError, PlatformError
from paraglider.health.checker import Checker
from paraglider.health.pinger import Pinger


@dataclass(frozen=True, slots=True)
class CheckerSpec(Spec):
    """All that the checker is told at its start: its sockets for pings (None: there are none),
    whom to become, where to be locked in.
    """

    role: ClassVar[str] = "checker"
    echo: Pinger | None
    uid: int
    gid: int
    chroot: str

    @property
    def filter(self) -> str:
        """See ``spec.Spec``; programs need another one, and the whole file system."""
        return "checker-exec" if self.chroot == "/" else self.role

    def equipped(self, equipment: Equipment) -> Self:
        """See ``spec.Spec``."""
        return replace(self, chroot=chroot_for(equipment.config))

    def release(self) -> None:
        """See ``spec.Spec``."""
        if self.echo is not None:
            self.echo.close()


def chroot_for(config: Config) -> str:
    """Where the checker of ``config`` is locked in; "/" where it has programs to run."""
    programs = any(s.check is not None and s.check.probe.runs_program for s in config.services)
    return "/" if programs else config.chroot


def echo_for(config: Config, *, failover: bool) -> Pinger | None:
    """The sockets for pings, for which this process needs CAP_NET_RAW; before it is given up.

    Opened where they can be, so that a reload may bring pings; where nothing of ``config`` needs
    them they may be missing, else that is a ``PlatformError``.
    """
    pings = any(s.check is not None and s.check.probe.needs_raw_socket for s in config.services)
    try:
        return Pinger()
    except PlatformError:
        if pings or failover or config.failover.enabled:
            raise
        return None


def run(spec: CheckerSpec, report: int, parent: int) -> int:
    """Be the checker until SIGTERM; the exit code of the process.

    ``report`` is the pipe to the supervisor, ``parent`` its process id.
    """
    if spec.channel is None:
        raise ValueError("there is no hub to hear")
    mouth = Mouth(spec.channel, spec.role)
    try:
        introduce("paraglider/chk", "paraglider: checks the backends")
        checker = Checker(mouth.tell, spec.echo)
        lock_in(spec.filter, parent, (spec.uid, spec.gid), spec.chroot)
    except ParagliderError as error:
        return refused(report, error)
    return asyncio.run(serve(checker, mouth, report, spec.life))
