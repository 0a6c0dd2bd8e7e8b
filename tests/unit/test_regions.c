/* SPDX-License-Identifier: Apache-2.0 */
/* The region table against a map of bytes, and under readers that look while it changes. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/region_table.h"
#include "core/regions.h"
#include "util/err.h"

#define BASE 0x700000000000ull
#define SPAN 512u

static uint64_t rnd_state = 88172645463325252ull;

static uint64_t rnd(uint64_t n)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return rnd_state % n;
}

static struct registration *reg_new(uint64_t begin, uint64_t end, uint64_t object, uint64_t offset)
{
	struct registration *reg = calloc(1, sizeof(*reg) + sizeof(reg->piece[0]));

	assert_non_null(reg);
	reg->begin = begin;
	reg->end = end;
	reg->n = 1;
	reg->piece[0] =
	    (struct region_piece){.begin = begin, .end = end, .object = object, .offset = offset};
	return reg;
}

static struct regions *make(struct region_view *v)
{
	struct regions *r = NULL;

	assert_int_equal(regions_create(7, true, &r), 0);
	assert_int_equal(region_view_open(regions_fd(r), 7, v), 0);
	return r;
}

static int32_t add(struct regions *r, uint64_t begin, uint64_t end)
{
	struct registration *reg = reg_new(begin, end, 0, 0);
	int32_t e = regions_add(r, &reg, 1);

	if (e)
		free(reg);
	return e;
}

static void drop(struct regions *r, uint64_t begin)
{
	struct registration *reg = regions_find(r, begin);

	assert_non_null(reg);
	assert_int_equal(regions_close(r, reg), 0);
	regions_forget(r, reg);
	free(reg);
}

static bool covered(const struct region_view *v, uint64_t addr)
{
	struct region_hit hit = {0};

	return region_view_find(v, addr, &hit);
}

static void test_bounds_are_exact(void **state)
{
	struct region_view v;
	struct regions *r = make(&v);

	(void)state;
	assert_false(covered(&v, BASE));
	assert_int_equal(add(r, BASE + 3, BASE + 10), 0);
	assert_false(covered(&v, BASE + 2));
	assert_true(covered(&v, BASE + 3));
	assert_true(covered(&v, BASE + 9));
	assert_false(covered(&v, BASE + 10));
	drop(r, BASE + 3);
	assert_false(covered(&v, BASE + 3));
	region_view_close(&v);
	regions_destroy(r);
}

static void test_same_again_and_same_start(void **state)
{
	struct region_view v;
	struct regions *r = make(&v);
	struct registration *reg[3] = {reg_new(BASE, BASE + 8, 0, 0),
				       reg_new(BASE + 100, BASE + 108, 0, 0),
				       reg_new(BASE + 100, BASE + 109, 0, 0)};

	(void)state;
	/* all or nothing: the third contradicts the second */
	uint64_t generation = region_view_generation(&v);
	assert_int_equal(regions_add(r, reg, 3), SMEM_DUPLICATED_OBJECT);
	assert_int_equal(regions_count(r), 0);
	assert_int_equal(region_view_generation(&v), generation);
	assert_false(covered(&v, BASE));

	reg[2]->end = BASE + 108; /* now it is the same */
	struct registration *same = reg[2];
	assert_int_equal(regions_add(r, reg, 3), 0);
	assert_non_null(reg[0]);
	assert_non_null(reg[1]);
	assert_null(reg[2]);
	free(same);
	assert_int_equal(regions_count(r), 2);
	assert_true(covered(&v, BASE + 107));

	/* one that is being withdrawn cannot be registered yet */
	struct registration *closing = regions_find(r, BASE);
	assert_int_equal(regions_close(r, closing), 0);
	assert_false(covered(&v, BASE));
	struct registration *again = reg_new(BASE, BASE + 8, 0, 0);
	assert_int_equal(regions_add(r, &again, 1), SMEM_DUPLICATED_OBJECT);
	assert_non_null(again);
	regions_forget(r, closing);
	free(closing);
	assert_int_equal(regions_add(r, &again, 1), 0);
	assert_true(covered(&v, BASE));
	region_view_close(&v);
	regions_destroy(r);
}

