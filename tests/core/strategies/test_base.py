"""The arguments of a strategy about a new flow, and the promises that every strategy keeps."""

from __future__ import annotations

import gc
import ipaddress
import itertools
from types import FunctionType, ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import MANY, V4, V6, Family, nat, packed, service

from paraglider.core.flow import ICMP, TCP, Flow
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Backend, Event, Pool
from paraglider.core.strategies import KINDS, STRATEGIES, Context, NewFlow, create
from paraglider.core.strategies.base import Strategy
from paraglider.core.strategies.maglev import Maglev


@pytest.mark.parametrize("family", [V4, V6])
def test_a_new_flow_reads_its_key(family: Family) -> None:
    """Client, VIP and both ports are parts of the key, in either family."""
    client, vip = packed(family.client), packed(family.vip)
    flow = NewFlow(TCP, client + vip + b"\x9c\x40\x00\x50", 12.5)
    assert (flow.client, flow.vip) == (client, vip)
    assert (flow.client_port, flow.port) == (40000, 80)
    assert (flow.protocol, flow.now) == (TCP, 12.5)


@pytest.mark.parametrize("family", [V4, V6])
def test_a_new_flow_is_readable(family: Family) -> None:
    """A policy may ask for addresses as objects and for the protocol by name."""
    flow = NewFlow(ICMP, packed(family.client) + packed(family.vip) + bytes(4), 0.0)
    assert flow.client_address == ipaddress.ip_address(family.client)
    assert flow.vip_address == ipaddress.ip_address(family.vip)
    assert flow.protocol_name == "icmp"


FLOW = NewFlow(TCP, bytes(12), 0.0)
TURNS = ("rr", "weighted", "wrr")  # the workers' turns start apart
HASHES = ("maglev", "source")  # every worker picks alike


def quickly_built(name: str, context: Context) -> Strategy:
    """The strategy; one with a table has a small one."""
    made = create(name, context)
    return type(made)(table_size=251) if isinstance(made, Maglev) else made


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@MANY
@given(
    worker=st.integers(0, 300),
    weights=st.lists(st.integers(0, 300), min_size=1, max_size=6),
    history=st.lists(
        st.one_of(
            st.just("pick"),
            st.tuples(st.integers(0, 5), st.sampled_from(Event)),
            st.tuples(st.integers(0, 5), st.integers(0, 300)),
        ),
        max_size=60,
    ),
)
def test_only_ready_backends_are_picked(
    name: str,
    worker: int,
    weights: list[int],
    history: list[str | tuple[int, Event] | tuple[int, int]],
) -> None:
    """Through any history of states and weights, a pick is one of the backends ready then."""
    pool = Pool([Backend(str(i), bytes([i]), weight=w) for i, w in enumerate(weights)])
    context = Context(worker=worker)
    strategy = quickly_built(name, context)
    pool.watch(strategy.prepare)
    for step in history:
        if isinstance(step, str):
            if pool.ready:
                picked = strategy.pick(FLOW)
                assert picked in pool.ready
                picked.flows += 1
            continue
        backend = pool.backends[step[0] % len(pool.backends)]
        if isinstance(step[1], Event):
            pool.apply(backend, step[1])
        else:
            pool.set_weight(backend, step[1])


@pytest.mark.parametrize("name", TURNS)
def test_equal_backends_share_evenly(name: str) -> None:
    """Thirty flows that do not last over three equal backends go 10/10/10, for any worker."""
    for worker in range(4):
        backends = tuple(Backend(str(i), bytes([i])) for i in range(3))
        strategy = create(name, Context(worker=worker))
        strategy.prepare(backends)
        picks = [strategy.pick(FLOW).name for _ in range(30)]
        assert [picks.count(backend.name) for backend in backends] == [10, 10, 10]


@pytest.mark.parametrize("name", TURNS)
def test_workers_start_apart(name: str) -> None:
    """One flow on each of three workers goes to three backends."""
    first = []
    for worker in range(3):
        backends = tuple(Backend(str(i), bytes([i])) for i in range(3))
        strategy = create(name, Context(worker=worker))
        strategy.prepare(backends)
        first.append(strategy.pick(FLOW).name)
    assert sorted(first) == ["0", "1", "2"]


