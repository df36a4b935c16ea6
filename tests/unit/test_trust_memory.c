/* SPDX-License-Identifier: Apache-2.0 */
/* test_trust_memory.c - when memory runs out at any moment: signing, verifying and attesting fail
 * with LORA_SYSTEM, nothing is left behind, and nothing passes that should not. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "failing_malloc.h"
#include "made.h"
#include "trust/trust.h"

static char *home, pub[512], good[512], bad[512], lock[512];
static struct lora_secret_key *key;

static void name(char path[512], const char *last)
{
	(void)snprintf(path, 512, "%s/%s", home, last);
}

static int set_up(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_public_key public;
	char path[512];

	(void)state;
	home = made_directory();
	(void)setenv("XDG_CONFIG_HOME", home, 1);
	(void)setenv("XDG_STATE_HOME", home, 1);
	name(path, "k");
	if (lora_key_generate(&public, path, NULL, NULL, &err))
		return -1;
	name(pub, "k.pub");
	name(path, "k.key");
	if (lora_secret_key_open(&key, path, NULL, NULL, &err) ||
	    lora_keyring_add(pub, "somebody", NULL, 0, "2999-01-01", &err))
		return -1;
	name(good, "good");
	name(bad, "bad");
	name(lock, "lock");
	if (mkdir(good, 0700) || mkdir(bad, 0700))
		return -1;
	made_text(made_path(good, "one"), "1");
	made_text(made_path(good, "two"), "2");
	made_text(made_path(bad, "one"), "1");
	if (lora_sign(good, key, NULL, NULL, &err) || lora_sign(bad, key, NULL, NULL, &err))
		return -1;
	made_text(made_path(bad, "one"), "x");
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	lora_secret_key_close(key);
	made_remove(home);
	return 0;
}

static enum lora_status verify(const char *path)
{
	struct lora_verdict *verdict = NULL;
	struct lora_error err = LORA_ERROR_INIT;
	enum lora_status status = lora_verify(&verdict, path, NULL, NULL, &err);

	assert_true((verdict && verdict->passed) == (status == LORA_OK));
	lora_verdict_free(verdict);
	return status;
}

static enum lora_status verify_good(void)
{
	return verify(good);
}

static enum lora_status verify_bad(void)
{
	return verify(bad);
}

static enum lora_status sign(void)
{
	return lora_sign(good, key, NULL, NULL, NULL);
}

static enum lora_status pin(void)
{
	struct lora_verdict *verdict = NULL;
	enum lora_status status = lora_lock(&verdict, good, lock, NULL, NULL, NULL);

	lora_verdict_free(verdict);
	return status;
}

static enum lora_status add(void)
{
	return lora_keyring_add(pub, "somebody else", NULL, 0, NULL, NULL);
}

static enum lora_status attest(void)
{
	static const char receipt[] =
	    "{\"schema\":\"loractl.receipt/"
	    "1\",\"base\":{\"root\":\"r\",\"files\":[]},\"adapters\":[],"
	    "\"merged\":{\"root\":"
	    "\"0000000000000000000000000000000000000000000000000000000000000000\",\"files\":[{"
	    "\"name\":\"f\",\"sha256\":"
	    "\"0000000000000000000000000000000000000000000000000000000000000000\"}]}}";
	struct lora_attestation *statement = NULL;
	struct lora_public_key public;
	char *envelope = NULL;
	enum lora_status status = lora_attest_receipt(&envelope, receipt, NULL, key, NULL);

	lora_secret_key_public(key, &public);
	if (!status)
		status =
		    lora_attestation_open(&statement, envelope, strlen(envelope), &public, 1, NULL);
	lora_attestation_close(statement);
	free(envelope);
	return status;
}

static void every_allocation_may_fail(void **state)
{
	static const struct {
		enum lora_status (*run)(void);
		enum lora_status end;
	} cases[] = {{verify_good, LORA_OK}, {verify_bad, LORA_NO}, {sign, LORA_OK},
		     {pin, LORA_OK},	     {add, LORA_OK},	    {attest, LORA_OK}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		enum lora_status status;

		assert_int_equal(cases[i].run(), cases[i].end);
		for (long n = 0; FAILING_MALLOC; n++) {
			long live = failing_malloc_live();
			bool reached;

			failing_malloc_begin(n);
			status = cases[i].run();
			reached = failing_malloc_end();
			assert_int_equal(failing_malloc_live(), live);
			if (!reached)
				break;
			if (status != LORA_SYSTEM)
				fail_msg("case %zu, allocation %ld: status %d", i, n, (int)status);
		}
		assert_int_equal(cases[i].run(), cases[i].end);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_allocation_may_fail),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
