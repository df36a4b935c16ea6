# SPDX-License-Identifier: Apache-2.0
"""What a merge of PEFT adapters must give, computed from the files alone.

merged(base, adapters) returns every tensor of the expected output as bits, the changes to
config.json, and for each adapted tensor the same update in f64 (an independent check of the
contract itself). It works in three steps, each a function below, none of which looks at a model's
code:

    names    an adapter's tensor names -> updates of named base tensors      (resolve)
    numbers  one tensor's updates -> its new bits, by contract.py            (apply)
    ties     what happens to the second name of a shared embedding           (merged)

What is refused raises Refused with a text that names the tensor or key in question.

PEFT's file format, as far as it matters here. P is a module's path in the adapter's own naming, r
the rank:

    P.lora_A.weight [r, in...], P.lora_B.weight [out, r, 1...]
                                  Linear, Conv1D, convolutions, 2-D parameters
    P.lora_embedding_A [r, rows], P.lora_embedding_B [dim, r]
                                  Embedding: the update is (B A)^T
    P.lora_B.bias [out]           added to P.bias with the same scale
    P.lora_magnitude_vector       DoRA
    P.base_layer.out_proj.lora_*  the second half of a MultiheadAttention, whose first half is
                                  P.in_proj_weight
    P.base_layer.lora_*           a parameter of P below the outermost one, when several are adapted
    P.token_adapter.trainable_tokens_delta
                                  rows that replace rows
    P.base_layer.<name>, and any name without a marker
                                  a whole tensor that replaces one, or is new
"""

import math
import re
from collections import OrderedDict

import numpy as np

import contract
from files import Tensor

PREFIXES = ("model.", "transformer.", "base_model.model.")
CONV1D = {  # modules that store [in, out]; by model_type
    "gpt2": r"(^|\.)((cross)?att(ention|n)\.(c_attn|q_attn|c_proj)|mlp\.(c_fc|c_proj))$",
    "openai-gpt": r"(^|\.)(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)$",
}
# experts in 3-D parameters: the order in which the module registers them (the first is
# innermost), and whether an adapter's A belongs to the first of the two matrix axes (PEFT's
# is_transposed)
EXPERTS = {
    "gpt_oss": (("gate_up_proj", "down_proj"), True),
    "llama4": (("gate_up_proj", "down_proj"), False),
    "llama4_text": (("gate_up_proj", "down_proj"), False),
}
# files that hold each expert's matrices singly, where the adapter sees them fused: module, then
# for each fused parameter the file's names in the order of their rows
UNFUSED = {
    "mixtral": (
        r"^(.*\.)mlp\.experts$",
        r"\1block_sparse_moe.experts",
        {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)},
    ),
    "qwen2_moe": (
        r"^(.*\.mlp\.experts)$",
        r"\1",
        {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)},
    ),
    "qwen3_moe": (
        r"^(.*\.mlp\.experts)$",
        r"\1",
        {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)},
    ),
    "olmoe": (
        r"^(.*\.mlp\.experts)$",
        r"\1",
        {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)},
    ),
}
# modules that transformers 5 names otherwise than the files do
VIT = (
    (
        r"(^|\.)layers\.(\d+)\.attention\.(q|k|v)_proj\b",
        lambda m: "%sencoder.layer.%s.attention.attention.%s"
        % (m[1], m[2], {"q": "query", "k": "key", "v": "value"}[m[3]]),
    ),
    (r"(^|\.)layers\.(\d+)\.attention\.o_proj\b", r"\1encoder.layer.\2.attention.output.dense"),
    (r"(^|\.)layers\.(\d+)\.mlp\.fc1\b", r"\1encoder.layer.\2.intermediate.dense"),
    (r"(^|\.)layers\.(\d+)\.mlp\.fc2\b", r"\1encoder.layer.\2.output.dense"),
    (r"(^|\.)layers\.(\d+)\.", r"\1encoder.layer.\2."),
)
RENAMED = {"vit": VIT, "deit": VIT}
INPUT_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "shared.weight",
)
OUTPUT_EMBEDDING = "lm_head.weight"


