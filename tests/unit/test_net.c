/* SPDX-License-Identifier: Apache-2.0 */
/* src/net on the committed little models: states, batches, adapters, losses, sampling. What the
 * numbers themselves have to be is asked of transformers and PEFT (tests/interop/net.py). */
#include "base_check.h"

#include <math.h>
#include <stdbool.h>

#include "adapter_made.h"
#include "net/net.h"

static struct lora_error err = LORA_ERROR_INIT;

struct fixture {
	struct lora_model *model;
	struct lora_net *net;
	struct lora_net_state *state;
	struct lora_adapter *adapter;
	float *logits, *other; /* [64, V] */
	size_t V;
};

static const char *tiny(const char *name)
{
	static char path[4096];
	const char *top = getenv("SRC");

	snprintf(path, sizeof(path), "%s/tests/data/tiny/%s", top ? top : ".", name);
	return path;
}

static void open_fixture(struct fixture *f, const char *model, unsigned threads)
{
	struct lora_net_options options = LORA_NET_OPTIONS_INIT;
	char name[64];

	*f = (struct fixture){NULL};
	options.threads = threads;
	snprintf(name, sizeof(name), "%s-adapter", model);
	assert_ok(lora_model_open(&f->model, tiny(model), &err));
	assert_ok(lora_net_open(&f->net, f->model, &options, NULL, &err));
	assert_ok(lora_net_state_new(&f->state, f->net, 64, &err));
	assert_ok(lora_adapter_open(&f->adapter, tiny(name), NULL, NULL, &err));
	f->V = lora_net_vocabulary(f->net);
	assert_int_equal(f->V, 509);
	f->logits = calloc(64 * f->V, sizeof(float));
	f->other = calloc(64 * f->V, sizeof(float));
	assert_non_null(f->logits);
	assert_non_null(f->other);
}

static void close_fixture(struct fixture *f)
{
	lora_adapter_close(f->adapter);
	lora_net_state_free(f->state);
	lora_net_close(f->net);
	lora_model_close(f->model);
	free(f->logits);
	free(f->other);
}

static void some_ids(uint32_t *ids, size_t count, uint32_t seed)
{
	for (size_t i = 0; i < count; i++) {
		seed = seed * 1664525u + 1013904223u;
		ids[i] = (seed >> 8) % 509;
	}
}

static void expect_near(const float *got, const float *want, size_t n, double allowed)
{
	for (size_t i = 0; i < n; i++)
		if (!(fabs((double)got[i] - (double)want[i]) <= allowed))
			fail_msg("logit %zu: %.8g, not %.8g", i, (double)got[i], (double)want[i]);
}

static const char *const families[] = {"llama", "gpt2"};

/* The last logits are those of all; a state that was cut goes on as if it had never been longer;
 * the same calls give the same bits. */
static void net__states(void **unused)
{
	(void)unused;
	for (size_t k = 0; k < 2; k++) {
		struct fixture f;
		uint32_t ids[64];

		open_fixture(&f, families[k], 2);
		some_ids(ids, 64, 1);
		assert_ok(lora_net_forward(f.state, ids, 40, LORA_NET_ALL, f.logits, &err));
		assert_int_equal(lora_net_state_length(f.state), 40);
		lora_net_state_cut(f.state, 0);
		assert_ok(lora_net_forward(f.state, ids, 40, LORA_NET_LAST, f.other, &err));
		expect_near(f.other, f.logits + 39 * f.V, f.V, 1e-4);
		lora_net_state_cut(f.state, 30);
		assert_int_equal(lora_net_state_length(f.state), 30);
		lora_net_state_cut(f.state, 35);
		assert_int_equal(lora_net_state_length(f.state), 30);
		assert_ok(lora_net_forward(f.state, ids + 30, 10, LORA_NET_ALL, f.other, &err));
		expect_near(f.other, f.logits + 30 * f.V, 10 * f.V, 1e-4);
		lora_net_state_cut(f.state, 0);
		assert_ok(lora_net_forward(f.state, ids, 40, LORA_NET_NONE, NULL, &err));
		lora_net_state_cut(f.state, 0);
		assert_ok(lora_net_forward(f.state, ids, 40, LORA_NET_ALL, f.other, &err));
		assert_memory_equal(f.other, f.logits, 40 * f.V * sizeof(float));
		close_fixture(&f);
	}
}

