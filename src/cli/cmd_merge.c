/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_merge.c - `loractl merge`: base + adapters -> a merged checkpoint and its receipt */
#include <math.h>
#include <stdio.h>

#include <loractl/merge.h>

#include "cmd.h"
#include "inputs.h"
#include "key_map.h"
#include "merge_trust.h"

struct merge_args {
	const char *output;
	int dtype; /* enum merge_dtype, or -1 */
	const char *undo;
	bool undo_large;
	bool no_receipt;
	bool require_bound;
	bool require_signed;
	const char *sign;
	const char *fd;
	bool allow_unmatched;
	bool allow_noop;
	bool allow_unknown;
	bool allow_mutated_base;
	const char *key_map;
	int tied;      /* enum lora_tied */
	int tokenizer; /* enum merge_tokenizer */
	bool dry_run;
	bool verify;
	bool force;
};

/* In the order of the choices. */
enum merge_dtype {
	MERGE_F32,
	MERGE_F16,
	MERGE_BF16,
};

enum merge_tokenizer {
	MERGE_TOKENIZER_BASE,
	MERGE_TOKENIZER_ADAPTER,
};

static const char *const dtypes[] = {"f32", "f16", "bf16", NULL};
static const char *const tieds[] = {"split", "refuse", NULL};
static const char *const tokenizers[] = {"base", "adapter", NULL};

static struct lora_merge_options merge_options(const struct merge_args *args, unsigned threads)
{
	static const enum lora_dtype types[] = {LORA_DTYPE_F32, LORA_DTYPE_F16, LORA_DTYPE_BF16};
	struct lora_merge_options options = LORA_MERGE_OPTIONS_INIT;

	options.dtype = args->dtype < 0 ? LORA_DTYPE_NONE : types[args->dtype];
	options.tied = (enum lora_tied)args->tied;
	options.undo = args->undo;
	options.undo_large = args->undo_large;
	options.no_receipt = args->no_receipt;
	options.require_bound = args->require_bound;
	options.allow_unmatched = args->allow_unmatched;
	options.allow_noop = args->allow_noop;
	options.adapter_tokenizer = args->tokenizer == MERGE_TOKENIZER_ADAPTER;
	options.dry_run = args->dry_run;
	options.verify = args->verify;
	options.force = args->force;
	options.threads = threads;
	return options;
}

/* "12.3 %", or "-" where there was nothing to compare with. */
static const char *percent(double share, char buffer[UI_TEXT])
{
	if (isnan(share))
		snprintf(buffer, UI_TEXT, "-");
	else
		snprintf(buffer, UI_TEXT, "%.3g %%", 100 * share);
	return buffer;
}

static void print_summary(const struct cmd_ctx *ctx, const struct merge_args *args,
			  const struct lora_merge_result *result)
{
	const struct lora_merge_summary *s = lora_merge_summary(result);
	char a[UI_TEXT], b[UI_TEXT];
	FILE *out = ui_out(ctx->ui);

	fprintf(out, "%-12s%zu merged, %zu tensors untouched", "modules", s->modules, s->untouched);
	if (s->added)
		fprintf(out, ", %zu added", s->added);
	fprintf(out, "\n%-12s%s of |W|\n", "|update|", percent(s->rho, a));
	fprintf(out, "%-12s%s of the updated weights, by rounding\n", "unchanged",
		percent(s->unchanged, a));
	fprintf(out, "%-12s%s of |update|, by rounding\n", "noise", percent(s->noise, a));
	if (s->undo)
		fprintf(out, "%-12s%s, %.2f %% of the adapted weights%s%s\n", "undo",
			ui_size(s->undo_residual, a),
			s->undo_adapted ? 100 * (double)s->undo_residual / (double)s->undo_adapted
					: 0.0,
			s->undo_bytes ? "; with the factors " : "",
			s->undo_bytes ? ui_size(s->undo_bytes, b) : "");
	fprintf(out, "%-12s%s of weights in %.2f s%s\n", args->dry_run ? "would write" : "wrote",
		ui_size(s->bytes, b), s->seconds, args->verify ? ", read back and verified" : "");
}

