/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the pieces of an operation lie: the same shape at every place of a rotation, worked out
 * before anything is measured.
 */
#include <stdlib.h>

#include "perf.h"

void perf_plan_free(struct perf_plan *l)
{
	free(l->src);
	free(l->dst);
	free(l->len);
	*l = (struct perf_plan){0};
}

int perf_plan_make(struct perf_plan *l, const struct perf_shape *s, char *near, char *far,
		   size_t region)
{
	size_t n = s->n, slot = 2 * (s->large > s->small ? s->large : s->small);
	size_t span = n == 1 ? s->large : n * slot;

	perf_plan_free(l);
	span = (span + 4095) / 4096 * 4096;
	*l = (struct perf_plan){.n = n, .places = region / span};
	if (l->places == 0)
		return -1;
	if (s->large <= 8)
		l->places = 1;
	l->src = malloc(l->places * n * sizeof(*l->src));
	l->dst = malloc(l->places * n * sizeof(*l->dst));
	l->len = malloc(l->places * n * sizeof(*l->len));
	if (!l->src || !l->dst || !l->len)
		return -1;
	for (size_t p = 0; p < l->places; p++) {
		for (size_t j = 0; j < n; j++) {
			size_t k = p * n + j;
			size_t to = s->scattered ? j * 7919 % n : j;
			l->len[k] = j % 2 ? s->small : s->large;
			l->src[k] = near + p * span + j * (n == 1 ? 0 : slot);
			l->dst[k] = far + p * span + to * (n == 1 ? 0 : slot);
		}
	}
	for (size_t j = 0; j < n; j++)
		l->bytes += l->len[j];
	return 0;
}
