/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Known clients: a backend has sent them data, so their address is not forged
 * (forward/openings.py). Where replies do not pass here, their own numbers show that they receive
 * the backend's (one_sided.h).
 * `four` is a constant of the caller's, so that each family has code of its own.
 */
#ifndef PARAGLIDER_CLIENTS_H
#define PARAGLIDER_CLIENTS_H

#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#include "flows.h"
#include "layout.h"
#include "parse.h"

#define ANSWERED_TICKS (300 * 1000000000ULL >> TICK_SHIFT) /* half of what nft keeps a client */

#define UNLIMITED_OPENINGS (500 * (1ULL << TICK_SHIFT) / 1000000000ULL) /* 500 a second */

/* A client: an IPv4 address or an IPv6 /64, as in the nft table of openings. */
struct client {
	__be32 network[2];
	__u32 family;
};

/* The tick of the last answer with data that passed nft; that of the last one-sided flow that showed
 * it; the flows opened by the client in `tick`.
 */
struct client_record {
	__u32 answered, proven;
	__u32 tick, opened;
};

/* A map of this program alone: user space does not read it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct client);
	__type(value, struct client_record);
} clients SEC(".maps");

static __always_inline struct client client_of(const __be32 *address, const bool four)
{
	return (struct client){ { address[0], four ? 0 : address[1] }, four ? 4 : 6 };
}

/* Whether the tick `then`, 0 for never, is less than `ticks` ago. */
static __always_inline bool is_recent(__u32 then, __u32 ticks)
{
	return then && now_ticks() - then < ticks;
}

/* Whether the client of the packet is known, so that it may open a flow without a limit, as in nft. */
static __always_inline bool is_unlimited(const struct packet *p, const bool four)
{
	struct client client = client_of(p->ends.source, four);
	struct client_record *record = bpf_map_lookup_elem(&clients, &client);
	__u32 now = now_ticks();

	if (!record || (!is_recent(record->answered, 2 * ANSWERED_TICKS) &&
			!is_recent(record->proven, 2 * ANSWERED_TICKS)))
		return false;
	if (record->tick != now) {
		record->tick = now;
		record->opened = 0;
	}
	return __sync_fetch_and_add(&record->opened, 1) < UNLIMITED_OPENINGS;
}

/* Records what `client` has shown: an answer to it with data, or with `proven` numbers that only who
 * receives the backend's packets has. Returns whether that is new, or five minutes old; with `xdp` it
 * is only asked.
 */
static __always_inline bool learn(const struct client *client, const bool proven, const bool xdp)
{
	struct client_record *record = bpf_map_lookup_elem(&clients, client), new = {};
	__u32 now = now_ticks();

	if (record && is_recent(proven ? record->proven : record->answered, ANSWERED_TICKS))
		return false;
	if (xdp)
		return true;
	if (!record) {
		if (proven)
			new.proven = now;
		else
			new.answered = now;
		bpf_map_update_elem(&clients, client, &new, BPF_ANY);
	} else if (proven) {
		record->proven = now;
	} else {
		record->answered = now;
	}
	return true;
}

/* Whether this answer must pass nft, which learns from an answer with data that the client is known,
 * and does not limit its connections (forward/openings.py). One answer in five minutes suffices; the
 * program at tc records it.
 */
static __always_inline bool must_pass_nft(const struct packet *p, const struct found *f,
				       const bool four, const bool xdp)
{
	struct client client;

	if (!f->back || p->protocol != IPPROTO_TCP ||
	    (p->tcp_flags & (TH_PUSH | TH_SYN | TH_FIN)) != TH_PUSH)
		return false;
	client = client_of(p->ends.destination, four);
	return learn(&client, false, xdp);
}

/* A one-sided flow has shown that its client receives the backend's packets; see `learn`. */
static __always_inline bool learn_client(const struct packet *p, const bool four, const bool xdp)
{
	struct client client = client_of(p->ends.source, four);

	return learn(&client, true, xdp);
}

#endif