class Refused(Exception):
    pass


# ------------------------------------------------------------------------------------------------
# updates of one tensor; each holds what the contract needs and nothing of where it came from


class LowRank:
    """D = s * B A, seen through `place`: (target view) -> the [m, n] matrix of the update, by
    reshape or transpose."""

    def __init__(self, B, A, s, s64, out_axis=0, view=None):
        self.B, self.A, self.s, self.s64 = B, A, s, s64
        self.out_axis = out_axis  # the axis of the target that belongs to B
        self.view = view  # of an expert: index into the target's first axis

    def update(self, shape):
        with np.errstate(all="ignore"):
            d = contract.scaled(self.s, contract.chain(self.B, self.A))
        return self._shaped(d, shape)

    def update64(self, shape):
        """The same in f64, and the bound of the f32 chain's error: |s| (r + 3) u sum |B||A|, plus
        underflow."""
        B, A = self.B.astype(np.float64), self.A.astype(np.float64)
        r = B.shape[1]
        bound = (
            abs(self.s64) * ((r + 3) * 2.0**-24 * (np.abs(B) @ np.abs(A)) + (r + 2) * 2.0**-149)
            + 2.0**-149
        )
        return self._shaped(self.s64 * (B @ A), shape), self._shaped(bound, shape)

    def _shaped(self, d, shape):
        return np.ascontiguousarray(d.T).reshape(shape) if self.out_axis else d.reshape(shape)


class Dense:
    """D = s * b, the bias that an adapter adds."""

    def __init__(self, b, s, s64):
        self.b, self.s, self.s64 = b, s, s64

    def update(self, shape):
        return contract.scaled(self.s, self.b).reshape(shape)

    def update64(self, shape):
        d = self.s64 * self.b.astype(np.float64)
        return d.reshape(shape), (2 * 2.0**-24 * np.abs(d) + 2.0**-149).reshape(shape)


class Experts:
    """Updates of the experts of one 3-D tensor."""

    def __init__(self, parts):
        self.parts = parts

    def update(self, shape):
        return np.stack([p.update(shape[1:]) for p in self.parts])

    def update64(self, shape):
        pairs = [p.update64(shape[1:]) for p in self.parts]
        return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])


class Plan:
    """Everything that happens to one tensor of the output."""

    def __init__(self):
        self.replace = None  # Tensor
        self.adds = []  # one list of updates, in the order of the adapters
        self.rows = []  # (indices, Tensor)
        self.magnitude = None  # (f32 [out], out_axis)
        self.dora_count = 0

    def empty(self):
        return self.replace is None and not self.adds and not self.rows


# ------------------------------------------------------------------------------------------------
# the config


def first_pattern(patterns, name):
    """PEFT's rule: the keys are regular expressions, tried in the file's order."""
    for key, value in (patterns or {}).items():
        if re.match(r"(.*\.)?(%s)$" % key, name):
            return value
    return None


class Scale:
    """r, alpha and s of a module, by its name as PEFT calls it."""

    def __init__(self, config, name, weight):
        r = first_pattern(config.get("rank_pattern"), name)
        alpha = first_pattern(config.get("alpha_pattern"), name)
        self.r = config.get("r", 8) if r is None else r
        self.alpha = config.get("lora_alpha", 8) if alpha is None else alpha
        rslora = bool(config.get("use_rslora"))
        self.s = contract.scale(self.alpha, self.r, rslora, weight)
        self.s64 = (
            float(weight) * float(self.alpha) / (math.sqrt(self.r) if rslora else float(self.r))
        )


def f32(t):
    return contract.widen(t.raw, t.dtype)


# ------------------------------------------------------------------------------------------------
# names


def wrap_names(base, keys):
    """The one way to add or strip a leading component under which every name of `keys` has a
    place."""

    def strip(p):
        return lambda n: n[len(p) :] if n.startswith(p) else n

    def prepend(p):
        return lambda n: p + n

    ways = [lambda n: n]
    for p in PREFIXES:
        ways += [strip(p), prepend(p)]
    return ways


