#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the seeds of the fuzz targets: make.py [--check]

Small files, each the shortest with some feature that a mutation is unlikely to invent. They are
committed; --check fails if the files in safetensors/, index/, tokenizer/, lora/, undo/ and residual/ are not these (more may be there:
inputs that once found something stay).
"""
import json
import os
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def st(header, data=0):
    """A safetensors file; the header as text, or as (name, dtype, shape, size) in order."""
    if not isinstance(header, str):
        at, members = 0, {}
        for name, dtype, shape, size in header:
            members[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            at += size
        header, data = json.dumps(members, separators=(",", ":"), ensure_ascii=False), at
    text = header.encode()
    return struct.pack("<Q", len(text)) + text + bytes((7 * i + 3) % 256 for i in range(data))


U8 = '"%s":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}'
# A head that describes a file of exactly 1 TiB: both numbers have 13 digits in place of two signs.
TEBIBYTE = '{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}'

SAFETENSORS = {
    "empty": st("{}"),
    "one": st([("a", "F32", [2, 1], 8)]),
    "scalar": st([("a", "BF16", [], 2)]),
    "zero": st([("a", "F16", [0, 7], 0), ("b", "I64", [1], 8), ("c", "U8", [3, 0], 0)]),
    "bits": st([("a", "F4", [4], 2), ("b", "F6_E2M3", [4], 3), ("c", "F8_E8M0", [1], 1)]),
    "dims": st([("a", "U8", [1, 2, 1, 1, 1, 1, 1, 2], 4)]),
    "lora": st([("base_model.model.q.lora_A.weight", "F32", [1, 2], 8),
                ("base_model.model.q.lora_B.weight", "F32", [3, 1], 12)]),
    "metadata": st('{"__metadata__":{"format":"pt","k":"\\u00e9\\n"},%s}' % (U8 % ("a", 1, 0, 1)), 1),
    "order": st("{%s,%s}" % (U8 % ("b", 1, 1, 2), U8 % ("a", 1, 0, 1)), 2),
    "spaces": st("{ \t%s \n, %s\r}   " % (U8 % ("a", 1, 0, 1), U8 % ("b", 1, 1, 2)), 2),
    "escapes": st("{%s,%s}" % (U8 % ('\\"},{\\\\', 1, 0, 1), U8 % ("\\ud83d\\ude00", 1, 1, 2)), 2),
    "tebibyte": st(TEBIBYTE % ((2**40 - len(TEBIBYTE) - 8 - 22,) * 2)),
    "twice": st("{%s,%s}" % (U8 % ("a", 1, 0, 1), U8 % ("\\u0061", 1, 1, 2)), 2),
    "overflow": st('{"a":{"dtype":"F64","shape":[4294967296,4294967296],'
                   '"data_offsets":[18446744073709551615,18446744073709551615]}}'),
}

INDEX = {
    "one": {"weight_map": {"a": "model-00001-of-00001.safetensors"}},
    "two": {"metadata": {"total_size": 6},
            "weight_map": {"z": "b.safetensors", "x": "a.safetensors", "y": "a.safetensors"}},
    "path": {"weight_map": {"a": "../a.safetensors"}},
    "dots": {"weight_map": {"a": ".."}},
    "number": {"weight_map": {"a": 1, "b": None, "c": [], "d": {}, "e": True}},
    "unicode": {"weight_map": {"\u00e9\U0001f600": "\u00e9.safetensors", "\"\\": "b\u0001"}},
    "none": {"weight_map": {}},
    "array": {"weight_map": ["a"]},
}


def added(content, id, **flags):
    token = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False}
    return {**token, "normalized": False, "special": True, **flags}


TEXT = "ab a<s>b  aab\n\u00e9e\u0301 1\u0662".encode() + b"\xe2\x82\xff"
VOCAB = {"a": 0, "b": 1, "aa": 2, "ab": 3, "\u0120": 4, "\u2581": 5, "<0xC3>": 6, "<0xA9>": 7, "e": 8, "?": 9}
MERGES = ["a a", "a b"]


def tokenizer(config=None, model=None, text=TEXT, **parts):
    """tokenizer.json, tokenizer_config.json and a text, between NUL bytes."""
    spec = {**parts, "model": {"type": "BPE", "vocab": VOCAB, "merges": MERGES, **(model or {})}}
    return b"\0".join((json.dumps(spec).encode(), json.dumps(config).encode() if config else b"", text))


def pre(kind, **options):
    return {"type": kind, **options}


def sequence(list_name, *parts):
    return {"type": "Sequence", list_name: list(parts)}


BYTES = {"add_prefix_space": True, "trim_offsets": True}
SPLIT = {"type": "Split", "behavior": "Contiguous", "invert": True}
TEMPLATE = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [10], "tokens": ["<s>"]}}}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
TOKENIZER = {
    "bytes": tokenizer(pre_tokenizer=pre("ByteLevel", **BYTES), decoder=pre("ByteLevel", **BYTES)),
    "split": tokenizer(pre_tokenizer={**SPLIT, "pattern": {"Regex": "(?i:'s)|[^\\r\\n\\p{L}]?\\p{L}+|\\p{N}{1,3}|\\s+(?!\\S)|\\w*"}}),
    "words": tokenizer(pre_tokenizer=sequence("pretokenizers", {**SPLIT, "pattern": {"String": "a"}, "behavior": "MergedWithNext"},
                                              pre("Digits", individual_digits=False))),
    "marks": tokenizer(pre_tokenizer=pre("Metaspace", replacement="\u2581", prepend_scheme="first"), decoder=pre("Metaspace", replacement="\u2581")),
    "llama": tokenizer(model={"byte_fallback": True, "unk_token": "?", "fuse_unk": True}, added_tokens=[added("<s>", 10)], post_processor=TEMPLATE,
                       normalizer=sequence("normalizers", pre("Prepend", prepend="\u2581"), pre("Replace", pattern={"String": " "}, content="\u2581")),
                       decoder=sequence("decoders", pre("Replace", pattern={"String": "\u2581"}, content=" "), pre("ByteFallback"), pre("Fuse"), STRIP)),
    "forms": tokenizer(normalizer=sequence("normalizers", *(pre(x) for x in ("NFC", "NFKD", "Lowercase", "StripAccents")),
                                           pre("Strip", strip_left=True, strip_right=False))),
    "added": tokenizer(added_tokens=[added("<s>", 10, lstrip=True, rstrip=True), added("b", 1, single_word=True, special=False),
                                     added("\u00c9", 11, normalized=True)], normalizer=pre("NFC"),
                       config={"bos_token": "<s>", "added_tokens_decoder": {"10": {"content": "<s>"}}}),
    "pairs": tokenizer(model={"merges": [["a", "a"], ["a", "b"]], "ignore_merges": True, "unk_token": "!", "dropout": None}),
    "chat": tokenizer(added_tokens=[added("<|im_start|>", 10), added("<|im_end|>", 11)],
                      config={"eos_token": {"content": "<|im_end|>"}, "chat_template": "{{'<|im_start|>system\nhi<|im_end|>'}}"}),
    "empty": b"{}",
}


def lora():
    """Seeds of fuzz_lora: a byte that says what the rest is, and that."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, os.path.join(HERE, "../../data/container"))
    import make as container

    files = {"a": [(b"hi", {}), (bytes(8), {"dtype": "F32", "shape": [2], "tensor": "t"})], "b/c": []}
    manifest = container.manifest(1, None, files)
    yield "manifest", b"\0" + manifest
    yield "manifest-more", b"\0" + container.manifest(6, "11" * 32, files, crit=[], zebra={"a": [1, None]})
    small = container.Container(0)
    index, index_at = small.store([(b"hi", 1, 0, None), (bytes(8), 4, 1, None), (bytes(7) + b"x", 4, 1, 1)])
    at = small.put(3, 1, manifest)
    small.commit(1, manifest, at, index, index_at)
    small.put(4, 0, container.sha(manifest) + b"untrusted comment: x\nRUQBAgMEBQYHCAAA\n")
    small.commit()
    data = len(b"hi") + 4 + 7
    yield "index", b"\1" + struct.pack("<I", data) + index
    yield "chunk", b"\2" + bytes([2 | 4 | 8]) + struct.pack("<HB", 8, 0) + struct.pack("<8I", 2, 2, 2 << 24 | 1, 2, 0, 0, 0, 0) + b"abcdefg"
    frame = bytes.fromhex("28b52ffd20644d0000180001020100eee486")
    yield "chunk-frame", b"\2" + bytes([0]) + struct.pack("<HB", 100, 0) + struct.pack("<8I", 1 << 24 | len(frame), *[0] * 7) + frame
    yield "file", b"\3" + small.data
    yield "mended", b"\4" + small.data


