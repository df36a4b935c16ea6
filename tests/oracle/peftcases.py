# SPDX-License-Identifier: Apache-2.0
"""The cases of peftmade.py: PEFT's own test matrix for LoRA, at its sizes and at sizes that tell
rows from columns, and small models of transformers. CASES maps a name to a Case."""

import copy

from peft import LoraConfig
from torch import nn

CASES = {}


class Case:
    """`model`: () -> module. `configs`: () -> one LoraConfig an adapter. `expect`: "peft" (PEFT's
    merge is the contract's), "oracle:WHY" (PEFT's is known to be wrong, or rounds otherwise),
    "close" (the same formula with sums of another order), "refuse:WORD" (exit 3, WORD on stderr),
    "either".
    """

    def __init__(self, name, model, configs, expect, **more):
        self.name, self.model, self.configs, self.expect = name, model, configs, expect
        self.transformers = more.get("transformers", False)
        self.weights = more.get("weights", [1.0])
        self.dtypes = more.get("dtypes", ("float32", "bfloat16", "float16"))
        self.generates = more.get("generates", False)
        self.convert = more.get("convert", False)


def case(name, model, *configs, expect="peft", **more):
    CASES[name] = Case(name, model, configs, expect, **more)


# ------------------------------------------------------------------------------------------------
# the models of PEFT's own test matrix, and some whose sizes tell rows from columns


