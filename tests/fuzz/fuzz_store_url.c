/* SPDX-License-Identifier: Apache-2.0 */
/* URLs, sessions and the TLS text: whatever is accepted must parse to itself again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "smem.h"
#include "store/tls_conf.h"
#include "store/url.h"
#include "util/log.h"

#define CHECK(x)                                                                                   \
	do {                                                                                       \
		if (!(x))                                                                          \
			__builtin_trap();                                                          \
	} while (0)

static void drop(int level, const char *msg)
{
	(void)level;
	(void)msg;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct store_url url, again;
	struct tls_conf conf;

	log_set_sink(drop);
	memcpy(text, data, size);
	text[size] = '\0';
	if (store_url_parse(text, true, &url) == SMEM_OK) {
		CHECK(url.port != 0);
		CHECK(store_url_parse(url.text, true, &again) == SMEM_OK);
		CHECK(strcmp(url.text, again.text) == 0 && strcmp(url.host, again.host) == 0);
		CHECK(url.wildcard == again.wildcard && url.family == again.family);
	}
	if (store_session_parse(text, &url) == SMEM_OK) {
		CHECK(!url.wildcard);
		CHECK(store_session_parse(url.text, &again) == SMEM_OK);
		CHECK(strcmp(url.text, again.text) == 0);
	}
	if (tls_conf_parse(text, &conf) == SMEM_OK)
		tls_conf_free(&conf);
	free(text);
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t cap)
{
	static const char *const seeds[] = {
	    "tcp://127.0.0.1:8570",
	    "tcp:://10.0.0.1/24:1",
	    "tcp://[2001:db8::1]:65535",
	    "tcp://[::ffff:1.2.3.4]:9",
	    "tcp://some-host.example.com:80",
	    "worker_7:4000",
	    "[::1]:4000",
	    "tcp://0.0.0.0:5",
	    "tlsCaPath: /a; tlsCaFile: b,c; tlsCert: /c; tlsPk: /k; tlsPkPwd: /p;",
	};

	if (n >= sizeof(seeds) / sizeof(seeds[0]))
		return 0;
	return (size_t)snprintf((char *)buf, cap, "%s", seeds[n]);
}
