# SPDX-License-Identifier: Apache-2.0
"""What the scripts that make test data share: dtypes, shards, PEFT's own merge, stamps."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")

import peft  # noqa: E402  (the environment above is read on import)
import torch  # noqa: E402
import transformers  # noqa: E402

warnings.filterwarnings("ignore", category=FutureWarning)
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
    open_to_read(folder)


def open_to_read(folder):
    """safetensors makes its files 0600; a model is no secret."""
    for path in pathlib.Path(folder).iterdir():
        path.chmod(0o644)


def copy_tokenizer(source, folder):
    """Puts the tokenizer files of one model folder into another."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                 "chat_template.jinja"):
        if (pathlib.Path(source) / name).exists():
            shutil.copy(pathlib.Path(source) / name, folder)


def finish_config(adapter, base):
    """Makes adapter_config.json name its base publicly instead of by a local path, and sorts the
    target modules: PEFT writes that set in an order that changes from run to run."""
    path = pathlib.Path(adapter) / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True))


def peft_merge(base, dtype, adapter, out, shard="10GB"):
    """What PEFT makes of base + adapter, on CPU, with the base in `dtype` and the adapter widened
    to f32 (PEFT's default), by the path that rounds once (safe_merge off)."""
    model = peft.PeftModel.from_pretrained(load(base, dtype), adapter)
    save(model.merge_and_unload(), out, shard)
    copy_tokenizer(base, out)


def stamp_of(*paths, extra=""):
    """A digest over the contents of files, in whatever order and by whatever path they are named,
    and over `extra`: what decides a derived folder."""
    parts = sorted(hashlib.sha256(pathlib.Path(p).read_bytes()).hexdigest() for p in paths)
    return hashlib.sha256("".join([extra, *parts]).encode()).hexdigest()


def _stamp_file(folder):
    # beside the folder, since a model folder is compared and copied whole
    folder = pathlib.Path(folder).resolve()
    return folder.parent / f".{folder.name}.stamp"


def is_done(folder, stamp):
    """Whether the folder was finished earlier, from the same inputs."""
    path = _stamp_file(folder)
    return pathlib.Path(folder).is_dir() and path.exists() and path.read_text() == stamp


def set_done(folder, stamp):
    _stamp_file(folder).write_text(stamp)


@contextlib.contextmanager
def locked(folder):
    """Keeps a second process that would make the same folder waiting until this one is done."""
    folder = pathlib.Path(folder).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{folder.name}.lock", "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield
