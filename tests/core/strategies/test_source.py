"""``source``: the table of maglev, indexed by the hash of the client's address."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import MANY, SOME, V4, V6, Family, packed

from paraglider.core.flow import TCP, UDP
from paraglider.core.pool import Backend
from paraglider.core.siphash import siphash13
from paraglider.core.strategies.base import NewFlow
from paraglider.core.strategies.maglev import build_table
from paraglider.core.strategies.source import SourceHash

CLIENTS = [bytes([192, 168, i >> 8, i & 255]) for i in range(2000)]
VIP = bytes([192, 0, 2, 1])


def of(weights: list[int]) -> tuple[Backend, ...]:
    """Backends 0, 1, 2 … of a network, with these weights."""
    return tuple(
        Backend(str(i), bytes([10, 0, i >> 8, i & 255]), weight=w) for i, w in enumerate(weights)
    )


def flow(client: bytes, ports: bytes = bytes(4)) -> NewFlow:
    """A flow of ``client``."""
    return NewFlow(TCP, client + VIP + ports, 0.0)


def picks(backends: tuple[Backend, ...], seed: int = 0) -> list[str]:
    """The names of the backends of all CLIENTS."""
    strategy = SourceHash(seed)
    strategy.prepare(backends)
    return [strategy.pick(flow(client)).name for client in CLIENTS]


SEEDS = st.integers(0, 2**64 - 1)
ADDRESSES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))


@MANY
@given(SEEDS, ADDRESSES)
def test_picks_are_by_the_hash_of_the_address(seed: int, client: bytes) -> None:
    """The client's entry of the table has its backend; the key of the hash is of the seed."""
    backends = of([1, 2, 3])
    strategy = SourceHash(seed, table_size=251)
    strategy.prepare(backends)
    key = blake2b(digest_size=16, key=seed.to_bytes(8, "big"), person=b"source flow").digest()
    words = (int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little"))
    shares = tuple((each.address + bytes(2), each.weight) for each in backends)
    index = build_table(seed, shares, 251)[siphash13(*words, client) % 251]
    asked = NewFlow(TCP, client + bytes(len(client) + 4), 0.0)
    assert strategy.pick(asked) is backends[index]


def test_picks_are_the_same_for_ever() -> None:
    """Two versions side by side have to agree: a change here moves every client at an upgrade."""
    assert "".join(picks(of([1, 2, 3, 4]), seed=7)[:48]) == (
        "323123213132322232321321323102231123212123031032"
    )


@pytest.mark.parametrize("family", [V4, V6])
def test_every_port_of_a_client_has_one_backend(family: Family) -> None:
    """Ports, protocol and VIP do not count: a client's flows go together."""
    strategy = SourceHash()
    strategy.prepare(of([1, 1, 1, 1, 1]))
    client = packed(family.client)
    found = {
        strategy.pick(NewFlow(protocol, client + packed(vip) + ports, 0.0))
        for protocol in (TCP, UDP)
        for vip in (family.vip, family.other_vip)
        for ports in (bytes(4), b"\x9c\x40\x00\x50", b"\xff\xff\x01\xbb")
    }
    assert len(found) == 1


@pytest.mark.parametrize("count", [2, 5, 50])
def test_few_clients_of_the_others_move(count: int) -> None:
    """When a backend leaves, or comes back, of the clients of the others less than 3 in 100."""
    backends = of([1] * count)
    before = picks(backends)
    for gone in range(min(count, 5)):
        after = picks(backends[:gone] + backends[gone + 1 :])
        others = [(old, new) for old, new in zip(before, after, strict=True) if old != str(gone)]
        assert sum(old != new for old, new in others) < 0.03 * len(CLIENTS)


@SOME
@given(st.lists(st.integers(1, 100), min_size=1, max_size=8))
def test_shares_are_by_weight(weights: list[int]) -> None:
    """Of the table, rounded to one entry."""
    backends = of(weights)
    strategy = SourceHash()
    strategy.prepare(backends)
    for backend, share in strategy.shares(backends).items():
        assert share is not None
        assert abs(share - backend.weight / sum(weights)) < 2 / strategy.size


@pytest.mark.parametrize("weights", [[1] * 3, [5, 3, 2], [1, 9]])
def test_clients_spread_by_weight(weights: list[int]) -> None:
    """20,000 clients of a network, as close as a fair draw would."""
    strategy = SourceHash()
    strategy.prepare(of(weights))
    clients = (bytes([172, 16, i >> 8 & 255, i & 255]) for i in range(20_000))
    filled = Counter(strategy.pick(flow(client)).name for client in clients)
    for index, weight in enumerate(weights):
        share = weight / sum(weights)
        deviation = (20_000 * share * (1 - share)) ** 0.5
        assert abs(filled[str(index)] - 20_000 * share) < 5 * deviation


def test_two_seeds_and_maglev_draw_apart() -> None:
    """The backend of a client with one seed says nothing of that with another."""
    backends = of([1] * 2)
    same = sum(a == b for a, b in zip(picks(backends, 1), picks(backends, 2), strict=True))
    assert abs(same - 1000) < 200


def test_an_explanation_names_the_entry() -> None:
    """And its holder."""
    strategy = SourceHash(table_size=251)
    backends = of([1, 1])
    strategy.prepare(backends)
    asked = flow(CLIENTS[0])
    assert strategy.reason(asked, backends) == (
        f"source: the hash of the client's address falls on entry {strategy.entry(asked)} of 251,"
        f" which {strategy.pick(asked).name} holds, one of its"
        f" {strategy.held()[strategy.pick(asked)]}"
    )


@MANY
@given(st.permutations(range(6)), ADDRESSES)
def test_the_order_of_the_file_does_not_count(order: list[int], client: bytes) -> None:
    """Machines whose files list the backends in another order agree."""
    backends = of([3, 1, 4, 1, 5, 9])
    one, other = SourceHash(table_size=251), SourceHash(table_size=251)
    one.prepare(backends)
    other.prepare(tuple(backends[i] for i in order))
    asked = NewFlow(TCP, client + bytes(len(client) + 4), 0.0)
    assert one.pick(asked) is other.pick(asked)


def test_ports_are_part_of_a_backend() -> None:
    """Two backends on one host share the clients."""
    backends = tuple(Backend(str(port), bytes(4), port) for port in (8000, 8001))
    assert set(picks(backends)) == {"8000", "8001"}


def test_an_empty_pool_is_taken_notice_of() -> None:
    """All backends may leave and return."""
    strategy = SourceHash()
    strategy.prepare(())
    strategy.prepare(of([1]))
    assert strategy.pick(flow(CLIENTS[0])).name == "0"
