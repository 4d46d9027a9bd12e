"""Tests of ``paraglider.core.explain``: the decision is the workers' own, nothing is made up."""

from __future__ import annotations

from collections import Counter

import pytest
from packets import V4, V6, Family, backend, packed, service

from paraglider.core.affinity import Affinity
from paraglider.core.balancer import Balancer
from paraglider.core.explain import Decider, Explanation, explain, shares
from paraglider.core.flow import ICMP, TCP, UDP
from paraglider.core.policy_guard import PolicyGuard
from paraglider.core.pool import Event
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.strategies import NewFlow
from paraglider.core.strategies.rr import RoundRobin


def flow(
    family: Family = V4, port: int = 80, client_port: int = 40000, protocol: int = TCP
) -> NewFlow:
    """A flow of the client to the VIP."""
    ports = client_port.to_bytes(2, "big") + port.to_bytes(2, "big")
    return NewFlow(protocol, packed(family.client) + packed(family.vip) + ports, 0.0)


def asked(*services: VirtualService, of: NewFlow | None = None) -> Explanation:
    """The explanation of a flow over ``services``."""
    return explain(
        Balancer(ServiceMap(services)), of or flow((services[0].vip == V6.vip and V6) or V4)
    )


def words(explanation: Explanation, about: str) -> str:
    """The text of one step of an explanation."""
    (text,) = (step.text for step in explanation.why if step.about == about)
    return text


@pytest.mark.parametrize("strategy", ["source", "maglev"])
@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_hashed_flow_gets_the_backend_that_a_worker_gives_it(family: Family, strategy: str) -> None:
    """For source and maglev the answer is exact, for any flow."""
    backends = [backend(address, weight=index + 1) for index, address in enumerate(family.backends)]
    ours, workers = (service(family, backends=backends, strategy=strategy) for _ in range(2))
    balancer = Balancer(ServiceMap([ours]))
    for client_port in range(1, 200):
        new = flow(family, client_port=client_port)
        found = explain(balancer, new)
        assert found.backend is workers.strategy.pick(new)
        assert found.candidates == ()
        assert found.backend is not None
        assert found.backend.name in words(found, "strategy")


@pytest.mark.parametrize("strategy", ["rr", "wrr", "weighted"])
def test_by_turn_it_is_left_open(strategy: str) -> None:
    """If turns or live flows decide, all candidates are named and none is picked."""
    web = service(V4, strategy=strategy)
    found = asked(web)
    assert found.backend is None
    assert [each.backend for each in found.candidates] == list(web.pool.backends)
    assert words(found, "strategy").startswith(f"{strategy} picks the")


@pytest.mark.parametrize("strategy", ["rr", "wrr", "weighted", "source"])
def test_who_decides(strategy: str) -> None:
    """A worker, unless it is said; by turn there is one turn for all where the kernel decides."""
    web = service(V4, strategy=strategy)
    turn = strategy in ("rr", "wrr")
    each = "; each worker keeps its own turn"
    found = asked(web)
    assert "decides" not in [step.about for step in found.why]
    assert words(found, "strategy").endswith(each) == turn
    for kernel, end in ((False, each), (True, "; one turn for all workers")):
        by = Decider(kernel, "somebody")
        found = explain(Balancer(ServiceMap([web])), flow(), decider=by)
        assert words(found, "decides") == "somebody"
        assert words(found, "strategy").endswith(end) == turn
        kept = explain(Balancer(ServiceMap([web])), flow(), web.pool.backends[0], decider=by)
        assert [step.about for step in kept.why] == ["service", "state", "flow"]


def test_explaining_changes_no_state() -> None:
    """Explaining a flow changes no state of the strategy."""
    web = service(V4, strategy="rr")
    first = web.strategy.pick(flow())
    for _ in range(5):
        asked(web)
    assert web.strategy.pick(flow()) is web.pool.backends[1] is not first


def test_one_backend_is_no_choice() -> None:
    """With a single ready backend the result is exact for every strategy."""
    web = service(V4)
    for other in web.pool.backends[1:]:
        web.pool.apply(other, Event.SET_DRAIN)
    found = asked(web)
    assert (found.backend, found.candidates) == (web.pool.backends[0], ())
    assert words(found, "state") == (
        "1 of 3 backends take new flows: 10.0.0.2 is drain, 10.0.0.3 is drain"
    )


