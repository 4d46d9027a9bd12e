"""ICMP errors about no flow of ours pass untouched, those about garbage are dropped."""

from __future__ import annotations

import pytest
from icmp_packets import ERRORS, inner_echo, inner_tcp, inner_udp, world
from packets import FAMILIES, V4, V6, Family, nat, run, service
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from paraglider.core import verdict
from paraglider.core.verdict import PASS, REWRITTEN


def foreign(family: Family) -> dict[str, bytes]:
    """Inner packets of no flow of ours."""
    vip, client, server = family.vip, family.client, family.backends[0]
    other = family.router
    wrong = 4 if family.number == 6 else 6
    stranger = V4 if wrong == 4 else V6
    parts: dict[str, Packet] = {
        "a client we do not know": inner_tcp(family, vip, other, 80, True),
        "another port": inner_tcp(family, vip, client, 82, True),
        "the other protocol": inner_udp(family, vip, client, 80, True),
        "a backend's port that is mapped": inner_tcp(family, client, server, 80, False),
        "the client's packet before it was rewritten": inner_tcp(family, client, vip, 80, False),
        "a packet the same way as the error's flow": inner_tcp(family, server, client, 8080, True),
        "the host's own ping of the client": inner_echo(family, vip, client, 0, False),
        "an echo reply to a backend": inner_echo(family, client, server, 0, True),
        "another protocol": family.ip(vip, client) / Raw(bytes(20)),
        "a packet of the other family": inner_tcp(
            stranger, stranger.vip, stranger.client, 80, True
        ),
        "an error": family.ip(vip, client)
        / ERRORS[family.number]["time exceeded"].copy()
        / Raw(bytes(inner_tcp(family, client, server, 8080, False))),
    }
    if family.number == 4:
        parts["another protocol"].proto = 132
        parts["a later fragment"] = family.ip(vip, client, frag=9) / Raw(bytes(30))
    else:
        parts["another protocol"].nh = 132
        parts["a later fragment"] = (
            family.ip(vip, client) / IPv6ExtHdrFragment(offset=9, nh=6) / Raw(bytes(30))
        )
    return {name: bytes(part) for name, part in parts.items()}


@pytest.mark.parametrize(
    ("family", "inner"),
    [(f, inner) for f in FAMILIES for inner in foreign(f).values()],
    ids=[f"IPv{f.number}: {name}" for f in FAMILIES for name in foreign(f)],
)
def test_an_error_about_no_flow_passes(family: Family, inner: bytes) -> None:
    """An error about a packet of no flow passes unchanged, because it may be for the host."""
    path = world(family)
    header = ERRORS[family.number]["time exceeded"].copy()
    packet = bytes(family.ip(family.router, family.vip) / header / Raw(inner))
    assert run(path, packet) == (PASS, packet)
    assert path.counts[verdict.NO_FLOW] == sum(path.counts) == 1


def garbled(family: Family) -> dict[str, bytes]:
    """Inner packets that are cut or cannot be read."""
    whole = bytes(inner_tcp(family, family.vip, family.client, 80, True))
    size = 20 if family.number == 4 else 40
    parts = {
        "nothing": b"",
        "19 bytes": whole[:19],
        "an IP header and no more": whole[:size],
        "7 bytes of transport": whole[: size + 7],
        "IP version 9": bytes([0x90 | whole[0] & 15]) + whole[1:],
    }
    if family.number == 4:
        parts["a header of 16 bytes"] = b"\x44" + whole[1:]
        parts["a length under the header"] = whole[:2] + b"\0\x13" + whole[4:]
    else:
        parts["a payload of nothing"] = whole[:4] + b"\0\0" + whole[6:]
        parts["an extension header past the end"] = whole[:6] + b"\x00" + whole[7:40] + b"\x06\xff"
    return parts


@pytest.mark.parametrize(
    ("family", "inner"),
    [(f, inner) for f in FAMILIES for inner in garbled(f).values()],
    ids=[f"IPv{f.number}: {name}" for f in FAMILIES for name in garbled(f)],
)
def test_an_error_about_garbage_passes(family: Family, inner: bytes) -> None:
    """An error whose inner packet cannot be read is about no flow of ours: passed and counted."""
    path = world(family)
    header = ERRORS[family.number]["time exceeded"].copy()
    packet = bytes(family.ip(family.router, family.vip) / header / Raw(inner))
    assert run(path, packet) == (PASS, packet)
    assert path.counts[verdict.SHORT_ERROR] == sum(path.counts) == 1


@pytest.mark.parametrize(("outer", "inner"), [(V4, V6), (V6, V4)], ids=["IPv4", "IPv6"])
def test_families_do_not_mix(outer: Family, inner: Family) -> None:
    """An error about a packet of the other family passes, even if that packet has a flow."""
    path = nat(service(V4), service(V6))
    for family in (V4, V6):
        assert run(path, family.syn())[0] == REWRITTEN
    about = Raw(bytes(inner_tcp(inner, inner.vip, inner.client, 80, True)))
    header = ERRORS[outer.number]["time exceeded"]
    packet = bytes(outer.ip(outer.router, outer.vip) / header.copy() / about)
    assert run(path, packet) == (PASS, packet)
    right = bytes(inner.ip(inner.router, inner.vip) / ERRORS[inner.number]["time exceeded"] / about)
    assert run(path, right)[0] == REWRITTEN
