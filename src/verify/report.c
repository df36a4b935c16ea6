/* SPDX-License-Identifier: Apache-2.0 */
/* verify/report.c - putting a report where an earlier one may stand, and nothing else. */
#include "base/error.h"
#include "base/file.h"
#include <loractl/verify.h>

#include <stdlib.h>
#include <string.h>

#define REPORT_LIMIT ((uint64_t)1 << 30)

/* By what it says in its beginning: a report, a page of ours, a statement. */
static bool is_ours(const char *text)
{
	static const char *const marks[] = {"\"loractl.verify/1\"",
					    "<meta name=\"generator\" content=\"loractl\">",
					    "\"application/vnd.in-toto+json\""};

	for (size_t i = 0; i < sizeof(marks) / sizeof(*marks); i++)
		if (strstr(text, marks[i]))
			return true;
	return false;
}

static enum lora_status may_replace(const char *path, bool *replace, struct lora_error *err)
{
	enum lora_path_kind kind;
	char *text = NULL;
	size_t size;
	enum lora_status status = lora__path_kind(path, &kind, err);

	*replace = false;
	if (status || kind != LORA_PATH_FILE)
		return status;
	status = lora__file_slurp(path, REPORT_LIMIT, &text, &size, NULL);
	*replace = !status && is_ours(text);
	free(text);
	if (*replace)
		return LORA_OK;
	return lora__fail(err, LORA_USAGE,
			  "'%s' exists and is no report: remove it, or use another "
			  "name",
			  lora__escape(path));
}

enum lora_status lora_report_write(const char *path, const char *text, struct lora_error *err)
{
	struct lora_output *output = NULL;
	bool replace;
	int fd = -1;
	enum lora_status status = may_replace(path, &replace, err);

	if (!status)
		status = lora__output_begin(&output, path, false, replace, err);
	if (!status)
		status = lora__output_file(output, NULL, 0, &fd, err);
	if (!status)
		status = lora__write_at(fd, path, 0, text, strlen(text), err);
	if (!status)
		status = lora__output_commit(output, err);
	lora__output_free(output);
	return status;
}
