/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank of the demo. It does what the parent says, one message at a time, and answers each with
 * the figures of it; so the parent can let ranks work one after the other where times are taken,
 * and all at once where they only check.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "demo.h"
#include "smem.h"
#include "smem_bm.h"
#include "tool.h"

#define PASSES	      3
#define PROGRESS_STEP (4ull << 20)

struct rank {
	struct child *c;
	struct data data;
	smem_bm_t bm;
	char *slot0; /* of rank 0 */
	uint64_t slot_bytes;
	uint64_t region;
	struct demo_round round;
	uint8_t (*digests)[DEMO_DIGEST];
	char *buf;	 /* the own share */
	char *other;	 /* as large: what memcpy moves to, what is read back */
	uint64_t unsaid; /* bytes of progress not yet told */
};

/* What the library says of the path to each peer, from its log. */
static struct {
	pthread_mutex_t lock;
	char names[DEMO_PATH_MAX]; /* different ones, joined by '+' */
} paths = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void note_path(const char *name, size_t len)
{
	char word[DEMO_PATH_MAX];
	size_t used;

	if (len == 0 || len >= sizeof(word))
		return;
	memcpy(word, name, len);
	word[len] = '\0';
	pthread_mutex_lock(&paths.lock);
	used = strlen(paths.names);
	if (!strstr(paths.names, word) && used + len + 2 <= sizeof(paths.names)) {
		if (used)
			paths.names[used++] = '+';
		memcpy(paths.names + used, word, len + 1);
	}
	pthread_mutex_unlock(&paths.lock);
}

static void on_log(int level, const char *text)
{
	static const char mark[] = " by ";
	const char *at = strncmp(text, "[pool] ", 7) == 0 ? strstr(text, ": rank ") : NULL;

	at = at ? strstr(at, mark) : NULL;
	if (at)
		note_path(at + sizeof(mark) - 1, strcspn(at + sizeof(mark) - 1, " ,;:("));
	else if (level >= 2)
		complain("%s", text);
}

static void progress(struct rank *k, uint64_t bytes, bool flush)
{
	k->unsaid += bytes;
	if (k->unsaid >= PROGRESS_STEP || (flush && k->unsaid > 0)) {
		child_send(k->c, MSG_PROGRESS, &k->unsaid, sizeof(k->unsaid));
		k->unsaid = 0;
	}
}

/* The place of a unit (the j-th of its kind in its holder) in the pool. */
static char *cell_at(const struct rank *k, size_t owner, uint64_t cell, uint64_t cells)
{
	uint64_t h = demo_holders(k->c->n), per_holder = (cells + h - 1) / h;
	uint64_t shuffled = cell / h * 7919 % per_holder; /* a prime above any per_holder */

	return k->slot0 + demo_holder(owner, cell, k->c->n) * k->slot_bytes + owner * k->region +
	       shuffled * DEMO_CELL_BYTES;
}

static char *chunk_at(const struct rank *k, size_t owner, uint64_t chunk, uint64_t cells)
{
	uint64_t h = demo_holders(k->c->n), per_holder = (cells + h - 1) / h;

	return k->slot0 + demo_holder(owner, chunk, k->c->n) * k->slot_bytes + owner * k->region +
	       per_holder * DEMO_CELL_BYTES + chunk / h * DEMO_CHUNK;
}

/* Where a page (half a cell) begins in the share: its group's rows, its layer's column. */
static uint64_t page_in_share(uint64_t cell, unsigned half)
{
	return cell / DEMO_GROUP_CELLS * DEMO_GROUP_BYTES +
	       (cell % DEMO_GROUP_CELLS * 2 + half) * DEMO_PIECE;
}

static uint64_t chunk_len(const struct demo_share *s, uint64_t chunk)
{
	uint64_t from = s->plain + chunk * DEMO_CHUNK;

	return s->len - from < DEMO_CHUNK ? s->len - from : DEMO_CHUNK;
}

/* The share between `local` (as in the files) and the pool. */
static int32_t move_share(struct rank *k, size_t owner, const struct demo_share *s, char *local,
			  bool put)
{
	for (uint64_t i = 0; i < 2 * s->cells; i++) {
		char *here = local + page_in_share(i / 2, i % 2);
		char *there = cell_at(k, owner, i / 2, s->cells) + i % 2 * DEMO_PIECE;
		smem_copy_2d_params p = {.src = put ? here : there,
					 .spitch = put ? DEMO_ROW_BYTES : 2 * DEMO_PIECE,
					 .dest = put ? there : here,
					 .dpitch = put ? 2 * DEMO_PIECE : DEMO_ROW_BYTES,
					 .width = DEMO_PIECE,
					 .height = DEMO_ROWS};
		int32_t r = smem_bm_copy_2d(k->bm, &p, put ? SMEMB_COPY_H2G : SMEMB_COPY_G2H, 0);
		if (r != SMEM_OK)
			return r;
	}
	for (uint64_t i = 0; i < s->chunks; i++) {
		char *here = local + s->plain + i * DEMO_CHUNK;
		char *there = chunk_at(k, owner, i, s->cells);
		smem_copy_params p = {.src = put ? here : there,
				      .dest = put ? there : here,
				      .count = chunk_len(s, i)};
		int32_t r = smem_bm_copy(k->bm, &p, put ? SMEMB_COPY_H2G : SMEMB_COPY_G2H, 0);
		if (r != SMEM_OK)
			return r;
	}
	return SMEM_OK;
}