MARKERS = re.compile(
    r"^(?P<module>.*?)\.(?:(?P<what>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.(?P<leaf>weight|bias))?|token_adapter\.(?P<rows>trainable_tokens_delta)|base_layer\.(?P<whole>weight|bias))$"
)


def grouped(tensors):
    """(modules: path -> {what: Tensor}, whole: name -> Tensor), `base_model.model.` gone."""
    modules, whole = OrderedDict(), OrderedDict()
    for key, t in tensors.items():
        name = key[len("base_model.model.") :] if key.startswith("base_model.model.") else key
        m = MARKERS.match(name)
        if not m:
            whole[name] = t
        elif m["whole"]:
            whole[m["module"] + "." + m["whole"]] = t
        elif m["rows"]:
            modules.setdefault(m["module"], {})["rows"] = t
        else:
            what = m["what"] + (".bias" if m["leaf"] == "bias" else "")
            modules.setdefault(m["module"], {})[what] = t
    return modules, whole


class Resolver:
    """Finds the base's name for an adapter's, for one adapter."""

    def __init__(self, base, adapter, weight):
        self.base, self.config, self.weight = base, adapter.config, weight
        self.modules, self.whole = grouped(adapter.tensors)
        self.model_type = base.config.get("model_type", "")
        self.head = OUTPUT_EMBEDDING if tied(base) else None

    def exists(self, name):
        return name in self.base.tensors or name == self.head

    def shape(self, name):
        if name not in self.base.tensors and name == self.head:
            return self.base.tensors[input_embedding(self.base)].shape
        return self.base.tensors[name].shape

    def targets(self, path, parts, way):
        """[(name, expert or None, rows or None)] of the tensors that a module's factors change,
        or None."""
        depth = 0
        while path.endswith(".base_layer"):
            path, depth = path[: -len(".base_layer")], depth + 1
        if path.endswith(".base_layer.out_proj"):
            path = path[: -len(".base_layer.out_proj")] + ".out_proj"
        module = self.renamed(way(path))
        params = self.parameters(path, module)
        if params:
            return params[len(params) - 1 - depth]
        for name in (module + ".weight", module + ".in_proj_weight"):
            if depth == 0 and self.exists(name):
                return [(name, None, None)]
        return None

    def renamed(self, module):
        """The file's name of a module, where transformers has given it another since."""
        if any(n == module or n.startswith(module + ".") for n in self.base.tensors):
            return module
        for pattern, to in RENAMED.get(self.model_type, ()):
            new = re.sub(pattern, to, module)
            if any(n == new or n.startswith(new + ".") for n in self.base.tensors):
                return new
        return module

    def parameters(self, path, module):
        """The adapted parameters of a module in the order of their registration, if it is adapted
        by parameters."""
        wanted = self.config.get("target_parameters") or []
        hit = lambda p: any(
            (path + "." + p) == w or (path + "." + p).endswith("." + w) for w in wanted
        )
        if self.model_type in UNFUSED:
            pattern, to, fused = UNFUSED[self.model_type]
            if re.match(pattern, module):
                home = re.sub(pattern, to, module)
                return [
                    [("%s.%%d.%s.weight" % (home, f), "each", None) for f in files]
                    for p, files in fused.items()
                    if hit(p)
                ]
        order = EXPERTS.get(self.model_type, ((), False))[0]
        own = [
            n[len(module) + 1 :]
            for n in self.base.tensors
            if n.startswith(module + ".") and "." not in n[len(module) + 1 :]
        ]
        own.sort(key=lambda p: order.index(p) if p in order else len(order))
        return [[(module + "." + p, None, p)] for p in own if hit(p)]

    def resolve(self, plans, added):
        failures = None
        for way in wrap_names(self.base, None):
            missing = [
                p for p, parts in self.modules.items() if self.targets(p, parts, way) is None
            ]
            missing += [
                n
                for n in self.whole
                if not self.exists(self.renamed(way(n))) and not self.is_new(n)
            ]
            if not missing:
                break
            failures = failures or missing
        else:
            raise Refused("no place for " + ", ".join(failures))
        for path, parts in self.modules.items():
            self.module(path, parts, way, plans)
        for name, t in self.whole.items():
            self.replace(self.renamed(way(name)), t, plans, added)

    def is_new(self, name):
        wanted = self.config.get("modules_to_save") or []
        return any(re.match(r"(^|.*\.)%s($|\..*)" % re.escape(m), name) for m in wanted)

    def replace(self, name, t, plans, added):
        if not self.exists(name):
            if name in added and not added[name].same(t):
                raise Refused("two adapters bring different '%s'" % name)
            added[name] = t
            return
        plan = plans.setdefault(name, Plan())
        if self.weight != 1 and not self.equals_base(name, t):
            raise Refused("weight on the replacement '%s'" % name)
        if plan.replace is not None and not plan.replace.same(t):
            raise Refused("two adapters replace '%s'" % name)
        plan.replace = t

    def equals_base(self, name, t):
        b = self.base.tensors.get(name)
        return b is not None and b.same(t)

    # --------------------------------------------------------------------------------------------

    def module(self, path, parts, way, plans):
        targets = self.targets(path, parts, way)
        if "rows" in parts:
            self.rows(path, parts["rows"], targets[0][0], plans)
        if "lora_embedding_A" in parts:
            self.embedding(path, parts, targets[0][0], plans)
        elif "lora_A" in parts or "lora_B" in parts:
            if "lora_A" not in parts or "lora_B" not in parts:
                raise Refused("half of a pair: '%s'" % path)
            self.pair(path, parts, targets, way, plans)

    def scale_of(self, path, parameter=None):
        """The name against which PEFT matches a pattern: the module's; a parameter's in full."""
        name = path
        while name.endswith(".base_layer"):
            name = name[: -len(".base_layer")]
        name = re.sub(r"\.base_layer\.out_proj$", "", name)
        return Scale(self.config, name + ("." + parameter if parameter else ""), self.weight)

    def pair(self, path, parts, targets, way, plans):
        A, B = parts["lora_A"], parts["lora_B"]
        name, expert, parameter = targets[0]
        if expert == "each":
            return self.fused(path, A, B, targets, plans)
        shape = self.shape(name)
        sc = self.scale_of(path, parameter)
        if len(shape) == 3 and parameter:
            return self.stacked(path, A, B, name, shape, sc, plans)
        a, b = f32(A), f32(B)
        r = sc.r
        if a.shape[0] != r or b.shape[1] != r:
            raise Refused(
                "'%s': rank %d in the config, factors %s and %s" % (path, r, a.shape, b.shape)
            )
        a, b = a.reshape(r, -1), b.reshape(b.shape[0], -1)
        axis = self.orientation(way(path), name, shape, a, b)
        out = shape[1] if axis else shape[0]
        rest = shape[0] if axis else int(np.prod(shape[1:], dtype=np.int64))
        if (b.shape[0], a.shape[1]) != (out, rest) or b.shape[1] != r:
            raise Refused("'%s': %s x %s does not fit %s" % (path, b.shape, a.shape, shape))
        plan = plans.setdefault(name, Plan())
        plan.adds.append(LowRank(b, a, sc.s, sc.s64, axis))
        if "lora_magnitude_vector" in parts:
            self.dora(name, plan, f32(parts["lora_magnitude_vector"]).reshape(-1), axis)
        elif plan.dora_count:
            raise Refused("a second adapter on the DoRA module '%s'" % name)
        if "lora_B.bias" in parts:
            bias = re.sub(r"weight$", "bias", name)
            if not self.exists(bias):
                raise Refused("'%s' has no bias for lora_bias" % name)
            plans.setdefault(bias, Plan()).adds.append(
                Dense(f32(parts["lora_B.bias"]), sc.s, sc.s64)
            )

    def dora(self, name, plan, magnitude, axis):
        if len(plan.adds) > 1 or plan.dora_count:
            raise Refused("a second adapter on the DoRA module '%s'" % name)
        if self.weight != 1:
            raise Refused("weight on the DoRA module '%s'" % name)
        plan.magnitude, plan.dora_count = (magnitude, axis), 1

    def orientation(self, module, name, shape, a, b):
        """0: the target is [out, in...]; 1: it is [in, out]."""
        if len(shape) != 2:
            return 0
        pair = (b.shape[0], a.shape[1])
        fits = [
            axis for axis, want in enumerate((tuple(shape), tuple(shape[::-1]))) if pair == want
        ]
        if not fits:
            raise Refused("'%s': %s does not fit %s" % (name, pair, shape))
        if self.model_type in CONV1D:
            axis = int(bool(re.search(CONV1D[self.model_type], module)))
            if axis not in fits:
                raise Refused("'%s': the shapes contradict the model type" % name)
            return axis
        if len(fits) == 1:
            return fits[0]
        votes = set(self.votes())
        return votes.pop() if len(votes) == 1 else 0

    def votes(self):
        for path, parts in self.modules.items():
            if "lora_A" not in parts or "lora_B" not in parts or parts["lora_A"].raw.ndim != 2:
                continue
            for way in wrap_names(self.base, None):
                t = self.targets(path, parts, way)
                if t and t[0][1] is None and self.exists(t[0][0]):
                    shape = self.shape(t[0][0])
                    pair = (parts["lora_B"].shape[0], parts["lora_A"].shape[1])
                    if len(shape) == 2 and shape[0] != shape[1]:
                        yield int(pair == tuple(shape[::-1]))
                    break

    def stacked(self, path, A, B, name, shape, sc, plans):
        """Experts in one tensor [E, d1, d2]. A [E r, .] has the expert slowest, B [., r E] has it
        fastest."""
        E, d1, d2 = shape
        r = sc.r
        if A.shape[0] != E * r or B.shape[1] != E * r:
            raise Refused(
                "'%s': %d experts of rank %d, factors %s and %s" % (path, E, r, A.shape, B.shape)
            )
        fits = []
        if (A.shape[1], B.shape[0]) == (d2, d1):
            fits.append(False)
        if (A.shape[1], B.shape[0]) == (d1, d2):
            fits.append(True)
        if not fits:
            raise Refused("'%s': factors do not fit %s" % (path, shape))
        if len(fits) == 2 and self.model_type not in EXPERTS:
            raise Refused("'%s': square experts of an unknown model type" % path)
        swapped = fits[0] if len(fits) == 1 else EXPERTS[self.model_type][1]
        if self.model_type in EXPERTS and EXPERTS[self.model_type][1] != swapped:
            raise Refused("'%s': the shapes contradict the model type" % path)
        a, b = f32(A).reshape(E, r, -1), f32(B).reshape(B.shape[0], r, E)
        parts = [LowRank(b[:, :, e], a[e], sc.s, sc.s64, int(swapped)) for e in range(E)]
        plans.setdefault(name, Plan()).adds.append(Experts(parts))

    def fused(self, path, A, B, targets, plans):
        """An adapter of fused experts on a file that holds every expert's matrices singly."""
        parameter = "gate_up_proj" if len(targets) > 1 else "down_proj"
        sc = self.scale_of(path, parameter)
        r = sc.r
        E = 0
        while targets[0][0] % E in self.base.tensors:
            E += 1
        if A.shape[0] != E * r or B.shape[1] != E * r:
            raise Refused(
                "'%s': %d experts of rank %d, factors %s and %s" % (path, E, r, A.shape, B.shape)
            )
        a, b = f32(A).reshape(E, r, -1), f32(B).reshape(B.shape[0], r, E)
        for e in range(E):
            at = 0
            for pattern, _, _ in targets:
                name = pattern % e
                rows, cols = self.base.tensors[name].shape
                if a.shape[2] != cols or at + rows > b.shape[0]:
                    raise Refused("'%s' does not fit '%s'" % (path, name))
                plans.setdefault(name, Plan()).adds.append(
                    LowRank(b[at : at + rows, :, e], a[e], sc.s, sc.s64)
                )
                at += rows
            if at != b.shape[0]:
                raise Refused("'%s': %d rows for %d" % (path, b.shape[0], at))

    def embedding(self, path, parts, name, plans):
        """The update is (B A)^T for the stored [rows, dim]; A [r, rows], B [dim, r]."""
        a, b = f32(parts["lora_embedding_A"]), f32(parts["lora_embedding_B"])
        sc = self.scale_of(path)
        rows = self.whole_rows(path, name)
        if a.shape != (sc.r, rows) or b.shape != (self.shape(name)[1], sc.r):
            raise Refused("'%s': factors do not fit %s" % (path, self.shape(name)))
        plan = plans.setdefault(name, Plan())
        plan.adds.append(LowRank(b, a, sc.s, sc.s64, 1))
        if "lora_magnitude_vector" in parts:
            self.dora(name, plan, f32(parts["lora_magnitude_vector"]).reshape(-1), 1)
        elif plan.dora_count:
            raise Refused("a second adapter on the DoRA module '%s'" % name)

    def whole_rows(self, path, name):
        t = self.whole.get(path + ".weight")
        return t.shape[0] if t is not None else self.shape(name)[0]

    def rows(self, path, t, name, plans):
        wanted = self.config.get("trainable_token_indices")
        if isinstance(wanted, dict):
            hits = [v for k, v in wanted.items() if path == k or path.endswith("." + k)]
            if len(hits) != 1:
                raise Refused("no token indices for '%s'" % path)
            wanted = hits[0]
        if len(wanted) != t.shape[0]:
            raise Refused("'%s': %d indices for %d rows" % (path, len(wanted), t.shape[0]))
        if max(wanted) >= self.shape(name)[0]:
            raise Refused("'%s': token index out of range" % path)
        if self.weight != 1:
            raise Refused("weight on the replacement '%s'" % name)
        plan = plans.setdefault(name, Plan())
        if any(set(wanted) & set(i) for i, _ in plan.rows):
            raise Refused("two adapters replace rows of '%s'" % name)
        plan.rows.append((list(wanted), t))


