/* SPDX-License-Identifier: Apache-2.0 */
/* store/walk.c - the forward walk: from the superblock, record after record, to the last commit
 *
 *	superblock | records ... COMMIT | records ... COMMIT | tail
 *
 * 1. Records are found by their lengths and in no other way: bytes of objects may look like a
 *    record, and nobody looks at them.
 * 2. A group is looked at when its commit has been found valid. What is wrong with it then is
 *    damage, or a writer's fault, and the walk ends before it; what is wrong with records without a
 *    commit is a tail.
 * 3. A tail is searched for commits, at every multiple of 8. One with a later sequence and its own
 *    offset inside shows that a record before it is damaged: versions are hidden, not missing. A
 *    writer may have committed it just now: then a second walk arrives there.
 */
#include "store/engine.h"

#include "base/error.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define WINDOW ((size_t)1 << 20)

/* One record of the group that is being walked. */
struct place {
	uint64_t at, size;
	bool there;
};

/* What has been seen since the last commit. */
struct group {
	struct place own[LORA_RECORD_MANIFEST + 1]; /* DATA, INDEX, MANIFEST */
	bool doubled;				    /* one of them twice */
	bool critical;				    /* a kind that must be understood */
	uint16_t unknown;			    /* that kind */
	size_t loose;				    /* store->loose_count at its beginning */
};

/* What stands at a place. */
enum step {
	STEP_RECORD,
	STEP_COMMIT,
	STEP_END, /* nothing that can be followed */
};

enum lora_status lora__store_peek(const struct lora_store *store, uint64_t at, void *buffer,
				  size_t size, bool *there, struct lora_error *err)
{
	struct lora_error quiet = LORA_ERROR_INIT;
	enum lora_status status = LORA_OK;

	*there = at <= store->file.size && size <= store->file.size - at;
	if (*there)
		status = lora__file_read(&store->file, at, buffer, size, &quiet);
	if (status == LORA_INPUT) {
		*there = false;
		status = LORA_OK;
	} else if (status && err) {
		*err = quiet;
	}
	return status;
}

/* What stands at `at`; the record, or the commit. */
static enum lora_status step(const struct lora_store *store, uint64_t at, enum step *what,
			     struct lora_record *record, struct lora_commit *commit,
			     struct lora_error *err)
{
	uint8_t head[LORA_COMMIT_SIZE], zeros[8] = {0};
	static const uint8_t nothing[8];
	bool there = false;
	enum lora_status status = lora__store_peek(store, at, head, LORA_RECORD_HEAD, &there, err);
	uint64_t room;
	unsigned padding;

	*what = STEP_END;
	if (status || !there || !lora__record_parse(record, head))
		return status;
	room = store->file.size - at - LORA_RECORD_HEAD;
	padding = lora__record_padding(record->size);
	if (record->size > room || padding > room - record->size)
		return LORA_OK;
	if (record->type == LORA_RECORD_COMMIT) {
		status = lora__store_peek(store, at, head, sizeof(head), &there, err);
		if (!status && there && lora__commit_parse(commit, head, at) &&
		    commit->sequence == store->sequence + 1 && commit->begin == store->end &&
		    memcmp(commit->link, store->link, sizeof(store->link)) == 0)
			*what = STEP_COMMIT;
		return status;
	}
	status = lora__store_peek(store, at + LORA_RECORD_HEAD + record->size, zeros, padding,
				  &there, err);
	if (!status && there && memcmp(zeros, nothing, padding) == 0)
		*what = STEP_RECORD;
	return status;
}

static enum lora_status damaged(struct lora_error *err, uint64_t at, const char *what)
{
	return lora__fail(err, LORA_INPUT,
			  "the group that ends at %" PRIu64 " is damaged or badly written: %s", at,
			  what);
}

/* --- what a record is to its group ----------------------------------------------------------- */

static enum lora_status add_loose(struct lora_store *store, const struct lora_record *record,
				  uint64_t at, struct lora_error *err)
{
	struct lora_loose *loose =
	    lora__manifest_room(store->loose, store->loose_count, sizeof(*loose));

	if (!loose)
		return lora__fail_memory(err);
	store->loose = loose;
	loose[store->loose_count++] = (struct lora_loose){at, record->size, LORA_NO_VERSION,
							  (uint32_t)store->sequence, record->type};
	return LORA_OK;
}

static enum lora_status take_record(struct lora_store *store, struct group *group,
				    const struct lora_record *record, uint64_t at,
				    struct lora_error *err)
{
	if (++store->record_count > LORA_RECORDS_MAX)
		return lora__fail(err, LORA_INPUT, "it has more than %u records", LORA_RECORDS_MAX);
	if (record->type >= LORA_RECORD_DATA && record->type <= LORA_RECORD_MANIFEST) {
		group->doubled = group->doubled || group->own[record->type].there;
		group->own[record->type] = (struct place){at, record->size, true};
		return LORA_OK;
	}
	if (!lora__record_name(record->type) && record->critical) {
		group->critical = true;
		group->unknown = record->type;
	}
	return add_loose(store, record, at, err);
}

