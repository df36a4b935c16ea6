# SPDX-License-Identifier: Apache-2.0
"""Fixtures: plain LoRA on linear layers, its scale, its orientation."""

from collections import OrderedDict

import numpy as np

import contract
from files import Tensor
from fixturelib import DTYPES, fixture, LINEAR, llama, llama_lora, Spec

# plain LoRA on linear layers


def make_dtypes():
    for b in DTYPES:
        for a in DTYPES:

            def f(m, b=b, a=a):
                return Spec(
                    llama(m, b), [m.adapter(llama_lora(m), dtype=a, target_modules=["q_proj"])]
                )

            fixture("linear-%s-base-%s-adapter" % (b.lower(), a.lower()))(f)


make_dtypes()
SHAPES = [
    (37, 53),
    (1, 61),
    (59, 1),
    (1, 1),
    (64, 64),
    (127, 129),
    (5, 300),
    (300, 7),
    (2, 3),
    (33, 17),
    (16, 31),
    (8, 9),
    (100, 3),
]
RANKS = [
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    15,
    16,
    17,
    24,
    31,
    32,
    33,
    48,
    63,
    64,
    65,
    96,
    100,
    127,
    128,
    129,
    160,
    191,
    192,
    193,
    224,
    255,
    256,
]


def make_ranks():
    for dtype in DTYPES:

        def f(m, dtype=dtype):
            tensors, lora, ranks = OrderedDict(), {}, {}
            for i, r in enumerate(RANKS):
                o, k = SHAPES[i % len(SHAPES)]
                name = "blocks.%d.fc" % i
                tensors[name + ".weight"] = m.weight(o, k, dtype=dtype)
                ranks["blocks.%d.fc" % i] = r
                lora.update(m.pair(name, o, k, r, sigma=0.3 / r**0.25))
            return Spec(
                m.base(tensors), [m.adapter(lora, rank_pattern=ranks, target_modules=["fc"])]
            )

        fixture("ranks-1-to-256-" + dtype.lower())(f)


make_ranks()


def tie_pair(m, dtype):
    """W in [1, 2), and an update of an odd number of half ulps in every element: s = 3, B
    one-hot, A odd."""
    bits = {"BF16": 8, "F16": 11}[dtype]
    w = (1 + m.rng.integers(0, 1 << (bits - 1), (24, 30)) * 2.0 ** (1 - bits)) * np.where(
        m.rng.random((24, 30)) < 0.5, -1, 1
    )
    A = ((2 * m.rng.integers(-4, 4, (8, 30)) + 1) * 2.0**-bits).astype(np.float32)
    B = np.eye(8, dtype=np.float32)[m.rng.integers(0, 8, 24)]
    return Tensor(dtype, contract.round_to(w.astype(np.float32), dtype)), A, B


def make_ties():
    for dtype in ("BF16", "F16"):

        def f(m, dtype=dtype):
            W, A, B = tie_pair(m, dtype)
            base = m.base(OrderedDict([("fc.weight", W)]))
            return Spec(
                base,
                [
                    m.adapter(
                        {"fc.lora_A.weight": A, "fc.lora_B.weight": B},
                        lora_alpha=24,
                        target_modules=["fc"],
                    )
                ],
            )

        fixture("exact-ties-" + dtype.lower())(f)


make_ties()


@fixture("order-of-the-sum")
def order_of_the_sum(m):
    """Terms of very different size: any other order, and any unfused step, gives other bits in
    most elements."""
    A = m.normal(32, 40) * (2.0 ** m.rng.integers(-12, 12, (32, 1))).astype(np.float32)
    B = m.normal(48, 32)
    base = m.base(OrderedDict([("fc.weight", m.weight(48, 40, sigma=0.001))]))
    return Spec(
        base,
        [
            m.adapter(
                {"fc.lora_A.weight": A, "fc.lora_B.weight": B},
                r=32,
                lora_alpha=19,
                target_modules=["fc"],
            )
        ],
    )


