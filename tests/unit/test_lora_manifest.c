/* SPDX-License-Identifier: Apache-2.0 */
/* test_lora_manifest.c - the manifest of a version: one spelling, and everything else refused.
 *
 * Manifests are written here by hand; the root is the only value that is computed, by SHA-256 over
 * what lora-container(5) says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/containers/lora.h"

#define D1 "1111111111111111111111111111111111111111111111111111111111111111"
#define D2 "2222222222222222222222222222222222222222222222222222222222222222"

/* SHA-256 of "loractl content 1" NUL and each file: name length, name, size, digest. */
static const char *root_of(const char *const *names, const unsigned *sizes, size_t count)
{
	static char hex[65];
	uint8_t text[65536];
	struct lora_sha256 digest;
	size_t at = 18;

	memcpy(text, "loractl content 1", 18);
	for (size_t i = 0; i < count; i++) {
		size_t length = strlen(names[i]);

		for (unsigned b = 0; b < 4; b++)
			text[at++] = (uint8_t)(length >> 8 * b);
		memcpy(text + at, names[i], length);
		at += length;
		for (unsigned b = 0; b < 8; b++)
			text[at++] = (uint8_t)((uint64_t)sizes[i] >> 8 * b);
		memset(text + at, 0x11, 32);
		at += 32;
	}
	lora__sha256(text, at, &digest);
	lora__sha256_hex(&digest, hex);
	return hex;
}

static enum lora_status parse(const char *text, struct lora_manifest *m, struct lora_error *err)
{
	/* Exactly as long as it is: a byte behind it is another's. */
	size_t size = strlen(text);
	char *copy = malloc(size + (size == 0));
	enum lora_status status;

	memcpy(copy, text, size);
	*m = (struct lora_manifest){0};
	status = lora__manifest_parse(m, copy, size, err);
	free(copy);
	return status;
}

/* One with one file `a` of one plain part of 2 bytes. */
static const char *plain(const char *replace, const char *with)
{
	static const char *const names[] = {"a"};
	static const unsigned sizes[] = {2};
	static char text[65536];
	char base[4096];
	const char *found;

	snprintf(base, sizeof(base),
		 "{\"base_root\":null,\"files\":[{\"name\":\"a\",\"parts\":[{\"sha256\":\"" D2
		 "\",\"size\":2}],\"sha256\":\"" D1
		 "\",\"size\":2}],\"message\":\"\",\"metadata\":{},\"name\":\"n\",\"parent\":null,"
		 "\"root\":\"%s\",\"schema\":\"loractl.manifest/1\",\"version\":1}",
		 root_of(names, sizes, 1));
	if (!replace)
		return strcpy(text, base);
	found = strstr(base, replace);
	assert_non_null(found);
	snprintf(text, sizeof(text), "%.*s%s%s", (int)(found - base), base, with,
		 found + strlen(replace));
	return text;
}

static void good(void **state)
{
	struct lora_manifest m;

	(void)state;
	assert_int_equal(parse(plain(NULL, NULL), &m, NULL), LORA_OK);
	assert_string_equal(m.name, "n");
	assert_int_equal(m.version, 1);
	assert_int_equal(m.file_count, 1);
	assert_int_equal(m.part_count, 1);
	assert_int_equal(m.bytes, 2);
	assert_string_equal(m.files[0].name, "a");
	assert_int_equal(m.parts[0].digest.byte[0], 0x22);
	assert_null(m.parts[0].tensor);
	assert_false(m.bound || m.has_parent);
	lora__manifest_fini(&m);
}

