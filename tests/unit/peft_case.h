/* SPDX-License-Identifier: Apache-2.0 */
/* peft_case.h - an adapter and a base as lists of names and shapes, decoded by the PEFT dialect.
 * No files, no data.
 *
 *	struct peft_case c = {0};
 *	adapter_has(&c, "base_model.model.q.lora_A.weight", "F32", 2, 4, 10);	number 0, and so on
 *	base_has(&c, "q.weight", "BF16", 2, 20, 10);
 *	decoded(&c, "llama", "{...adapter_config.json...}");	fails the test if it fails
 *	... c.decode.edits ...
 *	done(&c); */
#ifndef TESTS_PEFT_CASE_H
#define TESTS_PEFT_CASE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/dialect.h"

#define CASE_TENSORS 64

struct peft_case {
	struct lora_index adapter, base;
	struct lora_tensor list[2][CASE_TENSORS];
	struct lora_json *config, *model;
	struct lora_base_view view;
	struct lora_arena arena;
	struct lora_decode decode;
	bool no_base, allow_unknown, allow_mutated_base;
	struct lora_error err;
};

#define LORA_CONFIG    "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6}"
#define LORA_AND(more) "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6," more "}"
#define PREFIX	       "base_model.model."

static inline void case_add(struct lora_index *index, struct lora_tensor *list, const char *name,
			    const char *type, int ndim, va_list dims)
{
	struct lora_tensor *t = &list[index->count];

	assert_true(index->count < CASE_TENSORS);
	memset(t, 0, sizeof(*t));
	t->name = name;
	t->dtype = lora_dtype_find(type, strlen(type));
	t->ndim = (uint32_t)ndim;
	t->size = lora_dtype_bits(t->dtype) / 8;
	for (int i = 0; i < ndim; i++) {
		t->shape[i] = (uint64_t)va_arg(dims, int);
		t->size *= t->shape[i];
	}
	if (index->count)
		t->begin = list[index->count - 1].begin + list[index->count - 1].size;
	index->count++;
}

static inline void adapter_has(struct peft_case *c, const char *name, const char *type, int ndim,
			       ...)
{
	va_list dims;

	va_start(dims, ndim);
	case_add(&c->adapter, c->list[0], name, type, ndim, dims);
	va_end(dims);
}

static inline void base_has(struct peft_case *c, const char *name, const char *type, int ndim, ...)
{
	va_list dims;

	va_start(dims, ndim);
	case_add(&c->base, c->list[1], name, type, ndim, dims);
	va_end(dims);
}

/* A[r, in], B[out, r] of a module with PEFT's names. `module` is a literal. */
#define linear_has(c, module, r, in, out)                                                          \
	do {                                                                                       \
		adapter_has(c, PREFIX module ".lora_A.weight", "F32", 2, r, in);                   \
		adapter_has(c, PREFIX module ".lora_B.weight", "F32", 2, out, r);                  \
	} while (0)

/* The file is a little longer than its tensors, so that an empty one may stand at its end. */
static inline void case_finish(struct lora_index *index, struct lora_tensor *list)
{
	struct lora_error err = LORA_ERROR_INIT;
	const struct lora_tensor *last = &list[index->count ? index->count - 1 : 0];

	index->tensors = list;
	if (lora__index_finish(index, last->begin + last->size, &err))
		fail_msg("%s", err.message);
}

/* Decodes; `model` is config.json's text or NULL, `type` the model_type or NULL. */
static inline enum lora_status decode_with(struct peft_case *c, const char *type, const char *model,
					   const char *config)
{
	enum lora_status status;

	if (lora__json_parse(&c->config, config, strlen(config), &c->err))
		fail_msg("config: %s", c->err.message);
	if (model && lora__json_parse(&c->model, model, strlen(model), &c->err))
		fail_msg("model: %s", c->err.message);
	case_finish(&c->adapter, c->list[0]);
	case_finish(&c->base, c->list[1]);
	c->view.index = &c->base;
	c->view.config = c->model;
	c->view.model_type = type;
	c->decode.tensors = &c->adapter;
	c->decode.config = c->config;
	c->decode.base = c->no_base ? NULL : &c->view;
	c->decode.allow_unknown = c->allow_unknown;
	c->decode.allow_mutated_base = c->allow_mutated_base;
	c->decode.arena = &c->arena;
	memset(&c->err, 0, sizeof(c->err));
	status = lora__peft.decode(&c->decode, &c->err);
	return status ? status : lora__decode_check(&c->decode, &c->err);
}

static inline void done(struct peft_case *c)
{
	lora__index_fini(&c->adapter);
	lora__index_fini(&c->base);
	lora__json_free(c->config);
	lora__json_free(c->model);
	lora__arena_fini(&c->arena);
	memset(c, 0, sizeof(*c));
}

static inline void decoded(struct peft_case *c, const char *type, const char *config)
{
	if (decode_with(c, type, NULL, config))
		fail_msg("decode: %s", c->err.message);
}

/* LORA_INPUT, with that text in the message; and the case is over. */
static inline void refused(struct peft_case *c, const char *type, const char *config,
			   const char *text)
{
	enum lora_status status = decode_with(c, type, NULL, config);

	if (status != LORA_INPUT || c->err.status != LORA_INPUT || !strstr(c->err.message, text))
		fail_msg("status %d, '%s', wanted '%s'", status, c->err.message, text);
	done(c);
}

static inline bool has_note(const struct peft_case *c, enum lora_note_level level, const char *text)
{
	for (size_t i = 0; i < c->decode.note_count; i++)
		if (c->decode.notes[i].level == level && strstr(c->decode.notes[i].line, text))
			return true;
	return false;
}

static inline bool is_unmatched(const struct peft_case *c, const char *tensor, const char *why)
{
	for (size_t i = 0; i < c->decode.unmatched_count; i++)
		if (!strcmp(c->decode.unmatched[i].tensor, tensor) &&
		    strstr(c->decode.unmatched[i].why, why))
			return true;
	return false;
}

/* The view, as its six numbers. */
#define assert_view(view, t, off, r, c, rs, cs)                                                    \
	do {                                                                                       \
		assert_int_equal((view).tensor, t);                                                \
		assert_int_equal((view).offset, off);                                              \
		assert_int_equal((view).rows, r);                                                  \
		assert_int_equal((view).cols, c);                                                  \
		assert_int_equal((view).row_stride, rs);                                           \
		assert_int_equal((view).col_stride, cs);                                           \
	} while (0)

/* What the edit covers: row0, rows, col0, cols of a target of that width. */
#define assert_range(edit, w, r0, r, c0, c)                                                        \
	do {                                                                                       \
		assert_int_equal((edit).width, w);                                                 \
		assert_int_equal((edit).row0, r0);                                                 \
		assert_int_equal((edit).rows, r);                                                  \
		assert_int_equal((edit).col0, c0);                                                 \
		assert_int_equal((edit).cols, c);                                                  \
	} while (0)

#endif
