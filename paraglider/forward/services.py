"""Makes the core's services from the configuration, for every forward method.

Rules: no I/O. The objects are a worker's own: workers share nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from paraglider.config.diff import predecessors
from paraglider.config.model import Config, Service
from paraglider.config.service import Method
from paraglider.core.affinity import Affinity
from paraglider.core.fingerprint import fingerprint
from paraglider.core.flow import TCP, UDP, FlowTimeouts
from paraglider.core.hello_routes import RouteMatch
from paraglider.core.pool import Backend, Pool, State
from paraglider.core.service import Ports, VirtualService
from paraglider.core.strategies import Context, Registry, Strategy, create

#: service → backend → state and weight, by their names, as the store has them
States = dict[str, dict[str, tuple[str, int]]]

_PROTOCOLS = {"tcp": (TCP,), "udp": (UDP,), "any": (TCP, UDP)}


def flow_timeouts(config: Config, unseen: int = 0) -> FlowTimeouts:
    """The timeouts of a flow table, of a method whose live flows may pass the worker unseen for
    ``unseen`` seconds.
    """
    limits = config.timeouts
    return FlowTimeouts(
        syn=limits.syn,
        established=limits.established + unseen,
        closed_rst=limits.after_rst,
        closed_fin=limits.after_fin,
        udp=limits.udp + unseen,
        icmp=limits.icmp,
    )


def make_backends(service: Service) -> tuple[Backend, ...]:
    """The core's backends of ``service``, in the order of the configuration."""
    return tuple(Backend(b.name, b.address.packed, b.port or 0, b.weight) for b in service.backends)


def make_pool(service: Service, before: Pool | None = None) -> Pool:
    """The pool of ``service``; every backend is ready, except that those in ``before`` keep their
    state.
    """
    return Pool(
        _backends(service, before),
        all_down=service.all_down,
        on_down=service.on_down,
        slow_start=service.slow_start,
        drain_timeout=service.drain_timeout,
        before=before,
    )


def apply_states(pools: Iterable[tuple[str, Pool]], states: States) -> None:
    """Set the states and weights of ``states`` on the backends of ``pools``, which are by service
    name.
    """
    for name, pool in pools:
        if wanted := states.get(name):
            pool.apply_states(
                {
                    backend: (State(wanted[backend.name][0]), wanted[backend.name][1])
                    for backend in pool.backends
                    if backend.name in wanted
                }
            )


def fingerprint_of(service: Service, states: Mapping[str, tuple[str, int]]) -> str:
    """The fingerprint of ``service``, whose backends have the ``states`` and weights by their
    names; the others are as configured.
    """
    pool = make_pool(service)
    apply_states([(service.name, pool)], {service.name: dict(states)})
    return fingerprint(
        _destination(service),
        service.strategy,
        Context(seed=service.hash_seed, parameters=service.strategy_parameters),
        pool,
        affinity=service.affinity == "client",
    )


@dataclass(frozen=True, slots=True)
class Previous:
    """The services made of the previous configuration, by name, and how they are ``configured``."""

    config: Config
    configured: Mapping[str, Service]
    services: Mapping[str, VirtualService]

    @classmethod
    def of(cls, config: Config, services: Iterable[VirtualService]) -> Previous:
        """Collect them from the configuration and the services made from it."""
        configured = {service.name: service for service in config.services}
        return cls(config, configured, {service.name: service for service in services})


def make_services(
    config: Config,
    chosen: Callable[[Method], bool],
    worker: int,
    registry: Registry,
    before: Previous | None = None,
) -> list[VirtualService]:
    """The services of ``config`` whose method is ``chosen``, for worker number ``worker``.

    ``registry`` has the strategies that they name (``policies.load``). Unchanged services, and
    unchanged parts of changed ones, stay the objects of ``before``, so that flows keep their
    backends and strategies their place.
    """
    place = _Place(config, worker, registry)
    names = predecessors(before.config, config) if before is not None else {}
    return [
        _service(s, place, _previous_service(s, names.get(s.name), config, before))
        for s in config.services
        if chosen(s.method)
    ]


class _Place(NamedTuple):
    """Where services are made."""

    config: Config
    worker: int
    registry: Registry


class _PreviousService(NamedTuple):
    """The previous service; ``same``: nothing but weights has changed."""

    config: Service
    service: VirtualService
    same: bool


def _previous_service(
    service: Service, name: str | None, config: Config, before: Previous | None
) -> _PreviousService | None:
    """``name`` is the service's previous name, None if there was no such service."""
    if before is None or name is None or name not in before.services:
        return None
    made, was = before.services[name], before.configured[name]
    if (was.forward, was.family) != (service.forward, service.family):
        return None
    limits = (config.timeouts.affinity, before.config.timeouts.affinity)
    same = _shape(was) == _shape(service) and limits[0] == limits[1]
    return _PreviousService(was, made, same)


def _shape(service: Service) -> Service:
    """``service`` without the weights, which the store sets, and without checks."""
    unweighted = (backend.model_copy(update={"weight": 1}) for backend in service.backends)
    return service.with_backends(tuple(unweighted)).model_copy(update={"check": None})


def _service(service: Service, place: _Place, known: _PreviousService | None) -> VirtualService:
    if known is not None and known.same:
        return known.service
    before = None if known is None else known.service
    return VirtualService(
        service.name,
        *_destination(service),
        make_pool(service, None if before is None else before.pool),
        _strategy(service, place, known),
        affinity=_affinity(service, place, before),
        direct=service.answers == "direct",
        echo=service.protocol == "any",
        method=service.forward,
        offloaded=service.method.conntracked,
        routed=not service.method.owns_vip,
        adopts=service.adopts,
        udp_reply=service.udp_reply or 0,
        route=None if service.route is None else RouteMatch(*service.route.match),
        before=before,
    )


def _destination(service: Service) -> tuple[bytes, tuple[int, ...], Ports]:
    """The packed VIP, the protocols and the ports."""
    spans = tuple((span.first, span.last) for span in service.ports)
    return service.vip.ip.packed, _PROTOCOLS[service.protocol], spans


def _backends(service: Service, before: Pool | None) -> tuple[Backend, ...]:
    known = {} if before is None else {b.name: b for b in before.backends}
    return tuple(known.get(made.name, made) for made in make_backends(service))


def _strategy(service: Service, place: _Place, known: _PreviousService | None) -> Strategy:
    if known is not None and _same_strategy(service, known.config):
        return known.service.strategy
    parameters = service.strategy_parameters
    context = Context(service.name, place.worker, service.hash_seed, parameters)
    return create(service.strategy, context, place.registry)


def _same_strategy(one: Service, other: Service) -> bool:
    return (one.strategy, one.seed, one.strategy_parameters) == (
        other.strategy,
        other.seed,
        other.strategy_parameters,
    )


def _affinity(service: Service, place: _Place, before: VirtualService | None) -> Affinity | None:
    if service.affinity != "client":
        return None
    linger, bound = place.config.timeouts.affinity, place.config.flows.max
    if before is None or before.affinity is None:
        return Affinity(linger, bound)
    before.affinity.limit(linger, bound)
    return before.affinity