static const struct {
	const char *replace, *with;
	const char *words; /* NULL: it is read */
} changes[] = {
    {"\"base_root\":null", "\"base_root\":\"" D1 "\"", NULL},
    {"\"message\":\"\"", "\"message\":\"a\\nb\\\"\\\\\\u0001\\u001f\\t\x7f\xc3\xa9\"", NULL},
    {"\"metadata\":{}", "\"metadata\":{\"\":\"\",\"a\":\"x\",\"b\":\"\"}", NULL},
    {"\"parent\":null", "\"parent\":\"" D1 "\"", "version and parent"},
    {"\"version\":1", "\"version\":2", "version and parent"},
    {"\"version\":1", "\"version\":0", "version and parent"},
    {"\"version\":1", "\"version\":9007199254740992", "too large"},
    {"\"version\":1", "\"version\":99999999999999999999", "too large"},
    /* members that we do not know */
    {"{\"base_root\"", "{\"alpha\":{\"x\":[1,true,null,\"\"]},\"base_root\"", NULL},
    {"\"version\":1", "\"version\":1,\"zeta\":[]", NULL},
    {"\"size\":2}],", "\"size\":2,\"zeta\":{}}],", NULL},
    {"\"files\"", "\"crit\":[],\"files\"", NULL},
    {"\"files\"", "\"crit\":[\"zeta\"],\"files\"", "'zeta'"},
    {"\"files\"", "\"crit\":[\"name\"],\"files\"", "'name'"},
    {"\"files\"", "\"crit\":{},\"files\"", "array"},
    /* not the one spelling */
    {"{\"base_root\"", " {\"base_root\"", "byte 0"},
    {"\"version\":1}", "\"version\":1} ", "behind"},
    {"\"version\":1}", "\"version\":1 }", "canonical"},
    {"\"base_root\":null", "\"base_root\": null", "expected"},
    {"\"version\":1", "\"version\":1.0", "canonical"},
    {"\"version\":1", "\"version\":1e0", "canonical"},
    {"\"version\":1", "\"version\":-1", "digits"},
    {"\"version\":1", "\"version\":\"1\"", "digits"},
    {"\"name\":\"n\"", "\"name\":\"\\u006e\"", "escape"},
    {"\"message\":\"\"", "\"message\":\"\\/\"", "escape"},
    {"\"message\":\"\"", "\"message\":\"\\u000a\"", "escape"},
    {"\"message\":\"\"", "\"message\":\"\\u000B\"", "escape"},
    {"\"message\":\"\"", "\"message\":\"\\u0000\"", "manifest"},
    {"\"message\":\"\"", "\"message\":\"\\ud800\"", "manifest"},
    {"\"message\":\"\"", "\"message\":\"\xff\"", "manifest"},
    {"{\"base_root\":null,\"files\"", "{\"files\"", "order|lacks"},
    {"\"base_root\":null,", "\"base_root\":null,\"base_root\":null,", "order"},
    {"\"message\":\"\",\"metadata\":{}", "\"metadata\":{},\"message\":\"\"", "order"},
    {"\"metadata\":{}", "\"metadata\":{\"b\":\"\",\"a\":\"\"}", "order"},
    {"\"metadata\":{}", "\"metadata\":{\"a\":\"\",\"a\":\"\"}", "order"},
    {"\"metadata\":{}", "\"metadata\":{\"a\":1}", "string"},
    {"\"message\":\"\",", "", "lacks"},
    {"\"parent\":null,", "", "lacks"},
    {"manifest/1", "manifest/2", "schema"},
    {"{\"base_root\"",
     "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":{\"g\":{\"h\":{\"i\":{"
     "\"j\":{\"k\":{\"l\":{\"m\":{\"n\":{\"o\":{\"p\":{\"q\":1}}}}}}}}}}}}}}}},"
     "\"base_root\"",
     "deep"},
    {"\"base_root\":null", "\"base_root\":true", "string"},
    {"\"base_root\":null", "\"base_root\":\"11\"", "64"},
    {D2, "2222222222222222222222222222222222222222222222222222222222222g22", "64"},
    {D2, "222222222222222222222222222222222222222222222222222222222222222A", "64"},
    {"\"root\":\"", "\"root\":\"" D1 "\",\"rooz\":\"", "root"},
    /* names */
    {"\"name\":\"n\"", "\"name\":\"\"", "adapter's name"},
    {"\"name\":\"n\"", "\"name\":\"a/b\"", "adapter's name"},
    {"\"name\":\"n\"", "\"name\":\"a\\nb\"", "adapter's name"},
    {"\"name\":\"a\"", "\"name\":\"\"", "file's name"},
    {"\"name\":\"a\"", "\"name\":\"..\"", "file's name"},
    {"\"name\":\"a\"", "\"name\":\".\"", "file's name"},
    {"\"name\":\"a\"", "\"name\":\"/a\"", "file's name"},
    {"\"name\":\"a\"", "\"name\":\"a/\"", "file's name"},
    {"\"name\":\"a\"", "\"name\":\"a//b\"", "file's name"},
    {"\"name\":\"a\"", "\"name\":\"a/../b\"", "file's name"},
    {"\"name\":\"a\"", "\"name\":\"a/./b\"", "file's name"},
    {"\"name\":\"a\"", "\"name\":\"a\\tb\"", "file's name"},
    {"\"name\":\"a\"", "\"name\":\"a\x7f\"", "file's name"},
    /* sizes */
    {"\"size\":2}],", "\"size\":0}],", "empty"},
    {"\"size\":2}],", "\"size\":3}],", "do not have its size"},
    {"\"size\":2}],", "\"size\":281474976710656}],", "too large"},
    {"\"size\":2}],", "\"size\":18446744073709551618}],", "too large"},
    {"\"size\":2}],", "\"size\":281474976710655},{\"sha256\":\"" D1 "\",\"size\":3}],",
     "too large"},
    {"\"parts\":[", "\"parts\":[{},", "lacks"},
    {"\"parts\":[", "\"parts\":[1,", "object"},
    {"\"parts\":[", "\"parts\":[[],", "object"},
    {"\"parts\":[{", "\"parts\":[{\"dtype\":\"F16\",", "lacks"},
    {"\"files\":[", "\"files\":[null,", "object"},
    {"\"files\":[", "\"files\":{},\"filez\":[", "array"},
};

static void variations(void **state)
{
	struct lora_manifest m;
	struct lora_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++) {
		const char *text = plain(changes[i].replace, changes[i].with);
		enum lora_status status;

		err = (struct lora_error)LORA_ERROR_INIT;
		status = parse(text, &m, &err);
		lora__manifest_fini(&m);
		if (!changes[i].words && status)
			fail_msg("%s: %s", text, err.message);
		if (changes[i].words && status != LORA_INPUT)
			fail_msg("accepted: %s", text);
		if (changes[i].words && !strchr(changes[i].words, '|') &&
		    !strstr(err.message, changes[i].words))
			fail_msg("%s: said '%s', not '%s'", text, err.message, changes[i].words);
	}
}

