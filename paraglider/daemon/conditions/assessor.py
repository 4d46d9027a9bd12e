"""Assesses the processes and the services periodically, without memory of its findings.

    services    none of the backends takes new flows
    pools       fewer than `min_ready` backends take new flows
    checks      a check that passes warns: a certificate ends soon
    deciding    the kernel has no room for a service's table
    processes   one is not running: dead, starting, waiting to be restarted, hanging. While it is
                being replaced, which takes less than REPLACEMENT seconds, that is not unhealthy,
                unless it keeps dying; and no condition at all if it was asked to exit
    workers     counters of workers: flows that were refused or near their bound, packets that were
                dropped before a worker read them, flows that would not survive the worker

A counter is a condition while it has grown within the last LATELY seconds. Gauges are used as they
are.

Lives here: ``Assessor``.
Rules: pure; time is an argument. Reports to ``conditions.table.Conditions``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from paraglider.config.backend import least_ready
from paraglider.config.deciding import NO_ROOM, kernel_decides
from paraglider.config.model import Config, Service
from paraglider.daemon.conditions.carrier import CarrierSwitch
from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.processes.child import DEATHS, DEATHS_WITHIN, Child
from paraglider.daemon.processes.hangs import SILENT
from paraglider.daemon.processes.spec import CARRIERS
from paraglider.daemon.shared_memory.counters import Sample
from paraglider.daemon.store.backends import BackendTable

#: seconds between two assessments
INTERVAL: Final = 1.0
#: seconds for which a counter that has grown is a condition
LATELY: Final = 15.0
#: shares of `flows.max` at which the condition begins and ends
NEAR: Final = 0.8
NO_LONGER_NEAR: Final = 0.75
#: seconds in which a process is replaced: one that hangs is killed after four, and a successor
#: restores half a million flows a second
REPLACEMENT: Final = 10.0
#: a service whose backends take no new flows
UNSERVED: Final = Condition(
    "unhealthy", "no backend takes new flows; see `paraglider show backends`"
)

#: counter of a worker → the condition while it grows
_GROWING: Final = {
    "table_full": Condition(
        "unhealthy", "refuses new flows, the flow table is full; raise `flows.max`"
    ),
    "overflows": Condition(
        "degraded",
        "packets are dropped, its queue is full; see `paraglider show workers` for how busy it is, "
        "and give it more cores (`workers`)",
    ),
    "openings_dropped": Condition(
        "degraded",
        "openings are dropped, their queue is full: a flood of SYNs, or too few cores (`workers`); "
        "established flows are served first",
    ),
    "flooded": Condition(
        "degraded",
        "BPF decides about more new flows than `queue.openings_rate` without entries for them, or "
        "leaves them to the workers: a flood, or the rate is too low for the new clients",
    ),
    "overruns": Condition(
        "degraded",
        "packets are dropped, the buffer of its socket is full; raise net.core.rmem_max",
    ),
    "unwritten": Condition(
        "degraded",
        "flows are not in the journal and would not survive this worker; make room in /run",
    ),
    "exhausted": Condition(
        "degraded", "no file descriptor is left to accept with; raise LimitNOFILE of the service"
    ),
}


class Assessor:
    """Assesses processes and services, and reports to ``conditions``."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions
        self._next = 0.0
        self._counts: dict[tuple[int, str], int] = {}
        self._grew: dict[tuple[int, str], float] = {}
        self._near: set[int] = set()

    def wait(self, now: float) -> float:
        """Seconds until the next assessment is due."""
        return max(0.0, self._next - now)

    def services(self, config: Config, pools: BackendTable) -> None:
        """Assess the services of ``config``."""
        found = {
            f"service {service.name}": UNSERVED
            for service, served in serving(config.services, pools)
            if not served
        }
        self._conditions.report("services", found)
        self._conditions.report("pools", dict(_partial(config.services, pools)))

    def checks(self, config: Config, pools: BackendTable) -> None:
        """Assess the last checks of the services of ``config``: one line for each service."""
        found: dict[str, Condition] = {}
        for service in config.services:
            if service.check is None:
                continue
            checks = ((member.backend, member.check) for member in pools.of(service.name))
            warned = [(name, last.warning) for name, last in checks if last and last.warning]
            if warned:
                name, what = warned[0]
                others = f" and {len(warned) - 1} more" if len(warned) > 1 else ""
                text = f"{what} (backend {name}{others}); renew it"
                found[f"service {service.name}"] = Condition("degraded", text)
        self._conditions.report("checks", found)

    def deciding(self, config: Config, carrier: CarrierSwitch) -> None:
        """Assess whether the kernel decides for the services of ``config`` as they want it."""
        text = (
            f"{NO_ROOM}, so a worker decides about its flows; give services with `maglev` or"
            " `source` a smaller `table_size`, give services fewer ports (65,536 in all, with each"
            " VIP and protocol), or write `decide: python` for some"
        )
        found = {
            f"service {service.name}": Condition("degraded", text)
            for service in config.services
            if carrier.on and service.name in carrier.unplaced and kernel_decides(service)
        }
        self._conditions.report("deciding", found)

    def processes(self, children: Iterable[Child], now: float) -> None:
        """Assess the processes."""
        found = {}
        for child in children:
            condition = _process(child, now)
            if condition is not None:
                found[child.spec.name] = condition
        self._conditions.report("processes", found, logged=False)

    def workers(self, children: Iterable[Child], samples: Mapping[int, Sample], now: float) -> None:
        """Assess the counters of the processes that carry flows."""
        self._next = now + INTERVAL
        found = {}
        for child in children:
            sample = samples.get(child.spec.index)
            if child.spec.role not in CARRIERS or sample is None:
                continue
            index, name = child.spec.index, child.spec.name
            for count, condition in _GROWING.items():
                if self._grows(index, count, sample.head[count], now):
                    found[f"{name}, {count}"] = condition
            flows, bound = sample.head["active"], sample.head["bound"]
            if child.up and self._is_near(index, flows, bound):
                text = f"{flows} active flows of {bound}; raise `flows.max`"
                found[f"{name}, flows"] = Condition("degraded", text)
        self._conditions.report("workers", found)

    def faults(self, last: Mapping[str, tuple[float, str]], now: float) -> None:
        """Assess the internal errors of the supervisor (``faults.Faults.last``)."""
        found = {
            what: Condition("degraded", f"internal error {error}; the log has its traceback")
            for what, (at, error) in last.items()
            if now - at < LATELY
        }
        self._conditions.report("supervisor", found)

    def _grows(self, index: int, count: str, value: int, now: float) -> bool:
        key = index, count
        before = self._counts.get(key)
        self._counts[key] = value
        if before is not None and value > before:
            self._grew[key] = now
        return now - self._grew.get(key, -LATELY) < LATELY

    def _is_near(self, index: int, flows: int, bound: int) -> bool:
        share = flows / bound if bound > 0 else 0.0
        if share >= (NO_LONGER_NEAR if index in self._near else NEAR):
            self._near.add(index)
            return True
        self._near.discard(index)
        return False


