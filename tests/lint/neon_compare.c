/* SPDX-License-Identifier: Apache-2.0 */
/* tests/lint/neon_compare.c - is the NEON table the generic one, bit for bit?
 *
 * The comparison of tests/unit/test_kern.c without its test framework, so that a cross compiler and
 * an emulator are enough: cc -DLORA_HAVE_NEON=1 -Iinclude -Isrc -I. with the kernels, run as it is.
 * Exit 0 if all is equal.
 */
#include "tests/unit/kern_compare.h"

int main(void)
{
	struct arena a = arena_new();
	size_t bad = compare_conversions(&lora__kern_neon, &a);

	bad += compare_lowrank_all(&lora__kern_neon, &a);
	bad += compare_apply_all(&lora__kern_neon, &a);
	bad += compare_square8_all(&lora__kern_neon, &a);
	printf("neon: %zu differences\n", bad);
	arena_free(&a);
	return bad == 0 ? 0 : 1;
}
