#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""loractl verify: what it has to say yes and no to, and its numbers against numpy and transformers.

    verify.py BINARY

 1. Yes to our merges, and to merges by PEFT in f32, f16 and bf16, of a tiny Llama and GPT-2 and of
    SmolLM2; to a merge of a bf16 base in f32; to several adapters with weights.
 2. No, with the right level and name, to everything that is a little wrong.
 3. rho, noise and unchanged are numpy's; KL and perplexity are those of PyTorch's logits.
 4. PEFT's own logits are a reference that holds, and the base's one that does not.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BINARY = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else
                         os.path.join(ROOT, "build/release/loractl"))
TINY = os.path.join(ROOT, "tests", "data", "tiny")
SMOLLM2 = os.environ.get("LORACTL_SMOLLM2", os.path.join(ROOT, "build", "smollm2"))
WORK = tempfile.mkdtemp(prefix="verify.")
faults = 0

sys.dont_write_bytecode = True

import numpy as np  # noqa: E402
import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

torch.set_num_threads(2)
transformers.utils.logging.disable_progress_bar()
LLAMA, ADAPTER = os.path.join(TINY, "llama"), os.path.join(TINY, "llama-adapter")
GPT2, GPT2_ADAPTER = os.path.join(TINY, "gpt2"), os.path.join(TINY, "gpt2-adapter")
LEFT_OUT = "model.layers.1.self_attn.o_proj.weight"
SQUARE = "transformer.h.1.attn.c_proj.weight"  # of GPT-2


def fail(what):
    global faults
    faults += 1
    print("FAIL: " + what, flush=True)


def near(what, have, want, rel):
    if have is None or not abs(have - want) <= rel * abs(want):
        fail("%s: %r, not %r" % (what, have, want))


def run(*args):
    return subprocess.run([BINARY, *args], capture_output=True, text=True, check=False)


def verify(merged, base, adapters, status, *more):
    """The report of a run that has to end with that status; its stderr."""
    argv = ["verify", "-q", "--json", merged, "--base", base]
    for a in adapters:
        argv += ["--adapter", a]
    done = run(*argv, *more)
    if done.returncode != status:
        fail("%s: exit %d, not %d: %s" % (" ".join(argv[3:] + list(more)), done.returncode, status,
                                         done.stderr.strip()))
    return (json.loads(done.stdout) if done.stdout else None), done.stderr


def yes(what, merged, base, adapters, *more):
    report, _ = verify(merged, base, adapters, 0, *more)
    if report is None:
        return None
    levels = report["levels"]
    for name in ("bytes", "modules", "logits"):
        if "skipped" not in levels[name] and levels[name]["passed"] is not True:
            fail("%s: %s does not pass" % (what, name))
    if "skipped" not in levels["bytes"] and levels["bytes"]["mismatched"]:
        fail("%s: mismatched" % what)
    if levels["latency"].get("skipped") is None:
        fail("%s: latency was not asked for" % what)
    return report


def no(what, merged, level, named, base=LLAMA, adapters=(ADAPTER,)):
    """That level alone says no, and the message has that name."""
    report, err = verify(merged, base, adapters, 1, "--level", level)
    if report is None:
        return
    if report["passed"] is not False or report["levels"][level]["passed"] is not False:
        fail("%s: the report of %s does not say no" % (what, level))
    if named not in err:
        fail("%s: %s does not name %r: %s" % (what, level, named, err.strip()))


# --- merges by others

def peft_merge(base, adapters, out, dtype=None):
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype or "auto")
    for a in adapters:
        model = peft.PeftModel.from_pretrained(model, a).merge_and_unload()
    model.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if os.path.exists(os.path.join(base, name)):
            shutil.copy(os.path.join(base, name), out)
    return out


