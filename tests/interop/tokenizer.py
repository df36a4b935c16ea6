#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer against the `tokenizers` library, token by token.

    tokenizer.py BINARY [--lines N] [--case PATTERN] [--seed N]

Every case is a tokenizer.json. Real ones: SmolLM2's (LORACTL_SMOLLM2 or build/smollm2) and those of
tests/data/tiny. The others are trained here, by `tokenizers`, with the exact components of a family:
what a family's tokenizer does is in these, its vocabulary only says with which pieces. For each:

 1. N lines (10,000 unless told) of mixed scripts, marks, emoji, code, white space, broken UTF-8 and
    added tokens are encoded by both: the same ids, with and without what stands around a text, and
    with special tokens taken as text.
 2. The ids of those lines, and rows of random ids, are decoded by both: the same text, whole and
    token by token, with and without special tokens.
 3. A token's text is never held back longer than needed: what a decoder gave so far is what the
    library decodes of the tokens so far, but for an unfinished character at the end.

Then files that must be refused by name; what tokenizer_config.json adds; chat templates, against
transformers with the templates as they were published; and which tokens an assistant says. Needs tokenizers and transformers (build/venv
is tried).
"""

import argparse
import fnmatch
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))

os.environ.setdefault("RUST_BACKTRACE", "0")

import run as oracle_run  # noqa: E402

if not oracle_run.with_torch():
    sys.exit("tokenizer.py: tokenizers is missing, here and in build/venv")

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers  # noqa: E402
from tokenizers import pre_tokenizers, processors, trainers  # noqa: E402

SPECIAL, LITERAL, SKIP = 1, 2, 1
NONE = 2**32 - 1


# ------------------------------------------------------------------------------------------------
# the program under test


def find_helper(binary):
    path = os.path.join(os.path.dirname(os.path.abspath(binary)), "helper_tokenize")
    if not os.path.exists(path):
        sys.exit("tokenizer.py: %s is missing" % path)
    return path


class Ours:
    """A tokenizer's folder, through tests/helpers/tokenize.c."""

    def __init__(self, helper, folder):
        self.helper, self.folder = helper, folder

    def call(self, mode, flags=0, data=b"", check=True):
        done = subprocess.run(
            [self.helper, self.folder, mode, str(flags)], input=data, capture_output=True
        )
        if check and done.returncode:
            raise AssertionError("%s: exit %d: %s" % (mode, done.returncode, done.stderr.decode()))
        return done

    def encode(self, texts, flags=0):
        data = b"".join(b"%d\n%s\n" % (len(t), t) for t in texts)
        lines = self.call("encode", flags, data).stdout.split(b"\n")[:-1]
        return [[int(i) for i in line.split()] for line in lines]

    def texts(self, mode, lists, flags):
        data = b"".join(b" ".join(b"%d" % i for i in ids) + b"\n" for ids in lists)
        out, at, texts = self.call(mode, flags, data).stdout, 0, []
        while at < len(out):
            end = out.index(b"\n", at)
            size = int(out[at:end])
            texts.append(out[end + 1 : end + 1 + size])
            at = end + 2 + size
        return texts

    def decode(self, lists, flags=0):
        return self.texts("decode", lists, flags)

    def stream(self, lists, flags=0):
        """For each list, the texts of its tokens and, last, what was held back."""
        texts, at, out = self.texts("stream", lists, flags), 0, []
        for ids in lists:
            out.append(texts[at : at + len(ids) + 1])
            at += len(ids) + 1
        return out


# ------------------------------------------------------------------------------------------------
# text of every kind

WORDS = """the of and to model weights adapter rank don't I'll we've they're it's he'd I'm naïve café
Straße ﬁancé ŉ İstanbul ΣΊΣΥΦΟΣ Привет мир как дела ёлка שלום עולם مرحبا بالعالم السَّلَامُ नमस्ते दुनिया क्षत्रिय
வணக்கம் తెలుగు ภาษาไทย ພາສາລາວ မြန်မာ ខ្មែរ འབྲུག ქართული հայերեն አማርኛ ᠮᠣᠩᠭᠣᠯ 日本語 テスト ひらがな 漢字 中文测试 繁體字 한국어 안녕하세요
𠀀𠀁 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ½ ² Ⅷ ٣٤٥ १२३ 123 4567 89012345 3.14159 1e-10 0xff ＡＢＣ １２３ ㌔ ﷺ Å ẛ̣ q̣̇ ạ̈ é ö 가 각""".split()
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "☎", "🫠", "1️⃣", "\U0001f9d1\U0001f3fb‍\U0001f4bb"]
CODE = [
    "def f(x):\n    return x**2  # square\n",
    "for (int i = 0; i < n; i++) {\n\t\ta[i] += b[i];\r\n}",
    "SELECT * FROM t WHERE a='x''y';",
    '{"key": [1, 2.5e-3, null], "été": "ü"}',
    "#include <stdio.h>\n\n\nint main(void){return 0;}",
    "<a href=\"http://x.org/?q=1&r=2\">_foo-bar__baz</a>",
    "if a!=b&&c||!d: print(f'{x:>10}')",
    "\\frac{1}{2}\\sum_{i=0}^{n}",
]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n ", "\u00a0", "\u2003", "\u3000", "\u200b", "\u180e", "\x0b", "\x0c", "\x85",
          "\u2028", " " * 17, "\t\t\t", "▁", "▁▁", " ▁ "]
