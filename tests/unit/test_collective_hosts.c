/* SPDX-License-Identifier: Apache-2.0 */
/* Threads as ranks on several hosts: a page for each host, and the store's rounds between them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

#include "core/collective.h"
#include "store_fake.h"
#include "util/err.h"

#define RANKS_MAX 8
#define HOSTS_MAX 3

struct rank {
	struct world *w;
	uint32_t no;
	struct control *page;
	struct collective c;
	struct store_group group;
	pthread_t thread;
	struct deadline deadline;
	uint32_t len; /* of the next call; 0: barrier */
	int32_t code;
	char text[ERR_TEXT_MAX];
	uint32_t done;
};

struct world {
	uint32_t size, hosts;
	struct control page[HOSTS_MAX];
	struct rank rank[RANKS_MAX];
	uint64_t plain[RANKS_MAX]; /* no atomics: only the barriers order it */
};

/* host[i]: where rank i is */
static void setup(struct world *w, const uint32_t *host, uint32_t size)
{
	struct set sets[HOSTS_MAX] = {{.word = {0}}};

	memset(w, 0, sizeof(*w));
	w->size = size;
	fake_start();
	for (uint32_t i = 0; i < size; i++) {
		set_add(&sets[host[i]], i);
		w->hosts = host[i] + 1 > w->hosts ? host[i] + 1 : w->hosts;
	}
	for (uint32_t h = 0; h < w->hosts; h++) {
		w->page[h].fd = -1;
		assert_int_equal(control_create(size, &w->page[h]), SMEM_OK);
	}
	for (uint32_t i = 0; i < size; i++) {
		struct rank *r = &w->rank[i];
		r->w = w;
		r->no = i;
		r->page = &w->page[host[i]];
		collective_init(&r->c, r->page, i);
		collective_outside(&r->c, &sets[host[i]], &r->group);
		fake_enter(&r->group, i, size);
	}
}

static void teardown(struct world *w)
{
	fake_stop();
	for (uint32_t h = 0; h < w->hosts; h++)
		control_close(&w->page[h]);
}

static void note(struct rank *r, int32_t code)
{
	r->code = code;
	snprintf(r->text, sizeof(r->text), "%s", code ? err_detail() : "");
}

static void *one_call(void *arg)
{
	struct rank *r = arg;
	char *mine = calloc(1, ALLGATHER_MAX), *all = calloc(RANKS_MAX, ALLGATHER_MAX);

	memset(mine, (int)r->no + 1, r->len);
	note(r, r->len ? collective_allgather(&r->c, mine, r->len, all, r->deadline)
		       : collective_barrier(&r->c, r->deadline));
	for (uint32_t i = 0; r->code == SMEM_OK && i < r->w->size * r->len; i++) {
		if (all[i] != (char)(i / r->len + 1))
			r->code = 1;
	}
	free(mine);
	free(all);
	return NULL;
}

static void start(struct rank *r, uint32_t len, uint64_t ms)
{
	r->len = len;
	r->deadline = deadline_in_ms(ms);
	assert_int_equal(pthread_create(&r->thread, NULL, one_call, r), 0);
}

static void finish(struct rank *r, int32_t code)
{
	assert_int_equal(pthread_join(r->thread, NULL), 0);
	if (r->code != code)
		print_message("rank %u: %d %s\n", r->no, r->code, r->text);
	assert_int_equal(r->code, code);
}

static void says(const struct rank *r, const char *text)
{
	if (!strstr(r->text, text))
		print_message("rank %u: \"%s\" lacks \"%s\"\n", r->no, r->text, text);
	assert_non_null(strstr(r->text, text));
}

#define LONG 60000u /* never reached by a test that passes */

static void all_pass(struct world *w, uint32_t len)
{
	for (uint32_t i = 0; i < w->size; i++)
		start(&w->rank[i], len, LONG);
	for (uint32_t i = 0; i < w->size; i++)
		finish(&w->rank[i], SMEM_OK);
}

static uint32_t inside(const struct rank *r)
{
	uint64_t s = atomic_load(&r->page->head->state);

	return s >> 61 & 1 ? RANKS_MAX : (uint32_t)s & 0xfff;
}

