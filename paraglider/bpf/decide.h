/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Decides about packets without a flow: picks a translation from the table of the packet's service,
 * and inserts an entry for the flow.
 *
 * By turn, each flow has an entry from its first packet on. By hash, a flow may have no entry for a
 * while, since the hash of its key leads all its packets to the same backend: with TCP in a flood,
 * when unknown clients open more flows than the bound, or when the map is full; with UDP until the
 * backend answers. A segment of the backend without SYN and RST proves that the client exists, and
 * inserts the entry. A flow whose replies do not pass here has an entry from its first packet on,
 * or, with TCP in a flood, none. Nor have the flows of a decision with NO_ENTRIES.
 *
 * `four` is a constant of the caller's, so that each family has code of its own.
 */
#ifndef PARAGLIDER_DECIDE_H
#define PARAGLIDER_DECIDE_H

#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#include "alias.h"
#include "clients.h"
#include "flows.h"
#include "layout.h"
#include "parse.h"
#include "siphash.h"
#include "steer.h"

/* How long after the last opening without an entry there may be flows without an entry. */
#define STATELESS_TICKS (64 * 1000000000ULL >> TICK_SHIFT)
#define ROW_SLOTS 32

/* The decision of the service with VIP and port of `key`, else of the one with all ports. */
static __always_inline struct decision *decision_of(const struct key6 *key, __u8 protocol,
						    const bool four)
{
	struct service service = { .port = key->destination_port,
				   .protocol = protocol,
				   .family = four ? 4 : 6 };
	__u32 *index;

	copy(service.vip, key->destination, four);
	index = bpf_map_lookup_elem(&services, &service);
	if (!index) {
		service.port = 0;
		index = bpf_map_lookup_elem(&services, &service);
	}
	return index ? bpf_map_lookup_elem(&decisions, index) : NULL;
}

/* The bit of a VIP in `by_hash`: of its bytes, which are combined by XOR. */
static __always_inline __u32 vip_bit(const __be32 *vip, const bool four)
{
	__be32 all = four ? vip[0] : vip[0] ^ vip[1] ^ vip[2] ^ vip[3];

	all ^= all >> 16;
	return 1U << ((all ^ all >> 8) & 31);
}

/* The hash of the flow with `key`: of the client's address, or of the whole key. */
static __always_inline __u64 hash_of(const struct decision *d, const struct key6 *key,
				     const bool four)
{
	if (d->kind == BY_CLIENT)
		return four ? siphash13(d->hash_key, key->source, 1)
			    : siphash13(d->hash_key, key->source, 4);
	if (four) {
		struct key4 key4 = short_key(key);

		return siphash13(d->hash_key, (__be32 *)&key4, sizeof key4 / 4);
	}
	return siphash13(d->hash_key, (__be32 *)key, sizeof *key / 4);
}

/* The index of the translation that the table has for the flow with `key`, 0 for none. Its slots were
 * written before its word (bpf/elements.py, publish), and are read at an address that depends on the
 * word, so no CPU reads older ones. A run that takes longer than two changes of the table may read a
 * later table in its place, so `accepts` must check that the translation is one of the VIP.
 */
static __always_inline __u32 pick(struct decision *d, const struct key6 *key, const bool four)
{
	__u64 table = *(volatile __u64 *)&d->table, number;
	__u32 size = table, slot, row;
	struct slots *slots;

	if (!size)
		return 0;
	if (d->kind == BY_TURN)
		number = __sync_fetch_and_add(&d->turn, 1);
	else
		number = hash_of(d, key, four);
	slot = (table >> 32) + number % size;
	row = slot / ROW_SLOTS;
	slots = bpf_map_lookup_elem(&tables, &row);
	return slots ? slots->translation[slot % ROW_SLOTS] : 0;
}

/* Whether a new flow with `key` may have the translation. */
static __always_inline bool accepts(const struct translation *t, const struct key6 *key,
				 const bool four)
{
	return t && t->state == UP && t->family == (four ? 4 : 6) &&
	       equal(t->vip, key->destination, four) &&
	       (!t->vip_port || t->vip_port == key->destination_port);
}

/* Whether an opening gets an entry: it is of a known client, or within the bound of this tick.
 * Records that one got none.
 */
static __always_inline bool within_bound(struct decision *d, const struct packet *p,
					 const bool four)
{
	__u32 now = now_ticks();

	if (is_unlimited(p, four))
		return true;
	if (d->tick != now) {
		d->tick = now;
		d->opened = 0;
	}
	if (__sync_fetch_and_add(&d->opened, 1) < d->bound)
		return true;
	d->stateless = now;
	return false;
}

