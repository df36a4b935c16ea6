#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The engine (src/net) against transformers and PEFT, in float32, logit by logit.

    net.py BINARY [--case PATTERN]... [--list] [--keep]

Random models of every family are made here from a config (seeds fixed, odd sizes, tied and untied,
shared key heads, f32, f16 and bf16), saved as transformers saves them, and run by both on the same
token ids: as one prompt, token by token, and in uneven pieces. Two sets of logits agree if no
difference is above 1e-4 of their root mean square. With adapters PEFT's own forward pass, unmerged,
is the truth. SmolLM2-135M (build/smollm2, tests/data/smollm2.py makes it) is the model of real
size: there the greedy text of 64 tokens and the perplexity are compared too.

The program helper_logits prints the engine's raw logits (tests/helpers/logits.c).
"""

import argparse
import fnmatch
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests" / "oracle"))

import run as oracle_run  # noqa: E402

if not oracle_run.with_torch():
    sys.exit("net.py: torch and peft are missing, here and in build/venv")

import numpy as np  # noqa: E402
import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
warnings.filterwarnings("ignore")
torch.set_num_threads(2)
BOUND = 1e-4
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
BINARY = LOGITS = None  # set by main
SMOLLM2 = pathlib.Path(os.environ.get("LORACTL_SMOLLM2", ROOT / "build" / "smollm2"))


# ------------------------------------------------------------------------------------------------
# both sides


def ours(model, ids, steps=(1 << 20,), adapters=(), threads=2):
    """Logits [ids, vocabulary] from the engine."""
    refs = [f"{path}:{weight}" for path, weight in adapters]
    out = subprocess.run([str(LOGITS), str(model), *refs, "--", *map(str, steps)], input=" ".join(map(str, ids)).encode(),
                         capture_output=True, env=dict(os.environ, LORACTL_THREADS=str(threads)))
    if out.returncode:
        raise AssertionError(f"helper_logits: exit {out.returncode}: {out.stderr.decode().strip()}")
    return np.frombuffer(out.stdout, np.float32).reshape(len(ids), -1)


def theirs(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def load(path, **options):
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options).eval()


def distance(got, want):
    """The largest difference in units of the logits' root mean square."""
    assert got.shape == want.shape, (got.shape, want.shape)
    assert np.isfinite(want).all()
    return float(np.abs(got - want).max() / math.sqrt(float((want.astype(np.float64) ** 2).mean())))


def agree(what, got, want, bound=BOUND):
    far = distance(got, want)
    assert far <= bound, f"{what}: differs by {far:.3g} of the logits' rms, {bound:g} is allowed"
    return far


# ------------------------------------------------------------------------------------------------
# random models

SMALL = dict(vocab_size=301, hidden_size=72, intermediate_size=150, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, max_position_embeddings=160)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)

# name: (config class, its arguments, dtype)
MODELS = {
    "llama": ("LlamaConfig", SMALL, "f32"),
    "llama-head-dim": ("LlamaConfig", dict(SMALL, head_dim=18, num_key_value_heads=3), "f32"),
    "llama-tied-bf16": ("LlamaConfig", dict(SMALL, tie_word_embeddings=True, num_key_value_heads=6), "bf16"),
    "llama-f16": ("LlamaConfig", dict(SMALL, num_key_value_heads=1, hidden_size=132, intermediate_size=77), "f16"),
    "llama-bias": ("LlamaConfig", dict(SMALL, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-3), "f32"),
    "llama-linear": ("LlamaConfig", dict(SMALL, rope_parameters=dict(rope_type="linear", factor=3.5, rope_theta=777.0)), "f32"),
    "llama-llama3": ("LlamaConfig", dict(SMALL, head_dim=32, rope_parameters=LLAMA3), "f32"),
    "mistral-window": ("MistralConfig", dict(SMALL, sliding_window=13), "f32"),
    "mistral-bf16": ("MistralConfig", dict(SMALL, sliding_window=None, head_dim=20), "bf16"),
    "qwen2": ("Qwen2Config", dict(SMALL, tie_word_embeddings=True), "f32"),
    "qwen2-window-f16": ("Qwen2Config", dict(SMALL, use_sliding_window=True, sliding_window=9, max_window_layers=1), "f16"),
    "qwen3": ("Qwen3Config", dict(SMALL, head_dim=24), "f32"),
    "qwen3-bias-bf16": ("Qwen3Config", dict(SMALL, head_dim=10, attention_bias=True, tie_word_embeddings=True), "bf16"),
    "gpt2": ("GPT2Config", dict(vocab_size=301, n_embd=60, n_layer=3, n_head=5, n_positions=160, n_inner=None), "f32"),
    "gpt2-f16": ("GPT2Config", dict(vocab_size=301, n_embd=66, n_layer=2, n_head=3, n_positions=160, n_inner=101), "f16"),
    "gpt2-scale": ("GPT2Config", dict(vocab_size=301, n_embd=60, n_layer=3, n_head=5, n_positions=160,
                                      scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False), "bf16"),
}


