/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The worker that gets a flow's packets: the hash of the HMARK target as our rules use it
 * (netfilter/rules/steering.py; Linux, net/netfilter/xt_HMARK.c and include/linux/jhash.h). Only the
 * client's end is hashed; the other end is 0, so the client is the greater address and upper port.
 */
#ifndef PARAGLIDER_STEER_H
#define PARAGLIDER_STEER_H

#include <linux/types.h>

#include <bpf/bpf_endian.h>

#include "layout.h"

#define JHASH_INITVAL 0xdeadbeef

static __always_inline __u32 rotate32(__u32 number, const int by)
{
	return number << by | number >> (32 - by);
}

static __always_inline __u32 jhash_3words(__u32 a, __u32 b, __u32 c, __u32 seed)
{
	seed += JHASH_INITVAL + (3 << 2);
	a += seed;
	b += seed;
	c += seed;
	c ^= b; c -= rotate32(b, 14);
	a ^= c; a -= rotate32(c, 11);
	b ^= a; b -= rotate32(a, 25);
	c ^= b; c -= rotate32(b, 16);
	a ^= c; a -= rotate32(c, 4);
	b ^= a; b -= rotate32(a, 14);
	c ^= b; c -= rotate32(b, 24);
	return c;
}

/* The index of the worker of the client's flow with `key`, whose decision has `flags`. */
static __always_inline __u32 worker_of(const struct key6 *key, const struct steering *s,
				       __u8 flags, const bool four)
{
	__be32 client = key->source[0];
	__u32 ports = flags & STEERED_BY_CLIENT ? 0 : (__u32)bpf_ntohs(key->source_port) << 16;

	if (!four)
		client ^= key->source[1] ^ key->source[2] ^ key->source[3];
	return (__u64)jhash_3words(0, bpf_ntohl(client), ports, s->seed) * s->workers >> 32;
}

#endif
