"""A rule set: the tables, chains and jumps that the kernel is to hold for one family.

Lives here: the shape, and the ``iptables-restore --noflush`` input that leads to it.
Rules: the built-in chains get one jump each and no policy; a chain of ours that the kernel already
has is refilled and never removed, since removing a chain drops every packet that waits in a queue
of the namespace (Linux, net/netfilter/nf_queue.c: nf_queue_nf_hook_drop).
"""

from __future__ import annotations

from dataclasses import dataclass

from paraglider.rules.saved import SavedTable, our_tables


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

    def restore_text(self, saved: str = "") -> str:
        """The input for ``iptables-restore --noflush``, given what ``iptables-save`` prints now.

        Jumps that are there stay where they are; missing ones become the first rule of their
        chain. Chains of ours that the rule set no longer has are emptied and removed.
        """
        present = {table.name: table for table in our_tables(saved)}
        return "".join(_table_text(table, present.get(table.name)) for table in self.tables)


def _table_text(table: Table, present: SavedTable | None) -> str:
    held = present or SavedTable(table.name)
    wanted = {f"-A {builtin} -j {chain}" for builtin, chain in table.jumps}
    names = {chain.name for chain in table.chains}
    old = [chain for chain in held.chains if chain not in names]
    lines = [f"*{table.name}"]
    lines += (f":{chain.name} - [0:0]" for chain in table.chains)
    lines += (f"-D {jump.removeprefix('-A ')}" for jump in held.jumps if jump not in wanted)
    lines += (
        f"-I {builtin} 1 -j {chain}"
        for builtin, chain in table.jumps
        if f"-A {builtin} -j {chain}" not in held.jumps
    )
    for chain in table.chains:
        lines.append(f"# {chain.purpose}")
        lines += (f"-A {chain.name} {rule}" for rule in chain.rules)
    lines += (f"-F {chain}" for chain in old)
    lines += (f"-X {chain}" for chain in old)
    return "\n".join([*lines, "COMMIT\n"])
