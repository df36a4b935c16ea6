/* SPDX-License-Identifier: Apache-2.0 */
/* test_store_hostile.c - containers that nobody's packer writes: made record by record, from
 * lora-container(5), with right digests, and wrong in one thing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <loractl/container.h>

#include "container_made.h"
#include "made.h"
#include "store/engine.h"

static char *place;
static const char *path; /* of the container, in place */

static void write_out(const struct made_container *c)
{
	made_file(path, c->bytes, c->size);
}

/* What a reader makes of the file: how many versions it opens, and how many of them it reads whole.
 * -1: it refuses the file. */
struct seen {
	int versions, whole;
	bool latest; /* it would give out the latest */
	char why[LORA_ERROR_SIZE];
};

static struct seen look(void)
{
	struct seen seen = {-1, 0, false, ""};
	struct lora_store *store;
	struct lora_error err = LORA_ERROR_INIT;
	size_t at;

	if (lora__store_open(&store, path, NULL, &err)) {
		assert_int_equal(err.status, LORA_INPUT);
		strcpy(seen.why, err.message);
		return seen;
	}
	seen.versions = (int)lora__store_count(store);
	seen.latest = lora__store_find(store, 0, &at, &err) == LORA_OK;
	for (size_t v = 0; v < lora__store_count(store); v++) {
		struct lora_snapshot *snapshot;
		char *text = NULL;
		size_t size;

		if (lora__snapshot_open(&snapshot, store, v, &err) == LORA_OK) {
			seen.whole += lora__snapshot_slurp(snapshot, 0, 1 << 20, &text, &size,
							   &err) == LORA_OK;
			lora__snapshot_close(snapshot);
		}
		free(text);
	}
	strcpy(seen.why, err.message);
	lora__store_close(store);
	return seen;
}

static void expect(struct seen seen, int versions, int whole, bool latest)
{
	if (seen.versions != versions || seen.whole != whole || seen.latest != latest)
		fail_msg("%d versions, %d whole, latest %d: %s", seen.versions, seen.whole,
			 seen.latest, seen.why);
}

static enum lora_status fsck(struct lora_fsck_result *result, bool repair)
{
	return lora_container_fsck(path, repair, NULL, NULL, result, NULL, NULL);
}

/* One version whose file `a` holds "hi". */
static const char *first(struct made_container *c)
{
	uint8_t digest[32];

	made_sha256("hi", 2, digest);
	made_object(c, "hi", 2);
	made_manifest(c, made_manifest_text(1, NULL, made_hex(digest), 2));
	return made_hex(c->manifest);
}

static void plain(void **state)
{
	struct made_container c;
	struct lora_fsck_result result;

	(void)state;
	made_begin(&c, 1, 0, 0, 0);
	write_out(&c);
	expect(look(), 0, 0, false);
	assert_int_equal(fsck(&result, false), LORA_OK);
	first(&c);
	made_commit(&c, 1);
	write_out(&c);
	expect(look(), 1, 1, true);
	assert_int_equal(fsck(&result, false), LORA_OK);
	assert_int_equal(result.versions, 1);
	made_end(&c);
}

/* --- features, kinds of records -------------------------------------------------------------- */

