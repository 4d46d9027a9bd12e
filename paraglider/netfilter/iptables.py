"""The host's packet filter, through iptables' programs.

Lives here: the output of ``iptables-save``, the trial of new rules, their application, and the
removal of empty chains and tables that iptables-nft leaves behind.
Rules: rules are restored with ``--noflush``. A trial changes nothing on the host. A built-in chain
or table is removed only if it is empty, accepts by default and did not exist before the set-up.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from paraglider.errors import OperatorError, PlatformError
from paraglider.netfilter.generation import Memo
from paraglider.netfilter.nft import listed
from paraglider.netfilter.programs import attempt, complaint, find_program, run
from paraglider.netfilter.rules.saved import PREFIX, our_part, removal_text

Tables = dict[str, list[str]]
"""Names of tables, each with the names of its chains."""

TABLES = ("raw", "mangle", "filter")
_NFT_FAMILY = {4: "ip", 6: "ip6"}
_WAIT = ("-w", "10")  # iptables-legacy: seconds to wait for its lock; iptables-nft needs none


class Iptables:
    """The packet filter of the network namespace that the process runs in."""

    _programs: ClassVar[dict[int, str]] = {4: "iptables", 6: "ip6tables"}

    def __init__(self, memo: Memo | None = None) -> None:
        self._memo = memo or Memo()

    def require(self, family: int) -> None:
        """Raises ``OperatorError`` when a program that the rules of ``family`` need is missing."""
        find_program(f"{self._programs[family]}-restore")
        find_program(f"{self._programs[family]}-save")
        if self._is_nft(family):
            find_program("nft")

    def saved(self, family: int) -> str:
        """The output of ``iptables-save`` for ``family``, all tables; with iptables-nft it is
        cached until nf_tables change.
        """
        program = f"{self._programs[family]}-save"
        if not self._is_nft(family):
            return run([program])
        return self._memo.get(program, lambda: run([program]))

    def ours(self, family: int) -> str:
        """Our part of the rules, in a form that compares equal for equal rules."""
        return our_part(self.saved(family))

    def rehearse(self, family: int, text: str) -> None:
        """Try ``text`` out; raises ``PlatformError`` if the kernel refuses it.

        The kernel validates a rule only when it is added, so the rules are added in a temporary
        network namespace. If that is not permitted, ``iptables-restore --test`` checks the text.
        """
        restore = self.restore_command(family)
        argv = ["unshare", "--net", find_program(restore[0]), *restore[1:]]
        done = attempt(argv, text)
        if done.returncode != 0 and done.stderr.startswith("unshare:"):
            done = attempt([*restore, "--test"], text)
        if done.returncode != 0:
            raise PlatformError(
                f"the kernel refuses the IPv{family} rules: {complaint(done)}",
                "the daemon needs NFQUEUE, HMARK, CT, mark, multiport and socket of netfilter"
                " (CONFIG_NETFILTER_XT_TARGET_NFQUEUE and so on), `start` needs connmark alone",
            )

    def restore(self, family: int, text: str) -> None:
        """Apply ``text``; raises ``PlatformError`` with the program's error."""
        done = attempt(self.restore_command(family), text)
        if done.returncode != 0:
            raise PlatformError(f"IPv{family} rules: restore failed: {complaint(done)}")

    def restore_command(self, family: int) -> list[str]:
        """The command that ``restore`` runs."""
        return [f"{self._programs[family]}-restore", "--noflush", *_WAIT]

    def remove_ours(self, family: int) -> None:
        """Remove our chains and the jumps to them, if there are any."""
        text = removal_text(self.saved(family))
        if text:
            self.restore(family, text)

    def tables(self, family: int) -> Tables | None:
        """The tables that iptables-nft uses and their chains; None with iptables-legacy."""
        if not self._is_nft(family):
            return None
        found: Tables = {table: [] for table in self._used(family)}
        for item in listed(["list", "chains", _NFT_FAMILY[family]]):
            if (chain := item.get("chain")) and chain["table"] in found:
                found[chain["table"]].append(chain["name"])
        return found

    def unused_text(self, family: int, before: Tables | None) -> str:
        """The ``nft`` input that removes empty built-in chains and tables that are not in
        ``before``.
        """
        if before is None or not self._is_nft(family):
            return ""
        lines = []
        for table in self._used(family):
            lines += _unused(_NFT_FAMILY[family], table, before.get(table))
        return "".join(f"{line}\n" for line in lines)

    def remove_unused(self, family: int, before: Tables | None) -> None:
        """Remove the empty built-in chains and tables that were not there ``before``."""
        if text := self.unused_text(family, before):
            run(["nft", "-f", "-"], text)

    def _used(self, family: int) -> list[str]:
        """The names of the tables that iptables-nft uses."""
        listing = listed(["list", "tables", _NFT_FAMILY[family]])
        named = (item["table"]["name"] for item in listing if "table" in item)
        return [name for name in named if name in TABLES]

    def _is_nft(self, family: int) -> bool:
        name = f"{self._programs[family]}-restore"
        path = Path(find_program(name))
        return _uses_nft(name, path.resolve(), path.stat().st_mtime_ns)


class LegacyIptables(Iptables):
    """The tables of iptables-legacy, by its own programs."""

    _programs: ClassVar[dict[int, str]] = {4: "iptables-legacy", 6: "ip6tables-legacy"}

    def filters(self, family: int) -> bool:
        """Whether a legacy filter table exists here and its programs are installed. Does not create
        the table: it reads /proc.
        """
        if "filter" not in legacy_tables(family):
            return False
        try:
            self.require(family)
        except OperatorError:
            return False
        return True


@cache
def _uses_nft(name: str, _path: Path, _modified: int) -> bool:
    """Whether the program ``name`` is iptables-nft's, asked once for a file and its time."""
    return "nf_tables" in run([name, "--version"])


_LEGACY_NAMES = {4: "ip_tables_names", 6: "ip6_tables_names"}


def legacy_tables(family: int, proc: Path = Path("/proc/net")) -> tuple[str, ...]:
    """The tables of iptables-legacy in this network namespace; empty if it is not in use."""
    try:
        return tuple(sorted((proc / _LEGACY_NAMES[family]).read_text(encoding="ascii").split()))
    except OSError:
        return ()


def _unused(family: str, table: str, before: list[str] | None) -> list[str]:
    """The nft commands for one table; ``before`` are the chains it had, None if it did not exist.

    Our own chains are ignored, so the result is the same before and after their removal.
    """
    used: set[str] = set()
    removable: list[str] = []
    others = False
    for item in listed(["list", "table", family, table]):
        if rule := item.get("rule"):
            if not _leads_to_us(rule):
                used.add(rule["chain"])
        elif chain := item.get("chain"):
            if chain["name"].startswith(PREFIX):
                continue
            builtin = "hook" in chain and chain.get("policy") == "accept"
            if builtin and chain["name"] not in (before or []):
                removable.append(chain["name"])
            else:
                others = True
        elif "table" not in item and "metainfo" not in item:
            others = True  # a set, a map, a counter: the table is in use
    gone = [name for name in removable if name not in used]
    commands = [f"delete chain {family} {table} {name}" for name in gone]
    if before is None and not others and len(gone) == len(removable):
        commands.append(f"delete table {family} {table}")
    return commands


def _leads_to_us(rule: dict[str, Any]) -> bool:
    targets = (part.get("jump") or part.get("goto") for part in rule["expr"])
    return any(target and target["target"].startswith(PREFIX) for target in targets)
