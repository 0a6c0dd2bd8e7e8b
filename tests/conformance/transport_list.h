/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every transport promises, by one list of cases. Rank 0 is the target, the others reach its
 * memory. A transport is a row, with LIST_ROW(name) and LIST_CASES(name) for a `row_name`.
 */
#ifndef CONFORMANCE_TRANSPORT_LIST_H
#define CONFORMANCE_TRANSPORT_LIST_H

#include "harness.h"
#include "transport/transport.h"

struct row {
	const struct transport_ops *ops;
	bool mapped;	/* the target's memory lies at the same address in the initiator */
	bool one_sided; /* works while the target does not run */
	bool faults;	/* an access outside is an error instead of undefined */
	bool registers; /* local memory is registered */
	/* Where ranks live on hosts of their own: go there, first of all. Fills the route to the
	 * store (32 bytes of room), and returns its length. */
	size_t (*enter)(struct rank *r, void *route);
};

void list_random_pieces(struct rank *r, const struct row *row);
void list_sizes(struct rank *r, const struct row *row);
void list_many_pieces(struct rank *r, const struct row *row);
void list_threads(struct rank *r, const struct row *row);
void list_killed(struct rank *r, const struct row *row);
void list_paused(struct rank *r, const struct row *row);
void list_outside(struct rank *r, const struct row *row);
void list_nobody(struct rank *r, const struct row *row);
void list_kept(struct rank *r, const struct row *row); /* for rows that register */

#define LIST_FOR(t, c)                                                                             \
	static void t##_##c(struct rank *r)                                                        \
	{                                                                                          \
		list_##c(r, &row_##t);                                                             \
	}
#define LIST_ROW(t)                                                                                \
	LIST_FOR(t, random_pieces)                                                                 \
	LIST_FOR(t, sizes)                                                                         \
	LIST_FOR(t, many_pieces)                                                                   \
	LIST_FOR(t, threads)                                                                       \
	LIST_FOR(t, killed)                                                                        \
	LIST_FOR(t, paused)                                                                        \
	LIST_FOR(t, outside)                                                                       \
	LIST_FOR(t, nobody)

#define LIST_CASES(t)                                                                              \
	{.name = #t "_random_pieces", .fn = t##_random_pieces, .sizes = {2}},                      \
	    {.name = #t "_sizes", .fn = t##_sizes, .sizes = {2}},                                  \
	    {.name = #t "_many_pieces", .fn = t##_many_pieces, .sizes = {2}},                      \
	    {.name = #t "_threads", .fn = t##_threads, .sizes = {2, 4}},                           \
	    {.name = #t "_killed", .fn = t##_killed, .sizes = {2}},                                \
	    {.name = #t "_paused", .fn = t##_paused, .sizes = {2}},                                \
	    {.name = #t "_outside", .fn = t##_outside, .sizes = {2}},                              \
	{                                                                                          \
		.name = #t "_nobody", .fn = t##_nobody, .sizes = { 1 }                             \
	}

#endif
