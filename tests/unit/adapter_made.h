/* SPDX-License-Identifier: Apache-2.0 */
/* adapter_made.h - adapters and bases on disk, tensor by tensor.
 *
 * Element i of a tensor is (start + i) / 8: exact in every type for small numbers, and never not
 * finite.
 *
 *	struct made_file f = {0};
 *	made_tensor(&f, "a.lora_A.weight", "F16", "4,10", 40, 1);
 *	made_write(&f, path); */
#ifndef TESTS_ADAPTER_MADE_H
#define TESTS_ADAPTER_MADE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter/adapter.h"
#include "made.h"

struct made_file {
	char json[16384];
	uint8_t data[65536];
	size_t used;
};

/* One eighth steps below 32 have at most 8 significant bits: bf16 holds them. */
static inline void made_value(uint8_t *at, const char *type, double value)
{
	float f = (float)value;
	uint32_t bits;
	uint16_t half;

	memcpy(&bits, &f, 4);
	if (!strcmp(type, "F32")) {
		memcpy(at, &bits, 4);
		return;
	}
	if (!strcmp(type, "BF16"))
		half = (uint16_t)(bits >> 16);
	else if (f == 0)
		half = 0;
	else /* a normal number of few digits: sign, exponent moved, upper digits */
		half = (uint16_t)((bits >> 16 & 0x8000) | (((bits >> 23 & 0xff) - 112) << 10) |
				  (bits >> 13 & 0x3ff));
	memcpy(at, &half, 2);
}

static inline size_t made_tensor(struct made_file *f, const char *name, const char *type,
				 const char *shape, size_t count, double start)
{
	size_t width = strcmp(type, "F32") ? 2 : 4, begin = f->used, at = strlen(f->json);

	assert_true(f->used + count * width <= sizeof(f->data));
	for (size_t i = 0; i < count; i++, f->used += width)
		made_value(f->data + f->used, type, (start + (double)i) / 8);
	snprintf(f->json + at, sizeof(f->json) - at,
		 "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
		 at ? "," : "{", name, type, shape, begin, f->used);
	return begin;
}

static inline void made_write(struct made_file *f, const char *path)
{
	size_t length = strlen(f->json) + 1;
	uint8_t *all = malloc(8 + length + f->used);

	assert_non_null(all);
	for (int i = 0; i < 8; i++)
		all[i] = (uint8_t)((uint64_t)length >> (8 * i));
	memcpy(all + 8, f->json, length - 1);
	all[8 + length - 1] = '}';
	memcpy(all + 8 + length, f->data, f->used);
	made_file(path, all, 8 + length + f->used);
	free(all);
	memset(f, 0, sizeof(*f));
}

struct lines {
	char text[64][LORA_ERROR_SIZE];
	enum lora_note_level level[64];
	size_t count;
};

static inline void keep_note(void *user, enum lora_note_level level, const char *line)
{
	struct lines *lines = user;

	assert_true(lines->count < 64);
	lines->level[lines->count] = level;
	snprintf(lines->text[lines->count++], LORA_ERROR_SIZE, "%s", line);
}

static inline void keep_problem(void *user, const char *line)
{
	keep_note(user, LORA_NOTE_PROBLEM, line);
}

static inline bool has_line(const struct lines *lines, const char *text)
{
	for (size_t i = 0; i < lines->count; i++)
		if (strstr(lines->text[i], text))
			return true;
	return false;
}

#endif
