/* SPDX-License-Identifier: Apache-2.0 */
/* test_model.c - opening, reading and hashing a model on disk (src/checkpoint)
 *
 * The digests are what this prints after the lines of test_root.c (Python 3):
 *
 *	D = lambda n: bytes((7 * i + 3) % 256 for i in range(256)) * (n // 256)
 *	M = [("a", "U8", [3145728], D(3145728)), ("d", "U8", [0], b""),
 *	     ("b", "F32", [262144, 2], D(2097152)), ("c", "BF16", [640], D(1280)),
 *	     ("e", "U8", [1048832], D(1048832))]
 *	def file(ts):
 *	    at, parts = 0, []
 *	    for n, t, s, d in ts:
 *	        parts.append('"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]}'
 *	                     % (n, t, ",".join(map(str, s)), at, at + len(d)))
 *	        at += len(d)
 *	    j = ("{" + ",".join(parts) + "}").encode()
 *	    return struct.pack("<Q", len(j)) + j + b"".join(t[3] for t in ts)
 *	hexs = lambda b: h.sha256(b).hexdigest()
 *	print(root(M)); [print(hexs(t[3])) for t in M]; print(hexs(file(M)))
 *	for k in ([M[2], M[4]], [M[0], M[1]], [M[3]]): print(hexs(file(k)))
 *
 * The sizes are multiples of 256, the period of the bytes, so that a tensor is the same in any
 *shard; the file has seven blocks of hashing, and tensors that begin and end inside of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "checkpoint/checkpoint.h"
#include "made.h"

#define T(name, dtype, shape, begin, end)                                                          \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin       \
	"," end "]}"
#define WHOLE                                                                                      \
	"{" T("a", "U8", "[3145728]", "0", "3145728") "," T(                                       \
	    "d", "U8", "[0]", "3145728",                                                           \
	    "3145728") "," T("b", "F32", "[262144,2]", "3145728",                                  \
			     "5242880") "," T("c", "BF16", "[640]", "5242880",                     \
					      "5244160") "," T("e", "U8", "[1048832]", "5244160",  \
							       "6292992") "}"
#define WHOLE_DATA 6292992
#define SHARD1                                                                                     \
	"{" T("b", "F32", "[262144,2]", "0", "2097152") "," T("e", "U8", "[1048832]", "2097152",   \
							      "3145984") "}"
#define SHARD2                                                                                     \
	"{" T("a", "U8", "[3145728]", "0", "3145728") "," T("d", "U8", "[0]", "3145728",           \
							    "3145728") "}"
#define ZEROS_HEAD (8 + sizeof("{" T("a", "U8", "[20971520]", "0", "20971520") "}") - 1)
#define SHARD3	   "{" T("c", "BF16", "[640]", "0", "1280") "}"

static const char root_hex[] = "57ff7f19e5d558013dfc905a8f607faafb11fa45178336045b10dd40862c2f3f";
static const char whole_hex[] = "66b0a5ba45314166b9108342a55b5e05a4022bdac092252995e5813c4b91807d";
static const char *const shard_hex[] = {
    "b9a8db382b3decd9a8e3384f3474ac8786204d3dc843725dd2d3b82212d6e039",
    "9b0bb1cbbf8b1dcc19ec04d66f506d8e9413491559708056895fa6221bad0eee",
    "1edc5a2b250601c0c968ec2ea1ef09d84558ac1654ebd4594c03f0984a1208b2",
};
static const struct {
	const char *name, *hex;
} tensor_hex[] = {
    {"a", "afc1870aca87b6a47c1b53dd68ab77b780493a1a4d67a6cf9fe145dcb3233257"},
    {"d", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"b", "c1b153e61d7d7835c625cc3077b85c18808a8c0f6e6b157b9bfc4546b5a34abb"},
    {"c", "8ed37df244230f4b2afa1537af35c89e2c817ac9006da3a088c7eb444a3ce3ec"},
    {"e", "08f53eda5b52b7740850ce32f23c7e451a8bb30b11e45aaed685b67901b6a464"},
};

#define CONFIG "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\",\"X\"]}"
/* Two shards, the first named second; a.safetensors x y, b.safetensors z. */
#define INDEX(map) "{\"metadata\":{\"total_size\":6},\"weight_map\":{" map "}}"
#define XY	   "{" T("x", "U8", "[2]", "0", "2") "," T("y", "U8", "[1]", "2", "3") "}"
#define Z	   "{" T("z", "U8", "[3]", "0", "3") "}"
#define XYZ	   "\"z\":\"b.safetensors\",\"x\":\"a.safetensors\",\"y\":\"a.safetensors\""

static char *home; /* of the cache; one for the program */

static int make_home(void **state)
{
	(void)state;
	home = made_directory();
	return setenv("XDG_CACHE_HOME", home, 1) | setenv("HF_HUB_CACHE", home, 1);
}

static int remove_home(void **state)
{
	(void)state;
	made_remove(home);
	return 0;
}

