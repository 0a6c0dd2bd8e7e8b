/* SPDX-License-Identifier: Apache-2.0 */
/* The copy engine of host memory; the contract is that of device_ops.copy. */
#ifndef DEVICE_COPY_H
#define DEVICE_COPY_H

#include "device/device.h"

void copy_pieces(const struct smem_xfer *x, size_t n);

#endif