def test_no_backend_is_ready() -> None:
    """Without a ready backend the flow gets none, and the reason of each backend is given."""
    web = service(V4, backends=[backend("10.0.0.1"), backend("10.0.0.2", weight=0)])
    web.pool.apply(web.pool.backends[0], Event.CHECK_FAILED)
    found = asked(web)
    assert (found.service, found.backend, found.candidates) == (web, None, ())
    assert words(found, "state") == (
        "no backend takes new flows: 10.0.0.1 is down, 10.0.0.2 has weight 0"
    )


def test_a_flow_that_exists_stays() -> None:
    """A live flow keeps its backend, drained or not, with any strategy."""
    web = service(V4, strategy="maglev")
    taken = web.pool.backends[1]
    web.pool.apply(taken, Event.SET_DRAIN)
    found = explain(Balancer(ServiceMap([web])), flow(), taken)
    assert found.backend is taken
    assert words(found, "flow") == "it exists: all its packets go to 10.0.0.2"


def test_affinity_comes_before_the_strategy() -> None:
    """A client with a flow keeps its backend while that one takes new flows."""
    web = service(V4, affinity=Affinity(300, 10), strategy="maglev")
    assert web.affinity is not None
    assert words(asked(web), "affinity").startswith("no flow of this client is known")
    kept = next(b for b in web.pool.backends if b is not asked(web).backend)
    web.affinity.hold(packed(V4.client), kept)
    assert asked(web).backend is kept
    assert words(asked(web), "affinity") == f"the client has a flow to {kept.name}, and keeps it"
    web.pool.apply(kept, Event.SET_DRAIN)
    found = asked(web)
    assert found.backend not in (None, kept)
    assert words(found, "affinity").startswith(f"the client's backend {kept.name} takes no new")


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (flow(V6), "no service has the VIP 2001:db8::11: the packet is not balanced"),
        (
            flow(port=81),
            "no service takes tcp port 81 there: the packet is not balanced (`web` has",
        ),
        (flow(protocol=UDP), "no service takes udp port 80 there"),
        (flow(protocol=ICMP), "no service takes icmp there"),
    ],
)
def test_no_service(new: NewFlow, text: str) -> None:
    """A flow of no service is explained with the claims of the VIP's services."""
    found = asked(service(V4, ports=((80, 80), (8000, 8099))), of=new)
    assert (found.service, found.backend) == (None, None)
    assert words(found, "service").startswith(text)


def test_claims_in_words() -> None:
    """A service is described by its VIP, protocols and ports."""
    any_ = service(V4, protocols=(TCP, UDP), echo=True)
    assert words(asked(any_), "service") == "`web` has 192.168.0.11, tcp, udp, icmp, all ports"
    some = service(V4, ports=((80, 80), (8000, 8099)))
    assert words(asked(some), "service") == "`web` has 192.168.0.11, tcp, ports 80, 8000-8099"
    one = service(V4, ports=((80, 80),))
    assert words(asked(one), "service") == "`web` has 192.168.0.11, tcp, port 80"


@pytest.mark.parametrize("strategy", ["rr", "wrr", "source", "maglev"])
def test_shares_are_what_flows_get(strategy: str) -> None:
    """The reported shares equal the measured ones over many flows."""
    backends = [
        backend(address, weight=weight)
        for address, weight in zip(V4.backends, (1, 2, 5), strict=True)
    ]
    web = service(V4, backends=backends, strategy=strategy)
    told = shares(web)
    clients = ((10 << 24) + index * 7919 for index in range(8000))
    keys = (client.to_bytes(4, "big") + flow().key[4:] for client in clients)
    got = Counter(web.strategy.pick(NewFlow(TCP, key, 0.0)) for key in keys)
    for each in backends:
        assert got[each] / 8000 == pytest.approx(told[each], abs=0.02)


class Unasked:
    """A policy that must not be called."""

    def prepare(self, ready: object) -> None:
        """Does nothing."""

    def pick(self, new: NewFlow) -> None:
        """Called only by a mistake."""
        raise AssertionError("the strategy was called")


def test_a_strategy_of_the_operators_own_is_not_called() -> None:
    """A policy may count, so it is not called; its shares are unknown."""
    web = service(V4)
    web.strategy = PolicyGuard(Unasked(), RoundRobin(), lambda: 0.0, 1.0)  # type: ignore[arg-type]
    found = asked(web)
    assert [each.share for each in found.candidates] == [None, None, None]
    assert "operator's own" in words(found, "strategy")