def serving(services: Iterable[Service], pools: BackendTable) -> Iterator[tuple[Service, bool]]:
    """Those of ``services`` that are not being removed, and whether a backend takes new flows."""
    for service in services:
        members = pools.of(service.name)
        gone = members and all(member.leaving for member in members)  # it still has flows
        if not gone:
            yield service, any(member.takes_flows for member in members)


def _partial(services: Iterable[Service], pools: BackendTable) -> Iterator[tuple[str, Condition]]:
    """Those of ``services`` with some backends that take new flows, but fewer than `min_ready`.

    A backend that the file gives weight 0 is a spare: it counts only while it takes flows.
    """
    for service in services:
        members = [member for member in pools.of(service.name) if not member.leaving]
        ready = sum(member.takes_flows for member in members)
        count = sum(member.configured > 0 or member.takes_flows for member in members)
        if 0 < ready < least_ready(service.min_ready, count):
            text = (
                f"{ready} of {count} backends take new flows, fewer than `min_ready`"
                f" ({service.min_ready}); see `paraglider show backends`"
            )
            yield f"service {service.name}", Condition("degraded", text)


def _process(child: Child, now: float) -> Condition | None:
    """What is wrong with ``child``."""
    absence = child.absence(now)
    if child.keeps_dying(now):
        text = f"has died {DEATHS} times within {DEATHS_WITHIN:.0f} s; the log has the reason"
        return Condition("unhealthy", text)
    if child.hung:
        text = f"hangs, no sign of life for {absence:.0f} s; it is being replaced"
    elif child.up:
        if absence < SILENT:
            return None
        text = f"no sign of life for {absence:.0f} s; it is replaced if it hangs"
    elif child.trouble:
        text = f"cannot be started: {child.trouble}; it is tried again"
    elif child.requested and absence < REPLACEMENT:
        return None
    else:
        what = "it starts" if child.pid else "it is started again in a moment"
        text = f"does not serve; {what}"
    return Condition("unhealthy" if absence >= REPLACEMENT else "degraded", text)
