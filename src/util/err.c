/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The texts of a thread live in one block, allocated at its first fault and freed by a
 * thread-specific key, so that a thread that never fails costs one pointer. `last` is
 * double-buffered: the pointer that smem_get_and_clear_last_err_msg() returned stays valid until
 * the thread's next failing call or clear.
 */
#include "util/err.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"

#define DETAIL_MAX 900

struct err_block {
	int32_t pending_code;
	int32_t last_code;
	int current; /* which of last[] was written last */
	bool shown;  /* false: none, or cleared */
	char pending[DETAIL_MAX];
	char last[2][ERR_TEXT_MAX];
};

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_ok;
static __thread struct err_block *block __attribute__((tls_model("initial-exec")));
static __thread struct err_scope *scope_top __attribute__((tls_model("initial-exec")));

static void block_free(void *p)
{
	block = NULL;
	free(p);
}

static void key_make(void)
{
	key_ok = pthread_key_create(&key, block_free) == 0;
}

static struct err_block *block_get(void)
{
	if (block)
		return block;
	pthread_once(&key_once, key_make);
	struct err_block *b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	if (!key_ok || pthread_setspecific(key, b) != 0) {
		free(b);
		return NULL;
	}
	block = b;
	return b;
}

/* One line, valid UTF-8 at the cut, no control characters. */
static void text_clean(char *s, size_t cap)
{
	size_t n = strnlen(s, cap - 1);

	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			s[i] = '?';
	}
	size_t lead = n;
	while (lead > 0 && n - lead < 4 && ((unsigned char)s[lead - 1] & 0xc0) == 0x80)
		lead--;
	if (lead == 0)
		return;
	unsigned char c = (unsigned char)s[lead - 1];
	size_t want = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
	if (want > n - lead + 1)
		s[lead - 1] = '\0';
}

static int32_t record(int32_t code, int err, const char *fmt, va_list ap)
{
	struct err_block *b = block_get();

	if (!b)
		return code;
	/* Aside first: an argument may be the detail of an earlier fault, which this one explains.
	 */
	char text[DETAIL_MAX];
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	if (err != 0 && n >= 0 && (size_t)n < sizeof(text)) {
		char buf[128];
		snprintf(text + n, sizeof(text) - (size_t)n, ": %s (errno %d)",
			 strerror_r(err, buf, sizeof(buf)), err);
	}
	text_clean(text, sizeof(text));
	memcpy(b->pending, text, sizeof(text));
	b->pending_code = code;
	return code;
}

int32_t smem_err(int32_t code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	record(code, 0, fmt, ap);
	va_end(ap);
	return code;
}

int32_t smem_errno(int32_t code, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	record(code, err, fmt, ap);
	va_end(ap);
	return code;
}

int32_t err_code(void)
{
	return block ? block->pending_code : 0;
}

const char *err_detail(void)
{
	return block ? block->pending : "";
}

void err_enter(struct err_scope *scope, const char *api)
{
	scope->api = api;
	scope->outer = scope_top;
	scope_top = scope;
	if (block && !scope->outer) {
		block->pending_code = 0;
		block->pending[0] = '\0';
	}
}

int32_t err_leave(struct err_scope *scope, int32_t r)
{
	scope_top = scope->outer;
	if (r >= 0)
		return r;
	struct err_block *b = block_get();
	if (!b)
		return r;
	const char *detail = b->pending_code == r ? b->pending : smem_strerror(r);
	const char *name = err_name(r);
	int next = !b->current;
	snprintf(b->last[next], ERR_TEXT_MAX, "%s: %s (%d): %s", scope->api,
		 name ? name : "unknown", (int)r, detail);
	b->current = next;
	b->shown = true;
	b->last_code = r;
	LOG_ERROR("smem", "%s", b->last[next]);
	return r;
}

const char *err_last(void)
{
	return block && block->shown ? block->last[block->current] : "";
}

const char *err_last_clear(void)
{
	const char *text = err_last();

	if (block) {
		block->shown = false;
		block->last_code = 0;
	}
	return text;
}

int32_t err_last_code(void)
{
	return block ? block->last_code : 0;
}

static const struct {
	int32_t code;
	const char *name;
	const char *text;
} table[] = {
    {SMEM_OK, "SMEM_OK", "success"},
    {SMEM_ERROR, "SMEM_ERROR", "internal failure"},
    {SMEM_INVALID_PARAM, "SMEM_INVALID_PARAM", "invalid argument or handle"},
    {SMEM_MALLOC_FAILED, "SMEM_MALLOC_FAILED", "memory cannot be had"},
    {SMEM_NEW_OBJECT_FAILED, "SMEM_NEW_OBJECT_FAILED",
     "descriptors, threads, sockets or mappings exhausted"},
    {SMEM_NOT_STARTED, "SMEM_NOT_STARTED", "the rank has not joined or has left"},
    {SMEM_TIMEOUT, "SMEM_TIMEOUT", "a deadline passed"},
    {SMEM_REPEAT_CALL, "SMEM_REPEAT_CALL", "this may be done once only"},
    {SMEM_DUPLICATED_OBJECT, "SMEM_DUPLICATED_OBJECT",
     "id, rank, session or address already taken"},
    {SMEM_OBJECT_NOT_EXISTS, "SMEM_OBJECT_NOT_EXISTS", "no such handle, session or registration"},
    {SMEM_NOT_INITIALIZED, "SMEM_NOT_INITIALIZED", "the service is not initialised"},
    {SMEM_RESOURCE_IN_USE, "SMEM_RESOURCE_IN_USE", "address or range in use, or the group is full"},
    {SMEM_PEER_LOST, "SMEM_PEER_LOST", "a peer needed by the call is lost"},
    {SMEM_UNREACHABLE, "SMEM_UNREACHABLE", "store connection lost, or no path to the peer"},
    {SMEM_STALE, "SMEM_STALE", "address of an earlier incarnation, or withdrawn"},
    {SMEM_NOT_SUPPORTED, "SMEM_NOT_SUPPORTED", "not available in this build, machine or mode"},
    {SMEM_IO, "SMEM_IO", "operating-system, network, device or protocol failure"},
    {SMEM_SECURITY, "SMEM_SECURITY", "TLS configuration, certificate or handshake failure"},
};

const char *err_name(int32_t code)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (table[i].code == code)
			return table[i].name;
	}
	return NULL;
}

__attribute__((visibility("default"))) const char *smem_strerror(int32_t code)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (table[i].code == code)
			return table[i].text;
	}
	return "unknown code";
}
