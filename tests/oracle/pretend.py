#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for `loractl merge` made of the oracle itself, right or wrong on purpose.

    pretend.py merge BASE ADAPTER[:WEIGHT]... -o OUT [options]

It proves nothing about the program. It is here so that the cases can be shown to fail:
LORACTL_PRETEND names one mistake of MISTAKES, and selftest.py asks that each of them is caught by
the fixtures that are there to catch it.
"""

import json
import os
import shutil
import sys
from collections import OrderedDict

import numpy as np

sys.dont_write_bytecode = True

import check  # noqa: E402
import contract  # noqa: E402
import files  # noqa: E402
import peftread  # noqa: E402

MISTAKES = OrderedDict()


def mistake(name, *caught_by):
    def keep(f):
        MISTAKES[name] = (f, caught_by)
        return f

    return keep


@mistake("no-scale", "linear-f32-base-f32-adapter")
def no_scale():
    contract.scale = lambda alpha, r, rslora=False, weight=1.0: np.float32(weight)


@mistake("scale-in-f32", "adapters-three-f32")
def scale_in_f32():
    def scale(alpha, r, rslora=False, weight=1.0):
        return (
            np.float32(weight)
            * np.float32(alpha)
            / np.float32(np.sqrt(np.float32(r)) if rslora else r)
        )

    contract.scale = scale


@mistake("no-rslora", "rslora", "patterns-rslora")
def no_rslora():
    plain = contract.scale
    contract.scale = lambda alpha, r, rslora=False, weight=1.0: plain(alpha, r, False, weight)


@mistake("weights-ignored", "adapters-weights-f32", "weight-of-one-adapter")
def weights_ignored():
    plain = contract.scale
    contract.scale = lambda alpha, r, rslora=False, weight=1.0: plain(alpha, r, rslora, 1.0)


@mistake("scaled-before-the-sum", "linear-f32-base-f32-adapter", "order-of-the-sum")
def scaled_before():
    def update(self, shape):
        return self._shaped(contract.chain(contract.scaled(self.s, self.B), self.A), shape)

    peftread.LowRank.update = update


def with_step(step, order=lambda r: range(r), dtype=np.float32):
    def chain(B, A):
        c = np.zeros((B.shape[0], A.shape[1]), dtype=dtype)
        for k in order(B.shape[1]):
            c = step(B[:, k : k + 1].astype(dtype), A[k : k + 1].astype(dtype), c)
        return c.astype(np.float32)

    contract.chain = chain


@mistake("k-descending", "linear-f32-base-f32-adapter", "order-of-the-sum", "ranks-1-to-256-f32")
def k_descending():
    with_step(contract.fma32, lambda r: range(r - 1, -1, -1))


@mistake("not-fused", "linear-f32-base-f32-adapter", "order-of-the-sum")
def not_fused():
    with_step(lambda a, b, c: a * b + c)


@mistake("sum-in-f64", "linear-f32-base-f32-adapter", "order-of-the-sum")
def sum_in_f64():
    with_step(lambda a, b, c: a * b + c, dtype=np.float64)


@mistake("two-halves-above-192", "ranks-1-to-256-f32")
def two_halves():
    plain = contract.chain

    def chain(B, A):
        if B.shape[1] <= 192:
            return plain(B, A)
        return plain(B[:, :192], A[:192]) + plain(B[:, 192:], A[192:])

    contract.chain = chain


@mistake(
    "update-rounded-first",
    "linear-bf16-base-f32-adapter",
    "embedding-bf16",
    "experts-gpt-oss-both-bf16",
)
def update_rounded_first():
    plain = peftread.updated

    def updated(name, W, plan, dtype, result):
        for u in plan.adds:
            u.update = lambda shape, f=u.update: contract.widen(
                contract.round_to(f(shape), W.dtype), W.dtype
            )
        return plain(name, W, plan, dtype, result)

    peftread.updated = updated


@mistake("rounded-after-each-adapter", "adapters-two-bf16", "adapters-three-f16")
def rounded_after_each():
    plain = peftread.updated

    def updated(name, W, plan, dtype, result):
        adds = plan.adds
        for u in adds:
            plan.adds = [u]
            W = plain(name, W, plan, dtype, result)
        plan.adds = adds
        return W

    peftread.updated = updated


@mistake("fma-over-adapters", "adapters-weights-f32", "adapters-three-f32")
def fma_over_adapters():
    def updated(name, W, plan, dtype, result):
        D = np.zeros(W.shape, np.float32)
        for u in plan.adds:
            s, u.s = u.s, np.float32(1)
            D = contract.fma32(s, u.update(W.shape), D)
        return files.Tensor(dtype, contract.narrow(contract.add(peftread.f32(W), D), dtype))

    peftread.updated = updated


@mistake("truncated", "linear-bf16-base-f32-adapter", "exact-ties-bf16")
def truncated():
    contract.bf16_bits = lambda x: (
        np.asarray(x, np.float32).view(np.uint32) >> np.uint32(16)
    ).astype(np.uint16)


@mistake("ties-away", "exact-ties-bf16")
def ties_away():
    contract.bf16_bits = lambda x: (
        (np.asarray(x, np.float32).view(np.uint32) + np.uint32(0x8000)) >> np.uint32(16)
    ).astype(np.uint16)


@mistake("flush-to-zero", "subnormal-updates", "changes-nothing-allowed")
def flush_to_zero():
    plain = contract.round_to

    def round_to(x, dtype):
        x = np.where(np.abs(x) < 2.0**-126, np.float32(0), x).astype(np.float32)
        return plain(x, dtype)

    contract.round_to = round_to


@mistake("zero-update-skipped", "negative-zero", "changes-nothing-allowed")
def zero_update_skipped():
    plain = contract.add
    contract.add = lambda W, D: np.where(D == 0, W, plain(W, D))


@mistake("overflow-clamped", "overflow-f16", "overflow-bf16", "overflow-f32")
def overflow_clamped():
    top = contract.MAX
    contract.narrow = lambda x, dtype: contract.round_to(np.clip(x, -top[dtype], top[dtype]), dtype)


@mistake(
    "square-not-transposed",
    "gpt2-square-only-f32",
    "gpt2-square-flag-false-bf16",
    "square-by-neighbour",
)
def square_not_transposed():
    plain = peftread.Resolver.orientation

    def orientation(self, module, name, shape, a, b):
        return 0 if len(set(shape)) == 1 else plain(self, module, name, shape, a, b)

    peftread.Resolver.orientation = orientation


@mistake("last-pattern-wins", "patterns-first-in-file-order", "patterns-other-order")
def last_pattern_wins():
    plain = peftread.first_pattern
    peftread.first_pattern = lambda p, name: plain(
        OrderedDict(reversed(list((p or {}).items()))), name
    )


@mistake("longest-pattern-wins", "patterns-first-in-file-order", "patterns-other-order")
def longest_pattern_wins():
    plain = peftread.first_pattern
    peftread.first_pattern = lambda p, name: plain(
        OrderedDict(sorted((p or {}).items(), key=lambda i: -len(i[0]))), name
    )


@mistake(
    "experts-slowest-in-b",
    "experts-gpt-oss-both-f32",
    "experts-llama4-square-down-f32",
    "experts-singly-stored",
)
def experts_slowest():
    def reorder(name):
        plain = getattr(peftread.Resolver, name)

        def f(self, path, A, B, *rest):
            E, r = (rest[1][0], rest[2].r) if name == "stacked" else (3, 2)
            raw = B.raw.reshape(B.shape[0], E, r).swapaxes(1, 2).reshape(B.shape)
            return plain(self, path, A, files.Tensor(B.dtype, np.ascontiguousarray(raw)), *rest)

        setattr(peftread.Resolver, name, f)

    reorder("stacked")
    reorder("fused")


@mistake("experts-swapped", "experts-gpt-oss-square-both-f32", "experts-llama4-square-down-f32")
def experts_swapped():
    peftread.EXPERTS = {k: (v[0], not v[1]) for k, v in peftread.EXPERTS.items()}


def lanes(t, n):
    sq, p = np.asarray(t, np.float64) ** 2, np.zeros((t.shape[0], n))
    for j in range(0, t.shape[1], n):
        part = sq[:, j : j + n]
        p[:, : part.shape[1]] += part
    return [p[:, i] for i in range(n)]


@mistake("norm-one-sum", "dora-order-of-the-norm")
def norm_one_sum():
    contract.row_norms = lambda t: np.sqrt(lanes(t, 1)[0])


@mistake("norm-four-sums", "dora-order-of-the-norm")
def norm_four_sums():
    def norms(t):
        p = lanes(t, 4)
        return np.sqrt((p[0] + p[1]) + (p[2] + p[3]))

    contract.row_norms = norms


@mistake("norm-halves", "dora-order-of-the-norm")
def norm_halves():
    def norms(t):
        p = lanes(t, 8)
        return np.sqrt(((p[0] + p[4]) + (p[1] + p[5])) + ((p[2] + p[6]) + (p[3] + p[7])))

    contract.row_norms = norms


@mistake("norm-strides", "dora-order-of-the-norm")
def norm_strides():
    def norms(t):
        p = lanes(t, 8)
        return np.sqrt(((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7])))

    contract.row_norms = norms


@mistake("norm-in-a-chain", "dora-order-of-the-norm")
def norm_chain():
    contract.row_norms = lambda t: np.sqrt(sum(lanes(t, 8)[1:], lanes(t, 8)[0]))


@mistake("norm-in-f32", "dora-f32", "dora-long-rows")
def norm_f32():
    contract.row_norms = lambda t: np.sqrt((np.asarray(t, np.float32) ** 2).sum(axis=1)).astype(
        np.float64
    )


@mistake("dora-in-one-rounding", "dora-f32", "dora-long-rows")
def dora_one_rounding():
    contract.dora = lambda t, m: (
        m.astype(np.float64)[:, None] / contract.row_norms(t)[:, None] * t
    ).astype(np.float32)


@mistake("dora-norm-of-base", "dora-f32", "dora-bf16")
def dora_norm_of_base():
    contract.dora = lambda t, m: np.asarray(m, np.float32)[:, None] * t


@mistake("bias-not-scaled", "lora-bias-f32", "lora-bias-bf16")
def bias_not_scaled():
    peftread.Dense.update = lambda self, shape: self.b.reshape(shape)


@mistake("second-half-twice", "attention")
def second_half_twice():
    plain = peftread.LowRank.update
    peftread.LowRank.update = lambda self, shape: plain(self, shape) * np.float32(
        2 if shape[0] == shape[1] else 1
    )


@mistake("both-ends-move", "tied-embedding-1-shards", "tied-head-3-shards")
def both_ends_move():
    peftread.same_plan = lambda x, y, shape: True
    plain = peftread.Resolver.targets

    def targets(self, path, parts, way):
        return plain(self, "model.embed_tokens" if path == "lm_head" else path, parts, way)

    peftread.Resolver.targets = targets
    peftread.tied, old = (lambda base: False), peftread.tied
    exists = peftread.Resolver.exists
    peftread.Resolver.exists = lambda self, name: exists(self, name) or (
        name == "lm_head.weight" and old(self.base)
    )


@mistake("flag-left-true", "tied-embedding-1-shards", "tied-both-3-shards")
def flag_left_true():
    plain = peftread.merged

    def merged(*a):
        r = plain(*a)
        r.config.pop("tie_word_embeddings", None)
        return r

    peftread.merged = merged


@mistake("token-rows-added", "tokens-list-f32", "tokens-tied-f16")
def rows_added():
    plain = peftread.apply

    def apply(name, W, plan, out_dtype, result):
        t = plain(name, W, plan, out_dtype, result)
        for indices, _ in plan.rows:
            total = peftread.f32(W)[indices] + peftread.f32(t)[indices]
            t.raw[indices] = contract.round_to(total, t.dtype)
        return t

    peftread.apply = apply


@mistake("token-rows-in-order", "tokens-list-f32", "tokens-dict-f16")
def rows_sorted():
    plain = peftread.Resolver.rows

    def rows(self, path, t, name, plans):
        wanted = self.config["trainable_token_indices"]
        self.config["trainable_token_indices"] = (
            {k: sorted(v) for k, v in wanted.items()}
            if isinstance(wanted, dict)
            else sorted(wanted)
        )
        return plain(self, path, t, name, plans)

    peftread.Resolver.rows = rows


@mistake("untouched-requantised", "nan-in-untouched")
def requantised():
    plain = peftread.merged

    def merged(*a):
        r = plain(*a)
        for n, t in r.tensors.items():
            if t.dtype in ("F16", "BF16"):
                r.tensors[n] = files.Tensor(
                    t.dtype, contract.round_to(contract.widen(t.raw, t.dtype), t.dtype)
                )
        return r

    peftread.merged = merged


# ------------------------------------------------------------------------------------------------


def write_directory(base_path, out, base, result):
    shutil.copytree(base_path, out, symlinks=False)
    homes = {n: f for f, names in base.files.items() for n in names}
    last = list(base.files)[-1]
    for n in result.added:
        homes[n] = last
    for f in base.files:
        part = OrderedDict(
            (n, t) for n, t in result.tensors.items() if homes[n] == f and n not in result.added
        )
        part.update((n, result.tensors[n]) for n in result.added if homes[n] == f)
        files.write(os.path.join(out, f), part, base.meta[f] or None)
    if base.index:
        index = {
            "metadata": {"total_size": sum(t.raw.nbytes for t in result.tensors.values())},
            "weight_map": dict(sorted(homes.items())),
        }
        with open(os.path.join(out, "model.safetensors.index.json"), "w") as f:
            json.dump(index, f)
    if result.config:
        with open(os.path.join(out, "config.json"), "w") as f:
            json.dump({**base.config, **result.config}, f)
    with open(os.path.join(out, "loractl-receipt.json"), "w") as f:
        json.dump(receipt(base_path, out, base, result), f)


def listing(folder, names):
    sums = check.digests(folder)
    return [
        {"name": n, "size": os.path.getsize(os.path.join(folder, n)), "sha256": sums[n]}
        for n in names
    ]


def measures(name, base, result):
    """What a receipt says of one updated tensor."""
    plan, (exact, _) = result.plans[name], result.reference[name]
    w = peftread.f32(base.tensors[name]).astype(np.float64)
    new = peftread.f32(result.tensors[name]).astype(np.float64)
    size = np.linalg.norm(exact - w)
    first = getattr(plan.adds[0], "parts", plan.adds)[0]
    return {
        "scale": float(first.s),
        "rho": size / np.linalg.norm(w),
        "unchanged": check.unchanged(plan, w, new),
        "noise": np.linalg.norm(new - exact) / size if size else 0.0,
    }


def receipt(base_path, out, base, result):
    names = [n for n, p in result.plans.items() if not p.empty() and n in base.tensors]
    modules = []
    for n in names:
        more = measures(n, base, result) if n in result.reference else {}
        modules.append({"tensor": n, **more})
    return {
        "base": {"files": listing(base_path, base.files)},
        "merged": {"files": listing(out, base.files)},
        "modules": modules,
        "added": result.added,
        "untouched": len(base.tensors) - len(names),
    }


def drop_unmatched(base, adapter, weight):
    r = peftread.Resolver(base, adapter, weight)
    gone = [p for p, parts in r.modules.items() if r.targets(p, parts, str) is None]
    gone += [n for n in r.whole if not r.exists(n)]
    for n in list(adapter.tensors):
        if any(g in n for g in gone):
            del adapter.tensors[n]


def main():
    args = sys.argv[2:]
    out, options, places = None, {}, []
    while args:
        a = args.pop(0)
        if a == "-o":
            out = args.pop(0)
        elif a in ("--dtype", "--tied", "--threads"):
            options[a] = args.pop(0)
        elif not a.startswith("-"):
            places.append(a)
    name = os.environ.get("LORACTL_PRETEND")
    if name:
        MISTAKES[name][0]()
    base = files.Base(places[0])
    adapters = []
    for p in places[1:]:
        path, _, w = p.rpartition(":") if not os.path.exists(p) else (p, "", "1")
        adapters.append((files.Adapter(path), float(w)))
    if "--allow-unmatched" in sys.argv:
        for adapter, w in adapters:
            drop_unmatched(base, adapter, w)
    try:
        result = peftread.merged(
            base,
            adapters,
            options.get("--dtype", "").upper() or None,
            options.get("--tied", "split"),
        )
    except peftread.Refused as e:
        print("loractl merge: %s" % e, file=sys.stderr)
        return 3
    if os.path.isfile(places[0]):
        files.write(out, result.tensors, base.meta[os.path.basename(places[0])])
        with open(out + ".receipt.json", "w") as f:
            f.write("{}\n")
    else:
        write_directory(places[0], out, base, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
