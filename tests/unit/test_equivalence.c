/* SPDX-License-Identifier: Apache-2.0 */
/* verify/equivalence.c on times that are made up, where the truth is known; verify/latency.c on a
 * delay that is put in. */
#include "base_check.h"

#include "verify/equivalence.h"
#include "verify/latency.h"
#include "verify/measures.h"

#include <math.h>

#define assert_near(a, b, by) assert_true(fabs((a) - (b)) <= (by))

/* A noise of about that share, with a tail to the slow side, as machines have it. */
static double noisy(uint64_t *state, double share)
{
	double sum = -6;

	for (int i = 0; i < 12; i++) {
		*state = *state * 6364136223846793005u + 1442695040888963407u;
		sum += (double)(*state >> 11) * 0x1p-53;
	}
	return 1 + share * sum + (sum > 2 ? share * sum : 0);
}

/* n rounds in which merged takes `slower` times the base. */
static enum lora_equivalence judge(uint64_t *state, size_t n, double slower, double share,
				   double margin, struct lora_proof_latency *out)
{
	static struct lora_round rounds[400];
	static double room[400];

	for (size_t i = 0; i < n; i++) {
		double drift = 1 + 0.3 * (double)i / (double)n; /* the machine gets slower */

		rounds[i].base = drift * noisy(state, share);
		rounds[i].merged = drift * slower * noisy(state, share);
		rounds[i].again = drift * slower * noisy(state, share);
		rounds[i].unmerged = drift * 1.2 * noisy(state, share);
	}
	return lora__equivalence(rounds, n, margin, room, out);
}

/* The order statistics are those of the tables: n = 10: 2nd and 9th; 20: 6th and 15th; 50: 19th and
 * 32nd (Conover 1999, table A3). */
static void equivalence__intervals_of_the_median(void **state)
{
	static const struct {
		size_t n, low, high;
	} table[] = {{5, 1, 5},	  {8, 2, 7},	{10, 2, 9},  {15, 4, 12},
		     {20, 6, 15}, {30, 11, 20}, {50, 19, 32}};
	double logs[1200];
	struct lora_proof_interval interval;

	(void)state;
	for (size_t t = 0; t < sizeof(table) / sizeof(*table); t++) {
		size_t n = table[t].n;

		for (size_t i = 0; i < n; i++) /* n, n - 1, ... 1: they have to be sorted */
			logs[i] = (double)(n - i);
		interval = lora__median_interval(logs, n);
		assert_near(log(interval.low), (double)table[t].low, 1e-9);
		assert_near(log(interval.high), (double)table[t].high, 1e-9);
		assert_near(log(interval.ratio), (double)(n + 1) / 2, 1e-9);
	}
	interval = lora__median_interval(logs, 4);
	assert_true(interval.low == 0 && isinf(interval.high));
	interval = lora__median_interval(logs, 0);
	assert_true(isnan(interval.ratio) && interval.low == 0 && isinf(interval.high));
	for (size_t i = 0; i < 1200; i++)
		logs[i] = 0.01 * (double)i;
	interval =
	    lora__median_interval(logs, 1200); /* 1200/2 -+ 1.645 sqrt(1200)/2 = 571.5, 628.5 */
	assert_near(log(interval.low), 5.70, 0.02);
	assert_near(log(interval.high), 6.29, 0.02);
}

static void equivalence__what_is_equal_what_is_not(void **state)
{
	struct lora_proof_latency out;
	uint64_t random = 7;

	(void)state;
	assert_int_equal(judge(&random, 200, 1, 0.02, 0.02, &out), LORA_EQUAL);
	assert_true(out.merged.low > 0.98 && out.merged.high < 1.02);
	assert_true(out.unmerged.low > 1.15 && out.unmerged.high < 1.25);
	assert_int_equal(out.rounds, 200);
	assert_int_equal(judge(&random, 200, 1.03, 0.02, 0.02, &out), LORA_SLOWER);
	assert_true(out.merged.low > 1.02 && out.merged.ratio < 1.04);
	assert_true(out.control.low < 1 && out.control.high > 1);
	/* Noise is no proof of anything, nor are few rounds, nor is being faster. */
	assert_int_equal(judge(&random, 40, 1, 0.2, 0.02, &out), LORA_UNDECIDED);
	assert_int_equal(judge(&random, 4, 1, 0.0001, 0.02, &out), LORA_UNDECIDED);
	assert_int_equal(judge(&random, 200, 0.95, 0.02, 0.02, &out), LORA_UNDECIDED);
	assert_int_equal(judge(&random, 0, 1, 0.02, 0.02, &out), LORA_UNDECIDED);
}

