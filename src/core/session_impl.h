/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a session share. */
#ifndef CORE_SESSION_IMPL_H
#define CORE_SESSION_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/backing.h"
#include "core/link.h"
#include "core/marks.h"
#include "core/regions.h"
#include "core/session.h"
#include "core/session_card.h"
#include "core/survey.h"
#include "store/store.h"
#include "util/gate.h"
#include "util/loop.h"

#define REMOTE_BUCKETS 256u

struct remote;

struct session {
	char name[SESSION_NAME_MAX];
	struct session_blob blob; /* what is published */
	struct store *store;
	struct loop *loop;
	bool agent, paths, offered, vouched, claimed, taken;
	_Atomic bool closing;

	pthread_mutex_t lock; /* registrations */
	struct regions *regions;
	struct marks *marks;
	struct backings *backings;

	/* Peers by the text they were named with. Only ever grows until the end. */
	_Atomic(struct remote_name *) bucket[REMOTE_BUCKETS];
	pthread_mutex_t remotes_lock;
	struct remote *remotes;
	struct link *retired;
	struct gate gate; /* around every use of a link */
	struct survey_source survey;
};

/* ---- remote.c: peers by name, and which incarnation of them is the present one ---- */

struct remote {
	char name[SESSION_NAME_MAX]; /* canonical */
	_Atomic(struct link *) link; /* the present incarnation, alive or not; NULL: not resolved */
	pthread_mutex_t lock;	     /* of resolving, and of what follows */
	uint64_t dead;		     /* incarnation known to be over */
	int32_t dead_code;	     /* how it ended */
	struct region_piece *past;   /* ranges of earlier incarnations, sorted, disjoint */
	size_t past_n;
	char failed[256]; /* why it was not reached last; s->remotes_lock */
	struct remote *next;
};

struct remote_name {
	struct remote_name *next;
	struct remote *remote;
	uint64_t hash;
	char text[];
};

/* The peer of that name; SMEM_INVALID_PARAM when malformed. No lock when it has been used before.
 */
int32_t remote_find(struct session *s, const char *text, struct remote **ret);

/*
 * The present link, entered: leave the session's gate with *ticket. Resolves when there is none or
 * it is dead. SMEM_OBJECT_NOT_EXISTS, SMEM_PEER_LOST, SMEM_UNREACHABLE, ...
 */
int32_t remote_enter(struct session *s, struct remote *r, struct link **ret, uint32_t *ticket);

/* A peer that was found dead by using it, is another incarnation there now? The store knows, and
 * need not have told us yet. Then the link to the old one is not entered any more. Not inside the
 * gate. */
bool remote_replaced(struct session *s, struct remote *r, uint64_t incarnation);

/* Did [begin, end) touch what an earlier incarnation had? */
bool remote_was_used(struct remote *r, uint64_t begin, uint64_t end);
/* Remember a range, for peers whose table is not seen from here. */
void remote_remember(struct remote *r, uint64_t begin, uint64_t end);

/* Rows of a survey, one for each peer that was used. Any thread, never blocks. */
void remotes_report(struct session *s, struct survey_writer *w);

void remotes_free(struct session *s); /* nobody is inside */

#endif
