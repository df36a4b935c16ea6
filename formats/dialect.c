/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialect.c - the table of dialects, and what they have in common: handing out edits, and
 * the proof that what they handed out is sound.
 *
 * Arrays grow by doubling inside the decode's arena: an array of n entries is full when n is 0 or
 * a power of two.
 *
 * lora__decode_check() proves, whatever the dialect:
 * [1] every view lies inside its tensor; left, right, dense and magnitude have the sizes that
 *     kind, range and rank ask for;
 * [2] the range lies inside the target, row_ids below its rows, no two equal;
 * [3] every adapter tensor is used exactly once (experts of one module share theirs) or listed as
 *     unmatched;
 * [4] a view reads only tensors among its edit's sources;
 * [5] no two modules change the same place of the same target, as two spellings of one name would.
 */
#include "formats/dialect.h"

#include "base/checked.h"
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct lora_dialect *const lora__dialects[] = {&lora__peft, NULL};

const struct lora_dialect *lora__dialect_probe(const struct lora_index *tensors,
					       const struct lora_json *config)
{
	const struct lora_dialect *best = NULL;
	int bid = 0;

	for (size_t i = 0; lora__dialects[i]; i++) {
		int next = lora__dialects[i]->probe(tensors, config);

		if (next > bid) {
			bid = next;
			best = lora__dialects[i];
		}
	}
	return best;
}

/* Room for one more of `size` bytes after `count`; the new entry is zeroed. */
static void *grow(struct lora_arena *arena, void *array, size_t count, size_t size)
{
	char *bigger;

	if (count && (count & (count - 1)))
		return array;
	if (count > SIZE_MAX / 2)
		return NULL;
	bigger = lora__arena_array(arena, count ? count * 2 : 1, size);
	if (bigger && count)
		memcpy(bigger, array, count * size);
	return bigger;
}

struct lora_edit *lora__decode_edit(struct lora_decode *decode, enum lora_edit_kind kind,
				    const char *target, struct lora_error *err)
{
	struct lora_edit *edits =
			     grow(decode->arena, decode->edits, decode->edit_count, sizeof(*edits)),
			 *edit;

	if (!edits) {
		lora__fail_memory(err);
		return NULL;
	}
	decode->edits = edits;
	edit = &edits[decode->edit_count++];
	edit->kind = kind;
	edit->target = target;
	edit->base_tensor = LORA_NO_TENSOR;
	edit->scale = edit->alpha = edit->divisor = 1;
	edit->scale_from = "";
	return edit;
}

enum lora_status lora__decode_unmatched(struct lora_decode *decode, uint32_t tensor,
					const char *why, const char *wanted, struct lora_error *err)
{
	struct lora_unmatched *list =
	    grow(decode->arena, decode->unmatched, decode->unmatched_count, sizeof(*list));

	if (!list || !why)
		return lora__fail_memory(err);
	decode->unmatched = list;
	list[decode->unmatched_count++] =
	    (struct lora_unmatched){decode->tensors->tensors[tensor].name, why, wanted};
	return LORA_OK;
}

enum lora_status lora__decode_note(struct lora_decode *decode, enum lora_note_level level,
				   struct lora_error *err, const char *format, ...)
{
	struct lora_decode_note *notes =
	    grow(decode->arena, decode->notes, decode->note_count, sizeof(*notes));
	char line[1024];
	va_list arguments;

	if (!notes)
		return lora__fail_memory(err);
	decode->notes = notes;
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	notes[decode->note_count].level = level;
	notes[decode->note_count].line = lora__arena_copy(decode->arena, line, strlen(line));
	if (!notes[decode->note_count].line)
		return lora__fail_memory(err);
	decode->note_count++;
	return LORA_OK;
}

/* --- the proof ------------------------------------------------------------------------------- */

static enum lora_status wrong(const struct lora_edit *edit, const char *what,
			      struct lora_error *err)
{
	return lora__fail(err, LORA_INPUT,
			  "internal contradiction: edit of '%s': %s: please report it with the "
			  "adapter_config.json",
			  lora__escape(edit->target), what);
}

