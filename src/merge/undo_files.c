/* SPDX-License-Identifier: Apache-2.0 */
/* merge/undo_files.c - two directories side by side: the base's, and the merged model's
 *
 *	in the base, the same in the merged model	named, with its digest
 *	in the base, other or absent there		its bytes go into the record, up to a limit
 *...
 *	... or too large, a link or hidden		`left`: it will not come back, and that is
 *said in the merged model, other than in the base	`merged`: so that the way back can tell
 *whether it was changed since
 */
#include "merge/undo_files.h"

#include "base/digest.h"
#include "base/error.h"
#include "merge/sidecar.h"
#include "merge/undo_write.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_LIMIT 8		/* of subdirectories, as a merge copies them */
#define KEEP_LIMIT  (64u << 20) /* bytes of stored files that are held in memory */
#define STEP	    (1u << 18)

/* What stands below a directory and is no directory. */
struct entry {
	const char *name;
	bool odd; /* a link, or no file */
};

struct listing {
	struct lora_arena *arena;
	struct entry *entries;
	size_t count;
};

static enum lora_status push(struct listing *l, const char *name, bool odd, struct lora_error *err)
{
	struct entry *grown = realloc(l->entries, (l->count + 1) * sizeof(*grown));

	if (!grown)
		return lora__fail_memory(err);
	l->entries = grown;
	grown[l->count++] = (struct entry){name, odd};
	return LORA_OK;
}

/* Folders that no merge copies. */
static bool is_private(const char *name)
{
	return strcmp(name, ".git") == 0 || strcmp(name, ".cache") == 0 ||
	       strcmp(name, ".huggingface") == 0;
}

static enum lora_status list(struct listing *l, const char *path, const char *inside, int depth,
			     struct lora_error *err);

static enum lora_status list_entry(struct listing *l, const char *path, const char *inside,
				   const char *entry, int depth, struct lora_error *err)
{
	char *from = lora__path_join(path, entry);
	const char *name = *inside ? lora__arena_printf(l->arena, "%s/%s", inside, entry)
				   : lora__arena_copy(l->arena, entry, strlen(entry));
	struct stat st;
	enum lora_status status = LORA_OK;

	if (!from || !name)
		status = lora__fail_memory(err);
	else if (lstat(from, &st) != 0)
		status = lora__fail_errno(err, "cannot look at '%s'", lora__escape(from));
	else if (S_ISDIR(st.st_mode) && !is_private(entry) && depth < DEPTH_LIMIT)
		status = list(l, from, name, depth + 1, err);
	else
		status = push(l, name, !S_ISREG(st.st_mode), err);
	free(from);
	return status;
}

static enum lora_status list(struct listing *l, const char *path, const char *inside, int depth,
			     struct lora_error *err)
{
	DIR *dir = opendir(path);
	enum lora_status status =
	    dir ? LORA_OK : lora__fail_errno(err, "cannot list '%s'", lora__escape(path));
	const struct dirent *entry;

