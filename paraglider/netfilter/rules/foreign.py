"""Decides from nft's listing whether another firewall's forward chain drops balanced packets.

    UNTRACKED         packets that conntrack does not track, both ways
    FIRST, ANSWERS    the first packet of a connection that was translated (dnat), and answers

Lives here: ``Passing``, packets of one kind (``ForwardMethod.passing``); ``is_dropped``, the effect
of a base chain on them.
Rules: pure. Three-valued: a rule matches, does not match, or may match. A chain drops packets only
if a rule that certainly matches, or the policy, drops them and no earlier rule may accept them. A
jump to one of our chains accepts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from paraglider.netfilter.rules.saved import PREFIX

Rule = Mapping[str, Any]

_DROPS: Final = ("drop", "reject")
_DEEPEST: Final = 16  # NFT_JUMP_STACK_SIZE, linux/netfilter/nf_tables.h


@dataclass(frozen=True, slots=True)
class Passing:
    """Packets of one kind: their name, their conntrack state and status in nft's words, and the nft
    match that accepts them.
    """

    what: str
    state: str
    status: frozenset[str]
    match: str


UNTRACKED: Final = Passing("balanced packets", "untracked", frozenset(), "ct state untracked")
FIRST: Final = Passing(
    "first packets of balanced connections", "new", frozenset({"dnat"}), "ct status dnat"
)
ANSWERS: Final = Passing(
    "answers of backends", "established", frozenset({"dnat", "seen-reply"}), "ct status dnat"
)


@dataclass(slots=True)
class _Walk:
    """A walk through the chains of a table; records whether an earlier rule may accept."""

    chains: Mapping[str, Sequence[Rule]]
    packet: Passing
    accepted: bool = False

    def chain(self, name: str, depth: int = 0) -> str:
        """``accept`` or ``drop`` if the chain's result is certain; else empty."""
        if depth > _DEEPEST:
            self.accepted = True
            return ""
        for rule in self.chains.get(name, ()):
            outcome = self._rule(rule, depth)
            if outcome == "return":
                return ""
            if outcome:
                return outcome
        return ""

    def _rule(self, rule: Rule, depth: int) -> str:
        certain = True
        for part in rule.get("expr", ()):
            kind: str = next(iter(part), "")
            content: Any = part.get(kind)
            if kind == "match":
                matches = _matches(content, self.packet)
                if matches is False:
                    return ""
                certain = certain and matches is True
            elif kind in _DROPS:
                return "drop" if certain else ""
            elif kind in ("accept", "queue"):
                self.accepted = self.accepted or not certain
                return "accept" if certain else ""
            elif kind == "return":
                return "return" if certain else ""
            elif kind in ("jump", "goto"):
                return self._jump(str(content.get("target")), kind, depth, certain=certain)
            elif kind in ("xt", "vmap", "set", "limit", "ct count", "quota", "meter"):
                certain = False  # it may match or decide
                if kind == "vmap":
                    self.accepted = True
        return ""

    def _jump(self, target: str, kind: str, depth: int, *, certain: bool) -> str:
        if target.startswith(PREFIX):
            return "accept"
        if not certain:
            before, self.accepted = self.accepted, False
            may = self.chain(target, depth + 1) == "accept" or self.accepted
            self.accepted = before or may
            return ""
        outcome = self.chain(target, depth + 1)
        return outcome or ("return" if kind == "goto" else "")


def is_dropped(listing: Iterable[Mapping[str, Any]], base: str, packet: Passing) -> bool:
    """Whether the base chain ``base`` of the table in nft's JSON ``listing`` is certain to drop
    ``packet``.
    """
    chains: dict[str, list[Rule]] = {}
    policy = "accept"
    for item in listing:
        if rule := item.get("rule"):
            chains.setdefault(rule["chain"], []).append(rule)
        elif (chain := item.get("chain")) and chain["name"] == base:
            policy = chain.get("policy", "accept")
    walk = _Walk(chains, packet)
    outcome = walk.chain(base) or policy
    return outcome == "drop" and not walk.accepted


def _matches(match: Mapping[str, Any], packet: Passing) -> bool | None:
    """Whether a match holds for ``packet``; None if that is unknown."""
    left, right = match.get("left"), match.get("right")
    key = left.get("ct", {}).get("key") if isinstance(left, dict) else None
    found: bool | None = None
    if key == "state":
        found = packet.state in _words(right)
    elif key == "status":
        found = bool(packet.status & _words(right))
    elif left in ({"meta": {"key": "iifname"}}, {"meta": {"key": "oifname"}}) and right == "lo":
        found = False
    if found is None or match.get("op") not in ("==", "in", "!="):
        return None
    return not found if match.get("op") == "!=" else found


def _words(right: object) -> frozenset[str]:
    if isinstance(right, dict):
        right = right.get("set", ())
    words = right if isinstance(right, list) else [right]
    return frozenset(word for word in words if isinstance(word, str))
