#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""loractl diff against numpy in float64, on full matrices.

    diff.py BINARY [--only NAME]

 1. Adapters: norms, cosines and angles are those of s*B*A itself, to 1e-6 relative; small angles are
    known from how the factors were made (atan of an exact number), since a numerical one would be
    no better than ours.
 2. Equivalence: factors after a change of basis, in every type and precision in which people do
    that, against factors that were changed.
 3. Checkpoints: counts, ulps, norms by numpy, ranks by its singular values above the threshold
    that loractl/diff.h defines, computed here once more.
 4. Explanations: merges by loractl, by this file (in another order, with the update rounded
    first) and by PEFT; and what no merge has done.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))

import numpy as np  # noqa: E402

import contract  # noqa: E402
import files  # noqa: E402

BINARY = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build/release/loractl")
SMOLLM2 = os.environ.get("LORACTL_SMOLLM2", os.path.join(ROOT, "build", "smollm2"))
REL = 1e-6
faults = 0
WORK = tempfile.mkdtemp(prefix="diff.")


def fail(what):
    global faults
    faults += 1
    print("FAIL: " + what, flush=True)


def near(what, have, want, rel=REL, absolute=0.0):
    if have is None or not abs(have - want) <= rel * abs(want) + absolute:
        fail("%s: %r, not %r" % (what, have, want))


def equal(what, have, want):
    if have != want:
        fail("%s: %r, not %r" % (what, have, want))


def diff(status, *args):
    """The JSON document, after a run that has to end with that status."""
    run = subprocess.run([BINARY, "diff", "-q", "--json", *args], capture_output=True, text=True)
    if run.returncode != status:
        fail("diff %s: exit %d, not %d: %s" % (args, run.returncode, status, run.stderr.strip()))
        return json.loads(run.stdout) if run.returncode < 2 else None
    return json.loads(run.stdout) if status < 2 else run.stderr


