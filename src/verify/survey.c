/* SPDX-License-Identifier: Apache-2.0 */
/* verify/survey.c - one pass over all tensors: each row as the plain reference kernel makes it
 * (merge/check.h), beside the row that is there.
 *
 * 1. A tensor's facts depend on that tensor alone: the same for every number of threads.
 * 2. Ours has to have the bits. A foreign tensor with other bits is looked at once more, by
 *    merge/explain.h, which knows what honest rounding may do.
 *    That allows for an update that was rounded before it was added. Whoever does that does it
 *    everywhere: in 16 bits it shows in about `twice` elements. Where far fewer are `odd`, more
 * than one rounding away from W + D, nobody did it, and these are wrong: one flipped bit is seen.
 * 3. Untouched bytes are the base's; in a foreign model they may stand in another type, each value
 *    rounded once.
 */
#include "verify/proof.h"

#include "adapter/diff.h"
#include "base/error.h"
#include "base/pool.h"
#include "base/watch.h"
#include "verify/probe.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP	      ((size_t)1 << 18) /* elements of an untouched tensor at a time */
#define STRENGTH_SLIP 1e-3		/* loractl/verify.h, modules */
#define SIGMAS	      5.0

static const enum lora_dtype types[LORA_PROOF_TYPES] = {LORA_DTYPE_F32, LORA_DTYPE_F16,
							LORA_DTYPE_BF16};

/* Sums over the elements of one tensor, or of all. */
struct tally {
	struct lora_stats by_type[LORA_PROOF_TYPES];
	double d2, w2, e2;
	uint64_t nonzero, unchanged, off[4], elements;
	double twice;		 /* foreign: how many elements a rounded update would leave odd */
	uint64_t odd, first_odd; /* how many are; the first */
};

struct survey {
	struct lora_proof *proof;
	const struct lora_item **items;
	struct tally *tallies; /* by item */
	size_t count;
	struct lora_scratch *scratch; /* by worker */
	unsigned workers;
	struct lora_watch watch;
};

/* One adapted tensor under way. */
struct look {
	struct survey *survey;
	const struct lora_job *job;
	struct lora_proof_tensor *tensor;
	struct tally *tally;
	struct lora_probe *probe; /* NULL: no update that could be probed */
	float *delta;		  /* [width] */
	uint8_t *rounded;	  /* [LORA_STAT_SPAN] of any type */
	bool has_first;
	uint64_t first; /* element with other bits */
};

static enum lora_status say(const char **where, const char *text, struct lora_error *err)
{
	char *copy = strdup(text);

	if (!copy)
		return lora__fail_memory(err);
	free((void *)*where);
	*where = copy;
	return LORA_OK;
}

/* ---- adapted tensors */

static bool is_narrow(const struct look *look)
{
	return !look->survey->proof->receipt && look->job->out_type != LORA_DTYPE_F32;
}

/* Foreign, of 16 bits [2]. What another order of summation loses in f32 is less than `lost`. */
static void count_odd(struct look *look, const struct lora_check_row *row)
{
	enum lora_dtype type = look->job->out_type;
	double u = type == LORA_DTYPE_F16 ? 0x1p-11 : 0x1p-8, most = 0, lost;

	for (size_t j = 0; j < row->width; j++)
		most = fmax(most, fabs((double)look->delta[j]));
	lost = 4 * (look->tensor->rank + 3) * 0x1p-23 * most;
	for (size_t j = 0; j < row->width; j++) {
		double value = (double)row->value[j], found = lora__value_at(row->written, type, j),
		       ulp = lora__value_ulp(fmax(fabs(value), fabs(found)), type);

		look->tally->twice += ulp > 0 ? u * fabs((double)look->delta[j]) / (4 * ulp) : 0;
		if (fabs(found - value) <= ulp / 2 + lost)
			continue;
		if (look->tally->odd++ == 0)
			look->tally->first_odd = row->number * row->width + j;
	}
}