/* Whether flows of the decision may have no entry now. */
static __always_inline bool may_be_stateless(const struct decision *d, const struct packet *p)
{
	if (d->kind == BY_TURN)
		return false;
	if (p->protocol == IPPROTO_UDP || d->flags & NO_ENTRIES)
		return true;
	return d->stateless && now_ticks() - d->stateless <= STATELESS_TICKS;
}

/* The reason for leaving the decision about a packet to a worker. */
static __always_inline enum reason undecided(const struct packet *p)
{
	return is_opening(p) ? SYN : NO_FLOW;
}

/* A reply of a flow without an entry: the flow's hash must lead to the backend that sent it. */
static __always_inline enum reason decide_reply(const struct packet *p, struct found *f,
						const bool four)
{
	struct translation *t = bpf_map_lookup_elem(&translations, &f->origin);
	struct decision *d;

	if (!t || t->family != (four ? 4 : 6))
		return NO_FLOW;
	reply_key(&p->ends, t, &f->key, four);
	d = decision_of(&f->key, p->protocol, four);
	if (!d || d->flags & DIRECT || !may_be_stateless(d, p) || !accepts(t, &f->key, four) ||
	    pick(d, &f->key, four) != f->origin)
		return NO_FLOW;
	f->decision = d;
	f->index = f->origin;
	f->translation = t;
	f->back = true;
	f->opens = p->protocol == IPPROTO_UDP || !(p->tcp_flags & (TH_SYN | TH_RST));
	if (f->opens && p->protocol == IPPROTO_TCP)
		f->sets = ESTABLISHED | (p->tcp_flags & TH_FIN ? FIN_BACK : 0);
	return CARRIED;
}

/* Decides about a packet without a flow. Sets the translation, and whether the flow gets an entry. */
static __always_inline enum reason decide(const struct packet *p, struct found *f, const bool four)
{
	struct decision *d;

	if (!f->steering || !f->steering->workers || p->ttl <= 1)
		return undecided(p);
	if (f->origin && !decide_reply(p, f, four))
		return CARRIED;
	f->key = p->ends;
	d = decision_of(&f->key, p->protocol, four);
	if (!d)
		return undecided(p);
	if (p->protocol == IPPROTO_TCP && !is_opening(p) && !may_be_stateless(d, p))
		return undecided(p);
	f->opens = !(d->flags & NO_ENTRIES) &&
		   (p->protocol == IPPROTO_TCP ? is_opening(p)
					       : d->kind == BY_TURN || d->flags & DIRECT);
	if (f->opens && d->kind == BY_TURN && !within_bound(d, p, four))
		return FLOOD;
	f->index = pick(d, &f->key, four);
	f->translation = bpf_map_lookup_elem(&translations, &f->index);
	if (!f->index || !accepts(f->translation, &f->key, four))
		return NO_BACKEND;
	f->decision = d;
	if (d->kind == BY_TURN || d->flags & NO_ENTRIES)
		return CARRIED;
	if (f->translation->aliased) { /* its replies are recognized by an entry only */
		if (p->protocol == IPPROTO_TCP && !f->opens)
			return undecided(p);
		f->opens = true;
		return within_bound(d, p, four) ? CARRIED : FLOOD;
	}
	if (f->opens && !within_bound(d, p, four))
		f->opens = false;
	return CARRIED;
}

/* Decides without an entry and without counting anything, by the hash of flows that have no entries,
 * if the packet's decision has `flag`. At XDP, so that the program at tc may decide about the same
 * packet.
 */
static __always_inline enum reason decide_by_hash(const struct packet *p, struct found *f,
						  const __u8 flag, const bool four, const bool xdp)
{
	__u32 family = four ? 0 : 1;
	struct decision *d;

	if (xdp) /* else it was looked up */
		f->steering = bpf_map_lookup_elem(&steering, &family);
	if (!f->steering || !f->steering->workers || p->ttl <= 1)
		return NO_FLOW;
	d = decision_of(&p->ends, p->protocol, four);
	if (!d || !(d->flags & flag))
		return NO_FLOW;
	f->key = p->ends;
	f->index = pick(d, &f->key, four);
	f->translation = bpf_map_lookup_elem(&translations, &f->index);
	if (!f->index || !accepts(f->translation, &f->key, four))
		return NO_BACKEND;
	f->decision = d;
	return CARRIED;
}

