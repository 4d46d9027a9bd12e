"""Leases: which verdicts request one, and when they end."""

from __future__ import annotations

import pytest
from packets import V4, service

from paraglider.core.pool import Event
from paraglider.core.verdict import MARK
from paraglider.errors import PlatformError
from paraglider.forward.dsr.carrier import LeaseCarrier, end_leases
from paraglider.lab.namespace import Namespace

LEASE = 0x800


def test_a_backend_that_left_keeps_its_mark_while_it_has_flows() -> None:
    """Then it is forgotten."""
    first, second, _ = service(V4, routed=True).pool.backends
    carrier = LeaseCarrier({first: 1, second: 2}, LEASE)
    first.flows = 1
    carrier.set_marks({second: 2})
    assert carrier.verdicts == {first: MARK | 1 << 8, second: MARK | 2 << 8}
    first.flows = 0
    carrier.set_marks({second: 2})
    assert carrier.verdicts == {second: MARK | 2 << 8}


def test_all_leases_that_are_due_end() -> None:
    """Leases of lost and of removed backends, each once; without a mark there are none."""
    pool = service(V4, routed=True).pool
    first, second, third = pool.backends
    ended: list[int] = []
    carrier = LeaseCarrier({first: 1, second: 2}, LEASE, ended.append)
    pool.apply(second, Event.CHECK_FAILED)
    carrier.remove(first)
    carrier.remove(third)
    for _ in range(2):
        carrier.sync(0.0)
    assert ended == [1, 2]


def test_a_refusal_names_the_marks_and_holds_nothing_up() -> None:
    """The others end; these end by themselves."""
    first, second, _ = service(V4, routed=True).pool.backends
    ended: list[int] = []

    def end(mark: int) -> None:
        if mark == 0x52000001:
            raise PermissionError(1, "Operation not permitted")
        ended.append(mark)

    carrier = LeaseCarrier({first: 0x52000001, second: 0x52000002}, LEASE, end)
    carrier.remove(first)
    carrier.remove(second)
    with pytest.raises(PlatformError, match=r"0x52000001 .*not permitted.*by themselves"):
        carrier.sync(0.0)
    assert ended == [0x52000002]
    carrier.sync(1.0)
    assert ended == [0x52000002]


@pytest.mark.root
@pytest.mark.parametrize(("family", "mark"), [("ip", 0x52000001), ("ip6", 0x52800001)])
def test_leases_end(inside: Namespace, family: str, mark: int) -> None:
    """All leases of one backend end at once; without the table or the set there are none."""
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