/* What is there, and what would be there in each of the types. */
static void count_row(struct look *look, const struct lora_check_row *row)
{
	const struct lora_kern *kern = lora__kern(NULL);
	struct tally *tally = look->tally;
	bool plain = !look->job->dora;

	for (size_t j = 0; j < row->width; j++) {
		double w = (double)row->before[j],
		       d = plain ? (double)row->update[j] : (double)row->value[j] - w,
		       found = lora__value_at(row->written, look->job->out_type, j),
		       e = found - (w + d);

		look->delta[j] = (float)d;
		tally->d2 += d * d;
		tally->w2 += w * w;
		tally->e2 += e * e;
		tally->nonzero += d < 0 || d > 0;
		tally->unchanged += (d < 0 || d > 0) && !(found < w || found > w);
	}
	for (size_t at = 0; at < row->width; at += LORA_STAT_SPAN) {
		size_t n = row->width - at < LORA_STAT_SPAN ? row->width - at : LORA_STAT_SPAN;

		for (size_t k = 0; k < LORA_PROOF_TYPES; k++)
			kern->apply(look->rounded, types[k], row->before + at, LORA_DTYPE_F32,
				    look->delta + at, n, &tally->by_type[k]);
	}
}

/* The elements with other bits. */
static void compare_row(struct look *look, const struct lora_check_row *row)
{
	enum lora_dtype type = look->job->out_type;
	size_t size = lora_dtype_bits(type) / 8;

	look->tally->elements += row->width;
	if (memcmp(row->expected, row->written, row->bytes) == 0) {
		look->tally->off[0] += row->width;
		return;
	}
	for (size_t j = 0; j < row->width; j++) {
		uint64_t apart = lora__values_apart(row->expected, row->written, type, j);

		look->tally->off[apart > 3 ? 3 : apart]++;
		if (memcmp(row->expected + j * size, row->written + j * size, size) == 0)
			continue;
		if (!look->has_first)
			look->first = row->number * row->width + j;
		look->has_first = true;
		look->tensor->different++;
		if (apart > look->tensor->max_ulp)
			look->tensor->max_ulp = apart;
	}
}

static enum lora_status visit(void *user, const struct lora_check_row *row, struct lora_error *err)
{
	struct look *look = user;
	enum lora_status status = lora__watch_add(&look->survey->watch, row->bytes, err);

	compare_row(look, row);
	if (!status && look->probe) {
		count_row(look, row);
		if (is_narrow(look))
			count_odd(look, row);
		status = lora__probe_row(look->probe, row, err);
	}
	return status;
}

static double ratio(double a, double b)
{
	return b > 0 ? sqrt(a / b) : NAN;
}

static double share(uint64_t part, uint64_t whole)
{
	return whole ? (double)part / (double)whole : NAN;
}

static void tell_types(const struct tally *tally, struct lora_proof_type *out)
{
	for (size_t k = 0; k < LORA_PROOF_TYPES; k++)
		out[k] = (struct lora_proof_type){
		    types[k], ratio(tally->by_type[k].e2, tally->by_type[k].d2),
		    share(tally->by_type[k].unchanged, tally->by_type[k].nonzero),
		    tally->elements * (lora_dtype_bits(types[k]) / 8)};
}

/* What the probe found, as the tensor's own numbers. */
static enum lora_status judge_module(struct look *look, struct lora_error *err)
{
	struct lora_proof_tensor *t = look->tensor;
	const struct lora_probe *probe = look->probe;
	char text[LORA_ERROR_SIZE];
	double k;

