"""Imports load balancing by ``iptables``: rules that send every nth, or a random, new connection to
another backend.

Lives here: ``LOOKS``, ``convert``.
Rules: a backend's share is what the kernel gives it: a rule sees what the rules above it left. The
kernel's NAT stays what forwards (`forward: offload`), and a rule that changes the source for the
backends becomes `snat`. Rules without a choice between backends are no load balancing, and stay on
the host; they are counted in a note. The walk through the chains is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from paraglider.config.diagnostics import Mark
from paraglider.config.importers import iptables_rules
from paraglider.config.importers.draft import Draft, counted
from paraglider.config.importers.iptables_paths import Destination, PacketMatch, PathWalk, Share
from paraglider.config.importers.iptables_rules import Rule, Ruleset
from paraglider.config.importers.services import (
    FoundBackend,
    FoundService,
    Given,
    ServiceWriter,
    longest,
)
from paraglider.config.wording import shown, ticked

LOOKS = iptables_rules.LOOKS

#: shares closer than this are equal
_CLOSE: Final = 0.02
#: a smaller share is none
_NONE: Final = 1e-6
#: most rules for networks that are compared with every server
_MOST_NETWORKS: Final = 100


def convert(text: str) -> Draft:
    """A service for each destination of the rules that has several backends."""
    draft = Draft()
    rules = iptables_rules.read(text)
    for mark, message in rules.broken:
        draft.mistake(("services",), mark, message)
    for mark, word in rules.unknown:
        what = f"{shown(word)} is for a shell to work out, so this rule is left out"
        draft.note(mark, f"{what}; write the value itself, or import what iptables-save prints")
    writer = ServiceWriter(draft, text)
    used: set[Mark] = set()
    removed: set[Mark] = set()
    times: list[Given] = []
    for family in (4, 6):
        walk = PathWalk(rules, family)
        sources = _SourceRules(rules.nat(family, "POSTROUTING"))
        for mark, message in walk.messages:
            draft.note(mark, message)
        used |= walk.passed
        for match, shares in walk.found.items():
            used |= {share.rule.mark for share in shares}
            if len({share.destination for share in shares}) < 2:
                what = f"the rule sends {match} to one server"
                draft.note(shares[0].rule.mark, f"{what}; it balances nothing, so keep it as it is")
                continue
            service = _service(match, shares, times)
            changing = set(_source(service, shares, sources))
            used |= changing
            removed |= changing | {share.rule.mark for share in shares}
            writer.write(service)
    if not writer.count and not draft.problems:
        what = "no rule chooses between servers by -m statistic, or by a range of --to-destination"
        remedy = "import what `iptables-save` prints on the balancer"
        draft.mistake(("services",), Mark(1, 1), f"{what}; {remedy}")
    longest(draft, ("timeouts", "affinity"), times, "a client is kept for one time")
    _remaining(draft, rules, used, removed)
    return draft


def _service(match: PacketMatch, shares: list[Share], times: list[Given]) -> FoundService:
    mark = shares[0].rule.mark
    tail = f"-{match.ports[0]}" if match.ports else ""
    service = FoundService(
        mark,
        f"{match.protocol or 'any'}-{match.vip}{tail}".replace(":", "-").replace("*", "all"),
        match.vip,
        match.protocol or "any",
        list(match.ports),
    )
    service.keys["forward",] = Given("offload", mark, "the kernel's NAT, as now")
    weights = _weights(service, shares)
    hashed = all(share.destination.ranged for share in shares)
    strategy = "source" if hashed else "wrr" if len(set(weights)) > 1 else "rr"
    comment = "the kernel takes one of a range by the client's address" if hashed else ""
    service.keys["strategy",] = Given(strategy, mark, comment)
    seen: dict[Destination, FoundBackend] = {}
    for share, weight in zip(shares, weights, strict=True):
        if share.destination in seen:
            seen[share.destination].weight += weight
            continue
        to = share.destination
        backend = FoundBackend(share.rule.mark, to.host, to.port, weight)
        seen[to] = backend
        service.backends.append(backend)
    for share in shares:
        for what in share.without:
            remedy = "limit who may connect in the host's firewall, if that is needed"
            service.note(share.rule.mark, f"{what} has no counterpart; {remedy}")
        if share.kept is not None and ("affinity",) not in service.keys:
            service.keys["affinity",] = Given(
                "client", share.rule.mark, "-m recent, or --persistent"
            )
            times.append(Given(share.kept, share.rule.mark, "--seconds"))
    return service


def _weights(service: FoundService, shares: list[Share]) -> list[int]:
    """The backends' weights by their shares, with notes where connections are left over."""
    total = sum(share.part for share in shares)
    parts = [share.part for share in shares]
    every = {share.every for share in shares}
    mark = shares[0].rule.mark
    if every == {len(shares)} and len(shares) > 1 and len(set(parts)) > 1:
        said = ", ".join(f"{100 * part:.0f} %" for part in parts)
        what = f"each rule counts what the rules above it left, so the servers get {said} now"
        service.note(
            mark, f"{what}; equal shares are taken, since `--every` is the same", "strategy"
        )
        return [1] * len(shares)
    if total < 1 - _CLOSE:
        what = f"{100 * (1 - total):.0f} % of the new connections match none of these rules"
        service.note(mark, f"{what}; here all of them are balanced", "strategy")
    for share in shares:
        if share.part < _NONE:
            what = "the rules above this one leave it no connection"
            service.note(share.rule.mark, f"{what}; its server gets weight 0", "backends")
    return _whole_numbers([part if part >= _NONE else 0.0 for part in parts])


