/* SPDX-License-Identifier: Apache-2.0 */
/* Pure functions. */
#include "core/session_card.h"

#include <stdio.h>
#include <string.h>

#include "smem_trans_def.h"
#include "util/err.h"

int32_t session_blob_decode(const void *data, size_t len, struct session_blob *ret)
{
	struct session_card card;

	if (len < sizeof(card.version))
		return smem_err(SMEM_IO, "card of a session: %zu bytes", len);
	memcpy(&card.version, data, sizeof(card.version));
	if (card.version != SESSION_CARD_VERSION)
		return smem_err(SMEM_NOT_SUPPORTED, "card of a session: version %u, this is %u",
				card.version, SESSION_CARD_VERSION);
	if (len < sizeof(card))
		return smem_err(SMEM_IO, "card of a session: %zu bytes", len);
	memcpy(&card, data, sizeof(card));
	if (card.addrs_len > PATH_ADDRS_MAX || len != sizeof(card) + card.addrs_len ||
	    card.role >= SMEM_TRANS_BUTT || card.incarnation == 0)
		return smem_err(SMEM_IO, "card of a session: malformed, %zu bytes", len);
	ret->card = card;
	memcpy(ret->addrs, (const char *)data + sizeof(card), card.addrs_len);
	return SMEM_OK;
}

void session_key_live(const char *name, char key[SESSION_KEY_MAX])
{
	snprintf(key, SESSION_KEY_MAX, "trans/%s", name);
}

void session_key_taken(const char *name, char key[SESSION_KEY_MAX])
{
	snprintf(key, SESSION_KEY_MAX, "trans.taken/%s", name);
}