static struct lora_model *open_good(const char *path)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_model *model = NULL;

	if (lora_model_open(&model, path, &err) != LORA_OK)
		fail_msg("cannot open '%s': %s", path, err.message);
	assert_true(lora__model_plausible(path));
	return model;
}

static void open_bad(const char *path, enum lora_status status, const char *says)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_model *model = (struct lora_model *)&err;

	assert_int_equal(lora_model_open(&model, path, &err), status);
	assert_null(model);
	if (!strstr(err.message, says) || strchr(err.message, '\n'))
		fail_msg("'%s' instead of '%s'", err.message, says);
}

static void make_sharded(const char *dir)
{
	made_text(made_path(dir, "config.json"), CONFIG);
	made_text(made_path(dir, "model.safetensors.index.json"), INDEX(XYZ));
	made_weights(made_path(dir, "a.safetensors"), XY, 3);
	made_weights(made_path(dir, "b.safetensors"), Z, 3);
}

/* --- opening ------------------------------------------------------------------------------------
 */

static void model__opens_a_directory(void **state)
{
	static const char json[] =
	    "{\"__metadata__\":{\"format\":\"pt\"}," T("x", "U8", "[2]", "0", "2") "}";
	char *dir = made_directory();
	struct lora_model *model = NULL;
	char slashes[4096];

	(void)state;
	made_text(made_path(dir, "config.json"), CONFIG);
	made_weights(made_path(dir, "model.safetensors"), json, 2);
	made_weights(made_path(dir, "other.safetensors"), Z, 3);
	snprintf(slashes, sizeof(slashes), "%s//", dir);
	model = open_good(slashes);
	assert_string_equal(lora_model_path(model), dir);
	assert_true(lora_model_is_directory(model));
	assert_string_equal(lora_model_type(model), "llama");
	assert_string_equal(lora_model_architecture(model), "LlamaForCausalLM");
	assert_int_equal(lora_model_file_count(model), 1);
	assert_string_equal(lora_model_file_name(model, 0), "model.safetensors");
	assert_int_equal(lora_model_file_size(model, 0), 8 + sizeof(json) - 1 + 2);
	assert_int_equal(lora_model_tensor_count(model), 1);
	assert_string_equal(lora_model_tensor(model, 0)->name, "x");
	assert_ptr_equal(lora_model_find(model, "x"), lora_model_tensor(model, 0));
	assert_null(lora_model_find(model, "z"));
	assert_string_equal(lora__index_metadata(&model->index, "format"), "pt");
	assert_memory_equal(model->config_text, CONFIG, model->config_size);
	assert_int_equal(model->shards[0].data_begin, 8 + sizeof(json) - 1);
	assert_memory_equal(model->shards[0].head + 8, json, sizeof(json) - 1);
	assert_false(model->index_ignored);
	assert_null(model->index_text);
	assert_null(lora_model_root(model));
	assert_null(lora_model_file_digest(model, 0));
	assert_null(lora_model_tensor_digest(model, 0));
	lora_model_close(model);
	lora_model_close(NULL);
	made_remove(dir);
}

static void model__opens_shards_in_order_of_name(void **state)
{
	char *dir = made_directory();
	struct lora_model *model = NULL;
	uint8_t bytes[3];
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	make_sharded(dir);
	model = open_good(dir);
	assert_int_equal(lora_model_file_count(model), 2);
	assert_string_equal(lora_model_file_name(model, 0), "a.safetensors");
	assert_string_equal(lora_model_file_name(model, 1), "b.safetensors");
	assert_int_equal(lora_model_tensor_count(model), 3);
	assert_string_equal(lora_model_tensor(model, 0)->name, "x");
	assert_string_equal(lora_model_tensor(model, 2)->name, "z");
	assert_int_equal(lora_model_tensor(model, 2)->file, 1);
	assert_memory_equal(model->index_text, INDEX(XYZ), model->index_size);
	assert_non_null(lora__json_get(model->index_json, "metadata"));
	assert_int_equal(lora_model_read(model, lora_model_find(model, "z"), 0, bytes, 3, &err),
			 LORA_OK);
	assert_memory_equal(bytes, "\x03\x0a\x11", 3);
	lora_model_close(model);
	made_remove(dir);
}

/* As in the hub cache: a directory of links to blobs. */
static void model__follows_links(void **state)
{
	char *dir = made_directory();
	struct lora_model *model = NULL;

	(void)state;
	assert_int_equal(mkdir(made_path(dir, "blobs"), 0777), 0);
	assert_int_equal(mkdir(made_path(dir, "snapshot"), 0777), 0);
	made_text(made_path(dir, "blobs/1"), CONFIG);
	made_weights(made_path(dir, "blobs/2"), Z, 3);
	assert_int_equal(symlink("../blobs/1", made_path(dir, "snapshot/config.json")), 0);
	assert_int_equal(symlink("../blobs/2", made_path(dir, "snapshot/model.safetensors")), 0);
	model = open_good(made_path(dir, "snapshot"));
	assert_int_equal(lora_model_tensor_count(model), 1);
	lora_model_close(model);
	assert_int_equal(unlink(made_path(dir, "blobs/1")), 0);
	open_bad(made_path(dir, "snapshot"), LORA_INPUT, "has no config.json");
	made_remove(dir);
}

