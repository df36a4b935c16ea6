/* SPDX-License-Identifier: Apache-2.0 */
/* cli/verify_merged.c - the levels of a merged model: opening the proof, running it, delivering it
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reference.h"
#include "verify.h"

bool verify_has_claim(const struct verify_args *args)
{
	return args->base && args->adapters.count > 0;
}

static struct lora_proof_options proof_options(const struct verify_job *job)
{
	const struct verify_args *args = job->args;
	struct lora_proof_options options = LORA_PROOF_OPTIONS_INIT;

	options.observer = job->ctx->observer;
	options.threads = job->ctx->threads;
	options.seed = args->seed;
	options.tokens = (size_t)args->tokens;
	options.prompts = args->prompts;
	options.reference = args->reference;
	options.max_kl = args->max_kl;
	options.margin = args->margin / 100;
	return options;
}

enum lora_status verify_open(struct verify_job *job, struct lora_error *err)
{
	const struct opt_list *list = &job->args->adapters;
	struct lora_proof_options options = proof_options(job);
	struct lora_proof_place *places = calloc(list->count, sizeof(*places));
	char **paths = calloc(list->count, sizeof(*paths));
	enum lora_status status =
	    places && paths ? LORA_OK : opt_fail(err, LORA_SYSTEM, "out of memory");

	for (size_t i = 0; i < list->count && !status; i++) {
		status = reference_split(list->item[i], &paths[i], &places[i].weight, err);
		places[i].path = paths[i];
	}
	if (!status)
		status = lora_proof_open(&job->proof, job->path, job->args->base, places,
					 list->count, &options, err);
	for (size_t i = 0; paths && i < list->count; i++)
		free(paths[i]);
	free(paths);
	free(places);
	return status;
}

void verify_close(struct verify_job *job)
{
	lora_proof_close(job->proof);
	job->proof = NULL;
}

const char *verify_skip_merged(const struct verify_job *job, const bool *wanted)
{
	(void)wanted;
	if (job->proof)
		return NULL;
	return job->kind == LORA_KIND_MERGED || job->kind == LORA_KIND_BASE
		   ? "it needs --base and --adapter, the places of what was merged"
		   : "it is no merged model";
}

const char *verify_skip_latency(const struct verify_job *job, const bool *wanted)
{
	if (!wanted && job->proof)
		return "it takes minutes: --level latency";
	return verify_skip_merged(job, wanted);
}

enum lora_status verify_run_bytes(struct verify_job *job, struct lora_error *err)
{
	return lora_proof_bytes(job->proof, err);
}

enum lora_status verify_run_modules(struct verify_job *job, struct lora_error *err)
{
	return lora_proof_modules(job->proof, err);
}

enum lora_status verify_run_logits(struct verify_job *job, struct lora_error *err)
{
	return lora_proof_logits(job->proof, err);
}

enum lora_status verify_run_latency(struct verify_job *job, struct lora_error *err)
{
	return lora_proof_latency(job->proof, err);
}

/* ---- delivering */

static const char *last_part(const char *path, char *buffer, size_t size)
{
	size_t length = strlen(path), begin;

	while (length > 1 && path[length - 1] == '/')
		length--;
	for (begin = length; begin > 0 && path[begin - 1] != '/'; begin--)
		;
	snprintf(buffer, size, "%.*s", (int)(length - begin), path + begin);
	return buffer;
}

enum lora_status verify_write_html(const struct verify_job *job, struct lora_error *err)
{
	char name[256], *text = NULL;
	enum lora_status status =
	    lora_proof_html(job->proof, last_part(job->path, name, sizeof(name)), &text, err);

	if (!status)
		status = lora_report_write(job->args->html, text, err);
	free(text);
	return status;
}

void verify_keep(struct verify_signer *signer, const struct verify_job *job)
{
	if (!job->proof)
		return;
	last_part(job->path, signer->name, sizeof(signer->name));
	signer->root = *lora_proof_merged_root(job->proof);
	signer->known = true;
}

enum lora_status verify_sign(const struct verify_signer *signer, const struct verify_args *args,
			     const char *report, struct lora_error *err)
{
	struct lora_subject subject = {signer->name, LORA_DIGEST_ROOT, signer->root};
	size_t length = strlen(args->report), room = length + sizeof(".intoto.json");
	bool json = length > 5 && strcmp(args->report + length - 5, ".json") == 0;
	char *path = malloc(room), *envelope = NULL;
	enum lora_status status = path ? LORA_OK : opt_fail(err, LORA_SYSTEM, "out of memory");

	if (!status && !signer->known)
		status = opt_fail(err, LORA_INPUT, "there is no merged model to sign for");
	if (!status)
		status = lora_attest_report(&envelope, report, &subject, 1, signer->key, err);
	if (!status) {
		snprintf(path, room, "%.*s.intoto.json", (int)(json ? length - 5 : length),
			 args->report);
		status = lora_report_write(path, envelope, err);
	}
	free(envelope);
	free(path);
	return status;
}