/* What cannot be done leaves the state as it was. */
static void net__refusals(void **unused)
{
	struct lora_net_state *state = NULL;
	uint32_t ids[65] = {0};
	struct fixture f;

	(void)unused;
	open_fixture(&f, "llama", 1);
	assert_fails(LORA_USAGE, "positions for 1 to 192",
		     lora_net_state_new(&state, f.net, 0, &err));
	assert_fails(LORA_USAGE, "positions for 1 to 192",
		     lora_net_state_new(&state, f.net, 193, &err));
	assert_null(state);
	assert_fails(LORA_SYSTEM, "out of memory",
		     lora__net_state_make(&state, f.net, (size_t)1 << 45, &err));
	assert_null(state);
	assert_ok(lora_net_state_new(&state, f.net, 192, &err));
	lora_net_state_free(state);
	assert_ok(lora_net_forward(f.state, ids, 10, LORA_NET_NONE, NULL, &err));
	assert_fails(LORA_INPUT, "there is room for 64",
		     lora_net_forward(f.state, ids, 55, LORA_NET_NONE, NULL, &err));
	ids[3] = 509;
	assert_fails(LORA_INPUT, "token 509 is beyond the model's vocabulary of 509",
		     lora_net_forward(f.state, ids, 5, LORA_NET_LAST, f.logits, &err));
	assert_fails(LORA_USAGE, "no tokens",
		     lora_net_forward(f.state, ids, 0, LORA_NET_LAST, f.logits, &err));
	assert_int_equal(lora_net_state_length(f.state), 10);
	close_fixture(&f);
}

/* Attached twice is attached once; detached, the base's bits are back; half and half are the whole;
 * a rank larger than any before is room enough in a state that is there already. */
static void net__adapters_come_and_go(void **unused)
{
	(void)unused;
	for (size_t k = 0; k < 2; k++) {
		struct lora_net_input one, halves[2];
		struct fixture f;
		uint32_t ids[20];
		float *base;

		open_fixture(&f, families[k], 2);
		some_ids(ids, 20, 2);
		one = (struct lora_net_input){f.adapter, 1};
		halves[0] = halves[1] = (struct lora_net_input){f.adapter, 0.5};
		base = calloc(20 * f.V, sizeof(float));
		assert_non_null(base);
		assert_ok(lora_net_forward(f.state, ids, 20, LORA_NET_ALL, base, &err));
		assert_ok(lora_net_attach(f.net, &one, 1, NULL, &err));
		assert_ok(lora_net_attach(f.net, &one, 1, NULL, &err));
		lora_net_state_cut(f.state, 0);
		assert_ok(lora_net_forward(f.state, ids, 20, LORA_NET_ALL, f.logits, &err));
		assert_true(fabs((double)f.logits[5] - (double)base[5]) > 1e-3);
		assert_ok(lora_net_attach(f.net, halves, 2, NULL, &err));
		lora_net_state_cut(f.state, 0);
		assert_ok(lora_net_forward(f.state, ids, 20, LORA_NET_ALL, f.other, &err));
		expect_near(f.other, f.logits, 20 * f.V, 1e-3);
		lora_net_detach(f.net);
		lora_net_detach(f.net);
		lora_net_state_cut(f.state, 0);
		assert_ok(lora_net_forward(f.state, ids, 20, LORA_NET_ALL, f.other, &err));
		assert_memory_equal(f.other, base, 20 * f.V * sizeof(float));
		free(base);
		close_fixture(&f);
	}
}

/* Vectors and whole matrices that an adapter brings go as they came; one of a norm does what
 * it says: elements (3 + i)/8 where the base's are near 1. */
static void net__replacements_come_and_go(void **unused)
{
	static const char *const names[] = {"base_model.model.model.norm.weight",
					    "base_model.model.model.layers.1.mlp.up_proj.weight"};
	static const char *const shapes[] = {"90", "250,90"};
	static const char *const configs[] = {
	    "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 2, \"target_modules\": "
	    "[\"q_proj\"], \"modules_to_save\": [\"norm\"]}",
	    "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 2, \"target_modules\": "
	    "[\"q_proj\"], \"modules_to_save\": [\"up_proj\"]}"};

	(void)unused;
	for (size_t k = 0; k < 2; k++) {
		struct lora_net_input input = {NULL, 1};
		char *dir = made_directory();
		static struct made_file file;
		struct fixture f;
		uint32_t ids[9];

		open_fixture(&f, "llama", 2);
		some_ids(ids, 9, 4);
		made_tensor(&file, names[k], "F16", shapes[k], k ? 250 * 90 : 90, 3);
		made_write(&file, made_path(dir, "adapter_model.safetensors"));
		made_text(made_path(dir, "adapter_config.json"), configs[k]);
		assert_ok(lora_adapter_open(&input.adapter, dir, NULL, NULL, &err));
		assert_ok(lora_net_forward(f.state, ids, 9, LORA_NET_ALL, f.logits, &err));
		assert_ok(lora_net_attach(f.net, &input, 1, NULL, &err));
		if (k == 0)
			for (size_t i = 0; i < 90; i++)
				assert_float_equal(f.net->norm[i], (float)(3 + i) / 8, 0);
		lora_net_state_cut(f.state, 0);
		assert_ok(lora_net_forward(f.state, ids, 9, LORA_NET_ALL, f.other, &err));
		assert_true(fabs((double)f.other[0] - (double)f.logits[0]) > 1e-3);
		lora_net_detach(f.net);
		lora_net_state_cut(f.state, 0);
		assert_ok(lora_net_forward(f.state, ids, 9, LORA_NET_ALL, f.other, &err));
		assert_memory_equal(f.other, f.logits, 9 * f.V * sizeof(float));
		lora_adapter_close(input.adapter);
		close_fixture(&f);
		made_remove(dir);
	}
}

