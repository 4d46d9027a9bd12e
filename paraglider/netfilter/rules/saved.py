"""Parses the output of ``iptables-save``, and finds our part of it.

Lives here: the split by table, our chains and the jumps to them, and the input that removes them.
Rules: a chain is ours if its name starts with PARAGLIDER, a jump if it leads to such a chain; no
other chain is named in the output. Comments and counters are ignored.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field

PREFIX = "PARAGLIDER"


@dataclass(slots=True)
class SavedTable:
    """Our part of one table: names of our chains, their rules, and the jumps from elsewhere."""

    name: str
    chains: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    jumps: list[str] = field(default_factory=list)


def our_tables(saved: str) -> tuple[SavedTable, ...]:
    """Our part of ``saved`` by table, in its order; tables without any are left out."""
    tables: list[SavedTable] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            tables.append(SavedTable(line[1:].strip()))
        elif line.startswith(f":{PREFIX}"):
            tables[-1].chains.append(line[1:].split()[0])
        elif line.startswith(f"-A {PREFIX}"):
            tables[-1].rules.append(line)
        elif line.startswith("-A ") and _leads_to_us(line):
            tables[-1].jumps.append(line)
    return tuple(table for table in tables if table.chains or table.jumps)


def our_part(saved: str) -> str:
    """Our part of ``saved`` as text that is equal when the kernel holds the same rules for us."""
    lines: list[str] = []
    for table in sorted(our_tables(saved), key=lambda table: table.name):
        lines.append(f"*{table.name}")
        lines += (f":{chain}" for chain in sorted(table.chains))
        lines += sorted(table.jumps)
        # The order of the rules within a chain is meaning; that of the chains is not.
        lines += sorted(table.rules, key=lambda rule: rule.split()[1])
    return "".join(f"{line}\n" for line in lines)


def removal_text(saved: str) -> str:
    """The ``iptables-restore --noflush`` input that removes our part of ``saved``, and only it."""
    return removal_of(our_tables(saved))


def removal_of(tables: Iterable[SavedTable]) -> str:
    """The ``iptables-restore --noflush`` input that removes our part of ``tables``."""
    blocks = []
    for table in tables:
        lines = [f"*{table.name}"]
        lines += (f"-D {jump.removeprefix('-A ')}" for jump in table.jumps)
        # Emptied first, all of them, since they jump to each other.
        lines += (f"-F {chain}" for chain in table.chains)
        lines += (f"-X {chain}" for chain in table.chains)
        blocks.append("\n".join([*lines, "COMMIT\n"]))
    return "".join(blocks)


def _leads_to_us(rule: str) -> bool:
    # A comment is quoted, so it is one word whatever its content.
    words = shlex.split(rule)
    return any(
        option in ("-j", "-g") and target.startswith(PREFIX)
        for option, target in itertools.pairwise(words)
    )
