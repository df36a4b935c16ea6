/* SPDX-License-Identifier: Apache-2.0 */
/* merge/sidecar.c - config, tokenizer, licence and what else stands beside the weights.
 *
 * 1. A merged model is a directory like the base: its other regular files are copied byte for byte,
 * in subdirectories too.
 * 2. Not copied, with a note: weights in other files or formats (they would still be the base's),
 * receipts, undo records and signatures (they would be false), symbolic links to directories, and
 * anything that is no regular file.
 * 3. config.json and the shard index change only where the plan says so.
 * 4. Nothing comes from an adapter's directory but its tokenizer, and that only when asked.
 */
#include "merge/sidecar.h"

#include "base/error.h"
#include "base/watch.h"
#include "merge/patch.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_LIMIT 8	       /* of subdirectories */
#define COPY_STEP   (1u << 18) /* bytes at a time */

const char *const lora__tokenizer_files[] = {
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "tiktoken.model",
    "chat_template.jinja",
    "chat_template.json",
    "sentencepiece.bpe.model",
    "preprocessor_config.json",
    NULL,
};

static const char *const weight_suffixes[] = {
    ".safetensors", ".bin",  ".pt",	   ".pth", ".ckpt",   ".h5", ".msgpack",    ".gguf",
    ".ggml",	    ".onnx", ".onnx_data", ".npz", ".tflite", ".ot", ".index.json", NULL,
};

static const char *const false_suffixes[] = {".minisig", ".receipt.json", ".intoto.json",
					     ".undo",	 ".lora",	  NULL};
static const char *const false_names[] = {
    "loractl-receipt.json", "loractl-files.json", ".git", ".cache", ".huggingface", NULL};

static bool one_of(const char *name, const char *const *names)
{
	for (; *names; names++)
		if (strcmp(name, *names) == 0)
			return true;
	return false;
}

static bool ends_in(const char *name, const char *const *suffixes)
{
	size_t length = strlen(name);

	for (; *suffixes; suffixes++) {
		size_t n = strlen(*suffixes);

		if (length >= n && strcmp(name + length - n, *suffixes) == 0)
			return true;
	}
	return false;
}

static enum lora_status copy_file(const char *from, struct lora_output *output, const char *name,
				  struct lora_error *err)
{
	struct lora_file file = LORA_FILE_INIT;
	uint8_t *step = malloc(COPY_STEP);
	enum lora_status status = step ? lora__file_open(&file, from, err) : lora__fail_memory(err);
	int fd = -1;

	if (!status && file.size > LORA_SIDECAR_LIMIT)
		status = lora__fail(err, LORA_INPUT,
				    "'%s' has %" PRIu64
				    " bytes: too large to belong beside weights: move it away",
				    lora__escape(from), file.size);
	if (!status)
		status = lora__output_file(output, name, 0, &fd, err);
	for (uint64_t at = 0; !status && at < file.size;) {
		size_t n = file.size - at < COPY_STEP ? (size_t)(file.size - at) : COPY_STEP;

		status = lora__file_read(&file, at, step, n, err);
		if (!status)
			status = lora__write_at(fd, name, at, step, n, err);
		at += n;
	}
	if (!status)
		status = lora__file_unchanged(&file, err);
	if (!status)
		status = lora__output_finish(output, fd, err);
	lora__file_close(&file);
	free(step);
	return status;
}

static enum lora_status write_text(struct lora_output *output, const char *name,
				   const struct lora_text *text, struct lora_error *err)
{
	int fd = -1;
	enum lora_status status = lora__output_file(output, name, 0, &fd, err);

	if (!status)
		status = lora__write_at(fd, name, 0, text->data, text->size, err);
	return status ? status : lora__output_finish(output, fd, err);
}

/* The config object that holds `key`: the root, or text_config of a model with several towers. */
static const char *config_object(const struct lora_plan *plan, const char *key)
{
	const struct lora_json *inner = lora__json_get(plan->base->config, "text_config");

	return !lora__json_get(plan->base->config, key) && lora__json_get(inner, key)
		   ? "text_config"
		   : NULL;
}

