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
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import prctl

from paraglider.config.model import Config
from paraglider.control import log
from paraglider.control.channel import Channel
from paraglider.control.children import READY, Equipment, Spec
from paraglider.errors import ParagliderError, PlatformError
from paraglider.health.echo import Echo
from paraglider.system import privileges


@dataclass(frozen=True, slots=True)
class CheckerSpec(Spec):
    """All that the checker is told at its start: its sockets for pings (None: there are none),
    whom to become, where to be locked in.
    """

    role: ClassVar[str] = "checker"
    echo: Echo | None
    uid: int
    gid: int
    chroot: str

    def equipped(self, equipment: Equipment) -> Self:
        """See ``children.Spec``."""
        return replace(self, chroot=chroot_for(equipment.config))

    def release(self) -> None:
        """See ``children.Spec``."""
        if self.echo is not None:
            self.echo.close()


def chroot_for(config: Config) -> str:
    """Where the checker of ``config`` is locked in; "/" where it has programs to run."""
    programs = any(s.check is not None and s.check.type == "exec" for s in config.services)
    return "/" if programs else config.chroot


def echo_for(config: Config, *, failover: bool) -> Echo | None:
    """The sockets for pings, for which this process needs CAP_NET_RAW; before it is given up.

    Opened where they can be, so that a reload may bring pings; where nothing of ``config`` needs
    them they may be missing, else that is a ``PlatformError``.
    """
    pings = any(s.check is not None and s.check.type == "icmp" for s in config.services)
    try:
        return Echo()
    except PlatformError:
        if pings or failover or config.failover.enabled:
            raise
        return None


def run(spec: CheckerSpec, report: int, parent: int) -> int:
    """Be the checker until SIGTERM; the exit code of the process.

    ``report`` is the pipe to the supervisor, ``parent`` its process id.
    """
    from paraglider.health.checker import Checker  # brings aiohttp, which few others need

    if spec.channel is None:
        raise ValueError("there is no hub to hear")
    mouth = Mouth(spec.channel)
    try:
        prctl.set_name("paraglider/chk")
        prctl.set_proctitle("paraglider: checks the backends")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        checker = Checker(mouth.tell, spec.echo)
        privileges.drop(spec.uid, spec.gid, spec.chroot, keep=())
        privileges.die_with_parent(parent)
    except ParagliderError as error:
        os.write(report, f"{error.exit_code}{error}".encode())
        return error.exit_code
    return asyncio.run(_serve(checker, mouth, report))


#: what is done with an order
Take = Callable[[Mapping[str, Any]], None]


class Mouth:
    """Speaks to the hub and hears it, on the running loop; ``over`` becomes the exit code."""

    def __init__(self, end: Channel) -> None:
        self._end = end
        self._log: Any = log.logger(role=CheckerSpec.role)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.over: asyncio.Future[int] | None = None

    def open(self, take: Take) -> asyncio.Future[int]:
        """Hear; ``take`` is given every order. Gives ``over``."""
        self._loop = asyncio.get_running_loop()
        self.over = self._loop.create_future()
        self._loop.add_reader(self._end.fileno(), self._hear, take)
        return self.over

    def close(self) -> None:
        """Hear and say no more."""
        if self._loop is not None:
            self._loop.remove_reader(self._end.fileno())
            self._loop.remove_writer(self._end.fileno())

    def tell(self, news: Mapping[str, Any]) -> None:
        """Say ``news`` to the hub."""
        try:
            self._end.send(news)
            self._write()
        except PlatformError as error:
            self.finish(self._lost(error))

    def finish(self, status: int) -> None:
        """End the process with ``status``."""
        if self.over is not None and not self.over.done():
            self.over.set_result(status)

    def _write(self) -> None:
        if self._loop is None:
            return
        self._end.flush()
        if self._end.waiting:
            self._loop.add_writer(self._end.fileno(), self._write_on)
        else:
            self._loop.remove_writer(self._end.fileno())

    def _write_on(self) -> None:
        try:
            self._write()
        except PlatformError as error:
            self.finish(self._lost(error))

    def _hear(self, take: Take) -> None:
        try:
            for order in self._end.receive():
                take(order)
        except PlatformError as error:
            self.finish(self._lost(error))
        except (KeyError, TypeError, ValueError) as error:
            self._log.error("the hub says what is no order", error=repr(error)[:200])
            self.finish(PlatformError.exit_code)

    def _lost(self, error: PlatformError) -> int:
        self.close()
        self._log.warning("the hub is gone", error=str(error))
        return error.exit_code


async def _serve(checker: Any, mouth: Mouth, report: int) -> int:
    loop = asyncio.get_running_loop()
    await checker.start()
    over = mouth.open(checker.take)
    loop.add_signal_handler(signal.SIGTERM, mouth.finish, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.write(report, READY)
    os.close(report)
    try:
        await asyncio.wait((over, checker.broken), return_when=asyncio.FIRST_COMPLETED)
        if not over.done():
            await (
                checker.broken
            )  # raises what nobody foresaw: the supervisor logs it and begins anew
        return over.result()
    finally:
        await checker.close()
        mouth.close()
