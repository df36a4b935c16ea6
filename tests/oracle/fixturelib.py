# SPDX-License-Identifier: Apache-2.0
"""Bases and adapters made with numpy alone: what the fixtures are made with.

A fixture is a function of a Maker that writes files and returns a Spec: what to run, and what
must come of it. The numbers are chosen so that a wrong program shows: B is not zero, s is no
power of two, no two dimensions agree unless the point is that they do, weights contain -0,
subnormals, exact ties and values near the top of the range.
"""

import json
import os
from collections import OrderedDict

import numpy as np

import contract
import files
from files import Tensor

FIXTURES = OrderedDict()
DTYPES = ("F32", "F16", "BF16")
P = "base_model.model."
# what PEFT 0.21 writes into every adapter_config.json
CONFIG = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": None,
    "base_model_name_or_path": "base",
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "kasa_config": None,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 13,
    "lora_bias": False,
    "lora_dropout": 0.0,
    "lora_ga_config": None,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "monteclora_config": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "r": 8,
    "rank_pattern": {},
    "revision": None,
    "target_modules": [],
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
    "velora_config": None,
}


class Spec:
    """adapters: [(path, weight or None)], the weight as the command line spells it. words: what
    stderr must name; None: must merge."""

    def __init__(self, base, adapters, **more):
        self.base, self.adapters = base, [
            a if isinstance(a, tuple) else (a, None) for a in adapters
        ]
        self.args = more.get("args", [])
        self.words = more.get("words")
        self.dtype = more.get("dtype")
        self.tie = more.get("tie", "split")
        self.note = more.get("note")
        self.status = more.get("status", 3)
        # a right program may also say that it cannot tell
        self.may_refuse = more.get("may_refuse", False)
        self.env = more.get("env", {})
        # what the oracle merges instead of the adapters, where an option changes what they mean
        self.means = more.get("means")

    def weights(self):
        """[(path, weight)] for the oracle."""
        return [(p, 1.0 if w is None else float(w)) for p, w in self.means or self.adapters]


def fixture(name):
    def keep(f):
        FIXTURES[name] = f
        return f

    return keep


class Maker:
    def __init__(self, folder, seed):
        self.folder, self.rng, self.count = folder, np.random.default_rng(seed), 0

    def normal(self, *shape, sigma=0.3):
        return (self.rng.standard_normal(shape) * sigma).astype(np.float32)

    def weight(self, *shape, dtype="F32", sigma=0.3):
        """Raw bits of a weight with odd values in odd places."""
        raw = contract.round_to(self.normal(*shape, sigma=sigma), dtype).reshape(-1)
        odd = odd_values(dtype)
        places = self.rng.permutation(raw.size)[: min(len(odd), raw.size // 3)]
        raw[places] = self.rng.permutation(odd)[: len(places)]
        return Tensor(dtype, raw.reshape(shape))

    def base(self, tensors, config=None, shards=1, name="base", single=False, extra=True):
        """tensors: name -> Tensor. A directory, or one file with `single`."""
        if single:
            path = os.path.join(self.folder, name + ".safetensors")
            files.write(path, tensors, {"format": "pt"})
            return path
        path = os.path.join(self.folder, name)
        os.makedirs(path)
        put(path, "config.json", config or {"model_type": "custom"})
        if extra:
            put(path, "generation_config.json", {"eos_token_id": 2})
            put(path, "tokenizer_config.json", {"model_max_length": 512})
            with open(os.path.join(path, "README.md"), "w", encoding="utf-8") as f:
                f.write("a fixture, \u00fcnd not more\n")
        if shards == 1:
            files.write(os.path.join(path, "model.safetensors"), tensors, {"format": "pt"})
            return path
        names = list(tensors)
        weight_map, size = {}, 0
        for i in range(shards):
            part = OrderedDict((n, tensors[n]) for n in names[i::shards])
            file = "model-%05d-of-%05d.safetensors" % (i + 1, shards)
            files.write(os.path.join(path, file), part, {"format": "pt"})
            weight_map.update({n: file for n in part})
            size += sum(t.raw.nbytes for t in part.values())
        put(
            path,
            "model.safetensors.index.json",
            {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))},
        )
        return path

    def adapter(self, tensors, dtype="F32", prefix=P, text=None, called=None, **config):
        """tensors: name without prefix -> f32 array or Tensor."""
        path = os.path.join(self.folder, called or "adapter%d" % self.count)
        self.count += 1
        os.makedirs(path)
        if text is None:
            put(path, "adapter_config.json", {**CONFIG, **config})
        else:
            with open(os.path.join(path, "adapter_config.json"), "w") as f:
                f.write(text)
        made = OrderedDict()
        for n, t in tensors.items():
            made[prefix + n] = (
                t
                if isinstance(t, Tensor)
                else Tensor(dtype, contract.round_to(np.asarray(t, dtype=np.float32), dtype))
            )
        files.write(os.path.join(path, "adapter_model.safetensors"), made, {"format": "pt"})
        return path

    def pair(self, module, out, inn, r, sigma=0.15):
        """lora_A and lora_B for a module; ints or trailing shapes."""
        inn = inn if isinstance(inn, tuple) else (inn,)
        return {
            module + ".lora_A.weight": self.normal(r, *inn, sigma=sigma),
            module + ".lora_B.weight": self.normal(out, r, *([1] * (len(inn) - 1)), sigma=sigma),
        }


