/* SPDX-License-Identifier: Apache-2.0 */
/* merge/rebuild.h - a receipt that was read: what it says about base, adapters and options. */
#ifndef LORA_MERGE_REBUILD_H
#define LORA_MERGE_REBUILD_H

#include "checkpoint/checkpoint.h"
#include <loractl/unmerge.h>

struct lora_rebuild {
	char *path, *text;
	size_t size;
	struct lora_json *json;
	const struct lora_json *adapters; /* [count] */
	struct lora_sha256 base_root;
	struct lora_merge_options options;
	struct lora_adapter_options adapter_options;
	const char **key_map; /* pairs, NULL-terminated */
};

/* LORA_NO unless the base, whose digests are known, is the receipt's. */
enum lora_status lora__rebuild_base(const struct lora_rebuild *rebuild,
				    const struct lora_model *base, struct lora_error *err);
/* Puts as many inputs as the receipt names in its order, with its weights; LORA_NO if one is not
 * there. */
enum lora_status lora__rebuild_inputs(const struct lora_rebuild *rebuild,
				      struct lora_merge_input *inputs, struct lora_error *err);

#endif
