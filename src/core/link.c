/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the peer is on this host is found by doing: its agent answers, and hands its two pages
 * over under the cookie of the card. What tells of its death then is the kernel, in the page itself
 * (regions.h), and the end of the agent's connection; for a peer elsewhere it is the store.
 *
 * Mappings of the peer's files are published once and stay until the link is closed: a place in the
 * array may get a newer file, but the older mapping remains for who still uses it.
 */
#include "core/link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/survey.h"
#include "smem_trans_def.h"
#include "util/cleanup.h"
#include "util/env.h"
#include "util/err.h"
#include "util/limits.h"
#include "util/log.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define FETCH_SLICE_MS                                                                             \
	1000		 /* how often a wait for a paused peer looks whether it is still wanted */
#define MAP_WAIT_MS 1000 /* a file not handed over by then is reached by the path */

static void mark_dead(struct link *l, int32_t code)
{
	int32_t live = 0;

	if (!atomic_compare_exchange_strong(&l->dead, &live, code))
		return;
	struct endpoint *ep = atomic_load(&l->ep);
	if (ep && ep->ops->abandon)
		ep->ops->abandon(ep);
}

static void agent_lost(void *arg)
{
	mark_dead(arg, SMEM_PEER_LOST);
}

static void card_changed(void *arg, const char *key, const void *data, size_t len)
{
	struct link *l = arg;
	struct session_card card;

	(void)key;
	if (data && len >= sizeof(card)) {
		memcpy(&card, data, sizeof(card));
		if (card.incarnation == l->incarnation)
			return;
	}
	mark_dead(l, SMEM_PEER_LOST);
}

int32_t link_state(const struct link *l)
{
	int32_t dead = atomic_load_explicit(&l->dead, memory_order_acquire);

	if (dead || !l->shared)
		return dead;
	switch (region_view_life(&l->view)) {
	case REGION_LIFE_SHUT:
		return SMEM_OBJECT_NOT_EXISTS;
	case REGION_LIFE_DEAD:
		return SMEM_PEER_LOST;
	default:
		return 0;
	}
}

/* ---- opening ---- */

/* Again as long as the peer is only slow and somebody wants it. */
static bool try_again(const struct link_open *o, int32_t e)
{
	return e == SMEM_TIMEOUT && !atomic_load(o->closing);
}

static int32_t given_up(const struct link_open *o, int32_t e)
{
	return e == SMEM_TIMEOUT ? smem_err(SMEM_OBJECT_NOT_EXISTS,
					    "destroyed while session %s was being reached", o->name)
				 : e;
}

static int32_t fetch(struct link *l, const struct link_open *o, uint64_t object, int *ret)
{
	int32_t e;

	do
		e = agent_fetch(l->agent, object, l->cookie, deadline_in_ms(FETCH_SLICE_MS), ret,
				NULL, NULL);
	while (try_again(o, e));
	/* its process lives and does not offer it any more: destroyed, maybe made anew */
	if (e == SMEM_OBJECT_NOT_EXISTS)
		return smem_err(SMEM_STALE, "session %s has been destroyed meanwhile", o->name);
	return given_up(o, e);
}

static int32_t share_pages(struct link *l, const struct link_open *o)
{
	auto_fd int regions = -1;
	auto_fd int marks = -1;

	int32_t e = fetch(l, o, o->blob->card.regions, &regions);
	if (!e)
		e = fetch(l, o, o->blob->card.marks, &marks);
	if (!e)
		e = region_view_open(regions, l->incarnation, &l->view);
	if (!e)
		e = marker_open(marks, &l->marker);
	if (e)
		return e;
	l->shared = true;
	l->writable = region_view_writable(&l->view);
	return 0;
}

static int32_t reach_agent(struct link *l, const struct link_open *o, char *why, size_t cap)
{
	int32_t e;

	do
		e = agent_peer_open(&o->blob->card.agent, deadline_in_ms(FETCH_SLICE_MS),
				    agent_lost, l, &l->agent);
	while (try_again(o, e));
	if (e != SMEM_UNREACHABLE)
		return e ? given_up(o, e) : share_pages(l, o);
	/* another host, or as good as that */
	strncpy(why, err_detail(), cap - 1);
	return 0;
}

static int32_t open_path(struct link *l, const struct link_open *o, const char *why)
{
	struct transport_peer peer = {
	    .agent = &o->blob->card.agent,
	    .agent_conn = l->agent,
	    .incarnation = l->incarnation,
	    .secret = o->blob->card.secret,
	    .name = l->name,
	};
	const void *addrs = o->blob->addrs;
	size_t len = o->blob->card.addrs_len;
	struct deadline deadline = deadline_in_ms((uint64_t)env_int(ENV_SILENCE_MS));

	int32_t e =
	    path_connect(&peer, addrs, len, false,
			 l->shared ? "private memory is not mapped here" : why, deadline, &l->path);
	if (e == SMEM_UNREACHABLE && o->own_process)
		e = path_connect(&peer, addrs, len, true, NULL, deadline, &l->path);
	/* without a path, what lies in shared files is still reached */
	if (e == SMEM_UNREACHABLE && l->shared) {
		if (!l->path.why[0])
			strncpy(l->path.why, err_detail(), sizeof(l->path.why) - 1);
		LOG_INFO("trans", "session %s: no path to private memory: %s", l->name,
			 l->path.why);
		e = 0;
	}
	return e;
}

