/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The owner's side of a session: its name, its pages, its registrations.
 *
 * The name is a key in the store that lives with this process (a lease) and holds the card. A
 * second key without a lease says that the name was taken and not given back: it is what tells a
 * lost session from one that never was.
 *
 * A registration is visible to peers on this host as soon as it is in the table, which is before
 * the call returns; peers elsewhere ask for what they do not know. To withdraw is to change the
 * table, then to wait for the marks that were set before (marks.h), then to revoke what the network
 * knows.
 */
#include "core/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/session_impl.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/log.h"
#include "util/rng.h"

#define WITHDRAW_MS 5000 /* the API's own limit of a deregistration and a destroy */
#define VACANCY_MS  1000 /* a loss is seen within this; then a name that is held is held */
#define AGENT_MS    1000

/* ---- the name ---- */

struct vacancy {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool vacant;
};

static void name_changed(void *arg, const char *key, const void *data, size_t len)
{
	struct vacancy *v = arg;

	(void)key;
	(void)len;
	if (data)
		return;
	LOCKED(&v->lock);
	v->vacant = true;
	pthread_cond_signal(&v->cond);
}

/* Wait until the key is gone. */
static int32_t await_vacancy(struct session *s, const char *key, struct deadline deadline)
{
	struct vacancy v = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
	struct store_watch *watch = NULL;
	struct deadline most = deadline_in_ms(VACANCY_MS);

	if (most.end > deadline.end)
		most = deadline;
	int32_t e = store_watch(s->store, key, name_changed, &v, deadline, &watch);
	if (e)
		return e;
	struct timespec until = deadline_timespec(most);
	pthread_mutex_lock(&v.lock);
	while (!v.vacant &&
	       pthread_cond_clockwait(&v.cond, &v.lock, CLOCK_MONOTONIC, &until) != ETIMEDOUT)
		;
	bool vacant = v.vacant;
	pthread_mutex_unlock(&v.lock);
	store_unwatch(watch);
	return vacant ? 0
		      : smem_err(SMEM_DUPLICATED_OBJECT, "session %s is alive at %s", s->name,
				 store_url_text(s->store));
}

/* Who has the name? 0: nobody any more, try again. */
static int32_t holder_gone(struct session *s, const char *key, struct deadline deadline)
{
	struct store_bytes bytes = {0};
	struct session_blob *blob = NULL;
	struct agent_peer *peer = NULL;

	int32_t e = store_get(s->store, key, false, deadline, &bytes);
	if (e)
		return e == SMEM_OBJECT_NOT_EXISTS ? 0 : e;
	blob = malloc(sizeof(*blob));
	e = blob ? session_blob_decode(bytes.data, bytes.len, blob)
		 : smem_err(SMEM_MALLOC_FAILED, "session %s", s->name);
	store_bytes_free(&bytes);
	if (!e)
		e = agent_peer_open(&blob->card.agent, deadline_in_ms(AGENT_MS), NULL, NULL, &peer);
	if (e == 0 || e == SMEM_TIMEOUT) {
		e = smem_err(SMEM_DUPLICATED_OBJECT, "session %s is alive at %s: process %u",
			     s->name, store_url_text(s->store), blob->card.agent.pid);
		agent_peer_close(peer);
	} else {
		/* it died here, or is elsewhere: the store will know within a moment */
		e = await_vacancy(s, key, deadline);
	}
	free(blob);
	return e;
}

static int32_t claim(struct session *s, struct deadline deadline)
{
	char key[SESSION_KEY_MAX];

	session_key_live(s->name, key);
	for (;;) {
		int32_t e = store_set(s->store, key, &s->blob, session_blob_len(&s->blob),
				      STORE_EPHEMERAL | STORE_EXCLUSIVE, deadline);
		if (e != SMEM_DUPLICATED_OBJECT) {
			s->claimed = e == 0;
			if (e)
				return e;
			break;
		}
		e = holder_gone(s, key, deadline);
		if (e)
			return e;
	}
	session_key_taken(s->name, key);
	int32_t e = store_set(s->store, key, "", 0, 0, deadline);
	s->taken = e == 0;
	return e;
}

static void give_up_name(struct session *s)
{
	char key[SESSION_KEY_MAX];
	struct deadline deadline = deadline_in_ms(AGENT_MS);

	/* an end in order: unknown from now on, not lost */
	if (s->taken && !store_lost(s->store)) {
		session_key_taken(s->name, key);
		store_del(s->store, key, deadline);
	}
	if (s->claimed && !store_lost(s->store)) {
		session_key_live(s->name, key);
		store_del(s->store, key, deadline);
	}
	s->taken = s->claimed = false;
}

/* ---- create ---- */

static void vouch(void *arg)
{
	struct session *s = arg;

	s->vouched = regions_vouch(s->regions) == 0;
}

static void unvouch(void *arg)
{
	struct session *s = arg;

	regions_unvouch(s->regions);
}

