# SPDX-License-Identifier: Apache-2.0
"""Fixtures: other kinds of layer, DoRA, tied embeddings, parameters and experts."""

import os
from collections import OrderedDict

import numpy as np

import files
from files import Tensor
from fixturelib import DTYPES, fixture, LINEAR, llama, llama_lora, Spec

# other kinds of layer


def emb_pair(m, module, rows, dim, r=8):
    return {
        module + ".lora_embedding_A": m.normal(r, rows, sigma=0.15),
        module + ".lora_embedding_B": m.normal(dim, r, sigma=0.15),
    }


def make_embeddings():
    for dtype in DTYPES:

        def f(m, dtype=dtype):
            return Spec(
                llama(m, dtype),
                [
                    m.adapter(
                        {
                            **emb_pair(m, "model.embed_tokens", 67, 40),
                            **llama_lora(m, only=LINEAR[:1]),
                        },
                        target_modules=["q_proj", "embed_tokens"],
                    )
                ],
            )

        fixture("embedding-" + dtype.lower())(f)


make_embeddings()


@fixture("embedding-with-stored-base")
def embedding_stored(m):
    """PEFT stores the base's embedding beside an adapter of it; here it is the base's own."""
    base = llama(m)
    w = files.read(os.path.join(base, "model.safetensors"))[0]["model.embed_tokens.weight"]
    t = {**emb_pair(m, "model.embed_tokens", 67, 40), "model.embed_tokens.base_layer.weight": w}
    return Spec(base, [m.adapter(t, target_modules=["embed_tokens"])])


@fixture("embedding-with-other-base")
def embedding_other(m):
    """... and here it was trained too: replaced first, then updated."""
    t = {
        **emb_pair(m, "model.embed_tokens", 67, 40),
        "model.embed_tokens.base_layer.weight": m.weight(67, 40),
    }
    return Spec(llama(m), [m.adapter(t, target_modules=["embed_tokens"])])


def make_convs():
    kinds = {
        "conv1d": (16, 6, (3,)),
        "conv2d": (10, 5, (3, 3)),
        "conv2d-oblong": (6, 4, (3, 5)),
        "conv2d-1x1": (12, 7, (1, 1)),
        "conv3d": (6, 4, (3, 2, 3)),
        "conv3d-1x1xk": (6, 4, (1, 1, 3)),
        "conv2d-square": (8, 8, (1, 1)),
        "conv1d-kernel1": (10, 3, (1,)),
    }
    for name, (o, i, k) in kinds.items():
        for dtype in ("F32", "BF16"):

            def f(m, o=o, i=i, k=k, dtype=dtype):
                base = m.base(
                    OrderedDict(
                        [
                            ("conv.weight", m.weight(o, i, *k, dtype=dtype)),
                            ("conv.bias", m.weight(o, dtype=dtype)),
                        ]
                    )
                )
                return Spec(
                    base, [m.adapter(m.pair("conv", o, (i, *k), 8), target_modules=["conv"])]
                )

            fixture("%s-%s" % (name, dtype.lower()))(f)


make_convs()


@fixture("attention")
def attention(m):
    """nn.MultiheadAttention: in_proj and out_proj, each update added once."""
    base = m.base(
        OrderedDict(
            [
                ("mha.in_proj_weight", m.weight(90, 30)),
                ("mha.in_proj_bias", m.weight(90)),
                ("mha.out_proj.weight", m.weight(30, 30)),
                ("mha.out_proj.bias", m.weight(30)),
            ]
        )
    )
    t = {**m.pair("mha", 90, 30, 8), **m.pair("mha.base_layer.out_proj", 30, 30, 8)}
    return Spec(base, [m.adapter(t, target_modules=["mha"], alpha_pattern={"mha": 5})])


def make_bias():
    for dtype in DTYPES:

        def f(m, dtype=dtype):
            base = m.base(
                OrderedDict(
                    [
                        ("a.weight", m.weight(20, 9, dtype=dtype)),
                        ("a.bias", m.weight(20, dtype=dtype)),
                        ("b.weight", m.weight(6, 20, dtype=dtype)),
                        ("b.bias", m.weight(6, dtype=dtype)),
                    ]
                )
            )
            t = {
                **m.pair("a", 20, 9, 8),
                "a.lora_B.bias": m.normal(20),
                **m.pair("b", 6, 20, 8),
                "b.lora_B.bias": m.normal(6),
            }
            u = {**m.pair("a", 20, 9, 3), "a.lora_B.bias": m.normal(20)}
            return Spec(
                base,
                [
                    m.adapter(t, lora_bias=True, lora_alpha=29, target_modules=["a", "b"]),
                    (m.adapter(u, lora_bias=True, r=3, target_modules=["a"]), "0.3"),
                ],
            )

        fixture("lora-bias-" + dtype.lower())(f)


