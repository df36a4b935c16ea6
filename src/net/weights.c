/* SPDX-License-Identifier: Apache-2.0 */
/* net/weights.c - a checkpoint's tensors into memory, in the places where the forward pass reads
 * them.
 *
 * The layout is walked twice by the same code: once to add up sizes, once, with memory, to note for
 * every tensor where it goes. Then the tensors are read side by side.
 *
 * 1. Every tensor has the shape that the config asks for, or the model is refused.
 * 2. Every tensor of the checkpoint is used, or known to be no parameter, or the model is refused:
 *    a bias that we did not add would be a silent mistake.
 * 3. Every value that was read is finite.
 * 4. Modules fused into one matrix are widened to f32 only if their types differ.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/error.h"
#include "net/load.h"

#define LINE 64u	/* bytes: what vector loads like */
#define PAGE (2u << 20) /* a huge page: the weights of one token cross fewer of them */

struct loader {
	struct lora_net *net;
	const char *prefix; /* of this checkpoint: the family's, or "" */
	bool turned;	    /* weights stand [in, out] */
	uint8_t *memory;    /* NULL: the first walk */
	uint64_t used;
	struct lora_load *jobs;
	size_t job_count;
	struct lora_arena names;
};

/* --- the layout ------------------------------------------------------------------------------ */

/* Room for rows * cols elements; NULL in the first walk. */
static enum lora_status reserve(struct loader *l, size_t rows, size_t cols, enum lora_dtype dtype,
				uint8_t **out, struct lora_error *err)
{
	uint64_t size;

	if (lora__mul_overflows(rows, cols, &size) ||
	    lora__mul_overflows(size, lora__net_width(dtype), &size) ||
	    lora__add_overflows(l->used, size + LINE - size % LINE, &size) || size > SIZE_MAX / 2)
		return lora__fail(err, LORA_INPUT, "the model is too large for this machine");
	*out = l->memory ? l->memory + l->used : NULL;
	l->used = size;
	return LORA_OK;
}

/* The tensor prefix + path + module + suffix. */
static enum lora_status find(struct loader *l, const char *prefix, const char *path,
			     const char *module, const char *suffix, const struct lora_tensor **out,
			     struct lora_error *err)
{
	const char *name = lora__arena_printf(&l->names, "%s%s%s%s", prefix, path, module, suffix);

	if (!name)
		return lora__fail_memory(err);
	*out = lora_model_find(l->net->model, name);
	if (!*out)
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s' is missing: the checkpoint is not whole, or its "
				  "config.json is another model's",
				  lora__escape(name));
	if ((*out)->dtype != LORA_DTYPE_F32 && (*out)->dtype != LORA_DTYPE_F16 &&
	    (*out)->dtype != LORA_DTYPE_BF16)
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s' is of type %s: only F32, F16 and BF16 can be run",
				  lora__escape(name), lora_dtype_name((*out)->dtype));
	return LORA_OK;
}

static enum lora_status check_shape(const struct lora_tensor *t, uint32_t ndim, uint64_t d0,
				    uint64_t d1, struct lora_error *err)
{
	if (t->ndim == ndim && t->shape[0] == d0 && (ndim == 1 || t->shape[1] == d1))
		return LORA_OK;
	if (ndim == 1)
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s' has not the shape [%" PRIu64
				  "] that config.json asks for",
				  lora__escape(t->name), d0);
	return lora__fail(err, LORA_INPUT,
			  "tensor '%s' has not the shape [%" PRIu64 ", %" PRIu64
			  "] that config.json asks for",
			  lora__escape(t->name), d0, d1);
}

static struct lora_slot *slot_of(struct loader *l, const struct lora_tensor *tensor)
{
	return &l->net->slots[tensor - l->net->model->index.tensors];
}

static void add_job(struct loader *l, struct lora_load job)
{
	if (l->memory)
		l->jobs[l->job_count] = job;
	l->job_count++;
}

/* A vector [n], widened, all of *out. */
static enum lora_status take_vector(struct loader *l, const char *path, const char *module,
				    const char *suffix, size_t n, const float **out,
				    struct lora_error *err)
{
	const struct lora_tensor *t = NULL;
	uint8_t *to = NULL;
	enum lora_status status = find(l, l->prefix, path, module, suffix, &t, err);

	if (!status)
		status = check_shape(t, 1, n, 0, err);
	if (!status)
		status = reserve(l, n, 1, LORA_DTYPE_F32, &to, err);
	if (status)
		return status;
	*out = (const float *)(const void *)to;
	add_job(l, (struct lora_load){t, to, LORA_DTYPE_F32, n, 1, false});
	*slot_of(l, t) = (struct lora_slot){
	    .kind = LORA_SLOT_VECTOR, .vector = out, .begin = 0, .count = n, .whole = n};
	return LORA_OK;
}

