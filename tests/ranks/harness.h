/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multi-process tests. A test program holds a table of cases and calls ranks_main(): the process
 * becomes the controller and, for every case and every rank count, re-executes itself once per
 * rank. Ranks meet, exchange bytes, kill, stop and respawn each other through the controller over
 * socket pairs, so nothing of that depends on the fabric under test. Every rank dies with the
 * controller; a run has a time limit; a run fails when a rank fails, dies unasked, or leaves behind
 * descriptors, threads, mapped segments, processes or /dev/shm entries.
 *
 *   static void hello(struct rank *r)
 *   {
 *           RANK_OK(r, smem_bm_init(r->url, r->size, 0, &config));
 *           rank_barrier(r);
 *           smem_bm_uninit(0);
 *   }
 *   static const struct ranks_case cases[] = {{.name = "hello", .fn = hello, .sizes = {1, 2, 4}}};
 *   int main(int argc, char **argv) { return ranks_main(argc, argv, cases, 1); }
 *
 * Output is TAP. Options of such a program: --list, --case NAME, --ranks N, --repeat N,
 * --seed N (a failing run prints its seed). The controller is single-threaded; a rank may call the
 * functions below from several threads, but one waits for the other.
 */
#ifndef RANKS_HARNESS_H
#define RANKS_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RANK_PORTS     4u     /* free TCP ports a run gets; port[0] is in the url */
#define RANK_SIZES_MAX 8u     /* rank counts of a case */
#define RANK_DATA_MAX  65536u /* bytes of one exchange, of all ranks together */
#define RANK_MAX       128u   /* ranks of a run */

struct rank {
	uint32_t rank;
	uint32_t size; /* rank count of the run; not all need to be alive */
	uint32_t life; /* 0 in the first process of this rank, 1 after the first respawn, ... */
	uint16_t port[RANK_PORTS];
	char url[64];	   /* tcp://127.0.0.1:<port[0]> */
	uint64_t seed;	   /* the same in all ranks of the run */
	uint64_t start_ms; /* rank_ms() when the controller started this process */
};

struct ranks_case {
	const char *name;
	void (*fn)(struct rank *r);
	uint32_t sizes[RANK_SIZES_MAX]; /* rank counts to run it with; ends at 0 */
	uint32_t initial; /* how many ranks start at once (the lowest); 0: all. See rank_spawn() */
	uint32_t seconds; /* time limit of one run; 0: 60. Tripled under sanitizers */
	const char *must_fail; /* the run passes only if it fails with this in its diagnosis */
};

int ranks_main(int argc, char **argv, const struct ranks_case *cases, size_t n);

/* Wait until n ranks are at `tag` (barrier: all `size` of them). A tag can be used again. */
void rank_meet(struct rank *r, const char *tag, uint32_t n);
void rank_barrier(struct rank *r);

/* All `size` ranks give len bytes each; all get size * len bytes in rank order. */
void rank_gather(struct rank *r, const void *mine, size_t len, void *all);

/* A blackboard: put replaces; get waits until the key is there and returns its length. */
void rank_put(struct rank *r, const char *key, const void *val, size_t len);
size_t rank_get(struct rank *r, const char *key, void *buf, size_t cap);

/* On any rank, the own included. Each returns when it has happened: reaped, stopped, running. */
void rank_kill(struct rank *r, uint32_t other);	 /* SIGKILL */
void rank_stop(struct rank *r, uint32_t other);	 /* SIGSTOP */
void rank_cont(struct rank *r, uint32_t other);	 /* SIGCONT */
void rank_spawn(struct rank *r, uint32_t other); /* start it (again); it must not be running */

/* This process may end in any way from now on without the run failing for it. */
void rank_may_die(struct rank *r);

/* End this process with a diagnosis; the run fails. The last error of the library is added. */
void rank_fail(struct rank *r, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5), noreturn));
/* End the run as skipped. */
void rank_skip(struct rank *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));
/* A line of diagnosis in the output. */
void rank_note(struct rank *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define RANK_ASSERT(r, cond)                                                                       \
	do {                                                                                       \
		if (!(cond))                                                                       \
			rank_fail(r, __FILE__, __LINE__, "%s", #cond);                             \
	} while (0)

/* The call must return `code`. */
#define RANK_CODE(r, call, code)                                                                   \
	do {                                                                                       \
		long rank_got_ = (long)(call);                                                     \
		if (rank_got_ != (long)(code))                                                     \
			rank_fail(r, __FILE__, __LINE__, "%s = %ld, want %ld", #call, rank_got_,   \
				  (long)(code));                                                   \
	} while (0)
#define RANK_OK(r, call) RANK_CODE(r, call, 0)

/* Monotonic milliseconds, and a small generator for reproducible data. */
uint64_t rank_ms(void);
uint64_t rank_random(uint64_t *state);

#endif
