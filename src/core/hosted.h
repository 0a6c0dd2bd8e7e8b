/* SPDX-License-Identifier: Apache-2.0 */
/* The stores that this process hosts because it was told to, not because a service needs them. */
#ifndef CORE_HOSTED_H
#define CORE_HOSTED_H

#include <stdint.h>

/* Host the store of a URL; 0 when that was done before. Waits for the port for at most 2 s. Errors
 * as 5.1 and 5.4 of the specification. */
int32_t hosted_add(const char *url);

/* Let all of them go, lingering for their clients. */
void hosted_close(void);

#endif