	lora__probe_strength(probe, &k, &t->strength_error);
	t->strength = 1 + k;
	t->worst = probe->worst;
	t->bound = probe->bound;
	if (!(probe->worst <= probe->bound))
		snprintf(text, sizeof(text),
			 "row %" PRIu64 ": W'x is %.3g away from Wx + s*B(Ax), and rounding "
			 "explains %.3g",
			 probe->row, probe->worst, probe->bound);
	else if (!(fabs(k) <= fmax(STRENGTH_SLIP, SIGMAS * t->strength_error)))
		snprintf(text, sizeof(text),
			 "the update is %.3g times the adapter's, by %.0f standard errors",
			 t->strength,
			 t->strength_error > 0 ? fabs(k) / t->strength_error : INFINITY);
	else
		return LORA_OK;
	return say(&t->module_problem, text, err);
}

static void tell_tensor(const struct look *look)
{
	struct lora_proof_tensor *t = look->tensor;
	const struct tally *tally = look->tally;

	t->rho = ratio(tally->d2, tally->w2);
	t->unchanged = share(tally->unchanged, tally->nonzero);
	t->noise = ratio(tally->e2, tally->d2);
	tell_types(tally, t->types);
}

static enum lora_status rows_of(struct look *look, struct lora_job *job,
				const struct lora_tensor *found, unsigned worker,
				struct lora_error *err)
{
	struct lora_proof *proof = look->survey->proof;
	size_t parts;
	struct lora_probe probe = {0};
	enum lora_status status = lora__job_load(&proof->plan, job, err);

	(void)lora__job_parts(job, &parts);
	if (!status && job->dora)
		status = lora__job_gain(&proof->plan, job, &look->survey->scratch[worker], err);
	if (!status && parts) {
		look->probe = &probe;
		status = lora__probe_init(&probe, &proof->plan, job, proof->options.seed,
					  !proof->receipt, err);
	}
	if (!status)
		status =
		    lora__check_rows(&proof->plan, job, proof->merged, found, visit, look, err);
	if (!status && parts)
		status = judge_module(look, err);
	if (!status && parts)
		tell_tensor(look);
	if (look->probe)
		lora__probe_fini(&probe);
	look->probe = NULL;
	lora__job_unload(job);
	free(job->gain);
	job->gain = NULL;
	return status;
}

/* Other bits than the contract's [2]. */
static enum lora_status judge_bits(struct look *look, const struct lora_item *item, unsigned worker,
				   struct lora_error *err)
{
	struct lora_proof *proof = look->survey->proof;
	char text[LORA_ERROR_SIZE];

	if (!look->tensor->different)
		return LORA_OK;
	if (!proof->receipt)
		return lora__explain_item(&proof->plan, item, proof->merged,
					  &look->survey->scratch[worker],
					  (char **)&look->tensor->problem, err);
	snprintf(text, sizeof(text),
		 "%" PRIu64 " of %" PRIu64 " elements are not those of the merge, [%" PRIu64
		 ", %" PRIu64 "] is the first",
		 look->tensor->different, look->job->elements, look->first / look->job->width,
		 look->first % look->job->width);
	return say(&look->tensor->problem, text, err);
}

static bool has_shape(const struct lora_tensor *t, const struct lora_job *job)
{
	return t->ndim == job->ndim &&
	       memcmp(t->shape, job->shape, job->ndim * sizeof(job->shape[0])) == 0;
}

/* A job's tensor that is not computed, or that cannot be: LORA_OK with a problem. */
static enum lora_status odd_job(struct survey *s, struct lora_job *job,
				const struct lora_tensor *found, struct lora_proof_tensor *t,
				struct lora_error *err)
{
	char text[LORA_ERROR_SIZE];

	if (!has_shape(found, job))
		return say(&t->problem, "it does not have the shape that the merge gives it", err);
	if (!s->proof->receipt && lora__values_known(found->dtype)) {
		job->out_type = found->dtype;
		return LORA_OK;
	}
	if (found->dtype == job->out_type)
		return LORA_OK;
	snprintf(text, sizeof(text), "it is %s, and the merge makes it %s",
		 lora_dtype_name(found->dtype), lora_dtype_name(job->out_type));
	return say(&t->problem, text, err);
}

