/* SPDX-License-Identifier: Apache-2.0 */
/* What store.h promises of groups, through server and clients over TCP. */
#include "store_util.h"

static struct hub hub;

static struct deadline soon(void)
{
	return deadline_in_s(LONG_S);
}

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

/* ---- open groups ---- */

static struct store_enter open_enter(const char *name, uint32_t member, struct diary *d,
				     const char *blob)
{
	return (struct store_enter){.name = name,
				    .mode = STORE_GROUP_OPEN,
				    .member = member,
				    .size = 4,
				    .numbers = 8,
				    .spec = "spec",
				    .spec_len = 4,
				    .blob = blob,
				    .blob_len = strlen(blob),
				    .fn = diary_note,
				    .arg = d};
}

static void test_open_group(void **state)
{
	struct store *a = hub_client(&hub, 1), *b = hub_client(&hub, 2);
	struct store_group *ga = NULL, *gb = NULL;
	static struct diary da, db;

	(void)state;
	diary_init(&da);
	diary_init(&db);
	struct store_enter e = open_enter("og", 5, &da, "blob-a");
	assert_int_equal(store_group_enter(a, &e, soon(), NULL, &ga), 0);
	/* Its own event is there already. */
	assert_int_equal(diary_count(&da), 1);
	assert_int_equal(da.events[0].kind, STORE_EVENT_ENTERED);
	assert_int_equal(da.events[0].member, 5);
	assert_string_equal(da.data[0], "blob-a");
	assert_int_equal(da.events[0].seq, store_group_seq(ga));
	assert_true(da.events[0].incarnation == store_group_incarnation(ga));
	e = open_enter("og", STORE_MEMBER_ANY, &db, "blob-b");
	assert_int_equal(store_group_enter(b, &e, soon(), NULL, &gb), 0);
	assert_int_equal(store_group_member(gb), 0);
	assert_int_equal(diary_count(&db), 2);
	assert_int_equal(db.events[0].member, 5);
	assert_int_equal(db.events[1].member, 0);
	diary_wait(&da, 2);
	assert_string_equal(da.data[1], "blob-b");

	assert_int_equal(store_group_blob(ga, "blob-A", 6, soon()), 0);
	assert_int_equal(store_group_note(gb, "hear", 4, false, soon()), 0);
	diary_wait(&da, 4);
	diary_wait(&db, 4);
	assert_int_equal(db.events[2].kind, STORE_EVENT_BLOB);
	assert_string_equal(db.data[2], "blob-A");
	assert_int_equal(da.events[3].kind, STORE_EVENT_NOTE);
	assert_int_equal(da.events[3].member, 0);
	assert_string_equal(da.data[3], "hear");
	for (size_t i = 1; i < 4; i++)
		assert_true(db.events[i].seq > db.events[i - 1].seq);

	assert_int_equal(store_group_leave(gb, false, soon()), 0);
	store_group_free(gb);
	diary_wait(&da, 5);
	assert_int_equal(da.events[4].kind, STORE_EVENT_LEFT);
	/* Freeing is leaving; a new one has a new incarnation. */
	e = open_enter("og", 0, &db, "b2");
	assert_int_equal(store_group_enter(b, &e, soon(), NULL, &gb), 0);
	store_group_free(gb);
	store_close(b, 0);
	diary_wait(&da, 7);
	assert_int_equal(da.events[6].kind, STORE_EVENT_LEFT);
	assert_true(da.events[6].incarnation != da.events[4].incarnation);
	store_group_free(ga);
	store_close(a, 0);
}

