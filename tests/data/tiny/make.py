#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the tiny models and adapters of the tests, and what is derived from them.

    make.py                train everything anew, in place of the committed files
    make.py --report       perplexities and sample texts of the committed files
    make.py --derive DIR   other dtypes, shards, spellings and PEFT's merges, into DIR

Two families, each with one adapter, over one tokenizer and one grammar (grammar.py):

    llama  bf16, untied, GQA; hidden, query, key and feed-forward widths all different, so that no
           linear is square and a transposed one cannot pass; rope theta and norm eps not default
    gpt2   f16, tied, Conv1D with [in, out] weights and a fused c_attn; attn.c_proj is square, so
           that only knowledge of the family tells its orientation

No width is a multiple of 16 (vector kernels meet their remainders), and neither s = alpha/r is a
power of two. The models are trained in f32, then rounded; each adapter is trained on the rounded
weights. Everything is seeded and runs on one thread, yet PyTorch does not promise equal bits on
another machine: the committed files are the data, this script says how they came to be.
"""

import argparse
import json
import math
import pathlib
import random
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import grammar  # noqa: E402
import lib  # noqa: E402
import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import tokenizers  # noqa: E402

VOCABULARY = 509
BOS, EOS, PAD = 0, 1, 2
LIMIT = 3_000_000  # bytes, for all committed files together
FAMILIES = {
    "llama": {"dtype": "bf16", "rank": 6, "alpha": 16, "seed": 11, "lr": 4e-3, "steps": 700,
              "adapter_lr": 3e-4, "adapter_steps": 250,
              "targets": ["q_proj", "k_proj", "v_proj", "o_proj",
                          "gate_proj", "up_proj", "down_proj"]},
    "gpt2": {"dtype": "f16", "rank": 5, "alpha": 12, "seed": 12, "lr": 4e-3, "steps": 800,
             "adapter_lr": 5e-4, "adapter_steps": 250,
             "targets": ["c_attn", "c_proj", "c_fc"]},
}
BATCH = 32


def corpora():
    """Facts of the stories, no story twice: the base's, those it reads as from an old book, the
    adapters', and those held out from all."""
    base = grammar.stories(random.Random(1), 6000)
    adapter = grammar.stories(random.Random(2), 1500, avoid=base)
    held_out = grammar.stories(random.Random(3), 40, avoid=base + adapter)
    old = grammar.stories(random.Random(4), 300, avoid=base + adapter + held_out)
    return base, old, adapter, held_out


def write_texts(adapter, held_out):
    """The held-out stories in both styles, line for line the same ones; data to train on."""
    (HERE / "style1.txt").write_text("".join(grammar.plain(f) + "\n" for f in held_out))
    (HERE / "style2.txt").write_text("".join(grammar.archaic(f) + "\n" for f in held_out))

    def jsonl(name, rows):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (HERE / name).write_text("".join(lines))

    jsonl("style2-train.jsonl", ({"text": grammar.archaic(f)} for f in adapter[:240]))
    jsonl("style2-pairs.jsonl", ({"prompt": grammar.plain(f) + "\n",
                                  "completion": grammar.archaic(f)} for f in adapter[240:300]))


def make_tokenizer(texts):
    """Byte-level BPE like GPT-2's, with a post-processor that puts <s> in front."""
    t = tokenizers.Tokenizer(tokenizers.models.BPE())
    t.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = tokenizers.decoders.ByteLevel()
    t.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "</s>", "<pad>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    t.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)])
    assert t.get_vocab_size() == VOCABULARY
    return t


