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

#define MANY  16u /* pings without an answer until they become fewer */
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

/* An answer after that time excuses what has not moved until then. */
static uint64_t late_ns(const struct ofi_link *l)
{
	return (uint64_t)l->process->silence_ms * NS_MS / 2;
}

void ofi_watch_begin(struct ofi_link *l)
{
	struct ofi_watch *w = &l->watch;

	w->since_ns = clock_ns();
	w->next_ns = w->since_ns + step_ns(l);
	w->asked_ns = w->sent_ns = 0;
	w->unanswered = 0;
	w->doubt = false;
}

/* One a look; fewer when nobody answers, for they lie in the buffer of a process that stands still.
 */
static void ping(struct ofi_link *l, uint64_t now)
{
	struct ofi_pulse body = {.sent_ns = now};
	struct ofi_watch *w = &l->watch;

	if (now - w->sent_ns < step_ns(l) * (w->unanswered / MANY))
		return;
	LOCKED(&l->lock);
	if (!l->ctl || l->ended || ofi_ctl_post(l->ctl, OFI_PING, &body) != SMEM_OK)
		return;
	w->sent_ns = now;
	w->unanswered++;
	if (w->asked_ns == 0)
		w->asked_ns = now;
}

/* What the last answer says: that the peer was away until some time, or that it runs. */
static void hear(struct ofi_link *l, uint64_t now)
{
	struct ofi_watch *w = &l->watch;
	uint64_t away = 0;

	pthread_mutex_lock(&l->lock);
	struct ofi_pulse pong = l->pong;
	uint64_t at = l->pong_ns;
	pthread_mutex_unlock(&l->lock);
	if (w->asked_ns == 0)
		return;
	if (pong.sent_ns < w->asked_ns) {
		away = now - w->asked_ns > late_ns(l) ? now : 0;
	} else {
		away = at - pong.sent_ns > late_ns(l) ? at : 0;
		if (pong.turns != w->turns)
			w->turned_ns = at;
		w->turns = pong.turns;
		w->asked_ns = pong.sent_ns < w->sent_ns ? pong.sent_ns + 1 : 0;
		w->unanswered = 0;
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

/*
 * How long the peer's host has not acknowledged anything though there is something to acknowledge;
 * 0 if not too long. Two looks agree on it, since what is not acknowledged may have been sent a
 * moment ago by a process that was held up itself. The next look is in time for that.
 */
static uint32_t unheard(struct ofi_link *l, uint64_t now)
{
	uint32_t silence = l->process->silence_ms;
	struct ofi_watch *w = &l->watch;
	bool unacked = false;

	LOCKED(&l->lock);
	if (!l->ctl || l->ended)
		return 0;
	uint32_t heard = ofi_ctl_heard_ms(l->ctl, &unacked);
	uint32_t twice = silence / 32, first = silence - twice;
	bool doubt = unacked && heard >= first, again = doubt && w->doubt;
	uint32_t pause = heard < first ? first - heard : doubt ? twice : silence;
	if (w->next_ns > now + pause * NS_MS)
		w->next_ns = now + pause * NS_MS;
	w->doubt = doubt;
	return again ? heard : 0;
}

enum ofi_verdict ofi_watch_look(struct ofi_link *l, uint32_t limit_ms, char why[OFI_TEXT])
{
	uint64_t now = clock_ns(), limit = limit_ms * NS_MS, moved;
	struct ofi_watch *w = &l->watch;

	if (now < w->next_ns)
		return WATCH_FINE;
	w->next_ns = now + step_ns(l);
	hear(l, now);
	uint32_t silent = unheard(l, now);
	if (silent > 0) {
		snprintf(why, OFI_TEXT, "its host has been silent for %" PRIu32 " ms", silent);
		return WATCH_SILENT;
	}
	if (!ofi_fds_moved(l->ep.addr, l->ep.addr_len, l->ready.addr, l->ready.addr_len, &moved) &&
	    l->up)
		limit *= BLIND;
	if (moved != w->moved)
		w->since_ns = now;
	w->moved = moved;
	ping(l, now);
	if (now - w->since_ns < limit || w->turned_ns <= w->since_ns + limit / 2)
		return WATCH_FINE;
	say_stuck(l, limit_ms, why);
	return WATCH_STUCK;
}