/* Every shorter text, and every text with one changed byte, is refused, or means what it says. */
static void damage(void **state)
{
	char text[4096];
	size_t size;
	struct lora_manifest m;

	(void)state;
	strcpy(text, plain(NULL, NULL));
	size = strlen(text);
	for (size_t cut = 0; cut < size; cut++) {
		char shorter[4096];

		memcpy(shorter, text, cut);
		shorter[cut] = '\0';
		assert_int_equal(parse(shorter, &m, NULL), LORA_INPUT);
		lora__manifest_fini(&m);
	}
	for (size_t at = 0; at < size; at++)
		for (unsigned bit = 0; bit < 8; bit++) {
			text[at] ^= (char)(1 << bit);
			if (text[at])
				(void)parse(text, &m, NULL);
			lora__manifest_fini(&m);
			text[at] ^= (char)(1 << bit);
		}
}

/* --- tensors --------------------------------------------------------------------------------- */

static enum lora_status with_part(const char *part, unsigned size, struct lora_error *err)
{
	static const char *const names[] = {"a"};
	struct lora_manifest m;
	char text[8192];
	enum lora_status status;

	snprintf(text, sizeof(text),
		 "{\"base_root\":null,\"files\":[{\"name\":\"a\",\"parts\":[%s],\"sha256\":\"" D1
		 "\",\"size\":%u}],\"message\":\"\",\"metadata\":{},\"name\":\"n\",\"parent\":null,"
		 "\"root\":\"%s\",\"schema\":\"loractl.manifest/1\",\"version\":1}",
		 part, size, root_of(names, &size, 1));
	status = parse(text, &m, err);
	lora__manifest_fini(&m);
	return status;
}

