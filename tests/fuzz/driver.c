/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small mutator for compilers without libFuzzer. FUZZ_SEED repeats a run; what is running when
 * the process crashes lies in FUZZ_CRASH (default: not written).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fuzz.h"

#define INPUT_MAX 65536

static uint64_t rng;

static uint32_t rnd(uint32_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return below ? (uint32_t)(rng >> 11) % below : 0;
}

static size_t mutate(uint8_t *buf, size_t len)
{
	static const uint32_t odd[] = {0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0xffffffff};
	uint32_t at = rnd((uint32_t)len + 1), n;
	uint8_t other[4096];

	switch (rnd(8)) {
	case 0: /* a bit */
		if (len)
			buf[at % len] ^= (uint8_t)(1u << rnd(8));
		return len;
	case 1: /* a byte */
		if (len)
			buf[at % len] = (uint8_t)rnd(256);
		return len;
	case 2: /* an odd number */
		if (len >= 4)
			memcpy(buf + at % (len - 3), &odd[rnd(8)], 4);
		return len;
	case 3: /* shorter */
		return at;
	case 4: /* a hole */
		n = rnd((uint32_t)(len - at) + 1);
		memmove(buf + at, buf + at + n, len - at - n);
		return len - n;
	case 5: /* a piece again */
		n = rnd((uint32_t)(len - at) + 1);
		if (len + n > INPUT_MAX)
			return len;
		memmove(buf + at + n, buf + at, len - at);
		return len + n;
	case 6: /* another seed behind it */
		n = (uint32_t)fuzz_seed(rnd(64), other, sizeof(other));
		if (len + n > INPUT_MAX)
			return len;
		memcpy(buf + len, other, n);
		return len + n;
	default: /* noise */
		n = rnd(16);
		if (len + n > INPUT_MAX)
			return len;
		for (uint32_t i = 0; i < n; i++)
			buf[len + i] = (uint8_t)rnd(256);
		return len + n;
	}
}

static void keep(const uint8_t *data, size_t len)
{
	const char *path = getenv("FUZZ_CRASH");
	FILE *f = path ? fopen(path, "wb") : NULL;

	if (f) {
		fwrite(data, 1, len, f);
		fclose(f);
	}
}

int main(void)
{
	static uint8_t buf[INPUT_MAX];
	const char *seconds = getenv("FUZZ_SECONDS"), *seed = getenv("FUZZ_SEED");
	time_t end = time(NULL) + (seconds ? atoi(seconds) : 3);
	unsigned long runs = 0;
	unsigned seeds = 0;

	rng = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 0x9e3779b97f4a7c15ull;
	rng |= 1;
	printf("1..1\n# FUZZ_SEED=%llu\n", (unsigned long long)rng);
	fflush(stdout);
	for (size_t len; (len = fuzz_seed(seeds, buf, sizeof(buf))) > 0; seeds++, runs++)
		LLVMFuzzerTestOneInput(buf, len);
	while (time(NULL) < end) {
		for (int i = 0; i < 200; i++, runs++) {
			size_t len = fuzz_seed(rnd(seeds), buf, sizeof(buf));
			for (uint32_t k = rnd(12); k > 0; k--)
				len = mutate(buf, len);
			keep(buf, len);
			LLVMFuzzerTestOneInput(buf, len);
		}
	}
	printf("ok 1 - %lu inputs from %u seeds\n", runs, seeds);
	return 0;
}
