# SPDX-License-Identifier: Apache-2.0
"""Runs `loractl merge` and holds its output against the oracle.

What is asked of an output directory, beyond the bits of its tensors:

 1. The same files as the base, byte for byte, but for the shards, config.json and the index; plus
    a receipt.
 2. In every shard the base's tensors in the base's order, the same metadata, and no tensor that
    nobody asked for.
 3. config.json unchanged to the byte when nothing in it had to change.
 4. Every adapted number within the bound that the contract's own error analysis gives against an
    f64 computation.
 5. The inputs are as they were, and nothing lies beside the output.
 6. The receipt says what is true: sizes and digests of files, ranks, scales, counts, measures.

And of a refusal: its exit status, one line on stderr that names the thing, no output, nothing
left behind.
"""

import hashlib
import json
import os
import subprocess

import numpy as np

import contract
import files
import peftread

RECEIPT = "loractl-receipt.json"


def digests(path):
    """name -> sha256 of every file under path (or of the file path)."""
    out = {}
    for top, _, names in os.walk(path):
        for n in names:
            p = os.path.join(top, n)
            with open(p, "rb") as f:
                out[os.path.relpath(p, path)] = hashlib.sha256(f.read()).hexdigest()
    if os.path.isfile(path):
        with open(path, "rb") as f:
            out["."] = hashlib.sha256(f.read()).hexdigest()
    return out


def run(binary, base, adapters, out, args=(), env=None):
    """adapters: [(path, weight as text or None)]"""
    names = [p if w is None else "%s:%s" % (p, w) for p, w in adapters]
    command = [*binary, "merge", base, *names, "-o", out, "-q", *args]
    cache = os.path.join(os.path.dirname(out), "cache")
    env = {**os.environ, "XDG_CACHE_HOME": cache, "LC_ALL": "C", **(env or {})}
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=600, env=env
    )


def round64(x, dtype):
    """f64 values to the bits of dtype with one rounding."""
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(all="ignore"):
        if dtype == "F16":
            return x.astype(np.float16).view(np.uint16)
        near = x.astype(np.float32)
        if dtype == "F32":
            return near.view(np.uint32)
        # to odd at 24 bits, then to 8: one rounding (see contract.fma32)
        bits = near.view(np.int32).copy()
        off = (near.astype(np.float64) != x) & ((bits & 1) == 0) & np.isfinite(near)
        away = np.abs(x) > np.abs(near.astype(np.float64))
        bits[off] += np.where(away[off], 1, -1).astype(np.int32)
        return contract.bf16_bits(bits.view(np.float32))


