"""Verdicts of packets, and the reasons that are counted.

A verdict is one integer, so that the packet path allocates nothing: the low byte is the kind, the
bits above it are the mark of ``MARK``. The kinds:

    PASS       not a packet of a service: accepted unchanged; queue I/O clears the worker's mark
    REWRITTEN  rewritten in the buffer, with the same length: accepted
    DROP       cannot be forwarded correctly: dropped
    MARK       accepted unchanged, with the mark ``verdict >> 8``

The table ``REASONS`` has the verdict of each reason.
"""

from __future__ import annotations

from typing import Final

PASS: Final = 0
REWRITTEN: Final = 1
DROP: Final = 2
MARK: Final = 3

# Reasons, as indices into a list of counters.
NO_SERVICE: Final = 0
NO_FLOW: Final = 1
OTHER_PROTOCOL: Final = 2
OTHER_ICMP: Final = 3
SOURCE_ROUTED: Final = 4
SHORT: Final = 5
BAD_VERSION: Final = 6
BAD_HEADER_LENGTH: Final = 7
BAD_TOTAL_LENGTH: Final = 8
TRUNCATED: Final = 9
FRAGMENT: Final = 10
BAD_EXTENSION: Final = 11
SHORT_TRANSPORT: Final = 12
SHORT_ERROR: Final = 13
NO_BACKEND: Final = 14
TABLE_FULL: Final = 15
COLLISION: Final = 16
INTERNAL: Final = 17
STRAY: Final = 18
REFUSED: Final = 19
FLOW_LOST: Final = 20
FROM_LOST: Final = 21
FROM_FORGOTTEN: Final = 22
BAD_CHECKSUM: Final = 23
UNSENT: Final = 24
TOO_BIG: Final = 25
HOP_LIMIT: Final = 26
OTHER_BACKEND: Final = 27
ADOPTION_LIMIT: Final = 28

#: name, verdict and meaning of each reason, in the order of the constants above
REASONS: Final[tuple[tuple[str, int, str], ...]] = (
    ("no_service", PASS, "addressed to a VIP on a port that no service has"),
    ("no_flow", PASS, "belongs to no flow that is known here, and opens none"),
    (
        "other_protocol",
        PASS,
        "neither TCP, UDP nor ICMP (or signed by an AH, which forbids rewriting)",
    ),
    ("other_icmp", PASS, "ICMP that is neither echo nor an error we translate"),
    ("source_routed", PASS, "IPv6 routing header with segments left: not at its end yet"),
    ("short", DROP, "shorter than an IP header"),
    ("bad_version", DROP, "IP version neither 4 nor 6"),
    ("bad_header_length", DROP, "IPv4 header length under 20 or past the packet"),
    ("bad_total_length", DROP, "IP length field under the header or a jumbogram"),
    ("truncated", DROP, "copy shorter than the IP length says"),
    ("fragment", DROP, "a fragment that was not reassembled before us"),
    ("bad_extension", DROP, "IPv6 extension headers too many or past the packet"),
    ("short_transport", DROP, "TCP, UDP or ICMP header cut"),
    ("short_error", PASS, "ICMP error whose inner packet is cut or garbled: about no flow of ours"),
    ("no_backend", DROP, "no backend of the pool takes new flows"),
    ("table_full", DROP, "flow table full of flows that live"),
    ("collision", DROP, "every backend already has a flow with these ports of the client"),
    ("internal", DROP, "a fault of ours; the log has it"),
    ("stray", DROP, "a TCP segment under dsr that neither has a flow nor asks for an answer"),
    ("refused", PASS, "new, while no backend takes new flows: the local stack refuses it at once"),
    ("flow_lost", PASS, "a client's, whose backend is down: the local stack answers it with RST"),
    ("from_lost", DROP, "of a flow that is over, from a backend that is down"),
    ("from_forgotten", DROP, "a backend's answer of no flow: it would leave with its own address"),
    ("bad_checksum", DROP, "ICMP error about a flow of ours whose checksum is wrong"),
    ("unsent", DROP, "the kernel did not send it to the backend: no route, or no room"),
    (
        "too_big",
        DROP,
        "too long for the path inside the tunnel: the client gets an ICMP error",
    ),
    ("hop_limit", DROP, "its TTL or hop limit ended here: the client gets an ICMP error"),
    (
        "other_backend",
        DROP,
        "a backend's RST to an adopted flow, which is tried with another backend next",
    ),
    ("adoption_limit", DROP, "more segments without a flow than are adopted in a second"),
)

#: reason -> verdict, as a tuple for the packet path
VERDICT_OF: Final[tuple[int, ...]] = tuple(verdict for _, verdict, _ in REASONS)
REASON_NAMES: Final[tuple[str, ...]] = tuple(name for name, _, _ in REASONS)
