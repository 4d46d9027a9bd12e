"""The BPF carrier in the host helper: follows the interfaces, is switched, and is read.

Lives here: ``CarrierAttachment``.
Rules: level-triggered; the next turn finds an interface that was added, removed or became a port. A
refusal of the kernel is logged once, with what carries the packets of that interface instead. If
the interfaces cannot be listed, nothing is changed, at one hook or both. While no service
wants BPF, the program is attached nowhere, since its maps may have entries of flows that no worker
has.
``switch`` and ``read`` may be called by another thread than ``reconcile`` and ``apply_config``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from paraglider.bpf.layout import INDEX, REASONS
from paraglider.config.model import Config
from paraglider.daemon.messages import CarrierDevices, CarrierReading, SlotCount
from paraglider.errors import PlatformError
from paraglider.host.carrier import LoadedCarrier
from paraglider.host.carrier_links import AttachResult, CarrierLinks
from paraglider.host.xdp_devices import sides
from paraglider.host.xdp_links import XdpLinks

_NAME = 8  # bytes of a slot's name


class CarrierAttachment:
    """The links and the counters of ``loaded``, for ``config``. ``on`` is the position of the
    switch.
    """

    def __init__(
        self, loaded: LoadedCarrier, config: Config, logger: Any, *, on: bool = True
    ) -> None:
        self._maps = loaded.maps
        self._on, self._wanted, self._at_xdp = on, config.wants_bpf, config.wants_xdp
        self._links = CarrierLinks(loaded.program, loaded.pins, on=on and self._wanted)
        self._xdp, self._sides = None, sides(config)
        if loaded.early is not None:
            place = (loaded.early, loaded.pins, loaded.maps.devices, self._sides)
            self._xdp = XdpLinks(*place, on=on and self._at_xdp)
        self._turn = threading.Lock()
        self._log = logger
        self._tc = self._early = AttachResult((), (), {}, 0)
        self._said: dict[str, tuple[str, str]] = {}  # by interface: the message, and why
        self._unchecked: dict[str, str] = {}  # by hook: why its interfaces could not be compared

    def reconcile(self) -> None:
        """Attach to new interfaces, and forget removed ones."""
        with self._turn:
            with self._checking("tc"):
                self._tc = self._links.reconcile()
            if self._xdp is not None:
                with self._checking("XDP"):
                    self._early = self._xdp.reconcile()
            self._note()

    def apply_config(self, config: Config) -> None:
        """Attach the program if a service of ``config`` wants BPF, else detach it; at XDP to the
        interfaces of ``config``.
        """
        with self._turn:
            wanted = (config.wants_bpf, config.wants_xdp, sides(config))
            if wanted == (self._wanted, self._at_xdp, self._sides):
                return
            self._wanted, self._at_xdp, self._sides = wanted
            if self._xdp is not None:
                self._xdp.limit(self._sides)
            for hook, switch in self._switches():
                with self._checking(hook):  # the next turn tries again
                    switch()
            self._note()

    def switch(self, *, on: bool) -> CarrierDevices:
        """Attach the program everywhere, or detach it; returns the interfaces that have it.

        Raises ``PlatformError`` if the kernel refuses; then the position is as it was.
        """
        with self._turn:
            before, self._on = self._on, on
            try:
                for _, switch in self._switches():
                    switch()
                if on and self._wanted and not (self._tc.present or self._early.present):
                    failed = self._tc.failed.items()
                    why = "; ".join(f"{name}: {reason}" for name, reason in failed)
                    raise PlatformError(f"no interface has the program: {why or 'there is none'}")
            except (PlatformError, OSError) as error:
                self._on = before
                for hook, switch in self._switches():
                    with self._checking(hook):
                        switch()
                if isinstance(error, PlatformError):
                    raise
                raise PlatformError(f"the kernel refuses: {error.strerror or error}") from error
            finally:
                self._note()
            return CarrierDevices(devices=self._tc.present, xdp=self._early.present)

    def _switches(self) -> list[tuple[str, Callable[[], None]]]:
        """What attaches or detaches each program, by its hook; that at XDP goes first and comes
        last, since it leaves packets to the other.
        """
        on = self._on and self._wanted
        early = on and self._at_xdp

        def at_tc() -> None:
            self._tc = self._links.switch(on=on)

        def at_xdp() -> None:
            if self._xdp is not None:
                self._early = self._xdp.switch(on=early)

        both: list[tuple[str, Callable[[], None]]] = [("tc", at_tc), ("XDP", at_xdp)]
        return both if early else both[::-1]

    @contextlib.contextmanager
    def _checking(self, hook: str) -> Iterator[None]:
        """Log an error once: the interfaces keep what they have at ``hook``."""
        try:
            yield
        except (PlatformError, OSError) as error:
            if self._unchecked.get(hook) != str(error):
                event = "carrier not checked, interfaces keep what they have"
                self._log.warning(event, hook=hook, why=str(error))
            self._unchecked[hook] = str(error)
        else:
            self._unchecked.pop(hook, None)

    def read(self) -> CarrierReading:
        """The counters since the maps were made; raises ``OSError``."""
        slots: dict[str, SlotCount] = {}
        for keys, names, count in self._maps.slots.dump():
            for at in range(count):
                (index,) = INDEX.unpack_from(keys, at * INDEX.size)
                name = names[at * _NAME : (at + 1) * _NAME].hex()
                # Two workers may have found two slots for one name, when one became free.
                both = zip(slots.get(name, (0,) * 4), self._maps.traffic.total(index), strict=True)
                slots[name] = SlotCount(*map(sum, both))
        reasons = {name: self._maps.reasons.total(at)[0] for at, name in enumerate(REASONS)}
        return CarrierReading(
            devices=self._tc.present,
            failed=dict(self._tc.failed),
            xdp=self._early.present,
            no_xdp=dict(self._early.failed),
            slots=slots,
            reasons=reasons,
        )

    def _note(self) -> None:
        """Log the interfaces that are new, and what is new of those where the kernel refuses."""
        for name in self._tc.attached:
            self._log.info("carrier attached", interface=name)
        for name in self._early.attached:
            self._log.info("carrier attached at XDP", interface=name)
        found = {}
        for name, why in self._early.failed.items():
            found[name] = ("carrier not at XDP, carries at tc", why)
        for name, why in self._tc.failed.items():
            carry = "XDP and workers carry" if name in self._early.present else "workers carry"
            found[name] = (f"carrier not attached, {carry}", why)
        for name, (event, why) in found.items():
            if self._said.get(name) != (event, why):
                self._log.warning(event, interface=name, why=why)
        self._said = found
        self._tc, self._early = (replace(one, attached=()) for one in (self._tc, self._early))
