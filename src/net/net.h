/* SPDX-License-Identifier: Apache-2.0 */
/* net/net.h - a model in memory, and the stages of its forward pass, inside the library.
 *
 * Shapes: T tokens of a batch, d the model's width, H and G the heads of queries and of keys, c the
 * dimensions of a head, f the MLP's inner width, V the vocabulary. Matrices are row-major.
 *
 * 1. Weights stand [out, in], whatever the file says (Conv1D's are turned when they are read), and
 *    modules that read the same input stand one under the other as one matrix: q, k and v; gate and
 *    up. A matrix keeps the file's type.
 * 2. An edit hangs on the matrix or vector that it changes and is found through the base tensor's
 *    number (struct lora_slot).
 * 3. Every stage reads and writes the buffers of struct lora_activations, and the keys and values
 * of its layer, and nothing else. The pointers of state->a may be exchanged between stages and
 *    layers: so a backward pass keeps what it needs, layer by layer, and calls the same stages.
 * 4. A batch is a row of segments, each a stretch of one text. Matrices see T rows; positions and
 *    attention see segments. No padding is ever computed.
 */
#ifndef LORA_NET_NET_H
#define LORA_NET_NET_H

#include "adapter/adapter.h"
#include "base/team.h"
#include "kern/kern.h"
#include "kern/vec.h"
#include "net/spec.h"
#include <loractl/net.h>

/* Tokens that are computed at once. Large enough for the BLAS to be near its best, small enough for
 * the activations to be small beside the weights. */
#define LORA_NET_BATCH 512

struct lora_matrix {
	enum lora_dtype dtype; /* F32, F16 or BF16 */
	size_t rows, cols;
	const void *data;
};

/* One module of a fused matrix. */
struct lora_piece {
	size_t row0, rows;
};

/* One low-rank update: y[row0 ..] += s * B (A x). A's rows are rows h0 .. of the patch's A. */
struct lora_lowrank {
	size_t row0, rows, h0, rank;
	float s;
	const float *B; /* [rows, rank] */
};

/* What the attached adapters do to one matrix: y = gain * (Wx + sum of s*B(Ax)), before the bias.
 */
struct lora_patch {
	struct lora_matrix W;	  /* replaces the base's if data is not NULL */
	size_t rank;		  /* rows of A */
	float *A;		  /* [rank, in], one update's under the other's */
	struct lora_lowrank *low; /* low_count of them */
	size_t low_count;
	float *gain; /* [out], DoRA's m/|W + sBA|; or NULL */
};

struct lora_linear {
	struct lora_matrix W; /* [out, in] */
	const float *bias;    /* [out]; or NULL */
	struct lora_piece piece[3];
	size_t pieces;
	bool turned;		  /* the file has [in, out] */
	struct lora_patch *patch; /* or NULL */
};

struct lora_layer {
	const float *norm1, *norm1_bias, *norm2, *norm2_bias; /* [d] */
	const float *q_norm, *k_norm;			      /* [c]; or NULL */
	struct lora_linear qkv, out, up, down;
	size_t window; /* keys that a query sees; 0: all before it */
	float scale;   /* of scores */
};

/* The input embeddings: rows that are looked up, not multiplied. The update is out += s * L[id] R.
 */
struct lora_embedding {
	struct lora_matrix W;	  /* [V, d] */
	struct lora_patch *patch; /* A is R [rank, d], B is L [V, rank]; gain is [d], or [V] */
	bool gain_by_row;
};

/* Where a base tensor went. */
enum lora_slot_kind { LORA_SLOT_NONE, LORA_SLOT_WEIGHT, LORA_SLOT_VECTOR, LORA_SLOT_EMBEDDING };

struct lora_slot {
	enum lora_slot_kind kind;
	struct lora_linear *linear; /* WEIGHT */
	size_t piece;
	const float **vector; /* VECTOR: elements begin .. begin + count of *vector [whole] */
	size_t begin, count, whole;
};

/* What a net computes, without the numbers: every product and every attention, in order. Two models
 * with the same trace cost the same. */
struct lora_net_trace {
	uint64_t hash, operations;
};
/* One operation, as the `count` sizes that say what it costs. */
void lora__net_trace(struct lora_net_trace *trace, const uint64_t *sizes, size_t count);

struct lora_net {
	struct lora_model *model;
	struct lora_net_options options;
	const struct lora_kern *kern;
	const struct lora_vec *vec;
	struct lora_team *team;
	struct lora_arena arena;
	struct lora_spec spec;
	uint8_t *weights; /* all of them, one allocation of so many bytes */
	size_t weights_size;
	struct lora_embedding embed;
	const float *position; /* [positions, d]; or NULL */
	const float *norm, *norm_bias;
	struct lora_linear head; /* W may be the embeddings' */
	struct lora_layer *layers;
	struct lora_slot *slots;      /* by base tensor */
	struct lora_patches *patches; /* what is attached (attach.c); or NULL */
	struct lora_net_trace *trace; /* gets every operation that is run; or NULL */
};

/* Allocates and fills everything but patches (weights.c). */
enum lora_status lora__net_load(struct lora_net *net, const struct lora_observer *observer,
				struct lora_error *err);

/* Could this machine ever hold so many bytes? The system promises more than it has, and ends the
 * process when it is asked to keep the promise. */