/* Until n ranks of the host wait, or one is away: an event without a descriptor, so look and yield,
 * for a minute at most. */
static void until_inside(const struct rank *r, uint32_t n)
{
	struct deadline d = deadline_in_s(60);

	while (inside(r) != n && !deadline_passed(d))
		sched_yield();
	assert_int_equal(inside(r), n);
}
#define AWAY RANKS_MAX

/* ---- rounds ---- */

static const uint32_t two_hosts[] = {0, 0, 0, 1, 1};
static const uint32_t three_hosts[] = {0, 1, 2, 1, 2, 2, 2};

static void *many_rounds(void *arg)
{
	struct rank *r = arg;
	struct world *w = r->w;
	static const uint32_t len[] = {0, 1, 128, 129, 0, 300, 65536, 5};

	for (uint32_t round = 1; round <= 200; round++) {
		w->plain[r->no] = (uint64_t)round * 1000 + r->no;
		r->len = len[round % 8];
		r->deadline = deadline_in_ms(LONG);
		one_call(r);
		for (uint32_t i = 0; r->code == SMEM_OK && i < w->size; i++) {
			if (w->plain[i] != (uint64_t)round * 1000 + i)
				r->code = 2;
		}
		if (r->code == SMEM_OK)
			note(r, collective_barrier(&r->c, deadline_in_ms(LONG)));
		if (r->code != SMEM_OK)
			return NULL;
		r->done++;
	}
	return NULL;
}

static void rounds_on(const uint32_t *host, uint32_t size)
{
	struct world w;
	unsigned calls = 0;

	setup(&w, host, size);
	for (uint32_t i = 0; i < size; i++)
		assert_int_equal(pthread_create(&w.rank[i].thread, NULL, many_rounds, &w.rank[i]),
				 0);
	for (uint32_t i = 0; i < size; i++) {
		finish(&w.rank[i], SMEM_OK);
		assert_int_equal(w.rank[i].done, 200);
		calls += w.rank[i].group.calls;
	}
	assert_int_equal(calls, 400 * w.hosts); /* one a round and host */
	teardown(&w);
}

static void test_rounds(void **state)
{
	static const uint32_t alone[] = {0, 1, 2};

	(void)state;
	rounds_on(two_hosts, 5);
	rounds_on(three_hosts, 7);
	rounds_on(alone, 3);
}

static void test_unlike_calls_are_told_to_all(void **state)
{
	struct world w;

	(void)state;
	setup(&w, two_hosts, 5);
	for (uint32_t i = 0; i < 5; i++)
		start(&w.rank[i], i == 1 ? 8 : i == 4 ? 65536 : 0, LONG);
	for (uint32_t i = 0; i < 5; i++) {
		finish(&w.rank[i], SMEM_INVALID_PARAM);
		assert_string_equal(w.rank[i].text,
				    "the ranks made unlike calls: barrier: ranks 0, 2-3; allgather "
				    "of 8 bytes: rank 1; allgather of 65536 bytes: rank 4");
	}
	/* Alike on each host. */
	for (uint32_t i = 0; i < 5; i++)
		start(&w.rank[i], two_hosts[i] ? 200 : 100, LONG);
	for (uint32_t i = 0; i < 5; i++) {
		finish(&w.rank[i], SMEM_INVALID_PARAM);
		says(&w.rank[i], "100 bytes: ranks 0-2; allgather of 200");
	}
	all_pass(&w, 1000);
	teardown(&w);
}

/* ---- time ---- */

static void test_timeout_names_the_missing(void **state)
{
	struct world w;

	(void)state;
	setup(&w, two_hosts, 5);
	for (uint32_t i = 0; i < 4; i++)
		start(&w.rank[i], 0, 600); /* 3 cannot go away without 4, and says so */
	for (uint32_t i = 0; i < 4; i++) {
		finish(&w.rank[i], SMEM_TIMEOUT);
		says(&w.rank[i], "barrier: rank 4 not there after ");
	}
	for (uint32_t i = 1; i < 4; i++)
		start(&w.rank[i], 9, 1200);
	for (uint32_t i = 1; i < 4; i++) {
		finish(&w.rank[i], SMEM_TIMEOUT);
		says(&w.rank[i], "9 bytes: ranks 0, 4 not there after ");
	}
	all_pass(&w, 9);
	teardown(&w);
}

