/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults between hosts. Whatever happens to the network or to the peer, a call ends in bounded time
 * with a code that says what is known, the caller's memory is its own again, nothing of the call
 * lands any more, and when the fault is over the same endpoint works again.
 *
 * And what is no fault goes through: a way that is slow, and a process that stands still.
 *
 * SMEM_SILENCE_MS is short here, so that many rounds fit; SMEM_TEST_SECONDS makes the rounds go on
 * for so long.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ends.h"
#include "transport/ofi_wire.h"

#define SILENCE 500u
#define BOUND	(10 * SILENCE) /* a call ends; generous, for busy machines */
#define STALE	0xee	       /* never to be seen at the target */

static void quick(void)
{
	char ms[16];

	snprintf(ms, sizeof(ms), "%u", SILENCE);
	setenv("SMEM_SILENCE_MS", ms, 1);
}

/* The port of the target's control connections. */
static uint16_t control_port(struct rank *r)
{
	struct ofi_card c;

	RANK_ASSERT(r, ofi_card_parse(card.addr, card.addr_len, &c));
	return c.host[0].port;
}

/* The target's part: at every step of the initiator do what it asks, and say so. */
enum step { CLEAR = 1, LOOK, END };

static void serve(struct rank *r)
{
	uint64_t n = 0, what;

	do {
		await(r, &page->asked, ++n);
		what = atomic_load(&page->what);
		if (what == CLEAR)
			memset(mem, 0, MEM);
		/* The first half is what was written after the fault, the rest as it was cleared.
		 */
		if (what == LOOK &&
		    !(all(mem, MEM / 2, (char)page->byte) && all(mem + MEM / 2, MEM / 2, 0)))
			atomic_store(&page->wrong, (int)n);
		atomic_store(&page->answered, n);
	} while (what != END);
	RANK_CODE(r, atomic_load(&page->wrong), 0);
}

static void tell(struct rank *r, enum step what, int byte)
{
	uint64_t n = atomic_load(&page->asked) + 1;

	page->byte = byte;
	atomic_store(&page->what, what);
	atomic_store(&page->asked, n);
	await(r, &page->answered, n);
	RANK_CODE(r, atomic_load(&page->wrong), 0);
}

static void target(struct rank *r)
{
	target_up(r);
	serve(r);
	target_down(r);
}

/* ---- calls that are under way when it happens ---- */

struct traffic {
	struct endpoint *ep;
	bool put;
	char *buf;
	_Atomic uint64_t calls;
	_Atomic int32_t code;
	char why[512];
	uint64_t ended;
	pthread_t tid;
};

static void *move(void *arg)
{
	struct traffic *t = arg;

	while (t->code == SMEM_OK) {
		struct smem_xfer put = to(card.mem, t->buf, MEM), get = from(card.mem, t->buf, MEM);
		t->code = t->put ? ofi->put(t->ep, &put, 1) : ofi->get(t->ep, &get, 1);
		atomic_fetch_add(&t->calls, 1);
	}
	t->ended = rank_ms();
	snprintf(t->why, sizeof(t->why), "%s", err_detail());
	return NULL;
}

static void traffic_start(struct rank *r, struct traffic *t, struct endpoint *ep, bool put)
{
	*t = (struct traffic){.ep = ep, .put = put, .buf = filled(r, MEM, put ? 1 : 0)};
	RANK_ASSERT(r, pthread_create(&t->tid, NULL, move, t) == 0);
	await_more(r, &t->calls, 0);
}

/* It failed in time, and what it worked with is left alone from now on. */
static uint64_t traffic_end(struct rank *r, struct traffic *t, uint64_t since)
{
	pthread_join(t->tid, NULL);
	uint64_t took = t->ended > since ? t->ended - since : 0;
	if (t->code != SMEM_PEER_LOST && t->code != SMEM_UNREACHABLE)
		rank_fail(r, __FILE__, __LINE__, "code %d: %s", (int)t->code, t->why);
	if (!strstr(t->why, "rank 0") || !strstr(t->why, " ms"))
		rank_fail(r, __FILE__, __LINE__, "message: %s", t->why);
	RANK_ASSERT(r, took < BOUND);
	memset(t->buf, STALE, MEM);
	return took;
}

static void traffic_free(struct rank *r, struct traffic *t)
{
	RANK_ASSERT(r, all(t->buf, MEM, (char)STALE));
	free(t->buf);
}

/* The same endpoint, as soon as the way is open again. */
static void write_again(struct rank *r, struct endpoint *ep, int byte)
{
	char *src = filled(r, MEM / 2, byte);
	struct smem_xfer x = to(card.mem, src, MEM / 2);
	uint64_t until = rank_ms() + PATIENCE;
	int32_t code;

	do
		code = ofi->put(ep, &x, 1);
	while (code != SMEM_OK && rank_ms() < until);
	WANT(r, code, SMEM_OK);
	tell(r, LOOK, byte);
	free(src);
}

typedef void (*fault_fn)(struct rank *r, bool on);

