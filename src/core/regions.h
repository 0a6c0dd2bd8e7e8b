/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registrations of a session, and how peers on the same host see them.
 *
 * `struct regions` is the owner's side. One mutator at a time (the caller's lock). Registrations
 * are exact, may overlap with different starts, and are published all or nothing.
 *
 * `struct region_view` is the reader's side, in any process, without locks: a look never waits,
 * whether the owner is stopped or dead in the middle of a change. A look that must not be overtaken
 * by a withdrawal is made under a mark (core/marks.h).
 *
 * Both: memory is not inherited by fork.
 */
#ifndef CORE_REGIONS_H
#define CORE_REGIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uthash.h>

struct regions;
struct region_table;

/* Bytes of one kind inside a registration. */
struct region_piece {
	uint64_t begin;
	uint64_t end;
	uint64_t object; /* see struct region_span */
	uint64_t offset;
};

/* One registration, malloc'ed by the caller, pieces in order and adjoining. */
struct registration {
	uint64_t begin;
	uint64_t end;
	uint64_t id;	   /* the caller's: what the transports know it by */
	bool closing;	   /* withdrawn for peers, writes in flight not yet awaited */
	bool fresh;	   /* of the batch that is being added */
	UT_hash_handle hh; /* by begin */
	uint32_t n;
	struct region_piece piece[];
};

/* SMEM_MALLOC_FAILED, SMEM_NEW_OBJECT_FAILED. */
int32_t regions_create(uint64_t incarnation, bool writable, struct regions **ret);
void regions_destroy(struct regions *r); /* frees all registrations; NULL is fine */

int regions_fd(const struct regions *r); /* the table's memfd; borrowed */
size_t regions_count(const struct regions *r);

/* By exact start; NULL: none. */
struct registration *regions_find(const struct regions *r, uint64_t begin);
/* Any registration, for taking all away; NULL: none left. */
struct registration *regions_any(const struct regions *r);

/*
 * Publish all of reg[0..n), or nothing: SMEM_DUPLICATED_OBJECT when a start is taken by another
 * capacity or by a registration still being withdrawn, SMEM_MALLOC_FAILED. Those that exist already
 * are set to NULL in reg[]; the caller frees them; the others belong to r from now on. On failure
 * all remain the caller's.
 */
int32_t regions_add(struct regions *r, struct registration **reg, size_t n);

/* Close it to peers: from the return on every new look fails. Writes in flight may still land. */
int32_t regions_close(struct regions *r, struct registration *reg);
/* Forget a closed one; it is the caller's again. */
void regions_forget(struct regions *r, struct registration *reg);

/* Refuse all looks for good; the last table stays legible for who remembers addresses. */
void regions_shut(struct regions *r);

/*
 * Tell the kernel which thread stands for the life of this table: the calling one, until
 * regions_unvouch() on the same thread. When it ends otherwise, views are dead.
 */
int32_t regions_vouch(struct regions *r);
void regions_unvouch(struct regions *r);

/* ---- the reader's side ---- */

struct region_view {
	const struct region_table *table;
};

/* Map the table behind fd (not consumed). SMEM_STALE: of another incarnation; SMEM_NOT_SUPPORTED:
 * of another version; SMEM_IO: not a table; SMEM_MALLOC_FAILED. */
int32_t region_view_open(int fd, uint64_t incarnation, struct region_view *ret);
void region_view_close(struct region_view *v); /* twice is fine */

enum region_life { REGION_LIFE_LIVE, REGION_LIFE_SHUT, REGION_LIFE_DEAD };
enum region_life region_view_life(const struct region_view *v);
bool region_view_writable(const struct region_view *v);
uint64_t region_view_generation(const struct region_view *v);

/* Where a look found its address; keep it between looks, its index is a hint. Zeroed at first. */
struct region_hit {
	uint64_t index;
	struct region_piece piece;
};

/* Is addr registered? hit->piece is what surrounds it. Adjoining pieces are separate hits. */
bool region_view_find(const struct region_view *v, uint64_t addr, struct region_hit *hit);

/* All pieces as they are now, malloc'ed; also of a dead or shut table. SMEM_MALLOC_FAILED. */
int32_t region_view_list(const struct region_view *v, struct region_piece **ret, size_t *n);

#endif