MARKS = ["\u0301", "\u0323", "\u0307", "\u0327", "\u05b0\u05b7", "\u064b\u0651", "\u093c\u094d", "\u0e38\u0e48", "\u1dc0", "\u20d7", "\u3099"]
BROKEN = [b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\x80\x80", b"\xe0\x80\xaf", b"\xf8\x88\x80\x80\x80",
          b"\xf0\x80\x80\x80", b"\xe1\xa0\xc0"]
ASCII = "".join(map(chr, range(32, 127)))
# Assigned in Unicode 9 already: the libraries' tables are of different versions.
BLOCKS = [(0x21, 0x7E), (0xA1, 0x17F), (0x250, 0x2AF), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x621, 0x64A), (0x904, 0x939),
          (0xE01, 0xE3A), (0x10D0, 0x10FA), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2070, 0x209C), (0x2100, 0x218B),
          (0x2190, 0x23FE), (0x2460, 0x24FF), (0x2600, 0x26FF), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x3200, 0x32FE), (0x4E00, 0x9FD5),
          (0xAC00, 0xD7A3), (0xF900, 0xFA6D), (0xFB00, 0xFB06), (0xFE20, 0xFE2F), (0xFF01, 0xFF5E), (0x1D400, 0x1D454), (0x1F600, 0x1F64F), (0x20000, 0x2A6D6)]


def piece(rng, added):
    kind = rng.randrange(14)
    if kind < 4:
        return rng.choice(WORDS).encode()
    if kind == 4:
        return rng.choice(SPACES).encode()
    if kind == 5:
        return rng.choice(EMOJI).encode()
    if kind == 6:
        return rng.choice(CODE).encode()
    if kind == 7:
        return (rng.choice("aeiouAEZxяα가क") + "".join(rng.choices(MARKS, k=rng.randrange(1, 5)))).encode()
    if kind == 8:
        return rng.choice(BROKEN)
    if kind == 9 and added:
        token = rng.choice(added)
        return rng.choice([token, " " + token + "  ", token + token, token[:-1], "x" + token, token + "y", "\n" + token + "\n"]).encode()
    if kind == 10:
        return "".join(chr(rng.randint(*rng.choice(BLOCKS))) for _ in range(rng.randrange(1, 6))).encode()
    if kind == 11:
        return "".join(rng.choices(ASCII, k=rng.randrange(1, 12))).encode()
    if kind == 12:
        return rng.choice(["a", "0", ".", " ", "é", "日", "\n"]).encode() * rng.randrange(1, 40)
    return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 4))) if rng.randrange(8) == 0 else b" "


def lines(seed, count, added):
    """The texts of a case; the first are the corners."""
    rng = random.Random(seed)
    texts = [b"", b" ", b"  ", b"\n", b"a", b"\x00", b"a\x00b", "▁".encode(), " ▁a".encode(), b"\xef\xbb\xbfa"]
    texts += [t.encode() for t in added] + [e.encode() for e in EMOJI + WORDS + SPACES + CODE + MARKS] + BROKEN
    while len(texts) < count:
        glue = rng.choice([b"", b" ", b" ", b" "])
        texts.append(glue.join(piece(rng, added) for _ in range(rng.randrange(1, 12))))
    return texts[:count]


def training_text():
    rng = random.Random(5)
    out = []
    for name in ("style1.txt", "style2.txt"):
        with open(os.path.join(ROOT, "tests", "data", "tiny", name), encoding="utf-8") as file:
            out += file.read().split("\n")
    for _ in range(3000):
        out.append(" ".join(rng.choice([rng.choice(WORDS), rng.choice(EMOJI), rng.choice(CODE)]) for _ in range(8)))
    return out


# ------------------------------------------------------------------------------------------------
# the families

GPT2 = None  # ByteLevel's own expression
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"


def added(content, **flags):
    return AddedToken(content, **{"normalized": False, "special": True, **flags})


def train(tokenizer, size, specials, alphabet=(), **options):
    tokenizer.train_from_iterator(
        training_text(),
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=specials, initial_alphabet=list(alphabet), show_progress=False, **options
        ),
    )
    return tokenizer


def byte_level(pre, size=3000, specials=("<|endoftext|>",), normalizer=None, **model):
    t = Tokenizer(models.BPE(**model))
    t.pre_tokenizer, t.decoder = pre, decoders.ByteLevel()
    if normalizer:
        t.normalizer = normalizer
    return train(t, size, list(specials), pre_tokenizers.ByteLevel.alphabet())