/* One round: calls are under way, it happens, they end, it is over. The milliseconds it took. */
static uint64_t fault_round(struct rank *r, struct endpoint *ep, unsigned i, fault_fn fault,
			    int32_t code)
{
	struct traffic t;

	traffic_start(r, &t, ep, i % 2 == 0);
	fault(r, true);
	uint64_t took = traffic_end(r, &t, rank_ms());
	if (code != SMEM_OK && t.code != code)
		rank_fail(r, __FILE__, __LINE__, "code %d: %s", (int)t.code, t.why);
	tell(r, CLEAR, 0);
	fault(r, false);
	write_again(r, ep, 2 + (int)(i % 100));
	traffic_free(r, &t);
	return took;
}

/* So many, or for as long as SMEM_TEST_SECONDS says. */
static bool more(unsigned i, unsigned rounds, uint64_t begin)
{
	const char *seconds = getenv("SMEM_TEST_SECONDS");

	return i < rounds || (seconds && rank_ms() - begin < strtoul(seconds, NULL, 10) * 1000);
}

static void fault_rounds(struct rank *r, unsigned rounds, fault_fn fault, int32_t code)
{
	uint64_t begin = rank_ms(), longest = 0;

	quick();
	if (r->rank == 0) {
		target(r);
		return;
	}
	struct endpoint *ep = initiator_up(r);
	unsigned i;
	for (i = 0; more(i, rounds, begin); i++) {
		uint64_t took = fault_round(r, ep, i, fault, code);
		longest = took > longest ? took : longest;
	}
	rank_note(r, "%u rounds, error after %llu ms at most", i, (unsigned long long)longest);
	tell(r, END, 0);
	initiator_down(ep);
}

static void silence(struct rank *r, bool on)
{
	host_silence(r, 0, on);
}

static void unplug(struct rank *r, bool on)
{
	host_link(r, 0, !on);
}

static void silent_rounds(struct rank *r)
{
	fault_rounds(r, 100, silence, SMEM_PEER_LOST);
}

static void unplugged_rounds(struct rank *r)
{
	fault_rounds(r, 100, unplug, SMEM_PEER_LOST);
}

/* ---- firewalls ---- */

static void answers_lost(struct rank *r, bool on)
{
	uint16_t port = control_port(r);

	host_wall(r, 0, on ? HOST_LOSE_OTHERS : HOST_OPEN, &port, 1);
}

static void data_lost(struct rank *r, bool on)
{
	uint16_t port = control_port(r);

	host_wall(r, 1, on ? HOST_LOSE_OTHERS : HOST_OPEN, &port, 1);
}

static void data_refused(struct rank *r, bool on)
{
	uint16_t port = control_port(r);

	host_wall(r, 1, on ? HOST_REFUSE_OTHERS : HOST_OPEN, &port, 1);
}

static void control_lost(struct rank *r, bool on)
{
	uint16_t port = control_port(r);

	host_wall(r, 0, on ? HOST_LOSE_THESE : HOST_OPEN, &port, 1);
}

/* The control connection is well, the data is not: in either direction, thrown away or refused. */
static void wall_answers(struct rank *r)
{
	fault_rounds(r, 6, answers_lost, SMEM_UNREACHABLE);
}

static void wall_data(struct rank *r)
{
	fault_rounds(r, 6, data_lost, SMEM_UNREACHABLE);
}

static void wall_refuses(struct rank *r)
{
	fault_rounds(r, 6, data_refused, SMEM_UNREACHABLE);
}

/* And the opposite. */
static void wall_control(struct rank *r)
{
	fault_rounds(r, 6, control_lost, SMEM_OK);
}

/* It is there from the start. */
static void connect_through(struct rank *r, fault_fn fault, const char *says)
{
	struct endpoint *ep = NULL;

	quick();
	if (r->rank == 0) {
		target(r);
		return;
	}
	initiator_start(r);
	struct transport_peer p = peer();
	fault(r, true);
	uint64_t begin = rank_ms();
	WANT(r, ofi->connect(&p, deadline_in_ms(SILENCE), &ep), SMEM_UNREACHABLE);
	uint64_t took = rank_ms() - begin;
	rank_note(r, "%llu ms: %s", (unsigned long long)took, err_detail());
	RANK_ASSERT(r, !ep && took < BOUND);
	if (!strstr(err_detail(), says))
		rank_fail(r, __FILE__, __LINE__, "%s", err_detail());
	tell(r, CLEAR, 0);
	fault(r, false);
	WANT(r, ofi->connect(&p, deadline_in_ms(PATIENCE), &ep), 0);
	write_again(r, ep, 77);
	tell(r, END, 0);
	initiator_down(ep);
}

static void connect_answers_lost(struct rank *r)
{
	connect_through(r, answers_lost, "blocked?");
}

static void connect_refused(struct rank *r)
{
	connect_through(r, data_refused, "Permission denied");
}

static void connect_control_lost(struct rank *r)
{
	connect_through(r, control_lost, "no answer");
}

/* ---- no faults ---- */

