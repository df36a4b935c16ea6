/* SPDX-License-Identifier: Apache-2.0 */
/* cli/verify.h - the levels of `loractl verify`: what cmd_verify.c has of verify_merged.c. */
#ifndef LORA_CLI_VERIFY_H
#define LORA_CLI_VERIFY_H

#include <loractl/inspect.h>
#include <loractl/trust.h>
#include <loractl/verify.h>

#include "cmd.h"
#include "merge_trust.h"

struct verify_args {
	const char *pub;
	const char *lock;
	const char *level;
	/* of merged models */
	const char *base;
	struct opt_list adapters;
	const char *prompts;
	uint64_t tokens, seed;
	const char *reference;
	double max_kl, margin;
	const char *report, *html, *sign, *fd;
};

/* One path under verification, and what its levels left. */
struct verify_job {
	const struct cmd_ctx *ctx;
	const struct verify_args *args;
	const char *path;
	enum lora_kind kind; /* unknown for what is neither adapter nor model */
	struct lora_verdict *verdict;
	struct lora_proof *proof; /* with --base and --adapter */
	bool told;		  /* there is a report about it */
};

struct level {
	const char *name;
	/* Why it cannot run here; NULL if it can. wanted: the levels that were named; or NULL. */
	const char *(*skip)(const struct verify_job *job, const bool *wanted);
	/* LORA_OK: it holds; LORA_NO: it does not, the message says why. */
	enum lora_status (*run)(struct verify_job *job, struct lora_error *err);
	void (*json)(struct lora_json_writer *w, const struct verify_job *job);
	void (*text)(FILE *out, const struct verify_job *job);
};

/* A line of the report for people. */
void verify_line(FILE *out, const char *what, const char *text);

/* Do --base and --adapter say what the model is made of? */
bool verify_has_claim(const struct verify_args *args);
enum lora_status verify_open(struct verify_job *job, struct lora_error *err);
void verify_close(struct verify_job *job);

const char *verify_skip_merged(const struct verify_job *job, const bool *wanted);
const char *verify_skip_latency(const struct verify_job *job, const bool *wanted);
enum lora_status verify_run_bytes(struct verify_job *job, struct lora_error *err);
enum lora_status verify_run_modules(struct verify_job *job, struct lora_error *err);
enum lora_status verify_run_logits(struct verify_job *job, struct lora_error *err);
enum lora_status verify_run_latency(struct verify_job *job, struct lora_error *err);
/* verify_json.c */
void verify_json_bytes(struct lora_json_writer *w, const struct verify_job *job);
void verify_json_modules(struct lora_json_writer *w, const struct verify_job *job);
void verify_json_logits(struct lora_json_writer *w, const struct verify_job *job);
void verify_json_latency(struct lora_json_writer *w, const struct verify_job *job);
/* Members of the report: the roots; every tensor. */
void verify_json_claim(struct lora_json_writer *w, const struct verify_job *job);
void verify_json_tensors(struct lora_json_writer *w, const struct verify_job *job);
/* verify_text.c */
void verify_text_bytes(FILE *out, const struct verify_job *job);
void verify_text_modules(FILE *out, const struct verify_job *job);
void verify_text_logits(FILE *out, const struct verify_job *job);
void verify_text_latency(FILE *out, const struct verify_job *job);

enum lora_status verify_write_html(const struct verify_job *job, struct lora_error *err);

/* Who signs the report, and about what. */
struct verify_signer {
	struct lora_secret_key *key; /* or NULL */
	char name[256];
	bool known;
	struct lora_sha256 root; /* of the merged model */
};
void verify_keep(struct verify_signer *signer, const struct verify_job *job);
/* Writes the statement beside the report: R.json, R.intoto.json. */
enum lora_status verify_sign(const struct verify_signer *signer, const struct verify_args *args,
			     const char *report, struct lora_error *err);

