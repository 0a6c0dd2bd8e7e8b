/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of surveys share: asking as `smem info` does, and looking at single pairs. */
#ifndef RANKS_FABRIC_UTIL_H
#define RANKS_FABRIC_UTIL_H

#include "fabric.h"
#include "harness.h"
#include "smem_bm.h"

/* The last rank asks; the others have objects. */
bool asks(const struct rank *r);
/* Initialise BM for those that do not ask, and join a pool of theirs. */
smem_bm_t pool_up(struct rank *r, uint32_t id);

/* Ask at r->url. This process must have no object of its own there: it would not ask itself. */
void survey(struct rank *r, unsigned timeout_s, struct fabric *ret);

const struct fabric_object *object_is(struct rank *r, const struct fabric *f, enum fabric_kind kind,
				      const char *name);
/* By rank; TRANS: name. */
const struct fabric_member *member_is(struct rank *r, const struct fabric *f,
				      const struct fabric_object *o, uint32_t rank,
				      const char *name);
/* How `from` reaches `to`, as one line: "direct", "ofi tcp; direct: it is on another host; ...",
 * "lost", "" nothing known. */
const char *pair_text(const struct fabric *f, const struct fabric_object *o,
		      const struct fabric_member *from, const struct fabric_member *to);

/* The same with every number as #: reasons name processes and times. */
const char *pair_kind(const struct fabric *f, const struct fabric_object *o,
		      const struct fabric_member *from, const struct fabric_member *to);

#define PAIR_IS(r, f, o, from, to, want)   PAIR_SAYS(r, pair_text, f, o, from, to, want)
#define PAIR_LIKE(r, f, o, from, to, want) PAIR_SAYS(r, pair_kind, f, o, from, to, want)
#define PAIR_SAYS(r, how, f, o, from, to, want)                                                    \
	do {                                                                                       \
		const char *pair_ = how(f, o, from, to);                                           \
		if (strcmp(pair_, want) != 0)                                                      \
			rank_fail(r, __FILE__, __LINE__, "%s to %s: '%s', want '%s'", #from, #to,  \
				  pair_, want);                                                    \
	} while (0)

#endif
