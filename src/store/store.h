/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The config store as the rest of the library sees it: one object per URL and process, shared by
 *all services, holding the client and, where this process hosts, the server. It knows bytes, keys,
 *numbers and time.
 *
 * Every call may come from any thread but a loop's, blocks at most until its deadline (+ 500 ms)
 *and fails with a recorded error: SMEM_UNREACHABLE when the store is lost (promptly, not at the
 *deadline), SMEM_TIMEOUT naming what was missing, SMEM_IO, SMEM_MALLOC_FAILED, SMEM_SECURITY,
 *SMEM_NOT_SUPPORTED, and those listed at each call. After a call returned, the caller's memory is
 *not touched any more. Callbacks run on the I/O loop's thread, in the order of the server's events;
 *they must not block and must not call back into this header except store_group_ack()
 *.
 *
 * "Member" below is the number a client has in a group, 0..WORLD_MAX-1. A member is live until its
 *client says good-bye, leaves, or is lost: its process died (seen within 1 s), or its host was
 *silent (ENV_SILENCE_MS).
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "store/set.h"
#include "store/url.h"
#include "util/clock.h"

struct store;

enum store_role {
	STORE_CONNECT, /* client only: retry until the deadline, pauses 10 ms doubling to 500 ms */
	STORE_HOST,    /* serve the URL and be a client too; SMEM_RESOURCE_IN_USE after 2 s */
	STORE_HOST_IF_LOCAL, /* serve it if its host is of this machine and the port is free; else
				connect */
};

/*
 * Take a reference on this process's store of `url` (a validated, canonical URL), making it if need
 * be. Whoever comes second reuses it whatever the role (STORE_HOST on an object that only connects:
 * serves as well if it can, else is SMEM_RESOURCE_IN_USE). TLS variables are read here. Errors as
 * 4.2, 5.4 and 6 of the specification.
 */
int32_t store_open(const struct store_url *url, enum store_role role, struct deadline deadline,
		   struct store **ret);

/*
 * Drop a reference; groups and watches taken through it are freed before. The last one says
 * good-bye, closes the listening socket at once, lingers as long as clients are there, at most
 * `linger_ms` (STORE_LINGER_MS; 1000 after a failed init), and frees. NULL is fine.
 */
void store_close(struct store *s, uint32_t linger_ms);

const char *store_url_text(const struct store *s); /* canonical, for messages */
bool store_hosting(const struct store *s);
bool store_encrypted(const struct store *s); /* its connections are TLS */
bool store_lost(const struct store *s);	     /* true once the connection is given up; final */

/* The local address of the connection to the store: what autoRanking sorts by and what data
 * addresses follow. */
int32_t store_local_addr(const struct store *s, struct sockaddr_storage *ret, socklen_t *len);

/* A random number of this process's client, known to the server; part of every incarnation. */
uint64_t store_client_id(const struct store *s);

/* ---- keys ---- */

struct store_bytes {
	void *data; /* malloc'ed; free with store_bytes_free(); NULL when len is 0 */
	size_t len;
};
void store_bytes_free(struct store_bytes *b);

enum store_set_flags {
	STORE_EPHEMERAL = 1, /* gone with this client (lease) */
	STORE_EXCLUSIVE = 2, /* SMEM_DUPLICATED_OBJECT when the key exists */
};

int32_t store_set(struct store *s, const char *key, const void *val, size_t len, uint32_t flags,
		  struct deadline deadline);
/* Value of key. wait: until it is set (SMEM_TIMEOUT); else SMEM_OBJECT_NOT_EXISTS when there is
 * none. */
int32_t store_get(struct store *s, const char *key, bool wait, struct deadline deadline,
		  struct store_bytes *ret);
int32_t store_del(struct store *s, const char *key, struct deadline deadline); /* missing is fine */
/* Add to a counter (missing = 0) and return the new value. */
int32_t store_add(struct store *s, const char *key, int64_t delta, struct deadline deadline,
		  int64_t *ret);
/* Replace `expect` (NULL: missing) by `val`. SMEM_RESOURCE_IN_USE when the value is another; *seen
 * = it, if not NULL. */
int32_t store_cas(struct store *s, const char *key, const struct store_bytes *expect,
		  const struct store_bytes *val, struct deadline deadline,
		  struct store_bytes *seen);
int32_t store_append(struct store *s, const char *key, const void *val, size_t len,
		     struct deadline deadline, uint64_t *new_len);

/* Gather: `size` contributions to `key`, each of its own index; all get all, in index order. */
struct store_gathered {
	uint32_t size;
	struct store_bytes *part; /* size entries */
};
void store_gathered_free(struct store_gathered *g);
int32_t store_gather(struct store *s, const char *key, uint32_t index, uint32_t size,
		     const void *val, size_t len, struct deadline deadline,
		     struct store_gathered *ret);

/* Watch one key: called with its present value at once (if any), then at every change; data NULL:
 * deleted. */