def put(path, name, value):
    with open(os.path.join(path, name), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def odd_values(dtype):
    """Bits of: both zeros, subnormals, the smallest normals, powers of two and their neighbours."""
    if dtype == "F32":
        v = [
            0,
            1 << 31,
            1,
            0x80000001,
            0x7FFFFF,
            0x807FFFFF,
            0x800000,
            0x80800000,
            0x3F800000,
            0x3F7FFFFF,
            0xBF800001,
            0x00012345,
        ]
        return np.array(v, dtype=np.uint32)
    e = 10 if dtype == "F16" else 7
    one = 0x3C00 if dtype == "F16" else 0x3F80
    v = [
        0,
        0x8000,
        1,
        0x8001,
        (1 << e) - 1,
        0x8000 | ((1 << e) - 1),
        1 << e,
        0x8000 | (1 << e),
        one,
        one - 1,
        0x8000 | (one + 1),
        3,
    ]
    return np.array(v, dtype=np.uint16)


def llama_shapes(layers=2, hidden=40, kv=16, inner=56, vocab=67, tied=False):
    s = OrderedDict([("model.embed_tokens.weight", (vocab, hidden))])
    for i in range(layers):
        p = "model.layers.%d." % i
        s.update(
            {
                p + "input_layernorm.weight": (hidden,),
                p + "self_attn.q_proj.weight": (hidden, hidden),
                p + "self_attn.k_proj.weight": (kv, hidden),
                p + "self_attn.v_proj.weight": (kv, hidden),
                p + "self_attn.o_proj.weight": (hidden, hidden),
                p + "mlp.gate_proj.weight": (inner, hidden),
                p + "mlp.up_proj.weight": (inner, hidden),
                p + "mlp.down_proj.weight": (hidden, inner),
                p + "post_attention_layernorm.weight": (hidden,),
            }
        )
    s["model.norm.weight"] = (hidden,)
    if not tied:
        s["lm_head.weight"] = (vocab, hidden)
    return s


def llama_config(tied=False, **more):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 40,
        "intermediate_size": 56,
        "num_attention_heads": 5,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_hidden_layers": 2,
        "vocab_size": 67,
        "tie_word_embeddings": tied,
        **more,
    }


def llama(m, dtype="F32", tied=False, rename=None, **more):
    """A base with grouped-query attention; rename: a function of the tensors' names."""
    tensors = OrderedDict()
    for n, shape in llama_shapes(tied=tied).items():
        tensors[(rename or str)(n)] = m.weight(*shape, dtype=dtype)
    return m.base(tensors, llama_config(tied), **more)


LINEAR = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def llama_lora(m, r=8, only=LINEAR, ranks=None, prefix="model.", layers=(0, 1)):
    """Factors for the named linear modules of every layer."""
    shapes, out = llama_shapes(), {}
    for i in layers:
        for n in only:
            full = "model.layers.%d.%s" % (i, n)
            o, k = shapes[full + ".weight"]
            out.update(m.pair(prefix + full[len("model.") :], o, k, (ranks or {}).get(n, r)))
    return out