static int32_t make_pages(struct session *s)
{
	struct session_card *card = &s->blob.card;
	bool writable = card->role != SMEM_TRANS_SENDER;

	int32_t e = regions_create(card->incarnation, writable, &s->regions);
	if (!e)
		e = marks_create(&s->marks);
	if (!e)
		e = backings_create(card->cookie, writable, &s->backings);
	if (e)
		return e;
	loop_call(s->loop, vouch, s);
	if (!s->vouched)
		return smem_err(SMEM_ERROR, "session %s: nobody vouches for it", s->name);
	e = agent_offer(card->regions, card->cookie, regions_fd(s->regions), NULL, 0);
	if (e)
		return e;
	e = agent_offer(card->marks, card->cookie, marks_fd(s->marks), NULL, 0);
	if (e)
		agent_withdraw(card->regions);
	s->offered = e == 0;
	return e;
}

static int32_t make_card(struct session *s, const struct session_config *c)
{
	struct session_card *card = &s->blob.card;
	size_t addrs_len = 0;

	card->version = SESSION_CARD_VERSION;
	card->role = c->role;
	card->incarnation = rng_u64();
	card->regions = rng_u64();
	card->marks = rng_u64();
	card->agent = *agent_own();
	int32_t e = rng_bytes(card->cookie, sizeof(card->cookie));
	if (!e)
		e = rng_bytes(card->secret, sizeof(card->secret));
	if (!e)
		e = paths_addresses(s->blob.addrs, sizeof(s->blob.addrs), &addrs_len);
	card->addrs_len = (uint32_t)addrs_len;
	if (!e && (!card->incarnation || !card->regions || !card->marks))
		e = smem_err(SMEM_IO, "no random numbers");
	return e;
}

static int32_t build(struct session *s, const struct session_config *c, const struct store_url *url,
		     struct deadline deadline)
{
	struct sockaddr_storage route;
	socklen_t route_len = sizeof(route);

	int32_t e = store_open(url, STORE_CONNECT, deadline, &s->store);
	if (!e)
		e = loop_io_get(&s->loop);
	if (!e) {
		e = agent_get();
		s->agent = e == 0;
	}
	if (!e) {
		bool known = store_local_addr(s->store, &route, &route_len) == 0;
		if (store_encrypted(s->store))
			paths_store_encrypted();
		e = paths_get(known ? &route : NULL, known ? route_len : 0);
		s->paths = e == 0;
	}
	if (!e)
		e = make_card(s, c);
	if (!e)
		e = make_pages(s);
	return e ? e : claim(s, deadline);
}

static void report(void *arg, struct survey_writer *w)
{
	struct session *s = arg;

	survey_object(
	    w, &(struct survey_object){.kind = SURVEY_TRANS, .name = s->name, .joined = true});
	remotes_report(s, w);
}

int32_t session_create(const struct session_config *c, struct session **ret)
{
	struct deadline deadline = deadline_in_s(c->timeout_s);
	struct store_url url;
	struct store_url name;

	int32_t e = store_url_parse(c->store_url, false, &url);
	if (!e)
		e = store_session_parse(c->name, &name);
	if (e)
		return e;
	struct session *s = aligned_alloc(64, (sizeof(*s) + 63) / 64 * 64);
	if (!s)
		return smem_err(SMEM_MALLOC_FAILED, "session %s", name.text);
	memset(s, 0, sizeof(*s));
	memcpy(s->name, name.text, sizeof(s->name) - 1);
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->remotes_lock, NULL);
	e = build(s, c, &url, deadline);
	if (e) {
		session_destroy(s);
		return e;
	}
	s->survey = (struct survey_source){.store = s->store, .report = report, .arg = s};
	survey_list(&s->survey);
	LOG_INFO("trans", "session %s: created, role %d, device %u", s->name, (int)c->role,
		 c->device);
	*ret = s;
	return 0;
}

/* ---- destroy ---- */

void session_wake(struct session *s)
{
	atomic_store(&s->closing, true);
}

static void withdraw_all(struct session *s)
{
	struct deadline deadline = deadline_in_ms(WITHDRAW_MS);
	struct registration *reg;

	regions_shut(s->regions);
	if (marks_await(s->marks, 0, UINT64_MAX, deadline) != 0)
		LOG_WARN("trans", "session %s: destroyed although %s", s->name, err_detail());
	while ((reg = regions_any(s->regions))) {
		if (paths_withdraw(reg->id, deadline) != 0)
			LOG_WARN("trans", "session %s: destroyed although %s", s->name,
				 err_detail());
		regions_forget(s->regions, reg);
		free(reg);
	}
}

