/* SPDX-License-Identifier: Apache-2.0 */
/* trust/policy.c - two small languages of the keyring: patterns for names, and dates */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "trust/trust.h"

/* One character of UTF-8: a byte, and what continues it. */
static const char *step(const char *text)
{
	text++;
	while (((unsigned char)*text & 0xc0) == 0x80)
		text++;
	return text;
}

/* Only the last star is ever gone back to: what an earlier one could take, the last can too. Time
 * is at most the product of the lengths. */
bool lora__scope_covers(const char *pattern, const char *name)
{
	const char *star = NULL, *kept = NULL;

	while (*name) {
		if (*pattern == '*') {
			star = pattern++;
			kept = name;
		} else if (*pattern == '?') {
			pattern++;
			name = step(name);
		} else if (*pattern == *name) {
			pattern++;
			name++;
		} else if (star) {
			pattern = star + 1;
			name = kept = step(kept);
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

static bool digits(const char **text, int count, int low, int high, int *value)
{
	*value = 0;
	for (; count > 0; count--, (*text)++) {
		if (**text < '0' || **text > '9')
			return false;
		*value = *value * 10 + (**text - '0');
	}
	return *value >= low && *value <= high;
}

static bool literal(const char **text, char letter)
{
	return *(*text)++ == letter;
}

bool lora__time_parse(const char *text, int64_t *seconds)
{
	int year, month, day, hour = 24, minute = 0, second = 0;
	struct tm tm = {0}, back;
	time_t midnight;

	if (!digits(&text, 4, 1970, 9998, &year) || !literal(&text, '-') ||
	    !digits(&text, 2, 1, 12, &month) || !literal(&text, '-') ||
	    !digits(&text, 2, 1, 31, &day))
		return false;
	if (*text &&
	    (!literal(&text, 'T') || !digits(&text, 2, 0, 23, &hour) || !literal(&text, ':') ||
	     !digits(&text, 2, 0, 59, &minute) || !literal(&text, ':') ||
	     !digits(&text, 2, 0, 59, &second) || !literal(&text, 'Z') || *text))
		return false;
	tm.tm_year = year - 1900;
	tm.tm_mon = month - 1;
	tm.tm_mday = day;
	midnight = timegm(&tm); /* makes March 2 of February 30: that is no date */
	if (!gmtime_r(&midnight, &back) || back.tm_mday != day)
		return false;
	*seconds = (int64_t)midnight + hour * 3600 + minute * 60 + second;
	return true;
}

void lora__time_text(int64_t seconds, char text[LORA_TIME_TEXT])
{
	time_t time = (time_t)seconds;
	struct tm tm;

	if (!gmtime_r(&time, &tm) || !strftime(text, LORA_TIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm))
		(void)snprintf(text, LORA_TIME_TEXT, "1970-01-01T00:00:00Z");
}
