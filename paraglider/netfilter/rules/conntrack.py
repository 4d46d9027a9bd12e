"""The conntrack part of our nft table (``forward: offload`` and ``start``), as text.

Timeouts. A balanced connection gets a timeout policy (nft's ``ct timeout``) with its first packet,
so that the configured timeouts apply to it and the host's to all others. conntrack's states are
those of net/netfilter/nf_conntrack_proto_tcp.c: a half-closed connection (FIN_WAIT, CLOSE_WAIT) has
the timeout of an established one (RFC 5382 REQ-5); connections with both FINs (LAST_ACK, TIME_WAIT)
or with a RST (CLOSE) are closed. For UDP the kernel also counts a flow with a single answer as
"unreplied" (nf_conntrack_proto_udp.c: the stream begins two seconds later), so both states have the
same timeout. With ``udp_reply`` an unanswered flow is kept no longer than an answered one, plus the
time that the answer may take.
A policy cannot be changed in place, so its name contains its timeouts; an unused policy stays for
the connections that have it.

Invalid segments. conntrack does not translate invalid packets of a balanced connection, such as a
segment outside the window. The local stack would answer one to a VIP with RST; one from a backend
would reach the client with the backend's address, and the client would answer RST. Both are
dropped, independent of ``nf_conntrack_tcp_be_liberal``, which would apply to the whole host. A
segment with only ACK and no connection is not invalid but new (``nf_conntrack_tcp_loose``), so it
reaches the local stack, which answers RST. A FIN is invalid in both cases: it is dropped once; if
it is repeated with the same sequence number there is no connection, and it is accepted, to be
answered with RST.

Rules: pure text. A SYN,ACK of a backend is accepted, because a router may see one direction of
other connections (``answers``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from paraglider.config.model import Config, Service, TimeoutsConfig
from paraglider.netfilter.rules import answers
from paraglider.netfilter.rules.traffic import RuleEndpoint, RuleTraffic, traffic_of

INVALID: Final = "invalid"
"""The counter of segments that were dropped as invalid, and the chain that drops them."""

# After conntrack (-200), before everything that matches packets.
TRACKED_CHAIN: Final = {"tracked": "type filter hook prerouting priority -190"}
"""The base chain of ``invalid``, with its hook."""

_VIPS: Final = "vips"
_ANSWERING: Final = "answering"
_FINS: Final = "fins"
_FIN_SECONDS: Final = 120  # the longest pause between two retransmissions (Linux, TCP_RTO_MAX)
_FIN_SIZE: Final = 65536
_FLAGS: Final = "tcp flags & (fin | syn | rst | ack)"

#: seconds that a connection is kept which the local stack answered with RST: its port may be used
#: again soon
_REFUSED_SECONDS: Final = 1


#: seconds that an answer may take where an answered UDP flow is kept for less: a resolver that has
#: to ask others gives up after so many (BIND 9, resolver-query-timeout)
_ANSWER_SECONDS: Final = 10

Replied = Mapping[int, Iterable[RuleEndpoint]]
"""The VIPs of services that keep answered UDP flows for so many seconds."""


def policies(timeouts: TimeoutsConfig) -> dict[str, str]:
    """The timeout policies of balanced connections: names, and nft's text of their content."""
    tcp = {
        "syn_sent": timeouts.syn,
        "syn_recv": timeouts.syn,
        "established": timeouts.established,
        "fin_wait": timeouts.established,
        "close_wait": timeouts.established,
        "last_ack": timeouts.after_fin,
        "time_wait": timeouts.after_fin,
        "close": timeouts.after_rst,
    }
    udp = {"unreplied": timeouts.udp, "replied": timeouts.udp}
    return dict((_policy("tcp", tcp), _policy("udp", udp)))


def replied(config: Config, family: int) -> Replied:
    """The VIPs of the services of ``family`` that conntrack carries, with ``udp_reply``."""
    found: dict[int, list[Service]] = {}
    for service in config.services:
        if service.udp_reply is not None and "udp" in service.protocols:
            found.setdefault(service.udp_reply, []).append(service)
    every = {
        seconds: traffic_of(
            config.model_copy(update={"services": tuple(found[seconds])}),
            family,
            lambda method: method.conntracked,
        ).vips
        for seconds in sorted(found)
    }
    return {seconds: vips for seconds, vips in every.items() if vips}


