"""Interfaces, addresses and neighbours of the network namespace, by rtnetlink.

Lives here: the requests of the set-up; ``rtnetlink`` builds their messages. Default routes are read
and restored with ip(8), whose output has all attributes of a route.
Rules: adding an existing object and removing a missing one are not errors, so an incomplete set-up
can be repeated and undone. Any other refusal raises ``PlatformError``.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass

from paraglider.config.types import IPAddress, IPInterface
from paraglider.errors import PlatformError
from paraglider.host import rtnetlink
from paraglider.host.rtnetlink import FAMILY
from paraglider.netfilter.nfnetlink import attribute
from paraglider.netfilter.programs import attempt, complaint, run

_NODAD = 0x02  # IFA_F_NODAD, linux/if_addr.h
# IFA_F_TEMPORARY, _DADFAILED, _DEPRECATED, _TENTATIVE, linux/if_addr.h
_UNFIT = 0x01 | 0x08 | 0x20 | 0x40
_FOREVER = 0xFFFFFFFF  # INFINITY_LIFE_TIME, linux/if_addr.h
_MANAGED = 0x01  # NTF_EXT_MANAGED, linux/neighbour.h: the kernel keeps the entry resolved
_NUD_INCOMPLETE, _NUD_STALE, _NUD_FAILED = 0x01, 0x04, 0x20
_NUD_RESOLVED = 0x02 | _NUD_STALE | 0x08 | 0x10 | 0x40 | 0x80  # all that have a hardware address
_NUD_FIXED = 0x40 | 0x80  # NUD_NOARP, NUD_PERMANENT: configured, not resolved by the kernel
_STATES = ("linkdown", "dead")  # words that ip(8) prints for a route and does not accept
_DISCARD = 9  # RFC 863: a datagram without an answer, to make the kernel resolve


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour entry and its hardware address.

    ``resolved``: it has a hardware address; ``fixed``: it was configured by hand; ``managed``: the
    kernel keeps it resolved.
    """

    hardware: str | None
    resolved: bool
    fixed: bool
    managed: bool


@dataclass(frozen=True, slots=True)
class RouteTowards:
    """Where packets to an address go: by ``interface``, to the router ``via`` or to a neighbour."""

    interface: str
    via: IPAddress | None = None