def place(name):
    path = os.path.join(WORK, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def tensor(values, dtype="F32"):
    values = np.asarray(values, np.float32)
    return files.Tensor(dtype, contract.narrow(values, dtype))


def stored(values, dtype):
    """values as that type holds them."""
    return contract.widen(tensor(values, dtype).raw, dtype).astype(np.float64)


PREFIX = "base_model.model."


def adapter(name, modules, dtype="F32", alpha=4, r=None, extra=None, **config):
    """modules: name -> (B, A). Returns the path."""
    path = place(name)
    tensors = {}
    for module, (B, A) in modules.items():
        tensors[PREFIX + module + ".lora_A.weight"] = tensor(A, dtype)
        tensors[PREFIX + module + ".lora_B.weight"] = tensor(B, dtype)
    tensors.update(extra or {})
    files.write(os.path.join(path, "adapter_model.safetensors"), tensors)
    ranks = {m: B.shape[1] for m, (B, A) in modules.items()}
    r = r or next(iter(ranks.values()))
    doc = {
        "peft_type": "LORA",
        "r": r,
        "lora_alpha": alpha,
        "target_modules": sorted({m.split(".")[-1] for m in modules}),
        "rank_pattern": {m: k for m, k in ranks.items() if k != r},
        **config,
    }
    with open(os.path.join(path, "adapter_config.json"), "w") as f:
        json.dump(doc, f)
    return path


def model(name, tensors, config=None):
    path = place(name)
    files.write(os.path.join(path, "model.safetensors"), tensors)
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump({"model_type": "llama", "architectures": ["LlamaForCausalLM"], **(config or {})}, f)
    return path


# ------------------------------------------------------------------------------------------------
# adapters


def column_basis(D, rank):
    return np.linalg.svd(D, full_matrices=False)[0][:, :rank]


def angles(U, V):
    """Large ones by the cosine, small ones by the sine."""
    if U.shape[1] < V.shape[1]:
        U, V = V, U
    C = U.T @ V
    cosines = np.linalg.svd(C, compute_uv=False)
    sines = np.sort(np.linalg.svd(V - U @ C, compute_uv=False))
    return np.where(
        cosines**2 < 0.5, np.arccos(np.clip(cosines, -1, 1)), np.arcsin(np.clip(sines, -1, 1))
    )


def check_module(what, m, Dx, Dy, rank_x, rank_y):
    near(what + " |Dx|", m["norm_x"], np.linalg.norm(Dx))
    near(what + " |Dy|", m["norm_y"], np.linalg.norm(Dy))
    near(what + " |Dx-Dy|", m["norm_difference"], np.linalg.norm(Dx - Dy))
    if np.linalg.norm(Dx) and np.linalg.norm(Dy):
        cosine = (Dx * Dy).sum() / np.linalg.norm(Dx) / np.linalg.norm(Dy)
        near(what + " cosine", m["cosine"], cosine, absolute=1e-12)
    else:
        equal(what + " cosine", m["cosine"], None)
    for key, a, b in (("angles_columns", Dx, Dy), ("angles_rows", Dx.T, Dy.T)):
        want = angles(column_basis(a, rank_x), column_basis(b, rank_y))
        equal("%s %s: how many" % (what, key), len(m[key]), min(rank_x, rank_y))
        equal("%s %s: ascending" % (what, key), m[key], sorted(m[key]))
        for i, (have, expected) in enumerate(zip(m[key], want)):
            # numpy's basis of a full matrix is itself right to 1e-13 or so
            near("%s %s[%d]" % (what, key, i), have, expected, absolute=1e-10)


def adapters():
    rng = np.random.default_rng(1)
    shapes = {  # module: m, n, p, q
        "model.layers.0.self_attn.q_proj": (40, 30, 4, 4),
        "model.layers.0.self_attn.k_proj": (30, 40, 3, 7),
        "model.layers.1.self_attn.v_proj": (700, 600, 12, 5),
        "model.layers.1.mlp.up_proj": (5, 9, 4, 3),  # the ranks together exceed the rows
        "model.layers.2.mlp.up_proj": (5, 6, 7, 7),  # each alone does
        "model.layers.2.mlp.down_proj": (1, 8, 1, 1),
    }
    for dtype in ("F32", "F16", "BF16"):
        X, Y = {}, {}
        for name, (m, n, p, q) in shapes.items():
            X[name] = rng.standard_normal((m, p)), rng.standard_normal((p, n))
            Y[name] = rng.standard_normal((m, q)), rng.standard_normal((q, n))
            common = min(p, q) // 2  # half of the directions shared, nearly
            Y[name][0][:, :common] = X[name][0][:, :common] + 0.01 * Y[name][0][:, :common]
        # no update at all, and a rank below the nominal one
        Y["model.layers.0.self_attn.q_proj"][0][:] = 0
        X["model.layers.1.self_attn.v_proj"][0][:, 4:] = 0
        x, y = adapter("x", X, dtype, alpha=5), adapter("y", Y, dtype, alpha=3, use_rslora=True)
        doc = diff(1, x, y)
        equal(dtype + " same", doc["same"], False)
        equal(dtype + " equivalent", doc["equivalent"], False)
        equal(dtype + " modules", {m["name"] for m in doc["modules"]}, set(shapes))
        equal(dtype + " changed", len(doc["changed"]), 2 * len(shapes))
        for m in doc["modules"]:
            name = m["name"]
            mm, n, p, q = shapes[name]
            sx, sy = np.float32(5 / p), np.float32(3 / np.sqrt(q))
            Dx = float(sx) * stored(X[name][0], dtype) @ stored(X[name][1], dtype)
            Dy = float(sy) * stored(Y[name][0], dtype) @ stored(Y[name][1], dtype)
            rx = np.linalg.matrix_rank(Dx)
            ry = np.linalg.matrix_rank(Dy)
            check_module("%s %s" % (dtype, name), m, Dx, Dy, rx, ry)
        keys = {c["key"]: (c["x"], c["y"]) for c in doc["config"]}
        equal(dtype + " lora_alpha", keys.get("lora_alpha"), (5, 3))
        equal(dtype + " use_rslora", keys.get("use_rslora"), (None, True))
    doc = diff(0, x, x)
    equal("same", (doc["same"], doc["equivalent"], doc["config"], doc["changed"]), (True, True, [], []))
    equal("no difference", {m["norm_difference"] for m in doc["modules"]}, {0})


def small_angles():
    """B of X is e1, of Y e1 + t e2: the angle of the column spaces is atan(t). A of both are mixed by
    powers of two and signs, which changes no space."""
    for t in (3.0, 1.0, 0.5, 2.0**-7, 3 * 2.0**-14, 2.0**-20, 5 * 2.0**-30):
        Bx, By = np.zeros((50, 2)), np.zeros((50, 2))
        Bx[7, 0] = By[7, 0] = 1
        By[9, 0] = t
        Bx[20, 1] = By[20, 1] = 8
        A = np.random.default_rng(2).standard_normal((2, 60))
        mixed = np.float32([[4, 0], [1, -2]]) @ np.float32(A)
        m = diff(
            1,
            adapter("x", {"q_proj": (Bx, A)}),
            adapter("y", {"q_proj": (By, mixed)}),
        )["modules"][0]
        equal("atan(%g): the shared direction" % t, m["angles_columns"][0] < 1e-14, True)
        near("atan(%g)" % t, m["angles_columns"][1], np.arctan(t))
        # the same where A hardly tells the directions apart: the space is the factor's
        faint = np.vstack([A[0], A[0] + 1e-6 * A[1]])
        m = diff(1, adapter("x", {"q_proj": (Bx, faint)}), adapter("y", {"q_proj": (By, faint)}))
        near("faint: atan(%g)" % t, m["modules"][0]["angles_columns"][1], np.arctan(t))
        m = diff(
            1,
            adapter("x", {"q_proj": (A.T, Bx.T)}),
            adapter("y", {"q_proj": (A.T, By.T)}),
        )["modules"][0]
        near("rows: atan(%g)" % t, m["angles_rows"][1], np.arctan(t))


def wide():
    """Two modules 4096 wide, of rank 64: against the triangles' own arithmetic in numpy."""
    rng = np.random.default_rng(3)
    X = [rng.standard_normal(s).astype(np.float32) for s in ((4096, 64), (64, 4096))]
    Y = [a + np.float32(0.1) * rng.standard_normal(a.shape).astype(np.float32) for a in X]
    m = diff(
        1, adapter("x", {"q_proj": X}, alpha=64), adapter("y", {"q_proj": Y}, alpha=64)
    )["modules"][0]
    X, Y = [a.astype(np.float64) for a in X], [a.astype(np.float64) for a in Y]
    gram = lambda p, q: np.trace((p[0].T @ q[0]) @ (q[1] @ p[1].T))  # noqa: E731
    near("4096: |Dx|", m["norm_x"], np.sqrt(gram(X, X)))
    near("4096: cosine", m["cosine"], gram(X, Y) / np.sqrt(gram(X, X) * gram(Y, Y)))
    near("4096: |Dx-Dy|", m["norm_difference"], np.sqrt(gram(X, X) - 2 * gram(X, Y) + gram(Y, Y)))
    want = angles(np.linalg.qr(X[0])[0], np.linalg.qr(Y[0])[0])
    for have, expected in zip(m["angles_columns"], want):
        near("4096: angle", have, expected)


# ------------------------------------------------------------------------------------------------
# the same update?


def bases(rng, r):
    yield "gaussian", rng.standard_normal((r, r))
    yield "orthogonal", 1.25 * np.linalg.qr(rng.standard_normal((r, r)))[0]
    yield "scaling", np.diag(2.0 ** rng.integers(-6, 7, r))
    yield "condition 1000", (
        np.linalg.qr(rng.standard_normal((r, r)))[0]
        * np.geomspace(1.5, 1.5e-3, r)
        @ np.linalg.qr(rng.standard_normal((r, r)))[0]
    )


def equivalence():
    rng = np.random.default_rng(4)
    for dtype in ("F32", "F16", "BF16"):
        for m, n, r in ((64, 48, 6), (300, 500, 16), (20, 30, 1), (512, 256, 64)):
            B, A = stored(rng.standard_normal((m, r)) / 8, dtype), stored(
                rng.standard_normal((r, n)) / 8, dtype
            )
            x = adapter("x", {"q_proj": (B, A)}, dtype, r=r)
            for kind, M in bases(rng, r):
                for precision in (np.float64, np.float32):
                    N = M.astype(precision)
                    By = B.astype(precision) @ N
                    Ay = np.linalg.inv(N) @ A.astype(precision)
                    what = "%s [%d, %d] r=%d, %s, %s" % (dtype, m, n, r, kind, precision.__name__)
                    doc = diff(1, x, adapter("y", {"q_proj": (By, Ay)}, dtype, r=r))
                    module = doc["modules"][0]
                    if doc["same"] or not doc["equivalent"]:
                        fail(
                            "%s: same %s, equivalent %s: %g of %g"
                            % (
                                what,
                                doc["same"],
                                doc["equivalent"],
                                module["norm_difference"],
                                module["allowance"],
                            )
                        )
            if dtype != "F32":
                continue
            changes = {
                "B * 1.001": (B * 1.001, A),
                "A * 1.001": (B, A * 1.001),
                "one element of B + 1e-3": (B + 1e-3 * (np.arange(m * r).reshape(m, r) == r), A),
                "one column of A * 1.001": (B, A * np.where(np.arange(n) == 3, 1.001, 1)),
                "-B": (-B, A),
            }
            for kind, (By, Ay) in changes.items():
                doc = diff(1, x, adapter("y", {"q_proj": (By, Ay)}, dtype, r=r))
                if doc["equivalent"]:
                    fail("[%d, %d] r=%d: %s is not seen" % (m, n, r, kind))
            # another spelling of the strength
            doc = diff(1, x, adapter("y", {"q_proj": (B / 2, A)}, dtype, r=r, alpha=8))
            equal("alpha doubled, B halved", doc["equivalent"], True)
            doc = diff(1, x, adapter("y", {"q_proj": (B, A)}, dtype, r=r, alpha=4.001))
            equal("alpha 4.001", doc["equivalent"], False)
    # more rank for the same update
    B, A = rng.standard_normal((30, 4)), rng.standard_normal((4, 20))
    wide = (np.hstack([B, np.zeros((30, 2))]), np.vstack([A, rng.standard_normal((2, 20))]))
    doc = diff(
        1,
        adapter("x", {"q_proj": (B, A)}, alpha=4),
        adapter("y", {"q_proj": wide}, alpha=6),
    )
    equal("padded with zeros", doc["equivalent"], True)
    # stored in another type, exactly
    B, A = stored(B, "BF16"), stored(A, "BF16")
    doc = diff(1, adapter("x", {"q_proj": (B, A)}), adapter("y", {"q_proj": (B, A)}, "BF16"))
    equal("another type", (doc["same"], doc["equivalent"]), (False, True))
    equal("another type: the module", doc["modules"][0]["same"], True)
    # the config alone
    x = adapter("x", {"q_proj": (B, A)})
    doc = diff(1, x, adapter("y", {"q_proj": (B, A)}, lora_dropout=0.1))
    equal("dropout", (doc["same"], doc["equivalent"], doc["changed"]), (False, True, []))
    equal("dropout", doc["config"], [{"key": "lora_dropout", "x": None, "y": 0.1, "absent": "x"}])


def kinds():
    """What is no product of factors, and what only one of the two has."""
    rng = np.random.default_rng(5)
    B, A = rng.standard_normal((12, 3)), rng.standard_normal((3, 10))
    q, v = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
    x = adapter("x", {q: (B, A)})
    doc = diff(1, x, adapter("y", {q: (B, A), v: (B, A)}))
    names = [PREFIX + v + ".lora_%s.weight" % c for c in "AB"]
    equal("added", (sorted(doc["added"]), doc["removed"]), (names, []))
    equal("added: equivalent", (doc["equivalent"], len(doc["modules"])), (False, 1))
    doc = diff(1, os.path.join(WORK, "y"), x)
    equal("removed", (sorted(doc["removed"]), doc["added"]), (names, []))
    # another shape is another module
    doc = diff(1, x, adapter("y", {q: (np.vstack([B, B]), A)}))
    equal("another shape", (doc["equivalent"], doc["modules"]), (False, []))
    # DoRA: the magnitudes are compared by value
    magnitude = rng.uniform(1, 2, 12)
    name = PREFIX + q + ".lora_magnitude_vector"
    dora = lambda to, m: adapter(  # noqa: E731
        to, {q: (B, A)}, use_dora=True, extra={name: tensor(m)}
    )
    x = dora("x", magnitude)
    equal("DoRA: same", diff(0, x, dora("y", magnitude))["same"], True)
    moved = magnitude.copy()
    moved[5] += 0.25
    m = diff(1, x, dora("y", moved))["modules"][0]
    want = abs(stored(moved, "F32")[5] - stored(magnitude, "F32")[5])
    near("DoRA: |mx-my|", m["magnitude_difference"], want)
    equal("DoRA: equivalent", (m["equivalent"], m["norm_difference"]), (False, 0))
    doc = diff(1, x, adapter("y", {q: (B, A)}))
    m = doc["modules"][0]
    equal("DoRA against LoRA", (m["type_x"], m["type_y"]), ("dora", "low-rank"))
    equal("DoRA against LoRA", (m["norm_difference"], m["cosine"], m["equivalent"]), (None, None, False))
    near("DoRA against LoRA: |Dx|", m["norm_x"], np.linalg.norm(4 / 3 * stored(B, "F32") @ stored(A, "F32")))
    equal("DoRA against LoRA: removed", doc["removed"], [name])
    # a saved module, by value
    W = rng.standard_normal((9, 7))
    head = lambda to, w: adapter(  # noqa: E731
        to, {q: (B, A)}, modules_to_save=["lm_head"], extra={PREFIX + "lm_head.weight": tensor(w)}
    )
    x = head("x", W)
    equal("saved: same", diff(0, x, head("y", W))["same"], True)
    V = W.copy()
    V[3, 3] += 0.5
    doc = diff(1, x, head("y", V))
    m = next(m for m in doc["modules"] if "lm_head" in m["name"])
    near("saved: |Dx|", m["norm_x"], np.linalg.norm(stored(W, "F32")))
    near("saved: |Dx-Dy|", m["norm_difference"], np.linalg.norm(stored(W, "F32") - stored(V, "F32")))
    equal("saved", (m["equivalent"], doc["equivalent"], m["angles_rows"]), (False, False, []))


# ------------------------------------------------------------------------------------------------
# checkpoints


def matrix(values):
    return values.reshape(values.shape[0] if values.ndim > 1 else 1, -1)


def threshold(x, y, dtype):
    """What rounding may be, as loractl/diff.h has it."""
    D = matrix(y - x)
    u = matrix(contract.ulp(y.astype(np.float32), dtype).astype(np.float64)) ** 2 / 12
    u = u * (D != 0).any(0)[None, :] * (D != 0).any(1)[:, None]
    noise = min(2 * (np.sqrt(u.sum(1).max()) + np.sqrt(u.sum(0).max())), np.sqrt(3 * u.sum()))
    values = np.linalg.svd(D, compute_uv=False)
    return max(noise, 1e-7 * values[0]), values


def check_tensor(what, doc, name, X, Y, dtype, rank=None):
    t = next((t for t in doc["tensors"] if t["name"] == name), None)
    if t is None:
        return fail("%s: '%s' is not listed" % (what, name))
    x = contract.widen(X.raw, dtype).astype(np.float64)
    y = contract.widen(Y.raw, dtype).astype(np.float64)
    equal(what + " elements", t["elements"], x.size)
    equal(what + " changed", t["changed"], int((x != y).sum()))
    far = np.abs(contract.ordinals(X.raw, dtype) - contract.ordinals(Y.raw, dtype))
    equal(what + " max_ulp", t["max_ulp"], int(far[x != y].max(initial=0)))
    near(what + " relative_norm", t["relative_norm"], np.linalg.norm(y - x) / np.linalg.norm(x))
    limit, values = threshold(x, y, dtype)
    near(what + " threshold", t["threshold"], limit)
    clear = values[np.abs(values / limit - 1) < 0.05].size == 0
    if clear:
        equal(what + " rank", t["rank"], int((values > limit).sum()))
    if rank is not None:
        equal(what + " rank by construction", t["rank"], rank)
    equal(what + " rank_is_least", t["rank_is_least"], False)


def checkpoints():
    rng = np.random.default_rng(6)
    shapes = {  # name: shape, rank of the update
        "model.a.weight": ((96, 64), 5),
        "model.b.weight": ((64, 200), 16),
        "model.c.weight": ((1200, 90), 1),
        "model.d.weight": ((40, 1500), 30),  # far wider than tall
        "model.e.weight": ((300, 260), 100),  # more than the first look holds
        "model.f.weight": ((8, 30, 3, 3), 4),  # as a convolution
        "model.g.weight": ((1500, 1100), 20),  # too large to be looked at completely
        "model.v.weight": ((77,), 1),
        "model.h.weight": ((50, 50), 50),
    }
    for dtype in ("F32", "F16", "BF16"):
        X, Y = {}, {}
        for name, (shape, rank) in shapes.items():
            W = rng.standard_normal(shape).astype(np.float32) * np.float32(0.05)
            X[name] = tensor(W, dtype)
            W = contract.widen(X[name].raw, dtype).astype(np.float64)
            rows = shape[0] if len(shape) > 1 else 1
            B, A = rng.standard_normal((rows, rank)), rng.standard_normal((rank, W.size // rows))
            Y[name] = tensor((W + 0.2 / np.sqrt(rank) * (B @ A).reshape(shape)), dtype)
        same = tensor(rng.standard_normal((30, 30)), dtype)
        X["model.same.weight"] = Y["model.same.weight"] = same
        doc = diff(1, model("x", X), model("y", Y))
        equal(dtype + " listed", {t["name"] for t in doc["tensors"]}, set(shapes))
        equal(dtype + " lists", (doc["added"], doc["removed"], doc["config"]), ([], [], []))
        for name, (shape, rank) in shapes.items():
            check_tensor(
                "%s %s" % (dtype, name), doc, name, X[name], Y[name], dtype,
                rank if dtype == "F32" else None,
            )
        # a weak update: bf16 leaves of it what stands out of the rounding, and numpy agrees
        name = "model.a.weight"
        W = contract.widen(X[name].raw, dtype).astype(np.float64)
        B, A = rng.standard_normal((96, 5)), rng.standard_normal((5, 64))
        for strength in (1e-5, 1e-4, 1e-3, 1e-2):
            weak = {name: tensor(W + strength * (B @ A), dtype)}
            if (weak[name].raw == X[name].raw).all():
                continue
            doc = diff(1, model("x", {name: X[name]}), model("y", weak))
            check_tensor(
                "%s strength %g" % (dtype, strength), doc, name, X[name], weak[name], dtype,
                5 if dtype == "F32" else None,
            )
        # one bit
        flipped = X[name].raw.copy()
        flipped[17, 5] ^= 1
        one = {name: files.Tensor(dtype, flipped)}
        doc = diff(1, model("x", {name: X[name]}), model("y", one))
        check_tensor(dtype + " one bit", doc, name, X[name], one[name], dtype, 1)
        equal(dtype + " one bit", (doc["tensors"][0]["changed"], doc["tensors"][0]["max_ulp"]), (1, 1))
    # a long walk through a wide tensor, all of it moved: no more than 512 are counted
    W = rng.standard_normal((1100, 1100))
    doc = diff(1, model("x", {"w": tensor(W)}), model("y", {"w": tensor(rng.standard_normal((1100, 1100)))}))
    equal("full rank", (doc["tensors"][0]["rank"], doc["tensors"][0]["rank_is_least"]), (512, True))


def checkpoint_facts():
    ones = np.ones((4, 3))
    x = model("x", {"w": tensor(ones), "gone": tensor(ones)}, {"vocab_size": 3, "a": {"b": 1}})
    # -0 is +0, though its bytes are not
    zero = tensor(np.zeros((4, 3)))
    minus = files.Tensor("F32", zero.raw | np.uint32(0x80000000))
    doc = diff(1, model("z", {"w": zero}), model("y", {"w": minus}))
    equal("-0", (doc["same"], doc["equivalent"], doc["tensors"][0]["changed"]), (False, True, 0))
    equal("-0", (doc["tensors"][0]["max_ulp"], doc["tensors"][0]["rank"]), (0, 0))
    # values that are no numbers: counted, without norms
    odd = ones.copy()
    odd[1, 1], odd[2, 2] = np.nan, np.inf
    doc = diff(1, model("z", {"w": tensor(ones)}), model("y", {"w": files.Tensor("F32", odd.astype(np.float32).view(np.uint32))}))
    t = doc["tensors"][0]
    equal("NaN", (t["changed"], t["relative_norm"], t["rank"]), (2, None, None))
    # added, removed, retyped, reshaped, a type that is not computed with
    y = model("y", {"w": tensor(ones, "BF16"), "new": tensor(ones)}, {"vocab_size": 4, "a": {"b": 2}, "c": None})
    doc = diff(1, x, y)
    equal("lists", (doc["added"], doc["removed"]), (["new"], ["gone"]))
    t = doc["tensors"][0]
    equal("retyped", (t["dtype_x"], t["dtype_y"], t["changed"], t["max_ulp"]), ("F32", "BF16", 0, None))
    equal("retyped", doc["equivalent"], False)
    equal(
        "config",
        sorted((c["key"], c["x"], c["y"], c.get("absent")) for c in doc["config"]),
        [("a.b", 1, 2, None), ("c", None, None, "x"), ("vocab_size", 3, 4, None)],
    )
    doc = diff(1, model("z", {"w": tensor(ones)}), model("y", {"w": tensor(ones.T)}))
    equal("reshaped", (doc["tensors"][0]["reshaped"], doc["tensors"][0]["rank"]), (True, None))
    n = np.arange(12, dtype=np.uint32).reshape(4, 3)
    m = n.copy()
    m[0, 0] = m[3, 2] = 99
    doc = diff(1, model("z", {"w": files.Tensor("I32", n)}), model("y", {"w": files.Tensor("I32", m)}))
    t = doc["tensors"][0]
    equal("I32", (t["changed"], t["max_ulp"], t["relative_norm"], t["rank"]), (2, None, None, None))
    # spread over files otherwise: the same
    whole = model("z", {"a": tensor(ones), "b": tensor(2 * ones)})
    parts = model("y", {})
    os.remove(os.path.join(parts, "model.safetensors"))
    for i, key in enumerate("ab"):
        files.write(os.path.join(parts, "model-%d.safetensors" % i), {key: tensor((i + 1) * ones)})
    with open(os.path.join(parts, "model.safetensors.index.json"), "w") as f:
        json.dump({"weight_map": {"a": "model-0.safetensors", "b": "model-1.safetensors"}}, f)
    equal("shards", diff(0, whole, parts)["same"], True)
    # the same for every number of threads
    big = np.random.default_rng(7).standard_normal((900, 700))
    x, y = model("x", {"w": tensor(big)}), model("y", {"w": tensor(big * 1.5)})
    equal("threads", diff(1, x, y, "--threads", "1"), diff(1, x, y, "--threads", "5"))


# ------------------------------------------------------------------------------------------------
# explanations


def linear_model(rng, dtype, layers=2, size=64):
    """A small Llama's linears and one tensor that no adapter touches."""
    tensors = {"model.norm.weight": tensor(rng.standard_normal(size), dtype)}
    for i in range(layers):
        for p in ("q_proj", "v_proj"):
            name = "model.layers.%d.self_attn.%s.weight" % (i, p)
            tensors[name] = tensor(0.05 * rng.standard_normal((size, size)), dtype)
    return tensors


def foreign_merge(tensors, modules, s, dtype, how):
    out = dict(tensors)
    for module, (B, A) in modules.items():
        W = contract.widen(tensors[module + ".weight"].raw, dtype).astype(np.float64)
        D = s * (stored(B, "F32") @ stored(A, "F32"))
        if how == "f64":
            W = W + D
        elif how == "update rounded first":
            W = W + stored(D, dtype)
        elif how == "all in the type":
            W = W + stored(s * stored(stored(B, "F32") @ stored(A, "F32"), dtype), dtype)
        out[module + ".weight"] = tensor(W, dtype)
    return out


def unexplained(what, doc, names):
    equal(what + ": explained", doc["explained"], not names)
    equal(what + ": unexplained", doc["unexplained"], names)
    equal(what + ": reasons", len(doc["reasons"]), len(names))


def explanations():
    rng = np.random.default_rng(8)
    r = 8
    for dtype in ("F32", "F16", "BF16"):
        tensors = linear_model(rng, dtype)
        base = model("base", tensors)
        modules = {
            n[: -len(".weight")]: (rng.standard_normal((64, r)) * 0.02, rng.standard_normal((r, 64)) * 0.05)
            for n in tensors
            if "proj" in n
        }
        s = 12 / r
        a = adapter("a", modules, alpha=12)
        merged = os.path.join(WORK, "merged")
        shutil.rmtree(merged, ignore_errors=True)
        subprocess.run([BINARY, "merge", "-q", base, a, "-o", merged], check=True)
        doc = diff(0, base, merged, a)
        unexplained(dtype + " our merge", doc, [])
        equal(dtype + " our merge: exact", (doc["exact"], doc["rounded"]), (len(modules), 0))
        # one bit of one element, the last, in what carries our receipt and what does not
        name = "model.layers.1.self_attn.v_proj.weight"
        path = os.path.join(merged, "model.safetensors")
        have, meta = files.read(path)
        raw = have[name].raw.copy()
        raw[11, 13] ^= 1
        files.write(path, {**have, name: files.Tensor(dtype, raw)}, meta)
        unexplained(dtype + " a flipped bit", diff(1, base, merged, a), [name])
        os.remove(os.path.join(merged, "loractl-receipt.json"))
        if dtype != "F32":  # there it is one ulp, which another order of summation gives as well
            unexplained(dtype + " a flipped bit, no receipt", diff(1, base, merged, a), [name])
        raw[11, 13] ^= 1 | 1 << (20 if dtype == "F32" else 6)
        files.write(path, {**have, name: files.Tensor(dtype, raw)}, meta)
        unexplained(dtype + " a flipped high bit", diff(1, base, merged, a), [name])
        # an untouched tensor
        raw = have["model.norm.weight"].raw.copy()
        raw[3] ^= 1
        files.write(path, {**have, "model.norm.weight": files.Tensor(dtype, raw)}, meta)
        unexplained(dtype + " an untouched tensor", diff(1, base, merged, a), ["model.norm.weight"])
        # one more, one less, and no merge at all
        files.write(path, {**have, "extra": have[name]}, meta)
        unexplained(dtype + " one more", diff(1, base, merged, a), ["extra"])
        less = {k: v for k, v in have.items() if k != name}
        files.write(path, less, meta)
        unexplained(dtype + " one less", diff(1, base, merged, a), [name])
        doc = diff(1, base, base, a)
        equal(dtype + " not merged", (doc["same"], doc["explained"]), (True, False))
        equal(dtype + " not merged", len(doc["unexplained"]), len(modules))
        # other programs
        for how in ("f64", "update rounded first", "all in the type"):
            m = model("foreign", foreign_merge(tensors, modules, s, dtype, how))
            unexplained("%s %s" % (dtype, how), diff(0, base, m, a), [])
            m = model("foreign", foreign_merge(tensors, modules, 1.01 * s, dtype, how))
            doc = diff(1, base, m, a)
            equal("%s %s, 1 %% too strong" % (dtype, how), (doc["explained"], len(doc["unexplained"])), (False, len(modules)))
            # within rounding, element by element, but not as a whole
            m = model("foreign", foreign_merge(tensors, modules, 1.004 * s, dtype, how))
            equal("%s %s, 0.4 %% too strong" % (dtype, how), diff(1, base, m, a)["explained"], False)
            m = model("foreign", foreign_merge(tensors, modules, 0, dtype, how))
            equal("%s %s, strength 0" % (dtype, how), diff(1, base, m, a)["explained"], False)
        # two adapters, and weights
        b = adapter("b", {k: (B[::-1], A) for k, (B, A) in modules.items()}, alpha=3)
        shutil.rmtree(merged)
        subprocess.run([BINARY, "merge", "-q", base, a, b + ":0.5", "-o", merged], check=True)
        unexplained(dtype + " two adapters", diff(0, base, merged, a, b + ":0.5"), [])
        equal(dtype + " one of two", diff(1, base, merged, a)["explained"], False)
        equal(dtype + " another weight", diff(1, base, merged, a, b)["explained"], False)
        # into another type
        shutil.rmtree(merged)
        subprocess.run([BINARY, "merge", "-q", base, a, "--dtype", "f32", "-o", merged], check=True)
        unexplained(dtype + " into f32", diff(0, base, merged, a), [])
        # DoRA
        magnitudes = {
            PREFIX + k + ".lora_magnitude_vector": tensor(rng.uniform(0.3, 0.5, 64)) for k in modules
        }
        d = adapter("d", modules, use_dora=True, extra=magnitudes)
        shutil.rmtree(merged)
        subprocess.run([BINARY, "merge", "-q", base, d, "-o", merged], check=True)
        unexplained(dtype + " DoRA", diff(0, base, merged, d), [])
        equal(dtype + " DoRA by LoRA", diff(1, base, merged, a)["explained"], False)
    # a tie that the merge splits
    E = rng.standard_normal((40, 16))
    base = model("base", {"model.embed_tokens.weight": tensor(E)}, {"tie_word_embeddings": True})
    a = adapter("a", {"lm_head": (rng.standard_normal((40, 2)), rng.standard_normal((2, 16)))})
    shutil.rmtree(merged)
    run = subprocess.run([BINARY, "merge", "-q", base, a, "-o", merged], capture_output=True)
    if run.returncode:
        fail("tie: %s" % run.stderr)
    else:
        unexplained("a split tie", diff(0, base, merged, a), [])


def smollm2():
    if not os.path.isdir(os.path.join(SMOLLM2, "peft-merged-bf16")):
        if os.environ.get("CI") == "true":
            fail("no SmolLM2 in %s, and with CI=true nothing is skipped" % SMOLLM2)
        return print("skipped: no SmolLM2 in %s" % SMOLLM2)
    r16 = os.path.join(SMOLLM2, "adapter-r16")
    for dtype in ("f32", "bf16"):
        base, merged = (os.path.join(SMOLLM2, d) for d in (dtype, "peft-merged-" + dtype))
        doc = diff(0, base, merged, r16)
        equal("PEFT's merge in %s" % dtype, (doc["explained"], doc["unexplained"]), (True, []))
        print("  PEFT %s: %d to the bit, %d rounded" % (dtype, doc["exact"], doc["rounded"]))
        if dtype == "f32":
            equal("PEFT's merge: ranks", {t["rank"] for t in doc["tensors"]}, {16})
    equal("another adapter", diff(1, base, merged, os.path.join(SMOLLM2, "adapter-rs"))["explained"], False)


PARTS = (adapters, small_angles, wide, equivalence, kinds, checkpoints, checkpoint_facts, explanations, smollm2)


def main():
    only = sys.argv[3] if sys.argv[2:3] == ["--only"] else None
    try:
        for part in PARTS:
            if only in (None, part.__name__):
                print(part.__name__, flush=True)
                part()
    finally:
        shutil.rmtree(WORK)
    print("%d faults" % faults)
    sys.exit(1 if faults else 0)


main()
