/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/diff_places.c - which module of one adapter is which of the other.
 *
 * By what it does and not by how it is spelled: the target, the range of it, its shape. An update
 * that is a product in one adapter and a full matrix in the other is still the update of one place.
 */
#include "adapter/diff.h"

#include "base/error.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Kinds that take one another's place, each list ending with itself. */
static const enum lora_edit_kind adds[] = {LORA_EDIT_ADD_LOWRANK, LORA_EDIT_DORA,
					   LORA_EDIT_ADD_DENSE},
				 wholes[] = {LORA_EDIT_REPLACE, LORA_EDIT_ADD_TENSOR};

static char *key_of(const struct lora_edit *edit, enum lora_edit_kind kind)
{
	char *key = NULL;
	int made = asprintf(
	    &key, "%d %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %s", (int)kind,
	    edit->width, edit->row0, edit->rows, edit->col0, edit->cols, edit->target);

	return made < 0 ? NULL : key;
}

enum lora_status lora__places_init(struct lora_places *places, const struct lora_adapter *adapter,
				   struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < adapter->decode.edit_count && !status; i++) {
		const struct lora_edit *edit = &adapter->decode.edits[i];
		char *key = key_of(edit, edit->kind), *copy;
		bool present;

		copy = key ? lora__arena_copy(&places->arena, key, strlen(key)) : NULL;
		free(key);
		status = copy ? lora__map_add(&places->edits, copy, strlen(copy), (uint32_t)i,
					      &present, err)
			      : lora__fail_memory(err);
	}
	return status;
}

void lora__places_fini(struct lora_places *places)
{
	lora__map_fini(&places->edits);
	lora__arena_fini(&places->arena);
}

static const struct lora_edit *find(const struct lora_places *places,
				    const struct lora_adapter *adapter,
				    const struct lora_edit *edit, enum lora_edit_kind kind)
{
	char *key = key_of(edit, kind);
	uint32_t i = key ? lora__map_find(&places->edits, key, strlen(key)) : UINT32_MAX;

	free(key);
	return i == UINT32_MAX ? NULL : &adapter->decode.edits[i];
}

static bool holds(const enum lora_edit_kind *kinds, size_t count, enum lora_edit_kind kind)
{
	while (count && kinds[count - 1] != kind)
		count--;
	return count > 0;
}

const struct lora_edit *lora__places_find(const struct lora_places *places,
					  const struct lora_adapter *adapter,
					  const struct lora_edit *edit)
{
	const struct lora_edit *found = find(places, adapter, edit, edit->kind);
	bool add = holds(adds, sizeof(adds) / sizeof(*adds), edit->kind),
	     whole = holds(wholes, sizeof(wholes) / sizeof(*wholes), edit->kind);
	const enum lora_edit_kind *kinds = add ? adds : wholes;
	size_t count = add     ? sizeof(adds) / sizeof(*adds)
		       : whole ? sizeof(wholes) / sizeof(*wholes)
			       : 0;

	for (size_t i = 0; i < count && !found; i++)
		found = find(places, adapter, edit, kinds[i]);
	return found;
}
