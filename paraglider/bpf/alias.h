/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Entries of replies whose flow the backend's address and port do not tell (ALIAS).
 * `four` is a constant of the caller's, so that each family has code of its own.
 */
#ifndef PARAGLIDER_ALIAS_H
#define PARAGLIDER_ALIAS_H

#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#include "flows.h"
#include "layout.h"
#include "parse.h"

#define EEXIST 17

/* Sets the key of the replies that `t` translates, of the flow with `key`. */
static __always_inline void alias_key(const struct key6 *key, const struct translation *t,
				      struct key6 *reply, const bool four)
{
	copy(reply->source, t->backend, four);
	copy(reply->destination, key->source, four);
	reply->source_port = t->backend_port ? t->backend_port : key->destination_port;
	reply->destination_port = key->source_port;
}

/* Removes the entry of the closed flow that has the alias `reply`: its replies are those of another
 * service's flow by now. Returns whether this CPU did so.
 */
static __always_inline int end_closed(const struct key6 *reply, const bool four)
{
	struct flow *alias, *closed;
	struct key6 key = {};

	if (!reply)
		return false;
	alias = look_up(reply, IPPROTO_TCP, four);
	if (!alias || !(alias->flags & ALIAS))
		return false;
	closed = look_up_reply(reply, IPPROTO_TCP, alias->translation, &key, four);
	if (!closed || !(closed->flags & CLOSED) ||
	    __sync_fetch_and_or(&closed->flags, REPLACED) & REPLACED)
		return false;
	remove(&key, IPPROTO_TCP, four);
	return true;
}

/* Global functions, as send_event. */

__noinline int end_closed4(const struct key6 *reply)
{
	return end_closed(reply, true);
}

__noinline int end_closed6(const struct key6 *reply)
{
	return end_closed(reply, false);
}

/* Inserts the alias of the replies that `t` translates, for the flow with `key`; in the place of that
 * of a closed flow, which ends.
 */
static __always_inline long insert_alias(const struct key6 *key, __u8 protocol,
					 const struct translation *t, __u32 index, __u16 owner,
					 const bool four)
{
	struct flow alias = { .flags = ALIAS, .translation = index, .owner = owner };
	struct key6 reply = {};
	long error;

	alias_key(key, t, &reply, four);
	error = insert(&reply, protocol, &alias, four);
	if (error == -EEXIST && protocol == IPPROTO_TCP &&
	    (four ? end_closed4(&reply) : end_closed6(&reply)))
		error = replace(&reply, &alias, four);
	return error;
}

#endif
