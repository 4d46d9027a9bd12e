"""The iptables rules of one family, put together from the parts of the forwarding methods.

Lives here: ``queue_rules``; the shared chains of mangle/PREROUTING and filter/FORWARD.
Rules: pure. Only chains named PARAGLIDER*; every match of traffic ends in a goto (``-g``), after
which the packet leaves our chain, so that no packet is steered twice. If services share a VIP,
rules for some ports come before those for all ports. No method is known by its name.
"""

from __future__ import annotations

from collections.abc import Sequence

from paraglider.config.model import Config
from paraglider.forward import registry
from paraglider.forward.rule_parts import MethodRules, RuleScope, SharedPart, shares_chains
from paraglider.netfilter.rules.filter import accept_table, no_redirects
from paraglider.netfilter.rules.matches import any_icmp, exempt
from paraglider.netfilter.rules.ruleset import Chain, RuleSet, Table, joined

_ORDER = ("raw", "mangle", "filter")


def queue_rules(config: Config, family: int, cores: tuple[int, ...], seed: int) -> RuleSet | None:
    """The rule set of ``family`` (4 or 6), or None when no service of it needs a rule.

    ``cores`` are the workers' cores in order; ``seed`` is the 32-bit seed of the steering.
    """
    present = {service.method for service in config.services if service.family == family}
    methods = tuple(method for method in registry.methods() if method in present)
    # A packet's mark costs less than its connection's.
    decided = sorted((m.decided for m in methods if m.decided), key=lambda m: "connmark" in m)
    scope = RuleScope(config, family, cores, seed, methods, tuple(decided))
    parts = [method.rules(scope) for method in methods]
    tables = joined((*_sharing(scope, parts), *_own(parts)))
    return RuleSet(family, joined((*tables, no_redirects(family)))) if tables else None


def _own(parts: Sequence[MethodRules]) -> list[Table]:
    return [table for part in parts if part.shared is None for table in part.tables]


def _sharing(scope: RuleScope, parts: Sequence[MethodRules]) -> list[Table]:
    """The shared chains, then the tables of the methods with a part of them."""
    shared = [part.shared for part in parts if part.shared is not None]
    if not shared:
        return []
    own = (table for part in parts if part.shared is not None for table in part.tables)
    tables = [
        _prerouting(scope, shared),
        accept_table(tuple(rule for part in shared for rule in part.accepted)),
        *own,
    ]
    return sorted(tables, key=lambda table: _ORDER.index(table.name))


def _prerouting(scope: RuleScope, shared: Sequence[SharedPart]) -> Table:
    icmp = tuple(rule for part in shared for rule in part.echo)
    icmp += tuple(rule for part in shared for rule in part.errors)
    chains = [
        Chain(
            "PARAGLIDER-PRE",
            "requests to the VIPs, and errors about replies; not the host's own",
            (
                *(rule for part in shared for rule in part.early),
                "-i lo -j RETURN",
                *exempt(scope.traffic(shares_chains).exempt),
                *(rule for part in shared for rule in part.some[0]),
                *scope.local,
                *(rule for part in shared for rule in part.every[0]),
                *((f"{any_icmp(scope.family)} -g PARAGLIDER-PRE-ICMP",) if icmp else ()),
            ),
        ),
        *(chain for part in shared for chain in part.some[1]),
        *(chain for part in shared for chain in part.every[1]),
    ]
    if icmp:
        name = "PARAGLIDER-PRE-ICMP"
        chains.append(Chain(name, "echo requests to the VIPs, and the errors", icmp))
    return Table("mangle", tuple(chains), (("PREROUTING", "PARAGLIDER-PRE"),))
