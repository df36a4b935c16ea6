/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net.h"

#include "base/error.h"

enum lora_status lora_net_attach(struct lora_net *net, const struct lora_net_input *inputs,
				 size_t count, const struct lora_observer *observer,
				 struct lora_error *err)
{
	(void)net;
	(void)inputs;
	(void)observer;
	return count ? lora__fail(err, LORA_INPUT, "not yet") : LORA_OK;
}

void lora_net_detach(struct lora_net *net)
{
	(void)net;
}
