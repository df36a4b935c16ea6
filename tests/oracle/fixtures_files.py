# SPDX-License-Identifier: Apache-2.0
"""Fixtures: names, files, and what must be refused."""

import json
import os
from collections import OrderedDict

import numpy as np

from fixturelib import FIXTURES, CONFIG, fixture, LINEAR, llama, llama_lora, Spec

# names and files


@fixture("sharded")
def sharded(m):
    return Spec(llama(m, "BF16", shards=4), [m.adapter(llama_lora(m), target_modules=["q_proj"])])


@fixture("single-file")
def single_file(m):
    return Spec(llama(m, "F16", single=True), [m.adapter(llama_lora(m), target_modules=["q_proj"])])


@fixture("hub-cache-links")
def hub_cache(m):
    """A snapshot whose files are links into a store of blobs."""
    path = llama(m, "BF16")
    store = os.path.join(m.folder, "blobs")
    os.makedirs(store)
    for n in os.listdir(path):
        os.rename(os.path.join(path, n), os.path.join(store, n))
        os.symlink(os.path.join("..", "blobs", n), os.path.join(path, n))
    return Spec(path, [m.adapter(llama_lora(m), target_modules=["q_proj"])])


@fixture("names-without-prefix")
def names_without_prefix(m):
    return Spec(llama(m), [m.adapter(llama_lora(m), prefix="", target_modules=["q_proj"])])


@fixture("base-of-the-inner-model")
def base_inner(m):
    base = llama(m, rename=lambda n: n[len("model.") :] if n.startswith("model.") else n)
    return Spec(base, [m.adapter(llama_lora(m), target_modules=["q_proj"])])


@fixture("adapter-of-the-inner-model")
def adapter_inner(m):
    return Spec(llama(m), [m.adapter(llama_lora(m, prefix=""), target_modules=["q_proj"])])


@fixture("unmatched")
def unmatched(m):
    t = {**llama_lora(m), **m.pair("model.layers.0.self_attn.query_proj", 40, 40, 8)}
    return Spec(llama(m), [m.adapter(t, target_modules=["q_proj"])], words=["query_proj", "q_proj"])


@fixture("unmatched-layer")
def unmatched_layer(m):
    t = {**llama_lora(m), **m.pair("model.layers.9.self_attn.q_proj", 40, 40, 8)}
    return Spec(llama(m), [m.adapter(t, target_modules=["q_proj"])], words=["layers.9"])


@fixture("unmatched-allowed")
def unmatched_allowed(m):
    """The rest is merged as if the tensors without a place were not there."""
    t = llama_lora(m)
    u = {**t, **m.pair("model.layers.9.self_attn.q_proj", 40, 40, 8), "other.weight": m.normal(3)}
    whole = m.adapter(u, target_modules=["q_proj"])
    rest = m.adapter(t, target_modules=["q_proj"])
    return Spec(llama(m), [whole], args=["--allow-unmatched"], means=[(rest, None)])


@fixture("adapter-as-a-file")
def adapter_file(m):
    path = m.adapter(llama_lora(m), target_modules=["q_proj"])
    return Spec(llama(m), [(os.path.join(path, "adapter_model.safetensors"), "0.75")])


@fixture("name-that-looks-like-a-weight")
def colon_name(m):
    """A path that exists as a whole is no path with a weight."""
    path = m.adapter(llama_lora(m), called="lora:3", target_modules=["q_proj"])
    return Spec(llama(m), [path])


@fixture("name-that-looks-like-a-weight-weighted")
def colon_name_weight(m):
    path = m.adapter(llama_lora(m), called="lora:3", target_modules=["q_proj"])
    return Spec(llama(m), [(path, "0.5")])


@fixture("half-a-pair")
def half_a_pair(m):
    t = llama_lora(m)
    del t["model.layers.1.mlp.up_proj.lora_B.weight"]
    return Spec(
        llama(m), [m.adapter(t, target_modules=["q_proj"])], words=["model.layers.1.mlp.up_proj"]
    )


