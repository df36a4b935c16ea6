/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/diff_values.c - how far two values of one floating-point type are apart.
 *
 * Bits of a floating-point number, read as sign and magnitude, are its place in the order of all
 * values of the type: the next larger value has the next larger magnitude. Two values are as many
 * ulps apart as there are steps between their places. -0 and +0 share a place. Infinity comes
 * after the largest number and NaNs after it, so that every pair of bit patterns has a distance.
 */
#include "adapter/diff.h"

#include "kern/kern.h"

#include <string.h>

bool lora__values_known(enum lora_dtype type)
{
	return type == LORA_DTYPE_F32 || type == LORA_DTYPE_F16 || type == LORA_DTYPE_BF16;
}

static uint32_t bits_at(const void *data, enum lora_dtype type, size_t i)
{
	uint32_t wide;
	uint16_t narrow;

	if (type == LORA_DTYPE_F32) {
		memcpy(&wide, (const uint8_t *)data + 4 * i, 4);
		return wide;
	}
	memcpy(&narrow, (const uint8_t *)data + 2 * i, 2);
	return narrow;
}

static int64_t place(uint32_t bits, enum lora_dtype type)
{
	uint32_t sign = type == LORA_DTYPE_F32 ? 0x80000000u : 0x8000u;

	return bits & sign ? -(int64_t)(bits ^ sign) : (int64_t)bits;
}

uint64_t lora__values_apart(const void *x, const void *y, enum lora_dtype type, size_t i)
{
	int64_t a = place(bits_at(x, type, i), type), b = place(bits_at(y, type, i), type);

	return a > b ? (uint64_t)(a - b) : (uint64_t)(b - a);
}

double lora__value_at(const void *data, enum lora_dtype type, size_t i)
{
	uint32_t bits = bits_at(data, type, i);
	uint16_t half = (uint16_t)bits;
	float value;

	if (type == LORA_DTYPE_F16) {
		lora__kern_generic.widen_f16(&value, &half, 1);
		return (double)value;
	}
	if (type == LORA_DTYPE_BF16)
		bits <<= 16;
	memcpy(&value, &bits, sizeof(value));
	return (double)value;
}

double lora__value_ulp(double v, enum lora_dtype type)
{
	/* bits behind the point, and the exponent of the smallest normal value */
	int fraction = type == LORA_DTYPE_F32 ? 23 : type == LORA_DTYPE_F16 ? 10 : 7;
	int least = type == LORA_DTYPE_F16 ? -14 : -126, exponent;
	uint64_t bits;

	/* v is a normal double, whatever it is in its own type; as is the result. */
	memcpy(&bits, &v, sizeof(bits));
	exponent = (int)(bits >> 52 & 0x7ff) - 1023;
	if (exponent == 1024) /* not finite */
		return 0;
	bits = (uint64_t)((exponent < least ? least : exponent) - fraction + 1023) << 52;
	memcpy(&v, &bits, sizeof(v));
	return v;
}

void lora__values_compare(const void *x, enum lora_dtype x_type, const void *y,
			  enum lora_dtype y_type, size_t n, struct lora_values *out)
{
	double difference2 = 0, x2 = 0;

	for (size_t i = 0; i < n; i++) {
		double a = lora__value_at(x, x_type, i), b = lora__value_at(y, y_type, i);

		x2 += a * a;
		if (a == b || (x_type == y_type && bits_at(x, x_type, i) == bits_at(y, y_type, i)))
			continue;
		out->changed++;
		difference2 += (b - a) * (b - a);
		if (x_type == y_type) {
			uint64_t apart = lora__values_apart(x, y, x_type, i);

			out->max_ulp = apart > out->max_ulp ? apart : out->max_ulp;
		}
	}
	out->difference2 += difference2;
	out->x2 += x2;
}