static void features(void **state)
{
	struct lora_pack_options options = LORA_PACK_OPTIONS_INIT;
	struct lora_pack_result packed;
	struct lora_gc_result gc;
	struct made_container c;
	char *dir = made_directory();
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	options.append = true;
	made_text(made_path(dir, "a"), "ho");
	made_begin(&c, 1, 4, 0, 0);
	first(&c);
	made_commit(&c, 1);
	write_out(&c);
	expect(look(), -1, 0, false);
	assert_non_null(strstr(look().why, "incompat.2"));
	made_end(&c);
	made_begin(&c, 1, 0, 1, 0); /* read, not written to */
	first(&c);
	made_commit(&c, 1);
	write_out(&c);
	expect(look(), 1, 1, true);
	assert_int_equal(lora_container_pack(dir, path, &options, &packed, NULL, &err), LORA_INPUT);
	assert_int_equal(lora_container_gc(path, 1, &gc, NULL, NULL), LORA_INPUT);
	made_end(&c);
	made_begin(&c, 1, 0, 0, 0xf0); /* ignored, and kept */
	first(&c);
	made_record(&c, 99, 0, "what is this", 12);
	made_commit(&c, 1);
	write_out(&c);
	expect(look(), 1, 1, true);
	options.name = "n";
	assert_int_equal(lora_container_pack(dir, path, &options, &packed, NULL, &err), LORA_OK);
	assert_int_equal(lora_container_gc(path, 1, &gc, NULL, NULL), LORA_OK);
	assert_int_equal(gc.removed, 1);
	{
		char *bytes;
		size_t size;
		bool kept = false;

		assert_int_equal(lora__file_slurp(path, 1 << 20, &bytes, &size, NULL), LORA_OK);
		assert_int_equal((uint8_t)bytes[20], 0xf0);
		for (size_t i = 0; i + 12 <= size; i++)
			kept = kept || memcmp(bytes + i, "what is this", 12) == 0;
		assert_true(kept);
		free(bytes);
	}
	made_end(&c);
	made_begin(&c, 1, 0, 0, 0); /* must be understood */
	first(&c);
	made_record(&c, 99, 1, "what is this", 12);
	write_out(&c);
	expect(look(), 0, 0, false); /* a tail: nobody committed it */
	made_commit(&c, 1);
	write_out(&c);
	expect(look(), -1, 0, false);
	assert_non_null(strstr(look().why, "type 99"));
	made_end(&c);
	made_remove(dir);
}

/* --- groups ---------------------------------------------------------------------------------- */

/* A group behind a good version 1, committed as `version`: the file is as if damaged there. */
#define BAD_GROUP(version, ...)                                                                    \
	do {                                                                                       \
		struct made_container c;                                                           \
		struct lora_fsck_result result;                                                    \
		const char *parent;                                                                \
                                                                                                   \
		made_begin(&c, 1, 0, 0, 0);                                                        \
		parent = first(&c);                                                                \
		made_commit(&c, 1);                                                                \
		(void)parent;                                                                      \
		__VA_ARGS__;                                                                       \
		made_commit(&c, (version));                                                        \
		write_out(&c);                                                                     \
		expect(look(), 1, 1, false);                                                       \
		assert_int_equal(fsck(&result, true), LORA_NO);                                    \
		assert_false(result.repairable);                                                   \
		made_end(&c);                                                                      \
	} while (0)

static void groups(void **state)
{
	static const char ho[] =
	    "1b0a1cb8e1d3dd1b94f3d1c2a50c8a8a3f43d3d0b1ce3fbd09d0d5d8d1b4b8aa"; /* nothing's */
	static const uint8_t index[60] = {1};

	(void)state;
	BAD_GROUP(2, (void)0);			/* no manifest */
	BAD_GROUP(2, made_object(&c, "ho", 2)); /* objects alone */
	BAD_GROUP(0, made_object(&c, "ho", 2));
	BAD_GROUP(0, made_manifest(&c, made_manifest_text(2, parent, ho, 2)));
	BAD_GROUP(2, made_manifest(&c, made_manifest_text(2, parent, ho, 2));
		  made_manifest(&c, made_manifest_text(2, parent, ho, 2)));
	BAD_GROUP(2, made_record(&c, 1, 1, "ho", 2);
		  made_manifest(&c, made_manifest_text(2, parent, ho, 2))); /* DATA alone */
	BAD_GROUP(2, c.index_at = c.size; made_sha256(index, 60, c.index);
		  made_record(&c, 2, 1, index, 60);
		  made_manifest(&c, made_manifest_text(2, parent, ho, 2)));
	BAD_GROUP(3, made_manifest(&c, made_manifest_text(3, parent, ho, 2))); /* not the next */
	BAD_GROUP(1, made_manifest(&c, made_manifest_text(1, NULL, ho, 2)));
	BAD_GROUP(2, made_manifest(&c, made_manifest_text(2, parent, ho, 2));
		  c.manifest_at += 8); /* elsewhere */
	BAD_GROUP(2, made_manifest(&c, made_manifest_text(2, parent, ho, 2)); c.manifest_size--);
	BAD_GROUP(2, made_object(&c, "ho", 2);
		  made_manifest(&c, made_manifest_text(2, parent, ho, 2)); c.index[0] ^= 1);
	BAD_GROUP(2, made_object(&c, "ho", 2);
		  made_manifest(&c, made_manifest_text(2, parent, ho, 2)); c.index_at = 0;
		  memset(c.index, 0, 32));
	BAD_GROUP(2, made_object(&c, "hi", 2); /* the digest is there already */
		  made_manifest(&c, made_manifest_text(2, parent, ho, 2)));
}

