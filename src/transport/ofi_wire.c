/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every message has a fixed size by its type, so a parser needs the head alone to know how much it
 * wants, and a receiver never holds more than one message of a peer that stalls.
 */
#include "transport/ofi_wire.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

static const size_t body_size[OFI_TYPES] = {
    [OFI_CHALLENGE] = sizeof(struct ofi_challenge), [OFI_HELLO] = sizeof(struct ofi_hello),
    [OFI_READY] = sizeof(struct ofi_ready),	    [OFI_RESOLVE] = sizeof(struct ofi_resolve),
    [OFI_REGION] = sizeof(struct ofi_region),	    [OFI_REVOKE] = sizeof(struct ofi_id),
    [OFI_REVOKED] = sizeof(struct ofi_id),	    [OFI_CUT] = sizeof(struct ofi_id),
    [OFI_CUT_DONE] = sizeof(struct ofi_id),	    [OFI_PING] = sizeof(struct ofi_pulse),
    [OFI_PONG] = sizeof(struct ofi_pulse),
};

size_t ofi_msg_size(unsigned type)
{
	if (type == 0 || type >= OFI_TYPES)
		return 0;
	return sizeof(struct ofi_head) + body_size[type];
}

int ofi_msg_parse(const void *buf, size_t len, struct ofi_msg *ret)
{
	struct ofi_head head;

	if (len < sizeof(head))
		return 0;
	memcpy(&head, buf, sizeof(head));
	size_t want = ofi_msg_size(head.type);
	if (want == 0 || head.len != want || head.zero != 0)
		return -1;
	if (len < want)
		return 0;
	memcpy(ret, buf, want);
	return (int)want;
}

bool ofi_card_parse(const void *buf, size_t len, struct ofi_card *ret)
{
	if (!buf || len != sizeof(*ret))
		return false;
	memcpy(ret, buf, sizeof(*ret));
	return ret->version == OFI_VERSION && ret->hosts >= 1 && ret->hosts <= OFI_HOSTS;
}

void ofi_host_put(struct ofi_host *h, const struct sockaddr *sa, uint16_t port)
{
	memset(h, 0, sizeof(*h));
	h->port = port;
	if (sa->sa_family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, sa, sizeof(in));
		h->family = 4;
		memcpy(h->addr, &in.sin_addr, 4);
	} else {
		struct sockaddr_in6 in6;
		memcpy(&in6, sa, sizeof(in6));
		h->family = 6;
		memcpy(h->addr, &in6.sin6_addr, 16);
	}
}

socklen_t ofi_host_get(const struct ofi_host *h, struct sockaddr_storage *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (h->family == 4) {
		struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(h->port)};
		memcpy(&in.sin_addr, h->addr, 4);
		memcpy(ret, &in, sizeof(in));
		return sizeof(in);
	}
	if (h->family == 6) {
		struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(h->port)};
		memcpy(&in6.sin6_addr, h->addr, 16);
		memcpy(ret, &in6, sizeof(in6));
		return sizeof(in6);
	}
	return 0;
}

const char *ofi_sockaddr_text(const struct sockaddr *sa, bool port, char *buf, size_t cap)
{
	char text[INET6_ADDRSTRLEN] = "?";
	uint16_t number = 0;
	bool v6 = sa->sa_family == AF_INET6;

	if (v6) {
		struct sockaddr_in6 in6;
		memcpy(&in6, sa, sizeof(in6));
		inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof(text));
		number = ntohs(in6.sin6_port);
	} else if (sa->sa_family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, sa, sizeof(in));
		inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
		number = ntohs(in.sin_port);
	}
	if (port)
		snprintf(buf, cap, v6 ? "[%s]:%u" : "%s:%u", text, number);
	else
		snprintf(buf, cap, "%s", text);
	return buf;
}

void ofi_code(const void *key, size_t key_len, const char *label, const struct ofi_nonces *n,
	      uint64_t extra, uint8_t ret[OFI_CODE])
{
	uint8_t text[16 + sizeof(*n) + sizeof(extra)] = {0};
	unsigned len = OFI_CODE;

	memcpy(text, label, strnlen(label, 16));
	memcpy(text + 16, n, sizeof(*n));
	memcpy(text + 16 + sizeof(*n), &extra, sizeof(extra));
	/* No code: zeros, which ofi_code_equal() never accepts. */
	if (!HMAC(EVP_sha256(), key, (int)key_len, text, sizeof(text), ret, &len))
		memset(ret, 0, OFI_CODE);
}

bool ofi_code_equal(const uint8_t a[OFI_CODE], const uint8_t b[OFI_CODE])
{
	static const uint8_t none[OFI_CODE];

	return CRYPTO_memcmp(a, b, OFI_CODE) == 0 && CRYPTO_memcmp(a, none, OFI_CODE) != 0;
}

uint64_t ofi_mask(const void *key, size_t key_len, const struct ofi_nonces *n, uint64_t extra,
		  uint64_t value)
{
	uint8_t code[OFI_CODE];
	uint64_t pad;

	ofi_code(key, key_len, "mask", n, extra, code);
	memcpy(&pad, code, sizeof(pad));
	return value ^ pad;
}