/* Decides about a packet of a service of whose flows none has an entry, without asking the maps of
 * flows: look-ups that miss in large maps cost more than all others, since each waits for memory.
 * Returns NO_FLOW for packets of other services, those that expire here, and all at XDP, whose code
 * would grow by a third.
 */
static __always_inline enum reason decide_first(const struct packet *p, struct found *f,
						const bool four, const bool xdp)
{
	__u32 family = four ? 0 : 1;

	if (xdp)
		return NO_FLOW;
	f->steering = bpf_map_lookup_elem(&steering, &family);
	if (!f->steering || !(f->steering->by_hash & vip_bit(p->ends.destination, four)))
		return NO_FLOW;
	return decide_by_hash(p, f, WITHOUT_FLOWS, four, false);
}

/* Whether the packet may open another flow with the ports of a closed one, whose entry is still there
 * for late segments. Closed are flows of which both FINs have passed, as TIME_WAIT in core/flow_states.py,
 * where a SYN opens another flow too.
 */
static __always_inline bool is_used_again(const struct packet *p, const struct found *f)
{
	return f->flow && f->flow->flags & CLOSED && !f->back && is_opening(p) && p->ttl > 1;
}

/* Replaces the entry of a closed flow by `flow`, and the alias of its replies by that of the new one's.
 * Returns CARRIED, or SYN if a worker or another CPU does so at this moment, or if another flow has
 * the same replies: then the closed flow's entry is as it was, and a worker decides.
 */
static __always_inline enum reason replace_closed(const struct found *f, const struct flow *flow,
						  const bool four)
{
	struct flow *closed = look_up(&f->key, IPPROTO_TCP, four);
	struct translation *before;
	struct key6 reply = {};
	__u32 index;
	long error = 0;

	if (!closed || !(closed->flags & CLOSED))
		return SYN;
	index = closed->translation;
	before = bpf_map_lookup_elem(&translations, &index);
	if (!before || __sync_fetch_and_or(&closed->flags, REPLACED) & REPLACED)
		return SYN;
	if (f->translation->aliased && index != f->index)
		error = insert_alias(&f->key, IPPROTO_TCP, f->translation, f->index, flow->owner, four);
	if (error)
		return SYN;
	if (replace(&f->key, flow, four)) {
		if (!f->translation->aliased || index == f->index)
			return SYN;
		before = f->translation;
		error = 1;
	} else if (!before->aliased || index == f->index) {
		return CARRIED;
	}
	alias_key(&f->key, before, &reply, four);
	remove(&reply, IPPROTO_TCP, four);
	return error ? SYN : CARRIED;
}

/* Inserts the entry of the flow, and an alias for its replies if they need one; sends an event to its
 * worker. Returns CARRIED also if the map is full and the flow, decided by hash, has no entry.
 */
static __always_inline enum reason open_flow(const struct packet *p, struct found *f,
					     const bool four)
{
	struct flow flow = { .seen = now_ticks(), .flags = DECIDED, .translation = f->index };
	struct translation *t = f->translation;
	struct decision *d = f->decision;
	long error;

	if (!d || !f->steering)
		return undecided(p);
	flow.flags |= d->flags & DIRECT;
	flow.owner = worker_of(&f->key, f->steering, d->flags, four);
	if (f->replaces) {
		if (replace_closed(f, &flow, four))
			return SYN;
		goto opened;
	}
	if (f->back && p->protocol == IPPROTO_TCP)
		flow.flags |= REPLIED;
	error = insert(&f->key, p->protocol, &flow, four);
	if (error == -EEXIST) { /* another CPU has inserted it meanwhile */
		f->flow = look_up(&f->key, p->protocol, four);
		f->decision = NULL;
		return f->flow && f->flow->translation == f->index && !(f->flow->flags & ALIAS)
			       ? CARRIED
			       : undecided(p);
	}
	if (error)
		goto full;
	if (t->aliased) {
		error = insert_alias(&f->key, p->protocol, t, f->index, flow.owner, four);
		if (error) { /* or another flow has the same replies */
			remove(&f->key, p->protocol, four);
			return error == -EEXIST ? undecided(p) : FLOOD;
		}
	}
opened:
	send(p, f, flow.owner, EVENT_OPENED, flow.flags, four);
	f->flow = look_up(&f->key, p->protocol, four);
	return CARRIED;
full:
	d->stateless = now_ticks();
	if (d->kind == BY_TURN || t->aliased)
		return FLOOD;
	return CARRIED;
}

#endif