bool lora__net_fits(uint64_t bytes);

/* Bytes of one element. */
static inline size_t lora__net_width(enum lora_dtype dtype)
{
	return dtype == LORA_DTYPE_F32 ? 4 : 2;
}

/* Row `row` of a matrix, columns from `col` on. */
static inline const void *lora__matrix_at(const struct lora_matrix *W, size_t row, size_t col)
{
	return (const uint8_t *)W->data + (row * W->cols + col) * lora__net_width(W->dtype);
}

/* n elements at `from`, widened. */
void lora__net_widen(const struct lora_net *net, float *out, const void *from,
		     enum lora_dtype dtype, size_t n);

/* The matrix that counts: the patch's, or the base's. */
static inline const struct lora_matrix *lora__linear_matrix(const struct lora_linear *linear)
{
	return linear->patch && linear->patch->W.data ? &linear->patch->W : &linear->W;
}

/* ---- The forward pass. */

/* Tokens row .. row + count of the batch are tokens past .. past + count of a text whose keys and
 * values stand at `cache` in the state. */
struct lora_segment {
	size_t row, count, cache, past;
};

struct lora_batch {
	const uint32_t *ids; /* [T] */
	size_t tokens;	     /* T, at most LORA_NET_BATCH */
	const struct lora_segment *segments;
	size_t segment_count;
};

/* What the stages read and write; the comment says which stage fills it. */
struct lora_activations {
	float *x;	  /* [T, d] the stream: embed, then out and down add to it */
	float *n;	  /* [T, d] norm of x */
	float *qkv;	  /* [T, (H + 2G)c] */
	float *q;	  /* [G, T, H/G, c] turned */
	float *mixed;	  /* [T, Hc] attention's result */
	float *up;	  /* [T, 2f or f] gate, up */
	float *act;	  /* [T, f] */
	float *cos, *sin; /* [T, c/2]; embed fills them */
	float *low;	  /* [T, rank] A x of the matrix at work */
	float *whole;	  /* [T, d] the matrix's result where it cannot be added at once */
};

struct lora_net_state {
	struct lora_net *net;
	size_t capacity, length;
	size_t low_rank;      /* what `low` has room for */
	float *memory;	      /* all of the following */
	float *keys, *values; /* [layers, G, capacity, c] */
	struct lora_activations a;
	float *scratch; /* [workers, scratch_size]: scores, widened panels */
	size_t scratch_size;
	float *low_memory; /* a.low, made anew when adapters of larger rank were attached */
	float *chunk;	   /* [LORA_NET_CHUNK, V] logits; made at the first loss */
	size_t chunk_vocabulary;
};

/* As lora_net_state_new(), but more tokens than positions are allowed: room for several texts. */
enum lora_status lora__net_state_make(struct lora_net_state **out, struct lora_net *net,
				      size_t capacity, struct lora_error *err);

/* Rows of logits that are computed at once where only their loss is wanted. */
#define LORA_NET_CHUNK 64

/* y [T, out] = or += x [T, in] W^T and what hangs on it; ldy is y's distance of rows (linear.c). */
struct lora_product_run {
	struct lora_net_state *state;
	const struct lora_linear *linear;
	const float *x;
	size_t ldx, tokens;
	float *y;
	size_t ldy;
	bool accumulate; /* needs out <= d */
};
void lora__net_linear(const struct lora_product_run *run);

/* Stages (stages.c); layer is the number of one. */
void lora__stage_embed(struct lora_net_state *state, const struct lora_batch *batch);
void lora__stage_norm(struct lora_net_state *state, size_t tokens, const float *g, const float *b);
void lora__stage_turn(struct lora_net_state *state, const struct lora_batch *batch, size_t layer);
void lora__stage_activate(struct lora_net_state *state, size_t tokens);
/* attention.c */
void lora__stage_attend(struct lora_net_state *state, const struct lora_batch *batch, size_t layer);

/* One layer of it: a.x becomes the stream behind the layer (forward.c). */
void lora__net_layer(struct lora_net_state *state, const struct lora_batch *batch, size_t i);
/* The whole of it up to the final norm: a.x holds the stream after the last layer (forward.c).
 * Checks that the ids are in the vocabulary and that `low` is large enough. */
enum lora_status lora__net_run(struct lora_net_state *state, const struct lora_batch *batch,
			       struct lora_error *err);
/* logits [count, V] of rows rows[0 .. count) of a.x; a.n is overwritten. */
void lora__net_head(struct lora_net_state *state, const size_t *rows, size_t count, float *logits);

/* Work on rows [begin, end) of T, shared out where that pays: `cost` is elements of a row. */
typedef void lora_rows_fn(void *user, size_t begin, size_t end, unsigned worker);
void lora__net_rows(struct lora_net *net, size_t tokens, size_t cost, lora_rows_fn *work,
		    void *user);

/* A token's chance, for sampling. */
struct lora_candidate {
	double p;
	uint32_t id;
};

/* A token's choice from logits [n]; room [n] is scratch, *random the generator's state
 * (sample.c). */
uint32_t lora__net_choose(const float *logits, size_t n, const struct lora_net_sampling *sampling,
			  struct lora_candidate *room, uint64_t *random);

#endif
