/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What only the program at XDP does: it checks whether a frame is for this host, and whether it can
 * leave from here; it writes the MAC addresses, and redirects.
 *
 * The program at XDP is a fast path in front of the one at tc, with the same maps. It carries packets
 * of flows that have an entry, and what dsr decides by its hash. Every other packet passes on, so the
 * program at tc opens flows, counts reasons, and has the kernel resolve next hops. Before a packet
 * passes on, nothing has been written that would change what tc does with it.
 */
#ifndef PARAGLIDER_XDP_H
#define PARAGLIDER_XDP_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "access.h"
#include "flows.h"
#include "layout.h"
#include "parse.h"

#define NEXT_HOPS 4096
#define REFRESH_TICKS (1000000000ULL >> TICK_SHIFT) /* almost a second */

/* The tick in which a packet to a next hop was last left to tc. A map of this program alone: user
 * space does not read it. Without room, more packets pass tc.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NEXT_HOPS);
	__type(key, struct next_hop);
	__type(value, __u32);
} next_hops SEC(".maps");

/* The Ethernet type of a frame for this host's MAC address; 0 for others. A tagged frame has the type
 * of its tag: the driver must not take tags out (host/xdp_links.py).
 */
static __always_inline __be16 type_for_host(struct xdp_md *frame)
{
	struct ethhdr *head = data_of(frame, true);
	__u32 interface = frame->ingress_ifindex;
	const __u16 *to, *own;
	struct device *device;

	if ((void *)(head + 1) > end_of(frame, true))
		return 0;
	device = bpf_map_lookup_elem(&devices, &interface);
	if (!device)
		return 0;
	to = (const __u16 *)head->h_dest;
	own = (const __u16 *)device->mac;
	return (to[0] ^ own[0]) | (to[1] ^ own[1]) | (to[2] ^ own[2]) ? 0 : head->h_proto;
}

/* Whether the sender has left the checksum to a device (CHECKSUM_PARTIAL), as over veth and virtio:
 * then it is the sum of the pseudo header. So is one in 65,536 complete ones, which tc carries.
 */
static __always_inline bool is_unfinished(const struct packet *p, __be16 check, const bool four)
{
	__u32 size = p->bytes - ip_header(four), sum = (__u16)~check;
	const __be32 *source = p->ends.source, *destination = p->ends.destination;

#pragma unroll
	for (int word = 0; word < 4; word++) {
		if (four && word)
			break;
		sum += (__u16)source[word] + (source[word] >> 16);
		sum += (__u16)destination[word] + (destination[word] >> 16);
	}
	sum += bpf_htons(p->protocol) + bpf_htons(size);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* Whether a packet to this next hop is due to pass tc: a MAC address from the FIB is used without end,
 * while a packet that the kernel sends has it check the neighbour when its entry is old.
 */
static __always_inline bool must_refresh(const struct bpf_fib_lookup *route, const bool four)
{
	struct next_hop hop = { .link = route->ifindex * 2 + !four };
	__u32 now = now_ticks(), *last;

	copy(hop.address, route->ipv6_dst, four);
	last = bpf_map_lookup_elem(&next_hops, &hop);
	if (last && now - *last < REFRESH_TICKS)
		return false;
	if (last)
		*last = now;
	else
		bpf_map_update_elem(&next_hops, &hop, &now, BPF_ANY);
	return true;
}

/* Checks whether the packet can leave from XDP. */
static __always_inline enum reason check_exit(struct xdp_md *frame, const struct packet *p,
					      const struct found *f,
					      const struct bpf_fib_lookup *route, const bool four)
{
	void *at = data_of(frame, true) + ETH_HLEN + ip_header(four), *end = end_of(frame, true);
	struct tcphdr *tcp = at;
	struct udphdr *udp = at;
	struct device *device;
	__be16 check;

	if (p->protocol == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > end)
			return SHORT;
		check = tcp->check;
	} else {
		if ((void *)(udp + 1) > end)
			return SHORT;
		check = udp->check;
	}
	if ((p->protocol == IPPROTO_TCP || check) && is_unfinished(p, check, four))
		return UNFINISHED;
	device = bpf_map_lookup_elem(&devices, &route->ifindex);
	if (!device || !device->sends)
		return NO_XMIT;
	return must_refresh(route, four) ? NEIGHBOUR : CARRIED;
}

/* Writes the MAC addresses of `route`, and sends the frame. */
static __always_inline int send_frame(struct xdp_md *frame, const struct bpf_fib_lookup *route)
{
	struct ethhdr *head = data_of(frame, true);

	if ((void *)(head + 1) > end_of(frame, true))
		return XDP_DROP;
	__builtin_memcpy(head->h_dest, route->dmac, ETH_ALEN);
	__builtin_memcpy(head->h_source, route->smac, ETH_ALEN);
	return bpf_redirect(route->ifindex, 0);
}

#endif
