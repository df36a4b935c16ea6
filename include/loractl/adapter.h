/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/adapter.h - an adapter: what it would do to a base model, module by module.
 *
 * Notation, here and everywhere: W [out, in] the base's weight, A [r, in], B [out, r], s the scale;
 * the update is D = s*B*A (Hu et al. 2021, section 4.1).
 */
#ifndef LORACTL_ADAPTER_H
#define LORACTL_ADAPTER_H

#include <loractl/json.h>
#include <loractl/model.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lora_adapter;

struct lora_adapter_options {
	size_t size;		    /* sizeof(struct lora_adapter_options) */
	bool allow_unknown;	    /* accept config keys that we do not know */
	bool allow_mutated_base;    /* the base is the one that PiSSA, OLoRA ... changed */
	const char *const *key_map; /* pairs adapter name, base name; ends with NULL; or NULL */
};

#define LORA_ADAPTER_OPTIONS_INIT                                                                  \
	{                                                                                          \
		sizeof(struct lora_adapter_options), false, false, NULL                            \
	}

/* Opens an adapter reference: a PEFT directory, a .safetensors file with its adapter_config.json
 * beside it or the same facts in its metadata, or FILE.lora[@VERSION] (loractl/container.h), which
 * is read where it stands. LORA_INPUT if it is no adapter,
 * malformed, or of a kind that is not supported (named in the message). */
LORA_API enum lora_status lora_adapter_open(struct lora_adapter **out, const char *path,
					    const struct lora_adapter_options *options,
					    const struct lora_observer *observer,
					    struct lora_error *err);
LORA_API void lora_adapter_close(struct lora_adapter *adapter);

LORA_API const char *lora_adapter_path(const struct lora_adapter *adapter);
LORA_API const char *lora_adapter_name(
    const struct lora_adapter *adapter); /* last part of its path;
							    NAME@VERSION in a container */
LORA_API const char *lora_adapter_dialect(const struct lora_adapter *adapter); /* "peft" */
LORA_API const char *lora_adapter_method(const struct lora_adapter *adapter);  /* "lora", "dora" */
LORA_API const char *lora_adapter_base_name(const struct lora_adapter *adapter); /* may be NULL */
LORA_API uint64_t lora_adapter_parameters(const struct lora_adapter *adapter);
LORA_API uint64_t lora_adapter_bytes(const struct lora_adapter *adapter);

/* The tensors as they are stored. */
LORA_API size_t lora_adapter_tensor_count(const struct lora_adapter *adapter);
LORA_API const struct lora_tensor *lora_adapter_tensor(const struct lora_adapter *adapter,
						       size_t i);

/* What makes an adapter this adapter; two directories with the same root are the same one.
 *
 *	root = SHA-256("loractl adapter 1" NUL || T || C)
 *
 * T is the Merkle root over the tensors' names, types, shapes and bytes, as a model's; C the
 * SHA-256 of the config as canonical JSON (keys sorted by bytes, no white space, numbers as
 * written), or 32 zero bytes without one. Computed on the first call, which reads all tensors. */
LORA_API enum lora_status lora_adapter_root(struct lora_adapter *adapter, struct lora_sha256 *root,
					    struct lora_error *err);

/* What the adapter was read from: files of its directory, or of the one that its file stands in.
 * One that was looked for and is not there has its entry too. */
struct lora_adapter_part {
	const char *name;
	bool present;
	uint64_t size; /* bytes */
	struct lora_sha256 digest;
};

/* Hashes weights through the descriptors that are used, on the first call; the others were hashed
 * when they were read. Borrowed. */
LORA_API enum lora_status lora_adapter_parts(struct lora_adapter *adapter,
					     const struct lora_adapter_part **parts, size_t *count,
					     struct lora_error *err);

/* The digest of the manifest that an adapter in a container is read by: every byte of it is checked
 * against that manifest. NULL for files. Borrowed. */
LORA_API const struct lora_sha256 *lora_adapter_manifest(const struct lora_adapter *adapter);

/* The base root that the adapter is bound to (loractl.json beside it); NULL if it carries none. */
LORA_API const struct lora_sha256 *lora_adapter_bound_root(const struct lora_adapter *adapter);

/* One module as `inspect` shows it. */
struct lora_module {
	const char
	    *name; /* the module's path in the adapter's spelling, without a wrapper's prefix */
	const char *type; /* "low-rank", "dora", "dense", "replace", "rows", "add" */
	uint32_t ndim;
	uint64_t shape[LORA_MAX_DIMS]; /* of the update, as far as the adapter alone tells */
	uint32_t rank;		       /* 0 where there is none */
	double alpha;
	double scale;		/* s, as used (rounded to f32) */
	const char *scale_from; /* "alpha/r", "alpha/sqrt(r)", "alpha_pattern 'KEY'", ... */
	enum lora_dtype dtype;	/* of the stored factors */
	bool has_norm;		/* whether the three below were computed */
	double norm;		/* |s*B*A| (Frobenius), through QR of the factors */
	double effective_rank;	/* exp of the entropy of the normalised singular values (Roy &
				   Vetterli 2007) */
	uint32_t singular_count;
	const double *singular_values; /* of s*B*A, descending; singular_count of them */
};

LORA_API size_t lora_adapter_module_count(const struct lora_adapter *adapter);
/* Facts from the headers and the config alone; has_norm is false. */
LORA_API const struct lora_module *lora_adapter_module(const struct lora_adapter *adapter,
						       size_t i);
/* Reads the factors of every module and fills norm, effective_rank and singular_values. */
LORA_API enum lora_status lora_adapter_measure(struct lora_adapter *adapter, unsigned threads,
					       const struct lora_observer *observer,
					       struct lora_error *err);

/* Problems found: each a line. Without a base: what the adapter alone shows (a NaN after measure,
 * odd ranks ...). */
LORA_API size_t lora_adapter_problem_count(const struct lora_adapter *adapter);
LORA_API const char *lora_adapter_problem(const struct lora_adapter *adapter, size_t i);

/* Does it fit that base? Every problem is a line to `problem`. LORA_OK: it fits; LORA_NO: it does
 * not. */
LORA_API enum lora_status lora_adapter_fits(struct lora_adapter *adapter,
					    const struct lora_model *base,
					    void (*problem)(void *user, const char *line),
					    void *user, struct lora_error *err);

/* Will that engine ("peft", "vllm", "llama.cpp") load the adapter as it is? As above; LORA_USAGE
 * for another engine. */
LORA_API enum lora_status lora_adapter_loads_in(struct lora_adapter *adapter, const char *engine,
						void (*problem)(void *user, const char *line),
						void *user, struct lora_error *err);

#ifdef __cplusplus
}
#endif

#endif