make_bias()


def with_bias(m, dtype="BF16"):
    t = OrderedDict()
    for n, (o, i) in (("a", (20, 9)), ("b", (6, 20))):
        t[n + ".weight"], t[n + ".bias"] = m.weight(o, i, dtype=dtype), m.weight(o, dtype=dtype)
    t["norm.bias"] = m.weight(6, dtype=dtype)
    return m.base(t)


@fixture("bias-all")
def bias_all(m):
    t = {
        **m.pair("a", 20, 9, 8),
        "a.base_layer.bias": m.normal(20),
        "b.bias": m.normal(6),
        "norm.bias": m.normal(6),
    }
    return Spec(with_bias(m), [m.adapter(t, bias="all", target_modules=["a"])])


@fixture("bias-lora-only")
def bias_lora_only(m):
    return Spec(
        with_bias(m),
        [
            m.adapter(
                {**m.pair("a", 20, 9, 8), "a.base_layer.bias": m.normal(20)},
                bias="lora_only",
                target_modules=["a"],
            )
        ],
    )


def make_saved():
    for b in DTYPES:
        for a in DTYPES:

            def f(m, a=a, b=b):
                t = {
                    **llama_lora(m),
                    "model.norm.weight": m.normal(40, sigma=1),
                    "lm_head.weight": m.normal(67, 40, sigma=1),
                }
                return Spec(
                    llama(m, b),
                    [
                        m.adapter(
                            t,
                            dtype=a,
                            target_modules=["q_proj"],
                            modules_to_save=["norm", "lm_head"],
                        )
                    ],
                )

            fixture("modules-to-save-%s-on-%s" % (a.lower(), b.lower()))(f)


make_saved()


def make_added():
    for shards in (1, 3):

        def f(m, shards=shards):
            t = {**llama_lora(m), "score.weight": m.normal(3, 40)}
            return Spec(
                llama(m, "BF16", shards=shards),
                [
                    m.adapter(
                        t, target_modules=["q_proj"], modules_to_save=["score"], task_type="SEQ_CLS"
                    )
                ],
            )

        fixture("new-head-%d-shards" % shards)(f)


make_added()


@fixture("replacement-overflow")
def replacement_overflow(m):
    head = m.normal(67, 40)
    head[3, 4] = 1e6
    t = {**llama_lora(m), "lm_head.weight": head}
    return Spec(
        llama(m, "F16"),
        [m.adapter(t, target_modules=["q_proj"], modules_to_save=["lm_head"])],
        words=["lm_head.weight"],
    )


@fixture("larger-vocabulary")
def larger_vocabulary(m):
    t = {
        **llama_lora(m),
        "model.embed_tokens.weight": m.normal(70, 40),
        "lm_head.weight": m.normal(70, 40),
    }
    return Spec(llama(m, "BF16"), [m.adapter(t, target_modules=["q_proj"])])


def make_tokens():
    for name, tied, wanted in [
        ("list", False, [3, 66, 0, 17]),
        ("dict", False, {"embed_tokens": [3, 66, 0, 17]}),
        ("tied", True, [3, 66, 0, 17]),
    ]:
        for dtype in ("F32", "F16"):

            def f(m, tied=tied, wanted=wanted, dtype=dtype):
                t = {
                    **llama_lora(m),
                    "model.embed_tokens.token_adapter.trainable_tokens_delta": m.normal(
                        4, 40, sigma=1
                    ),
                }
                return Spec(
                    llama(m, dtype, tied=tied),
                    [m.adapter(t, target_modules=["q_proj"], trainable_token_indices=wanted)],
                )

            fixture("tokens-%s-%s" % (name, dtype.lower()))(f)


make_tokens()


