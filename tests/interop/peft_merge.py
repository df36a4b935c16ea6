#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""loractl merge against PEFT's merge_and_unload(), on models that torch and transformers build.

    peft_merge.py BINARY [--work DIR] [--case PATTERN]... [--all] [--list] [--keep]

Every case asks three things of the same files:

 1. The program's output equals the oracle's (tests/oracle), bit for bit.
 2. PEFT's merge equals it too; where it does not, the line says why, and the reason is checked:
    either torch did not sum this product in order here, or PEFT is known to compute something
    else in this case (it rounds the update before adding it, adds it twice, rounds after every
    adapter, moves both sides of tied embeddings). An unexplained bit fails the case.
 3. For a language model the output loads in transformers with nothing missing, unexpected or
    mismatched, generates, and its logits equal those of PEFT's merged model where the weights are
    the same, and in f32 always those of the unmerged one.

Refusals: adapters of other kinds made by PEFT itself, and what cannot be merged; exit 3 and one
line that names it. Needs torch, transformers and peft (build/venv is tried). A model of real size:
the folder LORACTL_SMOLLM2 or build/smollm2 (tests/data/smollm2.py makes it); four of its nine
pairs, or with --all each.
"""

import argparse
import fnmatch
import json
import os
import shutil
import sys
import tempfile
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))

import run as oracle_run  # noqa: E402

if not oracle_run.with_torch():
    sys.exit("peft_merge.py: torch and peft are missing, here and in build/venv")

import numpy as np  # noqa: E402
import torch  # noqa: E402

import check  # noqa: E402
import contract  # noqa: E402
import files  # noqa: E402
import peftmade  # noqa: E402
import peftread  # noqa: E402

torch.set_num_threads(1)
LOGITS = 2e-4  # f32 logits, relative to the largest


# ------------------------------------------------------------------------------------------------
# does torch sum in order?


def in_order(m, n, most=256):
    """The ranks up to `most` for which torch's product [m, r] x [r, n] equals the chain of fused
    steps in every bit."""
    rng = np.random.default_rng(7)
    B, A = rng.standard_normal((m, most)).astype(np.float32), rng.standard_normal((most, n)).astype(
        np.float32
    )
    c, good = np.zeros((m, n), np.float32), []
    for k in range(most):
        c = contract.fma32(B[:, k : k + 1], A[k : k + 1], c)
        # parameters are whole tensors, so the factors are made contiguous
        p = torch.from_numpy(np.ascontiguousarray(B[:, : k + 1])) @ torch.from_numpy(
            np.ascontiguousarray(A[: k + 1])
        )
        if (p.numpy().view(np.uint32) == c.view(np.uint32)).all():
            good.append(k + 1)
    return good


def spans(numbers):
    """1 2 3 7 as '1-3, 7'."""
    out = []
    for n in numbers:
        if out and out[-1][1] == n - 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    text = ", ".join("%d" % a if a == b else "%d-%d" % (a, b) for a, b in out[:6])
    return (text or "none") + (", ..." if len(out) > 6 else "")


def probe():
    print(
        "torch %s, %s: r of 1 to 256 at which a product equals the chain of fma in every bit"
        % (torch.__version__, torch.backends.cpu.get_cpu_capability())
    )
    for m, n in ((20, 10), (24, 24), (48, 80), (64, 48), (192, 192), (576, 192)):
        print("  %4d x %-4d r = %s" % (m, n, spans(in_order(m, n))), flush=True)


# ------------------------------------------------------------------------------------------------
# why PEFT's bits differ


def product_in_order(u, shape):
    """Does torch, asked as PEFT asks it, form this update's product in order?"""
    if isinstance(u, peftread.Experts):
        return all(product_in_order(p, shape[1:]) for p in u.parts)
    if isinstance(u, peftread.Dense):
        return True
    B, A = torch.from_numpy(np.ascontiguousarray(u.B)), torch.from_numpy(np.ascontiguousarray(u.A))
    want = contract.chain(u.B, u.A)
    if len(shape) > 2 and tuple(shape[2:4]) != (1, 1):
        conv = {3: torch.conv1d, 4: torch.conv2d, 5: torch.conv3d}[len(shape)]
        r = B.shape[1]
        a = A.reshape(r, *shape[1:]).transpose(0, 1)
        got = conv(a, B.reshape(B.shape[0], r, *([1] * (len(shape) - 2)))).transpose(0, 1).numpy()
    else:
        got = (B @ A).numpy()
    return bool((got.reshape(want.shape).view(np.uint32) == want.view(np.uint32)).all())


