/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Finds the flow of a packet, and sends events of flows to their workers.
 * `four` is a constant of the caller's, so that each family has code of its own.
 */
#ifndef PARAGLIDER_FLOWS_H
#define PARAGLIDER_FLOWS_H

#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#include "layout.h"
#include "parse.h"

/* The flow of a packet, and what the packet does to it. */
struct found {
	struct flow *flow;
	struct translation *translation;
	struct key6 key;
	__u32 index; /* of the translation */
	__u32 origin; /* translation of the source address and port (map origins), 0 for none */
	__u32 sets;  /* flags that the packet sets */
	__u32 back;  /* 1: from the backend; no bool, whose range the verifier does not track */
	__u32 opens; /* 1: the packet inserts the entry of its flow */
	__u32 replaces; /* 1: in the place of a closed flow's entry */
	__u32 near, progress; /* of a one-sided flow: see one_sided.h */
	__u32 one_sided; /* 1: it is the client's segment in such a flow */
	struct decision *decision; /* by which the packet was decided */
	struct steering *steering; /* of the family */
};

/* The same number, but unknown to the verifier, to which paths that differ in it are one from here on.
 * It does not keep what is written to the second half of a stack slot, unless that is 0
 * (kernel/bpf/verifier.c, check_stack_write_fixed_off).
 */
static __always_inline __u32 forget(__u32 number)
{
	struct {
		__u32 unused;
		volatile __u32 number;
	} __attribute__((aligned(8))) slot;

	slot.number = ~number;
	return ~slot.number;
}

static __always_inline void count(__u32 reason)
{
	__u64 *counter = bpf_map_lookup_elem(&reasons, &reason);

	if (counter)
		*counter += 1;
}

static __always_inline __u32 now_ticks(void)
{
	return bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
}

static __always_inline struct key4 short_key(const struct key6 *key)
{
	return (struct key4){ key->source[0], key->destination[0], key->source_port,
			      key->destination_port };
}

static __always_inline long insert(const struct key6 *key, __u8 protocol, const struct flow *flow,
				   const bool four)
{
	if (four) {
		struct key4 key4 = short_key(key);

		return protocol == IPPROTO_TCP
			       ? bpf_map_update_elem(&tcp4, &key4, flow, BPF_NOEXIST)
			       : bpf_map_update_elem(&udp4, &key4, flow, BPF_NOEXIST);
	}
	return protocol == IPPROTO_TCP ? bpf_map_update_elem(&tcp6, key, flow, BPF_NOEXIST)
				       : bpf_map_update_elem(&udp6, key, flow, BPF_NOEXIST);
}

/* Replaces the entry of a TCP flow in one step; an error if there is none. */
static __always_inline long replace(const struct key6 *key, const struct flow *flow,
				    const bool four)
{
	if (four) {
		struct key4 key4 = short_key(key);

		return bpf_map_update_elem(&tcp4, &key4, flow, BPF_EXIST);
	}
	return bpf_map_update_elem(&tcp6, key, flow, BPF_EXIST);
}

static __always_inline void remove(const struct key6 *key, __u8 protocol, const bool four)
{
	if (four) {
		struct key4 key4 = short_key(key);

		protocol == IPPROTO_TCP ? bpf_map_delete_elem(&tcp4, &key4)
					: bpf_map_delete_elem(&udp4, &key4);
		return;
	}
	protocol == IPPROTO_TCP ? bpf_map_delete_elem(&tcp6, key) : bpf_map_delete_elem(&udp6, key);
}

static __always_inline struct flow *look_up(const struct key6 *key, __u8 protocol, const bool four)
{
	if (four) {
		struct key4 key4 = short_key(key);

		return protocol == IPPROTO_TCP ? bpf_map_lookup_elem(&tcp4, &key4)
					       : bpf_map_lookup_elem(&udp4, &key4);
	}
	return protocol == IPPROTO_TCP ? bpf_map_lookup_elem(&tcp6, key)
				       : bpf_map_lookup_elem(&udp6, key);
}

/* Sets the flow's key of a reply with the key `ends` that `t` translates. */
static __always_inline void reply_key(const struct key6 *ends, const struct translation *t,
				      struct key6 *key, const bool four)
{
	copy(key->source, ends->destination, four);
	copy(key->destination, t->vip, four);
	key->source_port = ends->destination_port;
	key->destination_port = t->vip_port ? t->vip_port : ends->source_port;
}

/* The flow of a reply with the key `ends` that the translation with `index` translates; sets the
 * flow's key.
 */
static __always_inline struct flow *look_up_reply(const struct key6 *ends, __u8 protocol,
						  __u32 index, struct key6 *key, const bool four)
{
	struct translation *t = bpf_map_lookup_elem(&translations, &index);
	struct flow *flow;

	if (!t || t->family != (four ? 4 : 6))
		return NULL;
	reply_key(ends, t, key, four);
	flow = look_up(key, protocol, four);
	return flow && !(flow->flags & ALIAS) ? flow : NULL;
}

/* Sets the flow of a packet of a client (a backend may be one), or of a reply with an alias. */
static __always_inline void find_by_key(const struct packet *p, struct found *f, const bool four)
{
	f->key = p->ends;
	f->back = false;
	f->flow = look_up(&f->key, p->protocol, four);
	if (f->flow && f->flow->flags & ALIAS) {
		f->flow = look_up_reply(&p->ends, p->protocol, f->flow->translation, &f->key, four);
		f->back = f->flow != NULL; /* else the alias is of a flow that has ended */
	}
}

