"""Two services with the same backend port, and a client that uses one port for both: the replies of
both flows have the same addresses and ports. At the backend that is one connection after another,
so the replies are those of the flow that is open.
"""

from __future__ import annotations

import pytest

from paraglider.bpf import layout
from paraglider.bpf.layout import (
    ALIAS,
    CLOSED,
    DECIDED,
    ESTABLISHED,
    EVENT_OPENED,
    FIN_BACK,
    FIN_OUT,
    REPLIED,
)
from paraglider.core.flow import TCP
from tests.bpf.carrying import CLIENT_PORT, FIRST, SECOND, VIP_PORT, Bed
from tests.bpf.deciding import Deciding
from tests.core.packets import FAMILIES, Family, packed

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))
OPEN = DECIDED | REPLIED | ESTABLISHED
OVER = OPEN | FIN_OUT | FIN_BACK | CLOSED
#: the translation of the other service to the first backend
THIRD = 9
#: its VIP, by family
OTHER_VIP = {4: "192.168.0.99", 6: "2001:db8::99"}
#: clients' ports: a reply to one is looked up by the backend first, to the other by its own key
PORTS = pytest.mark.parametrize("port", [CLIENT_PORT, VIP_PORT - 1], ids=("high", "low"))
#: which of the flows have an alias: that of the other service, the new one
ALIASED = pytest.mark.parametrize(
    ("before", "after"),
    [(False, True), (True, False), (True, True)],
    ids=("origin-then-alias", "alias-then-origin", "alias-then-alias"),
)


def share(
    deciding: Deciding, family: Family, port: int, flags: int, *, before: bool, after: bool
) -> None:
    """Have a flow of the client's ``port`` to the other service, and the program decide for one;
    whether the flows have an alias.
    """
    bed, to = deciding.bed, family.backends[0]
    deciding.decide(family, "turn", aliased=after)
    bed.translate(family, index=THIRD, vip=OTHER_VIP[family.number], aliased=before)
    if not before:
        bed.origin(family, "tcp", VIP_PORT, index=THIRD)
    ends = ("", OTHER_VIP[family.number], (port, VIP_PORT))
    bed.install(family, "tcp", *ends, flags=flags, index=THIRD)
    if before:
        bed.install(family, "tcp", to, family.client, (VIP_PORT, port), flags=ALIAS, index=THIRD)


@families
@PORTS
@ALIASED
def test_the_replies_are_those_of_the_open_flow(
    deciding: Deciding, family: Family, port: int, before: bool, after: bool
) -> None:
    """From the SYN on; the closed connection's late segments pass by."""
    share(deciding, family, port, OVER, before=before, after=after)
    reply = packed(family.vip) + packed(family.client)
    for step in ("> S", "< SA", "> A", "< A", "< FA", "> FA", "< A"):
        ran = deciding.step(family, step, client_port=port)
        assert ran.counted == {"opened" if step == "> S" else "carried": 1}
        assert step[0] == ">" or reply in ran.packet


@families
@PORTS
@ALIASED
def test_where_a_worker_has_decided(
    deciding: Deciding, family: Family, port: int, before: bool, after: bool
) -> None:
    """Of the two flows, neither of which the program has opened, the open one has the replies, and
    keeps them when both are closed.
    """
    bed, to = deciding.bed, family.backends[0]
    share(deciding, family, port, OVER, before=before, after=after)
    bed.install(family, "tcp", ports=(port, VIP_PORT), flags=REPLIED | ESTABLISHED)
    if after:
        bed.maps.flows[TCP, family.number].delete(reply_key(family, port))
        bed.install(family, "tcp", to, family.client, (VIP_PORT, port), flags=ALIAS)
    reply = packed(family.vip) + packed(family.client)
    for _ in range(2):
        for step in ("< A", "< FA", "> FA", "< A"):
            ran = deciding.step(family, step, client_port=port)
            assert ran.counted == {"carried": 1}
            assert step[0] == ">" or reply in ran.packet


@families
@PORTS
def test_the_closed_flow_goes_with_its_alias(deciding: Deciding, family: Family, port: int) -> None:
    """No entry is left that a worker could take for the new flow's, or remove with it."""
    share(deciding, family, port, OVER, before=True, after=True)
    assert deciding.first(family, "tcp", client_port=port) == "opened"
    assert deciding.entries(family) == {
        Bed.key(family, family.client, family.vip, (port, VIP_PORT)): FIRST,
        reply_key(family, port): FIRST,
    }
    owner = layout.FLOW.unpack(alias_of(deciding, family, port))[4]
    assert [event[0] for event in deciding.bed.events(owner)] == [EVENT_OPENED]


@families
@PORTS
def test_a_flow_that_is_open_keeps_its_replies(
    deciding: Deciding, family: Family, port: int
) -> None:
    """A worker decides, and finds another backend."""
    share(deciding, family, port, OPEN, before=True, after=True)
    found = deciding.entries(family)
    assert deciding.first(family, "tcp", client_port=port) == "syn"
    assert deciding.entries(family) == found
    ran = deciding.step(family, "< A", client_port=port)
    assert packed(OTHER_VIP[family.number]) + packed(family.client) in ran.packet


@families
def test_an_open_flow_to_another_backend(deciding: Deciding, family: Family) -> None:
    """It does not get what the closed connection's backend still sends."""
    port = VIP_PORT - 1
    share(deciding, family, port, OVER, before=True, after=False)
    deciding.bed.install(family, "tcp", ports=(port, VIP_PORT), flags=OPEN, index=SECOND)
    ran = deciding.step(family, "< A", client_port=port)
    assert ran.counted == {"carried": 1}
    assert packed(OTHER_VIP[family.number]) + packed(family.client) in ran.packet


@families
def test_a_port_that_was_used_at_both(deciding: Deciding, family: Family) -> None:
    """The entry of one closed flow is replaced, and that of the other goes."""
    bed = deciding.bed
    share(deciding, family, CLIENT_PORT, OVER, before=True, after=True)
    bed.install(family, "tcp", flags=OVER, index=SECOND)
    ends = (family.backends[1], family.client, (VIP_PORT, CLIENT_PORT))
    bed.install(family, "tcp", *ends, flags=ALIAS, index=SECOND)
    assert deciding.first(family, "tcp") == "opened"
    assert deciding.entries(family) == {
        Bed.key(family, family.client, family.vip, (CLIENT_PORT, VIP_PORT)): FIRST,
        reply_key(family, CLIENT_PORT): FIRST,
    }


@families
def test_on_two_cpus_at_once(deciding: Deciding, family: Family) -> None:
    """One of them opens the flow; the other goes the same way, or to the worker."""
    ports = range(10_000, 10_300)
    for port in ports:
        share(deciding, family, port, OVER, before=True, after=True)
    deciding.decide(family, "turn", bound=1 << 31, aliased=True)
    counted = deciding.syns_at_once(family, ports)
    assert counted["opened"] + counted["carried"] + counted["syn"] == 2 * len(ports)
    found = deciding.entries(family)
    assert set(found.values()) == {FIRST}
    assert len(found) == 2 * counted["opened"] == 2 * len(ports)


def reply_key(family: Family, port: int) -> bytes:
    """The key of the first backend's replies to the client's ``port``."""
    return Bed.key(family, family.backends[0], family.client, (VIP_PORT, port))


def alias_of(deciding: Deciding, family: Family, port: int) -> bytes:
    """The alias of these replies."""
    value = deciding.bed.maps.flows[TCP, family.number].get(reply_key(family, port))
    assert value is not None
    return value