def shake(model, seed):
    """Weights that make every part matter: norms and biases away from one and zero, sharp attention."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        with torch.no_grad():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim == 1:
                p.add_(0.3 * noise)
            else:
                p.copy_(noise / math.sqrt(p.shape[-1]) * 1.7)


def make(name, folder):
    kind, arguments, dtype = MODELS[name]
    config = getattr(transformers, kind)(bos_token_id=None, eos_token_id=None, pad_token_id=None, **arguments)
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    shake(model, 11)
    model.to(TYPES[dtype]).save_pretrained(folder)
    return folder


def some_ids(count, vocabulary, seed=3):
    return np.random.default_rng(seed).integers(0, vocabulary, count).tolist()


def old_spelling(folder):
    """config.json as transformers 4 wrote it: rope_theta, rope_scaling with its older key."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters", None)
    if rope is None:
        return False
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else dict(rope, type=kind)
    path.write_text(json.dumps(config))
    return True


def case_random(name, folder):
    make(name, folder)
    model = load(folder)
    ids = some_ids(131, model.config.vocab_size)
    want = theirs(model, ids)
    worst = agree("one prompt", ours(folder, ids), want)
    worst = max(worst, agree("token by token", ours(folder, ids, (1,)), want))
    worst = max(worst, agree("in pieces", ours(folder, ids, (5, 1, 60, 2, 7)), want))
    assert np.array_equal(ours(folder, ids), ours(folder, ids)), "two runs differ"
    worst = max(worst, agree("one thread", ours(folder, ids, threads=1), want))
    worst = max(worst, agree("three threads", ours(folder, ids, threads=3), want))
    if old_spelling(folder):
        worst = max(worst, agree("rope as transformers 4 spells it", ours(folder, ids), want))
    return f"{worst:.2g} of rms"


# ------------------------------------------------------------------------------------------------
# adapters: PEFT's own forward pass, unmerged

LINEARS = "all-linear"