@fixture("wrong-shape")
def wrong_shape(m):
    t = {**llama_lora(m), **m.pair("model.layers.1.mlp.up_proj", 57, 40, 8)}
    return Spec(
        llama(m), [m.adapter(t, target_modules=["q_proj"])], words=["model.layers.1.mlp.up_proj"]
    )


@fixture("rank-contradicts-config")
def rank_contradicts(m):
    return Spec(
        llama(m), [m.adapter(llama_lora(m, r=4), r=8, target_modules=["q_proj"])], words=["proj"]
    )


@fixture("changes-nothing")
def changes_nothing(m):
    t = {n: np.zeros_like(v) if "lora_B" in n else v for n, v in llama_lora(m).items()}
    return Spec(llama(m), [m.adapter(t, target_modules=["q_proj"])], words=["--allow-noop"])


@fixture("changes-nothing-allowed")
def changes_nothing_allowed(m):
    """Every -0 of an adapted tensor becomes +0 all the same."""
    t = {n: np.zeros_like(v) if "lora_B" in n else v for n, v in llama_lora(m).items()}
    return Spec(llama(m), [m.adapter(t, target_modules=["q_proj"])], args=["--allow-noop"])


# ------------------------------------------------------------------------------------------------
# refusals by config


def make_refusals():
    def plain(m, words=None, args=(), **config):
        return Spec(
            llama(m),
            [m.adapter(llama_lora(m), **{"target_modules": ["q_proj"], **config})],
            words=words,
            args=list(args),
        )

    table = {
        "unknown-key": (dict(use_magic=True), ["use_magic"]),
        "unknown-key-number": (dict(magic_factor=2), ["magic_factor"]),
        "layer-replication": (dict(layer_replication=[[0, 1], [0, 1]]), ["layer_replication"]),
        "pissa": (dict(init_lora_weights="pissa"), ["pissa"]),
        "pissa-niter": (dict(init_lora_weights="pissa_niter_16"), ["pissa_niter_16"]),
        "olora": (dict(init_lora_weights="olora"), ["olora"]),
        "alora": (dict(alora_invocation_tokens=[1, 2]), ["alora_invocation_tokens"]),
        "arrow": (dict(arrow_config={"top_k": 3}), ["arrow_config"]),
        "kasa": (dict(kasa_config={"beta": 1.0}), ["kasa_config"]),
        "qalora": (dict(use_qalora=True), ["use_qalora"]),
    }
    for name, (config, words) in table.items():
        fixture("refuse-" + name)(lambda m, c=config, w=words: plain(m, w, **c))
    for kind in (
        "IA3",
        "LOHA",
        "LOKR",
        "OFT",
        "BOFT",
        "VERA",
        "ADALORA",
        "PROMPT_TUNING",
        "NO_SUCH_TYPE",
    ):
        fixture("refuse-type-" + kind.lower())(lambda m, k=kind: plain(m, [k], peft_type=k))
    fixture("unknown-keys-without-value")(
        lambda m: plain(m, new_flag=False, new_thing=None, new_list=[], new_map={})
    )
    fixture("unknown-key-allowed")(lambda m: plain(m, args=["--allow-unknown"], use_magic=True))


make_refusals()


@fixture("refuse-duplicate-key")
def duplicate_key(m):
    text = json.dumps({**CONFIG, "target_modules": ["q_proj"]})[:-1] + ', "r": 4}'
    return Spec(llama(m), [m.adapter(llama_lora(m), text=text)], words=["'r'"])


@fixture("refuse-grouped-convolution")
def grouped(m):
    base = m.base(OrderedDict([("conv.weight", m.weight(32, 8, 3, 3))]))
    return Spec(
        base,
        [
            m.adapter(
                {
                    "conv.lora_A.weight": m.normal(8, 16, 3, 3),
                    "conv.lora_B.weight": m.normal(32, 4, 1, 1),
                },
                target_modules=["conv"],
            )
        ],
        words=["conv"],
    )