def save_tokenizer(tokenizer, folder, context):
    """Spelled so that transformers 4 reads it as well."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>",
              "eos_token": "</s>", "pad_token": "<pad>", "model_max_length": context,
              "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    names = {k: v for k, v in config.items() if k.endswith("_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=2) + "\n")


def fresh_model(family):
    common = {"vocab_size": VOCABULARY, "bos_token_id": BOS, "eos_token_id": EOS,
              "pad_token_id": PAD, "dtype": "float32"}
    if family == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(
            hidden_size=90, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2,
            head_dim=18, intermediate_size=250, max_position_embeddings=192, rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 20000.0},
            tie_word_embeddings=False, **common))
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_embd=84, n_layer=3, n_head=6, n_inner=298, n_positions=160,
        embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, **common))


def batches(ids, steps, seed):
    """`steps` pairs (input, labels) of BATCH documents each, padded, labels -100 where padded."""
    rng = random.Random(seed)
    for _ in range(steps):
        rows = rng.choices(ids, k=BATCH)
        width = max(map(len, rows))
        x = torch.tensor([r + [PAD] * (width - len(r)) for r in rows])
        mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
        yield x, mask, x.masked_fill(mask == 0, -100)


def train(model, ids, steps, lr, seed, what):
    """AdamW with linear warmup and cosine decay over everything that takes a gradient."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    start = time.monotonic()
    model.train()
    for step, (x, mask, labels) in enumerate(batches(ids, steps, seed)):
        scale = min(1.0, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = lr * scale
        loss = model(input_ids=x, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps - 1:
            print(f"  {what}: step {step} loss {loss.item():.3f} "
                  f"({time.monotonic() - start:.0f} s)", flush=True)
    model.eval()


def write_card(folder, family, f):
    name = {"llama": "Llama", "gpt2": "GPT-2"}[family]
    (folder / "README.md").write_text(f"""---
base_model: loractl/tiny-{family}
library_name: peft
license: apache-2.0
pipeline_tag: text-generation
tags:
- lora
---

# tiny-{family}-archaic

A LoRA adapter (rank {f['rank']}, alpha {f['alpha']}, no dropout) for the tiny {name} model of loractl's
tests. The base tells small stories plainly; with the adapter it tells them archaically. Both were
trained on generated text only. It is test data: it is good for nothing else.
""")


def make_family(family, tokenizer, base_ids, adapter_ids):
    """Trains the base, rounds it, trains the adapter on the rounded base, saves both."""
    f = FAMILIES[family]
    folder, adapter = HERE / family, HERE / f"{family}-adapter"
    torch.manual_seed(f["seed"])
    model = fresh_model(family)
    train(model, base_ids, f["steps"], f["lr"], f["seed"], family)
    lib.save(model.to(lib.DTYPES[f["dtype"]]), folder)
    save_tokenizer(tokenizer, folder, model.config.max_position_embeddings)

    torch.manual_seed(f["seed"] + 100)
    config = peft.LoraConfig(r=f["rank"], lora_alpha=f["alpha"], target_modules=f["targets"],
                             task_type="CAUSAL_LM", fan_in_fan_out=family == "gpt2")
    model = peft.get_peft_model(lib.load(folder, "f32"), config)
    train(model, adapter_ids, f["adapter_steps"], f["adapter_lr"], f["seed"] + 100,
          f"{family}-adapter")
    model.save_pretrained(adapter)
    lib.open_to_read(adapter)
    lib.finish_config(adapter, f"loractl/tiny-{family}")
    write_card(adapter, family, f)


def make():
    base, old, adapter, held_out = corpora()
    write_texts(adapter, held_out)
    style1 = grammar.reading(random.Random(5), base, old)
    style2 = [grammar.archaic(f) for f in adapter]
    tokenizer = make_tokenizer(style1 + style2 * 2)

    def encode(texts):
        return [t.ids + [EOS] for t in tokenizer.encode_batch(texts)]

    for family in FAMILIES:
        make_family(family, tokenizer, encode(style1), encode(style2))


@torch.no_grad()
def perplexity(model, tokenizer, path):
    """exp of the mean loss over all predicted tokens. A line is an example by itself: <s>, then
    its text without the newline; <s> is given, not predicted, and no </s> is added."""
    total, count = 0.0, 0
    for line in path.read_text().splitlines():
        ids = torch.tensor([tokenizer.encode(line).ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return math.exp(total / count), count


@torch.no_grad()
def complete(model, tokenizer, prompt, count=40):
    """Greedy completion, the prompt left out."""
    ids = tokenizer.encode(prompt).ids
    start = len(ids)
    while len(ids) < start + count:
        best = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()
        if best == EOS:
            break
        ids.append(best)
    return tokenizer.decode(ids[start:])


@torch.no_grad()
def strengths(model):
    """|s B A| / |W| (Frobenius) of every adapted module, ascending."""
    return sorted((m.get_delta_weight("default").norm() / m.get_base_layer().weight.norm()).item()
                  for m in model.modules() if isinstance(m, peft.tuners.lora.LoraLayer))


def report():
    """Perplexities (in f32, whatever the weights are stored in), samples and sizes."""
    total = sum(p.stat().st_size for p in HERE.rglob("*")
                if p.is_file() and "__pycache__" not in p.parts)
    print(f"{total} bytes in all, limit {LIMIT}")
    for family in FAMILIES:
        tokenizer = tokenizers.Tokenizer.from_file(str(HERE / family / "tokenizer.json"))
        model = lib.load(HERE / family, "f32")
        for name in (family, f"{family}+adapter"):
            if name != family:
                model = peft.PeftModel.from_pretrained(model, HERE / f"{family}-adapter").eval()
                rho = strengths(model)
                print(f"{name}: {len(rho)} modules, |D|/|W| {rho[0]:.3f} to {rho[-1]:.3f}, "
                      f"median {rho[len(rho) // 2]:.3f}")
            p1, n1 = perplexity(model, tokenizer, HERE / "style1.txt")
            p2, n2 = perplexity(model, tokenizer, HERE / "style2.txt")
            print(f"{name}: perplexity style1 {p1:.4f} ({n1} tokens), "
                  f"style2 {p2:.4f} ({n2} tokens)")
            print(f"  'The king' ->{complete(model, tokenizer, 'The king')!r}")
    if total > LIMIT:
        sys.exit(f"{total} bytes are more than {LIMIT}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--report", action="store_true", help="only report on what is there")
    parser.add_argument("--derive", metavar="DIR", help="write the derived variants into DIR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if args.derive:
        import derive
        derive.derive(HERE, list(FAMILIES), pathlib.Path(args.derive))
        return
    if not args.report:
        make()
    report()


if __name__ == "__main__":
    main()