def copy_of(model, name, change=None):
    """A copy of a single-file model in a folder, its tensors changed."""
    out = os.path.join(WORK, name)
    shutil.copytree(model, out)
    if change:
        path = os.path.join(out, "model.safetensors")
        tensors = load_file(path)
        change(tensors)
        save_file({k: v.contiguous() for k, v in tensors.items()}, path, {"format": "pt"})
    return out


def base_tensors(base=LLAMA):
    return load_file(os.path.join(base, "model.safetensors"))


def update(name, scale=1.0, adapter=ADAPTER):
    """s*B*A of a module of a tiny adapter, in f64."""
    factors = load_file(os.path.join(adapter, "adapter_model.safetensors"))
    config = json.load(open(os.path.join(adapter, "adapter_config.json")))
    stem = "base_model.model." + name.replace(".weight", "")
    a, b = (factors["%s.lora_%s.weight" % (stem, x)].double() for x in "AB")
    return scale * config["lora_alpha"] / config["r"] * (b @ a)


def told_names():
    """The tensors that the tiny adapter adapts."""
    factors = load_file(os.path.join(ADAPTER, "adapter_model.safetensors"))
    return sorted({k.split(".lora_")[0].replace("base_model.model.", "") + ".weight"
                   for k in factors})


def rounded(name, scale=1.0):
    w = base_tensors()[name]
    return (w.double() + update(name, scale)).to(w.dtype)


def flip(tensors, name, element, bit=0):
    t = tensors[name].reshape(-1).view(torch.int16 if tensors[name].dtype != torch.float32
                                       else torch.int32)
    t[element] ^= 1 << bit


def test_yes():
    ours = os.path.join(WORK, "ours")
    run("merge", "-q", LLAMA, ADAPTER, "-o", ours)
    yes("our merge", ours, LLAMA, [ADAPTER])
    wide = os.path.join(WORK, "wide")
    run("merge", "-q", LLAMA, ADAPTER, "-o", wide, "--dtype", "f32")
    yes("our merge, wider", wide, LLAMA, [ADAPTER])
    two = os.path.join(WORK, "two")
    other = os.path.join(WORK, "other-adapter")
    shutil.copytree(ADAPTER, other)
    path = os.path.join(other, "adapter_model.safetensors")
    save_file({k: v.flip(0).contiguous() for k, v in load_file(path).items()}, path,
              {"format": "pt"})
    run("merge", "-q", LLAMA, ADAPTER + ":0.5", other + ":0.25", "-o", two)
    yes("two adapters", two, LLAMA, [other + ":0.25", ADAPTER + ":0.5"])
    for d in (torch.float32, torch.float16, torch.bfloat16):
        name = "peft-%s" % str(d).rsplit(".", maxsplit=1)[-1]
        out = peft_merge(LLAMA, [ADAPTER], os.path.join(WORK, name), d)
        yes(name, out, LLAMA, [ADAPTER])
    yes("PEFT, GPT-2", peft_merge(GPT2, [GPT2_ADAPTER], os.path.join(WORK, "peft-gpt2")), GPT2,
        [GPT2_ADAPTER])
    dora = os.path.join(WORK, "dora")
    model = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(LLAMA, dtype=torch.float32),
        peft.LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=["q_proj", "down_proj"]))
    for name, x in model.named_parameters():
        if "lora_B" in name:
            x.data.normal_(std=0.02)
        elif "magnitude" in name:
            x.data.mul_(1.03)
    model.save_pretrained(dora)
    for d in (torch.float32, torch.bfloat16):
        out = peft_merge(LLAMA, [dora], os.path.join(WORK, "dora-%s" % str(d)[6:]), d)
        yes("DoRA in %s" % d, out, LLAMA, [dora])
    rounded_first = base_tensors()  # an update that is rounded to bf16 before it is added
    for name in told_names():
        w = rounded_first[name]
        rounded_first[name] = w + update(name).to(w.dtype)
    yes("rounded first", copy_of(LLAMA, "rounded-first", lambda t: t.update(rounded_first)), LLAMA,
        [ADAPTER])
    for d in ("f32", "f16", "bf16"):
        base, merged = (os.path.join(SMOLLM2, x % d) for x in ("%s", "peft-merged-%s"))
        if os.path.isdir(merged):
            report = yes("SmolLM2 " + d, merged, base, [os.path.join(SMOLLM2, "adapter-r16")],
                         "--tokens", "16")
            if report["levels"]["bytes"]["max_ulp"] > 1:
                fail("SmolLM2 %s: more than one ulp" % d)
        else:
            fail("no %s: run tests/data/smollm2.py" % merged)
    return ours, other


