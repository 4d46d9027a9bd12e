"""The table of ours in nftables, through nft's own program.

Lives here: the trial of a table's text, its application and removal, and what the kernel holds of
it, in a form that can be compared.
Rules: one run of nft is one transaction. Only tables of ours are ever named.
"""

from __future__ import annotations

import json
from typing import Any

from paraglider.errors import OperatorError, PlatformError
from paraglider.rules.nft import NFT_FAMILY, TABLE, removal_text
from paraglider.system.programs import attempt, complaint, find_program, run


class Nft:
    """Our tables in the network namespace that the process runs in."""

    def require(self) -> None:
        """Raises ``OperatorError`` when nft is missing, ``PlatformError`` when the kernel has no
        conntrack; loads it where it is a module.
        """
        find_program("nft")
        probe = f"add table ip {TABLE}-probe\nadd chain ip {TABLE}-probe c\n"
        probe += f"add rule ip {TABLE}-probe c ct mark 1\n"
        done = attempt(["nft", "-c", "-f", "-"], probe)
        if done.returncode != 0:
            raise PlatformError(
                f"the kernel does not do `forward: offload`: {complaint(done)}",
                "it needs nf_tables and nf_conntrack; `forward: nat` does without",
            )

    def rehearse(self, text: str) -> None:
        """Try ``text`` out in a namespace that is gone afterwards, or, where we may not make one,
        let the kernel look at it here; raises ``PlatformError`` when it cannot do it.
        """
        done = attempt(["unshare", "--net", find_program("nft"), "-f", "-"], text)
        if done.returncode != 0 and done.stderr.startswith("unshare:"):
            done = attempt(["nft", "-c", "-f", "-"], text)
        if done.returncode != 0:
            raise PlatformError(
                f"the kernel refuses the table of `forward: offload`: {complaint(done)}",
                "it needs nf_tables with nat, masq, ct, hash and conntrack marks"
                " (CONFIG_NFT_NAT and so on); `forward: nat` does without",
            )

    def load(self, text: str) -> None:
        """Apply ``text``; raises ``PlatformError`` with the complaint, nothing is changed then."""
        done = attempt(["nft", "-f", "-"], text)
        if done.returncode != 0:
            raise PlatformError(f"a table was refused by nft: {complaint(done)}")

    def held(self, family: int, table: str = TABLE) -> str:
        """What the kernel holds of ``table``, equal for equal content; empty when it is not there.

        Raises ``PlatformError`` when nft fails; where there is no nft, none has made a table.
        """
        try:
            find_program("nft")
        except OperatorError:
            return ""
        listing = json.loads(run(["nft", "-j", "list", "tables", NFT_FAMILY[family]]))
        tables = [item["table"]["name"] for item in listing["nftables"] if "table" in item]
        if table not in tables:
            return ""
        text = run(["nft", "-j", "list", "table", NFT_FAMILY[family], table])
        return comparable(json.loads(text)["nftables"])

    def remove(self, family: int, table: str = TABLE) -> None:
        """Remove ``table``, which is ours, if it is there."""
        if self.held(family, table):
            self.load(removal_text(family, table))


def comparable(listing: list[dict[str, Any]]) -> str:
    """nft's JSON of a table without what differs between equal ones: handles, the order of a
    map's elements, what was counted.
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
            }
            lines.append(f"{kind} {json.dumps(kept, sort_keys=True)}")
    return "".join(f"{line}\n" for line in lines)