enum lora_status lora__sidecar_config(const struct lora_plan *plan, struct lora_text *text,
				      struct lora_error *err)
{
	enum lora_status status =
	    lora__text_copy(text, plan->base->config_text, plan->base->config_size, err);
	char number[32];

	if (!status && plan->untie)
		status = lora__text_set(text, config_object(plan, "tie_word_embeddings"),
					"tie_word_embeddings", "false", err);
	if (!status && plan->vocab_size) {
		snprintf(number, sizeof(number), "%" PRIu64, plan->vocab_size);
		status = lora__text_set(text, config_object(plan, "vocab_size"), "vocab_size",
					number, err);
	}
	return lora__context(err, status, "config.json");
}

static enum lora_status write_config(const struct lora_plan *plan, struct lora_output *output,
				     struct lora_error *err)
{
	struct lora_text text = {NULL, 0};
	enum lora_status status;

	if (!plan->base->config_text)
		return LORA_OK;
	status = lora__sidecar_config(plan, &text, err);
	if (!status)
		status = write_text(output, "config.json", &text, err);
	lora__text_fini(&text);
	return status;
}

/* `"name"` with what JSON needs escaped; malloc'd. */
static char *quoted(const char *name)
{
	struct lora_json_writer *writer = lora_json_writer_new(LORA_JSON_COMPACT);
	const char *text;
	size_t length;
	char *copy = NULL;

	lora_json_string(writer, name);
	if (writer && lora_json_writer_text(writer, &text, &length, NULL) == LORA_OK)
		copy = strdup(text);
	lora_json_writer_free(writer);
	return copy;
}

static enum lora_status set_total_size(const struct lora_plan *plan, struct lora_text *text,
				       struct lora_error *err)
{
	const struct lora_json *metadata = lora__json_get(plan->base->index_json, "metadata");
	uint64_t old = 0, now = 0;
	char number[32];

	for (size_t i = 0; i < plan->base->index.count; i++)
		old += plan->base->index.tensors[i].size;
	for (size_t f = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count; i++)
			now += plan->files[f].items[i].size;
	if (old == now || !lora__json_get(metadata, "total_size"))
		return LORA_OK;
	snprintf(number, sizeof(number), "%" PRIu64, now);
	return lora__text_set(text, "metadata", "total_size", number, err);
}

static enum lora_status write_index(const struct lora_plan *plan, struct lora_output *output,
				    struct lora_error *err)
{
	struct lora_text text = {NULL, 0};
	enum lora_status status;

	if (!plan->base->index_text)
		return LORA_OK;
	status = lora__text_copy(&text, plan->base->index_text, plan->base->index_size, err);
	if (!status)
		status = set_total_size(plan, &text, err);
	for (size_t i = 0; i < plan->added_count && !status; i++) {
		char *file = quoted(plan->files[plan->file_count - 1].name),
		     *name = quoted(plan->added[i]);

		if (!file || !name)
			status = lora__fail_memory(err);
		else {
			name[strlen(name) - 1] = '\0'; /* lora__text_set puts the quotes */
			status = lora__text_set(&text, "weight_map", name + 1, file, err);
		}
		free(file);
		free(name);
	}
	if (!status)
		status = write_text(output, "model.safetensors.index.json", &text, err);
	lora__text_fini(&text);
	return status;
}

/* Never copied, wherever they stand: they would be false beside other weights. */
static bool is_false(const char *name)
{
	return one_of(name, false_names) || ends_in(name, false_suffixes);
}

/* Two files of the top directory are written here, not copied. */
static bool is_written(const char *name)
{
	return strcmp(name, LORA_CONFIG_FILE) == 0 || strcmp(name, LORA_INDEX_FILE) == 0;
}

/* Is this file of the base's top directory written by somebody else here, or left behind? */
static bool skipped(const struct lora_plan *plan, const char *name, bool top)
{
	if (is_false(name) || (top && is_written(name)))
		return true;
	for (size_t f = 0; f < plan->file_count && top; f++)
		if (strcmp(name, plan->files[f].name) == 0)
			return true;
	if (ends_in(name, weight_suffixes)) {
		lora__note(plan->observer, LORA_NOTE_INFO,
			   "not copied: '%s': it may hold weights of the base", lora__escape(name));
		return true;
	}
	return top && plan->options->adapter_tokenizer && one_of(name, lora__tokenizer_files);
}

