"""Services of LVS, the kernel's balancer, as ``ipvsadm`` and ``keepalived`` have them.

Lives here: ``LvsService``, ``LvsServer`` and ``write``.
Rules: a service here has one forward method, in LVS each server has one; that of the first server
is used. A VIP of ours is an address of this host, or with dsr and tunnels of none but the backends,
so services of one VIP that are forwarded in both ways become nat. Weight 0 means no new
connections, as here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from paraglider.config.diagnostics import Mark, Path
from paraglider.config.importers.draft import Draft, number
from paraglider.config.importers.services import (
    FoundBackend,
    FoundService,
    Given,
    ServiceWriter,
    longest,
)
from paraglider.config.service import METHODS
from paraglider.config.types import IPAddress
from paraglider.config.wording import shown
from paraglider.core.strategies import KINDS, canonical

#: the ways of forwarding, in LVS' words → the method
METHOD_OF: Final = {"masquerading": "nat", "gatewaying": "dsr", "tunnel": "tunnel"}
# Schedulers of IPVS without a name or alias of ours → our strategy, and whether it is the same
# thing. Any other one becomes _NEAREST.
_SCHEDULERS = {
    "lc": ("weighted", True),
    "dh": ("source", False),
    # By the client's address, unless a flag adds its port (net/netfilter/ipvs/ip_vs_mh.c).
    "mh": ("source", True),
    "sh": ("source", True),
}
_BY_PORT = {"sh-port", "mh-port", "flag-2"}
_FALLBACK = {"sh-fallback", "mh-fallback", "flag-1"}  # another server for one that is down: as here
_NEAREST = "weighted"
_UNWEIGHTED = ("rr", "lc")
_ALL_OF_IT = ("255.255.255.255", "128", "32")  # masks that keep the whole client address
# Schedulers whose nearest strategy differs in a way that a remedy can name.
_REMEDIES = {
    "fo": "keep the one server with the highest weight, or give it most of the weight",
    "ovf": "write the number of connections that a server takes as its `weight`",
}


@dataclass(frozen=True, slots=True)
class LvsServer:
    """A server; ``port`` 0 is that of the client's packet, ``tunnel`` type and port of GUE."""

    mark: Mark
    text: str
    host: IPAddress | str
    port: int
    way: str
    weight: str = "1"
    tunnel: tuple[str, str | None] = ("ipip", None)
    left_out: tuple[str, ...] = ()


@dataclass(slots=True)
class LvsService:
    """A service; ``ports`` is empty for all, ``persistent`` has the seconds, ``flags`` those of
    the scheduler.

    ``keys`` are further keys of ours, ``left_out`` what has no counterpart, ``notes`` further notes
    (place, message, path of the key).
    """

    mark: Mark
    protocol: str
    vip: IPAddress | str
    ports: list[int | str]
    scheduler: str = "wlc"
    persistent: str | None = None
    mask: str = ""
    flags: tuple[str, ...] = ()
    servers: list[LvsServer] = field(default_factory=list)
    keys: dict[Path, Given] = field(default_factory=dict)
    left_out: list[tuple[Mark, str]] = field(default_factory=list)
    notes: list[tuple[Mark, str, Path]] = field(default_factory=list)


def write(
    services: list[LvsService],
    draft: Draft,
    text: str,
    persistence: str = "-p",
    interface: tuple[str, Mark] | None = None,
) -> int:
    """Add ``services``, of the file with ``text``, to ``draft``; returns how many were added.

    ``persistence`` is the name of the seconds of persistence there, ``interface`` the one that has
    the VIPs, if the file names it.
    """
    usable = [(service, _usable(service, draft)) for service in services]
    ways: dict[IPAddress | str, set[str]] = {}
    for service, servers in usable:
        if servers:
            ways.setdefault(service.vip, set()).add(servers[0].way)
    writer = ServiceWriter(draft, text)
    kept: list[LvsService] = []
    for service, servers in usable:
        if writer.full:
            break
        before = writer.count
        shared = len(ways.get(service.vip, ())) > 1
        writer.write(_found(service, servers, shared, persistence))
        if writer.count > before:
            kept.append(service)
    _interfaces(draft, interface)
    times = [
        Given(service.persistent, service.mark, persistence)
        for service in kept
        if service.persistent is not None
    ]
    longest(draft, ("timeouts", "affinity"), times, "a client is kept for one time")
    return writer.count


def _usable(service: LvsService, draft: Draft) -> list[LvsServer]:
    """The servers that can be imported; others are noted."""
    found = [server for server in service.servers if server.way == service.servers[0].way]
    for server in service.servers:
        first = service.servers[0].way
        if server.way != first:
            what = f"server {shown(server.text)} is forwarded by {server.way}, the first by {first}"
            remedy = "a service has one way of forwarding, so it is left out"
            draft.note(server.mark, f"{what}; {remedy}")
    return found


