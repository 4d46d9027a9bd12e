"""The precomputed values of a translation, compared with packets built by scapy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import FAMILIES, SOME, Family, backend, packed
from scapy.layers.inet import TCP
from scapy.packet import Raw

from paraglider.core.pool import Backend
from paraglider.core.translation import Translation

CLIENT_PORT = 40000


def translation(family: Family, port: int = 0, vip_port: int = 80) -> Translation:
    """A translation from the VIP to the first backend, with ``port`` as mapped port if given."""
    return Translation(packed(family.vip), vip_port, backend(family.backends[0], port))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("port", "mapped"), [(0, False), (80, False), (8080, True)])
def test_a_port_is_mapped_where_it_differs(family: Family, port: int, mapped: bool) -> None:
    """A backend without a port, or with the service's own, keeps the client's."""
    assert translation(family, port).mapped is mapped


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("port", "at_backend"), [(0, 80), (8080, 8080)])
def test_the_reverse_key_is_that_of_the_answer(family: Family, port: int, at_backend: int) -> None:
    """Backend, client, port at the backend, port of the client, as an answer has them."""
    client, ports = packed(family.client), CLIENT_PORT.to_bytes(2, "big")
    key = client + packed(family.vip) + ports + (80).to_bytes(2, "big")
    answer = packed(family.backends[0]) + client + at_backend.to_bytes(2, "big") + ports
    assert translation(family, port).reverse_key(key) == answer


def checksums(family: Family, source: str, destination: str, ports: tuple[int, int]) -> list[int]:
    """The IPv4 header checksum (0 in IPv6) and the TCP checksum of a segment, by scapy."""
    segment = TCP(sport=ports[0], dport=ports[1]) / Raw(b"odd")
    wire = bytes(family.ip(source, destination) / segment)
    if family.number == 6:
        return [0, int.from_bytes(wire[56:58], "big")]
    return [int.from_bytes(wire[10:12], "big"), int.from_bytes(wire[36:38], "big")]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("port", [0, 8080])
def test_sums_turn_one_checksum_into_the_other(family: Family, port: int) -> None:
    """Out, the checksums of a packet to the VIP become those of one to the backend; and back."""
    between = translation(family, port)
    client, vip, server = family.client, family.vip, family.backends[0]
    at_backend = port or 80
    to_vip = checksums(family, client, vip, (CLIENT_PORT, 80))
    to_backend = checksums(family, client, server, (CLIENT_PORT, at_backend))
    of_backend = checksums(family, server, client, (at_backend, CLIENT_PORT))
    of_vip = checksums(family, vip, client, (80, CLIENT_PORT))
    if family.number == 4:
        assert (to_vip[0] + between.address_out) % 65535 == to_backend[0]
        assert (of_backend[0] + between.address_back) % 65535 == of_vip[0]
    assert (to_vip[1] + between.transport_out) % 65535 == to_backend[1]
    assert (of_backend[1] + between.transport_back) % 65535 == of_vip[1]


@SOME
@given(st.sampled_from([4, 16]), st.integers(1, 65535), st.integers(0, 65535), st.data())
def test_out_and_back_cancel(size: int, vip_port: int, port: int, data: st.DataObject) -> None:
    """The deltas of both directions cancel, for any addresses."""
    vip, address = (data.draw(st.binary(min_size=size, max_size=size)) for _ in range(2))
    between = Translation(vip, vip_port, Backend("b", address, port))
    assert (between.address_out + between.address_back) % 65535 == 0
    assert (between.transport_out + between.transport_back) % 65535 == 0


def test_counters_start_at_nothing() -> None:
    """No packets and bytes yet, either way."""
    between = translation(FAMILIES[0])
    assert (between.packets_out, between.bytes_out) == (0, 0)
    assert (between.packets_back, between.bytes_back) == (0, 0)
