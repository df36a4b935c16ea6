/* SPDX-License-Identifier: Apache-2.0 */
/* test_view.c - reading strided views of an adapter's tensors.
 *
 * Element i of a tensor is (start + i) / 8 (adapter_made.h), so that a value tells from where it
 * came. */
#include "adapter_made.h"

static char *folder;
static struct lora_adapter *adapter;
static struct lora_error err;

static int set_up(void **state)
{
	static struct made_file f;

	(void)state;
	folder = made_directory();
	made_tensor(&f, "base_model.model.q.lora_A.weight", "F32", "4,6", 24, 0);
	made_tensor(&f, "base_model.model.q.lora_B.weight", "F16", "5,4", 20, 100);
	made_tensor(&f, "base_model.model.k.lora_A.weight", "BF16", "4,6", 24, 200);
	made_tensor(&f, "base_model.model.k.lora_B.weight", "F32", "3000,4", 12000, 0);
	made_write(&f, made_path(folder, "adapter_model.safetensors"));
	made_text(made_path(folder, "adapter_config.json"),
		  "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6}");
	if (lora_adapter_open(&adapter, folder, NULL, NULL, &err))
		fail_msg("%s", err.message);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	lora_adapter_close(adapter);
	made_remove(folder);
	return 0;
}

/* Every element of rows row0 .. of the view is what its place says. */
static void check(const struct lora_view *view, uint64_t row0, uint64_t rows, double start)
{
	static float got[12000 + 2];

	got[rows * view->cols] = 777;
	if (lora__view_read(adapter, view, row0, rows, got, &err))
		fail_msg("%s", err.message);
	for (uint64_t i = 0; i < rows; i++)
		for (uint64_t j = 0; j < view->cols; j++) {
			double place = (double)(view->offset + (row0 + i) * view->row_stride +
						j * view->col_stride);

			if (got[i * view->cols + j] != (float)((start + place) / 8))
				fail_msg("(%d, %d): %g", (int)i, (int)j, got[i * view->cols + j]);
		}
	assert_true(got[rows * view->cols] == 777);
}

static void view__reads_every_stride(void **state)
{
	static const struct {
		struct lora_view view;
		double start;
	} cases[] = {
	    {{0, 0, 4, 6, 6, 1}, 0},	   /* as it stands */
	    {{0, 6, 2, 6, 6, 1}, 0},	   /* some rows */
	    {{0, 1, 4, 3, 6, 1}, 0},	   /* some columns */
	    {{0, 0, 6, 4, 1, 6}, 0},	   /* transposed */
	    {{0, 1, 2, 2, 2, 12}, 0},	   /* every second */
	    {{0, 2, 4, 2, 6, 3}, 0},	   /* columns apart */
	    {{0, 0, 3, 4, 2, 6}, 0},	   /* both apart, rows nearer */
	    {{1, 0, 5, 4, 4, 1}, 100},	   /* f16 */
	    {{1, 0, 4, 5, 1, 4}, 100},	   /* f16 transposed */
	    {{1, 1, 5, 2, 4, 2}, 100},	   /* f16 apart */
	    {{2, 0, 4, 6, 6, 1}, 200},	   /* bf16 */
	    {{3, 0, 3000, 4, 4, 1}, 0},	   /* longer than a buffer */
	    {{3, 0, 4, 3000, 1, 4}, 0},	   /* its transpose */
	    {{3, 1, 3000, 2, 4, 2}, 0},	   /* one expert of two, over several windows */
	    {{3, 1, 2, 3000, 2, 4}, 0},	   /* and transposed */
	    {{3, 0, 2, 2, 6000, 5000}, 0}, /* far apart */
	    {{3, 0, 1500, 4, 1, 2500}, 0}, /* columns that are runs */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const struct lora_view *view = &cases[i].view;

		check(view, 0, view->rows, cases[i].start);
		check(view, view->rows - 1, 1, cases[i].start);
		check(view, view->rows / 2, view->rows - view->rows / 2, cases[i].start);
	}
}

