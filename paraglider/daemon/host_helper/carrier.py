"""The BPF carrier in the host helper: follows the interfaces, is switched, and is read.

Lives here: ``CarrierAttachment``.
Rules: level-triggered; the next turn finds an interface that was added, removed or became a port. A
refusal of the kernel is logged once; packets of that interface pass the workers. While no service
wants BPF, the program is attached nowhere, since its maps may have entries of flows that no worker
has.
``switch`` and ``read`` may be called by another thread than ``reconcile`` and ``apply_config``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
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
        self._devices: tuple[str, ...] = ()
        self._xdp_devices: tuple[str, ...] = ()
        self._failed: Mapping[str, str] = {}
        self._no_xdp: Mapping[str, str] = {}

    def reconcile(self) -> None:
        """Attach to new interfaces, and forget removed ones."""
        try:
            result = self._links.reconcile()
            early = None if self._xdp is None else self._xdp.reconcile()
        except (PlatformError, OSError) as error:
            self._note({"": str(error)})
            return
        for interface in result.attached:
            self._log.info("carrier attached", interface=interface)
        self._note(result.failed)
        self._devices = result.present
        if early is not None:
            self._note_xdp(early)

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
            try:
                self._devices = self._switch().present
            except (PlatformError, OSError) as error:  # the next turn tries again
                self._note({"": str(error)})

    def switch(self, *, on: bool) -> CarrierDevices:
        """Attach the program everywhere, or detach it; returns the interfaces that have it.

        Raises ``PlatformError`` if the kernel refuses.
        """
        with self._turn:
            self._on = on
            try:
                result = self._switch()
            except OSError as error:
                raise PlatformError(f"the kernel refuses: {error.strerror or error}") from error
            self._devices = result.present
        if on and self._wanted and not result.present:
            why = "; ".join(f"{name}: {reason}" for name, reason in result.failed.items())
            raise PlatformError(f"no interface has the program: {why or 'there is none'}")
        return CarrierDevices(devices=result.present, xdp=self._xdp_devices)

    def _switch(self) -> AttachResult:
        """Attach or detach both programs; that at XDP goes first and comes last, since it leaves
        packets to the other.
        """
        on = self._on and self._wanted
        early = self._xdp is not None and on and self._at_xdp
        if self._xdp is not None and not early:
            self._note_xdp(self._xdp.switch(on=False))
        result = self._links.switch(on=on)
        if self._xdp is not None and early:
            self._note_xdp(self._xdp.switch(on=True))
        return result

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
            devices=self._devices,
            xdp=self._xdp_devices,
            no_xdp=dict(self._no_xdp),
            slots=slots,
            reasons=reasons,
        )

    def _note_xdp(self, result: AttachResult) -> None:
        """Log what is new at XDP."""
        for interface in result.attached:
            self._log.info("carrier attached at XDP", interface=interface)
        for interface, why in result.failed.items():
            if self._no_xdp.get(interface) != why:
                self._log.warning("carrier not at XDP, carries at tc", interface=interface, why=why)
        self._xdp_devices, self._no_xdp = result.present, result.failed

    def _note(self, failed: Mapping[str, str]) -> None:
        """Log new failures."""
        for name, why in failed.items():
            if self._failed.get(name) != why:
                self._log.warning(
                    "carrier not attached, workers carry", interface=name or "all", why=why
                )
        self._failed = failed
