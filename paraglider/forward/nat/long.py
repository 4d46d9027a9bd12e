"""The nft table by which the kernel rewrites long packets of ``forward: nat``.

NFQUEUE delivers at most 65,531 bytes of a packet (the length of a netlink attribute has 16 bits),
and a verdict with a payload would truncate a longer packet. So of a longer one (a datagram near the
maximum, or a BIG TCP segment) the worker gets only the head, and returns the mark of service and
backend. The kernel then translates the packet as the worker would, without state:

    requests   destination := backend, and its port where it is mapped
    replies    source := VIP, and its port where it is mapped

and sets the mark of packets that a worker has rewritten. Packets that are in no map are dropped.

Rules: one table a family, ``ip paraglider-long`` and ``ip6 paraglider-long``. The text is one
transaction that results in the same table whatever it was before. Base chains are never removed,
since the kernel then drops all packets that wait in queues of the namespace (Linux,
net/netfilter/nf_queue.c: nf_queue_nf_hook_drop). If the kernel or nft does not support this, long
packets are dropped, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Iterator

from paraglider.config.model import Config
from paraglider.netfilter.rules.marks import LONG_BASE, MASK, mapped_ports, marks_of
from paraglider.netfilter.rules.nft import NFT_FAMILY
from paraglider.netfilter.rules.steering import MARK_BASE

TABLE = "paraglider-long"

# Behind iptables' mangle table (-150), in which packets are queued.
_AFTER = -145

_CHAINS = {"requests": ("prerouting", "d", "backend"), "replies": ("forward", "s", "vip")}
"""Chain: its hook, whether destination or source is replaced, and by what."""


def long_marks(config: Config) -> dict[str, tuple[int, ...]]:
    """The marks for long packets of every nat service, by its name, in the order of its
    backends.
    """
    return marks_of([s for s in config.services if s.forward == "nat"], LONG_BASE)


def long_table(config: Config, family: int) -> str | None:
    """The nft input that leads to the table of ``family``, or None without a nat service of it."""
    services = [s for s in config.services if s.family == family and s.forward == "nat"]
    if not services:
        return None
    name = NFT_FAMILY[family]
    place = f"{name} {TABLE}"
    marks = long_marks(config)
    lines = [f"add table {place}"]
    for end in ("backend", "vip"):
        lines.append(f"add map {place} {end} {{ type mark : ipv{family}_addr; }}")
        lines.append(f"add map {place} {end}-port {{ type mark : inet_service; }}")
        lines += [f"flush map {place} {end}", f"flush map {place} {end}-port"]
    for chain, (hook, *_) in _CHAINS.items():
        kind = f"type filter hook {hook} priority {_AFTER}; policy accept;"
        lines += [f"add chain {place} {chain} {{ {kind} }}", f"flush chain {place} {chain}"]
    for service in services:
        for mark, backend in zip(marks[service.name], service.backends, strict=True):
            ends = {"backend": str(backend.address), "vip": str(service.vip.ip)}
            ports = mapped_ports(service, backend)
            if ports is not None:
                ends |= {"vip-port": str(ports[0]), "backend-port": str(ports[1])}
            lines += (
                f"add element {place} {end} {{ 0x{mark:08x} : {value} }}"
                for end, value in sorted(ends.items())
            )
    for chain, (_, side, end) in _CHAINS.items():
        lines += (f"add rule {place} {chain} {rule}" for rule in _rules(name, side, end))
    return "".join(f"{line}\n" for line in lines)


def _rules(name: str, side: str, end: str) -> Iterator[str]:
    yield f"meta mark & 0x{MASK:08x} != 0x{LONG_BASE:08x} return"
    for protocol in ("tcp", "udp"):
        yield f"{protocol} {side}port set meta mark map @{end}-port"
    yield f"{name} {side}addr set meta mark map @{end} meta mark set 0x{MARK_BASE:08x} return"
    yield "drop"
