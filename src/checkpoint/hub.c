/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint/hub.c - models that huggingface_hub has downloaded
 *
 * What it is     finding the directory of `org/model` in the local cache; nothing is fetched.
 * Layout         as huggingface_hub (constants.py, file_download.py) keeps it, read at version 2.4:
 *
 *		CACHE/models--ORG--MODEL/refs/main		the commit that `main` meant last
 *		                        /snapshots/COMMIT/	a directory of symbolic links
 *		                        /blobs/			what they lead to
 *
 *	CACHE	$HF_HUB_CACHE, else $HUGGINGFACE_HUB_CACHE, else $HF_HOME/hub, else
 *		$XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub
 *
 * Invariants     (1) Neither a name nor the text of refs/main can lead out of the cache: both are
 *                checked before they become part of a path.
 * Decisions      Without refs/main (a download by commit) nothing is guessed, though there may be
 *only one snapshot: its path can be given instead. A name without an organisation is not looked up:
 *it is far more often a misspelt path. Traps          An empty variable counts as unset; a leading
 *'~' is the home directory. Tested by      tests/unit/test_hub.c
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "checkpoint/checkpoint.h"

/* The hub's own limit for each part of a name. */
#define PART_LIMIT 96
/* A commit is 40 hexadecimal digits; whatever else stands in refs/main is no longer than a file
 * name. */
#define REF_LIMIT 255

/* One part of a name: letters, digits, '_', and inside of it '-' and '.', but never two in a row.
 */
static bool is_part(const char *text, size_t length)
{
	if (length == 0 || length > PART_LIMIT)
		return false;
	for (size_t i = 0; i < length; i++) {
		bool mark = text[i] == '-' || text[i] == '.';

		if (!mark && !isalnum((unsigned char)text[i]) && text[i] != '_')
			return false;
		if (mark && (i == 0 || i + 1 == length || text[i + 1] == text[i]))
			return false;
	}
	return true;
}

bool lora__hub_is_name(const char *name)
{
	const char *slash = strchr(name, '/');

	return slash && is_part(name, (size_t)(slash - name)) &&
	       is_part(slash + 1, strlen(slash + 1));
}

/* A path from the environment with "~" expanded and `below` appended; malloc'd. *out stays NULL if
 * the variable is not set, or empty. */
static enum lora_status from_environment(char **out, const char *variable, const char *below,
					 struct lora_error *err)
{
	const char *value = getenv(variable), *home = getenv("HOME");
	size_t room = 0;

	*out = NULL;
	if (!value || !value[0])
		return LORA_OK;
	if (value[0] == '~' && (value[1] == '/' || !value[1]) && home)
		value++;
	else
		home = "";
	room = strlen(home) + strlen(value) + strlen(below) + 1;
	*out = malloc(room);
	if (!*out)
		return lora__fail_memory(err);
	snprintf(*out, room, "%s%s%s", home, value, below);
	return LORA_OK;
}

static enum lora_status find_cache(char **out, struct lora_error *err)
{
	static const struct {
		const char *variable, *below;
	} places[] = {
	    {"HF_HUB_CACHE", ""},
	    {"HUGGINGFACE_HUB_CACHE", ""},
	    {"HF_HOME", "/hub"},
	    {"XDG_CACHE_HOME", "/huggingface/hub"},
	    {"HOME", "/.cache/huggingface/hub"},
	};
	enum lora_status status = LORA_OK;

	*out = NULL;
	for (size_t i = 0; i < sizeof(places) / sizeof(*places) && !*out; i++) {
		status = from_environment(out, places[i].variable, places[i].below, err);
		if (status != LORA_OK)
			return status;
	}
	if (!*out)
		return lora__fail(
		    err, LORA_INPUT,
		    "there is no hub cache: set HOME or HF_HUB_CACHE, or give a path");
	return LORA_OK;
}

/* CACHE/models--ORG--MODEL; malloc'd, NULL without memory. */
static char *repository(const char *cache, const char *name)
{
	size_t organisation = strcspn(name, "/");
	char folder[2 * PART_LIMIT + sizeof("models----")];

	snprintf(folder, sizeof(folder), "models--%.*s--%s", (int)organisation, name,
		 name + organisation + 1);
	return lora__path_join(cache, folder);
}

/* The commit in refs/main; malloc'd. [1] */
static enum lora_status read_ref(char **commit, const char *folder, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	char *path = lora__path_join(folder, "refs/main");
	size_t size = 0;

	*commit = NULL;
	if (!path)
		return lora__fail_memory(err);
	status = lora__path_kind(path, &kind, err);
	if (status == LORA_OK && kind == LORA_PATH_ABSENT)
		status = lora__fail(err, LORA_INPUT,
				    "'%s' has no refs/main: give the path of one of its snapshots",
				    lora__escape(folder));
	if (status == LORA_OK)
		status = lora__file_slurp(path, REF_LIMIT, commit, &size, err);
	if (status != LORA_OK)
		goto out;
	while (size > 0 && isspace((unsigned char)(*commit)[size - 1]))
		(*commit)[--size] = '\0';
	if (strlen(*commit) != size || !lora__path_is_plain(*commit))
		status = lora__fail(err, LORA_INPUT,
				    "'%s' does not name a snapshot: download the model again",
				    lora__escape(path));
out:
	if (status != LORA_OK) {
		free(*commit);
		*commit = NULL;
	}
	free(path);
	return status;
}

/* FOLDER/snapshots/COMMIT, if it is there; malloc'd. */
static enum lora_status find_snapshot(char **out, const char *folder, const char *commit,
				      struct lora_error *err)
{
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = LORA_OK;
	char *snapshots = lora__path_join(folder, "snapshots");
	char *path = snapshots ? lora__path_join(snapshots, commit) : NULL;

	free(snapshots);
	if (!path)
		return lora__fail_memory(err);
	status = lora__path_kind(path, &kind, err);
	if (status == LORA_OK && kind != LORA_PATH_DIRECTORY)
		status =
		    lora__fail(err, LORA_INPUT,
			       "the snapshot '%s' that refs/main names is missing: download the "
			       "model again",
			       lora__escape(path));
	if (status != LORA_OK) {
		free(path);
		return status;
	}
	*out = path;
	return LORA_OK;
}

enum lora_status lora__hub_resolve(char **out, const char *name, struct lora_error *err)
{
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	char *cache = NULL, *folder = NULL, *commit = NULL;
	enum lora_status status = LORA_OK;

	*out = NULL;
	if (!lora__hub_is_name(name))
		return lora__fail(err, LORA_INPUT, "'%s' is no name of the form org/model",
				  lora__escape(name));
	status = find_cache(&cache, err);
	if (status != LORA_OK)
		return status;
	folder = repository(cache, name);
	if (!folder) {
		status = lora__fail_memory(err);
		goto out;
	}
	status = lora__path_kind(folder, &kind, err);
	if (status == LORA_OK && kind != LORA_PATH_DIRECTORY)
		status =
		    lora__fail(err, LORA_INPUT,
			       "no model '%s' in the hub cache '%s': download it first, or give a "
			       "path",
			       lora__escape(name), lora__escape(cache));
	if (status == LORA_OK)
		status = read_ref(&commit, folder, err);
	if (status == LORA_OK)
		status = find_snapshot(out, folder, commit, err);
out:
	free(commit);
	free(folder);
	free(cache);
	return status;
}
