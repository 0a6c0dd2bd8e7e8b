/* SPDX-License-Identifier: Apache-2.0 */
#include "util/rng.h"

#include <errno.h>
#include <sys/random.h>

#include "util/err.h"

int32_t rng_bytes(void *buf, size_t len)
{
	unsigned char *p = buf;

	while (len > 0) {
		ssize_t n = getrandom(p, len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return smem_errno(SMEM_IO, errno, "getrandom");
		p += n;
		len -= (size_t)n;
	}
	return SMEM_OK;
}

uint64_t rng_u64(void)
{
	uint64_t v = 0;

	do {
		if (rng_bytes(&v, sizeof(v)) != SMEM_OK)
			return 0;
	} while (v == 0);
	return v;
}
