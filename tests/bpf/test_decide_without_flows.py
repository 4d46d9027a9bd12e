"""A decision with WITHOUT_FLOWS: the program does not ask the maps of flows for its packets."""

from __future__ import annotations

import pytest

from paraglider.bpf.layout import DIRECT, FLOW, NO_ENTRIES, WITHOUT_FLOWS
from paraglider.core.flow import TCP
from tests.bpf.carrying import CLIENT_PORT, FIRST, SECOND, VIP_PORT
from tests.bpf.deciding import SEED, WORKERS, Deciding
from tests.core.packets import FAMILIES, Family, packed

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))


def key_of(family: Family) -> bytes:
    """The key of the client's flow."""
    ends = packed(family.client) + packed(family.vip)
    return ends + CLIENT_PORT.to_bytes(2, "big") + VIP_PORT.to_bytes(2, "big")


@families
@pytest.mark.parametrize("flag", [False, True], ids=("unflagged", "flagged"))
@pytest.mark.parametrize("vip", [False, True], ids=("other-vip", "vip"))
def test_an_entry_counts_unless_there_should_be_none(
    deciding: Deciding, family: Family, flag: bool, vip: bool
) -> None:
    """The flow of a worker keeps its backend; with the flag, and the bit of the VIP, the hash picks
    another without a look-up.
    """
    deciding.decide(family, "flow", (FIRST,), flags=DIRECT | NO_ENTRIES)
    deciding.decisions.set_without_flows(deciding.index, flag)
    other = bytes([packed(family.vip)[0] ^ 1]) + packed(family.vip)[1:]
    by_hash = packed(family.vip) if vip else other
    deciding.decisions.set_steering(family.number, SEED, WORKERS, [by_hash])
    entry = FLOW.pack(0, DIRECT, 0, SECOND, 0, 0, 0)
    deciding.bed.maps.flows[TCP, family.number].put(key_of(family), entry)
    ran = deciding.step(family, "> A")
    at = 16 if family.number == 4 else 24
    skipped = flag and vip and deciding.bed.hook == "tc"  # at XDP they are asked always
    assert set(ran.counted) == {"stateless" if skipped else "carried"}
    backend = packed(family.backends[0 if skipped else 1])
    assert ran.packet[at : at + len(backend)] == backend


@families
def test_without_a_backend_a_worker_decides(deciding: Deciding, family: Family) -> None:
    """As for any other decision; a packet that expires here is the kernel's."""
    deciding.decide(family, "flow", (0,), flags=DIRECT | NO_ENTRIES)
    deciding.decisions.set_without_flows(deciding.index, True)
    deciding.decisions.set_steering(family.number, SEED, WORKERS, [packed(family.vip)])
    assert deciding.reasons(family, "> S", "> A") == ["no_backend", "no_backend"]
    assert set(deciding.step(family, "> S", ttl=1).counted) == {"syn"}


def test_the_flag_lasts_until_the_decision_changes(deciding: Deciding) -> None:
    """A new bound does not change it; other flags do, with the table."""
    decisions, index = deciding.decisions, deciding.index
    decisions.configure(index, 2, (1, 2), 10, DIRECT | NO_ENTRIES)
    decisions.set_without_flows(index, True)
    decisions.configure(index, 2, (1, 2), 20, DIRECT | NO_ENTRIES)
    assert decisions.without_flows(index)
    decisions.configure(index, 2, (1, 2), 20, DIRECT)
    assert not decisions.without_flows(index)
    assert not WITHOUT_FLOWS & (DIRECT | NO_ENTRIES)