/* Writes that take many times the silence time go through, and so do reads. */
static void slow(struct rank *r)
{
	quick();
	if (r->rank == 0) {
		target(r);
		return;
	}
	struct endpoint *ep = initiator_up(r);
	const size_t len = MIB;
	char *src = filled(r, MEM / 2, 9);
	struct smem_xfer put = to(card.mem, src, len), get = from(card.mem, src, len);
	tell(r, CLEAR, 0);
	for (unsigned host = 0; host < 2; host++) {
		bool can = host_rate(r, 0, 2) && host_rate(r, 1, 2);
		if (!can) {
			tell(r, END, 0);
			rank_skip(r, "the kernel has no tbf queue");
		}
		uint64_t begin = rank_ms();
		if (host == 1)
			WANT(r, ofi->put(ep, &put, 1), 0);
		else
			WANT(r, ofi->get(ep, &get, 1), 0);
		RANK_ASSERT(r, rank_ms() - begin > 4 * SILENCE);
		RANK_ASSERT(r, all(src, len, host ? 9 : 0));
		memset(src, 9, len);
		host_rate(r, 0, 0);
		host_rate(r, 1, 0);
	}
	write_again(r, ep, 9);
	tell(r, END, 0);
	free(src);
	initiator_down(ep);
}

/* The target stands still for longer than the silence time, again and again. */
static void stopped(struct rank *r)
{
	struct traffic t[2];

	quick();
	if (r->rank == 0) {
		target(r);
		return;
	}
	struct endpoint *ep = initiator_up(r);
	traffic_start(r, &t[0], ep, true);
	traffic_start(r, &t[1], ep, false);
	for (unsigned i = 0; i < 5; i++) {
		rank_stop(r, 0);
		/* Nothing is waited for: the time itself is the point. */
		struct timespec until = deadline_timespec(deadline_in_ms(3 * SILENCE));
		pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
		RANK_ASSERT(r, pthread_mutex_lock(&lock) == 0);
		RANK_ASSERT(r, pthread_mutex_clocklock(&lock, CLOCK_MONOTONIC, &until) != 0);
		rank_cont(r, 0);
		for (int k = 0; k < 2; k++)
			await_more(r, &t[k].calls, atomic_load(&t[k].calls));
		RANK_CODE(r, t[0].code, 0);
		RANK_CODE(r, t[1].code, 0);
	}
	rank_kill(r, 0);
	for (int k = 0; k < 2; k++) {
		traffic_end(r, &t[k], rank_ms());
		if (t[k].code != SMEM_PEER_LOST)
			rank_fail(r, __FILE__, __LINE__, "code %d: %s", t[k].code, t[k].why);
		traffic_free(r, &t[k]);
	}
	initiator_down(ep);
}

/* ---- killed, and started again ---- */

#define LIVES 100u

static void killed(struct rank *r)
{
	uint64_t longest = 0, begin = rank_ms();
	struct traffic t;
	unsigned i;

	quick();
	if (r->rank == 0) {
		target(r);
		return;
	}
	initiator_start(r);
	struct transport_peer p = peer();
	for (i = 0;; i++) {
		struct endpoint *ep = NULL;
		WANT(r, ofi->connect(&p, deadline_in_ms(PATIENCE), &ep), 0);
		tell(r, CLEAR, 0);
		write_again(r, ep, 2 + (int)(i % 100));
		if (!more(i, LIVES, begin)) {
			tell(r, END, 0);
			ofi->close(ep);
			break;
		}
		traffic_start(r, &t, ep, i % 2 == 0);
		rank_kill(r, 0);
		uint64_t took = traffic_end(r, &t, rank_ms());
		longest = took > longest ? took : longest;
		if (t.code != SMEM_PEER_LOST)
			rank_fail(r, __FILE__, __LINE__, "code %d: %s", t.code, t.why);
		ofi->close(ep);
		traffic_free(r, &t);
		rank_spawn(r, 0);
		initiator_follow(r);
		p = peer();
	}
	rank_note(r, "%u lives, error after %llu ms at most", i, (unsigned long long)longest);
	initiator_down(NULL);
}

static const struct ranks_case cases[] = {
    {.name = "wall_answers", .fn = wall_answers, .sizes = {2}},
    {.name = "wall_data", .fn = wall_data, .sizes = {2}},
    {.name = "wall_refuses", .fn = wall_refuses, .sizes = {2}},
    {.name = "wall_control", .fn = wall_control, .sizes = {2}},
    {.name = "connect_answers_lost", .fn = connect_answers_lost, .sizes = {2}},
    {.name = "connect_refused", .fn = connect_refused, .sizes = {2}},
    {.name = "connect_control_lost", .fn = connect_control_lost, .sizes = {2}},
    {.name = "slow", .fn = slow, .sizes = {2}},
    {.name = "stopped", .fn = stopped, .sizes = {2}},
    {.name = "killed", .fn = killed, .sizes = {2}, .seconds = 300},
    {.name = "silent_rounds", .fn = silent_rounds, .sizes = {2}, .seconds = 300},
    {.name = "unplugged_rounds", .fn = unplugged_rounds, .sizes = {2}, .seconds = 300},
};

int main(int argc, char **argv)
{
	return hosts_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
