"""Follows the addresses of this host that the file names by their interface.

Lives here: ``OwnAddressInput``.
Rules: level-triggered: every PERIOD seconds the last report of the host helper is compared with the
configuration, whatever was done before; a report that the configuration agrees with is not compared
again. A change that is the same at two comparisons is applied as by a reload, from the file as it
was read; one that could not be applied is tried again after RETRY seconds. An address that is gone
stays in use, and is a condition. Time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Final

from paraglider.config.addresses import fill_addresses, own_addresses
from paraglider.config.diagnostics import Problem
from paraglider.config.model import Config
from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.messages import HostAddresses
from paraglider.daemon.settings import Read

#: seconds between two comparisons
PERIOD: Final = 1.0
#: seconds until a change that could not be applied is tried again
RETRY: Final = 30.0


class OwnAddressInput:
    """Compares the file as last read and applied, ``read``, with the host; ``reported`` returns the
    last report about its addresses, None before the first.
    """

    def __init__(
        self,
        conditions: Conditions,
        read: Read,
        reported: Callable[[], HostAddresses | None],
    ) -> None:
        self._conditions = conditions
        self._reported = reported
        self._settled: HostAddresses | None = None  # what the applied file has
        self._next = 0.0
        self._seen: Config | None = None  # at the last comparison, if it is not the applied one
        self._tried: tuple[Config, float] | None = None  # and when
        self._set(read)

    def note_applied(self, read: Read) -> None:
        """The file was applied as ``read``."""
        self._set(read)
        self._seen = self._tried = self._settled = None
        if not self._named:
            self._conditions.report("addresses", {})

    def _set(self, read: Read) -> None:
        self._read = read
        self._named = {own.interface for _, own in own_addresses(read.config)}

    def wait(self, now: float) -> float:
        """Seconds until the next comparison."""
        return max(0.0, self._next - now) if self._named else inf

    def changed(self, now: float) -> Read | None:
        """Compare, if it is time; returns what is to be applied: the file as it was read, with the
        addresses that the host has now. Backends that are listed elsewhere stay as they are.
        """
        if self.wait(now):
            return None
        self._next = now + PERIOD
        report = self._reported()
        if report is None or report is self._settled or not self._covers(report):
            return None
        host = {name: report.addresses.get(name, ()) for name in report.interfaces}
        filled = fill_addresses(self._read.config, (4, 6), host)
        self._conditions.report("addresses", dict(self._condition(p) for p in filled.problems))
        before, self._seen = self._seen, filled.config
        if filled.config == self._read.config:
            self._settled = report
            return None
        if filled.config != before:
            return None
        tried, at = self._tried or (None, -RETRY)
        if tried == filled.config and now < at + RETRY:
            return None
        self._tried = filled.config, now
        return replace(self._read, config=filled.config, listed={})

    def _covers(self, report: HostAddresses) -> bool:
        """Whether ``report`` is about all interfaces that the file names; it may be about those of
        the file before.
        """
        return self._named & set(report.interfaces) <= report.addresses.keys()

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
