"""The reason for a flow's backend, recorded by the balancer that decided."""

from __future__ import annotations

from packets import V4, packed, service

from paraglider.core.affinity import Affinity
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP
from paraglider.core.pool import Backend, Event
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.strategies.base import NewFlow
from paraglider.core.tracing import MOST, TracingBalancer


def flow(port: int = 40000) -> NewFlow:
    """A new flow of the client to the VIP."""
    ports = port.to_bytes(2, "big") + (80).to_bytes(2, "big")
    return NewFlow(TCP, packed(V4.client) + packed(V4.vip) + ports, 0.0)


def nobody(_: Backend) -> bool:
    """No backend's keys are in use."""
    return False


def why(web: VirtualService, busy: str = "") -> str:
    """The reason for a decision while the backend called ``busy`` cannot hold the flow."""
    balancer = TracingBalancer(ServiceMap([web]))
    new = flow()
    backend = balancer.choose(web, new, lambda each: each.name == busy)
    assert backend is not None
    decision = balancer.decision_on(TCP, new.key, backend)
    assert (decision.service, decision.backend, decision.key) == (web.name, backend, new.key)
    # What it was asked already, or did not decide, the kernel has decided.
    assert balancer.decision_on(TCP, new.key, backend).why.endswith(", by the kernel")
    return decision.why


def test_the_kernel_has_decided() -> None:
    """By the service's strategy; a service that is gone since has no name."""
    web, new = service(V4), flow()
    backend = web.pool.backends[0]
    found = TracingBalancer(ServiceMap([web])).decision_on(TCP, new.key, backend)
    assert (found.service, found.backend, found.why) == (web.name, backend, "rr, by the kernel")
    found = TracingBalancer(ServiceMap([])).decision_on(TCP, new.key, backend)
    assert (found.service, found.why) == ("", "by the kernel")


def test_it_decides_as_any_balancer() -> None:
    """The same backend as ``Balancer``, with a service each."""
    ours, theirs = service(V4), service(V4)
    tracing, balancer = TracingBalancer(ServiceMap([ours])), Balancer(ServiceMap([theirs]))
    for number in range(20):
        mine = tracing.choose(ours, flow(number), nobody)
        other = balancer.choose(theirs, flow(number), nobody)
        assert mine is not None
        assert other is not None
        assert mine.name == other.name


def test_the_strategy_is_named() -> None:
    """With the number of ready backends."""
    web = service(V4)
    assert why(web) == "rr, of 3 ready"
    web.pool.apply(web.pool.backends[0], Event.SET_DRAIN)
    assert why(web) == "rr, of 2 ready"


def test_a_backend_that_cannot_hold_the_flow_is_passed_over() -> None:
    """The reason names it."""
    web = service(V4)
    (first, *_) = web.pool.backends
    assert why(web, first.name) == f"rr, of 3 ready; passed over {first.name}"


def test_affinity() -> None:
    """A client with a backend keeps it, unless that takes no new flows."""
    web = service(V4)
    web.affinity = Affinity(60.0, 10)
    assert why(web) == "rr, of 3 ready"
    second = web.pool.backends[1]
    web.affinity.hold(packed(V4.client), second)
    assert why(web) == "affinity: the client has it already"
    web.pool.apply(second, Event.SET_DRAIN)
    assert why(web) == f"rr, of 2 ready; the client's, {second.name}, takes no new flows"


def test_all_are_down() -> None:
    """With ``use_all`` the reason says that all are down."""
    web = service(V4)
    web.pool.all_down = "use_all"
    for backend in web.pool.backends:
        web.pool.apply(backend, Event.CHECK_FAILED)
    assert why(web) == "rr, of 3, all of them down"


def test_stored_reasons_are_bounded() -> None:
    """Stored reasons are bounded, with any number of refused flows."""
    web = service(V4)
    balancer = TracingBalancer(ServiceMap([web]))
    for number in range(3 * MOST):
        balancer.choose(web, flow(number), nobody)
    assert len(balancer._reasons) <= MOST
