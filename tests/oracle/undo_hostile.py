# SPDX-License-Identifier: Apache-2.0
"""Records that a reader must refuse, each bent in one place from a valid one.

variants(scene) yields Variants. `statuses` holds the exit statuses that are right: 3 for a record
that readers refuse, 1 for another merged model. With 0 among them the page leaves it open: then
the base must come out, byte for byte.
"""

import json
import os
import shutil
import struct
from collections import OrderedDict

import numpy as np
import zstandard

import contract
import files
import undo_write as w
from files import Tensor

REFUSED, OTHER, EITHER, OPEN = {3}, {1}, {1, 3}, {0, 3}
U32 = struct.Struct("<I").pack
VARIANTS = []


class Variant:
    def __init__(self, name, statuses, rec=None, merged=None, raw=None):
        """merged: bends a copy of the merged model's folder; raw: the file's bytes."""
        self.name, self.statuses, self.rec, self.merged, self.raw = name, statuses, rec, merged, raw


class Scene:
    """A base, a merged model of it, and a valid record with at least one of everything."""

    def __init__(self, folder):
        self.folder, rng = folder, np.random.default_rng(7)
        self.base, self.merged = os.path.join(folder, "base"), os.path.join(folder, "merged")
        b, m = self.models(rng)
        self.put(self.base, b, {"model_type": "custom"})
        self.put(self.merged, m, {"model_type": "custom", "vocab_size": 5})
        os.makedirs(os.path.join(self.base, "sub"))
        for name, text in (("sub/x.txt", "stored\n"), ("big.bin", "left\n" * 9)):
            with open(os.path.join(self.base, name), "w") as f:
                f.write(text)
        f16 = lambda *s: Tensor("F16", contract.round_to(self.normal(rng, *s), "F16"))
        bf16 = lambda *s: Tensor("BF16", contract.round_to(self.normal(rng, *s), "BF16"))
        dense = Tensor("F32", self.normal(rng, 2, 10).view(np.uint32))
        gain = np.array([1.5, -0.75, 0, 2, 1, 0.3], dtype=np.float32)
        # the last part touches nothing but a row that was replaced: what is wrong with it alone
        # would not show in the base
        a = w.Edit(10, [w.Part(0.3, 1, 2, f16(3, 2), bf16(2, 5)), w.Part(-1.25, 4, 0, dense=dense)])
        a.parts.append(w.Part(0.5, 5, 1, f16(1, 1), bf16(1, 3)))
        a.rows, a.gain = [0, 5], ("row", gain)
        self.edits = {"a": a, "d": w.Edit(600)}
        self.record = w.make(self.base, self.merged, self.edits, rng, leave=["big.bin"])
        self.number = {t["name"]: i for i, t in enumerate(self.record.json["tensors"])}
        self.make_plain(b, m)

    @staticmethod
    def normal(rng, *shape):
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    def models(self, rng):
        t = lambda dtype, *s: Tensor(dtype, contract.round_to(self.normal(rng, *s), dtype))
        b = OrderedDict(a=t("F32", 6, 10), b=t("BF16", 4, 6), c=Tensor("I64", np.arange(3, dtype=np.uint64)))
        b["d"], b["n"] = t("F32", 600), t("F32", 5, 3)
        m = OrderedDict(a=t("F32", 6, 10), b=t("BF16", 5, 6), c=Tensor("F32", np.ones(3, dtype=np.uint32)))
        m["d"], m["n"] = Tensor("F32", b["d"].raw.copy()), b["n"]
        m["d"].raw[[300, 310]] += np.array([1, 7], dtype=np.uint32)
        m["extra"] = t("F16", 4)
        return b, m

    @staticmethod
    def put(folder, tensors, config):
        os.makedirs(folder)
        files.write(os.path.join(folder, "model.safetensors"), tensors, {"format": "pt"})
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(config, f)
        with open(os.path.join(folder, "README.md"), "w") as f:
            f.write("the same on both sides\n")

    def make_plain(self, b, m):
        """Chunks and stored files that the variants can count on."""
        self.z = {}
        for name, lengths, code in (
            ("a", [20, 10, 5, 5, 20], 2),
            ("b", [13, 11], 2),
            ("c", [24], 1),
            ("d", [600], 1),
        ):
            edit = self.edits.get(name) or w.Edit(nothing=True)
            bits, p, k, _ = w.bits_of(b[name], edit, m[name])
            z, chunks = [w.residual(x, y, k) for x, y in zip(bits, p)], []
            self.z[name] = z
            for n in lengths:
                at = sum(c[0] for c in chunks)
                chunks.append([n, w.write_chunk(z[at : at + n], k, code=code, kind=1)])
            self.record.set_chunks(self.number[name], chunks)
        others = self.record.json["base"]["others"]
        for i, o in enumerate(others):
            o["stored"] = o["name"] != "README.md"
            self.record.tensors.pop("file.%d" % i, None)
            if o["stored"]:
                data = w.slurp(os.path.join(self.base, o["name"]))
                self.record.put("file.%d" % i, "U8", [len(data)], data)
        self.other = {o["name"]: i for i, o in enumerate(others)}

    def bent(self, name, statuses, bend):
        """A Variant whose record is bent by bend(record)."""
        rec = self.record.copy()
        bend(rec)
        return Variant(name, statuses, rec)


def group(f):
    VARIANTS.append(f)
    return f


def variants(scene):
    for f in VARIANTS:
        yield from f(scene)