/* A control that is not equal to itself: the machine cannot tell. */
static void equivalence__the_control_has_to_hold(void **state)
{
	struct lora_round rounds[50];
	struct lora_proof_latency out;
	double room[50];

	(void)state;
	for (size_t i = 0; i < 50; i++)
		rounds[i] = (struct lora_round){1, 0.95, 1 / 0.95, 1.2};
	assert_int_equal(lora__equivalence(rounds, 50, 0.02, room, &out), LORA_UNDECIDED);
	assert_near(out.control.ratio, 1 / 0.95 / 0.95, 1e-9);
	assert_near(out.merged.ratio, 1, 1e-9);
}

/* On the margin itself equality is found wrongly in at most 5 % of all experiments; a delay of 3 %
 * never, at this noise. */
static void equivalence__errors_are_as_rare_as_promised(void **state)
{
	size_t wrong = 0, missed = 0, found = 0;
	struct lora_proof_latency out;
	uint64_t random = 11;

	(void)state;
	for (size_t i = 0; i < 1000; i++) {
		wrong += judge(&random, 60, 1.02, 0.02, 0.02, &out) == LORA_EQUAL;
		missed += judge(&random, 60, 1.03, 0.02, 0.02, &out) == LORA_EQUAL;
		found += judge(&random, 60, 1, 0.02, 0.02, &out) == LORA_EQUAL;
	}
	assert_true(wrong <= 65); /* 50, and two standard errors */
	assert_int_equal(missed, 0);
	assert_true(found >= 900);
}

static void measures__known_distributions(void **state)
{
	const float p[] = {0, 0}, q[] = {0.6931471806f, 0}, big[] = {1000, 999.3068528f};
	struct lora_measures m = {0};

	(void)state;
	/* (1/2, 1/2) against (2/3, 1/3): 1/2 ln(3/4) + 1/2 ln(3/2) = ln(9/8)/2 */
	assert_near(lora__kl(p, q, 2), log(9.0 / 8) / 2, 1e-8);
	/* ... and the other way: 2/3 ln(4/3) + 1/3 ln(2/3) */
	assert_near(lora__kl(q, p, 2), 2.0 / 3 * log(4.0 / 3) + log(2.0 / 3) / 3, 1e-8);
	assert_true(lora__kl(p, p, 2) <= 0);
	assert_near(lora__kl(big, q, 2), 0, 1e-8); /* a constant means nothing */
	assert_near(lora__surprise(q, 2, 1), log(3), 1e-7);
	assert_int_equal(lora__top(p, 2), 0); /* the first of equals */
	lora__measure(&m, p, q, 2);
	lora__measure(&m, q, q, 2);
	assert_int_equal(m.rows, 2);
	assert_int_equal(m.agree, 2);
	assert_near(m.max_abs, log(2), 1e-7);
	assert_near(m.sum2, log(2) * log(2), 1e-7);
	assert_near(m.kl, log(9.0 / 8) / 2, 1e-8);
	assert_near(m.kl_max, m.kl, 1e-12);
}

/* A base against itself, its runs made longer by a share. */
static enum lora_status with_delay(double delay, double margin, size_t rounds,
				   struct lora_proof_latency *out, struct lora_error *err)
{
	const char *src = getenv("SRC");
	struct lora_proof_options options = LORA_PROOF_OPTIONS_INIT;
	struct lora_latency_test test = {delay, rounds};
	struct lora_proof *proof = NULL;
	char base[4096], adapter[4200];
	struct lora_proof_place place = {adapter, 1};
	enum lora_status status;

	(void)snprintf(base, sizeof(base), "%s/tests/data/tiny/llama", src ? src : ".");
	(void)snprintf(adapter, sizeof(adapter), "%s-adapter", base);
	options.margin = margin;
	options.threads = 1;
	options.patience = 60;
	assert_int_equal(lora_proof_open(&proof, base, base, &place, 1, &options, err), LORA_OK);
	status = lora__proof_latency(proof, &test, err);
	assert_non_null(lora_proof_latency_result(proof));
	*out = *lora_proof_latency_result(proof);
	lora_proof_close(proof);
	return status;
}

static void latency__a_delay_is_found(void **state)
{
	struct lora_proof_latency out;
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	/* Whatever the machine does meanwhile, this one is not equal. */
	assert_int_not_equal(with_delay(0.03, 0.02, 60, &out, &err), LORA_OK);
	assert_false(out.passed);
	assert_true(out.structural && out.operations > 4);
	assert_int_equal(with_delay(2, 0.6, 36, &out, &err), LORA_NO);
	assert_true(out.merged.low > 1.6);
	assert_false(out.passed);
	assert_int_equal(with_delay(0, 0.9, 36, &out, &err), LORA_OK);
	assert_true(out.passed && out.rounds >= 24 && out.milliseconds > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(equivalence__intervals_of_the_median),
	    cmocka_unit_test(equivalence__what_is_equal_what_is_not),
	    cmocka_unit_test(equivalence__the_control_has_to_hold),
	    cmocka_unit_test(equivalence__errors_are_as_rare_as_promised),
	    cmocka_unit_test(measures__known_distributions),
	    cmocka_unit_test(latency__a_delay_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
