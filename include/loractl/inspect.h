/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/inspect.h - what is this path? The first question to a file from a stranger. */
#ifndef LORACTL_INSPECT_H
#define LORACTL_INSPECT_H

#include <loractl/adapter.h>

#ifdef __cplusplus
extern "C" {
#endif

enum lora_kind {
	LORA_KIND_UNKNOWN = 0,
	LORA_KIND_BASE, /* a checkpoint: a directory or any safetensors file with tensors */
	LORA_KIND_ADAPTER,
	LORA_KIND_MERGED,    /* a checkpoint and our receipt, which describes it */
	LORA_KIND_UNDO,	     /* the record of a merge, loractl-undo(5) */
	LORA_KIND_CONTAINER, /* FILE.lora, or a reference to a version of it */
};

/* "base", "adapter", "merged", "undo", "container"; static storage. */
LORA_API const char *lora_kind_name(enum lora_kind kind);

/* Looks at names and heads of files only. LORA_INPUT if the path does not exist or is nothing that
 * we know. */
LORA_API enum lora_status lora_kind_of(const char *path, enum lora_kind *kind,
				       struct lora_error *err);

/* LORA_OK unless a receipt stands with the model that does not describe it: then LORA_INPUT, and
 * why. It compares names and sizes, not bytes. */
LORA_API enum lora_status lora_receipt_check(const char *path, struct lora_error *err);

#ifdef __cplusplus
}
#endif

#endif
