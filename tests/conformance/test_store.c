/* SPDX-License-Identifier: Apache-2.0 */
/* What store.h promises, keys and ranges, through server and clients over TCP. */
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

/* ---- keys ---- */

static void value_is(struct store *s, const char *key, const char *want)
{
	struct store_bytes b;

	assert_int_equal(store_get(s, key, false, soon(), &b), 0);
	assert_int_equal(b.len, strlen(want));
	assert_memory_equal(b.data, want, b.len);
	store_bytes_free(&b);
}

static void test_set_get_del(void **state)
{
	struct store *a = hub_client(&hub, 1), *b = hub_client(&hub, 2);
	struct store_bytes v = {.data = NULL};

	(void)state;
	assert_int_equal(store_get(a, "k", false, soon(), &v), SMEM_OBJECT_NOT_EXISTS);
	assert_non_null(strstr(err_detail(), "k"));
	assert_int_equal(store_set(a, "k", "one", 3, 0, soon()), 0);
	value_is(b, "k", "one");
	assert_int_equal(store_set(b, "k", "two", 3, STORE_EXCLUSIVE, soon()),
			 SMEM_DUPLICATED_OBJECT);
	assert_int_equal(store_set(b, "k", "", 0, 0, soon()), 0);
	value_is(a, "k", "");
	assert_int_equal(store_del(a, "k", soon()), 0);
	assert_int_equal(store_del(a, "k", soon()), 0);
	assert_int_equal(store_get(b, "k", false, soon(), &v), SMEM_OBJECT_NOT_EXISTS);
	store_close(a, 0);
	store_close(b, 0);
}

static void test_large_value(void **state)
{
	struct store *a = hub_client(&hub, 1);
	char *big = malloc(STORE_VALUE_MAX + 1);
	struct store_bytes v;

	(void)state;
	for (size_t i = 0; i <= STORE_VALUE_MAX; i++)
		big[i] = (char)(i * 7);
	assert_int_equal(store_set(a, "big", big, STORE_VALUE_MAX, 0, soon()), 0);
	assert_int_equal(store_get(a, "big", true, soon(), &v), 0);
	assert_int_equal(v.len, STORE_VALUE_MAX);
	assert_memory_equal(v.data, big, v.len);
	store_bytes_free(&v);
	assert_int_equal(store_set(a, "big", big, STORE_VALUE_MAX + 1, 0, soon()),
			 SMEM_INVALID_PARAM);
	assert_int_equal(store_set(a, "", "x", 1, 0, soon()), SMEM_INVALID_PARAM);
	assert_int_equal(store_del(a, "big", soon()), 0);
	free(big);
	store_close(a, 0);
}

static void do_get(struct task *t)
{
	task_fail(t, store_get(t->store, t->key, true, t->deadline, &t->bytes));
}

static void test_waiting_get(void **state)
{
	struct store *a = hub_client(&hub, 1), *b = hub_client(&hub, 2);
	struct task t = {.store = b, .key = "later", .deadline = soon()};
	struct store_bytes v;

	(void)state;
	task_start(&t, do_get);
	assert_int_equal(store_set(a, "later", "now", 3, 0, soon()), 0);
	task_join(&t);
	assert_int_equal(t.code, 0);
	assert_int_equal(t.bytes.len, 3);
	store_bytes_free(&t.bytes);
	uint64_t begin = clock_ns();
	assert_int_equal(store_get(a, "never", true, deadline_in_ms(200), &v), SMEM_TIMEOUT);
	assert_non_null(strstr(err_detail(), "never"));
	assert_true(clock_ns() - begin >= 200 * NS_PER_MS);
	store_close(a, 0);
	store_close(b, 0);
}

static void test_ephemeral(void **state)
{
	struct store *a = hub_client(&hub, 1), *b = hub_client(&hub, 2);
	struct store_bytes v;

	(void)state;
	assert_int_equal(store_set(a, "mine", "x", 1, STORE_EPHEMERAL | STORE_EXCLUSIVE, soon()),
			 0);
	assert_int_equal(store_set(a, "ours", "y", 1, 0, soon()), 0);
	value_is(b, "mine", "x");
	store_close(a, 0);
	assert_int_equal(store_get(b, "mine", false, soon(), &v), SMEM_OBJECT_NOT_EXISTS);
	value_is(b, "ours", "y");
	assert_int_equal(store_set(b, "mine", "z", 1, STORE_EXCLUSIVE, soon()), 0);
	assert_int_equal(store_del(b, "mine", soon()), 0);
	assert_int_equal(store_del(b, "ours", soon()), 0);
	store_close(b, 0);
}

#define ADDERS 4
#define ADDS   500

static void do_adds(struct task *t)
{
	int64_t v;

	for (int i = 0; i < ADDS && t->code == 0; i++)
		task_fail(t, store_add(t->store, "sum", 1, t->deadline, &v));
}