/* The same shapes by memcpy, from the share to private memory. */
static void move_plain(struct rank *k, const struct demo_share *s)
{
	for (uint64_t i = 0; i < 2 * s->cells; i++) {
		char *from = k->buf + page_in_share(i / 2, i % 2);
		char *to = k->other + i / 2 * DEMO_CELL_BYTES + i % 2 * DEMO_PIECE;
		for (unsigned row = 0; row < DEMO_ROWS; row++)
			memcpy(to + (size_t)row * 2 * DEMO_PIECE,
			       from + (size_t)row * DEMO_ROW_BYTES, DEMO_PIECE);
	}
	for (uint64_t i = 0; i < s->chunks; i++)
		memcpy(k->other + s->plain + i * DEMO_CHUNK, k->buf + s->plain + i * DEMO_CHUNK,
		       chunk_len(s, i));
	__asm__ volatile("" : : "r"(k->other) : "memory");
}

static int hash(const void *data, size_t len, uint8_t ret[DEMO_DIGEST])
{
	return EVP_Digest(data, len, ret, NULL, EVP_sha256(), NULL) == 1 ? 0 : -1;
}

/* The same digest by loads from the pool, in the order of the files. */
static int hash_pool(struct rank *k, size_t owner, const struct demo_share *s,
		     uint8_t ret[DEMO_DIGEST])
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	int ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;

	for (uint64_t at = 0; ok && at < s->plain; at += DEMO_PIECE) {
		uint64_t row = at % DEMO_GROUP_BYTES / DEMO_ROW_BYTES;
		uint64_t piece = at % DEMO_ROW_BYTES / DEMO_PIECE;
		uint64_t cell = at / DEMO_GROUP_BYTES * DEMO_GROUP_CELLS + piece / 2;
		ok = EVP_DigestUpdate(md,
				      cell_at(k, owner, cell, s->cells) + row * 2 * DEMO_PIECE +
					  piece % 2 * DEMO_PIECE,
				      DEMO_PIECE) == 1;
		progress(k, DEMO_PIECE, false);
	}
	for (uint64_t i = 0; ok && i < s->chunks; i++) {
		ok = EVP_DigestUpdate(md, chunk_at(k, owner, i, s->cells), chunk_len(s, i)) == 1;
		progress(k, chunk_len(s, i), false);
	}
	ok = ok && EVP_DigestFinal_ex(md, ret, NULL) == 1;
	EVP_MD_CTX_free(md);
	return ok ? 0 : -1;
}

static int do_round(struct rank *k, const struct demo_round *round)
{
	struct demo_share s = demo_share_of(round, k->c->rank);
	struct demo_written w = {.bytes = s.len, .put_s = 1e9, .memcpy_s = 1e9};
	const char *bad;
	char text[512];

	k->round = *round;
	bad = data_read(&k->data, s.offset, k->buf, s.len);
	if (bad) {
		snprintf(text, sizeof(text), "%.400s: %s", bad,
			 errno ? strerror(errno) : "has become shorter");
		return child_fail(k->c, text);
	}
	if (hash(k->buf, s.len, w.digest) != 0)
		return child_fail(k->c, "SHA-256 failed");
	for (int pass = 0; pass < PASSES && s.len > 0; pass++) {
		double start = now_s(), middle;
		if (move_share(k, k->c->rank, &s, k->buf, true) != SMEM_OK)
			return child_fail(k->c, "writing to the pool");
		middle = now_s();
		move_plain(k, &s);
		w.memcpy_s = now_s() - middle < w.memcpy_s ? now_s() - middle : w.memcpy_s;
		w.put_s = middle - start < w.put_s ? middle - start : w.put_s;
	}
	progress(k, s.len, true);
	return child_send(k->c, MSG_WRITTEN, &w, sizeof(w));
}