@fixture("refuse-bin")
def bin_adapter(m):
    path = m.adapter(llama_lora(m), target_modules=["q_proj"])
    os.rename(
        os.path.join(path, "adapter_model.safetensors"), os.path.join(path, "adapter_model.bin")
    )
    return Spec(llama(m), [path], words=["adapter_model.bin"])


@fixture("refuse-missing-adapter")
def missing_adapter(m):
    return Spec(llama(m), [os.path.join(m.folder, "nowhere")], words=["nowhere"])


@fixture("refuse-replacement-weight")
def replacement_weight(m):
    t = {**llama_lora(m), "lm_head.weight": m.normal(67, 40)}
    return Spec(
        llama(m),
        [(m.adapter(t, target_modules=["q_proj"], modules_to_save=["lm_head"]), "0.5")],
        words=["lm_head.weight"],
    )


@fixture("refuse-two-replacements")
def two_replacements(m):
    made = [
        m.adapter(
            {**llama_lora(m), "lm_head.weight": m.normal(67, 40)},
            target_modules=["q_proj"],
            modules_to_save=["lm_head"],
        )
        for _ in range(2)
    ]
    return Spec(llama(m), made, words=["lm_head.weight"])


@fixture("two-equal-replacements")
def equal_replacements(m):
    head = m.normal(67, 40)
    made = [
        m.adapter(
            {**llama_lora(m), "lm_head.weight": head},
            target_modules=["q_proj"],
            modules_to_save=["lm_head"],
        )
        for _ in range(2)
    ]
    return Spec(llama(m), made)


@fixture("refuse-lora-bias-without-bias")
def lora_bias_without(m):
    t = {
        **llama_lora(m, only=LINEAR[:1]),
        "model.layers.0.self_attn.q_proj.lora_B.bias": m.normal(40),
        "model.layers.1.self_attn.q_proj.lora_B.bias": m.normal(40),
    }
    return Spec(
        llama(m), [m.adapter(t, lora_bias=True, target_modules=["q_proj"])], words=["q_proj"]
    )


@fixture("refuse-token-out-of-range")
def token_range(m):
    t = {
        **llama_lora(m),
        "model.embed_tokens.token_adapter.trainable_tokens_delta": m.normal(2, 40),
    }
    return Spec(
        llama(m),
        [m.adapter(t, target_modules=["q_proj"], trainable_token_indices=[1, 67])],
        words=["embed_tokens"],
    )


# ------------------------------------------------------------------------------------------------
# the same bits on every instruction set and for every number of threads


def make_variants():
    wide = ["ranks-1-to-256-f32", "ranks-1-to-256-f16", "ranks-1-to-256-bf16", "order-of-the-sum"]
    wide += [
        "subnormal-updates",
        "negative-zero",
        "exact-ties-f16",
        "exact-ties-bf16",
        "overflow-f16",
    ]
    wide += ["dora-f32", "dora-bf16", "dora-order-of-the-norm", "embedding-f16", "conv2d-f32"]
    wide += [
        "adapters-three-f32",
        "adapters-three-bf16",
        "gpt2-all-bf16",
        "experts-gpt-oss-both-f32",
    ]
    kinds = {
        "generic": ({"LORACTL_CPU": "generic"}, []),
        "avx2": ({"LORACTL_CPU": "avx2"}, []),
        "one-thread": ({}, ["--threads", "1"]),
        "five-threads": ({}, ["--threads", "5"]),
    }
    if not has_avx2():
        del kinds["avx2"]
    for name in wide:
        for kind, (env, args) in kinds.items():

            def f(m, plain=FIXTURES[name], env=env, args=args):
                spec = plain(m)
                spec.env, spec.args = env, spec.args + args
                return spec

            fixture("%s@%s" % (name, kind))(f)


def has_avx2():
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            return " avx2 " in f.read()
    except OSError:
        return False
