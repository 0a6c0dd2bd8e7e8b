/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making one is three steps that all ranks take together: they join a closed pool, the lowest rank
 * of each host hands out the control page, and all say whether they have it. What a rank could not
 * do in one of the last two travels in its contribution, so that all fail at once with its code and
 * its name.
 *
 * A host is a set of ranks that have mapped each other's memory. Each says whom it has mapped, and
 * all look at the same answers: if these are sets apart, each with one page, then collectives run
 * over the pages, and between them through the store.
 *
 * Deaths come on the I/O loop, from the store or from the agent of the peer, and go into the
 * control page, where they wake whoever waits; each rank tells the page what it learns, so one
 * notice is enough for all. Notices that come before the page is there are kept by the pool's peers
 * and looked up when it is.
 *
 * If the sets overlap, or a rank does not have the page of its set, then collectives go through the
 * store's gather, a request and a reply for each rank. In every case in which not all share one
 * page contexts are keys and the exit is a note.
 */
#include "core/symmetric.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/collective.h"
#include "core/context.h"
#include "core/exit.h"
#include "core/pool.h"
#include "core/round.h"
#include "util/cleanup.h"
#include "util/env.h"
#include "util/err.h"
#include "util/limits.h"
#include "util/log.h"
#include "util/rng.h"

enum gone { HERE, LOST, LEFT };

struct symmetric {
	struct symmetric_config config;
	struct pool *pool;
	struct control page; /* head NULL: none */
	uint64_t page_object;
	bool paged;			/* collectives run over the pages of the hosts */
	bool shared;			/* and there is one for all */
	_Atomic(struct control *) told; /* where losses go; NULL: they are only kept */
	struct collective collective;
	struct round round;
	_Atomic uint64_t exit_status; /* the exit's place when there is no shared page */
	_Atomic uint32_t exit_tick;
	_Atomic uint8_t *gone; /* by rank: enum gone */
	_Atomic uint64_t
	    announced[CONTROL_WORDS]; /* ranks whose loss the other hosts hear of too */
	pthread_mutex_t lock;	      /* own context, watch */
	struct exit_watch *watch;
};

uint32_t symmetric_rank(const struct symmetric *s)
{
	return s->config.rank;
}

uint32_t symmetric_size(const struct symmetric *s)
{
	return s->config.size;
}

char *symmetric_base(const struct symmetric *s)
{
	return s->pool->window[POOL_HBM].base;
}

/* ---- what the group says, on the I/O loop ---- */

static struct exit_place page_exit(struct control *page)
{
	return (struct exit_place){.status = &page->head->exit, .tick = &page->head->exit_tick};
}

static struct exit_place exit_place(struct symmetric *s)
{
	if (s->shared)
		return page_exit(&s->page);
	return (struct exit_place){.status = &s->exit_status, .tick = &s->exit_tick};
}

static void tell_page(struct control *page, uint32_t rank, enum gone how)
{
	collective_lost(page, rank, how == LEFT);
	exit_nudge(page_exit(page));
}

static void on_gone(struct symmetric *s, uint32_t rank, enum gone how)
{
	uint8_t here = HERE;

	if (rank >= s->config.size)
		return;
	atomic_compare_exchange_strong(&s->gone[rank], &here, (uint8_t)how);
	struct control *told = atomic_load(&s->told);
	if (told)
		tell_page(told, rank, how);
}

/* ---- deaths that one host knows of before the others ---- */

/*
 * A host's own ranks see a death at once, the store some time later, and by then they may have
 * given up and left: the others would hear of their leaving first, and name them. So who leaves
 * tells the deaths it knows of before.
 */
struct loss_note {
	uint32_t version;
	uint32_t zero;
	struct set lost;
};
_Static_assert(sizeof(struct loss_note) == 136, "wire layout");
#define LOSS_NOTE_VERSION 1u
#define LOSS_NOTE_MS	  500u

static void announced(struct symmetric *s, uint32_t rank)
{
	if (rank < s->config.size)
		atomic_fetch_or(&s->announced[rank / 64], 1ull << (rank % 64));
}

static void on_loss_note(struct symmetric *s, const struct loss_note *note)
{
	uint32_t i;

	if (note->version != LOSS_NOTE_VERSION)
		return;
	SET_FOREACH(i, &note->lost)
	{
		announced(s, i);
		if (i != s->config.rank)
			on_gone(s, i, LOST);
	}
}