#define TENSOR(dtype, shape, size, name)                                                           \
	"{\"dtype\":\"" dtype "\",\"sha256\":\"" D2 "\",\"shape\":" shape ",\"size\":" size        \
	",\"tensor\":\"" name "\"}"

static void tensors(void **state)
{
	static const struct {
		const char *part;
		unsigned size;
		bool good;
	} cases[] = {
	    {TENSOR("F32", "[2,3]", "24", "t"), 24, true},
	    {TENSOR("F32", "[]", "4", "t"), 4, true},
	    {TENSOR("F4", "[2,3]", "3", "t"), 3, true},
	    {TENSOR("F32", "[1,1,1,1,1,1,1,1]", "4", "t"), 4, true},
	    {TENSOR("F32", "[1,1,1,1,1,1,1,1,1]", "4", "t"), 4, false},
	    {TENSOR("F32", "[2,3]", "23", "t"), 23, false},
	    {TENSOR("F4", "[3]", "1", "t"), 1, false},
	    {TENSOR("F31", "[2,3]", "24", "t"), 24, false},
	    {TENSOR("", "[2,3]", "24", "t"), 24, false},
	    {TENSOR("F32", "[2,3]", "24", ""), 24, false},
	    {TENSOR("F32", "[0]", "0", "t"), 0, false},
	    {TENSOR("F32", "[0,6]", "24", "t"), 24, false},
	    {TENSOR("F32", "[4294967296,4294967296,6]", "24", "t"), 24, false},
	    {TENSOR("U8", "[281474976710656]", "24", "t"), 24, false},
	    {TENSOR("U8", "[1.5]", "24", "t"), 24, false},
	    {TENSOR("U8", "{}", "24", "t"), 24, false},
	    {TENSOR("U8", "[2]", "2", "t") "," TENSOR("U8", "[2]", "2", "u"), 4, true},
	    {TENSOR("U8", "[2]", "2", "t") "," TENSOR("U8", "[2]", "2", "t"), 4, false},
	    {"{\"dtype\":\"U8\",\"sha256\":\"" D2 "\",\"shape\":[2],\"size\":2}", 2, false},
	    {"{\"dtype\":\"U8\",\"sha256\":\"" D2 "\",\"size\":2,\"tensor\":\"t\"}", 2, false},
	    {"{\"sha256\":\"" D2 "\",\"shape\":[2],\"size\":2,\"tensor\":\"t\"}", 2, false},
	};
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (with_part(cases[i].part, cases[i].size, &err) !=
		    (cases[i].good ? LORA_OK : LORA_INPUT))
			fail_msg("%s: %s", cases[i].part, err.message);
}

/* --- files ----------------------------------------------------------------------------------- */

static enum lora_status with_files(const char *const *names, size_t count)
{
	static char text[1 << 18];
	unsigned sizes[64] = {0};
	struct lora_manifest m;
	size_t at;
	enum lora_status status;

	at = (size_t)snprintf(text, sizeof(text), "{\"base_root\":null,\"files\":[");
	for (size_t i = 0; i < count; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at,
				       "%s{\"name\":\"%s\",\"parts\":[],\"sha256\":\"" D1
				       "\",\"size\":0}",
				       i ? "," : "", names[i]);
	snprintf(text + at, sizeof(text) - at,
		 "],\"message\":\"\",\"metadata\":{},\"name\":\"n\",\"parent\":null,"
		 "\"root\":\"%s\",\"schema\":\"loractl.manifest/1\",\"version\":1}",
		 root_of(names, sizes, count));
	status = parse(text, &m, NULL);
	lora__manifest_fini(&m);
	return status;
}

