"""The process that checks the backends, queries the DNS, and watches files that list backends.

It parses input from the network, so it runs as nobody without any capability; the ping sockets are
opened by the supervisor and inherited. Its root directory is empty, unless it needs the host's
files: programs (`type: exec`), files of backends; then it is "/". The supervisor reads these and
/etc/resolv.conf, and validates what this process reports. It has no state that the supervisor could
not send again.

Lives here: ``MonitorSpec``, ``run``, ``Monitor``, ``chroot_for``, ``echo_for``.
Rules: exits on SIGTERM, when the channel closes, or on an invalid message; reports are buffered in
``outbox`` and never delay the loop.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from paraglider.config.model import Config
from paraglider.daemon import log
from paraglider.daemon.ipc import EndpointClosedError, LoopEndpoint
from paraglider.daemon.messages import CheckSooner, Message, SetSources, SetTargets
from paraglider.daemon.monitor.outbox import Outbox
from paraglider.daemon.processes.bootstrap import (
    ignore_termination,
    lock_down,
    report_error,
    report_ready,
    set_process_name,
)
from paraglider.daemon.processes.spec import Spec, StartupState
from paraglider.errors import ParagliderError, PlatformError
from paraglider.health.checker import Checker
from paraglider.health.pinger import Pinger

if TYPE_CHECKING:
    from paraglider.daemon.monitor.discovery import Discovery


@dataclass(frozen=True, slots=True)
class MonitorSpec(Spec):
    """The startup parameters of the monitor: its ping sockets (None: there are none), its user, its
    root directory, whether it runs ``programs``, and whether discovery is loaded (``discovers``).
    """

    role: ClassVar[str] = "monitor"
    echo: Pinger | None
    uid: int
    gid: int
    chroot: str
    programs: bool = False
    discovers: bool = False

    @property
    def filter(self) -> str:
        """See ``spec.Spec``; a monitor that runs programs has another filter."""
        return "monitor-exec" if self.programs else self.role

    def updated(self, state: StartupState) -> Self:
        """See ``spec.Spec``."""
        chroot = chroot_for(state.config, files=state.watches_files)
        return replace(self, chroot=chroot, programs=runs_programs(state.config))

    def release(self) -> None:
        """See ``spec.Spec``."""
        if self.echo is not None:
            self.echo.close()


def runs_programs(config: Config) -> bool:
    """Whether a service of ``config`` has a check that runs a program."""
    return any(s.check is not None and s.check.probe.runs_program for s in config.services)


def chroot_for(config: Config, *, files: bool) -> str:
    """The root directory of the monitor of ``config``: "/" if it needs the host's files, for checks
    or since ``files`` list backends.
    """
    return "/" if files or runs_programs(config) else config.chroot


def echo_for(config: Config, *, failover: bool) -> Pinger | None:
    """Open the ping sockets, which needs CAP_NET_RAW, before privileges are dropped.

    They are opened even if ``config`` has no pings, since a reload may add some. A failure to open
    them is a ``PlatformError`` only if ``config`` needs them.
    """
    pings = any(s.check is not None and s.check.probe.needs_raw_socket for s in config.services)
    try:
        return Pinger()
    except PlatformError:
        if pings or failover or config.failover.enabled:
            raise
        return None


class Monitor:
    """Applies the supervisor's messages to ``checker`` and ``discovery``."""

    def __init__(self, checker: Checker, discovery: Discovery | None) -> None:
        self._checker = checker
        self._discovery = discovery

    def on_message(self, message: Message) -> None:
        """Handle ``message``."""
        if isinstance(message, SetTargets):
            self._checker.update(
                message.targets(), message.scope, message.gone, whole=message.whole
            )
        elif isinstance(message, CheckSooner):
            self._checker.hint(message.backends)
        elif isinstance(message, SetSources) and self._discovery is not None:
            self._discovery.update(message.names, message.files, message.resolv_conf)


def run(spec: MonitorSpec, report: int, parent: int) -> int:
    """Run the monitor until SIGTERM; returns the exit code of the process.

    ``report`` is the pipe to the supervisor, ``parent`` its process id.
    """
    try:
        set_process_name("paraglider/mon", "paraglider: monitor of the backends")
        outbox = Outbox()
        checker = Checker(outbox.add_health, spec.echo)
        discovery = None
        if spec.discovers:
            from paraglider.daemon.monitor.discovery import Discovery  # loaded by the supervisor

            discovery = Discovery(outbox.add_discovery)
        lock_down(spec.filter, parent, (spec.uid, spec.gid), spec.chroot)
    except ParagliderError as error:
        return report_error(report, error)
    return asyncio.run(serve(spec, checker, discovery, outbox, report))


async def serve(
    spec: MonitorSpec, checker: Checker, discovery: Discovery | None, outbox: Outbox, report: int
) -> int:
    """Report on ``report`` that the process is ready, and serve the supervisor; returns the exit
    code.

    Raises unexpected errors of ``checker`` or ``discovery``: the supervisor then replaces the
    monitor.
    """
    if spec.endpoint is None:
        raise ValueError("a monitor needs an endpoint")
    loop = asyncio.get_running_loop()
    parts: list[Checker | Discovery] = [checker]
    if discovery is not None:
        parts.append(discovery)
    broken = [await part.start() for part in parts]
    endpoint = LoopEndpoint(spec.endpoint, Monitor(checker, discovery).on_message)
    outbox.open(endpoint)
    loop.add_signal_handler(signal.SIGTERM, endpoint.finish, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    spec.heartbeat.pulse(loop)
    report_ready(report)
    try:
        ends: list[asyncio.Future[Any]] = [endpoint.closed, *broken]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for fault in broken:
            if fault.done():
                await fault
        if endpoint.error is not None and not isinstance(endpoint.error, EndpointClosedError):
            why = str(endpoint.error)
            log.logger(role=spec.role).error("invalid message from the supervisor", error=why)
        return endpoint.closed.result()
    finally:
        ignore_termination()
        outbox.close()
        endpoint.detach()
        for part in parts:
            await part.close()
