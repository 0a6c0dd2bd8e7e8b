/* SPDX-License-Identifier: Apache-2.0 */
/* Threads as ranks: every rule of a round, and its memory ordering under a race detector. */
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
#include <unistd.h>

#include "core/collective.h"
#include "util/err.h"

#define RANKS_MAX 32

/* A page and N ranks, each a thread that runs fn once. */
struct world;
struct rank {
	struct world *w;
	uint32_t no;
	struct collective c;
	pthread_t thread;
	int32_t code;
	char text[ERR_TEXT_MAX];
	uint32_t done;
};
struct world {
	struct control page;
	uint32_t size;
	struct rank rank[RANKS_MAX];
	uint64_t plain[RANKS_MAX]; /* no atomics: only the barriers order it */
};

static void setup(struct world *w, uint32_t size)
{
	memset(w, 0, sizeof(*w));
	w->page.fd = -1;
	w->size = size;
	assert_int_equal(control_create(size, &w->page), SMEM_OK);
	for (uint32_t i = 0; i < size; i++) {
		w->rank[i].w = w;
		w->rank[i].no = i;
		collective_init(&w->rank[i].c, &w->page, i);
	}
}

static void teardown(struct world *w)
{
	control_close(&w->page);
}

static void start(struct rank *r, void *(*fn)(void *))
{
	assert_int_equal(pthread_create(&r->thread, NULL, fn, r), 0);
}

static void note(struct rank *r, int32_t code)
{
	r->code = code;
	snprintf(r->text, sizeof(r->text), "%s", code ? err_detail() : "");
}

static void *one_barrier(void *arg)
{
	struct rank *r = arg;

	note(r, collective_barrier(&r->c, deadline_in_s(60)));
	return NULL;
}

static void *one_allgather_8(void *arg)
{
	struct rank *r = arg;
	char all[RANKS_MAX * 8];

	note(r, collective_allgather(&r->c, "12345678", 8, all, deadline_in_s(60)));
	return NULL;
}

static void *one_allgather_9(void *arg)
{
	struct rank *r = arg;
	char all[RANKS_MAX * 9];

	note(r, collective_allgather(&r->c, "123456789", 9, all, deadline_in_s(60)));
	return NULL;
}

static void join(struct world *w, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		assert_int_equal(pthread_join(w->rank[i].thread, NULL), 0);
}

static uint32_t inside(struct world *w)
{
	return (uint32_t)atomic_load(&w->page.head->state) & 0xfff;
}

/* Until n ranks wait: an event without a descriptor, so look and yield, for a minute at most. */
static void until_inside(struct world *w, uint32_t n)
{
	struct deadline d = deadline_in_s(60);

	while (inside(w) != n && !deadline_passed(d))
		sched_yield();
	assert_int_equal(inside(w), n);
}

static void all_pass(struct world *w)
{
	for (uint32_t i = 0; i < w->size; i++)
		start(&w->rank[i], one_barrier);
	join(w, 0, w->size);
	for (uint32_t i = 0; i < w->size; i++)
		assert_int_equal(w->rank[i].code, SMEM_OK);
}

static void test_alone(void **state)
{
	struct world w;
	char in[5] = "mono", out[5] = "";

	(void)state;
	setup(&w, 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(collective_barrier(&w.rank[0].c, deadline_in_s(1)), SMEM_OK);
	assert_int_equal(collective_allgather(&w.rank[0].c, in, 5, out, deadline_in_s(1)), SMEM_OK);
	assert_string_equal(out, "mono");
	teardown(&w);
}

#define ROUNDS 2000

static void *write_and_look(void *arg)
{
	struct rank *r = arg;
	struct world *w = r->w;

	for (uint32_t round = 1; round <= ROUNDS / w->size; round++) {
		w->plain[r->no] = (uint64_t)round * 1000 + r->no;
		note(r, collective_barrier(&r->c, deadline_in_s(60)));
		for (uint32_t i = 0; r->code == SMEM_OK && i < w->size; i++) {
			if (w->plain[i] != (uint64_t)round * 1000 + i)
				r->code = 1;
		}
		if (r->code == SMEM_OK)
			note(r, collective_barrier(&r->c, deadline_in_s(60)));
		if (r->code != SMEM_OK)
			return NULL;
		r->done++;
	}
	return NULL;
}

static void test_barrier_orders_plain_memory(void **state)
{
	static const uint32_t sizes[] = {2, 3, 4, 8, 32};

	(void)state;
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		struct world w;
		setup(&w, sizes[s]);
		for (uint32_t i = 0; i < w.size; i++)
			start(&w.rank[i], write_and_look);
		join(&w, 0, w.size);
		for (uint32_t i = 0; i < w.size; i++) {
			assert_int_equal(w.rank[i].code, SMEM_OK);
			assert_int_equal(w.rank[i].done, ROUNDS / w.size);
		}
		teardown(&w);
	}
}