static enum lora_status take_norm(struct loader *l, const char *path, const char *module,
				  const float **g, const float **b, struct lora_error *err)
{
	size_t d = l->net->spec.width;
	enum lora_status status = take_vector(l, path, module, ".weight", d, g, err);

	if (!status && l->net->spec.family->norm == LORA_NORM_LAYER)
		status = take_vector(l, path, module, ".bias", d, b, err);
	return status;
}

static bool has_bias(const struct lora_spec *spec, enum lora_bias_rule rule)
{
	return rule == LORA_BIAS_ALWAYS || (rule == LORA_BIAS_ATTENTION && spec->attention_bias) ||
	       (rule == LORA_BIAS_MLP && spec->mlp_bias);
}

/* The biases of a fused matrix, one behind the other; all modules have one or none has. */
static enum lora_status take_biases(struct loader *l, const char *path,
				    const struct lora_module_row *rows, struct lora_linear *linear,
				    struct lora_error *err)
{
	uint8_t *to = NULL;
	enum lora_status status = LORA_OK;

	if (!has_bias(&l->net->spec, rows[0].bias))
		return LORA_OK;
	status = reserve(l, linear->W.rows, 1, LORA_DTYPE_F32, &to, err);
	linear->bias = (const float *)(const void *)to;
	for (size_t i = 0; i < linear->pieces && !status; i++) {
		const struct lora_piece *piece = &linear->piece[i];
		const struct lora_tensor *t = NULL;

		status = find(l, l->prefix, path, rows[i].name, ".bias", &t, err);
		if (!status)
			status = check_shape(t, 1, piece->rows, 0, err);
		if (status)
			break;
		add_job(l, (struct lora_load){t, to ? to + piece->row0 * 4 : NULL, LORA_DTYPE_F32,
					      piece->rows, 1, false});
		*slot_of(l, t) = (struct lora_slot){.kind = LORA_SLOT_VECTOR,
						    .vector = &linear->bias,
						    .begin = piece->row0,
						    .count = piece->rows,
						    .whole = linear->W.rows};
	}
	return status;
}

/* `count` modules [out[i], in] under one another. */
struct modules {
	const struct lora_module_row *rows;
	const size_t *out;
	size_t count, in;
};

static enum lora_status take_linear(struct loader *l, const char *path,
				    const struct modules *modules, struct lora_linear *linear,
				    struct lora_error *err)
{
	const struct lora_module_row *rows = modules->rows;
	const size_t *out = modules->out;
	size_t count = modules->count, in = modules->in;
	const struct lora_tensor *tensors[3] = {NULL};
	enum lora_status status = LORA_OK;
	uint8_t *to = NULL;

	*linear = (struct lora_linear){
	    .W = {LORA_DTYPE_NONE, 0, in, NULL}, .pieces = count, .turned = l->turned};
	for (size_t i = 0; i < count && !status; i++) {
		status = find(l, l->prefix, path, rows[i].name, ".weight", &tensors[i], err);
		if (!status)
			status = check_shape(tensors[i], 2, l->turned ? in : out[i],
					     l->turned ? out[i] : in, err);
		if (status)
			return status;
		linear->W.dtype = i == 0 || linear->W.dtype == tensors[i]->dtype ? tensors[i]->dtype
										 : LORA_DTYPE_F32;
		linear->piece[i] = (struct lora_piece){linear->W.rows, out[i]};
		linear->W.rows += out[i];
	}
	status = reserve(l, linear->W.rows, in, linear->W.dtype, &to, err);
	if (status)
		return status;
	linear->W.data = to;
	for (size_t i = 0; i < count; i++) {
		size_t skip = linear->piece[i].row0 * in * lora__net_width(linear->W.dtype);

		add_job(l, (struct lora_load){tensors[i], to ? to + skip : NULL, linear->W.dtype,
					      out[i], in, l->turned});
		*slot_of(l, tensors[i]) =
		    (struct lora_slot){.kind = LORA_SLOT_WEIGHT, .linear = linear, .piece = i};
	}
	return take_biases(l, path, rows, linear, err);
}

static enum lora_status take_layer(struct loader *l, size_t i, struct lora_error *err)
{
	const struct lora_spec *s = &l->net->spec;
	const struct lora_net_family *f = s->family;
	struct lora_layer *layer = &l->net->layers[i];
	size_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
	size_t three[3] = {q, kv, kv}, one = q + 2 * kv, two[2] = {s->hidden, s->hidden};
	const char *path = lora__arena_printf(&l->names, "%s%zu.", f->block, i);
	bool fused = f->qkv[1].name == NULL;
	enum lora_status status;

