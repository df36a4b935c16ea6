/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_peft.c - the PEFT dialect on any config and any names, types and shapes.
 *
 * Input, text:
 *
 * 	adapter_config.json
 * 	---
 * 	a NAME TYPE DIM,DIM,...		a tensor of the adapter
 * 	b NAME TYPE DIM,DIM,...		a tensor of the base
 * 	t MODEL_TYPE
 * 	u				unknown keys and a changed base are allowed
 *
 * Properties:
 * 1. decode() either fails with LORA_INPUT and a message, or gives edits that
 *    lora__decode_check() finds sound: no view leaves its tensor, no tensor is lost or used
 *    twice.
 * 2. The same holds without the base.
 * 3. A second decode gives the same number of edits. */
#include "formats/dialect.h"

#include "base/checked.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENSORS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct side {
	struct lora_index index;
	struct lora_tensor tensors[TENSORS];
	uint64_t end;
};

/* NAME TYPE DIM,DIM,... at `line`, which is cut up. */
static void add_tensor(struct side *side, char *line)
{
	char *name = strtok(line, " "), *type = strtok(NULL, " "), *dims = strtok(NULL, " ");
	struct lora_tensor t = {.name = name, .begin = side->end};
	uint64_t elements = 1;

	if (!name || !type || side->index.count == TENSORS)
		return;
	t.dtype = lora_dtype_find(type, strlen(type));
	while (dims && *dims && t.ndim < LORA_MAX_DIMS) {
		char *next;

		t.shape[t.ndim] = strtoull(dims, &next, 10);
		if (next == dims || lora__mul_overflows(elements, t.shape[t.ndim++], &elements))
			return;
		dims = next + (*next == ',');
	}
	if (lora__mul_overflows(elements, lora_dtype_bits(t.dtype) / 8, &t.size) ||
	    lora__add_overflows(side->end, t.size, &side->end))
		return;
	side->tensors[side->index.count++] = t;
}

static void check(struct lora_decode *decode, size_t *edits)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_arena arena = {0};
	enum lora_status status;

	decode->arena = &arena;
	decode->edits = NULL;
	decode->unmatched = NULL;
	decode->notes = NULL;
	decode->edit_count = decode->unmatched_count = decode->note_count = 0;
	status = lora__peft.decode(decode, &err);
	if (status && (status != LORA_INPUT || !err.message[0] || err.status != status))
		abort();
	*edits = status ? 0 : decode->edit_count;
	if (!status && lora__decode_check(decode, &err) && strstr(err.message, "internal"))
		abort();
	lora__arena_fini(&arena);
}

static void run(struct lora_json *config, struct side sides[2], const char *type, bool allow)
{
	struct lora_base_view view = {.index = &sides[1].index, .model_type = type};
	struct lora_decode decode = {.tensors = &sides[0].index,
				     .config = config,
				     .base = &view,
				     .allow_unknown = allow,
				     .allow_mutated_base = allow};
	size_t first, second;

	check(&decode, &first);
	check(&decode, &second);
	if (first != second)
		abort();
	decode.base = NULL;
	check(&decode, &first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct side sides[2];
	char *text = malloc(size + 1), *rest, *save = NULL, *line, *type = NULL;
	struct lora_json *config = NULL;
	bool allow = false;

	if (!text)
		return 0;
	memset(sides, 0, sizeof(sides));
	if (size)
		memcpy(text, data, size);
	text[size] = 0;
	rest = strstr(text, "\n---\n");
	if (rest)
		*rest = 0;
	if (rest && lora__json_parse(&config, text, strlen(text), NULL) == LORA_OK) {
		for (line = strtok_r(rest + 5, "\n", &save); line;
		     line = strtok_r(NULL, "\n", &save)) {
			if (*line == 'a' || *line == 'b')
				add_tensor(&sides[*line == 'b'], line + 1);
			else if (*line == 't' && line[1])
				type = line + 2;
			else if (*line == 'u')
				allow = true;
		}
		for (int i = 0; i < 2; i++)
			sides[i].index.tensors = sides[i].tensors;
		if (!lora__index_finish(&sides[0].index, sides[0].end, NULL) &&
		    !lora__index_finish(&sides[1].index, sides[1].end, NULL))
			run(config, sides, type, allow);
		lora__index_fini(&sides[0].index);
		lora__index_fini(&sides[1].index);
	}
	lora__json_free(config);
	free(text);
	return 0;
}
