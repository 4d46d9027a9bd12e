"""The state of every backend: one record each, with a version that grows with each real change.

This table alone decides a backend's state. Workers, kernel tables and checks are reconciled from
it: ``changes`` gives a consumer what changed since the version that it has. The transitions are
``core.pool.TRANSITIONS``.

Rules: pure; ``now`` is monotonic seconds. A change to the same state or weight changes no version.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from paraglider.config.diff import predecessors
from paraglider.config.model import BackendConfig, Config, Service
from paraglider.config.types import IPAddress, parse_address
from paraglider.config.wording import did_you_mean
from paraglider.core.pool import TRANSITIONS, Event, State
from paraglider.errors import OperatorError
from paraglider.forward.services import States, fingerprint_of
from paraglider.health.codes import Code


class Origin(StrEnum):
    """The origin of a fact."""

    FILE = "file"
    DNS = "dns"
    DISCOVERY = "discovery"
    OPERATOR = "operator"
    HEALTH = "health"
    AGENT = "agent"


#: the origin of each event
_ORIGINS = {
    Event.CHECK_PASSED: Origin.HEALTH,
    Event.CHECK_FAILED: Origin.HEALTH,
    Event.SET_READY: Origin.OPERATOR,
    Event.SET_DRAIN: Origin.OPERATOR,
    Event.SET_MAINT: Origin.OPERATOR,
}
#: the states that an operator may set
SETTABLE = {"ready": Event.SET_READY, "drain": Event.SET_DRAIN, "maint": Event.SET_MAINT}
#: the largest weight, as in the configuration
HEAVIEST = 65535


#: what an agent may set, by its words
_MODES = {"ready": Event.SET_READY, "drain": Event.SET_DRAIN, "maint": Event.SET_MAINT}


#: service and backend, by their names
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Checked:
    """The last check of a backend: time (monotonic seconds), result, duration in seconds, and a
    warning or an empty line.
    """

    at: float
    passed: bool
    code: Code
    detail: str
    took: float
    warning: str = ""


@dataclass(frozen=True, slots=True)
class AgentFact:
    """What the agent of a backend has said: ``weight`` in per cent of the configured one, ``mode``,
    None if nothing; result, line and time (monotonic seconds) of the last question that changed
    something.
    """

    weight: int | None
    mode: str | None
    answered: bool
    code: Code
    detail: str
    at: float


@dataclass(slots=True)
class BackendRecord:
    """One backend of one service.

    ``configured`` is the weight in the file, ``leaving`` is set while a removed backend drains,
    ``downs`` counts its failures, ``failed`` its failed checks, ``version`` is the table's version
    at the last change of its state or weight. ``origin`` is the source that listed the backend,
    ``state_by`` and ``weight_by`` are the origins of its state and weight, ``mode_by`` of the last
    drain, maint or ready, whatever its checks did since.
    """

    service: str
    backend: str
    configured: int
    weight: int
    state: State
    since: float
    why: str
    check: Checked | None = None
    leaving: bool = False
    downs: int = 0
    failed: int = 0
    version: int = 0
    origin: Origin = Origin.FILE
    state_by: Origin = Origin.FILE
    weight_by: Origin = Origin.FILE
    mode_by: Origin = Origin.FILE
    agent: AgentFact | None = None

    @property
    def key(self) -> Key:
        """Its service's name and its own."""
        return self.service, self.backend

    @property
    def takes_flows(self) -> bool:
        """Whether it takes new flows."""
        return self.state is State.READY and self.weight > 0