@fixture("subnormal-updates")
def subnormal_updates(m):
    """Products below the smallest normal f32; weights and results subnormal."""
    A = (m.normal(8, 40) * 2.0**-60).astype(np.float32)
    B = (m.normal(48, 8) * 2.0**-72).astype(np.float32)
    W = Tensor("F32", contract.round_to((m.normal(48, 40) * 2.0**-130).astype(np.float32), "F32"))
    base = m.base(OrderedDict([("fc.weight", W)]))
    return Spec(
        base, [m.adapter({"fc.lora_A.weight": A, "fc.lora_B.weight": B}, target_modules=["fc"])]
    )


@fixture("negative-zero")
def negative_zero(m):
    """Rows of B that are zero: the sum starts from +0, so -0 + 0 is +0, with no special case."""
    B = m.normal(24, 8)
    B[::2] = 0
    W = m.weight(24, 32)
    W.raw[:, ::3] = 0x80000000
    base = m.base(OrderedDict([("fc.weight", W)]))
    return Spec(
        base,
        [
            m.adapter(
                {"fc.lora_A.weight": m.normal(8, 32), "fc.lora_B.weight": B}, target_modules=["fc"]
            )
        ],
    )


@fixture("near-overflow-f16")
def near_overflow(m):
    """65504 + 15.99 rounds back to 65504."""
    W, A, B = (
        np.full((4, 6), 65504.0, np.float32),
        np.zeros((8, 6), np.float32),
        np.zeros((4, 8), np.float32),
    )
    A[0], B[:, 0] = 1.0, 15.99 * 8 / 13
    B[1, 0] = -30.0
    base = m.base(OrderedDict([("fc.weight", Tensor("F16", contract.round_to(W, "F16")))]))
    return Spec(
        base, [m.adapter({"fc.lora_A.weight": A, "fc.lora_B.weight": B}, target_modules=["fc"])]
    )


def make_overflow():
    top = {
        "F16": (65504.0, 16.0),
        "BF16": (contract.MAX["BF16"], 2.0**119),
        "F32": (contract.MAX["F32"], 2.0**104),
    }
    for dtype, (w, step) in top.items():

        def f(m, dtype=dtype, w=w, step=step):
            W = m.weight(9, 11, dtype=dtype)
            W.raw[4, 7] = contract.round_to(np.float32([w]), dtype)[0]
            A, B = m.normal(8, 11), m.normal(9, 8)
            A[:, 7], B[4] = 0, 0
            A[0, 7], B[4, 0] = 1.0, step  # with s = 1 exactly
            base = m.base(OrderedDict([("layers.0.fc.weight", W)]))
            return Spec(
                base,
                [
                    m.adapter(
                        {"layers.0.fc.lora_A.weight": A, "layers.0.fc.lora_B.weight": B},
                        lora_alpha=8,
                        target_modules=["fc"],
                    )
                ],
                words=["layers.0.fc.weight"],
            )

        fixture("overflow-" + dtype.lower())(f)


make_overflow()


def make_nonfinite():
    for where in ("base", "a", "b"):
        for what in (np.nan, np.inf):

            def f(m, where=where, what=what):
                W, A, B = m.normal(9, 11), m.normal(8, 11), m.normal(9, 8)
                {"base": W, "a": A, "b": B}[where][3, 5] = what
                base = m.base(
                    OrderedDict([("layers.0.fc.weight", Tensor("F32", W.view(np.uint32)))])
                )
                return Spec(
                    base,
                    [
                        m.adapter(
                            {"layers.0.fc.lora_A.weight": A, "layers.0.fc.lora_B.weight": B},
                            target_modules=["fc"],
                        )
                    ],
                    words=["layers.0.fc"],
                )

            fixture("%s-in-%s" % ("nan" if np.isnan(what) else "inf", where))(f)


make_nonfinite()