# ------------------------------------------------------------------------------------------------
# ties


def input_embedding(base):
    for name in base.tensors:
        if any(name == n or name.endswith("." + n) for n in INPUT_EMBEDDINGS):
            return name
    return None


def tied(base):
    """One stored tensor, used at both ends: no output embedding in the file, and the config does
    not deny it."""
    if OUTPUT_EMBEDDING in base.tensors or input_embedding(base) is None:
        return False
    architectures = base.config.get("architectures") or []
    language = any(
        a.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
        for a in architectures
    )
    default = not base.config.get("model_type", "").startswith(
        ("llama", "mistral", "mixtral", "qwen")
    )
    return language and bool(base.config.get("tie_word_embeddings", default))


def same_plan(x, y, shape):
    if x is None or y is None:
        return False
    if (x.replace is None) != (y.replace is None) or (
        x.replace is not None and not x.replace.same(y.replace)
    ):
        return False
    if x.magnitude or y.magnitude or len(x.adds) != len(y.adds):
        return False
    for p, q in zip(x.adds, y.adds):
        if p.s != q.s or not (p.update(shape) == q.update(shape)).all():
            return False
    return True


# ------------------------------------------------------------------------------------------------
# numbers


class Result:
    """`tensors`: the expected bits. `reference`: name -> (f64 values, bound of the f32 error).
    `config`: changes."""

    def __init__(self):
        self.tensors, self.reference, self.config, self.added, self.plans = (
            OrderedDict(),
            {},
            {},
            [],
            {},
        )


