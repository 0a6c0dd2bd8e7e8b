/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link is stuck when for the silence time no operation completed and no byte of its connections
 * was acknowledged or received, while the peer's process answered pings over the control connection
 * and its serving thread ran. Each part is there for somebody who must not be cut off: a slow or
 * lossy way still gets bytes acknowledged; a stopped process answers nothing; one that is short of
 * CPU answers late, or answers while its serving thread waits for its turn. Time counts from when
 * the last of these excuses ended.
 *
 * Of providers without sockets only completions are seen, and these take as long as an operation
 * takes, so they get many times as long.
 *
 * Pings go out only while something has been in flight for an eighth of the silence time. They have
 * a second use: data on the control connection is retransmitted within a fraction of a second, so a
 * lossy way is not taken for a silent one as soon as two keepalive probes in a row are lost.
 */
#include "transport/ofi_watch.h"

#include <inttypes.h>
#include <stdio.h>

#include "transport/ofi_fds.h"
#include "transport/ofi_link.h"
#include "util/cleanup.h"
#include "util/err.h"

#define LOOKS 8u  /* in the silence time */
#define BLIND 10u /* times as long for providers whose connections cannot be looked at */
#define NS_MS 1000000ull

int ofi_watch_pause_ms(const struct ofi_link *l)
{
	uint64_t now = clock_ns();

	return l->watch.next_ns <= now ? 0 : (int)((l->watch.next_ns - now) / NS_MS) + 1;
}

static uint64_t step_ns(const struct ofi_link *l)
{
	return (uint64_t)l->process->silence_ms * NS_MS / LOOKS;
}

void ofi_watch_begin(struct ofi_link *l)
{
	struct ofi_watch *w = &l->watch;

	w->since_ns = clock_ns();
	w->next_ns = w->since_ns + step_ns(l);
	w->asked_ns = 0;
}

static void ping(struct ofi_link *l, uint64_t now)
{
	struct ofi_watch *w = &l->watch;
	struct ofi_pulse body = {.seq = w->seq + 1};

	LOCKED(&l->lock);
	if (!l->ctl || l->ended || ofi_ctl_post(l->ctl, OFI_PING, &body) != SMEM_OK)
		return;
	w->seq = body.seq;
	w->asked_ns = now;
}

/* What the last ping says: that the peer was away until some time, or that it runs. */
static void hear(struct ofi_link *l, uint64_t now)
{
	uint64_t late = (uint64_t)l->process->silence_ms * NS_MS / 2, away = 0;
	struct ofi_watch *w = &l->watch;

	if (!w->asked_ns)
		return;
	pthread_mutex_lock(&l->lock);
	struct ofi_pulse pong = l->pong;
	uint64_t at = l->pong_ns;
	pthread_mutex_unlock(&l->lock);
	if (pong.seq != w->seq) {
		away = now - w->asked_ns > late ? now : 0;
	} else {
		away = at - w->asked_ns > late ? at : 0;
		if (pong.turns != w->turns)
			w->turned_ns = at;
		w->turns = pong.turns;
		w->asked_ns = 0;
	}
	if (away > w->since_ns)
		w->since_ns = away;
}

static void say_stuck(const struct ofi_link *l, uint32_t limit_ms, char why[OFI_TEXT])
{
	const struct sockaddr *sa = (const struct sockaddr *)l->ready.addr;
	char at[64] = "its endpoint";

	if (sa->sa_family == AF_INET || sa->sa_family == AF_INET6)
		ofi_sockaddr_text(sa, true, at, sizeof(at));
	snprintf(why, OFI_TEXT,
		 "%s to %s: nothing moved for %" PRIu32
		 " ms though the peer answers: is that port blocked?",
		 l->dom.offer->provider, at, limit_ms);
}

/* How long the peer's host has not been heard, and look again no later than it may be too long. */
static uint32_t unheard(struct ofi_link *l, uint64_t now)
{
	uint32_t silence = l->process->silence_ms;
	struct ofi_watch *w = &l->watch;

	LOCKED(&l->lock);
	uint32_t heard = l->ctl && !l->ended ? ofi_ctl_heard_ms(l->ctl) : 0;
	if (heard < silence && w->next_ns > now + (silence - heard) * NS_MS)
		w->next_ns = now + (silence - heard) * NS_MS;
	return heard;
}

enum ofi_verdict ofi_watch_look(struct ofi_link *l, uint32_t limit_ms, char why[OFI_TEXT])
{
	uint64_t now = clock_ns(), limit = limit_ms * NS_MS, moved;
	struct ofi_watch *w = &l->watch;

	if (now < w->next_ns)
		return WATCH_FINE;
	w->next_ns = now + step_ns(l);
	uint32_t silent = unheard(l, now);
	if (silent >= l->process->silence_ms) {
		snprintf(why, OFI_TEXT, "its host has been silent for %" PRIu32 " ms", silent);
		return WATCH_SILENT;
	}
	if (!ofi_fds_moved(l->ep.addr, l->ep.addr_len, l->ready.addr, l->ready.addr_len, &moved) &&
	    l->up)
		limit *= BLIND;
	if (moved != w->moved)
		w->since_ns = now;
	w->moved = moved;
	hear(l, now);
	if (!w->asked_ns)
		ping(l, now);
	if (now - w->since_ns < limit || w->turned_ns <= w->since_ns + limit / 2)
		return WATCH_FINE;
	say_stuck(l, limit_ms, why);
	return WATCH_STUCK;
}