def test_no(ours, other):
    foreign = os.path.join(WORK, "peft-bfloat16")
    late = "model.layers.3.mlp.down_proj.weight"
    for what, model in (("ours", ours), ("foreign", foreign)):
        bad = copy_of(model, what + "-bit", lambda t: flip(t, late, 1234))
        no("one flipped bit, " + what, bad, "bytes", late)

        def scale_off(t):
            t[late] = rounded(late, 1.01)
        bad = copy_of(model, what + "-scale", scale_off)
        no("a scale 1 %% off, %s" % what, bad, "modules", late)
        no("a scale 1 %% off, %s" % what, bad, "bytes", late)

        def leave_out(t):
            t[LEFT_OUT] = base_tensors()[LEFT_OUT]
        bad = copy_of(model, what + "-left-out", leave_out)
        no("left out of one layer, " + what, bad, "modules", LEFT_OUT)
        no("left out of one layer, " + what, bad, "bytes", LEFT_OUT)

        norm = "model.layers.2.input_layernorm.weight"
        bad = copy_of(model, what + "-norm", lambda t: flip(t, norm, 3))
        no("an untouched tensor, " + what, bad, "bytes", norm)
        bad = copy_of(model, what + "-stranger",
                      lambda t: t.update({"stranger": torch.zeros(3)}))
        no("a tensor too many, " + what, bad, "bytes", "stranger")
        for name, key, value in (("config.json", "rms_norm_eps", 1e-3),
                                 ("tokenizer.json", "version", "2.0"),
                                 ("generation_config.json", "eos_token_id", 77)):
            bad = copy_of(model, "%s-%s" % (what, name))
            path = os.path.join(bad, name)
            text = json.load(open(path))
            text[key] = value
            json.dump(text, open(path, "w"))
            no("changed %s, %s" % (name, what), bad, "bytes", name)
    # GPT-2 stores [in, out]: what is added has to be turned, and a square one shows nothing of that.
    turned = copy_of(os.path.join(WORK, "peft-gpt2"), "gpt2-turned", lambda t: t.update({
        SQUARE: (base_tensors(GPT2)[SQUARE].double() + update(SQUARE, 1, GPT2_ADAPTER))
                .to(t[SQUARE].dtype)}))
    for level in ("bytes", "modules"):
        no("a square module transposed", turned, level, SQUARE, GPT2, (GPT2_ADAPTER,))
    # The wrong one of two adapters; a weight that is not 1; another base.
    no("another adapter, ours", ours, "bytes", "none of the adapters", adapters=(other,))
    no("another adapter, foreign", foreign, "modules", "weight", adapters=(other,))
    for level in ("bytes", "modules"):
        no("weight 0.99, ours", ours, level, "0.99", adapters=(ADAPTER + ":0.99",))
        no("weight 0.99, foreign", foreign, level, "weight", adapters=(ADAPTER + ":0.99",))
    weak = os.path.join(WORK, "weak")
    run("merge", "-q", LLAMA, ADAPTER + ":0.99", "-o", weak)
    no("merged with 0.99, ours", weak, "bytes", "0.99")
    os.unlink(os.path.join(weak, "loractl-receipt.json"))
    no("merged with 0.99, no receipt", weak, "modules", "weight")
    base = copy_of(LLAMA, "other-base", lambda t: flip(t, "model.embed_tokens.weight", 0))
    no("another base, ours", ours, "bytes", "not the base of the receipt", base=base)
    no("another base, foreign", foreign, "bytes", "model.embed_tokens.weight", base=base)
    # Logits: a merge that is not there at all, and one that is twice there.
    no("not merged at all", copy_of(LLAMA, "unmerged"), "logits", "KL")
    # The adapter that was left out of one layer shows in the logits as well.
    no("left out of one layer", os.path.join(WORK, "foreign-left-out"), "logits", "KL")