static void model__opens_a_file(void **state)
{
	char *dir = made_directory();
	const char *path = made_path(dir, "weights.bin"); /* its bytes count, not its name */
	struct lora_model *model = NULL;

	(void)state;
	made_weights(path, Z, 3);
	model = open_good(path);
	assert_false(lora_model_is_directory(model));
	assert_null(lora_model_type(model));
	assert_null(lora_model_architecture(model));
	assert_string_equal(lora_model_file_name(model, 0), "weights.bin");
	lora_model_close(model);
	made_remove(dir);
}

/* The snapshot that refs/main names; a path that exists wins over it. */
static void model__opens_a_name(void **state)
{
	char *dir = made_directory(), *before = getcwd(NULL, 0);
	struct lora_model *model = NULL;
	const char *cache = made_path(home, "models--org--name");

	(void)state;
	assert_int_equal(mkdir(cache, 0777), 0);
	assert_int_equal(mkdir(made_path(cache, "refs"), 0777), 0);
	assert_int_equal(mkdir(made_path(cache, "snapshots"), 0777), 0);
	assert_int_equal(mkdir(made_path(cache, "snapshots/1234"), 0777), 0);
	made_text(made_path(cache, "refs/main"), "1234");
	cache = made_path(cache, "snapshots/1234");
	made_text(made_path(cache, "config.json"), CONFIG);
	made_weights(made_path(cache, "model.safetensors"), Z, 3);
	assert_int_equal(chdir(dir), 0);
	model = open_good("org/name");
	assert_string_equal(lora_model_path(model), cache);
	lora_model_close(model);
	assert_int_equal(mkdir("org", 0777), 0);
	made_weights("org/name", XY, 3);
	model = open_good("org/name");
	assert_string_equal(lora_model_path(model), "org/name");
	lora_model_close(model);
	open_bad("org/other", LORA_INPUT,
		 "'org/other' does not exist: no model 'org/other' in the");
	assert_int_equal(chdir(before), 0);
	free(before);
	made_remove(dir);
}

/* transformers takes model.safetensors and does not look at the index. */
static void model__prefers_the_whole_file(void **state)
{
	char *dir = made_directory();
	struct lora_model *model = NULL;

	(void)state;
	make_sharded(dir);
	made_weights(made_path(dir, "model.safetensors"), Z, 3);
	made_text(made_path(dir, "model.safetensors.index.json"), "not even JSON");
	model = open_good(dir);
	assert_int_equal(lora_model_tensor_count(model), 1);
	assert_true(model->index_ignored);
	lora_model_close(model);
	made_remove(dir);
}

static void model__refuses_paths_that_are_no_model(void **state)
{
	char *dir = made_directory();

	(void)state;
	open_bad(made_path(dir, "nothing"), LORA_INPUT, "nothing' does not exist");
	open_bad("", LORA_INPUT, "'' does not exist");
	open_bad("/dev/null", LORA_INPUT, "/dev/null");
	open_bad(dir, LORA_INPUT, "has no config.json");
	made_text(made_path(dir, "config.json"), CONFIG);
	open_bad(dir, LORA_INPUT, "has neither model.safetensors nor");
	made_text(made_path(dir, "pytorch_model.bin"), "PK");
	open_bad(dir, LORA_INPUT, "'pytorch_model.bin' is a pickle: save the model as safetensors");
	made_text(made_path(dir, "adapter_config.json"), "{}");
	open_bad(dir, LORA_INPUT, "is an adapter, not a model");
	assert_int_equal(unlink(made_path(dir, "config.json")), 0);
	open_bad(dir, LORA_INPUT, "is an adapter, not a model");
	assert_false(lora__model_plausible(dir));
	assert_false(lora__model_plausible(made_path(dir, "nothing")));
	assert_false(lora__model_plausible(made_path(dir, "pytorch_model.bin")));
	made_remove(dir);
}

static void model__refuses_broken_configs(void **state)
{
	char *dir = made_directory();
	const char *config = made_path(dir, "config.json");

	(void)state;
	made_weights(made_path(dir, "model.safetensors"), Z, 3);
	made_text(config, "[]");
	open_bad(dir, LORA_INPUT, "config.json': it is no JSON object");
	made_text(config, "{\"model_type\":\"a\",\"model_type\":\"b\"}");
	open_bad(dir, LORA_INPUT, "config.json'");
	made_text(config, "{");
	open_bad(dir, LORA_INPUT, "config.json'");
	assert_int_equal(truncate(config, (16 << 20) + 1), 0);
	open_bad(dir, LORA_INPUT, "config.json' has 16777217 bytes");
	assert_int_equal(unlink(config), 0);
	assert_int_equal(mkdir(config, 0777), 0);
	open_bad(dir, LORA_INPUT, "config.json': it is a directory");
	made_remove(dir);
}

