/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/nearest.c - Damerau's distance between paths, whose letters are their components.
 *
 *	model.layers.7.self_attn.q_porj.weight  ->  model . layers . # . self_attn . q_porj . weight
 *
 * 1. Components of digits are one letter, '#': a model of 100,000 tensors has some hundred
 *    patterns. A query is compared with patterns; its own numbers are then put into the one that
 *    is closest, and if no such tensor exists, the pattern's first one is named.
 * 2. A missing or additional component, or two swapped ones, cost ONE; a component that is
 *    spelled otherwise its share of wrong letters.
 * 3. Names that differ in half of their components or more are not near.
 * 4. Answers are remembered by pattern; the work is bounded, and beyond it nothing is near. */
#include "adapter/nearest.h"

#include "base/distance.h"
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ONE	   100u
#define PARTS	   48u	     /* components that are looked at */
#define WORK_LIMIT 20000000u /* pairs of components: about two seconds */
#define NONE	   UINT32_MAX

struct pattern {
	const char *text;
	uint32_t example; /* the first tensor of that pattern */
};

struct lora_nearest {
	const struct lora_index *index;
	struct lora_arena arena;
	struct pattern *patterns;
	size_t count, room;
	struct lora_map by_text;
	struct lora_map answers; /* query pattern -> position in patterns, or `NONE - 1` for none */
	uint64_t work;
	char *name; /* the last answer */
	size_t name_room;
};

struct parts {
	const char *at[PARTS];
	size_t length[PARTS];
	unsigned count;
};

static void split(const char *text, struct parts *parts)
{
	parts->count = 0;
	while (parts->count < PARTS) {
		size_t length = strcspn(text, ".");

		parts->at[parts->count] = text;
		parts->length[parts->count++] = length;
		if (!text[length])
			return;
		text += length + 1;
	}
}

/* The text with every component of digits replaced by '#', in the arena. */
static char *generalize(struct lora_arena *arena, const char *name)
{
	char *text = lora__arena_copy(arena, name, strlen(name)), *out = text;

	while (text && *name) {
		size_t length = strcspn(name, ".");

		if (length && strspn(name, "0123456789") >= length) {
			*out++ = '#';
		} else {
			memcpy(out, name, length);
			out += length;
		}
		name += length;
		if (*name)
			*out++ = *name++;
	}
	if (text)
		*out = 0;
	return text;
}

static unsigned cost(struct lora_nearest *nearest, const struct parts *a, unsigned i,
		     const struct parts *b, unsigned j)
{
	size_t longer = a->length[i] > b->length[j] ? a->length[i] : b->length[j], steps;

	if (a->length[i] == b->length[j] && !memcmp(a->at[i], b->at[j], a->length[i]))
		return 0;
	nearest->work++;
	steps = lora__distance(a->at[i], a->length[i], b->at[j], b->length[j]);
	return (unsigned)(steps >= longer ? ONE : 1 + (ONE - 1) * steps / longer);
}

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

static unsigned apart(struct lora_nearest *nearest, const struct parts *a, const struct parts *b)
{
	unsigned rows[3][PARTS + 1];

	for (unsigned j = 0; j <= b->count; j++)
		rows[0][j] = j * ONE;
	for (unsigned i = 1; i <= a->count; i++) {
		unsigned *now = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];

		now[0] = i * ONE;
		for (unsigned j = 1; j <= b->count; j++) {
			now[j] = least(least(last[j], now[j - 1]) + ONE,
				       last[j - 1] + cost(nearest, a, i - 1, b, j - 1));
			if (i > 1 && j > 1 && !cost(nearest, a, i - 1, b, j - 2) &&
			    !cost(nearest, a, i - 2, b, j - 1))
				now[j] = least(now[j], before[j - 2] + ONE);
		}
	}
	return rows[a->count % 3][b->count];
}

static uint32_t search(struct lora_nearest *nearest, const char *pattern)
{
	struct parts wanted, other;
	unsigned best;
	uint32_t found = NONE - 1;

	split(pattern, &wanted);
	best = ONE * PARTS;
	for (size_t i = 0; i < nearest->count && nearest->work < WORK_LIMIT; i++) {
		unsigned more, distance, limit;

		split(nearest->patterns[i].text, &other);
		more = other.count > wanted.count ? other.count : wanted.count;
		limit = least(best, ONE * more / 2); /* 3 */
		if ((other.count > wanted.count ? other.count - wanted.count
						: wanted.count - other.count) *
			ONE >=
		    limit)
			continue;
		distance = apart(nearest, &wanted, &other);
		if (distance < limit) {
			best = distance;
			found = (uint32_t)i;
		}
	}
	return found;
}

