/* SPDX-License-Identifier: Apache-2.0 */
/* base/number.c - doubles as text
 *
 * The C library rounds correctly in both directions, but spells the decimal point as the program's
 * locale does; so it is asked under the "C" locale, switched on for the calling thread alone.
 *
 * Digits   Every decimal number of 15 significant digits survives decimal -> double -> decimal, and
 *          %g drops trailing zeros: if 15 digits read back, %.15g is the shortest spelling. Some
 *          doubles need 16 or 17. Subnormal numbers have fewer than 53 bits, so that fewer digits
 *          may do: they are tried from 1.
 * 2^n      A power of two lies half as far from its lower neighbour as from its upper one. So the
 *          nearest decimal may be too far below it, and the next one above near enough: 2^-44 is
 *          5.684341886080802e-14, and not ...801e-14, though that is nearer.
 * -0       keeps its sign as "-0.0": readers that take "-0" for an integer lose it.
 */
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"

bool lora__double_parse(const char *text, double *value)
{
	locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	double parsed = NAN;
	char *end = NULL;

	if (plain == (locale_t)0 || text[strspn(text, "+-.0123456789eE")] != '\0')
		return false; /* strtod() would also take "0x1p3", "inf" and leading white space */
	parsed = strtod_l(text, &end, plain);
	freelocale(plain);
	if (end == text || *end != '\0' || !isfinite(parsed))
		return false;
	*value = parsed;
	return true;
}

static bool reads_as(const char *text, double value)
{
	return strtod(text, NULL) == value;
}

/* Adds one to the last digit. No 9 ever stands there when it matters: no power of two needs a
 * carry. */
static void next_decimal(char *text)
{
	char *last = text + strcspn(text, "e") - 1;

	if (*last < '9')
		++*last;
}

static void shortest(double value, char text[LORA_DOUBLE_TEXT])
{
	int digits = fabs(value) < DBL_MIN ? 1 : 15;

	for (; digits <= 17; digits++) {
		(void)snprintf(text, LORA_DOUBLE_TEXT, "%.*g", digits, value);
		if (reads_as(text, value))
			return;
		if (digits != 16)
			continue;
		(void)snprintf(text, LORA_DOUBLE_TEXT, "%#.16g", value);
		next_decimal(text);
		if (reads_as(text, value))
			return;
	}
}

void lora__double_text(double value, char text[LORA_DOUBLE_TEXT])
{
	locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	locale_t before = plain == (locale_t)0 ? plain : uselocale(plain);

	shortest(value, text);
	if (plain != (locale_t)0) {
		(void)uselocale(before);
		freelocale(plain);
	}
	if (strcmp(text, "-0") == 0)
		memcpy(text, "-0.0", sizeof "-0.0");
}
