#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the models, adapters and records of this folder, which is done once: README.md says why.

    make.py BINARY OUTDIR      with numpy and a loractl that has merge --undo

BASE/ and ADAPTERS/ follow from the seed below; MERGED/ and RECORD are what BINARY makes of them.
"""

import os
import subprocess
import sys
from collections import OrderedDict

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "..", "..", "oracle"))

from contract import round_to  # noqa: E402
from files import Tensor  # noqa: E402
from fixturelib import Maker  # noqa: E402

V, H, KV = 19, 12, 6  # vocabulary, width, width of keys


def llama(m):
    """Every kind of edit but the tie, on tensors of three types, in two shards."""
    attention = "model.layers.0.self_attn."
    mlp = "model.layers.0.mlp."
    base = OrderedDict(
        [
            ("model.embed_tokens.weight", m.weight(V, H, dtype="F16")),
            ("model.layers.0.input_layernorm.weight", m.weight(H, dtype="F32")),
            (attention + "q_proj.weight", m.weight(10, H, dtype="F32")),
            (attention + "q_proj.bias", m.weight(10, dtype="F32")),
            (attention + "k_proj.weight", m.weight(KV, H, dtype="BF16")),
            (attention + "k_proj.bias", m.weight(KV, dtype="BF16")),
            (attention + "v_proj.weight", m.weight(KV, H, dtype="F16")),
            (attention + "v_proj.bias", m.weight(KV, dtype="F16")),
            (attention + "o_proj.weight", Tensor("BF16", round_to(m.normal(H, 10), "BF16"))),
            (mlp + "gate_proj.weight", m.weight(14, H, dtype="F32")),
            (mlp + "up_proj.weight", m.weight(14, H, dtype="F16")),
            (mlp + "down_proj.weight", m.weight(H, 14, dtype="BF16")),
            (mlp + "idle.weight", Tensor("F16", round_to(m.normal(4, H), "F16"))),
            ("model.norm.weight", m.weight(H, dtype="BF16")),
            ("model.positions", Tensor("I64", np.arange(7, dtype=np.uint64) * 0x0102030405060708)),
            ("lm_head.weight", m.weight(V, H, dtype="F32")),
        ]
    )
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": H,
        "intermediate_size": 14,
        "num_attention_heads": 5,
        "num_key_value_heads": 3,
        "head_dim": 2,
        "num_hidden_layers": 1,
        "vocab_size": V,
        "tie_word_embeddings": False,
    }
    m.base(base, config, shards=2)
    sums = OrderedDict()
    for name, rows in ("q_proj", 10), ("k_proj", KV), ("v_proj", KV):
        sums.update(m.pair(attention + name, rows, H, 3))
        sums[attention + name + ".lora_B.bias"] = m.normal(rows)
    sums["model.embed_tokens.token_adapter.trainable_tokens_delta"] = m.normal(3, H)
    sums["lm_head.weight"] = m.normal(V, H)  # replaced
    sums["model.norm.weight"] = m.normal(H)
    sums["score.weight"] = m.normal(2, H)  # added
    m.adapter(
        sums,
        called="sums",
        dtype="BF16",
        r=3,
        lora_alpha=5,
        lora_bias=True,
        target_modules=["q_proj", "k_proj", "v_proj"],
        modules_to_save=["lm_head", "norm", "score"],
        trainable_token_indices=[1, 4, V - 1],
        task_type="SEQ_CLS",
    )
    dora = OrderedDict()
    for name, rows, cols in ("gate_proj", 14, H), ("up_proj", 14, H), ("down_proj", H, 14):
        dora.update(m.pair(mlp + name, rows, cols, 2))
        dora[mlp + name + ".lora_magnitude_vector"] = 1 + m.normal(rows)
    # a row of gain 0: nothing of the merged row tells what it was
    dora[mlp + "gate_proj.lora_magnitude_vector"][5] = 0
    m.adapter(
        dora,
        called="dora",
        r=2,
        lora_alpha=3,
        use_dora=True,
        target_modules=["gate_proj", "up_proj", "down_proj"],
    )
    more = m.pair(attention + "q_proj", 10, H, 1)
    more.update(m.pair(attention + "o_proj", H, 10, 1))
    more.update(m.pair(mlp + "idle", 4, H, 1))
    more[mlp + "idle.lora_B.weight"][:] = 0  # an update of nothing: predicted without a residual
    m.adapter(
        more,
        called="more",
        dtype="F16",
        r=1,
        lora_alpha=3,
        target_modules=["q_proj", "o_proj", "idle"],
    )
    return ["sums", "dora", "more:-0.7", "more:0.3"]  # three parts: their order tells


def gpt2(m):
    """Conv1D: DoRA by column; tied embeddings of which an adapter changes one side."""
    block = "transformer.h.0."
    base = OrderedDict(
        [
            ("transformer.wte.weight", m.weight(V, H, dtype="F16")),
            ("transformer.wpe.weight", m.weight(5, H, dtype="F16")),
            (block + "attn.c_attn.weight", m.weight(H, 3 * H, dtype="BF16")),
            (block + "attn.c_attn.bias", m.weight(3 * H, dtype="BF16")),
            (block + "attn.c_proj.weight", m.weight(H, H, dtype="F32")),
            (block + "mlp.c_fc.weight", m.weight(H, 20, dtype="F16")),
            (block + "ln_1.weight", m.weight(H, dtype="F32")),
        ]
    )
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": H,
        "n_head": 3,
        "n_layer": 1,
        "n_positions": 5,
        "vocab_size": V,
        "tie_word_embeddings": True,
    }
    m.base(base, config)
    dora = OrderedDict()
    for name, rows, cols in ("attn.c_attn", H, 3 * H), ("attn.c_proj", H, H), ("mlp.c_fc", H, 20):
        dora.update(m.pair(block + name, cols, rows, 2))
        dora[block + name + ".lora_magnitude_vector"] = 1 + m.normal(cols)
    m.adapter(
        dora,
        called="dora",
        r=2,
        lora_alpha=3,
        use_dora=True,
        fan_in_fan_out=True,
        target_modules=["c_attn", "c_proj", "c_fc"],
    )
    tie = OrderedDict(
        [
            ("transformer.wte.lora_embedding_A", m.normal(2, V, sigma=0.15)),
            ("transformer.wte.lora_embedding_B", m.normal(H, 2, sigma=0.15)),
        ]
    )
    m.adapter(tie, called="tie", r=2, lora_alpha=7, target_modules=["wte"])
    return ["dora", "tie"]


def main():
    binary, out = os.path.abspath(sys.argv[1]), sys.argv[2]
    for seed, model in enumerate((llama, gpt2)):
        folder = os.path.join(out, model.__name__)
        os.makedirs(folder)
        adapters = model(Maker(folder, 20250 + seed))
        subprocess.run(
            [binary, "merge", "base", *adapters, "-o", "merged", "--undo", "merged.undo"],
            cwd=folder,
            check=True,
        )


if __name__ == "__main__":
    main()
