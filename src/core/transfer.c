/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving a batch to or from a peer session.
 *
 * On the same host the peer's table is looked at under a mark, right before the bytes move; so what
 * the peer withdraws is either waited for or not touched. What one look has found holds for all
 * elements moved under the same mark. A batch that fits the scratch array is one stretch: mark,
 * look at all, move all, unmark; an element that is not covered is found before anything has moved.
 * A longer one is looked through once without a mark, and then moved in stretches, so that a
 * withdrawal waits for one of them at most; an element that was covered and is not any more then is
 * SMEM_STALE.
 *
 * Each element becomes pieces, by the kind of memory behind it: pieces that lie in a file mapped
 * here are copied, the rest goes to the path. Both kinds share the scratch array, one from each
 * end, so a mixed batch is still one call of each. Neighbours are merged.
 *
 * Without a shared table (another host) ranges are checked where the memory is, all before the
 * first byte moves, so the batch goes to the transport in one call.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/session_impl.h"
#include "util/cleanup.h"
#include "util/err.h"

#define SMALL	      32u	    /* pieces on the stack */
#define STRETCH	      1024u	    /* pieces of a stretch */
#define STRETCH_BYTES (64ull << 20) /* bytes of a stretch: some 10 ms */

struct job {
	const struct session_batch *b;
	struct remote *remote;
	struct link *link;
	struct region_hit hit;	    /* of the last look: a hint */
	const struct link_map *map; /* of the last look into a file */
	struct smem_xfer *x;	    /* scratch: copies from the front, the path's from the back */
	size_t room;
	size_t copies;
	size_t sends;
	uint64_t bytes; /* in the scratch */
};

/* Where we are in the batch. */
struct spot {
	uint32_t i;
	uint64_t done; /* bytes of element i */
};

static const char *verb(const struct job *j)
{
	return j->b->read ? "read from" : "write to";
}

static int32_t not_registered(const struct job *j, uint32_t i, uint64_t at)
{
	uint64_t begin = (uintptr_t)j->b->remote[i];
	uint64_t end = begin + j->b->len[i];

	if (remote_was_used(j->remote, begin, end))
		return smem_err(SMEM_STALE,
				"%s [0x%llx, 0x%llx) of session %s: of an earlier incarnation, the "
				"present one has not registered 0x%llx (element %u)",
				verb(j), (unsigned long long)begin, (unsigned long long)end,
				j->remote->name, (unsigned long long)at, i);
	return smem_err(SMEM_INVALID_PARAM,
			"%s [0x%llx, 0x%llx) of session %s: 0x%llx is not registered (element %u)",
			verb(j), (unsigned long long)begin, (unsigned long long)end,
			j->remote->name, (unsigned long long)at, i);
}

static int32_t withdrawn(const struct job *j, uint32_t i)
{
	uint64_t begin = (uintptr_t)j->b->remote[i];

	return smem_err(SMEM_STALE,
			"%s [0x%llx, 0x%llx) of session %s: deregistered meanwhile (element %u)",
			verb(j), (unsigned long long)begin,
			(unsigned long long)(begin + j->b->len[i]), j->remote->name, i);
}

static int32_t ended(const struct job *j, int32_t state)
{
	if (state == SMEM_OBJECT_NOT_EXISTS)
		return smem_err(state, "session %s has been destroyed", j->remote->name);
	return smem_err(state, "session %s is lost", j->remote->name);
}

static int32_t no_path(const struct job *j, uint32_t i)
{
	uint64_t begin = (uintptr_t)j->b->remote[i];

	return smem_err(SMEM_UNREACHABLE, "%s [0x%llx, 0x%llx) of session %s: %s", verb(j),
			(unsigned long long)begin, (unsigned long long)(begin + j->b->len[i]),
			j->remote->name, j->link->path.why);
}

/* ---- looking ---- */

/* The file mapping behind the present hit that takes it whole; NULL: use the path. */
static const struct link_map *map_of_hit(struct job *j)
{
	const struct region_piece *p = &j->hit.piece;

	if (!p->object)
		return NULL;
	if (!j->map || j->map->object != p->object)
		j->map = link_map_of(j->link, p->object);
	if (!j->map || p->offset > j->map->size || p->end - p->begin > j->map->size - p->offset)
		return NULL;
	return j->map;
}

/* Bytes from `at` that the table shows as one piece of the batch; 0: none. */
static inline uint64_t look(struct job *j, uint64_t at, uint64_t len)
{
	const struct region_piece *p = &j->hit.piece;

	if ((at < p->begin || at >= p->end) && !region_view_find(&j->link->view, at, &j->hit))
		return 0;
	uint64_t there = p->end - at;
	return there < len ? there : len;
}

/* What was seen before the mark does not count under it; its index is still a good hint. */
static void look_afresh(struct job *j)
{
	j->hit.piece = (struct region_piece){0};
}

