/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ring all-reduce over symmetric memory with plain loads and stores.
 *
 *   ring_allreduce [RANKS [ELEMENTS]]      default 4 ranks, 100000 elements each
 *
 * Every rank holds a vector; in the end every rank holds the sum of all. The vector is cut into as
 * many chunks as there are ranks. In each of the first RANKS-1 steps a rank stores one chunk into
 * its right neighbour's inbox, which adds it to its own; then every rank owns one finished chunk,
 * and RANKS-1 more steps pass the finished chunks around. The barrier between two steps orders the
 * stores of one rank before the loads of the next: nothing else is needed.
 *
 * The program starts its ranks itself; each could as well run on its own with the store's URL.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "smem.h"
#include "smem_shm.h"

#define MIB2 (2ull << 20)

struct ring {
	uint32_t rank;
	uint32_t size;
	size_t count;  /* elements of the vector */
	size_t chunk;  /* elements of a chunk, the last one may be shorter */
	uint64_t slot; /* bytes of a rank's slot: the vector, and the inbox behind it */
	char *base;
	smem_shm_t shm;
};

static double *vector(const struct ring *ring, uint32_t rank)
{
	return (double *)(void *)(ring->base + rank * ring->slot);
}

static double *inbox(const struct ring *ring, uint32_t rank)
{
	return vector(ring, rank) + ring->count;
}

static size_t chunk_len(const struct ring *ring, uint32_t c)
{
	size_t begin = c * ring->chunk;
	size_t end = begin + ring->chunk;

	if (begin >= ring->count)
		return 0;
	return (end < ring->count ? end : ring->count) - begin;
}

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, smem_get_last_err_msg());
	return 1;
}

static int all_reduce(const struct ring *ring)
{
	uint32_t n = ring->size, right = (ring->rank + 1) % n;
	double *own = vector(ring, ring->rank);

	for (uint32_t step = 0; step + 1 < n; step++) {
		uint32_t out = (ring->rank + n - step) % n, in = (out + n - 1) % n;
		memcpy(inbox(ring, right), own + out * ring->chunk,
		       chunk_len(ring, out) * sizeof(double));
		if (smem_shm_control_barrier(ring->shm) != SMEM_OK)
			return fail("barrier");
		const double *got = inbox(ring, ring->rank);
		for (size_t i = 0; i < chunk_len(ring, in); i++)
			own[in * ring->chunk + i] += got[i];
		/* The inbox may be written again only when it has been read. */
		if (smem_shm_control_barrier(ring->shm) != SMEM_OK)
			return fail("barrier");
	}
	for (uint32_t step = 0; step + 1 < n; step++) {
		uint32_t out = (ring->rank + 1 + n - step) % n;
		memcpy(vector(ring, right) + out * ring->chunk, own + out * ring->chunk,
		       chunk_len(ring, out) * sizeof(double));
		if (smem_shm_control_barrier(ring->shm) != SMEM_OK)
			return fail("barrier");
	}
	return 0;
}

/* Small whole numbers: a double adds them exactly, in any order. */
static double element(uint32_t rank, size_t i)
{
	return (double)((i * 7 + rank * 13) % 1000);
}

static int check(const struct ring *ring)
{
	const double *own = vector(ring, ring->rank);

	for (size_t i = 0; i < ring->count; i++) {
		double want = 0;
		for (uint32_t r = 0; r < ring->size; r++)
			want += element(r, i);
		if (own[i] != want) {
			fprintf(stderr, "rank %u: element %zu is %g, want %g\n", ring->rank, i,
				own[i], want);
			return 1;
		}
	}
	return 0;
}

static int run_rank(const char *url, uint32_t rank, uint32_t size, size_t count)
{
	struct ring ring = {.rank = rank, .size = size, .count = count};
	smem_shm_config_t config;
	void *gva;

	ring.chunk = (count + size - 1) / size;
	ring.slot = ((count + ring.chunk) * sizeof(double) + MIB2 - 1) / MIB2 * MIB2;
	smem_shm_config_init(&config);
	if (smem_shm_init(url, size, rank, 0, &config) != SMEM_OK)
		return fail("init");
	ring.shm = smem_shm_create(0, size, rank, ring.slot, SMEMS_DATA_OP_MTE, 0, &gva);
	if (!ring.shm)
		return fail("create");
	ring.base = gva;
	for (size_t i = 0; i < count; i++)
		vector(&ring, rank)[i] = element(rank, i);
	if (smem_shm_control_barrier(ring.shm) != SMEM_OK)
		return fail("barrier");
	int r = all_reduce(&ring);
	if (r == 0)
		r = check(&ring);
	smem_shm_uninit(0); /* destroys the object too */
	return r;
}

/* A port that is free right now. */
static uint16_t free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return 0;
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) != 0)
		a.sin_port = 0;
	close(fd);
	return ntohs(a.sin_port);
}

int main(int argc, char **argv)
{
	uint32_t size = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 4;
	size_t count = argc > 2 ? strtoul(argv[2], NULL, 10) : 100000;
	int failed = 0, status;
	char url[64];

	if (size == 0 || size > 1024 || count == 0) {
		fprintf(stderr, "usage: %s [RANKS [ELEMENTS]]\n", argv[0]);
		return 2;
	}
	snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", free_port());
	for (uint32_t rank = 0; rank < size; rank++) {
		pid_t pid = fork();
		if (pid == 0)
			return run_rank(url, rank, size, count);
		failed |= pid < 0;
	}
	while (wait(&status) > 0)
		failed |= status != 0;
	if (failed)
		return 1;
	printf("%u ranks, %zu elements: every rank has the exact sum\n", size, count);
	return 0;
}