def _whole_numbers(parts: list[float]) -> list[int]:
    """``parts`` in proportion, as small whole numbers; 0 stays 0."""
    least, most = min(filter(None, parts), default=1.0), max(parts)
    if least >= (1 - _CLOSE) * most:
        return [int(part > 0) for part in parts]
    for factor in range(1, 21):
        wanted = [part / least * factor for part in parts]
        if max(wanted) > 1000:
            break
        if all(abs(each - round(each)) <= _CLOSE * each for each in wanted):
            return [round(each) for each in wanted]
    return [max(int(part > 0), round(100 * part / most)) for part in parts]


def _source(service: FoundService, shares: list[Share], rules: _SourceRules) -> Iterable[Mark]:
    """Set `snat` by those of ``rules`` that change the source for the backends; returns their
    places.
    """
    marks: list[Mark] = []
    sources: dict[str, Rule] = {}
    covered = 0
    for share in shares:
        rule = rules.of(share)
        if rule is None:
            continue
        covered += 1
        marks.append(rule.mark)
        out = rule.condition("-o")
        name = "" if out is None or out.negated else out.value
        addresses = rule.to("--to-source")
        sources.setdefault(addresses[0] if addresses else f"interface {name}", rule)
    if not sources:
        return marks
    source, rule = next(iter(sources.items()))
    if len(sources) > 1 or covered < len(shares):
        what = "the rules change the source for some of the servers, or in several ways"
        service.note(rule.mark, f"{what}; a service has one `snat`", "snat")
    if not source.startswith("interface "):
        service.keys["snat",] = Given(source.split(":")[0] if "." in source else source, rule.mark)
        if "-" in source:
            what = f"the source is one of the range {shown(source)}"
            service.note(rule.mark, f"{what}; write one address", "snat")
            service.keys["snat",] = Given(source.partition("-")[0], rule.mark)
        return marks
    name = source.removeprefix("interface ")
    service.keys["snat", "interface"] = Given(name or "eth0", rule.mark, "MASQUERADE")
    if not name:
        what = "the rule that masquerades names no interface"
        service.note(rule.mark, f"{what}; write the one towards the servers", "snat")
    return marks


class _SourceRules:
    """The rules of POSTROUTING that change the source, by the address that they are for."""

    def __init__(self, rules: list[Rule]) -> None:
        self._by_address: dict[str, list[Rule]] = {}
        self._others: list[Rule] = []
        for rule in rules:
            to = rule.condition("-d")
            if rule.target not in ("SNAT", "MASQUERADE") or rule.condition("-s") is not None:
                continue
            if to is not None and "/" not in to.value.removesuffix("/32").removesuffix("/128"):
                self._by_address.setdefault(to.value.partition("/")[0], []).append(rule)
            elif len(self._others) < _MOST_NETWORKS:
                self._others.append(rule)

    def of(self, share: Share) -> Rule | None:
        """The first rule that changes the source of what ``share`` sends to its server."""
        own = self._by_address.get(str(share.destination.host), [])
        return next((rule for rule in (*own, *self._others) if _changes(rule, share)), None)


def _changes(rule: Rule, share: Share) -> bool:
    """Whether ``rule`` changes the source of what ``share`` sends to its server."""
    to = rule.condition("-d")
    port = rule.condition("--dport")
    wanted = share.destination.port
    if port is not None and wanted is not None and port.value != str(wanted):
        return False
    return to is None or (not to.negated and share.destination.within(to.value))


def _remaining(draft: Draft, rules: Ruleset, used: set[Mark], removed: set[Mark]) -> None:
    """Note the rules that are not taken over, and those that have to go."""
    if removed:
        what = f"the rules that balance in the kernel begin here ({len(removed)} of them)"
        remedy = "remove them from the host before `paraglider.config`, since they come first"
        draft.note(min(removed), f"{what}; {remedy}")
    for (_, table, chain), every in rules.chains.items():
        marks = [rule.mark for rule in every if rule.mark not in used]
        if marks:
            what = f"{ticked(f'{table}/{chain}')}: {counted(len(marks), 'rule')} not taken over"
            draft.note(min(marks), f"{what}; leave them as they are")
    if rules.others:
        what = f"{counted(len(rules.others), 'other command')} not taken over, from this one on"
        draft.note(min(rules.others), f"{what}; keep them in a script of their own")
