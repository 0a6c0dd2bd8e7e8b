/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_LISTEN_H
#define STORE_LISTEN_H

#include "store/url.h"
#include "util/clock.h"

/* A listening socket of the URL (owned through util/fd), as server_start() promises. */
int32_t listen_open(const struct store_url *url, struct deadline retry, int *ret);

#endif
