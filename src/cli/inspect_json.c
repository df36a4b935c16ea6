/* SPDX-License-Identifier: Apache-2.0 */
/* cli/inspect_json.c - schema loractl.inspect/1: one object a path. loractl-inspect(1) documents
 * its fields. */
#include "history.h"
#include "inspect.h"

static void put_shape(struct lora_json_writer *w, const uint64_t *shape, uint32_t ndim)
{
	lora_json_key(w, "shape");
	lora_json_begin_array(w);
	for (uint32_t d = 0; d < ndim; d++)
		lora_json_uint(w, shape[d]);
	lora_json_end_array(w);
}

static void put_lines(struct lora_json_writer *w, const char *key, const struct lines *lines)
{
	lora_json_key(w, key);
	lora_json_begin_array(w);
	for (size_t i = 0; i < lines->count; i++)
		lora_json_string(w, lines->line[i]);
	lora_json_end_array(w);
}

static void put_number(struct lora_json_writer *w, const char *key, bool known, double value)
{
	lora_json_key(w, key);
	if (known)
		lora_json_double(w, value);
	else
		lora_json_null(w);
}

static void put_module(struct lora_json_writer *w, const struct lora_module *m, bool spectrum)
{
	lora_json_begin_object(w);
	lora_json_key(w, "name");
	lora_json_string(w, m->name);
	lora_json_key(w, "type");
	lora_json_string(w, m->type);
	put_shape(w, m->shape, m->ndim);
	lora_json_key(w, "rank");
	lora_json_uint(w, m->rank);
	put_number(w, "alpha", m->rank > 0, m->alpha);
	put_number(w, "scale", m->rank > 0, m->scale);
	lora_json_key(w, "scale_from");
	lora_json_string(w, m->scale_from);
	lora_json_key(w, "dtype");
	lora_json_string(w, lora_dtype_name(m->dtype));
	put_number(w, "norm", m->has_norm, m->norm);
	put_number(w, "effective_rank", m->has_norm && m->rank > 0, m->effective_rank);
	if (spectrum) {
		lora_json_key(w, "singular_values");
		lora_json_begin_array(w);
		for (uint32_t i = 0; i < m->singular_count; i++)
			lora_json_double(w, m->singular_values[i]);
		lora_json_end_array(w);
	}
	lora_json_end_object(w);
}

static void put_tensor(struct lora_json_writer *w, const struct lora_tensor *t)
{
	lora_json_begin_object(w);
	lora_json_key(w, "name");
	lora_json_string(w, t->name);
	lora_json_key(w, "dtype");
	lora_json_string(w, lora_dtype_name(t->dtype));
	put_shape(w, t->shape, t->ndim);
	lora_json_key(w, "bytes");
	lora_json_uint(w, t->size);
	lora_json_end_object(w);
}

static void put_adapter(struct lora_json_writer *w, const struct inspected *what,
			const struct inspect_view *view)
{
	const struct lora_adapter *adapter = what->adapter;
	uint32_t min, max;

	rank_range(adapter, &min, &max);
	lora_json_key(w, "dialect");
	lora_json_string(w, lora_adapter_dialect(adapter));
	lora_json_key(w, "method");
	lora_json_string(w, lora_adapter_method(adapter));
	lora_json_key(w, "parameters");
	lora_json_uint(w, lora_adapter_parameters(adapter));
	lora_json_key(w, "bytes");
	lora_json_uint(w, lora_adapter_bytes(adapter));
	lora_json_key(w, "base_name");
	lora_json_string(w, lora_adapter_base_name(adapter));
	lora_json_key(w, "base_root");
	if (lora_adapter_bound_root(adapter))
		lora_json_sha256(w, lora_adapter_bound_root(adapter));
	else
		lora_json_null(w);
	lora_json_key(w, "root");
	lora_json_sha256(w, &what->root);
	lora_json_key(w, "rank");
	lora_json_begin_object(w);
	lora_json_key(w, "min");
	lora_json_uint(w, min);
	lora_json_key(w, "max");
	lora_json_uint(w, max);
	lora_json_end_object(w);
	lora_json_key(w, "modules");
	lora_json_begin_array(w);
	for (size_t i = 0; i < lora_adapter_module_count(adapter); i++)
		put_module(w, lora_adapter_module(adapter, i), view->spectrum);
	lora_json_end_array(w);
	lora_json_key(w, "problems");
	lora_json_begin_array(w);
	for (size_t i = 0; i < lora_adapter_problem_count(adapter); i++)
		lora_json_string(w, lora_adapter_problem(adapter, i));
	lora_json_end_array(w);
}

