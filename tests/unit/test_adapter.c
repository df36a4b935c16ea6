/* SPDX-License-Identifier: Apache-2.0 */
/* test_adapter.c - opening adapters, their facts, root, sizes of updates, and which engines load
 * them.
 *
 * Numbers are what this prints (Python 3, numpy); tensors are those of two_tensors():
 *
 *	sha = lambda b: hashlib.sha256(b).digest()
 *	vals = lambda n: ((1 + np.arange(n)) / 8).astype("<f4")
 *	def leaf(n, s, d):
 *		head = struct.pack("<I", len(n)) + n + b"F32\0" + struct.pack("<I", len(s))
 *		return sha(b"\0loractl tensor 1\0" + head + struct.pack("<%dQ" % len(s), *s) +
 *			   sha(d.tobytes()))
 *	root = sha(b"\1" + leaf(b"base_model.model.q.lora_A.weight", [4, 10], vals(40)) +
 *		   leaf(b"base_model.model.q.lora_B.weight", [20, 4], vals(80)))
 *	config = json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 6}, sort_keys=True,
 *			    separators=(",", ":"))
 *	print(hashlib.sha256(b"loractl adapter 1\0" + root + sha(config.encode())).hexdigest())
 *	A, B = (vals(m * n).reshape(m, n).astype(float) for m, n in ((4, 10), (20, 4)))
 *	D = 1.5 * B @ A
 *	s = np.linalg.svd(D, compute_uv=False)[:4]
 *	p = (s / s.sum())[:2]
 *	print(s, np.linalg.norm(D), np.exp(-(p * np.log(p)).sum()))
 *	E = [3.0 * B[:, e::2] @ A[2 * e:2 * e + 2] for e in range(2)]
 *	print(sorted(x for e in E for x in np.linalg.svd(e, compute_uv=False)[:2]),
 *	      np.linalg.norm(E))
 */
#include "adapter_made.h"

#include "base/digest.h"

#include <math.h>

#define ROOT   "28f743ca2c50b4e250c153de152bd49557d3c6cf6215e09e30906e8ecd26bb95"
#define CONFIG "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6}"

static char *folder;
static struct lora_error err;
static struct made_file f;

static int set_up(void **state)
{
	(void)state;
	folder = made_directory();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	made_remove(folder);
	return 0;
}

static const char *in(const char *name)
{
	return made_path(folder, name);
}

static void two_tensors(const char *type)
{
	made_tensor(&f, "base_model.model.q.lora_A.weight", type, "4,10", 40, 1);
	made_tensor(&f, "base_model.model.q.lora_B.weight", type, "20,4", 80, 1);
}

static struct lora_adapter *opened(const char *path)
{
	struct lora_adapter *adapter = NULL;

	if (lora_adapter_open(&adapter, path, NULL, NULL, &err))
		fail_msg("%s", err.message);
	return adapter;
}

static void refused(const char *path, const char *text)
{
	struct lora_adapter *adapter = NULL;
	enum lora_status status = lora_adapter_open(&adapter, path, NULL, NULL, &err);

	assert_null(adapter);
	if (status != LORA_INPUT || !strstr(err.message, text))
		fail_msg("status %d: '%s'", status, err.message);
}

static void adapter__facts(void **state)
{
	const struct lora_module *module;
	struct lora_adapter *adapter;

	(void)state;
	two_tensors("F32");
	made_write(&f, in("adapter_model.safetensors"));
	made_text(in("adapter_config.json"),
		  "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":7,\"use_rslora\":true,"
		  "\"base_model_name_or_path\":\"org/m\"}");
	adapter = opened(in("/"));
	assert_string_equal(lora_adapter_dialect(adapter), "peft");
	assert_string_equal(lora_adapter_method(adapter), "rslora");
	assert_string_equal(lora_adapter_base_name(adapter), "org/m");
	assert_string_equal(lora_adapter_name(adapter), strrchr(folder, '/') + 1);
	assert_int_equal(lora_adapter_parameters(adapter), 120);
	assert_int_equal(lora_adapter_bytes(adapter), 480);
	assert_int_equal(lora_adapter_tensor_count(adapter), 2);
	assert_null(lora_adapter_tensor(adapter, 2));
	assert_int_equal(lora_adapter_module_count(adapter), 1);
	assert_null(lora_adapter_module(adapter, 1));
	module = lora_adapter_module(adapter, 0);
	assert_string_equal(module->name, "q");
	assert_string_equal(module->type, "low-rank");
	assert_int_equal(module->ndim, 2);
	assert_int_equal(module->shape[0], 20);
	assert_int_equal(module->shape[1], 10);
	assert_int_equal(module->rank, 4);
	assert_true(module->alpha == 7 && module->scale == 3.5);
	assert_string_equal(module->scale_from, "alpha/sqrt(r)");
	assert_int_equal(module->dtype, LORA_DTYPE_F32);
	assert_false(module->has_norm);
	assert_int_equal(lora_adapter_problem_count(adapter), 0);
	lora_adapter_close(adapter);
}

