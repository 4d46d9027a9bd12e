"""Which backend a new flow gets: service, affinity, strategy, and keys that are in use."""

from __future__ import annotations

import pytest
from packets import FAMILIES, V4, Family, backend, packed, service

from paraglider.core.affinity import Affinity
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP
from paraglider.core.pool import Backend, Event
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.strategies.base import NewFlow


def key(family: Family, destination: str, number: int) -> bytes:
    """A client's key to port ``number`` of ``destination``."""
    ports = (40000).to_bytes(2, "big") + number.to_bytes(2, "big")
    return packed(family.client) + packed(destination) + ports


def flow(client: str = V4.client, now: float = 0.0) -> NewFlow:
    """A new flow of ``client`` to the VIP."""
    return NewFlow(TCP, packed(client) + packed(V4.vip) + b"\x9c\x40\x00\x50", now)


def nobody(_: Backend) -> bool:
    """No backend's keys are in use."""
    return False


def choices(web: VirtualService, count: int) -> str:
    """The last digits of the addresses of ``count`` choices."""
    balancer = Balancer(ServiceMap([web]))
    chosen = [balancer.choose(web, flow(), nobody) for _ in range(count)]
    return "".join("-" if each is None else each.name[-1] for each in chosen)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_service_of_a_key(family: Family) -> None:
    """Destination address and port of the key find the service."""
    web = service(family, ports=((80, 80),))
    balancer = Balancer(ServiceMap([web]))
    assert balancer.find(TCP, key(family, family.vip, 80)) is web
    assert balancer.find(TCP, key(family, family.vip, 81)) is None
    assert balancer.find(TCP, key(family, family.client, 80)) is None


def test_the_strategy_decides() -> None:
    """Without affinity every new flow is the strategy's choice."""
    assert choices(service(V4), 6) == "123123"


def test_no_backend_ready() -> None:
    """None if all backends are down, draining or without weight."""
    web = service(V4)
    first, second, third = web.pool.backends
    web.pool.apply(first, Event.CHECK_FAILED)
    web.pool.apply(second, Event.SET_DRAIN)
    web.pool.set_weight(third, 0)
    assert choices(web, 2) == "--"
    web.pool.apply(second, Event.SET_READY)
    assert choices(web, 2) == "22"


def test_a_taken_backend_is_passed_over() -> None:
    """A backend that cannot hold the flow loses it to the next that can."""
    web = service(V4)
    balancer = Balancer(ServiceMap([web]))
    first, second, third = web.pool.backends
    assert balancer.choose(web, flow(), lambda b: b is first) is second
    assert balancer.choose(web, flow(), lambda b: b is not third) is third


def test_all_taken() -> None:
    """If every ready backend is taken, one of them is returned and the caller refuses."""
    web = service(V4)
    balancer = Balancer(ServiceMap([web]))
    web.pool.apply(web.pool.backends[0], Event.SET_DRAIN)
    assert balancer.choose(web, flow(), lambda _: True) in web.pool.ready


def with_affinity(linger: float = 60) -> tuple[VirtualService, Affinity, Balancer]:
    """A service that keeps its clients."""
    affinity = Affinity(linger, 100)
    web = service(V4, affinity=affinity)
    return web, affinity, Balancer(ServiceMap([web]))


def test_a_client_keeps_its_backend() -> None:
    """A client with a flow gets the same backend again, others take their turns."""
    web, affinity, balancer = with_affinity()
    affinity.hold(packed(V4.client), web.pool.backends[2])
    assert choices(web, 3) == "333"
    stranger = balancer.choose(web, flow("192.168.0.101"), nobody)
    assert stranger is web.pool.backends[0]


def test_a_client_that_lingers_keeps_its_backend() -> None:
    """Until ``linger`` seconds after its last flow; then the strategy decides again."""
    web, affinity, balancer = with_affinity(linger=60)
    affinity.hold(packed(V4.client), web.pool.backends[2])
    affinity.release(packed(V4.client), 100)
    assert balancer.choose(web, flow(now=159), nobody) is web.pool.backends[2]
    assert balancer.choose(web, flow(now=160), nobody) is web.pool.backends[0]


@pytest.mark.parametrize("event", [Event.SET_DRAIN, Event.SET_MAINT, Event.CHECK_FAILED])
def test_a_kept_backend_must_be_ready(event: Event) -> None:
    """A backend that drains, is taken out or fails loses its clients' new flows."""
    web, affinity, balancer = with_affinity()
    affinity.hold(packed(V4.client), web.pool.backends[0])
    web.pool.apply(web.pool.backends[0], event)
    assert balancer.choose(web, flow(), nobody) is web.pool.backends[1]


def test_a_kept_backend_must_have_weight() -> None:
    """Weight 0 takes no new flows, kept clients or not."""
    web, affinity, balancer = with_affinity()
    affinity.hold(packed(V4.client), web.pool.backends[0])
    web.pool.set_weight(web.pool.backends[0], 0)
    assert balancer.choose(web, flow(), nobody) is web.pool.backends[1]


def test_a_kept_backend_that_is_taken_is_passed_over() -> None:
    """A flow that the kept backend cannot hold goes to another one instead of being dropped."""
    web, affinity, balancer = with_affinity()
    kept, *others = web.pool.backends
    affinity.hold(packed(V4.client), kept)
    assert balancer.choose(web, flow(), lambda b: b is kept) in others


def test_affinity_to_a_backend_of_one() -> None:
    """With a single backend there is no choice, with or without affinity."""
    only = backend("10.0.0.9")
    assert choices(service(V4, backends=[only]), 3) == "999"
