/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_verify.c - `loractl verify`: everything that can be proved about what it is given
 *
 * A level is a row of `levels`: its name, why it does not apply (if so), the work, and how its
 * result is told. Rows are run in order; the report has one entry for each. A level that is named
 * with --level has to run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <loractl/inspect.h>
#include <loractl/trust.h>

#include "cmd.h"

struct verify_args {
	const char *pub;
	const char *lock;
	const char *level;
};

/* One path under verification, and what its levels left. */
struct verify_job {
	const struct cmd_ctx *ctx;
	const struct verify_args *args;
	const char *path;
	enum lora_kind kind; /* unknown for what is neither adapter nor model */
	struct lora_verdict *verdict;
};

struct level {
	const char *name;
	/* Why it cannot run here; NULL if it can. */
	const char *(*skip)(const struct verify_job *job);
	/* LORA_OK: it holds; LORA_NO: it does not, the message says why. */
	enum lora_status (*run)(struct verify_job *job, struct lora_error *err);
	void (*json)(struct lora_json_writer *w, const struct verify_job *job);
	void (*text)(FILE *out, const struct verify_job *job);
};

/* ---- signature: integrity, trust, rollback */

static const char *skip_never(const struct verify_job *job)
{
	(void)job;
	return NULL;
}

static enum lora_status run_signature(struct verify_job *job, struct lora_error *err)
{
	struct lora_verify_options options = LORA_VERIFY_OPTIONS_INIT;

	options.key = job->args->pub;
	options.lock = job->args->lock;
	return lora_verify(&job->verdict, job->path, &options, job->ctx->observer, err);
}

/* Who signed, by the best name that we have; NULL unless that is certain. */
static const char *signer(const struct lora_verdict *verdict)
{
	bool certain = verdict->comment || verdict->passed;

	return !certain ? NULL : verdict->principal ? verdict->principal : verdict->key_id;
}

static void json_signature(struct lora_json_writer *w, const struct verify_job *job)
{
	const struct lora_verdict *v = job->verdict;

	lora_json_key(w, "signer");
	lora_json_string(w, signer(v));
	lora_json_key(w, "version");
	if (v->has_version)
		lora_json_uint(w, v->version);
	else
		lora_json_null(w);
	lora_json_key(w, "rollback");
	if (v->rollback == LORA_ROLLBACK_UNKNOWN)
		lora_json_null(w);
	else
		lora_json_bool(w, v->rollback == LORA_ROLLBACK_OLDER);
	lora_json_key(w, "name");
	lora_json_string(w, v->name);
	lora_json_key(w, "key_id");
	lora_json_string(w, v->key_id);
	lora_json_key(w, "principal");
	lora_json_string(w, v->principal);
	lora_json_key(w, "comment");
	lora_json_string(w, v->comment);
	lora_json_key(w, "problems");
	lora_json_begin_array(w);
	for (size_t i = 0; i < v->problem_count; i++)
		lora_json_string(w, v->problems[i]);
	lora_json_end_array(w);
}

static void text_line(FILE *out, const char *what, const char *text)
{
	char buffer[LORA_ERROR_SIZE];

	fprintf(out, "  %-13s %s\n", what, ui_escape(text, buffer, sizeof(buffer)));
}

static void text_signature(FILE *out, const struct verify_job *job)
{
	const struct lora_verdict *v = job->verdict;
	char line[LORA_ERROR_SIZE];

	if (signer(v)) {
		snprintf(line, sizeof(line), "%s%s%s%s", v->principal ? v->principal : "key ",
			 v->principal ? " (key " : "", v->key_id, v->principal ? ")" : "");
		text_line(out, "signer", line);
	}
	if (v->comment) {
		snprintf(line, sizeof(line), "%s", v->comment);
		for (char *tab = line; (tab = strchr(tab, '\t'));)
			*tab = ' ';
		text_line(out, "comment", line);
	}
	if (v->has_version) {
		snprintf(line, sizeof(line), "%llu of '%s'", (unsigned long long)v->version,
			 v->name);
		text_line(out, "version", line);
	}
	for (size_t i = 0; i < v->problem_count; i++)
		text_line(out, "problem", v->problems[i]);
}

