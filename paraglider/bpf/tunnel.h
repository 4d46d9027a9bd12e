/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Puts the outer header of "forward: tunnel" before a client's packet: IP, and UDP and GUE with it.
 * The bytes are those of core/encapsulation.py, and a test compares the two.
 * `four` is a constant of the caller's, so that each family has code of its own.
 */
#ifndef PARAGLIDER_TUNNEL_H
#define PARAGLIDER_TUNNEL_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flows.h"
#include "gue.h"
#include "layout.h"
#include "parse.h"
#include "route.h"
#include "siphash.h"
#include "translate.h"

#define OUTER_TTL 64
#define DONT_FRAGMENT 0x4000
#define FIRST_PORT 0xc000 /* the dynamic ports (RFC 6335) */
#define FLOW_LABEL 0xfffff

/* What follows the outer IP header. */
struct udp_gue {
	struct udphdr udp;
	struct gue gue;
};

struct outer4 {
	struct iphdr ip;
	struct udp_gue more;
};

struct outer6 {
	struct ipv6hdr ip;
	struct udp_gue more;
};

/* By how many bytes packets of the tunnel `t` become longer. */
static __always_inline __u32 overhead(const struct translation *t, const bool four)
{
	return ip_header(four) + (t->backend_port ? sizeof(struct udp_gue) : 0);
}

/* A hash of the packet's flow, by which routers spread flows over equal paths. */
static __always_inline __u32 flow_hash(const struct packet *p, const bool four)
{
	const __u64 no_key[2] = {};

	if (four) {
		struct key4 key4 = short_key(&p->ends);

		return siphash13(no_key, (__be32 *)&key4, sizeof key4 / 4);
	}
	return siphash13(no_key, (__be32 *)&p->ends, sizeof p->ends / 4);
}

static __always_inline __be16 gue_port(__u32 hash)
{
	return bpf_htons(FIRST_PORT | (hash & 0x3fff));
}

/* The protocol of the packet inside the outer one. */
static __always_inline __u8 inner_protocol(const bool four)
{
	return four ? IPPROTO_IPIP : IPPROTO_IPV6;
}

/* Version, traffic class of the packet inside, and a flow label: 0 would mean none. */
static __always_inline __be32 first_word6(const struct packet *p)
{
	__u32 label = p->hash & FLOW_LABEL;

	return bpf_htonl(0x60000000 | (label ? label : 1)) | (p->class & bpf_htonl(0x0ff00000));
}

/* Sets what the route of the outer packet depends on; its source address comes from the route. */
static __always_inline void outer_route(struct packet *p, const struct translation *t,
					struct bpf_fib_lookup *route, const bool four)
{
	p->hash = flow_hash(p, four);
	route->l4_protocol = t->backend_port ? IPPROTO_UDP : inner_protocol(four);
	route->sport = t->backend_port ? gue_port(p->hash) : 0;
	route->dport = t->backend_port;
	copy(route->ipv6_dst, t->backend, four);
	if (four)
		route->tos = p->class;
	else
		route->flowinfo = first_word6(p) & bpf_htonl(FLOWINFO);
}

static __always_inline void write_gue(struct udp_gue *head, const struct translation *t,
				      __u32 hash, __u32 length, const bool four)
{
	*head = (struct udp_gue){ .udp = { .source = gue_port(hash),
					   .dest = t->backend_port,
					   .len = bpf_htons(length) },
				  .gue = { .protocol = inner_protocol(four) } };
}

static __always_inline __u16 checksum_of(const struct iphdr *ip)
{
	const __u32 *word = (const __u32 *)ip;
	__u64 sum = (__u64)word[0] + word[1] + word[2] + word[3] + word[4];

	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

/* The room for the outer header is zeros, which the device's sum of the packet has no need of. */
static __always_inline long write_outer4(struct __sk_buff *skb, const struct packet *p,
					 const struct translation *t, __be32 source)
{
	__u32 length = p->bytes + overhead(t, true);
	struct outer4 outer = { .ip = { .version = 4,
					.ihl = sizeof(struct iphdr) / 4,
					.tos = p->class,
					.tot_len = bpf_htons(length),
					.frag_off = bpf_htons(DONT_FRAGMENT),
					.ttl = OUTER_TTL,
					.protocol = t->backend_port ? IPPROTO_UDP : IPPROTO_IPIP,
					.saddr = source,
					.daddr = t->backend[0] } };

	outer.ip.check = checksum_of(&outer.ip);
	if (!t->backend_port)
		return bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof outer.ip,
					   BPF_F_RECOMPUTE_CSUM);
	write_gue(&outer.more, t, p->hash, length - sizeof outer.ip, true);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof outer, BPF_F_RECOMPUTE_CSUM);
}