GOLDEN = os.path.join(HERE, "..", "..", "data", "undo")
Z = "0" * 64


def record(path):
    """Of a real record: the size of its data, its head, record.json."""
    with open(path, "rb") as file:
        data = file.read()
    (n,) = struct.unpack("<Q", data[:8])
    begin, end = json.loads(data[8:8 + n])["record.json"]["data_offsets"]
    return struct.pack("<I", len(data) - 8 - n) + data[:8 + n] + data[8 + n + begin:8 + n + end]


def made_record(beside, **members):
    """A head of tensors (name, dtype, shape, size) BESIDE the two that every record has; record.json."""
    base = {"root": Z, "directory": False, "files": [{"name": "a.safetensors", "size": 9, "sha256": Z}], "others": [],
            "left": [], **members.pop("base", {})}
    merged = {"root": Z, "files": [{"name": "a.safetensors", "size": 9, "head_sha256": Z}],
              "tensors": [{"name": "w", "sha256": Z}], "others": []}
    text = json.dumps({"schema": "loractl.undo/1", "arithmetic": 1, "base": base, "merged": merged, "adapters": [],
                       "tensors": [], **members}, separators=(",", ":")).encode()
    data = st([("record.json", "U8", [len(text)], len(text)), ("head.0", "U8", [9], 9), *beside])
    (n,) = struct.unpack("<Q", data[:8])
    return struct.pack("<I", len(data) - 8 - n) + data[:8 + n] + text


