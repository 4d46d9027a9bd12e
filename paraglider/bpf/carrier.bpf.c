// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The BPF carrier of "forward: nat", "dsr" and "tunnel": carries the packets of flows that a worker
 * has decided, and decides itself where a worker has given it a table (decide.h).
 *
 * Runs at tc ingress (tcx, Linux 6.6) of Ethernet-like devices, and for "carrier: xdp" also at XDP of
 * those whose driver has it (xdp.h). A packet of an installed flow that needs no judgement is
 * redirected: for nat translated, for dsr with its TTL decremented, for tunnel in an outer header
 * besides. Every other packet is left unchanged and counted by its reason; TC_ACT_UNSPEC leaves it to
 * other classifiers and then to the worker. A packet is changed only after all checks have passed.
 *
 * A flow has one entry. Its key has addresses and ports as the client sends them. The key of a reply
 * is derived: the backend's address and port determine the VIP (map origins). If they do not, an
 * ALIAS entry with the reply's own key has the translation.
 *
 * Only UAPI headers and libbpf's helpers are used, no CO-RE, so an object built on one machine loads
 * on every kernel. Functions return the reason for leaving a packet to the worker, else CARRIED.
 */
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "access.h"
#include "clients.h"
#include "decide.h"
#include "flows.h"
#include "layout.h"
#include "one_sided.h"
#include "parse.h"
#include "route.h"
#include "translate.h"
#include "tunnel.h"
#include "xdp.h"

#define FIRST_ACK (1U << 20) /* bytes a backend may send before it is acknowledged */
#define FINS (FIN_OUT | FIN_BACK)

/* Checks a TCP packet against its flow's state; sets the flags that the packet adds to the flow. */
static __always_inline enum reason check_state(const struct packet *p, struct found *f,
					       const bool four, const bool xdp)
{
	__u32 flags = f->flow->flags;

	if (p->protocol != IPPROTO_TCP)
		return CARRIED;
	if (flags & DIRECT)
		return check_one_sided(p, f, four, xdp);
	if (p->tcp_flags & TH_RST)
		return RST;
	if (!(p->tcp_flags & TH_ACK)) /* a SYN: carried if it repeats one that the program decided */
		return f->back || (flags & ~REPLIED) != DECIDED ? SYN : CARRIED;
	if (p->tcp_flags & TH_SYN) { /* with ACK: the backend's answer to a client's SYN */
		if (!f->back || flags & ESTABLISHED)
			return FLAGS;
		f->sets = REPLIED;
		return CARRIED;
	}
	if (!(flags & ESTABLISHED)) {
		/* Only a client that received the backend's SYN+ACK knows this number. */
		if (f->back || !(flags & REPLIED) || p->ack - f->flow->ack > FIRST_ACK)
			return OPENING;
		f->sets = ESTABLISHED;
	}
	if (p->tcp_flags & TH_FIN)
		f->sets |= f->back ? FIN_BACK : FIN_OUT;
	return CARRIED;
}

/* Finds the next hop of the packet as it leaves, and whether its route's MTU is large enough. A
 * backend of dsr must be the next hop itself: a router would send a packet for the VIP back here.
 */
static __always_inline enum reason find_route(void *frame, const struct packet *p,
					      const struct found *f, __be16 port,
					      struct bpf_fib_lookup *route, const bool four,
					      const bool xdp)
{
	enum reason refused;

	route->l4_protocol = p->protocol;
	route->sport = f->back ? port : p->ends.source_port;
	route->dport = f->back ? p->ends.destination_port : port;
	copy(route->ipv6_src, f->back ? f->translation->vip : p->ends.source, four);
	copy(route->ipv6_dst, f->back ? p->ends.destination : f->translation->backend, four);
	if (four)
		route->tos = p->class;
	else
		route->flowinfo = p->class;
	route->tot_len = p->leaves;
	refused = look_up_route(frame, route, xdp ? 0 : BPF_FIB_LOOKUP_SKIP_NEIGH);
	if (!refused && f->translation->method == DSR &&
	    !equal(route->ipv6_dst, f->translation->backend, four))
		return NO_ROUTE;
	return refused;
}

/* Updates the flow's state, and sends an event to its worker when it is established or closed. */
static __always_inline void update_state(const struct packet *p, struct found *f,
					 const bool four)
{
	__u32 before, after;

	if (f->sets & REPLIED)
		f->flow->ack = p->sequence + 1;
	/* Atomically: the two FINs may pass on two CPUs, and one of them must close the flow. */
	before = __sync_fetch_and_or(&f->flow->flags, f->sets);
	after = before | f->sets;
	if (after & ~before & ESTABLISHED)
		send(p, f, f->flow->owner, EVENT_ESTABLISHED, after, four);
	if ((after & FINS) == FINS && (before & FINS) != FINS) {
		__sync_fetch_and_or(&f->flow->flags, CLOSED);
		send(p, f, f->flow->owner, EVENT_CLOSED, after | CLOSED, four);
	}
}

/* Keeps the client's next sequence number, by which the worker recognizes a forged RST. */
static __always_inline void track_number(const struct packet *p, const struct found *f)
{
	__u32 flags = f->flow->flags;

	if (p->protocol != IPPROTO_TCP || !(flags & ESTABLISHED))
		return;
	if (f->back)
		f->flow->ack = p->ack;
	else if (f->sets & ESTABLISHED)
		f->flow->ack = p->sequence;
}