/* Root may read everything, so it becomes nobody for a while. */
static void model__refuses_unreadable_files(void **state)
{
	char *dir = made_directory();
	bool root = geteuid() == 0, seen = false;

	(void)state;
	make_sharded(dir);
	assert_int_equal(chmod(dir, 0755), 0);
	assert_int_equal(chmod(made_path(dir, "b.safetensors"), 0), 0);
	if (root)
		assert_int_equal(seteuid(65534), 0);
	seen = access(dir, X_OK) == 0 && eaccess(made_path(dir, "config.json"), R_OK) == 0;
	if (seen)
		open_bad(dir, LORA_SYSTEM, "cannot open");
	if (root)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(chmod(dir, 0), 0);
	if (root)
		assert_int_equal(seteuid(65534), 0);
	if (seen)
		open_bad(dir, LORA_SYSTEM, "cannot examine");
	if (root)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(chmod(dir, 0700), 0);
	made_remove(dir);
	if (!seen)
		skip(); /* TMPDIR lies where nobody may look */
}

static void model__refuses_broken_indices(void **state)
{
	static const struct {
		const char *index, *says;
	} cases[] = {
	    {"", "malformed JSON"},
	    {"[]", "has no object 'weight_map'"},
	    {"{}", "has no object 'weight_map'"},
	    {"{\"weight_map\":[]}", "has no object 'weight_map'"},
	    {"{\"weight_map\":{}}", "names no tensor"},
	    {INDEX(XYZ ",\"x\":\"b.safetensors\""), "'x' twice"},
	    {INDEX("\"x\":1"), "the shard of 'x' is no string"},
	    {INDEX("\"x\":null"), "the shard of 'x' is no string"},
	    {INDEX("\"x\":\"\""), "'x' is said to be in '', which is not the name of a file"},
	    {INDEX("\"x\":\"..\""), "'..', which is not the name of a file"},
	    {INDEX("\"x\":\".\""), "'.', which is not the name of a file"},
	    {INDEX("\"x\":\"../a.safetensors\""), "'../a.safetensors', which is not the name"},
	    {INDEX("\"x\":\"/etc/passwd\""), "'/etc/passwd', which is not the name"},
	    {INDEX("\"x\":\"a\\nb\""), "'a\\x0Ab', which is not the name"},
	    {INDEX("\"x\":\"c.safetensors\""), "/c.safetensors' is missing"},
	    {INDEX(XYZ ",\"w\":\"a.safetensors\""),
	     "index.json': tensor 'w' is said to be in 'a.safetensors', which does not hold it"},
	    {INDEX("\"z\":\"a.safetensors\",\"x\":\"a.safetensors\",\"y\":\"b.safetensors\""),
	     "tensor 'z' is said to be in 'a.safetensors', but is in 'b.safetensors'"},
	    {INDEX("\"z\":\"b.safetensors\",\"x\":\"a.safetensors\""),
	     "does not name tensor 'y', which 'a.safetensors' holds"},
	    {INDEX("\"x\":\"a.safetensors\",\"z\":\"d.safetensors\""),
	     "tensor 'x' is in 'a.safetensors' and in 'd.safetensors'"},
	    {INDEX("\"x\":\"config.json\""), "config.json' is not a safetensors file: it is JSON"},
	};
	char *dir = made_directory();

	(void)state;
	make_sharded(dir);
	made_weights(made_path(dir, "d.safetensors"),
		     "{" T("x", "U8", "[2]", "0", "2") "," T("z", "U8", "[1]", "2", "3") "}", 3);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		made_text(made_path(dir, "model.safetensors.index.json"), cases[i].index);
		open_bad(dir, LORA_INPUT, cases[i].says);
	}
	made_remove(dir);
}

/* --- reading ------------------------------------------------------------------------------------
 */

static void model__reads_inside_a_tensor_only(void **state)
{
	char *dir = made_directory();
	const char *path = made_path(dir, "m.safetensors");
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_tensor stranger;
	struct lora_model *model = NULL;
	const struct lora_tensor *y = NULL;
	uint8_t bytes[4] = {0, 0, 0, 99};

	(void)state;
	made_weights(path, "{" T("x", "U8", "[2]", "0", "2") "," T("y", "U8", "[4]", "2", "6") "}",
		     6);
	model = open_good(path);
	y = lora_model_find(model, "y");
	/* bytes 2 .. 6 of the data are 17, 24, 31, 38 */
	assert_int_equal(lora_model_read(model, y, 1, bytes, 3, &err), LORA_OK);
	assert_memory_equal(bytes, "\x18\x1f\x26\x63", 4);
	assert_int_equal(lora_model_read(model, y, 4, bytes, 0, &err), LORA_OK);
	assert_int_equal(lora_model_read(model, y, 1, bytes, 4, &err), LORA_USAGE);
	assert_string_equal(err.message, "tensor 'y' has 4 bytes, not 4 from byte 1");
	assert_int_equal(lora_model_read(model, y, 5, bytes, 0, &err), LORA_USAGE);
	assert_int_equal(lora_model_read(model, y, UINT64_MAX, bytes, 2, &err), LORA_USAGE);
	assert_int_equal(lora_model_read(model, y, 1, bytes, SIZE_MAX, &err), LORA_USAGE);
	stranger = *y;
	stranger.file = 1;
	assert_int_equal(lora_model_read(model, &stranger, 0, bytes, 1, &err), LORA_USAGE);
	lora_model_close(model);
	made_remove(dir);
}

