"""Routes, policy rules and addresses answered for, by rtnetlink: what ``forward: dsr`` needs.

Lives here: ``Route``, and the few requests that the set-up makes.
Rules: as in ``netlink``, removing what is not there is no error; adding what somebody else has
there already is one.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

from paraglider.config.types import IPAddress
from paraglider.errors import PlatformError
from paraglider.system.netlink import requests

MAIN = 254  # RT_TABLE_MAIN, linux/rtnetlink.h
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_LENGTH = {4: 32, 6: 128}
_STATIC = 4  # RTPROT_STATIC: an administrator's, which no routing daemon takes for its own
_ONLINK = 0x04  # RTNH_F_ONLINK, linux/rtnetlink.h: the gateway is a neighbour, whatever the routes
_LINK_SCOPE = 253  # RT_SCOPE_LINK: no gateway in between
_FIB_MATCH = 0x2000  # RTM_F_FIB_MATCH: tell of the route itself, not of what follows from it
_PROXY = 0x08  # NTF_PROXY, linux/neighbour.h


@dataclass(frozen=True, slots=True)
class Route:
    """To one address, in the main table, or the default of a table of ours, ``via`` a neighbour."""

    interface: str
    address: IPAddress | None = None
    table: int = MAIN
    via: IPAddress | None = None

    @property
    def family(self) -> int:
        """4 or 6."""
        some = self.address or self.via
        assert some is not None  # noqa: S101 - a route to nowhere through nobody
        return some.version

    def __str__(self) -> str:
        """What follows `ip route add`, or `ip -6 route add`."""
        words = [str(self.address or "default")]
        if self.via is not None:
            words += ["via", str(self.via)]
        words += ["dev", self.interface]
        if self.table != MAIN:
            words += ["table", f"0x{self.table:x}"]
        if self.via is not None:
            words.append("onlink")
        return " ".join(words)


class Routing:
    """Requests to the kernel about the namespace that the process runs in."""

    def has_route(self, route: Route) -> bool:
        """Whether the kernel has just this route."""
        index = _index(route.interface)
        for message in self._candidates(route):
            found = dict(message["attrs"])
            gateway = found.get("RTA_GATEWAY")
            via = None if gateway is None else ipaddress.ip_address(gateway)
            length = _LENGTH[route.family] if route.address is not None else 0
            if message["dst_len"] == length and via == route.via and index == found.get("RTA_OIF"):
                return True
        return False

    def add_route(self, route: Route) -> None:
        """Add ``route``; raises ``PlatformError`` where there is another to the same place."""
        with requests(f"add the route {route}") as netlink:
            netlink.route("add", **_fields(route, _wanted_index(route.interface)))

    def remove_route(self, route: Route) -> None:
        """Remove ``route``."""
        if (index := _index(route.interface)) is None:
            return
        with requests(f"remove the route {route}", errno.ESRCH, errno.ENOENT) as netlink:
            netlink.route("del", **_fields(route, index))

    def has_rule(self, family: int, mark: int, mask: int, table: int, priority: int) -> bool:
        """Whether the kernel has the rule that looks up ``table`` for packets with ``mark``."""
        wanted = {
            "FRA_FWMARK": mark,
            "FRA_FWMASK": mask,
            "FRA_TABLE": table,
            "FRA_PRIORITY": priority,
        }
        with requests("list the policy rules") as netlink:
            rules = [dict(m["attrs"]) for m in netlink.get_rules(family=_FAMILY[family])]
        return any(all(rule.get(k) == v for k, v in wanted.items()) for rule in rules)

    def add_rule(self, family: int, mark: int, mask: int, table: int, priority: int) -> None:
        """Have packets with ``mark`` (under ``mask``) routed by ``table``."""
        with requests(f"add the policy rule of mark 0x{mark:x}", errno.EEXIST) as netlink:
            netlink.rule("add", **_rule(family, mark, mask, table, priority))

    def remove_rule(self, family: int, mark: int, mask: int, table: int, priority: int) -> None:
        """End that."""
        ignore = (errno.ENOENT, errno.EAFNOSUPPORT)
        with requests(f"remove the policy rule of mark 0x{mark:x}", *ignore) as netlink:
            netlink.rule("del", **_rule(family, mark, mask, table, priority))

    def has_proxy(self, interface: str, address: IPAddress) -> bool:
        """Whether ``interface`` answers for ``address`` as a proxy."""
        index = _index(interface)
        fields = {"family": _FAMILY[address.version], "dst": str(address), "ifindex": index}
        found: list[Any] = []
        if index is not None:
            with requests(f"look for the proxy of {address}", errno.ENOENT) as netlink:
                found += netlink.neigh("get", flags=_PROXY, **fields)
        return bool(found)

    def add_proxy(self, interface: str, address: IPAddress) -> None:
        """Have ``interface`` answer ARP or neighbour solicitations for ``address``."""
        self._proxy("add", interface, address)

    def remove_proxy(self, interface: str, address: IPAddress) -> None:
        """End that."""
        if _index(interface) is not None:
            self._proxy("del", interface, address)

    def _proxy(self, verb: str, interface: str, address: IPAddress) -> None:
        index = _wanted_index(interface)
        what = f"{verb} the proxy of {address} on {interface}"
        with requests(what, errno.ENOENT, errno.EEXIST) as netlink:
            family = _FAMILY[address.version]
            netlink.neigh(verb, family=family, dst=str(address), ifindex=index, flags=_PROXY)

    def _candidates(self, route: Route) -> list[Any]:
        """What the kernel would use for the address; or all of the table, which is ours."""
        family = _FAMILY[route.family]
        unreachable = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
        found: list[Any] = []
        with requests(f"look for the route {route}", errno.ENOENT, *unreachable) as netlink:
            if route.address is not None:
                to = str(route.address)
                found += netlink.route("get", family=family, dst=to, flags=_FIB_MATCH)
            else:
                found += netlink.get_routes(family=family, table=route.table)
        return found


def _fields(route: Route, index: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"family": _FAMILY[route.family], "oif": index, "table": route.table}
    fields["proto"] = _STATIC
    if route.via is not None:
        fields |= {"gateway": str(route.via), "flags": _ONLINK}
    elif route.family == 4:
        fields["scope"] = _LINK_SCOPE
    to = route.address or ("0.0.0.0" if route.family == 4 else "::")  # noqa: S104 - no socket's
    length = _LENGTH[route.family] if route.address is not None else 0
    return {**fields, "dst": f"{to}/{length}"}


def _rule(family: int, mark: int, mask: int, table: int, priority: int) -> dict[str, Any]:
    return {
        "family": _FAMILY[family],
        "fwmark": mark,
        "fwmask": mask,
        "table": table,
        "priority": priority,
    }


def _index(interface: str) -> int | None:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return None


def _wanted_index(interface: str) -> int:
    if (index := _index(interface)) is None:
        raise PlatformError(f"the interface {interface} is gone")
    return index
