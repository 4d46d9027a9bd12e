"""Follows the addresses of this host that the file names by their interface.

Lives here: ``OwnAddressInput``.
Rules: level-triggered: every PERIOD seconds the host is compared with the configuration, whatever
was done before. A change that is the same at two comparisons is applied as by a reload, from the
file as it was read; one that could not be applied is tried again after RETRY seconds. An address
that is gone stays in use, and is a condition. Time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Final

from paraglider.config.addresses import fill_addresses, own_addresses
from paraglider.config.diagnostics import Problem
from paraglider.config.model import Config
from paraglider.config.types import IPInterface
from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.settings import Read
from paraglider.host.own_addresses import host_addresses

#: seconds between two comparisons
PERIOD: Final = 1.0
#: seconds until a change that could not be applied is tried again
RETRY: Final = 30.0


class OwnAddressInput:
    """Compares the file as last read and applied, ``read``, with the host. ``host`` has its
    addresses, by interface.
    """

    def __init__(
        self,
        conditions: Conditions,
        read: Read,
        host: Callable[[], Mapping[str, Sequence[IPInterface]]] = host_addresses,
    ) -> None:
        self._conditions = conditions
        self._read = read
        self._host = host
        self._next = 0.0
        self._seen: Config | None = None  # at the last comparison, if it is not the applied one
        self._tried: tuple[Config, float] | None = None  # and when

    def note_applied(self, read: Read) -> None:
        """The file was applied as ``read``."""
        self._read = read
        self._seen = self._tried = None

    def wait(self, now: float) -> float:
        """Seconds until the next comparison."""
        return max(0.0, self._next - now) if any(own_addresses(self._read.config)) else inf

    def changed(self, now: float) -> Read | None:
        """Compare, if it is time; returns what is to be applied: the file as it was read, with the
        addresses that the host has now. Backends that are listed elsewhere stay as they are.
        """
        if self.wait(now) or not any(own_addresses(self._read.config)):
            return None
        self._next = now + PERIOD
        filled = fill_addresses(self._read.config, (4, 6), self._host())
        self._conditions.report("addresses", dict(self._condition(p) for p in filled.problems))
        before, self._seen = self._seen, filled.config
        if filled.config == self._read.config or filled.config != before:
            return None
        tried, at = self._tried or (None, -RETRY)
        if tried == filled.config and now < at + RETRY:
            return None
        self._tried = filled.config, now
        return replace(self._read, config=filled.config, listed={})

    def _condition(self, problem: Problem) -> tuple[str, Condition]:
        """The object and the condition of an address that is gone: of `snat` the service, whose
        clients have no answers then.
        """
        text = f"{problem.what}; the last one stays in use; {problem.remedy}"
        section, number, *_ = problem.path
        if section == "services":
            service = self._read.config.services[int(number)]
            return f"service {service.name}", Condition("unhealthy", text)
        return "network", Condition("degraded", text)
