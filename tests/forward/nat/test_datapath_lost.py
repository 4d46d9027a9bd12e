"""Flows whose backend is lost end with the client's next packet, and not before.

Verdicts are in ``test_datapath_refusals``; which backends are lost, in ``test_pool``.
"""

from __future__ import annotations

import pytest
from packets import FAMILIES, V4, Family, backend, header, nat, packed, run, service

from paraglider.core import flow, verdict
from paraglider.core.affinity import Affinity
from paraglider.core.pool import Event, Pool
from paraglider.core.verdict import DROP, PASS, REWRITTEN
from paraglider.forward.nat.datapath import NatDatapath

families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
EVERYTHING = (flow.TCP, flow.UDP)


def path_of(family: Family, port: int = 0, **changes: object) -> tuple[NatDatapath, Pool]:
    """A service of all protocols over three backends, with ``port`` if it is mapped."""
    made = service(
        family,
        protocols=EVERYTHING,
        echo=not port,
        backends=[backend(address, port) for address in family.backends],
        **changes,  # type: ignore[arg-type]
    )
    return nat(made), made.pool


def sent_to(path: NatDatapath, packet: bytes, family: Family) -> str:
    """The address of the backend that a packet is rewritten to."""
    outcome, after = run(path, packet)
    assert outcome == REWRITTEN
    at, size = (16, 4) if family.number == 4 else (24, 16)
    return next(each for each in family.backends if packed(each) == after[at : at + size])


@families
@pytest.mark.parametrize("port", [0, 8080])
def test_a_connection_ends_with_the_clients_next_segment(family: Family, port: int) -> None:
    """The segment goes to the local stack, the flow ends, and the client's new connection from the
    same port gets another backend; with and without mapped ports.
    """
    path, pool = path_of(family, port)
    first = sent_to(path, family.syn(), family)
    assert sent_to(path, family.segment("A"), family) == first
    pool.apply(pool.backends[0], Event.CHECK_FAILED)
    assert len(path.flows) == 1
    assert run(path, family.segment("PA")) == (PASS, family.segment("PA"))
    assert len(path.flows) == 0
    assert pool.backends[0].flows == 0
    assert sent_to(path, family.syn(), family) != first
    outcome, after = run(path, family.syn())
    assert after[header(after) + 2 : header(after) + 4] == (port or 80).to_bytes(2, "big")
    assert outcome == REWRITTEN


@families
@pytest.mark.parametrize("port", [0, 8080])
def test_what_the_backend_still_sends_is_dropped(family: Family, port: int) -> None:
    """It neither reaches the client nor keeps the flow alive."""
    path, pool = path_of(family, port)
    run(path, family.syn())
    answer = family.answer("SA", family.backends[0], port or 80)
    assert run(path, answer, now=1.0)[0] == REWRITTEN
    pool.apply(pool.backends[0], Event.CHECK_FAILED)
    assert run(path, answer, now=5.0) == (DROP, answer)
    (each,) = path.flows.forward[flow.TCP].values()
    assert each.seen == 1.0


@families
@pytest.mark.parametrize("kind", ["syn", "datagram", "echo"])
def test_what_may_open_a_flow_goes_elsewhere_at_once(family: Family, kind: str) -> None:
    """The first packet after the failure opens a new flow without a delay."""
    path, pool = path_of(family)
    echo = bytes(family.echo(family.client, family.vip, reply=False, identifier=7))
    packet = {"syn": family.syn(), "datagram": family.datagram(), "echo": echo}[kind]
    assert sent_to(path, packet, family) == family.backends[0]
    pool.apply(pool.backends[0], Event.CHECK_FAILED)
    second = sent_to(path, packet, family)
    assert second != family.backends[0]
    assert sent_to(path, packet, family) == second
    assert len(path.flows) == 1
    assert path.counts == [0] * len(path.counts)


def test_with_nobody_to_go_to() -> None:
    """The flow ends too; a new one is refused."""
    path, pool = path_of(V4)
    run(path, V4.datagram())
    for each in pool.backends:
        pool.apply(each, Event.CHECK_FAILED)
    assert run(path, V4.datagram()) == (PASS, V4.datagram())
    assert path.counts[verdict.REFUSED] == 1
    assert len(path.flows) == 0


def test_a_backend_that_comes_back_has_its_flows() -> None:
    """Flows without a packet in the meantime continue."""
    path, pool = path_of(V4)
    first = sent_to(path, V4.syn(), V4)
    pool.apply(pool.backends[0], Event.CHECK_FAILED)
    pool.apply(pool.backends[0], Event.CHECK_PASSED)
    assert sent_to(path, V4.segment("A"), V4) == first
    assert run(path, V4.answer("SA", first))[0] == REWRITTEN


def test_flows_that_are_kept() -> None:
    """With ``on_down: keep`` packets pass in both directions, and only new flows go to others."""
    path, pool = path_of(V4, on_down="keep")
    first = sent_to(path, V4.syn(), V4)
    pool.apply(pool.backends[0], Event.CHECK_FAILED)
    assert sent_to(path, V4.segment("PA"), V4) == first
    assert run(path, V4.answer("SA", first))[0] == REWRITTEN
    assert sent_to(path, V4.syn(client_port=40001), V4) != first


def test_all_down_and_all_used() -> None:
    """New flows and old ones go to backends that are down; nothing is reset."""
    path, pool = path_of(V4, all_down="use_all")
    first = sent_to(path, V4.syn(), V4)
    for each in pool.backends:
        pool.apply(each, Event.CHECK_FAILED)
    assert sent_to(path, V4.segment("A"), V4) == first
    others = {sent_to(path, V4.syn(client_port=port), V4) for port in (40001, 40002, 40003)}
    assert others == set(V4.backends)


def test_a_drained_backend_whose_time_is_over() -> None:
    """Its flows go on until then, and end then."""
    path, pool = path_of(V4, drain_timeout=30.0)
    run(path, V4.syn())
    pool.apply(pool.backends[0], Event.SET_DRAIN)
    for now, outcome in ((0.0, REWRITTEN), (29.0, REWRITTEN), (30.0, PASS)):
        pool.tick(now)
        assert run(path, V4.segment("A"))[0] == outcome


def test_a_client_with_affinity_is_let_go() -> None:
    """The client is bound to the new backend."""
    affinity = Affinity(100.0, 10)
    path, pool = path_of(V4, affinity=affinity)
    assert sent_to(path, V4.datagram(), V4) == V4.backends[0]
    pool.apply(pool.backends[0], Event.CHECK_FAILED)
    second = sent_to(path, V4.datagram(), V4)
    pool.apply(pool.backends[0], Event.CHECK_PASSED)
    assert sent_to(path, V4.datagram(client_port=40001), V4) == second