static void test_offsets_follow_the_cut(void **state)
{
	struct region_view v;
	struct regions *r = make(&v);
	struct registration *a = reg_new(BASE, BASE + 100, 5, 4096);
	struct registration *b = reg_new(BASE + 50, BASE + 150, 5, 4146);
	struct registration *c = reg_new(BASE + 150, BASE + 160, 9, 0);
	struct region_hit hit = {0};

	(void)state;
	assert_int_equal(regions_add(r, &a, 1), 0);
	assert_int_equal(regions_add(r, &b, 1), 0);
	assert_int_equal(regions_add(r, &c, 1), 0);
	drop(r, BASE);
	assert_false(covered(&v, BASE + 49));
	assert_true(region_view_find(&v, BASE + 149, &hit));
	assert_int_equal(hit.piece.begin, BASE + 50);
	assert_int_equal(hit.piece.end, BASE + 150);
	assert_int_equal(hit.piece.object, 5);
	assert_int_equal(hit.piece.offset, 4146);
	assert_true(region_view_find(&v, BASE + 150, &hit));
	assert_int_equal(hit.piece.object, 9);
	region_view_close(&v);
	regions_destroy(r);
}

/* A set of live ranges, and the table, must agree about every byte. */
static void test_random_against_bytes(void **state)
{
	struct region_view v;
	struct regions *r = make(&v);
	static uint64_t end_of[SPAN]; /* by start; 0: none */

	(void)state;
	for (int round = 0; round < 4000; round++) {
		uint64_t at = rnd(SPAN);
		if (end_of[at]) {
			drop(r, BASE + at);
			end_of[at] = 0;
		} else {
			struct registration *batch[8];
			size_t n = 1 + rnd(8);
			for (size_t i = 0; i < n; i++) {
				uint64_t b = i ? rnd(SPAN) : at;
				uint64_t e = end_of[b] ? end_of[b] : b + 1 + rnd(i % 3 ? 6 : 40);
				end_of[b] = e;
				batch[i] = reg_new(BASE + b, BASE + e, 3, 1000 + b);
			}
			struct registration *mine[8];
			memcpy(mine, batch, sizeof(mine));
			assert_int_equal(regions_add(r, batch, n), 0);
			for (size_t i = 0; i < n; i++)
				if (!batch[i])
					free(mine[i]);
		}
		uint8_t want[SPAN + 64] = {0};
		for (uint64_t b = 0; b < SPAN; b++)
			if (end_of[b])
				memset(want + b, 1, end_of[b] - b);
		struct region_hit hit = {.index = rnd(20)};
		for (uint64_t b = 0; b < SPAN + 64; b++) {
			bool is = region_view_find(&v, BASE + b, &hit);
			assert_int_equal(is, want[b]);
			if (is)
				assert_int_equal(hit.piece.offset + (BASE + b - hit.piece.begin),
						 1000 + b);
		}
	}
	region_view_close(&v);
	regions_destroy(r);
}

static void test_many_and_adjoining(void **state)
{
	enum { N = 3000 };
	struct region_view v;
	struct regions *r = make(&v);
	struct registration **reg = calloc(N, sizeof(struct registration *));
	struct region_piece *list = NULL;
	size_t n = 0;

	(void)state;
	for (uint64_t i = 0; i < N; i++)
		reg[i] = reg_new(BASE + (N - i) * 32, BASE + (N - i) * 32 + 16, 0, 0);
	assert_int_equal(regions_add(r, reg, N), 0);
	assert_int_equal(region_view_list(&v, &list, &n), 0);
	assert_int_equal(n, N);
	free(list);
	for (uint64_t i = 1; i <= N; i++) {
		assert_true(covered(&v, BASE + i * 32 + 15));
		assert_false(covered(&v, BASE + i * 32 + 16));
	}
	/* the gaps between them, one by one: one range in the end */
	for (uint64_t i = 1; i < N; i++)
		assert_int_equal(add(r, BASE + i * 32 + 16, BASE + i * 32 + 32), 0);
	assert_int_equal(region_view_list(&v, &list, &n), 0);
	assert_int_equal(n, 1);
	free(list);
	for (uint64_t i = 1; i < N; i += 2)
		drop(r, BASE + i * 32);
	assert_false(covered(&v, BASE + 32));
	assert_true(covered(&v, BASE + 48));
	free(reg);
	region_view_close(&v);
	regions_destroy(r);
}

static void test_views_refuse_what_is_no_table(void **state)
{
	struct region_view v = {0};
	struct regions *r = make(&v);
	struct region_view other = {0};
	int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	(void)state;
	assert_int_equal(region_view_open(regions_fd(r), 8, &other), SMEM_STALE);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	assert_int_equal(region_view_open(fd, 7, &other), SMEM_IO);
	/* nobody else can write it */
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, regions_fd(r), 0),
			 MAP_FAILED);
	close(fd);
	region_view_close(&v);
	regions_destroy(r);
}

/* ---- readers while it changes ---- */

#define FIXED	BASE
#define BATCH	4u
#define STRIDE	20000u
#define BATCHED (BASE + 50000)

static _Atomic int stop;
static _Atomic uint64_t wrong;
static _Atomic uint64_t looks;
static int table_fd;

/* A batch appears whole and goes from its lowest range on: who sees a range sees all above it, and
 * all of the same round (which is the object number). */