/* Commits that do not follow: no longer a chain, so they are nothing; and yet they are there. */
static void chain(void **state)
{
	(void)state;
	BAD_GROUP(2, made_manifest(&c, made_manifest_text(2, parent, parent, 2)); c.link[0] ^= 1);
	BAD_GROUP(2, made_manifest(&c, made_manifest_text(2, parent, parent, 2)); c.sequence++);
	BAD_GROUP(2, c.lie = 8; made_manifest(&c, made_manifest_text(2, parent, parent, 2)));
}

/* --- objects --------------------------------------------------------------------------------- */

/* A version 1 with this INDEX and DATA, whose file is the object of that digest. */
static void with_index(const uint8_t *index, size_t index_size, const void *data, size_t data_size,
		       const uint8_t digest[32], uint64_t size)
{
	struct made_container c;

	made_begin(&c, 1, 0, 0, 0);
	made_objects(&c, data, data_size, index, index_size);
	made_manifest(&c, made_manifest_text(1, NULL, made_hex(digest), size));
	made_commit(&c, 1);
	write_out(&c);
	made_end(&c);
}

/* An entry of 2 bytes at `at`, with one word; where the next one goes. */
static size_t entry(uint8_t *index, size_t at, const uint8_t *digest, unsigned flags,
		    uint32_t parent, unsigned method, unsigned length)
{
	at += made_entry(index + at, digest, 2, 1, flags, parent);
	return at + made_word(index + at, method, length);
}

static void objects(void **state)
{
	uint8_t index[512] = {1}, hi[32], other[32];
	size_t size;

	(void)state;
	made_sha256("hi", 2, hi);
	made_sha256("ho", 2, other);
	size = entry(index, 8, hi, 0, 0, 0, 2);
	with_index(index, size, "hi", 2, hi, 2);
	expect(look(), 1, 1, true);
	with_index(index, size, "ho", 2, hi, 2); /* other bytes than its digest's */
	expect(look(), 1, 0, true);
	with_index(index, size, "hi", 2, hi, 3); /* the manifest has another size */
	expect(look(), 1, 0, true);
	with_index(index, size, "hi", 2, other, 2); /* the manifest names none that is there */
	expect(look(), 1, 0, true);
	with_index(index, size, "hih", 3, hi, 2); /* bytes of nobody */
	expect(look(), 0, 0, false);
	with_index(index, size, "h", 1, hi, 2);
	expect(look(), 0, 0, false);
	size = entry(index, 8, hi, 0, 0, 1, 1);
	with_index(index, size, "h", 1, hi, 2); /* no frame at all */
	expect(look(), 1, 0, true);
	size = entry(index, 8, hi, 0, 0, 2, 1);
	with_index(index, size, "h", 1, hi, 2);
	expect(look(), 1, 0, true);
	size = entry(index, 8, hi, 2, 0, 0, 2); /* its own parent */
	with_index(index, size, "hi", 2, hi, 2);
	expect(look(), 0, 0, false);
	index[0] = 2; /* each other's */
	size = entry(index, 8, hi, 2, 1, 0, 2);
	size = entry(index, size, other, 2, 0, 0, 2);
	with_index(index, size, "hiho", 4, hi, 2);
	expect(look(), 0, 0, false);
	size = entry(index, 8, hi, 0, 0, 0, 2); /* twice */
	size = entry(index, size, hi, 0, 0, 0, 2);
	with_index(index, size, "hihi", 4, hi, 2);
	expect(look(), 0, 0, false);
}