static void test_counter(void **state)
{
	struct task t[ADDERS] = {{.key = NULL}};
	struct store *a = hub_client(&hub, 1);
	int64_t v = 0;

	(void)state;
	for (unsigned i = 0; i < ADDERS; i++) {
		t[i].store = hub_client(&hub, i / 2 + 1); /* two threads per client */
		t[i].deadline = soon();
		task_start(&t[i], do_adds);
	}
	for (unsigned i = 0; i < ADDERS; i++) {
		task_join(&t[i]);
		assert_int_equal(t[i].code, 0);
		store_close(t[i].store, 0);
	}
	assert_int_equal(store_add(a, "sum", -1, soon(), &v), 0);
	assert_int_equal(v, ADDERS * ADDS - 1);
	assert_int_equal(store_set(a, "sum", "abc", 3, 0, soon()), 0);
	assert_int_equal(store_add(a, "sum", 1, soon(), &v), SMEM_INVALID_PARAM);
	assert_int_equal(store_del(a, "sum", soon()), 0);
	store_close(a, 0);
}

static void test_cas_append(void **state)
{
	struct store *a = hub_client(&hub, 1);
	struct store_bytes one = {(void *)(uintptr_t) "1", 1}, two = {(void *)(uintptr_t) "22", 2};
	struct store_bytes seen = {.data = NULL};
	uint64_t len = 0;

	(void)state;
	assert_int_equal(store_cas(a, "c", NULL, &one, soon(), &seen), 0);
	assert_int_equal(store_cas(a, "c", NULL, &two, soon(), &seen), SMEM_RESOURCE_IN_USE);
	assert_int_equal(seen.len, 1);
	store_bytes_free(&seen);
	assert_int_equal(store_cas(a, "c", &two, &one, soon(), NULL), SMEM_RESOURCE_IN_USE);
	assert_int_equal(store_cas(a, "c", &one, &two, soon(), &seen), 0);
	value_is(a, "c", "22");
	assert_int_equal(store_append(a, "c", "xyz", 3, soon(), &len), 0);
	assert_int_equal(len, 5);
	value_is(a, "c", "22xyz");
	assert_int_equal(store_append(a, "new", "q", 1, soon(), &len), 0);
	assert_int_equal(len, 1);
	store_del(a, "c", soon());
	store_del(a, "new", soon());
	store_close(a, 0);
}

struct watched {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	char log[256];
};

static void on_watch(void *arg, const char *key, const void *data, size_t len)
{
	struct watched *w = arg;
	size_t used;

	pthread_mutex_lock(&w->lock);
	used = strlen(w->log);
	snprintf(w->log + used, sizeof(w->log) - used, "%s=%.*s;", key, (int)len,
		 data ? (const char *)data : "");
	if (!data)
		strncat(w->log, "!", sizeof(w->log) - strlen(w->log) - 1);
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static void watched_wait(struct watched *w, const char *want)
{
	struct timespec until = deadline_timespec(soon());

	pthread_mutex_lock(&w->lock);
	while (strcmp(w->log, want) != 0 &&
	       pthread_cond_clockwait(&w->cond, &w->lock, CLOCK_MONOTONIC, &until) == 0)
		;
	pthread_mutex_unlock(&w->lock);
	assert_string_equal(w->log, want);
}

static void test_watch(void **state)
{
	struct store *a = hub_client(&hub, 1), *b = hub_client(&hub, 2);
	struct watched w = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
	struct store_watch *watch = NULL;

	(void)state;
	assert_int_equal(store_set(a, "w", "0", 1, 0, soon()), 0);
	assert_int_equal(store_watch(b, "w", on_watch, &w, soon(), &watch), 0);
	watched_wait(&w, "w=0;");
	assert_int_equal(store_set(a, "w", "1", 1, 0, soon()), 0);
	assert_int_equal(store_del(a, "w", soon()), 0);
	assert_int_equal(store_set(a, "w", "2", 1, STORE_EPHEMERAL, soon()), 0);
	store_close(a, 0);
	watched_wait(&w, "w=0;w=1;w=;!w=2;w=;!");
	store_unwatch(watch);
	assert_int_equal(store_set(b, "w", "3", 1, 0, soon()), 0);
	assert_int_equal(store_del(b, "w", soon()), 0);
	assert_string_equal(w.log, "w=0;w=1;w=;!w=2;w=;!");
	store_close(b, 0);
}

static void do_gather(struct task *t)
{
	task_fail(t, store_gather(t->store, t->key, t->index, t->size, t->val, t->len, t->deadline,
				  &t->gathered));
}

static void test_gather(void **state)
{
	static const char *const part[4] = {"a", "bb", "", "dddd"};
	struct task t[4];

	(void)state;
	for (int round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < 4; i++) {
			t[i] = (struct task){.store = hub_client(&hub, i + 1),
					     .key = "g",
					     .index = i,
					     .size = 4,
					     .val = part[i],
					     .len = strlen(part[i]),
					     .deadline = soon()};
			task_start(&t[i], do_gather);
		}
		for (uint32_t i = 0; i < 4; i++) {
			task_join(&t[i]);
			assert_int_equal(t[i].code, 0);
			assert_int_equal(t[i].gathered.size, 4);
			for (uint32_t k = 0; k < 4; k++) {
				assert_int_equal(t[i].gathered.part[k].len, strlen(part[k]));
				assert_memory_equal(t[i].gathered.part[k].data, part[k],
						    strlen(part[k]));
			}
			store_gathered_free(&t[i].gathered);
			store_close(t[i].store, 0);
		}
	}
}

