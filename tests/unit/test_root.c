/* SPDX-License-Identifier: Apache-2.0 */
/* test_root.c - the Merkle root over a model's tensors (src/checkpoint/root.c)
 *
 * The expected roots are what this prints (Python 3; it knows the definition in checkpoint.h, not
 *the code):
 *
 *	import hashlib as h, struct
 *	S = lambda b: h.sha256(b).digest()
 *	def leaf(name, dtype, shape, data):
 *	    n = name.encode()
 *	    return n, S(b"\0loractl tensor 1\0" + struct.pack("<I", len(n)) + n + dtype.encode() +
 *	                b"\0" + struct.pack("<I%dQ" % len(shape), len(shape), *shape) + S(data))
 *	def root(tensors):
 *	    level = [d for _, d in sorted(leaf(*t) for t in tensors)]
 *	    if not level: return S(b"").hex()
 *	    while len(level) > 1:
 *	        level = [S(b"\1" + b"".join(level[i:i+2])) if i + 1 < len(level) else level[i]
 *	                 for i in range(0, len(level), 2)]
 *	    return level[0].hex()
 *	T = [("b", "BF16", [2, 1], b"\1\2\3\4"), ("a.weight", "F32", [], bytes(4)),
 *	     ("a", "U8", [0, 3], b""), ("é", "F16", [1], b"\0\x80"), ("A", "I64", [1], b"\xff" * 8)]
 *	for n in range(6): print(root(T[:n]))
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "checkpoint/checkpoint.h"

enum { COUNT = 5 };

static const struct {
	const char *name;
	enum lora_dtype dtype;
	uint32_t ndim;
	uint64_t shape[2];
	const char *data;
	size_t size;
} tensors[COUNT] = {
    {"b", LORA_DTYPE_BF16, 2, {2, 1}, "\1\2\3\4", 4},
    {"a.weight", LORA_DTYPE_F32, 0, {0}, "\0\0\0\0", 4},
    {"a", LORA_DTYPE_U8, 2, {0, 3}, "", 0},
    {"\xc3\xa9", LORA_DTYPE_F16, 1, {1}, "\0\x80", 2},
    {"A", LORA_DTYPE_I64, 1, {1}, "\xff\xff\xff\xff\xff\xff\xff\xff", 8},
};

static const char *const roots[COUNT + 1] = {
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "b7f72429209706210c641778d38bf0656dd0e850b245a121b7746e99f56c1d4b",
    "39c0e546a08c60c8ffe356ba562dc443c522efd217565605d199d74f4c3716cd",
    "92eeacf18ff6e605478f9be7c3a8c29cd70d54c88a74acd1cf4abaeaeed2accf",
    "3ac138c20e7f55678d0ca018c210c15bb59a5593f2f67184ef7c5e9f0985da80",
    "c1c2bd27c4b3f691d3a7bed2207c328a17a108a990ca94e0837cebddb17fca94",
};

static void make_leaves(struct lora_leaf leaves[COUNT], struct lora_sha256 digests[COUNT])
{
	for (size_t i = 0; i < COUNT; i++) {
		lora__sha256(tensors[i].data, tensors[i].size, &digests[i]);
		leaves[i] = (struct lora_leaf){tensors[i].name, tensors[i].dtype, tensors[i].ndim,
					       tensors[i].shape, &digests[i]};
	}
}

static const char *root_of(struct lora_leaf *leaves, size_t count)
{
	static char hex[LORA_SHA256_HEX];
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_sha256 root;

	assert_int_equal(lora__root_compute(&root, leaves, count, &err), LORA_OK);
	lora__sha256_hex(&root, hex);
	return hex;
}

static void root__is_what_python_computes(void **state)
{
	(void)state;
	for (size_t count = 0; count <= COUNT; count++) {
		struct lora_sha256 digests[COUNT];
		struct lora_leaf leaves[COUNT];

		make_leaves(leaves, digests);
		assert_string_equal(root_of(leaves, count), roots[count]);
	}
}

static void root__does_not_depend_on_the_order_given(void **state)
{
	(void)state;
	for (size_t first = 0; first < COUNT; first++) {
		struct lora_leaf leaves[COUNT], turned[COUNT];
		struct lora_sha256 digests[COUNT];

		make_leaves(leaves, digests);
		for (size_t i = 0; i < COUNT; i++)
			turned[i] = leaves[(COUNT - i + first) % COUNT];
		assert_string_equal(root_of(turned, COUNT), roots[COUNT]);
		assert_string_equal(turned[0].name, "A");
		assert_string_equal(turned[COUNT - 1].name, "\xc3\xa9");
	}
}

/* Every fact of a tensor changes the root. */
static void root__depends_on_every_fact(void **state)
{
	struct lora_leaf leaves[COUNT];
	struct lora_sha256 digests[COUNT], other;
	static const uint64_t transposed[2] = {1, 2};

	(void)state;
	make_leaves(leaves, digests);
	leaves[0].name = "c";
	assert_string_not_equal(root_of(leaves, COUNT), roots[COUNT]);
	make_leaves(leaves, digests);
	leaves[0].dtype = LORA_DTYPE_F16;
	assert_string_not_equal(root_of(leaves, COUNT), roots[COUNT]);
	make_leaves(leaves, digests);
	leaves[0].shape = transposed;
	assert_string_not_equal(root_of(leaves, COUNT), roots[COUNT]);
	make_leaves(leaves, digests);
	leaves[0].ndim = 1;
	assert_string_not_equal(root_of(leaves, COUNT), roots[COUNT]);
	make_leaves(leaves, digests);
	lora__sha256("\1\2\3\5", 4, &other);
	leaves[0].digest = &other;
	assert_string_not_equal(root_of(leaves, COUNT), roots[COUNT]);
}

static void root__refuses_two_of_one_name(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_leaf leaves[COUNT];
	struct lora_sha256 digests[COUNT], root;

	(void)state;
	make_leaves(leaves, digests);
	leaves[4].name = "b";
	assert_int_equal(lora__root_compute(&root, leaves, COUNT, &err), LORA_USAGE);
	assert_string_equal(err.message, "two tensors are named 'b'");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(root__is_what_python_computes),
	    cmocka_unit_test(root__does_not_depend_on_the_order_given),
	    cmocka_unit_test(root__depends_on_every_fact),
	    cmocka_unit_test(root__refuses_two_of_one_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