/* After a failure nothing is attached. */
static void net__a_strange_adapter_leaves_the_base(void **unused)
{
	struct lora_adapter *strange = NULL;
	struct lora_net_input inputs[2];
	struct fixture f;
	uint32_t ids[5];

	(void)unused;
	open_fixture(&f, "llama", 1);
	some_ids(ids, 5, 3);
	assert_ok(lora_net_forward(f.state, ids, 5, LORA_NET_ALL, f.logits, &err));
	assert_ok(lora_adapter_open(&strange, tiny("gpt2-adapter"), NULL, NULL, &err));
	inputs[0] = (struct lora_net_input){f.adapter, 1};
	inputs[1] = (struct lora_net_input){strange, 1};
	assert_int_equal(lora_net_attach(f.net, inputs, 2, NULL, &err), LORA_INPUT);
	lora_net_state_cut(f.state, 0);
	assert_ok(lora_net_forward(f.state, ids, 5, LORA_NET_ALL, f.other, &err));
	assert_memory_equal(f.other, f.logits, 5 * f.V * sizeof(float));
	lora_adapter_close(strange);
	close_fixture(&f);
}

/* -ln p from logits, in f64. */
static double cost(const float *logits, size_t V, uint32_t next)
{
	double most = -INFINITY, sum = 0;

	for (size_t i = 0; i < V; i++)
		most = fmax(most, (double)logits[i]);
	for (size_t i = 0; i < V; i++)
		sum += exp((double)logits[i] - most);
	return most + log(sum) - (double)logits[next];
}

#define TEXTS 60

/* Texts side by side, cut over batches, masked: each costs what it costs alone. */
static void net__losses_of_a_batch_are_those_of_its_texts(void **unused)
{
	(void)unused;
	for (size_t k = 0; k < 2; k++) {
		struct lora_net_text texts[TEXTS];
		static uint32_t ids[TEXTS][64];
		static uint8_t mask[TEXTS][64];
		double loss[TEXTS];
		struct fixture f;

		open_fixture(&f, families[k], 2);
		for (size_t t = 0; t < TEXTS; t++) {
			texts[t] = (struct lora_net_text){ids[t], t % 3 ? NULL : mask[t],
							  t % 7 == 6 ? t % 2 : 1 + t * 37 % 64};
			some_ids(ids[t], 64, (uint32_t)t);
			for (size_t i = 0; i < 64; i++)
				mask[t][i] = (i + t) % 5 < 2;
		}
		assert_ok(lora_net_loss(f.state, texts, TEXTS, loss, &err));
		for (size_t t = 0; t < TEXTS; t++) {
			double want = 0;

			lora_net_state_cut(f.state, 0);
			if (texts[t].count)
				assert_ok(lora_net_forward(f.state, ids[t], texts[t].count,
							   LORA_NET_ALL, f.logits, &err));
			for (size_t i = 1; i < texts[t].count; i++)
				if (!texts[t].mask || mask[t][i])
					want += cost(f.logits + (i - 1) * f.V, f.V, ids[t][i]);
			if (!(fabs(loss[t] - want) <= 1e-4 * (1 + want)))
				fail_msg("text %zu: %.9g, not %.9g", t, loss[t], want);
		}
		texts[4].count = 66;
		assert_fails(LORA_INPUT, "text 5 has 66 tokens, there is room for 65",
			     lora_net_loss(f.state, texts, TEXTS, loss, &err));
		close_fixture(&f);
	}
}

/* --- sampling -------------------------------------------------------------------------------- */

static uint32_t choose(const float *logits, size_t n, double temperature, double top_p,
		       uint64_t *random)
{
	struct lora_net_sampling sampling = {temperature, top_p, 0};
	struct lora_candidate room[16];

	return lora__net_choose(logits, n, &sampling, room, random);
}

