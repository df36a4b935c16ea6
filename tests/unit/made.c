/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "made.h"

uint8_t *made_safetensors(const char *json, size_t data, size_t *size)
{
	size_t length = strlen(json);
	uint8_t *bytes = malloc(8 + length + data);

	assert_non_null(bytes);
	for (unsigned i = 0; i < 8; i++)
		bytes[i] = (uint8_t)((uint64_t)length >> (8 * i));
	memcpy(bytes + 8, json, length);
	for (size_t i = 0; i < data; i++)
		bytes[8 + length + i] = (uint8_t)(7 * i + 3);
	*size = 8 + length + data;
	return bytes;
}

char *made_directory(void)
{
	const char *parent = getenv("TMPDIR");
	char path[4096];

	snprintf(path, sizeof(path), "%s/loractl-test-XXXXXX", parent ? parent : "/tmp");
	assert_non_null(mkdtemp(path));
	return strdup(path);
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
	(void)info;
	(void)type;
	(void)place;
	return remove(path);
}

static struct made_path {
	struct made_path *next;
	char text[];
} * paths;

void made_remove(char *directory)
{
	assert_int_equal(nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	free(directory);
	while (paths) {
		struct made_path *next = paths->next;

		free(paths);
		paths = next;
	}
}

const char *made_path(const char *dir, const char *name)
{
	size_t size = strlen(dir) + 1 + strlen(name) + 1;
	struct made_path *path = malloc(sizeof(*path) + size);

	assert_non_null(path);
	snprintf(path->text, size, "%s/%s", dir, name);
	path->next = paths;
	paths = path;
	return path->text;
}

void made_file(const char *path, const void *bytes, size_t size)
{
	FILE *file = fopen(path, "wb");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
}

void made_text(const char *path, const char *text)
{
	made_file(path, text, strlen(text));
}

void made_weights(const char *path, const char *json, size_t data)
{
	size_t size = 0;
	uint8_t *bytes = made_safetensors(json, data, &size);

	made_file(path, bytes, size);
	free(bytes);
}

void made_old(const char *path, long seconds)
{
	struct timespec times[2];

	assert_int_equal(clock_gettime(CLOCK_REALTIME, &times[0]), 0);
	times[0].tv_sec -= seconds;
	times[1] = times[0];
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}