void symmetric_tell_losses(struct symmetric *s)
{
	struct loss_note note = {.version = LOSS_NOTE_VERSION};

	if (!s->paged || s->shared)
		return;
	for (uint32_t i = 0; i < s->config.size; i++) {
		/* the page knows what any rank of this host knows */
		if (collective_alive(&s->page, i) == SMEM_PEER_LOST && !in_set(s->announced, i))
			set_add(&note.lost, i);
	}
	if (set_count(&note.lost) > 0 &&
	    store_group_note(pool_group(s->pool), &note, sizeof(note), false,
			     deadline_in_ms(LOSS_NOTE_MS)) != SMEM_OK)
		LOG_DEBUG("shm", "object %u: deaths are not told: %s", s->config.id, err_detail());
}

/* ---- what the group says ---- */

static void on_event(void *arg, const struct store_event *e)
{
	struct symmetric *s = arg;
	struct loss_note note;
	uint32_t status;

	switch (e->kind) {
	case STORE_EVENT_LEFT:
		on_gone(s, e->member, LEFT);
		break;
	case STORE_EVENT_LOST:
		if (e->seq != 0) /* the store's, not that of the rank's agent */
			announced(s, e->member);
		on_gone(s, e->member, LOST);
		break;
	case STORE_EVENT_NOTE:
		if (e->len == sizeof(note)) {
			memcpy(&note, e->data, sizeof(note));
			on_loss_note(s, &note);
		}
		if (e->len != sizeof(status))
			break;
		memcpy(&status, e->data, sizeof(status));
		exit_announce((struct exit_place){&s->exit_status, &s->exit_tick}, (int)status);
		break;
	default:
		break;
	}
}

/* From now on losses go to the page, those that came before as well. */
static void tell_losses(struct symmetric *s)
{
	atomic_store(&s->told, &s->page);
	for (uint32_t i = 0; i < s->config.size; i++) {
		enum gone how = (enum gone)atomic_load(&s->gone[i]);
		if (how != HERE)
			tell_page(&s->page, i, how);
	}
}

/* ---- make, meet ---- */

int32_t symmetric_new(const struct symmetric_config *config, struct deadline deadline,
		      struct symmetric **ret)
{
	struct symmetric *s = calloc(1, sizeof(*s));
	char name[32];

	if (!s)
		return smem_err(SMEM_MALLOC_FAILED, "symmetric object %u", config->id);
	s->config = *config;
	s->page.fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	round_init(&s->round, config->rank, config->size);
	s->gone = calloc(config->size, sizeof(*s->gone));
	if (!s->gone) {
		symmetric_free(s);
		return smem_err(SMEM_MALLOC_FAILED, "%u ranks of object %u", config->size,
				config->id);
	}
	snprintf(name, sizeof(name), "shm/%u", config->id);
	struct pool_config pool = {
	    .name = name,
	    .store = config->store,
	    .mode = STORE_GROUP_CLOSED,
	    .world = config->size,
	    .members = config->size,
	    .rank = config->rank,
	    .size = {[POOL_HBM] = config->bytes},
	    .size_name = {[POOL_HBM] = "symmetricSize"},
	    .members_name = "rankSize",
	    .keep_left = true,
	    .gate = config->gate,
	    .event = on_event,
	    .arg = s,
	};
	int32_t r = pool_create(&pool, deadline, &s->pool);
	if (r != SMEM_OK) {
		symmetric_free(s);
		return r;
	}
	*ret = s;
	return SMEM_OK;
}

/* What each rank says of one step; a code other than 0 fails all. */
struct step {
	uint32_t version;
	int32_t code;
	struct set set;	 /* who shares a page, this rank among them; empty: it wants none */
	uint64_t object; /* of the control page; 0: this rank does not have it */
	uint8_t cookie[AGENT_COOKIE];
	struct agent_addr agent; /* where the page is to be had, from who made it */
	char text[160];		 /* why */
};
_Static_assert(sizeof(struct step) == 384, "wire layout");
#define STEP_VERSION 2u

/* Tell the own result, hear all: `said` has room for what each rank says. */
static int32_t step_together(struct symmetric *s, const char *kind, struct step *own,
			     struct deadline deadline, struct step *said)
{
	struct store_gathered got = {0};

	own->version = STEP_VERSION;
	if (own->code != SMEM_OK)
		snprintf(own->text, sizeof(own->text), "%s", err_detail());
	int32_t r = store_group_gather(pool_group(s->pool), kind, strlen(kind), own, sizeof(*own),
				       deadline, NULL, &got);
	for (uint32_t i = 0; r == SMEM_OK && i < got.size; i++) {
		struct step *its = &said[i];
		if (got.size != s->config.size || got.part[i].len != sizeof(*its)) {
			r = smem_err(SMEM_IO, "rank %u sent a malformed %s", i, kind);
			break;
		}
		memcpy(its, got.part[i].data, sizeof(*its));
		its->text[sizeof(its->text) - 1] = '\0';
		if (its->version != STEP_VERSION)
			r = smem_err(SMEM_NOT_SUPPORTED, "rank %u has version %u of %s, here is %u",
				     i, its->version, kind, STEP_VERSION);
		else if (its->code != SMEM_OK)
			r = smem_err(its->code, "rank %u: %s", i, its->text);
	}
	store_gathered_free(&got);
	return r;
}