static void adapter__what_is_no_adapter(void **state)
{
	char *empty = made_directory();

	(void)state;
	refused(made_path(empty, "nothing"), "does not exist");
	refused(empty, "it has no adapter_model.safetensors: give the directory");
	made_text(made_path(empty, "adapter_model.bin"), "PK");
	refused(empty, "adapter_model.bin is a pickle, which is not read");
	two_tensors("F32");
	made_write(&f, made_path(empty, "adapter_model.safetensors"));
	refused(empty, "it has no adapter_config.json");
	made_text(made_path(empty, "adapter_config.json"), "{\"r\":4,\"r\":5}");
	refused(empty, "adapter_config.json: ");
	made_text(made_path(empty, "adapter_config.json"), "[1]");
	refused(empty, "adapter_config.json: it is no JSON object");
	made_text(made_path(empty, "adapter_config.json"), "{\"peft_type\":\"LOHA\",\"r\":4}");
	refused(empty, "peft_type 'LOHA' is not supported");
	made_text(made_path(empty, "adapter_config.json"), CONFIG);
	made_text(made_path(empty, "loractl.json"), "{\"base_root\":\"12\"}");
	refused(empty, "loractl.json: 'base_root' is not 64 lower-case hexadecimal digits");
	made_text(made_path(empty, "loractl.json"), "{\"base_root\":7}");
	refused(empty, "loractl.json: 'base_root' is not");
	made_text(made_path(empty, "loractl.json"), "{");
	refused(empty, "loractl.json: ");
	made_text(made_path(empty, "loractl.json"), "{\"base_root\":null,\"seed\":3}");
	lora_adapter_close(opened(empty));
	made_remove(empty);
}

/* A file with its config beside it, or with the facts in its metadata. */
static void adapter__single_files(void **state)
{
	static const struct {
		const char *metadata, *refusal;
		double scale;
	} cases[] = {
	    {"\"format\":\"pt\"", "its metadata lacks 'lora_adapter_metadata', or 'r' and", 0},
	    {"\"r\":\"4\"", "its metadata lacks 'lora_alpha'", 0},
	    {"\"lora_alpha\":\"6\"", "its metadata lacks 'r'", 0},
	    {"\"r\":\"4\",\"lora_alpha\":\"6\"", NULL, 1.5},
	    {"\"r\":\"4\",\"lora_alpha\":\"6\",\"use_rslora\":\"true\",\"modelspec.title\":\"x y\"",
	     NULL, 3},
	    {"\"r\":\"4\",\"lora_alpha\":\"6\",\"alpha_pattern\":\"{\\\"q\\\":2}\"", NULL, 0.5},
	    {"\"r\":\"four\",\"lora_alpha\":\"6\"", "'r' is not a rank", 0},
	    {"\"r\":\"4\",\"lora_alpha\":\"6\",\"peft_type\":\"LOKR\"", "peft_type 'LOKR'", 0},
	    {"\"r\":\"4\",\"lora_alpha\":\"6\",\"bias\":\"a\\\"b\"",
	     "neither JSON nor a plain word", 0},
	    {"\"lora_adapter_metadata\":\"{\\\"r\\\":4,\\\"lora_alpha\\\":12}\"", NULL, 3},
	    {"\"lora_adapter_metadata\":\"{}\"", "has rank 4, the config says 8", 0},
	    {"\"lora_adapter_metadata\":\"{\\\"transformer.r\\\":4}\"",
	     "'transformer.r' is unknown", 0},
	    {"\"lora_adapter_metadata\":\"[]\"", "is no JSON object", 0},
	};
	char *dir = made_directory();

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lora_adapter *adapter;

		snprintf(f.json, sizeof(f.json), "{\"__metadata__\":{%s}", cases[i].metadata);
		two_tensors("F32");
		made_write(&f, made_path(dir, "x.safetensors"));
		if (cases[i].refusal) {
			refused(made_path(dir, "x.safetensors"), cases[i].refusal);
			continue;
		}
		adapter = opened(made_path(dir, "x.safetensors"));
		assert_true(lora_adapter_module(adapter, 0)->scale == cases[i].scale);
		lora_adapter_close(adapter);
	}
	two_tensors("F32");
	made_write(&f, made_path(dir, "x.safetensors"));
	made_text(made_path(dir, "adapter_config.json"), CONFIG);
	lora_adapter_close(opened(made_path(dir, "x.safetensors")));
	made_remove(dir);
}

