/* SPDX-License-Identifier: Apache-2.0 */
/* net/rope.c - by how much a position turns each pair of q and k (Su et al. 2021), and the scalings
 * of it.
 *
 *	inverse[i] = theta^(-2i/head_dim); the angle at position p is p * inverse[i]
 *	linear	inverse / factor				(positions are compressed)
 *	llama3	long waves / factor, short ones kept, between them a blend
 *
 * 1. transformers 5 writes `rope_parameters` {rope_type, rope_theta, ...}; before it, `rope_theta`
 *    stood alone and `rope_scaling` {type or rope_type, ...} beside it. Both are read; two that
 *    contradict each other are refused.
 * 2. Other types (dynamic, yarn, longrope) change with the length of the text, or scale attention
 *    too: they are refused by name.
 * 3. The steps are those of transformers, in f32, since an angle of position 8000 carries an error
 *    8000 times the frequency's.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "net/spec.h"

struct rope {
	const struct lora_json *object; /* rope_parameters or rope_scaling; may be NULL */
	double theta;
};

static enum lora_status number(const struct lora_json *object, const char *key, double *value,
			       struct lora_error *err)
{
	const struct lora_json *member = lora__json_get(object, key);

	if (lora__json_double(member, value) && *value > 0 && *value <= 1e15)
		return LORA_OK;
	return lora__fail(err, LORA_INPUT, "config.json: rope's '%s' is %s", key,
			  member ? "no usable number" : "missing");
}

/* Where the settings stand, and theta. */
static enum lora_status find(struct rope *rope, const struct lora_json *config,
			     struct lora_error *err)
{
	const struct lora_json *now = lora__json_get(config, "rope_parameters"),
			       *before = lora__json_get(config, "rope_scaling"),
			       *alone = lora__json_get(config, "rope_theta");
	double theta = 10000;

	if (now && lora__json_is_empty(now))
		now = NULL;
	if (before && lora__json_is_empty(before))
		before = NULL;
	if (now && before)
		return lora__fail(err, LORA_INPUT,
				  "config.json has both 'rope_parameters' and 'rope_scaling': "
				  "remove one of them");
	rope->object = now ? now : before;
	if (rope->object && lora__json_type(rope->object) != LORA_JSON_OBJECT)
		return lora__fail(err, LORA_INPUT, "config.json: '%s' is no object",
				  now ? "rope_parameters" : "rope_scaling");
	if (alone && number(config, "rope_theta", &theta, err))
		return LORA_INPUT;
	rope->theta = theta;
	if (!now || !lora__json_get(now, "rope_theta"))
		return LORA_OK;
	if (number(now, "rope_theta", &rope->theta, err))
		return LORA_INPUT;
	if (alone && rope->theta != theta)
		return lora__fail(err, LORA_INPUT,
				  "config.json gives two values of 'rope_theta': remove one");
	return LORA_OK;
}

/* Every key of the object must be one of these. */
static enum lora_status check_keys(const struct lora_json *object, struct lora_error *err)
{
	static const char *const known[] = {"rope_type",
					    "type",
					    "rope_theta",
					    "factor",
					    "low_freq_factor",
					    "high_freq_factor",
					    "original_max_position_embeddings"};
	double one;

	for (const struct lora_json *m = lora__json_first(object); m; m = lora__json_next(m)) {
		const char *key = lora__json_key(m);
		bool good = lora__json_is_empty(m);

		for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
			good = good || strcmp(key, known[i]) == 0;
		if (strcmp(key, "partial_rotary_factor") == 0)
			good = lora__json_double(m, &one) && one == 1;
		if (!good)
			return lora__fail(err, LORA_INPUT,
					  "config.json: rope's '%s' is not supported",
					  lora__escape(key));
	}
	return LORA_OK;
}

static enum lora_status linear(float *inverse, size_t n, const struct lora_json *object,
			       struct lora_error *err)
{
	double factor = 1;
	enum lora_status status = number(object, "factor", &factor, err);

	for (size_t i = 0; i < n && !status; i++)
		inverse[i] /= (float)factor;
	return status;
}

/* Llama 3.1's: waves longer than context/low turn `factor` times slower. */
static enum lora_status llama3(float *inverse, size_t n, const struct lora_json *object,
			       size_t positions, struct lora_error *err)
{
	double factor = 1, low = 1, high = 1, context = (double)positions;
	enum lora_status status = number(object, "factor", &factor, err);

	if (!status)
		status = number(object, "low_freq_factor", &low, err);
	if (!status)
		status = number(object, "high_freq_factor", &high, err);
	if (!status && lora__json_get(object, "original_max_position_embeddings"))
		status = number(object, "original_max_position_embeddings", &context, err);
	if (!status && high <= low)
		status = lora__fail(err, LORA_INPUT,
				    "config.json: rope's 'high_freq_factor' is not above "
				    "'low_freq_factor'");
	for (size_t i = 0; i < n && !status; i++) {
		float wave = (float)(2 * M_PI) / inverse[i],
		      smooth = ((float)context / wave - (float)low) / (float)(high - low);

		if (wave > (float)(context / low))
			inverse[i] /= (float)factor;
		else if (!(wave < (float)(context / high)))
			inverse[i] =
			    (1 - smooth) * inverse[i] / (float)factor + smooth * inverse[i];
	}
	return status;
}

static enum lora_status scale(struct lora_spec *spec, const struct lora_json *object,
			      struct lora_error *err)
{
	const struct lora_json *type = lora__json_get(object, "rope_type");
	const char *name;

	if (!type)
		type = lora__json_get(object, "type");
	name = lora__json_string(type);
	if (type && !name)
		return lora__fail(err, LORA_INPUT, "config.json: rope's type is no string");
	if (!name || strcmp(name, "default") == 0)
		return LORA_OK;
	if (strcmp(name, "linear") == 0)
		return linear(spec->inverse, spec->head_dim / 2, object, err);
	if (strcmp(name, "llama3") == 0)
		return llama3(spec->inverse, spec->head_dim / 2, object, spec->positions, err);
	return lora__fail(err, LORA_INPUT,
			  "rope type '%s' is not supported (default, linear and llama3 are)",
			  lora__escape(name));
}

enum lora_status lora__spec_rope(struct lora_spec *spec, const struct lora_json *config,
				 struct lora_arena *arena, struct lora_error *err)
{
	struct rope rope = {0};
	enum lora_status status = find(&rope, config, err);
	size_t dim = spec->head_dim;

	if (!status && dim % 2)
		return lora__fail(err, LORA_INPUT,
				  "heads of %zu dimensions cannot be turned in pairs", dim);
	if (!status)
		status = check_keys(rope.object, err);
	if (status)
		return status;
	spec->inverse = lora__arena_array(arena, dim / 2, sizeof(float));
	if (!spec->inverse)
		return lora__fail_memory(err);
	for (size_t i = 0; i < dim / 2; i++) {
		float exponent = (float)(2 * i) / (float)dim;

		spec->inverse[i] = 1 / (float)pow(rope.theta, (double)exponent);
	}
	status = scale(spec, rope.object, err);
	for (size_t i = 0; i < dim / 2 && !status; i++)
		if (!isfinite(spec->inverse[i]))
			status = lora__fail(err, LORA_INPUT,
					    "config.json: rope's settings give angles that are not "
					    "finite");
	return status;
}