/* ---- what a merged model is verified for */

static const char *skip_unless_merged(const struct verify_job *job)
{
	return job->kind == LORA_KIND_MERGED ? "this version of loractl does not verify it"
					     : "it is no merged model";
}

static const struct level levels[] = {
    {"signature", skip_never, run_signature, json_signature, text_signature},
    {"bytes", skip_unless_merged, NULL, NULL, NULL},
    {"modules", skip_unless_merged, NULL, NULL, NULL},
    {"logits", skip_unless_merged, NULL, NULL, NULL},
    {"latency", skip_unless_merged, NULL, NULL, NULL},
};
#define LEVELS (sizeof(levels) / sizeof(*levels))

/* ---- which of them */

/* Sets wanted[i] for every name in the list "NAME,NAME". */
static enum lora_status parse_levels(const char *list, bool wanted[LEVELS], struct lora_error *err)
{
	for (;; list++) {
		size_t size = strcspn(list, ","), i = 0;

		while (i < LEVELS &&
		       (strlen(levels[i].name) != size || memcmp(levels[i].name, list, size) != 0))
			i++;
		if (i == LEVELS)
			return opt_fail(err, LORA_USAGE,
					"'%.*s' is no level: signature, bytes, modules, logits, "
					"latency",
					(int)(size > 100 ? 100 : size), list);
		wanted[i] = true;
		list += size;
		if (!*list)
			return LORA_OK;
	}
}

/* ---- one path */

/* What became of the levels. */
struct outcome {
	const char *skipped[LEVELS]; /* why; NULL: it ran */
	bool passed[LEVELS];
};

static enum lora_status run_levels(struct verify_job *job, const bool *wanted,
				   struct outcome *outcome, struct lora_error *err)
{
	enum lora_status worst = LORA_OK;

	for (size_t i = 0; i < LEVELS; i++) {
		struct lora_error own = LORA_ERROR_INIT;
		enum lora_status status;

		outcome->skipped[i] = wanted && !wanted[i] ? "not asked for" : levels[i].skip(job);
		if (outcome->skipped[i] && wanted && wanted[i])
			return opt_fail(err, LORA_INPUT,
					"cannot verify the level '%s' of '%.200s': %s",
					levels[i].name, job->path, outcome->skipped[i]);
		if (outcome->skipped[i])
			continue;
		status = levels[i].run(job, &own);
		outcome->passed[i] = status == LORA_OK;
		if (status > worst)
			*err = own;
		worst = status > worst ? status : worst;
		if (worst > LORA_NO)
			break;
	}
	return worst;
}

static void report_json(struct lora_json_writer *w, const struct verify_job *job,
			const struct outcome *outcome, bool passed)
{
	lora_json_begin_object(w);
	lora_json_key(w, "schema");
	lora_json_string(w, "loractl.verify/1");
	lora_json_key(w, "path");
	lora_json_string(w, job->path);
	lora_json_key(w, "passed");
	lora_json_bool(w, passed);
	lora_json_key(w, "levels");
	lora_json_begin_object(w);
	for (size_t i = 0; i < LEVELS; i++) {
		lora_json_key(w, levels[i].name);
		lora_json_begin_object(w);
		if (outcome->skipped[i]) {
			lora_json_key(w, "skipped");
			lora_json_string(w, outcome->skipped[i]);
		} else {
			lora_json_key(w, "passed");
			lora_json_bool(w, outcome->passed[i]);
			levels[i].json(w, job);
		}
		lora_json_end_object(w);
	}
	lora_json_end_object(w);
	lora_json_end_object(w);
}

static void report_text(const struct verify_job *job, const struct outcome *outcome, bool passed)
{
	FILE *out = ui_out(job->ctx->ui);
	char buffer[LORA_ERROR_SIZE];

	fprintf(out, "%s: %s\n", ui_escape(job->path, buffer, sizeof(buffer)),
		passed ? "verified" : "NOT verified");
	for (size_t i = 0; i < LEVELS; i++) {
		if (outcome->skipped[i] && !job->ctx->verbose)
			continue;
		text_line(out, levels[i].name,
			  outcome->skipped[i]  ? outcome->skipped[i]
			  : outcome->passed[i] ? "passed"
					       : "failed");
		if (!outcome->skipped[i])
			levels[i].text(out, job);
	}
}

