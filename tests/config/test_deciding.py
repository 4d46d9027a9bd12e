"""Tests of ``paraglider.config.deciding``: the kernel decides unless a service needs more."""

from __future__ import annotations

from typing import Any

import pytest

import paraglider.forward.registry  # noqa: F401
from paraglider.config.deciding import (
    MOST_PORTS,
    NO_ROOM,
    deciders,
    exceptions,
    kernel_decides,
    why_not_kernel,
    why_python,
)
from paraglider.config.model import Service
from paraglider.config.service import METHODS


def service(**keys: Any) -> Service:
    """A service that BPF carries, and of which it may decide the flows, with ``keys``."""
    plain = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "ports": "80"}
    plain |= {"decide": "auto"}
    return Service.model_validate(plain | {"carrier": "bpf", "backends": ["10.0.0.1"]} | keys)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"strategy": "wrr"},
        {"strategy": "weighted"},
        {"ports": f"1000-{999 + MOST_PORTS}"},
        {"protocol": "any", "ports": "1-65535"},
        {"protocol": "tcp", "ports": "53"},
        {"protocol": "udp", "ports": "5353"},
        {"return": "direct"},
        {"return": "direct", "strategy": "maglev"},
        {"forward": "dsr"},
        {"forward": "dsr", "strategy": "maglev"},
        {"forward": "dsr", "strategy": "source", "decide": "hash"},
        {"forward": "dsr", "strategy": "maglev", "decide": "hash", "protocol": "udp", "ports": 53},
        {"all_down": "use_all", "on_down": "keep", "slow_start": 5, "drain_timeout": 60},
    ],
    ids=str,
)
def test_the_kernel_decides(keys: dict[str, Any]) -> None:
    """Where a table says it all, whatever the states of the backends do."""
    assert why_python(service(**keys)) == ""
    assert kernel_decides(service(**keys))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"decide": "python"}, "`decide: python`"),
        ({"strategy": "policy:Mine"}, "`strategy: policy:Mine` has no table for the kernel"),
        ({"affinity": "client"}, "`affinity: client`: a worker"),
        ({"forward": "dsr", "strategy": "rr", "decide": "python"}, "`decide: python`"),
        ({"protocol": "udp", "ports": "53"}, "`udp_reply`: "),
        ({"protocol": "udp", "timeouts": {"udp_reply": 2}}, "`udp_reply`: "),
        ({"ports": f"1000-{1000 + MOST_PORTS}"}, "it has more than 64 ports, and not all"),
    ],
)
def test_a_worker_decides(keys: dict[str, Any], why: str) -> None:
    """What needs more than a table has its reason."""
    assert why_python(service(**keys)).startswith(why)
    assert not kernel_decides(service(**keys))


def test_without_bpf_nothing_is_said() -> None:
    """If the workers decide as they carry: by `decide: python`, or where there is no choice."""
    worker: dict[str, Any] = {"carrier": "worker", "decide": "python"}
    for keys in (worker, {"forward": "proxy", "carrier": "bpf"}):
        assert not kernel_decides(service(**keys))
        assert deciders([service(**keys)], bpf=True) == {}
    assert deciders([service(decide="python"), service(forward="offload")], bpf=False) == {}


def test_the_kernel_was_to_decide_and_the_workers_carry() -> None:
    """The log has that, whether it is by the host or by the file."""
    auto, worker = service(name="a"), service(name="w", carrier="worker")
    carried = "the workers carry its flows"
    assert deciders([auto, worker], bpf=True) == {"": ["a"], carried: ["w"]}
    assert deciders([auto], bpf=True, unplaced={"a"}) == {NO_ROOM: ["a"]}
    assert deciders([auto], bpf=True, lacks={METHODS["nat"]}) == {carried: ["a"]}
    assert deciders([auto, worker], bpf=False) == {carried: ["a", "w"]}


def test_what_the_daemon_adds() -> None:
    """Whether BPF carries, and whether there is room; the file's reason comes before the latter."""
    auto, mine = service(), service(affinity="client")
    assert why_not_kernel(auto) == ""
    assert why_not_kernel(auto, bpf=False) == "the workers carry its flows"
    assert why_not_kernel(service(carrier="worker")) == "the workers carry its flows"
    assert why_not_kernel(auto, room=False) == NO_ROOM
    assert why_not_kernel(mine, room=False) == why_python(mine)
    assert why_not_kernel(service(forward="offload")) is None


def test_services_are_listed_by_their_reason() -> None:
    """One line of the log for all that have the same."""
    services = [
        service(name="a"),
        service(name="b", decide="python"),
        service(name="c"),
        service(name="d", decide="python"),
    ]
    assert deciders(services, bpf=True) == {"": ["a", "c"], "`decide: python`": ["b", "d"]}


@pytest.mark.parametrize(
    ("keys", "queries"),
    [
        ({}, False),
        ({"protocol": "udp"}, False),
        ({"protocol": "udp", "ports": 53}, True),
        ({"protocol": "any", "timeouts": {"udp_reply": 3}}, True),
        ({"protocol": "tcp", "ports": 53}, False),
        ({"forward": "dsr", "protocol": "udp", "ports": 53}, True),
        (
            {"forward": "dsr", "protocol": "udp", "ports": 53}
            | {"decide": "hash", "strategy": "maglev"},
            False,
        ),
    ],
    ids=str,
)
def test_queries_are_left_to_a_worker(keys: dict[str, Any], queries: bool) -> None:
    """UDP with ``udp_reply`` is among the exceptions, unless it has no flows."""
    assert ("UDP (`udp_reply`)" in exceptions(service(**keys))) == queries
