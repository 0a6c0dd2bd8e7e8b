/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers of a session. A name is looked up in a hash that only grows, so without a lock; the text
 * need not be canonical, every spelling that was used has an entry of its own. Behind it is the
 * link to the present incarnation.
 *
 * Nothing is asked ahead of time. The first write, and the first after a link has died, ask the
 * store who the peer is now. What the dead incarnation had registered is remembered, so that its
 * addresses are told from addresses that never were.
 *
 * A dead link cannot be freed by who finds it dead, for others may be inside: it is retired, and
 * closed when a drain of the session's gate shows that nobody is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/session_impl.h"
#include "util/cleanup.h"
#include "util/env.h"
#include "util/err.h"

/* ---- names ---- */

static uint64_t hash_of(const char *text)
{
	uint64_t h = 14695981039346656037ull;

	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 1099511628211ull;
	return h ^ h >> 29;
}

static struct remote *find_name(struct session *s, const char *text, uint64_t hash)
{
	struct remote_name *n =
	    atomic_load_explicit(&s->bucket[hash % REMOTE_BUCKETS], memory_order_acquire);

	for (; n; n = n->next)
		if (n->hash == hash && strcmp(n->text, text) == 0)
			return n->remote;
	return NULL;
}

static struct remote *find_canonical(struct session *s, const char *name)
{
	for (struct remote *r = s->remotes; r; r = r->next)
		if (strcmp(r->name, name) == 0)
			return r;
	struct remote *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	snprintf(r->name, sizeof(r->name), "%s", name);
	pthread_mutex_init(&r->lock, NULL);
	r->next = s->remotes;
	s->remotes = r;
	return r;
}

static int32_t add_name(struct session *s, const char *text, uint64_t hash, struct remote **ret)
{
	struct store_url url;

	int32_t e = store_session_parse(text, &url);
	if (e)
		return e;
	LOCKED(&s->remotes_lock);
	*ret = find_name(s, text, hash);
	if (*ret)
		return 0;
	*ret = find_canonical(s, url.text);
	struct remote_name *n = *ret ? malloc(sizeof(*n) + strlen(text) + 1) : NULL;
	if (!n)
		return smem_err(SMEM_MALLOC_FAILED, "session %s", url.text);
	n->remote = *ret;
	n->hash = hash;
	strcpy(n->text, text);
	_Atomic(struct remote_name *) *head = &s->bucket[hash % REMOTE_BUCKETS];
	n->next = atomic_load(head);
	atomic_store_explicit(head, n, memory_order_release);
	return 0;
}

int32_t remote_find(struct session *s, const char *text, struct remote **ret)
{
	uint64_t hash = hash_of(text);

	*ret = find_name(s, text, hash);
	return *ret ? 0 : add_name(s, text, hash, ret);
}

/* ---- ranges of the past ---- */

