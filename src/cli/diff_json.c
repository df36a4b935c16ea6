/* SPDX-License-Identifier: Apache-2.0 */
/* cli/diff_json.c - schema loractl.diff/1. loractl-diff(1) documents its fields. */
#include "diff.h"

static void put_names(struct lora_json_writer *w, const char *key, const char *const *names,
		      size_t count)
{
	lora_json_key(w, key);
	lora_json_begin_array(w);
	for (size_t i = 0; i < count; i++)
		lora_json_string(w, names[i]);
	lora_json_end_array(w);
}

static void put_bool(struct lora_json_writer *w, const char *key, bool value)
{
	lora_json_key(w, key);
	lora_json_bool(w, value);
}

/* NaN is null. */
static void put_number(struct lora_json_writer *w, const char *key, double value)
{
	lora_json_key(w, key);
	lora_json_double(w, value);
}

static void put_count(struct lora_json_writer *w, const char *key, bool known, uint64_t value)
{
	lora_json_key(w, key);
	if (known)
		lora_json_uint(w, value);
	else
		lora_json_null(w);
}

static void put_text(struct lora_json_writer *w, const char *key, const char *value)
{
	lora_json_key(w, key);
	lora_json_string(w, value);
}

static void put_config(struct lora_json_writer *w, const struct lora_diff *diff)
{
	size_t count;
	const struct lora_config_difference *c = lora_diff_config(diff, &count);

	lora_json_key(w, "config");
	lora_json_begin_array(w);
	for (size_t i = 0; i < count; i++) {
		lora_json_begin_object(w);
		put_text(w, "key", c[i].key);
		lora_json_key(w, "x");
		lora_json_value(w, c[i].x);
		lora_json_key(w, "y");
		lora_json_value(w, c[i].y);
		if (!c[i].x || !c[i].y)
			put_text(w, "absent", c[i].x ? "y" : "x");
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
}

static void put_angles(struct lora_json_writer *w, const char *key, const double *angles,
		       size_t count)
{
	lora_json_key(w, key);
	lora_json_begin_array(w);
	for (size_t i = 0; i < count; i++)
		lora_json_double(w, angles[i]);
	lora_json_end_array(w);
}

static void put_modules(struct lora_json_writer *w, const struct lora_diff *diff)
{
	size_t count;
	const struct lora_module_difference *m = lora_diff_modules(diff, &count);

	lora_json_key(w, "modules");
	lora_json_begin_array(w);
	for (size_t i = 0; i < count; i++) {
		lora_json_begin_object(w);
		put_text(w, "name", m[i].name);
		put_text(w, "type_x", m[i].type_x);
		put_text(w, "type_y", m[i].type_y);
		put_bool(w, "same", m[i].same);
		put_bool(w, "equivalent", m[i].equivalent);
		put_number(w, "norm_x", m[i].norm_x);
		put_number(w, "norm_y", m[i].norm_y);
		put_number(w, "norm_difference", m[i].norm_difference);
		put_number(w, "cosine", m[i].cosine);
		put_number(w, "allowance", m[i].allowance);
		put_number(w, "magnitude_difference", m[i].magnitude_difference);
		put_angles(w, "angles_rows", m[i].angles_rows, m[i].angle_count);
		put_angles(w, "angles_columns", m[i].angles_columns, m[i].angle_count);
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
}

static void put_tensors(struct lora_json_writer *w, const struct lora_diff *diff)
{
	size_t count;
	const struct lora_tensor_difference *t = lora_diff_tensors(diff, &count);

	lora_json_key(w, "tensors");
	lora_json_begin_array(w);
	for (size_t i = 0; i < count; i++) {
		lora_json_begin_object(w);
		put_text(w, "name", t[i].name);
		put_text(w, "dtype_x", lora_dtype_name(t[i].dtype_x));
		put_text(w, "dtype_y", lora_dtype_name(t[i].dtype_y));
		put_bool(w, "reshaped", t[i].reshaped);
		put_count(w, "elements", true, t[i].elements);
		put_count(w, "changed", true, t[i].changed);
		put_count(w, "max_ulp", t[i].has_ulp, t[i].max_ulp);
		put_number(w, "relative_norm", t[i].relative_norm);
		put_count(w, "rank", t[i].has_rank, t[i].rank);
		put_bool(w, "rank_is_least", t[i].rank_is_least);
		put_number(w, "threshold", t[i].threshold);
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
}

static void put_explanation(struct lora_json_writer *w, const struct lora_explanation *e)
{
	put_bool(w, "explained", e->explained);
	put_count(w, "exact", true, e->exact);
	put_count(w, "rounded", true, e->rounded);
	lora_json_key(w, "unexplained");
	lora_json_begin_array(w);
	for (size_t i = 0; i < e->unexplained_count; i++)
		lora_json_string(w, e->unexplained[i].name);
	lora_json_end_array(w);
	lora_json_key(w, "reasons");
	lora_json_begin_array(w);
	for (size_t i = 0; i < e->unexplained_count; i++)
		lora_json_string(w, e->unexplained[i].why);
	lora_json_end_array(w);
}

void diff_json(struct lora_json_writer *w, const struct lora_diff *diff, bool adapters)
{
	const struct lora_explanation *explanation = lora_diff_explanation(diff);
	const char *const *names;
	size_t count;

	lora_json_begin_object(w);
	put_text(w, "schema", "loractl.diff/1");
	put_text(w, "kind", adapters ? "adapters" : "checkpoints");
	put_bool(w, "same", lora_diff_same(diff));
	put_bool(w, "equivalent", lora_diff_equivalent(diff));
	put_config(w, diff);
	names = lora_diff_added(diff, &count);
	put_names(w, "added", names, count);
	names = lora_diff_removed(diff, &count);
	put_names(w, "removed", names, count);
	if (adapters) {
		names = lora_diff_changed(diff, &count);
		put_names(w, "changed", names, count);
		put_modules(w, diff);
	} else {
		put_tensors(w, diff);
	}
	if (explanation)
		put_explanation(w, explanation);
	lora_json_end_object(w);
}
