/* SPDX-License-Identifier: Apache-2.0 */
/* Reading replies: for calls.c, groups.c and those who test it with any bytes. */
#ifndef STORE_REPLY_H
#define STORE_REPLY_H

#include "store/blob.h"
#include "store/store.h"
#include "store/survey.h"

int32_t reply_malformed(const char *what);
int32_t bytes_copy(struct span s, struct store_bytes *ret);
/* Takes the body over, whatever it returns. */
int32_t parts_read(uint8_t *body, size_t len, struct store_parts *ret);
int32_t gathered_read(const uint8_t *body, size_t len, struct store_gathered *ret);
int32_t survey_read(const uint8_t *body, size_t len, struct store_survey *ret);

#endif