def against_f64(name, t, exact, bound):
    """Point 4 for one tensor: a list of complaints."""
    value = contract.widen(t.raw, t.dtype).astype(np.float64)
    if t.dtype == "F32":
        err = np.abs(value - exact)
        over = err > bound + 0.5 * contract.ulp(np.maximum(np.abs(value), np.abs(exact)), "F32")
        return ["%s: %d elements outside the f32 bound" % (name, over.sum())] if over.any() else []
    want = round64(exact, t.dtype)
    # an element may also miss by more where the sum cancels and the f32 error is itself larger
    # than an ulp
    far = np.abs(contract.ordinals(t.raw, t.dtype) - contract.ordinals(want, t.dtype)) > 1
    far &= np.abs(value - exact) > bound + contract.ulp(value, t.dtype)
    unequal = int(
        (
            (contract.ordinals(t.raw, t.dtype) != contract.ordinals(want, t.dtype))
            & (bound < 0.05 * contract.ulp(exact, t.dtype))
        ).sum()
    )
    bad = ["%s: %d elements more than an ulp off" % (name, far.sum())] if far.any() else []
    if unequal > max(4, t.raw.size // 1000):
        bad.append("%s: %d of %d elements not the nearest" % (name, unequal, t.raw.size))
    return bad


def reference(result):
    """The oracle itself against f64."""
    bad = []
    for name, (exact, bound) in result.reference.items():
        bad += against_f64(name, result.tensors[name], exact, bound)
    return bad


def differences(want, got):
    """Complaints about tensors, name -> Tensor on both sides."""
    bad = ["'%s' is missing" % n for n in want if n not in got] + [
        "'%s' is extra" % n for n in got if n not in want
    ]
    for n, t in want.items():
        if n not in got:
            continue
        g = got[n]
        if g.dtype != t.dtype or g.shape != t.shape:
            bad.append("'%s' is %r, not %r" % (n, g, t))
        elif not t.same(g):
            off = g.raw != t.raw
            at = tuple(int(i) for i in np.argwhere(off)[0])
            bad.append(
                "'%s': %d of %d elements differ, first at %s: %#x, not %#x"
                % (n, off.sum(), off.size, list(at), int(g.raw[at]), int(t.raw[at]))
            )
    return bad


def same_config(base, out, changes):
    a, b = os.path.join(base, "config.json"), os.path.join(out, "config.json")
    if not os.path.exists(a):
        return ["config.json appeared"] if os.path.exists(b) else []
    with open(a, "rb") as f, open(b, "rb") as g:
        old, new = f.read(), g.read()
    if not changes:
        return [] if old == new else ["config.json changed"]
    want = {**json.loads(old), **changes}
    return [] if json.loads(new) == want else ["config.json is %s" % new.decode()]


def same_files(base, out, config):
    """Points 1 to 3 of a directory."""
    bad = []
    a, b = digests(base), digests(out)
    weights = {
        n for n in a if n.endswith((".safetensors", ".safetensors.index.json")) and "/" not in n
    } | {"config.json"}
    for n in a:
        if n not in b:
            bad.append("file '%s' is missing" % n)
        elif n not in weights and a[n] != b[n]:
            bad.append("file '%s' changed" % n)
    bad += ["file '%s' is extra" % n for n in b if n not in a and n != RECEIPT]
    if RECEIPT not in b:
        bad.append("no receipt")
    return bad + (same_config(base, out, config) if config is not None else [])


def same_layout(base, got, added):
    bad = []
    for name, tensors in base.files.items():
        if (
            len(base.files) == len(got.files) == 1
        ):  # a base that is a single file may be called as it likes
            got_name = next(iter(got.files))
        else:
            got_name = name
        if got_name not in got.files:
            bad.append("shard '%s' is missing" % name)
            continue
        new = [n for n in got.files[got_name] if n not in added]
        if new != tensors:
            bad.append("shard '%s': other tensors or another order" % name)
        if got.meta[got_name] != base.meta[name]:
            bad.append("shard '%s': other metadata" % name)
    if getattr(base, "index", None):
        want = base.index.get("metadata", {}).get("total_size")
        size = sum(t.raw.nbytes for t in got.tensors.values())
        if want is not None and got.index.get("metadata", {}).get("total_size") != size:
            bad.append("index: total_size is not %d" % size)
    return bad


def merged(base_path, out, result, config=True):
    """All complaints about a merge that should have worked."""
    base = files.Base(base_path)
    try:
        got = files.Base(out)
    except (OSError, ValueError, KeyError) as e:
        return ["output does not open: %s" % e]
    bad = differences(result.tensors, got.tensors)
    bad += same_layout(base, got, result.added)
    if os.path.isdir(base_path):
        bad += same_files(base_path, out, result.config if config else None)
        try:
            bad += receipt(base_path, out, result)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            bad.append("receipt: %s: %s" % (type(e).__name__, e))
    for name, (exact, bound) in result.reference.items():
        if name in got.tensors and got.tensors[name].shape == exact.shape:
            bad += against_f64(name, got.tensors[name], exact, bound)
    return bad


def listed(folder, files_listed, shards):
    """Point 6 for one list of files."""
    bad, there = [], digests(folder)
    for f in files_listed:
        path = os.path.join(folder, f["name"])
        if there.get(f["name"]) != f["sha256"] or os.path.getsize(path) != f["size"]:
            bad.append("receipt: '%s' has another size or digest" % f["name"])
    missing = set(shards) - {f["name"] for f in files_listed}
    return bad + ["receipt: '%s' is not listed" % n for n in sorted(missing)]


def unchanged(plan, w, new):
    """The share of weights that rounding left as they were, of those that have an update."""
    D = contract.accumulate([u.update(w.shape) for u in plan.adds], w.shape)
    return float(((new == w) & (D != 0)).sum() / max(1, (D != 0).sum()))


def module_measures(name, m, base, got, result):
    """rho, unchanged and noise of one plain low-rank update, in f64."""
    plan = result.plans.get(name)
    if plan is None or plan.magnitude or plan.replace or plan.rows or name not in base.tensors:
        return []
    if name not in result.reference:
        return []
    w = contract.widen(base.tensors[name].raw, base.tensors[name].dtype).astype(np.float64)
    new = contract.widen(got.tensors[name].raw, got.tensors[name].dtype).astype(np.float64)
    exact, _ = result.reference[name]
    size = np.linalg.norm(exact - w)
    if not size or not np.linalg.norm(w):
        return []
    want = {"rho": (size / np.linalg.norm(w), 1e-4)}
    if got.tensors[name].dtype != "F32":  # in f32 the noise is that of the sum itself
        want["noise"] = (np.linalg.norm(new - exact) / size, 0.01)
    bad = [
        "receipt: '%s': %s is %r, not %.6g" % (name, k, m.get(k), v)
        for k, (v, e) in want.items()
        if not isinstance(m.get(k), (int, float)) or abs(m[k] - v) > e * v
    ]
    share = unchanged(plan, w, new)
    if not isinstance(m.get("unchanged"), (int, float)) or abs(m["unchanged"] - share) > 1e-9:
        bad.append("receipt: '%s': unchanged is %r, not %.9g" % (name, m.get("unchanged"), share))
    return bad


def receipt(base_path, out, result):
    """Point 6 of a directory."""
    path = os.path.join(out, RECEIPT)
    with open(path, encoding="utf-8") as f:
        text = f.read()
    r = json.loads(text, object_pairs_hook=files.no_duplicates)
    base, got = files.Base(base_path), files.Base(out)
    bad = ["receipt: absolute path in it"] if os.path.dirname(base_path) in text else []
    bad += listed(base_path, r["base"]["files"], base.files)
    bad += listed(out, r["merged"]["files"], got.files)
    touched = {n for n, p in result.plans.items() if not p.empty() and n in base.tensors}
    # the second name of an embedding may carry the base's bytes, and count as untouched
    first = peftread.input_embedding(base)
    copies = [n for n in result.added if first and result.tensors[n].same(base.tensors[first])]
    count = len(base.tensors) - len(touched)
    if not count <= r["untouched"] <= count + len(copies):
        bad.append("receipt: untouched is %r, not %d" % (r["untouched"], count))
    for n in result.added:
        if n not in json.dumps(r["added"]) and n not in json.dumps(r["modules"]):
            bad.append("receipt: '%s' is not among the added" % n)
    seen = set()
    for m in r["modules"]:
        name = m["tensor"]
        seen.add(name)
        plan = result.plans.get(name)
        parts = [u for a in plan.adds for u in getattr(a, "parts", [a])] if plan else []
        scales = {float(u.s) for u in parts}
        ranks = {u.B.shape[1] for u in parts if hasattr(u, "B")}
        firsts = [getattr(a, "parts", [a])[0] for a in plan.adds] if plan else []
        total = sum(u.B.shape[1] for u in firsts if hasattr(u, "B"))
        if plan and plan.adds and m.get("scale") is not None:
            if not any(abs(m["scale"] - s) <= 1e-6 * abs(s) for s in scales):
                bad.append(
                    "receipt: '%s': scale %r is not among %s" % (name, m["scale"], sorted(scales))
                )
            # several adapters of one tensor are one update of the summed rank
            if m.get("rank") and ranks and m["rank"] not in ranks | {total}:
                bad.append("receipt: '%s': rank %r, not %s" % (name, m["rank"], sorted(ranks)))
        if plan and len(plan.adds) == 1 and name in got.tensors:
            bad += module_measures(name, m, base, got, result)
    bad += ["receipt: '%s' is not among the modules" % n for n in sorted(touched - seen)]
    return bad


def refused(p, out, words, status=3):
    """All complaints about a merge that should have been refused."""
    bad = []
    if p.returncode != status:
        bad.append(
            "exit %d, not %d%s"
            % (p.returncode, status, ": " + p.stderr.strip()[:200] if p.stderr else "")
        )
    lines = [l for l in p.stderr.split("\n") if l]
    # the list of tensors without a place comes a line each, before the error itself
    told = all(l.startswith("loractl merge: ") and ": tensor '" in l for l in lines[:-1])
    if not lines or not told:
        bad.append("%d lines on stderr" % len(lines))
    bad += [
        "stderr does not name '%s': %s" % (w, p.stderr.strip()[:200])
        for w in words
        if w not in p.stderr
    ]
    if os.path.lexists(out):
        bad.append("an output exists")
    return bad


def left_behind(folder, before):
    return ["left behind: %s" % n for n in sorted(set(os.listdir(folder)) - before - {"cache"})]