/* A byte changed in place, a file cut short, a file grown: every later read fails, and so do the
 * digests. */
static void model__notices_changes(void **state)
{
	char *dir = made_directory();
	const char *path = made_path(dir, "m.safetensors");

	(void)state;
	for (int change = 0; change < 3; change++) {
		struct lora_error err = LORA_ERROR_INIT;
		struct lora_model *model = NULL;
		uint8_t byte = 0;
		struct stat info;

		made_weights(path, Z, 3);
		made_old(path, 10);
		model = open_good(path);
		assert_int_equal(stat(path, &info), 0);
		assert_int_equal(
		    lora_model_read(model, lora_model_tensor(model, 0), 0, &byte, 1, &err),
		    LORA_OK);
		assert_int_equal(lora__model_unchanged(model, &err), LORA_OK);
		if (change == 0)
			made_weights(path, XY, 3);
		else
			assert_int_equal(truncate(path, info.st_size + (change == 1 ? -1 : 1)), 0);
		assert_int_equal(
		    lora_model_read(model, lora_model_tensor(model, 0), 2, &byte, 1, &err),
		    LORA_INPUT);
		assert_non_null(strstr(err.message, "changed while it was read"));
		assert_int_equal(lora__model_unchanged(model, &err), LORA_INPUT);
		assert_int_equal(lora_model_digest(model, LORA_DIGEST_FRESH, 1, NULL, &err),
				 LORA_INPUT);
		assert_null(lora_model_root(model));
		lora_model_close(model);
	}
	made_remove(dir);
}

/* --- digests ------------------------------------------------------------------------------------
 */

static void digest_fresh(struct lora_model *model, unsigned threads)
{
	struct lora_error err = LORA_ERROR_INIT;

	if (lora_model_digest(model, LORA_DIGEST_FRESH, threads, NULL, &err) != LORA_OK)
		fail_msg("%s", err.message);
}

static void check_hex(const struct lora_sha256 *digest, const char *expected)
{
	char hex[LORA_SHA256_HEX];

	assert_non_null(digest);
	lora__sha256_hex(digest, hex);
	assert_string_equal(hex, expected);
}

static void check_tensors(const struct lora_model *model)
{
	for (size_t i = 0; i < sizeof(tensor_hex) / sizeof(*tensor_hex); i++) {
		const struct lora_tensor *tensor = lora_model_find(model, tensor_hex[i].name);

		assert_non_null(tensor);
		check_hex(
		    lora_model_tensor_digest(model, (size_t)(tensor - lora_model_tensor(model, 0))),
		    tensor_hex[i].hex);
	}
	check_hex(lora_model_root(model), root_hex);
}

static void make_split(const char *dir)
{
	made_text(made_path(dir, "config.json"), "{}");
	made_text(made_path(dir, "model.safetensors.index.json"),
		  INDEX("\"a\":\"2\",\"b\":\"1\",\"c\":\"3\",\"d\":\"2\",\"e\":\"1\""));
	made_weights(made_path(dir, "1"), SHARD1, 2097152 + 1048832);
	made_weights(made_path(dir, "2"), SHARD2, 3145728);
	made_weights(made_path(dir, "3"), SHARD3, 1280);
}

/* One file or three shards, any number of threads: the same tensors, the same root. */
static void digest__is_what_python_computes(void **state)
{
	static const unsigned threads[] = {1, 2, 3, 16, 0};
	char *dir = made_directory();

	(void)state;
	make_split(dir);
	made_weights(made_path(dir, "whole"), WHOLE, WHOLE_DATA);
	for (size_t i = 0; i < sizeof(threads) / sizeof(*threads); i++) {
		struct lora_model *model = open_good(dir);

		digest_fresh(model, threads[i]);
		check_tensors(model);
		for (size_t file = 0; file < 3; file++)
			check_hex(lora_model_file_digest(model, file), shard_hex[file]);
		lora_model_close(model);
		model = open_good(made_path(dir, "whole"));
		digest_fresh(model, threads[i]);
		check_tensors(model);
		check_hex(lora_model_file_digest(model, 0), whole_hex);
		lora_model_close(model);
	}
	made_remove(dir);
}

/* Two shards of 20 MiB and 21 MiB of zeros: more blocks than there are at once.
 * hashlib.sha256(bytes(n << 20)) */
