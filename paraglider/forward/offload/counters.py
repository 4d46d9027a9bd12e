"""Packets and bytes of offloaded flows each way, and their live flows, by backend.

No worker sees these packets. The nft tables count them from the set-up on; the sums here start with
the daemon, so that all displayed counters have the same start. The conntrack counter counts live
flows (``workers.conntrack_counter``).

Rules: counters that cannot be read keep their last value. A service keeps the sums of removed
backends.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from paraglider.config.model import Config
from paraglider.netfilter.nfnetlink import CounterValue, carried_counters
from paraglider.netfilter.rules.marks import backend_marks

#: names of the tables → names of ``views``, of packets and bytes; ``in`` goes to the backend. Of a
#: connection that is adopted the first packet is counted
_NAMES: Final = {
    "requests": ("packets_in", "bytes_in"),
    "replies": ("packets_out", "bytes_out"),
    "adopted": ("adopted",),
}

Read = Callable[[int], Mapping[int, Mapping[str, CounterValue]]]

#: service and backend, by their names
Key = tuple[str, str]


class KernelCounters:
    """The kernel's counters of the offload services of ``config``."""

    def __init__(
        self,
        config: Config,
        read: Read = carried_counters,
    ) -> None:
        self._read = read
        self._backends: dict[Key, Counter[str]] = {}
        self._services: dict[str, Counter[str]] = {}
        self._last: dict[tuple[int, str], CounterValue] = {}
        #: when the tables were last read (monotonic seconds)
        self.read_at = 0.0
        self._live: dict[Key, tuple[int, int]] = {}
        self.apply_config(config)
        self._add_growth(first=True)

    def apply_config(self, config: Config) -> None:
        """Use the services of ``config`` from now on."""
        marks = backend_marks(config)
        services = [service for service in config.services if service.method.conntracked]
        self._families = sorted({service.family for service in services})
        self._keys = {
            mark: (service.name, backend.name)
            for service in services
            for mark, backend in zip(marks[service.name], service.backends, strict=True)
        }
        keys, names = set(self._keys.values()), {service.name for service in services}
        self._backends = {key: self._backends.get(key, Counter()) for key in keys}
        self._services = {name: self._services.get(name, Counter()) for name in names}
        self._last = {which: count for which, count in self._last.items() if which[0] in self._keys}

    def update(self, now: float) -> None:
        """Add the growth of the tables' counters, which were read at ``now``."""
        self.read_at = now
        self._add_growth()

    def count(self, live: Mapping[int, tuple[int, int]]) -> None:
        """Set the numbers of flows by mark: live ones, and closed ones that conntrack remembers."""
        self._live = {self._keys[mark]: n for mark, n in live.items() if mark in self._keys}

    def backend(self, key: Key) -> Mapping[str, int]:
        """The counters of one backend; empty if the kernel does not carry its flows."""
        if key not in self._backends:
            return {}
        live = [self._live[key]] if key in self._live else []
        return {**_shown(self._backends[key]), **_summed(live)}

    def service(self, name: str) -> Mapping[str, int]:
        """The sums over the backends of ``name``, including removed ones except for live flows."""
        if name not in self._services:
            return {}
        live = [counts for key, counts in self._live.items() if key[0] == name]
        return {**_shown(self._services[name]), **_summed(live)}

    def _add_growth(self, *, first: bool = False) -> None:
        """Add what the tables counted since the last call; at the ``first`` call nothing, because
        the values are from before the daemon.
        """
        for mark, what, count in self._counts():
            before = self._last.get((mark, what), count if first else CounterValue(0, 0))
            self._last[mark, what] = count
            if count.packets < before.packets:  # another table
                before = CounterValue(0, 0)
            key = self._keys[mark]
            for sums in (self._backends[key], self._services[key[0]]):
                for name, now, then in zip(_NAMES[what], count, before, strict=False):
                    sums[name] += now - then

    def _counts(self) -> Iterator[tuple[int, str, CounterValue]]:
        for family in self._families:
            with contextlib.suppress(OSError):  # ``table_monitor`` reports it
                for mark, counts in self._read(family).items():
                    if mark in self._keys:
                        yield from ((mark, what, count) for what, count in counts.items())


def _summed(live: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Sums by the names of ``views``; empty if there are none."""
    return {
        name: sum(n)
        for name, n in zip(("flows", "inactive"), zip(*live, strict=True), strict=False)
    }


def _shown(sums: Mapping[str, int]) -> dict[str, int]:
    return {name: sums[name] for names in _NAMES.values() for name in names}
