/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/merge.h - base + adapters -> a merged checkpoint, with a receipt that says how.
 *
 * The rounding contract (version LORA_ARITHMETIC): s is computed in f64 and rounded once to f32.
 * Per adapter c = fmaf(B[i,k], A[k,j], c) from +0, k ascending; d = s*c; D = D + d in the order
 * given; t = f32(W) + D; W' is t rounded to nearest even into the output type. The same bits on
 * every processor and for every number of threads.
 */
#ifndef LORACTL_MERGE_H
#define LORACTL_MERGE_H

#include <loractl/adapter.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LORA_ARITHMETIC 1

enum lora_tied {
	LORA_TIED_SPLIT,  /* an adapter on one side of tied weights writes the second tensor */
	LORA_TIED_REFUSE, /* ... fails */
};

struct lora_merge_options {
	size_t size;	       /* sizeof(struct lora_merge_options) */
	enum lora_dtype dtype; /* of the adapted tensors; LORA_DTYPE_NONE: each tensor's own */
	enum lora_tied tied;
	bool no_receipt;
	bool require_bound;
	bool allow_unmatched;
	bool allow_noop;
	bool adapter_tokenizer; /* take the tokenizer's files from the adapter */
	bool dry_run;		/* compute everything, write nothing */
	bool verify;		/* then read back and compare with the plain reference kernel */
	bool force;		/* replace the output, if it is a model that we wrote */
	unsigned threads;	/* 0: every core this process may use */
	const char *undo;	/* also write the record that lora_unmerge needs, there; or NULL */
	bool undo_large;	/* even where the output's type cannot hold the base's values */
	const char *expect;	/* a receipt: unless the same files come out, LORA_NO; or NULL */
};

#define LORA_MERGE_OPTIONS_INIT                                                                    \
	{                                                                                          \
		sizeof(struct lora_merge_options)                                                  \
	}

/* What happened to one adapted tensor. */
struct lora_merged_tensor {
	const char *tensor;
	const char *kind; /* as struct lora_module's type; of the last edit */
	uint32_t rank;	  /* sum over the adapters */
	double scale;	  /* of the first adapter, weight included */
	const char *scale_from;
	double rho;	  /* |D|/|W| (Frobenius) */
	double unchanged; /* share of elements whose value rounding left as it was, of those with D
			     != 0 */
	double noise;	  /* |W' - (W + D)| / |D| */
};

struct lora_merge_summary {
	size_t modules;	  /* adapted tensors */
	size_t untouched; /* tensors that kept their bytes */
	size_t added;
	double rho, unchanged, noise; /* over all adapted elements */
	uint64_t bytes;		      /* of weights written (or that would be) */
	double seconds;
	bool undo;		/* there is a record (or would be); then: */
	uint64_t undo_residual; /* bytes of what predictions got wrong ... */
	uint64_t undo_adapted;	/* ... about so many bytes of the base */
	uint64_t undo_bytes;	/* of the whole record; 0 in a dry run */
};

struct lora_merge_result; /* owns all that its accessors return */

struct lora_merge_input {
	struct lora_adapter *adapter;
	double weight;
};

/* Merges into `output` (a directory where the base is one, else a file), which exists whole or not
 * at all, and so does the undo record: it gets its name just before the output gets its own. With
 * dry_run `output` may be NULL. On success *out describes the merge. LORA_NO: bound to
 * another base, not bound (require_bound), verification found a difference, other files than
 * expected; LORA_USAGE: output exists, equals or lies inside an input, undo without undo_large;
 * LORA_INPUT: unmatched tensors, non-finite values, overflow, nothing changed; LORA_SYSTEM: I/O,
 * memory. */
LORA_API enum lora_status lora_merge(struct lora_merge_result **out, struct lora_model *base,
				     const struct lora_merge_input *inputs, size_t count,
				     const char *output, const struct lora_merge_options *options,
				     const struct lora_observer *observer, struct lora_error *err);
LORA_API void lora_merge_result_free(struct lora_merge_result *result);

LORA_API const struct lora_merge_summary *
lora_merge_summary(const struct lora_merge_result *result);
LORA_API const struct lora_merged_tensor *lora_merge_tensors(const struct lora_merge_result *result,
							     size_t *count);
/* The receipt, schema loractl.receipt/1 (with dry_run its `merged` is null): borrowed text. */
LORA_API const char *lora_merge_receipt(const struct lora_merge_result *result);

#ifdef __cplusplus
}
#endif

#endif