def sequence(**modules):
    """A module with the given children; PEFT only ever asks for its names and weights."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            for name, make in modules.items():
                setattr(self, name, make())

        def forward(self, x):
            raise NotImplementedError

    return Model


def conv1d(nf, nx):
    from transformers.pytorch_utils import Conv1D

    return Conv1D(nf, nx)


def linear(i, o, bias=True):
    return lambda: nn.Linear(i, o, bias=bias)


mlp = sequence(lin0=linear(10, 20), lin1=linear(20, 2))
embconv = sequence(
    emb=lambda: nn.Embedding(100, 5), conv1d=lambda: conv1d(1, 5), lin0=linear(10, 2)
)
mha = sequence(mha=lambda: nn.MultiheadAttention(10, 2), lin0=linear(10, 2))


def lora(**keys):
    keys.setdefault("r", 8)
    keys.setdefault("lora_alpha", 11)
    return lambda: LoraConfig(
        init_lora_weights=keys.get("init_lora_weights", False),
        **{k: copy.deepcopy(v) for k, v in keys.items() if k != "init_lora_weights"}
    )


def dora(**keys):
    return lora(use_dora=True, **keys)


EMBED = "oracle:PEFT rounds an embedding's update to the base's type first"
MOE = "oracle:PEFT rounds a parameter's update to the base's type first"
MHA = "oracle:PEFT adds out_proj's update twice"
case("linear-string", mlp, lora(target_modules="lin0"))
case("linear-list", mlp, lora(target_modules=["lin0"]))
case("linear-last", mlp, lora(target_modules=["lin1"]))
case("linear-both", mlp, lora(target_modules=["lin0", "lin1"]))
case("linear-dropout", mlp, lora(target_modules=["lin0"], lora_alpha=4, lora_dropout=0.1))
case("linear-modules-to-save", mlp, lora(target_modules=["lin0"], modules_to_save=["lin1"]))
case("linear-rslora", mlp, lora(target_modules=["lin0", "lin1"], use_rslora=True))
case("linear-bias-all", mlp, lora(target_modules=["lin0"], bias="all"))
case("linear-bias-lora-only", mlp, lora(target_modules=["lin0"], bias="lora_only"))
case(
    "linear-patterns",
    mlp,
    lora(
        target_modules=["lin0", "lin1"],
        rank_pattern={"lin0": 3, ".*1": 5},
        alpha_pattern={"lin1": 7, "l.n0": 5},
    ),
)
case(
    "linear-square",
    sequence(a=linear(24, 24), b=linear(24, 24, bias=False)),
    lora(target_modules=["a", "b"]),
)
case(
    "linear-odd",
    sequence(a=linear(53, 37), b=linear(1, 29), c=linear(31, 1), d=linear(1, 1)),
    lora(target_modules=["a", "b", "c", "d"], r=7, rank_pattern={"a": 64, "b": 1, "c": 3}),
)
case("linear-rank-192", sequence(a=linear(96, 130)), lora(target_modules=["a"], r=192))
case("linear-rank-256", sequence(a=linear(96, 130)), lora(target_modules=["a"], r=256))
case("lora-bias", mlp, lora(target_modules=["lin0", "lin1"], lora_alpha=32, lora_bias=True))
case(
    "lora-bias-without-bias",
    sequence(a=linear(9, 7, bias=False)),
    lora(target_modules=["a"], lora_bias=True),
    expect="refuse:a",
)
case("dora-lin0", mlp, dora(target_modules=["lin0"]), expect="close")
case("dora-both", mlp, dora(target_modules=["lin0", "lin1"]), expect="close")
case("dora-alpha-32", mlp, dora(target_modules=["lin1"], lora_alpha=32), expect="close")
case("conv1d-hf", embconv, lora(target_modules=["conv1d"]))
case("embedding", embconv, lora(target_modules=["emb"]), expect=EMBED)
case("embedding-conv1d", embconv, lora(target_modules=["conv1d", "emb"]), expect=EMBED)
case("dora-conv1d-hf", embconv, dora(target_modules=["conv1d"]), expect="close")
case("dora-embedding", embconv, dora(target_modules=["emb"]), expect="close")
case("dora-embedding-conv1d", embconv, dora(target_modules=["conv1d", "emb"]), expect="close")
case(
    "conv1d-hf-tokens",
    embconv,
    lora(target_modules=["conv1d"], trainable_token_indices={"emb": [0, 10]}),
)
case(
    "embedding-tokens",
    sequence(emb=lambda: nn.Embedding(40, 6), other=lambda: nn.Embedding(9, 6)),
    lora(target_modules=["other"], trainable_token_indices={"emb": [3, 39, 7]}),
    expect=EMBED,
)
CONVS = {
    "conv1d": sequence(conv1d=lambda: nn.Conv1d(1, 1, 2), lin0=linear(9, 2)),
    "conv1d-bigger": sequence(conv1d=lambda: nn.Conv1d(64, 16, 2), lin0=linear(9, 2)),
    "conv2d": sequence(conv2d=lambda: nn.Conv2d(5, 10, 3), lin0=linear(10, 2)),
    "conv2d-wide": sequence(conv2d=lambda: nn.Conv2d(8, 32, 3), lin0=linear(10, 2)),
    "conv2d-1x1": sequence(conv2d=lambda: nn.Conv2d(7, 10, 1), lin0=linear(10, 2)),
    "conv2d-oblong": sequence(conv2d=lambda: nn.Conv2d(4, 6, (3, 5), stride=2), lin0=linear(10, 2)),
    "conv1d-kernel1": sequence(conv1d=lambda: nn.Conv1d(3, 10, 1), lin0=linear(9, 2)),
    "conv3d": sequence(conv3d=lambda: nn.Conv3d(5, 10, 3), lin0=linear(10, 2)),
}
for _n, _m in CONVS.items():
    _t = _n.split("-")[0]
    case(_n, _m, lora(target_modules=[_t]))
    case(_n + "-lin", _m, lora(target_modules=[_t, "lin0"]))
    case("dora-" + _n, _m, dora(target_modules=[_t]), expect="close")
    case("dora-" + _n + "-lin", _m, dora(target_modules=[_t, "lin0"]), expect="close")
case(
    "conv2d-lora-bias",
    CONVS["conv2d"],
    lora(target_modules=["conv2d", "lin0"], lora_alpha=32, lora_bias=True),
)
case(
    "conv3d-lora-bias",
    CONVS["conv3d"],
    lora(target_modules=["conv3d"], lora_alpha=32, lora_bias=True),
)
case(
    "conv2d-groups8",
    sequence(conv2d=lambda: nn.Conv2d(16, 16, 3, groups=8)),
    lora(target_modules=["conv2d"]),
    expect="refuse:conv2d",
)
case(
    "conv2d-groups2",
    sequence(conv2d=lambda: nn.Conv2d(16, 32, 3, padding=1, groups=2)),
    lora(target_modules=["conv2d"]),
    expect="refuse:conv2d",
)
case(
    "dora-conv2d-groups2",
    sequence(conv2d=lambda: nn.Conv2d(16, 32, 3, padding=1, groups=2)),
    dora(target_modules=["conv2d"]),
    expect="refuse:conv2d",
)
case("mha", mha, lora(target_modules=["mha"]), expect=MHA)
case("mha-linear", mha, lora(target_modules=["mha", "lin0"]), expect=MHA)
case(
    "mha-larger",
    sequence(mha=lambda: nn.MultiheadAttention(48, 4)),
    lora(target_modules=["mha"]),
    expect=MHA,
)
case(
    "conv2d-larger",
    sequence(conv2d=lambda: nn.Conv2d(32, 48, 3)),
    lora(target_modules=["conv2d"], r=16),
)
case(
    "conv1d-hf-larger",
    sequence(fc=lambda: conv1d(96, 64), proj=lambda: conv1d(64, 64)),
    lora(target_modules=["fc", "proj"], r=16),
)
case(
    "lora-bias-larger",
    sequence(a=linear(64, 48), b=linear(48, 96)),
    lora(target_modules=["a", "b"], r=16, lora_alpha=32, lora_bias=True),
)
case(
    "linear-larger",
    sequence(a=linear(576, 192), b=linear(192, 576), c=linear(192, 192)),
    lora(target_modules=["a", "b", "c"], r=16, rank_pattern={"a": 1, "b": 100}),
)
case(
    "parameter-larger",
    sequence(a=linear(64, 48), b=linear(48, 96)),
    lora(target_modules=[], r=16, target_parameters=["a.weight", "b.weight"]),
    expect=MOE,
)
case("parameter-2d", mlp, lora(target_modules=[], target_parameters=["lin0.weight"]), expect=MOE)
case(
    "parameter-mixed",
    mlp,
    lora(target_modules=["lin0"], target_parameters=["lin1.weight"]),
    expect=MOE,
)
case(
    "two-adapters-same",
    mlp,
    lora(target_modules=["lin0"]),
    lora(target_modules=["lin0"], r=5),
    weights=[1.0, 1.0],
    expect="oracle:PEFT rounds after each adapter",
)
case(
    "two-adapters-different",
    mlp,
    lora(target_modules=["lin0"]),
    lora(target_modules=["lin1"], r=3),
    weights=[1.0, 1.0],
)
case(
    "three-adapters-weights",
    mlp,
    lora(target_modules=["lin0"]),
    lora(target_modules=["lin0", "lin1"], r=5),
    lora(target_modules=["lin1"], use_rslora=True),
    weights=[0.3, -0.7, 2.0],
    expect="oracle:PEFT merges without weights",
)
case("mica", mlp, lora(target_modules=["lin0"], init_lora_weights="mica", r=2), expect="either")
case("exclude", mlp, lora(target_modules="lin.*", exclude_modules=["lin1"]))


def special(name, target, **keys):
    """Variants whose update PEFT forms with more than A and B: the program may refuse them, or be
    right."""
    import peft.tuners.lora.config as c

    made = {k: getattr(c, v[0])(**v[1]) if isinstance(v, tuple) else v for k, v in keys.items()}
    return lora(target_modules=[target], r=4, **made)


def variants():
    import peft.tuners.lora.config as c

    if hasattr(c, "VeloraConfig"):
        case(
            "velora",
            mlp,
            special(
                "velora",
                "lin0",
                velora_config=("VeloraConfig", {"num_groups": 2, "init_type": "random"}),
            ),
            expect="either",
        )
    case(
        "pissa",
        sequence(a=linear(24, 20)),
        lora(target_modules=["a"], init_lora_weights="pissa"),
        expect="refuse:pissa",
    )
    case(
        "olora",
        sequence(a=linear(24, 20)),
        lora(target_modules=["a"], init_lora_weights="olora"),
        expect="refuse:olora",
    )
    for init in ("pissa", "olora"):
        case(
            init + "-converted",
            sequence(a=linear(48, 64)),
            lora(target_modules=["a"], init_lora_weights=init),
            convert=True,
            dtypes=("float32",),
        )
    case(
        "alora",
        mlp,
        lora(target_modules=["lin0"], alora_invocation_tokens=[1, 2]),
        expect="refuse:alora_invocation_tokens",
    )


variants()


# ------------------------------------------------------------------------------------------------
# models of transformers, small


def hf(kind, config_kind, **keys):
    def make():
        import transformers

        return getattr(transformers, kind)(getattr(transformers, config_kind)(**keys))

    return make


LLAMA = dict(
    vocab_size=97,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
llama = hf("LlamaForCausalLM", "LlamaConfig", tie_word_embeddings=False, **LLAMA)
llama_tied = hf("LlamaForCausalLM", "LlamaConfig", tie_word_embeddings=True, **LLAMA)
qwen2 = hf("Qwen2ForCausalLM", "Qwen2Config", tie_word_embeddings=True, **LLAMA)
gpt2 = hf(
    "GPT2LMHeadModel", "GPT2Config", vocab_size=97, n_positions=40, n_embd=48, n_layer=2, n_head=4
)
bert = hf(
    "BertForSequenceClassification",
    "BertConfig",
    vocab_size=97,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=80,
    max_position_embeddings=40,
    num_labels=3,
)
gemma3 = hf(
    "Gemma3ForCausalLM",
    "Gemma3TextConfig",
    vocab_size=97,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
)
t5 = hf(
    "T5ForConditionalGeneration",
    "T5Config",
    vocab_size=97,
    d_model=48,
    d_kv=8,
    d_ff=80,
    num_layers=2,
    num_heads=6,
)
vit = hf(
    "ViTForImageClassification",
    "ViTConfig",
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=80,
    image_size=16,
    patch_size=4,
    num_labels=3,
)
mixtral = hf(
    "MixtralForCausalLM",
    "MixtralConfig",
    num_local_experts=4,
    num_experts_per_tok=2,
    tie_word_embeddings=False,
    **LLAMA
)
gpt_oss = hf(
    "GptOssForCausalLM",
    "GptOssConfig",
    num_local_experts=4,
    num_experts_per_tok=2,
    head_dim=8,
    tie_word_embeddings=False,
    **LLAMA
)
gpt_oss_square = hf(
    "GptOssForCausalLM",
    "GptOssConfig",
    num_local_experts=4,
    num_experts_per_tok=2,
    head_dim=8,
    tie_word_embeddings=False,
    **{**LLAMA, "intermediate_size": 48}
)
llama4 = hf(
    "Llama4ForCausalLM",
    "Llama4TextConfig",
    num_local_experts=4,
    num_experts_per_tok=1,
    head_dim=8,
    tie_word_embeddings=False,
    intermediate_size_mlp=64,
    pad_token_id=0,
    **LLAMA
)
llama4_square = hf(
    "Llama4ForCausalLM",
    "Llama4TextConfig",
    num_local_experts=4,
    num_experts_per_tok=1,
    head_dim=8,
    tie_word_embeddings=False,
    intermediate_size_mlp=64,
    pad_token_id=0,
    **{**LLAMA, "intermediate_size": 48}
)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def hfcase(name, model, *configs, **more):
    case("hf-" + name, model, *configs, transformers=True, **more)


WIDE = ("float32", "bfloat16")  # models that keep a part of themselves in f32 when loaded as f16
TIED = "oracle:PEFT moves both sides of tied embeddings"
hfcase("llama", llama, lora(target_modules=ALL), generates=True)
hfcase("llama-all-linear", llama, lora(target_modules="all-linear", r=5), generates=True)
hfcase(
    "llama-patterns",
    llama,
    lora(
        target_modules=ALL,
        rank_pattern={"layers.1.self_attn.q_proj": 3, "q_proj": 5, "mlp.*": 2},
        alpha_pattern={"0.*proj": 9, "v_proj": 3},
    ),
    generates=True,
)
hfcase(
    "llama-layers",
    llama,
    lora(target_modules=["q_proj", "v_proj"], layers_to_transform=[1], modules_to_save=["norm"]),
    generates=True,
)
hfcase(
    "llama-embed",
    llama,
    lora(target_modules=["embed_tokens", "q_proj"]),
    generates=True,
    expect=EMBED,
)
hfcase("llama-lm-head", llama, lora(target_modules=["lm_head", "q_proj"]), generates=True)
hfcase(
    "llama-both-ends",
    llama,
    lora(target_modules=["embed_tokens", "lm_head"]),
    generates=True,
    expect=EMBED,
)
hfcase(
    "llama-modules-to-save",
    llama,
    lora(target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"]),
    generates=True,
)
hfcase(
    "llama-tokens",
    llama,
    lora(target_modules=["q_proj"], trainable_token_indices=[1, 5, 90]),
    generates=True,
)
hfcase("llama-tied", llama_tied, lora(target_modules=ALL), generates=True)
hfcase(
    "llama-tied-embed",
    llama_tied,
    lora(target_modules=["embed_tokens"]),
    expect=TIED,
    generates=True,
)
hfcase(
    "llama-tied-head",
    llama_tied,
    lora(target_modules=["lm_head", "q_proj"]),
    expect=TIED,
    generates=True,
)
hfcase(
    "llama-tied-both",
    llama_tied,
    lora(target_modules=["lm_head", "embed_tokens"]),
    expect=TIED,
    generates=True,
)
hfcase(
    "llama-tied-same",
    llama_tied,
    lora(target_modules=["lm_head", "embed_tokens"], ensure_weight_tying=True),
    expect="oracle:PEFT adds the shared update twice",
    generates=True,
)
hfcase(
    "llama-tied-tokens",
    llama_tied,
    lora(target_modules=["q_proj"], trainable_token_indices=[1, 5, 90]),
    generates=True,
)
hfcase(
    "llama-tied-save-embed",
    llama_tied,
    lora(target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    generates=True,
)
hfcase("llama-dora", llama, dora(target_modules=ALL), expect="close", generates=True)
hfcase("qwen2", qwen2, lora(target_modules=ALL, bias="all"), generates=True)
hfcase("gpt2", gpt2, lora(target_modules=["c_attn", "c_proj", "c_fc"]), generates=True)
hfcase(
    "gpt2-head", gpt2, lora(target_modules=["attn.c_proj", "lm_head"]), generates=True, expect=TIED
)
hfcase("gpt2-wte", gpt2, lora(target_modules=["c_attn", "wte"]), generates=True, expect=TIED)
hfcase("gpt2-dora", gpt2, dora(target_modules=["c_attn", "c_proj"]), expect="close", generates=True)
hfcase(
    "bert",
    bert,
    lora(
        target_modules=["query", "value", "dense"],
        modules_to_save=["classifier"],
        task_type="SEQ_CLS",
    ),
)
hfcase(
    "gemma3", gemma3, lora(target_modules=["q_proj", "embed_tokens"]), generates=True, expect=TIED
)
hfcase("t5", t5, lora(target_modules=["q", "v", "wi"]), dtypes=WIDE)
hfcase(
    "vit",
    vit,
    lora(target_modules=["q_proj", "v_proj", "query", "value"], modules_to_save=["classifier"]),
)
hfcase("mixtral-attention", mixtral, lora(target_modules=["q_proj", "v_proj"]), generates=True)
hfcase(
    "mixtral-experts",
    mixtral,
    lora(
        target_modules=["q_proj"], target_parameters=["experts.gate_up_proj", "experts.down_proj"]
    ),
    expect=MOE,
)
hfcase(
    "gpt-oss-down",
    gpt_oss,
    lora(target_modules=[], target_parameters=["experts.down_proj"]),
    expect=MOE,
    dtypes=WIDE,
)
hfcase(
    "gpt-oss-both",
    gpt_oss,
    lora(
        target_modules=[],
        lora_alpha=32,
        target_parameters=["experts.gate_up_proj", "experts.down_proj"],
        alpha_pattern={"experts.down_proj": 5},
    ),
    expect=MOE,
    dtypes=WIDE,
)
hfcase(
    "gpt-oss-layers",
    gpt_oss,
    lora(
        target_modules=[],
        target_parameters=["0.mlp.experts.gate_up_proj", "1.mlp.experts.down_proj"],
    ),
    expect=MOE,
    dtypes=WIDE,
)
hfcase(
    "gpt-oss-mixed",
    gpt_oss,
    lora(target_modules=["q_proj", "v_proj"], target_parameters=["experts.down_proj"]),
    expect=MOE,
    dtypes=WIDE,
)
hfcase(
    "gpt-oss-square",
    gpt_oss_square,
    lora(target_modules=[], target_parameters=["experts.gate_up_proj", "experts.down_proj"]),
    expect=MOE,
    dtypes=WIDE,
)
hfcase(
    "llama4-down",
    llama4,
    lora(target_modules=[], target_parameters=["experts.down_proj"]),
    expect=MOE,
)
hfcase(
    "llama4-both",
    llama4,
    lora(
        target_modules=[],
        lora_alpha=32,
        target_parameters=["experts.gate_up_proj", "experts.down_proj"],
    ),
    expect=MOE,
)
hfcase(
    "llama4-layers",
    llama4,
    lora(
        target_modules=[],
        target_parameters=[
            "0.feed_forward.experts.gate_up_proj",
            "1.feed_forward.experts.down_proj",
        ],
    ),
    expect=MOE,
)
hfcase(
    "llama4-mixed",
    llama4,
    lora(target_modules=["q_proj", "v_proj"], target_parameters=["experts.down_proj"]),
    expect=MOE,
)
hfcase(
    "llama4-square",
    llama4_square,
    lora(target_modules=[], target_parameters=["experts.down_proj"]),
    expect="either",
)
hfcase(
    "layer-replication",
    llama,
    lora(target_modules=["q_proj"], layer_replication=[[0, 2], [0, 2]]),
    expect="refuse:layer_replication",
)
