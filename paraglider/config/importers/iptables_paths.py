"""The ways of a new connection through the chains of `nat`, and the share of each destination.

Lives here: ``PathWalk``, with the ``Share`` of each ``Destination`` by its ``PacketMatch``.
Rules: as the kernel has them: rules in their order, a jump continues behind it unless the packet
was sent on. Steps and depth are bounded, since chains can multiply. Pure.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from typing import Final

from paraglider.config.diagnostics import Mark
from paraglider.config.importers.endpoints import ANY, host, listening, port_number
from paraglider.config.importers.iptables_rules import Option, Rule, Ruleset
from paraglider.config.types import IPAddress, parse_address
from paraglider.config.wording import shown

_MOST_STEPS: Final = 50_000
_DEEPEST: Final = 12
#: most addresses of a range
_MOST_OF_RANGE: Final = 256
# Conditions that say nothing about a new connection which the rule would not see anyway.
_GRANTED: Final = {
    *("-m", "--comment", "--mode", "--every", "--packet", "--probability", "--name", "--rsource"),
    *("--mask", "--set", "--rcheck", "--update", "--reap", "--seconds", "--syn", "-c"),
    *("--limit-iface-in", "--ctdir"),
}
_STATES: Final = ("--ctstate", "--state")


@dataclass(frozen=True, slots=True)
class PacketMatch:
    """The packets of a rule: protocol (None: any), VIP (``ANY``: any), ports (empty: all)."""

    protocol: str | None = None
    vip: IPAddress | str = ANY
    ports: tuple[int | str, ...] = ()

    def __str__(self) -> str:
        ports = f" port {', '.join(map(str, self.ports))}" if self.ports else ""
        return f"{self.protocol or 'all protocols'} to {self.vip}{ports}"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where packets are sent; ``port`` None keeps theirs. ``ranged``: it is one of a range."""

    host: IPAddress | str
    port: int | None
    ranged: bool = False

    def within(self, network: str) -> bool:
        """Whether it is in ``network``, an address with or without a prefix."""
        try:
            known = ipaddress.ip_network(network, strict=False)
        except ValueError:
            return str(self.host) == network
        return not isinstance(self.host, str) and self.host in known


@dataclass(frozen=True, slots=True)
class Share:
    """The part (0 to 1) of a match's new connections that ``rule`` sends to ``destination``.

    ``every`` is that of a rule by `--mode nth`, ``without`` conditions that have no counterpart,
    ``kept`` the seconds for which a client keeps its destination.
    """

    rule: Rule
    destination: Destination
    part: float
    every: int | None = None
    without: tuple[str, ...] = ()
    kept: str | None = None


@dataclass(frozen=True, slots=True)
class _PathState:
    """What the rules so far say about a packet."""

    match: PacketMatch = PacketMatch()
    without: tuple[str, ...] = ()
    every: int | None = None
    part: float = 1.0
    depth: int = 0


class _NotImportedError(Exception):
    """A rule has a condition that no service has; the message is "what; remedy"."""


@dataclass(slots=True)
class _MatchPool:
    shares: list[Share] = field(default_factory=list)
    kept: str | None = None


class PathWalk:
    """The destinations that ``rules`` of ``family`` send new connections to, by their match."""

    def __init__(self, rules: Ruleset, family: int) -> None:
        self._rules = rules
        self._family = family
        self._steps = 0
        self._full = False
        self._pools: dict[PacketMatch, _MatchPool] = {}
        #: the places of rules that lead to a destination
        self.passed: set[Mark] = set()
        #: what to say about rules that are left out
        self.messages: list[tuple[Mark, str]] = []
        self._walk("PREROUTING", _PathState())

    @property
    def found(self) -> dict[PacketMatch, list[Share]]:
        """The shares of each match."""
        return {
            match: [replace(share, kept=pool.kept) for share in pool.shares]
            for match, pool in self._pools.items()
            if pool.shares
        }

    def _walk(self, chain: str, state: _PathState) -> dict[PacketMatch, float]:
        """Follow ``chain``; returns the part of each match's packets that it sends somewhere."""
        sent: dict[PacketMatch, float] = {}
        for rule in self._rules.nat(self._family, chain):
            self._steps += 1
            if self._full or self._steps > _MOST_STEPS or state.depth > _DEEPEST:
                if not self._full:
                    what = "the chains lead to too many servers, or to each other"
                    self.messages.append((rule.mark, f"{what}; import the rules in parts"))
                self._full = True
                return sent
            leads = rule.target == "DNAT" or bool(self._rules.nat(self._family, rule.target))
            if not leads:
                self._other(rule)
                continue
            try:
                inner = _narrowed(state, rule)
            except _NotImportedError as error:
                self.messages.append((rule.mark, str(error)))
                continue
            left = max(0.0, 1 - sent.get(inner.match, 0.0) / (state.part or 1))
            inner = replace(inner, part=inner.part * left)
            consumed = self._consumed(rule, inner)
            for match, part in consumed.items():
                sent[match] = sent.get(match, 0.0) + part
        return sent

    def _consumed(self, rule: Rule, state: _PathState) -> dict[PacketMatch, float]:
        """Follow ``rule``, whose conditions are in ``state``."""
        kept = rule.condition("--rcheck") or rule.condition("--update")
        if kept is not None:
            # A client that came before; who is new is decided by the rules below.
            seconds = rule.condition("--seconds")
            pool = self._pools.setdefault(state.match, _MatchPool())
            pool.kept = pool.kept or (seconds.value if seconds is not None else "300")
            self.passed.add(rule.mark)
            return {}
        if rule.target != "DNAT":
            deeper = replace(state, depth=state.depth + 1)
            consumed = self._walk(rule.target, deeper)
            if consumed:
                self.passed.add(rule.mark)
            return consumed
        destinations = self._destinations(rule)
        self._steps += len(destinations)
        pool = self._pools.setdefault(state.match, _MatchPool())
        if any(option.name == "--persistent" for option in rule.target_options):
            pool.kept = pool.kept or "300"
        for destination in destinations:
            part = state.part / len(destinations)
            pool.shares.append(Share(rule, destination, part, state.every, state.without))
        return {state.match: state.part} if destinations else {}

    def _other(self, rule: Rule) -> None:
        """Name a rule that chooses, but not between servers."""
        if rule.condition("--mode") is not None:
            what = f"the target {shown(rule.target)} chooses no server"
            self.messages.append((rule.mark, f"{what}; the rule is left out"))

    def _destinations(self, rule: Rule) -> list[Destination]:
        found = []
        for text in rule.to("--to-destination"):
            try:
                found += _range(text)
            except ValueError as error:
                self.messages.append((rule.mark, str(error)))
        if not found and not rule.to("--to-destination"):
            self.messages.append((rule.mark, "DNAT without --to-destination; add it"))
        return found


