/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint/model.c - opening a model
 *
 * What it is     from what the user called BASE to one index over open files. Three spellings:
 *
 *		a directory	config.json, and model.safetensors or (if that is not there) the
 *shards that model.safetensors.index.json names a file		safetensors, whatever its name; no
 *config org/model	the hub cache's current snapshot, which is a directory; only if no such path
 *exists
 *
 * Invariants     those of checkpoint/checkpoint.h. A model that was opened has parsed headers,
 *unique names and every shard; what it lacks is only its tensors' bytes. Decisions      The order
 *of model.safetensors and the index is transformers' own (modeling_utils.py, version 5.23). Pickles
 *are not read, whatever else is there: loading one runs its code. Traps          Snapshots of the
 *hub cache are directories of symbolic links: a link that leads nowhere is a shard that is missing.
 *Repositories hold adapters under model-like names. Tested by      tests/unit/test_model.c
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "checkpoint/checkpoint.h"

void lora_model_close(struct lora_model *model)
{
	if (!model)
		return;
	for (size_t i = 0; i < model->shard_count; i++) {
		lora__file_close(&model->shards[i].file);
		free(model->shards[i].head);
	}
	lora__json_free(model->config);
	lora__json_free(model->index_json);
	lora__index_fini(&model->index);
	lora__arena_fini(&model->arena);
	free(model->tensor_sha256);
	free(model->config_text);
	free(model->index_text);
	free(model->path);
	free(model);
}

/* --- shards -------------------------------------------------------------------------------------
 */

/* A copy of the shard's metadata in the model's arena. */
static enum lora_status keep_metadata(struct lora_model *model, struct lora_shard *shard,
				      const struct lora_index *index, struct lora_error *err)
{
	struct lora_arena *arena = &model->arena;
	size_t count = index->metadata_count;

	shard->metadata = lora__arena_array(arena, count, sizeof(*shard->metadata));
	if (!shard->metadata)
		return lora__fail_memory(err);
	for (size_t i = 0; i < count; i++) {
		const struct lora_metadata *pair = &index->metadata[i];

		shard->metadata[i].key = lora__arena_copy(arena, pair->key, strlen(pair->key));
		shard->metadata[i].value =
		    lora__arena_copy(arena, pair->value, strlen(pair->value));
		if (!shard->metadata[i].key || !shard->metadata[i].value)
			return lora__fail_memory(err);
	}
	shard->metadata_count = count;
	return LORA_OK;
}

/* Appends the tensors of shard `file` to the model's index, which has room for them. */
static enum lora_status join_tensors(struct lora_model *model, uint32_t file,
				     const struct lora_index *index, struct lora_error *err)
{
	struct lora_index *all = &model->index;

	for (size_t i = 0; i < index->count; i++) {
		struct lora_tensor *tensor = &all->tensors[all->count];
		size_t length = strlen(index->tensors[i].name);
		enum lora_status status;
		bool present = false;

		*tensor = index->tensors[i];
		tensor->file = file;
		tensor->name = lora__arena_copy(&all->arena, tensor->name, length);
		if (!tensor->name)
			return lora__fail_memory(err);
		status = lora__map_add(&all->by_name, tensor->name, length, (uint32_t)all->count,
				       &present, err);
		if (status != LORA_OK)
			return status;
		if (present) {
			uint32_t first = lora__index_find(all, tensor->name, length)->file;

			return lora__fail(
			    err, LORA_INPUT,
			    "'%s': tensor '%s' is in '%s' and in '%s': fetch all shards "
			    "of one version",
			    lora__escape(model->path), lora__escape(tensor->name),
			    lora__escape(model->shards[first].name),
			    lora__escape(model->shards[file].name));
		}
		all->count++;
	}
	return LORA_OK;
}

