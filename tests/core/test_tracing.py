"""Why a flow got its backend, told by the balancer that decided it."""

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
    """What is said of a decision, while the backend called ``busy`` cannot hold the flow."""
    balancer = TracingBalancer(ServiceMap([web]))
    new = flow()
    backend = balancer.choose(web, new, lambda each: each.name == busy)
    assert backend is not None
    decision = balancer.decision_on(TCP, new.key, backend)
    assert (decision.service, decision.backend, decision.key) == (web.name, backend, new.key)
    assert balancer.decision_on(TCP, new.key, backend).why == ""  # it was asked already
    return decision.why


def test_it_decides_as_any_balancer() -> None:
    """Backend for backend, with a service of its own each."""
    ours, theirs = service(V4), service(V4)
    tracing, balancer = TracingBalancer(ServiceMap([ours])), Balancer(ServiceMap([theirs]))
    for number in range(20):
        mine = tracing.choose(ours, flow(number), nobody)
        other = balancer.choose(theirs, flow(number), nobody)
        assert mine is not None
        assert other is not None
        assert mine.name == other.name


def test_the_strategy_is_named() -> None:
    """With the number of backends that it had to choose from."""
    web = service(V4)
    assert why(web) == "rr, of 3 ready"
    web.pool.apply(web.pool.backends[0], Event.SET_DRAIN)
    assert why(web) == "rr, of 2 ready"


def test_a_backend_that_cannot_hold_the_flow_is_passed_over() -> None:
    """That is said, with its name."""
    web = service(V4)
    (first, *_) = web.pool.backends
    assert why(web, first.name) == f"rr, of 3 ready; passed over {first.name}"


def test_affinity() -> None:
    """A client that has a backend keeps it, but for one that takes no new flows."""
    web = service(V4)
    web.affinity = Affinity(60.0, 10)
    assert why(web) == "rr, of 3 ready"
    second = web.pool.backends[1]
    web.affinity.hold(packed(V4.client), second)
    assert why(web) == "affinity: the client has it already"
    web.pool.apply(second, Event.SET_DRAIN)
    assert why(web) == f"rr, of 2 ready; the client's, {second.name}, takes no new flows"


def test_all_are_down() -> None:
    """With ``use_all`` it is said that nobody is well."""
    web = service(V4)
    web.pool.all_down = "use_all"
    for backend in web.pool.backends:
        web.pool.apply(backend, Event.CHECK_FAILED)
    assert why(web) == "rr, of 3, all of them down"


def test_what_nobody_asks_for_is_forgotten() -> None:
    """However many flows are decided and refused after all."""
    web = service(V4)
    balancer = TracingBalancer(ServiceMap([web]))
    for number in range(3 * MOST):
        balancer.choose(web, flow(number), nobody)
    assert len(balancer._reasons) <= MOST
