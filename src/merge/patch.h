/* SPDX-License-Identifier: Apache-2.0 */
/* merge/patch.h - changing one value in a JSON file and not another byte of it. */
#ifndef LORA_MERGE_PATCH_H
#define LORA_MERGE_PATCH_H

#include <loractl/error.h>
#include <stddef.h>

/* Text of which parts are replaced. A zeroed one is empty. */
struct lora_text {
	char *data; /* NUL-terminated, malloc'd */
	size_t size;
};

enum lora_status lora__text_copy(struct lora_text *text, const char *data, size_t size,
				 struct lora_error *err);
void lora__text_fini(struct lora_text *text);

/* Sets member `key` of the object at `object` (a top-level member, or NULL: the root) to the JSON
 * text `value`: its value is replaced, or it is added as the last member in the style of the first.
 * `text` must be valid JSON (lora__json_parse) whose root, and whose member `object`, are objects:
 * else LORA_INPUT. The result is parsed again before it is kept. */
enum lora_status lora__text_set(struct lora_text *text, const char *object, const char *key,
				const char *value, struct lora_error *err);

#endif