static void test_gather_missing(void **state)
{
	struct task t = {.store = hub_client(&hub, 1),
			 .key = "m",
			 .index = 1,
			 .size = 4,
			 .val = "x",
			 .len = 1,
			 .deadline = deadline_in_ms(150)};

	(void)state;
	task_start(&t, do_gather);
	task_join(&t);
	assert_int_equal(t.code, SMEM_TIMEOUT);
	assert_non_null(strstr(t.detail, "missing 0, 2, 3"));
	store_close(t.store, 0);
}

/* ---- ranges ---- */

#define GIB (1ull << 30)

static void test_ranges(void **state)
{
	struct store *a = hub_client(&hub, 1), *b = hub_client(&hub, 2);
	const struct store_range ua[] = {{0x1000 * GIB, 0x8000 * GIB},
					 {0x10000 * GIB, 0x20000 * GIB}};
	const struct store_range ub[] = {{0x10000 * GIB, 0x18000 * GIB}};
	uint64_t x = 0, y = 0, z = 0;

	(void)state;
	assert_int_equal(store_range_hold(a, "x", GIB, GIB, soon(), &x), SMEM_RESOURCE_IN_USE);
	assert_int_equal(store_range_usable(a, ua, 2, soon()), 0);
	assert_int_equal(store_range_usable(b, ub, 1, soon()), 0);
	assert_int_equal(store_range_hold(a, "x", 8 * GIB, 2 << 20, soon(), &x), 0);
	assert_true(x >= ub[0].begin && x + 8 * GIB <= ub[0].end);
	assert_int_equal(store_range_hold(b, "x", 8 * GIB, 2 << 20, soon(), &y), 0);
	assert_int_equal(x, y);
	assert_int_equal(store_range_hold(b, "y", 8 * GIB, 2 << 20, soon(), &y), 0);
	assert_true(y >= x + 8 * GIB || y + 8 * GIB <= x);
	/* Room to grow in place. */
	assert_int_equal(store_range_hold(b, "x", 512 * GIB, 2 << 20, soon(), &z), 0);
	assert_int_equal(z, x);
	/* What one of them only can use. */
	assert_int_equal(store_range_hold(a, "huge", 0x8001 * GIB, 1, soon(), &z), 0);
	assert_true(z >= ua[1].begin && z + 0x8001 * GIB <= ua[1].end);
	assert_int_equal(store_range_hold(b, "huge", GIB, 1, soon(), &z), SMEM_RESOURCE_IN_USE);
	assert_non_null(strstr(err_detail(), "0x"));
	/* Held until the last holder lets go. */
	store_range_release(a, "x");
	store_close(a, 0);
	assert_int_equal(store_range_hold(b, "x", GIB, 1, soon(), &z), 0);
	assert_int_equal(z, x);
	store_range_release(b, "x");
	store_range_release(b, "y");
	assert_int_equal(store_range_hold(b, "z", 0x8000 * GIB, 1, soon(), &z), 0);
	assert_int_equal(z, ub[0].begin);
	assert_int_equal(store_range_hold(b, "w", 1, 1, soon(), &z), SMEM_RESOURCE_IN_USE);
	store_close(b, 0);
}

static void test_ranges_pack(void **state)
{
	struct store *a = hub_client(&hub, 1);
	const struct store_range u = {64 * GIB, 128 * GIB};
	uint64_t at[32];
	char name[16];

	(void)state;
	assert_int_equal(store_range_usable(a, &u, 1, soon()), 0);
	for (unsigned i = 0; i < 32; i++) {
		snprintf(name, sizeof(name), "r%u", i);
		assert_int_equal(store_range_hold(a, name, 2 * GIB, 2 << 20, soon(), &at[i]), 0);
		assert_true(at[i] >= u.begin && at[i] + 2 * GIB <= u.end);
		for (unsigned k = 0; k < i; k++)
			assert_true(at[i] >= at[k] + 2 * GIB || at[k] >= at[i] + 2 * GIB);
	}
	store_close(a, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_set_get_del),	   cmocka_unit_test(test_large_value),
	    cmocka_unit_test(test_waiting_get),	   cmocka_unit_test(test_ephemeral),
	    cmocka_unit_test(test_counter),	   cmocka_unit_test(test_cas_append),
	    cmocka_unit_test(test_watch),	   cmocka_unit_test(test_gather),
	    cmocka_unit_test(test_gather_missing), cmocka_unit_test(test_ranges),
	    cmocka_unit_test(test_ranges_pack),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