def split(regex, behavior="isolated"):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(regex), behavior), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def around(t, before, after=""):
    ids = [(n, t.token_to_id(n)) for n in (before, after) if n]
    t.post_processor = processors.TemplateProcessing(
        single=" ".join(x for x in (before, "$A", after) if x), pair="$A $B", special_tokens=ids
    )
    return t


def sentencepiece(size=2500, normalizer=None, pre=None, decoder=None, fallback=True, fuse=True, extra=()):
    """Byte-fallback BPE, as converted from SentencePiece: trained on marked words, then run on the whole text."""
    specials = ["<unk>", "<s>", "</s>"] + (["<0x%02X>" % i for i in range(256)] if fallback else [])
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse, byte_fallback=fallback))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    train(t, size, specials, limit_alphabet=250)
    spec = json.loads(t.to_str())
    spec["added_tokens"] = [x for x in spec["added_tokens"] if not x["content"].startswith("<0x")]
    spec["pre_tokenizer"] = None
    t = Tokenizer.from_str(json.dumps(spec))
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    t.decoder = decoder or decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    t.add_tokens(list(extra))
    return around(t, "<s>")


def llama2_normalizer():
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def gpt2():
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))


def gpt2_prefix():
    """RoBERTa's and BLOOM's way of it, and every flag of an added token."""
    t = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))
    t.add_special_tokens([added("<mask>", lstrip=True), added("<r>", rstrip=True), added("<both>", lstrip=True, rstrip=True)])
    t.add_tokens([added("wort", single_word=True, special=False), added("    ", special=False), added("  ", special=False, rstrip=True)])
    t.add_tokens([added("é", special=False), added("<|endoftext|>x", special=False), added("\n", special=False)])
    return t


def smollm2():
    t = byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    return t


def digits_rows():
    return byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    )


def llama3():
    t = byte_level(split(LLAMA3), 4000, ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"], ignore_merges=True)
    # Whole words that no merge makes, as tiktoken's ranks have them.
    spec = json.loads(t.to_str())
    spec["model"]["merges"] = [m for i, m in enumerate(spec["model"]["merges"]) if i % 7]
    spec["model"]["ignore_merges"] = True
    t = Tokenizer.from_str(json.dumps(spec))
    around(t, "<|begin_of_text|>")
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), t.post_processor])
    return t


def qwen2():
    t = byte_level(split(QWEN2), 4000, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], normalizer=normalizers.NFC())
    t.add_tokens([added("<think>", special=False), added("</think>", special=False)])
    t.add_tokens([AddedToken("ạ̈ö", normalized=True, special=False)])
    return t


def o200k():
    return byte_level(split(O200K), 4000)


def cl100k():
    t = byte_level(split(CL100K), 4000)
    return around(t, "<|endoftext|>", "<|endoftext|>")


def deepseek():
    """Several Splits behind one another, ranges of characters, and every behavior but one."""
    parts = [
        pre_tokenizers.Split(Regex("[\r\n]"), "isolated"),
        pre_tokenizers.Split(Regex("\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ]+"), "isolated"),
        pre_tokenizers.Split(Regex("\\s?[!-/:-~！-／：-～‘-‟　-。]+"), "isolated"),
        pre_tokenizers.Split(Regex("\\s+$"), "isolated"),
        pre_tokenizers.Split(Regex("[一-龥ࠀ-一가-퟿]+"), "merged_with_previous"),
        pre_tokenizers.Split(Regex("\\p{Han}|\\w\\d"), "merged_with_next"),
        pre_tokenizers.Split("é", "contiguous"),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    return byte_level(pre_tokenizers.Sequence(parts), 4000)


def behaviors():
    """Matches next to one another, under every behavior."""
    parts = [
        pre_tokenizers.Split(Regex("\\p{Han}|[ 0-4]"), "merged_with_previous"),
        pre_tokenizers.Split(Regex("[aeiou\n]"), "merged_with_next"),
        pre_tokenizers.Split(Regex("\\p{Ll}|\\p{M}"), "contiguous"),
        pre_tokenizers.Split("=", "removed"),
        pre_tokenizers.Split(Regex("[5-9]"), "merged_with_next", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    return byte_level(pre_tokenizers.Sequence(parts))


def removed():
    """A Split that throws away, one that is inverted, one that also matches nothing."""
    parts = [
        pre_tokenizers.Split(Regex("[,;]+"), "removed"),
        pre_tokenizers.Split(Regex("[a-z0-9]+|x*"), "isolated"),
        pre_tokenizers.Split(Regex("\\S+"), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
    ]
    return byte_level(pre_tokenizers.Sequence(parts))


def llama2():
    return sentencepiece(normalizer=llama2_normalizer())


def tinyllama():
    """With added tokens, which come with white space, and one that is normalized as of old."""
    t = sentencepiece(normalizer=llama2_normalizer(), extra=[added("<|user|>"), added("<|assistant|>", lstrip=True, rstrip=True)])
    t.add_tokens([AddedToken("<old>", normalized=True, special=True), AddedToken("▁▁▁", normalized=False)])
    return t


def metaspace(scheme, **options):
    pre = pre_tokenizers.Metaspace(prepend_scheme=scheme, **options)
    dec = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme), decoders.Fuse()])
    return sentencepiece(pre=pre, decoder=dec, extra=[added("[INST]"), added("[/INST]", rstrip=True)])


def mistral_first():
    return metaspace("first", split=False)


def marked_chatml():
    t = mistral_first()
    t.add_special_tokens([added("<|im_start|>"), added("<|im_end|>")])
    return t


def mistral_always():
    return metaspace("always")


def metaspace_never():
    return metaspace("never")


def no_fallback():
    """Unknown characters, one token for each."""
    return sentencepiece(normalizer=llama2_normalizer(), fallback=False, fuse=False)


def fused_unknown():
    return sentencepiece(normalizer=llama2_normalizer(), fallback=False, fuse=True)


def some_bytes():
    """A vocabulary that has some of the bytes only."""
    t = sentencepiece(normalizer=llama2_normalizer(), fuse=False)
    spec = json.loads(t.to_str())
    for i in (0xC3, 0x9F, 0xE6):
        spec["model"]["vocab"]["byte %d" % i] = spec["model"]["vocab"].pop("<0x%02X>" % i)
    return Tokenizer.from_str(json.dumps(spec))


def normalized(*parts):
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizer=normalizers.Sequence(list(parts)))