static void sample__greedy_is_the_first_of_the_largest(void **unused)
{
	static const float logits[] = {-1, 3, 2, 3, -7};
	uint64_t random = 5;

	(void)unused;
	for (int i = 0; i < 20; i++)
		assert_int_equal(choose(logits, 5, 0, 1, &random), 1);
	assert_int_equal(random, 5);
}

/* Shares of 40,000 draws against the chances, within five standard deviations. */
static void sample__chances(void **unused)
{
	static const float logits[] = {0, 1, 2, -1, 0.5f};
	static const struct {
		double temperature, top_p;
		unsigned kept; /* bit i: token i can come */
	} cases[] = {{1, 1, 31}, {2, 1, 31}, {0.3, 1, 31}, {1, 0.7, 6}, {1, 0.85, 22}, {1, 0.1, 4}};
	enum { DRAWS = 40000 };

	(void)unused;
	for (size_t c = 0; c < sizeof(cases) / sizeof(*cases); c++) {
		unsigned seen[5] = {0};
		uint64_t random = 1234 + c;
		double sum = 0;

		for (int i = 0; i < DRAWS; i++)
			seen[choose(logits, 5, cases[c].temperature, cases[c].top_p, &random)]++;
		for (int i = 0; i < 5; i++)
			if (cases[c].kept >> i & 1)
				sum += exp((double)logits[i] / cases[c].temperature);
		for (int i = 0; i < 5; i++) {
			double p = cases[c].kept >> i & 1
				       ? exp((double)logits[i] / cases[c].temperature) / sum
				       : 0,
			       far = fabs(seen[i] - DRAWS * p);

			if (far > 5 * sqrt(DRAWS * p * (1 - p)) + 1e-9)
				fail_msg("case %zu, token %d: %u of %d draws, not %.0f", c, i,
					 seen[i], DRAWS, DRAWS * p);
		}
	}
}

struct heard {
	uint32_t ids[64];
	size_t count, enough;
};

static int hear(void *user, uint32_t id)
{
	struct heard *heard = user;

	heard->ids[heard->count++] = id;
	return heard->count == heard->enough;
}

static void generate__ends(void **unused)
{
	struct heard heard = {{0}, 0, 0}, again = {{0}, 0, 0};
	uint32_t prompt[] = {0, 100, 200};
	struct lora_net_generation g = {.size = sizeof(g),
					.prompt = prompt,
					.prompt_count = 3,
					.limit = 8,
					.sampling = {0, 1, 0},
					.token = hear,
					.user = &heard};
	struct fixture f;

	(void)unused;
	open_fixture(&f, "llama", 1);
	assert_ok(lora_net_generate(f.state, &g, &err));
	assert_int_equal(heard.count, 8); /* at the limit */
	g.user = &again;
	again.enough = 5;
	lora_net_state_cut(f.state, 0);
	assert_ok(lora_net_generate(f.state, &g, &err));
	assert_int_equal(again.count, 5); /* when the caller has had enough */
	assert_memory_equal(again.ids, heard.ids, 5 * sizeof(uint32_t));
	again = (struct heard){{0}, 0, 0};
	g.limit = 1000;
	lora_net_state_cut(f.state, 0);
	assert_ok(lora_net_generate(f.state, &g, &err));
	assert_int_equal(again.count, 62); /* where the state is full: 3 + 61, and one behind */
	again = (struct heard){{0}, 0, 0};
	g.stops = &heard.ids[0];
	g.stop_count = 1;
	lora_net_state_cut(f.state, 0);
	assert_ok(lora_net_generate(f.state, &g, &err));
	assert_int_equal(again.count, 0); /* at a stop, which is not heard */
	g.sampling.top_p = 0;
	assert_fails(LORA_USAGE, "top_p", lora_net_generate(f.state, &g, &err));
	g.sampling = (struct lora_net_sampling){NAN, 1, 0};
	assert_fails(LORA_USAGE, "temperature", lora_net_generate(f.state, &g, &err));
	close_fixture(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(net__states),
	    cmocka_unit_test(net__refusals),
	    cmocka_unit_test(net__adapters_come_and_go),
	    cmocka_unit_test(net__replacements_come_and_go),
	    cmocka_unit_test(net__a_strange_adapter_leaves_the_base),
	    cmocka_unit_test(net__losses_of_a_batch_are_those_of_its_texts),
	    cmocka_unit_test(sample__greedy_is_the_first_of_the_largest),
	    cmocka_unit_test(sample__chances),
	    cmocka_unit_test(generate__ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
