/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The header of generic UDP encapsulation, version 0 (draft-ietf-intarea-gue-09). */
#ifndef PARAGLIDER_GUE_H
#define PARAGLIDER_GUE_H

#include <linux/types.h>

struct gue {
	__u8 version_and_length;
	__u8 protocol;
	__be16 flags;
};

#endif