static void view__leaving_the_tensor_is_refused(void **state)
{
	static const struct lora_view views[] = {
	    {0, 1, 4, 6, 6, 1},
	    {0, 0, 5, 6, 6, 1},
	    {0, 0, 4, 7, 6, 1},
	    {4, 0, 1, 1, 1, 1},
	    {0, 24, 1, 1, 1, 1},
	    {0, UINT64_MAX, 2, 2, 1, 1},
	    {0, 0, 2, 2, UINT64_MAX, UINT64_MAX},
	    {0, 0, UINT64_MAX, 2, UINT64_MAX / 2, 1},
	};
	float out[64];

	(void)state;
	for (size_t i = 0; i < sizeof(views) / sizeof(*views); i++)
		assert_int_equal(lora__view_read(adapter, &views[i], 0, 1, out, &err), LORA_USAGE);
	assert_int_equal(
	    lora__view_read(adapter, &(struct lora_view){0, 0, 4, 6, 6, 1}, 2, 3, out, &err),
	    LORA_USAGE);
	assert_int_equal(lora__view_read(adapter, &(struct lora_view){0, 0, 4, 6, 6, 1}, UINT64_MAX,
					 2, out, &err),
			 LORA_USAGE);
}

/* An infinity at element (1, 3) of A [2, 5], a NaN at (1, 4): named by their place, and only if
 * they are asked for. */
static void view__names_what_is_not_finite(void **state)
{
	static struct made_file f;
	static const uint8_t inf[2] = {0x00, 0x7c}, nan[2] = {0x01, 0x7e};
	struct lora_adapter *broken = NULL;
	char *dir = made_directory();
	float out[16];
	uint64_t bad;
	size_t begin;

	(void)state;
	begin = made_tensor(&f, "base_model.model.q.lora_A.weight", "F16", "2,5", 10, 1);
	memcpy(f.data + begin + 2 * 8, inf, 2);
	memcpy(f.data + begin + 2 * 9, nan, 2);
	made_tensor(&f, "base_model.model.q.lora_B.weight", "F16", "3,2", 6, 1);
	made_write(&f, made_path(dir, "adapter_model.safetensors"));
	made_text(made_path(dir, "adapter_config.json"),
		  "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":6}");
	if (lora_adapter_open(&broken, dir, NULL, NULL, &err))
		fail_msg("%s", err.message);
	assert_int_equal(
	    lora__view_read(broken, &(struct lora_view){0, 0, 2, 5, 5, 1}, 0, 2, out, &err),
	    LORA_INPUT);
	assert_non_null(strstr(err.message, "'base_model.model.q.lora_A.weight': element [1, 3] is "
					    "not finite"));
	assert_int_equal(
	    lora__view_read(broken, &(struct lora_view){0, 0, 2, 5, 5, 1}, 0, 1, out, &err),
	    LORA_OK);
	assert_int_equal(
	    lora__view_read(broken, &(struct lora_view){0, 0, 5, 2, 1, 5}, 0, 3, out, &err),
	    LORA_OK);
	/* the window sees the infinity between the wanted elements 0, 2, 4, ... and does not mind
	 */
	assert_int_equal(
	    lora__view_read(broken, &(struct lora_view){0, 1, 2, 2, 4, 2}, 0, 2, out, &err),
	    LORA_OK);
	/* ... but the wanted one, the last of 2, 4, 6, 8, it does */
	assert_int_equal(lora__view_read_any(broken, &(struct lora_view){0, 2, 2, 2, 4, 2}, 0, 2,
					     out, &bad, &err),
			 LORA_OK);
	assert_int_equal(bad, 8);
	assert_int_equal(lora__view_read_any(broken, &(struct lora_view){0, 0, 5, 2, 1, 5}, 0, 5,
					     out, &bad, &err),
			 LORA_OK);
	assert_int_equal(bad, 8);
	lora_adapter_close(broken);
	made_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(view__reads_every_stride),
	    cmocka_unit_test(view__leaving_the_tensor_is_refused),
	    cmocka_unit_test(view__names_what_is_not_finite),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
