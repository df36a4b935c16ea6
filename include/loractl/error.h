/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/error.h - how every function says that it failed.
 *
 * A function that can fail returns an enum lora_status and takes, last, a `struct lora_error *`
 * that the caller owns (it may be NULL). The status IS the exit code of the command line, so that
 * nothing is lost in a translation. On success the error is left as it was.
 *
 * A message is one line: what failed, on which file or tensor, what to do about it; separated by
 * ": ", lower case, without a full stop. Names that come out of files are escaped in it.
 */
#ifndef LORACTL_ERROR_H
#define LORACTL_ERROR_H

#include <loractl/version.h>

#ifdef __cplusplus
extern "C" {
#endif

enum lora_status {
	LORA_OK = 0,	      /* done, yes, equal */
	LORA_NO = 1,	      /* the answer is no: differs, wrong base, not equal */
	LORA_USAGE = 2,	      /* a contract of the call is broken; or refusing to overwrite */
	LORA_INPUT = 3,	      /* an input is missing, bad, unmatched or unsupported */
	LORA_SYSTEM = 4,      /* the system failed: permission, I/O, memory */
	LORA_CANCELLED = 130, /* the observer asked to stop */
};

#define LORA_ERROR_SIZE 1024

struct lora_error {
	enum lora_status status;
	int sys_errno;		       /* errno of the failing call, or 0 */
	char message[LORA_ERROR_SIZE]; /* NUL-terminated; longer messages end in "..." */
};

#define LORA_ERROR_INIT                                                                            \
	{                                                                                          \
		LORA_OK, 0,                                                                        \
		{                                                                                  \
			0                                                                          \
		}                                                                                  \
	}

#ifdef __cplusplus
}
#endif

#endif
