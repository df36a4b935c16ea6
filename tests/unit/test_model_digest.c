/* SPDX-License-Identifier: Apache-2.0 */
/* test_model_digest.c - hashing a model, and the cache of digests (src/checkpoint)
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
#include "failing_malloc.h"
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

#define INDEX(map) "{\"metadata\":{\"total_size\":6},\"weight_map\":{" map "}}"
#define XY	   "{" T("x", "U8", "[2]", "0", "2") "," T("y", "U8", "[1]", "2", "3") "}"
#define Z	   "{" T("z", "U8", "[3]", "0", "3") "}"

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

/* --- without memory -----------------------------------------------------------------------------
 */

/* libcrypto fetches an algorithm once and keeps it; when it could not, it may keep some of that
 * too. So the count of what is left is taken after the first digest that succeeded. */
static void digest__fails_cleanly_without_memory(void **state)
{
	char *dir = made_directory();
	long live = 0, n = 0;
	bool failed = true;

	(void)state;
	make_split(dir);
	for (; FAILING_MALLOC && failed; n++) {
		struct lora_error err = LORA_ERROR_INIT;
		struct lora_model *model = open_good(dir);
		enum lora_status status;

		if (n == 0)
			digest_fresh(model, 1);
		lora_model_close(model);
		live = failing_malloc_live();
		model = open_good(dir);
		failing_malloc_begin(n);
		status = lora_model_digest(model, LORA_DIGEST_FRESH, 1, NULL, &err);
		failed = failing_malloc_end();
		assert_int_equal(status, failed ? LORA_SYSTEM : LORA_OK);
		assert_true(failed == (lora_model_root(model) == NULL));
		if (!failed)
			check_tensors(model);
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
	    cmocka_unit_test(digest__fails_cleanly_without_memory),
	};

	return cmocka_run_group_tests(tests, make_home, remove_home);
}
