"""Packets and bytes that BPF carried, by backend and service, since the start of the daemon.

The counters in the maps start when the maps are created, and survive workers and the daemon. The
sums here start with the daemon, like those of the workers, to which they are added.

Lives here: ``CarriedCounters``.
Rules: uses the host helper's readings; a service keeps the sums of removed backends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from paraglider.config.model import Config
from paraglider.daemon.messages import CarrierReading, SlotCount
from paraglider.forward.bpf.slot_names import slot_names

#: names of ``stats.traffic``, in the order of ``SlotCount``: ``in`` goes to the backend
_NAMES: Final = ("packets_in", "bytes_in", "packets_out", "bytes_out")
_NONE: Final = SlotCount(0, 0, 0, 0)

#: service and backend, by their names
Key = tuple[str, str]


class CarriedCounters:
    """The counters of BPF for the services of ``config``; ``begun`` is the reading from before the
    start of the daemon.
    """

    def __init__(self, config: Config, begun: CarrierReading) -> None:
        self._backends: dict[Key, Counter[str]] = {}
        self._services: dict[str, Counter[str]] = {}
        self._last = dict(begun.slots)
        self.apply_config(config)

    def apply_config(self, config: Config) -> None:
        """Use the services of ``config`` from now on."""
        self._keys = {name.hex(): key for name, key in slot_names(config).items()}
        keys = set(self._keys.values())
        self._backends = {key: self._backends.get(key, Counter()) for key in keys}
        self._services = {name: self._services.get(name, Counter()) for name, _ in keys}

    def update(self, reading: CarrierReading) -> None:
        """Add the growth since the last reading."""
        for name, key in self._keys.items():
            before = self._last.get(name, _NONE)
            count = reading.slots.get(name, before)
            if count.packets_out < before.packets_out or count.packets_back < before.packets_back:
                before = _NONE  # other maps
            for sums in (self._backends[key], self._services[key[0]]):
                for which, now, then in zip(_NAMES, count, before, strict=True):
                    sums[which] += now - then
        self._last |= reading.slots

    def backend(self, key: Key) -> Mapping[str, int]:
        """What BPF carried for one backend; empty if its service is not carried by BPF."""
        return self._backends.get(key, {})

    def service(self, name: str) -> Mapping[str, int]:
        """The sums over the backends of ``name``, including removed ones."""
        return self._services.get(name, {})
