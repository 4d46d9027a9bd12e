"""The packet filter's part of a plan: our nft tables, and iptables rules.

Lives here: ``filter_steps``, ``legacy_steps``, ``lacking``.
Rules: planning only reads. Each forwarding method defines its needs (``forward.registry``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from paraglider.config.model import Config
from paraglider.forward import registry
from paraglider.forward.optional_tables import optional_tables
from paraglider.forward.queue_rules import queue_rules
from paraglider.forward.static.rules import served, static_rules, static_table
from paraglider.host.changes.base import Host
from paraglider.host.changes.legacy import LegacyChange
from paraglider.host.changes.replaced_table import OptionalTableChange
from paraglider.host.changes.ruleset import RulesChange
from paraglider.host.changes.table import TableChange, set_up
from paraglider.host.plan_links import on_link_backends
from paraglider.host.step import Records, Step, table_step
from paraglider.netfilter.rules.nft import KernelTable
from paraglider.netfilter.rules.ruleset import RuleSet


def hairpin_interfaces(config: Config, family: int, host: Host) -> tuple[str, ...]:
    """The interfaces towards the backends of the services of ``family`` that conntrack carries.

    A backend on the private link is found there also before the interface has its address.
    """
    on_link = set(on_link_backends(config, family, host))
    private = config.network.private
    services = [s for s in config.services if s.family == family and s.method.conntracked]
    found: set[str] = set()
    for address in dict.fromkeys(b.address for s in services for b in s.backends):
        if address in on_link and private is not None:
            found.add(private.interface)
        elif (route := host.netlink.route_towards(address)) is not None:
            found.add(route.interface)
    return tuple(sorted(found - {"lo"}))


def filter_steps(
    config: Config, family: int, cores: tuple[int, ...], seed: int, host: Host, records: Records
) -> Iterator[Step]:
    """The steps that bring the packet filter of ``family`` to ``config``: table, then rules.

    A packet that the rules have decided about must find the table. ``cores`` as in ``make_plan``.
    """
    yield from _table(config, family, cores, seed, host, records)
    for optional in optional_tables(config, family, len(cores)) if cores else ():
        yield table_step(OptionalTableChange.of(family, optional), host, records)
    yield from _rules(config, family, cores, seed, host, records)
    yield from legacy_steps(config, family, cores, host, records)


def _table(
    config: Config, family: int, cores: tuple[int, ...], seed: int, host: Host, records: Records
) -> Iterator[Step]:
    hairpin = hairpin_interfaces(config, family, host)
    table = (
        _kernel_table(config, family, hairpin, seed)
        if cores
        else static_table(config, family, hairpin, seed)
    )
    if table is None:
        return
    datagrams: list[list[str | int]] = [list(claim) for claim in table.datagrams]
    change = TableChange(
        family,
        table.text,
        list(table.marks),
        datagrams,
        served=[] if cores else served(config, family),
        claims=table.claims,
    )
    old = records.get(change.identity)
    if not isinstance(old, TableChange):
        yield Step("apply", change, change)
        return
    there = host.nft.held(family)
    if old.text == change.text and old.saved == there:
        yield Step("keep", old, old)
    else:
        held = bool(there) and set_up(there) == set_up(old.saved)
        change = replace(change, previous=(old.text, old.marks), held=held)
        yield Step("apply", change, change)


def _kernel_table(
    config: Config, family: int, hairpin: tuple[str, ...], seed: int
) -> KernelTable | None:
    tables = (m.kernel_table(config, family, hairpin, seed) for m in registry.methods())
    return next((table for table in tables if table is not None), None)


def _rules(
    config: Config, family: int, cores: tuple[int, ...], seed: int, host: Host, records: Records
) -> Iterator[Step]:
    rules = queue_rules(config, family, cores, seed) if cores else static_rules(config, family)
    if rules is None:
        return
    change = RulesChange(family, rules.text(), None)
    old = records.get(change.identity)
    if not isinstance(old, RulesChange):
        change = replace(change, before=host.netfilter.tables(family))
        yield Step("apply", change, change)
    elif old.text == change.text and old.saved == host.netfilter.ours(family):
        yield Step("keep", old, old)
    else:
        change = replace(change, before=old.before, previous=old.text)
        yield Step("apply", change, change)


def legacy_steps(
    config: Config, family: int, cores: tuple[int, ...], host: Host, records: Records
) -> Iterator[Step]:
    """The step that accepts balanced packets in iptables-legacy's filter too, if the host uses it
    beside iptables-nft. ``cores`` as in ``make_plan``.
    """
    if not host.legacy.filters(family) or host.netfilter.tables(family) is None:
        return
    rules = queue_rules(config, family, cores, 0) if cores else static_rules(config, family)
    if rules is None:
        return
    tables = tuple(table for table in rules.tables if table.name == "filter")
    change = LegacyChange(family, RuleSet(family, tables).text())
    old = records.get(change.identity)
    if not isinstance(old, LegacyChange):
        yield Step("apply", change, change)
    elif old.text == change.text and old.saved == host.legacy.ours(family):
        yield Step("keep", old, old)
    else:
        change = replace(change, previous=old.text)
        yield Step("apply", change, change)


def lacking(config: Config, workers: int, steps: Iterable[Step]) -> list[str]:
    """Notes to the operator about optional tables for ``workers`` workers that are missing from
    ``steps``, because the kernel or nft does not support them.
    """
    made = {step.change.identity for step in steps if step.action != "revert"}
    return [
        table.lacking
        for family in sorted({service.family for service in config.services})
        for table in optional_tables(config, family, workers)
        if table.lacking and OptionalTableChange.of(family, table).identity not in made
    ]
