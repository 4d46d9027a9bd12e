"""The parts of another configuration that are applied in place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.config.service import METHODS
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon.inputs.reload import Capabilities, FlowLoss, compare
from paraglider.errors import OperatorError

ALL = Capabilities({"worker", "conntrack counter", "proxy worker"}, STRATEGIES)


def config(*services: dict[str, Any], **top: Any) -> Config:
    """A configuration of these services, each on a port of its own."""
    base = {"vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    whole = [{"name": f"s{i}", **base, "ports": 80 + i, **s} for i, s in enumerate(services)]
    return Config.model_validate({"services": whole, **top})


def test_all_that_can_be_is_taken_over() -> None:
    """Services are added and removed, and nothing is reported."""
    new = config({"strategy": "maglev"}, {"forward": "offload"}, timeouts={"udp": 200})
    change = compare(config({}, {}, {}), new, ALL)
    assert change.config == new
    assert change.restart == ()
    assert "service s2 removed" in change.words


PROXY = {"forward": "proxy"}


def test_carriers_that_do_without_bpf_are_taken_over() -> None:
    """`auto` has the worker where BPF is not; with BPF every carrier can be changed."""
    without = replace(ALL, no_bpf="no libbpf")
    other = replace(ALL, lacks={METHODS["tunnel"]: "no source of a route"})
    rows = (("auto", without), ("worker", without), ("bpf", ALL), ("bpf", other))
    for carrier, able in rows:
        new = config({"carrier": carrier})
        change = compare(config({"strategy": "wrr"}), new, able)
        assert (change.config, change.restart) == (new, ()), carrier


@pytest.mark.parametrize(
    ("now", "wanted", "able", "restart"),
    [
        ({}, {"strategy": "a.b:C"}, ALL, "s0 takes a restart: policies are loaded at the start"),
        (PROXY, {**PROXY, "ports": 90}, ALL, "s0 takes a restart to listen anew"),
        ({}, PROXY, ALL, "s0 takes a restart to listen anew"),
        (
            PROXY,
            {},
            Capabilities({"proxy worker"}, STRATEGIES),
            "s0 takes a restart: no worker reads a queue",
        ),
        (
            {"forward": "offload"},
            {"forward": "offload", "strategy": "weighted"},
            Capabilities({"worker"}, STRATEGIES),
            "s0 takes a restart: no process counts the kernel's flows",
        ),
        (
            {},
            {"carrier": "bpf"},
            replace(ALL, no_bpf="no libbpf"),
            "s0 takes a restart: BPF carries no flow (no libbpf)",
        ),
        (
            {},
            {"carrier": "bpf"},
            replace(ALL, lacks={METHODS["nat"]: "no source of a route"}),
            "s0 takes another kernel: no source of a route",
        ),
    ],
)
def test_what_takes_a_restart_stays_as_it_is(
    now: dict[str, Any], wanted: dict[str, Any], able: Capabilities, restart: str
) -> None:
    """One of two services is not changed: the other is."""
    other = {"forward": "proxy", "strategy": "wrr"}
    change = compare(config(now, PROXY), config(wanted, other), able)
    assert change.restart == (f"service {restart}",)
    assert change.words == ("service s1: strategy rr → wrr",)
    assert change.config == config(now, other)


def routed(name: str, service: str = "s0", **keys: Any) -> dict[str, Any]:
    """A route of ``service``, whose port it has."""
    route = {"service": service, "sni": [f"{name}.example"]}
    return {**PROXY, "name": name, "ports": 80, "route": route, **keys}


def test_routes_listen_no_more_than_their_service() -> None:
    """They are added, changed and removed in place."""
    none, one = config(PROXY), config(PROXY, routed("a"))
    two = config(PROXY, routed("a", backends=["10.0.0.2"]), routed("b"))
    for now, wanted in ((none, one), (one, two), (two, none)):
        change = compare(now, wanted, ALL)
        assert (change.config, change.restart) == (wanted, ())


def test_routes_wait_for_their_service() -> None:
    """Where that takes a restart, they do too, and a service that becomes a route does."""
    late = "takes a restart to listen anew"
    change = compare(config({}), config(PROXY, routed("a")), ALL)
    whose = "service a takes a restart, as s0, which accepts its connections"
    assert (change.config, change.restart) == (config({}), (f"service s0 {late}", whose))
    alone = {**PROXY, "name": "a", "ports": 90}
    change = compare(config(PROXY, alone), config(PROXY, routed("a")), ALL)
    assert (change.config, change.restart) == (config(PROXY, alone), (f"service a {late}",))


def test_nothing_is_left() -> None:
    """If every service needs a restart the reload is refused."""
    with pytest.raises(OperatorError, match="no service is left"):
        compare(config(PROXY), config({"name": "other", **PROXY}), ALL)


def test_steering_stays() -> None:
    """Packets of flows that there are must not go to other workers."""
    with pytest.raises(OperatorError, match="affinity"):
        compare(config({}), config({"affinity": "client"}), ALL)


@pytest.mark.parametrize(
    ("now", "wanted", "what"),
    [
        ({}, {"forward": "offload"}, "forward nat → offload"),
        ({"forward": "offload"}, {"forward": "dsr"}, "forward offload → dsr"),
        ({}, {"vip": "192.0.2.9/24"}, "vip 192.0.2.1 → 192.0.2.9"),
    ],
)
def test_a_service_whose_flows_would_end(
    now: dict[str, Any], wanted: dict[str, Any], what: str
) -> None:
    """It is not changed, and reported with the number of flows; the rest is applied. Without flows,
    or with force, it is changed.
    """
    flows = {"s0": 31, "s1": 7}
    before, after = config(now, {}), config(wanted, {"strategy": "wrr"})
    ending = FlowLoss(flows.__getitem__)
    able = Capabilities(ALL.roles, ALL.strategies, ending)
    change = compare(before, after, able)
    assert change.restart == (
        f"service s0: {what} ends 31 flows; `paraglider reload --force` does it all the same",
    )
    assert change.words == ("service s1: strategy rr → wrr",)
    assert change.config.services == (before.services[0], after.services[1])
    forced = compare(before, after, replace(able, ending=replace(ending, force=True)))
    assert forced.restart == ()
    assert forced.words[-1] == "service s0: 31 flows ended"
    assert forced.config == after
    flows["s0"] = 0
    assert compare(before, after, able).config == after


def test_a_proxy_ends_nothing() -> None:
    """Its connections are two sockets, which go on."""
    able = Capabilities(ALL.roles, ALL.strategies, FlowLoss(lambda _: 5))
    assert compare(config(PROXY), config({}), able).restart == ()