def replied_policy(seconds: int) -> tuple[str, str]:
    """The name and the content of the policy of UDP that is kept ``seconds`` after an answer."""
    unreplied = max(seconds, _ANSWER_SECONDS)
    return _policy("udp", {"unreplied": unreplied, "replied": seconds})


def refused_policy() -> tuple[str, str]:
    """The name and the content of the policy for mid-stream segments that no service accepts."""
    states = ("syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack")
    seconds = dict.fromkeys((*states, "time_wait", "close"), _REFUSED_SECONDS)
    return _policy("tcp", seconds)


def objects(place: str, family: str, timeouts: TimeoutsConfig, replied: Replied) -> Iterator[str]:
    """The lines that add the policies and sets to the table ``place``, if they are missing."""
    found = (*policies(timeouts).items(), refused_policy(), *map(replied_policy, replied))
    for name, content in dict(found).items():
        protocol = name.split("-", 1)[0]
        shape = f"protocol {protocol}; l3proto {family}; policy = {{ {content} }};"
        yield f"add ct timeout {place} {name} {{ {shape} }}"
    address = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}[family]
    for name in (_VIPS, _ANSWERING, *map(_replied_set, replied)):
        yield f"add set {place} {name} {{ type {address} . inet_service; flags interval; }}"
        yield f"flush set {place} {name}"
    kind = f"typeof {_fin(family)}; size {_FIN_SIZE}; flags dynamic, timeout;"
    yield f"add set {place} {_FINS} {{ {kind} timeout {_FIN_SECONDS}s; }}"


def elements(place: str, traffic: RuleTraffic, replied: Replied) -> Iterator[str]:
    """The lines that fill the sets with the ends of ``traffic``, and with those ``replied``."""
    tcp = ((_VIPS, "tcp", traffic.vips), (_ANSWERING, "tcp", traffic.replies))
    udp = ((_replied_set(seconds), "udp", ends) for seconds, ends in replied.items())
    for name, protocol, ends in (*tcp, *udp):
        items = list(_items(protocol, ends))
        if items:
            yield f"add element {place} {name} {{ {', '.join(items)} }}"


def timed(family: str, timeouts: TimeoutsConfig, replied: Replied) -> Iterator[str]:
    """The rules that set the policy of a new connection."""
    yield from (f'ct timeout set "{name}"' for name in policies(timeouts))
    for seconds in replied:
        name, _ = replied_policy(seconds)
        yield f'{family} daddr . udp dport @{_replied_set(seconds)} ct timeout set "{name}"'


def refused(family: str) -> str:
    """The rule that gives a connection from a mid-stream segment a short timeout."""
    to_vip, (name, _) = f"{family} daddr . tcp dport @{_VIPS}", refused_policy()
    return f'{_FLAGS} != syn {to_vip} ct timeout set "{name}"'


def tracked() -> str:
    """The rules that jump to ``invalid``."""
    return f"ct state invalid meta l4proto tcp goto {INVALID}"


def invalid(family: str, exempt: Iterable[str]) -> Iterator[str]:
    """Drop invalid packets of balanced connections; ``exempt`` are rules for all other packets."""
    yield 'iifname "lo" return'
    yield from exempt
    ours = f"{family} saddr . tcp sport @{_ANSWERING} {_FLAGS} != syn | ack"
    yield f"{ours} counter name {INVALID} drop"
    yield answers.one_way(family)
    yield f"{family} daddr . tcp dport != @{_VIPS} return"
    fin = f"{_FLAGS} == fin | ack"
    yield f"{fin} {_fin(family)} @{_FINS} return"
    yield f"{fin} add @{_FINS} {{ {_fin(family)} }}"
    yield f"counter name {INVALID} drop"


def _policy(protocol: str, seconds: dict[str, int]) -> tuple[str, str]:
    name = "-".join((protocol, *map(str, seconds.values())))
    return name, ", ".join(f"{state} : {value}" for state, value in seconds.items())


def _fin(family: str) -> str:
    return f"{family} saddr . tcp sport . tcp sequence"


def _replied_set(seconds: int) -> str:
    return f"replied-{seconds}"


def _items(protocol: str, ends: Iterable[RuleEndpoint]) -> Iterator[str]:
    for end in ends:
        if end.protocol == protocol:
            for ports in end.ports:
                yield f"{end.address} . {ports}"
