/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame of `smem perf`. A measurement is one operation of the product beside the limits of the
 * same shape: the same bytes, moved by the bare means (memcpy, process_vm_writev, ...), measured in
 * the same run, turn about, so that what else the machine does hits all alike.
 *
 *   static int put(void *ctx, size_t i) { ... i-th operation, at offset i of a rotation ... }
 *
 *   perf_compare(p, "64 KiB", 65536, (const struct perf_case[]){
 *	{.name = "pool copy", .op = put, .ctx = &x},
 *	{.name = "memcpy", .op = plain, .ctx = &x}}, 2);
 *
 * Operations get a running number; perf_rotate() makes an offset from it that walks over the
 * rotation (at least 256 MiB unless --rotate says otherwise), so that no cache holds the data. The
 * cases of a row walk at equal distances from each other, so that none finds in the cache what
 * another has just touched; for that p->places must be right.
 */
#ifndef SMEM_TOOL_PERF_H
#define SMEM_TOOL_PERF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json.h"
#include "tool.h"

struct perf {
	/* options */
	bool quick;	   /* a look, not a measurement: a tenth of the time */
	size_t rotate;	   /* bytes to walk over */
	unsigned ranks;	   /* 0: the topic's own choice */
	const char *store; /* NULL: a store of our own */
	unsigned rank;	   /* between hosts: which side this is */
	/* what is measured now */
	const char *topic;
	size_t places;	   /* of the rotation: running numbers so far apart mean the same memory */
	struct json *json; /* NULL: a table for people */
	bool failed;
};

/* Seconds per operation. */
struct perf_stat {
	double median;
	double p99; /* of rounds; a round of very short operations is several of them */
	double min;
	double cpu; /* seconds of this process's CPU time an operation, all threads */
	size_t ops; /* measured */
};

struct perf_case {
	const char *name;
	int (*op)(void *ctx, size_t i); /* 0; anything else ends the measurement as failed */
	void *ctx;
};

/* One row. cases[0] is the product, the others limits; the ratio is that of the best limit's median
 * and the product's. bytes of one operation, 0: no throughput is shown. ret, may be NULL: n of
 * them. 0, or -1 after a failed operation (told, and p->failed is set). */
int perf_compare(struct perf *p, const char *shape, uint64_t bytes, const struct perf_case *cases,
		 size_t n, struct perf_stat *ret);

/* A row of figures that were taken elsewhere (in a child). stats[i] belongs to names[i]. */
void perf_row(struct perf *p, const char *shape, uint64_t bytes, const char *const names[],
	      const struct perf_stat *stats, size_t n);

/* A row of one figure. unit: "ms", "ns", "MiB", "x", ... */
void perf_value(struct perf *p, const char *what, double value, const char *unit);
/* A line of text between rows; a member "note" in JSON. */
void perf_note(struct perf *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A heading; starts a new table. */
void perf_section(struct perf *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Says what failed, with the library's last error, and sets p->failed. Returns -1. */
int perf_fail(struct perf *p, const char *what);

/* CPU seconds of this process so far, all threads. */
double perf_cpu_s(void);
/* Statistics of n samples (sorted in place), each of `ops` operations and `s` seconds in all. */
void perf_stats(double *samples, size_t n, struct perf_stat *ret);

/* How often `bytes` fit into a rotation of `total` bytes, each at a page of its own; 1 at least. */
static inline size_t perf_places(size_t bytes, size_t total)
{
	size_t places = total / ((bytes + 4095) / 4096 * 4096);

	return places < 1 ? 1 : places;
}

/* The offset of the i-th operation of `bytes` in a rotation of `total` bytes; multiple of 64. */
static inline size_t perf_rotate(size_t i, size_t bytes, size_t total)
{
	return i % perf_places(bytes, total) * ((bytes + 4095) / 4096 * 4096);
}

/* n pieces, the j-th of `large` or (if j is odd) `small` bytes; scattered: on the far side in a
 * mixed order. */
struct perf_shape {
	const char *name;
	size_t n, large, small;
	bool scattered;
};

/* A shape at every place of a rotation; the pieces of place p are those from p * n on. Each piece
 * has a gap of at least its own size behind it. */
struct perf_plan {
	size_t n;
	size_t places;
	uint64_t bytes; /* of one operation */
	const void **src;
	void **dst;
	size_t *len;
};

/* Frees what was in l. -1: no memory, or not one place in `region` bytes. */
int perf_plan_make(struct perf_plan *l, const struct perf_shape *s, char *near, char *far,
		   size_t region);
void perf_plan_free(struct perf_plan *l);

static inline size_t perf_plan_first(const struct perf_plan *l, size_t i)
{
	return i % l->places * l->n;
}

/* Memory for one side: `bytes`, touched, in huge pages where allowed if `huge`, else in base pages;
 * NULL: none. Freed by munmap of the same size. */
void *perf_memory(size_t bytes, bool huge);

/* Ranks of SHM on one of several hosts; the first rank of all has the figures. */
#define PERF_SHM_KINDS 3u
extern const char *const perf_shm_kind[PERF_SHM_KINDS];
struct perf_shm_host {
	unsigned ranks; /* of this host */
	unsigned first;
	unsigned world; /* of all */
	double budget;	/* seconds for each kind */
};
int perf_shm_start(struct procs *g, const char *url, const struct perf_shm_host *h);
/* Waits for them, ends them; writes ret if rank 0 is among them. -1: told. */
int perf_shm_collect(struct procs *g, struct perf_stat ret[PERF_SHM_KINDS]);

/* Topics: return 0, or -1 with p->failed set. */
int perf_bm(struct perf *p);
int perf_shm(struct perf *p);
int perf_trans(struct perf *p);
int perf_store(struct perf *p);
int perf_hosts(struct perf *p);

/* Their processes, by name in child_entries[]. */
int perf_bm_peer(struct child *c);
int perf_bm_join(struct child *c);
int perf_shm_rank(struct child *c);
int perf_trans_peer(struct child *c);

#endif
