/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_verify.c - `loractl verify`: everything that can be proved about what it is given
 *
 * A level is a row of `levels`: its name, why it does not apply (if so), the work, and how its
 * result is told. Rows are run in order; the report has one entry for each. A level that is named
 * with --level has to run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include "verify.h"

/* ---- signature: integrity, trust, rollback */

/* Does a signature stand in it, or beside it? */
static bool has_signature(const char *path)
{
	static const char *const places[] = {"%s/loractl-files.json",
					     "%s/loractl-files.json.minisig", "%s.minisig"};
	bool found = false;

	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		size_t room = strlen(path) + 40;
		char *place = malloc(room);

		if (!place)
			return true;
		snprintf(place, room, places[i], path);
		found = found || access(place, F_OK) == 0;
		free(place);
	}
	return found;
}

/* What is verified by its numbers need not be signed, unless somebody says by whom. */
static const char *skip_signature(const struct verify_job *job, const bool *wanted)
{
	const struct verify_args *args = job->args;

	(void)wanted;
	if (!verify_has_claim(args) || args->pub || args->lock || has_signature(job->path))
		return NULL;
	return "it is not signed";
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

void verify_line(FILE *out, const char *what, const char *text)
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
		verify_line(out, "signer", line);
	}
	if (v->comment) {
		snprintf(line, sizeof(line), "%s", v->comment);
		for (char *tab = line; (tab = strchr(tab, '\t'));)
			*tab = ' ';
		verify_line(out, "comment", line);
	}
	if (v->has_version) {
		snprintf(line, sizeof(line), "%llu of '%s'", (unsigned long long)v->version,
			 v->name);
		verify_line(out, "version", line);
	}
	for (size_t i = 0; i < v->problem_count; i++)
		verify_line(out, "problem", v->problems[i]);
}

/* ---- all of them */

static const struct level levels[] = {
    {"signature", skip_signature, run_signature, json_signature, text_signature},
    {"bytes", verify_skip_merged, verify_run_bytes, verify_json_bytes, verify_text_bytes},
    {"modules", verify_skip_merged, verify_run_modules, verify_json_modules, verify_text_modules},
    {"logits", verify_skip_merged, verify_run_logits, verify_json_logits, verify_text_logits},
    {"latency", verify_skip_latency, verify_run_latency, verify_json_latency, verify_text_latency},
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
	char unsupported[LORA_ERROR_SIZE]; /* why the engine cannot run the model */
	bool undecided; /* the last level ran and cannot tell: the others are told all the same */
};

/* Does a level that was not named fail because the model is of a kind that it is not for? */
static bool cannot(const struct verify_job *job, const bool *wanted, enum lora_status status)
{
	return status == LORA_INPUT && !wanted && job->proof && lora_proof_unsupported(job->proof);
}

static enum lora_status run_levels(struct verify_job *job, const bool *wanted,
				   struct outcome *outcome, struct lora_error *err)
{
	enum lora_status worst = LORA_OK;
	size_t ran = 0;

	for (size_t i = 0; i < LEVELS; i++) {
		struct lora_error own = LORA_ERROR_INIT;
		enum lora_status status;

		outcome->skipped[i] =
		    wanted && !wanted[i] ? "not asked for" : levels[i].skip(job, wanted);
		if (outcome->skipped[i] && wanted && wanted[i])
			return opt_fail(err, LORA_INPUT,
					"cannot verify the level '%s' of '%.200s': %s",
					levels[i].name, job->path, outcome->skipped[i]);
		if (outcome->skipped[i])
			continue;
		status = levels[i].run(job, &own);
		if (cannot(job, wanted, status)) {
			snprintf(outcome->unsupported, sizeof(outcome->unsupported), "%s",
				 own.message);
			outcome->skipped[i] = outcome->unsupported;
			continue;
		}
		ran++;
		outcome->passed[i] = status == LORA_OK;
		if (status > worst)
			*err = own;
		worst = status > worst ? status : worst;
		outcome->undecided = status == LORA_INPUT && i == LEVELS - 1 && job->proof &&
				     lora_proof_latency_result(job->proof);
		if (worst > LORA_NO)
			break;
	}
	if (!ran)
		return opt_fail(err, LORA_INPUT, "nothing about '%.200s' could be verified: %s",
				job->path, outcome->skipped[1]);
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
	if (job->proof)
		verify_json_claim(w, job);
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
	if (job->proof)
		verify_json_tensors(w, job);
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
		verify_line(out, levels[i].name,
			    outcome->skipped[i]	 ? outcome->skipped[i]
			    : outcome->passed[i] ? "passed"
						 : "failed");
		if (!outcome->skipped[i])
			levels[i].text(out, job);
	}
}

static enum lora_status verify(struct verify_job *job, const bool *wanted,
			       struct lora_json_writer *w, struct lora_error *err)
{
	struct outcome outcome = {.passed = {false}};
	struct lora_error own = LORA_ERROR_INIT;
	enum lora_status status = LORA_OK, written = LORA_OK;