/* A part whose object a later version brings does not have it. */
static void later(void **state)
{
	struct made_container c;
	uint8_t ho[32], one[32];

	(void)state;
	made_sha256("ho", 2, ho);
	made_begin(&c, 1, 0, 0, 0);
	made_manifest(&c, made_manifest_text(1, NULL, made_hex(ho), 2));
	memcpy(one, c.manifest, 32);
	made_commit(&c, 1);
	made_object(&c, "ho", 2);
	made_manifest(&c, made_manifest_text(2, made_hex(one), made_hex(ho), 2));
	made_commit(&c, 2);
	write_out(&c);
	expect(look(), 2, 1, true);
	made_end(&c);
}

/* A manifest that says another version or parent than the container. */
static void identity(void **state)
{
	struct made_container c;
	uint8_t hi[32];

	(void)state;
	made_sha256("hi", 2, hi);
	made_begin(&c, 1, 0, 0, 0);
	first(&c);
	made_commit(&c, 1);
	made_manifest(&c, made_manifest_text(2, made_hex(hi), made_hex(hi), 2));
	made_commit(&c, 2);
	write_out(&c);
	expect(look(), 2, 1, true);
	assert_non_null(strstr(look().why, "parent"));
	made_end(&c);
	made_begin(&c, 1, 0, 0, 0);
	made_object(&c, "hi", 2);
	made_manifest(&c, made_manifest_text(7, made_hex(hi), made_hex(hi), 2));
	made_commit(&c, 6);
	write_out(&c);
	expect(look(), 1, 0, true);
	assert_non_null(strstr(look().why, "version 7"));
	made_end(&c);
	made_begin(&c, 1, 0, 0, 0); /* the first may be any: older ones are gone */
	made_object(&c, "hi", 2);
	made_manifest(&c, made_manifest_text(7, made_hex(hi), made_hex(hi), 2));
	made_commit(&c, 7);
	write_out(&c);
	expect(look(), 1, 1, true);
	made_end(&c);
}

/* --- expansion ------------------------------------------------------------------------------- */

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* An object of `size` zeros in a few bytes: more than 4 GiB + 1024 times the file is refused before
 * a byte of it is decoded. */
