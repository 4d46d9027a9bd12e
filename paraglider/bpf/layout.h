/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The maps of the BPF carrier and their formats. layout.py mirrors this file, and a test compares the
 * two. After a change, maps cannot be used by older daemons and programs: it needs another
 * LAYOUT_VERSION.
 */
#ifndef PARAGLIDER_LAYOUT_H
#define PARAGLIDER_LAYOUT_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define LAYOUT_VERSION 3
#define TICK_SHIFT 27      /* ticks of 2^27 ns, 134 ms */
#define TRANSLATIONS 16384 /* entries of translations, slots and traffic */
#define ORIGINS 65536
#define FLOWS 65536 /* the loader sets another number */
#define SERVICES 65536 /* VIPs with a port and a protocol */
#define DECISIONS 4096
#define TABLE_ROWS 65536 /* of 32 slots each, for all tables together */
#define RINGS 256   /* one for each worker */
#define COUNTERS 64 /* of reasons, with room for those to come */
#define RING_BYTES (1U << 20)
#define DEVICES 4096

/* The key of a flow: the first bytes of a client's packet, in network byte order. */
struct key4 {
	__be32 source, destination;
	__be16 source_port, destination_port;
};

struct key6 {
	__be32 source[4], destination[4];
	__be16 source_port, destination_port;
};

enum flow_flag {
	REPLIED = 1,     /* the backend's SYN+ACK has passed; ack is valid */
	ESTABLISHED = 2, /* the client has acknowledged it */
	FIN_OUT = 4,
	FIN_BACK = 8,
	CLOSED = 16, /* both FINs have passed */
	ALIAS = 32,  /* the key is a reply's; only translation counts */
	DIRECT = 64, /* replies do not pass here */
	DECIDED = 128, /* the program decided, not a worker */
	GROWN = 256, /* DIRECT: the client's numbers have grown once; not in events */
	REPLACED = 512, /* CLOSED, and a SYN is about to replace the entry; not in events */
	SUPERSEDED = 1024, /* CLOSED, and its replies are another flow's; not in events */
};

struct flow {
	__u32 seen;  /* the tick of the last packet */
	__u32 flags; /* enum flow_flag, written atomically. DIRECT: REPLIED means that the client has
		      * sent an ACK, CLOSED that it has acknowledged the backend's FIN */
	__u32 ack;   /* REPLIED: the client's next acknowledgement number, host byte order;
		      * ESTABLISHED: its next sequence number, as far as it was seen, 0 if not;
		      * DIRECT: its last sequence number, 0 if not seen */
	__u16 translation;
	__u16 owner; /* the worker to which the flow's packets are steered, by its index */
	__u32 packets_out;
	__u32 packets_back; /* DIRECT: no packets, but the client's progress (core/tcp_events.py) */
};

enum translation_state {
	UP = 1,
	LOST_FLOWS = 2,     /* the worker ends all flows */
	LOST_DATAGRAMS = 3, /* the worker ends those of UDP */
};

/* What is done to a client's packet. */
enum method {
	NAT = 0, /* its destination is replaced by the backend */
	DSR = 1, /* it stays as it is, and the backend is its next hop */
	TUNNEL = 2, /* it gets an outer header, whose destination is the backend */
};

/* How packets between a service and a backend are translated. IPv4 addresses: the first word. */
struct translation {
	__be32 vip[4], backend[4];
	__be16 vip_port, backend_port; /* both 0: ports stay; with TUNNEL backend_port is the UDP port
					* of GUE, 0 for IP in IP, and vip_port is 0 */
	__u8 family;                   /* 4, 6, or 0 for an unused index */
	__u8 method;                   /* enum method */
	__u8 state;                    /* enum translation_state */
	__u8 aliased;                  /* 1: a flow needs an ALIAS entry for its replies */
	__u8 name[8];
};

/* Address and port of a backend; the value is the translation of its replies. */
struct origin {
	__be32 address[4];
	__be16 port;
	__u8 protocol, family;
};

/* A service: VIP and port; port 0: all ports without a service of their own. The value is the index
 * of a decision.
 */
struct service {
	__be32 vip[4];
	__be16 port;
	__u8 protocol, family;
};

enum decision_flag {
	NO_ENTRIES = 1, /* its flows have none: each packet is decided by the hash */
	STEERED_BY_CLIENT = 2, /* to workers by the client's address, without its port */
	WITHOUT_FLOWS = 4, /* no flow has an entry: the maps of flows are not asked */
	/* and DIRECT, of each of its flows */
};

enum decision_kind {
	BY_CLIENT = 1, /* the hash of the client's address */
	BY_FLOW = 2,   /* the hash of the flow's key */
	BY_TURN = 3,
};

/* How the program picks the translation of a service's new flows. User space maps this into memory and
 * stores words; it writes `table` last, so that the program sees the old table or the new one.
 */
struct decision {
	__u64 table;       /* index of its first slot << 32 | number of slots; 0: a worker decides */
	__u64 hash_key[2]; /* of SipHash-1-3 */
	__u32 turn;        /* the next one, counted up by the program */
	__u32 bound;       /* openings of unknown clients, or many of a known one, that get an entry
			    * in a tick */
	__u32 tick, opened; /* those openings in this tick */
	__u32 stateless;   /* the tick of the last opening without an entry, 0 for none */
	__u8 kind;         /* enum decision_kind */
	__u8 flags;        /* enum decision_flag */
	__u8 unused[2];
	__u8 name[8];
	__u8 spare[8];
};