def _narrowed(state: _PathState, rule: Rule) -> _PathState:
    """``state`` with the conditions of ``rule``."""
    match, without = state.match, list(state.without)
    every, part = state.every, state.part
    for option in rule.conditions:
        if option.name in ("-p", "-d", "--dport", "--dports"):
            match = _matched(match, option)
        elif option.name in _STATES and "NEW" in option.value.split(","):
            continue
        elif option.name == "--dst-type" and option.value == "LOCAL" and not option.negated:
            continue  # any address of the host
        elif option.name not in _GRANTED:
            without.append(shown(str(option)))
    mode = rule.condition("--mode")
    if mode is not None:
        chance, every = _chance(rule, mode.value)
        part *= chance
    return replace(state, match=match, without=tuple(without), every=every, part=part)


def _chance(rule: Rule, mode: str) -> tuple[float, int | None]:
    """The part of the packets that a rule of `-m statistic` takes, and its `--every`."""
    if mode == "nth":
        every = rule.condition("--every")
        text = every.value if every is not None else ""
        if not (text.isascii() and text.isdigit() and 0 < len(text) < 7 and int(text)):
            raise _NotImportedError(f"--every {shown(text)} is no count; write a number from 1")
        return 1 / int(text), int(text)
    wanted = rule.condition("--probability")
    try:
        chance = float(wanted.value) if wanted is not None else 1.0
    except ValueError:
        chance = 2.0
    if not 0 <= chance <= 1:
        what = f"--probability {shown(wanted.value if wanted else '')}"
        raise _NotImportedError(f"{what} is none; write a number from 0 to 1")
    negated = wanted is not None and wanted.negated
    return (1 - chance if negated else chance), None


def _matched(match: PacketMatch, option: Option) -> PacketMatch:
    """``match`` with one more condition; raises ``_NotImportedError`` if no service has it."""
    if option.negated:
        what = f"the condition {shown(str(option))} has no counterpart"
        raise _NotImportedError(f"{what}; the rule is left out")
    if option.name == "-p":
        known = {"6": "tcp", "17": "udp"}.get(option.value, option.value.lower())
        if known in ("all", "0"):
            return match
        if known not in ("tcp", "udp"):
            what = f"the protocol {shown(option.value)} has no counterpart"
            raise _NotImportedError(f"{what}; the rule is left out")
        return replace(match, protocol=known)
    if option.name == "-d":
        return replace(match, vip=_vip(option.value))
    try:
        return replace(match, ports=tuple(_ports(option.value)))
    except ValueError as error:
        raise _NotImportedError(str(error)) from None


def _vip(text: str) -> IPAddress | str:
    address, _, prefix = text.partition("/")
    whole = {"", "32", "128", "255.255.255.255"}
    found = listening(address)
    if prefix not in whole and not isinstance(found, str):
        what = f"the rule is for the whole network {shown(text)}, and a service has one VIP"
        raise _NotImportedError(f"{what}; write a service for each address")
    return found


def _ports(text: str) -> list[int | str]:
    ports: list[int | str] = []
    for each in text.split(","):
        first, colon, last = each.partition(":")
        ports.append(f"{port_number(first)}-{port_number(last)}" if colon else port_number(first))
    return ports


def _range(text: str) -> list[Destination]:
    """The destinations of `ADDRESS[-ADDRESS][:PORT]`; raises ``ValueError`` ("what; remedy")."""
    name, port = text, ""
    if text.startswith("["):
        name, _, port = text[1:].partition("]")
        port = port.lstrip(":")
    elif text.count(":") == 1:
        name, _, port = text.partition(":")
    if not name:
        raise ValueError(f"{shown(text)} names no server; the rule is left out")
    if "-" in port or "/" in port:
        what = f"the port is one of the range {shown(port)}"
        raise ValueError(f"{what}; a backend has one port, so the rule is left out")
    number = port_number(port) if port else None
    first, dash, last = name.partition("-")
    if not dash:
        return [Destination(host(first), number)]
    begin, end = parse_address(first.strip("[]")), parse_address(last.strip("[]"))
    count = int(end) - int(begin) + 1
    if begin.version != end.version or not 0 < count <= _MOST_OF_RANGE:
        raise ValueError(
            f"the range {shown(name)} has no 1 to {_MOST_OF_RANGE} addresses; list them"
        )
    return [Destination(begin + index, number, ranged=count > 1) for index in range(count)]