# --- numbers

def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits.double()


def kl(p, q):
    p, q = torch.log_softmax(p, -1), torch.log_softmax(q, -1)
    return (p.exp() * (p - q)).sum(-1).mean().item()


def test_numbers(ours):
    report = yes("ours", ours, LLAMA, [ADAPTER])
    merged, base = load_file(os.path.join(ours, "model.safetensors")), base_tensors()
    told = {t["tensor"]: t for t in report["tensors"]}
    if len(told) != 28:
        fail("%d tensors are told, not 28" % len(told))
    for name, t in told.items():
        w, m, d = base[name].double().numpy(), merged[name].double().numpy(), update(name).numpy()
        near(name + " rho", t["rho"], np.linalg.norm(d) / np.linalg.norm(w), 1e-5)
        near(name + " noise", t["noise"], np.linalg.norm(m - w - d) / np.linalg.norm(d), 1e-4)
        near(name + " unchanged", t["unchanged"], np.mean((m == w)[d != 0]), 1e-6)
        if not t["worst"] <= t["bound"]:
            fail("%s: worst %r, bound %r" % (name, t["worst"], t["bound"]))

    torch.manual_seed(5)
    ids = torch.randint(0, 300, (3, 20))
    plain = transformers.AutoModelForCausalLM.from_pretrained(LLAMA, dtype=torch.float32)
    of_base = logits_of(plain, ids)
    beside = peft.PeftModel.from_pretrained(plain, ADAPTER)
    of_beside = logits_of(beside, ids)
    of_merged = logits_of(transformers.AutoModelForCausalLM.from_pretrained(
        ours, dtype=torch.float32), ids)
    good, bad = (os.path.join(WORK, x) for x in ("good.safetensors", "bad.safetensors"))
    save_file({"logits": of_beside.float(), "input_ids": ids}, good)
    save_file({"logits": of_base.float(), "input_ids": ids}, bad)
    report, _ = verify(ours, LLAMA, [ADAPTER], 0, "--level", "logits", "--reference-logits", good,
                       "--tokens", "20")
    level = report["levels"]["logits"]
    if level["tokens"] != 60 or level["prompts"] != 3:
        fail("%d tokens, %d prompts" % (level["tokens"], level["prompts"]))
    near("kl", level["kl"], kl(of_beside, of_merged), 2e-2)
    near("kl_adapter", level["kl_adapter"], kl(of_base, of_beside), 1e-3)
    near("reference kl", level["reference"]["kl"], kl(of_beside, of_merged), 2e-2)
    near("max_abs", level["max_abs"], (of_merged - of_beside).abs().max().item(), 2e-2)
    near("rms", level["rms"], (of_merged - of_beside).pow(2).mean().sqrt().item(), 2e-2)
    for name, x in (("merged", of_merged), ("unmerged", of_beside)):
        loss = torch.nn.functional.cross_entropy(x[:, :-1].reshape(-1, x.shape[-1]),
                                                 ids[:, 1:].reshape(-1))
        near("perplexity_" + name, level["perplexity_" + name], loss.exp().item(), 1e-4)
    _, err = verify(ours, LLAMA, [ADAPTER], 1, "--level", "logits", "--reference-logits", bad)
    if "reference" not in err:
        fail("the base's logits as reference: " + err)


def main():
    try:
        ours, other = test_yes()
        test_no(ours, other)
        test_numbers(ours)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    print("verify: %d faults" % faults)
    sys.exit(faults > 0)


main()
