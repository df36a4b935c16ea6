# SPDX-License-Identifier: Apache-2.0
"""What the bench compares with: PEFT loads a base and an adapter, merges on the CPU, saves."""
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base, adapter, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