class BackendTable:
    """The backends of the services of a configuration.

    ``version`` grows with each change of a state, a weight or the configuration, ``layout`` is the
    version of the last configuration.
    """

    def __init__(self, config: Config, now: float) -> None:
        self._members: dict[str, dict[str, BackendRecord]] = {}
        self._services: dict[str, Service] = {}
        self._backends: dict[Key, BackendConfig] = {}
        self._changed: dict[Key, BackendRecord] = {}  # by version
        self._fingerprints: dict[str, str] = {}  # of services that have not changed since
        self._config = config
        self.version = self.layout = 0
        self.apply_config(config, now)

    def __iter__(self) -> Iterator[BackendRecord]:
        for members in self._members.values():
            yield from members.values()

    def of(self, service: str) -> list[BackendRecord]:
        """The backends of ``service`` in the order of the file; empty if there is no such
        service.
        """
        return list(self._members.get(service, {}).values())

    def service(self, name: str) -> Service | None:
        """The service called ``name``, None if there is none."""
        return self._services.get(name)

    def get(self, key: Key) -> BackendRecord | None:
        """The backend of ``key``, None if there is none."""
        return self._members.get(key[0], {}).get(key[1])

    def fingerprint(self, service: str) -> str:
        """The fingerprint of ``service`` (``core.fingerprint``), computed once a change; raises
        KeyError if there is no such service.
        """
        found = self._fingerprints.get(service)
        if found is None:
            members = self._members[service].values()
            states = {each.backend: (each.state.value, each.weight) for each in members}
            found = self._fingerprints[service] = fingerprint_of(self._services[service], states)
        return found

    def configured(self, key: Key) -> BackendConfig | None:
        """The backend of ``key`` as configured."""
        return self._backends.get(key)

    def changes(self, since: int) -> list[BackendRecord]:
        """The backends whose state or weight changed after version ``since``, oldest first."""
        found: list[BackendRecord] = []
        for record in reversed(self._changed.values()):
            if record.version <= since:
                break
            found.append(record)
        return found[::-1]

    def require(self, service: str) -> None:
        """Raises ``OperatorError`` with the existing names unless ``service`` is one."""
        if service not in self._members:
            raise _unknown("service", service, list(self._members))

    def find(self, service: str, backend: str) -> BackendRecord:
        """The backend of that name; raises ``OperatorError`` with the existing names."""
        self.require(service)
        members = self._members[service]
        member = members.get(backend)
        if member is None:
            raise _unknown(f"backend of `{service}`", backend, list(members))
        return member

    def everywhere(self, backend: str) -> list[BackendRecord]:
        """The backends of all services with the name ``backend``; an address alone is every port of
        it. Raises ``OperatorError`` with the existing names if there is none.
        """
        address: IPAddress | None = None
        with contextlib.suppress(ValueError):  # a name with a port
            address = parse_address(backend)
        present = [record for record in self if not record.leaving]
        found = [
            record
            for record in present
            if backend == record.backend or self._backends[record.key].address == address
        ]
        if not found:
            raise _unknown("backend", backend, list(dict.fromkeys(r.backend for r in present)))
        return found

    def apply(
        self,
        member: BackendRecord,
        event: Event,
        why: str,
        now: float,
        origin: Origin | None = None,
    ) -> bool:
        """Change the state of ``member`` by ``event``; False if the state has no such transition.
        ``origin`` is needed if it does not follow from the event.
        """
        after = TRANSITIONS[member.state].get(event)
        if after is None:
            return False
        member.downs += event is Event.CHECK_FAILED
        member.state, member.since, member.why = after, now, why
        member.state_by = origin or _ORIGINS[event]
        if event not in (Event.CHECK_PASSED, Event.CHECK_FAILED):
            member.mode_by = member.state_by
        self._note(member)
        return True

    def set_weight(self, member: BackendRecord, weight: int) -> None:
        """Set the weight of ``member`` until its weight in the file changes; raises
        ``OperatorError``.
        """
        if not 0 <= weight <= HEAVIEST:
            raise OperatorError(f"weight {weight} is out of range", f"write 0 to {HEAVIEST}")
        if weight != member.weight:
            member.weight, member.weight_by = weight, Origin.OPERATOR
            self._note(member)

    def set_agent(self, member: BackendRecord, fact: AgentFact) -> Event | None:
        """Note what the agent of ``member`` said. Sets its weight, unless an operator has; returns
        the event of its mode, if that is new and no operator has set another.

        A mode counts when the agent changes it, so an operator's `ready` holds until it does.
        """
        before = member.agent
        if before is not None:  # a monitor that starts anew does not have what was said before
            weight = before.weight if fact.weight is None else fact.weight
            fact = replace(fact, weight=weight, mode=fact.mode or before.mode)
        member.agent = fact
        self._weigh(member)
        if fact.mode is None or (before is not None and before.mode == fact.mode):
            return None
        free = member.state in (State.READY, State.DOWN)
        if member.leaving or not (free or member.mode_by is Origin.AGENT):
            return None
        return _MODES[fact.mode]

    def _weigh(self, member: BackendRecord) -> None:
        """Set the weight that file and agent give ``member``, unless an operator has set one. A
        share above 0 stays at least 1.
        """
        if member.weight_by is Origin.OPERATOR:
            return
        percent = member.agent.weight if member.agent is not None else None
        weight = member.configured
        if percent is not None:
            weight = min(-(-weight * percent // 100), HEAVIEST)
        member.weight_by = member.origin if percent is None else Origin.AGENT
        if weight != member.weight:
            member.weight = weight
            self._note(member)

    def apply_config(
        self,
        config: Config,
        now: float,
        leaving: frozenset[Key] = frozenset(),
        found: Collection[IPAddress] = (),
    ) -> None:
        """Apply the services and backends of ``config``; ``found`` are addresses that failover
        discovered.

        A backend that stays keeps its state, and a weight set by an operator for as long as the
        file's weight does not change, even if its service is renamed. Backends in ``leaving``
        drain; one that was added again is ready.
        """
        names = predecessors(self._config, config)
        self._config = config
        self.version += 1
        self.layout = self.version
        self._services = {service.name: service for service in config.services}
        self._fingerprints.clear()
        self._backends = {(s.name, b.name): b for s in config.services for b in s.backends}
        self._members = {
            service.name: {
                backend.name: self._member(service, names.get(service.name), backend, now)
                for backend in service.backends
            }
            for service in config.services
        }
        self._changed = {
            record.key: record for record in sorted(self, key=lambda record: record.version)
        }
        for member in self:
            member.origin = self._origin(member, found)
            if member.agent is not None and self._services[member.service].agent is None:
                member.agent = None
                if member.mode_by is Origin.AGENT:
                    self.apply(member, Event.SET_READY, "no agent", now, member.origin)
            if member.agent is not None or member.weight_by is Origin.AGENT:
                self._weigh(member)
            left = (member.service, member.backend) in leaving
            if left and not member.leaving:
                self.apply(member, Event.SET_DRAIN, "no longer configured", now, member.origin)
            elif member.leaving and not left:
                self.apply(member, Event.SET_READY, "configured again", now, member.origin)
            member.leaving = left

    def mark(self) -> None:
        """Begin a new version without a change: a worker that has applied it has also handled every
        message that was sent to it before.
        """
        self.version += 1

    def states(self, since: int = 0) -> States:
        """States and weights for the workers: of every backend, or of those that changed after
        version ``since``.
        """
        found: States = {}
        for record in self.changes(since) if since else self:
            found.setdefault(record.service, {})[record.backend] = record.state.value, record.weight
        return found

    def _origin(self, record: BackendRecord, found: Collection[IPAddress]) -> Origin:
        if found and self._backends[record.key].address in found:
            return Origin.DISCOVERY
        return Origin.FILE if self._services[record.service].source is None else Origin.DNS

    def _note(self, record: BackendRecord) -> None:
        """Note that the state or weight of ``record`` changed."""
        self.version += 1
        record.version = self.version
        self._changed.pop(record.key, None)
        self._changed[record.key] = record
        self._fingerprints.pop(record.service, None)

    def _member(
        self, service: Service, before: str | None, backend: BackendConfig, now: float
    ) -> BackendRecord:
        """``before`` is the former name of the service. A backend that the former service lacked
        gets its state from the service that had the present name.
        """
        name = backend.name
        known = self._members.get(before or "", {}).get(name)
        if known is None and (namesake := self._members.get(service.name, {}).get(name)):
            known = replace(namesake)
        if known is None:
            why = "configured"
            weight = backend.weight
            return BackendRecord(service.name, name, weight, weight, State.READY, now, why)
        known.service = service.name
        if known.configured != backend.weight:
            known.configured = known.weight = backend.weight
            known.weight_by = known.origin
        return known


def _unknown(what: str, name: str, there: list[str]) -> OperatorError:
    remedy = did_you_mean(name, there).strip() or f"there are: {', '.join(there) or 'none'}"
    return OperatorError(f"there is no {what} called `{name}`", remedy)
