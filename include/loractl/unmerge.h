/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/unmerge.h - the ways back from a merged checkpoint: to the base, byte for byte, with the
 * record that the merge wrote; near the base without one; and to the same merge again, from its
 * receipt.
 *
 * With a record (loractl-undo(5)): P = RNE(f32(W') / g - D) predicts the base's weight, and the
 * record's residual turns the prediction into it, whatever it was. Every digest of the merged model
 * is compared before, every digest of the base after; without that nothing is written.
 */
#ifndef LORACTL_UNMERGE_H
#define LORACTL_UNMERGE_H

#include <loractl/merge.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lora_unmerge_options {
	size_t size;	  /* sizeof(struct lora_unmerge_options) */
	unsigned threads; /* 0: every core this process may use */
	const struct lora_observer *observer;
	const struct lora_model *base; /* approximate: what to measure against; or NULL */
};

#define LORA_UNMERGE_OPTIONS_INIT                                                                  \
	{                                                                                          \
		sizeof(struct lora_unmerge_options), 0, NULL, NULL                                 \
	}

/* How far W~ = RNE(f32(W') - D) is from the base's W. */
struct lora_unmerge_error {
	double off;	  /* share of the adapted weights that are not the base's */
	double relative;  /* |W~ - W| / |W|, Frobenius, over the adapted tensors */
	uint64_t max_ulp; /* of one weight; only measured */
};

struct lora_unmerge_summary {
	size_t tensors;		 /* of the base */
	size_t restored;	 /* of them that the merge had changed */
	size_t files;		 /* written, all sorts */
	size_t left;		 /* files of the base that neither record nor merged model have */
	uint64_t bytes;		 /* of weights */
	struct lora_sha256 root; /* of the base; approximate: all zero */
	double seconds;
	struct lora_unmerge_error measured; /* approximate, with a base */
};

/* Restores the base of `merged` into `output`, which exists whole or not at all. LORA_NO: the
 * record belongs to another model, or the model was changed after the merge (what, and which record
 * comes first, is in the message); LORA_USAGE: output exists or lies inside an input; LORA_INPUT:
 * the record is damaged, or of a version that is not known. */
LORA_API enum lora_status lora_unmerge(struct lora_unmerge_summary *summary,
				       struct lora_model *merged, const char *record,
				       const char *output,
				       const struct lora_unmerge_options *options,
				       struct lora_error *err);

/* What an undo record says of itself. Everything lives as long as the record is open. */
struct lora_undo_record;

struct lora_undo_record_facts {
	struct lora_sha256 base_root, merged_root;
	const char *const *adapters; /* names of what was merged */
	size_t adapter_count;
	size_t tensors;	     /* that the merge changed or replaced */
	size_t files;	     /* that come back */
	size_t left;	     /* that do not */
	uint64_t base_bytes; /* of the base's weight files */
	uint64_t residual;   /* bytes of what predictions got wrong */
	uint64_t bytes;	     /* of the record */
};

/* Opens and checks a record; LORA_INPUT if it is none or damaged. The caller closes *out. */
LORA_API enum lora_status lora_undo_record_open(struct lora_undo_record **out, const char *path,
						struct lora_error *err);
LORA_API const struct lora_undo_record_facts *
lora_undo_record_facts(const struct lora_undo_record *record);
LORA_API void lora_undo_record_close(struct lora_undo_record *record);

/* What can be expected of lora_unmerge_approximate() before it is done: W' = W + D was rounded by
 * at most half a unit in its last place, uniformly; where that unit is 2^k of W's units, k > 0 (the
 * update moved the value up to a higher binade), W comes back in one case of 2^k. Reads `merged`
 * and the adapters, writes nothing. LORA_INPUT for edits that leave nothing to subtract from:
 * replacements, DoRA, added tensors. */
LORA_API enum lora_status lora_unmerge_expect(struct lora_unmerge_error *expected,
					      struct lora_model *merged,
					      const struct lora_merge_input *inputs, size_t count,
					      const struct lora_unmerge_options *options,
					      struct lora_error *err);

/* Subtracts the adapters, as far as rounding lets it. With options->base summary->measured says how
 * far it did. What there is to say about the adapters lora_unmerge_expect() says; this function
 * does not repeat it. */
LORA_API enum lora_status
lora_unmerge_approximate(struct lora_unmerge_summary *summary, struct lora_model *merged,
			 const struct lora_merge_input *inputs, size_t count, const char *output,
			 const struct lora_unmerge_options *options, struct lora_error *err);

/* What a receipt (schema loractl.receipt/1) says that a rebuild needs before adapters are opened.
 */
struct lora_rebuild;

/* LORA_INPUT if it is no receipt, or of an arithmetic that this version does not compute by. The
 * caller frees *out. */
LORA_API enum lora_status lora_rebuild_open(struct lora_rebuild **out, const char *path,
					    struct lora_error *err);
LORA_API void lora_rebuild_free(struct lora_rebuild *rebuild);
/* How the adapters are to be opened; borrowed. */
LORA_API const struct lora_adapter_options *
lora_rebuild_adapter_options(const struct lora_rebuild *rebuild);
LORA_API size_t lora_rebuild_adapter_count(const struct lora_rebuild *rebuild);

/* Repeats the merge: base and adapters (as many as the receipt names, in any order; weights are the
 * receipt's) must be those that it names by root, and every weight file must come out with its
 * SHA-256: else LORA_NO, and nothing is written. `inputs` are put in the receipt's order. */
LORA_API enum lora_status lora_rebuild(struct lora_merge_result **out,
				       const struct lora_rebuild *rebuild, struct lora_model *base,
				       struct lora_merge_input *inputs, const char *output,
				       const struct lora_unmerge_options *options,
				       struct lora_error *err);

#ifdef __cplusplus
}
#endif

#endif
