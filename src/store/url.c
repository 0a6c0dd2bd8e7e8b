/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One grammar for store URLs and sessions: HOST ":" PORT. The host is cut at the last ':' outside
 * of brackets and is exactly one of: a dotted quad (with an optional mask that means nothing), an
 * IPv6 address in brackets, a name. Everything is checked by hand, because the library functions
 * accept more than the grammar (leading zeros, zones, white space).
 */
#include "store/url.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "util/err.h"

#define HOST_MAX  253
#define LABEL_MAX 63

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_name_char(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
	       c == '_';
}

/* A decimal number of exactly [s, s+len) without leading zero, at most `max`; -1 otherwise. */
static long number(const char *s, size_t len, long max)
{
	long n = 0;

	if (len == 0 || len > 5 || (len > 1 && s[0] == '0'))
		return -1;
	for (size_t i = 0; i < len; i++) {
		if (!is_digit(s[i]))
			return -1;
		n = n * 10 + (s[i] - '0');
	}
	return n <= max ? n : -1;
}

static bool quad_parse(const char *s, size_t len)
{
	const char *end = s + len;

	for (int part = 0; part < 4; part++) {
		const char *dot = memchr(s, '.', (size_t)(end - s));
		const char *stop = part == 3 ? end : dot;
		if (!stop || number(s, (size_t)(stop - s), 255) < 0)
			return false;
		s = stop + 1;
	}
	return true;
}

static bool only_digits_and_dots(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!is_digit(s[i]) && s[i] != '.')
			return false;
	}
	return true;
}

static const char *host_v4(const char *s, size_t len, struct store_url *url)
{
	const char *slash = memchr(s, '/', len);
	size_t quad = slash ? (size_t)(slash - s) : len;

	if (!quad_parse(s, quad))
		return "not an IPv4 address in dotted form";
	if (slash && number(slash + 1, len - quad - 1, 32) < 0)
		return "mask is not /0 to /32";
	memcpy(url->host, s, quad);
	url->host[quad] = '\0';
	url->family = AF_INET;
	url->wildcard = strcmp(url->host, "0.0.0.0") == 0;
	return NULL;
}

static const char *host_v6(const char *s, size_t len, struct store_url *url)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr addr;

	if (len < 2 || s[len - 1] != ']' || len - 2 >= sizeof(text))
		return "not an IPv6 address in brackets";
	memcpy(text, s + 1, len - 2);
	text[len - 2] = '\0';
	if (inet_pton(AF_INET6, text, &addr) != 1)
		return "not an IPv6 address in brackets";
	if (!inet_ntop(AF_INET6, &addr, url->host, sizeof(url->host)))
		return "not an IPv6 address in brackets";
	url->family = AF_INET6;
	url->wildcard = IN6_IS_ADDR_UNSPECIFIED(&addr);
	return NULL;
}

static const char *host_name(const char *s, size_t len, struct store_url *url)
{
	size_t label = 0;

	if (len > HOST_MAX)
		return "host name longer than 253 bytes";
	for (size_t i = 0; i < len; i++) {
		if (s[i] == '.' ? label == 0 : !is_name_char(s[i]))
			return "host has a character or an empty label that names cannot have";
		label = s[i] == '.' ? 0 : label + 1;
		if (label > LABEL_MAX)
			return "host name has a label longer than 63 bytes";
		url->host[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] + ('a' - 'A')) : s[i];
	}
	if (label == 0)
		return "host name ends with a dot";
	url->host[len] = '\0';
	url->family = 0;
	return NULL;
}

static const char *host_parse(const char *s, size_t len, struct store_url *url)
{
	const char *slash = memchr(s, '/', len);

	if (len == 0)
		return "host is missing";
	if (s[0] == '[')
		return host_v6(s, len, url);
	if (slash || only_digits_and_dots(s, len))
		return host_v4(s, len, url);
	return host_name(s, len, url);
}

/* NULL, or why not. */
static const char *endpoint_parse(const char *s, struct store_url *url)
{
	const char *colon = strrchr(s, ':');
	const char *bracket = strrchr(s, ']');

	if (!colon || (bracket && bracket > colon))
		return "port is missing";
	long port = number(colon + 1, strlen(colon + 1), 65535);
	if (port < 1)
		return "port is not a number from 1 to 65535";
	url->port = (uint16_t)port;
	return host_parse(s, (size_t)(colon - s), url);
}

static const char *url_parse(const char *text, const char *scheme, bool wildcard_ok,
			     struct store_url *ret)
{
	struct store_url url = {.port = 0};
	const char *why = endpoint_parse(text, &url);

	if (why)
		return why;
	if (url.wildcard && !wildcard_ok)
		return "a wildcard address is for listening only";
	snprintf(url.text, sizeof(url.text), url.family == AF_INET6 ? "%s[%s]:%u" : "%s%s:%u",
		 scheme, url.host, url.port);
	*ret = url;
	return NULL;
}

int32_t store_url_parse(const char *text, bool wildcard_ok, struct store_url *ret)
{
	const char *why = "does not begin with tcp://";

	if (strncmp(text, "tcp:://", 7) == 0)
		why = url_parse(text + 7, "tcp://", wildcard_ok, ret);
	else if (strncmp(text, "tcp://", 6) == 0)
		why = url_parse(text + 6, "tcp://", wildcard_ok, ret);
	if (why)
		return smem_err(SMEM_INVALID_PARAM, "store URL '%.300s': %s", text, why);
	return SMEM_OK;
}

int32_t store_session_parse(const char *text, struct store_url *ret)
{
	const char *why = url_parse(text, "", false, ret);

	if (why)
		return smem_err(SMEM_INVALID_PARAM, "session '%.300s': %s", text, why);
	return SMEM_OK;
}