static enum lora_status copy_directory(const struct lora_plan *plan, struct lora_output *output,
				       const char *path, const char *inside, int depth,
				       struct lora_error *err);

/* May a link's target be copied? Inside the model's own directory, or in a store of blobs beside
 * it, as in the hub cache (models--X/snapshots/REVISION and models--X/blobs). Anything else is
 * somebody's file that would be published with the model. */
static enum lora_status link_stays(const struct lora_plan *plan, const char *from, bool *stays,
				   struct lora_error *err)
{
	static const char *const stores[] = {".", "../../blobs", "../blobs"};
	enum lora_status status = LORA_OK;

	*stays = false;
	for (size_t i = 0; i < sizeof(stores) / sizeof(*stores) && !*stays && !status; i++) {
		char *store = lora__path_join(plan->base->path, stores[i]);

		status =
		    store ? lora__path_inside(from, store, stays, err) : lora__fail_memory(err);
		free(store);
	}
	return status;
}

static enum lora_status copy_entry(const struct lora_plan *plan, struct lora_output *output,
				   const char *path, const char *inside, const struct dirent *entry,
				   int depth, struct lora_error *err)
{
	char *from = lora__path_join(path, entry->d_name),
	     *name = *inside ? lora__path_join(inside, entry->d_name) : strdup(entry->d_name);
	enum lora_path_kind kind = LORA_PATH_OTHER;
	struct stat link = {0};
	bool is_link, stays = true;
	enum lora_status status =
	    from && name ? lora__path_kind(from, &kind, err) : lora__fail_memory(err);

	is_link = !status && lstat(from, &link) == 0 && S_ISLNK(link.st_mode);
	if (is_link && kind == LORA_PATH_FILE)
		status = link_stays(plan, from, &stays, err);
	if (!status && !stays)
		lora__note(plan->observer, LORA_NOTE_WARNING,
			   "not copied: '%s': a symbolic link that leads out of the model",
			   lora__escape(name));
	else if (!status && kind == LORA_PATH_DIRECTORY && !is_link && depth < DEPTH_LIMIT)
		status = copy_directory(plan, output, from, name, depth + 1, err);
	else if (!status && kind == LORA_PATH_FILE)
		status = copy_file(from, output, name, err);
	else if (!status)
		lora__note(plan->observer, LORA_NOTE_INFO, "not copied: '%s': no regular file",
			   lora__escape(name));
	free(from);
	free(name);
	return status;
}

static enum lora_status copy_directory(const struct lora_plan *plan, struct lora_output *output,
				       const char *path, const char *inside, int depth,
				       struct lora_error *err)
{
	DIR *dir = opendir(path);
	enum lora_status status =
	    dir ? LORA_OK : lora__fail_errno(err, "cannot list '%s'", lora__escape(path));

	while (!status) {
		struct dirent *entry;

		errno = 0;
		entry = readdir(dir);
		if (!entry) {
			if (errno)
				status =
				    lora__fail_errno(err, "cannot list '%s'", lora__escape(path));
			break;
		}
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
		    !skipped(plan, entry->d_name, depth == 0))
			status = copy_entry(plan, output, path, inside, entry, depth, err);
	}
	if (dir)
		closedir(dir);
	return status;
}

/* The one adapter that brings a tokenizer; LORA_INPUT if none or several do. */
static enum lora_status copy_tokenizer(const struct lora_plan *plan, struct lora_output *output,
				       struct lora_error *err)
{
	const struct lora_adapter *owner = NULL;
	enum lora_status status = LORA_OK;