static void test_open_refusals(void **state)
{
	struct store *s[6];
	struct store_group *g[6] = {NULL}, *none = NULL;
	static struct diary d[6];
	struct store_conflict c;

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		s[i] = hub_client(&hub, i + 1);
		diary_init(&d[i]);
	}
	for (unsigned i = 0; i < 4; i++) {
		struct store_enter e = open_enter("or", i, &d[i], "x");
		assert_int_equal(store_group_enter(s[i], &e, soon(), &c, &g[i]), 0);
	}
	struct store_enter e = open_enter("or", 1, &d[4], "x");
	assert_int_equal(store_group_enter(s[4], &e, soon(), &c, &none), SMEM_DUPLICATED_OBJECT);
	e.member = 5;
	assert_int_equal(store_group_enter(s[4], &e, soon(), &c, &none), SMEM_RESOURCE_IN_USE);
	e.spec = "other";
	e.spec_len = 5;
	assert_int_equal(store_group_enter(s[4], &e, soon(), &c, &none), SMEM_INVALID_PARAM);
	assert_int_equal(c.spec.len, 4);
	assert_memory_equal(c.spec.data, "spec", 4);
	assert_int_equal(c.member, 0);
	store_bytes_free(&c.spec);
	store_bytes_free(&c.own_spec);
	e = open_enter("or", 4, &d[4], "x");
	e.size = 5;
	assert_int_equal(store_group_enter(s[4], &e, soon(), NULL, &none), SMEM_INVALID_PARAM);
	assert_int_equal(diary_count(&d[4]), 0);
	for (unsigned i = 0; i < 4; i++)
		store_group_free(g[i]);
	for (unsigned i = 0; i < 4; i++)
		store_close(s[i], 0);
	/* The life is over: other rules may begin. */
	assert_int_equal(store_group_enter(s[4], &e, soon(), NULL, &g[4]), 0);
	store_group_free(g[4]);
	store_close(s[4], 0);
	store_close(s[5], 0);
}

static void do_fence(struct task *t)
{
	task_fail(t, store_group_fence(t->group, t->seq, t->deadline));
}

static void test_fence(void **state)
{
	struct store *s[3];
	struct store_group *g[3] = {NULL};
	static struct diary d[3];
	struct task t;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		s[i] = hub_client(&hub, i + 1);
		diary_init(&d[i]);
		struct store_enter e = open_enter("fe", i, &d[i], "x");
		assert_int_equal(store_group_enter(s[i], &e, soon(), NULL, &g[i]), 0);
	}
	uint64_t seq = store_group_seq(g[2]);
	assert_int_equal(store_group_fence(g[2], seq, deadline_in_ms(100)), SMEM_TIMEOUT);
	assert_non_null(strstr(err_detail(), "member 0, 1, 2"));
	store_group_ack(g[2], seq, 0, NULL);
	store_group_ack(g[1], seq, 0, NULL);
	t = (struct task){.group = g[2], .seq = seq, .deadline = soon()};
	task_start(&t, do_fence);
	store_group_ack(g[0], seq, 0, NULL);
	task_join(&t);
	assert_int_equal(t.code, 0);
	assert_int_equal(store_group_fence(g[0], seq, soon()), 0);
	/* Who is not there any more does not count. */
	assert_int_equal(store_group_note(g[0], "n", 1, false, soon()), 0);
	diary_wait(&d[0], 4);
	seq = d[0].events[3].seq;
	store_group_ack(g[0], seq, 0, NULL);
	store_group_ack(g[1], seq, 0, NULL);
	t = (struct task){.group = g[0], .seq = seq, .deadline = soon()};
	task_start(&t, do_fence);
	store_group_free(g[2]);
	task_join(&t);
	assert_int_equal(t.code, 0);
	/* A failure is told with its text, for exactly its event. */
	assert_int_equal(store_group_note(g[0], "n", 1, false, soon()), 0);
	diary_wait(&d[0], 6);
	store_group_ack(g[1], d[0].events[5].seq, SMEM_MALLOC_FAILED, "no room");
	assert_int_equal(store_group_fence(g[0], d[0].events[5].seq, soon()), SMEM_MALLOC_FAILED);
	assert_non_null(strstr(err_detail(), "no room"));
	store_group_ack(g[0], d[0].events[5].seq, 0, NULL);
	assert_int_equal(store_group_fence(g[0], d[0].events[4].seq, soon()), 0);
	/* Leaving waits for the others. */
	d[0].group = g[0];
	d[0].auto_ack = true;
	assert_int_equal(store_group_leave(g[1], true, soon()), 0);
	store_group_free(g[1]);
	store_group_free(g[0]);
	for (unsigned i = 0; i < 3; i++)
		store_close(s[i], 0);
}