static int32_t page_offer(struct symmetric *s, struct step *ret)
{
	int32_t r = control_create(s->config.size, &s->page);

	if (r == SMEM_OK)
		r = rng_bytes(ret->cookie, sizeof(ret->cookie));
	if (r != SMEM_OK)
		return r;
	uint64_t object = rng_u64();
	if (object == 0)
		return SMEM_IO;
	r = agent_offer(object, ret->cookie, s->page.fd, NULL, 0);
	if (r == SMEM_OK)
		ret->object = s->page_object = object;
	return r;
}

/* The ranks whose memory is mapped here, as far as they are to share a page. */
static struct set page_set(const struct symmetric *s)
{
	uint32_t part = (uint32_t)env_int(ENV_SHM_PAGE), own = s->config.rank;
	struct set set = {.word = {0}};

	for (uint32_t i = 0; part > 0 && i < s->config.size; i++) {
		if (atomic_load(&pool_peer(s->pool, i)->mapped) &&
		    (part == 1 || i / part == own / part))
			set_add(&set, i);
	}
	return set;
}

static bool set_same(const struct set *a, const struct set *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* Is every rank in the set that it names, and are these apart? */
static bool sets_agree(const struct step *said, uint32_t size)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < size; i++) {
		uint32_t lowest = set_next(&said[i].set, 0);
		if (lowest >= size || !set_has(&said[i].set, i) ||
		    !set_same(&said[i].set, &said[lowest].set))
			return false;
		if (lowest == i)
			count += set_count(&said[i].set);
	}
	return count == size;
}

/* No page and SMEM_OK when its owner cannot be reached after all. */
static int32_t page_fetch(struct symmetric *s, const struct step *owner, struct deadline deadline)
{
	struct agent_peer *agent;
	auto_fd int fd = -1;

	int32_t r = agent_peer_open(&owner->agent, deadline, NULL, NULL, &agent);
	if (r == SMEM_UNREACHABLE)
		return SMEM_OK;
	if (r != SMEM_OK)
		return r;
	r = agent_fetch(agent, owner->object, owner->cookie, deadline, &fd, NULL, NULL);
	agent_peer_close(agent);
	if (r == SMEM_OK)
		r = control_open(&fd, s->config.size, &s->page);
	return r;
}

/* The page of the own set, once all know who makes which. */
static int32_t page_get(struct symmetric *s, const struct step *said, struct deadline deadline,
			struct step *own)
{
	uint32_t owner = set_next(&own->set, 0);
	int32_t r = SMEM_OK;

	own->object = 0;
	if (!sets_agree(said, s->config.size))
		return SMEM_OK;
	if (owner != s->config.rank)
		r = page_fetch(s, &said[owner], deadline);
	if (s->page.head)
		own->object = said[owner].object;
	return r;
}

static void start_collectives(struct symmetric *s, const struct step *said)
{
	const struct set *own = &said[s->config.rank].set;

	for (uint32_t i = 0; i < s->config.size; i++) {
		if (said[i].object == 0) {
			LOG_INFO("shm",
				 "object %u: collectives by the store, for rank %u has no page",
				 s->config.id, i);
			return;
		}
	}
	collective_init(&s->collective, &s->page, s->config.rank);
	s->paged = true;
	s->shared = set_count(own) == s->config.size;
	if (!s->shared)
		collective_outside(&s->collective, own, pool_group(s->pool));
	tell_losses(s);
}

static int32_t meet_steps(struct symmetric *s, struct deadline deadline, struct step *said)
{
	struct step own = {.set = page_set(s), .agent = *agent_own()};

	if (set_next(&own.set, 0) == s->config.rank)
		own.code = page_offer(s, &own);
	int32_t r = step_together(s, "page", &own, deadline, said);
	if (r != SMEM_OK)
		return r;
	own.code = page_get(s, said, deadline, &own);
	r = step_together(s, "have", &own, deadline, said);
	if (r == SMEM_OK)
		start_collectives(s, said);
	return r;
}

int32_t symmetric_meet(struct symmetric *s, struct deadline deadline)
{
	int32_t r = pool_join(s->pool, deadline);

	if (r != SMEM_OK)
		return r;
	auto_free struct step *said = calloc(s->config.size, sizeof(*said));
	if (!said)
		return smem_err(SMEM_MALLOC_FAILED, "answers of %u ranks", s->config.size);
	return meet_steps(s, deadline, said);
}