/* With --verbose: one line a tensor. */
static enum lora_status print_tensors(const struct cmd_ctx *ctx,
				      const struct lora_merge_result *result,
				      struct lora_error *err)
{
	static const struct ui_column columns[] = {
	    {"tensor", UI_LEFT, true},	    {"kind", UI_LEFT, false},
	    {"rank", UI_RIGHT, false},	    {"scale", UI_RIGHT, false},
	    {"from", UI_LEFT, false},	    {"|D|/|W|", UI_RIGHT, false},
	    {"unchanged", UI_RIGHT, false}, {"noise", UI_RIGHT, false},
	};
	struct ui_table *table = ui_table_new(columns, sizeof(columns) / sizeof(*columns));
	size_t count;
	const struct lora_merged_tensor *t = lora_merge_tensors(result, &count);
	enum lora_status status;
	char text[UI_TEXT];

	for (size_t i = 0; i < count; i++) {
		ui_table_cell(table, "%s", t[i].tensor);
		ui_table_cell(table, "%s", t[i].kind);
		ui_table_cell(table, "%u", t[i].rank);
		ui_table_cell(table, "%.9g", t[i].scale);
		ui_table_cell(table, "%s", t[i].scale_from);
		ui_table_cell(table, "%s", percent(t[i].rho, text));
		ui_table_cell(table, "%s", percent(t[i].unchanged, text));
		ui_table_cell(table, "%s", percent(t[i].noise, text));
	}
	status = ui_table_print(table, ctx->ui, err);
	ui_table_free(table);
	return status;
}

static enum lora_status merge(const struct cmd_ctx *ctx, const struct merge_args *args,
			      const struct lora_merge_input *inputs, size_t count,
			      struct lora_model *base, const struct lora_secret_key *key,
			      struct lora_error *err)
{
	struct lora_merge_options options = merge_options(args, ctx->threads);
	struct lora_merge_result *result = NULL;
	enum lora_status status =
	    lora_merge(&result, base, inputs, count, args->output, &options, ctx->observer, err);

	if (!status && key)
		status = merge_trust_sign(lora_merge_receipt(result), key, args->output,
					  lora_model_is_directory(base), err);
	if (!status && ctx->json)
		fputs(lora_merge_receipt(result), ui_out(ctx->ui));
	if (!status && !ctx->json && ctx->verbose)
		status = print_tensors(ctx, result, err);
	if (!status && !ctx->json && !ctx->ui->quiet)
		print_summary(ctx, args, result);
	lora_merge_result_free(result);
	return status;
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *references, size_t count)
{
	const struct merge_args *args = arguments;
	struct lora_adapter_options options = LORA_ADAPTER_OPTIONS_INIT;
	struct lora_error err = LORA_ERROR_INIT;
	struct key_map map = {NULL, 0, NULL};
	struct lora_model *base = NULL;
	struct inputs inputs = {NULL, 0};
	struct lora_secret_key *key = NULL;
	enum lora_status status = LORA_OK;

	if (args->sign && (args->no_receipt || args->dry_run))
		return ui_failf(ctx->ui, LORA_USAGE, "--sign signs the receipt: drop %s",
				args->dry_run ? "--dry-run" : "--no-receipt");
	if (args->require_signed && args->tokenizer == MERGE_TOKENIZER_ADAPTER)
		return ui_failf(ctx->ui, LORA_USAGE,
				"--require-signed is about the adapter's weights: drop --tokenizer "
				"adapter");
	if (args->no_receipt && ctx->json)
		return ui_failf(ctx->ui, LORA_USAGE,
				"--json prints the receipt: drop --no-receipt");
	if (args->dry_run && args->verify)
		return ui_failf(ctx->ui, LORA_USAGE,
				"--verify reads OUT back, and --dry-run writes none: drop one");
	if ((ctx->json || !ctx->ui->quiet) && !ui_writable(ctx->ui))
		return ui_failf(
		    ctx->ui, LORA_SYSTEM,
		    "cannot write the result: standard output is closed: open it, or use --quiet");
	if (args->key_map)
		status = key_map_read(&map, args->key_map, &err);
	options.allow_unknown = args->allow_unknown;
	options.allow_mutated_base = args->allow_mutated_base;
	options.key_map = map.pairs;
	if (!status)
		status = lora_model_open(&base, references[0], &err);
	if (!status)
		status =
		    inputs_open(&inputs, references + 1, count - 1, &options, ctx->observer, &err);
	for (size_t i = 0; i < inputs.count && args->require_signed && !status; i++)
		status = merge_trust_adapter(ctx, inputs.input[i].adapter, &err);
	if (!status && args->sign)
		status = merge_trust_key(ctx, &key, args->sign, args->fd, &err);
	if (!status)
		status = merge(ctx, args, inputs.input, inputs.count, base, key, &err);
	merge_trust_done(key);
	inputs_close(&inputs);
	lora_model_close(base);
	key_map_free(&map);
	return status ? ui_fail(ctx->ui, &err) : LORA_OK;
}

