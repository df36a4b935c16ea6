/* SPDX-License-Identifier: Apache-2.0 */
/* cli/history.c - the versions of a container: schema loractl.log/1, and for eyes. */
#include "history.h"
#include "opt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_digest(struct lora_json_writer *w, const char *key, bool there,
		       const struct lora_sha256 *digest)
{
	lora_json_key(w, key);
	if (there)
		lora_json_sha256(w, digest);
	else
		lora_json_null(w);
}

/* Who signed what, as far as the keyring knows. */
struct signers {
	struct lora_signer *signer; /* malloc'd, and so are its texts */
	size_t count;
	bool failed; /* no memory */
};

/* A callback of the library: keeps the signer. */
static void keep_signer(void *user, const struct lora_signer *signer)
{
	struct signers *all = user;
	struct lora_signer *more = realloc(all->signer, (all->count + 1) * sizeof(*more));
	struct lora_signer *one = more ? &more[all->count] : NULL;

	all->failed = all->failed || !more;
	if (!more)
		return;
	all->signer = more;
	all->count++;
	*one = *signer;
	one->key_id = strdup(signer->key_id);
	one->principal = signer->principal ? strdup(signer->principal) : NULL;
	all->failed = all->failed || !one->key_id || (signer->principal && !one->principal);
}

static void free_signers(struct signers *signers)
{
	for (size_t i = 0; i < signers->count; i++) {
		free((char *)signers->signer[i].key_id);
		free((char *)signers->signer[i].principal);
	}
	free(signers->signer);
}

static void put_signer(struct lora_json_writer *w, const struct lora_signer *signer)
{
	lora_json_begin_object(w);
	lora_json_key(w, "key_id");
	lora_json_string(w, signer->key_id);
	lora_json_key(w, "principal");
	lora_json_string(w, signer->principal);
	lora_json_key(w, "trusted");
	lora_json_bool(w, signer->trusted);
	lora_json_end_object(w);
}

static void put_version(struct lora_json_writer *w, const struct lora_log_version *v,
			const struct signers *signers)
{
	lora_json_begin_object(w);
	lora_json_key(w, "version");
	lora_json_uint(w, v->version);
	put_digest(w, "manifest", true, &v->manifest);
	put_digest(w, "parent", v->has_parent, &v->parent);
	lora_json_key(w, "message");
	lora_json_string(w, v->message);
	lora_json_key(w, "files");
	lora_json_uint(w, v->files);
	lora_json_key(w, "tensors");
	lora_json_uint(w, v->tensors);
	lora_json_key(w, "bytes");
	lora_json_uint(w, v->bytes);
	lora_json_key(w, "stored");
	lora_json_uint(w, v->stored);
	put_digest(w, "base_root", v->bound, &v->base_root);
	lora_json_key(w, "signers");
	lora_json_begin_array(w);
	for (size_t i = 0; i < signers->count; i++)
		if (signers->signer[i].version == v->version)
			put_signer(w, &signers->signer[i]);
	lora_json_end_array(w);
	lora_json_key(w, "attestations");
	lora_json_uint(w, v->attestations);
	lora_json_end_object(w);
}

enum lora_status history_json(struct lora_json_writer *w, const struct lora_log *log,
			      const char *path, struct lora_error *err)
{
	struct signers signers = {NULL, 0, false};
	enum lora_status status = lora_container_signers(path, keep_signer, &signers, err);

	if (!status && signers.failed)
		status = opt_fail(err, LORA_SYSTEM, "out of memory");
	lora_json_key(w, "name");
	lora_json_string(w, lora_log_name(log));
	lora_json_key(w, "versions");
	lora_json_begin_array(w);
	for (size_t i = 0; i < lora_log_count(log); i++)
		put_version(w, lora_log_version(log, i), &signers);
	lora_json_end_array(w);
	free_signers(&signers);
	return status;
}

static void hex_text(const struct lora_sha256 *digest, bool there, char text[LORA_SHA256_HEX])
{
	snprintf(text, LORA_SHA256_HEX, "%s", there ? "" : "-");
	for (size_t i = 0; i < LORA_SHA256_SIZE && there; i++)
		snprintf(text + 2 * i, 3, "%02x", digest->byte[i]);
}

static void row(struct ui_table *table, const struct lora_log_version *v, bool full)
{
	char bytes[UI_TEXT], stored[UI_TEXT], hex[LORA_SHA256_HEX];
	size_t line = strcspn(v->message, "\n");

	ui_table_cell(table, "%llu", (unsigned long long)v->version);
	ui_table_cell(table, "%s", ui_size(v->bytes, bytes));
	ui_table_cell(table, "%s", ui_size(v->stored, stored));
	ui_table_cell(table, "%.1f %%",
		      v->bytes ? 100.0 * (double)v->stored / (double)v->bytes : 100.0);
	if (v->signer_count > 1)
		ui_table_cell(table, "%s +%zu", v->signers[0].key_id, v->signer_count - 1);
	else
		ui_table_cell(table, "%s", v->signer_count ? v->signers[0].key_id : "-");
	hex_text(&v->base_root, v->bound, hex);
	ui_table_cell(table, full ? "%s" : "%.12s", hex);
	hex_text(&v->manifest, true, hex);
	ui_table_cell(table, full ? "%s" : "%.12s", hex);
	ui_table_cell(table, "%.*s", (int)(line < 512 ? line : 512), v->message);
}

enum lora_status history_text(struct ui *ui, const struct lora_log *log, bool full,
			      struct lora_error *err)
{
	static const struct ui_column columns[] = {
	    {"version", UI_RIGHT, false},  {"bytes", UI_RIGHT, false},
	    {"stored", UI_RIGHT, false},   {"ratio", UI_RIGHT, false},
	    {"signed by", UI_LEFT, false}, {"base", UI_LEFT, false},
	    {"manifest", UI_LEFT, false},  {"message", UI_LEFT, true},
	};
	struct ui_table *table = ui_table_new(columns, sizeof(columns) / sizeof(*columns));
	enum lora_status status;

	for (size_t i = 0; i < lora_log_count(log); i++)
		row(table, lora_log_version(log, i), full);
	status = ui_table_print(table, ui, err);
	ui_table_free(table);
	return status;
}
