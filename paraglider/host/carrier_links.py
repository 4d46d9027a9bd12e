"""Attaches the carrier's programs to the interfaces of this network namespace, by pinned links.

Lives here: ``CarrierLinks``, ``Hook``, ``AT_TC``, ``AT_XDP``, ``require_one``, ``detach_all``,
``is_attached``.
Rules: a link is pinned as ``link-INDEX`` of its interface, at XDP as ``xdp-INDEX``, and opened only
while it is changed.
Level-triggered: ``reconcile`` compares and can run again at any time. Programs of others on an
interface stay, and run before ours, which does not see the packets that they drop or accept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from paraglider.bpf import syscall
from paraglider.bpf.syscall import LinkInfo
from paraglider.config.model import Config
from paraglider.host import bpffs
from paraglider.host.carrier_support import CarrierUnavailableError
from paraglider.host.link_state import ethernet_links


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook of interfaces: how pins of its links begin, the function that attaches a program, and
    what the kernel's refusals mean.
    """

    prefix: str
    attach: Callable[[int, int], int]
    refusals: Mapping[int, str]


def _at_tc(program: int, interface: int) -> int:
    return syscall.attach_tcx(program, interface)


def _at_xdp(program: int, interface: int) -> int:
    return syscall.attach_xdp(program, interface)


AT_TC: Final = Hook(
    "link-",
    _at_tc,
    {errno.ERANGE: "other programs have all places at its tc ingress (see `bpftool net`)"},
)
AT_XDP: Final = Hook(
    "xdp-",
    _at_xdp,
    {
        errno.EBUSY: "another program is at its XDP (see `bpftool net`)",
        errno.EOPNOTSUPP: "its driver does not run programs at XDP now",
        errno.ERANGE: "its MTU, or its peer's, is too large for XDP",
        errno.EINVAL: "its driver does not run programs at XDP with its MTU and offloads",
    },
)
#: how names of links begin
PREFIXES: Final = (AT_TC.prefix, AT_XDP.prefix)


@dataclass(frozen=True, slots=True)
class AttachResult:
    """The result of a comparison: the interfaces that got the program, those that have it, those
    that the kernel refused with its reason, and the number of links that were removed.
    """

    attached: tuple[str, ...]
    present: tuple[str, ...]
    failed: Mapping[str, str]
    detached: int


class CarrierLinks:
    """The links of ``program`` at ``hook`` in the open directory ``pins``; ``interfaces`` finds
    those to attach to, by index and name; not ``on``, it is to none. Its methods may be called by
    several threads.
    """

    def __init__(
        self,
        program: int,
        pins: int,
        interfaces: Callable[[], Mapping[int, str]] = ethernet_links,
        *,
        hook: Hook = AT_TC,
        on: bool = True,
    ) -> None:
        self._hook = hook
        self._program = program
        self._pins = pins
        self._interfaces = interfaces
        self._on = on
        self._turn = threading.Lock()

    def switch(self, *, on: bool) -> AttachResult:
        """Attach the program everywhere, or detach it until it is switched on; raises as
        ``reconcile``.
        """
        with self._turn:
            self._on = on
        return self.reconcile()

    def reconcile(self) -> AttachResult:
        """Attach the program to every interface; remove links whose interface is gone or has become
        a port. If switched off, attach to none.

        The program of an earlier daemon's link is replaced atomically.
        After an undo nothing is attached.
        Raises ``PlatformError`` if the interfaces cannot be listed, ``OSError`` for the pins.
        """
        with self._turn:
            if os.fstat(self._pins).st_nlink == 0:  # the set-up was undone
                return AttachResult((), (), {}, 0)
            wanted = dict(self._interfaces()) if self._on else {}
            mine, detached, present = syscall.program_id(self._program), 0, []
            for name, number, info in _links(self._pins, self._hook.prefix):
                if info.interface not in wanted:
                    _drop(self._pins, name, number)
                    detached += 1
                    continue
                if info.program != mine:
                    syscall.update_link(number, self._program)
                present.append(wanted.pop(info.interface))
            attached, failed = [], {}
            for index, interface in sorted(wanted.items(), key=lambda item: item[1]):
                try:
                    self._attach(index)
                except OSError as error:
                    if error.errno != errno.ENODEV:  # else it is gone since it was listed
                        said = self._hook.refusals.get(error.errno or 0)
                        failed[interface] = said or error.strerror or str(error)
                else:
                    attached.append(interface)
            everywhere = tuple(sorted((*present, *attached)))
            return AttachResult(tuple(attached), everywhere, failed, detached)

    def _attach(self, index: int) -> None:
        link = self._hook.attach(self._program, index)
        try:
            syscall.pin(link, self._pins, f"{self._hook.prefix}{index}")
        finally:
            os.close(link)


def require_one(config: Config, result: AttachResult) -> None:
    """Raise ``CarrierUnavailableError`` if every interface refused the program, and a service of
    ``config`` cannot work without BPF. Where one has it, the others are tried again and reported.
    """
    needed = any(service.needs_bpf for service in config.services)
    if needed and result.failed and not result.present:
        why = "; ".join(f"{name}: {said}" for name, said in sorted(result.failed.items()))
        raise CarrierUnavailableError(
            f"no interface takes the BPF program: {why}",
            "free one of them, or set `carrier: auto`: then workers carry until one takes it",
        )


def detach_all(pins: int) -> None:
    """Detach and unpin every link in ``pins``; raises ``OSError``."""
    for name, number, _ in _links(pins, AT_XDP.prefix):
        _drop(pins, name, number)
    for name, number, _ in _links(pins, AT_TC.prefix):
        _drop(pins, name, number)


def is_attached(pins: int, *prefixes: str) -> bool:
    """Whether a link in ``pins``, whose name begins with one of ``prefixes`` (default: those of the
    carrier's), is at an interface; raises ``OSError``.
    """
    return any(info.interface for _, _, info in _links(pins, *(prefixes or PREFIXES)))


def _links(pins: int, *prefixes: str) -> Iterator[tuple[str, int, LinkInfo]]:
    """Each link: its pin, a descriptor that is closed afterwards, and the kernel's information."""
    for name in bpffs.names(pins):
        if name.startswith(prefixes):
            try:
                number = syscall.pinned(pins, name)
            except FileNotFoundError:  # another process has removed it since
                continue
            try:
                yield name, number, syscall.link_info(number)
            finally:
                os.close(number)


def _drop(pins: int, name: str, link: int) -> None:
    """Detach a link, also where another process has it open, and remove its pin."""
    with contextlib.suppress(OSError):  # its interface is gone
        syscall.detach_link(link)
    bpffs.unpin(pins, name)