static void digest__uses_blocks_again(void **state)
{
	static const char *const expected[] = {
	    "cd52d81e25f372e6fa4db2c0dfceb59862c1969cab17096da352b34950c973cc",
	    "e5699dfba328f8ea58f0cec082bb38bd21137651b3c01e3a14cc62cbca2697ff"};
	char *dir = made_directory();

	(void)state;
	made_text(made_path(dir, "config.json"), "{}");
	made_text(made_path(dir, "model.safetensors.index.json"), INDEX("\"a\":\"1\",\"b\":\"2\""));
	made_weights(made_path(dir, "1"), "{" T("a", "U8", "[20971520]", "0", "20971520") "}", 0);
	made_weights(made_path(dir, "2"), "{" T("b", "U8", "[22020096]", "0", "22020096") "}", 0);
	assert_int_equal(truncate(made_path(dir, "1"), 20971520 + ZEROS_HEAD), 0);
	assert_int_equal(truncate(made_path(dir, "2"), 22020096 + ZEROS_HEAD), 0);
	for (unsigned threads = 1; threads <= 8; threads *= 2) {
		struct lora_model *model = open_good(dir);

		digest_fresh(model, threads);
		check_hex(lora_model_tensor_digest(model, 0), expected[0]);
		check_hex(lora_model_tensor_digest(model, 1), expected[1]);
		lora_model_close(model);
	}
	made_remove(dir);
}

/* No tensor: the root is SHA-256 of nothing, the file's digest is that of its ten bytes
 * (printf '\2\0\0\0\0\0\0\0{}' | sha256sum). */
static void digest__of_a_file_without_tensors(void **state)
{
	char *dir = made_directory();
	const char *path = made_path(dir, "m.safetensors");
	struct lora_model *model = NULL;

	(void)state;
	made_weights(path, "{}", 0);
	model = open_good(path);
	digest_fresh(model, 2);
	check_hex(lora_model_root(model), tensor_hex[1].hex);
	check_hex(lora_model_file_digest(model, 0),
		  "411a485216e432ece6b9af94fa32154cf79a2a56d4f81266baa50063f45092bd");
	lora_model_close(model);
	made_remove(dir);
}

struct seen {
	uint64_t done, total, calls;
	uint64_t stop_at;
};

static int on_progress(void *user, const struct lora_progress *progress)
{
	struct seen *seen = user;

	assert_string_equal(progress->stage, "hash base");
	assert_true(progress->done >= seen->done);
	seen->done = progress->done;
	seen->total = progress->total;
	seen->calls++;
	return seen->done >= seen->stop_at;
}

static void digest__reports_progress_and_stops(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct seen seen = {.stop_at = UINT64_MAX};
	struct lora_observer observer = {.user = &seen, .progress = on_progress};
	struct lora_model *model = NULL;
	char *dir = made_directory();

	(void)state;
	make_split(dir);
	model = open_good(dir);
	assert_int_equal(lora_model_digest(model, LORA_DIGEST_FRESH, 2, &observer, &err), LORA_OK);
	assert_int_equal(seen.total, lora_model_file_size(model, 0) +
					 lora_model_file_size(model, 1) +
					 lora_model_file_size(model, 2));
	assert_int_equal(seen.done, seen.total);
	lora_model_close(model);
	for (unsigned threads = 1; threads < 4; threads++) {
		seen = (struct seen){.stop_at = 1};
		model = open_good(dir);
		assert_int_equal(
		    lora_model_digest(model, LORA_DIGEST_CACHED, threads, &observer, &err),
		    LORA_CANCELLED);
		assert_null(lora_model_root(model));
		assert_true(seen.done < seen.total);
		lora_model_close(model);
	}
	made_remove(dir);
}

/* --- the cache ----------------------------------------------------------------------------------
 */

/* The number of entries; *path is the name of one of them, malloc'd, if there is any. */
static size_t entries(char **path)
{
	const char *cache = made_path(home, "loractl/digests");
	DIR *directory = opendir(cache);
	struct dirent *item = NULL;
	size_t count = 0;

	if (!directory)
		return 0;
	while ((item = readdir(directory))) {
		if (item->d_name[0] == '.')
			continue;
		if (path && count == 0)
			*path = strdup(made_path(cache, item->d_name));
		count++;
	}
	closedir(directory);
	return count;
}

static void forget_cache(void)
{
	char *path = NULL;

	while (path = NULL, entries(&path) > 0) {
		assert_int_equal(unlink(path), 0);
		free(path);
	}
}

/* Opens, hashes through the cache, and hands the open model over. */
static struct lora_model *digest_cached(const char *path)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_model *model = open_good(path);

	if (lora_model_digest(model, LORA_DIGEST_CACHED, 1, NULL, &err) != LORA_OK)
		fail_msg("%s", err.message);
	return model;
}

/* Makes `path` a model of which the cache knows. Returns its entry. */
static char *make_cached(const char *path)
{
	char *entry = NULL;

	forget_cache();
	made_weights(path, Z, 3);
	made_old(path, 10);
	lora_model_close(digest_cached(path));
	assert_int_equal(entries(&entry), 1);
	return entry;
}

/* Reads an entry of 16 + 32 + 8 + 8 bytes, one file digest, one tensor digest, a seal. */
static void read_entry(const char *entry, uint8_t bytes[160])
{
	FILE *file = fopen(entry, "rb");

	assert_non_null(file);
	assert_int_equal(fread(bytes, 1, 160, file), 160);
	assert_int_equal(fgetc(file), EOF);
	fclose(file);
}