/* Each has its own deadline; whose time is not up stays inside. */
static void test_others_stay(void **state)
{
	struct world w;

	(void)state;
	setup(&w, two_hosts, 5);
	start(&w.rank[1], 0, LONG);
	start(&w.rank[2], 0, LONG);
	until_inside(&w.rank[1], 2);
	start(&w.rank[0], 0, 100); /* goes away */
	finish(&w.rank[0], SMEM_TIMEOUT);
	says(&w.rank[0], "barrier: ranks 3-4 not there after ");
	assert_int_equal(inside(&w.rank[0]), 2);
	start(&w.rank[4], 0, LONG);
	start(&w.rank[0], 0, LONG);
	until_inside(&w.rank[0], AWAY);
	start(&w.rank[3], 0, LONG);
	for (uint32_t i = 0; i < 5; i++)
		finish(&w.rank[i], SMEM_OK);
	/* Not who goes away, but another one has no time. */
	start(&w.rank[1], 0, 100);
	start(&w.rank[2], 0, LONG);
	until_inside(&w.rank[1], 2);
	start(&w.rank[0], 0, LONG);
	finish(&w.rank[1], SMEM_TIMEOUT);
	assert_int_equal(inside(&w.rank[0]), 2);
	start(&w.rank[1], 0, LONG);
	start(&w.rank[3], 0, LONG);
	start(&w.rank[4], 0, LONG);
	for (uint32_t i = 0; i < 5; i++)
		finish(&w.rank[i], SMEM_OK);
	teardown(&w);
}

static void *impatient(void *arg)
{
	struct rank *r = arg;
	uint32_t x = r->no + 1;

	for (int i = 0; i < 2000 && r->code == 0; i++) {
		x = x * 1664525u + 1013904223u;
		int32_t code = collective_barrier(&r->c, deadline_in_ms(x >> 30));
		if (code == SMEM_OK)
			r->done++;
		else if (code != SMEM_TIMEOUT)
			note(r, code);
	}
	return NULL;
}

/* Whatever withdraws when: a round completes for all or for nobody. */
static void test_all_or_nobody(void **state)
{
	static const uint32_t host[] = {0, 1, 0, 1};
	struct world w;

	(void)state;
	setup(&w, host, 4);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&w.rank[i].thread, NULL, impatient, &w.rank[i]), 0);
	for (uint32_t i = 0; i < 4; i++)
		finish(&w.rank[i], SMEM_OK);
	for (uint32_t i = 1; i < 4; i++)
		assert_int_equal(w.rank[i].done, w.rank[0].done);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(inside(&w.rank[i]), 0);
	all_pass(&w, 3);
	teardown(&w);
}

/* ---- who is away does not answer ---- */

/* Rank 0, the last of its host, goes away and is held there. */
static void send_away(struct world *w, enum hold how, uint64_t ms, uint64_t others_ms)
{
	start(&w->rank[1], 7, others_ms);
	start(&w->rank[2], 7, LONG);
	until_inside(&w->rank[0], 2);
	fake_hold(&w->rank[0].group, how);
	start(&w->rank[0], 7, ms);
	until_inside(&w->rank[0], AWAY);
}

/* Stopped before it has sent anything: what comes late does not count. */
static void test_stopped_before(void **state)
{
	struct world w;

	(void)state;
	setup(&w, two_hosts, 5);
	send_away(&w, HOLD_BEFORE, LONG, 50);
	fake_until_held(&w.rank[0].group);
	finish(&w.rank[1], SMEM_TIMEOUT);
	says(&w.rank[1], "ranks 3-4 not there");
	assert_int_equal(inside(&w.rank[0]), 2);
	/* It is still inside: the round completes with it. */
	for (uint32_t i = 1; i < 5; i++) {
		if (i != 2)
			start(&w.rank[i], 7, LONG);
	}
	for (uint32_t i = 1; i < 5; i++)
		finish(&w.rank[i], SMEM_OK);
	fake_hold(&w.rank[0].group, HOLD_NOT);
	finish(&w.rank[0], SMEM_OK);
	all_pass(&w, 7);
	teardown(&w);
}

