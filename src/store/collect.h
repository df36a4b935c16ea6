/* SPDX-License-Identifier: Apache-2.0 */
/* store/collect.h - the files of a directory that pack takes. */
#ifndef LORA_STORE_COLLECT_H
#define LORA_STORE_COLLECT_H

#include <loractl/progress.h>

#include "base/arena.h"

struct lora_collection {
	struct lora_arena arena;
	const char **names; /* relative, ascending by their bytes; malloc'd */
	size_t count;
	size_t left_out; /* files that only `all` takes */
};

/* The caller finis it also after a failure. LORA_INPUT for what cannot be packed: a name that is no
 * UTF-8, a link that leads elsewhere, what is neither file nor directory. */
enum lora_status lora__collect(struct lora_collection *out, const char *directory, bool all,
			       const struct lora_observer *observer, struct lora_error *err);
void lora__collection_fini(struct lora_collection *collection);

#endif
