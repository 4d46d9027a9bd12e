"""The certain effect of another firewall's forward chain on balanced packets."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.netfilter.rules.foreign import ANSWERS, FIRST, UNTRACKED, Passing, is_dropped


def ct(key: str, *words: str, op: str = "in") -> dict[str, Any]:
    """A match of conntrack's."""
    right: Any = words[0] if len(words) == 1 else list(words)
    return {"match": {"op": op, "left": {"ct": {"key": key}}, "right": right}}


def iif(name: str) -> dict[str, Any]:
    """A match of the interface."""
    return {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": name}}


ACCEPT, DROP, REJECT, RETURN = ({word: None} for word in ("accept", "drop", "reject", "return"))


def jump(target: str, verb: str = "jump") -> dict[str, Any]:
    """A jump to another chain."""
    return {verb: {"target": target}}


FIREWALLD = [
    [ct("state", "established", "related"), ACCEPT],
    [ct("status", "dnat"), ACCEPT],
    [iif("lo"), ACCEPT],
    [ct("state", "invalid"), DROP],
    [REJECT],
]


def listing(
    *rules: list[dict[str, Any]], policy: str = "accept", **chains: list[list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """A listing as `nft -j list table` prints it."""
    found: list[dict[str, Any]] = [{"metainfo": {}}, {"table": {"name": "fw"}}]
    found += [{"chain": {"name": "forward", "policy": policy, "hook": "forward"}}]
    for name, its in {"forward": list(rules), **chains}.items():
        found += [{"rule": {"chain": name, "expr": expr}} for expr in its]
    return found


def drops(packet: Passing, *args: Any, **kwargs: Any) -> bool:
    """Whether the forward chain drops the packets."""
    return is_dropped(listing(*args, **kwargs), "forward", packet)


@pytest.mark.parametrize(
    ("packet", "dropped"), [(UNTRACKED, True), (FIRST, False), (ANSWERS, False)]
)
def test_firewalld(packet: Passing, dropped: bool) -> None:
    """firewalld accepts translated packets and rejects untracked ones."""
    assert drops(packet, *FIREWALLD) is dropped


@pytest.mark.parametrize("packet", [UNTRACKED, FIRST, ANSWERS])
def test_policies(packet: Passing) -> None:
    """Without a matching rule the policy decides."""
    assert drops(packet, policy="drop")
    assert not drops(packet, policy="accept")
    assert drops(packet, [iif("lo"), ACCEPT], policy="drop")
    assert not drops(packet, [packet_match(packet), ACCEPT], policy="drop")


def packet_match(packet: Passing) -> dict[str, Any]:
    """The match that the remedy names."""
    _, key, word = packet.match.split()
    return ct(key, word)


def test_uncertain_drops_are_not_reported() -> None:
    """A rule that may accept, a map of verdicts, a match of iptables' own, a chain that may."""
    assert not drops(UNTRACKED, [iif("eth7"), ACCEPT], policy="drop")
    assert not drops(UNTRACKED, [{"vmap": {}}], policy="drop")
    assert not drops(UNTRACKED, [{"xt": {}}, ACCEPT], policy="drop")
    assert not drops(UNTRACKED, [iif("eth7"), jump("a")], policy="drop", a=[[ACCEPT]])
    assert not drops(UNTRACKED, [iif("eth7"), DROP])
    assert drops(UNTRACKED, [iif("eth7"), jump("a")], policy="drop", a=[[DROP]])
    assert drops(UNTRACKED, [iif("eth7"), DROP], policy="drop")
    assert drops(UNTRACKED, [iif("eth7"), RETURN], policy="drop")


def test_chains() -> None:
    """A jump comes back, a goto does not, and neither does a chain without an end."""
    assert not drops(UNTRACKED, [jump("a")], [ACCEPT], policy="drop", a=[[RETURN], [DROP]])
    assert drops(UNTRACKED, [jump("a", "goto")], [ACCEPT], policy="drop", a=[])
    assert not drops(UNTRACKED, [jump("a", "goto")], [DROP], a=[])
    assert drops(UNTRACKED, [jump("a")], a=[[jump("b")]], b=[[ct("state", "untracked"), DROP]])
    assert not drops(UNTRACKED, [jump("a")], policy="drop", a=[[jump("a")]])


def test_what_leads_to_us_is_accepted() -> None:
    """A jump to our chain in FORWARD accepts, whatever nft shows of its rules."""
    assert not drops(UNTRACKED, [jump("PARAGLIDER-ACCEPT")], [DROP], policy="drop")


def test_other_operators() -> None:
    """A negation, a set, and an unknown operator."""
    assert drops(UNTRACKED, [ct("state", "untracked", op="!="), ACCEPT], policy="drop")
    assert not drops(FIRST, [ct("state", "untracked", op="!="), ACCEPT], policy="drop")
    assert not drops(UNTRACKED, [ct("state", "new", op="<"), ACCEPT], policy="drop")
    rule = {"match": {"op": "==", "left": {"ct": {"key": "state"}}, "right": {"set": ["new"]}}}
    assert not drops(FIRST, [rule, ACCEPT], policy="drop")