/* The same sizes on every rank, without talking to each other. */
static uint32_t size_of_round(uint32_t round)
{
	static const uint32_t edges[] = {1, 127, 128, 129, 65535, 65536};
	uint32_t x = round * 2654435761u;

	if (round % 4 == 0)
		return edges[round / 4 % 6];
	return round % 4 == 1 ? x % 300 + 1 : x % ALLGATHER_MAX + 1;
}

static void *gather_rounds(void *arg)
{
	struct rank *r = arg;
	uint32_t size = r->w->size;
	char *mine = malloc(ALLGATHER_MAX);
	char *all = malloc((size_t)size * ALLGATHER_MAX);

	for (uint32_t round = 0; round < 100; round++) {
		uint32_t len = size_of_round(round);
		for (uint32_t i = 0; i < len; i++)
			mine[i] = (char)(i * 7 + r->no * 31 + round);
		note(r, collective_allgather(&r->c, mine, len, all, deadline_in_s(60)));
		for (uint32_t k = 0; r->code == SMEM_OK && k < size; k++) {
			for (uint32_t i = 0; i < len; i++) {
				if (all[(size_t)k * len + i] != (char)(i * 7 + k * 31 + round))
					r->code = 1;
			}
		}
		if (r->code != SMEM_OK)
			break;
		r->done++;
	}
	free(mine);
	free(all);
	return NULL;
}

static void test_allgather_of_any_size(void **state)
{
	static const uint32_t sizes[] = {2, 4, 8};

	(void)state;
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		struct world w;
		setup(&w, sizes[s]);
		for (uint32_t i = 0; i < w.size; i++)
			start(&w.rank[i], gather_rounds);
		join(&w, 0, w.size);
		for (uint32_t i = 0; i < w.size; i++) {
			assert_int_equal(w.rank[i].code, SMEM_OK);
			assert_int_equal(w.rank[i].done, 100);
		}
		teardown(&w);
	}
}

static void test_unlike_calls_are_told_to_all(void **state)
{
	struct world w;

	(void)state;
	setup(&w, 4);
	start(&w.rank[0], one_barrier);
	until_inside(&w, 1);
	start(&w.rank[1], one_allgather_8);
	start(&w.rank[2], one_allgather_9);
	until_inside(&w, 3);
	start(&w.rank[3], one_barrier);
	join(&w, 0, 4);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(w.rank[i].code, SMEM_INVALID_PARAM);
		assert_string_equal(w.rank[i].text,
				    "the ranks made unlike calls: barrier: ranks 0, 3; allgather "
				    "of 8 bytes: rank 1; allgather of 9 bytes: rank 2");
	}
	all_pass(&w);
	teardown(&w);
}

static void test_who_withdrew_is_forgotten(void **state)
{
	struct world w;
	char all[32];

	(void)state;
	setup(&w, 3);
	start(&w.rank[0], one_barrier);
	until_inside(&w, 1);
	assert_int_equal(collective_allgather(&w.rank[1].c, "1234", 4, all, deadline_in_ms(5)),
			 SMEM_TIMEOUT);
	assert_non_null(strstr(err_detail(), "allgather of 4 bytes: rank 2 not there after"));
	assert_int_equal(inside(&w), 1);
	start(&w.rank[1], one_barrier);
	start(&w.rank[2], one_barrier);
	join(&w, 0, 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(w.rank[i].code, SMEM_OK);
	teardown(&w);
}

static void test_the_first_kind_withdraws(void **state)
{
	struct world w;
	char all[32];

	(void)state;
	setup(&w, 2);
	assert_int_equal(collective_allgather(&w.rank[0].c, "1234", 4, all, deadline_in_ms(5)),
			 SMEM_TIMEOUT);
	assert_int_equal(inside(&w), 0);
	all_pass(&w);
	teardown(&w);
}

static void test_timeout_names_the_missing(void **state)
{
	struct world w;

	(void)state;
	setup(&w, 8);
	start(&w.rank[6], one_barrier);
	until_inside(&w, 1);
	assert_int_equal(collective_barrier(&w.rank[0].c, deadline_in_ms(20)), SMEM_TIMEOUT);
	assert_non_null(strstr(err_detail(), "barrier: ranks 1-5, 7 not there after"));
	for (uint32_t i = 0; i < 8; i++) {
		if (i != 6)
			start(&w.rank[i], one_barrier);
	}
	join(&w, 0, 8);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(w.rank[i].code, SMEM_OK);
	teardown(&w);
}

static void test_a_lost_rank_ends_all_waits(void **state)
{
	struct world w;

	(void)state;
	setup(&w, 4);
	start(&w.rank[0], one_barrier);
	start(&w.rank[1], one_allgather_8);
	until_inside(&w, 2);
	collective_lost(&w.page, 3, false);
	join(&w, 0, 2);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(w.rank[i].code, SMEM_PEER_LOST);
		assert_non_null(strstr(w.rank[i].text, "rank 3 lost"));
	}
	assert_int_equal(collective_barrier(&w.rank[2].c, deadline_in_s(60)), SMEM_PEER_LOST);
	assert_int_equal(collective_alive(&w.page, 3), SMEM_PEER_LOST);
	assert_int_equal(collective_alive(&w.page, 2), SMEM_OK);
	collective_lost(&w.page, 4000, false); /* nobody */
	teardown(&w);
}