@fixture("tokens-of-two-adapters")
def tokens_two(m):
    a = {"model.embed_tokens.token_adapter.trainable_tokens_delta": m.normal(2, 40)}
    b = {"model.embed_tokens.token_adapter.trainable_tokens_delta": m.normal(3, 40)}
    return Spec(
        llama(m),
        [
            m.adapter(
                {**llama_lora(m), **a}, target_modules=["q_proj"], trainable_token_indices=[5, 1]
            ),
            m.adapter(
                {**llama_lora(m), **b},
                target_modules=["q_proj"],
                trainable_token_indices=[9, 66, 2],
            ),
        ],
    )


@fixture("tokens-overlap")
def tokens_overlap(m):
    a = {"model.embed_tokens.token_adapter.trainable_tokens_delta": m.normal(2, 40)}
    b = {"model.embed_tokens.token_adapter.trainable_tokens_delta": m.normal(2, 40)}
    return Spec(
        llama(m),
        [
            m.adapter(
                {**llama_lora(m), **a}, target_modules=["q_proj"], trainable_token_indices=[5, 1]
            ),
            m.adapter(
                {**llama_lora(m), **b}, target_modules=["q_proj"], trainable_token_indices=[9, 5]
            ),
        ],
        words=["embed_tokens"],
    )


# ------------------------------------------------------------------------------------------------
# DoRA


def make_dora():
    for dtype in DTYPES:

        def f(m, dtype=dtype):
            tensors = OrderedDict(
                [
                    ("a.weight", m.weight(20, 53, dtype=dtype)),
                    ("b.weight", m.weight(7, 20, dtype=dtype)),
                    ("emb.weight", m.weight(41, 12, dtype=dtype)),
                    ("conv.weight", m.weight(10, 5, 3, 3, dtype=dtype)),
                    ("c1.weight", m.weight(9, 31, dtype=dtype)),
                    ("one.weight", m.weight(6, 1, dtype=dtype)),
                ]
            )
            t = {
                **m.pair("a", 20, 53, 8),
                "a.lora_magnitude_vector": 1 + m.normal(20),
                **m.pair("b", 7, 20, 8),
                "b.lora_magnitude_vector": 1 + m.normal(7),
                **emb_pair(m, "emb", 41, 12),
                "emb.lora_magnitude_vector": 1 + m.normal(12),
                **m.pair("conv", 10, (5, 3, 3), 8),
                "conv.lora_magnitude_vector": (1 + m.normal(10)).reshape(1, 10, 1, 1),
                **m.pair("c1", 31, 9, 8),
                "c1.lora_magnitude_vector": 1 + m.normal(31),
                **m.pair("one", 6, 1, 8, sigma=1.0),
                "one.lora_magnitude_vector": 1 + m.normal(6),
            }
            return Spec(m.base(tensors), [m.adapter(t, use_dora=True, target_modules=["a", "b"])])

        fixture("dora-" + dtype.lower())(f)


make_dora()


@fixture("dora-long-rows")
def dora_long(m):
    """Rows long enough that the order of the norm's sum shows, and one adapter without magnitude
    beside it."""
    tensors = OrderedDict([("a.weight", m.weight(30, 1003)), ("b.weight", m.weight(7, 20))])
    t = {**m.pair("a", 30, 1003, 8), "a.lora_magnitude_vector": 1 + m.normal(30)}
    return Spec(
        m.base(tensors),
        [
            m.adapter(t, use_dora=True, target_modules=["a"]),
            m.adapter(m.pair("b", 7, 20, 8), target_modules=["b"]),
        ],
    )


# rows by seed, and magnitudes (times 2^-23) found by search: m / norm lies so near the middle
# between two f32 that summing the squares in another order (one sum; four sums; eight in a chain;
# eight added in halves; in strides) rounds it otherwise
NORM_ROWS = [
    (81, 15267228),
    (116, 12832522),
    (179, 14394471),
    (446, 14040377),
    (483, 15504069),
    (666, 14913754),
    (1677, 8649955),
    (2444, 14010388),
]


@fixture("dora-order-of-the-norm")
def dora_order(m):
    W = np.stack(
        [
            (np.random.default_rng(seed).standard_normal(203) * 0.3).astype(np.float32)
            for seed, _ in NORM_ROWS
        ]
    )
    magnitude = np.array([g for _, g in NORM_ROWS], dtype=np.float32) * np.float32(2.0**-23)
    t = {
        "a.lora_A.weight": m.normal(8, 203),
        "a.lora_B.weight": np.zeros((len(NORM_ROWS), 8), np.float32),
        "a.lora_magnitude_vector": magnitude,
    }
    return Spec(
        m.base(OrderedDict([("a.weight", Tensor("F32", W.view(np.uint32)))])),
        [m.adapter(t, use_dora=True, target_modules=["a"])],
    )