class Netlink:
    """Requests to the kernel about the network namespace of the process."""

    def interfaces(self) -> frozenset[str]:
        """The names of all interfaces."""
        return frozenset(name for _, name in socket.if_nameindex())

    def addresses(self, interface: str) -> tuple[IPInterface, ...]:
        """The addresses of ``interface``, both families; empty if it does not exist."""
        if (index := self._index(interface)) is None:
            return ()
        what = f"list the addresses of {interface}"
        return tuple(
            _address(message)[1]
            for family in FAMILY
            for message in rtnetlink.dump(
                what, rtnetlink.GETADDR, rtnetlink.address_body(family, 0)
            )
            if rtnetlink.index_of_address(message) == index
        )

    def own_addresses(self) -> dict[str, tuple[IPInterface, ...]]:
        """The addresses of each interface by which other hosts may know this one, in the order in
        which they were added: not link-local ones, nor those that the kernel does not begin
        connections from (temporary, deprecated, and in duplicate address detection).
        """
        names = dict(socket.if_nameindex())
        found: dict[str, list[IPInterface]] = {name: [] for name in names.values()}
        for family in FAMILY:
            body = rtnetlink.address_body(family, 0)
            messages = rtnetlink.dump("list the addresses", rtnetlink.GETADDR, body)
            # The kernel lists the IPv6 addresses of an interface from the newest on.
            for message in messages if family == 4 else reversed(messages):
                index, address = _address(message)
                flags = rtnetlink.read_address(message)[2]
                unfit = family == 6 and (flags & _UNFIT or address.is_link_local)
                if index in names and not unfit and not address.is_loopback:
                    found[names[index]].append(address)
        return {name: tuple(addresses) for name, addresses in found.items()}

    def has_address(self, address: IPAddress) -> bool:
        """Whether an interface has ``address``, also before the kernel has its local route."""
        body = rtnetlink.address_body(address.version, 0)
        found = rtnetlink.dump(f"look for the address {address}", rtnetlink.GETADDR, body)
        return any(_address(message)[1].ip == address for message in found)

    def add_address(
        self, interface: str, address: IPInterface, *, deprecated: bool = False
    ) -> None:
        """Add ``address``; an IPv6 one is usable at once (no duplicate address detection).

        A ``deprecated`` address is not a source of the host's connections while there is another
        (RFC 4862, 5.5.4).
        """
        what = f"add {address} to {interface}"
        body = self._address_body(interface, address, _lifetimes(deprecated) if deprecated else b"")
        rtnetlink.request(what, rtnetlink.NEWADDR, body, rtnetlink.CREATE, errno.EEXIST)

    def set_deprecated(self, interface: str, address: IPInterface, deprecated: bool) -> None:
        """Make an existing IPv6 ``address`` deprecated or preferred."""
        what = f"change {address} on {interface}"
        body = self._address_body(interface, address, _lifetimes(deprecated))
        rtnetlink.request(what, rtnetlink.NEWADDR, body, rtnetlink.REPLACE)

    def remove_address(self, interface: str, address: IPInterface, *, keep: bool = False) -> None:
        """Remove ``address``.

        With the primary address of an IPv4 subnet the kernel removes its secondary ones, unless
        promote_secondaries is set. With ``keep`` these are added again afterwards.
        """
        if (index := self._index(interface)) is None:
            return
        others = self._others(interface, address) if keep else []
        what = f"remove {address} from {interface}"
        body = rtnetlink.address_body(
            address.version,
            index,
            address.network.prefixlen,
            attribute(rtnetlink.IFA_LOCAL, address.packed),
        )
        rtnetlink.request(what, rtnetlink.DELADDR, body, 0, errno.EADDRNOTAVAIL)
        for message in others:
            what = f"add {_address(message)[1]} to {interface} again"
            rtnetlink.request(what, rtnetlink.NEWADDR, message[16:], rtnetlink.CREATE, errno.EEXIST)

    def _others(self, interface: str, address: IPInterface) -> list[bytes]:
        """The other IPv4 addresses of ``interface`` in the network of ``address``."""
        index, body = self._index(interface), rtnetlink.address_body(4, 0)
        what = f"list the addresses of {interface}"
        return [
            message
            for message in rtnetlink.dump(what, rtnetlink.GETADDR, body)
            for at, other in [_address(message)]
            if at == index and other != address and other.network == address.network
        ]

    def _address_body(self, interface: str, address: IPInterface, lifetimes: bytes) -> bytes:
        attributes = attribute(rtnetlink.IFA_LOCAL, address.packed)
        attributes += attribute(rtnetlink.IFA_ADDRESS, address.packed)
        if address.version == 6:
            attributes += attribute(rtnetlink.IFA_FLAGS, struct.pack("=I", _NODAD))
        index, length = self._wanted_index(interface), address.network.prefixlen
        return rtnetlink.address_body(address.version, index, length, attributes + lifetimes)

    def route_towards(self, address: IPAddress) -> RouteTowards | None:
        """The kernel's route to ``address``; None without one."""
        unreachable = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
        what, body = f"find the route to {address}", rtnetlink.route_query_body(address)
        answer = rtnetlink.get(what, rtnetlink.GETROUTE, body, *unreachable)
        found = rtnetlink.read_route(answer) if answer is not None else None
        if found is None:
            return None
        index, gateway = found
        via = None if gateway is None else ipaddress.ip_address(gateway)
        return RouteTowards(socket.if_indextoname(index), via)

    def default_routes(self, family: int) -> tuple[str, ...]:
        """The default routes of the main table in ip(8)'s syntax, as ``replace_route`` takes it."""
        listing = run(["ip", f"-{family}", "-oneline", "route", "show", "default", "table", "main"])
        lines = (line.split() for line in listing.splitlines())
        return tuple(" ".join(word for word in words if word not in _STATES) for words in lines)

    def replace_route(self, family: int, route: str) -> None:
        """Add ``route``, in ip(8)'s syntax; replaces a route with the same metric."""
        run(["ip", f"-{family}", "route", "replace", *route.split()])

    def remove_route(self, family: int, route: str) -> None:
        """Remove ``route``, in ip(8)'s syntax; a missing one is not an error."""
        done = attempt(["ip", f"-{family}", "route", "del", *route.split()])
        if done.returncode != 0 and "No such process" not in done.stderr:
            raise PlatformError(f"cannot remove the route {route}: {complaint(done)}")

    def neighbour(self, interface: str, address: IPAddress) -> Neighbour | None:
        """The entry of ``address`` on ``interface``; None if there is none."""
        if (index := self._index(interface)) is None:
            return None
        what = f"look for the neighbour {address}"
        body = rtnetlink.neighbour_body(address, index)
        found = rtnetlink.get(what, rtnetlink.GETNEIGH, body, errno.ENOENT)
        return None if found is None else _neighbour(found)[2]

    def neighbours(self, interface: str, family: int) -> dict[IPAddress, Neighbour]:
        """All entries of ``family`` (4 or 6) on ``interface``."""
        what, body = f"list the neighbours of {interface}", rtnetlink.neighbours_body(family)
        messages = rtnetlink.dump(what, rtnetlink.GETNEIGH, body)
        index = self._index(interface)
        found = (_neighbour(message) for message in messages)
        return {address: entry for at, address, entry in found if at == index}

    def manage_neighbour(self, interface: str, address: IPAddress) -> None:
        """Make the kernel resolve ``address`` now and keep it resolved.

        Kernels before Linux 5.16 cannot keep it resolved: they resolve it once.
        """
        index = self._wanted_index(interface)
        body = rtnetlink.neighbour_body(address, index, more=_MANAGED)
        with suppress(PlatformError):
            what = f"manage the neighbour {address}"
            rtnetlink.request(what, rtnetlink.NEWNEIGH, body, rtnetlink.REPLACE)
        found = self.neighbour(interface, address)
        if found is not None and found.managed:
            return
        if found is not None and not found.resolved:
            self._delete_neighbour(index, address)
        _probe(interface, address)

    def forget_neighbour(self, interface: str, address: IPAddress, keep: str | None) -> None:
        """Undo ``manage_neighbour``: remove the entry, or make it an ordinary one.

        ``keep`` is the hardware address of an entry that existed before; None if there was none.
        """
        if (index := self._index(interface)) is None:
            return
        found = self.neighbour(interface, address)
        if found is None or found.fixed:
            return
        if keep is None:
            self._delete_neighbour(index, address)
            return
        hardware = found.hardware or keep
        body = rtnetlink.neighbour_body(address, index, _NUD_STALE, hardware)
        what = f"release the neighbour {address}"
        rtnetlink.request(what, rtnetlink.NEWNEIGH, body, rtnetlink.REPLACE)

    def _delete_neighbour(self, index: int, address: IPAddress) -> None:
        what, body = f"remove the neighbour {address}", rtnetlink.neighbour_body(address, index)
        rtnetlink.request(what, rtnetlink.DELNEIGH, body, 0, errno.ENOENT)

    def _index(self, interface: str) -> int | None:
        try:
            return socket.if_nametoindex(interface)
        except OSError:
            return None

    def _wanted_index(self, interface: str) -> int:
        if (index := self._index(interface)) is None:
            raise PlatformError(f"the interface {interface} is gone")
        return index


