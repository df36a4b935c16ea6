# SPDX-License-Identifier: Apache-2.0
"""Bases and adapters made by PEFT itself, with torch, from fixed seeds.

A case says how to build a base model and which adapters to put on it. make() writes

    DIR/base/            config.json, model.safetensors
    DIR/adapter0/ ...    what PeftModel.save_pretrained() writes, every number random and nonzero
    DIR/peft/            what merge_and_unload() makes of the two, loaded from the files above

so that a program which reads only files can be asked for the same thing. Nothing here computes an
expected number.
"""

import json
import logging
import os
import shutil
import warnings
import zlib

import torch
import transformers
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from peftcases import CASES, Case  # noqa: F401

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()


def seed(name, salt=0):
    torch.manual_seed(zlib.crc32(name.encode()) + salt)


def new_base(c, dtype, folder):
    """The base on disk, with plain random weights of a size that 16 bits can hold and an update
    can move."""
    seed(c.name)
    model = c.model().to(getattr(torch, dtype))
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_(
                torch.randn(p.shape) * (0.2 if p.ndim > 1 else 0.3)
                + (1.0 if p.ndim == 1 and "norm" in n else 0.0)
            )
    model.eval()
    base = os.path.join(folder, "base")
    if c.transformers:
        model.save_pretrained(base)
    else:
        os.makedirs(base)
        save_file(
            {k: v.contiguous() for k, v in model.state_dict().items()},
            os.path.join(base, "model.safetensors"),
            {"format": "pt"},
        )
        with open(os.path.join(base, "config.json"), "w") as f:
            json.dump({"model_type": "custom"}, f)
    return base


def load_base(c, base, dtype):
    if c.transformers:
        kind = type(c.model()).__name__
        return getattr(transformers, kind).from_pretrained(base, dtype=getattr(torch, dtype)).eval()
    seed(c.name)
    model = c.model().to(getattr(torch, dtype))
    model.load_state_dict(load_file(os.path.join(base, "model.safetensors")))
    return model.eval()


def randomize(model, name, i, add=False):
    """Every number that the adapter brings becomes random; magnitudes stay near what they were."""
    seed(name, 100 + i)
    done = set()
    with torch.no_grad():
        for n, p in model.named_parameters():
            if not p.requires_grad or id(p) in done:
                continue
            done.add(id(p))
            noise = torch.randn(p.shape)
            if "lora_magnitude" in n:
                p.mul_(1 + 0.1 * noise)
            elif "lora_" in n:
                p.copy_(p * add + noise * 0.15)
            else:
                p.add_(noise.to(p.dtype) * 0.1)
    if model.peft_config["default"].ensure_weight_tying:
        # 16-bit parameters are no longer shared once PEFT has widened them
        named = dict(model.named_parameters())
        for n in list(named):
            if ".lora_embedding_A." in n:
                head = lambda k: next(p for m, p in named.items() if "lm_head.lora_" + k in m)
                with torch.no_grad():
                    head("B").copy_(named[n].T)
                    head("A").copy_(named[n.replace("_embedding_A", "_embedding_B")].T)


def new_adapter(c, i, base, dtype, folder, adapter_dtype):
    path = os.path.join(folder, "adapter%d" % i)
    seed(c.name, 10 + i)
    model = get_peft_model(load_base(c, base, dtype), c.configs[i]())
    if c.convert:
        start = os.path.join(folder, "start%d" % i)
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(start)
        model.peft_config["default"].init_lora_weights = c.configs[i]().init_lora_weights
        randomize(model, c.name, i, add=True)
        model.save_pretrained(path, path_initial_model_for_weight_conversion=start)
        return path
    mutating = model.peft_config["default"].init_lora_weights in ("pissa", "olora")
    if not mutating:
        randomize(model, c.name, i)
    model.save_pretrained(path)
    file = os.path.join(path, "adapter_model.safetensors")
    if adapter_dtype:
        save_file(
            {k: v.to(getattr(torch, adapter_dtype)) for k, v in load_file(file).items()},
            file,
            {"format": "pt"},
        )
    return path


def merge_by_peft(c, base, adapters, dtype, folder):
    """PEFT's own merge, from the files. Adapters without weights only."""
    model = PeftModel.from_pretrained(load_base(c, base, dtype), adapters[0], adapter_name="a0")
    for i, a in enumerate(adapters[1:], 1):
        model.load_adapter(a, adapter_name="a%d" % i)
    model.eval()
    merged = model.merge_and_unload(adapter_names=["a%d" % i for i in range(len(adapters))])
    out = os.path.join(folder, "peft")
    if c.transformers:
        merged.save_pretrained(out)
    else:
        os.makedirs(out)
        save_file(
            {k: v.contiguous() for k, v in merged.state_dict().items()},
            os.path.join(out, "model.safetensors"),
            {"format": "pt"},
        )
    return out, merged


def make(name, folder, dtype="float32", adapter_dtype=None, merge=True):
    """(base, [adapter], PEFT's merged directory or None, merged model or None)"""
    c = CASES[name]
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    base = new_base(c, dtype, folder)
    adapters = [
        new_adapter(c, i, base, dtype, folder, adapter_dtype) for i in range(len(c.configs))
    ]
    if not merge or c.expect.startswith("refuse") or any(w != 1 for w in c.weights):
        return base, adapters, None, None
    out, model = merge_by_peft(c, base, adapters, dtype, folder)
    return base, adapters, out, model
