/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container.c - which containers there are, and opening a file of whichever kind.
 *
 * What it is     the table of containers, the bidding for a file's first bytes, and the one place
 * where a container meets an open file: everything else in formats/ is a pure function. Invariants
 * (1) No memory is taken for a head before head_size() has bounded it by the format's limit and by
 * the file's size. (2) Every message names the file. Decisions      A file that nobody bids for is
 * looked at once more, to say what it is instead: most "broken" models are Git LFS pointers, error
 * pages, or pickles. Tested by      tests/unit/test_index.c, tests/unit/test_model.c
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "formats/container.h"

/* A new container is a row here and a file in formats/containers/ (formats/README.md). */
const struct lora_container *const lora__containers[] = {
    &lora__safetensors,
    NULL,
};

const struct lora_container *lora__container_probe(const uint8_t *head, size_t size,
						   uint64_t file_size)
{
	const struct lora_container *best = NULL;
	int highest = 0;

	for (size_t i = 0; lora__containers[i]; i++) {
		int bid = lora__containers[i]->probe(head, size, file_size);

		if (bid > highest) {
			highest = bid;
			best = lora__containers[i];
		}
	}
	return best;
}

/* What is often found under a model's name, and what to do then. */
static const struct {
	const char *magic;
	const char *what;
} strangers[] = {
    {"version https://git-lfs", "it is a Git LFS pointer, not the weights: run 'git lfs pull'"},
    {"\x89LOR", "it is a .lora container, which holds an adapter: `loractl log` shows it"},
    {"GGUF", "it is a GGUF file, which is not supported: give the safetensors checkpoint"},
    {"PK\x03\x04", "it is a zip archive, as torch.save writes: save it as safetensors"},
    {"\x80\x02", "it is a Python pickle, which is not read: save it as safetensors"},
    {"<", "it is a web page or XML, perhaps a failed download: fetch it again"},
    {"{", "it is JSON: give the weights file, or the directory that holds both"},
};

static const char *describe(const uint8_t *head, size_t size)
{
	if (size == 0)
		return "it is empty: fetch or save it again";
	for (size_t i = 0; i < sizeof(strangers) / sizeof(*strangers); i++) {
		size_t length = strlen(strangers[i].magic);

		if (size >= length && memcmp(head, strangers[i].magic, length) == 0)
			return strangers[i].what;
	}
	return "no header of a known container stands at its start: is it the right file";
}

enum lora_status lora__container_load_bytes(struct lora_index *index, uint8_t **head,
					    size_t *head_size, const struct lora_bytes *file,
					    struct lora_error *err)
{
	uint8_t start[LORA_PROBE_SIZE];
	size_t size = file->size < sizeof(start) ? (size_t)file->size : sizeof(start);
	const struct lora_container *container = NULL;
	enum lora_status status;
	uint64_t need = 0;

	*head = NULL;
	*head_size = 0;
	status = file->read(file->from, 0, start, size, err);
	if (status != LORA_OK)
		return status;
	container = lora__container_probe(start, size, file->size);
	if (!container)
		return lora__fail(err, LORA_INPUT, "'%s' is not a safetensors file: %s",
				  lora__escape(file->path), describe(start, size));
	status = container->head_size(&need, start, size, file->size, err);
	if (status != LORA_OK)
		return lora__context(err, status, "'%s'", lora__escape(file->path));
	*head = malloc((size_t)need);
	if (!*head)
		return lora__fail_memory(err);
	*head_size = (size_t)need;
	status = file->read(file->from, 0, *head, *head_size, err);
	if (status == LORA_OK) {
		status = container->parse(index, *head, *head_size, file->size, err);
		if (status != LORA_OK)
			status = lora__context(err, status, "'%s'", lora__escape(file->path));
	}
	if (status != LORA_OK) {
		free(*head);
		*head = NULL;
		*head_size = 0;
	}
	return status;
}

static enum lora_status read_file(const void *from, uint64_t offset, void *buffer, size_t size,
				  struct lora_error *err)
{
	return lora__file_read(from, offset, buffer, size, err);
}

enum lora_status lora__container_load(struct lora_index *index, uint8_t **head, size_t *head_size,
				      const struct lora_file *file, struct lora_error *err)
{
	const struct lora_bytes bytes = {file->path, file->size, read_file, file};

	return lora__container_load_bytes(index, head, head_size, &bytes, err);
}