static enum lora_status survey_job(struct survey *s, size_t i, const struct lora_tensor *found,
				   unsigned worker, struct lora_error *err)
{
	const struct lora_item *item = s->items[i];
	struct lora_job *job = item->job;
	struct lora_proof_tensor *t = &s->proof->tensors[i];
	struct look look = {.survey = s, .job = job, .tensor = t, .tally = &s->tallies[i]};
	enum lora_status status = odd_job(s, job, found, t, err);

	if (status || t->problem)
		return status;
	look.delta = malloc(((size_t)job->width + 1) * sizeof(*look.delta));
	look.rounded = malloc((size_t)LORA_STAT_SPAN * 4);
	status = look.delta && look.rounded ? rows_of(&look, job, found, worker, err)
					    : lora__fail_memory(err);
	if (!status)
		status = judge_bits(&look, item, worker, err);
	free(look.delta);
	free(look.rounded);
	return status;
}

/* ---- untouched ones */

/* n elements of the base in the type that was found; `wide` is scratch. */
static void cast(void *out, enum lora_dtype to, const void *in, enum lora_dtype from, float *wide,
		 size_t n)
{
	lora__widen(&lora__kern_generic, wide, in, from, n);
	lora__narrow(&lora__kern_generic, out, to, wide, n);
}

/* The number of the first element that differs; UINT64_MAX if none does. */
static enum lora_status first_other(struct survey *s, const struct lora_tensor *base,
				    const struct lora_tensor *found, uint64_t *first,
				    struct lora_error *err)
{
	bool casts = base->dtype != found->dtype;
	size_t in = casts ? lora_dtype_bits(base->dtype) / 8 : 1,
	       out = casts ? lora_dtype_bits(found->dtype) / 8 : 1;
	uint64_t units = found->size / out; /* bytes, where nothing is cast */
	uint8_t *a = malloc(STEP * in), *b = malloc(STEP * out), *c = malloc(STEP * out);
	float *wide = malloc(STEP * sizeof(float));
	enum lora_status status = a && b && c && wide ? LORA_OK : lora__fail_memory(err);

	*first = UINT64_MAX;
	for (uint64_t at = 0; at < units && !status && *first == UINT64_MAX; at += STEP) {
		size_t n = units - at < STEP ? (size_t)(units - at) : STEP;

		status = lora_model_read(s->proof->base, base, at * in, a, n * in, err);
		if (!status)
			status =
			    lora_model_read(s->proof->merged, found, at * out, b, n * out, err);
		if (!status && casts)
			cast(c, found->dtype, a, base->dtype, wide, n);
		else if (!status)
			memcpy(c, a, n);
		for (size_t k = 0; k < n && !status && *first == UINT64_MAX; k++)
			if (memcmp(b + k * out, c + k * out, out) != 0)
				*first =
				    casts ? at + k : (at + k) * 8 / lora_dtype_bits(found->dtype);
		if (!status)
			status = lora__watch_add(&s->watch, n * out, err);
	}
	free(a);
	free(b);
	free(c);
	free(wide);
	return status;
}

static bool may_cast(const struct lora_proof *proof, const struct lora_tensor *base,
		     const struct lora_tensor *found)
{
	return !proof->receipt && lora__values_known(base->dtype) &&
	       lora__values_known(found->dtype); /* [3] */
}

static enum lora_status survey_untouched(struct survey *s, const struct lora_item *item,
					 const struct lora_tensor *found,
					 struct lora_proof_tensor *t, struct lora_error *err)
{
	const struct lora_tensor *base = item->base;
	char text[LORA_ERROR_SIZE];
	uint64_t first;
	enum lora_status status;

