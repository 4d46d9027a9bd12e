"""ICMP errors about flows of other balancers: translated by the packet inside (RFC 7690)."""

from __future__ import annotations

import pytest
from icmp_packets import (
    CLIENT_PORT,
    ERRORS,
    INNERS,
    SERVICES,
    TOO_BIG,
    Inner,
    bare_world,
    error,
    inner_tcp,
    towards_backend,
    towards_client,
)
from packets import FAMILIES, V4, Family, backend, header, nat, packed, run, service

from paraglider.core import flow
from paraglider.core.strategies.base import NewFlow
from paraglider.core.verdict import DROP, PASS, REASON_NAMES, REWRITTEN

families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
every_error = pytest.mark.parametrize(
    ("family", "kind"),
    [(f, kind) for f in FAMILIES for kind in ERRORS[f.number]],
    ids=[f"IPv{f.number} {kind}" for f in FAMILIES for kind in ERRORS[f.number]],
)


@pytest.mark.parametrize(
    ("inner", "ports"), [row[1:] for row in INNERS], ids=[row[0] for row in INNERS]
)
@every_error
def test_towards_the_backend(
    family: Family, kind: str, inner: Inner, ports: tuple[int, int] | None
) -> None:
    """An error to the VIP about an answer reaches the backend, and makes no flow."""
    path = bare_world(family, "maglev")
    before, after = towards_backend(family, kind, family.router, inner, ports, 20)
    assert run(path, before) == (REWRITTEN, after)
    assert len(path.flows) == 0


@pytest.mark.parametrize("ports", SERVICES)
@every_error
def test_towards_the_client(family: Family, kind: str, ports: tuple[int, int]) -> None:
    """An error about a request reaches the client as one about its packet to the VIP, by the
    address and port of the backend; no flow is made.
    """
    path = bare_world(family, "maglev")
    inner = next(row[1] for row in INNERS if row[2] == ports)
    before, after = towards_client(family, kind, family.router, inner, ports, 20)
    assert run(path, before) == (REWRITTEN, after)
    assert len(path.flows) == 0


@families
def test_the_backend_is_that_of_the_hash(family: Family) -> None:
    """Of three, for many clients' ports."""
    made = service(family, strategy="maglev", ports=((80, 80),))
    path = nat(made)
    ends = packed(family.client) + packed(family.vip)
    found = set()
    for port in range(CLIENT_PORT, CLIENT_PORT + 40):
        inner = inner_tcp(family, family.vip, family.client, 80, True)
        inner.dport = port
        outcome, after = run(
            path, error(family, TOO_BIG[family.number], family.router, family.vip, inner)
        )
        key = ends + port.to_bytes(2, "big") + (80).to_bytes(2, "big")
        wanted = made.strategy.pick(NewFlow(flow.TCP, key, 0.0))
        at = 16 if family.number == 4 else 24
        assert (outcome, after[at : header(after)]) == (REWRITTEN, wanted.address)
        found.add(wanted)
    assert len(found) == 3


@families
@pytest.mark.parametrize("way", [towards_backend, towards_client])
def test_a_wrong_checksum(family: Family, way: object) -> None:
    """The error is dropped, as one about a flow that is known (RFC 5508 REQ-3)."""
    path = bare_world(family, "maglev")
    before, _ = way(family, "time exceeded", family.router, inner_tcp, (flow.TCP, 80), 20)  # type: ignore[operator]
    packet = bytearray(before)
    packet[header(before) + 3] ^= 1
    assert run(path, bytes(packet))[0] == DROP
    assert path.counts[REASON_NAMES.index("bad_checksum")] == 1


@families
@pytest.mark.parametrize("way", [towards_backend, towards_client])
@pytest.mark.parametrize("changes", [{"strategy": "rr"}, {"strategy": "maglev", "adopts": False}])
def test_without_adoption(family: Family, way: object, changes: dict[str, object]) -> None:
    """The error passes unchanged: it may be for the host."""
    path = bare_world(family, **changes)  # type: ignore[arg-type]
    before, _ = way(family, "time exceeded", family.router, inner_tcp, (flow.TCP, 80), 20)  # type: ignore[operator]
    assert run(path, before) == (PASS, before)
    assert path.counts[REASON_NAMES.index("no_flow")] == 1


def test_a_port_that_answers_for_two_vips() -> None:
    """A request in an error does not tell which of them the client knows: it passes unchanged."""
    both = [
        service(
            V4, vip=vip, strategy="maglev", ports=((81, 81),), backends=[backend(V4.backends[0])]
        )
        for vip in (V4.vip, V4.other_vip)
    ]
    before, _ = towards_client(V4, "time exceeded", V4.router, inner_tcp, (flow.TCP, 81), 20)
    assert run(nat(*both), before) == (PASS, before)