static int copy_and_hash(struct rank *k, size_t owner, const struct demo_share *s, double *get_s,
			 uint8_t ret[DEMO_DIGEST])
{
	double best = 1e9;

	/* what was there before must not pass for what is read */
	memset(k->other, 0, s->len);
	for (int pass = 0; pass < PASSES - 1; pass++) {
		double start = now_s();
		if (move_share(k, owner, s, k->other, false) != SMEM_OK)
			return child_fail(k->c, "reading from the pool");
		best = now_s() - start < best ? now_s() - start : best;
	}
	*get_s += best;
	progress(k, s->len, false);
	return hash(k->other, s->len, ret) == 0 ? 0 : child_fail(k->c, "SHA-256 failed");
}

static int do_check(struct rank *k, bool by_copy)
{
	struct demo_checked done = {0};
	uint8_t got[DEMO_DIGEST];

	for (size_t owner = 0; owner < k->c->n; owner++) {
		struct demo_share s = demo_share_of(&k->round, owner);
		if (s.len == 0 || (owner == k->c->rank && k->c->n > 1))
			continue;
		int r = by_copy ? copy_and_hash(k, owner, &s, &done.get_s, got)
				: hash_pool(k, owner, &s, got);
		if (r != 0)
			return by_copy ? r : child_fail(k->c, "SHA-256 failed");
		done.shares++;
		done.bytes += s.len;
		if (memcmp(got, k->digests[owner], DEMO_DIGEST) != 0 && done.bad++ == 0)
			done.first_bad = (uint32_t)owner;
	}
	progress(k, 0, true);
	return child_send(k->c, MSG_CHECKED, &done, sizeof(done));
}

/* args: URL, id of the pool, bytes of a share, list of files */
static int do_join(struct rank *k)
{
	char **argv = k->c->argv;
	uint64_t share = strtoull(argv[2], NULL, 10);
	struct demo_joined j = {0};
	smem_bm_config_t config;
	void *slot;

	if (data_load(&k->data, argv[3]) != 0)
		return child_fail(k->c, "the list of files");
	k->region = demo_region(share, k->c->n);
	k->slot_bytes = demo_slot(share, k->c->n);
	k->digests = calloc(k->c->n, sizeof(*k->digests));
	k->buf = malloc(share);
	k->other = malloc(share + DEMO_CELL_BYTES);
	if (!k->digests || !k->buf || !k->other)
		return child_fail(k->c, "out of memory");
	memset(k->buf, 0, share); /* not while the clock runs */
	memset(k->other, 0, share);
	smem_set_extern_logger(on_log);
	smem_set_log_level(1);
	smem_bm_config_init(&config);
	config.rankId = (uint16_t)k->c->rank;
	config.startConfigStore = false;
	if (smem_bm_init(argv[0], (uint32_t)k->c->n, 0, &config) != SMEM_OK)
		return child_fail(k->c, "init");
	k->bm = smem_bm_create((uint32_t)strtoul(argv[1], NULL, 10), 0, SMEMB_DATA_OP_SDMA,
			       k->slot_bytes, 0, 0);
	if (!k->bm)
		return child_fail(k->c, "create");
	if (smem_bm_join(k->bm, 0, &slot) != SMEM_OK)
		return child_fail(k->c, "join");
	k->slot0 = smem_bm_ptr(k->bm, 0);
	j.slot = (uint64_t)(uintptr_t)slot;
	return child_send(k->c, MSG_JOINED, &j, sizeof(j));
}

/* Once all are there, what leads to them is known. */
static int do_go(struct rank *k)
{
	struct demo_joined j = {.slot =
				    (uint64_t)(uintptr_t)smem_bm_ptr(k->bm, (uint16_t)k->c->rank)};

	pthread_mutex_lock(&paths.lock);
	snprintf(j.path, sizeof(j.path), "%s", paths.names[0] ? paths.names : "own");
	pthread_mutex_unlock(&paths.lock);
	return child_send(k->c, MSG_JOINED, &j, sizeof(j));
}

static int obey(struct rank *k, const struct msg *m)
{
	struct demo_digest d;
	struct demo_round round;

	switch (m->type) {
	case MSG_JOIN:
		return do_join(k);
	case MSG_GO:
		return do_go(k);
	case MSG_ROUND:
		memcpy(&round, m->data, sizeof(round));
		return do_round(k, &round);
	case MSG_DIGEST:
		memcpy(&d, m->data, sizeof(d));
		memcpy(k->digests[d.rank], d.digest, DEMO_DIGEST);
		return 0;
	case MSG_COPY:
	case MSG_LOAD:
		return do_check(k, m->type == MSG_COPY);
	default:
		return -1;
	}
}

int demo_rank(struct child *c)
{
	struct rank k = {.c = c};
	struct msg m;
	int r = c->argc < 4 ? -1 : 0;

	while (r == 0 && child_recv(c, &m) == 0 && m.type != MSG_QUIT)
		r = obey(&k, &m);
	smem_uninit();
	data_free(&k.data);
	free(k.digests);
	free(k.buf);
	free(k.other);
	return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