	if (lora_kind_of(job->path, &job->kind, NULL) != LORA_OK)
		job->kind = LORA_KIND_UNKNOWN;
	if (verify_has_claim(job->args))
		status = verify_open(job, err);
	if (!status)
		status = run_levels(job, wanted, &outcome, err);
	job->told = status <= LORA_NO || outcome.undecided;
	if (job->told && w)
		report_json(w, job, &outcome, status == LORA_OK);
	if (job->told && !job->ctx->json && !job->ctx->ui->quiet)
		report_text(job, &outcome, status == LORA_OK);
	if (job->told && job->args->html)
		written = verify_write_html(job, &own);
	if (written && status) /* both are said */
		ui_fail(job->ctx->ui, err);
	if (written)
		*err = own;
	lora_verdict_free(job->verdict);
	return written ? written : status;
}

/* The document is whole: to stdout, to a file, signed. */
static enum lora_status deliver(const struct cmd_ctx *ctx, const struct verify_args *args,
				struct lora_json_writer *w, const struct verify_signer *signer,
				struct lora_error *err)
{
	const char *text;
	size_t length;
	enum lora_status status = lora_json_writer_text(w, &text, &length, err);

	if (!status && ctx->json)
		fputs(text, ui_out(ctx->ui));
	if (!status && args->report)
		status = lora_report_write(args->report, text, err);
	if (!status && args->sign)
		status = verify_sign(signer, args, text, err);
	return status;
}

/* Options that are about one merged model. */
static enum lora_status check_args(const struct verify_args *args, size_t count,
				   struct lora_error *err)
{
	bool claim = args->base || args->adapters.count;

	if (claim && !verify_has_claim(args))
		return opt_fail(err, LORA_USAGE,
				args->base
				    ? "--base without --adapter: a merge is base + adapters"
				    : "--adapter without --base: a merge is base + adapters");
	if ((claim || args->report || args->html) && count > 1)
		return opt_fail(
		    err, LORA_USAGE,
		    "%s is about one path, and %zu are given: verify them one at a time",
		    claim	   ? "--base"
		    : args->report ? "--report"
				   : "--html",
		    count);
	if (args->html && !claim)
		return opt_fail(err, LORA_USAGE, "--html shows a proof: add --base and --adapter");
	if (args->sign && (!args->report || !claim))
		return opt_fail(err, LORA_USAGE, "--sign signs the report of a proof: add %s",
				args->report ? "--base and --adapter" : "--report");
	return LORA_OK;
}

static enum lora_status run_paths(const struct cmd_ctx *ctx, const struct verify_args *args,
				  const char *const *paths, size_t count,
				  struct verify_signer *signer, struct lora_error *err)
{
	struct lora_json_writer *w =
	    ctx->json || args->report ? lora_json_writer_new(LORA_JSON_PRETTY) : NULL;
	bool wanted[LEVELS] = {false};
	enum lora_status status = LORA_OK, answer = LORA_OK;
	bool told = true;

	if (args->level)
		status = answer = parse_levels(args->level, wanted, err);
	if (count > 1)
		lora_json_begin_array(w);
	for (size_t i = 0; i < count && status <= LORA_NO; i++) {
		struct verify_job job = {.ctx = ctx, .args = args, .path = paths[i]};

		if (status == LORA_NO) /* of the path before */
			ui_fail(ctx->ui, err);
		status = verify(&job, args->level ? wanted : NULL, w, err);
		answer = status ? status : answer;
		told = job.told;
		verify_keep(signer, &job);
		verify_close(&job);
	}
	if (count > 1)
		lora_json_end_array(w);
	if ((ctx->json || args->report) && told && status != LORA_USAGE) {
		struct lora_error own = LORA_ERROR_INIT;

		if (deliver(ctx, args, w, signer, &own))
			answer = ui_fail(ctx->ui, &own);
	}
	lora_json_writer_free(w);
	if (status)
		ui_fail(ctx->ui, err);
	return answer;
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *paths, size_t count)
{
	const struct verify_args *args = arguments;
	struct verify_signer signer = {.key = NULL};
	struct lora_error err = LORA_ERROR_INIT;
	enum lora_status status = check_args(args, count, &err);

	if (!status && args->sign)
		status = merge_trust_key(ctx, &signer.key, args->sign, args->fd, &err);
	if (status)
		return ui_fail(ctx->ui, &err);
	status = run_paths(ctx, args, paths, count, &signer, &err);
	merge_trust_done(signer.key);
	return status;
}

static const struct operand operands[] = {
    {
	.name = "PATH",
	.help = "a merged model, a signed file or directory, a container, a public key",
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
    VERIFY_MERGED_OPTS,
    PASSPHRASE_OPT(offsetof(struct verify_args, fd)),
    {.name = NULL},
};

static const struct example examples[] = {
    {"by the keyring", "loractl verify adapter/"},
    {"by one key", "loractl verify adapter.safetensors -p release.pub"},
    {"against what was reviewed, in a pipeline",
     "loractl verify style.lora --lock loractl.lock --json"},
    {"is this merged model base + adapter?",
     "loractl verify merged/ --base base/ --adapter adapter/"},
    {"the same, with a page to read",
     "loractl verify merged/ --base base/ --adapter adapter/ --html r.html"},
    {NULL, NULL},
};

const struct cmd cmd_verify = {
    .name = "verify",
    .summary = "Verify signatures, and that a merged model is base + adapters",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct verify_args),
    .flags = CMD_REPORTS,
    .examples = examples,
    .run = run,
};
