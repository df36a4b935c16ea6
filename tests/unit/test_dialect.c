/* SPDX-License-Identifier: Apache-2.0 */
/* test_dialect.c - lora__decode_check(): whatever a dialect says, unsound edits do not get past it.
 *
 * A good decode of two tensors, A [4, 10] (number 0) and B [20, 4] (number 1), on W [20, 10]; then
 * one thing is broken at a time. */
#include "peft_case.h"

static const uint32_t both[] = {0, 1};
static uint64_t ids[] = {3, 19};

static void begin(struct peft_case *c)
{
	struct lora_edit *e;

	linear_has(c, "q", 4, 10, 20);
	base_has(c, "q.weight", "F32", 2, 20, 10);
	decoded(c, "llama", LORA_CONFIG);
	e = &c->decode.edits[0];
	e->sources = both;
	assert_int_equal(lora__decode_check(&c->decode, &c->err), LORA_OK);
}

/* What `with` breaks is found, and called by that name. */
static void broken(void (*with)(struct lora_edit *e), const char *text)
{
	struct peft_case c = {0};
	enum lora_status status;

	begin(&c);
	with(&c.decode.edits[0]);
	status = lora__decode_check(&c.decode, &c.err);
	if (status != LORA_INPUT || !strstr(c.err.message, text))
		fail_msg("wanted '%s': %d '%s'", text, status, c.err.message);
	done(&c);
}

static void long_left(struct lora_edit *e)
{
	e->left.row_stride = 5;
}

static void one_too_far(struct lora_edit *e)
{
	e->right.offset = 1;
}

static void overflowing(struct lora_edit *e)
{
	e->right.row_stride = UINT64_MAX / 2;
}

static void foreign_tensor(struct lora_edit *e)
{
	e->left.tensor = 7;
}

static void unlisted_tensor(struct lora_edit *e)
{
	e->source_count = 1;
}

static void other_rank(struct lora_edit *e)
{
	e->rank = 3;
}

static void tall(struct lora_edit *e)
{
	e->rows = 21;
}

static void low(struct lora_edit *e)
{
	e->row0 = 1;
}

static void narrow(struct lora_edit *e)
{
	e->width = 7;
}

static void homeless(struct lora_edit *e)
{
	e->base_tensor = LORA_NO_TENSOR;
}

static void short_magnitude(struct lora_edit *e)
{
	e->kind = LORA_EDIT_DORA;
	e->magnitude = (struct lora_view){0, 0, 1, 10, 10, 1}; /* 20 rows need 20 */
}

static void wrong_rows(struct lora_edit *e)
{
	e->kind = LORA_EDIT_REPLACE_ROWS;
	e->dense = (struct lora_view){0, 0, 2, 10, 10, 1};
	e->row_ids = ids;
	ids[1] = 20;
}

static void twice_the_row(struct lora_edit *e)
{
	wrong_rows(e);
	ids[1] = 3;
}

static void check__finds_unsound_edits(void **state)
{
	(void)state;
	broken(long_left, "factors");
	broken(one_too_far, "factors");
	broken(overflowing, "factors");
	broken(foreign_tensor, "factors");
	broken(unlisted_tensor, "factors");
	broken(other_rank, "factors");
	broken(tall, "range");
	broken(low, "range");
	broken(narrow, "width");
	broken(homeless, "base tensor");
	broken(short_magnitude, "magnitude");
	broken(wrong_rows, "row numbers");
	broken(twice_the_row, "row numbers");
}

static void check__counts_every_tensor(void **state)
{
	struct peft_case c = {0};
	struct lora_edit *again;

	(void)state;
	begin(&c);
	c.decode.edit_count = 0;
	assert_int_equal(lora__decode_check(&c.decode, &c.err), LORA_INPUT);
	assert_non_null(strstr(c.err.message, "'base_model.model.q.lora_A.weight' was lost"));
	done(&c);
	begin(&c);
	assert_int_equal(lora__decode_unmatched(&c.decode, 1, "why", NULL, &c.err), LORA_OK);
	assert_int_equal(lora__decode_check(&c.decode, &c.err), LORA_INPUT);
	assert_non_null(strstr(c.err.message, "both used and unmatched"));
	done(&c);
	/* experts share all their sources; nothing else may */
	begin(&c);
	again = lora__decode_edit(&c.decode, LORA_EDIT_ADD_LOWRANK, "q.weight", &c.err);
	*again = c.decode.edits[0];
	again->row0 = again->rows = again->left.rows = 10;
	c.decode.edits[0].rows = c.decode.edits[0].left.rows = 10;
	assert_int_equal(lora__decode_check(&c.decode, &c.err), LORA_OK);
	again->row0 = 0;
	assert_int_equal(lora__decode_check(&c.decode, &c.err), LORA_INPUT);
	assert_non_null(strstr(c.err.message, "modules 'q' and 'q' of the adapter both mean"));
	again->left.tensor = again->right.tensor = 0;
	again->left.row_stride = 1; /* A alone, taken as both factors */
	again->source_count = 1;
	assert_int_equal(lora__decode_check(&c.decode, &c.err), LORA_INPUT);
	assert_non_null(strstr(c.err.message, "a tensor is used twice"));
	done(&c);
}

static void check__arrays_grow(void **state)
{
	struct peft_case c = {0};

	(void)state;
	c.decode.arena = &c.arena;
	for (size_t i = 0; i < 100; i++) {
		char name[16];
		struct lora_edit *e;

		snprintf(name, sizeof(name), "%zu", i);
		e = lora__decode_edit(&c.decode, LORA_EDIT_REPLACE,
				      lora__arena_copy(&c.arena, name, strlen(name)), &c.err);
		assert_true(e && e->scale == 1 && e->divisor == 1 && !*e->scale_from);
		assert_int_equal(lora__decode_note(&c.decode, LORA_NOTE_INFO, &c.err, "%zu", i),
				 LORA_OK);
	}
	for (size_t i = 0; i < 100; i++) {
		assert_int_equal(atoi(c.decode.edits[i].target), i);
		assert_int_equal(atoi(c.decode.notes[i].line), i);
	}
	lora__arena_fini(&c.arena);
}

static void edit__kinds_have_names(void **state)
{
	(void)state;
	assert_string_equal(lora__edit_kind_name(LORA_EDIT_ADD_LOWRANK), "low-rank");
	assert_string_equal(lora__edit_kind_name(LORA_EDIT_ADD_DENSE), "dense");
	assert_string_equal(lora__edit_kind_name(LORA_EDIT_DORA), "dora");
	assert_string_equal(lora__edit_kind_name(LORA_EDIT_REPLACE), "replace");
	assert_string_equal(lora__edit_kind_name(LORA_EDIT_REPLACE_ROWS), "rows");
	assert_string_equal(lora__edit_kind_name(LORA_EDIT_ADD_TENSOR), "add");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(check__finds_unsound_edits),
	    cmocka_unit_test(check__counts_every_tensor),
	    cmocka_unit_test(check__arrays_grow),
	    cmocka_unit_test(edit__kinds_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
