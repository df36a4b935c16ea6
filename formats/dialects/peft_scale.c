/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialects/peft_scale.c - r, alpha and s of a module.
 *
 *	s = alpha / r		or, with use_rslora,	alpha / sqrt(r)
 *
 * in double precision. r and alpha are the config's, unless rank_pattern or alpha_pattern
 * (independently) have a key for the module. `from` says in words where they come from. A key
 * that would have given another value, had it stood first, is reported once: PEFT sorts the keys
 * when it saves, so that the order at training time may have been another. */
#include "formats/dialects/peft.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static enum lora_status look_up(struct peft *peft, struct peft_patterns *patterns, const char *what,
				const char *name, int *entry, struct lora_error *err)
{
	enum lora_status status;
	int clash;

	status = lora__peft_patterns_match(patterns, name, entry, &clash, err);
	if (status || clash < 0 || !lora__peft_patterns_first(patterns, clash))
		return status;
	return lora__decode_note(
	    peft->decode, LORA_NOTE_WARNING, err,
	    "%s: module '%s' matches '%s' (%g) and '%s' (%g): the first applies", what,
	    lora__escape(name), lora__escape(lora__peft_patterns_key(patterns, *entry)),
	    lora__peft_patterns_value(patterns, *entry),
	    lora__escape(lora__peft_patterns_key(patterns, clash)),
	    lora__peft_patterns_value(patterns, clash));
}

static enum lora_status describe(struct peft *peft, int rank, int alpha, const char **out,
				 struct lora_error *err)
{
	char r[256] = "", a[256] = "";

	if (rank >= 0)
		snprintf(r, sizeof(r), ", rank_pattern '%s'",
			 lora__escape(lora__peft_patterns_key(peft->rank, rank)));
	else if (peft->config.r_missing)
		snprintf(r, sizeof(r), ", r by default");
	if (alpha >= 0)
		snprintf(a, sizeof(a), ", alpha_pattern '%s'",
			 lora__escape(lora__peft_patterns_key(peft->alpha, alpha)));
	else if (peft->config.alpha_missing)
		snprintf(a, sizeof(a), ", alpha by default");
	if (!*r && !*a)
		*out = peft->config.rslora ? "alpha/sqrt(r)" : "alpha/r";
	else
		*out = lora__arena_printf(peft->decode->arena, "%s%s%s",
					  peft->config.rslora ? "alpha/sqrt(r)" : "alpha/r", r, a);
	return *out ? LORA_OK : lora__fail_memory(err);
}

enum lora_status lora__peft_scale(struct peft *peft, const char *name, struct peft_scale *out,
				  struct lora_error *err)
{
	enum lora_status status;
	int rank, alpha;
	double r;

	status = look_up(peft, peft->rank, "rank_pattern", name, &rank, err);
	if (!status)
		status = look_up(peft, peft->alpha, "alpha_pattern", name, &alpha, err);
	if (status)
		return status;
	r = rank >= 0 ? lora__peft_patterns_value(peft->rank, rank) : peft->config.r;
	out->alpha =
	    alpha >= 0 ? lora__peft_patterns_value(peft->alpha, alpha) : peft->config.alpha;
	if (!(r >= 1 && r <= PEFT_RANK_LIMIT) || r != floor(r))
		return lora__fail(
		    err, LORA_INPUT, "rank_pattern: the value of '%s' is not a rank from 1 to %u",
		    lora__escape(lora__peft_patterns_key(peft->rank, rank)), PEFT_RANK_LIMIT);
	out->rank = (uint32_t)r;
	out->divisor = peft->config.rslora ? sqrt(r) : r;
	out->s = out->alpha / out->divisor;
	if (!isfinite((float)out->s) || ((float)out->s == 0 && out->alpha != 0))
		return lora__fail(err, LORA_INPUT,
				  "module '%s': the scale %g (alpha %g, r %u) is no usable number",
				  lora__escape(name), out->s, out->alpha, out->rank);
	return describe(peft, rank, alpha, &out->from, err);
}

static enum lora_status notes_of(struct peft *peft, struct peft_patterns *patterns,
				 const char *what, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (int i = 0; i < lora__peft_patterns_count(patterns) && !status; i++)
		if (!lora__peft_patterns_used(patterns, i))
			status = lora__decode_note(
			    peft->decode, LORA_NOTE_WARNING, err, "%s: '%s' matches no module",
			    what, lora__escape(lora__peft_patterns_key(patterns, i)));
	return status;
}

enum lora_status lora__peft_scale_notes(struct peft *peft, struct lora_error *err)
{
	enum lora_status status = notes_of(peft, peft->rank, "rank_pattern", err);

	return status ? status : notes_of(peft, peft->alpha, "alpha_pattern", err);
}
