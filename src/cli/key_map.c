/* SPDX-License-Identifier: Apache-2.0 */
/* cli/key_map.c - the file behind --key-map
 *
 *	# the vision tower was renamed
 *	encoder.layer.0.attention.query    vision.blocks.0.attn.q
 *
 *	line = [space] ["#" anything | name space name [space]] "\n"
 *
 * where a name has no white space.
 *
 * 1. A line says one pair or nothing: one name, or three, is an error, not a guess.
 * 2. An adapter name has one meaning: a second line for it is an error.
 * 3. A file without any pair is an error: it was meant to say something.
 * 4. At most LIMIT bytes are read, whatever stands there.
 *
 * Tested by tests/unit/test_key_map.c
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "key_map.h"
#include "opt.h"

#define SPACE " \t\r\n"
#define LIMIT (16u << 20) /* bytes: 100,000 pairs of long names */

void key_map_free(struct key_map *map)
{
	for (size_t i = 0; i < map->count; i++)
		free(map->lines[i]);
	free(map->lines);
	free(map->pairs);
	*map = (struct key_map){NULL, 0, NULL};
}

/* Takes the line, which holds the two names. */
static enum lora_status add_pair(struct key_map *map, char *line, const char *adapter,
				 const char *base, struct lora_error *err)
{
	size_t count = map->count + 1;
	char **lines = realloc(map->lines, count * sizeof(*lines));
	const char **pairs;

	if (lines)
		map->lines = lines;
	pairs = lines ? realloc(map->pairs, (2 * count + 1) * sizeof(*pairs)) : NULL;
	if (!pairs) {
		free(line);
		return opt_fail(err, LORA_SYSTEM, "out of memory: reading the key map");
	}
	map->pairs = pairs;
	lines[map->count] = line;
	pairs[2 * map->count] = adapter;
	pairs[2 * map->count + 1] = base;
	pairs[2 * count] = NULL;
	map->count = count;
	return LORA_OK;
}

static enum lora_status parse_line(struct key_map *map, const char *text, size_t length,
				   const char *path, size_t number, struct lora_error *err)
{
	char *line, *adapter, *base, *more, *rest;

	if (strlen(text) != length)
		return opt_fail(err, LORA_INPUT, "not a text file: '%s': line %zu: a NUL byte",
				path, number);
	if (text[strspn(text, SPACE)] == '\0' || text[strspn(text, SPACE)] == '#')
		return LORA_OK;
	line = strdup(text);
	if (!line)
		return opt_fail(err, LORA_SYSTEM, "out of memory: reading the key map");
	adapter = strtok_r(line, SPACE, &rest);
	base = strtok_r(NULL, SPACE, &rest);
	more = strtok_r(NULL, SPACE, &rest);
	if (base && !more)
		return add_pair(map, line, adapter, base, err);
	free(line);
	return opt_fail(
	    err, LORA_INPUT,
	    "not a pair of names: '%s': line %zu: write the adapter's name, a space, the base's",
	    path, number); /* (1) */
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* (2) */
static enum lora_status check_unique(const struct key_map *map, const char *path,
				     struct lora_error *err)
{
	const char **names = calloc(map->count + 1, sizeof(*names));
	enum lora_status status = LORA_OK;

	if (!names)
		return opt_fail(err, LORA_SYSTEM, "out of memory: reading the key map");
	for (size_t i = 0; i < map->count; i++)
		names[i] = map->pairs[2 * i];
	qsort(names, map->count, sizeof(*names), compare_names);
	for (size_t i = 1; i < map->count && !status; i++)
		if (strcmp(names[i - 1], names[i]) == 0)
			status =
			    opt_fail(err, LORA_INPUT, "two lines for '%s': '%s': keep one of them",
				     names[i], path);
	free(names);
	return status;
}

/* The whole file, a pipe too, into *text (malloc'd), with a newline behind it. (4) */
static enum lora_status slurp(const char *path, char **text, size_t *size, struct lora_error *err)
{
	FILE *file = fopen(path, "r");
	enum lora_status status = LORA_OK;

	*size = 0;
	*text = NULL;
	if (!file)
		return opt_fail(err, errno == ENOENT || errno == ENOTDIR ? LORA_INPUT : LORA_SYSTEM,
				"cannot open the key map '%s': %s", path, strerror(errno));
	*text = malloc(LIMIT + 2);
	if (!*text) {
		fclose(file);
		return opt_fail(err, LORA_SYSTEM, "out of memory: reading the key map");
	}
	*size = fread(*text, 1, LIMIT + 1, file);
	if (ferror(file))
		status = opt_fail(err, LORA_SYSTEM, "cannot read the key map '%s': %s", path,
				  strerror(errno));
	else if (*size > LIMIT)
		status = opt_fail(err, LORA_INPUT,
				  "the key map '%s' has more than %u MiB: is it another file?",
				  path, LIMIT >> 20);
	else
		(*text)[(*size)++] = '\n';
	fclose(file);
	return status;
}

enum lora_status key_map_read(struct key_map *map, const char *path, struct lora_error *err)
{
	char *text, *line = NULL;
	size_t size, room = 0;
	enum lora_status status = slurp(path, &text, &size, err);
	FILE *lines = status ? NULL : fmemopen(text, size, "r");
	ssize_t length;

	*map = (struct key_map){NULL, 0, NULL};
	if (!status && !lines)
		status = opt_fail(err, LORA_SYSTEM, "out of memory: reading the key map");
	for (size_t number = 1; !status && (length = getline(&line, &room, lines)) >= 0; number++)
		status = parse_line(map, line, (size_t)length, path, number, err);
	if (!status && map->count == 0)
		status = opt_fail(err, LORA_INPUT,
				  "no pair of names in the key map '%s': write one a line",
				  path); /* (3) */
	if (!status)
		status = check_unique(map, path, err);
	if (lines)
		fclose(lines);
	free(line);
	free(text);
	return status;
}