/* --- what a commit makes of it --------------------------------------------------------------- */

static enum lora_status read_index(struct lora_store *store, const struct group *group,
				   const struct lora_commit *commit, struct lora_error *err)
{
	const struct place *index = &group->own[LORA_RECORD_INDEX],
			   *data = &group->own[LORA_RECORD_DATA];
	struct lora_index_walk walk;
	struct lora_object object;
	struct lora_sha256 digest;
	bool there = false, end = false;
	uint8_t *bytes = malloc((size_t)index->size);
	enum lora_status status = bytes ? lora__store_peek(store, index->at + LORA_RECORD_HEAD,
							   bytes, (size_t)index->size, &there, err)
					: lora__fail_memory(err);

	if (!status && there)
		lora__sha256(bytes, (size_t)index->size, &digest);
	if (!status && (!there || !lora__sha256_equal(&digest, &commit->index)))
		status = damaged(err, commit->at, "the index has another digest");
	if (!status)
		status = lora__index_begin(&walk, bytes, (size_t)index->size,
					   index->at + LORA_RECORD_HEAD,
					   data->at + LORA_RECORD_HEAD, data->size, err);
	while (!status) {
		status = lora__index_next(&walk, store->objects, store->object_count, &object, &end,
					  err);
		if (status || end)
			break;
		status = lora__object_add(store, &object, err);
	}
	free(bytes);
	if (!status && store->object_bytes > lora__expansion_limit(store->file.size))
		status = damaged(err, commit->at, "its objects are larger than any honest ones");
	return status;
}

static enum lora_status add_version(struct lora_store *store, const struct group *group,
				    const struct lora_commit *commit, struct lora_error *err)
{
	const struct place *manifest = &group->own[LORA_RECORD_MANIFEST];
	struct lora_version *versions =
	    lora__manifest_room(store->versions, store->version_count, sizeof(*versions));

	if (!versions)
		return lora__fail_memory(err);
	store->versions = versions;
	if (store->version_count == LORA_VERSIONS_MAX)
		return lora__fail(err, LORA_INPUT, "it has more than %u versions",
				  LORA_VERSIONS_MAX);
	if (store->version_count &&
	    commit->version != versions[store->version_count - 1].number + 1)
		return damaged(err, commit->at, "its version is not the next one");
	if (manifest->size > commit->manifest_size)
		return damaged(err, commit->at, "the manifest is shorter than its record");
	versions[store->version_count++] = (struct lora_version){commit->version,
								 commit->manifest,
								 manifest->at + LORA_RECORD_HEAD,
								 manifest->size,
								 commit->manifest_size,
								 store->object_count,
								 0};
	return LORA_OK;
}

/* Whose are the signatures of this group? */
static enum lora_status bind_loose(struct lora_store *store, const struct group *group,
				   uint64_t bytes, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	bool counted = false;

	for (size_t i = group->loose; i < store->loose_count && !status; i++) {
		struct lora_loose *loose = &store->loose[i];
		struct lora_sha256 digest;
		bool there = false;

		if (!lora__record_name(loose->type))
			continue;
		status = lora__store_peek(store, loose->at + LORA_RECORD_HEAD, digest.byte,
					  sizeof(digest.byte), &there, err);
		for (size_t v = store->version_count; v-- > 0 && there && !status;)
			if (lora__sha256_equal(&store->versions[v].digest, &digest)) {
				loose->version = (uint32_t)v;
				break;
			}
		if (loose->version != LORA_NO_VERSION && !counted) {
			store->versions[loose->version].bytes += bytes;
			counted = true;
		}
	}
	return status;
}

static enum lora_status check_group(const struct group *group, const struct lora_commit *commit,
				    struct lora_error *err)
{
	const struct place *own = group->own;
	bool data = own[LORA_RECORD_DATA].there, index = own[LORA_RECORD_INDEX].there,
	     manifest = own[LORA_RECORD_MANIFEST].there;

	if (group->critical)
		return lora__fail(err, LORA_INPUT,
				  "it has a record of type %u, which must be understood and which "
				  "this program does not know: use a newer one",
				  group->unknown);
	if (!commit->fits)
		return damaged(err, commit->at, "the fields of its commit do not fit");
	if (group->doubled || data != index || manifest != (commit->version != 0) ||
	    (data && !manifest))
		return damaged(err, commit->at, "it does not have the records that it should");
	if (commit->index_at != (index ? own[LORA_RECORD_INDEX].at : 0) ||
	    commit->manifest_at != (manifest ? own[LORA_RECORD_MANIFEST].at : 0))
		return damaged(err, commit->at, "its records stand elsewhere");
	return LORA_OK;
}

