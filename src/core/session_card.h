/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a session publishes in the store under its name: who it is, where its shared pages are, and
 * the secrets that open them. Version first, fixed widths, little-endian; the addresses of its
 * transports follow.
 */
#ifndef CORE_SESSION_CARD_H
#define CORE_SESSION_CARD_H

#include <stddef.h>
#include <stdint.h>

#include "core/path.h"
#include "device/fdpass.h"

#define SESSION_CARD_VERSION 1u
#define SESSION_NAME_MAX     300u

struct session_card {
	uint32_t version;
	uint32_t role; /* smem_trans_role_t */
	uint64_t incarnation;
	struct agent_addr agent;
	uint64_t regions; /* objects of that agent, under cookie */
	uint64_t marks;
	uint8_t cookie[AGENT_COOKIE];
	uint8_t secret[16]; /* opens what paths_expose() exposed under it */
	uint32_t addrs_len;
	uint32_t reserved;
};
_Static_assert(offsetof(struct session_card, agent) == 16, "wire layout");
_Static_assert(offsetof(struct session_card, cookie) == 96, "wire layout");
_Static_assert(sizeof(struct session_card) == 136, "wire layout");

struct session_blob {
	struct session_card card;
	uint8_t addrs[PATH_ADDRS_MAX];
};

static inline size_t session_blob_len(const struct session_blob *b)
{
	return sizeof(b->card) + b->card.addrs_len;
}

/* Decode `len` bytes. SMEM_NOT_SUPPORTED: another version; SMEM_IO: not a card. */
int32_t session_blob_decode(const void *data, size_t len, struct session_blob *ret);

/* The keys of a session: what it holds while it lives, and what says that the name was taken and
 * not given back, so that the lost are told from the unknown. */
#define SESSION_KEY_MAX (SESSION_NAME_MAX + 16)
void session_key_live(const char *name, char key[SESSION_KEY_MAX]);
void session_key_taken(const char *name, char key[SESSION_KEY_MAX]);

#endif