@fixture("nan-in-untouched")
def nan_untouched(m):
    """Signalling NaNs and infinities in tensors that no adapter names are copied as they are."""
    other = m.weight(7, 5, dtype="BF16")
    other.raw[2] = [0x7F81, 0xFFC3, 0x7F80, 0xFF80, 0x8000]
    base = m.base(
        OrderedDict(
            [
                ("a.weight", m.weight(7, 5, dtype="BF16")),
                ("b.weight", other),
                ("ids", Tensor("I64", np.arange(6, dtype=np.uint64).reshape(2, 3))),
            ]
        )
    )
    return Spec(base, [m.adapter(m.pair("a", 7, 5, 8), target_modules=["a"])])


# ------------------------------------------------------------------------------------------------
# scales


@fixture("rslora")
def rslora(m):
    return Spec(
        llama(m, "BF16"),
        [m.adapter(llama_lora(m, r=7), r=7, use_rslora=True, target_modules=["q_proj"])],
    )


@fixture("alpha-not-whole")
def alpha_float(m):
    return Spec(
        llama(m), [m.adapter(llama_lora(m, r=3), r=3, lora_alpha=0.7, target_modules=["q_proj"])]
    )


@fixture("alpha-negative")
def alpha_negative(m):
    return Spec(
        llama(m), [m.adapter(llama_lora(m, r=3), r=3, lora_alpha=-5, target_modules=["q_proj"])]
    )


@fixture("patterns-first-in-file-order")
def patterns(m):
    """Overlapping keys: the first that matches wins, also when a later one is longer; '.' matches
    any character; '^' anchors."""
    ranks = {
        "self_attn.q_proj": 5,
        "self_attn.k_proj": 3,
        "self_attn.v_proj": 6,
        "mlp.down_proj": 2,
    }
    rank_pattern = {
        "q_proj": 5,
        "layers.0.self_attn.q_proj": 9,
        "^model.layers.*.k_proj": 3,
        ".*v.proj": 6,
        "mlp.down.proj": 2,
        "no_such": 77,
    }
    alpha_pattern = {
        "layers.1.self_attn.q_proj": 3,
        "q_proj": 21,
        "[kv]_proj": 10,
        "o_proj": 4.5,
        "proj": 99,
        "model.layers.0.mlp.up_proj": 1,
    }
    return Spec(
        llama(m),
        [
            m.adapter(
                llama_lora(m, ranks=ranks),
                rank_pattern=rank_pattern,
                alpha_pattern=alpha_pattern,
                target_modules=["q_proj"],
            )
        ],
    )


@fixture("patterns-other-order")
def patterns_other(m):
    """The same keys in the other order mean something else."""
    ranks = {"self_attn.q_proj": 5}
    alpha_pattern = {"q_proj": 21, "layers.1.self_attn.q_proj": 3, "proj": 99, "o_proj": 4.5}
    return Spec(
        llama(m),
        [
            m.adapter(
                llama_lora(m, ranks=ranks),
                rank_pattern={"q_proj": 5},
                alpha_pattern=alpha_pattern,
                target_modules=["q_proj"],
            )
        ],
    )


@fixture("patterns-rslora")
def patterns_rslora(m):
    return Spec(
        llama(m, "F16"),
        [
            m.adapter(
                llama_lora(m, ranks={"self_attn.q_proj": 11}),
                rank_pattern={"q_proj": 11},
                alpha_pattern={"q_proj": 3, "down_proj": 17},
                use_rslora=True,
                target_modules=["q_proj"],
            )
        ],
    )


def make_weights():
    sets = {
        "two": ("1", "1"),
        "weights": ("0.3", "-0.7"),
        "three": ("0.3", "-1.25", "2"),
        "same-twice": ("0.5", "0.5"),
    }
    for name, weights in sets.items():
        for dtype in DTYPES:

            def f(m, weights=weights, dtype=dtype, name=name):
                base = llama(m, dtype)
                made = [
                    m.adapter(
                        llama_lora(m, r=4 + 3 * i, only=LINEAR[i:]),
                        r=4 + 3 * i,
                        lora_alpha=11 + i,
                        use_rslora=i == 1,
                        dtype=("F32", "BF16", "F16")[i],
                        target_modules=["q_proj"],
                    )
                    for i in range(len(weights))
                ]
                if name == "same-twice":
                    made[1] = made[0]
                return Spec(base, list(zip(made, weights)))

            fixture("adapters-%s-%s" % (name, dtype.lower()))(f)


