/* SPDX-License-Identifier: Apache-2.0 */
/* test_store.c - containers that were packed: what comes out is what went in, whatever length or
 * bit of the file is taken away.
 *
 * The expected bytes are those of the directories that were packed, read here by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <loractl/container.h>

#include "made.h"
#include "store/engine.h"

#define WEIGHTS                                                                                    \
	"{\"a.lora_A\":{\"dtype\":\"BF16\",\"shape\":[4,8],\"data_offsets\":[0,64]},"              \
	"\"a.lora_B\":{\"dtype\":\"F32\",\"shape\":[8,4],\"data_offsets\":[64,192]},"              \
	"\"empty\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[192,192]},"                  \
	"\"same\":{\"dtype\":\"U8\",\"shape\":[64],\"data_offsets\":[192,256]}}"

static const char *const names[] = {"README.md", "adapter_config.json", "adapter_model.safetensors",
				    "empty", "tokenizer/vocab.txt"};
#define FILES 5u

/* The bytes of all files of a version, one after another. */
struct content {
	char *bytes;
	size_t size;
};

struct fixture {
	char *dir;
	char *container;
	struct content versions[3];
	size_t count;
	uint8_t *file; /* the container */
	size_t size;
	struct lora_sha256 digest[3];
	const char *signature;
};

static void slurp(const char *path, char **bytes, size_t *size)
{
	assert_int_equal(lora__file_slurp(path, 1 << 24, bytes, size, NULL), LORA_OK);
}

static struct content read_directory(const char *dir)
{
	struct content all = {0};

	for (unsigned i = 0; i < FILES; i++) {
		char *bytes;
		size_t size;

		slurp(made_path(dir, names[i]), &bytes, &size);
		all.bytes = realloc(all.bytes, all.size + size + 1);
		memcpy(all.bytes + all.size, bytes, size);
		all.size += size;
		free(bytes);
	}
	return all;
}

/* True if the version gives exactly that content; false if reading it fails. */
static bool holds(const struct lora_store *store, size_t version, const struct content *content)
{
	struct lora_snapshot *snapshot = NULL;
	const struct lora_manifest *m;
	bool good = lora__snapshot_open(&snapshot, store, version, NULL) == LORA_OK;
	size_t at = 0;

	if (!good)
		return false;
	m = lora__snapshot_manifest(snapshot);
	assert_int_equal(m->file_count, FILES);
	for (unsigned i = 0; i < FILES && good; i++) {
		char *text;
		size_t size;

		assert_string_equal(m->files[i].name, names[i]);
		good = lora__snapshot_slurp(snapshot, i, 1 << 24, &text, &size, NULL) == LORA_OK;
		if (!good)
			break;
		/* Never wrong bytes. */
		assert_true(at + size <= content->size);
		assert_memory_equal(text, content->bytes + at, size);
		at += size;
		free(text);
	}
	lora__snapshot_close(snapshot);
	if (good)
		assert_int_equal(at, content->size);
	return good;
}

static const char signature_text[] = "untrusted comment: signature\n"
				     "RUQBAgMEBQYHCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
				     "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
				     "A\ntrusted comment: none\nAAAA\n";

static void pack_version(struct fixture *f, const char *message)
{
	struct lora_pack_options options = LORA_PACK_OPTIONS_INIT;
	struct lora_pack_result result;
	struct lora_error err = LORA_ERROR_INIT;

	options.append = f->count > 0;
	options.name = f->count ? NULL : "fixture";
	options.message = message;
	f->versions[f->count] = read_directory(f->dir);
	if (lora_container_pack(f->dir, f->container, &options, &result, NULL, &err))
		fail_msg("%s", err.message);
	f->count++;
	assert_int_equal(result.version, f->count);
	assert_false(result.unchanged);
	assert_int_equal(result.bytes, f->versions[f->count - 1].size);
	assert_int_equal(result.objects, 7);
}