/* Joins the shards' own indices into the model's, and takes each apart as soon as it is joined. */
static enum lora_status join_shards(struct lora_model *model, struct lora_index *indices,
				    struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t count = 0;

	for (size_t i = 0; i < model->shard_count; i++)
		count += indices[i].count;
	if (count >= UINT32_MAX)
		return lora__fail(err, LORA_INPUT, "'%s': %zu tensors are more than are supported",
				  lora__escape(model->path), count);
	model->index.tensors =
	    lora__arena_array(&model->index.arena, count, sizeof(*model->index.tensors));
	if (!model->index.tensors)
		return lora__fail_memory(err);
	for (size_t i = 0; i < model->shard_count && status == LORA_OK; i++) {
		status = keep_metadata(model, &model->shards[i], &indices[i], err);
		if (status == LORA_OK)
			status = join_tensors(model, (uint32_t)i, &indices[i], err);
		lora__index_fini(&indices[i]);
	}
	return status;
}

/* The index of a model that has one shard is that shard's. */
static void take_index(struct lora_model *model, struct lora_index *index)
{
	model->index = *index;
	memset(index, 0, sizeof(*index));
	model->shards[0].metadata = model->index.metadata;
	model->shards[0].metadata_count = model->index.metadata_count;
}

/* Opens model->path/name, or model->path itself where the model is a file. */
static enum lora_status open_shard(struct lora_model *model, const char *name,
				   struct lora_index *index, struct lora_error *err)
{
	struct lora_shard *shard = &model->shards[model->shard_count];
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = LORA_OK;
	size_t head_size = 0;
	char *path = NULL;

	shard->file = (struct lora_file)LORA_FILE_INIT;
	shard->name = lora__arena_copy(&model->arena, name, strlen(name));
	path = model->directory ? lora__path_join(model->path, name) : strdup(model->path);
	if (!shard->name || !path) {
		status = lora__fail_memory(err);
		goto out;
	}
	status = lora__path_kind(path, &kind, err);
	if (status == LORA_OK && kind == LORA_PATH_ABSENT)
		status = lora__fail(err, LORA_INPUT,
				    "shard '%s' is missing: download the whole model again",
				    lora__escape(path));
	if (status == LORA_OK)
		status = lora__file_open(&shard->file, path, err);
	if (status != LORA_OK)
		goto out;
	model->shard_count++; /* from here on lora_model_close() knows of it */
	status = lora__container_load(index, &shard->head, &head_size, &shard->file, err);
	shard->data_begin = head_size;
	if (model->shard_count > LORA_OPEN_SHARDS)
		lora__file_rest(&shard->file);
out:
	free(path);
	return status;
}

static enum lora_status open_shards(struct lora_model *model, const char *const *names,
				    size_t count, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	struct lora_index *indices = calloc(count, sizeof(*indices));

	model->shards = lora__arena_array(&model->arena, count, sizeof(*model->shards));
	if (!model->shards || !indices) {
		status = lora__fail_memory(err);
		goto out;
	}
	for (size_t i = 0; i < count && status == LORA_OK; i++)
		status = open_shard(model, names[i], &indices[i], err);
	if (status == LORA_OK && count == 1)
		take_index(model, &indices[0]);
	else if (status == LORA_OK)
		status = join_shards(model, indices, err);
out:
	for (size_t i = 0; indices && i < count; i++)
		lora__index_fini(&indices[i]);
	free(indices);
	return status;
}

/* --- a directory --------------------------------------------------------------------------------
 */

static enum lora_status is_there(const char *directory, const char *name, bool *there,
				 struct lora_error *err)
{
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = LORA_OK;
	char *path = lora__path_join(directory, name);

	*there = false;
	if (!path)
		return lora__fail_memory(err);
	status = lora__path_kind(path, &kind, err);
	*there = kind != LORA_PATH_ABSENT;
	free(path);
	return status;
}

/* Reads model->path/name whole. */
static enum lora_status slurp(const struct lora_model *model, const char *name, uint64_t limit,
			      char **text, size_t *size, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	char *path = lora__path_join(model->path, name);

	if (!path)
		return lora__fail_memory(err);
	status = lora__file_slurp(path, limit, text, size, err);
	free(path);
	return status;
}

