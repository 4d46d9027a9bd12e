"""``source``: against a slow reference, and what rendezvous hashing promises."""

from __future__ import annotations

import math
from collections import Counter
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import MANY, SOME, V4, V6, Family, packed

from paraglider.core.flow import TCP, UDP
from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow
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


def slowly(client: bytes, backends: tuple[Backend, ...], seed: int) -> Backend:
    """The highest -weight / ln(u), as the paper has it, with u from the same hashes."""
    key = seed.to_bytes(8, "big")

    def hashed(data: bytes, size: int, purpose: bytes) -> bytes:
        return blake2b(data, digest_size=size, key=key, person=purpose).digest()

    def score(backend: Backend) -> float:
        name = backend.address + backend.port.to_bytes(2, "big")
        salt = hashed(name, 16, b"source backend")
        mask = int.from_bytes(salt[:8], "big")
        factor = int.from_bytes(salt, "big") % (2**61 - 2) + 1
        number = int.from_bytes(hashed(client, 8, b"source client"), "big")
        u = (((number ^ mask) * factor) % (2**61 - 1) + 1) / 2**61
        return -backend.weight / math.log(u) if u < 1 else math.inf

    return max(backends, key=score)


WEIGHTS = st.lists(st.integers(1, 65535), min_size=1, max_size=8)
SEEDS = st.integers(0, 2**32 - 1)
ADDRESSES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))


@MANY
@given(WEIGHTS, SEEDS, ADDRESSES)
def test_picks_are_those_of_the_reference(weights: list[int], seed: int, client: bytes) -> None:
    """Each client gets the backend with the highest score."""
    backends = of(weights)
    strategy = SourceHash(seed)
    strategy.prepare(backends)
    key = client + bytes(len(client) + 4)
    assert strategy.pick(NewFlow(TCP, key, 0.0)) is slowly(client, backends, seed)


def test_picks_are_the_same_for_ever() -> None:
    """Two versions side by side have to agree: a change here moves every client at an upgrade."""
    assert (
        "".join(picks(of([1, 2, 3, 4]), seed=7)[:48])
        == "221202310322033123232323231322232313320122222220"
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


@SOME
@given(st.lists(st.integers(1, 100), min_size=2, max_size=8), st.data())
def test_who_leaves_moves_only_its_own_clients(weights: list[int], data: st.DataObject) -> None:
    """And who comes takes clients, without moving any between the others."""
    backends = of(weights)
    gone = data.draw(st.sampled_from(backends))
    before = picks(backends)
    after = picks(tuple(backend for backend in backends if backend is not gone))
    for old, new in zip(before, after, strict=True):
        assert old in (new, gone.name)


@SOME
@given(st.lists(st.integers(1, 100), min_size=2, max_size=6), st.integers(1, 100))
def test_who_grows_only_takes(weights: list[int], more: int) -> None:
    """A higher weight moves clients to that backend alone."""
    before = picks(of(weights))
    after = picks(of([weights[0] + more, *weights[1:]]))
    for old, new in zip(before, after, strict=True):
        assert new in (old, "0")


@pytest.mark.parametrize("weights", [[1] * 3, [1] * 10, [5, 3, 2], [1, 9], [1] * 9 + [90]])
def test_weights_are_respected(weights: list[int]) -> None:
    """20,000 clients of a network spread by weight, as close as a fair draw would."""
    strategy = SourceHash()
    strategy.prepare(of(weights))
    clients = (bytes([172, 16 + (i >> 16), i >> 8 & 255, i & 255]) for i in range(20_000))
    filled = Counter(strategy.pick(flow(client)).name for client in clients)
    for index, weight in enumerate(weights):
        share = weight / sum(weights)
        deviation = math.sqrt(20_000 * share * (1 - share))
        assert abs(filled[str(index)] - 20_000 * share) < 5 * deviation


def test_two_backends_draw_apart() -> None:
    """The clients of one that left spread over all others by weight, not to a neighbour."""
    backends = of([1] * 6)
    for gone in range(6):
        rest = backends[:gone] + backends[gone + 1 :]
        homeless = [
            new for old, new in zip(picks(backends), picks(rest), strict=True) if old != new
        ]
        shares = Counter(homeless)
        expected = len(homeless) / 5
        assert all(abs(shares[b.name] - expected) < 5 * math.sqrt(expected) for b in rest)


@MANY
@given(st.permutations(range(6)), ADDRESSES)
def test_the_order_of_the_file_does_not_count(order: list[int], client: bytes) -> None:
    """Machines whose files list the backends in another order agree."""
    backends = of([3, 1, 4, 1, 5, 9])
    one, other = SourceHash(), SourceHash()
    one.prepare(backends)
    other.prepare(tuple(backends[i] for i in order))
    asked = NewFlow(TCP, client + bytes(len(client) + 4), 0.0)
    assert one.pick(asked) is other.pick(asked)


def test_ports_are_part_of_a_backend() -> None:
    """Two backends on one host share the clients."""
    backends = tuple(Backend(str(port), bytes(4), port) for port in (8000, 8001))
    assert set(picks(backends)) == {"8000", "8001"}


def test_an_empty_pool_is_taken_notice_of() -> None:
    """All backends may leave and come back."""
    strategy = SourceHash()
    strategy.prepare(())
    strategy.prepare(of([1]))
    assert strategy.pick(flow(CLIENTS[0])).name == "0"
