"""Counters of backends and services, added up over the workers and the kernel.

Rules: pure. Packets and bytes are counted from the client's side: ``in`` goes to the backend,
``out`` to the client; None where neither a worker nor the kernel counts them. Counters of workers
are sums since the start of the daemon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from paraglider.daemon.processes.child import Child
from paraglider.daemon.shared_memory.counters import Sample
from paraglider.daemon.stats.carried import CarriedCounters
from paraglider.forward.offload.counters import KernelCounters

_COUNTED: Final = {
    "flows": "flows",
    "inactive": "inactive",
    "conns": "conns",
    "packets_in": "packets_out",
    "bytes_in": "bytes_out",
    "packets_out": "packets_back",
    "bytes_out": "bytes_back",
    "refused": "refused",
    "timeouts": "timeouts",
    "retried": "retried",
    "idle": "idle",
    "resets": "resets",
    "unanswered": "unanswered",
    "adopted": "adopted",
}

#: the workers' counters, by process number
Samples = Mapping[int, Sample]


def samples(children: Iterable[Child]) -> Samples:
    """The counters of those of ``children`` that carry flows."""
    return {c.spec.index: c.spec.counters.read() for c in children if c.spec.counters is not None}


class TrafficCounters:
    """Sums over the workers' counters, plus those of BPF (``carried``), or those of conntrack
    (``kernel``) in their place; None if neither counts it.
    """

    def __init__(
        self,
        samples: Samples,
        kernel: KernelCounters | None = None,
        carried: CarriedCounters | None = None,
    ) -> None:
        self._samples = tuple(samples.values())
        self._kernel = kernel
        self._carried = carried

    def of(self, service: str, backend: str) -> dict[str, int | None]:
        """The counters of one backend."""
        sums = _sums(sample.backend(service, backend) for sample in self._samples)
        if self._carried is not None:
            _add(sums, self._carried.backend((service, backend)))
        if self._kernel is not None:
            _replace(sums, self._kernel.backend((service, backend)))
        return sums

    def total(self, service: str) -> dict[str, int | None]:
        """The counters of a service, including removed backends."""
        sums = _sums(sample.service(service) for sample in self._samples)
        if self._carried is not None:
            _add(sums, self._carried.service(service))
        if self._kernel is not None:
            _replace(sums, self._kernel.service(service))
        return sums


def _replace(sums: dict[str, int | None], kernel: Mapping[str, int]) -> None:
    """Put the numbers of ``kernel`` in the place of the workers', but for the connections that it
    has adopted itself, which no worker has counted.
    """
    more = {name: (sums[name] or 0) + kernel.get("adopted", 0) for name in ("adopted", "conns")}
    sums.update(kernel)
    if "adopted" in kernel:
        sums.update(more)
        sums["picked"] = sums["conns"]


def _add(sums: dict[str, int | None], more: Mapping[str, int]) -> None:
    for name, value in more.items():
        if value:  # BPF has counters for what it may not see too: replies that pass elsewhere
            sums[name] = (sums[name] or 0) + value


def _sums(found: Iterable[Mapping[str, int]]) -> dict[str, int | None]:
    sums: dict[str, int | None] = dict.fromkeys(_COUNTED)
    for numbers in found:
        for name, theirs in _COUNTED.items():
            if theirs in numbers:
                sums[name] = (sums[name] or 0) + numbers[theirs]
    sums["picked"] = sums["conns"]  # deprecated: read "conns"
    return sums