/* Counts the packet for its flow and its translation; a GSO packet counts as its segments. */
static __always_inline void account(void *frame, const struct packet *p, const struct found *f,
				    const bool xdp)
{
	__u32 now = now_ticks(), packets = packets_of(frame, xdp), bytes = p->bytes;
	struct traffic *traffic_of = bpf_map_lookup_elem(&traffic, &f->index);

	if (packets > 1)
		bytes += (packets - 1) * (p->leaves - segment_of(frame, xdp));
	if (f->flow) {
		if (f->flow->seen != now) /* else the cache line stays shared */
			f->flow->seen = now;
		if (f->back)
			f->flow->packets_back += packets;
		else
			f->flow->packets_out += packets;
	}
	if (!traffic_of)
		return;
	if (f->back) {
		traffic_of->packets_back += packets;
		traffic_of->bytes_back += bytes;
	} else {
		traffic_of->packets_out += packets;
		traffic_of->bytes_out += bytes;
	}
}

/* Leaves a packet to what comes next. The program at tc counts the reason of each packet once. */
static __always_inline int pass(enum reason why, const bool xdp)
{
	if (!xdp || why >= XDP)
		count(why);
	return xdp ? XDP_PASS : TC_ACT_UNSPEC;
}

static __always_inline int carry_family(void *frame, const bool four, const bool xdp)
{
	struct packet p = {};
	struct found f = {};
	__be16 port;
	int refused;

	refused = parse(frame, &p, four, xdp);
	if (!refused)
		refused = check_flags(&p);
	if (!refused)
		refused = decide_first(&p, &f, four, xdp);
	if (refused == NO_FLOW) {
		refused = find(&p, &f, four);
		if (!xdp && is_used_again(&p, &f)) {
			f.replaces = 1;
			f.flow = NULL;
			refused = NO_FLOW;
		}
		if (refused == NO_FLOW && !f.flow) {
			refused = xdp ? decide_by_hash(&p, &f, NO_ENTRIES, four, true)
				      : decide(&p, &f, four);
			if (!refused && f.replaces && !f.opens)
				refused = SYN; /* without an entry of its own it would meet the closed one */
		} else if (!refused) {
			refused = check_state(&p, &f, four, xdp);
			if (!refused && must_pass_nft(&p, &f, four, xdp))
				refused = UNKNOWN_CLIENT;
		}
	}
	if (refused)
		return pass(refused, xdp);
	if (xdp && f.translation->method == TUNNEL) /* outer headers are written by helpers for tc */
		return XDP_PASS;
	f.sets = forget(f.sets);
	f.opens = forget(f.opens);
	f.replaces = forget(f.replaces);
	port = f.key.destination_port;
	if (!f.back && f.translation->backend_port)
		port = f.translation->backend_port;
	struct bpf_fib_lookup route = { .family = four ? AF_INET : AF_INET6 };

	route.ifindex = interface_of(frame, xdp);
	if (!xdp && f.translation->method == TUNNEL)
		refused = four ? find_outer_route4(frame, &p, f.index, &route)
			       : find_outer_route6(frame, &p, f.index, &route);
	else
		refused = find_route(frame, &p, &f, port, &route, four, xdp);
	if (xdp && !refused)
		refused = check_exit(frame, &p, &f, &route, four);
	if (!xdp && !refused && f.opens)
		refused = open_flow(&p, &f, four);
	if (!xdp && !refused && f.translation->method == TUNNEL)
		refused = four ? encapsulate4(frame, &p, f.index, &route)
			       : encapsulate6(frame, &p, f.index, &route);
	else if (!refused && f.translation->method == DSR)
		refused = translate(frame, &p, false, NULL, 0, four, xdp);
	else if (!refused)
		refused = translate(frame, &p, f.back,
				    f.back ? f.translation->vip : f.translation->backend, port, four,
				    xdp);
	if (refused)
		/* No error is possible: the headers are in the linear part and writable. */
		return refused < 0 ? TC_ACT_SHOT : pass(refused, xdp);
	if (f.flow && f.one_sided) {
		update_one_sided(&p, &f, four);
	} else if (f.flow) {
		if (f.sets)
			update_state(&p, &f, four);
		track_number(&p, &f);
	}
	account(frame, &p, &f, xdp);
	if (xdp) {
		count(XDP);
		return send_frame(frame, &route);
	}
	count(!f.decision ? CARRIED : f.flow ? OPENED : STATELESS);
	struct bpf_redir_neigh next_hop = { .nh_family = route.family };

	/* The kernel resolves the next hop. A MAC address of the FIB's would never be refreshed. */
	copy(next_hop.ipv6_nh, route.ipv6_dst, false); /* of IPv4 the first word counts */
	return bpf_redirect_neigh(route.ifindex, &next_hop, sizeof next_hop, 0);
}

SEC("tc")
int carry(struct __sk_buff *skb)
{
	__be16 type = skb->protocol;

	if (skb->vlan_present || type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD))
		return pass(VLAN, false);
	if (type != bpf_htons(ETH_P_IP) && type != bpf_htons(ETH_P_IPV6))
		return pass(NOT_IP, false);
	if (skb->pkt_type != PACKET_HOST)
		return pass(OTHER_HOST, false);
	return type == bpf_htons(ETH_P_IP) ? carry_family(skb, true, false)
					   : carry_family(skb, false, false);
}

/* What it leaves continues to `carry` on the same interface. */
SEC("xdp")
int carry_early(struct xdp_md *frame)
{
	__be16 type = type_for_host(frame);

	if (type == bpf_htons(ETH_P_IP))
		return carry_family(frame, true, true);
	return type == bpf_htons(ETH_P_IPV6) ? carry_family(frame, false, true) : XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