# name: (model, [(LoraConfig arguments, weight)], does it pass alone)
ADAPTERS = {
    "plain": ("llama", [(dict(r=5, lora_alpha=7, target_modules=LINEARS), 1)]),
    "weight": ("llama-bias", [(dict(r=4, lora_alpha=9, target_modules=LINEARS), -0.75)]),
    "rslora": ("qwen2", [(dict(r=6, lora_alpha=5, use_rslora=True, target_modules=LINEARS), 1)]),
    "patterns": ("qwen3", [(dict(r=3, lora_alpha=4, target_modules=LINEARS, rank_pattern={"q_proj": 9, "layers.1.*down_proj": 2},
                                 alpha_pattern={"k_proj": 11}), 1)]),
    "few": ("llama-f16", [(dict(r=8, lora_alpha=24, target_modules=["v_proj", "up_proj"]), 1)]),
    "dora": ("llama", [(dict(r=4, lora_alpha=6, use_dora=True, target_modules=LINEARS), 1)]),
    "dora-few": ("qwen2", [(dict(r=4, lora_alpha=6, use_dora=True, target_modules=["k_proj", "gate_proj", "o_proj"]), 1)]),
    "dora-gpt2": ("gpt2", [(dict(r=4, lora_alpha=6, use_dora=True, target_modules=["c_attn", "c_fc", "c_proj"]), 1)]),
    "gpt2": ("gpt2-f16", [(dict(r=7, lora_alpha=10, target_modules=["c_attn", "c_fc", "c_proj"]), 1)]),
    "gpt2-twice": ("gpt2-scale", [(dict(r=3, lora_alpha=10, target_modules=["c_attn", "c_fc"]), 1),
                                  (dict(r=5, lora_alpha=4, target_modules=["c_attn", "c_proj"]), 0.5)]),
    "three": ("mistral-window", [(dict(r=4, lora_alpha=6, target_modules=LINEARS), 1),
                                 (dict(r=2, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "down_proj"]), 0.3),
                                 (dict(r=9, lora_alpha=5, target_modules=["v_proj", "gate_proj"]), -2)]),
    "biases": ("llama-bias", [(dict(r=4, lora_alpha=6, bias="all", target_modules=["q_proj", "v_proj", "down_proj"]), 1)]),
    "lora-bias": ("llama-bias", [(dict(r=4, lora_alpha=6, lora_bias=True, target_modules=["q_proj", "up_proj"]), 1)]),
    "head-saved": ("llama", [(dict(r=4, lora_alpha=6, target_modules=["q_proj"], modules_to_save=["lm_head"]), 1)]),
    "norms-saved": ("qwen3", [(dict(r=4, lora_alpha=6, target_modules=["q_proj"], modules_to_save=["input_layernorm", "q_norm", "norm"]), 1)]),
    "mlp-saved": ("llama", [(dict(r=4, lora_alpha=6, target_modules=["q_proj"], modules_to_save=["up_proj"]), 1)]),
    "head": ("llama", [(dict(r=4, lora_alpha=6, target_modules=["lm_head", "o_proj"]), 1)]),
    "embedding": ("llama", [(dict(r=4, lora_alpha=6, target_modules=["embed_tokens", "o_proj"]), 1)]),
    "embedding-tied": ("llama-tied-bf16", [(dict(r=4, lora_alpha=6, target_modules=["embed_tokens", "o_proj"]), 1)]),
    "embedding-dora": ("llama", [(dict(r=4, lora_alpha=6, use_dora=True, target_modules=["embed_tokens", "v_proj"]), 1)]),
    "tokens": ("llama", [(dict(r=4, lora_alpha=6, target_modules=["o_proj"], trainable_token_indices={"embed_tokens": [3, 200, 17]}), 1)]),
    "tokens-tied": ("qwen2", [(dict(r=4, lora_alpha=6, target_modules=["o_proj"], trainable_token_indices=[5, 44, 300]), 1)]),
}


