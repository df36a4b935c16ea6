/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_lora.c - any bytes as a container, or as one of the parts of one
 *
 * The first byte says what the rest is:
 *
 *	0  a manifest		what is accepted is emitted again as it was, if it has no unknown
 *members 1  an INDEX		for DATA of as many bytes as it says; parents are before, sizes
 *agree 2  a chunk		width, rotation, parent; words; stored bytes
 *	3  a file		as it is
 *	4  a file		after its digests have been made right: so that what is wrong in it
 *is seen by what lies behind them
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <loractl/container.h>

#include "formats/containers/lora_bytes.h"
#include "store/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool truth)
{
	if (!truth)
		abort();
}

static void fuzz_manifest(const uint8_t *data, size_t size)
{
	struct lora_manifest manifest = {0};
	uint64_t bytes = 0;
	char *text = NULL;
	size_t length;

	if (lora__manifest_parse(&manifest, (const char *)data, size, NULL) == LORA_OK) {
		for (size_t f = 0; f < manifest.file_count; f++) {
			demand(lora__packed_name_ok(manifest.files[f].name));
			bytes += manifest.files[f].size;
		}
		demand(bytes == manifest.bytes);
		demand(lora__manifest_emit(&manifest, &text, &length, NULL) == LORA_OK);
		demand(length <= size); /* shorter by members that we do not know */
		demand(length < size || memcmp(text, data, size) == 0);
	}
	free(text);
	lora__manifest_fini(&manifest);
}

static void fuzz_index(const uint8_t *data, size_t size)
{
	static struct lora_object objects[4096];
	struct lora_index_walk walk;
	uint32_t count = 0;
	bool end = false;

	if (size < 4 || lora__index_begin(&walk, data + 4, size - 4, 1 << 20, 64, lora__get32(data),
					  NULL) != LORA_OK)
		return;
	while (count < 4096 &&
	       lora__index_next(&walk, objects, count, &objects[count], &end, NULL) == LORA_OK &&
	       !end) {
		const struct lora_object *object = &objects[count++];

		demand(object->depth <= LORA_DEPTH_MAX && object->size > 0);
		demand(object->size % object->layout.width == 0);
		demand(object->data >= 64 && object->data <= 64 + (uint64_t)lora__get32(data));
		demand(
		    object->parent == LORA_NO_OBJECT ||
		    (object->parent < count - 1 && objects[object->parent].size == object->size));
	}
}

static void fuzz_chunk(const uint8_t *data, size_t size)
{
	static uint8_t out[65536], scratch[65536];
	static struct lora_codec *codec;
	uint8_t words[4 * LORA_PLANES_MAX];
	struct lora_chunk chunk = {{1, false}, words, 0, NULL};
	uint64_t stored;

	if (!codec)
		codec = lora__codec_new();
	if (size < 4 + sizeof(words) || !codec)
		return;
	chunk.layout.width = (uint8_t)(1 << (data[0] & 3));
	chunk.layout.rotated = chunk.layout.width > 1 && data[0] & 4;
	chunk.parent = data[0] & 8 ? out : NULL;
	chunk.size = (size_t)lora__get16(data + 1) / chunk.layout.width * chunk.layout.width;
	memcpy(words, data + 4, sizeof(words));
	if (chunk.size == 0 ||
	    lora__words_check(words, chunk.layout, chunk.size, &stored, NULL) != LORA_OK ||
	    stored > size - 4 - sizeof(words))
		return;
	(void)lora__chunk_decode(codec, &chunk, data + 4 + sizeof(words), out, scratch, NULL);
}

static void read_versions(const char *path)
{
	struct lora_store *store = NULL;
	struct lora_fsck_result result;
	struct lora_log *log = NULL;

	if (lora__store_open(&store, path, NULL, NULL) == LORA_OK)
		for (size_t v = 0; v < lora__store_count(store) && v < 4; v++) {
			struct lora_snapshot *snapshot = NULL;
			char *text = NULL;
			size_t length;

			if (lora__snapshot_open(&snapshot, store, v, NULL) == LORA_OK &&
			    lora__snapshot_manifest(snapshot)->file_count > 0)
				(void)lora__snapshot_slurp(snapshot, 0, 1 << 20, &text, &length,
							   NULL);
			free(text);
			lora__snapshot_close(snapshot);
		}
	if (store && store->object_bytes < 1 << 24)
		(void)lora_container_fsck(path, false, NULL, NULL, &result, NULL, NULL);
	lora__store_close(store);
	if (lora_log_open(&log, path, NULL, NULL) == LORA_OK)
		lora_log_close(log);
}

static void fuzz_file(const uint8_t *data, size_t size)
{
	static int fd = -1;
	char path[64];

	if (fd < 0)
		fd = memfd_create("container", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	read_versions(path);
}

/* Every digest that the frame of a container has, over what stands there. */
static void mend(uint8_t *data, size_t size)
{
	size_t at = LORA_SUPERBLOCK_SIZE, begin = at, index = 0, manifest = 0;
	uint64_t sequence = 0;
	struct lora_sha256 digest;
	uint8_t link[16];

	memcpy(data, lora__magic, 8);
	memset(data + 24, 0, 8);
	lora__sha256(data, 32, &digest);
	memcpy(data + 32, digest.byte, 32);
	memcpy(link, data + 32, sizeof(link));
	while (at + LORA_RECORD_HEAD <= size) {
		uint8_t *head = data + at;
		uint64_t length = lora__get64(head + 8);
		uint16_t type = lora__get16(head);

		lora__sha256(head, 24, &digest);
		memcpy(head + 24, digest.byte, 8);
		if (length > size - at - LORA_RECORD_HEAD)
			return;
		if (type == LORA_RECORD_INDEX)
			index = at;
		if (type == LORA_RECORD_MANIFEST)
			manifest = at;
		if (type == LORA_RECORD_COMMIT && length == LORA_COMMIT_BODY) {
			lora__put64(head + 32, at);
			lora__put64(head + 40, ++sequence);
			lora__put64(head + 48, begin);
			if (manifest) {
				uint64_t n = lora__get64(data + manifest + 8);

				lora__put64(head + 64, manifest);
				if (lora__get64(head + 72) == n) {
					lora__sha256(data + manifest + 32, (size_t)n, &digest);
					memcpy(head + 80, digest.byte, 32);
				}
			}
			if (index) {
				lora__put64(head + 112, index);
				lora__sha256(data + index + 32,
					     (size_t)lora__get64(data + index + 8), &digest);
				memcpy(head + 120, digest.byte, 32);
			}
			memcpy(head + 192, link, 16);
			lora__sha256(head, 208, &digest);
			memcpy(head + 208, digest.byte, 32);
			memcpy(link, digest.byte, 16);
			begin = at + LORA_COMMIT_SIZE;
			index = manifest = 0;
		}
		at += LORA_RECORD_HEAD + (size_t)length + lora__record_padding(length);
	}
}

static void fuzz_mended(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size + 1);

	if (copy && size >= LORA_SUPERBLOCK_SIZE) {
		memcpy(copy, data, size);
		mend(copy, size);
		fuzz_file(copy, size);
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const targets[])(const uint8_t *, size_t) = {
	    fuzz_manifest, fuzz_index, fuzz_chunk, fuzz_file, fuzz_mended};

	if (size > 0)
		targets[data[0] % 5](data + 1, size - 1);
	return 0;
}
