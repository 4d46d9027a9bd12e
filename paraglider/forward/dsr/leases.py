"""The nft table by which the kernel marks packets of ``forward: dsr`` flows itself.

A worker's verdict is the mark of a backend, plus a bit if the flow may have a lease: the flow's key
is then in the set of that backend for some seconds, during which the kernel marks its packets
before the queue. Packets do not renew a lease: after it the next packet is queued, so the worker
sees every live flow.

    leased   before the queue: a packet whose key is in a backend's set gets that backend's mark
    asked    packets that begin or end a flow go to the worker, and end its lease
    lease    after the queue: the verdict's flow gets its lease, and the bit is cleared

Rules: one table per family, ``ip paraglider-dsr`` and ``ip6 paraglider-dsr``. The text is one
transaction that leads to the same chains from any previous ones; base chains are never removed,
because the removal of one drops every packet that waits in a queue of the namespace (Linux,
net/netfilter/nf_queue.c: nf_queue_nf_hook_drop). The set of a removed backend is no longer
referenced and is empty soon. There is a set per backend, not one map with marks as values, because
nft cannot add an element with a value and an IPv6 key from a packet (nftables 1.0.6,
src/netlink_linearize.c: netlink_gen_map_stmt reserves 16 bytes for a key). If the kernel or nft
does not support this, every packet is queued, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Iterable

from paraglider.config.model import Config, TimeoutsConfig
from paraglider.forward.dsr.marks import dsr_services, route_marks
from paraglider.netfilter.rules.marks import DSR_BASE, LEASE, MASK
from paraglider.netfilter.rules.nft import NFT_FAMILY

TABLE = "paraglider-dsr"

LONGEST = 30
"""Longest lease in seconds."""

SIZE = 1 << 20
"""Most leases per backend; all packets of a flow without one are queued."""

# Around iptables' mangle table (-150), in which packets are queued.
_BEFORE, _AFTER = -155, -145


def lease_seconds(timeouts: TimeoutsConfig) -> int:
    """Seconds of a lease: much less than the flow's timeout, so that a live flow never
    expires.
    """
    shortest = min(timeouts.established, timeouts.udp)
    return max(1, min(LONGEST, shortest // 2))


def lease_table(config: Config, family: int) -> str | None:
    """The nft input that creates the table of ``family``, or None without a dsr service of it."""
    services = dsr_services(config, family)
    if not services:
        return None
    marks = sorted(route_marks(config, family).values())
    vips = dict.fromkeys(str(service.vip.ip) for service in services)
    seconds = lease_seconds(config.timeouts)
    lines = [
        *_skeleton(family, marks),
        *_rules("leased", _leased(family, marks, vips), family),
        *_rules(
            "asked", (f"delete @{lease_set(mark)} {{ {_key(family)} }}" for mark in marks), family
        ),
        *_rules("lease", _lease(family, marks, seconds), family),
    ]
    return "".join(f"{line}\n" for line in lines)


def lease_set(mark: int) -> str:
    """The name of the set with the leases of the backend with ``mark``."""
    return f"to-{mark:08x}"


def _skeleton(family: int, marks: Iterable[int]) -> Iterable[str]:
    place = f"{NFT_FAMILY[family]} {TABLE}"
    address = f"ipv{family}_addr"
    key = f"inet_proto . {address} . inet_service . {address} . inet_service"
    yield f"add table {place}"
    for mark in marks:
        kind = f"type {key}; size {SIZE}; flags dynamic, timeout;"
        yield f"add set {place} {lease_set(mark)} {{ {kind} }}"
    for chain, priority in (("leased", _BEFORE), ("lease", _AFTER)):
        kind = f"type filter hook prerouting priority {priority}; policy accept;"
        yield f"add chain {place} {chain} {{ {kind} }}"
    yield f"add chain {place} asked"
    for chain in ("leased", "asked", "lease"):
        yield f"flush chain {place} {chain}"


def _rules(chain: str, rules: Iterable[str], family: int) -> Iterable[str]:
    return (f"add rule {NFT_FAMILY[family]} {TABLE} {chain} {rule}" for rule in rules)


def _leased(family: int, marks: Iterable[int], vips: Iterable[str]) -> Iterable[str]:
    yield f"{NFT_FAMILY[family]} daddr != {{ {', '.join(vips)} }} return"
    yield "meta l4proto != { tcp, udp } return"
    yield "tcp flags & (fin | syn | rst) != 0x0 goto asked"
    for mark in marks:
        yield f"{_key(family)} @{lease_set(mark)} meta mark set 0x{mark:08x} return"


def _lease(family: int, marks: Iterable[int], seconds: int) -> Iterable[str]:
    wanted = MASK | LEASE
    yield f"meta mark & 0x{wanted:08x} != 0x{DSR_BASE | LEASE:08x} return"
    yield f"meta mark set meta mark & 0x{0xFFFFFFFF & ~LEASE:08x}"
    for mark in marks:
        add = f"add @{lease_set(mark)} {{ {_key(family)} timeout {seconds}s }}"
        yield f"meta mark 0x{mark:08x} {add} return"


def _key(family: int) -> str:
    name = NFT_FAMILY[family]
    return f"meta l4proto . {name} saddr . th sport . {name} daddr . th dport"
