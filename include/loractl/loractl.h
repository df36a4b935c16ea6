/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/loractl.h - the library under the loractl command: an introduction, and everything at
 *once.
 *
 * A LoRA adapter says how to change some weights of a base model. libloractl opens both from the
 *files that trainers and hubs publish, says what the adapter would do, and merges it, bit for bit
 *the same on every machine. One header a noun:
 *
 *	error.h     enum lora_status (it is the exit code), struct lora_error
 *	types.h     element types, struct lora_tensor
 *	progress.h  notes and progress: the library calls back and never prints
 *	json.h      a writer of canonical JSON
 *	model.h     a checkpoint: open, list, read, digest
 *	adapter.h   an adapter: modules, ranks, scales, norms; does it fit, who loads it
 *	merge.h     base + adapters -> checkpoint and receipt
 *	unmerge.h   the ways back: undo records, and merges repeated from receipts
 *	container.h a file with every version of an adapter: pack, unpack, log, fsck, gc
 *	tokenizer.h text to token ids, and back
 *	chat.h      conversations as text
 *	net.h       running a model: logits, loss, text; adapters beside the weights
 *	inspect.h   what is this path?
 *	diff.h      what differs between two adapters or checkpoints, and does a merge explain it?
 *	verify.h    is a checkpoint base + adapters? the proof, and its report
 *	trust.h     keys, signatures, the keyring, the lock file, attestations
 *	cleanup.h   removing unfinished outputs before dying
 *
 * Ownership. (1) Who calls open or new calls close or free. (2) A `const T *` that is returned is
 * borrowed, valid until its parent is closed. (3) `T **out` gives the result to the caller; *out is
 *NULL on failure. (4) No function takes ownership unless its name ends in _take. (5) What was
 *parsed from one file lives in that file's arena. (6) Tensor data is not copied unless the function
 *is called read. (7) A handle is not thread-safe, distinct handles are; callbacks are never run
 *concurrently.
 */
#ifndef LORACTL_LORACTL_H
#define LORACTL_LORACTL_H

#include <loractl/adapter.h>
#include <loractl/chat.h>
#include <loractl/cleanup.h>
#include <loractl/container.h>
#include <loractl/diff.h>
#include <loractl/error.h>
#include <loractl/inspect.h>
#include <loractl/json.h>
#include <loractl/merge.h>
#include <loractl/model.h>
#include <loractl/net.h>
#include <loractl/progress.h>
#include <loractl/tokenizer.h>
#include <loractl/trust.h>
#include <loractl/types.h>
#include <loractl/unmerge.h>
#include <loractl/verify.h>
#include <loractl/version.h>

#endif
