"""Attaches the carrier's program at XDP, in front of the one at tc, and lists interfaces for it.

Lives here: ``XdpLinks``.
Rules: as in ``carrier_links``. The program carries nothing at an interface that is not listed in
the map ``devices``, and sends nothing by one that does not take frames of XDP. The list is emptied
before the program is switched off, since some drivers take such frames only while they have one.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from paraglider.bpf.layout import DEVICE, INDEX
from paraglider.bpf.maps import Map
from paraglider.host.carrier_links import AT_XDP, AttachResult, CarrierLinks
from paraglider.host.xdp_devices import XdpDevice, xdp_devices

_OFF: Final = AttachResult((), (), {}, 0)


class XdpLinks:
    """The links at XDP of ``program`` in the open directory ``pins``, and the map ``devices``;
    ``names`` are the interfaces to attach to, all if empty; not ``on``, it is to none.
    """

    def __init__(
        self,
        program: int,
        pins: int,
        devices: Map,
        names: Collection[str] = (),
        *,
        on: bool = True,
    ) -> None:
        self._links = CarrierLinks(program, pins, self._able, hook=AT_XDP, on=on)
        self._devices = devices
        self._names = names
        self._on = on
        self._turn = threading.Lock()
        self._found: Mapping[int, XdpDevice] = {}

    def limit(self, names: Collection[str]) -> None:
        """Attach the program to the interfaces ``names`` alone, to all if empty, from the next turn
        on.
        """
        with self._turn:
            self._names = names

    def switch(self, *, on: bool) -> AttachResult:
        """Attach the program, or detach it until it is switched on; raises as ``reconcile``."""
        with self._turn:
            self._on = on
        return self.reconcile()

    def reconcile(self) -> AttachResult:
        """Attach the program to every interface that can run it, detach it from others, and list
        those that take frames of XDP. ``failed`` has also the interfaces that cannot run it.

        Raises ``PlatformError`` if the interfaces cannot be listed, ``OSError`` for maps and pins.
        """
        with self._turn:
            if not self._on:
                self._list({})
                self._links.switch(on=False)
                return _OFF
            self._found = xdp_devices()
            able = self._able()
            self._list(self._found, only_remove=True)
            result = self._links.switch(on=True)
            # Some drivers take frames of XDP only now.
            self._list(xdp_devices() if result.attached or result.detached else self._found)
            lacking = {
                one.name: one.lacks
                for index, one in self._found.items()
                if index not in able and self._is_meant(one)
            }
            return replace(result, failed=lacking | dict(result.failed))

    def _able(self) -> dict[int, str]:
        """The interfaces that can run the program, by index."""
        found = self._found.items()
        return {i: one.name for i, one in found if not one.lacks and self._is_meant(one)}

    def _is_meant(self, device: XdpDevice) -> bool:
        return not self._names or device.name in self._names

    def _list(self, found: Mapping[int, XdpDevice], *, only_remove: bool = False) -> None:
        """Write the interfaces to the map; with ``only_remove``, remove those that have changed."""
        wanted = {
            INDEX.pack(index): DEVICE.pack(one.mac, one.sends) for index, one in found.items()
        }
        known: dict[bytes, bytes] = {}
        for keys, values, count in self._devices.dump():
            for at in range(count):
                key = keys[at * INDEX.size : (at + 1) * INDEX.size]
                known[key] = values[at * DEVICE.size : (at + 1) * DEVICE.size]
        for key, value in known.items():
            if wanted.get(key) != value:
                self._devices.delete(key)
        for key, value in wanted.items():
            if not only_remove and known.get(key) != value:
                self._devices.put(key, value)
