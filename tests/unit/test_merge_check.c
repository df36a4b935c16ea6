/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a merge back finds whatever is wrong in it: a bit of a merged tensor, a byte of an
 * untouched one, a tensor that is not there; and with `verify` a merge whose bytes were changed on
 * their way to the disk does not appear.
 *
 * pwrite() is ours: armed, it changes the last byte of the first block that is not at a file's
 * beginning, which is one of weights; or it writes to an input meanwhile. */
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "adapter_made.h"
#include "base/file.h"
#include "merge/check.h"

static bool armed;
static const char *meddled; /* a file that gets its first byte once more */

ssize_t pwrite(int fd, const void *buffer, size_t size, off_t offset)
{
	uint8_t changed[4096];

	if (armed && offset > 0 && size > 0 && size <= sizeof(changed)) {
		armed = false;
		memcpy(changed, buffer, size);
		changed[size - 1] ^= 1;
		buffer = changed;
	}
	if (meddled) {
		int other = open(meddled, O_RDWR);
		uint8_t byte;

		meddled = NULL;
		assert_int_equal(pread(other, &byte, 1, 0), 1);
		assert_int_equal(syscall(SYS_pwrite64, other, &byte, 1, 0), 1);
		close(other);
	}
	return syscall(SYS_pwrite64, fd, buffer, size, offset);
}

struct merge {
	char *folder;
	const char *out;
	struct lora_model *base;
	struct lora_merge_input input;
	struct lora_merge_options options;
	struct lora_error err;
};

static void open_inputs(struct merge *m)
{
	const struct lora_adapter_options options = LORA_ADAPTER_OPTIONS_INIT;

	assert_int_equal(
	    lora_model_open(&m->base, made_path(m->folder, "base.safetensors"), &m->err), LORA_OK);
	m->input.weight = 1;
	assert_int_equal(lora_adapter_open(&m->input.adapter,
					   made_path(m->folder, "adapter.safetensors"), &options,
					   NULL, &m->err),
			 LORA_OK);
}

static void begin(struct merge *m)
{
	struct made_file f = {0};

	*m = (struct merge){.options = LORA_MERGE_OPTIONS_INIT, .err = LORA_ERROR_INIT};
	m->folder = made_directory();
	m->out = made_path(m->folder, "out.safetensors");
	m->options.threads = 1;
	made_tensor(&f, "before.weight", "F32", "3", 3, 2);
	made_tensor(&f, "q.weight", "F32", "4,6", 24, -9);
	made_tensor(&f, "behind.weight", "BF16", "5", 5, 4);
	made_write(&f, made_path(m->folder, "base.safetensors"));
	made_tensor(&f, "base_model.model.q.lora_A.weight", "F32", "2,6", 12, 1);
	made_tensor(&f, "base_model.model.q.lora_B.weight", "F32", "4,2", 8, -3);
	made_write(&f, made_path(m->folder, "adapter.safetensors"));
	made_text(made_path(m->folder, "adapter_config.json"),
		  "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":3}");
	open_inputs(m);
}

static enum lora_status run(struct merge *m)
{
	struct lora_merge_result *result;
	enum lora_status status =
	    lora_merge(&result, m->base, &m->input, 1, m->out, &m->options, NULL, &m->err);

	lora_merge_result_free(result);
	return status;
}

static void end(struct merge *m)
{
	lora_adapter_close(m->input.adapter);
	lora_model_close(m->base);
	made_remove(m->folder);
}

/* Compares what stands at m->out with the plan. */
static enum lora_status check(struct merge *m)
{
	struct lora_plan plan = {.base = m->base,
				 .inputs = &m->input,
				 .input_count = 1,
				 .options = &m->options,
				 .split_source = LORA_NO_TENSOR};
	struct lora_model *merged;
	enum lora_status status;

	assert_int_equal(lora_model_open(&merged, m->out, &m->err), LORA_OK);
	assert_int_equal(lora__plan_make(&plan, &m->err), LORA_OK);
	status = lora__merge_check(&plan, merged, &m->err);
	lora__plan_fini(&plan);
	lora_model_close(merged);
	return status;
}

