/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination is aligned by a short memcpy() first, since non-temporal stores want that; the
 * source need not be. Whole lines are written back to back, so that each leaves the CPU's
 * write-combining buffer at once and complete. The choice is made when the library is loaded; what
 * the CPU has does not change.
 */
#include "device/stream.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LINE 64u /* bytes; one non-temporal burst */

static const char *name = "none";
stream_fn stream_copy;

const char *stream_name(void)
{
	return name;
}

/* Bytes to the next line of dst, at most len. */
static inline size_t head_of(const char *dst, size_t len)
{
	size_t head = -(uintptr_t)dst % LINE;

	return head < len ? head : len;
}

#if defined(__x86_64__)
#include <immintrin.h>

/* How far ahead of the loads. The CPU's own prefetchers stop at a page's end; with 4 KiB pages that
 * is where the time goes. */
#define AHEAD 2048
#define BURST 256 /* bytes loaded before the first is stored */

#define STREAM_FN(fn, isa, vec, load, store)                                                       \
	__attribute__((target(isa))) static void fn(char *dst, const char *src, size_t len)        \
	{                                                                                          \
		enum { COUNT = BURST / sizeof(vec) };                                              \
		size_t head = head_of(dst, len);                                                   \
		memcpy(dst, src, head);                                                            \
		dst += head;                                                                       \
		src += head;                                                                       \
		len -= head;                                                                       \
		for (; len >= BURST; len -= BURST, dst += BURST, src += BURST) {                   \
			vec v[COUNT];                                                              \
			for (size_t i = 0; i < BURST; i += LINE)                                   \
				_mm_prefetch(src + AHEAD + i, _MM_HINT_T0);                        \
			_Pragma("GCC unroll 16") for (size_t i = 0; i < COUNT; i++) v[i] =         \
			    load((const void *)(src + i * sizeof(vec)));                           \
			_Pragma("GCC unroll 16") for (size_t i = 0; i < COUNT; i++)                \
			    store((void *)(dst + i * sizeof(vec)), v[i]);                          \
		}                                                                                  \
		memcpy(dst, src, len);                                                             \
	}

#define load512(p)     _mm512_loadu_si512(p)
#define store512(p, v) _mm512_stream_si512(p, v)
#define load256(p)     _mm256_loadu_si256((const __m256i *)(p))
#define store256(p, v) _mm256_stream_si256((__m256i *)(p), v)
#define load128(p)     _mm_loadu_si128((const __m128i *)(p))
#define store128(p, v) _mm_stream_si128((__m128i *)(p), v)

STREAM_FN(stream_avx512, "avx512f", __m512i, load512, store512)
STREAM_FN(stream_avx2, "avx2", __m256i, load256, store256)
STREAM_FN(stream_sse2, "sse2", __m128i, load128, store128)

void stream_fence(void)
{
	_mm_sfence();
}

static const struct {
	const char *name;
	stream_fn fn;
} kinds[] = {{"avx512", stream_avx512}, {"avx2", stream_avx2}, {"sse2", stream_sse2}};

static bool cpu_has(size_t kind)
{
	return kind == 0   ? __builtin_cpu_supports("avx512f")
	       : kind == 1 ? __builtin_cpu_supports("avx2")
			   : true;
}

#elif defined(__aarch64__)

/* Four pairs of 16-byte registers a step. STNP is a hint in ordinary memory order. */
static void stream_neon(char *dst, const char *src, size_t len)
{
	size_t head = head_of(dst, len);

	memcpy(dst, src, head);
	dst += head;
	src += head;
	len -= head;
	for (; len >= 128; len -= 128, dst += 128, src += 128) {
		__asm__ volatile("prfm pldl1strm, [%1, #1024]\n"
				 "prfm pldl1strm, [%1, #1088]\n"
				 "ldp q0, q1, [%1]\n"
				 "ldp q2, q3, [%1, #32]\n"
				 "ldp q4, q5, [%1, #64]\n"
				 "ldp q6, q7, [%1, #96]\n"
				 "stnp q0, q1, [%0]\n"
				 "stnp q2, q3, [%0, #32]\n"
				 "stnp q4, q5, [%0, #64]\n"
				 "stnp q6, q7, [%0, #96]\n"
				 :
				 : "r"(dst), "r"(src)
				 : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "memory");
	}
	memcpy(dst, src, len);
}

void stream_fence(void)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static const struct {
	const char *name;
	stream_fn fn;
} kinds[] = {{"neon", stream_neon}};

static bool cpu_has(size_t kind)
{
	(void)kind;
	return true;
}

#else

void stream_fence(void)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static const struct {
	const char *name;
	stream_fn fn;
} kinds[] = {{"none", NULL}};

static bool cpu_has(size_t kind)
{
	(void)kind;
	return true;
}

#endif

stream_fn stream_kind(size_t i, const char **ret_name)
{
	if (i >= sizeof(kinds) / sizeof(kinds[0]) || !kinds[i].fn)
		return NULL;
	*ret_name = kinds[i].name;
	return cpu_has(i) ? kinds[i].fn : stream_kind(i + 1, ret_name);
}

__attribute__((constructor)) static void choose(void)
{
#if defined(__x86_64__)
	__builtin_cpu_init();
#endif
	stream_copy = stream_kind(0, &name);
}