struct store_watch;
typedef void (*store_watch_fn)(void *arg, const char *key, const void *data, size_t len);
int32_t store_watch(struct store *s, const char *key, store_watch_fn fn, void *arg,
		    struct deadline deadline, struct store_watch **ret);
void store_unwatch(struct store_watch *w); /* after return fn does not run any more */

/* ---- ranges: an allocator of intervals of integers that all clients can use ---- */

struct store_range {
	uint64_t begin;
	uint64_t end; /* exclusive */
};
/* What this client can use, best first. Replaces what it said before. Forgotten with the client. */
int32_t store_range_usable(struct store *s, const struct store_range *usable, uint32_t n,
			   struct deadline deadline);
/*
 * A range of `len` named `name`, a multiple of `align`; equal for everybody as long as anybody
 * holds it. A new one lies where this client and, if possible, every client that said so can use
 * it, apart from all others, with room to grow. A known one that is shorter is grown in place.
 * SMEM_RESOURCE_IN_USE naming the range when it cannot be had: no room, or this client cannot use
 * it. Held until released; a lost client holds nothing.
 */
int32_t store_range_hold(struct store *s, const char *name, uint64_t len, uint64_t align,
			 struct deadline deadline, uint64_t *ret_begin);
/* Does not block and cannot fail; a lost store is fine. */
void store_range_release(struct store *s, const char *name);

/* ---- groups ---- */

/*
 * A group is a set of members with an ordered history. Every entering, leaving and loss has a
 * sequence number and is pushed to all members in that order.
 */
struct store_group;

enum store_group_mode {
	STORE_GROUP_OPEN,   /* enter at any time */
	STORE_GROUP_CLOSED, /* entering waits until all `size` members are there, then nobody enters
			     * until it is empty; those who come meanwhile wait for the next life of
			     * the name */
	STORE_GROUP_LOBBY, /* as CLOSED for the first `size`, numbered by (sort key, arrival); after
			    * that, as OPEN with the lowest free number, until it is empty */
};

#define STORE_MEMBER_ANY UINT32_MAX /* OPEN: the lowest free number; LOBBY: always */

enum store_event_kind {
	STORE_EVENT_ENTERED, /* member, its blob */
	STORE_EVENT_LEFT,
	STORE_EVENT_LOST,
	STORE_EVENT_NOTE,  /* a note posted by `member` */
	STORE_EVENT_BLOB,  /* `member` replaced its blob */
	STORE_EVENT_CLOSED /* the store itself is lost: the last event */
};

struct store_event {
	enum store_event_kind kind;
	uint32_t member;
	uint64_t seq;	      /* of this event; increasing */
	uint64_t incarnation; /* of the member: random, new at every entering */
	const void *data;     /* blob or note; the callback's only */
	size_t len;
};
typedef void (*store_event_fn)(void *arg, const struct store_event *e);

struct store_enter {
	const char *name;
	enum store_group_mode mode;
	uint32_t member;  /* or STORE_MEMBER_ANY */
	uint32_t size;	  /* OPEN: most members at a time, and numbers are below `numbers`; CLOSED,
			     LOBBY: how many */
	uint32_t numbers; /* OPEN: member numbers are below this; else = size */
	const void *spec; /* must be byte-equal for all members; the first one's counts */
	size_t spec_len;
	const void *blob; /* what the others need to know of me */
	size_t blob_len;
	const void *sort; /* LOBBY */
	size_t sort_len;
	store_event_fn fn;
	void *arg;
	const _Atomic bool *woken; /* true ends the waiting: store_enter_wake(); NULL: never */
};

/* Filled on SMEM_INVALID_PARAM because of a different spec (or `size`): whose, and what it is. Free
 * with store_bytes_free(&c->spec). member_b/other fields for CLOSED, where both sides of the
 * conflict are told. */
struct store_conflict {
	uint32_t member;	 /* the member it conflicts with */
	struct store_bytes spec; /* its spec */
	uint32_t
	    own; /* CLOSED: the member whose entering conflicts (may be another than the caller) */
	struct store_bytes own_spec;
	bool duplicate; /* CLOSED: both claimed the same member number */
};

/*
 * Enter. On return 0 the events of all present members (the caller's own included) have been
 * delivered to fn. SMEM_INVALID_PARAM      spec or size differ (*conflict is filled), CLOSED: told
 * to all that wait, as soon as seen SMEM_DUPLICATED_OBJECT  OPEN: a live member has that number
 *   SMEM_RESOURCE_IN_USE    OPEN, LOBBY after the first round: full
 *   SMEM_PEER_LOST          CLOSED: a member that waited was lost meanwhile; detail names it
 *   SMEM_TIMEOUT            CLOSED, LOBBY: detail names the missing members (CLOSED) or how many
 * arrived (LOBBY) A failed entering leaves nothing behind.
 */
int32_t store_group_enter(struct store *s, const struct store_enter *e, struct deadline deadline,
			  struct store_conflict *conflict, struct store_group **ret);