/* Bit `bit` of byte `at` of a tensor of m->out, turned. */
static void turn(struct merge *m, const char *tensor, uint64_t at, unsigned bit)
{
	struct lora_model *merged;
	uint64_t place;
	uint8_t byte;
	int fd = open(m->out, O_RDWR);

	assert_int_equal(lora_model_open(&merged, m->out, &m->err), LORA_OK);
	place = lora_model_find(merged, tensor)->begin + at;
	lora_model_close(merged);
	assert_int_equal(pread(fd, &byte, 1, (off_t)place), 1);
	byte = (uint8_t)(byte ^ 1u << bit);
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)place), 1);
	close(fd);
}

static void check__finds_every_bit(void **state)
{
	static const struct {
		const char *name;
		uint64_t size;
	} tensors[] = {{"before.weight", 12}, {"q.weight", 96}, {"behind.weight", 10}};
	struct merge m;

	(void)state;
	begin(&m);
	assert_int_equal(run(&m), LORA_OK);
	assert_int_equal(check(&m), LORA_OK);
	for (size_t t = 0; t < sizeof(tensors) / sizeof(*tensors); t++)
		for (uint64_t at = 0; at < tensors[t].size; at++) {
			turn(&m, tensors[t].name, at, at % 8);
			assert_int_equal(check(&m), LORA_NO);
			assert_non_null(strstr(m.err.message, tensors[t].name));
			turn(&m, tensors[t].name, at, at % 8);
		}
	assert_int_equal(check(&m), LORA_OK);
	end(&m);
}

static void check__misses_tensors(void **state)
{
	struct made_file f = {0};
	struct merge m;

	(void)state;
	begin(&m);
	made_tensor(&f, "before.weight", "F32", "3", 3, 2);
	made_write(&f, m.out);
	assert_int_equal(check(&m), LORA_NO);
	made_tensor(&f, "before.weight", "F32", "3", 3, 2);
	made_tensor(&f, "k.weight", "F32", "4,6", 24, -9);
	made_tensor(&f, "behind.weight", "BF16", "5", 5, 4);
	made_write(&f, m.out);
	assert_int_equal(check(&m), LORA_NO);
	assert_non_null(strstr(m.err.message, "q.weight"));
	end(&m);
}

static void verify__keeps_a_damaged_merge_back(void **state)
{
	struct merge m;

	(void)state;
	begin(&m);
	m.options.verify = true;
	assert_int_equal(run(&m), LORA_OK);
	assert_int_equal(unlink(m.out), 0);
	assert_int_equal(unlink(made_path(m.folder, "out.safetensors.receipt.json")), 0);
	armed = true;
	assert_int_equal(run(&m), LORA_NO);
	assert_false(armed);
	assert_non_null(strstr(m.err.message, "q.weight"));
	assert_int_not_equal(access(m.out, F_OK), 0);
	/* Without it nobody looks: the damage is really there. */
	m.options.verify = false;
	armed = true;
	assert_int_equal(run(&m), LORA_OK);
	assert_int_equal(check(&m), LORA_NO);
	end(&m);
}

/* Whatever was written: what was read may be half of the one and half of the other. Without a
 * receipt no digest is taken, and nothing else looks at the inputs once more. */
static void merge__notices_an_input_that_changes(void **state)
{
	static const char *const inputs[] = {"adapter.safetensors", "base.safetensors"};

	(void)state;
	for (size_t n = 0; n < 4; n++) {
		size_t i = n % 2;
		struct merge m;

		begin(&m);
		m.options.no_receipt = n < 2;
		made_old(made_path(m.folder, inputs[i]), 10);
		lora_adapter_close(m.input.adapter);
		lora_model_close(m.base);
		open_inputs(&m);
		meddled = made_path(m.folder, inputs[i]);
		assert_int_equal(run(&m), LORA_INPUT);
		assert_non_null(strstr(m.err.message, inputs[i]));
		assert_non_null(strstr(m.err.message, "changed while"));
		assert_int_not_equal(access(m.out, F_OK), 0);
		end(&m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(check__finds_every_bit),
	    cmocka_unit_test(check__misses_tensors),
	    cmocka_unit_test(verify__keeps_a_damaged_merge_back),
	    cmocka_unit_test(merge__notices_an_input_that_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
