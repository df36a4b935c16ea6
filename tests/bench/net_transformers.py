# SPDX-License-Identifier: Apache-2.0
"""transformers' side of `run net`: reads the name of a piece of work, does it, prints the seconds."""
import os
import sys
import time

import torch
import transformers

torch.set_num_threads(len(os.sched_getaffinity(0)))
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
ids = torch.arange(3, 3 + 512 * 7, 7)[None] % model.config.vocab_size

with torch.inference_mode():
    for line in sys.stdin:
        began = time.perf_counter()
        out = model(ids, use_cache=True, logits_to_keep=1)
        if line.strip() == "decode":
            began = time.perf_counter()
            for _ in range(64):
                token = out.logits[:, -1:].argmax(-1)
                out = model(token, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
        print(time.perf_counter() - began, flush=True)