def dora_spec(m, weights, words, zero=False):
    tensors = OrderedDict([("layer.a.weight", m.weight(20, 53))])
    if zero:
        tensors["layer.a.weight"].raw[4] = 0
    made = []
    for w in weights:
        t = {**m.pair("layer.a", 20, 53, 8), "layer.a.lora_magnitude_vector": 1 + m.normal(20)}
        if zero:
            t["layer.a.lora_B.weight"][4] = 0
        made.append((m.adapter(t, use_dora=True, target_modules=["a"]), w))
    return Spec(m.base(tensors), made, words=words)


@fixture("dora-zero-row")
def dora_zero(m):
    return dora_spec(m, [None], ["layer.a"], zero=True)


@fixture("dora-weight")
def dora_weight(m):
    return dora_spec(m, ["0.5"], ["layer.a"])


@fixture("dora-twice")
def dora_twice(m):
    return dora_spec(m, [None, None], ["layer.a"])


@fixture("dora-then-lora")
def dora_then_lora(m):
    s = dora_spec(m, [None], ["layer.a"])
    s.adapters.append((m.adapter(m.pair("layer.a", 20, 53, 8), target_modules=["a"]), None))
    return s


# ------------------------------------------------------------------------------------------------
# ties of the embeddings


def tied_pairs(m, head, body, same=False):
    t = {}
    if body:
        t.update(emb_pair(m, "model.embed_tokens", 67, 40))
    if head:
        t.update(m.pair("lm_head", 67, 40, 8))
    if same:
        t["lm_head.lora_A.weight"] = np.ascontiguousarray(
            t["model.embed_tokens.lora_embedding_B"].T
        )
        t["lm_head.lora_B.weight"] = np.ascontiguousarray(
            t["model.embed_tokens.lora_embedding_A"].T
        )
    return t


def make_tied():
    for name, head, body, same in [
        ("embedding", False, True, False),
        ("head", True, False, False),
        ("both", True, True, False),
        ("same", True, True, True),
    ]:
        for shards in (1, 3):

            def f(m, head=head, body=body, same=same, shards=shards):
                t = {**llama_lora(m, only=LINEAR[:1]), **tied_pairs(m, head, body, same)}
                return Spec(
                    llama(m, "BF16", tied=True, shards=shards),
                    [m.adapter(t, target_modules=["q_proj"])],
                )

            fixture("tied-%s-%d-shards" % (name, shards))(f)


make_tied()


@fixture("tied-refuse")
def tied_refuse(m):
    t = {**llama_lora(m), **tied_pairs(m, True, False)}
    return Spec(
        llama(m, tied=True),
        [m.adapter(t, target_modules=["q_proj"])],
        args=["--tied", "refuse"],
        words=["embed_tokens"],
        tie="refuse",
    )


@fixture("tied-untouched")
def tied_untouched(m):
    return Spec(
        llama(m, tied=True),
        [m.adapter(llama_lora(m), target_modules=["q_proj"])],
        args=["--tied", "refuse"],
    )


@fixture("tied-replaced-embedding")
def tied_replaced(m):
    t = {**llama_lora(m), "model.embed_tokens.weight": m.normal(67, 40)}
    return Spec(
        llama(m, tied=True),
        [m.adapter(t, target_modules=["q_proj"], modules_to_save=["embed_tokens"])],
    )


# ------------------------------------------------------------------------------------------------
# parameters and experts


@fixture("parameter-2d")
def parameter_2d(m):
    base = m.base(
        OrderedDict([("lin0.weight", m.weight(20, 13)), ("lin1.weight", m.weight(6, 20))])
    )
    t = {**m.pair("lin0", 20, 13, 8), **m.pair("lin1", 6, 20, 8)}
    return Spec(
        base,
        [
            m.adapter(
                t,
                target_modules=["lin1"],
                target_parameters=["lin0.weight"],
                alpha_pattern={"lin0.weight": 5, "lin0": 77},
            )
        ],
    )


def expert_factors(m, module, E, r, d1, d2, transposed):
    """A [E r, .], expert slowest; B [., r E], expert fastest."""
    a, b = (d1, d2) if transposed else (d2, d1)
    return {
        module + ".lora_A.weight": m.normal(E * r, a, sigma=0.15),
        module + ".lora_B.weight": m.normal(b, r * E, sigma=0.15),
    }


