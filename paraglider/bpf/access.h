/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The frame of a packet, as a program sees it at tc ingress (struct __sk_buff) or at XDP (struct
 * xdp_md). `xdp` is a constant of the caller's, so that each hook has code of its own.
 */
#ifndef PARAGLIDER_ACCESS_H
#define PARAGLIDER_ACCESS_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#define TC_FRAME(frame) ((struct __sk_buff *)(frame))
#define XDP_FRAME(frame) ((struct xdp_md *)(frame))

static __always_inline void *data_of(void *frame, const bool xdp)
{
	return xdp ? (void *)(long)XDP_FRAME(frame)->data : (void *)(long)TC_FRAME(frame)->data;
}

static __always_inline void *end_of(void *frame, const bool xdp)
{
	return xdp ? (void *)(long)XDP_FRAME(frame)->data_end : (void *)(long)TC_FRAME(frame)->data_end;
}

/* Bytes of the frame. At XDP all of them are in the linear part. */
static __always_inline __u32 length_of(void *frame, const bool xdp)
{
	return xdp ? XDP_FRAME(frame)->data_end - XDP_FRAME(frame)->data : TC_FRAME(frame)->len;
}

/* The index of the interface at which the frame came in. */
static __always_inline __u32 interface_of(void *frame, const bool xdp)
{
	return xdp ? XDP_FRAME(frame)->ingress_ifindex : TC_FRAME(frame)->ifindex;
}

/* Moves headers of `wanted` bytes into the linear part, which is what a program sees. */
static __always_inline void pull(void *frame, __u32 wanted, const bool xdp)
{
	if (!xdp)
		bpf_skb_pull_data(TC_FRAME(frame), TC_FRAME(frame)->len < wanted ? TC_FRAME(frame)->len : wanted);
}

/* Bytes of payload of each segment of a GSO packet; 0 if it is none, as at XDP, which is before GRO. */
static __always_inline __u32 segment_of(void *frame, const bool xdp)
{
	return xdp ? 0 : TC_FRAME(frame)->gso_size;
}

/* How many packets the frame is on the wire. */
static __always_inline __u32 packets_of(void *frame, const bool xdp)
{
	return xdp || !TC_FRAME(frame)->gso_size || !TC_FRAME(frame)->gso_segs ? 1 : TC_FRAME(frame)->gso_segs;
}

/* Corrects the sum that a device has computed over the packet (skb->csum) by `change`. */
static __always_inline void correct_sum(void *frame, __u32 change, const bool xdp)
{
	if (!xdp)
		bpf_csum_update(TC_FRAME(frame), change);
}

#endif
