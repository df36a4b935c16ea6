/* SPDX-License-Identifier: Apache-2.0 */
#include <loractl/loractl.h>
#include <stdio.h>

int main(void)
{
	return puts(lora_version()) < 0;
}
