/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log is where the library tells which path it took and why no better one: an info record
 * "[pool] NAME: rank R by PATH; not WHY" for each peer, and a debug record "[path] X is not
 * available: WHY" for a transport that cannot start. It is read while a small pool is joined.
 */
#include "info.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "smem.h"
#include "smem_bm.h"
#include "tool.h"

#define SLOT	       (2ull << 20)
#define TIMEOUT_S      20
#define ANSWER_MS      30000
#define MEET_ID	       63 /* the last there is: an application has others */
#define MEET_TIMEOUT_S 60

static struct {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct probe *probe;
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

static void on_path(struct probe *p, const char *text)
{
	const char *at = strstr(text, ": rank "), *by, *why;
	struct probe_peer *peer = &p->peer[p->n];

	by = at ? strstr(at, " by ") : NULL;
	if (!by || p->n == PROBE_PEERS)
		return;
	why = strstr(by, "; not ");
	by += 4;
	peer->rank = (uint32_t)strtoul(at + 7, NULL, 10);
	snprintf(peer->path, sizeof(peer->path), "%.*s", (int)strcspn(by, ";"), by);
	snprintf(peer->why, sizeof(peer->why), "%s", why ? why + 6 : "");
	p->n++;
}

static void on_log(int level, const char *text)
{
	(void)level;
	pthread_mutex_lock(&seen.lock);
	struct probe *p = seen.probe;
	if (p && strncmp(text, "[pool] ", 7) == 0)
		on_path(p, text);
	if (p && strncmp(text, "[path] ", 7) == 0 && strstr(text, "is not available") &&
	    p->missing_n < PROBE_MISSING)
		snprintf(p->missing[p->missing_n++], sizeof(p->missing[0]), "%s", text + 7);
	pthread_cond_signal(&seen.more);
	pthread_mutex_unlock(&seen.lock);
}

/* Whether the kernel maps the slot in large pages. */
static void find_pages(struct probe *p, const void *slot)
{
	FILE *in = fopen("/proc/self/smaps", "re");
	uint64_t from, to, here = (uint64_t)(uintptr_t)slot, kib = 0, huge = 0;
	char text[512];
	bool inside = false;

	while (in && fgets(text, sizeof(text), in)) {
		if (sscanf(text, "%" SCNx64 "-%" SCNx64 " ", &from, &to) == 2 && strchr(text, '-'))
			inside = from <= here && here < to;
		if (!inside)
			continue;
		if (strncmp(text, "KernelPageSize:", 15) == 0)
			kib = strtoull(text + 15, NULL, 10);
		if (strncmp(text, "ShmemPmdMapped:", 15) == 0)
			huge = strtoull(text + 15, NULL, 10);
	}
	if (in)
		fclose(in);
	if (kib >= 2048)
		snprintf(p->pages, sizeof(p->pages), "hugetlb %" PRIu64 " MiB", kib >> 10);
	else if (huge > 0)
		snprintf(p->pages, sizeof(p->pages), "transparent 2 MiB");
	else
		snprintf(p->pages, sizeof(p->pages), "%" PRIu64 " KiB", kib);
}

static void failed(struct probe *p, const char *what)
{
	snprintf(p->error, sizeof(p->error), "%s: %.500s", what, smem_get_last_err_msg());
}

/* Joins, and waits until all others have been seen: those that join later come by themselves. */
static void join(struct probe *p, const char *url, unsigned n, unsigned rank)
{
	struct timespec until;
	smem_bm_config_t config;
	smem_bm_t bm;
	void *slot;

	pthread_mutex_lock(&seen.lock);
	seen.probe = p;
	pthread_mutex_unlock(&seen.lock);
	smem_set_extern_logger(on_log);
	smem_set_log_level(0);
	smem_bm_config_init(&config);
	config.initTimeout = config.createTimeout = config.controlOperationTimeout = TIMEOUT_S;
	config.rankId = (uint16_t)rank;
	config.startConfigStore = false;
	if (smem_bm_init(url, n, 0, &config) != SMEM_OK) {
		failed(p, "init");
		return;
	}
	bm = smem_bm_create(UINT32_MAX, 0, SMEMB_DATA_OP_SDMA, SLOT, 0, 0);
	if (!bm || smem_bm_join(bm, 0, &slot) != SMEM_OK) {
		failed(p, bm ? "join" : "create");
		return;
	}
	find_pages(p, slot);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TIMEOUT_S;
	pthread_mutex_lock(&seen.lock);
	while (p->n + 1 < n) {
		if (pthread_cond_clockwait(&seen.more, &seen.lock, CLOCK_MONOTONIC, &until) != 0)
			break;
	}
	if (p->n + 1 < n)
		snprintf(p->error, sizeof(p->error), "%zu of %u ranks joined within %d s", p->n + 1,
			 n, TIMEOUT_S);
	pthread_mutex_unlock(&seen.lock);
}

static void forget(void)
{
	pthread_mutex_lock(&seen.lock);
	seen.probe = NULL;
	pthread_mutex_unlock(&seen.lock);
}

/* args: URL */
int probe_child(struct child *c)
{
	struct probe *p = calloc(1, sizeof(*p));
	struct msg m;

	if (!p)
		return child_fail(c, "out of memory");
	join(p, c->argv[0], 2, 1);
	if (p->error[0])
		child_send(c, MSG_FAILED, p->error, strlen(p->error));
	else
		child_recv(c, &m);
	smem_uninit();
	forget();
	free(p);
	return 0;
}

void probe_here(struct probe *ret)
{
	struct procs g;
	char own[300];

	*ret = (struct probe){.pages = "unknown"};
	if (store_host_any(own, sizeof(own)) != SMEM_OK) {
		failed(ret, "hosting a store");
		return;
	}
	if (procs_start(&g, "info", 1, (const char *const[]){own, NULL}) != 0) {
		snprintf(ret->error, sizeof(ret->error), "starting a process: %m");
		return;
	}
	join(ret, own, 2, 0);
	smem_bm_uninit(0);
	procs_stop(&g, 10000);
	forget();
}

/* ---- several, anywhere ---- */

static void no_log(int level, const char *text)
{
	(void)level;
	(void)text;
}

static void note(char *error, size_t cap, const char *what)
{
	if (!error[0])
		snprintf(error, cap, "%s: %s", what, smem_get_last_err_msg());
}

smem_shm_t probe_meet(const char *url, unsigned n, unsigned rank, char *error, size_t cap)
{
	smem_shm_config_t config;
	smem_shm_t met = NULL;
	void *slots;

	smem_set_extern_logger(no_log);
	smem_shm_config_init(&config);
	config.shmInitTimeout = config.shmCreateTimeout = config.controlOperationTimeout =
	    MEET_TIMEOUT_S;
	config.startConfigStore = false;
	if (smem_shm_init(url, n, rank, 0, &config) != SMEM_OK)
		note(error, cap, "init");
	else
		met = smem_shm_create(MEET_ID, n, rank, SLOT, SMEMS_DATA_OP_MTE, 0, &slots);
	if (!error[0] && !met)
		note(error, cap, "meeting the others");
	return met;
}

bool probe_turn(smem_shm_t met, char *error, size_t cap)
{
	if (smem_shm_control_barrier(met) == SMEM_OK)
		return true;
	note(error, cap, "waiting for the others");
	return false;
}

void probe_part(smem_shm_t met)
{
	if (met)
		smem_shm_destroy(met, 0);
	smem_shm_uninit(0);
}