#define VERIFY_MERGED_OPTS                                                                         \
	{                                                                                          \
	    .kind = OPT_PATH,                                                                      \
	    .name = "base",                                                                        \
	    .metavar = "BASE",                                                                     \
	    .help = "the model that PATH was merged from",                                         \
	    .at = offsetof(struct verify_args, base),                                              \
	    .hint = HINT_FILE,                                                                     \
	},                                                                                         \
	    {                                                                                      \
		.kind = OPT_LIST,                                                                  \
		.name = "adapter",                                                                 \
		.metavar = "ADAPTER[:WEIGHT]",                                                     \
		.help = "an adapter that was merged into it; may be given more than once",         \
		.detail = "WEIGHT is 1 if absent. Where PATH has a receipt, base, adapters and "   \
			  "weights have to be those that it names.",                               \
		.at = offsetof(struct verify_args, adapters),                                      \
		.hint = HINT_FILE,                                                                 \
	    },                                                                                     \
	    {                                                                                      \
		.kind = OPT_PATH,                                                                  \
		.name = "prompts",                                                                 \
		.metavar = "FILE",                                                                 \
		.help = "prompts for the logits, one a line",                                      \
		.otherwise = "four seeded token sequences",                                        \
		.at = offsetof(struct verify_args, prompts),                                       \
		.hint = HINT_FILE,                                                                 \
	    },                                                                                     \
	    {                                                                                      \
		.kind = OPT_U64,                                                                   \
		.name = "tokens",                                                                  \
		.metavar = "N",                                                                    \
		.def = "64",                                                                       \
		.help = "tokens of a prompt with its continuation; longer prompts are cut",        \
		.at = offsetof(struct verify_args, tokens),                                        \
		.min = 2,                                                                          \
		.max = 1u << 20,                                                                   \
	    },                                                                                     \
	    {                                                                                      \
		.kind = OPT_U64,                                                                   \
		.name = "seed",                                                                    \
		.metavar = "N",                                                                    \
		.def = "0",                                                                        \
		.help = "of the inputs and of token sequences",                                    \
		.at = offsetof(struct verify_args, seed),                                          \
	    },                                                                                     \
	    {                                                                                      \
		.kind = OPT_PATH,                                                                  \
		.name = "reference-logits",                                                        \
		.metavar = "FILE",                                                                 \
		.help = "logits [prompts, tokens, vocabulary] computed elsewhere (safetensors)",   \
		.detail = "Of base + adapters, by PEFT or an engine, on the tokens of --prompts "  \
			  "or on those that a tensor input_ids [prompts, tokens] in FILE says. "   \
			  "The merged model has to be as near to them.",                           \
		.at = offsetof(struct verify_args, reference),                                     \
		.hint = HINT_FILE,                                                                 \
	    },                                                                                     \
	    {                                                                                      \
		.kind = OPT_DOUBLE,                                                                \
		.name = "max-kl",                                                                  \
		.metavar = "X",                                                                    \
		.def = "0.01",                                                                     \
		.help = "share of KL(base || unmerged) that KL(unmerged || merged) may reach",     \
		.at = offsetof(struct verify_args, max_kl),                                        \
		.low = 0,                                                                          \
		.high = 1e9,                                                                       \
	    },                                                                                     \
	    {                                                                                      \
		.kind = OPT_DOUBLE,                                                                \
		.name = "latency-margin",                                                          \
		.metavar = "PCT",                                                                  \
		.def = "2",                                                                        \
		.help = "percent within which latencies count as equal",                           \
		.at = offsetof(struct verify_args, margin),                                        \
		.low = 0.01,                                                                       \
		.high = 100,                                                                       \
	    },                                                                                     \
	    {                                                                                      \
		.kind = OPT_PATH,                                                                  \
		.name = "report",                                                                  \
		.metavar = "FILE",                                                                 \
		.help = "write the report as JSON",                                                \
		.detail = "An earlier report there is replaced, anything else is not.",            \
		.at = offsetof(struct verify_args, report),                                        \
		.hint = HINT_FILE,                                                                 \
	    },                                                                                     \
	    {                                                                                      \
		.kind = OPT_PATH,                                                                  \
		.name = "html",                                                                    \
		.metavar = "FILE",                                                                 \
		.help = "write a page to read",                                                    \
		.at = offsetof(struct verify_args, html),                                          \
		.hint = HINT_FILE,                                                                 \
	    },                                                                                     \
	{                                                                                          \
		.kind = OPT_PATH, .name = "sign", .metavar = "NAME.key",                           \
		.help = "sign the report as an in-toto statement",                                 \
		.detail = "It stands beside the report: R.intoto.json for R.json.",                \
		.at = offsetof(struct verify_args, sign), .hint = HINT_FILE,                       \
	}

#endif