def nfkc_lower():
    t = normalized(normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip())
    t.add_tokens([AddedToken("ＡＢＣ", normalized=True), AddedToken("STOP", normalized=True, single_word=True), added("Wort", special=False, single_word=True)])
    return t


def nfd_accents():
    return normalized(normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip(left=True, right=False))


def nfkd_replace():
    return normalized(normalizers.NFKD(), normalizers.Replace(Regex("[\\s]{2,}"), " "), normalizers.Replace("e", "ee"), normalizers.Prepend("x"))


def bare():
    """Neither normalizer, pre-tokenizer, post-processor nor decoder."""
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    return train(t, 800, ["<unk>"], limit_alphabet=120)


CASES = [gpt2, gpt2_prefix, smollm2, digits_rows, llama3, qwen2, o200k, cl100k, deepseek, behaviors, removed, llama2, tinyllama, mistral_first,
         mistral_always, metaspace_never, no_fallback, fused_unknown, some_bytes, nfkc_lower, nfd_accents, nfkd_replace, bare]


# ------------------------------------------------------------------------------------------------
# the comparison


def show(text):
    return ascii(text if isinstance(text, str) else text.decode("utf-8", "backslashreplace"))[:300]


def equal(what, ours, theirs, inputs):
    wrong = [i for i in range(len(theirs)) if ours[i] != theirs[i]]
    if len(ours) != len(theirs):
        raise AssertionError("%s: %d answers to %d questions" % (what, len(ours), len(theirs)))
    if wrong:
        i = min(wrong, key=lambda i: len(inputs[i]))
        raise AssertionError(
            "%s: %d of %d differ; the shortest: %s\n   ours   %s\n   theirs %s"
            % (what, len(wrong), len(theirs), show(inputs[i]) if isinstance(inputs[i], bytes) else inputs[i][:40], show(str(ours[i])), show(str(theirs[i])))
        )


def check_streams(ours, t, lists):
    """3. Only an unfinished character is held back."""
    for ids, texts in zip(lists, ours.stream(lists)):
        so_far = b""
        for k in range(len(ids)):
            so_far += texts[k]
            whole = t.decode(ids[: k + 1], skip_special_tokens=False)
            if not whole.startswith(so_far.decode()):
                raise AssertionError("stream: %s: too much after %d" % (ids[:40], k + 1))
            rest = whole[len(so_far.decode()) :]
            if rest.strip("\ufffd") and "ByteFallback" not in str(t.decoder):
                raise AssertionError("stream: %s: '%s' is held back" % (ids[:40], rest))


