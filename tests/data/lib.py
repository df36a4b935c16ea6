# SPDX-License-Identifier: Apache-2.0
"""What the scripts that make test data share: dtypes, shards, PEFT's own merge, stamps."""

import hashlib
import json
import os
import pathlib
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import peft  # noqa: E402  (the environment above is read on import)
import torch  # noqa: E402
import transformers  # noqa: E402

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def load(folder, dtype=None):
    """The causal language model in `folder`, in evaluation mode; dtype None: as it is stored."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=DTYPES[dtype] if dtype else "auto")
    return model.eval()


def save(model, folder, shard="10GB"):
    """Replaces `folder` by the model, split into files of at most `shard` bytes each."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size=shard)


def copy_tokenizer(source, folder):
    """Puts the tokenizer files of one model folder into another."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                 "chat_template.jinja"):
        if (pathlib.Path(source) / name).exists():
            shutil.copy(pathlib.Path(source) / name, folder)


def set_base_name(adapter, name):
    """Makes adapter_config.json name its base by a public name instead of by a local path."""
    path = pathlib.Path(adapter) / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = name
    path.write_text(json.dumps(config, indent=2, sort_keys=True))


def peft_merge(base, dtype, adapter, out, shard="10GB"):
    """What PEFT makes of base + adapter, on CPU, with the base in `dtype` and the adapter widened
    to f32 (PEFT's default), by the path that rounds once (safe_merge off)."""
    model = peft.PeftModel.from_pretrained(load(base, dtype), adapter)
    save(model.merge_and_unload(), out, shard)
    copy_tokenizer(base, out)


def stamp_of(*paths, extra=""):
    """A digest over the contents of files, and over `extra`: what decides a derived folder."""
    h = hashlib.sha256(extra.encode())
    for path in sorted(map(str, paths)):
        h.update(hashlib.sha256(pathlib.Path(path).read_bytes()).digest())
    return h.hexdigest()


def is_done(folder, stamp):
    """Whether the folder was finished earlier, from the same inputs."""
    path = pathlib.Path(folder) / ".stamp"
    return path.exists() and path.read_text() == stamp


def set_done(folder, stamp):
    (pathlib.Path(folder) / ".stamp").write_text(stamp)
