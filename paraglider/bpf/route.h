/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Looks a packet's route up, with the fields that `find_route` or `find_outer_route` has set. */
#ifndef PARAGLIDER_ROUTE_H
#define PARAGLIDER_ROUTE_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "layout.h"

#define AF_INET 2
#define AF_INET6 10

/* Sets the next hop, or returns why there is none. With BPF_FIB_LOOKUP_SKIP_NEIGH its MAC address is
 * not asked for.
 */
static __always_inline enum reason look_up_route(void *frame, struct bpf_fib_lookup *route,
						 __u32 flags)
{
	switch (bpf_fib_lookup(frame, route, sizeof *route, flags)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return CARRIED;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return TOO_BIG;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return flags & BPF_FIB_LOOKUP_SKIP_NEIGH ? NO_ROUTE : NEIGHBOUR;
	}
	return NO_ROUTE;
}

#endif