/* Is the last element of the view inside its tensor, and the tensor a source? [1] [4] */
static bool view_is_inside(const struct lora_decode *decode, const struct lora_edit *edit,
			   const struct lora_view *view)
{
	uint64_t down, right, last;
	bool listed = false;

	for (size_t i = 0; i < edit->source_count; i++)
		listed |= edit->sources[i] == view->tensor;
	if (!listed || view->tensor >= decode->tensors->count || !view->rows || !view->cols)
		return false;
	return !lora__mul_overflows(view->rows - 1, view->row_stride, &down) &&
	       !lora__mul_overflows(view->cols - 1, view->col_stride, &right) &&
	       !lora__add_overflows(down, right, &last) &&
	       !lora__add_overflows(last, view->offset, &last) &&
	       last < decode->tensors->tensors[view->tensor].elements;
}

static bool view_fits(const struct lora_decode *decode, const struct lora_edit *edit,
		      const struct lora_view *view, uint64_t rows, uint64_t cols)
{
	return view->rows == rows && view->cols == cols && view_is_inside(decode, edit, view);
}

static int compare_ids(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static bool row_ids_are_good(const struct lora_edit *edit, uint64_t height, bool *memory)
{
	uint64_t *sorted, count = edit->dense.rows;
	bool good = true;

	sorted = malloc((size_t)count * sizeof(*sorted));
	if (!sorted) {
		*memory = false;
		return false;
	}
	memcpy(sorted, edit->row_ids, (size_t)count * sizeof(*sorted));
	qsort(sorted, (size_t)count, sizeof(*sorted), compare_ids);
	for (uint64_t i = 0; i < count; i++)
		good &= sorted[i] < height && (i == 0 || sorted[i] != sorted[i - 1]);
	free(sorted);
	return good;
}

static enum lora_status check_factors(const struct lora_decode *decode,
				      const struct lora_edit *edit, struct lora_error *err)
{
	uint64_t gains = edit->norm_by_column ? edit->cols : edit->rows;

	switch (edit->kind) {
	case LORA_EDIT_DORA:
		if (!view_fits(decode, edit, &edit->magnitude, 1, gains))
			return wrong(edit, "magnitude", err);
		/* fall through */
	case LORA_EDIT_ADD_LOWRANK:
		if (!edit->rank || !view_fits(decode, edit, &edit->left, edit->rows, edit->rank) ||
		    !view_fits(decode, edit, &edit->right, edit->rank, edit->cols))
			return wrong(edit, "factors", err);
		return LORA_OK;
	case LORA_EDIT_REPLACE_ROWS:
		return view_fits(decode, edit, &edit->dense, edit->dense.rows, edit->width)
			   ? LORA_OK
			   : wrong(edit, "rows", err);
	case LORA_EDIT_ADD_DENSE:
	case LORA_EDIT_REPLACE:
	case LORA_EDIT_ADD_TENSOR:
		return view_fits(decode, edit, &edit->dense, edit->rows, edit->cols)
			   ? LORA_OK
			   : wrong(edit, "values", err);
	}
	return wrong(edit, "kind", err);
}

static enum lora_status check_edit(const struct lora_decode *decode, const struct lora_edit *edit,
				   struct lora_error *err)
{
	uint64_t elements = 1, height, end;
	bool memory = true;

	for (uint32_t i = 0; i < edit->ndim; i++)
		if (lora__mul_overflows(elements, edit->shape[i], &elements))
			return lora__fail(err, LORA_INPUT, "update of '%s' is too large",
					  lora__escape(edit->target));
	if (!edit->width || elements % edit->width)
		return wrong(edit, "width", err);
	height = elements / edit->width;
	if (lora__add_overflows(edit->row0, edit->rows, &end) || end > height ||
	    lora__add_overflows(edit->col0, edit->cols, &end) || end > edit->width)
		return wrong(edit, "range", err);
	if (decode->base && edit->kind != LORA_EDIT_ADD_TENSOR &&
	    edit->base_tensor >= decode->base->index->count)
		return wrong(edit, "base tensor", err);
	if (edit->kind == LORA_EDIT_REPLACE_ROWS && !row_ids_are_good(edit, height, &memory))
		return memory ? wrong(edit, "row numbers", err) : lora__fail_memory(err);
	return check_factors(decode, edit, err);
}

static bool same_sources(const struct lora_edit *a, const struct lora_edit *b)
{
	return a->source_count == b->source_count &&
	       !memcmp(a->sources, b->sources, a->source_count * sizeof(*a->sources));
}

/* used[tensor] = 1 + the first edit that uses it, or SIZE_MAX for unmatched. [3] */
static enum lora_status count_uses(const struct lora_decode *decode, size_t *used,
				   struct lora_error *err)
{
	for (size_t i = 0; i < decode->edit_count; i++) {
		const struct lora_edit *edit = &decode->edits[i];

		for (size_t j = 0; j < edit->source_count; j++) {
			size_t *first;

			if (edit->sources[j] >= decode->tensors->count)
				return wrong(edit, "source", err);
			first = &used[edit->sources[j]];
			if (*first && (edit->kind != LORA_EDIT_ADD_LOWRANK ||
				       !same_sources(edit, &decode->edits[*first - 1])))
				return wrong(edit, "a tensor is used twice", err);
			if (!*first)
				*first = i + 1;
		}
	}
	return LORA_OK;
}

static enum lora_status count_unmatched(const struct lora_decode *decode, size_t *used,
					struct lora_error *err)
{
	const struct lora_index *tensors = decode->tensors;

	for (size_t i = 0; i < decode->unmatched_count; i++) {
		const char *name = decode->unmatched[i].tensor;
		const struct lora_tensor *tensor = lora__index_find(tensors, name, strlen(name));

		if (!tensor || used[tensor - tensors->tensors])
			return lora__fail(err, LORA_INPUT,
					  "internal contradiction: tensor '%s' is both used and "
					  "unmatched: please report it",
					  lora__escape(name));
		used[tensor - tensors->tensors] = SIZE_MAX;
	}
	for (size_t i = 0; i < tensors->count; i++)
		if (!used[i])
			return lora__fail(err, LORA_INPUT,
					  "internal contradiction: tensor '%s' was lost: please "
					  "report it with the adapter_config.json",
					  lora__escape(tensors->tensors[i].name));
	return LORA_OK;
}

/* "low-rank 0 0 model.q.weight": DoRA is a low-rank update, too. */
static char *place_of(struct lora_arena *arena, const struct lora_edit *edit)
{
	enum lora_edit_kind kind =
	    edit->kind == LORA_EDIT_DORA ? LORA_EDIT_ADD_LOWRANK : edit->kind;

	return lora__arena_printf(arena, "%s %llu %llu %s", lora__edit_kind_name(kind),
				  (unsigned long long)edit->row0, (unsigned long long)edit->col0,
				  edit->target);
}

/* [5] */
static enum lora_status check_places(const struct lora_decode *decode, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	struct lora_arena arena = {0};
	struct lora_map places = {0};

	for (size_t i = 0; i < decode->edit_count && !status; i++) {
		const struct lora_edit *edit = &decode->edits[i], *first;
		char *place = place_of(&arena, edit);
		bool present = false;

		status =
		    place ? lora__map_add(&places, place, strlen(place), (uint32_t)i, &present, err)
			  : lora__fail_memory(err);
		if (status || !present)
			continue;
		first = &decode->edits[lora__map_find(&places, place, strlen(place))];
		status = lora__fail(err, LORA_INPUT,
				    "modules '%s' and '%s' of the adapter both mean '%s': one of "
				    "them is too many",
				    lora__escape(first->module), lora__escape(edit->module),
				    lora__escape(edit->target));
	}
	lora__map_fini(&places);
	lora__arena_fini(&arena);
	return status;
}

enum lora_status lora__decode_check(const struct lora_decode *decode, struct lora_error *err)
{
	size_t *used = calloc(decode->tensors->count + 1, sizeof(*used));
	enum lora_status status = used ? LORA_OK : lora__fail_memory(err);

	for (size_t i = 0; i < decode->edit_count && !status; i++)
		status = check_edit(decode, &decode->edits[i], err);
	if (!status)
		status = count_uses(decode, used, err);
	if (!status)
		status = count_unmatched(decode, used, err);
	if (!status)
		status = check_places(decode, err);
	free(used);
	return status;
}
