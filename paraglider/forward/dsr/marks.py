"""Marks of the routes to dsr backends.

Lives here: ``dsr_services``, ``route_marks``, ``route_family``.
Rules: a mark depends on the backend's address only, since only the route depends on it. Pure.
"""

from __future__ import annotations

from paraglider.config.model import Config, Service
from paraglider.config.types import IPAddress
from paraglider.netfilter.rules.marks import DSR_BASE, FAMILY_BIT, LEASE, free_mark


def dsr_services(config: Config, family: int) -> tuple[Service, ...]:
    """The services of ``family`` (4 or 6) with this method."""
    return tuple(s for s in config.services if s.family == family and s.forward == "dsr")


def route_marks(config: Config, family: int) -> dict[IPAddress, int]:
    """The mark of every backend of the ``forward: dsr`` services of ``family``, by its address."""
    services = dsr_services(config, family)
    taken: set[int] = set()
    marks: dict[IPAddress, int] = {}
    for address in sorted({b.address for s in services for b in s.backends}, key=str):
        marks[address] = free_mark(str(address), DSR_BASE | FAMILY_BIT[family], LEASE, taken)
        taken.add(marks[address])
    return marks


def route_family(mark: int) -> int:
    """The family (4 or 6) of the backend whose route has ``mark``."""
    return 6 if mark & FAMILY_BIT[6] else 4