/* Slots of tables: indices of translations, 0 for none. */
struct slots {
	__u16 translation[32];
};

/* How packets are steered to workers (netfilter/rules/steering.py). */
struct steering {
	__u32 seed, workers; /* no workers: nothing is decided in this family */
	__u32 by_hash; /* bits of the VIPs whose decisions may have WITHOUT_FLOWS (vip_bit) */
	__u32 unused;
};

/* An interface at which the program may run at XDP. */
struct device {
	__u8 mac[6];
	__u8 sends; /* 1: it takes frames of XDP */
	__u8 unused;
};

/* A next hop: its address, of IPv4 the first word, and 2 * its interface's index + 1 for IPv6. */
struct next_hop {
	__be32 address[4];
	__u32 link;
};

struct traffic {
	__u64 packets_out, bytes_out, packets_back, bytes_back;
};

enum event_kind {
	EVENT_ESTABLISHED = 1,
	EVENT_CLOSED = 2,
	EVENT_OPENED = 3, /* the program has inserted the entry */
	EVENT_FIN = 4, /* DIRECT: the client's FIN has passed */
};

struct event {
	__u8 kind, family, protocol, flags;
	__u16 translation, unused;
	union {
		struct key6 key6;
		struct key4 key4;
	};
};

/* Why a packet was not carried, or how it was carried. */
enum reason {
	CARRIED,
	NOT_IP,
	VLAN,        /* tagged: belongs to a VLAN device */
	OTHER_HOST,  /* for another MAC address, multicast or broadcast */
	SHORT,       /* shorter than its headers or its length fields */
	OPTIONS,     /* IPv4 options, IPv6 extension headers, or another version */
	FRAGMENT,
	PROTOCOL,    /* neither TCP nor UDP */
	SYN,
	RST,
	FLAGS,       /* TCP flags that the flow's state machine judges */
	NO_FLOW,
	OPENING,     /* TCP: the client has not acknowledged the backend's SYN+ACK */
	LOST,        /* the backend is lost */
	TTL,         /* expires here: the stack answers */
	TOO_BIG,     /* for the route: the stack fragments or answers */
	NO_ROUTE,
	NO_CHECKSUM, /* UDP over IPv6 without checksum (RFC 6936) */
	UNKNOWN_CLIENT, /* an answer that must pass nft, which learns the client from it */
	EVENTS_LOST, /* not a packet: an event for which the ring had no room */
	OPENED,      /* carried: the first packet of a flow that the program decided */
	STATELESS,   /* carried without an entry, by the hash */
	NO_BACKEND,  /* the service's table is empty, or the picked backend not up: a worker decides */
	FLOOD,       /* new flows beyond the bound, or no room for an entry: a worker decides */
	NO_HEADROOM, /* the kernel refuses to put an outer header before it */
	XDP,         /* carried at XDP, before tc */
	NO_XMIT,     /* left by XDP to tc: the interface of its route takes no frames of XDP */
	NEIGHBOUR,   /* left by XDP to tc, by which the kernel resolves or refreshes the next hop */
	UNFINISHED,  /* left by XDP to tc: a device is to complete its checksum */
	REASONS,
};

/* ---- Maps ---- */

#define HASH_MAP(name, entries, key_type, value_type) \
	struct {                                      \
		__uint(type, BPF_MAP_TYPE_HASH);      \
		__uint(map_flags, BPF_F_NO_PREALLOC); \
		__uint(max_entries, entries);         \
		__type(key, key_type);                \
		__type(value, value_type);            \
	} name SEC(".maps")

HASH_MAP(tcp4, FLOWS, struct key4, struct flow);
HASH_MAP(udp4, FLOWS, struct key4, struct flow);
HASH_MAP(tcp6, FLOWS, struct key6, struct flow);
HASH_MAP(udp6, FLOWS, struct key6, struct flow);
HASH_MAP(origins, ORIGINS, struct origin, __u32);
HASH_MAP(services, SERVICES, struct service, __u32);
HASH_MAP(devices, DEVICES, __u32, struct device);
HASH_MAP(slots, TRANSLATIONS, __u32, __u64); /* the workers': names of translations by index */

#define ARRAY_MAP(name, map_type, entries, value_type) \
	struct {                                       \
		__uint(type, map_type);                \
		__uint(max_entries, entries);          \
		__type(key, __u32);                    \
		__type(value, value_type);             \
	} name SEC(".maps")

ARRAY_MAP(translations, BPF_MAP_TYPE_ARRAY, TRANSLATIONS, struct translation);
ARRAY_MAP(traffic, BPF_MAP_TYPE_PERCPU_ARRAY, TRANSLATIONS, struct traffic);
ARRAY_MAP(reasons, BPF_MAP_TYPE_PERCPU_ARRAY, COUNTERS, __u64);
ARRAY_MAP(steering, BPF_MAP_TYPE_ARRAY, 2, struct steering); /* IPv4, IPv6 */

#define MEMORY_MAP(name, entries, value_type)         \
	struct {                                      \
		__uint(type, BPF_MAP_TYPE_ARRAY);     \
		__uint(map_flags, BPF_F_MMAPABLE);    \
		__uint(max_entries, entries);         \
		__type(key, __u32);                   \
		__type(value, value_type);            \
	} name SEC(".maps")

MEMORY_MAP(decisions, DECISIONS, struct decision);
MEMORY_MAP(tables, TABLE_ROWS, struct slots);

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, RINGS);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

#endif
