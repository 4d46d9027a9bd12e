/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Rewrites a packet: the TTL, for nat also one address and one port, and their checksums.
 * `four` and `xdp` are constants of the caller's, so that each family and hook has code of its own.
 */
#ifndef PARAGLIDER_TRANSLATE_H
#define PARAGLIDER_TRANSLATE_H

#include <linux/bpf.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "access.h"
#include "layout.h"
#include "parse.h"

#define EINVAL 22
#define CSUM_IPV6 (1ULL << 7) /* BPF_F_IPV6, which older headers lack */

/* A checksum's complement after an address that it covers has changed (RFC 1624). */
static __always_inline __u32 exchange(__u32 sum, __be32 old, __be32 new)
{
	sum += (__u16)~old + (__u16)(~old >> 16);
	return sum + (__u16)new + (__u16)(new >> 16);
}

/* Decrements the TTL of an IP header, writes the `new` address if not NULL, updates the checksum. */
static __always_inline void write_ip(void *header, bool back, const __be32 *new, const bool four)
{
	if (!four) {
		struct ipv6hdr *ip = header;

		ip->hop_limit--;
		if (!new)
			return;
		if (back)
			copy(ip->saddr.in6_u.u6_addr32, new, false);
		else
			copy(ip->daddr.in6_u.u6_addr32, new, false);
		return;
	}
	struct iphdr *ip = header;
	/* TTL and protocol are one word. */
	__u32 sum = (__u16)~ip->check + (__u16)~bpf_htons(0x0100);

	if (new)
		sum = exchange(sum, back ? ip->saddr : ip->daddr, new[0]);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~(sum + (sum >> 16));
	ip->ttl--;
	if (!new)
		return;
	if (back)
		ip->saddr = new[0];
	else
		ip->daddr = new[0];
}

/* The IPv6 header has no checksum that makes up for the hop limit in a device's sum (skb->csum). */
static __always_inline void count_hop(void *frame, const bool four, const bool xdp)
{
	if (!four)
		correct_sum(frame, (__u16)~bpf_htons(1), xdp);
}

/* Changes the transport checksum at XDP (RFC 1624): `check` is the field. */
static __always_inline void change_field(__be16 *check, bool tcp, const __be32 *old,
					 const __be32 *new, __be16 old_port, __be16 port,
					 const bool four)
{
	__u32 sum = (__u16)~*check;

	sum = exchange(sum, old[0], new[0]);
	if (!four) {
		sum = exchange(sum, old[1], new[1]);
		sum = exchange(sum, old[2], new[2]);
		sum = exchange(sum, old[3], new[3]);
	}
	sum += (__u16)~old_port + (__u32)port;
	sum = (sum & 0xffff) + (sum >> 16);
	*check = ~(sum + (sum >> 16));
	if (!tcp && !*check)
		*check = 0xffff;
}

/* Changes the transport checksum at tc. The helpers write a UDP checksum of 0 as 0xffff; they handle
 * packets whose checksum a device completes, and those that a device has summed up (skb->csum).
 * Returns 0 or a negative error.
 */
static __always_inline long change_checksum(struct __sk_buff *skb, bool tcp, const __be32 *old,
					    const __be32 *new, __be16 old_port, __be16 port,
					    const bool four)
{
	__u32 at = ETH_HLEN + ip_header(four) +
		   (tcp ? offsetof(struct tcphdr, check) : offsetof(struct udphdr, check));
	__u64 flags = tcp ? 0 : BPF_F_MARK_MANGLED_0;
	long error;

	if (four) {
		error = bpf_l4_csum_replace(skb, at, old[0], new[0], BPF_F_PSEUDO_HDR | flags | 4);
	} else {
		__s64 change = bpf_csum_diff((__be32 *)old, 16, (__be32 *)new, 16, 0);

		flags |= BPF_F_PSEUDO_HDR;
		error = bpf_l4_csum_replace(skb, at, 0, change, flags | CSUM_IPV6);
		if (error == -EINVAL) { /* Older kernels change skb->csum as for IPv4: undo it. */
			error = bpf_l4_csum_replace(skb, at, 0, change, flags);
			bpf_csum_update(skb, change);
		}
		flags &= ~(__u64)BPF_F_PSEUDO_HDR;
	}
	if (!error && old_port != port)
		error = bpf_l4_csum_replace(skb, at, old_port, port, flags | 2);
	return error;
}

/* Decrements the TTL. Replaces address and port, the source's if `back`, else the destination's, by
 * `new` and `port`, unless `new` is NULL. Returns CARRIED or a reason; or a negative error, after
 * which the packet is damaged.
 */
static __always_inline int translate(void *frame, const struct packet *p, bool back,
				     const __be32 *new, __be16 port, const bool four,
				     const bool xdp)
{
	void *data = data_of(frame, xdp), *end = end_of(frame, xdp);
	const __be32 *old = back ? p->ends.source : p->ends.destination;
	__be16 old_port = back ? p->ends.source_port : p->ends.destination_port;
	struct udphdr *udp = data + ETH_HLEN + ip_header(four);
	struct tcphdr *segment = (void *)udp;
	bool tcp = p->protocol == IPPROTO_TCP;
	__be16 *check = tcp ? &segment->check : &udp->check;

	if ((void *)(udp + 1) > end || (tcp && (void *)(segment + 1) > end))
		return SHORT;
	if (xdp) { /* by itself, since the verifier may follow a path with both answers to `tcp` */
		asm volatile("" : "+r"(check));
		if ((void *)(check + 1) > end)
			return SHORT;
	}
	write_ip(data + ETH_HLEN, back, new, four);
	count_hop(frame, four, xdp);
	if (!new)
		return CARRIED;
	if (back)
		udp->source = port;
	else
		udp->dest = port;
	if (four && !tcp && !udp->check) { /* none, which stays; a device's sum has the port */
		correct_sum(frame, (__u16)~old_port + port, xdp);
		return CARRIED;
	}
	if (xdp) {
		change_field(check, tcp, old, new, old_port, port, four);
		return CARRIED;
	}
	return change_checksum(TC_FRAME(frame), tcp, old, new, old_port, port, four);
}

#endif