def _probe(interface: str, address: IPAddress) -> None:
    """Send one datagram to ``address``, so that the kernel resolves it."""
    with socket.socket(FAMILY[address.version], socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        # Errors are ignored: the caller checks the neighbour entry.
        with suppress(OSError):
            probe.sendto(b"", (str(address), _DISCARD))


def _lifetimes(deprecated: bool) -> bytes:
    """The attribute of an address with unlimited lifetime, preferred or deprecated (ifa_cacheinfo:
    preferred and valid lifetime, creation and update time).
    """
    lifetimes = struct.pack("=IIII", 0 if deprecated else _FOREVER, _FOREVER, 0, 0)
    return attribute(rtnetlink.IFA_CACHEINFO, lifetimes)


def _address(message: bytes) -> tuple[int, IPInterface]:
    """The interface's index, and the address."""
    index, prefix, _, found = rtnetlink.read_address(message)
    # On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL ours.
    local = found.get(rtnetlink.IFA_LOCAL) or found[rtnetlink.IFA_ADDRESS]
    return index, ipaddress.ip_interface((local, prefix))


def _neighbour(message: bytes) -> tuple[int, IPAddress, Neighbour]:
    """The interface's index, the address, and the entry."""
    index, state, found = rtnetlink.read_neighbour(message)
    hardware = found.get(rtnetlink.NDA_LLADDR)
    more = int.from_bytes(found.get(rtnetlink.NDA_FLAGS_EXT, b""), sys.byteorder)
    entry = Neighbour(
        hardware=None if hardware is None else hardware.hex(":"),
        resolved=bool(state & _NUD_RESOLVED),
        fixed=bool(state & _NUD_FIXED),
        managed=bool(more & _MANAGED),
    )
    return index, ipaddress.ip_address(found[rtnetlink.NDA_DST]), entry