	if (base->ndim != found->ndim ||
	    memcmp(base->shape, found->shape, base->ndim * sizeof(base->shape[0])) != 0)
		return say(&t->problem, "it does not have the base's shape", err);
	if (base->dtype != found->dtype && !may_cast(s->proof, base, found))
		return say(&t->problem, "it does not have the base's type", err);
	status = first_other(s, base, found, &first, err);
	if (status || first == UINT64_MAX)
		return status;
	snprintf(text, sizeof(text),
		 "no adapter touches it, and it is not the base's: element %" PRIu64
		 " is the first that differs",
		 first);
	return say(&t->problem, text, err);
}

/* ---- all of them */

static int layer_of(const char *name)
{
	for (; *name; name++)
		if (name[0] == '.' && name[1] >= '0' && name[1] <= '9')
			return (int)strtol(name + 1, NULL, 10);
	return -1;
}

static void describe(struct lora_proof_tensor *t, const struct lora_item *item,
		     const struct lora_tensor *found)
{
	const struct lora_job *job = item->job;

	t->name = item->name;
	t->layer = layer_of(item->name);
	t->dtype = found ? found->dtype : LORA_DTYPE_NONE;
	t->elements = found ? found->elements : 0;
	t->rho = t->unchanged = t->noise = t->worst = t->bound = t->strength = NAN;
	if (!job)
		return;
	t->kind = lora__edit_kind_name(lora__job_lead(job)->edit->kind);
	t->rank = lora__job_rank(job);
	t->scale = (double)lora__job_lead(job)->s;
}

static enum lora_status survey_item(void *user, size_t i, unsigned worker, struct lora_error *err)
{
	struct survey *s = user;
	const struct lora_item *item = s->items[i];
	struct lora_proof_tensor *t = &s->proof->tensors[i];
	const struct lora_tensor *found = lora_model_find(s->proof->merged, item->name);

	describe(t, item, found);
	if (!found)
		return say(&t->problem, "it is not in the merged model", err);
	if (item->job && item->job->raw)
		return lora__explain_item(&s->proof->plan, item, s->proof->merged,
					  &s->scratch[worker], (char **)&t->problem, err);
	if (item->job)
		return survey_job(s, i, found, worker, err);
	return survey_untouched(s, item, found, t, err);
}

static void add_tally(struct tally *total, const struct tally *more)
{
	for (size_t k = 0; k < LORA_PROOF_TYPES; k++)
		lora__stats_add(&total->by_type[k], &more->by_type[k]);
	total->d2 += more->d2;
	total->w2 += more->w2;
	total->e2 += more->e2;
	total->nonzero += more->nonzero;
	total->unchanged += more->unchanged;
	total->elements += more->elements;
	total->twice += more->twice;
	total->odd += more->odd;
	for (size_t k = 0; k < 4; k++)
		total->off[k] += more->off[k];
}

/* The arena takes a problem's text. */
static enum lora_status adopt(struct lora_proof *proof, const char **text, struct lora_error *err)
{
	char *copy = *text ? lora__arena_copy(&proof->arena, *text, strlen(*text)) : NULL;
	enum lora_status status = *text && !copy ? lora__fail_memory(err) : LORA_OK;

	free((void *)*text);
	*text = copy;
	return status;
}

#define TELLING 50 /* odd elements that are expected, for one that is there */

/* [2] Elements that are odd although nobody rounded twice. */
static enum lora_status judge_odd(struct survey *s, struct lora_error *err)
{
	struct tally total = {0};
	enum lora_status status = LORA_OK;
	char text[LORA_ERROR_SIZE];

	for (size_t i = 0; i < s->count; i++)
		add_tally(&total, &s->tallies[i]);
	if (!((double)total.odd * TELLING < total.twice))
		return LORA_OK;
	for (size_t i = 0; i < s->count && !status; i++) {
		const struct tally *t = &s->tallies[i];
		const struct lora_job *job = s->items[i]->job;

		if (!t->odd || s->proof->tensors[i].problem)
			continue;
		snprintf(text, sizeof(text),
			 "%" PRIu64 " elements are not what base + adapters round to, [%" PRIu64
			 ", %" PRIu64 "] is the first",
			 t->odd, t->first_odd / job->width, t->first_odd % job->width);
		status = say(&s->proof->tensors[i].problem, text, err);
	}
	return status;
}

