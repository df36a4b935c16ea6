/* SPDX-License-Identifier: Apache-2.0 */
/* cli/merge_trust.h - what `merge --require-signed` and `merge --sign` add to a merge. */
#ifndef LORA_CLI_MERGE_TRUST_H
#define LORA_CLI_MERGE_TRUST_H

#include <loractl/trust.h>

#include "cmd.h"
#include "passphrase.h"

/* LORA_NO unless the open adapter is signed by a key of the keyring. */
enum lora_status merge_trust_adapter(const struct cmd_ctx *ctx, struct lora_adapter *adapter,
				     struct lora_error *err);
/* Opens the key; the passphrase is asked for before the work, not after it. */
enum lora_status merge_trust_key(const struct cmd_ctx *ctx, struct lora_secret_key **key,
				 const char *path, const char *fd, struct lora_error *err);
void merge_trust_done(struct lora_secret_key *key); /* NULL is a no-op */
/* Writes the statement about the receipt into, or beside, the output. */
enum lora_status merge_trust_sign(const char *receipt, const struct lora_secret_key *key,
				  const char *output, bool directory, struct lora_error *err);

#endif
