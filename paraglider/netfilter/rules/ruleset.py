"""A rule set: the tables, chains and jumps that the kernel should have for one family.

Lives here: the model, its text, and the ``iptables-restore --noflush`` input that changes the
kernel's present rules to it.
Rules: the built-in chains get one jump each and no policy; a chain of ours that the kernel already
has is refilled and never removed, because removing a chain drops every packet that waits in a queue
of the namespace (Linux, net/netfilter/nf_queue.c: nf_queue_nf_hook_drop).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paraglider.netfilter.rules.saved import SavedTable, our_tables, removal_of


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours: its name, why it is there, and its rules (what follows ``-A NAME``)."""

    name: str
    purpose: str
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Our part of a table: chains, and (built-in chain, chain of ours) jumps."""

    name: str
    chains: tuple[Chain, ...]
    jumps: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All that the kernel is to hold for one family (4 or 6)."""

    family: int
    tables: tuple[Table, ...]

    def text(self) -> str:
        """The rule set as ``iptables-restore --noflush`` input where nothing of ours is there."""
        return "".join(_table_text(table) for table in self.tables)


def joined(tables: Iterable[Table]) -> tuple[Table, ...]:
    """``tables`` with those of the same name as one."""
    found: dict[str, Table] = {}
    for table in tables:
        if (first := found.get(table.name)) is None:
            found[table.name] = table
        else:
            both = first.chains + table.chains, first.jumps + table.jumps
            found[table.name] = Table(table.name, *both)
    return tuple(found.values())


def restore_text(text: str, saved: str) -> str:
    """``RuleSet.text`` adapted to a kernel of which ``iptables-save`` prints ``saved``.

    Jumps that are there stay where they are; missing ones become the first rule of their
    chain. Chains and jumps of ours that ``text`` does not have are removed.
    """
    present = {table.name: table for table in our_tables(saved)}
    blocks = []
    for block in text.split("COMMIT\n")[:-1]:
        lines = block.splitlines()
        name = lines[0].removeprefix("*")
        blocks.append(_adapted(lines, present.pop(name, SavedTable(name))))
    return "".join(blocks) + removal_of(present.values())


def _table_text(table: Table) -> str:
    lines = [f"*{table.name}"]
    lines += (f":{chain.name} - [0:0]" for chain in table.chains)
    lines += (f"-I {builtin} 1 -j {chain}" for builtin, chain in table.jumps)
    for chain in table.chains:
        lines.append(f"# {chain.purpose}")
        lines += (f"-A {chain.name} {rule}" for rule in chain.rules)
    return "\n".join([*lines, "COMMIT\n"])


def _adapted(lines: list[str], present: SavedTable) -> str:
    declared = [line for line in lines if line.startswith(":")]
    wanted = {line: _appended(line) for line in lines if line.startswith("-I ")}
    rest = [line for line in lines[1:] if line not in wanted and not line.startswith(":")]
    names = {line[1:].split()[0] for line in declared}
    old = [chain for chain in present.chains if chain not in names]
    stale = [jump for jump in present.jumps if jump not in wanted.values()]
    missing = [line for line, jump in wanted.items() if jump not in present.jumps]
    adapted = [
        lines[0],
        *declared,
        *(f"-D {jump.removeprefix('-A ')}" for jump in stale),
        *missing,
        *rest,
        *(f"-F {chain}" for chain in old),
        *(f"-X {chain}" for chain in old),
        "COMMIT\n",
    ]
    return "\n".join(adapted)


def _appended(insertion: str) -> str:
    """The line of ``iptables-save`` for ``-I CHAIN 1 -j TARGET``."""
    _, builtin, _, *target = insertion.split()
    return " ".join(["-A", builtin, *target])
