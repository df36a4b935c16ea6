/* SPDX-License-Identifier: Apache-2.0 */
/* formats/edit.c - the names of edits in reports. */
#include "formats/edit.h"

const char *lora__edit_kind_name(enum lora_edit_kind kind)
{
	switch (kind) {
	case LORA_EDIT_ADD_LOWRANK:
		return "low-rank";
	case LORA_EDIT_ADD_DENSE:
		return "dense";
	case LORA_EDIT_DORA:
		return "dora";
	case LORA_EDIT_REPLACE:
		return "replace";
	case LORA_EDIT_REPLACE_ROWS:
		return "rows";
	case LORA_EDIT_ADD_TENSOR:
		return "add";
	}
	return "unknown";
}
