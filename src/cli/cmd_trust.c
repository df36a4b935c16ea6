/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_trust.c - `loractl trust`: whose signatures count, for what; and what is pinned
 *
 * An action is a row of a table: its name, whether it takes a path, which options, and what it
 * does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <loractl/trust.h>

#include "cmd.h"

struct trust_args {
	const char *principal;
	struct opt_list scopes;
	const char *until;
	const char *lock;
	const char *pub;
};

struct action {
	const char *name;
	bool takes_path;
	bool describes; /* takes --as, --scope, --until */
	bool locks;	/* takes -p, --lock */
	enum lora_status (*run)(const struct cmd_ctx *ctx, const struct trust_args *args,
				const char *path, struct lora_error *err);
};

/* ---- the keyring */

/* NAME of DIR/NAME.pub, malloc'd: whose key it is, where nobody said. */
static char *default_principal(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t size = strlen(name);

	if (size > 4 && strcmp(name + size - 4, ".pub") == 0)
		size -= 4;
	return strndup(name, size);
}

static enum lora_status run_add(const struct cmd_ctx *ctx, const struct trust_args *args,
				const char *path, struct lora_error *err)
{
	char *principal = args->principal ? strdup(args->principal) : default_principal(path);
	char id[LORA_KEY_ID];
	struct lora_public_key key;
	enum lora_status status;

	if (!principal)
		return opt_fail(err, LORA_SYSTEM, "out of memory");
	status = lora_public_key_read(&key, path, err);
	if (!status)
		status = lora_keyring_add(path, principal, args->scopes.item, args->scopes.count,
					  args->until, err);
	if (!status && !ctx->ui->quiet && !ctx->json) {
		lora_public_key_id(&key, id);
		fprintf(ui_out(ctx->ui), "key %s: trusted as '%s'\n", id, principal);
	}
	free(principal);
	return status;
}

static enum lora_status run_remove(const struct cmd_ctx *ctx, const struct trust_args *args,
				   const char *path, struct lora_error *err)
{
	(void)ctx;
	(void)args;
	return lora_keyring_remove(path, err);
}

static enum lora_status run_revoke(const struct cmd_ctx *ctx, const struct trust_args *args,
				   const char *path, struct lora_error *err)
{
	(void)ctx;
	(void)args;
	return lora_keyring_revoke(path, err);
}

/* ---- the list */