def near(q, dtype, exact, bound, share=5000):
    """Bits q within what another order of the f32 sum explains."""
    value = contract.widen(q, dtype).astype(np.float64)
    if dtype == "F32":
        return bool((np.abs(value - exact) <= 2 * bound + contract.ulp(exact, "F32")).all())
    off = np.abs(
        contract.ordinals(q, dtype) - contract.ordinals(check.round64(exact, dtype), dtype)
    )
    far = (off > 1) & (np.abs(value - exact) > 2 * bound + contract.ulp(exact, dtype))
    return not far.any() and int((off == 1).sum()) <= max(4, q.size // share)


def step(W, D, dtype, first=False):
    """One addition as PEFT does it; `first`: the update goes into the base's type before."""
    if first:
        D = contract.widen(contract.round_to(D, dtype), dtype)
    return contract.round_to(contract.add(contract.widen(W, dtype), D), dtype)


def explain(name, W, plan, q, t, reference):
    """One word for a tensor in which PEFT's bits q differ from the contract's t; None if nothing
    explains them."""
    dtype, shape = t.dtype, t.shape
    adds = plan.adds if plan else []
    if not adds or q.dtype != dtype or q.shape != shape:
        return None
    exact, bound = reference
    order = all(product_in_order(u, shape) for u in adds)
    if plan.magnitude is not None:
        ok = near(q.raw, dtype, exact, 4 * bound + 2.0**-18 * np.abs(exact), 500)
        return "norm in f32" if ok else None
    if not order and len(adds) == 1 and near(q.raw, dtype, exact, bound):
        return "order of torch's sum"
    ways = {
        "rounds the update first": lambda w, d: step(w, d, dtype, True),
        "adds the update twice": lambda w, d: step(step(w, d, dtype), d, dtype),
        "adds the rounded update twice": lambda w, d: step(step(w, d, dtype, True), d, dtype),
        "adds the rounded update, rounded, twice": lambda w, d: step(
            step(w, d, dtype, True), d, dtype, True
        ),
    }
    if len(adds) > 1:
        ways = {"rounds after each adapter": lambda w, d: step(w, d, dtype)}
    for word, way in ways.items():
        w = W.raw
        for u in adds:
            w = way(w, u.update(shape))
        if (w == q.raw).all():
            return word
        if not order and near_bits(q.raw, w, dtype, shape, adds):
            return word + ", in another order"
    return None


def near_bits(q, w, dtype, shape, adds):
    """q against bits w that another order of the sums may move by an ulp of the result, or of the
    rounded update."""
    a, b = (contract.widen(x, dtype).astype(np.float64) for x in (q, w))
    slack = sum(2 * u.update64(shape)[1] for u in adds)
    if dtype != "F32":
        slack = (
            slack
            + sum(contract.ulp(u.update64(shape)[0], dtype) for u in adds)
            + 2 * contract.ulp(b, dtype)
        )
        if int((a != b).sum()) > max(4, q.size // 200):
            return False
    return bool((np.abs(a - b) <= slack + 4 * contract.ulp(b, dtype)).all())


def compare_peft(c, base, result, got):
    """(complaints, {reason: tensors}) of PEFT's merged tensors against the oracle."""
    bad, reasons = [], {}
    ends = {peftread.input_embedding(base), peftread.OUTPUT_EMBEDDING}
    tied = "tied" in c.expect or "shared" in c.expect
    for n, t in result.tensors.items():
        q = got.get(n)
        if q is not None and q.same(t):
            continue
        if tied and n in ends:
            why = "tied embeddings"
        elif q is None:
            why = None
        else:
            why = explain(
                n, base.tensors.get(n), result.plans.get(n), q, t, result.reference.get(n)
            )
        if why is None or (c.expect == "peft" and why != "order of torch's sum"):
            bad.append(
                "PEFT's '%s' differs%s"
                % (
                    n,
                    ": " + why if why else " without explanation" if q is not None else ": missing",
                )
            )
        else:
            reasons[why] = reasons.get(why, 0) + 1
    bad += ["PEFT has '%s' besides" % n for n in got if n not in result.tensors]
    return bad, reasons


# ------------------------------------------------------------------------------------------------
# the output as transformers sees it


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits.float()


def load(kind, path, dtype):
    """(model, complaints) of a directory in transformers."""
    import transformers

    model, info = getattr(transformers, kind).from_pretrained(
        path, dtype=getattr(torch, dtype), output_loading_info=True
    )
    bad = [
        "transformers: %s: %s" % (k, sorted(map(str, v))[:3])
        for k, v in info.items()
        if v and k != "conversion_errors"
    ]
    return model.eval(), bad


def as_model(c, base, adapters, out, dtype, merged, same):
    """Point 3."""
    kind = type(merged).__name__
    model, bad = load(kind, out, dtype)
    ids = torch.arange(3, 35).reshape(2, 16)
    mine = logits(model, ids)
    if same and not torch.equal(mine, logits(merged, ids)):
        bad.append("logits differ from PEFT's merged model")
    if dtype == "float32" and len(adapters) == 1:
        from peft import PeftModel

        theirs = logits(
            PeftModel.from_pretrained(peftmade.load_base(c, base, dtype), adapters[0]).eval(), ids
        )
        gap = float((mine - theirs).abs().max() / theirs.abs().max())
        # where the weights are PEFT's own, so is the distance; depth amplifies f32's rounding
        if gap > (10 * LOGITS if same else LOGITS):
            bad.append("logits off by %.1e from the unmerged model" % gap)
    a = model.generate(ids[:1, :4], max_new_tokens=8, do_sample=False, pad_token_id=0)
    if a.shape[1] <= 4:
        bad.append("generates nothing")
    if same and not torch.equal(
        a, merged.generate(ids[:1, :4], max_new_tokens=8, do_sample=False, pad_token_id=0)
    ):
        bad.append("generates other tokens than PEFT's merged model")
    return bad


# ------------------------------------------------------------------------------------------------
# cases


def merge_case(binary, name, folder):
    """A case of peftmade: (complaints, remark)."""
    case, dtype, width = (name.split("/") + [None])[:3]
    c = peftmade.CASES[case]
    base, adapters, peft_out, merged = peftmade.make(
        case, os.path.join(folder, "made"), dtype, width
    )
    spec = oracle_run.peft_spec((base, adapters, None, None), c)
    out = os.path.join(folder, "out")
    if c.expect == "either":
        return oracle_run.peft_case(binary, "peft/%s/%s" % (case, dtype), folder), "may be refused"
    if spec.words is not None:
        return oracle_run.judge(binary, spec, folder), "refused"
    bad = oracle_run.judge(binary, spec, folder)
    result, b = oracle_run.expectation(spec), files.Base(base)
    remark = "PEFT not asked"
    if peft_out:
        more, reasons = compare_peft(c, b, result, files.Base(peft_out).tensors)
        bad += more
        changed = sum(
            not t.same(b.tensors[n]) if n in b.tensors else True for n, t in result.tensors.items()
        )
        remark = "%d tensors changed, PEFT " % changed + (
            "the same bits"
            if not reasons
            else "; ".join("%s (%d)" % (w, k) for w, k in reasons.items())
        )
        if reasons and c.expect.startswith("oracle:"):
            remark += " [the oracle decides: %s]" % c.expect[7:]
        if c.generates and os.path.isdir(out):
            bad += as_model(c, base, adapters, out, dtype, merged, same=not reasons)
    return bad, remark


def like_the_file(names, path):
    """PEFT's output, with the spelling of a base whose names lack the leading component."""
    import collections

    got = files.Base(path)
    if not any(n.startswith("transformer.") for n in names):
        got.tensors = collections.OrderedDict(
            (n.removeprefix("transformer."), t) for n, t in got.tensors.items()
        )
    return got.tensors


def folder_case(binary, name, folder):
    """A base and an adapter that are there: NAME|BASE|ADAPTER."""
    import transformers
    from peft import PeftModel

    _, base, adapter = name.split("|")
    spec = oracle_run.fixtures.Spec(base, [adapter])
    bad = oracle_run.judge(binary, spec, folder)
    result, b = oracle_run.expectation(spec), files.Base(base)
    dtype = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}[
        next(iter(b.tensors.values())).dtype
    ]
    kind = b.config["architectures"][0]
    start = getattr(transformers, kind).from_pretrained(base, dtype=getattr(torch, dtype))
    merged = PeftModel.from_pretrained(start, adapter).merge_and_unload().eval()
    peft_out = os.path.join(folder, "peft")
    merged.save_pretrained(peft_out)
    c = peftmade.Case(name, lambda: merged, [None], "peft", transformers=True)
    got = like_the_file(b.tensors, peft_out)
    for n in b.tensors:  # buffers that the file carries and the model does not
        if n.endswith((".attn.bias", ".attn.masked_bias")) and n not in got:
            got[n] = b.tensors[n]
    more, reasons = compare_peft(c, b, result, got)
    out = os.path.join(folder, "out")
    if os.path.isdir(out):
        more += as_model(c, base, [adapter], out, dtype, merged, same=not reasons)
    changed = sum(not t.same(b.tensors[n]) for n, t in result.tensors.items() if n in b.tensors)
    return bad + more, "%d tensors changed, PEFT %s" % (
        changed,
        "the same bits" if not reasons else reasons,
    )


CHAINS = {}


def remembered_chain(B, A, plain=contract.chain):
    """A large model is merged once a dtype; the product is the same."""
    key = (B.shape, A.shape, hash(B.tobytes()), hash(A.tobytes()))
    if key not in CHAINS:
        CHAINS[key] = plain(B, A)
    return CHAINS[key]


def large_case(binary, name, folder):
    contract.chain = remembered_chain
    try:
        return folder_case(binary, name, folder)
    finally:
        contract.chain = remembered_chain.__defaults__[0]


def other_kinds():
    """Adapters that are no LoRA, made by PEFT: name -> config."""
    import peft

    t = {"target_modules": ["lin0"]}
    table = {
        "IA3": lambda: peft.IA3Config(feedforward_modules=[], init_ia3_weights=False, **t),
        "LOHA": lambda: peft.LoHaConfig(init_weights=False, **t),
        "LOKR": lambda: peft.LoKrConfig(init_weights=False, **t),
        "OFT": lambda: peft.OFTConfig(oft_block_size=5, r=0, init_weights=False, **t),
        "VERA": lambda: peft.VeraConfig(init_weights=False, **t),
        "ADALORA": lambda: peft.AdaLoraConfig(init_lora_weights=False, total_step=10, **t),
        "BOFT": lambda: peft.BOFTConfig(boft_block_size=5, init_weights=False, **t),
        "HRA": lambda: peft.HRAConfig(init_weights=False, **t),
        "FOURIERFT": lambda: peft.FourierFTConfig(n_frequency=10, init_weights=False, **t),
    }
    return {"refuse-" + k.lower(): (k, v) for k, v in table.items()}


def kind_case(binary, name, folder):
    from peft import get_peft_model

    word, config = other_kinds()[name]
    c = peftmade.CASES["linear-both"]
    base = peftmade.new_base(c, "float32", folder)
    adapter = os.path.join(folder, "adapter0")
    get_peft_model(peftmade.load_base(c, base, "float32"), config()).save_pretrained(adapter)
    return (
        oracle_run.judge(binary, oracle_run.fixtures.Spec(base, [adapter], words=[word]), folder),
        "refused",
    )


def bin_case(binary, name, folder):
    """A pickle: by PEFT, saved the old way."""
    c = peftmade.CASES["linear-both"]
    base, adapters, _, _ = peftmade.make("linear-both", os.path.join(folder, "made"), merge=False)
    file = os.path.join(adapters[0], "adapter_model.safetensors")
    torch.save(peftmade.load_file(file), os.path.join(adapters[0], "adapter_model.bin"))
    os.remove(file)
    return (
        oracle_run.judge(
            binary,
            oracle_run.fixtures.Spec(base, [adapters[0]], words=["adapter_model.bin"]),
            folder,
        ),
        c.name,
    )


def unknown_key_case(binary, name, folder):
    base, adapters, _, _ = peftmade.make("linear-both", os.path.join(folder, "made"), merge=False)
    path = os.path.join(adapters[0], "adapter_config.json")
    config = json.load(open(path, encoding="utf-8"))
    with open(path, "w", encoding="utf-8") as f:
        json.dump({**config, "use_tomorrow": True}, f)
    return (
        oracle_run.judge(
            binary, oracle_run.fixtures.Spec(base, [adapters[0]], words=["use_tomorrow"]), folder
        ),
        "refused",
    )


def tiny_cases():
    """The tiny models in every type, whole and sharded, with adapters in every type; or as they
    are committed."""
    made, out = os.path.join(ROOT, "build", "tiny"), {}
    if not os.path.isdir(made):
        made = os.path.join(ROOT, "tests", "data", "tiny")
    names = sorted(os.listdir(made)) if os.path.isdir(made) else []
    for family in ("llama", "gpt2"):
        bases = [
            n
            for n in names
            if n == family
            or (n.startswith(family + "-") and "adapter" not in n and "peft" not in n)
        ]
        for b in bases:
            for a in names:
                if a.startswith(family + "-adapter"):
                    out["%s+%s|%s|%s" % (b, a, os.path.join(made, b), os.path.join(made, a))] = (
                        folder_case
                    )
    return out


SOME = ("r16f32", "r16bf16", "rsf16", "r192bf16")


def all_cases(every):
    out = {}
    for n, c in peftmade.CASES.items():
        for d in c.dtypes:
            out["%s/%s" % (n, d)] = merge_case
    for n in ("linear-both", "hf-llama", "hf-gpt2"):  # adapters stored in 16 bits
        for d in ("float32", "bfloat16"):
            for w in ("bfloat16", "float16"):
                out["%s/%s/%s" % (n, d, w)] = merge_case
    for n in other_kinds():
        out[n] = kind_case
    out["refuse-bin"], out["refuse-unknown-key"] = bin_case, unknown_key_case
    out.update(tiny_cases())
    real = os.environ.get("LORACTL_SMOLLM2") or os.path.join(ROOT, "build", "smollm2")
    # adapters outside, so that products are remembered from one dtype to the next and then
    # forgotten
    for a in ("r16", "rs", "r192"):
        for d in ("f32", "bf16", "f16"):
            base, adapter = os.path.join(real, d), os.path.join(real, "adapter-" + a)
            if (every or a + d in SOME) and os.path.isdir(base) and os.path.isdir(adapter):
                out["smollm2-%s-%s|%s|%s" % (d, a, base, adapter)] = large_case
    return out


def one(binary, name, f, work, keep):
    short = name.split("|")[0]
    if "|" in name and name.rsplit("|", 1)[1] != CHAINS.get("adapter"):
        CHAINS.clear()
        CHAINS["adapter"] = name.rsplit("|", 1)[1]
    folder = os.path.join(work, short.replace("/", "-"))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    try:
        bad, remark = f([binary], name, folder)
    except Exception as e:  # a case that could not run is a failure, whatever kept it
        bad, remark = ["could not run: %s: %s" % (type(e).__name__, str(e)[:300])], ""
        if keep:
            traceback.print_exc()
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        "%s %s: %s" % ("FAIL" if bad else "ok  ", short, "; ".join(bad[:4]) if bad else remark),
        flush=True,
    )
    return not bad


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("binary")
    ap.add_argument("--work")
    ap.add_argument("--case", action="append")
    ap.add_argument("--all", action="store_true")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--keep", action="store_true")
    args = ap.parse_args()
    cases = all_cases(args.all)
    if args.case:
        cases = {
            n: f
            for n, f in cases.items()
            if any(fnmatch.fnmatch(n.split("|")[0], c) for c in args.case)
        }
    if args.list:
        print("\n".join(n.split("|")[0] for n in cases))
        return 0
    probe()
    work = args.work or tempfile.mkdtemp(prefix="loractl-interop-")
    os.makedirs(work, exist_ok=True)
    passed = sum(one(os.path.abspath(args.binary), n, f, work, args.keep) for n, f in cases.items())
    if not args.work and not args.keep:
        shutil.rmtree(work, ignore_errors=True)
    print("%d passed, %d failed" % (passed, len(cases) - passed))
    return 0 if cases and passed == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