/* The pattern with the numbers of `wanted` in their order; NULL if there are not as many. */
static const char *with_numbers(struct lora_nearest *nearest, const char *pattern,
				const char *wanted)
{
	size_t room = strlen(pattern) + strlen(wanted) + 1;
	char *out;

	if (room > nearest->name_room) {
		char *bigger = realloc(nearest->name, room);

		if (!bigger)
			return NULL;
		nearest->name = bigger;
		nearest->name_room = room;
	}
	for (out = nearest->name; *pattern;) {
		size_t length = strcspn(pattern, "."), digits = 0;

		if (length == 1 && *pattern == '#') {
			while (*wanted) {
				size_t part = strcspn(wanted, ".");

				digits = strspn(wanted, "0123456789") >= part ? part : 0;
				if (digits)
					break;
				wanted += part + (wanted[part] == '.');
			}
			if (!digits)
				return NULL;
			memcpy(out, wanted, digits);
			out += digits;
			wanted += digits;
			wanted += *wanted == '.';
		} else {
			memcpy(out, pattern, length);
			out += length;
		}
		pattern += length;
		if (*pattern)
			*out++ = *pattern++;
	}
	*out = 0;
	return nearest->name;
}

const char *lora__nearest_find(struct lora_nearest *nearest, const char *wanted)
{
	char *pattern = generalize(&nearest->arena, wanted);
	const char *name;
	uint32_t found;
	bool present;

	if (!pattern)
		return NULL;
	found = lora__map_find(&nearest->answers, pattern, strlen(pattern));
	if (found == NONE) {
		found = search(nearest, pattern);
		if (lora__map_add(&nearest->answers, pattern, strlen(pattern), found, &present,
				  NULL))
			return NULL;
	}
	if (found == NONE - 1)
		return NULL;
	name = with_numbers(nearest, nearest->patterns[found].text, wanted);
	if (name && lora__index_find(nearest->index, name, strlen(name)))
		return name;
	return nearest->index->tensors[nearest->patterns[found].example].name;
}

static enum lora_status add_pattern(struct lora_nearest *nearest, uint32_t tensor,
				    struct lora_error *err)
{
	char *text = generalize(&nearest->arena, nearest->index->tensors[tensor].name);
	enum lora_status status;
	bool present;

	if (!text)
		return lora__fail_memory(err);
	status = lora__map_add(&nearest->by_text, text, strlen(text), (uint32_t)nearest->count,
			       &present, err);
	if (status || present)
		return status;
	if (nearest->count == nearest->room) {
		size_t room = nearest->room ? nearest->room * 2 : 64;
		struct pattern *bigger = realloc(nearest->patterns, room * sizeof(*bigger));

		if (!bigger)
			return lora__fail_memory(err);
		nearest->patterns = bigger;
		nearest->room = room;
	}
	nearest->patterns[nearest->count++] = (struct pattern){text, tensor};
	return LORA_OK;
}

enum lora_status lora__nearest_new(struct lora_nearest **out, const struct lora_index *index,
				   struct lora_error *err)
{
	struct lora_nearest *nearest = calloc(1, sizeof(*nearest));
	enum lora_status status = nearest ? LORA_OK : lora__fail_memory(err);

	*out = NULL;
	if (nearest)
		nearest->index = index;
	for (size_t i = 0; i < index->count && !status; i++)
		status = add_pattern(nearest, (uint32_t)i, err);
	if (status) {
		lora__nearest_free(nearest);
		return status;
	}
	*out = nearest;
	return LORA_OK;
}

void lora__nearest_free(struct lora_nearest *nearest)
{
	if (!nearest)
		return;
	lora__map_fini(&nearest->by_text);
	lora__map_fini(&nearest->answers);
	lora__arena_fini(&nearest->arena);
	free(nearest->patterns);
	free(nearest->name);
	free(nearest);
}