/* Is all of it there, and reached? Without a mark, so only the order of failures depends on it. */
static int32_t look_through(struct job *j)
{
	for (uint32_t i = 0; i < j->b->n; i++) {
		uint64_t at = (uintptr_t)j->b->remote[i];
		uint64_t left = j->b->len[i];
		while (left) {
			uint64_t got = look(j, at, left);
			if (!got)
				return not_registered(j, i, at);
			if (!j->link->path.ep && !map_of_hit(j))
				return no_path(j, i);
			at += got;
			left -= got;
		}
	}
	return 0;
}

/* ---- filling the scratch ---- */

static void add(struct job *j, struct smem_xfer *last, struct smem_xfer *next, char *dst,
		const char *src, uint64_t len, size_t *count)
{
	j->bytes += len;
	if (last && (char *)last->dst + last->width == dst &&
	    (const char *)last->src + last->width == src) {
		last->width += len;
		return;
	}
	*next = (struct smem_xfer){.dst = dst, .src = src, .width = len, .height = 1};
	(*count)++;
}

static void put_piece(struct job *j, char *local, uint64_t at, uint64_t len)
{
	const struct link_map *map = map_of_hit(j);
	struct smem_xfer *x = j->x;
	size_t c = j->copies;
	size_t s = j->room - j->sends;
	char *remote =
	    map ? map->base + j->hit.piece.offset + (at - j->hit.piece.begin) : (char *)at;
	char *dst = j->b->read ? local : remote;
	const char *src = j->b->read ? remote : local;

	if (map)
		add(j, c ? &x[c - 1] : NULL, &x[c], dst, src, len, &j->copies);
	else
		add(j, j->sends ? &x[s] : NULL, &x[s - 1], dst, src, len, &j->sends);
}

/* Take elements from `s` up to `end` until the scratch is full. *lost: the element that is not
 * covered; else it is untouched. */
static int32_t fill(struct job *j, struct spot *s, uint32_t end, uint64_t *uncovered)
{
	j->copies = j->sends = 0;
	j->bytes = 0;
	while (s->i < end && j->copies + j->sends < j->room && j->bytes < STRETCH_BYTES) {
		uint64_t at = (uintptr_t)j->b->remote[s->i] + s->done;
		uint64_t left = j->b->len[s->i] - s->done;
		if (left > STRETCH_BYTES - j->bytes)
			left = STRETCH_BYTES - j->bytes;
		uint64_t got = look(j, at, left);
		if (!got) {
			*uncovered = at;
			return SMEM_INVALID_PARAM;
		}
		if (!j->link->path.ep && !map_of_hit(j))
			return no_path(j, s->i);
		put_piece(j, (char *)j->b->local[s->i] + s->done, at, got);
		s->done += got;
		if (s->done == j->b->len[s->i])
			*s = (struct spot){.i = s->i + 1};
	}
	return 0;
}

static int32_t send_all(const struct job *j, const struct smem_xfer *x, size_t n)
{
	const struct path *path = &j->link->path;

	int32_t e =
	    j->b->read ? path->ep->ops->get(path->ep, x, n) : path->ep->ops->put(path->ep, x, n);
	if (e == 0)
		return 0;
	int32_t state = link_state(j->link);
	return state ? ended(j, state) : e;
}

static int32_t move(const struct job *j)
{
	if (j->copies)
		device_host.copy(j->x, j->copies);
	return j->sends ? send_all(j, &j->x[j->room - j->sends], j->sends) : 0;
}

/* ---- a peer whose table is seen here ---- */

/* Mark [i, end) of the batch. */
static void mark_elements(struct job *j, struct mark_ref *ref, uint32_t i, uint32_t end)
{
	uint64_t lo = UINT64_MAX;
	uint64_t hi = 0;

	look_afresh(j);
	for (; i < end; i++) {
		uint64_t begin = (uintptr_t)j->b->remote[i];
		if (begin < lo)
			lo = begin;
		if (begin + j->b->len[i] > hi)
			hi = begin + j->b->len[i];
	}
	mark_set(ref, lo, hi);
}

/* The whole batch at once. *fits false: it takes more than the scratch has room for, and nothing
 * has moved. */
static int32_t move_whole(struct job *j, struct mark_ref *ref, bool *fits)
{
	struct spot s = {0};
	uint64_t uncovered = 0;

	mark_elements(j, ref, 0, j->b->n);
	int32_t e = link_state(j->link);
	if (e)
		e = ended(j, e);
	else
		e = fill(j, &s, j->b->n, &uncovered);
	*fits = e || s.i == j->b->n;
	if (!e && *fits)
		e = move(j);
	mark_clear(ref);
	return uncovered ? not_registered(j, s.i, uncovered) : e;
}

