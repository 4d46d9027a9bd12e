"""Which backend a client keeps, for how long, and that the memory is bounded."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from packets import MANY

from paraglider.core.affinity import Affinity
from paraglider.core.pool import Backend

A, B = Backend("a", b"\x0a\0\0\x01"), Backend("b", b"\x0a\0\0\x02")
CLIENT = b"\xc0\xa8\0\x64"


def test_a_stranger_has_no_backend() -> None:
    """A client that was never bound finds nothing."""
    assert Affinity(60, 10).find(CLIENT, 0) is None


def test_a_client_keeps_its_backend_while_it_has_flows() -> None:
    """The client is bound however long a flow lives, and while one of several is left."""
    affinity = Affinity(60, 10)
    affinity.hold(CLIENT, A)
    affinity.hold(CLIENT, A)
    assert affinity.find(CLIENT, 1e9) is A
    affinity.release(CLIENT, 1e9)
    assert affinity.find(CLIENT, 2e9) is A


def test_a_client_lingers_after_its_last_flow() -> None:
    """The client is bound until ``linger`` seconds after it, whether expired already or not."""
    affinity = Affinity(60, 10)
    affinity.hold(CLIENT, A)
    affinity.release(CLIENT, 100)
    assert affinity.find(CLIENT, 159.9) is A
    assert affinity.find(CLIENT, 160) is None


def test_a_new_flow_ends_lingering() -> None:
    """A client that returns is held again, and lingers again from its next end."""
    affinity = Affinity(60, 10)
    affinity.hold(CLIENT, A)
    affinity.release(CLIENT, 100)
    affinity.hold(CLIENT, A)
    assert affinity.expire(500, 10) == 0
    affinity.release(CLIENT, 500)
    assert affinity.find(CLIENT, 559) is A


def test_the_newest_backend_is_kept() -> None:
    """If flows go to two backends, the client keeps the newest, also after its end."""
    affinity = Affinity(60, 10)
    affinity.hold(CLIENT, A)
    affinity.hold(CLIENT, B)
    assert affinity.find(CLIENT, 0) is B
    affinity.release(CLIENT, 10)
    affinity.release(CLIENT, 20)
    assert affinity.find(CLIENT, 30) is B


def test_lingering_is_bounded_and_the_oldest_go_first() -> None:
    """With three ended clients and a bound of two, the last two are kept."""
    affinity = Affinity(60, 2)
    for number in range(3):
        affinity.hold(bytes([number]), A)
        affinity.release(bytes([number]), number)
    assert len(affinity) == 2
    assert [affinity.find(bytes([n]), 3) for n in range(3)] == [None, A, A]


def test_clients_that_return_leave_the_others_in_their_order() -> None:
    """Of five that linger the first, the last and one between them return, and the other two are
    evicted by the next, the older one first.
    """
    affinity = Affinity(60, 5)
    clients = [bytes([number]) for number in range(8)]
    for client in clients[:5]:
        affinity.hold(client, A)
        affinity.release(client, 0)
    for client in (clients[2], clients[0], clients[4]):
        affinity.hold(client, B)
    affinity.limit(60, 2)
    for client, left in ((clients[5], [3, 5]), (clients[6], [5, 6])):
        affinity.hold(client, A)
        affinity.release(client, 1)
        lingering = [n for n in (1, 3, 5, 6) if affinity.find(clients[n], 2) is not None]
        assert lingering == left
    assert [affinity.find(clients[n], 2) for n in (0, 2, 4)] == [B, B, B]


def test_nothing_is_left_of_an_affinity_without_the_cyclic_collector() -> None:
    """Workers run without it; a reload may remove the service."""
    before, collects = sys.getrefcount(A), gc.isenabled()
    gc.disable()
    try:
        affinity = Affinity(60, 10)
        for number in range(5):
            affinity.hold(bytes([number]), A)
            affinity.release(bytes([number]), 0)
        assert sys.getrefcount(A) == before + 5
        del affinity
        assert sys.getrefcount(A) == before
    finally:
        if collects:
            gc.enable()


def test_forged_openings_push_no_client_out() -> None:
    """A hundred thousand clients that were never answered do not evict a
    client that was answered.
    """
    affinity = Affinity(600, 50)
    for number in range(50):
        client = b"real" + bytes([number])
        affinity.hold(client, A)
        affinity.confirm(client)
        affinity.release(client, 0)
    for number in range(100_000):
        client = number.to_bytes(4, "big")
        affinity.hold(client, B)
        affinity.release(client, 1)
    assert len(affinity) == 50
    assert all(affinity.find(b"real" + bytes([n]), 2) is A for n in range(50))


def test_a_confirmed_client_stays_so_through_an_unanswered_flow() -> None:
    """A client that was answered once stays confirmed if a later flow is not answered."""
    affinity = Affinity(600, 1)
    affinity.hold(CLIENT, A)
    affinity.confirm(CLIENT)
    affinity.release(CLIENT, 0)
    affinity.hold(CLIENT, A)
    affinity.release(CLIENT, 1)
    affinity.hold(b"forged", B)
    affinity.release(b"forged", 2)
    assert affinity.find(CLIENT, 3) is A
    assert affinity.find(b"forged", 3) is None


def test_confirming_a_stranger_changes_nothing() -> None:
    """Confirming an unknown client binds nothing."""
    affinity = Affinity(60, 10)
    affinity.confirm(CLIENT)
    assert (len(affinity), affinity.find(CLIENT, 0)) == (0, None)


def test_expiry_keeps_to_its_budget() -> None:
    """No more than ``budget`` clients are forgotten a call, and none that still lingers."""
    affinity = Affinity(60, 100)
    for number in range(10):
        affinity.hold(bytes([number]), A)
        affinity.release(bytes([number]), number)
    assert affinity.expire(66.5, 3) == 3
    assert affinity.expire(66.5, 100) == 4
    assert len(affinity) == 3


def test_releasing_a_stranger_changes_nothing() -> None:
    """Releasing an unknown client binds nothing."""
    affinity = Affinity(60, 10)
    affinity.release(CLIENT, 0)
    assert len(affinity) == 0


@dataclass
class Model:
    """The slow truth of one client: its open flows, its newest backend, when it ended."""

    flows: int = 0
    backend: Backend | None = None
    ended: float = 0


@MANY
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["hold a", "hold b", "confirm", "release", "wait", "expire"]),
            st.integers(0, 4),
        ),
        max_size=60,
    )
)
def test_histories_against_a_model(history: list[tuple[str, int]]) -> None:
    """After any history every client has the backend of an unbounded model."""
    linger, now = 10.0, 0.0
    affinity = Affinity(linger, 100)
    models = [Model() for _ in range(5)]
    for what, number in history:
        client, model = bytes([number]), models[number]
        if what == "wait":
            now += 3 * number
        elif what == "expire":
            affinity.expire(now, 1 + number)
        elif what == "confirm":
            affinity.confirm(client)
        elif what == "release":
            if model.flows:
                affinity.release(client, now)
                model.flows -= 1
                model.ended = now
        else:
            backend = A if what == "hold a" else B
            affinity.hold(client, backend)
            model.flows += 1
            model.backend = backend
        for index, each in enumerate(models):
            bound = each.flows > 0 or each.ended + linger > now
            assert affinity.find(bytes([index]), now) is (each.backend if bound else None)