/* In two shards that an index names; the root is the same as of one file, in any order. */
static void adapter__shards_and_root(void **state)
{
	static const char index[] = "{\"metadata\":{},\"weight_map\":{\"base_model.model.q.lora_A."
				    "weight\":\"a2.safetensors\","
				    "\"base_model.model.q.lora_B.weight\":\"a1.safetensors\"}}";
	char *dir = made_directory(), hex[LORA_SHA256_HEX];
	struct lora_adapter *adapter;
	struct lora_sha256 root;

	(void)state;
	made_tensor(&f, "base_model.model.q.lora_A.weight", "F32", "4,10", 40, 1);
	made_write(&f, made_path(dir, "a2.safetensors"));
	made_tensor(&f, "base_model.model.q.lora_B.weight", "F32", "20,4", 80, 1);
	made_write(&f, made_path(dir, "a1.safetensors"));
	made_text(made_path(dir, "adapter_model.safetensors.index.json"), index);
	made_text(made_path(dir, "adapter_config.json"),
		  "{ \"lora_alpha\": 6,\n \"r\": 4, \"peft_type\": \"LORA\" }");
	adapter = opened(dir);
	assert_int_equal(lora_adapter_module_count(adapter), 1);
	assert_int_equal(lora_adapter_root(adapter, &root, &err), LORA_OK);
	lora__sha256_hex(&root, hex);
	assert_string_equal(hex, ROOT);
	lora_adapter_close(adapter);
	made_tensor(&f, "base_model.model.q.lora_B.weight", "F32", "20,4", 80, 1);
	made_tensor(&f, "base_model.model.q.lora_A.weight", "F32", "4,10", 40, 1);
	made_write(&f, made_path(dir, "adapter_model.safetensors")); /* wins over the index */
	adapter = opened(dir);
	assert_int_equal(adapter->file_count, 1);
	assert_int_equal(lora_adapter_root(adapter, &root, &err), LORA_OK);
	lora__sha256_hex(&root, hex);
	assert_string_equal(hex, ROOT);
	lora_adapter_close(adapter);
	made_text(made_path(dir, "adapter_config.json"),
		  "{\"lora_alpha\":7,\"r\":4,\"peft_type\":\"LORA\"}");
	adapter = opened(dir);
	assert_int_equal(lora_adapter_root(adapter, &root, &err), LORA_OK);
	lora__sha256_hex(&root, hex);
	assert_string_not_equal(hex, ROOT);
	lora_adapter_close(adapter);
	remove(made_path(dir, "adapter_model.safetensors"));
	made_text(made_path(dir, "adapter_model.safetensors.index.json"),
		  "{\"weight_map\":{\"x\":\"../a1.safetensors\"}}");
	refused(dir, "../a1.safetensors");
	made_remove(dir);
}

static void close_to(double got, double expected, double size)
{
	if (!(fabs(got - expected) <= 1e-12 * size))
		fail_msg("%.17g, expected %.17g", got, expected);
}