static void put_types(struct lora_json_writer *w, const struct type_sums *sums)
{
	lora_json_key(w, "dtypes");
	lora_json_begin_array(w);
	for (int type = 0; type < LORA_DTYPE_COUNT; type++) {
		if (!sums->tensors[type])
			continue;
		lora_json_begin_object(w);
		lora_json_key(w, "dtype");
		lora_json_string(w, lora_dtype_name((enum lora_dtype)type));
		lora_json_key(w, "tensors");
		lora_json_uint(w, sums->tensors[type]);
		lora_json_key(w, "elements");
		lora_json_uint(w, sums->elements[type]);
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
}

static void put_model(struct lora_json_writer *w, const struct inspected *what)
{
	const struct lora_model *model = what->model;
	struct type_sums sums;
	uint64_t parameters = 0, bytes = 0;

	sum_types(&sums, model);
	for (int type = 0; type < LORA_DTYPE_COUNT; type++)
		parameters += sums.elements[type];
	for (size_t f = 0; f < lora_model_file_count(model); f++)
		bytes += lora_model_file_size(model, f);
	lora_json_key(w, "architecture");
	lora_json_string(w, lora_model_architecture(model));
	lora_json_key(w, "model_type");
	lora_json_string(w, lora_model_type(model));
	lora_json_key(w, "parameters");
	lora_json_uint(w, parameters);
	lora_json_key(w, "bytes");
	lora_json_uint(w, bytes);
	put_types(w, &sums);
	lora_json_key(w, "shards");
	lora_json_begin_array(w);
	for (size_t f = 0; f < lora_model_file_count(model); f++) {
		lora_json_begin_object(w);
		lora_json_key(w, "name");
		lora_json_string(w, lora_model_file_name(model, f));
		lora_json_key(w, "size");
		lora_json_uint(w, lora_model_file_size(model, f));
		lora_json_key(w, "sha256");
		lora_json_sha256(w, lora_model_file_digest(model, f));
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
	lora_json_key(w, "root");
	lora_json_sha256(w, &what->root);
	put_lines(w, "problems", &what->problems);
}

static void put_record(struct lora_json_writer *w, const struct lora_undo_record_facts *facts)
{
	lora_json_key(w, "base_root");
	lora_json_sha256(w, &facts->base_root);
	lora_json_key(w, "merged_root");
	lora_json_sha256(w, &facts->merged_root);
	lora_json_key(w, "adapters");
	lora_json_begin_array(w);
	for (size_t i = 0; i < facts->adapter_count; i++)
		lora_json_string(w, facts->adapters[i]);
	lora_json_end_array(w);
	lora_json_key(w, "tensors_restored");
	lora_json_uint(w, facts->tensors);
	lora_json_key(w, "files");
	lora_json_uint(w, facts->files);
	lora_json_key(w, "left");
	lora_json_uint(w, facts->left);
	lora_json_key(w, "base_bytes");
	lora_json_uint(w, facts->base_bytes);
	lora_json_key(w, "residual");
	lora_json_uint(w, facts->residual);
	lora_json_key(w, "bytes");
	lora_json_uint(w, facts->bytes);
	lora_json_key(w, "self_contained");
	lora_json_bool(w, true);
}

static void put_tensors(struct lora_json_writer *w, const struct inspected *what)
{
	size_t count = what->model ? lora_model_tensor_count(what->model)
				   : lora_adapter_tensor_count(what->adapter);

	lora_json_key(w, "tensors");
	lora_json_begin_array(w);
	for (size_t i = 0; i < count; i++)
		put_tensor(w, what->model ? lora_model_tensor(what->model, i)
					  : lora_adapter_tensor(what->adapter, i));
	lora_json_end_array(w);
}

enum lora_status inspect_json(struct lora_json_writer *w, const struct inspected *what,
			      const struct inspect_view *view, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	lora_json_begin_object(w);
	lora_json_key(w, "schema");
	lora_json_string(w, "loractl.inspect/1");
	lora_json_key(w, "path");
	lora_json_string(w, what->path);
	lora_json_key(w, "kind");
	lora_json_string(w, lora_kind_name(what->kind));
	if (what->log)
		status = history_json(w, what->log, what->path, err);
	if (what->adapter)
		put_adapter(w, what, view);
	else if (what->record)
		put_record(w, lora_undo_record_facts(what->record));
	else if (what->model)
		put_model(w, what);
	if (view->tensors && (what->model || what->adapter))
		put_tensors(w, what);
	if (view->base) {
		lora_json_key(w, "fits");
		lora_json_bool(w, what->fits);
		put_lines(w, "misfits", &what->misfits);
	}
	if (view->engine) {
		lora_json_key(w, "engine");
		lora_json_string(w, view->engine);
		lora_json_key(w, "loads");
		lora_json_bool(w, what->loads);
		put_lines(w, "obstacles", &what->obstacles);
	}
	lora_json_end_object(w);
	return status;
}
