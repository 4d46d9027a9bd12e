"""Maps a connection to its backend's mark, by VIP, protocol and port, not by the service's name.

Lives here: ``Claims``, the marks of a family's ``forward: offload`` services by the fields of a
conntrack entry. If services share a VIP and protocol, the narrower one has its ports, as in
``core.service``.
Rules: pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from paraglider.config.model import Service
from paraglider.netfilter.rules.marks import target_port

_TCP, _UDP = 6, 17
_PROTOCOLS: Final = {"tcp": (_TCP,), "udp": (_UDP,), "any": (_TCP, _UDP, 1, 58)}

_Pool = dict[tuple[bytes, int], int]
"""Mark by a backend's address (packed) and port, 0 where the client's is kept."""


class Claims:
    """The VIPs and ports of ``services``; ``marks`` are of their backends, by service name."""

    def __init__(self, services: Iterable[Service], marks: Mapping[str, Sequence[int]]) -> None:
        self._spans: dict[tuple[int, bytes], list[tuple[int, int, _Pool]]] = {}
        for service in sorted(services, key=lambda service: service.all_ports):
            pool = {
                (backend.address.packed, target_port(service, backend)): mark
                for backend, mark in zip(service.backends, marks[service.name], strict=True)
            }
            for protocol in _PROTOCOLS[service.protocol]:
                spans = self._spans.setdefault((protocol, service.vip.ip.packed), [])
                spans += ((ports.first, ports.last, pool) for ports in service.ports)

    def mark(
        self, protocol: int, vip: bytes, port: int, backend: bytes, backend_port: int
    ) -> int | None:
        """The mark of the backend of a connection to ``vip`` (packed) and ``port``, which is
        translated to ``backend`` (packed) and ``backend_port``; None if no service has it.

        ``protocol`` is the IP protocol's number; for ICMP echo the ports are ignored.
        """
        echo = protocol not in (_TCP, _UDP)
        for first, last, pool in self._spans.get((protocol, vip), ()):
            if echo or first <= port <= last:
                mark = None if echo else pool.get((backend, backend_port))
                if mark is None and (echo or port == backend_port):
                    mark = pool.get((backend, 0))
                return mark
        return None