def changed(**members):
    return {"name": "w", "from": "merged", "width": 3, "parts": [], "rows": [], "gain": None, "chunks": [], **members}


PART = {"kind": "low-rank", "scale": 0.5, "row": 0, "rows": 2, "col": 1, "cols": 2}
SUMS = [{**PART}, {**PART, "kind": "dense", "row": 1, "rows": 1, "col": 0, "cols": 3}]
FACTORS = [("left.0", "F32", [2, 1], 8), ("right.0", "BF16", [1, 2], 4), ("dense.1", "F16", [1, 3], 6)]
KEPT = {"directory": True, "left": [{"name": "x.bin", "size": 7}],
        "others": [{"name": "config.json", "size": 2, "sha256": Z, "stored": True},
                   {"name": "a/b", "size": 4, "sha256": Z, "stored": False}]}
UNDO = {
    "llama": record(os.path.join(GOLDEN, "llama", "merged.undo")),
    "gpt2": record(os.path.join(GOLDEN, "gpt2", "merged.undo")),
    "nothing": made_record([]),
    "kept": made_record([("file.0", "U8", [2], 2)], base=KEPT),
    "sums": made_record([*FACTORS, ("residual.0", "U8", [1], 1)], tensors=[changed(parts=SUMS, chunks=[[6, 1]])]),
    "gain": made_record([("gain.0", "F32", [3], 12), ("residual.0", "U8", [3], 3)],
                        tensors=[changed(gain="column", rows=[0, 5], chunks=[[3, 1], [3, 2]])]),
    "replaced": made_record([("residual.0", "U8", [1], 1)],
                            tensors=[{**changed(chunks=[[524288, 1]]), "from": "nothing"}]),
}


def chunk(width, n, *parts):
    """The width as an exponent of 2, the number of elements, the chunk's bytes."""
    return struct.pack("<BH", width, n) + b"".join(bytes(part) for part in parts)


# Frames of one raw block, and of one byte again and again (RFC 8878).
RAW = [2, 13, 0, 0, 0, 0x28, 0xB5, 0x2F, 0xFD, 0x20, 4, 4 << 3 | 1, 0, 0, 2, 4, 6, 8]
RLE = [2, 10, 0, 0, 0, 0x28, 0xB5, 0x2F, 0xFD, 0x20, 4, 4 << 3 | 3, 0, 0, 5]
RESIDUAL = {
    "nothing": chunk(0, 5, [0]),
    "gaps": chunk(1, 5, [1], struct.pack("<II", 2, 2), [1, 1, 1], [1, 2, 1], [0]),
    "far": chunk(0, 600, [1], struct.pack("<II", 1, 3), [1, 255, 255, 30], [1, 9]),
    "planes": chunk(2, 2, [2], [1, 255, 2], [1, 255, 1], [0], [1, 1, 0]),
    "frames": chunk(1, 4, [2], RAW, RLE),
    "gaps-in-frames": chunk(2, 30, [1], struct.pack("<II", 4, 4), RAW, RLE, [0], [0], [0]),
}


def seeds():
    for name, data in UNDO.items():
        yield "undo/" + name, data
    for name, data in RESIDUAL.items():
        yield "residual/" + name, data
    for name, data in TOKENIZER.items():
        yield "tokenizer/" + name, data
    for name, data in lora():
        yield "lora/" + name, data
    for name, data in SAFETENSORS.items():
        yield "safetensors/" + name, data
    for name, value in INDEX.items():
        yield "index/" + name, json.dumps(value).encode()
    yield "index/twice", b'{"weight_map":{"a":"1","\\u0061":"2"}}'


def main():
    wrong = 0
    for name, data in seeds():
        path = os.path.join(HERE, name)
        if sys.argv[1:] == ["--check"]:
            if not os.path.exists(path) or open(path, "rb").read() != data:
                print("stale: " + path, file=sys.stderr)
                wrong = 1
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