static void files(void **state)
{
	static const char *const ordered[] = {"a", "a-b/c", "a.b", "b/c", "b/d"},
				 *const twice[] = {"a", "a"}, *const backwards[] = {"b", "a"},
				 *const folder[] = {"a", "a-b", "a/b"},
				 *const deep[] = {"a/b", "a/b-c", "a/b/c"};
	char name[2048], part[300];
	const char *one[] = {name};

	(void)state;
	assert_int_equal(with_files(NULL, 0), LORA_OK);
	assert_int_equal(with_files(ordered, 5), LORA_OK);
	assert_int_equal(with_files(twice, 2), LORA_INPUT);
	assert_int_equal(with_files(backwards, 2), LORA_INPUT);
	assert_int_equal(with_files(folder, 3), LORA_INPUT);
	assert_int_equal(with_files(deep, 3), LORA_INPUT);
	memset(part, 'x', sizeof(part));
	part[255] = '\0';
	snprintf(name, sizeof(name), "%s/%s/%s/%s", part, part, part, part);
	assert_int_equal(strlen(name), 1023);
	assert_int_equal(with_files(one, 1), LORA_OK);
	snprintf(name, sizeof(name), "%s/%s/%s/%.253s/y", part, part, part, part);
	assert_int_equal(strlen(name), 1023);
	assert_int_equal(with_files(one, 1), LORA_OK);
	snprintf(name, sizeof(name), "%s/%s/%s/%s/y", part, part, part, part);
	assert_int_equal(with_files(one, 1), LORA_INPUT);
	snprintf(name, sizeof(name), "%sx", part);
	assert_int_equal(with_files(one, 1), LORA_INPUT);
}

/* What is emitted is the literal text. */
static void emitted(void **state)
{
	uint64_t shape[] = {2, 1};
	struct lora_manifest_pair pair = {"k", "v\"\x01"};
	struct lora_manifest_part parts[2] = {
	    {.size = 3},
	    {.size = 8, .tensor = "t\n", .dtype = LORA_DTYPE_F32, .ndim = 2, .shape = shape}};
	struct lora_manifest_file file = {"f", 11, {{0}}, 0, 2};
	struct lora_manifest m = {.name = "\xc3\xa9",
				  .message = "m\\",
				  .version = 2,
				  .has_parent = true,
				  .metadata = &pair,
				  .metadata_count = 1,
				  .files = &file,
				  .file_count = 1,
				  .parts = parts,
				  .part_count = 2};
	static const char *const names[] = {"f"};
	static const unsigned sizes[] = {11};
	char expected[4096], *text;
	size_t size;

	(void)state;
	memset(parts[0].digest.byte, 0x22, 32);
	memset(parts[1].digest.byte, 0x22, 32);
	memset(file.digest.byte, 0x11, 32);
	memset(m.parent.byte, 0x11, 32);
	snprintf(expected, sizeof(expected),
		 "{\"base_root\":null,\"files\":[{\"name\":\"f\",\"parts\":[{\"sha256\":\"" D2
		 "\",\"size\":3},{\"dtype\":\"F32\",\"sha256\":\"" D2
		 "\",\"shape\":[2,1],\"size\":8,\"tensor\":\"t\\n\"}],\"sha256\":\"" D1
		 "\",\"size\":11}],\"message\":\"m\\\\\",\"metadata\":{\"k\":\"v\\\"\\u0001\"},"
		 "\"name\":\"\xc3\xa9\",\"parent\":\"" D1
		 "\",\"root\":\"%s\",\"schema\":\"loractl.manifest/1\",\"version\":2}",
		 root_of(names, sizes, 1));
	assert_int_equal(lora__manifest_emit(&m, &text, &size, NULL), LORA_OK);
	assert_string_equal(text, expected);
	assert_int_equal(size, strlen(expected));
	free(text);
	file.size = 12;
	assert_int_equal(lora__manifest_emit(&m, &text, &size, NULL), LORA_INPUT);
	assert_null(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(good),    cmocka_unit_test(variations), cmocka_unit_test(damage),
	    cmocka_unit_test(tensors), cmocka_unit_test(files),	     cmocka_unit_test(emitted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