	errno = 0;
	while (!status && (entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			status = list_entry(l, path, inside, entry->d_name, depth, err);
		errno = 0;
	}
	if (!status && errno)
		status = lora__fail_errno(err, "cannot list '%s'", lora__escape(path));
	if (dir)
		closedir(dir);
	return status;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

/* Sorted: a directory's own order is chance. */
static enum lora_status list_all(struct listing *l, const char *path, struct lora_error *err)
{
	enum lora_status status = list(l, path, "", 0, err);

	if (l->count)
		qsort(l->entries, l->count, sizeof(*l->entries), by_name);
	return status;
}

/* Digest of a regular file, links followed; *there is false if there is none. */
static enum lora_status digest_of(const char *dir, const char *name, struct lora_other *other,
				  bool *there, struct lora_error *err)
{
	struct lora_file file = LORA_FILE_INIT;
	char *path = lora__path_join(dir, name);
	struct lora_hasher *hasher = lora__hasher_new();
	uint8_t *step = malloc(STEP);
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status =
	    path && hasher && step ? lora__path_kind(path, &kind, err) : lora__fail_memory(err);

	*there = !status && kind == LORA_PATH_FILE;
	if (*there)
		status = lora__file_open(&file, path, err);
	other->size = file.size;
	if (*there && !status && file.size <= LORA_SIDECAR_LIMIT) {
		for (uint64_t at = 0; at < file.size && !status; at += STEP) {
			size_t n = file.size - at < STEP ? (size_t)(file.size - at) : STEP;

			status = lora__file_read(&file, at, step, n, err);
			if (!status)
				lora__hasher_update(hasher, step, n);
		}
		lora__hasher_final(hasher, &other->sha256);
	}
	lora__file_close(&file);
	lora__hasher_free(hasher);
	free(step);
	free(path);
	return status;
}

static bool is_weights(const struct lora_plan *plan, const char *name)
{
	for (size_t f = 0; f < plan->file_count; f++)
		if (strcmp(plan->files[f].name, name) == 0)
			return true;
	return false;
}

static bool same(const struct lora_other *a, const struct lora_other *b)
{
	return a->size == b->size && a->size <= LORA_SIDECAR_LIMIT &&
	       lora__sha256_equal(&a->sha256, &b->sha256);
}

static enum lora_status keep(struct lora_other *other, const char *dir, uint64_t *kept,
			     struct lora_error *err)
{
	char *path = lora__path_join(dir, other->name), *data = NULL;
	size_t size = 0;
	struct lora_sha256 now;
	enum lora_status status =
	    path ? lora__file_slurp(path, LORA_UNDO_FILE_LIMIT, &data, &size, err)
		 : lora__fail_memory(err);

	if (!status) {
		lora__sha256(data, size, &now);
		if (size != other->size || !lora__sha256_equal(&now, &other->sha256))
			status = lora__fail(err, LORA_INPUT, "'%s' changed while it was read",
					    lora__escape(path));
	}
	other->data = (uint8_t *)data;
	other->stored = true;
	*kept += size;
	free(path);
	return status;
}

/* One file of the base. A link that the merge did not follow leads out of the model: what it leads
 * to is not ours to keep. (The base may be a snapshot of links: those it followed.) */
static enum lora_status sort_one(struct lora_others *o, const struct lora_plan *plan,
				 struct entry entry, const char *written, uint64_t *kept,
				 struct lora_error *err)
{
	struct lora_other *base = &o->base[o->base_count], there = {0};
	bool found = false, has = false;
	enum lora_status status;

	base->name = entry.name;
	status = digest_of(plan->base->path, base->name, base, &found, err);
	if (!status)
		status = digest_of(written, base->name, &there, &has, err);
	if (status)
		return status;
	o->base_count++;
	if (found && has && same(base, &there))
		return LORA_OK;
	if (found && (has || !entry.odd) && base->size <= LORA_UNDO_FILE_LIMIT &&
	    *kept + base->size <= KEEP_LIMIT)
		return keep(base, plan->base->path, kept, err);
	o->left[o->left_count++] = *base;
	memset(base, 0, sizeof(*base));
	o->base_count--;
	return LORA_OK;
}

static enum lora_status sort_base(struct lora_others *o, const struct lora_plan *plan,
				  const struct listing *l, const char *written,
				  struct lora_error *err)
{
	uint64_t kept = 0;
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < l->count && !status; i++)
		if (!is_weights(plan, l->entries[i].name))
			status = sort_one(o, plan, l->entries[i], written, &kept, err);
	return status;
}

/* What the merged model has that the base has otherwise or not at all. */
static enum lora_status sort_merged(struct lora_others *o, const struct lora_plan *plan,
				    const struct listing *l, const char *written,
				    struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < l->count && !status; i++) {
		struct lora_other *merged = &o->merged[o->merged_count], there = {0};
		bool found = false, has = false;

		if (is_weights(plan, l->entries[i].name))
			continue;
		merged->name = l->entries[i].name;
		status = digest_of(written, merged->name, merged, &found, err);
		if (!status)
			status = digest_of(plan->base->path, merged->name, &there, &has, err);
		if (!status && found && !(has && same(merged, &there)))
			o->merged_count++;
	}
	return status;
}

enum lora_status lora__undo_others(struct lora_others *others, const struct lora_plan *plan,
				   const char *written, struct lora_error *err)
{
	struct listing base = {&others->arena, NULL, 0}, merged = base;
	enum lora_status status = list_all(&base, plan->base->path, err);

	if (!status)
		status = list_all(&merged, written, err);
	others->base = lora__arena_array(&others->arena, base.count + 1, sizeof(*others->base));
	others->left = lora__arena_array(&others->arena, base.count + 1, sizeof(*others->left));
	others->merged =
	    lora__arena_array(&others->arena, merged.count + 1, sizeof(*others->merged));
	if (!status && (!others->base || !others->left || !others->merged))
		status = lora__fail_memory(err);
	if (!status)
		status = sort_base(others, plan, &base, written, err);
	if (!status)
		status = sort_merged(others, plan, &merged, written, err);
	free(base.entries);
	free(merged.entries);
	return status;
}

void lora__undo_others_fini(struct lora_others *others)
{
	for (size_t i = 0; others->base && i < others->base_count; i++)
		free(others->base[i].data);
	lora__arena_fini(&others->arena);
}
