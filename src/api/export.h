/* SPDX-License-Identifier: Apache-2.0 */
/* Marks the definition of a public function. */
#ifndef API_EXPORT_H
#define API_EXPORT_H

#define SMEM_API __attribute__((visibility("default")))

#endif