static void change(const char *path, size_t at, uint8_t by)
{
	char *bytes;
	size_t size;

	slurp(path, &bytes, &size);
	bytes[at % size] ^= (char)by;
	made_file(path, bytes, size);
	free(bytes);
}

static struct fixture make(void)
{
	struct fixture f = {.dir = made_directory()};
	char *place = made_directory();
	struct lora_store *store;
	struct lora_error err = LORA_ERROR_INIT;

	f.container = strdup(made_path(place, "f.lora"));
	made_text(made_path(f.dir, "README.md"),
		  "An adapter. An adapter. An adapter. An adapter.\n");
	made_text(made_path(f.dir, "adapter_config.json"), "{\"r\": 4}");
	made_text(made_path(f.dir, "empty"), "");
	assert_int_equal(mkdir(made_path(f.dir, "tokenizer"), 0700), 0);
	made_text(made_path(f.dir, "tokenizer/vocab.txt"), "a\nb\n");
	made_weights(made_path(f.dir, "adapter_model.safetensors"), WEIGHTS, 256);
	pack_version(&f, "first");
	change(made_path(f.dir, "adapter_model.safetensors"), strlen(WEIGHTS) + 8 + 70, 1);
	pack_version(&f, "second");
	assert_int_equal(lora__store_open(&store, f.container, NULL, NULL), LORA_OK);
	for (unsigned i = 0; i < 2; i++)
		f.digest[i] = *lora__store_digest(store, i);
	lora__store_close(store);
	if (lora__store_add_note(f.container, &f.digest[0], LORA_RECORD_SIGNATURE, signature_text,
				 strlen(signature_text), NULL, &err))
		fail_msg("%s", err.message);
	slurp(f.container, (char **)&f.file, &f.size);
	free(place); /* removed with f.container's directory */
	return f;
}

static void drop(struct fixture *f)
{
	char *place = strdup(f->container);

	*strrchr(place, '/') = '\0';
	for (size_t i = 0; i < f->count; i++)
		free(f->versions[i].bytes);
	free(f->container);
	free(f->file);
	made_remove(f->dir);
	made_remove(place);
}

/* --- what is there --------------------------------------------------------------------------- */

static void versions(void **state)
{
	struct fixture f = make();
	struct lora_pack_options options = LORA_PACK_OPTIONS_INIT;
	struct lora_pack_result result;
	struct lora_store *store;
	struct lora_log *log;
	size_t at;

	(void)state;
	assert_int_equal(lora__store_open(&store, f.container, NULL, NULL), LORA_OK);
	assert_int_equal(lora__store_count(store), 2);
	assert_true(holds(store, 0, &f.versions[0]));
	assert_true(holds(store, 1, &f.versions[1]));
	assert_int_equal(lora__store_find(store, 0, &at, NULL), LORA_OK);
	assert_int_equal(at, 1);
	assert_int_equal(lora__store_find(store, 1, &at, NULL), LORA_OK);
	assert_int_equal(at, 0);
	assert_int_equal(lora__store_find(store, 3, &at, NULL), LORA_INPUT);
	assert_int_equal(store->objects[store->object_count - 1].depth, 1); /* a difference */
	lora__store_close(store);
	options.append = true; /* the same content: no version, not a byte */
	options.message = "again";
	assert_int_equal(lora_container_pack(f.dir, f.container, &options, &result, NULL, NULL),
			 LORA_OK);
	assert_true(result.unchanged);
	assert_int_equal(result.version, 2);
	{
		char *bytes;
		size_t size;

		slurp(f.container, &bytes, &size);
		assert_int_equal(size, f.size);
		assert_memory_equal(bytes, f.file, size);
		free(bytes);
	}
	assert_int_equal(lora_log_open(&log, f.container, NULL, NULL), LORA_OK);
	assert_int_equal(lora_log_count(log), 2);
	assert_string_equal(lora_log_name(log), "fixture");
	assert_int_equal(lora_log_version(log, 0)->version, 2);
	assert_string_equal(lora_log_version(log, 1)->message, "first");
	assert_int_equal(lora_log_version(log, 0)->signer_count, 0);
	assert_int_equal(lora_log_version(log, 1)->signer_count, 1);
	assert_string_equal(lora_log_version(log, 1)->signers[0].key_id, "0807060504030201");
	assert_int_equal(64 + lora_log_version(log, 0)->stored + lora_log_version(log, 1)->stored,
			 f.size);
	assert_memory_equal(&lora_log_version(log, 0)->parent, &lora_log_version(log, 1)->manifest,
			    32);
	lora_log_close(log);
	drop(&f);
}