/* Facts of all tensors into the results; the list keeps those that are told. */
static enum lora_status sum_up(struct survey *s, enum lora_status status, struct lora_error *err)
{
	struct lora_proof *proof = s->proof;
	struct lora_proof_bytes *b = &proof->bytes;
	struct tally total = {0};
	size_t kept = 0;

	b->tensors = s->count;
	for (size_t i = 0; i < s->count; i++) {
		struct lora_proof_tensor *t = &proof->tensors[i];
		enum lora_status first = adopt(proof, &t->problem, err),
				 second = adopt(proof, &t->module_problem, err);

		status = status ? status : first ? first : second;
		add_tally(&total, &s->tallies[i]);
		b->mismatched += t->problem != NULL;
		b->rounded += !t->problem && t->different;
		b->max_ulp = t->max_ulp > b->max_ulp ? t->max_ulp : b->max_ulp;
		if (t->problem && !status)
			status = lora__proof_line(proof, &proof->problems, err, "'%s': %s",
						  lora__escape(t->name), t->problem);
		if (t->kind || t->problem)
			proof->tensors[kept++] = *t;
	}
	proof->tensor_count = kept;
	b->rho = ratio(total.d2, total.w2);
	b->unchanged = share(total.unchanged, total.nonzero);
	b->noise = ratio(total.e2, total.d2);
	b->elements = total.elements;
	memcpy(b->off, total.off, sizeof(b->off));
	tell_types(&total, b->types);
	return status;
}

static enum lora_status prepare(struct survey *s, struct lora_error *err)
{
	const struct lora_plan *plan = &s->proof->plan;
	enum lora_status status = LORA_OK;

	for (size_t f = 0; f < plan->file_count; f++)
		s->count += plan->files[f].item_count;
	s->items = calloc(s->count + 1, sizeof(*s->items));
	s->tallies = calloc(s->count + 1, sizeof(*s->tallies));
	s->scratch = calloc(s->workers, sizeof(*s->scratch));
	s->proof->tensors = calloc(s->count + 1, sizeof(*s->proof->tensors));
	if (!s->items || !s->tallies || !s->scratch || !s->proof->tensors)
		return lora__fail_memory(err);
	for (size_t f = 0, at = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count; i++)
			s->items[at++] = &plan->files[f].items[i];
	for (unsigned w = 0; w < s->workers && !status; w++)
		status = lora__scratch_init(&s->scratch[w], err);
	return status;
}

enum lora_status lora__proof_survey(struct lora_proof *proof, struct lora_error *err)
{
	struct survey s = {.proof = proof, .workers = lora__merge_workers(&proof->plan)};
	enum lora_status status;

	if (proof->surveyed)
		return LORA_OK;
	if (!lora__kern(err))
		return LORA_USAGE;
	status = prepare(&s, err);
	lora__watch_init(&s.watch, proof->observer, "verify", proof->plan.bytes);
	if (!status)
		status = lora__parallel(s.workers, s.count, survey_item, &s, err);
	lora__watch_fini(&s.watch);
	if (!status)
		status = judge_odd(&s, err);
	if (proof->tensors)
		status = sum_up(&s, status, err);
	if (!status)
		status = lora__model_unchanged(proof->base, err);
	if (!status)
		status = lora__model_unchanged(proof->merged, err);
	for (unsigned w = 0; s.scratch && w < s.workers; w++)
		lora__scratch_fini(&s.scratch[w]);
	free(s.scratch);
	free(s.items);
	free(s.tallies);
	proof->surveyed = !status;
	return status;
}
