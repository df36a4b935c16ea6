/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/verify.h - is this checkpoint base + adapters? The proof, level by level.
 *
 *	lora_proof_open(&proof, "merged/", "base/", places, 1, &options, &err);
 *	status = lora_proof_bytes(proof, &err);		LORA_OK: it holds; LORA_NO: it does not
 *	status = lora_proof_modules(proof, &err);
 *	status = lora_proof_logits(proof, &err);
 *	status = lora_proof_latency(proof, &err);
 *
 * 1. A receipt beside the model names base and adapters by digest: then others are LORA_NO, and the
 *    bytes have to be those of our merge. Without one (PEFT's merge, or another tool's) what is
 *    given says all, and every element has to be what an honest sum is rounded to.
 * 2. Weights are read from the files; no cached digest is used.
 * 3. A level that failed to run (LORA_INPUT, LORA_SYSTEM) proves nothing either way.
 * 4. Signatures are another question: loractl/trust.h.
 */
#ifndef LORACTL_VERIFY_H
#define LORACTL_VERIFY_H

#include <loractl/adapter.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lora_proof; /* owns all that its accessors return */

struct lora_proof_options {
	size_t size;	       /* sizeof(struct lora_proof_options) */
	unsigned threads;      /* 0: every core this process may use */
	uint64_t seed;	       /* of inputs and of token sequences */
	size_t tokens;	       /* of one prompt, its continuation included */
	const char *prompts;   /* a file with one prompt a line; NULL: seeded token sequences */
	const char *reference; /* logits that were computed elsewhere, a .safetensors; or NULL */
	double max_kl;	       /* the share of KL(base || unmerged) that a merge may lose */
	double margin;	       /* of equal latency, as a share: 0.02 */
	double patience;       /* seconds of timing at most */
	const struct lora_observer *observer; /* borrowed; or NULL */
};

#define LORA_PROOF_OPTIONS_INIT                                                                    \
	{                                                                                          \
		sizeof(struct lora_proof_options), 0, 0, 64, NULL, NULL, 0.01, 0.02, 120, NULL     \
	}

/* Where an adapter is, and its weight. */
struct lora_proof_place {
	const char *path;
	double weight;
};

/* Opens everything and hashes the models. The paths are not kept. LORA_INPUT if something cannot be
 * opened or the adapters do not fit the base. That base, adapters or weights are not the receipt's
 * is no failure here: every level says it, with LORA_NO. */
LORA_API enum lora_status lora_proof_open(struct lora_proof **out, const char *merged,
					  const char *base, const struct lora_proof_place *places,
					  size_t count, const struct lora_proof_options *options,
					  struct lora_error *err);
LORA_API void lora_proof_close(struct lora_proof *proof);

/* There is no receipt: another tool's merge. */
LORA_API bool lora_proof_is_foreign(const struct lora_proof *proof);
LORA_API const struct lora_sha256 *lora_proof_base_root(const struct lora_proof *proof);
LORA_API const struct lora_sha256 *lora_proof_merged_root(const struct lora_proof *proof);

/* ---- bytes: all tensors, and config and tokenizer
 *
 * Every adapted tensor is computed again, by the plain reference kernel, into the type in which it
 * is there. A foreign one may differ as lora_diff_explain() allows; its untouched tensors may stand
 * in another type if every value is the base's, rounded to it. Of config and tokenizer our merge
 * keeps every byte (but for what the adapters demand); in a foreign one no member that both sides
 * have may have another value, save where the file came from. */

/* What rounding to one type does to the update. */
struct lora_proof_type {
	enum lora_dtype dtype;
	double noise;	  /* |rounded(W + D) - (W + D)| / |D| */
	double unchanged; /* the share of elements with D != 0 that it would leave as they were */
	uint64_t bytes;	  /* of the adapted tensors */
};
#define LORA_PROOF_TYPES 3 /* F32, F16, BF16 */

struct lora_proof_tensor {
	const char *name;
	const char *kind; /* as struct lora_module's type; NULL: untouched */
	uint32_t rank;
	double scale;
	int layer; /* the first number in its name; -1 without one */
	enum lora_dtype dtype;
	uint64_t elements;
	uint64_t different; /* elements with other bits than our own merge's, */
	uint64_t max_ulp;   /* ... the farthest by so many values of the type */
	double rho;	    /* |D| / |W|; NaN for what has no update, as the next two */
	double unchanged;   /* of the elements with D != 0, those whose value is still the base's */
	double noise;	    /* |W' - (W + D)| / |D|, of the W' that is there */
	struct lora_proof_type types[LORA_PROOF_TYPES];
	const char *problem; /* one line for a terminal; NULL: it is what it should be */
	/* modules */
	double worst, bound;   /* |W'x - y| where that comes nearest to its bound, and the bound */
	double strength;       /* the update that is there, as a share of the adapter's: 1 */
	double strength_error; /* its standard error */
	const char *module_problem;
};

