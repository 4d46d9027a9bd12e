/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* SipHash-1-3 (Aumasson and Bernstein, INDOCRYPT 2012) of a few 32-bit words as they stand in a
 * packet. core/siphash.py is the same in Python, and a test compares the two.
 */
#ifndef PARAGLIDER_SIPHASH_H
#define PARAGLIDER_SIPHASH_H

#include <linux/types.h>

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define as_little_endian(word) __builtin_bswap32(word)
#else
#define as_little_endian(word) (word)
#endif

struct siphash {
	__u64 v0, v1, v2, v3;
};

static __always_inline __u64 rotate(__u64 number, const int by)
{
	return number << by | number >> (64 - by);
}

static __always_inline void siphash_round(struct siphash *s)
{
	s->v0 += s->v1;
	s->v2 += s->v3;
	s->v1 = rotate(s->v1, 13) ^ s->v0;
	s->v3 = rotate(s->v3, 16) ^ s->v2;
	s->v0 = rotate(s->v0, 32);
	s->v2 += s->v1;
	s->v0 += s->v3;
	s->v1 = rotate(s->v1, 17) ^ s->v2;
	s->v3 = rotate(s->v3, 21) ^ s->v0;
	s->v2 = rotate(s->v2, 32);
}

static __always_inline void siphash_block(struct siphash *s, __u64 block)
{
	s->v3 ^= block;
	siphash_round(s);
	s->v0 ^= block;
}

/* The hash of `count` words, a constant. */
static __always_inline __u64 siphash13(const __u64 *key, const __be32 *words, const int count)
{
	struct siphash s = { key[0] ^ 0x736f6d6570736575ULL, key[1] ^ 0x646f72616e646f6dULL,
			     key[0] ^ 0x6c7967656e657261ULL, key[1] ^ 0x7465646279746573ULL };
	__u64 last = (__u64)count << (56 + 2); /* the length in bytes */
	int at;

#pragma unroll
	for (at = 0; at + 1 < count; at += 2)
		siphash_block(&s, as_little_endian(words[at]) |
					  (__u64)as_little_endian(words[at + 1]) << 32);
	siphash_block(&s, count & 1 ? last | as_little_endian(words[count - 1]) : last);
	s.v2 ^= 0xff;
	siphash_round(&s);
	siphash_round(&s);
	siphash_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

#endif
