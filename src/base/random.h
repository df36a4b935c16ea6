/* SPDX-License-Identifier: Apache-2.0 */
/* base/random.h - bytes that nobody can predict: for hash seeds and temporary names. */
#ifndef LORA_BASE_RANDOM_H
#define LORA_BASE_RANDOM_H

#include <stdbool.h>
#include <stddef.h>

/* At most 256 bytes. False, with errno set, if the system has no random source. */
bool lora__random(void *bytes, size_t size);

#endif
