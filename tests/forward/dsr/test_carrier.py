"""Tests of ``paraglider.forward.dsr.carrier``: leases in the kernel's sets."""

from __future__ import annotations

import pytest

from paraglider.forward.dsr.carrier import end_leases
from paraglider.lab.namespace import Namespace


@pytest.mark.root
@pytest.mark.parametrize(("family", "mark"), [("ip", 0x52000001), ("ip6", 0x52800001)])
def test_leases_end(inside: Namespace, family: str, mark: int) -> None:
    """Those of one backend, all at once; without the table, or the set, there are none."""
    end_leases(mark)
    place, others = f"{family} paraglider-dsr", mark + 1
    lines = [f"add table {place}"]
    for each in (mark, others):
        kind = "type inet_service; flags dynamic, timeout;"
        lines.append(f"add set {place} to-{each:08x} {{ {kind} }}")
        lines.append(f"add element {place} to-{each:08x} {{ 80 timeout 60s, 81 timeout 60s }}")
    inside.run(["nft", "-f", "-"], text="".join(f"{line}\n" for line in lines))
    end_leases(mark)
    end_leases(mark + 2)
    shown = inside.run(["nft", "list", "table", *place.split()]).stdout
    assert shown.count("expires") == 2
    assert "expires" not in shown.split(f"to-{others:08x}")[0]