static void test_close_ends_all_waits(void **state)
{
	struct world w;

	(void)state;
	setup(&w, 3);
	start(&w.rank[0], one_barrier);
	start(&w.rank[1], one_barrier);
	until_inside(&w, 2);
	collective_close(&w.rank[1].c);
	collective_lost(&w.page, 1, false); /* its process ends: it has left nevertheless */
	join(&w, 0, 2);
	assert_int_equal(w.rank[0].code, SMEM_PEER_LOST);
	assert_non_null(strstr(w.rank[0].text, "rank 1 left by destroying the object"));
	assert_int_equal(w.rank[1].code, SMEM_OBJECT_NOT_EXISTS);
	assert_int_equal(collective_barrier(&w.rank[1].c, deadline_in_s(60)),
			 SMEM_OBJECT_NOT_EXISTS);
	assert_int_equal(collective_alive(&w.page, 1), SMEM_NOT_STARTED);
	teardown(&w);
}

/* Calls of several threads of one rank count one by one. */
static void test_threads_of_a_rank_take_turns(void **state)
{
	struct world w;

	(void)state;
	setup(&w, 2);
	for (int i = 0; i < 3; i++)
		assert_int_equal(collective_barrier(&w.rank[1].c, deadline_in_ms(1)), SMEM_TIMEOUT);
	start(&w.rank[0], one_barrier);
	until_inside(&w, 1);
	assert_int_equal(collective_barrier(&w.rank[0].c, deadline_in_ms(5)), SMEM_TIMEOUT);
	assert_non_null(strstr(err_detail(), "another thread of rank 0"));
	assert_int_equal(collective_barrier(&w.rank[1].c, deadline_in_s(60)), SMEM_OK);
	join(&w, 0, 1);
	assert_int_equal(w.rank[0].code, SMEM_OK);
	teardown(&w);
}

static void *impatient(void *arg)
{
	struct rank *r = arg;
	uint32_t x = r->no + 1;

	for (int i = 0; i < 3000 && r->code == 0; i++) {
		x = x * 1664525u + 1013904223u;
		int32_t code = collective_barrier(&r->c, deadline_in_ms(x >> 31));
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
	struct world w;

	(void)state;
	setup(&w, 4);
	for (uint32_t i = 0; i < 4; i++)
		start(&w.rank[i], impatient);
	join(&w, 0, 4);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(w.rank[i].code, SMEM_OK);
		assert_int_equal(w.rank[i].done, w.rank[0].done);
	}
	assert_int_equal(inside(&w), 0);
	all_pass(&w);
	teardown(&w);
}

static void test_page_of_another_shape(void **state)
{
	struct control made = {.fd = -1}, opened = {.fd = -1};

	(void)state;
	assert_int_equal(control_create(3, &made), SMEM_OK);
	int fd = dup(made.fd);
	assert_int_equal(control_open(&fd, 4, &opened), SMEM_IO);
	assert_int_equal(fd, -1);
	fd = dup(made.fd);
	made.head->version++;
	assert_int_equal(control_open(&fd, 3, &opened), SMEM_NOT_SUPPORTED);
	made.head->version--;
	fd = dup(made.fd);
	assert_int_equal(control_open(&fd, 3, &opened), SMEM_OK);
	assert_ptr_not_equal(opened.head, made.head);
	control_close(&opened);
	control_close(&opened);
	control_close(&made);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_alone),
	    cmocka_unit_test(test_barrier_orders_plain_memory),
	    cmocka_unit_test(test_allgather_of_any_size),
	    cmocka_unit_test(test_unlike_calls_are_told_to_all),
	    cmocka_unit_test(test_who_withdrew_is_forgotten),
	    cmocka_unit_test(test_the_first_kind_withdraws),
	    cmocka_unit_test(test_timeout_names_the_missing),
	    cmocka_unit_test(test_a_lost_rank_ends_all_waits),
	    cmocka_unit_test(test_close_ends_all_waits),
	    cmocka_unit_test(test_threads_of_a_rank_take_turns),
	    cmocka_unit_test(test_all_or_nobody),
	    cmocka_unit_test(test_page_of_another_shape),
	};

	return cmocka_run_group_tests_name("collective", tests, NULL, NULL);
}