def disturb(model, seed):
    """An adapter as if it had been trained: nothing is zero any more."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if p.requires_grad:
            with torch.no_grad():
                noise = torch.randn(p.shape, generator=generator)
                if "lora_magnitude" in name:
                    p.mul_(1 + 0.2 * noise)
                elif "lora_" in name and p.ndim == 2:
                    p.copy_(noise * (0.5 / math.sqrt(p.shape[0 if "embedding_A" in name else -1])))
                else:
                    p.add_(0.2 * noise * p.std() if p.numel() > 1 else 0.2 * noise)


def make_adapters(base, configs, folder):
    """Saves an adapter for each config; returns the model with all of them, and references."""
    references = []
    for i, (arguments, weight) in enumerate(configs):
        model = peft.get_peft_model(load(base), peft.LoraConfig(task_type="CAUSAL_LM", **arguments))
        disturb(model, 100 + i)
        place = folder / f"adapter{i}"
        model.save_pretrained(place)
        references.append((place, weight))
    return references


def peft_logits(base, references, ids):
    model = peft.PeftModel.from_pretrained(load(base), references[0][0], adapter_name="a0")
    for i, (place, _) in enumerate(references[1:], 1):
        model.load_adapter(place, adapter_name=f"a{i}")
    if len(references) > 1:
        model.base_model.set_adapter([f"a{i}" for i in range(len(references))])
    for module in model.modules():
        for i, (_, weight) in enumerate(references):
            scaling = getattr(module, "scaling", None)
            if weight != 1 and isinstance(scaling, dict) and f"a{i}" in scaling:
                module.scaling[f"a{i}"] *= weight
    return theirs(model.eval(), ids)


def case_adapter(name, folder):
    kind, configs = ADAPTERS[name]
    base = make(kind, folder / "base")
    references = make_adapters(base, configs, folder)
    ids = some_ids(73, 301)
    want, without = peft_logits(base, references, ids), theirs(load(base), ids)
    effect = distance(want, without)
    assert effect > 0.01, f"the adapter changes nothing to speak of: {effect:.2g}"
    worst = agree("one prompt", ours(base, ids, adapters=references), want)
    worst = max(worst, agree("token by token", ours(base, ids, (1,), references), want))
    return f"{worst:.2g} of rms; without the adapter {effect:.2g}"


def case_tiny(family, folder):
    """The trained little models, whose adapters do a lot."""
    base, adapter = (ROOT / "tests/data/tiny" / f for f in (family, f"{family}-adapter"))
    ids = some_ids(150, 509)
    worst = agree("base", ours(base, ids), theirs(load(base), ids))
    worst = max(worst, agree("with adapter", ours(base, ids, adapters=[(adapter, 1)]), peft_logits(base, [(adapter, 1)], ids)))
    return f"{worst:.2g} of rms"


# ------------------------------------------------------------------------------------------------
# SmolLM2


def case_smollm2_adapter(name, dtype, folder):
    base, adapter = SMOLLM2 / dtype, SMOLLM2 / name
    ids = some_ids(90, 49152)
    want = peft_logits(base, [(adapter, 1)], ids)
    worst = agree("with adapter", ours(base, ids, adapters=[(adapter, 1)]), want)
    worst = max(worst, agree("token by token", ours(base, ids[:30], (1,), [(adapter, 1)]), want[:30]))
    return f"{worst:.2g} of rms"


def case_smollm2(dtype, folder):
    path = SMOLLM2 / dtype
    model = load(path)
    ids = some_ids(600, model.config.vocab_size)
    worst = agree("600 tokens", ours(path, ids), theirs(model, ids))
    worst = max(worst, agree("token by token", ours(path, ids[:40], (1,)), theirs(model, ids[:40])))
    return f"{worst:.2g} of rms"


# ------------------------------------------------------------------------------------------------
# the commands: perplexity to five digits, greedy text to the letter


def loractl(*arguments):
    done = subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True)
    assert done.returncode == 0, f"loractl {arguments[0]}: exit {done.returncode}: {done.stderr.decode()}"
    return done.stdout


def perplexity(model, tokenizer, lines):
    """Every line an example; special tokens as the tokenizer adds them; the first token is not predicted."""
    total = count = 0
    for line in lines:
        ids = tokenizer(line)["input_ids"]
        if len(ids) < 2:
            continue
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
        count += len(ids) - 1
    return math.exp(total / count), count


def case_perplexity(dtype, folder):
    path, text = SMOLLM2 / dtype, ROOT / "tests/data/tiny/style1.txt"
    model, tokenizer = load(path), transformers.AutoTokenizer.from_pretrained(path)
    seen = []
    for adapter in (None, SMOLLM2 / "adapter-r16"):
        if adapter:
            model = peft.PeftModel.from_pretrained(model, adapter).eval()
        want, count = perplexity(model, tokenizer, text.read_text().splitlines())
        got = json.loads(loractl("eval", path, "--data", text, "--json", *(["--adapter", adapter] if adapter else [])))
        assert got["tokens"] == count, (got["tokens"], count)
        assert abs(got["perplexity"] / want - 1) < 5e-6, f"perplexity {got['perplexity']:.8g}, not {want:.8g}"
        seen.append(f"{got['perplexity']:.6g}")
    return ", with the adapter ".join(seen)


PROMPTS = ["The capital of France is", "def fibonacci(n):", "Once upon a time, in a", "Zürich liegt"]


def greedy(model, tokenizer, prompt, chat=False):
    if chat:
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=not chat)["input_ids"]
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False)
    return tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True)


def case_greedy(dtype, folder):
    path, adapter = SMOLLM2 / dtype, SMOLLM2 / "adapter-r16"
    model, tokenizer = load(path), transformers.AutoTokenizer.from_pretrained(path)
    model.generation_config.repetition_penalty = 1.0
    for prompt in PROMPTS:
        want, got = greedy(model, tokenizer, prompt), loractl("generate", path, "--prompt", prompt, "-n", 64).decode()
        assert got == want + "\n", f"{prompt!r}: {got!r}, not {want!r}"
    prompt = "Name three rivers of Europe."
    want, got = greedy(model, tokenizer, prompt, True), loractl("generate", path, "--chat", "--prompt", prompt, "-n", 64).decode()
    assert got == want + "\n", f"chat: {got!r}, not {want!r}"
    model = peft.PeftModel.from_pretrained(model, adapter).eval()
    want = greedy(model, tokenizer, PROMPTS[0])
    got = loractl("generate", path, "--adapter", adapter, "--prompt", PROMPTS[0], "-n", 64).decode()
    assert got == want + "\n", f"with the adapter: {got!r}, not {want!r}"
    return f"{len(PROMPTS) + 2} texts of 64 tokens"


# ------------------------------------------------------------------------------------------------
# what cannot be run is refused by name


def case_refused(folder):
    """Adapters that exclude each other, or that would have no strength."""
    base = make("llama", folder / "base")
    arguments = dict(r=4, lora_alpha=6, target_modules=["q_proj"])
    kinds = {
        "plain": arguments,
        "dora": dict(arguments, use_dora=True),
        "head": dict(arguments, modules_to_save=["lm_head"]),
        "tokens": dict(arguments, trainable_token_indices={"embed_tokens": [3, 9]}),
    }
    places = {name: make_adapters(base, [(kind, 1)], folder / name)[0][0] for name, kind in kinds.items()}
    other = make_adapters(base, [(kinds["plain"], 1), (kinds["head"], 1), (kinds["tokens"], 1)], folder / "other")
    cases = [
        ([(places["dora"], 0.5)], "applies DoRA to it, which has no strength"),
        ([(places["dora"], 1), (places["plain"], 1)], "has DoRA and another edit"),
        ([(places["dora"], 1), (places["dora"], 1)], "has DoRA and another edit"),
        ([(places["head"], 2)], "replaces it, which has no strength"),
        ([(places["head"], 1), (other[1][0], 1)], "two adapters replace 'lm_head.weight' with different values"),
        ([(places["tokens"], 1), (other[2][0], 1)], "two adapters replace 'model.embed_tokens.weight' with different values"),
    ]
    for adapters, said in cases:
        try:
            ours(base, [1, 2], adapters=adapters)
        except AssertionError as e:
            assert "exit 3" in str(e) and said in str(e), f"not '{said}': {e}"
        else:
            raise AssertionError(f"not refused: {said}")
    return f"{len(cases)} refusals"


# ------------------------------------------------------------------------------------------------


def cases():
    table = {f"random-{name}": (lambda folder, name=name: case_random(name, folder)) for name in MODELS}
    table.update({f"adapter-{name}": (lambda folder, name=name: case_adapter(name, folder)) for name in ADAPTERS})
    table.update({f"tiny-{family}": (lambda folder, family=family: case_tiny(family, folder)) for family in ("llama", "gpt2")})
    for name, dtype in (("adapter-r16", "f32"), ("adapter-rs", "bf16"), ("adapter-r192", "f32")):
        table[f"smollm2-{name}"] = lambda folder, name=name, dtype=dtype: case_smollm2_adapter(name, dtype, folder)
    table["refused"] = case_refused
    for dtype in ("f32", "bf16"):
        table[f"perplexity-{dtype}"] = lambda folder, dtype=dtype: case_perplexity(dtype, folder)
        table[f"greedy-{dtype}"] = lambda folder, dtype=dtype: case_greedy(dtype, folder)
    for dtype in ("f32", "bf16", "f16"):
        table[f"smollm2-{dtype}"] = lambda folder, dtype=dtype: case_smollm2(dtype, folder)
    return table


def main():
    global BINARY, LOGITS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--case", action="append", metavar="PATTERN")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the folder of models")
    args = parser.parse_args()
    BINARY = args.binary.resolve()
    LOGITS = BINARY.parent / "helper_logits"
    work = pathlib.Path(tempfile.mkdtemp(prefix="net-"))
    failed = 0
    for name, case in cases().items():
        if args.case and not any(fnmatch.fnmatch(name, pattern) for pattern in args.case):
            continue
        if args.list:
            print(name)
            continue
        folder = work / name
        folder.mkdir()
        try:
            print(f"ok      {name}: {case(folder)}", flush=True)
        except AssertionError as e:
            failed += 1
            print(f"FAILED  {name}: {e or traceback.format_exc()}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}:\n{traceback.format_exc()}", flush=True)
        if not args.keep:
            shutil.rmtree(folder)
    if args.keep:
        print(work)
    else:
        shutil.rmtree(work)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
