/* SPDX-License-Identifier: Apache-2.0 */
/* What store.h promises of rounds in which members stand for others, through server and clients. */
#include "store_util.h"

static struct hub hub;

static int setup(void **state)
{
	(void)state;
	hub_start(&hub);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	hub_stop(&hub);
	return 0;
}

#define MEMBERS 4u

static void ignore(void *arg, const struct store_event *e)
{
	(void)arg;
	(void)e;
}

/* A member, and one call of it in a thread. */
struct member {
	struct task t; /* first */
	struct set set, missing;
	uint32_t turn, kind;
	struct store_parts parts;
};

static void do_enter(struct task *t)
{
	task_fail(t, store_group_enter(t->store, &t->enter, t->deadline, NULL, &t->group));
}

static void do_sets(struct task *t)
{
	struct member *m = (struct member *)t;
	struct store_sets sets = {.set = &m->set,
				  .turn = m->turn,
				  .kind = &m->kind,
				  .kind_len = sizeof(m->kind),
				  .val = t->val,
				  .len = t->len};

	task_fail(t, store_group_sets(t->group, &sets, t->deadline, &m->missing, &m->parts));
}

static void start(struct member *m, uint64_t set, uint32_t turn, uint32_t kind, uint64_t ms)
{
	m->set = (struct set){.word = {set}};
	m->turn = turn;
	m->kind = kind;
	m->t.deadline = deadline_in_ms(ms);
	task_start(&m->t, do_sets);
}

static void members_in(struct member *m, const char *name)
{
	for (uint32_t i = 0; i < MEMBERS; i++) {
		m[i] = (struct member){.t = {.store = hub_client(&hub, i + 1),
					     .enter = {.name = name,
						       .mode = STORE_GROUP_CLOSED,
						       .member = i,
						       .size = MEMBERS,
						       .fn = ignore},
					     .deadline = deadline_in_s(LONG_S)}};
		task_start(&m[i].t, do_enter);
	}
	for (uint32_t i = 0; i < MEMBERS; i++) {
		task_join(&m[i].t);
		assert_int_equal(m[i].t.code, 0);
	}
}

static void members_out(struct member *m)
{
	for (uint32_t i = 0; i < MEMBERS; i++) {
		store_group_free(m[i].t.group);
		store_close(m[i].t.store, 0);
	}
}

/* What is brought may be longer than any other request. */
static void test_rounds(void **state)
{
	static const size_t len[] = {0,	       1, 1000, STORE_VALUE_MAX + 1, STORE_REQUEST_MAX + 1,
				     24u << 20};
	char *val = calloc(1, 24u << 20);
	struct member m[MEMBERS];

	(void)state;
	assert_non_null(val);
	members_in(m, "sets");
	for (uint32_t k = 0; k < 6; k++) {
		val[0] = val[len[k] ? len[k] - 1 : 0] = (char)('a' + k);
		m[1].t.val = val;
		m[1].t.len = len[k];
		m[2].t.val = "tail";
		m[2].t.len = 4;
		start(&m[1], 0xb, k, k, LONG_S * 1000);
		start(&m[2], 0x4, k, k, LONG_S * 1000);
		for (uint32_t i = 1; i < 3; i++) {
			const struct store_parts *p = &m[i].parts;
			task_join(&m[i].t);
			assert_int_equal(m[i].t.code, 0);
			assert_int_equal(p->count, 2);
			assert_int_equal(p->part[0].set.word[0], 0xb);
			assert_int_equal(p->part[0].len, len[k]);
			if (len[k] > 0)
				assert_int_equal(p->part[0].data[len[k] - 1], 'a' + k);
			assert_int_equal(p->part[1].set.word[0], 0x4);
			assert_memory_equal(p->part[1].data, "tail", 4);
			store_parts_free(&m[i].parts);
		}
	}
	members_out(m);
	free(val);
}

static void test_time_and_settling(void **state)
{
	struct store_parts parts = {.count = 0};
	struct set missing = {.word = {0}};
	struct member m[MEMBERS];
	uint32_t kind = 1;
	int64_t n;

	(void)state;
	members_in(m, "settle");
	store_group_present(m[3].t.group, &kind, sizeof(kind));
	/* It has arrived when a later call on the same connection has. */
	assert_int_equal(store_add(m[3].t.store, "n", 1, deadline_in_s(LONG_S), &n), 0);
	start(&m[0], 0x3, 1, kind, 100);
	task_join(&m[0].t);
	assert_int_equal(m[0].t.code, SMEM_TIMEOUT);
	assert_int_equal(m[0].missing.word[0], 0x4);
	assert_non_null(strstr(m[0].t.detail, "missing rank 2"));
	assert_int_equal(
	    store_group_absent(m[3].t.group, &kind, sizeof(kind), deadline_in_s(LONG_S), &missing),
	    0);
	assert_true(set_has(&missing, 2) && !set_has(&missing, 3));
	/* Taken back by who is stood for. */
	start(&m[0], 0x3, 2, kind, LONG_S * 1000);
	int32_t r = store_group_settle(m[1].t.group, 2, &kind, sizeof(kind), deadline_in_s(LONG_S),
				       &missing, &parts);
	assert_int_equal(r, SMEM_TIMEOUT);
	task_join(&m[0].t);
	assert_int_equal(m[0].t.code, SMEM_STALE);
	/* And told once more. */
	m[2].t.val = "cd";
	m[2].t.len = 2;
	start(&m[0], 0x3, 3, kind, LONG_S * 1000);
	start(&m[2], 0xc, 3, kind, LONG_S * 1000);
	for (uint32_t i = 0; i < 3; i += 2) {
		task_join(&m[i].t);
		assert_int_equal(m[i].t.code, 0);
		store_parts_free(&m[i].parts);
	}
	r = store_group_settle(m[1].t.group, 3, &kind, sizeof(kind), deadline_in_s(LONG_S),
			       &missing, &parts);
	assert_int_equal(r, 0);
	assert_int_equal(parts.count, 2);
	assert_memory_equal(parts.part[1].data, "cd", 2);
	store_parts_free(&parts);
	/* Who leaves ends the wait of who is elsewhere. */
	kind = 2;
	start(&m[2], 0xc, 4, kind, LONG_S * 1000);
	store_group_free(m[1].t.group);
	m[1].t.group = NULL;
	task_join(&m[2].t);
	assert_int_equal(m[2].t.code, SMEM_PEER_LOST);
	assert_non_null(strstr(m[2].t.detail, "rank 1 has left"));
	members_out(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rounds),
	    cmocka_unit_test(test_time_and_settling),
	};

	return cmocka_run_group_tests_name("store_rounds", tests, setup, teardown);
}
