"""Our nftables tables, through the program nft.

Lives here: the trial of a table's text, its application and removal, and the kernel's listing of a
table in a comparable form.
Rules: one run of nft is one transaction. Tables of others are never changed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from paraglider.errors import OperatorError, PlatformError
from paraglider.netfilter.generation import Memo
from paraglider.netfilter.programs import attempt, complaint, find_program, run
from paraglider.netfilter.rules.delta import delta
from paraglider.netfilter.rules.nft import NFT_FAMILY, TABLE, removal_text

_ABSENT = "No such file or directory"  # ENOENT, in nft's words


class Nft:
    """Our tables in the network namespace that the process runs in.

    Listings are cached until nf_tables change (``memo``).
    """

    def __init__(self, memo: Memo | None = None) -> None:
        self._memo = memo or Memo()

    def require(self) -> None:
        """Raise ``OperatorError`` when nft is missing, ``PlatformError`` when the kernel has no
        conntrack. Loads conntrack if it is a module.
        """
        find_program("nft")
        probe = f"add table ip {TABLE}-probe\nadd chain ip {TABLE}-probe c\n"
        probe += f"add rule ip {TABLE}-probe c ct mark 1\n"
        done = attempt(["nft", "-c", "-f", "-"], probe)
        if done.returncode != 0:
            raise PlatformError(
                f"the kernel cannot balance by itself: {complaint(done)}",
                "`forward: offload` and `start` need nf_tables and nf_conntrack; the daemon's"
                " `forward: nat` does without",
            )

    def trial(self, text: str) -> str:
        """nft's error for ``text``, empty if there is none. The text is applied in a temporary
        network namespace or, if that is not permitted, checked here with ``nft -c``.
        """
        done = attempt(["unshare", "--net", find_program("nft"), "-f", "-"], text)
        if done.returncode != 0 and done.stderr.startswith("unshare:"):
            done = attempt(["nft", "-c", "-f", "-"], text)
        return complaint(done) if done.returncode != 0 else ""

    def rehearse(self, text: str) -> None:
        """Try ``text`` out; raises ``PlatformError`` when the kernel refuses it."""
        self._refuse(self.trial(text))

    def rehearse_change(self, before: str, after: str, reset: Iterable[str] = ()) -> None:
        """As ``rehearse``, for ``change``; checked here with ``nft -c``."""
        done = attempt(["nft", "-c", "-f", "-"], delta(before, after, reset))
        self._refuse(complaint(done) if done.returncode != 0 else "")

    def _refuse(self, reason: str) -> None:
        if reason:
            raise PlatformError(
                f"the kernel refuses the nft table: {reason}",
                "it needs nf_tables with nat, masq, ct, hash, numgen and conntrack marks"
                " (CONFIG_NFT_NAT and so on), and with timeout policies"
                " (CONFIG_NF_CONNTRACK_TIMEOUT); the daemon's `forward: nat` does without",
            )

    def load(self, text: str, seconds: float = 60.0) -> None:
        """Apply ``text``; raises ``PlatformError`` with the complaint, nothing is changed then.
        After ``seconds`` nft is ended, and it is not known whether it has applied it.
        """
        done = attempt(["nft", "-f", "-"], text, seconds)
        if done.returncode != 0:
            raise PlatformError(f"nft refuses the table: {complaint(done)}")

    def change(self, before: str, after: str, reset: Iterable[str] = ()) -> None:
        """Change the table from the text ``before``, which the kernel has, to ``after``: applies
        the differences and recreates the objects in ``reset`` (``rules.delta``). Raises as
        ``load``.
        """
        if text := delta(before, after, reset):
            self.load(text)

    def held(self, family: int, table: str = TABLE, *, terse: bool = False) -> str:
        """The kernel's content of ``table``, equal for equal content; empty if there is no such
        table. If ``terse``, the elements of its sets and maps are left out, and not read.

        Raises ``PlatformError`` if nft fails.
        """
        return self._memo.get((family, table), lambda: self._read(family, table, terse))

    def _read(self, family: int, table: str, terse: bool) -> str:
        option = ["-t"] if terse else []
        listing = _listed_here([*option, "list", "table", NFT_FAMILY[family], table])
        return "" if listing is None else comparable(listing)

    def present(self, family: int) -> frozenset[str]:
        """The names of all tables of ``family``, ours and others'.

        Raises as ``held``.
        """
        listing = _listed_here(["list", "tables", NFT_FAMILY[family]]) or []
        return frozenset(item["table"]["name"] for item in listing if "table" in item)

    def counters(self, family: int) -> dict[str, tuple[int, int]] | None:
        """Packets and bytes of the counters of our table, by name; None if it does not exist.

        Raises ``PlatformError`` when nft fails.
        """
        listing = _listed_here(["list", "counters", "table", NFT_FAMILY[family], TABLE])
        if listing is None:
            return None
        return {
            item["counter"]["name"]: (item["counter"]["packets"], item["counter"]["bytes"])
            for item in listing
            if "counter" in item
        }

    def remove(self, family: int, *tables: str) -> None:
        """Remove ``tables``, all ours and by default the one of that name, as far as they exist."""
        lines = (
            f"add table {NFT_FAMILY[family]} {table}\n{removal_text(family, table)}"
            for table in tables or (TABLE,)
        )
        with contextlib.suppress(OperatorError):  # without nft there are none
            self.load("".join(lines))


def listed(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The list that ``nft -j`` with ``arguments`` prints.

    Raises ``PlatformError`` when nft fails or its output is not JSON: nft 1.0.6 prints invalid JSON
    for a table with the flag `owner`, which belongs to a running program.
    """
    return _read(arguments, run(["nft", "-j", *arguments]))


def _listed_here(arguments: Sequence[str]) -> list[dict[str, Any]] | None:
    """As ``listed``; None if the object does not exist or nft is missing."""
    try:
        done = attempt(["nft", "-j", *arguments])
    except OperatorError:
        return None
    if done.returncode != 0 and _ABSENT in done.stderr:
        return None
    if done.returncode != 0:
        raise PlatformError(f"nft -j {' '.join(arguments)} failed: {complaint(done)}")
    return _read(arguments, done.stdout)


def _read(arguments: Sequence[str], text: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(text)["nftables"]
    except (ValueError, KeyError, TypeError) as error:
        what = " ".join(arguments)
        raise PlatformError(
            f"the output of `nft -j {what}` is not valid: {error}",
            "look at `nft list tables`: a table with `flags owner` belongs to a running program; "
            "stop it, or update nft",
        ) from error
    return found


def comparable(listing: list[dict[str, Any]]) -> str:
    """nft's JSON of a table without the parts that differ between equal tables: handles, the order
    of map elements and of counters, counted values, and set elements that packets added.
    """
    lines = []
    for item in listing:
        for kind, content in item.items():
            if kind == "metainfo":
                continue
            kept = {
                key: sorted(value, key=json.dumps) if key == "elem" else value
                for key, value in content.items()
                if key not in ("handle", "packets", "bytes")
                and not (key == "elem" and "timeout" in content.get("flags", ()))
            }
            lines.append(f"{kind} {json.dumps(kept, sort_keys=True)}")
    # Only the order of rules matters.
    lines.sort(key=lambda line: "" if line.startswith("rule ") else line)
    return "".join(f"{line}\n" for line in lines)