static int by_begin(const void *a, const void *b)
{
	const struct region_piece *x = a;
	const struct region_piece *y = b;

	return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* Join `n` pieces to the past; without memory it is forgotten, and -2000 is said instead of -2022.
 */
static void remember(struct remote *r, const struct region_piece *piece, size_t n)
{
	struct region_piece *all = malloc((r->past_n + n + 1) * sizeof(*all));
	size_t k = 0;

	if (!all)
		return;
	if (r->past_n)
		memcpy(all, r->past, r->past_n * sizeof(*all));
	if (n)
		memcpy(all + r->past_n, piece, n * sizeof(*all));
	n += r->past_n;
	qsort(all, n, sizeof(*all), by_begin);
	for (size_t i = 0; i < n; i++) {
		if (k && all[i].begin <= all[k - 1].end) {
			if (all[i].end > all[k - 1].end)
				all[k - 1].end = all[i].end;
		} else {
			all[k++] = all[i];
		}
	}
	free(r->past);
	r->past = all;
	r->past_n = k;
}

bool remote_was_used(struct remote *r, uint64_t begin, uint64_t end)
{
	LOCKED(&r->lock);
	for (size_t i = 0; r->dead && i < r->past_n; i++)
		if (r->past[i].begin < end && r->past[i].end > begin)
			return true;
	return false;
}

void remote_remember(struct remote *r, uint64_t begin, uint64_t end)
{
	struct region_piece piece = {.begin = begin, .end = end};

	LOCKED(&r->lock);
	for (size_t i = 0; i < r->past_n; i++)
		if (r->past[i].begin <= begin && r->past[i].end >= end)
			return;
	remember(r, &piece, 1);
}

/* ---- incarnations ---- */

/* Close what is retired, if nobody is inside now; else the next one tries. */
static void reap(struct session *s)
{
	pthread_mutex_lock(&s->remotes_lock);
	struct link *list = s->retired;
	s->retired = NULL;
	pthread_mutex_unlock(&s->remotes_lock);
	if (!list)
		return;
	if (gate_drain(&s->gate, deadline_in_ms(0))) {
		for (struct link *next; list; list = next) {
			next = list->next;
			link_close(list);
		}
		return;
	}
	LOCKED(&s->remotes_lock);
	struct link *last = list;
	while (last->next)
		last = last->next;
	last->next = s->retired;
	s->retired = list;
}

static void bury(struct session *s, struct remote *r, struct link *l)
{
	struct region_piece *list = NULL;
	size_t n = 0;

	r->dead = l->incarnation;
	r->dead_code = link_state(l);
	if (l->shared && region_view_list(&l->view, &list, &n) == 0)
		remember(r, list, n);
	free(list);
	atomic_store(&r->link, NULL);
	LOCKED(&s->remotes_lock);
	l->next = s->retired;
	s->retired = l;
}

static int32_t over(struct session *s, const struct remote *r, int32_t code)
{
	if (code == SMEM_OBJECT_NOT_EXISTS)
		return smem_err(code, "session %s is not known at %s", r->name,
				store_url_text(s->store));
	return smem_err(SMEM_PEER_LOST, "session %s is lost", r->name);
}

/* The card of who has the name now. */
static int32_t look_up(struct session *s, struct remote *r, struct session_blob *ret)
{
	struct store_bytes bytes = {0};
	struct deadline deadline = deadline_in_ms((uint64_t)env_int(ENV_SILENCE_MS));
	char key[SESSION_KEY_MAX];

	session_key_live(r->name, key);
	int32_t e = store_get(s->store, key, false, deadline, &bytes);
	if (e == 0) {
		e = session_blob_decode(bytes.data, bytes.len, ret);
		store_bytes_free(&bytes);
		return e;
	}
	if (e == SMEM_OBJECT_NOT_EXISTS) {
		session_key_taken(r->name, key);
		e = store_get(s->store, key, false, deadline, &bytes);
		store_bytes_free(&bytes);
		if (e == 0 || e == SMEM_OBJECT_NOT_EXISTS)
			return over(s, r, e == 0 ? SMEM_PEER_LOST : SMEM_OBJECT_NOT_EXISTS);
	}
	/* without the store, what is known of it is that it died */
	if (r->dead)
		return over(s, r, r->dead_code);
	return e;
}

static int32_t resolve_once(struct session *s, struct remote *r)
{
	struct session_blob *blob = malloc(sizeof(*blob));
	struct link *l = NULL;

	if (!blob)
		return smem_err(SMEM_MALLOC_FAILED, "session %s", r->name);
	int32_t e = look_up(s, r, blob);
	if (!e && blob->card.incarnation == r->dead)
		e = over(s, r, r->dead_code); /* the store is about to learn it */
	if (!e) {
		const struct link_open o = {
		    .name = r->name,
		    .blob = blob,
		    .store = s->store,
		    .closing = &s->closing,
		    .own_process = memcmp(blob->card.agent.name, s->blob.card.agent.name,
					  sizeof(blob->card.agent.name)) == 0,
		};
		e = link_open(&o, &l);
	}
	if (e == SMEM_PEER_LOST && !r->dead_code) {
		r->dead = blob->card.incarnation;
		r->dead_code = SMEM_PEER_LOST;
	}
	if (!e)
		atomic_store(&r->link, l);
	free(blob);
	return e;
}

static int32_t resolve(struct session *s, struct remote *r)
{
	LOCKED(&r->lock);
	struct link *l = atomic_load(&r->link);
	if (l && link_state(l) == 0)
		return 0;
	if (l)
		bury(s, r, l);
	/* a card that is outdated when it is used: it was replaced meanwhile, so ask again */
	int32_t e = resolve_once(s, r);
	for (int i = 0; e == SMEM_STALE && i < 3; i++)
		e = resolve_once(s, r);
	LOCKED(&s->remotes_lock);
	snprintf(r->failed, sizeof(r->failed), "%s", e ? err_detail() : "");
	return e;
}

bool remote_replaced(struct session *s, struct remote *r, uint64_t incarnation)
{
	auto_free struct session_blob *blob = malloc(sizeof(*blob));

	LOCKED(&r->lock);
	struct link *l = atomic_load(&r->link);
	if (!l || l->incarnation != incarnation)
		return true;
	if (!blob || look_up(s, r, blob) != 0 || blob->card.incarnation == incarnation)
		return false;
	atomic_store(&l->dead, SMEM_PEER_LOST);
	return true;
}

int32_t remote_enter(struct session *s, struct remote *r, struct link **ret, uint32_t *ticket)
{
	for (int tries = 0;; tries++) {
		*ticket = gate_enter(&s->gate);
		struct link *l = atomic_load(&r->link);
		int32_t state = l ? link_state(l) : 0;
		if (l && state == 0) {
			*ret = l;
			return 0;
		}
		gate_exit(&s->gate, *ticket);
		if (tries == 3) /* it dies faster than it can be reached */
			return over(s, r, state ? state : SMEM_PEER_LOST);
		int32_t e = resolve(s, r);
		reap(s);
		if (e)
			return e;
	}
}

static void report(struct remote *r, struct survey_writer *w)
{
	struct survey_row row = {.state = SURVEY_JOINING, .name = r->name};
	struct link *l = atomic_load(&r->link);

	if (l) {
		row.state = link_state(l) == 0 ? SURVEY_MEMBER : SURVEY_LOST;
		row.shared = l->shared;
		row.pid = l->pid;
		row.host = l->host;
		if (row.state == SURVEY_LOST)
			survey_row(w, &row);
		else
			survey_path_row(w, &row, &l->path, atomic_load(&l->ep));
		return;
	}
	if (r->failed[0]) {
		row.state = SURVEY_FAILED;
		row.refused_n = 1;
		row.refused[0].why = r->failed;
	}
	survey_row(w, &row);
}

void remotes_report(struct session *s, struct survey_writer *w)
{
	uint32_t ticket = gate_enter(&s->gate);

	pthread_mutex_lock(&s->remotes_lock);
	for (struct remote *r = s->remotes; r; r = r->next)
		report(r, w);
	pthread_mutex_unlock(&s->remotes_lock);
	gate_exit(&s->gate, ticket);
}

void remotes_free(struct session *s)
{
	for (uint32_t i = 0; i < REMOTE_BUCKETS; i++) {
		for (struct remote_name *n = atomic_load(&s->bucket[i]), *next; n; n = next) {
			next = n->next;
			free(n);
		}
	}
	for (struct link *l = s->retired, *next; l; l = next) {
		next = l->next;
		link_close(l);
	}
	for (struct remote *r = s->remotes, *next; r; r = next) {
		next = r->next;
		link_close(atomic_load(&r->link));
		pthread_mutex_destroy(&r->lock);
		free(r->past);
		free(r);
	}
}
