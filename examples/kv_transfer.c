/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prefill and decode, two processes. The decode process owns a paged cache of 61 layers; a request
 * gets some blocks of it, at places that a block table names. The prefill process has computed the
 * request's keys and values and writes them straight into those blocks, all layers in one batch;
 * the decode process does nothing for it. The processes exchange addresses and block table over the
 * store, by an allgather of a symmetric object, and agree by its barrier that the transfer is done.
 *
 * usage: kv_transfer [URL]    exit status 0: every byte arrived, and only where it should
 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "smem.h"
#include "smem_shm.h"
#include "smem_trans.h"

#define LAYERS	    61
#define CACHE	    12 /* blocks of a layer */
#define REQUEST	    8  /* blocks of the request */
#define BLOCK_LARGE (128u << 10)
#define BLOCK_SMALL (16u << 10)
#define BLOCK	    (BLOCK_LARGE + BLOCK_SMALL)
#define PIECES	    (LAYERS * REQUEST * 2)

enum { PREFILL, DECODE };

static const char *const session[] = {"127.0.0.1:1", "127.0.0.1:2"};

/* What each tells the other; only the decode process has something to tell. */
struct card {
	uint64_t layer[LAYERS];
	uint32_t table[REQUEST];
};

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, smem_get_last_err_msg());
	return 1;
}

static uint8_t content(unsigned layer, unsigned block, size_t at)
{
	return (uint8_t)(1 + (layer * 131 + block * 31 + at * 7 + (at >> 8)) % 255);
}

static void fill(uint8_t *to, unsigned layer, unsigned block)
{
	for (size_t at = 0; at < BLOCK; at++)
		to[at] = content(layer, block, at);
}

/* Bytes that are not as they should be: blocks of the request hold its content, others nothing. */
static size_t wrong_in(const uint8_t *layer, unsigned number, const uint32_t *table)
{
	size_t wrong = 0;

	for (unsigned place = 0; place < CACHE; place++) {
		unsigned b = 0;
		while (b < REQUEST && table[b] != place)
			b++;
		for (size_t at = 0; at < BLOCK; at++) {
			uint8_t want = b < REQUEST ? content(number, b, at) : 0;
			wrong += layer[(size_t)place * BLOCK + at] != want;
		}
	}
	return wrong;
}

/* All layers and blocks as one batch: the large and the small part of each are a piece. */
static int write_all(smem_trans_t trans, const uint8_t *source, const struct card *to)
{
	static const void *from[PIECES];
	static void *dest[PIECES];
	static size_t size[PIECES];
	struct timespec a, b;
	uint32_t n = 0;

	for (unsigned layer = 0; layer < LAYERS; layer++) {
		for (unsigned block = 0; block < REQUEST; block++) {
			const uint8_t *s = source + ((size_t)layer * REQUEST + block) * BLOCK;
			uint64_t d = to->layer[layer] + (uint64_t)to->table[block] * BLOCK;
			from[n] = s;
			dest[n] = (void *)(uintptr_t)d;
			size[n++] = BLOCK_LARGE;
			from[n] = s + BLOCK_LARGE;
			dest[n] = (void *)(uintptr_t)(d + BLOCK_LARGE);
			size[n++] = BLOCK_SMALL;
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &a);
	if (smem_trans_batch_write(trans, from, session[DECODE], dest, size, n) != SMEM_OK)
		return fail("batch write");
	clock_gettime(CLOCK_MONOTONIC, &b);
	double s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9;
	printf("prefill: %" PRIu32 " pieces, %.1f MiB in %.2f ms, %.1f GB/s\n", n,
	       LAYERS * REQUEST * BLOCK / 1048576.0, s * 1e3, LAYERS * REQUEST * BLOCK / s / 1e9);
	fflush(stdout);
	return 0;
}

static int prefill(smem_trans_t trans, smem_shm_t group)
{
	struct card own, all[2];
	uint8_t *source = malloc((size_t)LAYERS * REQUEST * BLOCK);
	int r;

	if (!source)
		return fail("memory");
	memset(&own, 0, sizeof(own));
	for (unsigned layer = 0; layer < LAYERS; layer++) {
		for (unsigned block = 0; block < REQUEST; block++)
			fill(source + ((size_t)layer * REQUEST + block) * BLOCK, layer, block);
	}
	if (smem_shm_control_allgather(group, (char *)&own, sizeof(own), (char *)all,
				       sizeof(all)) != SMEM_OK)
		r = fail("allgather");
	else
		r = write_all(trans, source, &all[DECODE]);
	if (smem_shm_control_barrier(group) != SMEM_OK)
		r = fail("barrier");
	free(source);
	return r;
}

static int decode(smem_trans_t trans, smem_shm_t group)
{
	struct card own = {.table = {9, 2, 11, 4, 0, 7, 3, 6}}, all[2];
	void *layer[LAYERS];
	size_t bytes[LAYERS], wrong = 0;
	int r = 0;

	for (unsigned i = 0; i < LAYERS; i++) {
		bytes[i] = (size_t)CACHE * BLOCK;
		layer[i] = calloc(1, bytes[i]);
		if (!layer[i])
			return fail("memory");
		own.layer[i] = (uint64_t)(uintptr_t)layer[i];
	}
	if (smem_trans_batch_register_mem(trans, layer, bytes, LAYERS, 0) != SMEM_OK)
		r = fail("register");
	if (smem_shm_control_allgather(group, (char *)&own, sizeof(own), (char *)all,
				       sizeof(all)) != SMEM_OK ||
	    smem_shm_control_barrier(group) != SMEM_OK)
		r = fail("waiting for the prefill");
	for (unsigned i = 0; i < LAYERS; i++)
		wrong += wrong_in(layer[i], i, own.table);
	printf("decode: %zu bytes wrong\n", wrong);
	/* after this nobody's write lands any more, and the memory may go */
	smem_trans_destroy(trans, 0);
	for (unsigned i = 0; i < LAYERS; i++)
		free(layer[i]);
	return r != 0 || wrong > 0;
}

static int run(const char *url, uint32_t rank)
{
	smem_shm_config_t shm_config;
	smem_trans_config_t trans_config;
	void *base;

	smem_shm_config_init(&shm_config); /* rank 0 hosts the store */
	if (smem_shm_init(url, 2, rank, 0, &shm_config) != SMEM_OK)
		return fail("init");
	smem_shm_t group = smem_shm_create(0, 2, rank, 2u << 20, SMEMS_DATA_OP_MTE, 0, &base);
	smem_trans_config_init(&trans_config);
	trans_config.role = rank == PREFILL ? SMEM_TRANS_SENDER : SMEM_TRANS_RECEIVER;
	smem_trans_t trans = smem_trans_create(url, session[rank], &trans_config);
	if (!group || !trans)
		return fail("create");
	int r = rank == PREFILL ? prefill(trans, group) : decode(trans, group);
	smem_uninit();
	return r;
}

/* A port that is free now. */
static unsigned free_port(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) != 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &len) != 0)
		perror("a port");
	close(fd);
	return ntohs(at.sin_port);
}

int main(int argc, char **argv)
{
	char url[300];
	int status = 1;

	if (argc > 1)
		snprintf(url, sizeof(url), "%s", argv[1]);
	else
		snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", free_port());
	pid_t child = fork();
	if (child == 0)
		return run(url, PREFILL);
	int r = child > 0 ? run(url, DECODE) : 1;
	if (child > 0)
		waitpid(child, &status, 0);
	return r != 0 || status != 0;
}