static enum lora_status read_config(struct lora_model *model, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	status = slurp(model, LORA_CONFIG_FILE, LORA_CONFIG_LIMIT, &model->config_text,
		       &model->config_size, err);
	if (status != LORA_OK)
		return status;
	status = lora__json_parse(&model->config, model->config_text, model->config_size, err);
	if (status == LORA_OK && lora__json_type(model->config) != LORA_JSON_OBJECT)
		status = lora__fail(err, LORA_INPUT, "it is no JSON object: fetch it again");
	return lora__context(err, status, "'%s/" LORA_CONFIG_FILE "'", lora__escape(model->path));
}

/* The shards of the index, then the index against the shards. */
static enum lora_status open_indexed(struct lora_model *model, struct lora_error *err)
{
	struct lora_shard_map map = {0};
	enum lora_status status = LORA_OK;

	status = slurp(model, LORA_INDEX_FILE, LORA_INDEX_LIMIT, &model->index_text,
		       &model->index_size, err);
	if (status != LORA_OK)
		return status;
	status = lora__shard_map_parse(&map, model->index_text, model->index_size, err);
	if (status != LORA_OK) {
		status = lora__context(err, status, "'%s/" LORA_INDEX_FILE "'",
				       lora__escape(model->path));
		goto out;
	}
	status = open_shards(model, map.names, map.name_count, err);
	if (status != LORA_OK)
		goto out;
	status = lora__shard_map_check(&map, &model->index, err);
	status = lora__context(err, status, "'%s/" LORA_INDEX_FILE "'", lora__escape(model->path));
	model->index_json = map.json;
	map.json = NULL;
out:
	lora__shard_map_fini(&map);
	return status;
}

/* Weights in forms that are not read, and what to do about each. */
static const struct {
	const char *name, *advice;
} unread[] = {
    {"pytorch_model.bin", "a pickle: save the model as safetensors"},
    {"pytorch_model.bin.index.json", "shards that are pickles: save the model as safetensors"},
    {"consolidated.00.pth", "a pickle: save the model as safetensors"},
    {"tf_model.h5", "TensorFlow's: save the model as safetensors"},
    {"flax_model.msgpack", "Flax's: save the model as safetensors"},
    {"consolidated.safetensors", "not in transformers' layout: give that file itself"},
    {"diffusion_pytorch_model.safetensors", "not a language model's: give that file itself"},
};

/* A directory without config or weights: says what it seems to be. */
static enum lora_status refuse_directory(const struct lora_model *model, bool config,
					 struct lora_error *err)
{
	const char *path = lora__escape(model->path);
	enum lora_status status = LORA_OK;
	bool there = false;

	status = is_there(model->path, "adapter_config.json", &there, err);
	if (status != LORA_OK)
		return status;
	if (there)
		return lora__fail(
		    err, LORA_INPUT,
		    "'%s' is an adapter, not a model (it holds adapter_config.json): give "
		    "the base model that it was trained on",
		    path);
	if (!config)
		return lora__fail(err, LORA_INPUT,
				  "'%s' has no " LORA_CONFIG_FILE
				  ": give the directory of a model, or a .safetensors file",
				  path);
	for (size_t i = 0; i < sizeof(unread) / sizeof(*unread); i++) {
		status = is_there(model->path, unread[i].name, &there, err);
		if (status != LORA_OK)
			return status;
		if (there)
			return lora__fail(err, LORA_INPUT,
					  "'%s' has no " LORA_WEIGHTS_FILE "; its '%s' is %s", path,
					  unread[i].name, unread[i].advice);
	}
	return lora__fail(err, LORA_INPUT,
			  "'%s' has neither " LORA_WEIGHTS_FILE " nor " LORA_INDEX_FILE
			  ": download the model again",
			  path);
}

static enum lora_status open_directory(struct lora_model *model, struct lora_error *err)
{
	static const char *const whole[] = {LORA_WEIGHTS_FILE};
	bool config = false, weights = false, index = false;
	enum lora_status status = LORA_OK;

