"""Routes, policy rules and proxy entries, by rtnetlink.

Lives here: ``Routing``, which lists, adds and removes the entries of ``forward.host_needs``. The
bytes of a request are ``rtnetlink``'s.
Rules: as in ``netlink``, removing a missing entry is no error; adding an entry that somebody else
has added is one. The kernel's entries are listed once, whatever number of entries is looked up.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from paraglider.config.types import IPAddress
from paraglider.errors import PlatformError
from paraglider.forward.host_needs import PolicyRule, ProxyEntry, Route, RoutingEntry
from paraglider.host import rtnetlink
from paraglider.host.rtnetlink import FAMILY, ROUTE
from paraglider.netfilter.nfnetlink import attribute

_LENGTH: Final = {4: 32, 6: 128}
_STATIC: Final = 4  # RTPROT_STATIC: an administrator's route, which routing daemons do not change
_ONLINK: Final = 0x04  # RTNH_F_ONLINK: the gateway is a neighbour, regardless of the routes
_LINK_SCOPE: Final = 253  # RT_SCOPE_LINK: no gateway
_UNICAST: Final = 1  # RTN_UNICAST, linux/rtnetlink.h
_BY_TABLE: Final = 1  # FR_ACT_TO_TBL, linux/fib_rules.h

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 6, 10, 15, 16
#: FRA_SRC, _IIFNAME, _OIFNAME, _L3MDEV, _IP_PROTO, _SPORT_RANGE, _DPORT_RANGE (linux/fib_rules.h)
_SELECTORS: Final = frozenset({2, 3, 17, 19, 22, 23, 24})

#: fib_rule_hdr: family, lengths of destination and source, TOS, table, two reserved, action, flags
_RULE: Final = struct.Struct("=BBBBBBBBI")
_U32: Final = struct.Struct("=I")


class Routing:
    """Requests to the kernel about the network namespace of the process."""

    def held(self, family: int, interfaces: Iterable[str]) -> frozenset[RoutingEntry]:
        """All policy rules with marks, all proxy entries, and the routes through ``interfaces``
        that ``Route`` can represent, of ``family`` (4 or 6). One dump of each kind, one per
        interface.
        """
        found: set[RoutingEntry] = {*_rules(family), *_proxies(family)}
        for interface in interfaces:
            found.update(_routes(family, interface))
        return frozenset(found)

    def is_by_policy(self, family: int) -> bool:
        """Whether a policy rule asks for more of a packet than where it goes and its mark: where it
        comes from, or its ports (ip-rule(8)); a VRF has such a rule, too.
        """
        try:
            return any(_SELECTORS & found.keys() for found in _listed_rules(family))
        except PlatformError:  # a kernel without policy routing, or without the family
            return False

    def add_route(self, route: Route) -> None:
        """Add ``route``; raises ``PlatformError`` if another route to the destination exists."""
        body = _route_body(route, _wanted_index(route.interface))
        what = f"add the route {route}"
        rtnetlink.request(what, rtnetlink.NEWROUTE, body, rtnetlink.CREATE)

    def remove_route(self, route: Route) -> None:
        """Remove ``route``."""
        if (index := _index(route.interface)) is None:
            return
        what, ignore = f"remove the route {route}", (errno.ESRCH, errno.ENOENT)
        rtnetlink.request(what, rtnetlink.DELROUTE, _route_body(route, index), 0, *ignore)

    def add_rule(self, rule: PolicyRule) -> None:
        """Add ``rule``."""
        what = f"add the policy rule of mark 0x{rule.mark:x}"
        body = _rule_body(rule)
        rtnetlink.request(what, rtnetlink.NEWRULE, body, rtnetlink.CREATE, errno.EEXIST)

    def remove_rule(self, rule: PolicyRule) -> None:
        """Remove ``rule``."""
        what, ignore = f"remove the policy rule of mark 0x{rule.mark:x}", errno.EAFNOSUPPORT
        rtnetlink.request(what, rtnetlink.DELRULE, _rule_body(rule), 0, errno.ENOENT, ignore)

    def add_proxy(self, entry: ProxyEntry) -> None:
        """Add ``entry``."""
        body = rtnetlink.proxy_body(entry.address, _wanted_index(entry.interface))
        what = f"add the proxy of {entry.address} on {entry.interface}"
        rtnetlink.request(what, rtnetlink.NEWNEIGH, body, rtnetlink.CREATE, errno.EEXIST)

    def remove_proxy(self, entry: ProxyEntry) -> None:
        """Remove ``entry``."""
        if (index := _index(entry.interface)) is None:
            return
        body = rtnetlink.proxy_body(entry.address, index)
        what = f"remove the proxy of {entry.address} on {entry.interface}"
        rtnetlink.request(what, rtnetlink.DELNEIGH, body, 0, errno.ENOENT)


def _rules(family: int) -> Iterator[PolicyRule]:
    wanted = (_FRA_FWMARK, _FRA_FWMASK, _FRA_TABLE, _FRA_PRIORITY)
    for found in _listed_rules(family):
        if all(kind in found for kind in wanted):
            mark, mask, table, priority = (_U32.unpack(found[kind])[0] for kind in wanted)
            yield PolicyRule(family, mark, mask, table, priority)


def _listed_rules(family: int) -> Iterator[dict[int, bytes]]:
    """The attributes of each policy rule."""
    body = _RULE.pack(FAMILY[family], 0, 0, 0, 0, 0, 0, 0, 0)
    for message in rtnetlink.dump("list the policy rules", rtnetlink.GETRULE, body):
        yield rtnetlink.read_attributes(message, _RULE.size)


def _proxies(family: int) -> Iterator[ProxyEntry]:
    body = rtnetlink.neighbours_body(family, proxies=True)
    names = dict(socket.if_nameindex())
    for message in rtnetlink.dump("list the proxies", rtnetlink.GETNEIGH, body):
        index, _, found = rtnetlink.read_neighbour(message)
        if index in names and (address := found.get(rtnetlink.NDA_DST)):
            yield ProxyEntry(names[index], ipaddress.ip_address(address))


def _routes(family: int, interface: str) -> Iterator[Route]:
    """The routes through ``interface``; an old kernel ignores that filter and lists all routes."""
    if (index := _index(interface)) is None:
        return
    body = ROUTE.pack(FAMILY[family], 0, 0, 0, 0, 0, 0, 0, 0)
    body += attribute(_RTA_OIF, _U32.pack(index))
    what = f"list the routes of {interface}"
    for message in rtnetlink.dump(what, rtnetlink.GETROUTE, body, strict=True):
        _, length, _, _, table, _, _, kind, _ = ROUTE.unpack_from(message, 16)
        found = rtnetlink.read_attributes(message, ROUTE.size)
        if kind != _UNICAST or found.get(_RTA_OIF) != _U32.pack(index):
            continue
        via = _address(found.get(_RTA_GATEWAY))
        table = _U32.unpack(found[_RTA_TABLE])[0] if _RTA_TABLE in found else table
        if length == _LENGTH[family]:
            yield Route(interface, _address(found.get(_RTA_DST)), table, via)
        elif length == 0 and via is not None:
            yield Route(interface, None, table, via)


def _address(packed: bytes | None) -> IPAddress | None:
    return None if packed is None else ipaddress.ip_address(packed)


def _route_body(route: Route, index: int) -> bytes:
    length = _LENGTH[route.family] if route.address is not None else 0
    scope = _LINK_SCOPE if route.family == 4 and route.via is None else 0
    flags = _ONLINK if route.via is not None else 0
    head = (FAMILY[route.family], length, 0, 0, 0, _STATIC, scope, _UNICAST, flags)
    body = ROUTE.pack(*head) + attribute(_RTA_TABLE, _U32.pack(route.table))
    if route.address is not None:
        body += attribute(_RTA_DST, route.address.packed)
    if route.via is not None:
        body += attribute(_RTA_GATEWAY, route.via.packed)
    return body + attribute(_RTA_OIF, _U32.pack(index))


def _rule_body(rule: PolicyRule) -> bytes:
    values = (
        (_FRA_FWMARK, rule.mark),
        (_FRA_FWMASK, rule.mask),
        (_FRA_TABLE, rule.table),
        (_FRA_PRIORITY, rule.priority),
    )
    head = _RULE.pack(FAMILY[rule.family], 0, 0, 0, 0, 0, 0, _BY_TABLE, 0)
    return head + b"".join(attribute(kind, _U32.pack(value)) for kind, value in values)


def _index(interface: str) -> int | None:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return None


def _wanted_index(interface: str) -> int:
    if (index := _index(interface)) is None:
        raise PlatformError(f"the interface {interface} is gone")
    return index