static bool list_is_whole(const struct region_view *v)
{
	struct region_piece *list = NULL;
	size_t n = 0;

	if (region_view_list(v, &list, &n) || n < 1 || n > 1 + BATCH || list[0].begin != FIXED ||
	    list[0].end != FIXED + 10) {
		free(list);
		return false;
	}
	bool ok = true;
	for (size_t i = 1; i < n; i++) {
		uint64_t slot = BATCH - (n - i);
		ok = ok && list[i].object == list[1].object && list[i].end - list[i].begin == 9 &&
		     (list[i].begin - BATCHED) / STRIDE == slot;
	}
	free(list);
	return ok;
}

static void *reader(void *arg)
{
	struct region_view v;

	(void)arg;
	if (region_view_open(table_fd, 7, &v)) {
		atomic_store(&wrong, 1000);
		return NULL;
	}
	while (!atomic_load(&stop)) {
		struct region_hit hit = {0};
		if (!region_view_find(&v, FIXED + 9, &hit) || hit.piece.begin != FIXED ||
		    hit.piece.end != FIXED + 10)
			atomic_fetch_add(&wrong, 1);
		if (covered(&v, FIXED + 10))
			atomic_fetch_add(&wrong, 1);
		if (!list_is_whole(&v))
			atomic_fetch_add(&wrong, 1);
		atomic_fetch_add(&looks, 1);
	}
	region_view_close(&v);
	return NULL;
}

static void test_readers_see_whole_states(void **state)
{
	struct region_view v;
	struct regions *r = make(&v);
	pthread_t t[2];

	(void)state;
	table_fd = regions_fd(r);
	assert_int_equal(add(r, FIXED, FIXED + 10), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reader, NULL), 0);
	for (uint64_t round = 1; round < 5000 || atomic_load(&looks) < 200; round++) {
		struct registration *reg[BATCH];
		uint64_t shift = rnd(100);
		for (uint64_t i = 0; i < BATCH; i++) {
			uint64_t begin = BATCHED + i * STRIDE + shift;
			reg[i] = reg_new(begin, begin + 9, round, 0);
		}
		assert_int_equal(regions_add(r, reg, BATCH), 0);
		for (uint64_t i = 0; i < BATCH; i++)
			drop(r, BATCHED + i * STRIDE + shift);
	}
	atomic_store(&stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(atomic_load(&wrong), 0);
	region_view_close(&v);
	regions_destroy(r);
}

/* ---- life and death ---- */

static void send_fd(int sock, int fd)
{
	char byte = 0;
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec io = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &io,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	(void)!sendmsg(sock, &msg, 0);
}

static int receive_fd(int sock)
{
	char byte;
	int fd = -1;
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec io = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &io,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};

	if (recvmsg(sock, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

/* A process that owns a table, until it is killed or told to end in order. */
static void owner(int sock)
{
	struct regions *r = NULL;
	char order;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (regions_create(7, true, &r) || regions_vouch(r) || add(r, BASE, BASE + 10))
		_exit(1);
	send_fd(sock, regions_fd(r));
	(void)!read(sock, &order, 1);
	regions_shut(r);
	regions_unvouch(r);
	_exit(0);
}

static void one_owner(bool kill_it, enum region_life want)
{
	int sock[2];
	struct region_view v = {0};

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);
	pid_t pid = fork();
	if (pid == 0)
		owner(sock[1]);
	assert_true(pid > 0);
	int fd = receive_fd(sock[0]);
	assert_true(fd >= 0);
	assert_int_equal(region_view_open(fd, 7, &v), 0);
	assert_int_equal(region_view_life(&v), REGION_LIFE_LIVE);
	if (kill_it)
		kill(pid, SIGKILL);
	else
		assert_int_equal(write(sock[0], "x", 1), 1);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(region_view_life(&v), want);
	assert_true(covered(&v, BASE)); /* still legible */
	close(fd);
	close(sock[0]);
	close(sock[1]);
	region_view_close(&v);
}

static void test_death_of_the_owner_shows(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++)
		one_owner(true, REGION_LIFE_DEAD);
	one_owner(false, REGION_LIFE_SHUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_bounds_are_exact),
	    cmocka_unit_test(test_same_again_and_same_start),
	    cmocka_unit_test(test_offsets_follow_the_cut),
	    cmocka_unit_test(test_random_against_bytes),
	    cmocka_unit_test(test_many_and_adjoining),
	    cmocka_unit_test(test_views_refuse_what_is_no_table),
	    cmocka_unit_test(test_readers_see_whole_states),
	    cmocka_unit_test(test_death_of_the_owner_shows),
	};
	return cmocka_run_group_tests_name("regions", tests, NULL, NULL);
}