make_weights()


@fixture("weight-of-one-adapter")
def one_weight(m):
    return Spec(llama(m), [(m.adapter(llama_lora(m), target_modules=["q_proj"]), "0.3")])


def make_out_dtype():
    for b in DTYPES:
        for o in DTYPES:

            def f(m, b=b, o=o):
                ad = m.adapter(
                    {**llama_lora(m), "model.norm.weight": m.normal(40)},
                    target_modules=["q_proj"],
                    modules_to_save=["norm"],
                )
                return Spec(llama(m, b), [ad], args=["--dtype", o.lower()], dtype=o)

            if b != o:
                fixture("output-%s-from-%s" % (o.lower(), b.lower()))(f)


make_out_dtype()


# ------------------------------------------------------------------------------------------------
# orientation


GPT2 = OrderedDict(
    [
        ("attn.c_attn", (48, 144)),
        ("attn.c_proj", (48, 48)),
        ("mlp.c_fc", (48, 192)),
        ("mlp.c_proj", (192, 48)),
    ]
)


def gpt2(m, dtype, prefix):
    t = OrderedDict(
        [
            (prefix + "wte.weight", m.weight(61, 48, dtype=dtype)),
            (prefix + "wpe.weight", m.weight(20, 48, dtype=dtype)),
        ]
    )
    for i in range(2):
        for n, shape in GPT2.items():
            t["%sh.%d.%s.weight" % (prefix, i, n)] = m.weight(*shape, dtype=dtype)
            t["%sh.%d.%s.bias" % (prefix, i, n)] = m.weight(shape[1], dtype=dtype)
    return m.base(
        t,
        {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_embd": 48,
            "n_head": 4,
            "n_layer": 2,
            "vocab_size": 61,
        },
    )


def gpt2_lora(m, only, prefix="transformer."):
    out = {}
    for i in range(2):
        for n in only:
            inn, o = GPT2[n]
            out.update(m.pair("%sh.%d.%s" % (prefix, i, n), o, inn, 8))
    return out


def make_gpt2():
    for name, only, prefix, flag in [
        ("all", list(GPT2), "transformer.", True),
        ("square-only", ["attn.c_proj"], "transformer.", True),
        ("square-flag-false", ["attn.c_proj"], "transformer.", False),
        ("bare-names", list(GPT2), "", True),
    ]:
        for dtype in ("F32", "BF16"):

            def f(m, only=only, prefix=prefix, flag=flag, dtype=dtype):
                return Spec(
                    gpt2(m, dtype, prefix),
                    [m.adapter(gpt2_lora(m, only), fan_in_fan_out=flag, target_modules=["c_proj"])],
                )

            fixture("gpt2-%s-%s" % (name, dtype.lower()))(f)


make_gpt2()


@fixture("transposed-by-shape")
def transposed_by_shape(m):
    """An unknown model with an [in, out] weight."""
    base = m.base(OrderedDict([("fc.weight", m.weight(20, 33)), ("fc.bias", m.weight(33))]))
    return Spec(
        base, [m.adapter(m.pair("fc", 33, 20, 8), fan_in_fan_out=True, target_modules=["fc"])]
    )


@fixture("square-by-neighbour")
def square_by_neighbour(m):
    """The square weight follows the adapter's other modules, all of which are [in, out]."""
    base = m.base(OrderedDict([("fc.weight", m.weight(20, 33)), ("proj.weight", m.weight(20, 20))]))
    return Spec(
        base,
        [
            m.adapter(
                {**m.pair("fc", 33, 20, 8), **m.pair("proj", 20, 20, 8)},
                fan_in_fan_out=True,
                target_modules=["fc", "proj"],
            )
        ],
    )


@fixture("square-by-default")
def square_by_default(m):
    base = m.base(OrderedDict([("proj.weight", m.weight(20, 20))]))
    return Spec(base, [m.adapter(m.pair("proj", 20, 20, 8), target_modules=["proj"])])