static void bombs(void **state)
{
	const uint64_t chunks = 1500, size = chunks * LORA_CHUNK_SIZE; /* 6 GiB */
	uint8_t *index = calloc(1, 8 + 48 + 4 * chunks), *data = calloc(1, chunks),
		digest[32] = {9};
	struct lora_fsck_result result;
	double start = seconds();
	struct rusage usage;

	(void)state;
	index[0] = 1;
	made_entry(index + 8, digest, size, 1, 0, 0);
	for (uint64_t i = 0; i < chunks; i++)
		memcpy(index + 56 + 4 * i, "\1\0\0\2", 4);
	with_index(index, 8 + 48 + 4 * chunks, data, chunks, digest, size);
	expect(look(), 0, 0, false);
	assert_int_equal(fsck(&result, false), LORA_NO);
	/* Sizes that cannot be: */
	memcpy(index + 40, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
	with_index(index, 8 + 48 + 4 * chunks, data, chunks, digest, size);
	expect(look(), 0, 0, false);
	memcpy(index, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
	with_index(index, 8 + 48 + 4 * chunks, data, chunks, digest, size);
	expect(look(), 0, 0, false);
	assert_true(seconds() - start < 5);
	assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
	free(index);
	free(data);
}

/* The same object many times in one manifest. */
static void repeated(void **state)
{
	enum { TIMES = 3000 };
	const uint64_t size = LORA_CHUNK_SIZE;
	char *text = malloc(1 << 20), *zeros = calloc(1, size), hex[65];
	uint8_t index[8 + 48 + 4] = {1}, digest[32], whole[32] = {0}, *root = malloc(64);
	struct made_container c;
	struct seen seen;
	size_t at;

	(void)state;
	made_sha256(zeros, size, digest);
	made_entry(index + 8, digest, size, 1, 0, 0);
	made_word(index + 56, 2, 1);
	made_begin(&c, 1, 0, 0, 0);
	made_objects(&c, zeros, 1, index, sizeof(index));
	strcpy(hex, made_hex(digest));
	memcpy(root, "loractl content 1", 18);
	memcpy(root + 18, "\1\0\0\0a", 5);
	for (unsigned b = 0; b < 8; b++)
		root[23 + b] = (uint8_t)(size * TIMES >> 8 * b);
	memcpy(root + 31, whole, 32);
	made_sha256(root, 63, whole);
	at = (size_t)sprintf(text, "{\"base_root\":null,\"files\":[{\"name\":\"a\",\"parts\":[");
	for (unsigned i = 0; i < TIMES; i++)
		at += (size_t)sprintf(text + at, "%s{\"sha256\":\"%s\",\"size\":%u}", i ? "," : "",
				      hex, (unsigned)size);
	sprintf(text + at,
		"],\"sha256\":\"%064d\",\"size\":%llu}],\"message\":\"\",\"metadata\":{},\"name\":"
		"\"n\",\"parent\":null,\"root\":\"%s\",\"schema\":\"loractl.manifest/1\","
		"\"version\":1}",
		0, (unsigned long long)size * TIMES, made_hex(whole));
	made_manifest(&c, text);
	made_commit(&c, 1);
	write_out(&c);
	seen = look(); /* 12 GiB in 300 KB */
	expect(seen, 1, 0, true);
	assert_non_null(strstr(seen.why, "no honest one"));
	made_end(&c);
	free(text);
	free(zeros);
	free(root);
}

/* --- forged commits -------------------------------------------------------------------------- */

/* Bytes of an object that are a whole container, or a commit: nobody looks at them. */
static void forged(void **state)
{
	struct made_container inner, c;
	uint8_t digest[32];
	struct lora_fsck_result result;
	size_t committed;

	(void)state;
	made_begin(&inner, 1, 0, 0, 0);
	first(&inner);
	made_commit(&inner, 1);
	made_begin(&c, 1, 0, 0, 0);
	made_object(&c, inner.bytes, inner.size);
	made_sha256(inner.bytes, inner.size, digest);
	made_manifest(&c, made_manifest_text(1, NULL, made_hex(digest), inner.size));
	write_out(&c);
	expect(look(), 0, 0, false); /* a tail that holds a copy of commits */
	assert_int_equal(fsck(&result, true), LORA_OK);
	assert_int_equal(result.problems, 1);
	made_commit(&c, 1);
	committed = c.size;
	write_out(&c);
	expect(look(), 1, 1, true);
	made_end(&inner);
	/* Appended at the very place where it says that it stands, it is one that was hidden. */
	made_begin(&inner, 1, 0, 0, 0);
	inner.bytes = realloc(inner.bytes, committed + 65536);
	memset(inner.bytes, 0, committed + 65536);
	inner.size = committed + 4096;
	inner.begin = committed + 4096;
	inner.sequence = 5;
	made_commit(&inner, 0);
	c.bytes = realloc(c.bytes, inner.size);
	memcpy(c.bytes + committed, inner.bytes + committed, inner.size - committed);
	c.size = inner.size;
	write_out(&c);
	expect(look(), 1, 1, false);
	made_end(&inner);
	made_end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(plain),	cmocka_unit_test(features), cmocka_unit_test(groups),
	    cmocka_unit_test(chain),	cmocka_unit_test(objects),  cmocka_unit_test(later),
	    cmocka_unit_test(identity), cmocka_unit_test(bombs),    cmocka_unit_test(repeated),
	    cmocka_unit_test(forged),
	};
	char text[4096];
	int failed;

	if (access("/dev/shm", W_OK) == 0)
		(void)setenv("TMPDIR", "/dev/shm", 0);
	place = made_directory();
	snprintf(text, sizeof(text), "%s/made.lora", place);
	path = text;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	made_remove(place);
	return failed;
}
