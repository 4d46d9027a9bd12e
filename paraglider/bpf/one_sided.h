/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The states of TCP flows whose replies do not pass here (DIRECT), by the client's segments, as
 * core/tcp_events.py and core/flow_states.py (ONE_SIDED) have them:
 *
 *   0         SYN_SENT      its SYN has passed
 *   REPLIED   UNCONFIRMED   it sent an ACK; GROWN: its numbers have grown once since
 *   ESTABLISHED             they have grown twice
 *   FIN_OUT   CLIENT_DONE   its FIN has passed
 *   CLOSED    TIME_WAIT     it has acknowledged the backend's FIN
 *
 * A forger that sees none of the backend's packets needs four packets for what a client does with
 * one connection, so these states prove less than a reply does; there is no better evidence here.
 * The worker judges RST, a SYN in a flow, and a FIN with an implausible number.
 * `four` is a constant of the caller's, so that each family has code of its own.
 */
#ifndef PARAGLIDER_ONE_SIDED_H
#define PARAGLIDER_ONE_SIDED_H

#include <linux/bpf.h>

#include "clients.h"
#include "flows.h"
#include "layout.h"
#include "parse.h"

#define UNSEEN_WINDOW (1U << 24) /* bytes that may have passed by a worker (core/flow_states.py) */
#define HALF (1U << 31)

/* Checks the client's segment; sets what `update_one_sided` writes. */
static __always_inline enum reason check_one_sided(const struct packet *p, struct found *f,
						   const bool four, const bool xdp)
{
	__u32 flags = f->flow->flags, known = f->flow->ack, grown;

	if (p->tcp_flags & TH_RST)
		return RST;
	if (!(p->tcp_flags & TH_ACK))
		return SYN;
	if (p->tcp_flags & TH_SYN)
		return FLAGS;
	f->one_sided = 1;
	f->near = !known || p->sequence - known + UNSEEN_WINDOW < 2 * UNSEEN_WINDOW;
	f->progress = f->flow->packets_back;
	if (p->tcp_flags & TH_FIN) {
		if (!f->near)
			return FLAGS;
		/* nft learns clients by the ends of flows whose SYN it has seen (forward/openings.py). */
		if (!(flags & DECIDED) && learn_client(p, four, xdp))
			return UNKNOWN_CLIENT;
		f->progress = p->ack;
		f->sets = FIN_OUT;
	} else if (flags & FIN_OUT) {
		if (p->ack - f->progress == 1)
			f->sets = CLOSED;
	} else if (!(flags & (REPLIED | ESTABLISHED))) {
		f->progress = p->sequence + p->ack;
		f->sets = REPLIED;
	} else if (!(flags & ESTABLISHED)) {
		grown = p->sequence + p->ack - f->progress;
		if (grown && grown < HALF) {
			f->progress += grown;
			f->sets = flags & GROWN ? ESTABLISHED : GROWN;
		}
	}
	return CARRIED;
}

/* Updates the flow's state and numbers by the client's segment, and sends an event to its worker when
 * it is established, half-closed or closed.
 */
static __always_inline void update_one_sided(const struct packet *p, struct found *f,
					     const bool four)
{
	__u32 before, after, new;

	if (f->near)
		f->flow->ack = p->sequence; /* within the window: a forged segment does not move it */
	f->flow->packets_back = f->progress;
	if (!f->sets)
		return;
	before = __sync_fetch_and_or(&f->flow->flags, f->sets);
	after = before | f->sets;
	new = after & ~before;
	if (new & ESTABLISHED)
		send(p, f, f->flow->owner, EVENT_ESTABLISHED, after, four);
	if (new & FIN_OUT)
		send(p, f, f->flow->owner, EVENT_FIN, after, four);
	if (new & CLOSED)
		send(p, f, f->flow->owner, EVENT_CLOSED, after, four);
	if (after & DECIDED && new & (ESTABLISHED | FIN_OUT) && after & (GROWN | ESTABLISHED))
		learn_client(p, four, false);
}

#endif
