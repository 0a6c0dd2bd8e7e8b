/* SPDX-License-Identifier: Apache-2.0 */
/* A transport that reaches nobody. */
#ifndef CONFORMANCE_NONE_H
#define CONFORMANCE_NONE_H

#include "transport/transport.h"

extern const struct transport_ops transport_none;

#endif