	status = is_there(model->path, LORA_CONFIG_FILE, &config, err);
	if (status == LORA_OK)
		status = is_there(model->path, LORA_WEIGHTS_FILE, &weights, err);
	if (status == LORA_OK)
		status = is_there(model->path, LORA_INDEX_FILE, &index, err);
	if (status == LORA_OK && (!config || (!weights && !index)))
		status = refuse_directory(model, config, err);
	if (status == LORA_OK)
		status = read_config(model, err);
	if (status != LORA_OK)
		return status;
	model->index_ignored = weights && index;
	return weights ? open_shards(model, whole, 1, err) : open_indexed(model, err);
}

/* --- what BASE means ----------------------------------------------------------------------------
 */

/* The path itself if something is there, else the hub's snapshot of that name. *out is malloc'd,
 * without slashes at its end. */
static enum lora_status resolve(char **out, enum lora_path_kind *kind, const char *path,
				struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t length = strlen(path);

	*out = NULL;
	status = lora__path_kind(path, kind, err);
	if (status != LORA_OK)
		return status;
	if (*kind == LORA_PATH_ABSENT && !lora__hub_is_name(path))
		return lora__fail(
		    err, LORA_INPUT,
		    "'%s' does not exist: give a model's directory, a .safetensors file, "
		    "or org/model of the hub cache",
		    lora__escape(path));
	if (*kind == LORA_PATH_ABSENT) {
		status = lora__hub_resolve(out, path, err);
		if (status != LORA_OK)
			return lora__context(err, status, "'%s' does not exist",
					     lora__escape(path));
		*kind = LORA_PATH_DIRECTORY;
		return LORA_OK;
	}
	while (length > 1 && path[length - 1] == '/')
		length--;
	*out = strndup(path, length);
	return *out ? LORA_OK : lora__fail_memory(err);
}

static enum lora_status open_file(struct lora_model *model, struct lora_error *err)
{
	const char *slash = strrchr(model->path, '/');
	const char *name = slash ? slash + 1 : model->path;

	return open_shards(model, &name, 1, err);
}

enum lora_status lora_model_open(struct lora_model **out, const char *path, struct lora_error *err)
{
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = LORA_OK;
	struct lora_model *model = calloc(1, sizeof(*model));

	*out = NULL;
	if (!model)
		return lora__fail_memory(err);
	(void)clock_gettime(CLOCK_REALTIME, &model->opened);
	status = resolve(&model->path, &kind, path, err);
	if (status != LORA_OK)
		goto out;
	model->directory = kind == LORA_PATH_DIRECTORY;
	if (model->directory)
		status = open_directory(model, err);
	else /* a pipe or device is refused there */
		status = open_file(model, err);
out:
	if (status != LORA_OK) {
		lora_model_close(model);
		return status;
	}
	*out = model;
	return LORA_OK;
}

/* --- a first look -------------------------------------------------------------------------------
 */

static bool plausible_file(const char *path)
{
	struct lora_file file = LORA_FILE_INIT;
	uint8_t head[LORA_PROBE_SIZE];
	bool plausible = false;
	size_t size;

	if (lora__file_open(&file, path, NULL) != LORA_OK)
		return false;
	size = file.size < sizeof(head) ? (size_t)file.size : sizeof(head);
	plausible = lora__file_read(&file, 0, head, size, NULL) == LORA_OK &&
		    lora__container_probe(head, size, file.size);
	lora__file_close(&file);
	return plausible;
}

static bool plausible_directory(const char *path)
{
	bool config = false, weights = false, index = false;

	return is_there(path, LORA_CONFIG_FILE, &config, NULL) == LORA_OK && config &&
	       is_there(path, LORA_WEIGHTS_FILE, &weights, NULL) == LORA_OK &&
	       is_there(path, LORA_INDEX_FILE, &index, NULL) == LORA_OK && (weights || index);
}

bool lora__model_plausible(const char *path)
{
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	char *real = NULL;
	bool plausible = false;

	if (resolve(&real, &kind, path, NULL) == LORA_OK)
		plausible =
		    kind == LORA_PATH_DIRECTORY ? plausible_directory(real) : plausible_file(real);
	free(real);
	return plausible;
}
