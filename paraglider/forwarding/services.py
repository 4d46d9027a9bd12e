"""Services of the configuration as the core has them, for every way of forwarding.

Rules: no I/O. The objects are a worker's own: workers share nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from paraglider.config.model import Backend as BackendConfig
from paraglider.config.model import Config
from paraglider.config.model import Service as ServiceConfig
from paraglider.core.affinity import Affinity
from paraglider.core.flow import TCP, UDP
from paraglider.core.pool import Backend, Pool, State
from paraglider.core.service import Service
from paraglider.core.strategies import Context, Registry, create

#: service → backend → state and weight, by their names, as the hub decides them
States = dict[str, dict[str, tuple[str, int]]]

_PROTOCOLS = {"tcp": (TCP,), "udp": (UDP,), "any": (TCP, UDP)}


def backend_name(backend: BackendConfig) -> str:
    """How messages call a backend: ADDRESS, or ADDRESS:PORT where its port is mapped."""
    if backend.port is None:
        return str(backend.address)
    host = f"[{backend.address}]" if backend.address.version == 6 else str(backend.address)
    return f"{host}:{backend.port}"


def make_backends(service: ServiceConfig) -> tuple[Backend, ...]:
    """The backends of ``service`` as the core has them, in the order of the configuration."""
    return tuple(
        Backend(backend_name(b), b.address.packed, b.port or 0, b.weight) for b in service.backends
    )


def make_pool(service: ServiceConfig) -> Pool:
    """The pool of ``service``, every backend ready."""
    return Pool(
        make_backends(service),
        all_down=service.all_down,
        on_down=service.on_down,
        slow_start=service.slow_start,
        drain_timeout=service.drain_timeout,
    )


def put_states(pools: Iterable[tuple[str, Pool]], states: States) -> None:
    """Give the backends of ``pools``, each with its service's name, the states and weights that
    ``states`` has for them.
    """
    for name, pool in pools:
        wanted = states.get(name, {})
        pool.put(
            {
                backend: (State(wanted[backend.name][0]), wanted[backend.name][1])
                for backend in pool.backends
                if backend.name in wanted
            }
        )


def make_services(
    config: Config, forwards: Iterable[str], worker: int, registry: Registry
) -> list[Service]:
    """The services of ``config`` with one of ``forwards``, for worker number ``worker``.

    ``registry`` has the strategies that they name (``policies.load``).
    """
    chosen = frozenset(forwards)
    return [_service(s, config, worker, registry) for s in config.services if s.forward in chosen]


def _service(service: ServiceConfig, config: Config, worker: int, registry: Registry) -> Service:
    affinity = None
    if service.affinity == "client":
        affinity = Affinity(config.timeouts.affinity, config.flows.max)
    return Service(
        service.name,
        service.vip.ip.packed,
        _PROTOCOLS[service.protocol],
        tuple((span.first, span.last) for span in service.ports),
        make_pool(service),
        create(service.strategy, Context(service.name, worker, service.seed), registry),
        affinity=affinity,
        direct=service.answers == "direct",
        echo=service.protocol == "any",
        offloaded=service.forward == "offload",
        routed=service.forward == "dsr",
    )
