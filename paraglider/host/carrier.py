"""The BPF carrier of this network namespace: loaded, taken over from an earlier daemon, removed.

Lives here: ``load_wanted``, ``load`` and ``LoadedCarrier``, ``prepare``, ``check``, ``check_xdp``,
``remove``, ``undo``, ``remove_leftovers``.
Rules: maps and links are pinned (``bpffs``), so flows continue while the daemon is restarted or
upgraded; ``remove`` ends that. Maps are taken over if the layout version in their pin's name and
their shape are the same; maps of flows must also have enough room. If the program cannot be loaded,
or fails its self-check, everything is removed, since flows would be carried that no worker has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from paraglider.bpf import loader, syscall
from paraglider.bpf.layout import FLOWS, LAYOUT_VERSION
from paraglider.bpf.maps import (
    FLOW_MAPS,
    RING_SHAPE,
    SHAPES,
    CarrierMaps,
    create,
    create_ring,
)
from paraglider.bpf.syscall import MapInfo
from paraglider.config.model import Config
from paraglider.config.service import Method, Service
from paraglider.core.flow import TCP, UDP
from paraglider.errors import PlatformError
from paraglider.forward.bpf.reclaim import make_room
from paraglider.host import bpffs
from paraglider.host.carrier_check import checked, record, self_check
from paraglider.host.carrier_lacks import by_lack, lacks_of, require_needed, require_some
from paraglider.host.carrier_links import (
    AT_TC,
    AT_XDP,
    CarrierLinks,
    detach_all,
    is_attached,
    require_one,
)
from paraglider.host.carrier_record import RECORDS
from paraglider.host.carrier_support import (
    EARLY_PROGRAM,
    PROGRAM,
    CarrierUnavailableError,
    SourceUnavailableError,
    object_file,
    require_kernel,
    unavailable,
)
from paraglider.host.ownership import daemons, lock_path
from paraglider.host.xdp_devices import XdpUnavailableError, require_xdp, sides
from paraglider.host.xdp_links import XdpLinks

#: entries of a map of flows at most: an empty one takes 16 bytes for each
MOST_FLOWS: Final = 1 << 21
_NUMBERS: Final = {"tcp": TCP, "udp": UDP}
_RING: Final = "ring-"
#: the maps that refer to each other: taken over together or not at all
_REFERRED: Final = ("translations", "slots", "services", "decisions", "tables")


@dataclass(frozen=True, slots=True)
class LoadedCarrier:
    """A loaded program, its maps, and the directory of its pins: descriptors, which forked
    processes inherit. ``early`` is the program for XDP, if a service wanted it. ``lacks`` has the
    forward methods that it cannot carry on this kernel, and why.
    """

    program: int
    pins: int
    maps: CarrierMaps
    early: int | None = None
    lacks: Mapping[Method, str] = field(default_factory=dict)

    def duplicate(self) -> Self:
        """A copy with duplicated descriptors, without rings."""
        early = None if self.early is None else os.dup(self.early)
        numbers = os.dup(self.program), os.dup(self.pins)
        return type(self)(*numbers, self.maps.duplicate(), early, self.lacks)

    def close(self) -> None:
        """Close the descriptors of this process; what is pinned stays."""
        os.close(self.program)
        os.close(self.pins)
        self.maps.close()
        if self.early is not None:
            os.close(self.early)


def load(config: Config, workers: int, *, resteered: bool = False) -> LoadedCarrier:
    """Load the program for ``config`` with the maps of an earlier daemon, or new ones, and attach
    it. If flows are ``resteered`` to other workers than those of the earlier daemon, the maps of
    flows are new.

    Raises ``CarrierUnavailableError`` with the reason; then nothing of the carrier is left.
    """
    try:
        return _load(config, workers, resteered=resteered)
    except CarrierUnavailableError:
        _give_up()
        raise
    except loader.LoadError as error:
        _give_up()
        raise unavailable(error.number, str(error)) from None
    except PlatformError as error:
        _give_up()
        raise CarrierUnavailableError(error.what, error.remedy) from error
    except OSError as error:
        _give_up()
        what = f"the kernel refuses BPF: {error.strerror or error}"
        raise unavailable(error.errno or 0, what) from error


def load_wanted(
    config: Config, workers: int, *, claimed: bool = True, resteered: bool = False
) -> tuple[LoadedCarrier | None, str]:
    """``load`` if a service of ``config`` wants BPF, else ``remove``; returns the carrier, or why
    there is none. If it is not ``claimed``, it is another daemon's, and stays.

    Raises ``CarrierUnavailableError`` if a service works with BPF only, and ``PlatformError``.
    """
    if not config.wants_bpf:
        if claimed:
            remove()
        return None, "no service wanted it when the daemon was started"
    try:
        if not claimed:
            raise CarrierUnavailableError(
                "another daemon has the BPF carrier of this network namespace",
                "stop it, or set `carrier: worker`",
            )
        return load(config, workers, resteered=resteered), ""
    except CarrierUnavailableError as error:
        for service in config.services:
            if _needs(service, error):
                what = f"service `{service.name}` has `carrier: {service.carrier}`,"
                what += f" but {error.what}"
                raise CarrierUnavailableError(what, error.remedy) from error
        return None, error.what


def _needs(service: Service, error: CarrierUnavailableError) -> bool:
    """Whether ``service`` cannot work because of ``error``."""
    if isinstance(error, XdpUnavailableError):
        return service.wants_xdp
    if isinstance(error, SourceUnavailableError):
        return service.needs_bpf and service.method.asks_for_source
    return service.needs_bpf


def remove_leftovers(place: Path = bpffs.PINS, *links: str) -> None:
    """Remove what network namespaces that are gone have left in the bpffs at ``place``: their maps
    would stay in memory. Names of ``links`` begin so. Raises ``PlatformError``, ``OSError``.

    A daemon that begins meanwhile is seen: it announces itself before it opens its directory. One
    that is down has links at interfaces.
    """
    for cookie, pins in bpffs.others(place).items():
        try:
            with bpffs.exclusive(place):
                if not daemons(cookie=cookie) and not is_attached(pins, *links):
                    for name in bpffs.names(pins):
                        bpffs.unpin(pins, name)
                    bpffs.remove_other(cookie, place)
        finally:
            os.close(pins)


def remove() -> bool:
    """Detach the program and remove all pins of this network namespace, and the bpffs with the
    last; False if there was nothing. Raises ``PlatformError``.
    """
    pins = bpffs.find_pins()
    if pins is not None:
        try:
            _clear(pins)
        except OSError as error:
            raise PlatformError(f"the BPF carrier cannot be removed: {error.strerror}") from error
        finally:
            os.close(pins)
    bpffs.remove_pins()
    return pins is not None


def undo() -> bool:
    """``remove``, and what ``prepare`` has stored; False if there was nothing to remove."""
    for path in RECORDS.values():
        path.unlink(missing_ok=True)
    lock_path("carrier").unlink(missing_ok=True)
    return remove()


def prepare(config: Config) -> list[str]:
    """Do what a daemon that systemd confines cannot do itself: the mount, the self-check.

    Returns why BPF will not carry the flows of ``config``, or those of some methods; empty if it
    will, or if no service wants it.
    """
    if not config.wants_bpf:
        return []
    try:
        require_kernel()
        if config.wants_xdp:
            require_xdp(config)
        os.close(bpffs.mounted())
        lacks = lacks_of(record(object_file(), program) for program in _wanted(config))
    except PlatformError as error:
        return [f"BPF will carry no flow: {error.what}"]
    except OSError as error:
        return [f"BPF will carry no flow: {error}"]
    return [
        f"BPF will carry no flow of {', '.join(names)}: {why}"
        for why, names in by_lack(config, lacks).items()
    ]


def check(config: Config) -> tuple[str, dict[Method, str]]:
    """Why BPF cannot carry the flows of ``config`` on this host, empty if it can, and why not those
    of some forward methods, by the method; does not change the host.

    Without root there is no self-check.
    """
    lacks = {}
    try:
        require_kernel()
        image = object_file()
        if os.geteuid() == 0:
            lacks = lacks_of((self_check(image),))
            require_some(config, lacks)
    except CarrierUnavailableError as error:
        return str(error), {}
    return "", lacks


def check_xdp(config: Config) -> str:
    """Why XDP cannot carry for ``config`` on this host, where BPF can; empty if it can, or if no
    service wants it. Raises ``PlatformError``.

    Without root there is no self-check.
    """
    try:
        if config.wants_xdp:
            require_xdp(config)
            if os.geteuid() == 0:
                self_check(object_file(), EARLY_PROGRAM)
    except CarrierUnavailableError as error:
        return str(error)
    return ""


def _wanted(config: Config) -> tuple[str, ...]:
    """The functions of the object file that ``config`` needs."""
    return (PROGRAM, EARLY_PROGRAM) if config.wants_xdp else (PROGRAM,)


def _sizes(config: Config, workers: int) -> dict[str, int]:
    """The entries of each map of flows: as many as ``workers`` may have together, within bounds;
    few where no service that wants BPF has such flows.
    """
    most = min(max(config.flows.max * workers, FLOWS), MOST_FLOWS)
    used = {
        (_NUMBERS[protocol], service.family)
        for service in config.services
        if service.wants_bpf
        for protocol in service.protocols
    }
    return {name: most if key in used else FLOWS for key, name in FLOW_MAPS.items()}


def _load(config: Config, workers: int, *, resteered: bool) -> LoadedCarrier:
    require_kernel()
    if config.wants_xdp:
        require_xdp(config)
    image = object_file()
    wanted = _wanted(config)
    lacks = lacks_of([checked(image, name) for name in wanted])
    require_needed(config, lacks)
    remove_leftovers()
    with contextlib.ExitStack() as stack:
        pins = bpffs.open_pins()
        stack.callback(os.close, pins)
        maps = _maps(pins, _sizes(config, workers), workers, resteered=resteered)
        stack.callback(maps.close)
        make_room(maps, config)
        program, *early = loader.load_programs(image, wanted, maps.numbers)
        for number in (program, *early):
            stack.callback(os.close, number)
        carrier = LoadedCarrier(program, pins, maps, early[0] if early else None, lacks)
        require_one(config, CarrierLinks(program, pins).reconcile())
        if carrier.early is not None:
            XdpLinks(carrier.early, pins, maps.devices, sides(config)).reconcile()
        links = (AT_TC.prefix, AT_XDP.prefix) if early else (AT_TC.prefix,)
        kept = {_pin(name) for name in SHAPES} | {_pin(f"{_RING}{i}") for i in range(workers)}
        for name in bpffs.names(pins):  # of other layouts, and of other workers
            if name not in kept and not name.startswith(links):
                bpffs.unpin(pins, name)
        stack.pop_all()
        return carrier


def _maps(pins: int, entries: Mapping[str, int], workers: int, *, resteered: bool) -> CarrierMaps:
    """The maps pinned in ``pins`` as far as they fit, and new ones, which are pinned."""
    fits = {
        name: replace(shape, entries=entries.get(name, shape.entries))
        for name, shape in SHAPES.items()
    }
    found = {name: _pinned(pins, name, shape) for name, shape in fits.items()}
    rings = {index: _pinned(pins, f"{_RING}{index}", RING_SHAPE) for index in range(workers)}
    resteered = resteered or _pin(f"{_RING}{workers}") in bpffs.names(pins)
    # A flow refers to its translation by index and to its worker by number.
    if resteered or None in (*(found[name] for name in _REFERRED), *rings.values()):
        for name in (*FLOW_MAPS.values(), *_REFERRED):
            _discard(pins, name, found.pop(name))
    numbers = {}
    for name, shape in fits.items():
        number = found.get(name)
        numbers[name] = _new(pins, name, create(name, shape.entries)) if number is None else number
    events = {
        index: _new(pins, f"{_RING}{index}", create_ring()) if ring is None else ring
        for index, ring in rings.items()
    }
    maps = CarrierMaps.of(numbers, events)
    maps.join_rings()
    return maps


def _pin(name: str) -> str:
    return f"{name}-{LAYOUT_VERSION}"


def _new(pins: int, name: str, number: int) -> int:
    """Pin a new map and return its descriptor."""
    syscall.pin(number, pins, _pin(name))
    return number


def _pinned(pins: int, name: str, wanted: MapInfo) -> int | None:
    """The descriptor of a pinned map like ``wanted``, with as many entries at least; None without
    one, and the pin of another is removed.
    """
    try:
        number = syscall.pinned(pins, _pin(name))
    except FileNotFoundError:
        return None
    found = syscall.map_info(number)
    if replace(found, entries=wanted.entries) == wanted and found.entries >= wanted.entries:
        return number
    _discard(pins, name, number)
    return None


def _discard(pins: int, name: str, number: int | None) -> None:
    """Forget a map that an earlier daemon has pinned."""
    if number is not None:
        os.close(number)
        bpffs.unpin(pins, _pin(name))


def _clear(pins: int) -> None:
    detach_all(pins)
    for name in bpffs.names(pins):
        bpffs.unpin(pins, name)


def _give_up() -> None:
    """Remove everything, since no worker would have the carried flows."""
    with contextlib.suppress(PlatformError):
        remove()
