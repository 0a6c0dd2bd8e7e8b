/* SPDX-License-Identifier: Apache-2.0 */
/* Store URLs and session names: pure functions, no look-up, no allocation. Grammar:
 * 5.1 and 12.2 of the specification. */
#ifndef STORE_URL_H
#define STORE_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store_url {
	char host[256]; /* canonical: lower case, IPv6 as inet_ntop writes it, no brackets, no mask
			 */
	uint16_t port;
	uint8_t family; /* AF_INET, AF_INET6, or 0 for a name */
	bool wildcard;	/* 0.0.0.0 or :: */
	char text[300]; /* canonical: tcp://host:port, IPv6 in brackets */
};

/* Parse "tcp://host:port". SMEM_INVALID_PARAM recorded, with the reason and the text. */
int32_t store_url_parse(const char *text, bool wildcard_ok, struct store_url *ret);

/* Parse a session "host:port": the same without scheme, never a wildcard; ret->text is "host:port".
 */
int32_t store_session_parse(const char *text, struct store_url *ret);

#endif
