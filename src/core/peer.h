/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One other member of a pool: who it is, whether it lives, its memory as it appears here, and the
 * path to it.
 *
 * `state` is the one word that readers inside the pool's gate look at. Only the pool's keeper
 * changes it, with one exception: whoever learns of a death (the store's event, the agent's notice)
 * sets PEER_LOST at once, from the I/O loop. Before memory is unmapped or a path closed, `state`
 * and `mapped` say so and the gate is drained.
 */
#ifndef CORE_PEER_H
#define CORE_PEER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/path.h"
#include "core/segment.h"
#include "core/survey.h"

#define PEER_SEGMENTS 2u /* one a window */

enum peer_state {
	PEER_NONE,    /* never seen, or all is taken down */
	PEER_JOINING, /* its memory is being mapped */
	PEER_MEMBER,
	PEER_LEFT,
	PEER_LOST
};

/* What a member publishes about itself; `addrs_len` bytes of paths_addresses() follow. */
struct peer_card {
	uint32_t version;
	uint32_t addrs_len;
	struct agent_addr agent;
	struct segment_export seg[PEER_SEGMENTS]; /* object 0: no such window */
	uint8_t secret[16];			  /* opens what paths_expose() exposed under it */
};
_Static_assert(sizeof(struct peer_card) == 168, "wire layout");
#define PEER_CARD_VERSION 1u
#define PEER_CARD_MAX	  (sizeof(struct peer_card) + PATH_ADDRS_MAX)

struct peer {
	_Atomic uint32_t state;
	_Atomic bool mapped; /* its slots here are its memory: load, store, direct copies */
	_Atomic uint64_t incarnation; /* of the membership that state speaks of */
	_Atomic uint64_t lost_ms;     /* clock when the loss was learnt; for messages */
	uint32_t rank;
	void (*on_lost)(void *arg, struct peer *p); /* the agent's notice; on the I/O loop */
	void *arg;
	pthread_mutex_t path_lock; /* path.ep against peer_lose() */
	struct path path;	   /* of a MEMBER: to be used inside the gate only */
	uint32_t pid;		   /* path_lock; as it sees itself */
	uint64_t host;		   /* path_lock; survey_host() */
	struct agent_peer *agent;
	struct segment seg[PEER_SEGMENTS];
};

static inline enum peer_state peer_state(const struct peer *p)
{
	return (enum peer_state)atomic_load(&p->state);
}

/* `len` bytes from the store are a card of this version; SMEM_IO recorded when not. */
int32_t peer_card_check(const void *card, size_t len);

/*
 * Bring a peer up from its card: agent, mapping at `slot` (NULL: no such window), path. The state
 * must be NONE, LEFT or LOST with everything closed; ends as MEMBER, or as LOST when it died
 * meanwhile (SMEM_PEER_LOST), or as NONE with all undone. SMEM_UNREACHABLE: no path, all refusals
 * named. May take long: never on a loop's thread.
 */
int32_t peer_open(struct peer *p, uint64_t incarnation, const struct peer_card *card,
		  char *const slot[PEER_SEGMENTS], struct deadline deadline);

/* Dead. Any thread, never blocks; only when it is (still) that incarnation, 0: any. True when this
 * call changed the state. */
bool peer_lose(struct peer *p, uint64_t incarnation);

/* A row of a survey, if there is anything to say of it. Any thread, never blocks. */
void peer_report(struct peer *p, struct survey_writer *w);

/* Take the path down and the agent's connection: nobody is inside the gate. Mappings stay. */
void peer_cut(struct peer *p);
/* And the mappings too; the state stays what it is. Twice is fine. */
void peer_close(struct peer *p);

#endif
