/* SPDX-License-Identifier: Apache-2.0 */
/* The shapes of writes between hosts, measured alike for the product and for its yardstick. */
#ifndef BENCH_SHAPES_H
#define BENCH_SHAPES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MEM    (128ul << 20)
#define PIECES 122

struct shape {
	int n;
	void *src[PIECES];
	size_t off[PIECES], len[PIECES];
};

static inline double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static inline double cpu_s(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
	       (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

/* A word in a file that both sides map: the target's CPU time. */
static inline volatile double *shared_word(const char *path, int create)
{
	FILE *f = fopen(path, create ? "w+" : "r+");

	if (!f || (create && ftruncate(fileno(f), 4096) != 0)) {
		perror(path);
		exit(1);
	}
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
	fclose(f);
	return p;
}

static inline int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static inline void measure(const char *who, const char *name, struct shape *s, int rounds,
			   volatile double *target_cpu, void (*put)(struct shape *s))
{
	double *us = calloc((size_t)rounds, sizeof(*us)), bytes = 0;

	for (int i = 0; i < s->n; i++)
		bytes += (double)s->len[i];
	for (int i = 0; i < rounds / 10 + 1; i++)
		put(s);
	double c = cpu_s(), t = *target_cpu, gb = bytes * rounds / 1e9;
	for (int i = 0; i < rounds; i++) {
		double begin = now_us();
		put(s);
		us[i] = now_us() - begin;
	}
	c = (cpu_s() - c) / gb;
	t = (*target_cpu - t) / gb;
	qsort(us, (size_t)rounds, sizeof(*us), by_value);
	printf("%-5s %-13s median %10.1f us  p99 %10.1f us  %6.2f GB/s  CPU s/GB %.3f %.3f\n", who,
	       name, us[rounds / 2], us[rounds * 99 / 100], bytes / us[rounds / 2] / 1e3, c, t);
	fflush(stdout);
	free(us);
}

static inline void measure_all(const char *who, volatile double *target_cpu,
			       void (*put)(struct shape *s))
{
	static const struct {
		const char *name;
		size_t len;
		int rounds;
	} single[] = {{"4 KiB", 4 << 10, 3000},
		      {"64 KiB", 64 << 10, 2000},
		      {"1 MiB", 1 << 20, 300},
		      {"16 MiB", 16 << 20, 30},
		      {"64 MiB", 64 << 20, 10}};
	char *mem = malloc(MEM);
	struct shape s = {.n = 1, .src = {mem}};
	size_t at = 0;

	memset(mem, 1, MEM);
	for (size_t i = 0; i < sizeof(single) / sizeof(single[0]); i++) {
		s.len[0] = single[i].len;
		measure(who, single[i].name, &s, single[i].rounds, target_cpu, put);
	}
	s.len[0] = PIECES / 2 * (144ul << 10);
	measure(who, "8.99 MB", &s, 100, target_cpu, put);
	s.n = PIECES; /* scattered: a page between neighbours */
	for (int i = 0; i < PIECES; i++) {
		s.len[i] = i % 2 ? 16 << 10 : 128 << 10;
		s.src[i] = mem + at;
		s.off[i] = at;
		at += s.len[i] + 4096;
	}
	measure(who, "batch 8.99 MB", &s, 100, target_cpu, put);
	free(mem);
}

#endif
