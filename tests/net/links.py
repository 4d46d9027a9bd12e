"""What ``ip`` of Debian 12 cannot do to links; run as a program in a namespace.

::

    links.py big SIZE          lets every Ethernet link make and take segments of SIZE bytes
                               (BIG TCP), in both families
    links.py sums              switches off that links finish checksums (ethtool -K … tx off)
    links.py xdp [tags]        has links as XDP needs them: checksums finished, VLAN tags in
                               the frame (unless "tags"), GRO on
    links.py longest DEVICE    prints "watching"; at the end of its input the length of the longest
                               packet that DEVICE took in meanwhile

Rules: standard library only.
"""

from __future__ import annotations

import array
import fcntl
import select
import socket
import struct
import sys

# linux/if_link.h; linux/rtnetlink.h
GSO_MAX_SIZE, GRO_MAX_SIZE, GSO_IPV4_MAX_SIZE, GRO_IPV4_MAX_SIZE = 41, 58, 63, 64
RTM_NEWLINK, NLM_F_REQUEST_ACK, NLMSG_ERROR = 16, 5, 2
# linux/sockios.h, linux/ethtool.h
SIOCETHTOOL, ETHTOOL_STXCSUM, ETHTOOL_SGRO = 0x8946, 0x17, 0x2C
ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, TAGS_BY_DEVICE = 0x25, 0x26, 0x180  # ETH_FLAG_TXVLAN, RXVLAN
ETH_P_ALL = 3
PACKET_OUTGOING = 4


def ethernet() -> list[tuple[int, str]]:
    """Index and name of every link but loopback."""
    return [link for link in socket.if_nameindex() if link[1] != "lo"]


def big(size: int) -> None:
    """Set the four limits of every link."""
    kinds = (GSO_MAX_SIZE, GRO_MAX_SIZE, GSO_IPV4_MAX_SIZE, GRO_IPV4_MAX_SIZE)
    attributes = b"".join(struct.pack("=HHI", 8, kind, size) for kind in kinds)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        for index, name in ethernet():
            body = struct.pack("=BxHiII", 0, 0, index, 0, 0) + attributes
            head = struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, NLM_F_REQUEST_ACK, 0, 0)
            netlink.send(head + body)
            answer = netlink.recv(4096)
            kind, code = (
                struct.unpack_from("=H", answer, 4)[0],
                struct.unpack_from("=i", answer, 16),
            )
            if kind != NLMSG_ERROR or code[0]:
                raise OSError(-code[0], f"limits of {name}")


def sums() -> None:
    """Have the stack compute the checksums of all sent packets."""
    for _, name in ethernet():
        ethtool(name, ETHTOOL_STXCSUM, 0)


def xdp(*, tags: bool) -> None:
    """See the head of the file."""
    sums()
    for _, name in ethernet():
        ethtool(name, ETHTOOL_SGRO, 1)
        flags = ethtool(name, ETHTOOL_GFLAGS, 0)
        changed = flags | TAGS_BY_DEVICE if tags else flags & ~TAGS_BY_DEVICE
        ethtool(name, ETHTOOL_SFLAGS, changed)


def ethtool(name: str, command: int, number: int) -> int:
    """A request with one number (struct ethtool_value); returns that of the answer."""
    value = array.array("I", [command, number])
    request = struct.pack("16sP", name.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request + bytes(16))
    return value[1]


def longest(device: str) -> None:
    """See the head of the file."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as wire:
        wire.bind((device, ETH_P_ALL))
        sys.stdout.write("watching\n")
        sys.stdout.flush()
        found = 0
        while True:
            ready, _, _ = select.select([wire, sys.stdin], [], [])
            if wire in ready:
                size, address = wire.recvfrom_into(bytearray(1), 1, socket.MSG_TRUNC)
                if address[2] != PACKET_OUTGOING:
                    found = max(found, size)
            elif not sys.stdin.read(1):
                break
        sys.stdout.write(f"{found}\n")


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "big":
        big(int(arguments[0]))
    elif what == "sums":
        sums()
    elif what == "xdp":
        xdp(tags=arguments == ["tags"])
    else:
        longest(arguments[0])