static void test_wake(void **state)
{
	struct store *s[2];
	struct store_group *g[2] = {NULL};
	static struct diary d[2];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		s[i] = hub_client(&hub, i + 1);
		diary_init(&d[i]);
		struct store_enter e = open_enter("wk", i, &d[i], "x");
		assert_int_equal(store_group_enter(s[i], &e, soon(), NULL, &g[i]), 0);
	}
	struct task t = {.group = g[0], .seq = store_group_seq(g[1]), .deadline = soon()};
	task_start(&t, do_fence);
	store_group_wake(g[0]);
	task_join(&t);
	assert_int_equal(t.code, SMEM_OBJECT_NOT_EXISTS);
	assert_int_equal(store_group_fence(g[0], t.seq, soon()), SMEM_OBJECT_NOT_EXISTS);
	for (unsigned i = 0; i < 2; i++) {
		store_group_free(g[i]);
		store_close(s[i], 0);
	}
}

/* ---- closed groups and lobbies ---- */

static struct store_enter closed_enter(const char *name, uint32_t member, uint32_t size,
				       struct diary *d)
{
	return (struct store_enter){.name = name,
				    .mode = STORE_GROUP_CLOSED,
				    .member = member,
				    .size = size,
				    .spec = "spec",
				    .spec_len = 4,
				    .blob = "b",
				    .blob_len = 1,
				    .fn = diary_note,
				    .arg = d};
}

static void do_enter(struct task *t)
{
	task_fail(t, store_group_enter(t->store, &t->enter, t->deadline, &t->conflict, &t->group));
}

static void conflict_free(struct task *t)
{
	store_bytes_free(&t->conflict.spec);
	store_bytes_free(&t->conflict.own_spec);
}

static void do_round(struct task *t)
{
	task_fail(t, store_group_gather(t->group, t->key, strlen(t->key), t->val, t->len,
					t->deadline, &t->conflict, &t->gathered));
}

static struct diary cd[8];

static void closed_start(struct task *t, unsigned n, const char *name)
{
	for (unsigned i = 0; i < n; i++) {
		diary_init(&cd[i]);
		t[i] = (struct task){.store = hub_client(&hub, i + 1),
				     .enter = closed_enter(name, i, n, &cd[i]),
				     .deadline = soon()};
	}
	for (unsigned i = 0; i < n; i++)
		task_start(&t[i], do_enter);
	for (unsigned i = 0; i < n; i++) {
		task_join(&t[i]);
		assert_int_equal(t[i].code, 0);
		assert_int_equal(diary_count(&cd[i]), n);
		assert_int_equal(store_group_member(t[i].group), i);
	}
}

static void closed_stop(struct task *t, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		store_group_free(t[i].group);
		store_close(t[i].store, 0);
	}
}

static void test_closed_rounds(void **state)
{
	struct task t[4];

	(void)state;
	closed_start(t, 4, "cr");
	for (int round = 0; round < 100; round++) {
		for (unsigned i = 0; i < 4; i++) {
			t[i].key = "barrier";
			t[i].val = "0123456789" + i;
			t[i].len = i;
			task_start(&t[i], do_round);
		}
		for (unsigned i = 0; i < 4; i++) {
			task_join(&t[i]);
			assert_int_equal(t[i].code, 0);
			assert_int_equal(t[i].gathered.size, 4);
			for (unsigned k = 0; k < 4; k++)
				assert_int_equal(t[i].gathered.part[k].len, k);
			store_gathered_free(&t[i].gathered);
		}
	}
	closed_stop(t, 4);
}

static void test_closed_round_failures(void **state)
{
	struct task t[3];

	(void)state;
	closed_start(t, 3, "cf");
	/* One is missing: those that came are told who, and the object stays usable. */
	t[0].key = t[2].key = "k";
	t[0].deadline = t[2].deadline = deadline_in_ms(150);
	task_start(&t[0], do_round);
	task_start(&t[2], do_round);
	task_join(&t[0]);
	task_join(&t[2]);
	assert_int_equal(t[0].code, SMEM_TIMEOUT);
	assert_int_equal(t[2].code, SMEM_TIMEOUT);
	assert_non_null(strstr(t[0].detail, "missing rank 1"));
	/* Different kinds fail for all, with both. */
	for (unsigned i = 0; i < 3; i++) {
		t[i].key = i == 1 ? "allgather 8" : "barrier";
		t[i].deadline = soon();
		task_start(&t[i], do_round);
	}
	for (unsigned i = 0; i < 3; i++) {
		task_join(&t[i]);
		assert_int_equal(t[i].code, SMEM_INVALID_PARAM);
		assert_int_equal(t[i].conflict.member, 0);
		assert_int_equal(t[i].conflict.own, 1);
		assert_memory_equal(t[i].conflict.own_spec.data, "allgather 8", 11);
		conflict_free(&t[i]);
	}
	/* One left: nobody waits for it. */
	t[0].key = t[1].key = "barrier";
	task_start(&t[0], do_round);
	store_group_free(t[2].group);
	t[2].group = NULL;
	task_join(&t[0]);
	assert_int_equal(t[0].code, SMEM_PEER_LOST);
	assert_non_null(strstr(t[0].detail, "rank 2 has left"));
	task_start(&t[1], do_round);
	task_join(&t[1]);
	assert_int_equal(t[1].code, SMEM_PEER_LOST);
	closed_stop(t, 3);
}

