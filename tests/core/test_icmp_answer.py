"""Our own ICMP errors, as scapy reads them; what must not be answered is not."""

from __future__ import annotations

import pytest
from packets import FAMILIES, V4, V6, Family
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6

from paraglider.core.icmp_answer import time_exceeded, too_big

families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])


def checked(family: Family, made: bytes | None, packet: bytes) -> IP | IPv6:
    """``made``, an error from the VIP to the client with right checksums and lengths, which quotes
    ``packet`` as far as it may.
    """
    assert made is not None
    ip = (IP if family is V4 else IPv6)(made)
    assert (ip.src, ip.dst) == (family.vip, family.client)
    again = ip.copy()
    if family is V4:
        del again.chksum, again.len, again[ICMP].chksum
        quoted = made[28:]
    else:
        del again.plen, again.getlayer(1).cksum
        quoted = made[48:]
    assert bytes(again) == made
    assert len(made) == min((576 if family is V4 else 1280), len(packet) + len(made) - len(quoted))
    assert packet.startswith(quoted)
    return ip


@families
@pytest.mark.parametrize("size", [0, 8, 501, 1420, 3000])
def test_too_big(family: Family, size: int) -> None:
    """It names the MTU."""
    packet = bytes(family.ip(family.client, family.vip) / TCP() / bytes(size))
    ip = checked(family, too_big(packet, 1380), packet)
    if family is V4:
        assert (ip[ICMP].type, ip[ICMP].code, ip[ICMP].nexthopmtu) == (3, 4, 1380)
    else:
        assert ip[ICMPv6PacketTooBig].mtu == 1380


@families
def test_time_exceeded(family: Family) -> None:
    """In transit."""
    packet = bytes(family.ip(family.client, family.vip) / UDP() / bytes(64))
    ip = checked(family, time_exceeded(packet), packet)
    if family is V4:
        assert (ip[ICMP].type, ip[ICMP].code) == (11, 0)
    else:
        assert ip[ICMPv6TimeExceeded].code == 0


@pytest.mark.parametrize("kind", [3, 11, 12])
def test_no_error_about_an_error(kind: int) -> None:
    """RFC 1122 §3.2.2, RFC 4443 §2.4 (e)."""
    packet = bytes(IP(src=V4.client, dst=V4.vip) / ICMP(type=kind) / bytes(600))
    assert too_big(packet, 500) is time_exceeded(packet) is None
    packet = bytes(IPv6(src=V6.client, dst=V6.vip) / ICMPv6PacketTooBig() / bytes(1300))
    assert too_big(packet, 1280) is time_exceeded(packet) is None


@families
def test_an_echo_is_answered(family: Family) -> None:
    """Only errors are not."""
    packet = bytes(family.echo(family.client, family.vip, reply=False, identifier=1))
    checked(family, time_exceeded(packet), packet)


@pytest.mark.parametrize("source", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"])
def test_no_single_host(source: str) -> None:
    """Neither a group nor nobody gets an error."""
    assert too_big(bytes(IP(src=source, dst=V4.vip) / TCP()), 20) is None


@pytest.mark.parametrize("source", ["::", "ff02::1"])
def test_no_single_host6(source: str) -> None:
    """The same in IPv6."""
    assert too_big(bytes(IPv6(src=source, dst=V6.vip) / TCP()), 1280) is None
