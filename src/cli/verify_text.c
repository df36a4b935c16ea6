/* SPDX-License-Identifier: Apache-2.0 */
/* cli/verify_text.c - a merged model's levels for people: what was found, what it would cost to do
 * better */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "verify.h"

#define LOST	   0.05 /* noise from which on it is told where the update went */
#define WORST_TOLD 3
#define LINES_TOLD 10

static void say(FILE *out, const char *what, const char *format, ...) LORA_PRINTF(3, 4);

static void say(FILE *out, const char *what, const char *format, ...)
{
	char line[LORA_ERROR_SIZE];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	verify_line(out, what, line);
}

/* The next tensor, in descending order of noise, after `above`; NULL if there is none. */
static const struct lora_proof_tensor *next_worst(const struct lora_proof_tensor *t, size_t count,
						  const struct lora_proof_tensor *above)
{
	const struct lora_proof_tensor *next = NULL;

	for (size_t i = 0; i < count; i++)
		if (t[i].noise > 0 && (!above || t[i].noise < above->noise) &&
		    (!next || t[i].noise > next->noise))
			next = &t[i];
	return next;
}

/* Where the update went, and what --dtype would cost. */
static void tell_losses(FILE *out, const struct verify_job *job, const struct lora_proof_bytes *b)
{
	size_t count;
	const struct lora_proof_tensor *t = lora_proof_tensors(job->proof, &count), *worst = NULL;
	char size[UI_TEXT];

	for (size_t i = 0; i < WORST_TOLD && (worst = next_worst(t, count, worst)); i++)
		say(out, i ? "" : "lost most", "%s: noise %.3g %%, %.3g %% swallowed", worst->name,
		    100 * worst->noise, 100 * worst->unchanged);
	for (size_t i = 0; i < LORA_PROOF_TYPES; i++)
		say(out, i ? "" : "--dtype",
		    "%-4s would leave noise of %.3g %%, in %s of adapted weights",
		    lora_dtype_name(b->types[i].dtype), 100 * b->types[i].noise,
		    ui_size(b->types[i].bytes, size));
}

void verify_text_bytes(FILE *out, const struct verify_job *job)
{
	const struct lora_proof_bytes *b = lora_proof_bytes_result(job->proof);

	for (size_t i = 0; i < b->problem_count && i < LINES_TOLD; i++)
		verify_line(out, "problem", b->problems[i]);
	if (b->problem_count > LINES_TOLD)
		say(out, "problem", "... and %zu more (--json)", b->problem_count - LINES_TOLD);
	if (!b->tensors)
		return;
	say(out, "tensors", "%zu, %zu not as they should be%s", b->tensors, b->mismatched,
	    lora_proof_is_foreign(job->proof) ? "; another tool's merge: there is no receipt" : "");
	if (b->elements > b->off[0])
		say(out, "other bits",
		    "%" PRIu64 " of %" PRIu64 " adapted weights, by 1 value of their type %" PRIu64
		    ", 2: %" PRIu64 ", more: %" PRIu64 " (at most %" PRIu64 ")",
		    b->elements - b->off[0], b->elements, b->off[1], b->off[2], b->off[3],
		    b->max_ulp);
	if (isnan(b->noise))
		return;
	say(out, "rounding",
	    "|update| is %.3g %% of |W|; %.3g %% of it noise, %.3g %% of the weights unchanged",
	    100 * b->rho, 100 * b->noise, 100 * b->unchanged);
	if (b->noise > LOST || job->ctx->verbose)
		tell_losses(out, job, b);
}

void verify_text_modules(FILE *out, const struct verify_job *job)
{
	const struct lora_proof_modules *m = lora_proof_modules_result(job->proof);
	size_t count, told = 0;
	const struct lora_proof_tensor *t = lora_proof_tensors(job->proof, &count);

	for (size_t i = 0; i < count && told < LINES_TOLD; i++)
		if (t[i].module_problem) {
			say(out, "problem", "%s: %s", t[i].name, t[i].module_problem);
			told++;
		}
	if (m->module)
		say(out, "modules", "%zu; the nearest to its bound is %.3g off of %.3g: %s",
		    m->modules, m->worst, m->bound, m->module);
}

void verify_text_logits(FILE *out, const struct verify_job *job)
{
	const struct lora_proof_logits *l = lora_proof_logits_result(job->proof);

	if (!l->tokens)
		return;
	say(out, "KL", "%.3g a token, %.3g %% of what the adapter does (%.3g)", l->kl,
	    100 * l->kl / l->kl_adapter, l->kl_adapter);
	say(out, "logits",
	    "differ by %.3g at most, %.3g (RMS); the likeliest token agrees in %.4g %%", l->max_abs,
	    l->rms, 100 * l->top1_agreement);
	if (l->diverges)
		say(out, "greedy", "texts differ from token %" PRIu64 " on", l->first_divergence);
	else
		say(out, "greedy", "texts are the same, %zu tokens of %zu prompts", l->tokens,
		    l->prompts);
	if (!isnan(l->perplexity_merged))
		say(out, "perplexity", "%.6g merged, %.6g unmerged, %.6g base",
		    l->perplexity_merged, l->perplexity_unmerged, l->perplexity_base);
	if (l->has_reference)
		say(out, "reference",
		    "KL %.3g, %.3g %% of what the adapter does; logits %.3g (RMS)", l->reference_kl,
		    100 * l->reference_kl / l->reference_kl_adapter, l->reference_rms);
}

static void tell_interval(FILE *out, const char *what, const struct lora_proof_interval *interval,
			  const char *of)
{
	say(out, what, "%.4f [%.4f, %.4f] %s", interval->ratio, interval->low, interval->high, of);
}

void verify_text_latency(FILE *out, const struct verify_job *job)
{
	const struct lora_proof_latency *l = lora_proof_latency_result(job->proof);

	if (l->difference)
		verify_line(out, "structure", l->difference);
	else if (l->structural)
		say(out, "structure",
		    "the same tensors and the same %" PRIu64 " operations a token", l->operations);
	if (!l->rounds)
		return;
	tell_interval(out, "merged", &l->merged, "times the base");
	tell_interval(out, "control", &l->control, "merged again, times merged");
	tell_interval(out, "unmerged", &l->unmerged, "times the base");
}