# ------------------------------------------------------------------------------------------------
# the container


def headers(path, value):
    """Bends of the safetensors header: sets header[path[0]][path[1]]."""

    def bend(rec):
        def change(h):
            h[path[0]][path[1]] = value(h[path[0]][path[1]]) if callable(value) else value
            return h

        rec.bend_header = change

    return bend


def hole(rec):
    """Eight bytes between the header and the data, all offsets moved by as many."""

    def header(h):
        for name, t in h.items():
            if name != "__metadata__":
                t["data_offsets"] = [v + 8 for v in t["data_offsets"]]
        return h

    def data(d):
        (n,) = struct.unpack("<Q", d[:8])
        return d[: 8 + n] + bytes(8) + d[8 + n :]

    rec.bend_header, rec.bend_file = header, data


@group
def container(s):
    path = os.path.join(s.folder, "valid.undo")
    s.record.save(path)
    data = w.slurp(path)
    (n,) = struct.unpack("<Q", data[:8])
    for name, raw in (
        ("empty", b""),
        ("7-bytes", data[:7]),
        ("header-cut", data[: n // 2]),
        ("header-length-beyond", struct.pack("<Q", 1 << 40) + data[8:]),
        ("header-length-2^64", b"\xff" * 8 + data[8:]),
        ("data-cut", data[:-1]),
        ("data-missing", data[: 8 + n]),
        ("data-left-over", data + b"\0"),
        ("no-safetensors", b"hello, world\n" * 99),
        ("header-not-json", data[:8] + b"[" * n + data[8 + n :]),
    ):
        yield Variant("file-" + name, REFUSED, raw=raw)
    first = next(iter(s.record.tensors))
    offsets = lambda a, b: headers((first, "data_offsets"), lambda v: [v[0] + a, v[1] + b])
    yield s.bent("file-hole", REFUSED, offsets(1, 1))
    yield s.bent("file-overlap", REFUSED, offsets(0, 1))
    yield s.bent("file-hole-before-the-data", REFUSED, hole)
    yield s.bent("file-negative-offset", REFUSED, offsets(-1, -1))
    yield s.bent("file-unknown-type", REFUSED, headers((first, "dtype"), "F31"))
    yield s.bent("file-shape-overflow", REFUSED, headers((first, "shape"), [1 << 32, 1 << 32]))
    for name, meta in (
        ("none", None),
        ("no-format", {"other": "x"}),
        ("pt", {"format": "pt"}),
        ("2", {"format": "loractl.undo/2"}),
        ("longer", {"format": "loractl.undo/10"}),
    ):
        yield s.bent("metadata-" + name, REFUSED, lambda r, meta=meta: setattr(r, "meta", meta))
    both = {"format": "loractl.undo/1", "note": "hello"}
    yield s.bent("metadata-more", OPEN, lambda r: setattr(r, "meta", both))


@group
def presence(s):
    kinds = {n.split(".")[0]: n for n in s.record.tensors}
    for name in s.record.tensors:
        yield s.bent("missing-" + name, REFUSED, lambda r, name=name: r.tensors.pop(name))
    for kind, name in kinds.items():
        dtype, shape, data = s.record.tensors[name]
        other = {"F32": "I32", "F16": "I16", "BF16": "U16", "U8": "I8"}[dtype]
        put = lambda *v: lambda r, name=name, v=v: r.put(name, *v)
        yield s.bent("type-of-" + name, REFUSED, put(other, shape, data))
        yield s.bent("rank-of-" + name, REFUSED, put(dtype, [*shape, 1], data))
        if len(data) % 2 == 0 and len(shape) == 1:
            yield s.bent("two-dims-of-" + name, REFUSED, put(dtype, [2, shape[0] // 2], data))
    for name in (
        "extra",
        "left.3",
        "left.1",
        "dense.2",
        "dense.0",
        "right.99",
        "residual.4",
        "residual.00",
        "residual.",
        "residual.+1",
        "gain.%d" % s.number["b"],
        "gain.%d" % s.number["d"],
        "head.1",
        "file.%d" % s.other["README.md"],
        "file.99",
        "Residual.0",
        "left.18446744073709551616",
    ):
        yield s.bent("unnamed-" + name, REFUSED, lambda r, name=name: r.put(name, "U8", [1], b"x"))
    rename = lambda a, b: lambda r: r.tensors.update({b: r.tensors.pop(a)})
    for a, b in (("left.0", "left.00"), ("head.0", "head.00"), ("residual.1", "residual.01")):
        yield s.bent("renamed-%s-%s" % (a, b), REFUSED, rename(a, b))


@group
def factors(s):
    def resized(name, shape):
        dtype, _, data = s.record.tensors[name]
        size = int(np.prod(shape)) * files.SIZE[dtype]
        return lambda r: r.put(name, dtype, shape, (data + bytes(size))[:size])

    gain = "gain.%d" % s.number["a"]
    for name, shapes in (
        ("left.0", ([2, 3], [4, 2], [2, 2], [3, 3], [3, 1], [3, 0])),
        ("right.0", ([5, 2], [2, 6], [3, 5], [2, 4], [0, 5])),
        ("dense.1", ([10, 2], [1, 10], [2, 9], [3, 10], [20, 1])),
        (gain, ([5], [10], [7], [0])),
    ):
        for shape in shapes:
            yield s.bent("shape-of-%s-%s" % (name, shape), REFUSED, resized(name, shape))
    f16 = s.record.tensors[gain][2][: 2 * 6]
    yield s.bent("gain-f16", REFUSED, lambda r: r.put(gain, "F16", [6], f16))
    f64 = np.frombuffer(s.record.tensors["dense.1"][2], "<f4").astype("<f8").tobytes()
    yield s.bent("dense-f64", REFUSED, lambda r: r.put("dense.1", "F64", [2, 10], f64))
    values = {
        "F32": (0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001),
        "F16": (0x7C00, 0xFC00, 0x7E00, 0x7C01),
        "BF16": (0x7F80, 0xFF80, 0x7FC0, 0x7F81),
    }
    for name in ("left.0", "right.0", "left.2", "right.2", "dense.1", gain):
        dtype, shape, data = s.record.tensors[name]
        for v in values[dtype]:
            bits = v.to_bytes(files.SIZE[dtype], "little")
            bad = data[: -len(bits)] + bits
            yield s.bent("%s-%x" % (name, v), REFUSED, lambda r, n=name, b=bad, d=dtype, sh=shape: r.put(n, d, sh, b))


# ------------------------------------------------------------------------------------------------
# record.json


PEOPLE = ("tool", "version", "adapters", "left")


def walk(value, path=()):
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, v in items:
        yield from walk(v, (*path, key))


def set_at(path, value, drop=False):
    def bend(r):
        at = r.json
        for key in path[:-1]:
            at = at[key]
        if drop:
            del at[path[-1]]
        else:
            at[path[-1]] = value

    return bend


def optional(scene, path):
    """Members that the page asks of nobody, or not of a replaced tensor."""
    if any(p in PEOPLE for p in path):
        return True
    if len(path) > 2 and path[0] == "tensors":
        t = scene.record.json["tensors"][path[1]]
        return t["from"] == "nothing" and path[2] in ("parts", "rows", "gain", "width")
    return False


@group
def shapes_of_json(s):
    for path, value in walk(s.record.json):
        if not path or any(isinstance(p, int) and p > 1 for p in path):
            continue
        name, ok = ".".join(map(str, path)), OPEN if optional(s, path) else REFUSED
        if path[0] == "merged" and path[-1] == "size":
            ok = EITHER
        if isinstance(path[-1], str):
            yield s.bent("json-without-" + name, ok, set_at(path, None, drop=True))
        wrong = []
        if isinstance(value, str):
            wrong = [7, None, [value]]
        elif isinstance(value, bool):
            wrong = [int(value), str(value).lower(), None]
        elif isinstance(value, int):
            wrong = [str(value), -1, value + 0.5, True, None, 1 << 64, 1e300]
        elif isinstance(value, float):
            wrong = [str(value), None, True]
        elif value is None:
            wrong = ["", False, 0, []]
        elif isinstance(value, list):
            wrong = [{}, "x", None, 3]
        else:
            wrong = [[], "x", None, 3]
        if path[-2:] == ("adapters", 0) or path[-1] == "weight":
            wrong = wrong[:1]
        for v in wrong:
            yield s.bent("json-%s=%s" % (name, json.dumps(v)), ok, set_at(path, v))


@group
def json_text(s):
    good = json.dumps(s.record.json).encode()
    deep = b"[" * 100000
    for name, text, ok in (
        ("empty", b"", REFUSED),
        ("cut", good[:-1], REFUSED),
        ("left-over", good + b" {}", REFUSED),
        ("nul-left-over", good + b"\0", REFUSED),
        ("array", b"[" + good + b"]", REFUSED),
        ("not-utf8", good.replace(b"somebody", b"\xff\xfe"), REFUSED),
        ("surrogate", good.replace(b"somebody", b"\xed\xa0\x80"), REFUSED),
        ("deep", deep, REFUSED),
        ("deep-in-people", good[:-1] + b', "more": ' + b"[" * 100000 + b"]" * 100000 + b"}", OPEN),
        ("key-twice", good[:-1] + b', "arithmetic": 1}', REFUSED),
        ("unknown-member", good[:-1] + b', "more": [1]}', OPEN),
        ("scale-nan", good.replace(b'"scale": -1.25', b'"scale": NaN'), REFUSED),
        ("scale-nan-unseen", good.replace(b'"scale": 0.5', b'"scale": NaN'), REFUSED),
        ("scale-infinity", good.replace(b'"scale": -1.25', b'"scale": Infinity'), REFUSED),
        ("scale-infinity-unseen", good.replace(b'"scale": 0.5', b'"scale": Infinity'), REFUSED),
        ("scale-1e999", good.replace(b'"scale": -1.25', b'"scale": 1e999'), REFUSED),
        ("scale-1e999-unseen", good.replace(b'"scale": 0.5', b'"scale": 1e999'), REFUSED),
        ("scale-1e39", good.replace(b'"scale": -1.25', b'"scale": 1e39'), REFUSED),
        ("scale-1e39-unseen", good.replace(b'"scale": 0.5', b'"scale": 1e39'), REFUSED),
        ("scale-minus-1e39", good.replace(b'"scale": -1.25', b'"scale": -1e39'), REFUSED),
        ("scale-no-float", good.replace(b'"scale": -1.25', b'"scale": -1.2500000001'), OPEN),
        ("scale-other-spelling", good.replace(b'"scale": -1.25', b'"scale": -125e-2'), {0}),
        ("whole-with-fraction", good.replace(b'"arithmetic": 1', b'"arithmetic": 1.0'), OPEN),
        ("indented", json.dumps(s.record.json, indent=1).encode(), {0}),
    ):
        assert text != good, name
        yield s.bent("text-" + name, ok, lambda r, text=text: setattr(r, "text", text))
    for key, v in (("schema", "loractl.undo/2"), ("schema", "loractl.receipt/1"), ("schema", "")):
        yield s.bent("%s-%s" % (key, v), REFUSED, set_at((key,), v))
    for v in (0, 2, 1 << 32 | 1):
        yield s.bent("arithmetic-%d" % v, REFUSED, set_at(("arithmetic",), v))


@group
def names(s):
    at = ("base", "others", s.other["sub/x.txt"], "name")
    for v in (
        "../x.txt",
        "/x.txt",
        "sub//x.txt",
        "sub/",
        "",
        ".",
        "..",
        "/",
        "./x.txt",
        "sub/./x.txt",
        "sub/..",
        "sub/../x.txt",
        "sub/../../x.txt",
        "a/b/../../../x.txt",
    ):
        yield s.bent("name-%r" % v, REFUSED, set_at(at, v))
    yield s.bent("name-with-zero", REFUSED, set_at(at, "x\0y"))
    yield s.bent("name-of-a-weight-file", REFUSED, set_at(at, "model.safetensors"))
    yield s.bent("name-twice", REFUSED, set_at(at, "config.json"))
    yield s.bent("name-under-a-file", REFUSED, set_at(at, "config.json/x"))
    yield s.bent("name-under-a-weight-file", REFUSED, set_at(at, "model.safetensors/x"))
    yield s.bent("name-too-long", {3, 4}, set_at(at, "x" * 300))
    for v in ("../model.safetensors", "/model.safetensors", "..", "", "a/../../b"):
        yield s.bent("file-name-%r" % v, REFUSED, set_at(("base", "files", 0, "name"), v))
        yield s.bent("merged-name-%r" % v, EITHER, set_at(("merged", "files", 0, "name"), v))
        yield s.bent("merged-other-%r" % v, EITHER, set_at(("merged", "others", 0, "name"), v))


# ------------------------------------------------------------------------------------------------
# digests


def flipped(v):
    return ("1" if v[0] == "0" else "0") + v[1:]


@group
def digests(s):
    for path, value in walk(s.record.json):
        if path and path[-1] in ("root", "sha256", "head_sha256") and path[0] != "adapters":
            ok = REFUSED if path[0] == "base" else OTHER
            if path == ("base", "others", s.other["README.md"], "sha256"):
                ok = EITHER
            name = "digest-" + ".".join(map(str, path))
            yield s.bent(name, ok, set_at(path, flipped(value)))
            yield s.bent(name + "-capital", {0, *ok, 3}, set_at(path, value.upper()))
            for bad in (value[:-1], value + "0", "g" + value[1:], ""):
                yield s.bent("%s=%r" % (name, bad[:4]), REFUSED if path[0] == "base" else EITHER, set_at(path, bad))
        if path and path[-1] == "size" and path[:2] != ("base", "left"):
            ok = REFUSED if path[0] == "base" else EITHER
            if path == ("base", "others", s.other["README.md"], "size"):
                ok = EITHER
            yield s.bent("size-" + ".".join(map(str, path)), ok, set_at(path, value + 1))
    t = s.record.json["merged"]["tensors"]
    drop = lambda r: r.json["merged"]["tensors"].pop()
    yield s.bent("merged-tensor-unnamed", EITHER, drop)
    more = lambda r: r.json["merged"]["tensors"].append({**t[0], "name": "zzz"})
    yield s.bent("merged-tensor-more", EITHER, more)
    twice = lambda r: r.json["merged"]["tensors"].append(t[0])
    yield s.bent("merged-tensor-twice", EITHER, twice)
    none = lambda r: r.json["merged"]["files"].clear()
    yield s.bent("merged-no-files", EITHER, none)


@group
def other_models(s):
    """Another merged model under a valid record."""

    def weights(change):
        def bend(folder):
            path = os.path.join(folder, "model.safetensors")
            tensors, meta = files.read(path)
            tensors = OrderedDict((n, Tensor(t.dtype, t.raw.copy())) for n, t in tensors.items())
            files.write(path, tensors, change(tensors) or meta)

        return bend

    def text(name, content):
        def bend(folder):
            path = os.path.join(folder, name)
            os.unlink(path)
            if content is not None:
                with open(path, "w") as f:
                    f.write(content)

        return bend

    def flip(name):
        return lambda t: t[name].raw.reshape(-1).__setitem__(0, t[name].raw.reshape(-1)[0] ^ 1)

    for name in ("a", "b", "c", "d", "n", "extra"):
        yield Variant("another-merged-" + name, OTHER, s.record, weights(flip(name)))
    yield Variant("another-merged-without", OTHER, s.record, weights(lambda t: t.pop("extra") and None))
    more = lambda t: t.update(more=Tensor("F32", np.zeros(3, dtype=np.uint32)))
    yield Variant("another-merged-with", OTHER, s.record, weights(more))
    yield Variant("another-merged-head", OTHER, s.record, weights(lambda t: {"format": "np"}))
    swap = lambda t: t.move_to_end("a")
    yield Variant("another-merged-order", OTHER, s.record, weights(swap))
    yield Variant("another-merged-config", OTHER, s.record, text("config.json", "{}\n"))
    yield Variant("another-merged-readme", EITHER, s.record, text("README.md", "not the same\n"))
    yield Variant("another-merged-no-readme", EITHER, s.record, text("README.md", None))


# ------------------------------------------------------------------------------------------------
# edits


@group
def ranges(s):
    a = s.number["a"]
    part = ("tensors", a, "parts", 0)
    for key, values in (
        ("row", (4, 6, 1 << 32, (1 << 53), (1 << 64) - 2, -1)),
        ("rows", (6, 1 << 32, (1 << 64) - 1, 2, 0)),
        ("col", (6, 10, 1 << 32, (1 << 64) - 2, -2)),
        ("cols", (9, 1 << 32, (1 << 64) - 1, 4, 0)),
    ):
        for v in values:
            yield s.bent("part-%s=%d" % (key, v), REFUSED, set_at((*part, key), v))
    last = lambda r: r.json["tensors"][a]["parts"][2]
    below = lambda r: (last(r).update(rows=2), r.put("left.2", "F16", [2, 1], bytes(4)))
    yield s.bent("part-below-the-last-row", REFUSED, below)
    past = lambda r: (last(r).update(rows=0, row=7), r.put("left.2", "F16", [0, 1], b""))
    yield s.bent("part-of-no-rows-below-the-last-row", REFUSED, past)
    none = lambda r: (last(r).update(rows=0, row=6), r.put("left.2", "F16", [0, 1], b""))
    yield s.bent("part-of-no-rows", OPEN, none)
    rank = lambda r: (r.put("left.2", "F16", [1, 0], b""), r.put("right.2", "BF16", [0, 3], b""))
    yield s.bent("part-of-rank-0", OPEN, rank)
    yield s.bent("part-right-of-the-last-column", REFUSED, lambda r: last(r).update(col=8))
    at = lambda key: ("tensors", a, key)
    for v in (0, 7, 61, 120, 1 << 63, -10):
        yield s.bent("width=%d" % v, REFUSED, set_at(at("width"), v))
    for v in ([5, 0], [0, 0, 5], [0, 5, 6], [0, 5, 1 << 40], [0, 5, 5], [0, 5, (1 << 64) - 1], [0, 6], [0, 1 << 40], [-1, 5], [0.5, 5], ["0", 5], [None]):
        yield s.bent("rows=%s" % json.dumps(v), REFUSED, set_at(at("rows"), v))
    for key, v in (("gain", "diagonal"), ("gain", "column"), ("gain", None), ("from", "base"), ("from", "nothing"), ("from", "")):
        yield s.bent("%s=%s" % (key, v), REFUSED, set_at(at(key), v))
    for v in ("dense", "high-rank", ""):
        yield s.bent("part-kind=%s" % v, REFUSED, set_at((*part, "kind"), v))
    drop = lambda r: r.json["tensors"][a]["parts"].pop()
    yield s.bent("part-less", REFUSED, drop)
    more = lambda r: r.json["tensors"][a]["parts"].append(dict(r.json["tensors"][a]["parts"][0]))
    yield s.bent("part-more", REFUSED, more)


@group
def tensors(s):
    t = lambda n: s.number[n]
    for name, v in (("a", "zzz"), ("a", "n"), ("a", "extra"), ("c", "zzz"), ("a", "")):
        yield s.bent("tensor-%s-is-%s" % (name, v), REFUSED, set_at(("tensors", t(name), "name"), v))
    merged = lambda name, width: lambda r: r.json["tensors"][t(name)].update(
        {"from": "merged", "width": width, "parts": [], "rows": [], "gain": None}
    )
    yield s.bent("tensor-of-another-shape-from-merged", REFUSED, merged("b", 6))
    yield s.bent("tensor-of-i64-from-merged", REFUSED, merged("c", 3))
    width = lambda r: r.json["tensors"][t("b")].update(width=6)
    yield s.bent("tensor-replaced-with-width", OPEN, width)
    gain = lambda r: r.json["tensors"][t("b")].update(gain="row")
    yield s.bent("tensor-replaced-with-gain", REFUSED, gain)
    rows = lambda r: r.json["tensors"][t("b")].update(rows=[1])
    yield s.bent("tensor-replaced-with-rows", OPEN, rows)

    def twice(r):
        r.json["tensors"].append(json.loads(json.dumps(r.json["tensors"][t("d")])))
        r.put("residual.4", *r.tensors["residual.%d" % t("d")])

    yield s.bent("tensor-twice", REFUSED, twice)

    def less(name):
        def bend(r):
            last = len(r.json["tensors"]) - 1
            assert t(name) == last
            r.json["tensors"].pop()
            r.tensors.pop("residual.%d" % last)

        return bend

    yield s.bent("tensor-forgotten", REFUSED, less("d"))


@group
def heads(s):
    head = s.record.tensors["head.0"][2]
    text = json.loads(head[8:])
    make = lambda h: struct.pack("<Q", len(h)) + h

    def changed(**more):
        h = {k: dict(v) for k, v in text.items()}
        for name, v in more.items():
            h[name] = {**h.get(name, {}), **v} if v else None
        return make(json.dumps({k: v for k, v in h.items() if v}).encode())

    for name, v in (
        ("empty", b""),
        ("short", head[:5]),
        ("cut", head[:-1]),
        ("longer", head + b" "),
        ("length-beyond", struct.pack("<Q", 1 << 60) + head[8:]),
        ("not-json", make(b"x" * 40)),
        ("array", make(b"[]")),
        ("no-tensors", make(b"{}")),
        ("deep", make(b'{"a":' * 50000)),
        ("tensor-nowhere", changed(zzz={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})),
        ("tensor-forgotten", changed(n=None)),
        ("other-type", changed(a={"dtype": "I32"})),
        ("other-float", changed(a={"dtype": "F16"})),
        ("other-shape", changed(a={"shape": [60]})),
        ("shape-overflow", changed(a={"shape": [1 << 33, 1 << 33]})),
        ("huge", changed(a={"shape": [1 << 40, 10], "data_offsets": [0, 40 << 40]})),
        ("overlap", changed(n={"data_offsets": text["a"]["data_offsets"]})),
        ("untouched-other-shape", changed(n={"shape": [3, 5]})),
        ("metadata", make(head[8:].replace(b'"pt"', b'"np"'))),
    ):
        yield s.bent("head-" + name, REFUSED, lambda r, v=v: r.put("head.0", "U8", [len(v)], v))


# ------------------------------------------------------------------------------------------------
# chunks


def lengths(i, values):
    return set_at(("tensors", i, "chunks"), values)


@group
def sums(s):
    a, b = s.number["a"], s.number["b"]
    good = [list(c) for c in s.record.json["tensors"][a]["chunks"]]

    def changed(at, n=0, size=0):
        out = [list(c) for c in good]
        out[at][0] += n
        out[at][1] += size
        return lengths(a, out)

    for name, bend in (
        ("elements-less", changed(4, n=-1)),
        ("elements-more", changed(4, n=10)),
        ("elements-0", changed(4, n=-20)),
        ("elements-negative", changed(4, n=-30)),
        ("elements-huge", changed(4, n=(1 << 64) - 30)),
        ("elements-524289", changed(4, n=524289 - 20)),
        ("bytes-less", changed(4, size=-1)),
        ("bytes-more", changed(4, size=1)),
        ("bytes-huge", changed(4, size=(1 << 64) - 500)),
        ("bytes-0", changed(4, size=-good[4][1])),
        ("none", lengths(a, [])),
        ("one-less", lengths(a, good[:-1])),
        ("one-more", lengths(a, good + [[1, 1]])),
        ("triple", lengths(a, good[:-1] + [[*good[-1], 0]])),
        ("single", lengths(a, good[:-1] + [[good[-1][0]]])),
        ("no-pair", lengths(a, good[:-1] + [good[-1][0]])),
        ("flat", lengths(a, [x for c in good for x in c])),
    ):
        yield s.bent("chunks-" + name, REFUSED, bend)
    for name, cut in (("15-45", [15, 45]), ("25-35", [25, 35]), ("5-10-45", [5, 10, 45])):
        yield s.bent("chunks-across-rows-" + name, REFUSED, recut(s, "a", 32, cut))
    yield s.bent("chunks-of-single-elements", {0}, recut(s, "a", 32, [1] * 60))
    yield s.bent("chunks-of-a-replaced-tensor", {0}, recut(s, "b", 16, [1, 7, 16]))
    past = lambda r: r.put("residual.%d" % b, "U8", [len(r.tensors["residual.%d" % b][2]) + 1], r.tensors["residual.%d" % b][2] + b"\0")
    yield s.bent("residual-left-over", REFUSED, past)


def recut(s, name, k, cut):
    def bend(r):
        at, chunks = 0, []
        for n in cut:
            chunks.append([n, w.write_chunk(s.z[name][at : at + n], k, code=2, kind=1)])
            at += n
        r.set_chunks(s.number[name], chunks)

    return bend


def only_chunk(s, data):
    """Tensor d, 600 elements of 32 bits, in this one chunk."""
    return lambda r: r.set_chunks(s.number["d"], [[600, data]])


def gapped(m, steps, values, g=None, kind=1):
    """A gap chunk of 32 bits from its pieces; values are z."""
    raw = b"\1" + steps if kind == 1 else steps
    g = len(steps) if g is None else g
    return b"\1" + U32(m) + U32(g) + raw + w.write_planes(values, 32, kind=1)


def compressed(frame, size=None):
    return b"\2" + U32(len(frame) if size is None else size) + frame


@group
def gap_chunks(s):
    z = s.z["d"]
    steps, values = w.gap_bytes(z), [v for v in z if v]
    good = gapped(2, steps, values)
    assert w.write_chunk(z, 32, code=1, kind=1) == good and steps == b"\xff\x2d\x09"
    for name, data in (
        ("m-0", gapped(0, b"", [])),
        ("m-0-bare", b"\1" + U32(0) + U32(0) + b"\0" * 5),
        ("m-601", gapped(601, b"\0" * 601, [2] * 601)),
        ("m-huge", gapped(0xFFFFFFFF, steps, values)),
        ("m-less", gapped(1, steps, values[:1])),
        ("m-more", gapped(3, steps, values + [2])),
        ("g-0", gapped(2, b"", values)),
        ("g-less", gapped(2, steps, values, g=2)),
        ("g-more", gapped(2, steps, values, g=4)),
        ("g-huge", gapped(2, steps, values, g=0xFFFFFFFF)),
        ("g-huge-zeros", gapped(2, b"\0", values, g=0xFFFFFFFF, kind=0)),
        ("g-600-zeros", gapped(2, b"\0", values, g=600, kind=0)),
        ("gap-left-over", gapped(2, steps + b"\0", values)),
        ("gap-open", gapped(2, b"\xff\x2d\xff", values)),
        ("gap-open-after", gapped(2, steps + b"\xff", values)),
        ("gap-ends-at-600", gapped(2, b"\xff\x2d\xff\x2c", values)),
        ("gap-far-outside", gapped(2, b"\xff\x2d" + b"\xff" * 999 + b"\0", values)),
        ("z-0", gapped(3, steps + b"\0", [*values, 0])),
        ("all-z-0", gapped(2, steps, [0, 0])),
        ("left-over", good + b"\0"),
        ("cut", good[:-1]),
        ("cut-in-m", good[:3]),
        ("cut-in-g", good[:7]),
        ("cut-before-planes", good[: 10 + len(steps)]),
    ):
        yield s.bent("gaps-" + name, REFUSED, only_chunk(s, data))
    zeros = lambda data: lambda r: r.set_chunks(
        s.number["d"], [[300, data], [300, w.write_chunk(z[300:], 32, code=2, kind=1)]]
    )
    short = lambda more: lambda r: r.set_chunks(
        s.number["d"], [[311, w.write_chunk(z[:311], 32, code=2, kind=1)], *more]
    )
    yield s.bent("chunks-short-of-zeros", REFUSED, short([]))
    yield s.bent("chunks-short-by-one-zero", REFUSED, short([[288, b"\0"]]))
    yield s.bent("chunks-with-one-more-zero", REFUSED, short([[290, b"\0"]]))
    yield s.bent("chunks-and-one-more", REFUSED, short([[289, b"\0"], [1, b"\0"]]))
    yield s.bent("chunks-and-one-of-nothing", REFUSED, short([[289, b"\0"], [0, b"\0"]]))
    yield s.bent("chunks-and-one-of-no-bytes", REFUSED, short([[289, b"\0"], [0, b""]]))
    yield s.bent("chunks-of-no-bytes", REFUSED, short([[289, b""]]))
    empty, outside = U32(0) * 2, b"\xff\x2d"  # a gap of 300 in a chunk of 300
    for name, data, ok in (
        ("code-0", b"\0", {0}),
        ("planes", w.write_chunk(z[:300], 32, code=2, kind=0), {0}),
        ("code-0-left-over", b"\0\0", REFUSED),
        ("m-0", b"\1" + empty, REFUSED),
        ("m-0-raw-streams", b"\1" + empty + b"\1" * 5, REFUSED),
        ("m-0-zero-streams", b"\1" + empty + b"\0" * 5, REFUSED),
        ("m-0-with-gap", b"\1" + U32(0) + U32(2) + b"\1" + outside + b"\1" * 4, REFUSED),
        ("z-0", gapped(1, b"\0", [0]), REFUSED),
        ("z-0-as-zero-streams", b"\1" + U32(1) + U32(1) + b"\0" * 5, REFUSED),
        ("z-0-outside", gapped(1, outside, [0]), REFUSED),
        ("z-2-outside", gapped(1, outside, [2]), REFUSED),
    ):
        yield s.bent("zeros-" + name, ok, zeros(data))
    yield s.bent("gaps-wrong-place", REFUSED, only_chunk(s, gapped(2, b"\xff\x2c\x09", values)))
    yield s.bent("gaps-wrong-value", REFUSED, only_chunk(s, gapped(2, steps, [2, 2])))


@group
def codes(s):
    z = s.z["d"]
    plane = w.write_chunk(z, 32, code=2, kind=1)
    for name, data in (
        ("code-3", b"\3" + plane[1:]),
        ("code-255", b"\xff"),
        ("code-0-left-over", b"\0\0"),
        ("code-0-wrong", b"\0"),
        ("planes-left-over", plane + b"\0"),
        ("planes-cut", plane[:-1]),
        ("planes-three", plane[: 1 + 3 * 601]),
        ("planes-bare", b"\2"),
        ("stream-3", b"\2\3" + plane[2:]),
        ("stream-255", b"\2\xff" + plane[2:]),
        ("stream-0-with-bytes", b"\2\0" + plane[2:]),
    ):
        yield s.bent("chunk-" + name, REFUSED, only_chunk(s, data))
    yield s.bent("chunk-planes", {0}, only_chunk(s, plane))


@group
def frames(s):
    z = s.z["d"]
    low, rest = bytes(v & 255 for v in z), b"\0" * 3
    good = w.zstd(low)
    half = w.zstd(low[:300], size=False)
    skip = struct.pack("<II", 0x184D2A50, 4) + b"skip"
    for name, data, ok in (
        ("good", compressed(good), {0}),
        ("checksum", compressed(w.zstd(low, checksum=True)), {0}),
        ("bad-checksum", compressed(w.zstd(low, checksum=True)[:-1] + b"\0"), REFUSED),
        ("holds-less", compressed(w.zstd(low[:-1])), REFUSED),
        ("holds-more", compressed(w.zstd(low + b"\0")), REFUSED),
        ("says-nothing", compressed(w.zstd(low, size=False)), REFUSED),
        ("says-more", compressed(lying(good, 601)), REFUSED),
        ("says-2^62", compressed(lying(good, 1 << 62)), REFUSED),
        ("says-600-holds-300", compressed(lying(w.zstd(low[:300]), 600)), REFUSED),
        ("says-600-holds-900", compressed(lying(w.zstd(low + low[:300]), 600)), REFUSED),
        ("holds-nothing", compressed(w.zstd(b"")), REFUSED),
        ("two", compressed(w.zstd(low[:300]) + w.zstd(low[300:])), REFUSED),
        ("two-whole", compressed(good + good), REFUSED),
        ("two-unsaid", compressed(half + half), REFUSED),
        ("left-over", compressed(good + b"\0"), REFUSED),
        ("empty-after", compressed(good + w.zstd(b"")), REFUSED),
        ("skippable-after", compressed(good + skip), REFUSED),
        ("skippable-before", compressed(skip + good), REFUSED),
        ("skippable-alone", compressed(skip), REFUSED),
        ("cut", compressed(good[:-1]), REFUSED),
        ("size-0", compressed(b""), REFUSED),
        ("size-less", compressed(good, len(good) - 1), REFUSED),
        ("size-more", compressed(good, len(good) + 1), REFUSED),
        ("size-huge", compressed(good, 0xFFFFFFFF), REFUSED),
        ("no-frame", compressed(b"x" * 50), REFUSED),
        ("magic", compressed(b"\x28\xb5\x2f\xfe" + good[4:]), REFUSED),
        ("body", compressed(good[:20] + bytes(x ^ 255 for x in good[20:])), REFUSED),
        ("size-cut", b"\2\1\0", REFUSED),
    ):
        yield s.bent("frame-" + name, ok, only_chunk(s, b"\2" + data + rest))
    dictionary = zstandard.ZstdCompressionDict(low * 8, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    tied = zstandard.ZstdCompressor(dict_data=dictionary).compress(low)
    yield s.bent("frame-needs-dictionary", REFUSED, only_chunk(s, b"\2" + compressed(tied) + rest))


def lying(frame, n):
    """The frame with n as the size of its contents, in 8 bytes, and a window of 1 MiB."""
    code, single = frame[4] >> 6, frame[4] >> 5 & 1
    width = (1 if single else 0, 2, 4, 8)[code]
    body = frame[5 + (0 if single else 1) + width :]
    return frame[:4] + bytes([0xC0 | (frame[4] & 0x1F), 10 << 3]) + struct.pack("<Q", n) + body


# ------------------------------------------------------------------------------------------------
# limits: models of their own


def limit_scene(folder, name, base, merged, cut, k):
    """A scene with one tensor of one row's width, all chunks of code 0 but the first."""
    rng = np.random.default_rng(3)
    paths = [os.path.join(folder, "%s-%s.safetensors" % (name, side)) for side in ("b", "m")]
    for path, t in zip(paths, (base, merged)):
        files.write(path, OrderedDict(t=t), {"format": "pt"})
    edits = None
    rec = w.make(*paths, edits, rng)
    at, chunks = 0, []
    edit = w.plan(files.Base(paths[0]), files.Base(paths[1]), {})["t"]
    b, p, k, _ = w.bits_of(base, edit, merged)
    for n in cut:
        z = [w.residual(x, y, k) for x, y in zip(b[at : at + n], p[at : at + n])]
        chunks.append([n, w.write_chunk(z, k, code=1 if any(z) else 0, kind=1)])
        at += n
    rec.set_chunks(0, chunks)
    return paths, rec


def limits(folder):
    """Yields (name, statuses, base, merged, Record) at a limit and one element above it."""
    bits = {"F32": (np.uint32, 32), "F16": (np.uint16, 16), "BF16": (np.uint16, 16), "U8": (np.uint8, 8)}
    for b, m, most in (
        ("BF16", "BF16", 524288),
        ("F16", "BF16", 524288),
        ("F32", "F32", 262144),
        ("F32", "F16", 262144),
        ("BF16", "F32", 262144),
        ("U8", "U8", 524288),
    ):
        for more in (0, 1):
            n = most + more
            x, y = np.zeros(n, dtype=bits[b][0]), np.zeros(n, dtype=bits[m][0])
            x[[5, n - 1]] = 3
            name = "limit-%s-from-%s-%d" % (b, m, n)
            paths, rec = limit_scene(folder, name, Tensor(b, x), Tensor(m, y), [n], bits[b][1])
            yield name, REFUSED if more else {0}, *paths, rec


def file_limits(folder, large):
    """As limits(), for files: a stored one of 16 MiB; with `large` 17 of them, and record.json of
    256 MiB."""
    mib = 1 << 20
    for name, sizes, pad, ok in (
        ("stored-16M", [16 * mib], 0, {0}),
        ("stored-16M+1", [16 * mib + 1], 0, REFUSED),
        ("stored-256M", [16 * mib] * 16, 0, {0}),
        ("stored-256M+1", [16 * mib] * 16 + [1], 0, REFUSED),
        ("json-256M", [], 256 * mib, {0}),
        ("json-256M+1", [], 256 * mib + 1, REFUSED),
    ):
        if "256M" in name and not large:
            continue
        base, merged = os.path.join(folder, name + "-b"), os.path.join(folder, name + "-m")
        for path, value in ((base, 1), (merged, 2)):
            Scene.put(path, OrderedDict(t=Tensor("F32", np.full(4, value, dtype=np.uint32))), {})
        for i, n in enumerate(sizes):
            with open(os.path.join(base, "x%02d" % i), "wb") as f:
                f.truncate(n)
        rec = w.make(base, merged, most=1 << 40)
        for i, o in enumerate(rec.json["base"]["others"]):
            if o["name"] in ("config.json", "README.md"):
                o["stored"] = False
                rec.tensors.pop("file.%d" % i, None)
        if pad:
            text = json.dumps(rec.json).encode()
            rec.text = text + b" " * (pad - len(text))
        yield "limit-" + name, ok, base, merged, rec
        shutil.rmtree(base)
        shutil.rmtree(merged)