@pytest.mark.parametrize("name", HASHES)
def test_workers_agree(name: str) -> None:
    """Each worker picks the same backend, at any call and in any order of the workers."""
    keys = [bytes([i]) * 12 for i in range(50)]
    seen = set()
    for worker in range(4):
        backends = tuple(Backend(str(i), bytes([i])) for i in range(3))
        strategy = create(name, Context(service=f"s{worker}", worker=worker, seed=9))
        strategy.prepare(backends)
        asked = keys[worker:] + keys
        picks = [strategy.pick(NewFlow(TCP, key, 0.0)).name for key in asked]
        seen.add(tuple(picks[-50:]))
    assert len(seen) == 1


@pytest.mark.parametrize("name", HASHES)
def test_seeds_differ(name: str) -> None:
    """Another seed gives another backend for about two keys of three over three backends."""
    backends = tuple(Backend(str(i), bytes([i])) for i in range(3))
    picks = []
    for seed in (0, 1, 2**32 - 1):
        strategy = create(name, Context(seed=seed))
        strategy.prepare(backends)
        flows = [NewFlow(TCP, i.to_bytes(12, "little"), 0.0) for i in range(300)]
        picks.append([strategy.pick(flow).name for flow in flows])
    for one, other in itertools.combinations(picks, 2):
        assert 150 < sum(a != b for a, b in zip(one, other, strict=True)) < 250


PLAIN = (type, ModuleType, FunctionType, int, float, str, bytes)


def reachable(start: object) -> list[object]:
    """Every object that ``start`` leads to, code and plain values left aside."""
    found: dict[int, object] = {}
    pending = [start]
    while pending:
        item = pending.pop()
        if id(item) in found or isinstance(item, PLAIN):
            continue
        found[id(item)] = item
        pending += gc.get_referents(item)
    return list(found.values())


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_no_strategy_can_see_the_flows(name: str) -> None:
    """The cost of a pick cannot grow with the number of flows: no strategy of a packet path with
    flows can reach a flow or the table, and none is larger after many picks.
    """
    path = nat(service(V4, strategy=name))
    strategy = path.balancer.services.services[0].strategy
    strategy.pick(NewFlow(TCP, bytes(12), 0.0))
    before = reachable(strategy)
    key = packed(V4.client) + packed(V4.vip)
    for port in range(1000):
        syn = bytearray(V4.syn(client_port=1024 + port))
        path.handle(syn, 0, len(syn), 0, 0.0)
        strategy.pick(NewFlow(TCP, key + port.to_bytes(4, "big"), 0.0))
    assert len(path.flows) == 1000
    after = reachable(strategy)
    assert len(after) == len(before)
    assert not [item for item in after if isinstance(item, (Flow, FlowTable))]


def test_a_strategy_without_a_table_is_a_workers() -> None:
    """It says so, and has nothing to compute."""

    class Plain(Strategy):
        """Picks the first."""

        name = "plain"

        def prepare(self, ready: tuple[Backend, ...]) -> None:
            """See ``Strategy``."""
            self.ready = ready

        def pick(self, flow: NewFlow) -> Backend:
            """See ``Strategy``."""
            return self.ready[0]

    assert Plain.kernel_pick is None
    with pytest.raises(TypeError, match="does not pick"):
        Plain().kernel_table(lambda _: 0, 0)


@pytest.mark.parametrize("name", sorted(n for n, each in KINDS.items() if each.kernel_pick))
def test_the_kernels_table_has_the_ready_backends(name: str) -> None:
    """Every one of them, and nothing after all have left."""
    backends = tuple(Backend(str(n), bytes((10, 0, 0, n))) for n in range(1, 6))
    strategy = create(name)
    strategy.prepare(backends)
    table = strategy.kernel_table(lambda _: 0, 0)
    assert {table.backends[entry] for entry in table.entries} == set(backends)
    strategy.prepare(())
    assert len(strategy.kernel_table(lambda _: 0, 0).entries) == 0