def _found(
    service: LvsService, servers: list[LvsServer], shared: bool, persistence: str
) -> FoundService:
    """The service of ours; ``shared``: services of its VIP are forwarded in several ways."""
    port = service.ports[0] if service.ports else 0
    tail = f"{service.vip}-{port}" if port else f"{service.vip}"
    found = FoundService(
        service.mark,
        f"{service.protocol}-{tail}".replace(":", "-"),
        service.vip,
        service.protocol,
        service.ports,
        keys=dict(service.keys),
        notes=list(service.notes),
    )
    if servers:
        _forward(found, servers, shared)
    _strategy(found, service)
    if service.persistent is not None:
        comment = f"{persistence} {service.persistent}"
        found.keys["affinity",] = Given("client", service.mark, comment)
    for mark, what in service.left_out:
        found.leave_out(mark, what)
    if service.mask and service.mask not in _ALL_OF_IT:
        what = f"clients are kept one by one, not by the mask {shown(service.mask)}"
        found.note(service.mark, f"{what}; leave it out")
    for server in servers:
        weight = number(server.weight)
        counted = service.scheduler not in _UNWEIGHTED or weight == 0 or isinstance(weight, str)
        # Only masquerading has a port of the server's own, as in the kernel.
        mapped = server.way == "masquerading" and server.port != 0
        backend = FoundBackend(
            server.mark, server.host, server.port if mapped else None, weight if counted else 1
        )
        found.backends.append(backend)
        for what in server.left_out:
            found.leave_out(server.mark, what)
    return found


def _forward(found: FoundService, servers: list[LvsServer], shared: bool) -> None:
    """Set the forward method: that of the first server, or nat if the VIP needs it."""
    way, mark = servers[0].way, found.mark
    wanted = METHOD_OF[way]
    method = "nat" if shared else wanted
    found.keys["forward",] = Given(method, mark, way)
    if method != wanted:
        what = f"the VIP is also forwarded otherwise, which does not go with `forward: {wanted}`"
        remedy = f"this forwards by nat; give the service another VIP for {wanted}"
        found.note(servers[0].mark, f"{what}; {remedy}", "forward")
        if way == "tunnel":
            found.keys["return",] = Given("direct", mark)
    elif way == "tunnel":
        _encapsulation(found, servers)


def _encapsulation(found: FoundService, servers: list[LvsServer]) -> None:
    """Set the outer headers of a tunnel: those of the first server count for the service."""
    kind, port = servers[0].tunnel
    mark = servers[0].mark
    if kind == "gue":
        found.keys["encapsulation", "type"] = Given(kind, mark)
        if port is not None:
            found.keys["encapsulation", "port"] = Given(number(port), mark)
    elif kind != "ipip":
        what = f"tunnels of type {shown(kind)} have no counterpart"
        found.note(mark, f"{what}; this encapsulates IP in IP", "forward")
    for server in servers:
        if server.tunnel != servers[0].tunnel:
            what = "this server has another encapsulation than the first"
            remedy = "which all servers of a service share here; give it a service of its own"
            found.note(server.mark, f"{what}, {remedy}")


def _strategy(found: FoundService, service: LvsService) -> None:
    theirs = service.scheduler
    ours = canonical(theirs)
    strategy, same = _SCHEDULERS.get(theirs, (ours, True) if ours in KINDS else (_NEAREST, False))
    meant = set[str]()
    if theirs in ("sh", "mh"):
        meant = _BY_PORT | _FALLBACK
        strategy = "maglev" if _BY_PORT & set(service.flags) else strategy
    for flag in service.flags:
        if flag not in meant:
            found.leave_out(service.mark, f"{shown(flag)}, a flag of the scheduler,")
    comment = theirs if theirs != strategy and same else ""
    found.keys["strategy",] = Given(strategy, service.mark, comment)
    if not same:
        remedy = _REMEDIES.get(theirs, f"{strategy} is the nearest")
        what = f"the scheduler {shown(theirs)} has no counterpart"
        found.note(service.mark, f"{what}; {remedy}", "strategy")


def _interfaces(draft: Draft, known: tuple[str, Mark] | None) -> None:
    """The interfaces for dsr and tunnels: the ``known`` one, else placeholders."""
    methods = [METHODS[service["forward"]] for service in draft.data.get("services", ())]
    needing = [index for index, method in enumerate(methods) if not method.owns_vip]
    if not needing:
        return
    public, mark = known or ("eth0", draft.marks.value(("services", needing[0])))
    draft.set(("network", "public", "interface"), public, mark)
    both = any(method.neighbours for method in methods)
    if both:
        draft.set(("network", "private", "interface"), known[0] if known else "eth1", mark)
    if known is not None:
        what = f"{shown(public)} is taken as the interface towards the clients"
        what += " and the backends" if both else ""
        remedy = "write others if that is not so"
    else:
        named = " and ".join(dict.fromkeys(methods[index].name for index in needing))
        what = f"the names of the interfaces, needed for {named}, are not in the file"
        remedy = "write the one towards the clients"
        remedy += ", and the one towards the backends" if both else ""
    draft.note(mark, f"{what}; {remedy}", ("network",))