static enum lora_status take_commit(struct lora_store *store, struct group *group,
				    const struct lora_commit *commit, struct lora_error *err)
{
	uint64_t end = commit->at + LORA_COMMIT_SIZE, bytes = end - store->end;
	uint32_t objects = store->object_count;
	enum lora_status status = check_group(group, commit, err);

	if (!status && commit->index_at)
		status = read_index(store, group, commit, err);
	if (!status && commit->version)
		status = add_version(store, group, commit, err);
	if (!status)
		status = bind_loose(store, group, commit->version ? 0 : bytes, err);
	if (status) {
		lora__object_forget(store, objects);
		return status;
	}
	if (commit->version)
		store->versions[store->version_count - 1].bytes += bytes;
	store->end = end;
	store->sequence = commit->sequence;
	memcpy(store->link, commit->check.byte, sizeof(store->link));
	*group = (struct group){.loose = store->loose_count};
	return LORA_OK;
}

/* --- the walk -------------------------------------------------------------------------------- */

static enum lora_status walk(struct lora_store *store, struct lora_error *err)
{
	struct group group = {.loose = store->loose_count};
	uint64_t at = store->end;
	enum lora_status status;

	for (;;) {
		struct lora_record record;
		struct lora_commit commit;
		enum step what;

		status = step(store, at, &what, &record, &commit, err);
		if (status || what == STEP_END)
			break;
		status = what == STEP_COMMIT ? take_commit(store, &group, &commit, &store->problem)
					     : take_record(store, &group, &record, at, err);
		if (what == STEP_COMMIT && status == LORA_INPUT && !group.critical) {
			store->hidden = commit.at;
			status = LORA_OK;
			break;
		}
		if (what == STEP_COMMIT && status && err)
			*err = store->problem;
		if (status)
			break;
		at += LORA_RECORD_HEAD + record.size + lora__record_padding(record.size);
	}
	store->loose_count = group.loose; /* records of the tail are none */
	return status;
}

/* Is there a later commit in bytes [0, size) of a window that begins at `at`? */
static bool scan_window(const struct lora_store *store, const uint8_t *window, size_t size,
			uint64_t at, uint64_t *found)
{
	static const uint8_t start[8] = {LORA_RECORD_COMMIT, 0, 1};
	struct lora_commit commit;

	for (size_t i = 0; i + LORA_COMMIT_SIZE <= size; i += 8)
		if (memcmp(window + i, start, sizeof(start)) == 0 &&
		    lora__commit_parse(&commit, window + i, at + i) &&
		    commit.sequence > store->sequence) {
			*found = at + i;
			return true;
		}
	return false;
}

/* The first commit in the tail; *found is 0 without one. */
static enum lora_status scan_tail(const struct lora_store *store, uint64_t *found,
				  struct lora_error *err)
{
	uint8_t *window = store->file.size > store->end ? malloc(WINDOW) : NULL;
	enum lora_status status = LORA_OK;
	bool there = true;

	*found = 0;
	if (store->file.size == store->end)
		return LORA_OK;
	if (!window)
		return lora__fail_memory(err);
	for (uint64_t at = store->end; at < store->file.size && there && !status;) {
		uint64_t rest = store->file.size - at;
		size_t size = rest < WINDOW ? (size_t)rest : WINDOW;

		status = lora__store_peek(store, at, window, size, &there, err);
		if (status || !there || scan_window(store, window, size, at, found) ||
		    rest <= WINDOW)
			break;
		at += WINDOW - (LORA_COMMIT_SIZE - 8);
	}
	free(window);
	return status;
}

static enum lora_status read_superblock(struct lora_store *store, struct lora_error *err)
{
	uint8_t bytes[LORA_SUPERBLOCK_SIZE];
	uint64_t size = store->file.size < sizeof(bytes) ? store->file.size : sizeof(bytes);
	bool there = false;
	enum lora_status status = lora__store_peek(store, 0, bytes, (size_t)size, &there, err);

	if (!status)
		status =
		    lora__superblock_parse(&store->block, bytes, there ? (size_t)size : 0, err);
	if (status)
		return status;
	store->end = LORA_SUPERBLOCK_SIZE;
	memcpy(store->link, bytes + 32, sizeof(store->link));
	return LORA_OK;
}

enum lora_status lora__store_walk(struct lora_store *store, struct lora_error *err)
{
	uint64_t seen = 0; /* a commit that a writer had made before this walk began */
	enum lora_status status = read_superblock(store, err);

	while (!status) {
		struct stat now;

		status = walk(store, err);
		if (status || store->hidden)
			break;
		if (store->end <= seen) {
			store->hidden = seen;
			break;
		}
		status = scan_tail(store, &seen, err);
		if (status || !seen)
			break;
		if (fstat(store->file.fd, &now) != 0)
			return lora__fail_errno(err, "cannot examine it");
		store->file.size = (uint64_t)now.st_size;
	}
	return status;
}

void lora__store_clear(struct lora_store *store)
{
	struct lora_file file = store->file;

	free(store->versions);
	free(store->objects);
	free(store->by_digest.slots);
	free(store->loose);
	*store = (struct lora_store){.file = file};
}

enum lora_status lora__store_complain(const struct lora_store *store, struct lora_error *err)
{
	return lora__fail(
	    err, LORA_INPUT,
	    "it is damaged between bytes %" PRIu64 " and %" PRIu64
	    ", which hides later versions: get a whole copy (`loractl fsck` tells more)",
	    store->end, store->hidden);
}