static void adapter__measure(void **state)
{
	char *dir = made_directory();
	const struct lora_module *module;
	struct lora_adapter *adapter;

	(void)state;
	two_tensors("F32");
	made_tensor(&f, "base_model.model.e.lora_A.weight", "F32", "4,10", 40, 1);
	made_tensor(&f, "base_model.model.e.lora_B.weight", "F32", "20,4", 80, 1);
	made_tensor(&f, "base_model.model.head.weight", "F32", "2", 2, 24); /* 3, 25/8 */
	made_write(&f, made_path(dir, "adapter_model.safetensors"));
	made_text(made_path(dir, "adapter_config.json"),
		  "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6,\"rank_pattern\":{\"e.w\":2},"
		  "\"target_parameters\":[\"e.w\"],\"modules_to_save\":[\"head\"]}");
	adapter = opened(dir);
	assert_int_equal(lora_adapter_measure(adapter, 2, NULL, &err), LORA_OK);
	assert_int_equal(lora_adapter_measure(adapter, 2, NULL, &err), LORA_OK);
	assert_int_equal(lora_adapter_module_count(adapter), 3);
	module = lora_adapter_module(adapter, 0);
	assert_true(module->has_norm);
	close_to(module->norm, 1293.4249761564497, 1300);
	assert_int_equal(module->singular_count, 4);
	close_to(module->singular_values[0], 1293.4244865158853, 1300);
	close_to(module->singular_values[1], 1.125444992916623, 1300);
	close_to(module->effective_rank, 1.007020628635161, 100);
	module = lora_adapter_module(adapter, 1);
	assert_string_equal(module->name, "e.w");
	assert_int_equal(module->ndim, 3);
	assert_int_equal(module->singular_count, 4);
	close_to(module->norm, 2030.8498403916399, 2100);
	close_to(module->singular_values[0], 1916.4620941909964, 2100);
	close_to(module->singular_values[1], 671.9548143718318, 2100);
	close_to(module->singular_values[2], 0.8665333328556882, 2100);
	close_to(module->singular_values[3], 0.3038261213675647, 2100);
	module = lora_adapter_module(adapter, 2);
	assert_string_equal(module->type, "replace");
	assert_int_equal(module->singular_count, 0);
	close_to(module->norm, sqrt(9 + 625.0 / 64), 10);
	assert_int_equal(lora_adapter_problem_count(adapter), 0);
	lora_adapter_close(adapter);
	made_remove(dir);
}

static void adapter__nan_is_a_problem(void **state)
{
	static const uint8_t nan[4] = {0, 0, 0xc0, 0x7f};
	char *dir = made_directory();
	struct lora_adapter *adapter;

	(void)state;
	two_tensors("F32");
	memcpy(f.data + 4 * 13, nan, 4); /* A's element 13 is (1, 3) */
	made_tensor(&f, "base_model.model.k.lora_A.weight", "F32", "4,10", 40, 1);
	made_tensor(&f, "base_model.model.k.lora_B.weight", "F32", "20,4", 80, 1);
	made_write(&f, made_path(dir, "adapter_model.safetensors"));
	made_text(made_path(dir, "adapter_config.json"), CONFIG);
	adapter = opened(dir);
	assert_int_equal(lora_adapter_measure(adapter, 1, NULL, &err), LORA_OK);
	assert_false(lora_adapter_module(adapter, 0)->has_norm);
	assert_true(lora_adapter_module(adapter, 1)->has_norm);
	assert_int_equal(lora_adapter_problem_count(adapter), 1);
	assert_string_equal(
	    lora_adapter_problem(adapter, 0),
	    "tensor 'base_model.model.q.lora_A.weight': element [1, 3] is not finite");
	assert_null(lora_adapter_problem(adapter, 1));
	lora_adapter_close(adapter);
	made_remove(dir);
}

static void adapter__warnings_are_problems(void **state)
{
	char *dir = made_directory();
	struct lora_adapter *adapter;

	(void)state;
	two_tensors("BF16");
	made_write(&f, made_path(dir, "adapter_model.safetensors"));
	made_text(made_path(dir, "adapter_config.json"),
		  "{\"peft_type\":\"LORA\",\"r\":4,\"rank_pattern\":{\"nobody\":3},"
		  "\"init_lora_weights\":\"olora\"}");
	adapter = opened(dir);
	assert_int_equal(lora_adapter_problem_count(adapter), 3);
	assert_non_null(strstr(lora_adapter_problem(adapter, 0), "'olora' changed the base"));
	assert_non_null(strstr(lora_adapter_problem(adapter, 1), "'lora_alpha' is missing"));
	assert_non_null(strstr(lora_adapter_problem(adapter, 2), "'nobody' matches no module"));
	lora_adapter_close(adapter);
	made_remove(dir);
}