def make_experts():
    kinds = {
        "gpt-oss": ("gpt_oss", "mlp.experts", True, 24, 36),
        "gpt-oss-square": ("gpt_oss", "mlp.experts", True, 24, 24),
        "llama4": ("llama4_text", "feed_forward.experts", False, 24, 36),
        "llama4-square": ("llama4_text", "feed_forward.experts", False, 24, 24),
    }
    for name, (kind, where, transposed, h, inner) in kinds.items():
        for targets in (["down_proj"], ["gate_up_proj", "down_proj"]):
            for dtype in ("F32", "BF16"):

                def f(
                    m,
                    kind=kind,
                    where=where,
                    transposed=transposed,
                    h=h,
                    inner=inner,
                    targets=targets,
                    dtype=dtype,
                ):
                    E, r = 4, 3
                    module = "model.layers.0." + where
                    tensors = OrderedDict(
                        [
                            (module + ".gate_up_proj", m.weight(E, h, 2 * inner, dtype=dtype)),
                            (module + ".down_proj", m.weight(E, inner, h, dtype=dtype)),
                            ("model.layers.0.self_attn.q_proj.weight", m.weight(h, h, dtype=dtype)),
                        ]
                    )
                    t = {}
                    if len(targets) == 2:
                        t.update(
                            expert_factors(
                                m, module + ".base_layer", E, r, h, 2 * inner, transposed
                            )
                        )
                    t.update(expert_factors(m, module, E, r, inner, h, transposed))
                    t.update(m.pair("model.layers.0.self_attn.q_proj", h, h, r))
                    base = m.base(
                        tensors,
                        {
                            "model_type": kind,
                            "num_local_experts": E,
                            "hidden_size": h,
                            "intermediate_size": inner,
                        },
                    )
                    ad = m.adapter(
                        t,
                        r=r,
                        target_parameters=["experts." + p for p in targets],
                        alpha_pattern={"experts.gate_up_proj": 5},
                        target_modules=["q_proj"],
                    )
                    # of Llama-4 the layout changed with the version of transformers, which no
                    # file records
                    return Spec(base, [ad], may_refuse=h == inner and not transposed)

                fixture(
                    "experts-%s-%s-%s"
                    % (name, "both" if len(targets) == 2 else "down", dtype.lower())
                )(f)


make_experts()


@fixture("experts-singly-stored")
def experts_singly(m):
    """The adapter sees fused experts, the file holds them one by one (Mixtral)."""
    E, r, h, inner = 3, 2, 16, 26
    t = OrderedDict()
    for e in range(E):
        for n, shape in (("w1", (inner, h)), ("w2", (h, inner)), ("w3", (inner, h))):
            t["model.layers.0.block_sparse_moe.experts.%d.%s.weight" % (e, n)] = m.weight(*shape)
    a = {
        **expert_factors(m, "model.layers.0.mlp.experts.base_layer", E, r, 2 * inner, h, False),
        **expert_factors(m, "model.layers.0.mlp.experts", E, r, h, inner, False),
    }
    base = m.base(
        t,
        {
            "model_type": "mixtral",
            "num_local_experts": E,
            "hidden_size": h,
            "intermediate_size": inner,
        },
    )
    return Spec(
        base, [m.adapter(a, r=r, target_parameters=["experts.gate_up_proj", "experts.down_proj"])]
    )


@fixture("experts-singly-adapted")
def experts_single_names(m):
    """An adapter of the older naming: every expert's module by itself."""
    t, a = OrderedDict(), {}
    for e in range(3):
        name = "model.layers.0.block_sparse_moe.experts.%d.w1" % e
        t[name + ".weight"] = m.weight(26, 16)
        a.update(m.pair(name, 26, 16, 8))
    return Spec(
        m.base(t, {"model_type": "mixtral", "num_local_experts": 3}),
        [m.adapter(a, target_modules=["w1"])],
    )


@fixture("experts-square-unknown")
def experts_square_unknown(m):
    t = OrderedDict([("moe.experts.w", m.weight(4, 12, 12))])
    a = expert_factors(m, "moe.experts", 4, 3, 12, 12, False)
    return Spec(m.base(t), [m.adapter(a, r=3, target_parameters=["experts.w"])], words=["experts"])