static __always_inline long write_outer6(struct __sk_buff *skb, const struct packet *p,
					 const struct translation *t, const __be32 *source)
{
	__u32 length = p->bytes + overhead(t, false) - sizeof(struct ipv6hdr);
	struct outer6 outer = { .ip = { .payload_len = bpf_htons(length),
					.nexthdr = t->backend_port ? IPPROTO_UDP : IPPROTO_IPV6,
					.hop_limit = OUTER_TTL } };

	*(__be32 *)&outer.ip = first_word6(p);
	copy(outer.ip.saddr.in6_u.u6_addr32, source, false);
	copy(outer.ip.daddr.in6_u.u6_addr32, t->backend, false);
	if (!t->backend_port)
		return bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof outer.ip,
					   BPF_F_RECOMPUTE_CSUM);
	write_gue(&outer.more, t, p->hash, length, false);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof outer, BPF_F_RECOMPUTE_CSUM);
}

/* Finds the route of the packet with the outer header of the translation with `index`. */
static __always_inline int find_outer_route(struct __sk_buff *skb, struct packet *p, __u32 index,
					    struct bpf_fib_lookup *route, const bool four)
{
	struct translation *t = bpf_map_lookup_elem(&translations, &index);
	__u32 more;

	if (!t || !p || !route)
		return NO_ROUTE;
	more = overhead(t, four);
	if (p->bytes + more > 0xffff || p->leaves + more > 0xffff)
		return TOO_BIG;
	outer_route(p, t, route, four);
	route->tot_len = p->leaves + more;
	return look_up_route(skb, route, BPF_FIB_LOOKUP_SKIP_NEIGH | BPF_FIB_LOOKUP_SRC);
}

/* Decrements the packet's TTL, and puts the outer header before it, with the source address that
 * `route` has. A GSO packet stays one whose segments get the outer header each: they were found to
 * fit. Returns CARRIED or a reason; or a negative error, after which the packet is damaged.
 */
static __always_inline int encapsulate(struct __sk_buff *skb, const struct packet *p, __u32 index,
				       const struct bpf_fib_lookup *route, const bool four)
{
	struct translation *t = bpf_map_lookup_elem(&translations, &index);
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO |
		      (four ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6);
	void *inner, *end;
	__u32 more;

	if (!t || !p || !route)
		return NO_ROUTE;
	more = overhead(t, four);
	if (t->backend_port)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	if (bpf_skb_adjust_room(skb, more, BPF_ADJ_ROOM_MAC, flags))
		return NO_HEADROOM;
	inner = (void *)(long)skb->data + ETH_HLEN + more;
	end = (void *)(long)skb->data_end;
	if (inner + ip_header(four) > end)
		return -EINVAL;
	write_ip(inner, false, NULL, four);
	count_hop(skb, four, false);
	return four ? write_outer4(skb, p, t, route->ipv4_src)
		    : write_outer6(skb, p, t, route->ipv6_src);
}

/* Global functions, which the verifier checks once, and not for each path that leads to them. */

__noinline int find_outer_route4(struct __sk_buff *skb, struct packet *p, __u32 index,
				 struct bpf_fib_lookup *route)
{
	return find_outer_route(skb, p, index, route, true);
}

__noinline int find_outer_route6(struct __sk_buff *skb, struct packet *p, __u32 index,
				 struct bpf_fib_lookup *route)
{
	return find_outer_route(skb, p, index, route, false);
}

__noinline int encapsulate4(struct __sk_buff *skb, struct packet *p, __u32 index,
			    struct bpf_fib_lookup *route)
{
	return encapsulate(skb, p, index, route, true);
}

__noinline int encapsulate6(struct __sk_buff *skb, struct packet *p, __u32 index,
			    struct bpf_fib_lookup *route)
{
	return encapsulate(skb, p, index, route, false);
}

#endif
