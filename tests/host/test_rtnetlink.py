"""The bytes of rtnetlink, and how the kernel takes them."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

import pytest

from paraglider.errors import PlatformError
from paraglider.host import rtnetlink
from paraglider.lab.namespace import Namespace
from paraglider.netfilter.nfnetlink import attribute

HEAD = bytes(16)  # nlmsghdr


def test_an_address_is_read_as_it_is_written() -> None:
    """The flags of the attribute count, which are wider than those of the header."""
    flags = attribute(rtnetlink.IFA_FLAGS, (0x382).to_bytes(4, "little"))
    local = attribute(rtnetlink.IFA_LOCAL, ip_address("192.0.2.1").packed)
    body = rtnetlink.address_body(4, 7, 24, local + flags)
    index, prefix, read, found = rtnetlink.read_address(HEAD + body)
    assert rtnetlink.index_of_address(HEAD + body) == index
    assert (index, prefix, read) == (7, 24, 0x382)
    assert found[rtnetlink.IFA_LOCAL] == bytes([192, 0, 2, 1])
    assert rtnetlink.read_address(HEAD + rtnetlink.address_body(6, 7, 64))[2] == 0


def test_a_neighbour_is_read_as_it_is_written() -> None:
    """Interface, state, hardware address and the further flags."""
    address = ip_address("2001:db8::1")
    body = rtnetlink.neighbour_body(address, 3, 0x04, "02:00:00:00:00:07", more=1)
    index, state, found = rtnetlink.read_neighbour(HEAD + body)
    assert (index, state, found[rtnetlink.NDA_DST]) == (3, 0x04, address.packed)
    assert found[rtnetlink.NDA_LLADDR].hex(":") == "02:00:00:00:00:07"
    assert int.from_bytes(found[rtnetlink.NDA_FLAGS_EXT], "little") == 1


@pytest.mark.root
def test_a_refusal_is_raised_or_ignored(inside: Namespace) -> None:
    """The error has the attempted change and the kernel's reason."""
    lo = socket.if_nametoindex("lo")
    local = attribute(rtnetlink.IFA_LOCAL, ip_address("192.0.2.1").packed)
    body = rtnetlink.address_body(4, lo, 24, local)
    with pytest.raises(PlatformError, match="cannot remove it: Cannot assign requested address"):
        rtnetlink.request("remove it", rtnetlink.DELADDR, body, 0)
    assert not rtnetlink.request("do it", rtnetlink.DELADDR, body, 0, errno.EADDRNOTAVAIL)
    assert rtnetlink.request("do it", rtnetlink.NEWADDR, body, rtnetlink.CREATE)
    way = rtnetlink.route_query_body(ip_address("198.51.100.1"))
    assert rtnetlink.get("find it", rtnetlink.GETROUTE, way, errno.ENETUNREACH) is None
    with pytest.raises(PlatformError, match="cannot find it: Network is unreachable"):
        rtnetlink.get("find it", rtnetlink.GETROUTE, way)


@pytest.mark.root
def test_the_way_leads_to_an_interface(inside: Namespace) -> None:
    """As in the kernel's routing table."""
    inside.ip("addr add 198.51.100.2/24 dev eth0")
    way = rtnetlink.route_query_body(ip_address("198.51.100.1"))
    found = rtnetlink.get("find it", rtnetlink.GETROUTE, way)
    assert found is not None
    assert rtnetlink.read_route(found) == (socket.if_nametoindex("eth0"), None)
    entries = rtnetlink.dump("list", rtnetlink.GETADDR, rtnetlink.address_body(4, 0))
    assert socket.if_nametoindex("eth0") in {rtnetlink.read_address(one)[0] for one in entries}