void symmetric_wake(struct symmetric *s)
{
	if (s->paged)
		collective_close(&s->collective);
	pool_wake(s->pool);
}

#define LEAVE_MS 5000u

void symmetric_free(struct symmetric *s)
{
	if (!s)
		return;
	exit_unwatch(s->watch);
	if (s->page_object != 0)
		agent_withdraw(s->page_object);
	pool_destroy(s->pool, deadline_in_ms(LEAVE_MS)); /* no event after this */
	control_close(&s->page);
	pthread_mutex_destroy(&s->lock);
	free((void *)s->gone);
	free(s);
}

/* ---- use ---- */

int32_t symmetric_barrier(struct symmetric *s, struct deadline deadline)
{
	if (s->paged)
		return collective_barrier(&s->collective, deadline);
	return round_barrier(&s->round, pool_group(s->pool), deadline);
}

int32_t symmetric_allgather(struct symmetric *s, const void *send, uint32_t len, void *recv,
			    struct deadline deadline)
{
	if (s->paged)
		return collective_allgather(&s->collective, send, len, recv, deadline);
	return round_allgather(&s->round, pool_group(s->pool), send, len, recv, deadline);
}

static enum gone how_gone(const struct symmetric *s, uint32_t rank)
{
	if (s->paged) {
		int32_t alive = collective_alive(&s->page, rank);
		if (alive != SMEM_OK)
			return alive == SMEM_PEER_LOST ? LOST : LEFT;
	}
	return (enum gone)atomic_load(&s->gone[rank]);
}

/* The key of a rank's context where there is no page; new with every life of the object. */
static void context_key(const struct symmetric *s, uint32_t rank, char *buf, size_t cap)
{
	uint64_t life = rank == s->config.rank
			    ? store_group_incarnation(pool_group(s->pool))
			    : atomic_load(&pool_peer(s->pool, rank)->incarnation);

	snprintf(buf, cap, "shm/%u/context/%u/%016" PRIx64, s->config.id, rank, life);
}

int32_t symmetric_set_context(struct symmetric *s, const void *buf, uint32_t len,
			      struct deadline deadline)
{
	char key[96];

	LOCKED(&s->lock);
	if (s->shared)
		return context_set(&s->page, s->config.rank, buf, len);
	context_key(s, s->config.rank, key, sizeof(key));
	return store_set(s->config.store, key, buf, len, STORE_EPHEMERAL, deadline);
}

int32_t symmetric_get_context(struct symmetric *s, uint32_t rank, void *buf, uint32_t *len,
			      struct deadline deadline)
{
	char key[96];
	struct store_bytes got = {0};

	enum gone how = how_gone(s, rank);
	if (how != HERE)
		return smem_err(SMEM_PEER_LOST, "rank %u %s", rank,
				how == LOST ? "is lost" : "left by destroying the object");
	if (s->shared)
		return context_get(&s->page, rank, buf, len);
	context_key(s, rank, key, sizeof(key));
	int32_t r = store_get(s->config.store, key, false, deadline, &got);
	if (r != SMEM_OK && r != SMEM_OBJECT_NOT_EXISTS)
		return r;
	r = context_give(rank, got.data, (uint32_t)got.len, buf, len);
	store_bytes_free(&got);
	return r;
}

uint32_t symmetric_reach(const struct symmetric *s, uint32_t rank)
{
	const struct peer *p = pool_peer(s->pool, rank);

	if (rank != s->config.rank && how_gone(s, rank) != HERE)
		return 0;
	if (atomic_load(&p->mapped))
		return SYMMETRIC_MAPPED;
	return peer_state(p) == PEER_MEMBER ? SYMMETRIC_FABRIC : 0;
}

int32_t symmetric_on_exit(struct symmetric *s, void (*fn)(int))
{
	LOCKED(&s->lock);
	if (s->watch)
		return smem_err(SMEM_REPEAT_CALL, "rank %u has registered its exit function",
				s->config.rank);
	return exit_watch(exit_place(s), fn, &s->watch);
}

int32_t symmetric_exit(struct symmetric *s, int status, struct deadline deadline)
{
	uint32_t note = (uint32_t)status;

	if (!s->shared)
		return store_group_note(pool_group(s->pool), &note, sizeof(note), true, deadline);
	if (!exit_announce(exit_place(s), status))
		LOG_INFO("shm", "object %u: exit status %d ignored, there is one already",
			 s->config.id, status);
	return SMEM_OK;
}

int32_t symmetric_store_open(const struct store_url *url, bool host, struct deadline deadline,
			     struct store **ret)
{
	return store_open(url, host ? STORE_HOST : STORE_CONNECT, deadline, ret);
}

void symmetric_store_close(struct store *store)
{
	store_close(store, STORE_LINGER_MS);
}
