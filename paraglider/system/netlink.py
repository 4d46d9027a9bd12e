"""Interfaces, addresses and neighbours of the network namespace, by rtnetlink.

Lives here: the few requests that the set-up makes; pyroute2 speaks the protocol. Default routes
are asked for and put back by ip(8), whose words say all that a route has.
Rules: adding what is there and removing what is not are no errors, so that a half-done set-up can
be repeated and undone; any other refusal is a ``PlatformError``.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from paraglider.config.types import IPAddress, IPInterface
from paraglider.errors import PlatformError
from paraglider.system.programs import attempt, complaint, run

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_NODAD = 0x02  # IFA_F_NODAD, linux/if_addr.h
_FOREVER = 0xFFFFFFFF  # INFINITY_LIFE_TIME, linux/if_addr.h
_MANAGED = 0x01  # NTF_EXT_MANAGED, linux/neighbour.h: the kernel keeps the entry resolved
_NUD_INCOMPLETE, _NUD_STALE, _NUD_FAILED = 0x01, 0x04, 0x20
_NUD_RESOLVED = 0x02 | _NUD_STALE | 0x08 | 0x10 | 0x40 | 0x80  # all that have a hardware address
_NUD_FIXED = 0x40 | 0x80  # NUD_NOARP, NUD_PERMANENT: somebody's decision, not the kernel's
_STATES = ("linkdown", "dead")  # what ip(8) says of a route and does not take back
_DISCARD = 9  # RFC 863: a datagram that nobody answers, to make the kernel resolve


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour entry: its hardware address, and who keeps it.

    ``resolved``: it has a hardware address; ``fixed``: it was set by hand; ``managed``: the
    kernel was asked to keep it resolved.
    """

    hardware: str | None
    resolved: bool
    fixed: bool
    managed: bool