/* That an entry is used shows when it lies: it is sealed again around another digest. */
static void cache__is_used(void **state)
{
	char *dir = made_directory(), *entry = NULL;
	const char *path = made_path(dir, "m.safetensors");
	struct lora_model *model = NULL;
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_sha256 seal, truth, root;
	uint8_t bytes[160];

	(void)state;
	entry = make_cached(path);
	read_entry(entry, bytes);
	assert_memory_equal(bytes, "loractl digest 1", 16);
	lora__sha256("\x03\x0a\x11", 3, &truth);
	assert_memory_equal(bytes + 96, truth.byte, 32);
	model = digest_cached(path);
	assert_true(model->digests_cached);
	root = *lora_model_root(model);
	lora_model_close(model);
	bytes[96] ^= 1;
	lora__sha256(bytes, 128, &seal);
	memcpy(bytes + 128, seal.byte, 32);
	made_file(entry, bytes, 160);
	model = digest_cached(path);
	assert_memory_equal(lora_model_tensor_digest(model, 0)->byte, bytes + 96, 32);
	assert_memory_not_equal(lora_model_root(model)->byte, root.byte, 32);
	/* LORA_DIGEST_FRESH does not believe what the model has out of the cache. */
	assert_int_equal(lora_model_digest(model, LORA_DIGEST_FRESH, 1, NULL, &err), LORA_OK);
	assert_memory_equal(lora_model_tensor_digest(model, 0)->byte, truth.byte, 32);
	assert_memory_equal(lora_model_root(model)->byte, root.byte, 32);
	lora_model_close(model);
	free(entry);
	made_remove(dir);
}

static void cache__is_not_written_by_fresh_digests(void **state)
{
	char *dir = made_directory();
	const char *path = made_path(dir, "m.safetensors");
	struct lora_model *model = NULL;

	(void)state;
	forget_cache();
	made_weights(path, Z, 3);
	made_old(path, 10);
	model = open_good(path);
	digest_fresh(model, 1);
	assert_int_equal(entries(NULL), 0);
	lora_model_close(model);
	made_remove(dir);
}

static void cache__ignores_damaged_entries(void **state)
{
	char *dir = made_directory(), *entry = NULL;
	const char *path = made_path(dir, "m.safetensors");
	struct lora_model *model = NULL;
	uint8_t bytes[161] = {0};

	(void)state;
	entry = make_cached(path);
	read_entry(entry, bytes);
	for (size_t at = 0; at < 160; at++) {
		bytes[at] ^= 0x10;
		made_file(entry, bytes, 160);
		model = digest_cached(path);
		assert_false(model->digests_cached);
		lora_model_close(model);
		bytes[at] ^= 0x10;
	}
	for (size_t size = 0; size <= 161; size += size < 150 ? 50 : 1) {
		made_file(entry, bytes, size);
		model = digest_cached(path);
		assert_int_equal(model->digests_cached, size == 160);
		lora_model_close(model);
	}
	assert_int_equal(chmod(entry, 0666), 0); /* anybody could have written it */
	model = digest_cached(path);
	assert_false(model->digests_cached);
	lora_model_close(model);
	free(entry);
	made_remove(dir);
}

/* Every fact of the key: another inode, another mtime, another size, and ctime alone. */
static void cache__forgets_files_that_changed(void **state)
{
	char *dir = made_directory();
	const char *path = made_path(dir, "m.safetensors"), *copy = made_path(dir, "copy");
	struct lora_model *model = NULL;
	struct timespec times[2];
	struct stat info;

	(void)state;
	for (int change = 0; change < 3; change++) {
		free(make_cached(path));
		assert_int_equal(stat(path, &info), 0);
		times[0] = times[1] = info.st_mtim;
		if (change == 0) { /* another file under the name */
			made_weights(copy, Z, 3);
			assert_int_equal(rename(copy, path), 0);
		} else if (change == 1) { /* written, with mtime set back: ctime tells */
			usleep(20000);
			made_weights(path, Z, 3);
		} else {
			made_old(path, 5);
		}
		if (change < 2)
			assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
		model = digest_cached(path);
		assert_false(model->digests_cached);
		lora_model_close(model);
	}
	made_remove(dir);
}

static void cache__does_not_take_young_files(void **state)
{
	char *dir = made_directory();
	const char *path = made_path(dir, "m.safetensors");

	(void)state;
	forget_cache();
	made_weights(path, Z, 3);
	lora_model_close(digest_cached(path));
	assert_int_equal(entries(NULL), 0);
	made_old(path, 1);
	lora_model_close(digest_cached(path));
	assert_int_equal(entries(NULL), 0);
	made_old(path, 3);
	lora_model_close(digest_cached(path));
	assert_int_equal(entries(NULL), 1);
	made_remove(dir);
}