/* The translation of replies with the key `ends` by the backend that sends them, 0 for none. */
static __always_inline __u32 origin_of(const struct key6 *ends, __u8 protocol, const bool four)
{
	struct origin from = { .port = ends->source_port,
			       .protocol = protocol,
			       .family = four ? 4 : 6 };
	__u32 *index;

	copy(from.address, ends->source, four);
	index = bpf_map_lookup_elem(&origins, &from);
	return index ? *index : 0;
}

/* Sets the flow of a reply, by the backend that sends it. */
static __always_inline void find_by_origin(const struct packet *p, struct found *f, const bool four)
{
	if (is_opening(p)) /* no reply */
		return;
	f->origin = origin_of(&p->ends, p->protocol, four);
	if (!f->origin)
		return;
	f->flow = look_up_reply(&p->ends, p->protocol, f->origin, &f->key, four);
	f->back = f->flow != NULL;
}

/* Another translation of TCP replies with the key `ends` than `index`: that of their alias, or of the
 * backend that sends them; 0 for none.
 */
static __always_inline int other_translation(const struct key6 *ends, __u32 index, const bool four)
{
	struct flow *alias;
	__u32 origin;

	if (!ends)
		return 0;
	alias = look_up(ends, IPPROTO_TCP, four);
	if (alias && alias->flags & ALIAS && alias->translation != index)
		return alias->translation;
	origin = origin_of(ends, IPPROTO_TCP, four);
	return origin != index ? origin : 0;
}

/* Global functions, as send_event. */

__noinline int other_translation4(const struct key6 *ends, __u32 index)
{
	return other_translation(ends, index, true);
}

__noinline int other_translation6(const struct key6 *ends, __u32 index)
{
	return other_translation(ends, index, false);
}

/* Where the flow of a reply is closed, another one may have the reply: a connection of another service
 * with the backend's port, since to the backend both are one. It is that one's if that is open, or was
 * when the closed one was found before.
 */
static __always_inline void prefer_open(const struct packet *p, struct found *f, const bool four)
{
	struct key6 key = {};
	struct translation *t;
	struct flow *other;
	__u32 index = f->flow->translation;

	index = four ? other_translation4(&p->ends, index) : other_translation6(&p->ends, index);
	if (!index)
		return;
	other = look_up_reply(&p->ends, IPPROTO_TCP, index, &key, four);
	if (!other || (other->flags & CLOSED && !(f->flow->flags & SUPERSEDED)))
		return;
	index = other->translation; /* of another backend, perhaps, which did not send this */
	t = bpf_map_lookup_elem(&translations, &index);
	if (!t || !equal(t->backend, p->ends.source, four))
		return;
	if (!(f->flow->flags & SUPERSEDED))
		__sync_fetch_and_or(&f->flow->flags, SUPERSEDED);
	f->flow = other;
	f->key = key;
}

/* Finds the flow, its translation and the direction. Each look-up costs about a tenth of all, so the
 * ports say which is first: those of services are the lower ones, as a rule.
 */
static __always_inline enum reason find(const struct packet *p, struct found *f, const bool four)
{
	bool by_key = bpf_ntohs(p->ends.source_port) > bpf_ntohs(p->ends.destination_port);
	struct translation *t;

	if (by_key)
		find_by_key(p, f, four);
	if (!f->flow)
		find_by_origin(p, f, four);
	if (!f->flow && !by_key)
		find_by_key(p, f, four);
	if (!f->flow)
		return NO_FLOW;
	if (f->back && f->flow->flags & CLOSED)
		prefer_open(p, f, four);
	f->index = f->flow->translation;
	t = f->translation = bpf_map_lookup_elem(&translations, &f->index);
	if (!t || t->family != (four ? 4 : 6))
		return NO_FLOW;
	/* Another backend of the VIP may not send in this flow. */
	if (f->back && (!equal(t->backend, p->ends.source, four) ||
			(t->backend_port ? t->backend_port : f->key.destination_port) !=
				p->ends.source_port ||
			f->flow->flags & DIRECT))
		return NO_FLOW;
	if (t->state != UP && !(t->state == LOST_DATAGRAMS && p->protocol == IPPROTO_TCP))
		return LOST;
	return p->ttl > 1 ? CARRIED : TTL;
}

/* An event as `send_event` takes it. */
static __always_inline __u32 event_head(__u8 kind, const bool four, __u8 protocol, __u8 flags)
{
	return kind | (four ? 4 : 6) << 8 | protocol << 16 | (__u32)flags << 24;
}

/* Sends an event about the flow with `key` to the worker `owner`; `head` is its first bytes. A global
 * function, which the verifier checks once, and not for each path that leads to it.
 */
__noinline int send_event(struct key6 *key, __u32 translation, __u32 owner, __u32 head)
{
	struct event event = { .kind = head,
			       .family = head >> 8,
			       .protocol = head >> 16,
			       .flags = head >> 24,
			       .translation = translation };
	void *ring = bpf_map_lookup_elem(&rings, &owner);

	if (!key)
		return 0;
	if (event.family == 4)
		event.key4 = short_key(key);
	else
		event.key6 = *key;
	if (!ring || bpf_ringbuf_output(ring, &event, sizeof event, BPF_RB_NO_WAKEUP))
		count(EVENTS_LOST);
	return 0;
}

/* Sends an event about the flow to its worker, which reads it at its next tick. */
static __always_inline void send(const struct packet *p, struct found *f, __u32 owner, __u8 kind,
				 __u8 flags, const bool four)
{
	send_event(&f->key, f->index, owner, event_head(kind, four, p->protocol, flags));
}

#endif