/* Elements of one stretch: as many as may fit. */
static uint32_t stretch_end(const struct job *j, const struct spot *s)
{
	uint64_t bytes = 0;
	uint32_t i = s->i;

	while (i < j->b->n && i - s->i < j->room && bytes < STRETCH_BYTES)
		bytes += j->b->len[i++];
	return i;
}

static int32_t move_stretches(struct job *j, struct mark_ref *ref)
{
	struct spot s = {0};
	int32_t e = look_through(j);

	while (!e && s.i < j->b->n) {
		uint32_t end = stretch_end(j, &s);
		uint64_t uncovered = 0;
		mark_elements(j, ref, s.i, end);
		e = link_state(j->link);
		if (e)
			e = ended(j, e);
		else
			e = fill(j, &s, end, &uncovered);
		if (!e)
			e = move(j);
		mark_clear(ref);
		if (uncovered)
			e = withdrawn(j, s.i);
	}
	return e;
}

static int32_t move_shared(struct job *j, uint64_t bytes)
{
	struct smem_xfer small[SMALL];
	auto_free struct smem_xfer *large = NULL;
	struct mark_ref *ref;
	bool fits = false;

	j->x = small;
	j->room = SMALL;
	if (j->b->n > SMALL) {
		size_t room = j->b->n < STRETCH ? j->b->n + SMALL : STRETCH;
		large = malloc(room * sizeof(*large));
		if (large) { /* else slowly */
			j->x = large;
			j->room = room;
		}
	}
	int32_t e = marker_take(j->link->marker, &ref);
	if (e)
		return e;
	if (j->b->n <= j->room && bytes <= STRETCH_BYTES)
		e = move_whole(j, ref, &fits);
	if (!fits)
		e = move_stretches(j, ref);
	marker_give(ref);
	return e;
}

/* ---- a peer on another host ---- */

static int32_t move_far(struct job *j)
{
	uint32_t n = j->b->n;
	auto_free struct smem_xfer *x = malloc(n * sizeof(*x));

	if (!x)
		return smem_err(SMEM_MALLOC_FAILED, "batch of %u elements", n);
	for (uint32_t i = 0; i < n; i++) {
		const void *src = j->b->read ? j->b->remote[i] : j->b->local[i];
		void *dst = j->b->read ? j->b->local[i] : j->b->remote[i];
		x[i] =
		    (struct smem_xfer){.dst = dst, .src = src, .width = j->b->len[i], .height = 1};
	}
	int32_t e = send_all(j, x, n);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t begin = (uintptr_t)j->b->remote[i];
		uint64_t end = begin + j->b->len[i];
		if (e == 0)
			remote_remember(j->remote, begin, end);
		else if (e == SMEM_INVALID_PARAM && remote_was_used(j->remote, begin, end))
			return not_registered(j, i, begin);
	}
	return e;
}

/* ---- */

static int32_t check(const struct session_batch *b, uint64_t *bytes)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		uint64_t begin = (uintptr_t)b->remote[i];
		if (b->len[i] > UINT64_MAX - begin)
			return smem_err(SMEM_INVALID_PARAM,
					"%s 0x%llx + %zu of session %s wraps (element %u)",
					b->read ? "source" : "destination",
					(unsigned long long)begin, b->len[i], b->peer, i);
		sum = b->len[i] > UINT64_MAX - sum ? UINT64_MAX : sum + b->len[i];
	}
	*bytes = sum;
	return 0;
}

static int32_t transfer_once(struct session *s, struct job *j, uint64_t bytes, bool *ret_replaced)
{
	const struct session_batch *b = j->b;
	uint32_t ticket = 0;
	char why[ERR_TEXT_MAX];

	j->hit = (struct region_hit){0};
	j->map = NULL;
	int32_t e = remote_enter(s, j->remote, &j->link, &ticket);
	if (e)
		return e;
	bool far = !j->link->shared;
	uint64_t incarnation = j->link->incarnation;
	if (!b->read && !j->link->writable)
		e = smem_err(SMEM_INVALID_PARAM, "session %s has role SENDER: it is not writable",
			     j->remote->name);
	else
		e = far ? move_far(j) : move_shared(j, bytes);
	gate_exit(&s->gate, ticket);
	if (e != SMEM_PEER_LOST || !far)
		return e;
	snprintf(why, sizeof(why), "%s", err_detail());
	*ret_replaced = remote_replaced(s, j->remote, incarnation);
	return smem_err(e, "%s", why);
}

int32_t session_transfer(struct session *s, const struct session_batch *b)
{
	struct job j = {.b = b};
	bool replaced = false;
	uint64_t bytes = 0;

	int32_t e = remote_find(s, b->peer, &j.remote);
	if (!e)
		e = check(b, &bytes);
	if (!e)
		e = transfer_once(s, &j, bytes, &replaced);
	if (replaced)
		e = transfer_once(s, &j, bytes, &replaced);
	return e;
}