	for (size_t a = 0; a < plan->input_count; a++)
		for (const char *const *name = lora__tokenizer_files; *name && !status; name++) {
			const struct lora_adapter *adapter = plan->inputs[a].adapter;
			struct lora_text text = {0};

			if (adapter->directory) /* what stands beside a file is not its own */
				status = lora__adapter_slurp(adapter, *name, LORA_SIDECAR_LIMIT,
							     &text.data, &text.size, err);
			if (!status && text.data) {
				if (owner && owner != adapter)
					status = lora__fail(err, LORA_INPUT,
							    "two adapters bring a tokenizer: '%s', "
							    "'%s': use --tokenizer base",
							    lora__escape(owner->name),
							    lora__escape(adapter->name));
				else
					status = write_text(output, *name, &text, err);
				owner = adapter;
			}
			lora__text_fini(&text);
		}
	if (!status && !owner)
		status = lora__fail(err, LORA_INPUT,
				    "no adapter brings a tokenizer: use --tokenizer base");
	return status;
}

/* Is the adapter's file there, and another than the base's? */
static enum lora_status differs(const struct lora_plan *plan, const struct lora_adapter *adapter,
				const char *name, bool *different, struct lora_error *err)
{
	char *path = lora__path_join(plan->base->path, name), *theirs = NULL, *ours = NULL;
	size_t theirs_size = 0, ours_size = 0;
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = path ? lora__adapter_slurp(adapter, name, LORA_SIDECAR_LIMIT,
							     &theirs, &theirs_size, err)
				       : lora__fail_memory(err);

	if (!status && theirs)
		status = lora__path_kind(path, &kind, err);
	if (!status && kind == LORA_PATH_FILE)
		status = lora__file_slurp(path, LORA_SIDECAR_LIMIT, &ours, &ours_size, err);
	*different =
	    theirs && (!ours || theirs_size != ours_size || memcmp(theirs, ours, ours_size) != 0);
	free(theirs);
	free(ours);
	free(path);
	return status;
}

enum lora_status lora__tokenizer_note(const struct lora_plan *plan, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (size_t a = 0; a < plan->input_count && plan->base->directory; a++)
		for (const char *const *name = lora__tokenizer_files; *name && !status; name++) {
			bool different = false;

			if (plan->inputs[a].adapter->directory)
				status =
				    differs(plan, plan->inputs[a].adapter, *name, &different, err);
			if (!status && different)
				lora__note(plan->observer, LORA_NOTE_WARNING,
					   "'%s' of adapter '%s' differs from the base's: the %s "
					   "tokenizer "
					   "is taken (--tokenizer)",
					   *name, lora__escape(plan->inputs[a].adapter->name),
					   plan->options->adapter_tokenizer ? "adapter's"
									    : "base's");
		}
	return status;
}

/* Does a regular file, or a directory that is no link, stand under this name there? */
static bool stands(const char *root, const char *name, bool directory)
{
	char *path = lora__path_join(root, name);
	struct stat info;
	bool yes = path && (directory ? lstat(path, &info) == 0 && S_ISDIR(info.st_mode)
				      : stat(path, &info) == 0 && S_ISREG(info.st_mode));

	free(path);
	return yes;
}

bool lora__sidecar_expected(const struct lora_plan *plan, const char *name, bool directory)
{
	const char *slash = strrchr(name, '/'), *last = slash ? slash + 1 : name;
	bool top = !slash;

	if (is_false(last) ||
	    (ends_in(last, weight_suffixes) && !(top && !directory && is_written(last))))
		return false;
	for (size_t a = 0; a < plan->input_count && plan->options->adapter_tokenizer && top; a++)
		if (one_of(name, lora__tokenizer_files) &&
		    stands(plan->inputs[a].adapter->path, name, directory))
			return true;
	return stands(plan->base->path, name, directory);
}

enum lora_status lora__sidecars_write(const struct lora_plan *plan, struct lora_output *output,
				      struct lora_error *err)
{
	enum lora_status status = write_config(plan, output, err);

	if (!status)
		status = write_index(plan, output, err);
	if (!status)
		status = copy_directory(plan, output, plan->base->path, "", 0, err);
	if (!status && plan->options->adapter_tokenizer)
		status = copy_tokenizer(plan, output, err);
	return status;
}
