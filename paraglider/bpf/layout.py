"""The formats in the BPF carrier's maps: mirrors ``layout.h``; a test compares the two.

Lives here: the formats of keys, values and events (``struct``), their flags and states, and the
names of the reasons for which the program does not carry a packet.
Rules: numbers have native byte order; addresses, ports and keys of flows are bytes as in packets.
An IPv4 address in a field of 16 bytes has the first four; the others are 0. A change of a format
needs another ``LAYOUT_VERSION``, since maps outlive the daemon that created them.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

#: part of the names of pins: maps of another version are not taken over
LAYOUT_VERSION: Final = 3

#: a flow's ``seen`` counts ticks: nanoseconds of CLOCK_MONOTONIC >> TICK_SHIFT
TICK_SHIFT: Final = 27
#: entries of ``translations``, ``slots`` and ``traffic``; index 0 is never used
TRANSLATIONS: Final = 16384
ORIGINS: Final = 65536
#: entries of a map of flows at least; the daemon sets another number
FLOWS: Final = 65536
#: entries of ``services``: VIPs with a port and a protocol
SERVICES: Final = 65536
#: entries of ``decisions``; index 0 is never used
DECISIONS: Final = 4096
DEVICES: Final = 4096
#: entries of ``tables``, each of ``ROW_SLOTS`` slots of ``SLOT``
TABLE_ROWS: Final = 65536
ROW_SLOTS: Final = 32
#: entries of ``rings``: workers
RINGS: Final = 256
RING_BYTES: Final = 1 << 20
#: entries of ``reasons``
COUNTERS: Final = 64

#: source, destination, source port, destination port of the client's packets (``Flow.forward_key``)
KEY4: Final = Struct("=4s4s2s2s")
KEY6: Final = Struct("=16s16s2s2s")

#: an entry of a flow: seen (ticks), flags, ack (with REPLIED the client's next acknowledgement
#: number; with ESTABLISHED its next sequence number, as far as it was seen, 0 if not; with DIRECT
#: its last sequence number), translation (index), owner (the worker that gets its packets), packets
#: out, packets back (with DIRECT the client's ``progress``, see ``core.tcp_events``)
FLOW: Final = Struct("=IIIHHII")

# flags of a flow
#: the backend's SYN+ACK has passed
REPLIED: Final = 1
#: the client has acknowledged it
ESTABLISHED: Final = 2
#: the client's FIN has passed
FIN_OUT: Final = 4
#: the backend's FIN has passed
FIN_BACK: Final = 8
#: both FINs have passed
CLOSED: Final = 16
#: the key is a reply's (``Flow.reverse_key``), and only ``translation`` counts
ALIAS: Final = 32
#: replies do not pass here (``return: direct``, ``forward: dsr``)
DIRECT: Final = 64
#: the program decided, not a worker
DECIDED: Final = 128
#: with DIRECT: the client's numbers have grown once; not in events
GROWN: Final = 256
#: CLOSED, and the program is about to replace the entry; not in events
REPLACED: Final = 512
#: CLOSED, and its replies are another flow's; not in events
SUPERSEDED: Final = 1024

#: VIP, backend, VIP's port, backend's port (both 0: ports are not mapped), family, method, state,
#: whether a flow needs an ALIAS entry for its replies (0 or 1), name
TRANSLATION: Final = Struct("=16s16s2s2sBBBB8s")

# methods of a translation
#: a client's packet gets the backend as its destination
NAT: Final = 0
#: a client's packet is not changed; the backend is its next hop
DSR: Final = 1
#: a client's packet gets an outer header, whose destination is the backend; the backend's port is
#: the UDP port of GUE, 0 for IP in IP, and the VIP's port is 0
TUNNEL: Final = 2

# states of a translation
UP: Final = 1
#: the worker ends all flows of the translation
LOST_FLOWS: Final = 2
#: the worker ends its flows of UDP
LOST_DATAGRAMS: Final = 3

#: key of ``origins``: the backend's address, its port, protocol, family (4 or 6)
ORIGIN: Final = Struct("=16s2sBB")
#: index of a translation: the value of an origin; key of arrays and of ``slots``
INDEX: Final = Struct("=I")

#: key of ``services``: the VIP, port (0: all ports without a service of their own), protocol,
#: family
SERVICE: Final = Struct("=16s2sBB")

#: the decision about new flows of a service: table (first slot << 32 | number of slots, 0: a worker
#: decides), key of SipHash-1-3 (two words), turn, bound (how many openings of unknown clients get
#: an entry in a tick), the tick of these openings, their number, the tick of the last opening
#: without an entry (0: none), kind, flags, name
DECISION: Final = Struct("=QQQIIIIIBB2x8s8x")

# flags of decisions, besides DIRECT
#: its flows have no entries: each packet is decided by the hash
NO_ENTRIES: Final = 1
#: packets are steered to workers by the client's address, without its port
STEERED_BY_CLIENT: Final = 2
#: no flow has an entry: the maps of flows are not asked
WITHOUT_FLOWS: Final = 4

# kinds of decisions
#: by the hash of the client's address
BY_CLIENT: Final = 1
#: by the hash of the flow's key
BY_FLOW: Final = 2
BY_TURN: Final = 3

#: one slot of a table: the index of a translation, 0 for none
SLOT: Final = Struct("=H")
#: how packets are steered (``netfilter.rules.steering``): seed, workers (0: the program decides
#: nothing), bits of the VIPs whose decisions may have WITHOUT_FLOWS; index 0 is for IPv4, 1 for
#: IPv6
STEERING: Final = Struct("=III4x")

#: an interface at which the program may run at XDP: its MAC address, whether it takes frames of XDP
DEVICE: Final = Struct("=6sBx")

#: packets out, IP bytes out, packets back, IP bytes back; one for each CPU
TRAFFIC: Final = Struct("=QQQQ")

#: kind, family, protocol, flags of the flow, its translation, its key (of IPv4 the first 12 bytes)
EVENT: Final = Struct("=BBBBH2x36s")

# kinds of events
EVENT_ESTABLISHED: Final = 1
EVENT_CLOSED: Final = 2
#: the program has inserted the entry
EVENT_OPENED: Final = 3
#: the client's FIN of a flow with DIRECT has passed
EVENT_FIN: Final = 4

#: why the program did not carry a packet, or how it carried it, in the order of the counters
REASONS: Final = (
    "carried",
    "not_ip",
    "vlan",
    "other_host",
    "short",
    "options",
    "fragment",
    "protocol",
    "syn",
    "rst",
    "flags",
    "no_flow",
    "opening",
    "lost",
    "ttl",
    "too_big",
    "no_route",
    "no_checksum",
    "unknown_client",
    "events_lost",
    "opened",
    "stateless",
    "no_backend",
    "flood",
    "no_headroom",
    "xdp",
    "no_xmit",
    "neighbour",
    "unfinished",
)
