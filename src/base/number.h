/* SPDX-License-Identifier: Apache-2.0 */
/* base/number.h - doubles as text and back, in every locale alike. */
#ifndef LORA_BASE_NUMBER_H
#define LORA_BASE_NUMBER_H

#include <stdbool.h>

#define LORA_DOUBLE_TEXT 40

/* The fewest significant digits that read back as the same finite value ("0.1", "1e-05", "-0.0").
 */
void lora__double_text(double value, char text[LORA_DOUBLE_TEXT]);
/* The double nearest to a decimal number; false (and *value untouched) if it is too large for one,
 * or if text is something else. */
bool lora__double_parse(const char *text, double *value);

#endif