static enum lora_status verify(struct verify_job *job, const bool *wanted,
			       struct lora_json_writer *w, struct lora_error *err)
{
	struct outcome outcome = {{NULL}, {false}};
	enum lora_status status;

	if (lora_kind_of(job->path, &job->kind, NULL) != LORA_OK)
		job->kind = LORA_KIND_UNKNOWN;
	status = run_levels(job, wanted, &outcome, err);
	if (status <= LORA_NO && w)
		report_json(w, job, &outcome, status == LORA_OK);
	else if (status <= LORA_NO && !job->ctx->ui->quiet)
		report_text(job, &outcome, status == LORA_OK);
	lora_verdict_free(job->verdict);
	return status;
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *paths, size_t count)
{
	const struct verify_args *args = arguments;
	struct lora_json_writer *w = ctx->json ? lora_json_writer_new(LORA_JSON_PRETTY) : NULL;
	struct lora_error err = LORA_ERROR_INIT;
	bool wanted[LEVELS] = {false};
	enum lora_status status = LORA_OK, answer = LORA_OK;
	const char *text;
	size_t length;

	if (args->level)
		status = answer = parse_levels(args->level, wanted, &err);
	if (count > 1)
		lora_json_begin_array(w);
	for (size_t i = 0; i < count && status <= LORA_NO; i++) {
		struct verify_job job = {.ctx = ctx, .args = args, .path = paths[i]};

		if (status == LORA_NO) /* of the path before */
			ui_fail(ctx->ui, &err);
		status = verify(&job, args->level ? wanted : NULL, w, &err);
		answer = status ? status : answer;
	}
	if (count > 1)
		lora_json_end_array(w);
	if (ctx->json && status <= LORA_NO) {
		struct lora_error own = LORA_ERROR_INIT;

		if (lora_json_writer_text(w, &text, &length, &own))
			answer = status = ui_fail(ctx->ui, &own);
		else
			fputs(text, ui_out(ctx->ui));
	}
	lora_json_writer_free(w);
	if (status)
		ui_fail(ctx->ui, &err);
	return answer;
}

static const struct operand operands[] = {
    {
	.name = "PATH",
	.help = "a signed file or directory, a container, a public key",
	.hint = HINT_FILE,
	.repeats = true,
    },
    {.name = NULL},
};

static const struct opt opts[] = {
    {
	.kind = OPT_PATH,
	.letter = 'p',
	.name = "pub",
	.metavar = "NAME.pub",
	.help = "trust this key alone, for any name",
	.detail = "One that the keyring has revoked is refused all the same.",
	.otherwise = "the keyring",
	.at = offsetof(struct verify_args, pub),
	.hint = HINT_FILE,
    },
    {
	.kind = OPT_PATH,
	.name = "lock",
	.metavar = "loractl.lock",
	.help = "refuse what is older than, or other than, what FILE pins",
	.at = offsetof(struct verify_args, lock),
	.hint = HINT_FILE,
    },
    {
	.kind = OPT_STRING,
	.name = "level",
	.metavar = "LIST",
	.help = "of signature,bytes,modules,logits,latency: these, and no others",
	.detail = "A level that is named has to run: if it cannot, the exit status is 3.",
	.otherwise = "all that apply, but latency",
	.at = offsetof(struct verify_args, level),
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"by the keyring", "loractl verify adapter/"},
    {"by one key", "loractl verify adapter.safetensors -p release.pub"},
    {"against what was reviewed, in a pipeline",
     "loractl verify style.lora --lock loractl.lock --json"},
    {NULL, NULL},
};

const struct cmd cmd_verify = {
    .name = "verify",
    .summary = "Verify signatures, trust and versions",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct verify_args),
    .flags = CMD_REPORTS,
    .examples = examples,
    .run = run,
};