/* Enter with n clients, the spec of each as given; all must get `code`. */
static void closed_all_get(struct task *t, unsigned n, const char *name, const char *const spec[],
			   int32_t code)
{
	for (unsigned i = 0; i < n; i++) {
		diary_init(&cd[i]);
		t[i].enter = closed_enter(name, i, n, &cd[i]);
		t[i].enter.spec = spec[i];
		t[i].deadline = soon();
	}
	for (unsigned i = 0; i < n; i++)
		task_start(&t[i], do_enter);
	for (unsigned i = 0; i < n; i++) {
		task_join(&t[i]);
		assert_int_equal(t[i].code, code);
	}
}

/* Those that came before the conflict was seen are told, and those that come after it too; then
 * the same clients try again, and nothing of it is left. */
static void test_closed_conflicts(void **state)
{
	static const char *const unlike[] = {"spec", "spec", "spex", "spec"};
	static const char *const alike[] = {"spec", "spec", "spec", "spec"};
	struct task t[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		t[i] = (struct task){.store = hub_client(&hub, i + 1)};
	for (int round = 0; round < 20; round++) {
		closed_all_get(t, 4, "cc", unlike, SMEM_INVALID_PARAM);
		for (unsigned i = 0; i < 4; i++) {
			struct store_conflict *c = &t[i].conflict;
			assert_false(c->duplicate);
			assert_true(c->member == 2 || c->own == 2);
			assert_int_equal(memcmp(c->spec.data, "spex", 4) == 0, c->member == 2);
			assert_int_equal(memcmp(c->own_spec.data, "spex", 4) == 0, c->own == 2);
			conflict_free(&t[i]);
		}
		closed_all_get(t, 4, "cc", alike, SMEM_OK);
		for (unsigned i = 0; i < 4; i++)
			store_group_free(t[i].group);
	}
	for (unsigned i = 0; i < 4; i++)
		store_close(t[i].store, 0);
}

/* A number claimed twice; and when all who were told are gone, nobody else is told. */
static void test_closed_duplicate(void **state)
{
	struct task t[3];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		diary_init(&cd[i]);
		t[i] = (struct task){.store = hub_client(&hub, i + 1),
				     .enter = closed_enter("cd", 1, 3, &cd[i]),
				     .deadline = soon()};
		task_start(&t[i], do_enter);
	}
	for (unsigned i = 0; i < 2; i++) {
		task_join(&t[i]);
		assert_int_equal(t[i].code, SMEM_INVALID_PARAM);
		assert_true(t[i].conflict.duplicate);
		assert_int_equal(t[i].conflict.member, 1);
		conflict_free(&t[i]);
		store_close(t[i].store, 0);
	}
	closed_start(t, 3, "cd");
	closed_stop(t, 3);
}

static void test_closed_enter_is_woken(void **state)
{
	static _Atomic bool woken;
	struct task t = {.store = hub_client(&hub, 1),
			 .enter = closed_enter("cw", 0, 2, &cd[0]),
			 .deadline = soon()};

	(void)state;
	diary_init(&cd[0]);
	t.enter.woken = &woken;
	task_start(&t, do_enter);
	atomic_store(&woken, true);
	store_enter_wake(t.store, &woken);
	task_join(&t);
	assert_int_equal(t.code, SMEM_OBJECT_NOT_EXISTS);
	store_close(t.store, 0);
	closed_start(&t, 1, "cw"); /* and is not there any more */
	closed_stop(&t, 1);
}