static void signatures(void **state)
{
	struct fixture f = make();
	struct lora_store *store;
	const struct lora_sha256 other = {{1}};
	char *text;
	size_t size;

	(void)state;
	assert_int_equal(lora__store_open(&store, f.container, NULL, NULL), LORA_OK);
	assert_int_equal(lora__store_note_count(store, 0, LORA_RECORD_SIGNATURE), 1);
	assert_int_equal(lora__store_note_count(store, 1, LORA_RECORD_SIGNATURE), 0);
	assert_int_equal(lora__store_note_count(store, 0, LORA_RECORD_ATTESTATION), 0);
	assert_int_equal(lora__store_note(store, 0, LORA_RECORD_SIGNATURE, 0, &text, &size, NULL),
			 LORA_OK);
	assert_string_equal(text, signature_text);
	free(text);
	assert_int_equal(lora__store_note(store, 0, LORA_RECORD_SIGNATURE, 1, &text, &size, NULL),
			 LORA_USAGE);
	lora__store_close(store);
	assert_int_equal(
	    lora__store_add_note(f.container, &other, LORA_RECORD_SIGNATURE, "x", 1, NULL, NULL),
	    LORA_INPUT);
	assert_int_equal(lora__store_add_note(f.container, &f.digest[0], LORA_RECORD_SIGNATURE, "x",
					      0, NULL, NULL),
			 LORA_INPUT);
	assert_int_equal(
	    lora__store_add_note(f.container, &f.digest[0], LORA_RECORD_INDEX, "x", 1, NULL, NULL),
	    LORA_USAGE);
	for (unsigned i = 0; i < LORA_NOTES_MAX; i++)
		assert_int_equal(lora__store_add_note(f.container, &f.digest[1],
						      LORA_RECORD_ATTESTATION, "{}", 2, NULL, NULL),
				 LORA_OK);
	assert_int_equal(lora__store_add_note(f.container, &f.digest[1], LORA_RECORD_ATTESTATION,
					      "{}", 2, NULL, NULL),
			 LORA_INPUT);
	assert_int_equal(lora__store_open(&store, f.container, NULL, NULL), LORA_OK);
	assert_int_equal(lora__store_note_count(store, 1, LORA_RECORD_ATTESTATION), 64);
	assert_true(holds(store, 1, &f.versions[1]));
	lora__store_close(store);
	drop(&f);
}

