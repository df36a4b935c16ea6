/* SPDX-License-Identifier: Apache-2.0 */
/* cli/merge_trust.c - trust at both ends of a merge: adapters that go in, the receipt that comes
 * out
 *
 * Tested by tests/cli/merge_signed.sh, tests/interop/attest.py
 */
#include <stdlib.h>
#include <string.h>

#include "merge_trust.h"

enum lora_status merge_trust_adapter(const struct cmd_ctx *ctx, struct lora_adapter *adapter,
				     struct lora_error *err)
{
	struct lora_verdict *verdict = NULL;
	enum lora_status status = lora_verify_adapter(&verdict, adapter, NULL, ctx->observer, err);

	if (!status)
		ui_note(ctx->ui, LORA_NOTE_DETAIL, "adapter '%s' is signed by '%s' (key %s)",
			verdict->name, verdict->principal, verdict->key_id);
	lora_verdict_free(verdict);
	return status;
}

enum lora_status merge_trust_key(const struct cmd_ctx *ctx, struct lora_secret_key **key,
				 const char *path, const char *fd, struct lora_error *err)
{
	struct passphrase from = {ctx->ui, fd};
	struct lora_passphrase source = passphrase_source(&from);
	enum lora_status status;

	passphrase_guard();
	status = lora_secret_key_open(key, path, &source, ctx->observer, err);
	if (status)
		passphrase_unguard();
	return status;
}

void merge_trust_done(struct lora_secret_key *key)
{
	if (!key)
		return;
	lora_secret_key_close(key);
	passphrase_unguard();
}

/* malloc'd; NULL without memory. */
static char *statement_path(const char *output, bool directory)
{
	const char *slash = "/loractl-receipt.intoto.json", *suffix = ".receipt.intoto.json";
	size_t length = strlen(output), room;
	char *path;

	while (directory && length > 1 && output[length - 1] == '/')
		length--;
	room = length + strlen(slash) + 1;
	path = malloc(room);
	if (path)
		snprintf(path, room, "%.*s%s", (int)length, output, directory ? slash : suffix);
	return path;
}

enum lora_status merge_trust_sign(const char *receipt, const struct lora_secret_key *key,
				  const char *output, bool directory, struct lora_error *err)
{
	const char *slash = strrchr(output, '/'), *name = slash ? slash + 1 : output;
	char *envelope = NULL, *path = statement_path(output, directory);
	enum lora_status status =
	    path ? LORA_OK
		 : opt_fail(err, LORA_SYSTEM, "out of memory: the merge stands, unsigned");

	if (!status)
		status = lora_attest_receipt(&envelope, receipt, directory ? NULL : name, key, err);
	if (!status) /* what belongs to an output that --force replaced goes with it */
		status = lora_attest_write(path, envelope, !directory, err);
	free(envelope);
	free(path);
	return status;
}