def apply(name, W, plan, out_dtype, result):
    """The new tensor, and its f64 reference."""
    try:
        t = replaced(W, plan, out_dtype)
        if plan.adds:
            t = updated(name, t, plan, out_dtype or W.dtype, result)
        for indices, rows in plan.rows:
            raw = t.raw.copy()
            new = rows.raw if rows.dtype == t.dtype else contract.narrow(f32(rows), t.dtype)
            raw[np.array(indices)] = new
            t = Tensor(t.dtype, raw)
    except contract.NotRepresentable as e:
        raise Refused("'%s': %s" % (name, e)) from e
    return t


def replaced(W, plan, out_dtype):
    if plan.replace is None:
        return W if not plan.rows or plan.adds or not out_dtype else recast(W, out_dtype)
    if plan.adds:
        return recast(plan.replace, W.dtype)
    return recast(plan.replace, out_dtype or W.dtype)


def recast(t, dtype):
    if t.dtype == dtype:
        contract.require_finite(f32(t), "replacement")
        return t
    return Tensor(dtype, contract.narrow(f32(t), dtype))


def updated(name, W, plan, dtype, result):
    w = f32(W)
    contract.require_finite(w, "base")
    t = contract.add(w, contract.accumulate([u.update(w.shape) for u in plan.adds], w.shape))
    exact, bound = w.astype(np.float64), np.full(w.shape, 2.0**-149)
    with np.errstate(all="ignore"):
        partial = 0
        for u in plan.adds:
            d, e = u.update64(w.shape)
            exact, partial = exact + d, partial + d
            bound = bound + e + 2.0**-24 * (np.abs(d) + np.abs(partial))
        if plan.magnitude is not None:
            t, exact, bound = directed(t, exact, bound, plan.magnitude)
    raw = contract.narrow(t, dtype)
    result.reference[name] = (exact, bound)
    return Tensor(dtype, raw)


