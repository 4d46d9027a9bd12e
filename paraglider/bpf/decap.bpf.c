// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Removes the outer header of "forward: tunnel", on the host of a backend.
 *
 * Runs at tc ingress (tcx, Linux 6.6) of the interface with the backend's address. A packet to that
 * address with a VIP inside (map ends) continues as the packet inside. Every other packet continues
 * unchanged; TC_ACT_UNSPEC leaves both to other classifiers. Outer fragments are not reassembled,
 * since the balancer sends none.
 *
 * The formats are those of core/encapsulation.py. ECN is that of RFC 6040 section 4.2.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gue.h"

#define FRAGMENTED 0x3fff /* IP_MF and the offset */
#define CE 3

/* A tunnel. IPv4 addresses are in the first word. The UDP port is that of GUE, 0 for IP in IP. */
struct end {
	__be32 backend[4];
	__be32 vip[4];
	__be16 port;
	__u16 family;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct end);
	__type(value, __u32);
} ends SEC(".maps");

/* The bytes of the headers between outer and inner IP header, the first of which is `protocol`; -1
 * if they are not a tunnel's.
 */
static __always_inline int extra_headers(struct __sk_buff *skb, __u32 at, __u8 protocol, __u8 inner,
				  struct end *end)
{
	struct {
		struct udphdr udp;
		struct gue gue;
	} head;

	if (protocol == inner)
		return 0;
	if (protocol != IPPROTO_UDP || bpf_skb_load_bytes(skb, at, &head, sizeof head))
		return -1;
	if (head.gue.version_and_length || head.gue.protocol != inner || head.gue.flags)
		return -1;
	end->port = head.udp.dest;
	return sizeof head;
}

static __always_inline int decapsulate4(struct __sk_buff *skb)
{
	struct end end = { .family = 4 };
	struct iphdr outer, inner;
	int more, size;
	__u8 tos;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &outer, sizeof outer))
		return TC_ACT_UNSPEC;
	if (outer.ihl != 5 || outer.frag_off & bpf_htons(FRAGMENTED))
		return TC_ACT_UNSPEC;
	more = extra_headers(skb, ETH_HLEN + sizeof outer, outer.protocol, IPPROTO_IPIP, &end);
	if (more < 0)
		return TC_ACT_UNSPEC;
	size = sizeof outer + more;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + size, &inner, sizeof inner) || inner.version != 4)
		return TC_ACT_UNSPEC;
	end.backend[0] = outer.daddr;
	end.vip[0] = inner.daddr;
	if (!bpf_map_lookup_elem(&ends, &end))
		return TC_ACT_UNSPEC;
	if ((outer.tos & CE) == CE && !(inner.tos & CE))
		return TC_ACT_SHOT;
	if (bpf_skb_adjust_room(skb, -size, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return TC_ACT_SHOT;
	if ((outer.tos & CE) == CE && (inner.tos & CE) != CE) {
		tos = inner.tos | CE;
		bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check),
				    bpf_htons(inner.tos), bpf_htons(tos), 2);
		bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, tos), &tos, 1, 0);
	}
	return TC_ACT_UNSPEC;
}

static __always_inline __u8 class_of(const struct ipv6hdr *ip)
{
	return ip->priority << 4 | ip->flow_lbl[0] >> 4;
}

static __always_inline int decapsulate6(struct __sk_buff *skb)
{
	struct end end = { .family = 6 };
	struct ipv6hdr outer, inner;
	int more, size;
	__u8 second;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &outer, sizeof outer))
		return TC_ACT_UNSPEC;
	more = extra_headers(skb, ETH_HLEN + sizeof outer, outer.nexthdr, IPPROTO_IPV6, &end);
	if (more < 0)
		return TC_ACT_UNSPEC;
	size = sizeof outer + more;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + size, &inner, sizeof inner) || inner.version != 6)
		return TC_ACT_UNSPEC;
	__builtin_memcpy(end.backend, &outer.daddr, sizeof end.backend);
	__builtin_memcpy(end.vip, &inner.daddr, sizeof end.vip);
	if (!bpf_map_lookup_elem(&ends, &end))
		return TC_ACT_UNSPEC;
	if ((class_of(&outer) & CE) == CE && !(class_of(&inner) & CE))
		return TC_ACT_SHOT;
	if (bpf_skb_adjust_room(skb, -size, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return TC_ACT_SHOT;
	if ((class_of(&outer) & CE) == CE) {
		second = inner.flow_lbl[0] | CE << 4;
		bpf_skb_store_bytes(skb, ETH_HLEN + 1, &second, 1, BPF_F_RECOMPUTE_CSUM);
	}
	return TC_ACT_UNSPEC;
}

SEC("tc")
int decapsulate(struct __sk_buff *skb)
{
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return decapsulate4(skb);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return decapsulate6(skb);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual MIT/GPL";