/* For each engine the line that says why not, or NULL: it loads the adapter. */
static void adapter__engines(void **state)
{
	static const struct {
		const char *config, *extra, *shape;
		size_t count;
		const char *peft, *vllm, *llama_cpp;
	} cases[] = {
	    {CONFIG, NULL, NULL, 0, NULL, NULL, NULL},
	    {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6,\"use_rslora\":true}", NULL, NULL, 0,
	     NULL, NULL, "scales by lora_alpha / rank"},
	    {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6,\"alpha_pattern\":{\"q\":2}}", NULL,
	     NULL, 0, NULL, "one scale for all modules", "scales by lora_alpha / rank"},
	    {"{\"peft_type\":\"LORA\",\"r\":8,\"lora_alpha\":6,\"rank_pattern\":{\"q\":4}}", NULL,
	     NULL, 0, NULL, "one scale for all modules", NULL},
	    {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6,\"use_dora\":true}",
	     "base_model.model.q.lora_magnitude_vector", "20", 20, NULL, "does not support DoRA",
	     "does not support DoRA"},
	    {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6,\"lora_bias\":true}",
	     "base_model.model.q.lora_B.bias", "20", 20, NULL, "does not support lora_bias",
	     "does not support lora_bias"},
	    {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6,\"modules_to_save\":[\"h\"]}",
	     "base_model.model.h.weight", "20", 20, NULL, "does not load whole tensors",
	     "does not load whole tensors"},
	    {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6,\"trainable_token_indices\":[1]}",
	     "base_model.model.e.token_adapter.trainable_tokens_delta", "1,20", 20, NULL,
	     "does not support trainable tokens", "does not support trainable tokens"},
	    {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6,\"init_lora_weights\":\"pissa\"}",
	     NULL, NULL, 0, NULL, "changed the base", "changed the base"},
	    {CONFIG, "head.weight", "20", 20, "without 'base_model.model.', as 'head.weight'",
	     "does not load whole tensors", "without 'base_model.model.'"},
	};
	static const char *const engines[] = {"peft", "vllm", "llama.cpp"};
	char *dir = made_directory();

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *wanted[] = {cases[i].peft, cases[i].vllm, cases[i].llama_cpp};
		struct lora_adapter *adapter;

		two_tensors("F32");
		if (cases[i].extra)
			made_tensor(&f, cases[i].extra, "F32", cases[i].shape, cases[i].count, 1);
		made_write(&f, made_path(dir, "adapter_model.safetensors"));
		made_text(made_path(dir, "adapter_config.json"), cases[i].config);
		adapter = opened(dir);
		for (size_t e = 0; e < 3; e++) {
			struct lines lines = {.count = 0};
			enum lora_status status =
			    lora_adapter_loads_in(adapter, engines[e], keep_problem, &lines, &err);

			if (status != (wanted[e] ? LORA_NO : LORA_OK) ||
			    (wanted[e] && !has_line(&lines, wanted[e])) ||
			    (!wanted[e] && lines.count))
				fail_msg("case %zu, %s: %d, '%s'", i, engines[e], status,
					 lines.count ? lines.text[0] : "");
		}
		assert_int_equal(
		    lora_adapter_loads_in(adapter, "tensorrt", keep_problem, NULL, &err),
		    LORA_USAGE);
		lora_adapter_close(adapter);
	}
	made_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(adapter__facts),
	    cmocka_unit_test(adapter__what_is_no_adapter),
	    cmocka_unit_test(adapter__single_files),
	    cmocka_unit_test(adapter__shards_and_root),
	    cmocka_unit_test(adapter__measure),
	    cmocka_unit_test(adapter__nan_is_a_problem),
	    cmocka_unit_test(adapter__warnings_are_problems),
	    cmocka_unit_test(adapter__engines),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
