/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/diff.h - a comparison while it is made, inside the library.
 *
 *	diff.c		  the frame: lists, their accessors, two adapters' tensors and configs
 *	diff_config.c	  two JSON objects
 *	diff_modules.c	  two adapters as updates
 *	diff_places.c	  which module of one is which of the other
 *	diff_models.c	  two checkpoints: which tensors differ, and by how much
 *	diff_values.c	  two runs of elements
 *	diff_rank.c	  the rank of a difference
 *	merge/explain.c	  a checkpoint against the merge that should have made it
 */
#ifndef LORA_ADAPTER_DIFF_H
#define LORA_ADAPTER_DIFF_H

#include "adapter/adapter.h"
#include <loractl/diff.h>

/* Names that grow; the array is malloc'd, the texts live in the diff's arena. */
struct lora_names {
	const char **name;
	size_t count, room;
};

struct lora_diff {
	struct lora_arena arena;
	const struct lora_model *x, *y; /* of two checkpoints; borrowed */
	bool same, equivalent;
	struct lora_config_difference *config; /* malloc'd */
	size_t config_count, config_room;
	struct lora_names added, removed, changed;
	struct lora_module_difference *modules; /* in the arena */
	size_t module_count;
	struct lora_tensor_difference *tensors; /* in the arena */
	size_t tensor_count;
	struct lora_explanation explanation; /* its list is in the arena */
	bool has_explanation;
};

enum lora_status lora__diff_new(struct lora_diff **out, const struct lora_diff_options *options,
				struct lora_error *err);
/* Copies the name. */
enum lora_status lora__diff_name(struct lora_diff *diff, struct lora_names *names, const char *name,
				 struct lora_error *err);
/* Either may be NULL: an empty object. */
enum lora_status lora__diff_json(struct lora_diff *diff, const struct lora_json *x,
				 const struct lora_json *y, struct lora_error *err);
/* Two tensors of two adapters: one type, shape and content? */
enum lora_status lora__diff_same_bytes(const struct lora_adapter *x, const struct lora_tensor *a,
				       const struct lora_adapter *y, const struct lora_tensor *b,
				       bool *same, struct lora_error *err);

/* Which edit of an adapter stands where: by kind, target, range and shape. */
struct lora_places {
	struct lora_arena arena;
	struct lora_map edits; /* -> position in decode.edits */
};
enum lora_status lora__places_init(struct lora_places *places, const struct lora_adapter *adapter,
				   struct lora_error *err);
void lora__places_fini(struct lora_places *places);
/* The edit of `adapter`, whose places these are, that `edit` of another one is compared with: one
 * of its kind, else one that does something of its sort in the same place. NULL if there is
 * none. */
const struct lora_edit *lora__places_find(const struct lora_places *places,
					  const struct lora_adapter *adapter,
					  const struct lora_edit *edit);
/* Fills modules; clears diff->equivalent unless all updates of x and y are. */
enum lora_status lora__diff_modules(struct lora_diff *diff, const struct lora_adapter *x,
				    const struct lora_adapter *y, const struct lora_places *in_y,
				    unsigned threads, const struct lora_observer *observer,
				    struct lora_error *err);

/* What two runs of elements are to one another. */
struct lora_values {
	uint64_t changed, max_ulp;
	double difference2, x2; /* sums of (y - x)^2 and x^2 */
};
/* Are values of that type computed with? */
bool lora__values_known(enum lora_dtype type);
/* As f64, exactly. */
double lora__value_at(const void *data, enum lora_dtype type, size_t i);
/* The distance from |v|, a value of that type, to the next larger one of it; of what is not finite
 * 0. */
double lora__value_ulp(double v, enum lora_dtype type);
/* Added to *out: n elements of known types. max_ulp only if the types are one. */
void lora__values_compare(const void *x, enum lora_dtype x_type, const void *y,
			  enum lora_dtype y_type, size_t n, struct lora_values *out);
/* Two values of one type: how many steps through all its values lie between. */
uint64_t lora__values_apart(const void *x, const void *y, enum lora_dtype type, size_t i);

/* The rank of y - x into out's fields. Both have known types, one shape and a norm that is finite.
 */
enum lora_status lora__diff_rank(const struct lora_model *model_x, const struct lora_tensor *x,
				 const struct lora_model *model_y, const struct lora_tensor *y,
				 struct lora_tensor_difference *out, struct lora_error *err);

#endif