	if (!path)
		return lora__fail_memory(err);
	layer->window = s->window[i];
	status = take_norm(l, path, f->norm1, &layer->norm1, &layer->norm1_bias, err);
	if (!status)
		status = take_norm(l, path, f->norm2, &layer->norm2, &layer->norm2_bias, err);
	if (!status && f->q_norm)
		status =
		    take_vector(l, path, f->q_norm, ".weight", s->head_dim, &layer->q_norm, err);
	if (!status && f->k_norm)
		status =
		    take_vector(l, path, f->k_norm, ".weight", s->head_dim, &layer->k_norm, err);
	if (!status)
		status = take_linear(
		    l, path,
		    &(struct modules){f->qkv, fused ? &one : three, fused ? 1 : 3, s->width},
		    &layer->qkv, err);
	if (!status)
		status = take_linear(l, path, &(struct modules){&f->out, &s->width, 1, q},
				     &layer->out, err);
	if (!status)
		status =
		    take_linear(l, path, &(struct modules){f->up, two, f->gated ? 2 : 1, s->width},
				&layer->up, err);
	if (!status)
		status = take_linear(l, path, &(struct modules){&f->down, &s->width, 1, s->hidden},
				     &layer->down, err);
	return status;
}

/* A table of rows: the embeddings, the learned positions. */
static enum lora_status take_table(struct loader *l, const char *module, size_t rows, bool widened,
				   struct lora_matrix *W, const struct lora_tensor **tensor,
				   struct lora_error *err)
{
	size_t d = l->net->spec.width;
	uint8_t *to = NULL;
	enum lora_status status = find(l, l->prefix, module, ".weight", "", tensor, err);

	if (!status)
		status = check_shape(*tensor, 2, rows, d, err);
	if (status)
		return status;
	*W = (struct lora_matrix){widened ? LORA_DTYPE_F32 : (*tensor)->dtype, rows, d, NULL};
	status = reserve(l, rows, d, W->dtype, &to, err);
	W->data = to;
	add_job(l, (struct lora_load){*tensor, to, W->dtype, rows, d, false});
	return status;
}

/* A head that is stored although it is tied must be what it is tied to. */
static enum lora_status check_tie(struct loader *l, const struct lora_tensor *embed,
				  struct lora_error *err)
{
	const struct lora_tensor *head = lora_model_find(l->net->model, "lm_head.weight");
	enum { SIZE = 1 << 16 };
	uint8_t *buffer;
	enum lora_status status = LORA_OK;
	bool equal;

	if (head)
		*slot_of(l, head) =
		    (struct lora_slot){.kind = LORA_SLOT_WEIGHT, .linear = &l->net->head};
	if (!head || l->memory)
		return LORA_OK;
	equal = head->dtype == embed->dtype && head->size == embed->size;
	buffer = malloc(2 * (size_t)SIZE);
	if (!buffer)
		return lora__fail_memory(err);
	for (uint64_t at = 0; at < embed->size && equal && !status; at += SIZE) {
		size_t n = (size_t)(embed->size - at < SIZE ? embed->size - at : SIZE);

		status = lora_model_read(l->net->model, embed, at, buffer, n, err);
		if (!status)
			status = lora_model_read(l->net->model, head, at, buffer + SIZE, n, err);
		equal = status || memcmp(buffer, buffer + SIZE, n) == 0;
	}
	free(buffer);
	if (status || equal)
		return status;
	return lora__fail(err, LORA_INPUT,
			  "config.json ties 'lm_head.weight' to '%s', but the two differ: set "
			  "tie_word_embeddings to what is meant",
			  lora__escape(embed->name));
}

/* Neither a prefix nor Conv1D is the head's. */
static enum lora_status take_head(struct loader *l, const struct lora_tensor *embed,
				  struct lora_error *err)
{
	const struct lora_module_row row = {l->net->spec.family->head, LORA_BIAS_NEVER};
	struct lora_net *net = l->net;
	struct loader head = *l;
	enum lora_status status;

	if (net->spec.tied) {
		net->head = (struct lora_linear){
		    .W = net->embed.W, .piece = {{0, net->embed.W.rows}}, .pieces = 1};
		return check_tie(l, embed, err);
	}
	head.prefix = "";
	head.turned = false;
	status = take_linear(&head, "",
			     &(struct modules){&row, &net->spec.vocabulary, 1, net->spec.width},
			     &net->head, err);
	head.prefix = l->prefix;
	head.turned = l->turned;
	*l = head;
	return status;
}