static const char *until_text(const struct lora_trusted_key *key, char buffer[UI_TEXT])
{
	time_t time = (time_t)key->until;
	struct tm tm;

	if (!key->has_until || !gmtime_r(&time, &tm) ||
	    !strftime(buffer, UI_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(buffer, UI_TEXT, "-");
	return buffer;
}

static void list_json(struct lora_json_writer *w, const struct lora_keyring *keyring)
{
	char text[UI_TEXT], base64[LORA_KEY_TEXT];

	lora_json_begin_object(w);
	lora_json_key(w, "schema");
	lora_json_string(w, "loractl.trust/1");
	lora_json_key(w, "keys");
	lora_json_begin_array(w);
	for (size_t i = 0; i < lora_keyring_count(keyring); i++) {
		const struct lora_trusted_key *key = lora_keyring_key(keyring, i);

		lora_public_key_text(&key->key, base64);
		lora_json_begin_object(w);
		lora_json_key(w, "key_id");
		lora_json_string(w, key->id);
		lora_json_key(w, "key");
		lora_json_string(w, base64);
		lora_json_key(w, "principal");
		lora_json_string(w, key->principal);
		lora_json_key(w, "scopes");
		lora_json_begin_array(w);
		for (size_t s = 0; s < key->scope_count; s++)
			lora_json_string(w, key->scopes[s]);
		lora_json_end_array(w);
		lora_json_key(w, "until");
		lora_json_string(w, key->has_until ? until_text(key, text) : NULL);
		lora_json_key(w, "revoked");
		lora_json_bool(w, key->revoked);
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
	lora_json_end_object(w);
}

static enum lora_status list_text(const struct cmd_ctx *ctx, const struct lora_keyring *keyring,
				  struct lora_error *err)
{
	static const struct ui_column columns[] = {
	    {"key", UI_LEFT, false},
	    {"principal", UI_LEFT, true},
	    {"until", UI_LEFT, false},
	    {"scopes", UI_LEFT, true},
	};
	struct ui_table *table = ui_table_new(columns, sizeof(columns) / sizeof(*columns));
	enum lora_status status;
	char text[UI_TEXT];

	for (size_t i = 0; i < lora_keyring_count(keyring); i++) {
		const struct lora_trusted_key *key = lora_keyring_key(keyring, i);
		const char *first = key->scope_count ? key->scopes[0] : "-";

		ui_table_cell(table, "%s", key->id);
		ui_table_cell(table, "%s", key->principal ? key->principal : "-");
		ui_table_cell(table, "%s", key->revoked ? "revoked" : until_text(key, text));
		if (key->scope_count > 1)
			ui_table_cell(table, "%s and %zu more", first, key->scope_count - 1);
		else
			ui_table_cell(table, "%s", first);
	}
	status = ui_table_print(table, ctx->ui, err);
	ui_table_free(table);
	return status;
}

static enum lora_status run_list(const struct cmd_ctx *ctx, const struct trust_args *args,
				 const char *path, struct lora_error *err)
{
	struct lora_json_writer *w = ctx->json ? lora_json_writer_new(LORA_JSON_PRETTY) : NULL;
	struct lora_keyring *keyring = NULL;
	const char *text;
	size_t length;
	enum lora_status status = lora_keyring_open(&keyring, err);

	(void)args;
	(void)path;
	if (!status && ctx->json) {
		list_json(w, keyring);
		status = lora_json_writer_text(w, &text, &length, err);
		if (!status)
			fputs(text, ui_out(ctx->ui));
	} else if (!status && lora_keyring_count(keyring)) {
		status = list_text(ctx, keyring, err);
	}
	lora_keyring_close(keyring);
	lora_json_writer_free(w);
	return status;
}

/* ---- the lock file */

static enum lora_status run_lock(const struct cmd_ctx *ctx, const struct trust_args *args,
				 const char *path, struct lora_error *err)
{
	struct lora_verify_options options = LORA_VERIFY_OPTIONS_INIT;
	struct lora_verdict *verdict = NULL;
	enum lora_status status;

	options.key = args->pub;
	status = lora_lock(&verdict, path, args->lock, &options, ctx->observer, err);
	if (!status && !ctx->ui->quiet && !ctx->json) {
		FILE *out = ui_out(ctx->ui);

		fprintf(out, "%s: pinned", verdict->name);
		if (verdict->has_version)
			fprintf(out, " at version %llu", (unsigned long long)verdict->version);
		fprintf(out, " to key %s\n", verdict->key_id);
	}
	lora_verdict_free(verdict);
	return status;
}

/* ---- the command */

static const struct action actions[] = {
    {"add", true, true, false, run_add},	{"remove", true, false, false, run_remove},
    {"revoke", true, false, false, run_revoke}, {"list", false, false, false, run_list},
    {"lock", true, false, true, run_lock},
};

static const struct action *find_action(const char *name)
{
	for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++)
		if (strcmp(actions[i].name, name) == 0)
			return &actions[i];
	return NULL;
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *operands, size_t count)
{
	const struct trust_args *args = arguments;
	const struct action *action = find_action(operands[0]);
	struct lora_error err = LORA_ERROR_INIT;

	if (!action)
		return ui_failf(ctx->ui, LORA_USAGE,
				"'%s' is no action: add, remove, revoke, list or lock",
				operands[0]);
	if (count != (action->takes_path ? 2 : 1))
		return ui_failf(ctx->ui, LORA_USAGE, "trust %s takes %s", action->name,
				!action->takes_path ? "no argument"
				: action->locks	    ? "one artifact"
						    : "one NAME.pub");
	if (!action->describes && (args->principal || args->scopes.count || args->until))
		return ui_failf(
		    ctx->ui, LORA_USAGE,
		    "--as, --scope and --until say something about a key that is added");
	if (!action->locks && (args->lock || args->pub))
		return ui_failf(ctx->ui, LORA_USAGE, "--lock and --pub belong to trust lock");
	return action->run(ctx, args, count > 1 ? operands[1] : NULL, &err) ? ui_fail(ctx->ui, &err)
									    : LORA_OK;
}

static const struct operand operands[] = {
    {.name = "ACTION", .help = "add, remove, revoke, list or lock"},
    {
	.name = "PATH",
	.help = "NAME.pub (remove, revoke: or a key's id); lock: a signed artifact",
	.hint = HINT_FILE,
	.optional = true,
    },
    {.name = NULL},
};

static const struct opt opts[] = {
    {
	.kind = OPT_STRING,
	.name = "as",
	.metavar = "PRINCIPAL",
	.help = "add: whose key it is",
	.otherwise = "the name of the file",
	.at = offsetof(struct trust_args, principal),
    },
    {
	.kind = OPT_LIST,
	.name = "scope",
	.metavar = "GLOB",
	.help = "add: for which names the key counts; may be repeated",
	.detail = "A star stands for any text, a question mark for one character.",
	.otherwise = "every name",
	.at = offsetof(struct trust_args, scopes),
    },
    {
	.kind = OPT_STRING,
	.name = "until",
	.metavar = "DATE",
	.help = "add: the last day on which the key counts (UTC)",
	.detail = "2027-01-31; or 2027-01-31T12:00:00Z, the moment from which on it does not.",
	.otherwise = "without end",
	.at = offsetof(struct trust_args, until),
    },
    {
	.kind = OPT_PATH,
	.name = "lock",
	.metavar = "FILE",
	.help = "lock: write the pin into FILE",
	.otherwise = "./loractl.lock",
	.at = offsetof(struct trust_args, lock),
	.hint = HINT_FILE,
    },
    {
	.kind = OPT_PATH,
	.letter = 'p',
	.name = "pub",
	.metavar = "NAME.pub",
	.help = "lock: trust this key alone",
	.otherwise = "the keyring",
	.at = offsetof(struct trust_args, pub),
	.hint = HINT_FILE,
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"trust a key for one team's adapters",
     "loractl trust add team-a.pub --as team-a --scope 'team-a-*' --until 2027-12-31"},
    {"never again", "loractl trust revoke team-a.pub"},
    {"pin what was reviewed", "loractl trust lock style.lora"},
    {NULL, NULL},
};

const struct cmd cmd_trust = {
    .name = "trust",
    .summary = "Say whose signatures count, and pin what was reviewed",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct trust_args),
    .flags = CMD_REPORTS,
    .examples = examples,
    .run = run,
};
