/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/nearest.h - which of the base's names was probably meant. */
#ifndef LORA_ADAPTER_NEAREST_H
#define LORA_ADAPTER_NEAREST_H

#include "formats/container.h"

struct lora_nearest;

/* `index` is borrowed. *out is NULL on failure. */
enum lora_status lora__nearest_new(struct lora_nearest **out, const struct lora_index *index,
				   struct lora_error *err);
void lora__nearest_free(struct lora_nearest *nearest);
/* The closest name, or NULL if none is near (or too much has been asked). Valid until the next
 * call. */
const char *lora__nearest_find(struct lora_nearest *nearest, const char *wanted);

#endif