/* One walk. */
static enum lora_status lay_out(struct loader *l, struct lora_error *err)
{
	struct lora_net *net = l->net;
	const struct lora_spec *s = &net->spec;
	const struct lora_tensor *embed = NULL, *position = NULL;
	enum lora_status status;

	l->used = 0;
	l->job_count = 0;
	status = take_table(l, s->family->embed, s->vocabulary, false, &net->embed.W, &embed, err);
	if (!status)
		*slot_of(l, embed) = (struct lora_slot){.kind = LORA_SLOT_EMBEDDING};
	if (!status && s->family->position) {
		struct lora_matrix W = {LORA_DTYPE_NONE, 0, 0, NULL};

		status = take_table(l, s->family->position, s->positions, true, &W, &position, err);
		net->position = W.data;
	}
	if (!status && position)
		*slot_of(l, position) = (struct lora_slot){.kind = LORA_SLOT_VECTOR,
							   .vector = &net->position,
							   .count = s->positions * s->width,
							   .whole = s->positions * s->width};
	for (size_t i = 0; i < s->layers && !status; i++)
		status = take_layer(l, i, err);
	if (!status)
		status = take_norm(l, "", s->family->norm_name, &net->norm, &net->norm_bias, err);
	return status ? status : take_head(l, embed, err);
}

static bool ends_in(const char *name, const char *end)
{
	size_t n = strlen(name), e = strlen(end);

	return n >= e && strcmp(name + n - e, end) == 0;
}

/* [2]. Buffers that older releases saved: frequencies, causal masks. */
static enum lora_status check_used(const struct loader *l, struct lora_error *err)
{
	static const char *const buffers[] = {".rotary_emb.inv_freq", ".attn.bias",
					      ".attn.masked_bias"};
	const struct lora_index *index = &l->net->model->index;

	for (size_t i = 0; i < index->count; i++) {
		const char *name = index->tensors[i].name;
		bool known = l->net->slots[i].kind != LORA_SLOT_NONE;

		for (size_t k = 0; k < sizeof(buffers) / sizeof(*buffers); k++)
			known = known || ends_in(name, buffers[k]);
		if (!known)
			return lora__fail(err, LORA_INPUT,
					  "tensor '%s' is no part of a %s model: it cannot be run",
					  lora__escape(name), l->net->spec.family->type);
	}
	return LORA_OK;
}

/* Some checkpoints were saved without the head, and without its prefix. */
static const char *find_prefix(const struct lora_net *net, struct lora_arena *names)
{
	const struct lora_net_family *f = net->spec.family;
	const char *name = lora__arena_printf(names, "%s.weight", f->embed);

	return name && lora_model_find(net->model, name) ? "" : f->prefix;
}

/* One block, zeroed. */
static enum lora_status allocate(struct loader *l, struct lora_error *err)
{
	size_t size = (size_t)l->used, alignment = size > 4 * PAGE ? PAGE : LINE;
	void *memory = NULL;

	if (!lora__net_fits(l->used) || posix_memalign(&memory, alignment, size + 1))
		return lora__fail(err, LORA_SYSTEM,
				  "out of memory: the weights take %" PRIu64 " bytes", l->used);
	if (alignment == PAGE)
		(void)madvise(memory, size, MADV_HUGEPAGE);
	l->net->weights = memory;
	l->net->weights_size = size;
	l->memory = memory;
	l->jobs = calloc(l->job_count + 1, sizeof(*l->jobs));
	return l->jobs ? LORA_OK : lora__fail_memory(err);
}

static float attention_scale(const struct lora_spec *s, size_t layer)
{
	return (float)(1 / sqrt((double)s->head_dim) / (s->scale_down ? (double)(layer + 1) : 1));
}

enum lora_status lora__net_load(struct lora_net *net, const struct lora_observer *observer,
				struct lora_error *err)
{
	struct loader l = {.net = net, .turned = net->spec.family->conv1d};
	const struct lora_spec *s = &net->spec;
	enum lora_status status = LORA_OK;

	net->layers = lora__arena_array(&net->arena, s->layers, sizeof(*net->layers));
	net->slots =
	    lora__arena_array(&net->arena, net->model->index.count + 1, sizeof(*net->slots));
	if (!net->layers || !net->slots)
		return lora__fail_memory(err);
	for (size_t i = 0; i < s->layers; i++)
		net->layers[i].scale = attention_scale(s, i);
	l.prefix = find_prefix(net, &l.names);
	status = lay_out(&l, err);
	if (!status)
		status = check_used(&l, err);
	if (!status)
		status = allocate(&l, err);
	if (!status)
		status = lay_out(&l, err);
	if (!status)
		status = lora__load_all(net, l.jobs, l.job_count, observer, err);
	free(l.jobs);
	lora__arena_fini(&l.names);
	return status;
}
