/* SPDX-License-Identifier: Apache-2.0 */
#include "stream.h"

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx512f"))) static void copy_512(char *d, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i += 64)
		_mm512_stream_si512((__m512i *)(void *)(d + i),
				    _mm512_loadu_si512((const void *)(s + i)));
	_mm_sfence();
}

__attribute__((target("avx2"))) static void copy_256(char *d, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i += 32)
		_mm256_stream_si256((__m256i *)(void *)(d + i),
				    _mm256_loadu_si256((const __m256i *)(const void *)(s + i)));
	_mm_sfence();
}

const char *stream_name(void)
{
	if (__builtin_cpu_supports("avx512f"))
		return "streaming stores, AVX-512";
	return __builtin_cpu_supports("avx2") ? "streaming stores, AVX2" : NULL;
}

void stream_copy(void *dst, const void *src, size_t n)
{
	if (__builtin_cpu_supports("avx512f"))
		copy_512(dst, src, n);
	else
		copy_256(dst, src, n);
}

#else
#include <string.h>

const char *stream_name(void)
{
	return NULL;
}

void stream_copy(void *dst, const void *src, size_t n)
{
	memcpy(dst, src, n);
}
#endif
