"""What the control socket shows: services, backends, processes and health, as plain data.

Rules: pure; ``now`` is monotonic seconds, ``wall`` the same instant since the epoch. What a worker
says is added up as numbers and nothing else. Packets and bytes are counted from the client's side:
``in`` goes to the backend, ``out`` to the client; None where they do not pass a worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from paraglider.config.model import Config, Service
from paraglider.control.channel import Message
from paraglider.control.children import Child
from paraglider.control.pools import Checked, Member, Pools
from paraglider.control.questions import Answers
from paraglider.core.pool import State

_COUNTED: Final = {
    "flows": "flows",
    "picked": "picked",
    "packets_in": "packets_out",
    "bytes_in": "bytes_out",
    "packets_out": "packets_back",
    "bytes_out": "bytes_back",
}


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment by both clocks, so that the other of a monotonic time can be told."""

    now: float
    wall: float

    def date(self, then: float) -> str:
        """The monotonic ``then`` as ISO 8601, UTC."""
        moment = datetime.fromtimestamp(self.wall - (self.now - then), UTC)
        return moment.isoformat(timespec="seconds")


class Traffic:
    """What the workers counted, added up over all of them."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def of(self, service: str, backend: str) -> dict[str, int | None]:
        """The counters of one backend, each None where no worker knows it."""
        found: dict[str, int | None] = dict.fromkeys(_COUNTED)
        for answer in self._answers.values():
            counters = _within(answer, "traffic", service, backend)
            for name, theirs in _COUNTED.items():
                value = counters.get(theirs)
                if isinstance(value, int):
                    found[name] = (found[name] or 0) + value
        return found


def backends(config: Config, pools: Pools, traffic: Traffic, at: Instant) -> list[dict[str, Any]]:
    """Every backend of every service of ``config``."""
    return [
        _backend(service, member, traffic, at)
        for service in config.services
        for member in pools.of(service.name)
    ]


def services(config: Config, pools: Pools, traffic: Traffic) -> list[dict[str, Any]]:
    """Every service of ``config`` with its backends' sums."""
    return [_service(service, pools.of(service.name), traffic) for service in config.services]


def processes(children: Iterable[Child], answers: Answers, at: Instant) -> list[dict[str, Any]]:
    """Every process: what it is, whether it serves, what it counted."""
    return [_process(child, answers.get(child.spec.index, {}), at) for child in children]


def health(config: Config, pools: Pools, children: Iterable[Child]) -> dict[str, Any]:
    """Whether every service has a backend for new flows and every process serves; why not."""
    problems = []
    for service in config.services:
        members = pools.of(service.name)
        if not any(takes_flows(member) for member in members):
            problems.append(f"no backend of `{service.name}` takes new flows")
    problems += [f"{child.spec.name} does not serve" for child in children if not child.serves]
    return {"healthy": not problems, "problems": problems}


def takes_flows(member: Member) -> bool:
    """Whether ``member`` is given new flows."""
    return member.state is State.READY and member.weight > 0


def _service(service: Service, members: list[Member], traffic: Traffic) -> dict[str, Any]:
    sums: dict[str, int | None] = dict.fromkeys(_COUNTED)
    for member in members:
        for name, value in traffic.of(service.name, member.backend).items():
            if value is not None:
                sums[name] = (sums[name] or 0) + value
    return {
        "service": service.name,
        "vip": str(service.vip.ip),
        "protocol": service.protocol,
        "ports": "all" if service.all_ports else ",".join(map(str, service.ports)),
        "forward": service.forward,
        "strategy": service.strategy,
        "affinity": service.affinity,
        "backends": len(members),
        "ready": sum(map(takes_flows, members)),
        **sums,
    }


def _backend(service: Service, member: Member, traffic: Traffic, at: Instant) -> dict[str, Any]:
    return {
        "service": service.name,
        "backend": member.backend,
        "forward": service.forward,
        "weight": member.weight,
        "configured_weight": member.configured,
        "state": member.state.value,
        "since": at.date(member.since),
        "seconds": round(at.now - member.since, 1),
        "why": member.why,
        "check": None if member.check is None else _check(member.check, at),
        **traffic.of(service.name, member.backend),
    }


def _check(check: Checked, at: Instant) -> dict[str, Any]:
    return {
        "passed": check.passed,
        "detail": check.detail,
        "took": check.took,
        "at": at.date(check.at),
        "seconds": round(at.now - check.at, 1),
    }


def _process(child: Child, answer: Message, at: Instant) -> dict[str, Any]:
    counts = _within(answer, "counts")
    shown: dict[str, Any] = {
        "role": child.spec.role,
        "name": child.spec.name,
        **{name: value for name, value in child.spec.labels().items() if name != "worker"},
        "pid": child.pid or None,
        "serves": child.serves,
        "seconds": round(at.now - child.started, 1) if child.pid else None,
    }
    if child.spec.role == "worker":
        shown["flows"] = answer["flows"] if isinstance(answer.get("flows"), int) else None
        shown["counts"] = {k: v for k, v in counts.items() if isinstance(v, int)}
    return shown


def _within(answer: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """What ``answer`` has under ``names``, nothing where it is not shaped so."""
    found: Any = answer
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