struct lora_proof_bytes {
	bool passed;
	size_t tensors;	   /* of the merge */
	size_t mismatched; /* of these, those with a problem */
	size_t rounded;	   /* foreign: those with other bits, all of them within the contract */
	uint64_t max_ulp;
	uint64_t elements;	      /* adapted ones ... */
	uint64_t off[4];	      /* ... that are 0, 1, 2, and more values of the type off */
	double rho, unchanged, noise; /* over all of them */
	struct lora_proof_type types[LORA_PROOF_TYPES];
	size_t problem_count; /* whatever is wrong, a line each */
	const char *const *problems;
};

LORA_API enum lora_status lora_proof_bytes(struct lora_proof *proof, struct lora_error *err);
LORA_API const struct lora_proof_bytes *lora_proof_bytes_result(const struct lora_proof *proof);
/* Adapted tensors first to last as the base has them, and every other one with a problem. After
 * bytes or modules. */
LORA_API const struct lora_proof_tensor *lora_proof_tensors(const struct lora_proof *proof,
							    size_t *count);

/* ---- modules: y = Wx + s*B(Ax), in f64, against W'x
 *
 * For every tensor with an update, on eight inputs x of its columns: four normal ones, and four in
 * the row space of the adapter, where an update is strongest. Two things have to hold:
 *
 *	|W'x - y|_i <= sum_j |x_j| (u|W'_ij|/(1-u) + t/2) + what f32 may lose	for every row i,
 *
 * u the unit roundoff of W's type and t its smallest number; and the update is there at its full
 * strength: with b = Dx and a = W'x - Px, P what the contract makes of W + D, k = <a, b>/<b, b> is
 * below 1e-3 or below five of its standard errors. (The first alone would let an update pass in
 * bf16 that is too strong by a tenth.) */
struct lora_proof_modules {
	bool passed;
	size_t modules, failed;
	double worst, bound; /* of the module that comes nearest to its bound, or is farthest
				beyond */
	const char *module;
};

LORA_API enum lora_status lora_proof_modules(struct lora_proof *proof, struct lora_error *err);
LORA_API const struct lora_proof_modules *lora_proof_modules_result(const struct lora_proof *proof);

/* ---- logits: the model's own forward pass
 *
 * A prompt is at most `tokens` long, or half of that if it is seeded; the unmerged model continues
 * it to `tokens`, greedily. All three models see these tokens; means are over all of them. */
struct lora_proof_logits {
	bool passed;
	size_t prompts, tokens; /* predictions in all */
	double max_abs, rms;	/* of merged - unmerged */
	double kl;		/* mean KL(unmerged || merged), nats a token */
	double kl_max;		/* the worst token's */
	double kl_adapter;	/* mean KL(base || unmerged) */
	double top1_agreement;	/* share of tokens with the same most likely successor */
	bool diverges;
	uint64_t first_divergence; /* the first greedy token that differs, counted from the
				      prompt's end; in the prompt where that is earliest */
	double perplexity_base, perplexity_merged, perplexity_unmerged; /* of the prompts */
	bool has_reference;
	double reference_max_abs, reference_rms; /* merged - reference, */
	double reference_kl;			 /* KL(reference || merged), */
	double reference_kl_adapter;		 /* KL(base || reference), on the prompts */
	double reference_top1;
	/* Pairs (unmerged, merged) of logits, for a plot. */
	size_t pair_count;
	const float (*pairs)[2];
};

/* LORA_INPUT, with lora_proof_unsupported() true, if the model cannot be run here. */
LORA_API enum lora_status lora_proof_logits(struct lora_proof *proof, struct lora_error *err);
LORA_API const struct lora_proof_logits *lora_proof_logits_result(const struct lora_proof *proof);
LORA_API bool lora_proof_unsupported(const struct lora_proof *proof);

/* ---- latency: merged costs what base costs
 *
 * First without a clock: the same tensors, shapes and types, and the same trace of operations of
 * the engine. Then rounds of decoding, each of base, merged, merged again and unmerged in changing
 * order, until the 90 % interval of the median ratio merged/base is inside or outside 1 +- margin,
 * or patience is over: then LORA_INPUT, "cannot tell". */
struct lora_proof_interval {
	double ratio, low, high; /* the median, and its 90 % interval */
};

struct lora_proof_latency {
	bool passed;
	bool structural;
	const char *difference; /* why it is not; or NULL */
	uint64_t operations;	/* of one token */
	size_t rounds;
	struct lora_proof_interval merged;   /* merged / base */
	struct lora_proof_interval control;  /* merged again / merged */
	struct lora_proof_interval unmerged; /* unmerged / base */
	double milliseconds;		     /* of a token of the base, the median */
};

LORA_API enum lora_status lora_proof_latency(struct lora_proof *proof, struct lora_error *err);
LORA_API const struct lora_proof_latency *lora_proof_latency_result(const struct lora_proof *proof);

/* ---- the report */

/* A page that stands alone, of the levels that were run; malloc'd. `name` is what was verified, as
 * the page is to call it. */
LORA_API enum lora_status lora_proof_html(const struct lora_proof *proof, const char *name,
					  char **text, struct lora_error *err);
/* Writes a report, page or statement, whole or not at all. It takes the place of an earlier one;
 * LORA_USAGE if something else stands there. */
LORA_API enum lora_status lora_report_write(const char *path, const char *text,
					    struct lora_error *err);

#ifdef __cplusplus
}
#endif

#endif