/* Stopped with the outcome in its hands: the round is complete, for all. */
static void test_stopped_after(void **state)
{
	struct world w;

	(void)state;
	setup(&w, two_hosts, 5);
	send_away(&w, HOLD_AFTER, LONG, 400);
	start(&w.rank[3], 7, LONG);
	start(&w.rank[4], 7, LONG);
	fake_until_held(&w.rank[0].group);
	for (uint32_t i = 1; i < 5; i++)
		finish(&w.rank[i], SMEM_OK);
	fake_hold(&w.rank[0].group, HOLD_NOT);
	finish(&w.rank[0], SMEM_OK);
	all_pass(&w, 7);
	teardown(&w);
}

static void rank_dies(struct world *w, uint32_t no)
{
	pthread_mutex_lock(&fake_lock);
	for (uint32_t h = 0; h < w->hosts; h++)
		collective_lost(&w->page[h], no, false);
	fake_lost(&w->rank[no].group);
	pthread_mutex_unlock(&fake_lock);
}

/* Dead with the outcome in its hands: this round succeeds for all others, the next one fails. */
static void test_dead_after(void **state)
{
	struct world w;

	(void)state;
	setup(&w, two_hosts, 5);
	send_away(&w, HOLD_AFTER, LONG, LONG);
	start(&w.rank[3], 7, LONG);
	start(&w.rank[4], 7, LONG);
	fake_until_held(&w.rank[0].group);
	finish(&w.rank[3], SMEM_OK);
	finish(&w.rank[4], SMEM_OK);
	rank_dies(&w, 0);
	finish(&w.rank[1], SMEM_OK);
	finish(&w.rank[2], SMEM_OK);
	for (uint32_t i = 1; i < 5; i++)
		start(&w.rank[i], 0, LONG);
	for (uint32_t i = 1; i < 5; i++) {
		finish(&w.rank[i], SMEM_PEER_LOST);
		says(&w.rank[i], "rank 0 lost");
	}
	fake_hold(&w.rank[0].group, HOLD_NOT);
	pthread_join(w.rank[0].thread, NULL);
	teardown(&w);
}

static void dead(enum hold how, uint32_t victim)
{
	struct world w;

	setup(&w, two_hosts, 5);
	start(&w.rank[3], 7, LONG);
	send_away(&w, how, LONG, LONG);
	if (how != HOLD_NOT)
		fake_until_held(&w.rank[0].group);
	rank_dies(&w, victim);
	for (uint32_t i = 0; i < 4; i++) {
		if (i == victim)
			continue;
		finish(&w.rank[i], SMEM_PEER_LOST);
		char name[16];
		snprintf(name, sizeof(name), "rank %u lost", victim);
		says(&w.rank[i], name);
	}
	fake_hold(&w.rank[victim].group, HOLD_NOT);
	if (victim < 4)
		pthread_join(w.rank[victim].thread, NULL);
	teardown(&w);
}

/* Dead before the round is complete; and one that is not away, near or far. */
static void test_dead_before(void **state)
{
	(void)state;
	dead(HOLD_BEFORE, 0);
	dead(HOLD_NOT, 0);
	dead(HOLD_NOT, 1);
	dead(HOLD_NOT, 3);
	dead(HOLD_NOT, 4);
}

/* Destroying ends the own waits; who is away is replaced then, too. */
static void test_close_while_away(void **state)
{
	struct world w;

	(void)state;
	setup(&w, two_hosts, 5);
	send_away(&w, HOLD_NOT, LONG, LONG);
	collective_close(&w.rank[0].c);
	pthread_mutex_lock(&fake_lock);
	w.rank[0].group.woken = true;
	pthread_cond_broadcast(&fake_changed);
	pthread_mutex_unlock(&fake_lock);
	finish(&w.rank[0], SMEM_OBJECT_NOT_EXISTS);
	for (uint32_t i = 1; i < 3; i++) {
		finish(&w.rank[i], SMEM_PEER_LOST);
		says(&w.rank[i], "rank 0 left by destroying");
	}
	teardown(&w);
}