def directed(t, exact, bound, how):
    """DoRA on a tensor of any rank: rows are what belongs to the axis of the outputs."""
    magnitude, axis = how
    rows = (lambda x: np.ascontiguousarray(x.T)) if axis else (lambda x: x.reshape(x.shape[0], -1))
    back = (lambda x: np.ascontiguousarray(x.T)) if axis else (lambda x: x.reshape(t.shape))
    tm, em, bm = rows(t), rows(exact), rows(bound)
    if magnitude.shape[0] != tm.shape[0]:
        raise Refused("%d magnitudes for %d rows" % (magnitude.shape[0], tm.shape[0]))
    new = contract.dora(tm, magnitude)
    norm = np.sqrt((em**2).sum(axis=1, keepdims=True))
    g = magnitude.astype(np.float64)[:, None] / norm
    off = np.sqrt((bm**2).sum(axis=1, keepdims=True)) / norm
    want = g * em
    u = 2.0**-24
    slack = np.abs(g) * (bm + u * np.abs(em)) + np.abs(want) * (off + 3 * u) + 2.0**-149
    return back(new), back(want), back(slack)


def merged(base, adapters, dtype=None, tie="split"):
    """The expected output of `merge BASE ADAPTER:WEIGHT...`; adapters is [(Adapter, weight)]."""
    plans, added = OrderedDict(), OrderedDict()
    for adapter, weight in adapters:
        Resolver(base, adapter, weight).resolve(plans, added)
    result = Result()
    result.plans = plans
    is_tied, first = tied(base), input_embedding(base)
    head = plans.pop(OUTPUT_EMBEDDING, None) if is_tied else None
    split = False
    if is_tied:
        body = plans.get(first)
        one = head is not None or (body is not None and (body.adds or body.replace is not None))
        both = head is not None and same_plan(body, head, base.tensors[first].shape)
        split = bool(one) and not both
        if split and tie == "refuse":
            raise Refused("an adapter of one side of the tied '%s'" % first)
    for name, W in base.tensors.items():
        plan = plans.get(name)
        result.tensors[name] = (
            W if plan is None or plan.empty() else apply(name, W, plan, dtype, result)
        )
    if split:
        W = base.tensors[first]
        head = head or Plan()
        head.rows = head.rows or (plans[first].rows if first in plans else [])
        result.tensors[OUTPUT_EMBEDDING] = (
            W if head.empty() else apply(OUTPUT_EMBEDDING, W, head, dtype, result)
        )
        result.config["tie_word_embeddings"] = False
        result.added.append(OUTPUT_EMBEDDING)
    for name, t in added.items():
        result.tensors[name] = t
        result.added.append(name)
    rows = result.tensors[first].shape[0] if first else 0
    if first and rows > base.tensors[first].shape[0] and "vocab_size" in base.config:
        result.config["vocab_size"] = rows
    return result
