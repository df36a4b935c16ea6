/* SPDX-License-Identifier: Apache-2.0 */
/* test_model.c - opening and reading a model on disk (src/checkpoint)
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
#include "failing_malloc.h"
#include "made.h"

#define T(name, dtype, shape, begin, end)                                                          \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin       \
	"," end "]}"

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

/* --- without memory -----------------------------------------------------------------------------
 */

static void model__opens_or_fails_cleanly_without_memory(void **state)
{
	char *dir = made_directory();
	long live = 0, n = 0;
	bool failed = true;

	(void)state;
	make_sharded(dir);
	lora_model_close(open_good(dir));
	live = failing_malloc_live();
	for (; FAILING_MALLOC && failed; n++) {
		struct lora_error err = LORA_ERROR_INIT;
		struct lora_model *model = NULL;
		enum lora_status status;

		failing_malloc_begin(n);
		status = lora_model_open(&model, dir, &err);
		failed = failing_malloc_end();
		assert_int_equal(status, failed ? LORA_SYSTEM : LORA_OK);
		assert_true(failed == (model == NULL));
		lora_model_close(model);
		assert_int_equal(failing_malloc_live(), live);
	}
	made_remove(dir);
	if (!FAILING_MALLOC)
		skip();
	assert_true(n > 30);
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
	    cmocka_unit_test(model__opens_or_fails_cleanly_without_memory),
	};

	return cmocka_run_group_tests(tests, make_home, remove_home);
}