/* One is closed while another one holds the outcome of a round: it has completed for both. */
static void test_close_beside_the_outcome(void **state)
{
	struct world w;

	(void)state;
	setup(&w, two_hosts, 5);
	send_away(&w, HOLD_AFTER, LONG, LONG);
	start(&w.rank[3], 7, LONG);
	start(&w.rank[4], 7, LONG);
	fake_until_held(&w.rank[0].group);
	collective_close(&w.rank[1].c);
	for (uint32_t i = 1; i < 5; i++)
		finish(&w.rank[i], SMEM_OK);
	fake_hold(&w.rank[0].group, HOLD_NOT);
	finish(&w.rank[0], SMEM_OK);
	start(&w.rank[2], 0, LONG);
	finish(&w.rank[2], SMEM_PEER_LOST);
	start(&w.rank[1], 0, LONG);
	finish(&w.rank[1], SMEM_OBJECT_NOT_EXISTS);
	/* And in a round that is not complete. */
	teardown(&w);
	setup(&w, two_hosts, 5);
	send_away(&w, HOLD_NOT, LONG, LONG);
	collective_close(&w.rank[1].c);
	finish(&w.rank[1], SMEM_OBJECT_NOT_EXISTS);
	finish(&w.rank[2], SMEM_PEER_LOST);
	finish(&w.rank[0], SMEM_PEER_LOST);
	teardown(&w);
}

static void test_store_out_of_reach(void **state)
{
	struct world w;

	(void)state;
	setup(&w, two_hosts, 5);
	for (uint32_t i = 0; i < 3; i++)
		w.rank[i].group.unreachable = true;
	for (int k = 0; k < 2; k++) {
		for (uint32_t i = 0; i < 3; i++)
			start(&w.rank[i], 0, LONG);
		for (uint32_t i = 0; i < 3; i++) {
			finish(&w.rank[i], SMEM_UNREACHABLE);
			says(&w.rank[i], "barrier: the wire is cut");
		}
		assert_int_equal(inside(&w.rank[0]), 0);
	}
	for (uint32_t i = 0; i < 3; i++)
		w.rank[i].group.unreachable = false;
	all_pass(&w, 2);
	teardown(&w);
}

/* The answer is lost: this host's ranks are told of a time-out, and go on with the round after. */
static void test_lost_answer(void **state)
{
	struct world w;

	(void)state;
	setup(&w, two_hosts, 5);
	for (uint32_t i = 0; i < 3; i++) {
		w.rank[i].group.deaf = true;
		start(&w.rank[i], 0, 300);
	}
	start(&w.rank[3], 0, LONG);
	start(&w.rank[4], 0, LONG);
	for (uint32_t i = 0; i < 5; i++)
		finish(&w.rank[i], i < 3 ? SMEM_TIMEOUT : SMEM_OK);
	for (uint32_t i = 0; i < 3; i++)
		w.rank[i].group.deaf = false;
	all_pass(&w, 200);
	all_pass(&w, 0);
	teardown(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rounds),
	    cmocka_unit_test(test_unlike_calls_are_told_to_all),
	    cmocka_unit_test(test_timeout_names_the_missing),
	    cmocka_unit_test(test_others_stay),
	    cmocka_unit_test(test_all_or_nobody),
	    cmocka_unit_test(test_stopped_before),
	    cmocka_unit_test(test_stopped_after),
	    cmocka_unit_test(test_dead_after),
	    cmocka_unit_test(test_dead_before),
	    cmocka_unit_test(test_close_while_away),
	    cmocka_unit_test(test_close_beside_the_outcome),
	    cmocka_unit_test(test_store_out_of_reach),
	    cmocka_unit_test(test_lost_answer),
	};

	return cmocka_run_group_tests_name("collective_hosts", tests, NULL, NULL);
}