static int32_t watch_card(struct link *l, const struct link_open *o)
{
	char key[SESSION_KEY_MAX];

	session_key_live(l->name, key);
	return store_watch(o->store, key, card_changed, l,
			   deadline_in_ms((uint64_t)env_int(ENV_SILENCE_MS)), &l->watch);
}

static int32_t open_all(struct link *l, const struct link_open *o)
{
	char why[PATH_WHY_MAX] = "";
	int32_t e = reach_agent(l, o, why, sizeof(why));

	if (!e)
		e = open_path(l, o, why);
	atomic_store(&l->ep, l->path.ep); /* whoever learns of the death from here on abandons it */
	if (!e && !l->shared)
		e = watch_card(l, o);
	if (!e)
		e = link_state(l);
	if (e == SMEM_PEER_LOST)
		return smem_err(SMEM_PEER_LOST, "session %s is lost", l->name);
	return e;
}

int32_t link_open(const struct link_open *o, struct link **ret)
{
	struct link *l = calloc(1, sizeof(*l));

	if (!l)
		return smem_err(SMEM_MALLOC_FAILED, "link to session %s", o->name);
	pthread_mutex_init(&l->lock, NULL);
	strncpy(l->name, o->name, sizeof(l->name) - 1);
	l->incarnation = o->blob->card.incarnation;
	l->pid = o->blob->card.agent.pid;
	l->host = survey_host(&o->blob->card.agent);
	l->role = o->blob->card.role;
	l->writable = l->role != SMEM_TRANS_SENDER;
	memcpy(l->cookie, o->blob->card.cookie, sizeof(l->cookie));
	int32_t e = open_all(l, o);
	if (e) {
		link_close(l);
		return e;
	}
	LOG_INFO("trans", "session %s: %s%s%s", l->name, l->shared ? "shared pages, " : "",
		 l->path.ep ? l->path.name : "no path", l->path.why[0] ? l->path.why : "");
	*ret = l;
	return 0;
}

void link_close(struct link *l)
{
	if (!l)
		return;
	if (l->watch)
		store_unwatch(l->watch);
	agent_peer_close(l->agent);
	path_close(&l->path); /* no callback touches it any more */
	marker_close(l->marker);
	region_view_close(&l->view);
	for (struct link_map *m = l->all_maps, *next; m; m = next) {
		next = m->next;
		if (m->base)
			munmap(m->base, m->size);
		free(m);
	}
	for (uint32_t i = 0; i < BACKINGS_MAX / LINK_MAP_BLOCK; i++)
		free((void *)atomic_load(&l->maps[i]));
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* ---- files of the peer ---- */

/* A file that could shrink could make this process fault: refused. */
static void map_file(struct link *l, struct link_map *m)
{
	auto_fd int fd = -1;
	struct stat st;
	int prot = PROT_READ | (l->writable ? PROT_WRITE : 0);

	if (agent_fetch(l->agent, m->object, l->cookie, deadline_in_ms(MAP_WAIT_MS), &fd, NULL,
			NULL) != 0)
		return;
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 || st.st_size <= 0)
		return;
	void *base = mmap(NULL, (size_t)st.st_size, prot, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return;
	madvise(base, (size_t)st.st_size, MADV_DONTFORK);
	/* page tables now, 70 ms a GiB, instead of a fault a page later; not where the file has
	 * holes, which this would fill */
	if ((uint64_t)st.st_blocks * 512 >= (uint64_t)st.st_size)
		madvise(base, (size_t)st.st_size, MADV_POPULATE_READ);
	m->base = base;
	m->size = (uint64_t)st.st_size;
}

static _Atomic(struct link_map *) *place_of(struct link *l, uint64_t object, bool make)
{
	uint32_t i = (uint32_t)(object & (BACKINGS_MAX - 1));
	_Atomic(struct link_map *) *block = atomic_load(&l->maps[i / LINK_MAP_BLOCK]);

	if (!block && make) {
		block = calloc(LINK_MAP_BLOCK, sizeof(*block));
		atomic_store(&l->maps[i / LINK_MAP_BLOCK], block);
	}
	return block ? &block[i % LINK_MAP_BLOCK] : NULL;
}

static const struct link_map *make_map(struct link *l, uint64_t object)
{
	LOCKED(&l->lock);
	_Atomic(struct link_map *) *place = place_of(l, object, true);
	struct link_map *m = place ? atomic_load(place) : NULL;

	if (!place || (m && m->object == object))
		return m;
	m = calloc(1, sizeof(*m));
	if (!m)
		return NULL;
	m->object = object;
	map_file(l, m);
	if (!m->base)
		LOG_INFO("trans", "session %s: object %016llx is not mapped: %s", l->name,
			 (unsigned long long)object, err_detail());
	m->next = l->all_maps;
	l->all_maps = m;
	atomic_store(place, m);
	return m;
}

const struct link_map *link_map_of(struct link *l, uint64_t object)
{
	_Atomic(struct link_map *) *place = place_of(l, object, false);
	const struct link_map *m = place ? atomic_load(place) : NULL;

	if (!m || m->object != object)
		m = make_map(l, object);
	return m && m->base ? m : NULL;
}