static void collected(void **state)
{
	struct fixture f = make();
	struct lora_gc_result result;
	struct lora_fsck_result fsck;
	struct lora_store *store;
	struct stat info;
	size_t at;

	(void)state;
	assert_int_equal(lora__store_add_note(f.container, &f.digest[1], LORA_RECORD_SIGNATURE,
					      signature_text, strlen(signature_text), NULL, NULL),
			 LORA_OK);
	assert_int_equal(chmod(f.container, 0640), 0);
	assert_int_equal(lora_container_gc(f.container, 2, &result, NULL, NULL), LORA_OK);
	assert_int_equal(result.removed, 0);
	assert_int_equal(result.before, result.after);
	assert_int_equal(lora_container_gc(f.container, 0, &result, NULL, NULL), LORA_USAGE);
	assert_int_equal(lora_container_gc(f.container, 1, &result, NULL, NULL), LORA_OK);
	assert_int_equal(result.removed, 1);
	assert_true(result.after < result.before);
	assert_int_equal(stat(f.container, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0640);
	assert_int_equal(info.st_size, result.after);
	assert_int_equal(lora_container_fsck(f.container, false, NULL, NULL, &fsck, NULL, NULL),
			 LORA_OK);
	assert_int_equal(lora__store_open(&store, f.container, NULL, NULL), LORA_OK);
	assert_int_equal(lora__store_count(store), 1);
	assert_int_equal(lora__store_number(store, 0), 2);
	assert_memory_equal(lora__store_digest(store, 0), &f.digest[1], 32);
	assert_int_equal(lora__store_note_count(store, 0, LORA_RECORD_SIGNATURE), 1);
	assert_true(holds(store, 0, &f.versions[1]));
	assert_int_equal(lora__store_find(store, 1, &at, NULL), LORA_INPUT);
	lora__store_close(store);
	change(made_path(f.dir, "README.md"), 3, 1); /* and it goes on */
	pack_version(&f, "third");
	assert_int_equal(lora__store_open(&store, f.container, NULL, NULL), LORA_OK);
	assert_int_equal(lora__store_number(store, 1), 3);
	assert_true(holds(store, 1, &f.versions[2]));
	lora__store_close(store);
	drop(&f);
}

/* --- what is not there ----------------------------------------------------------------------- */

/* Opens the file; which versions it has, each of them checked against what was packed. */
static size_t count_versions(const struct fixture *f, const char *path)
{
	struct lora_store *store = NULL;
	size_t count = 0;

	if (lora__store_open(&store, path, NULL, NULL))
		return 0;
	count = lora__store_count(store);
	assert_true(count <= 2);
	for (size_t v = 0; v < count; v++)
		assert_true(holds(store, v, &f->versions[v]));
	lora__store_close(store);
	return count;
}

/* Sanitizers make it a minute's work: there, one bit of every byte, every fourth length. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BITS 1u
#else
#define BITS 8u
#endif

/* Of every length: what was committed up to there is whole, and repair leaves just that. */
static void truncated(void **state)
{
	struct fixture f = make();
	char *place = made_directory();
	const char *path = made_path(place, "cut.lora");
	size_t before = 0, boundaries = 0;

	(void)state;
	for (size_t size = 0; size <= f.size; size += BITS == 8 ? 1 : 4) {
		struct lora_fsck_result result;
		enum lora_status status;
		size_t count;

		made_file(path, f.file, size);
		count = count_versions(&f, path);
		assert_in_range(count, before, before + 1);
		before = count;
		status = lora_container_fsck(path, false, NULL, NULL, &result, NULL, NULL);
		if (size < 8) {
			assert_int_equal(status, LORA_INPUT);
			continue;
		}
		assert_int_equal(result.versions, count);
		boundaries += status == LORA_OK;
		if (status == LORA_OK)
			continue;
		assert_int_equal(status, LORA_NO);
		assert_int_equal(result.problems, 1);
		assert_int_equal(result.repairable, size >= 64);
		status = lora_container_fsck(path, true, NULL, NULL, &result, NULL, NULL);
		assert_int_equal(status, size >= 64 ? LORA_OK : LORA_NO);
		assert_int_equal(result.ok, size >= 64);
		if (size < 64)
			continue;
		assert_int_equal(lora_container_fsck(path, false, NULL, NULL, &result, NULL, NULL),
				 LORA_OK);
		assert_int_equal(count_versions(&f, path), count);
	}
	assert_int_equal(before, 2);
	assert_int_equal(boundaries, 4); /* an empty one, two versions, a signature */
	made_remove(place);
	drop(&f);
}

/* Of every bit: fsck sees it, and a reader gives right bytes or none. */
static void flipped(void **state)
{
	struct fixture f = make();
	char *place = made_directory();
	const char *path = made_path(place, "flip.lora");
	struct lora_fsck_result result;
	int fd;

	(void)state;
	made_file(path, f.file, f.size);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	for (size_t i = 0; i < BITS * f.size; i++) {
		size_t bit = BITS == 8 ? i : 8 * i + i % 8;
		uint8_t was = f.file[bit / 8], now = was ^ (uint8_t)(1 << bit % 8);
		struct lora_store *store = NULL;
		enum lora_status status;

		assert_int_equal(pwrite(fd, &now, 1, (off_t)(bit / 8)), 1);
		status = lora_container_fsck(path, false, NULL, NULL, &result, NULL, NULL);
		if (status == LORA_OK)
			fail_msg("bit %zu of byte %zu is not seen", bit % 8, bit / 8);
		assert_int_equal(status, bit < 64 ? LORA_INPUT : LORA_NO);
		if (lora__store_open(&store, path, NULL, NULL) == LORA_OK)
			for (size_t v = 0; v < lora__store_count(store); v++)
				(void)holds(store, v, &f.versions[v]);
		lora__store_close(store);
		assert_int_equal(pwrite(fd, &was, 1, (off_t)(bit / 8)), 1);
	}
	close(fd);
	made_remove(place);
	drop(&f);
}

/* Damage before the last commit hides versions: it is not taken for a tail, and not cut off. */
static void hidden(void **state)
{
	struct fixture f = make();
	struct lora_store *store;
	struct lora_fsck_result result;
	struct lora_pack_options options = LORA_PACK_OPTIONS_INIT;
	struct lora_pack_result packed;
	char *bytes;
	size_t size, at;

	(void)state;
	f.file[64 + 3] ^= 1; /* the header of the first record */
	made_file(f.container, f.file, f.size);
	assert_int_equal(lora_container_fsck(f.container, true, NULL, NULL, &result, NULL, NULL),
			 LORA_NO);
	assert_false(result.repairable);
	slurp(f.container, &bytes, &size);
	assert_int_equal(size, f.size);
	free(bytes);
	assert_int_equal(lora__store_open(&store, f.container, NULL, NULL), LORA_OK);
	assert_int_equal(lora__store_find(store, 0, &at, NULL), LORA_INPUT);
	lora__store_close(store);
	options.append = true;
	assert_int_equal(lora_container_pack(f.dir, f.container, &options, &packed, NULL, NULL),
			 LORA_INPUT);
	slurp(f.container, &bytes, &size);
	assert_memory_equal(bytes, f.file, f.size);
	free(bytes);
	drop(&f);
}

/* --- large objects --------------------------------------------------------------------------- */

/* Three chunks, the last of them short; read in pieces that cross their borders, out of order. */
static void chunked(void **state)
{
	char *dir = made_directory(), *place = made_directory(), *bytes;
	const char *path = made_path(place, "big.lora"),
		   *weights = made_path(dir, "adapter_model.safetensors");
	const size_t n = 2 * LORA_CHUNK_SIZE + 4096;
	struct lora_pack_options options = LORA_PACK_OPTIONS_INIT;
	struct lora_pack_result result;
	struct lora_store *store;
	struct lora_snapshot *snapshot;
	char json[256], *out = malloc(n + 512);
	size_t size;
	uint32_t seed = 7;

	(void)state;
	snprintf(json, sizeof(json),
		 "{\"w\":{\"dtype\":\"BF16\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}", n / 2, n);
	made_weights(weights, json, n);
	assert_int_equal(lora_container_pack(dir, path, &options, &result, NULL, NULL), LORA_OK);
	change(weights, n - 100,
	       4); /* in the last chunk; the first decides that it is a difference */
	options.append = true;
	assert_int_equal(lora_container_pack(dir, path, &options, &result, NULL, NULL), LORA_OK);
	assert_in_range(result.stored, 1, 4096);
	slurp(weights, &bytes, &size);
	assert_int_equal(lora__store_open(&store, path, NULL, NULL), LORA_OK);
	assert_int_equal(lora__snapshot_open(&snapshot, store, 1, NULL), LORA_OK);
	for (unsigned i = 0; i < 200; i++) {
		size_t at, want;

		seed = seed * 1664525 + 1013904223;
		at = seed % size;
		want = (seed >> 8) % (i % 20 == 0 ? n : 5000);
		if (want > size - at)
			want = size - at;
		if (i % 3 == 0) /* across a border */
			at = LORA_CHUNK_SIZE * (1 + i % 2) - 100, want = 300;
		assert_int_equal(lora__snapshot_read(snapshot, 0, at, out, want, NULL), LORA_OK);
		assert_memory_equal(out, bytes + at, want);
	}
	assert_int_equal(lora__snapshot_read(snapshot, 0, size, out, 0, NULL), LORA_OK);
	assert_int_equal(lora__snapshot_read(snapshot, 0, size, out, 1, NULL), LORA_INPUT);
	assert_int_equal(lora__snapshot_read(snapshot, 0, UINT64_MAX, out, 2, NULL), LORA_INPUT);
	lora__snapshot_close(snapshot);
	lora__store_close(store);
	free(bytes);
	free(out);
	made_remove(dir);
	made_remove(place);
}

/* Twelve versions, each a bit from the one before: chains of differences end at depth 8. */
static void chains(void **state)
{
	char *dir = made_directory(), *place = made_directory(), *bytes[12];
	const char *path = made_path(place, "chain.lora"),
		   *weights = made_path(dir, "adapter_model.safetensors");
	struct lora_pack_options options = LORA_PACK_OPTIONS_INIT;
	struct lora_pack_result result;
	struct lora_gc_result gc;
	struct lora_store *store;
	unsigned deepest = 0;
	size_t size;

	(void)state;
	made_weights(weights,
		     "{\"w\":{\"dtype\":\"F32\",\"shape\":[1000],\"data_offsets\":[0,4000]}}",
		     4000);
	for (unsigned v = 0; v < 12; v++) {
		change(weights, 100 + 97 * v, 1);
		slurp(weights, &bytes[v], &size);
		options.append = v > 0;
		assert_int_equal(lora_container_pack(dir, path, &options, &result, NULL, NULL),
				 LORA_OK);
	}
	for (unsigned round = 0; round < 2; round++) {
		size_t first = round ? 7 : 0;

		assert_int_equal(lora__store_open(&store, path, NULL, NULL), LORA_OK);
		assert_int_equal(lora__store_count(store), 12 - first);
		for (uint32_t i = 0; i < store->object_count; i++)
			if (store->objects[i].depth > deepest)
				deepest = store->objects[i].depth;
		for (size_t v = 0; v < 12 - first; v++) {
			struct lora_snapshot *snapshot;
			char *text;
			size_t got;

			assert_int_equal(lora__snapshot_open(&snapshot, store, v, NULL), LORA_OK);
			assert_int_equal(
			    lora__snapshot_slurp(snapshot, 0, 1 << 20, &text, &got, NULL), LORA_OK);
			assert_int_equal(got, size);
			assert_memory_equal(text, bytes[first + v], size);
			free(text);
			lora__snapshot_close(snapshot);
		}
		lora__store_close(store);
		assert_int_equal(deepest, 8);
		if (round == 0)
			assert_int_equal(lora_container_gc(path, 5, &gc, NULL, NULL), LORA_OK);
	}
	for (unsigned v = 0; v < 12; v++)
		free(bytes[v]);
	made_remove(dir);
	made_remove(place);
}

/* A tensor is read without the others: these may be damaged. */
static void one_tensor(void **state)
{
	struct fixture f = make();
	struct lora_store *store;
	struct lora_snapshot *snapshot;
	struct lora_error err = LORA_ERROR_INIT;
	const struct lora_object *object;
	uint8_t out[64], *weights = (uint8_t *)f.versions[0].bytes + 48 + 8 + 8 + strlen(WEIGHTS);
	size_t file, at = 8 + strlen(WEIGHTS);

	(void)state;
	assert_int_equal(lora__store_open(&store, f.container, NULL, NULL), LORA_OK);
	object = &store->objects[4]; /* README, config, head, a.lora_A, a.lora_B */
	assert_int_equal(object->size, 128);
	f.file[object->data + 5] ^= 1;
	lora__store_close(store);
	made_file(f.container, f.file, f.size);
	assert_int_equal(lora__store_open(&store, f.container, NULL, NULL), LORA_OK);
	assert_int_equal(lora__snapshot_open(&snapshot, store, 0, NULL), LORA_OK);
	file = lora__snapshot_find(snapshot, "adapter_model.safetensors");
	assert_int_equal(file, 2);
	assert_int_equal(lora__snapshot_find(snapshot, "adapter_model"), SIZE_MAX);
	assert_int_equal(lora__snapshot_read(snapshot, file, at, out, 64, NULL), LORA_OK);
	assert_memory_equal(out, weights, 64);
	assert_int_equal(lora__snapshot_read(snapshot, file, at + 64, out, 1, &err), LORA_INPUT);
	assert_non_null(strstr(err.message, "damaged: object"));
	assert_int_equal(lora__snapshot_read(snapshot, file, at + 192, out, 64, NULL), LORA_OK);
	assert_memory_equal(out, weights + 192, 64);
	lora__snapshot_close(snapshot);
	lora__store_close(store);
	drop(&f);
}

/* --- references ------------------------------------------------------------------------------ */

static void references(void **state)
{
	char *place = made_directory();
	static const struct {
		const char *text, *path;
		uint64_t number;
	} good[] = {
	    {"x.lora", "x.lora", 0},
	    {"x.lora@7", "x.lora", 7},
	    {"x.lora@latest", "x.lora", 0},
	    {"a@b/x.lora", "a@b/x.lora", 0},
	    {"x@1@2", "x@1", 2},
	    {"x.lora@9007199254740991", "x.lora", 9007199254740991},
	    {"@3", "@3", 0},
	};
	static const char *const bad[] = {"x@",
					  "x@0",
					  "x@-1",
					  "x@1.0",
					  "x@ 1",
					  "x@+1",
					  "x@9007199254740992",
					  "x@99999999999999999999999",
					  "x@LATEST"};
	char *path;
	uint64_t number;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_int_equal(lora__store_split(good[i].text, &path, &number, NULL), LORA_OK);
		assert_string_equal(path, good[i].path);
		assert_int_equal(number, good[i].number);
		free(path);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(lora__store_split(bad[i], &path, &number, NULL), LORA_USAGE);
		assert_null(path);
	}
	made_text(made_path(place, "y@2"), "");
	assert_int_equal(lora__store_split(made_path(place, "y@2"), &path, &number, NULL), LORA_OK);
	assert_string_equal(path, made_path(place, "y@2"));
	assert_int_equal(number, 0);
	free(path);
	made_remove(place);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(versions),	  cmocka_unit_test(signatures),
	    cmocka_unit_test(collected),  cmocka_unit_test(truncated),
	    cmocka_unit_test(flipped),	  cmocka_unit_test(hidden),
	    cmocka_unit_test(chunked),	  cmocka_unit_test(chains),
	    cmocka_unit_test(references), cmocka_unit_test(one_tensor),
	};

	/* Thousands of files are synced: where that costs nothing. */
	if (access("/dev/shm", W_OK) == 0)
		(void)setenv("TMPDIR", "/dev/shm", 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
