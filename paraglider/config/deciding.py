"""What decides about the flows of a service that BPF carries: the kernel, or a worker.

The kernel picks from a table that a worker computes (``Strategy.kernel_table``). If a service needs
more than a table, a worker decides.

Lives here: ``kernel_decides``, ``why_python``, ``why_not_kernel``, ``deciders``, ``NO_ROOM``;
``exceptions`` and ``carried_by_workers``, what BPF leaves to a worker.
Rules: pure; depends on the file only. The daemon adds whether BPF carries on this host, and whether
the kernel has room for the table and the ports.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final

from paraglider.config.service import Method, Service

#: most ports of a service for which the program decides, unless it has all ports
MOST_PORTS: Final = 64
#: why a worker decides although a table is enough for the service
NO_ROOM: Final = "the kernel has no room for its table or its ports"
_NO_BPF: Final = "the workers carry its flows"


def why_python(service: Service) -> str:
    """Why workers decide about the flows of ``service`` if BPF carries them; empty if the kernel
    decides.
    """
    if service.decide == "python":
        return "`decide: python`"
    if service.strategy_class.kernel_pick is None:
        return f"`strategy: {service.strategy}` has no table for the kernel"
    if service.affinity == "client":
        return "`affinity: client`: a worker has the clients' backends"
    if _has_queries(service):
        return "`udp_reply`: a query and its answer are over before BPF carries them"
    if not service.all_ports and sum(map(len, service.ports)) > MOST_PORTS:
        return f"it has more than {MOST_PORTS} ports, and not all"
    return ""


def why_not_kernel(service: Service, *, bpf: bool = True, room: bool = True) -> str | None:
    """Why workers decide about the flows of ``service``; empty if the kernel does, None if the
    method has no choice. ``bpf``: BPF carries on this host; ``room``: the kernel has room for the
    table and the ports.
    """
    if "decide" not in service.method.options:
        return None
    if not (bpf and service.wants_bpf):
        return _NO_BPF
    return why_python(service) or ("" if room else NO_ROOM)


def kernel_decides(service: Service) -> bool:
    """Whether the kernel picks backends for new flows of ``service``, where BPF carries them."""
    return why_not_kernel(service) == ""


def carried_by_workers(service: Service) -> bool:
    """Whether workers carry all flows of ``service``, whatever its ``carrier``: UDP with
    ``udp_reply``.
    """
    return _has_queries(service) and "tcp" not in service.protocols


def _has_queries(service: Service) -> bool:
    """Whether flows of ``service`` are a query and its answer, which have no entry in BPF."""
    answered = "udp" in service.protocols and service.udp_reply is not None
    return answered and service.decide != "hash"


def exceptions(service: Service) -> str:
    """What BPF leaves to a worker of the flows of ``service``, which it carries, and what the
    host's firewall sees of them.
    """
    queries = ", and UDP (`udp_reply`)," if _has_queries(service) else ""
    return (
        f"exceptions such as fragments and ICMP{queries} pass a worker; the host's firewall sees"
        " only what passes a worker"
    )


def deciders(
    services: Iterable[Service],
    *,
    bpf: bool,
    unplaced: Container[str] = (),
    lacks: Container[Method] = (),
) -> dict[str, list[str]]:
    """The names of ``services`` by ``why_not_kernel``, whose ``bpf`` it is, except for those with a
    forward method in ``lacks``; without those that the workers carry by `decide: python`. There is
    no room for the tables or ports of the services ``unplaced``.
    """
    found: dict[str, list[str]] = {}
    for service in services:
        carried = bpf and service.method not in lacks
        why = why_not_kernel(service, bpf=carried, room=service.name not in unplaced)
        if why is not None and (why != _NO_BPF or service.decide != "python"):
            found.setdefault(why, []).append(service.name)
    return found
