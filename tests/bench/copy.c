/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copy engine beside memcpy() and bare streaming stores, in the same run: the three take turns
 * on each shape, rotating over memory that no cache holds, and medians are compared. Arguments:
 * seconds per shape (default 1), "crew" to let helper threads take part.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "device/copy.h"
#include "device/crew.h"
#include "device/stream.h"
#include "util/clock.h"
#include "util/limits.h"

#define AREA   ((size_t)512 << 20)
#define ROUNDS 4001

static char *src, *dst;

static void by_memcpy(const struct smem_xfer *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		memcpy(x[i].dst, x[i].src, x[i].width);
}

static void by_stream(const struct smem_xfer *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		stream_copy(x[i].dst, x[i].src, x[i].width);
	stream_fence();
}

struct way {
	const char *name;
	void (*fn)(const struct smem_xfer *x, size_t n);
	double ns[ROUNDS];
};

static struct way ways[] = {
    {.name = "memcpy", .fn = by_memcpy},
    {.name = "stream", .fn = by_stream},
    {.name = "engine", .fn = copy_pieces},
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static int compare(const void *a, const void *b)
{
	double d = *(const double *)a - *(const double *)b;

	return d < 0 ? -1 : d > 0;
}

/* One shape: n pieces of the given widths, at places that move on with `turn`. */
struct shape {
	const char *name;
	size_t n;
	size_t big, small; /* widths, in turn */
	size_t calls;	   /* a measurement has so many, to be longer than the clock's noise */
};

static void place(const struct shape *s, struct smem_xfer *x, size_t *at)
{
	for (size_t i = 0; i < s->n; i++) {
		size_t w = i % 2 && s->small ? s->small : s->big;
		/* A batch is scattered: there is a gap behind each piece. */
		size_t room = s->n > 1 ? 2 * w : w;
		if (*at + room > AREA)
			*at = 0;
		x[i] =
		    (struct smem_xfer){.dst = dst + *at, .src = src + *at, .width = w, .height = 1};
		*at += (room + 63) & ~63ull;
	}
}

static double once(const struct shape *s, struct way *w, struct smem_xfer *x, size_t *at)
{
	for (size_t c = 0; c < s->calls; c++)
		place(s, x + c * s->n, at);
	uint64_t t = clock_ns();
	for (size_t c = 0; c < s->calls; c++)
		w->fn(x + c * s->n, s->n);
	return (double)(clock_ns() - t) / (double)s->calls;
}

static void measure(const struct shape *s, double seconds)
{
	struct smem_xfer *x = calloc(s->n * s->calls, sizeof(*x));
	size_t at = 0, rounds = 0, bytes = 0;
	uint64_t end = clock_ns() + (uint64_t)(seconds * 1e9);

	if (!x)
		return;
	place(s, x, &at);
	for (size_t i = 0; i < s->n; i++)
		bytes += x[i].width;
	for (; rounds < ROUNDS && (rounds < 5 || clock_ns() < end); rounds++) {
		for (size_t w = 0; w < WAYS; w++)
			ways[w].ns[rounds] = once(s, &ways[w], x, &at);
	}
	printf("%-22s", s->name);
	double median[WAYS];
	for (size_t w = 0; w < WAYS; w++) {
		qsort(ways[w].ns, rounds, sizeof(double), compare);
		median[w] = ways[w].ns[rounds / 2];
		printf("  %s %9.1f ns %6.2f GB/s", ways[w].name, median[w],
		       (double)bytes / median[w]);
	}
	double best = median[0] < median[1] ? median[0] : median[1];
	printf("  engine/best %.3f  (%zu rounds)\n", best / median[2], rounds);
	free(x);
}

int main(int argc, char **argv)
{
	static const struct shape shapes[] = {
	    {"64 B", 1, 64, 0, 256},
	    {"4 KiB", 1, 4096, 0, 64},
	    {"16 KiB", 1, 16384, 0, 16},
	    {"64 KiB", 1, 65536, 0, 8},
	    {"128 KiB", 1, 131072, 0, 4},
	    {"1 MiB", 1, 1 << 20, 0, 1},
	    {"16 MiB", 1, 16 << 20, 0, 1},
	    {"256 MiB", 1, 256 << 20, 0, 1},
	    {"61x128K+61x16K", 122, 131072, 16384, 1},
	    {"1024 x 4 KiB", 1024, 4096, 0, 1},
	    {"1024 x 64 B", 1024, 64, 0, 1},
	};
	double seconds = argc > 1 ? atof(argv[1]) : 1;
	struct device_mem mem;

	src = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	dst = mmap(NULL, AREA + SLOT_ALIGN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (argc > 2 && strcmp(argv[2], "crew") == 0)
		crew_get();
	if (src == MAP_FAILED || dst == MAP_FAILED || device_host.alloc(AREA, &mem) != 0)
		return 1;
	dst += SLOT_ALIGN - (uintptr_t)dst % SLOT_ALIGN;
	if (device_host.map(&mem, dst, true) != 0)
		return 1;
	memset(src, 1, AREA);
	memset(dst, 1, AREA);
	printf("stream: %s, pages: %s\n", stream_name(), mem_pages_name(mem.pages));
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		measure(&shapes[i], seconds);
	crew_put();
	return 0;
}