def compare(ours, t, count, seed):
    contents = [x.content for x in t.get_added_tokens_decoder().values()]
    texts = lines(seed, count, contents)
    strings = [x.decode("utf-8", "replace") for x in texts]
    t.no_truncation(), t.no_padding()
    for flags, name in ((0, "encode"), (SPECIAL, "encode with special"), (LITERAL, "encode literally")):
        t.encode_special_tokens = flags == LITERAL
        theirs = [e.ids for e in t.encode_batch(strings, add_special_tokens=flags == SPECIAL)]
        ids = ours.encode(texts, flags)
        equal(name, ids, theirs, texts)
    t.encode_special_tokens = False
    rng = random.Random(seed)
    highest = t.get_vocab_size() + 3
    lists = [e.ids for e in t.encode_batch(strings)]
    lists += [[rng.randrange(highest) for _ in range(rng.randrange(1, 12))] for _ in range(count // 4)]
    lists = [x for x in lists if x]
    # The library does not skip special tokens that are normalized to another spelling.
    missed = {i for i, x in t.get_added_tokens_decoder().items() if x.special and t.id_to_token(i) != x.content}
    for flags in (0, SKIP):
        if flags:
            lists = [x for x in lists if not missed.intersection(x)]
        theirs = [x.encode() for x in t.decode_batch(lists, skip_special_tokens=flags == SKIP)]
        equal("decode %d" % flags, ours.decode(lists, flags), theirs, lists)
        equal("stream %d" % flags, [b"".join(x) for x in ours.stream(lists, flags)], theirs, lists)
    check_streams(ours, t, [x[:60] for x in lists[:: max(1, len(lists) // 300)]])
    return len(texts), len(lists)


# ------------------------------------------------------------------------------------------------
# refusals: one change to a good file, and what the one line has to name

RULE = {"type": "Split", "behavior": "Isolated", "invert": False}


def regex(text):
    return {"pre_tokenizer": {**RULE, "pattern": {"Regex": text}}}


REFUSED = [
    ({"model": {"type": "Unigram", "vocab": []}}, "Unigram"),
    ({"model": {"type": "WordPiece", "vocab": {}}}, "WordPiece"),
    ({"model.dropout": 0.1}, "dropout"),
    ({"model.continuing_subword_prefix": "##"}, "continuing_subword_prefix"),
    ({"model.end_of_word_suffix": "</w>"}, "end_of_word_suffix"),
    ({"model.fuse_unk": "yes"}, "fuse_unk"),
    ({"model.unk_token": 3}, "unk_token"),
    ({"model.magic": True}, "magic"),
    ({"model.merges": [["h", "e", "l"]]}, "merge 0"),
    ({"model.merges": ["he"]}, "merge 0"),
    ({"model.merges": ["a b c"]}, "merge 0"),
    ({"model.merges": ["h 日"]}, "日"),
    ({"model.vocab": {"a": 0, "b": 0}}, "same id"),
    ({"model.vocab": {"a": -1}}, "'a'"),
    ({"model.vocab": {"a": 1 << 31}}, "2147483648"),
    ({"model.vocab": []}, "vocab"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}}, "Precompiled"),
    ({"normalizer": {"type": "BertNormalizer"}}, "BertNormalizer"),
    ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}]}}, "Nmt"),
    ({"normalizer": {"type": "NFC", "strength": 1}}, "strength"),
    ({"normalizer": {"type": "Replace", "pattern": {"Regex": "(a"}, "content": ""}}, "(a"),
    ({"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": ""}}, "empty pattern"),
    ({"normalizer": {"type": "Prepend"}}, "prepend"),
    ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 33}}, "more than 32"),
    ({"pre_tokenizer": {"type": "BertPreTokenizer"}}, "BertPreTokenizer"),
    ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
    ({"pre_tokenizer": {"type": "ByteLevel", "trim_offsets": True}}, "add_prefix_space"),
    ({"pre_tokenizer": {"type": "Metaspace", "replacement": "ab"}}, "replacement"),
    ({"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"}}, "prepend_scheme"),
    ({"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "add_prefix_space": False}}, "contradicts"),
    ({"pre_tokenizer": {**RULE, "behavior": "Doubled", "pattern": {"String": "a"}}}, "Doubled"),
    (regex(r"\bword"), r"\b"),
    (regex(r"a{1,3}+"), "repetition"),
    (regex(r"a{,3}"), "repetition"),
    (regex(r"a{3}?"), "repetition"),
    (regex(r"(?<name>a)"), "group"),
    (regex(r"(?m)a"), "group"),
    (regex(r"(*FAIL)"), "verb"),
    (regex(r"(a)\1"), r"\1"),
    (regex(r"\hx"), r"\h"),
    (regex(r"\p{Emoji}"), "Emoji"),
    (regex(r"\pL"), "property"),
    (regex(r"[a&&b]"), "class"),
    (regex(r"[[:alpha:]]"), "class"),
    (regex(r"[]a]"), "class"),
    (regex(r"(?i:straße)"), "without regard to case"),
    (regex(r"(?i:ss)"), "without regard to case"),
    (regex(r"(?i:\p{Lu})"), "without regard to case"),
    (regex(r"\xff"), "number"),
    (regex("a" * 20000), "too long"),
    (regex("(" * 100 + ")" * 100), "deep"),
    ({"post_processor": {"type": "BertProcessing"}}, "BertProcessing"),
    ({"post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}], "pair": [], "special_tokens": {}}}, "one text A"),
    ({"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                         "pair": [], "special_tokens": {}}}, "<x>"),
    ({"decoder": {"type": "WordPiece"}}, "WordPiece"),
    ({"decoder": {"type": "CTC"}}, "CTC"),
    ({"decoder": {"type": "Strip", "content": " ", "start": 1, "stop": 1}}, "Strip"),
    ({"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}}, "Fuse"),
    ({"added_tokens.0.id": 7}, "<s>"),
    ({"added_tokens.0.normalized": None}, "normalized"),
    ({"added_tokens.0.content": ""}, "content"),
    ({"added_tokens.0.content": "x" * 300}, "300"),
    ({"added_tokens.0.weight": 3}, "weight"),
    ({"added_tokens.1.content": "<s>"}, "<s>"),
    ({"surprise": 1}, "surprise"),
    ({"model": None}, "model"),
]
BAD_CONFIGS = [
    ({"added_tokens_decoder": {"600": {"content": "<new>"}}}, "<new>"),
    ({"added_tokens_decoder": {"5": {"content": "<s>"}}}, "<s>"),
    ({"added_tokens_decoder": {"0": {"content": "<s>", "lstrip": True}}}, "lstrip"),
]


def changed(spec, change):
    spec = json.loads(json.dumps(spec))
    for path, value in change.items():
        *parents, last = path.split(".")
        at = spec
        for key in parents:
            at = at[int(key) if key.isdigit() else key]
        at[last] = value
    return spec


def refusals(helper, work):
    """Exit 3 and one line that names what is not supported."""
    folder, failed = os.path.join(work, "refused"), 0
    os.makedirs(folder)
    with open(os.path.join(ROOT, "tests", "data", "tiny", "llama", "tokenizer.json"), encoding="utf-8") as file:
        good = json.load(file)
    cases = [(json.dumps(changed(good, change)), {}, name) for change, name in REFUSED]
    cases += [(json.dumps(good), config, name) for config, name in BAD_CONFIGS]
    cases += [("{", {}, "line 1"), ("[]", {}, "no object"), ('{"model":{"vocab":{"a":0,"a":1}}}', {}, "twice")]
    cases += [("[" * 100000, {}, "deep"), ('{"model":{"vocab":{"a\\u0000":0}}}', {}, "u0000")]
    for text, config, name in [(json.dumps(good), {}, None)] + cases:
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
            file.write(text)
        with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file)
        done = Ours(helper, folder).call("facts", check=False)
        line = done.stderr.decode()
        if name is None:
            ok = done.returncode == 0
        else:
            ok = done.returncode == 3 and line.count("\n") == 1 and name in line
        if not ok:
            failed += 1
            print("refusal of %s: exit %d: %s" % (name, done.returncode, line))
    print("%-18s %d of %d" % ("refusals", len(cases) + 1 - failed, len(cases) + 1))
    return failed


# ------------------------------------------------------------------------------------------------
# what tokenizer_config.json adds


def ends(helper, work):
    """add_bos_token and add_eos_token against transformers, and the tokens' roles."""
    import transformers

    folder, failed, cases = os.path.join(work, "ends"), 0, 0
    os.makedirs(folder)
    around(llama3(), "").save(os.path.join(folder, "tokenizer.json"))
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    for bos in (None, False, True):
        for eos in (None, False, True):
            for makes in ("", "<|begin_of_text|>"):
                t = around(llama3(), makes)
                t.save(os.path.join(folder, "tokenizer.json"))
                config = dict(names, tokenizer_class="PreTrainedTokenizerFast")
                config.update({k: v for k, v in (("add_bos_token", bos), ("add_eos_token", eos)) if v is not None})
                with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
                    json.dump(config, file)
                theirs = transformers.AutoTokenizer.from_pretrained(folder)("hello there")["input_ids"]
                ours = Ours(helper, folder).encode([b"hello there"], SPECIAL)[0]
                cases += 1
                if ours != theirs:
                    failed += 1
                    print("ends: bos %s, eos %s, template %r: ours %s, theirs %s" % (bos, eos, makes, ours, theirs))
    facts = Ours(helper, folder).call("facts").stdout.decode().split("\n")
    want = ["special 0 %d" % t.token_to_id(names["bos_token"]), "special 1 %d" % t.token_to_id(names["eos_token"]), "special 2 -1",
            "count %d" % t.get_vocab_size(), "chat none"]
    failed += sum(1 for x in want if x not in facts)
    print("%-18s %d of %d" % ("ends", cases - failed, cases))
    return failed


# ------------------------------------------------------------------------------------------------
# chat templates, as they were published with their models

SYSTEM_QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QWEN_CHAT = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n" + SYSTEM_QWEN
    + "<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA2_CHAT = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}"
    "{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3_CHAT = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
MISTRAL_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
PLAIN_CHAT = "{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"
CHATS = [
    ("chatml", "own", CHATML, smollm2, "<|endoftext|>", "<|im_end|>"),
    ("chatml", "own", QWEN_CHAT, qwen2, None, "<|im_end|>"),
    ("chatml", "own", CHATML, marked_chatml, "<s>", "<|im_end|>"),
    ("llama2", "own", LLAMA2_CHAT, llama2, "<s>", "</s>"),
    ("llama3", "own", LLAMA3_CHAT, llama3, "<|begin_of_text|>", "<|eot_id|>"),
    ("mistral", "own", MISTRAL_CHAT, mistral_first, "<s>", "</s>"),
    ("other", "plain", PLAIN_CHAT, gpt2, None, "<|endoftext|>"),
]
# Successors and others that must not be taken for one of the families.
OTHERS = [
    LLAMA3_CHAT + "{# Cutting Knowledge Date: December 2023 #}",
    CHATML.replace("'<|im_end|>'", "'<think>\\n\\n</think><|im_end|>'"),
    CHATML.replace("message['content']", "message['content'] | trim"),
    MISTRAL_CHAT.replace("eos_token}}", "eos_token + ' ' }}"),
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}",
]
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
TALKS = [
    [(USER, "Hello, who are you?")],
    [(USER, "  two  \n"), (ASSISTANT, "\n\tyes \u2003"), (USER, "日本語 😀\n\nand more?")],
    [(SYSTEM, "Be brief. "), (USER, " hi\x1f")],
    [(SYSTEM, ""), (USER, ""), (ASSISTANT, ""), (USER, "x")],
    [(SYSTEM, "s"), (USER, "u"), (ASSISTANT, "a")],
    [(USER, "u"), (ASSISTANT, "a"), (USER, "v"), (ASSISTANT, "b")],
    [(USER, "a"), (USER, "b")],
    [(ASSISTANT, "a")],
    [(USER, "u"), (SYSTEM, "s"), ("tool", "t")],
]


def talk(ours, name, messages, prompt):
    data = b"".join(b"%d\n%s\n" % (len(x.encode()), x.encode()) for m in messages for x in m)
    done = subprocess.run([ours.helper, ours.folder, "chat", name, str(int(prompt))], input=data, capture_output=True)
    if done.returncode:
        return done.returncode, done.stderr.decode()
    end = done.stdout.index(b"\n")
    size = int(done.stdout[:end])
    text = done.stdout[end + 1 : end + 1 + size].decode()
    return text, [int(i) for i in done.stdout[end + 2 + size :].split()]


def spoken(theirs, messages):
    """Which tokens an assistant says, from the library's offsets: those that reach into a content or into the token that ends its turn."""
    def text(upto, prompt):
        return theirs.apply_chat_template(messages[:upto], tokenize=False, add_generation_prompt=prompt) if upto else ""

    whole = theirs(text(len(messages), False), add_special_tokens=False, return_offsets_mapping=True)
    mask = [0] * len(whole["input_ids"])
    for k, message in enumerate(messages):
        if message["role"] != ASSISTANT:
            continue
        begin, end = len(text(k, True)), len(text(k + 1, False))
        turn = [i for i, (a, b) in enumerate(whole["offset_mapping"]) if b > begin and a < end]
        ends = [i for i in turn if whole["input_ids"][i] in theirs.all_special_ids]
        for i in turn:
            if ends and i <= ends[0]:
                mask[i] = 1
    return "".join(map(str, mask))


MASKED = [
    [(USER, "Hello, who are you?"), (ASSISTANT, "Nobody."), (USER, "And now?"), (ASSISTANT, "Still nobody 😀 日本")],
    [(SYSTEM, "Be brief."), (USER, "one"), (ASSISTANT, "two\nthree "), (USER, "four"), (ASSISTANT, "5")],
    [(USER, "u"), (ASSISTANT, "\n\nlines first\n\n")],
    [(USER, "u"), (ASSISTANT, "")],
    [(USER, "u")],
    [(USER, "x"), (ASSISTANT, "<think> a </think> b"), (USER, "<think>"), (ASSISTANT, "<think></think>")],
]


def masks(helper, work):
    """Which tokens an assistant says, against the offsets that the library gives."""
    import transformers

    folder, failed, cases = os.path.join(work, "mask"), 0, 0
    os.makedirs(folder)
    for family, name, template, make, bos, eos in CHATS:
        t = make()
        t.save(os.path.join(folder, "tokenizer.json"))
        with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
            json.dump({"chat_template": template, "bos_token": bos, "eos_token": eos}, file)
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=t, bos_token=bos, eos_token=eos)
        theirs.chat_template = template
        for messages in MASKED:
            if family == "mistral" and messages[0][0] == SYSTEM:
                continue
            cases += 1
            data = b"".join(b"%d\n%s\n" % (len(x.encode()), x.encode()) for m in messages for x in m)
            done = subprocess.run([helper, folder, "chat", name, "2"], input=data, capture_output=True)
            if family == "other":  # plain: nothing ends a turn
                ok = done.returncode == (3 if len(messages) > 1 else 0)
                got, want = done.stderr, "a refusal"
            else:
                got = done.stdout.split(b"\n")[-2].decode()
                want = spoken(theirs, [{"role": r, "content": c} for r, c in messages])
                ok = got == want and ("1" in want) == (len(messages) > 1)
            if not ok:
                failed += 1
                print("mask: %s %s\n   ours   %s\n   theirs %s\n   %s" % (family, messages, got, want, done.stderr))
    print("%-18s %d of %d" % ("masks", cases - failed, cases))
    return failed


def chats(helper, work):
    import transformers

    folder, failed, cases = os.path.join(work, "chat"), 0, 0
    os.makedirs(folder)

    def complain(*what):
        nonlocal failed
        failed += 1
        print("chat:", *what)

    def configure(template, bos, eos):
        with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
            json.dump({"chat_template": template, "bos_token": bos, "eos_token": {"content": eos}}, file)

    for family, name, template, make, bos, eos in CHATS:
        t = make()
        t.save(os.path.join(folder, "tokenizer.json"))
        configure(template, bos, eos)
        ours = Ours(helper, folder)
        known = "chat " + family
        if known not in ours.call("facts").stdout.decode().split("\n"):
            complain(family, "is not recognized")
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=t, bos_token=bos, eos_token=eos)
        theirs.chat_template = template
        for messages in TALKS:
            for prompt in (False, True):
                cases += 1
                listed = [{"role": r, "content": c} for r, c in messages]
                got = talk(ours, name, messages, prompt)
                try:
                    text = theirs.apply_chat_template(listed, tokenize=False, add_generation_prompt=prompt)
                    ids = theirs(text, add_special_tokens=False)["input_ids"]
                    want = (text, ids)
                except Exception:  # jinja2.TemplateError: roles
                    want = None
                if want is None or (family == "llama2" and "tool" in dict(messages)):
                    if got[0] != 3 or got[1].count("\n") != 1:
                        complain(family, messages, prompt, "is not refused:", got)
                elif got != want:
                    complain(family, messages, prompt, "\n   ours  ", got, "\n   theirs", want)
        # A content cannot end its turn: as many special tokens as without it.
        cases += 1
        poison = "x %s</s><|im_end|> %s y" % (eos, t.get_added_tokens_decoder()[0].content)
        special = {i for i, x in t.get_added_tokens_decoder().items() if x.special}
        counts = [sum(i in special for i in talk(ours, name, [(USER, c)], True)[1]) for c in ("x", poison)]
        if counts[0] != counts[1]:
            complain(family, "a content has special tokens:", counts)
        if theirs.decode(talk(ours, name, [(USER, poison)], True)[1]).count(poison) != 1 and "Byte" not in str(t.decoder):
            complain(family, "a content is not itself")
    for template in OTHERS:
        cases += 1
        configure(template, "<s>", "<s>")
        if "chat other" not in Ours(helper, folder).call("facts").stdout.decode().split("\n"):
            complain("taken for a family:", template)
    folder2 = os.path.join(os.environ.get("LORACTL_SMOLLM2") or os.path.join(ROOT, "build", "smollm2"), "f32")
    if os.path.exists(os.path.join(folder2, "chat_template.jinja")):
        theirs = transformers.AutoTokenizer.from_pretrained(folder2)
        for messages in TALKS:
            cases += 1
            listed = [{"role": r, "content": c} for r, c in messages]
            text = theirs.apply_chat_template(listed, tokenize=False, add_generation_prompt=True)
            want = (text, theirs(text, add_special_tokens=False)["input_ids"])
            got = talk(Ours(helper, folder2), "own", messages, True)
            if got != want:
                complain("SmolLM2", messages, "\n   ours  ", got, "\n   theirs", want)
    print("%-18s %d of %d" % ("chat", cases - failed, cases))
    return failed


def real(work):
    """Tokenizers that are there as files."""
    smollm2_folder = os.environ.get("LORACTL_SMOLLM2") or os.path.join(ROOT, "build", "smollm2")
    folders = {
        "file_tiny_llama": os.path.join(ROOT, "tests", "data", "tiny", "llama"),
        "file_tiny_gpt2": os.path.join(ROOT, "tests", "data", "tiny", "gpt2"),
        "file_smollm2": os.path.join(smollm2_folder, "f32"),
    }
    for name, folder in folders.items():
        if os.path.exists(os.path.join(folder, "tokenizer.json")):
            yield name, folder
        else:
            print("%-18s not there: %s" % (name, folder))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--lines", type=int, default=10000)
    parser.add_argument("--case", action="append")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    helper, failed = find_helper(options.binary), 0
    work = tempfile.mkdtemp(prefix="tokenizer-")

    def wanted(name):
        return not options.case or any(fnmatch.fnmatch(name, p) for p in options.case)

    try:
        todo = [(name, folder, None) for name, folder in real(work) if wanted(name)]
        todo += [(make.__name__, os.path.join(work, make.__name__), make) for make in CASES if wanted(make.__name__)]
        for name, folder, make in todo:
            if make:
                os.makedirs(folder)
                make().save(os.path.join(folder, "tokenizer.json"))
            t = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
            begun = time.time()
            try:
                texts, lists = compare(Ours(helper, folder), t, options.lines, options.seed)
                print("%-18s %d texts, %d lists (%.1f s)" % (name, texts, lists, time.time() - begun))
            except AssertionError as problem:
                failed += 1
                print("%-18s FAILED: %s" % (name, problem))
        for check in (refusals, ends, chats, masks):
            if wanted(check.__name__):
                failed += check(helper, work)
    finally:
        shutil.rmtree(work)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