static void test_closed_timeout_and_next_life(void **state)
{
	struct task t[2], n[2];

	(void)state;
	diary_init(&cd[0]);
	struct store *s = hub_client(&hub, 7);
	struct store_enter e = closed_enter("cl", 1, 3, &cd[0]);
	struct store_group *none = NULL;
	assert_int_equal(store_group_enter(s, &e, deadline_in_ms(100), NULL, &none), SMEM_TIMEOUT);
	assert_non_null(strstr(err_detail(), "missing rank 0, 2"));
	closed_start(t, 2, "cl");
	/* Newcomers wait until the present life is over. */
	for (unsigned i = 0; i < 2; i++) {
		diary_init(&cd[2 + i]);
		n[i] = (struct task){.store = hub_client(&hub, 4 + i),
				     .enter = closed_enter("cl", i, 2, &cd[2 + i]),
				     .deadline = soon()};
		task_start(&n[i], do_enter);
	}
	assert_int_equal(store_group_enter(s, &e, deadline_in_ms(100), NULL, &none), SMEM_TIMEOUT);
	assert_int_equal(diary_count(&cd[2]), 0);
	closed_stop(t, 2);
	for (unsigned i = 0; i < 2; i++) {
		task_join(&n[i]);
		assert_int_equal(n[i].code, 0);
	}
	closed_stop(n, 2);
	store_close(s, 0);
}

static void test_lobby(void **state)
{
	struct task t[4];
	static const char *const key[4] = {"d", "a", "c", "b"};
	static const uint32_t want[4] = {3, 0, 2, 1};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		diary_init(&cd[i]);
		t[i] = (struct task){.store = hub_client(&hub, i + 1), .deadline = soon()};
		t[i].enter = closed_enter("lo", STORE_MEMBER_ANY, 4, &cd[i]);
		t[i].enter.mode = STORE_GROUP_LOBBY;
		t[i].enter.sort = key[i];
		t[i].enter.sort_len = 1;
	}
	t[0].deadline = deadline_in_ms(100);
	task_start(&t[0], do_enter);
	task_join(&t[0]);
	assert_int_equal(t[0].code, SMEM_TIMEOUT);
	assert_non_null(strstr(t[0].detail, "1 of 4"));
	t[0].deadline = soon();
	for (unsigned i = 0; i < 4; i++)
		task_start(&t[i], do_enter);
	for (unsigned i = 0; i < 4; i++) {
		task_join(&t[i]);
		assert_int_equal(t[i].code, 0);
		assert_int_equal(store_group_member(t[i].group), want[i]);
	}
	struct store *more = hub_client(&hub, 5);
	struct store_group *g = NULL;
	struct store_enter e = t[0].enter;
	diary_init(&cd[4]);
	e.arg = &cd[4];
	assert_int_equal(store_group_enter(more, &e, soon(), NULL, &g), SMEM_RESOURCE_IN_USE);
	store_group_free(t[0].group);
	store_close(t[0].store, 0);
	assert_int_equal(store_group_enter(more, &e, soon(), NULL, &g), 0);
	assert_int_equal(store_group_member(g), 3);
	store_group_free(g);
	store_close(more, 0);
	for (unsigned i = 1; i < 4; i++) {
		store_group_free(t[i].group);
		store_close(t[i].store, 0);
	}
}

static void test_once(void **state)
{
	struct task t[2];

	(void)state;
	closed_start(t, 2, "on");
	assert_int_equal(store_group_note(t[0].group, "1", 1, true, soon()), 0);
	assert_int_equal(store_group_note(t[1].group, "2", 1, true, soon()), 0);
	assert_int_equal(store_group_note(t[1].group, "3", 1, false, soon()), 0);
	for (unsigned i = 0; i < 2; i++) {
		diary_wait(&cd[i], 4);
		assert_string_equal(cd[i].data[2], "1");
		assert_string_equal(cd[i].data[3], "3");
	}
	closed_stop(t, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_open_group),
	    cmocka_unit_test(test_open_refusals),
	    cmocka_unit_test(test_fence),
	    cmocka_unit_test(test_wake),
	    cmocka_unit_test(test_closed_rounds),
	    cmocka_unit_test(test_closed_round_failures),
	    cmocka_unit_test(test_closed_conflicts),
	    cmocka_unit_test(test_closed_duplicate),
	    cmocka_unit_test(test_closed_enter_is_woken),
	    cmocka_unit_test(test_closed_timeout_and_next_life),
	    cmocka_unit_test(test_lobby),
	    cmocka_unit_test(test_once),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