class Netlink:
    """Requests to the kernel about the namespace that the process runs in."""

    def interfaces(self) -> frozenset[str]:
        """The names of all interfaces."""
        return frozenset(name for _, name in socket.if_nameindex())

    def addresses(self, interface: str) -> tuple[IPInterface, ...]:
        """The addresses of ``interface``, both families; none when there is no such interface."""
        if (index := self._index(interface)) is None:
            return ()
        with requests(f"list the addresses of {interface}") as route:
            return tuple(_address(message) for message in route.get_addr(index=index))

    def add_address(
        self, interface: str, address: IPInterface, *, deprecated: bool = False
    ) -> None:
        """Add ``address``; an IPv6 one is usable at once (no duplicate address detection).

        A ``deprecated`` one is never the source of connections that the host begins (RFC 4862).
        """
        index = self._wanted_index(interface)
        options = {"flags": _NODAD} if address.version == 6 else {}
        if deprecated:
            options |= {"preferred_lft": 0, "valid_lft": _FOREVER}
        with requests(f"add {address} to {interface}", errno.EEXIST) as route:
            route.addr(
                "add",
                index=index,
                family=_FAMILY[address.version],
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
                **options,
            )

    def remove_address(self, interface: str, address: IPInterface) -> None:
        """Remove ``address``.

        The kernel takes the secondary addresses of an IPv4 subnet along with its primary one
        unless promote_secondaries is set: that is for the caller to see to.
        """
        if (index := self._index(interface)) is None:
            return
        with requests(f"remove {address} from {interface}", errno.EADDRNOTAVAIL) as route:
            route.addr(
                "del",
                index=index,
                family=_FAMILY[address.version],
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
            )

    def interface_towards(self, address: IPAddress) -> str | None:
        """The interface by which the kernel would send to ``address``, None without a route."""
        unreachable = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
        with requests(f"find the way to {address}", *unreachable) as route:
            for message in route.route("get", family=_FAMILY[address.version], dst=str(address)):
                index = dict(message["attrs"]).get("RTA_OIF")
                return socket.if_indextoname(index) if index else None
        return None

    def default_routes(self, family: int) -> tuple[str, ...]:
        """The default routes of the main table in ip(8)'s words, which ``replace_route`` takes."""
        listing = run(["ip", f"-{family}", "-oneline", "route", "show", "default", "table", "main"])
        lines = (line.split() for line in listing.splitlines())
        return tuple(" ".join(word for word in words if word not in _STATES) for words in lines)

    def replace_route(self, family: int, route: str) -> None:
        """Add ``route``, given in ip(8)'s words, in place of one of the same metric."""
        run(["ip", f"-{family}", "route", "replace", *route.split()])

    def remove_route(self, family: int, route: str) -> None:
        """Remove ``route``, given in ip(8)'s words; what is not there is no error."""
        done = attempt(["ip", f"-{family}", "route", "del", *route.split()])
        if done.returncode != 0 and "No such process" not in done.stderr:
            raise PlatformError(f"cannot remove the route {route}: {complaint(done)}")

    def neighbour(self, interface: str, address: IPAddress) -> Neighbour | None:
        """The entry of ``address`` on ``interface``, or None."""
        if (index := self._index(interface)) is None:
            return None
        with requests(f"list the neighbours of {interface}") as route:
            for message in route.get_neighbours(family=_FAMILY[address.version], ifindex=index):
                found = dict(message["attrs"])
                if message["ifindex"] != index or not _same(found.get("NDA_DST"), address):
                    continue
                state = message["state"]
                return Neighbour(
                    hardware=found.get("NDA_LLADDR"),
                    resolved=bool(state & _NUD_RESOLVED),
                    fixed=bool(state & _NUD_FIXED),
                    managed=bool(found.get("NDA_FLAGS_EXT", 0) & _MANAGED),
                )
        return None

    def manage_neighbour(self, interface: str, address: IPAddress) -> None:
        """Have the kernel resolve ``address`` now and keep it resolved.

        Before Linux 5.16 the kernel does not know how to keep it: then it resolves it once.
        """
        index = self._wanted_index(interface)
        with suppress(PlatformError), requests(f"manage the neighbour {address}") as route:
            route.neigh(
                "replace",
                family=_FAMILY[address.version],
                dst=str(address),
                ifindex=index,
                state=0,
                NDA_FLAGS_EXT=_MANAGED,
            )
        found = self.neighbour(interface, address)
        if found is not None and found.managed:
            return
        if found is not None and not found.resolved:
            self._delete_neighbour(index, address)
        _probe(interface, address)

    def forget_neighbour(self, interface: str, address: IPAddress, keep: str | None) -> None:
        """End what ``manage_neighbour`` began: the entry goes, or stays as an ordinary one.

        ``keep`` is the hardware address of an entry that was there before.
        """
        if (index := self._index(interface)) is None:
            return
        found = self.neighbour(interface, address)
        if found is None or found.fixed:
            return
        if keep is None:
            self._delete_neighbour(index, address)
            return
        with requests(f"release the neighbour {address}") as route:
            route.neigh(
                "replace",
                family=_FAMILY[address.version],
                dst=str(address),
                ifindex=index,
                lladdr=found.hardware or keep,
                state=_NUD_STALE,
            )

    def _delete_neighbour(self, index: int, address: IPAddress) -> None:
        with requests(f"remove the neighbour {address}", errno.ENOENT) as route:
            route.neigh("del", family=_FAMILY[address.version], dst=str(address), ifindex=index)

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
    """Send one datagram to ``address``, so that the kernel asks who has it."""
    with socket.socket(_FAMILY[address.version], socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        # No route or no answer: the caller looks at the neighbour entry, not at the datagram.
        with suppress(OSError):
            probe.sendto(b"", (str(address), _DISCARD))


def _address(message: Any) -> IPInterface:
    found = dict(message["attrs"])
    # On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL ours.
    local = found.get("IFA_LOCAL") or found["IFA_ADDRESS"]
    return ipaddress.ip_interface(f"{local}/{message['prefixlen']}")


def _same(text: str | None, address: IPAddress) -> bool:
    return text is not None and ipaddress.ip_address(text) == address


@contextmanager
def requests(what: str, *ignore: int) -> Iterator[Any]:
    """An rtnetlink socket for requests that amount to ``what``; a refusal raises
    ``PlatformError``, but for the error numbers in ``ignore``, which only end the block.
    """
    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        if error.code not in ignore:
            raise PlatformError(f"cannot {what}: {error.args[1]}") from error
    except OSError as error:
        raise PlatformError(f"cannot {what}: {error.strerror or error}") from error