void session_destroy(struct session *s)
{
	survey_unlist(&s->survey);
	if (s->regions && s->marks && s->paths)
		withdraw_all(s);
	if (s->offered) {
		agent_withdraw(s->blob.card.regions);
		agent_withdraw(s->blob.card.marks);
	}
	if (s->store)
		give_up_name(s);
	remotes_free(s);
	backings_destroy(s->backings);
	if (s->vouched)
		loop_call(s->loop, unvouch, s);
	regions_destroy(s->regions);
	marks_destroy(s->marks);
	if (s->paths)
		paths_put();
	if (s->agent)
		agent_put();
	if (s->loop)
		loop_io_put(s->loop);
	store_close(s->store, STORE_LINGER_MS);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->remotes_lock);
	free(s);
}

/* ---- registrations ---- */

static void drop_registration(struct session *s, struct registration *reg)
{
	if (!reg)
		return;
	backings_drop(s->backings, reg->piece, reg->n);
	free(reg);
}

static int32_t make_registration(struct session *s, uint64_t begin, uint64_t len,
				 struct registration **ret)
{
	struct region_piece piece[BACKING_PIECES + 1];
	uint32_t n = backings_take(s->backings, begin, begin + len, piece);
	struct registration *reg = calloc(1, sizeof(*reg) + n * sizeof(piece[0]));

	if (!reg) {
		backings_drop(s->backings, piece, n);
		return smem_err(SMEM_MALLOC_FAILED, "registration of 0x%llx",
				(unsigned long long)begin);
	}
	reg->begin = begin;
	reg->end = begin + len;
	reg->id = rng_u64();
	reg->n = n;
	memcpy(reg->piece, piece, n * sizeof(piece[0]));
	*ret = reg;
	return 0;
}

/* Before they are published, so that a peer that sees one can use it. */
static int32_t expose_all(struct session *s, struct registration **reg, uint32_t n)
{
	bool writable = s->blob.card.role != SMEM_TRANS_SENDER;
	int32_t e = 0;
	uint32_t done = 0;

	for (; done < n && !e; done++)
		e = paths_expose(reg[done]->id, (void *)(uintptr_t)reg[done]->begin,
				 reg[done]->end - reg[done]->begin, writable, s->blob.card.secret);
	for (uint32_t i = 0; e && i + 1 < done; i++)
		paths_withdraw(reg[i]->id, deadline_in_ms(WITHDRAW_MS));
	return e;
}

static int32_t publish(struct session *s, struct registration **reg, uint32_t n)
{
	auto_free struct registration **list = malloc(n * sizeof(struct registration *));

	if (!list)
		return smem_err(SMEM_MALLOC_FAILED, "%u registrations", n);
	memcpy(list, reg, n * sizeof(struct registration *));
	int32_t e = expose_all(s, reg, n);
	if (e)
		return e;
	e = regions_add(s->regions, list, n);
	/* what was not taken, because all failed or because it is there already, goes */
	for (uint32_t i = 0; i < n; i++) {
		if (e || !list[i])
			paths_withdraw(reg[i]->id, deadline_in_ms(WITHDRAW_MS));
		else
			reg[i] = NULL;
	}
	return e;
}

int32_t session_register(struct session *s, void *const *addr, const size_t *len, uint32_t n)
{
	struct registration *one = NULL;
	struct registration **reg = &one;
	int32_t e = 0;

	if (store_lost(s->store))
		return smem_err(SMEM_UNREACHABLE, "the store %s is lost", store_url_text(s->store));
	if (n > 1)
		reg = calloc(n, sizeof(struct registration *));
	if (!reg)
		return smem_err(SMEM_MALLOC_FAILED, "%u registrations", n);
	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < n && !e; i++)
		e = make_registration(s, (uintptr_t)addr[i], len[i], &reg[i]);
	if (!e)
		e = publish(s, reg, n);
	for (uint32_t i = 0; i < n; i++)
		drop_registration(s, reg[i]);
	pthread_mutex_unlock(&s->lock);
	if (n > 1)
		free(reg);
	return e;
}

int32_t session_deregister(struct session *s, void *addr)
{
	struct deadline deadline = deadline_in_ms(WITHDRAW_MS);
	uint64_t begin = (uintptr_t)addr;

	pthread_mutex_lock(&s->lock);
	struct registration *reg = regions_find(s->regions, begin);
	uint64_t end = reg ? reg->end : 0;
	uint64_t id = reg ? reg->id : 0;
	int32_t e = reg ? regions_close(s->regions, reg)
			: smem_err(SMEM_OBJECT_NOT_EXISTS, "address %p is not registered", addr);
	pthread_mutex_unlock(&s->lock);
	if (!e)
		e = marks_await(s->marks, begin, end, deadline);
	if (!e)
		e = paths_withdraw(id, deadline);
	if (e)
		return e;
	LOCKED(&s->lock);
	reg = regions_find(s->regions, begin);
	if (reg && reg->id == id) { /* else somebody else has deregistered it too */
		regions_forget(s->regions, reg);
		drop_registration(s, reg);
	}
	return 0;
}