static void cache__keeps_64_entries_last_used(void **state)
{
	char *dir = made_directory(), *entry = NULL;
	const char *path = made_path(dir, "m.safetensors");
	const char *cache = made_path(home, "loractl/digests");
	char name[LORA_SHA256_HEX];

	(void)state;
	entry = make_cached(path);
	for (int i = 0; i < 70; i++) { /* older and older; 69 is the oldest */
		snprintf(name, sizeof(name), "%064d", i);
		made_text(made_path(cache, name), "");
		made_old(made_path(cache, name), 100 + i);
	}
	made_text(made_path(cache, "README"), "not ours");
	made_text(made_path(cache, ".new-1-0"), "");
	made_text(made_path(cache, ".new-2-0"), "");
	made_old(made_path(cache, ".new-2-0"), 4000);
	made_old(made_path(cache, "README"), 100000);
	made_old(entry, 5000);
	lora_model_close(digest_cached(path)); /* the oldest, but used now */
	made_old(path, 20);		       /* another key: stores, and prunes */
	lora_model_close(digest_cached(path));
	assert_int_equal(entries(NULL), 64 + 1);
	assert_int_equal(access(entry, F_OK), 0);
	snprintf(name, sizeof(name), "%064d", 61);
	assert_int_equal(access(made_path(cache, name), F_OK), 0);
	snprintf(name, sizeof(name), "%064d", 62);
	assert_int_not_equal(access(made_path(cache, name), F_OK), 0);
	assert_int_equal(access(made_path(cache, "README"), F_OK), 0);
	assert_int_equal(access(made_path(cache, ".new-1-0"), F_OK), 0);
	assert_int_not_equal(access(made_path(cache, ".new-2-0"), F_OK), 0);
	assert_int_equal(unlink(made_path(cache, "README")), 0);
	free(entry);
	made_remove(dir);
}

/* Nothing about the cache is an error. */
static void cache__may_be_unusable(void **state)
{
	static const char *const homes[] = {"/dev/null", "/proc/none", "relative", ""};
	char *dir = made_directory();
	const char *path = made_path(dir, "m.safetensors");

	(void)state;
	made_weights(path, Z, 3);
	made_old(path, 10);
	assert_int_equal(setenv("HOME", "/dev/null", 1), 0);
	for (size_t i = 0; i < sizeof(homes) / sizeof(*homes); i++) {
		struct lora_model *model = NULL;

		assert_int_equal(setenv("XDG_CACHE_HOME", homes[i], 1), 0);
		model = digest_cached(path);
		assert_false(model->digests_cached);
		lora_model_close(model);
	}
	assert_int_equal(setenv("XDG_CACHE_HOME", home, 1), 0);
	made_remove(dir);
}

/* What a writer computed itself is found by the next reader. */
static void cache__takes_what_a_writer_computed(void **state)
{
	char *dir = made_directory();
	const char *path = made_path(dir, "m.safetensors");
	struct lora_model *model = NULL;
	struct lora_sha256 digest;

	(void)state;
	forget_cache();
	made_weights(path, Z, 3);
	made_old(path, 10);
	model = open_good(path);
	lora__digest_cache_store(model); /* knows nothing: stores nothing */
	assert_int_equal(entries(NULL), 0);
	model->tensor_sha256 = calloc(1, sizeof(*model->tensor_sha256));
	assert_non_null(model->tensor_sha256);
	memset(&digest, 0x5a, sizeof(digest));
	model->tensor_sha256[0] = digest;
	model->shards[0].sha256 = digest;
	model->digests_known = true;
	lora__digest_cache_store(model);
	lora_model_close(model);
	assert_int_equal(entries(NULL), 1);
	model = digest_cached(path);
	assert_memory_equal(lora_model_file_digest(model, 0)->byte, digest.byte, 32);
	lora_model_close(model);
	forget_cache();
	made_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(model__opens_a_directory),
	    cmocka_unit_test(model__opens_shards_in_order_of_name),
	    cmocka_unit_test(model__follows_links),
	    cmocka_unit_test(model__opens_a_file),
	    cmocka_unit_test(model__opens_a_name),
	    cmocka_unit_test(model__prefers_the_whole_file),
	    cmocka_unit_test(model__refuses_paths_that_are_no_model),
	    cmocka_unit_test(model__refuses_broken_configs),
	    cmocka_unit_test(model__refuses_unreadable_files),
	    cmocka_unit_test(model__refuses_broken_indices),
	    cmocka_unit_test(model__reads_inside_a_tensor_only),
	    cmocka_unit_test(model__notices_changes),
	    cmocka_unit_test(digest__is_what_python_computes),
	    cmocka_unit_test(digest__uses_blocks_again),
	    cmocka_unit_test(digest__of_a_file_without_tensors),
	    cmocka_unit_test(digest__reports_progress_and_stops),
	    cmocka_unit_test(cache__is_used),
	    cmocka_unit_test(cache__is_not_written_by_fresh_digests),
	    cmocka_unit_test(cache__ignores_damaged_entries),
	    cmocka_unit_test(cache__forgets_files_that_changed),
	    cmocka_unit_test(cache__does_not_take_young_files),
	    cmocka_unit_test(cache__keeps_64_entries_last_used),
	    cmocka_unit_test(cache__may_be_unusable),
	    cmocka_unit_test(cache__takes_what_a_writer_computed),
	};

	return cmocka_run_group_tests(tests, make_home, remove_home);
}
