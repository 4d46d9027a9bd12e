"""The conntrack rules of our table."""

from __future__ import annotations

import re
from collections.abc import Callable

from paraglider.config.model import Config, TimeoutsConfig
from paraglider.config.service import Method
from paraglider.netfilter.rules.conntrack import (
    elements,
    invalid,
    objects,
    policies,
    refused,
    refused_policy,
    replied,
    replied_policy,
    timed,
)
from paraglider.netfilter.rules.traffic import traffic_of


def named(name: str) -> Callable[[Method], bool]:
    """The match of the method with this name."""
    return lambda method: method.name == name


def seconds(content: str) -> dict[str, int]:
    """A policy as data."""
    pairs = (part.split(" : ") for part in content.split(", "))
    return {state: int(value) for state, value in pairs}


def test_states_have_the_files_seconds() -> None:
    """A half-closed connection lives as an established one, a closed one shortly, and UDP that was
    answered once as long as all UDP.
    """
    tcp, udp = map(seconds, policies(TimeoutsConfig(syn=250, established=8000, udp=130)).values())
    assert tcp["syn_sent"] == tcp["syn_recv"] == 250
    assert tcp["established"] == tcp["fin_wait"] == tcp["close_wait"] == 8000
    assert tcp["last_ack"] == tcp["time_wait"] == 60
    assert tcp["close"] == 10
    assert udp == {"unreplied": 130, "replied": 130}


def test_a_name_is_of_its_seconds_alone() -> None:
    """A policy cannot be changed in place: other seconds are another policy, the same are it."""
    first, again, other = (policies(TimeoutsConfig(syn=syn)) for syn in (250, 250, 251))
    assert first == again
    (tcp, udp), (other_tcp, other_udp) = first, other
    assert tcp != other_tcp
    assert udp == other_udp


def test_what_rules_name_is_there() -> None:
    """Every policy, set and counter that a rule names has been added."""
    kept = {5: (), 60: ()}
    added = "\n".join(objects("ip t", "ip", TimeoutsConfig(), kept))
    rules = (*timed("ip", TimeoutsConfig(), kept), refused("ip"))
    assert len(rules) == 5
    for rule in rules:
        assert f"add ct timeout ip t {rule.split(chr(34))[1]} " in added
        for name in re.findall(r"@([\w-]+)", rule):
            assert f"add set ip t {name} " in added
    for name in ("vips", "answering", "fins"):
        assert any(f"@{name}" in rule for rule in invalid("ip", ()))
        assert f"add set ip t {name} " in added
    assert refused_policy()[0] not in policies(TimeoutsConfig())


def test_ends_are_those_of_tcp_each_once() -> None:
    """Two services with one VIP or one backend are one element, and datagrams are none."""

    def service(name: str, protocol: str, ports: object) -> dict[str, object]:
        vip, forward = "192.0.2.1/32", "offload"
        made = {"name": name, "vip": vip, "protocol": protocol, "ports": ports, "forward": forward}
        return {**made, "backends": ["10.0.0.1", {"address": "10.0.0.2", "port": 8080}]}

    services = [service("a", "tcp", 80), service("b", "any", ["80-90"]), service("c", "udp", 53)]
    config = Config.model_validate({"services": services})
    vips, answering = elements("ip t", traffic_of(config, 4, named("offload")), {})
    assert vips == "add element ip t vips { 192.0.2.1 . 80-90 }"
    assert answering.endswith("{ 10.0.0.1 . 80-90, 10.0.0.2 . 8080 }")
    assert not list(elements("ip6 t", traffic_of(config, 6, named("offload")), {}))


def test_the_timeout_of_answered_datagrams() -> None:
    """One policy per timeout of the services; port 53 has a default, TCP has none."""
    base = {"vip": "192.0.2.1/32", "forward": "offload", "backends": ["10.0.0.1"]}
    services = [
        {"name": "dns", "protocol": "udp", "ports": 53},
        {"name": "zone", "protocol": "tcp", "ports": 53},
        {"name": "any", "protocol": "any", "ports": 90, "timeouts": {"udp_reply": 5}},
        {"name": "long", "protocol": "udp", "ports": "70-71", "timeouts": {"udp_reply": 20}},
        {"name": "none", "protocol": "udp", "ports": 80},
    ]
    config = Config.model_validate({"services": [{**base, **s} for s in services]})
    found = replied(config, 4)
    lines = list(elements("ip t", traffic_of(config, 6, named("offload")), found))
    assert lines == [
        "add element ip t replied-5 { 192.0.2.1 . 53, 192.0.2.1 . 90 }",
        "add element ip t replied-20 { 192.0.2.1 . 70-71 }",
    ]
    assert seconds(replied_policy(5)[1]) == {"unreplied": 10, "replied": 5}
    assert seconds(replied_policy(20)[1]) == {"unreplied": 20, "replied": 20}
    assert replied(config, 6) == {}