/* *woken has become true: the call of store_group_enter() that was given it, if it waits, ends with
 * SMEM_OBJECT_NOT_EXISTS. */
void store_enter_wake(struct store *s, const _Atomic bool *woken);

uint32_t store_group_member(const struct store_group *g);
uint64_t store_group_incarnation(const struct store_group *g);
uint64_t store_group_seq(const struct store_group *g); /* of the own entering */

/*
 * "I have dealt with all events up to seq", or could not: code != 0 with a text. Never blocks; also
 * from callbacks. Acknowledgements may be collected: only the highest counts, a failure is kept per
 * seq.
 */
void store_group_ack(struct store_group *g, uint64_t seq, int32_t code, const char *text);

/*
 * Wait until every live member that was there at event `seq` has acknowledged it (the caller's own
 * ack counts too). A member's failed acknowledgement of exactly this event fails the fence with its
 * code and text. SMEM_TIMEOUT names who did not.
 */
int32_t store_group_fence(struct store_group *g, uint64_t seq, struct deadline deadline);

/*
 * A collective of all `size` members of a CLOSED group: completes when all are inside it at the
 * same time, then for all. `kind` must be equal for all (else SMEM_INVALID_PARAM for all, conflict
 * filled with the kinds as specs). SMEM_PEER_LOST promptly when a member was lost or left;
 * SMEM_TIMEOUT names the missing; this call is then out of the round and the next one counts
 * afresh.
 */
int32_t store_group_gather(struct store_group *g, const void *kind, size_t kind_len,
			   const void *val, size_t len, struct deadline deadline,
			   struct store_conflict *conflict, struct store_gathered *ret);

/*
 * The same among members that stand for others: the caller for those in `set`, which are live and
 * have chosen it among themselves, itself included. All of a group call this, or all the other.
 * What is brought may be longer: STORE_SET_VALUE_MAX.
 *
 * `kind` must be equal for all, and new in every round. `turn` grows with every call that is made
 * for a member, modulo 2^32: one that comes after store_group_settle() does not count any more.
 *
 *   SMEM_TIMEOUT      *missing: who was not inside, as far as the server knows
 *   SMEM_STALE        another member has settled it
 *   SMEM_REPEAT_CALL  the last round that completed had this kind
 */
struct store_sets {
	const struct set *set;
	uint32_t turn;
	const void *kind;
	size_t kind_len;
	const void *val;
	size_t len;
};
struct store_parts { /* one for each who called, apart and together all members */
	uint32_t count;
	struct store_part {
		struct set set;
		const uint8_t *data; /* in `body` */
		size_t len;
	} * part;
	uint8_t *body;
};
void store_parts_free(struct store_parts *p);
int32_t store_group_sets(struct store_group *g, const struct store_sets *sets,
			 struct deadline deadline, struct set *missing, struct store_parts *ret);

/*
 * What became of the call that another member made for this one and others: 0 and its outcome when
 * the round has completed. Else it is taken back, up to `turn`, also if it is still to come:
 * SMEM_TIMEOUT and *missing, or SMEM_PEER_LOST. Waits for no member, and store_group_wake() does
 * not end it.
 */
int32_t store_group_settle(struct store_group *g, uint32_t turn, const void *kind, size_t kind_len,
			   struct deadline deadline, struct set *missing, struct store_parts *ret);

/* For messages: this member is inside, though nobody can stand for it yet. Never blocks. */
void store_group_present(struct store_group *g, const void *kind, size_t kind_len);
/* It is not any more. Who is missing? */
int32_t store_group_absent(struct store_group *g, const void *kind, size_t kind_len,
			   struct deadline deadline, struct set *missing);

/* Replace the own blob; pushed to all as STORE_EVENT_BLOB. */
int32_t store_group_blob(struct store_group *g, const void *blob, size_t len,
			 struct deadline deadline);

/* Push a note to all members, the caller included. once: only the first note of the group's life
 * with `once` counts. */
int32_t store_group_note(struct store_group *g, const void *note, size_t len, bool once,
			 struct deadline deadline);

/* Make every call now waiting on this group return SMEM_OBJECT_NOT_EXISTS; later
 * ones too. */
void store_group_wake(struct store_group *g);

/*
 * Leave: the event LEFT goes to the others; wait_acks: wait until all live members acknowledged it
 * (SMEM_TIMEOUT; the caller has left nevertheless). No callback after return. A lost store is fine.
 * Then store_group_free().
 */
int32_t store_group_leave(struct store_group *g, bool wait_acks, struct deadline deadline);
/* The same, waiting for the others, with two differences: store_group_wake() ends it
 * (SMEM_OBJECT_NOT_EXISTS, and this member has left nevertheless); and when the store is lost
 * nothing has changed (SMEM_UNREACHABLE). */
int32_t store_group_try_leave(struct store_group *g, struct deadline deadline);
void store_group_free(
    struct store_group *g); /* leaves without waiting if it has not been left; NULL is fine */

#endif
