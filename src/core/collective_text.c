/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a collective failed, in words that name ranks and values. Everything is read from the page at
 * that moment: who is inside, who has given up, who is gone, and what each rank called.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/collective_int.h"
#include "util/err.h"

#define TOGETHER_NS (1000 * NS_PER_MS)

/* Text that grows: "ranks 0, 4-7". */
struct text {
	char s[400];
	size_t len;
};

static void text_add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void text_add(struct text *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(t->s + t->len, sizeof(t->s) - t->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len += (size_t)n;
	if (t->len >= sizeof(t->s))
		t->len = sizeof(t->s) - 1;
}

static void text_ranks(struct text *t, const uint64_t *set)
{
	uint32_t n = 0;

	for (uint32_t w = 0; w < CONTROL_WORDS; w++)
		n += (uint32_t)__builtin_popcountll(set[w]);
	text_add(t, n == 1 ? "rank" : n == 0 ? "no rank" : "ranks");
	const char *sep = " ";
	for (uint32_t i = 0; i < WORLD_MAX; i++) {
		uint32_t end = i;
		while (end < WORLD_MAX && set[end / 64] >> (end % 64) & 1)
			end++;
		if (end == i)
			continue;
		text_add(t, end - i > 1 ? "%s%u-%u" : "%s%u", sep, i, end - 1);
		sep = ", ";
		i = end;
	}
}

const char *kind_text(uint32_t kind, char buf[32])
{
	if (kind == 0)
		return "barrier";
	snprintf(buf, 32, "allgather of %u bytes", kind);
	return buf;
}

int32_t err_closed(void)
{
	return smem_err(SMEM_OBJECT_NOT_EXISTS, "the object was destroyed during the call");
}

int32_t err_broken(const struct collective *c, struct deadline deadline)
{
	uint64_t lost[CONTROL_WORDS], left[CONTROL_WORDS];
	uint64_t any_lost = 0, any_left = 0;
	struct text t = {.len = 0};

	for (uint32_t w = 0; w < CONTROL_WORDS; w++) {
		left[w] = atomic_load(&c->page->head->left[w]);
		lost[w] = atomic_load(&c->page->head->lost[w]) & ~left[w];
		any_lost |= lost[w];
		any_left |= left[w];
	}
	if (any_lost) {
		text_ranks(&t, lost);
		text_add(&t, " lost%s", any_left ? ", " : "");
	}
	if (any_left) {
		text_ranks(&t, left);
		text_add(&t, " left by destroying the object");
	}
	return smem_err(SMEM_PEER_LOST, "%s (after %" PRIu64 " ms)", t.s,
			deadline_elapsed_ms(deadline));
}

/* Ranks whose time runs out together have missed somebody else, not each other. */
static bool was_there(const struct control_rank *peer, uint32_t round)
{
	if (atomic_load(&peer->inside) == round + 1)
		return true;
	return atomic_load(&peer->gave_up_in) == round + 1 &&
	       clock_ns() - atomic_load(&peer->gave_up) < TOGETHER_NS;
}

int32_t err_timeout(const struct collective *c, uint32_t kind, uint32_t round,
		    const struct set *others, struct deadline deadline)
{
	struct set missing = *others;
	struct text t = {.len = 0};
	char buf[32];
	uint32_t r;

	SET_FOREACH(r, &c->set)
	{
		if (r != c->rank && !was_there(control_rank(c->page, r), round))
			set_add(&missing, r);
	}
	if (c->outside.group && set_count(&missing) == 0)
		return smem_err(SMEM_TIMEOUT,
				"%s: the ranks of this host were there, and the config store did "
				"not say who was not, after %" PRIu64 " ms",
				kind_text(kind, buf), deadline_elapsed_ms(deadline));
	text_ranks(&t, missing.word);
	return smem_err(SMEM_TIMEOUT, "%s: %s not there after %" PRIu64 " ms", kind_text(kind, buf),
			t.s, deadline_elapsed_ms(deadline));
}

int32_t compare_kinds(const struct collective *c, uint32_t round)
{
	uint64_t done[CONTROL_WORDS] = {0};
	struct text t = {.len = 0};
	uint32_t kinds = 0;
	char buf[32];

	for (uint32_t r = 0; r < c->size; r++) {
		uint64_t same[CONTROL_WORDS] = {0};
		if (done[r / 64] >> (r % 64) & 1)
			continue;
		uint32_t kind = atomic_load(&control_rank(c->page, r)->kind[round & 1]);
		for (uint32_t i = r; i < c->size; i++) {
			if (atomic_load(&control_rank(c->page, i)->kind[round & 1]) == kind)
				same[i / 64] |= 1ull << (i % 64);
		}
		for (uint32_t w = 0; w < CONTROL_WORDS; w++)
			done[w] |= same[w];
		text_add(&t, "%s%s: ", kinds++ ? "; " : "", kind_text(kind, buf));
		text_ranks(&t, same);
	}
	if (kinds == 1)
		return SMEM_OK;
	return smem_err(SMEM_INVALID_PARAM, "the ranks made unlike calls: %s", t.s);
}

/* Word by word, for somebody who was taken for dead may be writing here too. */
void why_put(const struct control *page, const char *text)
{
	size_t len = strlen(text);

	for (size_t w = 0; w < CONTROL_WHY; w++) {
		uint64_t word = 0;
		if (w * 8 < len)
			memcpy(&word, text + w * 8, len - w * 8 < 8 ? len - w * 8 : 8);
		atomic_store_explicit(&page->head->why[w], word, memory_order_relaxed);
	}
}

int32_t err_judged(const struct collective *c, uint32_t kind, int32_t code)
{
	char text[CONTROL_WHY * 8 + 1], buf[32];

	for (size_t w = 0; w < CONTROL_WHY; w++) {
		uint64_t word = atomic_load_explicit(&c->page->head->why[w], memory_order_relaxed);
		memcpy(text + w * 8, &word, 8);
	}
	text[sizeof(text) - 1] = '\0';
	return smem_err(code, "%s: %s", kind_text(kind, buf), text);
}
