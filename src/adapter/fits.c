/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/fits.c - does the adapter fit that base? Every reason why not is a line. */
#include "adapter/adapter.h"

#include "adapter/nearest.h"
#include "base/error.h"

enum lora_status lora_adapter_fits(struct lora_adapter *adapter, const struct lora_model *base,
				   void (*problem)(void *user, const char *line), void *user,
				   struct lora_error *err)
{
	struct lora_error local = LORA_ERROR_INIT;
	struct lora_nearest *nearest = NULL;
	struct lora_resolved resolved;
	char line[LORA_ERROR_SIZE];
	enum lora_status status;

	status = lora__adapter_resolve(&resolved, adapter, base, NULL, &local);
	if (status == LORA_INPUT) { /* the adapter and this base contradict each other */
		if (problem)
			problem(user, local.message);
		status = LORA_NO;
		goto out;
	}
	if (status) {
		if (err)
			*err = local;
		goto out;
	}
	if (!resolved.unmatched_count)
		goto out;
	status = lora__nearest_new(&nearest, &base->index, err);
	if (status)
		goto out;
	for (size_t i = 0; i < resolved.unmatched_count && problem; i++) {
		lora__unmatched_line(&resolved.unmatched[i], nearest, line);
		problem(user, line);
	}
	status = LORA_NO;
out:
	lora__nearest_free(nearest);
	lora__resolved_fini(&resolved);
	return status;
}
