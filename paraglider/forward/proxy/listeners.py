"""Listening sockets for ``forward: proxy``: one per worker on each address and port.

Lives here: ``open_listeners``, and finding the process that uses a port.
Rules: bound as root, by the supervisor, so that connections in a dead worker's backlog wait for its
successor. The sockets of one address share it by SO_REUSEPORT (socket(7)): the kernel gives each
connection to one of them; with ``affinity: client`` all of a client to the same one (``steering``),
since each worker remembers clients by itself. That would also share it with another Paraglider, so
the first socket of an address binds without. A VIP that no interface has yet is bound too
(IP_FREEBIND, ip(7)), and reported.
"""

from __future__ import annotations

import errno
import secrets
import socket
import sys
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paraglider.config.model import Config
from paraglider.config.types import IPAddress
from paraglider.errors import OperatorError, PlatformError
from paraglider.forward.proxy.steering import steer, unsteer

#: length of the backlog; bounded by net.core.somaxconn
BACKLOG: Final = 4096
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h
_FREEBIND: Final = {
    4: (socket.IPPROTO_IP, _IP_FREEBIND),
    6: (socket.IPPROTO_IPV6, _IPV6_FREEBIND),
}
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_LISTEN: Final = "0A"  # the state in /proc/net/tcp (include/net/tcp_states.h)


@dataclass(frozen=True, slots=True)
class ProxyListener:
    """A bound socket of ``service``; ``vip`` is packed, ``port`` two bytes, as in a flow key. It is
    one of ``sockets`` that share the address; ``key`` is an odd number that all of them have.
    """

    service: str
    vip: bytes
    port: bytes
    socket: socket.socket
    backlog: int = BACKLOG
    sockets: int = 1
    key: int = 1

    def steer(self, *, by_client: bool) -> None:
        """Have all connections of a client come to one of the sockets, or to all; this one listens
        already.
        """
        if self.sockets == 1:
            return
        if by_client:
            steer(self.socket, self.sockets, self.key)
        else:
            unsteer(self.socket)

    def close(self) -> None:
        """Stop listening, here and in every process that has the socket."""
        try:
            self.socket.shutdown(socket.SHUT_RD)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # it was not listening yet
                raise
        self.socket.close()

    def release(self) -> None:
        """Close the socket in this process only."""
        self.socket.close()


def open_listeners(
    config: Config, workers: int, missing: Callable[[IPAddress], None]
) -> list[tuple[ProxyListener, ...]]:
    """Open the sockets of each of ``workers`` workers, for every proxy service of ``config``.

    ``missing`` is called with each VIP that no interface has. Raises ``OperatorError`` if a port is
    in use, and then leaves no socket open; ``PlatformError`` if the kernel refuses.
    """
    rows: list[list[ProxyListener]] = [[] for _ in range(workers)]
    key = secrets.randbits(31) << 1 | 1  # no client is to choose its worker
    try:
        for address, port, service in _ends(config, missing):
            place = service, address.packed, port.to_bytes(2, "big")
            for number, row in enumerate(rows):
                end = _bound(address, port, service, alone=number == 0)
                row.append(ProxyListener(*place, end, sockets=workers, key=key))
    except BaseException:
        for row in rows:
            for listener in row:
                listener.release()
        raise
    return [tuple(row) for row in rows]


def _ends(
    config: Config, missing: Callable[[IPAddress], None]
) -> Iterable[tuple[IPAddress, int, str]]:
    told: set[IPAddress] = set()
    for service in config.services:
        if service.forward != "proxy" or service.route is not None:
            continue
        address = service.vip.ip
        if address not in told and not _is_here(address):
            missing(address)
        told.add(address)
        for span in service.ports:
            for port in range(span.first, span.last + 1):
                yield address, port, service.name


def _is_here(address: IPAddress) -> bool:
    """Whether an interface has ``address``: then it can be bound without freebind."""
    with socket.socket(_FAMILY[address.version], socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def _bound(address: IPAddress, port: int, service: str, *, alone: bool) -> socket.socket:
    """A bound socket of a worker; with ``alone``, it fails if the port is in use."""
    if alone:
        _bind(address, port, service, reuse=False).close()
    end = _bind(address, port, service, reuse=True)
    end.setblocking(False)
    # Accepted sockets inherit it (net/ipv4/tcp_minisocks.c, tcp_create_openreq_child).
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return end


def _bind(address: IPAddress, port: int, service: str, *, reuse: bool) -> socket.socket:
    end = socket.socket(_FAMILY[address.version], socket.SOCK_STREAM)
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        end.setsockopt(*_FREEBIND[address.version], 1)
        end.bind((str(address), port))
    except OSError as error:
        end.close()
        raise _refusal(error, address, port, service) from error
    return end


def _refusal(
    error: OSError, address: IPAddress, port: int, service: str
) -> OperatorError | PlatformError:
    host = f"[{address}]" if address.version == 6 else str(address)
    if error.errno != errno.EADDRINUSE:
        return PlatformError(
            f"service `{service}`: the kernel refuses to listen on {host}:{port}: {error.strerror}"
        )
    holder = find_listener(address, port)
    by = f" by {holder}" if holder else ""
    return OperatorError(
        f"service `{service}`: {host}:{port} is in use{by}",
        "stop that, or give the service another port",
    )


def find_listener(address: IPAddress, port: int, proc: Path = Path("/proc")) -> str | None:
    """The process that listens on ``address`` or on any address, as "process 7 (nginx)"."""
    inodes = {
        f"socket:[{inode}]"
        for table in ("tcp", "tcp6")
        for host, inode in _listening(proc / "self" / "net" / table, port)
        if not host.strip("0") or host == _as_listed(address)
    }
    for process in proc.glob("[0-9]*"):
        try:
            if any(_holds(entry, inodes) for entry in (process / "fd").iterdir()):
                name = (process / "comm").read_text(encoding="utf-8").strip()
                return f"process {process.name} ({name})"
        except OSError:
            continue  # it has ended meanwhile
    return None


def _holds(entry: Path, inodes: Container[str]) -> bool:
    """Whether the descriptor ``entry`` is one of ``inodes``; False if it was closed meanwhile."""
    try:
        return str(entry.readlink()) in inodes
    except OSError:
        return False


def _listening(table: Path, port: int) -> Iterable[tuple[str, str]]:
    """Address and inode of every socket that listens on ``port``, as /proc/net/tcp has them."""
    if not table.exists():
        return
    for line in table.read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        host, _, listed = words[1].partition(":")
        if words[3] == _LISTEN and int(listed, 16) == port:
            yield host, words[9]


def _as_listed(address: IPAddress) -> str:
    """``address`` as /proc/net/tcp has it: each 32-bit word as a number of the machine."""
    words = [address.packed[at : at + 4] for at in range(0, len(address.packed), 4)]
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
