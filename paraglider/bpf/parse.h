/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Reads a packet's headers, and refuses packets that are never carried, whatever their flow.
 * `four` and `xdp` are constants of the caller's, so that each family and hook has code of its own.
 */
#ifndef PARAGLIDER_PARSE_H
#define PARAGLIDER_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "access.h"
#include "layout.h"

#define IP_FRAGMENTED 0x3fff /* IP_MF and the offset */
#define FLOWINFO 0x0fffffff

/* The fields of a packet. IPv4 addresses are in the first word. */
struct packet {
	struct key6 ends;
	__be32 class; /* TOS, or traffic class and flow label */
	__u32 bytes;  /* of the IP packet */
	__u32 leaves; /* bytes of the longest IP packet into which it is segmented */
	__u32 sequence, ack;
	__u32 hash; /* of the flow, for an outer header */
	__u8 protocol, ttl, tcp_flags;
};

enum { TH_FIN = 1, TH_SYN = 2, TH_RST = 4, TH_PUSH = 8, TH_ACK = 16 };

static __always_inline void copy(__be32 *to, const __be32 *from, const bool four)
{
	to[0] = from[0];
	if (!four) {
		to[1] = from[1];
		to[2] = from[2];
		to[3] = from[3];
	}
}

static __always_inline bool equal(const __be32 *a, const __be32 *b, const bool four)
{
	return a[0] == b[0] && (four || (a[1] == b[1] && a[2] == b[2] && a[3] == b[3]));
}

static __always_inline __u32 ip_header(const bool four)
{
	return four ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

/* Reads the IP header, whose bytes have been checked to be present. */
static __always_inline enum reason parse_ip(void *ip_at, struct packet *p, const bool four)
{
	if (four) {
		struct iphdr *ip = ip_at;

		if (ip->version != 4 || ip->ihl != 5)
			return OPTIONS;
		if (ip->frag_off & bpf_htons(IP_FRAGMENTED))
			return FRAGMENT;
		p->bytes = bpf_ntohs(ip->tot_len);
		p->protocol = ip->protocol;
		p->ttl = ip->ttl;
		p->class = ip->tos;
		p->ends.source[0] = ip->saddr;
		p->ends.destination[0] = ip->daddr;
		return CARRIED;
	}
	struct ipv6hdr *ip = ip_at;

	if (ip->version != 6)
		return OPTIONS;
	p->bytes = sizeof *ip + bpf_ntohs(ip->payload_len);
	p->protocol = ip->nexthdr;
	p->ttl = ip->hop_limit;
	p->class = *(__be32 *)ip & bpf_htonl(FLOWINFO);
	copy(p->ends.source, ip->saddr.in6_u.u6_addr32, false);
	copy(p->ends.destination, ip->daddr.in6_u.u6_addr32, false);
	return CARRIED;
}

/* The reason for a protocol that is not carried. */
static __always_inline enum reason other_protocol(__u8 protocol, const bool four)
{
	if (four)
		return PROTOCOL;
	switch (protocol) {
	case IPPROTO_FRAGMENT:
		return FRAGMENT;
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
		return OPTIONS;
	}
	return PROTOCOL;
}

/* Reads the headers; refuses packets that are never carried. */
static __always_inline enum reason parse(void *frame, struct packet *p, const bool four,
					 const bool xdp)
{
	const __u32 transport_at = ETH_HLEN + ip_header(four);
	void *data = data_of(frame, xdp), *end = end_of(frame, xdp);
	__u32 length = length_of(frame, xdp) - ETH_HLEN, header = sizeof(struct udphdr);
	__u32 segment = segment_of(frame, xdp);
	enum reason refused;

	if (data + transport_at + sizeof(struct tcphdr) > end) {
		pull(frame, transport_at + sizeof(struct tcphdr), xdp);
		data = data_of(frame, xdp);
		end = end_of(frame, xdp);
	}
	struct udphdr *udp = data + transport_at;

	if ((void *)(udp + 1) > end)
		return SHORT;
	refused = parse_ip(data + ETH_HLEN, p, four);
	if (refused)
		return refused;
	p->ends.source_port = udp->source;
	p->ends.destination_port = udp->dest;
	if (p->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = data + transport_at;

		if ((void *)(tcp + 1) > end)
			return SHORT;
		header = tcp->doff * 4;
		p->sequence = bpf_ntohl(tcp->seq);
		p->ack = bpf_ntohl(tcp->ack_seq);
		p->tcp_flags = ((__u8 *)tcp)[13];
		/* The bytes of the frame are checked above; here the length that IP gives. */
		if (p->bytes < ip_header(four) + sizeof *tcp)
			return SHORT;
	} else if (p->protocol != IPPROTO_UDP) {
		return other_protocol(p->protocol, four);
	} else if (p->bytes < ip_header(four) + sizeof *udp) {
		return SHORT;
	} else if (!four && !udp->check) {
		return NO_CHECKSUM;
	}
	/* Bytes after the IP packet are Ethernet's padding; a lack of bytes is an error. */
	if (p->bytes > length)
		return SHORT;
	p->leaves = segment ? ip_header(four) + header + segment : length;
	return p->leaves > 0xffff ? TOO_BIG : CARRIED;
}

static __always_inline bool is_opening(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP &&
	       (p->tcp_flags & (TH_SYN | TH_ACK | TH_RST | TH_FIN)) == TH_SYN;
}

/* Refuses TCP flags that are never carried. The flow's state decides about a RST or a SYN alone. */
static __always_inline enum reason check_flags(const struct packet *p)
{
	if (p->protocol != IPPROTO_TCP || p->tcp_flags & TH_RST)
		return CARRIED;
	if ((p->tcp_flags & (TH_SYN | TH_ACK)) == TH_SYN)
		return p->tcp_flags & TH_FIN ? SYN : CARRIED;
	if (!(p->tcp_flags & TH_ACK) || (p->tcp_flags & (TH_SYN | TH_FIN)) == (TH_SYN | TH_FIN))
		return FLAGS;
	return CARRIED;
}

#endif