static const struct operand operands[] = {
    {
	.name = "BASE",
	.help = "model directory, org/model in the hub cache, or one .safetensors file",
	.hint = HINT_FILE,
    },
    {
	.name = "ADAPTER[:WEIGHT]",
	.help = "PEFT directory, adapter .safetensors file or F.lora[@VERSION]; WEIGHT is 1 if "
		"absent",
	.hint = HINT_FILE,
	.repeats = true,
    },
    {.name = NULL},
};

static const struct opt opts[] = {
    {
	.kind = OPT_PATH,
	.letter = 'o',
	.name = "output",
	.metavar = "OUT",
	.help = "where the merged model goes; needed unless --dry-run",
	.detail = "OUT is a directory where BASE is one, else a file. "
		  "It exists whole or not at all. "
		  "A place equal to, or inside, BASE or an adapter is refused.",
	.at = offsetof(struct merge_args, output),
	.hint = HINT_FILE,
	.flags = OPT_REQUIRED,
	.unless = "dry-run",
    },
    {
	.kind = OPT_CHOICE,
	.name = "dtype",
	.choices = dtypes,
	.help = "type of the adapted tensors",
	.detail = "Tensors that no adapter touches keep their bytes.",
	.otherwise = "each tensor's own",
	.at = offsetof(struct merge_args, dtype),
    },
    {
	.kind = OPT_PATH,
	.name = "undo",
	.metavar = "FILE",
	.help = "also write the record that unmerge needs",
	.detail = "With OUT and FILE the base comes back byte for byte, without the adapter. "
		  "FILE gets its name just before OUT does: there is never a merged model whose "
		  "record is missing or torn. "
		  "A file that exists is not replaced, with --force neither.",
	.at = offsetof(struct merge_args, undo),
	.hint = HINT_FILE,
    },
    {
	.kind = OPT_FLAG,
	.name = "undo-large",
	.help = "write a record even if it will be nearly as large as the base",
	.detail = "So it is where --dtype is narrower than the base's type.",
	.at = offsetof(struct merge_args, undo_large),
    },
    {
	.kind = OPT_FLAG,
	.name = "dry-run",
	.help = "plan and predict, write nothing",
	.detail = "Everything is read and computed: the updates that rounding would swallow, "
		  "the tensors that have no place, the sizes.",
	.at = offsetof(struct merge_args, dry_run),
    },
    {
	.kind = OPT_FLAG,
	.name = "verify",
	.help = "afterwards read OUT back and check its bytes and modules",
	.detail = "A difference is exit status 1. Refused with --dry-run.",
	.at = offsetof(struct merge_args, verify),
    },
    {
	.kind = OPT_FLAG,
	.name = "force",
	.help = "replace OUT, if it is a model that loractl wrote",
	.detail = "The old and the new model change places in one step. "
		  "Anything that is not recognised as an earlier output is left alone.",
	.at = offsetof(struct merge_args, force),
    },
    {
	.kind = OPT_FLAG,
	.name = "no-receipt",
	.help = "write no receipt",
	.at = offsetof(struct merge_args, no_receipt),
    },
    {
	.kind = OPT_FLAG,
	.name = "require-bound",
	.help = "fail (1) unless every adapter carries this base's root",
	.detail = "Without it an adapter that carries no root merges with a note. "
		  "One that carries another base's root is always refused.",
	.at = offsetof(struct merge_args, require_bound),
    },
    {
	.kind = OPT_FLAG,
	.name = "require-signed",
	.help = "fail (1) unless every adapter is signed by a key of the keyring",
	.detail = "What is compared with the signed list is what was opened for the merge.",
	.at = offsetof(struct merge_args, require_signed),
    },
    {
	.kind = OPT_PATH,
	.name = "sign",
	.metavar = "NAME.key",
	.help = "sign the receipt as an in-toto statement",
	.detail =
	    "It stands in OUT as loractl-receipt.intoto.json; where OUT is a file, beside it as "
	    "OUT.receipt.intoto.json.",
	.at = offsetof(struct merge_args, sign),
	.hint = HINT_FILE,
    },
    PASSPHRASE_OPT(offsetof(struct merge_args, fd)),
    {
	.kind = OPT_FLAG,
	.name = "allow-unmatched",
	.help = "leave out adapter tensors that have no place in the base",
	.detail = "They are listed in the receipt.",
	.at = offsetof(struct merge_args, allow_unmatched),
    },
    {
	.kind = OPT_PATH,
	.name = "key-map",
	.metavar = "FILE",
	.help = "read from FILE which adapter names mean which base tensors",
	.detail =
	    "One pair a line: a module, or a tensor, as the adapter names it, without "
	    "base_model.model. in front and lora_A or lora_B behind (inspect --modules prints "
	    "these names); white space; its name in the base. "
	    "A module's name stands for everything below it. "
	    "Empty lines and lines that begin with # are skipped.",
	.at = offsetof(struct merge_args, key_map),
	.hint = HINT_FILE,
    },
    {
	.kind = OPT_FLAG,
	.name = "allow-noop",
	.help = "do not fail if the merge changes no value",
	.at = offsetof(struct merge_args, allow_noop),
    },
    {
	.kind = OPT_FLAG,
	.name = "allow-unknown",
	.help = "accept adapter_config.json keys that loractl does not know",
	.detail = "A key that is not known might change what the adapter means.",
	.at = offsetof(struct merge_args, allow_unknown),
    },
    {
	.kind = OPT_FLAG,
	.name = "allow-mutated-base",
	.help = "BASE is the model that PiSSA, OLoRA ... changed at initialisation",
	.detail = "Such an adapter is right only beside the residual base that its training saved. "
		  "On the original base the result would be wrong without any other sign.",
	.at = offsetof(struct merge_args, allow_mutated_base),
    },
    {
	.kind = OPT_CHOICE,
	.name = "tied",
	.choices = tieds,
	.def = "split",
	.help = "an adapter on one side of tied embeddings",
	.detail = "With split the second tensor is written and tie_word_embeddings becomes false. "
		  "With refuse the command fails.",
	.at = offsetof(struct merge_args, tied),
    },
    {
	.kind = OPT_CHOICE,
	.name = "tokenizer",
	.choices = tokenizers,
	.def = "base",
	.help = "whose tokenizer files go into OUT",
	.detail = "A difference between the two is reported either way.",
	.at = offsetof(struct merge_args, tokenizer),
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"one adapter", "loractl merge base/ adapter/ -o merged/"},
    {"two of them, the second at half its strength",
     "loractl merge base/ style/ facts/:0.5 -o merged/"},
    {"so that it can be taken back", "loractl merge base/ adapter/ -o merged/ --undo merged.undo"},
    {"what would happen, as JSON", "loractl merge base/ adapter/ --dry-run --json"},
    {NULL, NULL},
};

const struct cmd cmd_merge = {
    .name = "merge",
    .summary = "Fold adapters into a base model",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct merge_args),
    .flags = CMD_REPORTS,
    .examples = examples,
    .run = run,
};
