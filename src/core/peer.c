/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bringing a peer up is a walk down the list of ways to it: its agent, which proves that it is on
 * this host; its memory mapped at its slots; then the transports in order. A step that is refused
 * is remembered and the next way tried; only a death, a passed deadline, or the end of the list
 * ends the walk.
 */
#include "core/peer.h"

#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/err.h"

int32_t peer_card_check(const void *card, size_t len)
{
	struct peer_card c;

	if (len < sizeof(c))
		return smem_err(SMEM_IO, "a member's card has %zu bytes, want %zu", len, sizeof(c));
	memcpy(&c, card, sizeof(c));
	if (c.version != PEER_CARD_VERSION)
		return smem_err(SMEM_NOT_SUPPORTED, "a member's card has version %u, want %u",
				c.version, PEER_CARD_VERSION);
	if (c.addrs_len != len - sizeof(c))
		return smem_err(SMEM_IO, "a member's card says %u bytes of addresses, has %zu",
				c.addrs_len, len - sizeof(c));
	return SMEM_OK;
}

static bool peer_becomes(struct peer *p, enum peer_state from, enum peer_state to)
{
	uint32_t expect = from;

	return atomic_compare_exchange_strong(&p->state, &expect, to);
}

bool peer_lose(struct peer *p, uint64_t incarnation)
{
	if (incarnation != 0 && atomic_load(&p->incarnation) != incarnation)
		return false;
	atomic_store(&p->lost_ms, clock_ns() / NS_PER_MS);
	if (!peer_becomes(p, PEER_MEMBER, PEER_LOST) && !peer_becomes(p, PEER_JOINING, PEER_LOST))
		return false;
	LOCKED(&p->path_lock);
	if (p->path.ep && p->path.ep->ops->abandon)
		p->path.ep->ops->abandon(p->path.ep);
	return true;
}

static void agent_lost(void *arg)
{
	struct peer *p = arg;

	if (peer_lose(p, 0) && p->on_lost)
		p->on_lost(p->arg, p);
}

void peer_cut(struct peer *p)
{
	struct path path;

	agent_peer_close(take_ptr(&p->agent));
	pthread_mutex_lock(&p->path_lock);
	path = p->path;
	p->path = (struct path){0};
	pthread_mutex_unlock(&p->path_lock);
	path_close(&path);
}

static void unmap(struct peer *p)
{
	atomic_store(&p->mapped, false);
	for (unsigned w = 0; w < PEER_SEGMENTS; w++)
		segment_destroy(&p->seg[w]);
}

void peer_close(struct peer *p)
{
	peer_cut(p);
	unmap(p);
}

static bool is_refusal(int32_t r)
{
	return r != SMEM_OK && r != SMEM_PEER_LOST && r != SMEM_TIMEOUT;
}

static int32_t map_segments(struct peer *p, const struct peer_card *card,
			    char *const slot[PEER_SEGMENTS], struct deadline deadline)
{
	for (unsigned w = 0; w < PEER_SEGMENTS; w++) {
		if (!slot[w])
			continue;
		int32_t r = segment_import(p->agent, &card->seg[w], slot[w], deadline, &p->seg[w]);
		if (r != SMEM_OK) {
			unmap(p);
			return r;
		}
	}
	atomic_store(&p->mapped, true);
	return SMEM_OK;
}

/* Map its memory if it is on this host. A refusal is no failure: `why` then says what it was. */
static int32_t try_map(struct peer *p, const struct peer_card *card,
		       char *const slot[PEER_SEGMENTS], struct deadline deadline, char *why,
		       size_t why_cap)
{
	int32_t r = agent_peer_open(&card->agent, deadline, agent_lost, p, &p->agent);

	if (r == SMEM_OK)
		r = map_segments(p, card, slot, deadline);
	if (!is_refusal(r))
		return r;
	snprintf(why, why_cap, "%s", err_detail());
	return SMEM_OK;
}

static int32_t open_steps(struct peer *p, const struct peer_card *card,
			  char *const slot[PEER_SEGMENTS], struct deadline deadline)
{
	char name[32], why[256] = "";
	struct path path;

	int32_t r = try_map(p, card, slot, deadline, why, sizeof(why));
	if (r != SMEM_OK)
		return r;
	snprintf(name, sizeof(name), "rank %u", p->rank);
	struct transport_peer peer = {
	    .agent = &card->agent,
	    .agent_conn = p->agent,
	    .incarnation = atomic_load(&p->incarnation),
	    .secret = card->secret,
	    .name = name,
	};
	{
		LOCKED(&p->path_lock);
		p->pid = card->agent.pid;
		p->host = survey_host(&card->agent);
	}
	r = path_connect(&peer, card + 1, card->addrs_len, atomic_load(&p->mapped), why, deadline,
			 &path);
	if (r != SMEM_OK)
		return r;
	LOCKED(&p->path_lock);
	p->path = path;
	return SMEM_OK;
}

int32_t peer_open(struct peer *p, uint64_t incarnation, const struct peer_card *card,
		  char *const slot[PEER_SEGMENTS], struct deadline deadline)
{
	atomic_store(&p->incarnation, incarnation);
	atomic_store(&p->state, PEER_JOINING);
	int32_t r = open_steps(p, card, slot, deadline);
	if (r == SMEM_OK && peer_becomes(p, PEER_JOINING, PEER_MEMBER))
		return SMEM_OK;
	/* Whatever the step said: a peer that died meanwhile is why. */
	bool lost = r == SMEM_PEER_LOST || peer_state(p) == PEER_LOST;
	peer_close(p);
	atomic_store(&p->state, lost ? PEER_LOST : PEER_NONE);
	return lost ? smem_err(SMEM_PEER_LOST, "rank %u died while it joined", p->rank) : r;
}

void peer_report(struct peer *p, struct survey_writer *w)
{
	static const enum survey_state state[] = {[PEER_JOINING] = SURVEY_JOINING,
						  [PEER_MEMBER] = SURVEY_MEMBER,
						  [PEER_LOST] = SURVEY_LOST};
	enum peer_state now = peer_state(p);

	if (now == PEER_NONE || now == PEER_LEFT)
		return;
	LOCKED(&p->path_lock);
	struct survey_row row = {.state = state[now],
				 .rank = p->rank,
				 .shared = atomic_load(&p->mapped),
				 .pid = p->pid,
				 .host = p->host};
	if (now == PEER_LOST) /* the keeper may not have taken its path down yet */
		survey_row(w, &row);
	else
		survey_path_row(w, &row, &p->path, p->path.ep);
}
