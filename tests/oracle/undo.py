#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of undo records, written from loractl-undo(5) alone.

    undo.py RECORD MERGED OUT

OUT becomes the base: a directory or one file, as the record says. Exit status 0 when every SHA-256
of the record was proved, 1 if MERGED is another merged model, 3 for a record that readers refuse;
then one line on stderr and no OUT.

 1. Nothing of the record is trusted: every member is asked for by type, every size is compared
    with what it has to be before memory is taken for it.
 2. The merged model's digests come first. The base's come last, over the files as they were
    written; OUT gets its name after that.
 3. A prediction that is a NaN becomes the quiet NaN with a clear sign: the page gives it no bits.
"""

import hashlib
import json
import math
import os
import shutil
import struct
import sys
from collections import OrderedDict

import numpy as np
import zstandard

sys.dont_write_bytecode = True

import contract  # noqa: E402

MIB = 1 << 20
JSON_LIMIT, FILE_LIMIT, FILES_LIMIT = 256 * MIB, 16 * MIB, 256 * MIB
CHUNK_ELEMENTS, CHUNK_BYTES = 524288, MIB
FLOATS = ("F32", "F16", "BF16")
SIZE = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
UINT = {8: np.dtype("<u1"), 16: np.dtype("<u2"), 32: np.dtype("<u4")}


class Refused(Exception):
    """The record is bad, or (status 1) belongs to another merged model."""

    def __init__(self, what, status=3):
        super().__init__(what)
        self.status = status


def need(condition, what, status=3):
    if not condition:
        raise Refused(what, status)


# ------------------------------------------------------------------------------------------------
# safetensors


def unique(pairs):
    out = OrderedDict(pairs)
    need(len(out) == len(pairs), "a JSON object has a key twice")
    return out


def parse_json(text, where):
    def constant(name):
        raise Refused("%s: %s is no JSON" % (where, name))

    try:
        return json.loads(
            bytes(text).decode("utf-8"), object_pairs_hook=unique, parse_constant=constant
        )
    except (ValueError, RecursionError) as e:
        raise Refused("%s: %s" % (where, e)) from None


def whole(value, what, least=0):
    need(isinstance(value, int) and not isinstance(value, bool), what + ": no whole number")
    need(least <= value < 1 << 64, what + ": out of range")
    return value


class Entry:
    def __init__(self, name, dtype, shape, begin, end):
        self.name, self.dtype, self.shape, self.begin, self.end = name, dtype, shape, begin, end
        self.count = math.prod(shape)
        self.nbytes = end - begin

    def like(self, other):
        return self.dtype == other.dtype and self.shape == other.shape


def entry(name, h, where):
    what = "%s: tensor %r" % (where, name)
    need(isinstance(h, dict) and set(h) == {"dtype", "shape", "data_offsets"}, what)
    need(h["dtype"] in SIZE, what + ": type")
    need(isinstance(h["shape"], list), what + ": shape")
    shape = tuple(whole(d, what) for d in h["shape"])
    at = h["data_offsets"]
    need(isinstance(at, list) and len(at) == 2, what + ": offsets")
    e = Entry(name, h["dtype"], shape, whole(at[0], what), whole(at[1], what))
    need(e.count * SIZE[e.dtype] == e.nbytes, what + ": its size does not follow from its shape")
    return e


def parse_header(text, where):
    """(tensors in the order of their offsets, metadata, bytes of data) of a header without its
    length."""
    header = parse_json(text, where)
    need(isinstance(header, dict), where + ": the header is no object")
    meta = header.pop("__metadata__", {})
    need(
        isinstance(meta, dict) and all(isinstance(v, str) for v in meta.values()),
        where + ": __metadata__",
    )
    entries = sorted(
        (entry(n, h, where) for n, h in header.items()), key=lambda e: (e.begin, e.end)
    )
    end = 0
    for e in entries:
        need(e.begin == end, "%s: tensor %r: a hole or an overlap" % (where, e.name))
        end = e.end
    return OrderedDict((e.name, e) for e in entries), meta, end


class Container:
    """One safetensors file; its bytes are read when they are asked for."""

    def __init__(self, path):
        try:
            self.file = open(path, "rb")
        except OSError as e:
            raise Refused("%s: %s" % (path, e.strerror)) from None
        self.path, self.size = path, os.fstat(self.file.fileno()).st_size
        need(self.size >= 8, path + ": no safetensors file")
        (n,) = struct.unpack("<Q", self.file.read(8))
        need(n <= self.size - 8, path + ": the header is longer than the file")
        self.head_size = 8 + n
        self.tensors, self.meta, end = parse_header(self.file.read(n), path)
        need(end == self.size - self.head_size, path + ": data missing or left over")

    def head(self):
        self.file.seek(0)
        return self.file.read(self.head_size)

    def data(self, name):
        e = self.tensors[name]
        self.file.seek(self.head_size + e.begin)
        return self.file.read(e.nbytes)

    def sha256(self):
        self.file.seek(0)
        h = hashlib.sha256()
        while block := self.file.read(MIB):
            h.update(block)
        return h.hexdigest()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def merkle(leaves):
    """The root over [(name, dtype, shape, digest of the data in hex)]."""
    level = []
    for name, dtype, shape, digest in sorted(leaves, key=lambda x: x[0].encode("utf-8")):
        n = name.encode("utf-8")
        leaf = b"\0loractl tensor 1\0" + struct.pack("<I", len(n)) + n + dtype.encode() + b"\0"
        leaf += struct.pack("<I%dQ" % len(shape), len(shape), *shape) + bytes.fromhex(digest)
        level.append(hashlib.sha256(leaf).digest())
    if not level:
        return sha256(b"")
    while len(level) > 1:
        pairs = [
            hashlib.sha256(b"\1" + a + b).digest() for a, b in zip(level[0::2], level[1::2])
        ]
        level = pairs + level[len(level) & ~1 :]
    return level[0].hex()


# ------------------------------------------------------------------------------------------------
# record.json


def text(value, what):
    need(isinstance(value, str), what + ": no string")
    return value


def digest(value, what):
    ok = isinstance(value, str) and len(value) == 64 and all(c in "0123456789abcdef" for c in value)
    need(ok, what + ": no SHA-256")
    return value


def flag(value, what):
    need(isinstance(value, bool), what + ": neither true nor false")
    return value


def relative(value, what):
    text(value, what)
    need("\0" not in value, what + ": a name with a zero")
    need(all(c not in ("", ".", "..") for c in value.split("/")), what + ": a name that leads away")
    return value


def plain(value, what):
    need("/" not in relative(value, what), what + ": a name with a folder")
    return value


def members(value, what, **kinds):
    """An object that has each of these, of its kind."""
    need(isinstance(value, dict), what + ": no object")
    for key, kind in kinds.items():
        need(key in value, "%s: no member %s" % (what, key))
        kind(value[key], "%s.%s" % (what, key))
    return value


def array(value, what, **kinds):
    need(isinstance(value, list), what + ": no array")
    for i, item in enumerate(value):
        members(item, "%s[%d]" % (what, i), **kinds)
    return value


def distinct(items, what):
    names = [i["name"] for i in items]
    need(len(set(names)) == len(names), what + ": a name twice")


def scale_of(value, what):
    need(isinstance(value, (int, float)) and not isinstance(value, bool), what + ": no number")
    value = float(value) if abs(value) < 2**1024 else math.inf
    need(math.isfinite(value), what + ": not finite")
    with np.errstate(over="ignore", under="ignore"):
        s = np.float32(value)
    need(float(s) == value, what + ": not exactly a float")
    return s


def check_parts(parts, what):
    array(
        parts, what, kind=text, scale=scale_of, row=whole, rows=whole, col=whole, cols=whole
    )
    for p in parts:
        need(p["kind"] in ("low-rank", "dense"), "%s: kind %r" % (what, p["kind"]))


def check_edit(t, what):
    members(t, what, name=text, **{"from": text}, chunks=lambda v, w: None)
    need(t["from"] in ("merged", "nothing"), what + ".from")
    chunks = t["chunks"]
    need(isinstance(chunks, list), what + ".chunks: no array")
    for c in chunks:
        need(isinstance(c, list) and len(c) == 2, what + ".chunks: no pair")
        whole(c[0], what + ".chunks", 1), whole(c[1], what + ".chunks", 1)
    if t["from"] == "nothing":
        for key in ("width", "gain"):
            need(t.get(key) is None, "%s.%s: not with nothing" % (what, key))
        for key in ("parts", "rows"):
            need(not t.get(key), "%s.%s: not with nothing" % (what, key))
        return
    members(t, what, width=whole, parts=check_parts, rows=lambda v, w: None)
    need(t["width"] > 0, what + ".width")
    need("gain" in t and t["gain"] in ("row", "column", None), what + ".gain")
    rows = t["rows"]
    need(isinstance(rows, list), what + ".rows: no array")
    for r in rows:
        whole(r, what + ".rows")
    need(all(a < b for a, b in zip(rows, rows[1:])), what + ".rows do not ascend")


def check_record(r):
    members(r, "record.json", schema=text, arithmetic=whole)
    need(r["schema"] == "loractl.undo/1", "schema %r" % r["schema"])
    need(r["arithmetic"] == 1, "arithmetic %d" % r["arithmetic"])
    file = dict(name=plain, size=whole, sha256=digest)
    base = members(r.get("base"), "base", root=digest, directory=flag)
    array(base.get("files"), "base.files", **file)
    other = dict(name=relative, size=whole, sha256=digest)
    array(base.get("others"), "base.others", **other, stored=flag)
    array(base.get("left"), "base.left", name=text, size=whole)
    merged = members(r.get("merged"), "merged", root=digest)
    array(merged.get("files"), "merged.files", name=plain, size=whole, head_sha256=digest)
    array(merged.get("tensors"), "merged.tensors", name=text, sha256=digest)
    array(merged.get("others"), "merged.others", **other)
    distinct(base["files"] + base["others"], "base")
    distinct(merged["files"] + merged["others"], "merged")
    distinct(merged["tensors"], "merged.tensors")
    array(r.get("tensors"), "tensors")
    for i, t in enumerate(r["tensors"]):
        check_edit(t, "tensors[%d]" % i)
    distinct(r["tensors"], "tensors")
    if not base["directory"]:
        need(len(base["files"]) == 1 and not base["others"], "base: one file has no others")
    names = [o["name"] for o in base["files"] + base["others"]]
    folders = {n[:i] for n in names for i, c in enumerate(n) if c == "/"}
    need(not folders & set(names), "base: a name is a file and a folder")


# ------------------------------------------------------------------------------------------------
# chunks


class Cursor:
    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def take(self, n):
        need(n <= len(self.data) - self.at, self.what + ": ends too soon")
        self.at += n
        return self.data[self.at - n : self.at]

    def u8(self):
        return self.take(1)[0]

    def u32(self):
        return struct.unpack("<I", self.take(4))[0]


def unpacked(frame, n, what):
    """The n bytes of one Zstandard frame that is all of `frame`."""
    try:
        parameters = zstandard.get_frame_parameters(frame)
        need(parameters.content_size == n, what + ": the frame says another size")
        stream = zstandard.ZstdDecompressor().decompressobj()
        out = stream.decompress(frame)
    except zstandard.ZstdError as e:
        raise Refused("%s: %s" % (what, e)) from None
    need(stream.eof and not stream.unused_data, what + ": not one whole frame")
    need(len(out) == n, what + ": the frame holds another size")
    return out


def stream(cursor, n):
    kind = cursor.u8()
    if kind == 0:
        return np.zeros(n, dtype=np.uint8)
    if kind == 1:
        return np.frombuffer(cursor.take(n), dtype=np.uint8)
    need(kind == 2, "%s: stream of kind %d" % (cursor.what, kind))
    return np.frombuffer(unpacked(cursor.take(cursor.u32()), n, cursor.what), dtype=np.uint8)


def planes(cursor, n, k):
    z = np.zeros(n, dtype=UINT[k])
    for j in range(k // 8):
        z |= stream(cursor, n).astype(UINT[k]) << UINT[k].type(8 * j)
    return z


def gaps(cursor, m, elements):
    """The places of m elements."""
    g = cursor.u32()
    need(m <= g <= m + elements // 255, cursor.what + ": bytes of gaps")
    steps = stream(cursor, g).astype(np.int64)
    last = np.flatnonzero(steps < 255)
    need(len(last) == m and last[-1] == g - 1, cursor.what + ": gaps that are not m")
    total = np.cumsum(steps)[last]  # zeros before each element
    places = total + np.arange(m)
    need(places[-1] < elements, cursor.what + ": gaps end outside")
    return places


def chunk(data, elements, k, what):
    """z of the elements of one chunk."""
    cursor = Cursor(data, what)
    code = cursor.u8()
    if code == 0:
        z = np.zeros(elements, dtype=UINT[k])
    elif code == 1:
        m = cursor.u32()
        need(0 < m <= elements, what + ": m")
        places = gaps(cursor, m, elements)
        values = planes(cursor, m, k)
        need(values.all(), what + ": a z of 0 among those that are not")
        z = np.zeros(elements, dtype=UINT[k])
        z[places] = values
    else:
        need(code == 2, "%s: code %d" % (what, code))
        z = planes(cursor, elements, k)
    need(cursor.at == len(data), what + ": bytes left over")
    return z


def ordinal(u, k):
    t = UINT[k].type
    if k == 8:
        return u
    return np.where(u >> t(k - 1), u ^ t((1 << (k - 1)) - 1), u)


def corrected(p, z, k):
    """The bits of the base from the bits p of the prediction."""
    t = UINT[k].type
    r = (z >> t(1)) ^ (t(0) - (z & t(1)))
    return ordinal(ordinal(p, k) + r, k)


# ------------------------------------------------------------------------------------------------
# prediction


def predicted(w, edit, parts, gain, dtype):
    """Bits of type dtype. w: float32 of the merged tensor [m, n]; parts: (members of record.json,
    arrays)."""
    D = np.zeros(w.shape, dtype=np.float32)
    for p, factors in parts:
        where = np.s_[p["row"] : p["row"] + p["rows"], p["col"] : p["col"] + p["cols"]]
        update = contract.chain(*factors) if p["kind"] == "low-rank" else factors[0]
        with np.errstate(all="ignore"):
            D[where] = D[where] + scale_of(p["scale"], "scale") * update
    with np.errstate(all="ignore"):
        if gain is None:
            q = w
        else:
            g = np.broadcast_to(gain[:, None] if edit["gain"] == "row" else gain, w.shape)
            q = np.where(g == 0, np.float32(0), w / g)
        p = q - D
    p = np.where(np.isnan(p), np.float32(np.nan), p)
    bits = contract.round_to(p, dtype)
    bits[edit["rows"]] = 0
    return bits


class Undo:
    def __init__(self, record, merged):
        self.file = Container(record)
        need(self.file.meta.get("format") == "loractl.undo/1", "__metadata__: no undo record")
        e = self.expect("record.json", "U8", None)
        need(e.nbytes <= JSON_LIMIT, "record.json: more than 256 MiB")
        self.record = parse_json(self.file.data("record.json"), "record.json")
        check_record(self.record)
        self.base, self.edits = self.record["base"], self.record["tensors"]
        self.merged_path = merged
        self.open_merged()
        self.used = {"record.json"}
        self.heads, self.stored_total = [], 0
        self.read_heads()
        self.check_tensors()
        self.check_others()
        left = set(self.file.tensors) - self.used
        need(not left, "tensors that belong to nothing: %s" % sorted(left)[:3])

    # what the file has to have

    def expect(self, name, dtypes, shape):
        need(name in self.file.tensors, "no tensor %s" % name)
        e = self.file.tensors[name]
        need(e.dtype in ((dtypes,) if isinstance(dtypes, str) else dtypes), name + ": its type")
        if shape is None:
            need(len(e.shape) == 1, name + ": its shape")
        else:
            need(e.shape == tuple(shape), name + ": its shape")
        if hasattr(self, "used"):
            self.used.add(name)
        return e

    def floats(self, name, dtypes, shape):
        e = self.expect(name, dtypes, shape)
        raw = np.frombuffer(self.file.data(name), dtype=UINT[8 * SIZE[e.dtype]])
        x = contract.widen(raw, e.dtype).reshape(e.shape)
        need(np.isfinite(x).all(), name + ": values that are not finite")
        return x

    # the merged model

    def open_merged(self):
        m = self.record["merged"]
        folder = os.path.isdir(self.merged_path)
        need(folder == self.base["directory"], "the merged model is no %s" % ("file", "directory")[self.base["directory"]], 1)
        if folder:
            paths = [os.path.join(self.merged_path, f["name"]) for f in m["files"]]
            for p in paths:
                need(os.path.isfile(p), p + ": missing", 1)
        else:
            need(len(m["files"]) == 1, "merged.files: one file was given")
            paths = [self.merged_path]
        self.weights, self.where = [Container(p) for p in paths], {}
        for f, c in zip(m["files"], self.weights):
            need(c.size == f["size"], c.path + ": its size", 1)
            need(sha256(c.head()) == f["head_sha256"], c.path + ": its head", 1)
            for name in c.tensors:
                need(name not in self.where, "tensor %r is in two files" % name)
                self.where[name] = c
        self.check_merged_tensors(m)

    def check_merged_tensors(self, m):
        named = {t["name"]: t["sha256"] for t in m["tensors"]}
        need(set(named) == set(self.where), "merged.tensors are others than the files'")
        leaves = []
        for name, c in self.where.items():
            d = sha256(c.data(name))
            need(d == named[name], "merged tensor %r: its digest" % name, 1)
            leaves.append((name, c.tensors[name].dtype, c.tensors[name].shape, d))
        need(merkle(leaves) == m["root"], "the merged model's root", 1)
        for o in m["others"]:
            self.merged_other(o)

    def merged_other(self, o):
        need(os.path.isdir(self.merged_path), "%r: the merged model is one file" % o["name"])
        path = os.path.join(self.merged_path, o["name"])
        need(os.path.isfile(path), path + ": missing", 1)
        with open(path, "rb") as f:
            data = f.read()
        need(len(data) == o["size"] and sha256(data) == o["sha256"], path + ": its digest", 1)
        return data

    # the base

    def read_heads(self):
        self.targets = {}
        for i, f in enumerate(self.base["files"]):
            name = "head.%d" % i
            self.expect(name, "U8", None)
            head = self.file.data(name)
            need(len(head) >= 8, name + ": too short")
            (n,) = struct.unpack("<Q", head[:8])
            need(n == len(head) - 8, name + ": its length")
            tensors, _, size = parse_header(head[8:], name)
            need(len(head) + size == f["size"], name + ": the file's size")
            self.heads.append((head, tensors))
            for t in tensors.values():
                need(t.name not in self.targets, "tensor %r is in two files" % t.name)
                self.targets[t.name] = t

    def check_tensors(self):
        self.edit_at, part = {}, 0
        for i, edit in enumerate(self.edits):
            need(edit["name"] in self.targets, "tensors[%d]: not in the base" % i)
            self.edit_at[edit["name"]] = i
            edit["first part"] = part
            part += len(edit.get("parts") or [])
            self.check_edit(i, edit, self.targets[edit["name"]])
        for t in self.targets.values():
            if t.name not in self.edit_at:
                need(t.name in self.where, "tensor %r comes from nowhere" % t.name)
                other = self.where[t.name].tensors[t.name]
                need(t.like(other), "tensor %r: another type or shape" % t.name)

    def check_edit(self, i, edit, t):
        what = "tensors[%d]" % i
        self.expect("residual.%d" % i, "U8", [sum(c[1] for c in edit["chunks"])])
        k = 8 * SIZE[t.dtype] if t.dtype in FLOATS else 8
        elements, sizes = (t.count if t.dtype in FLOATS else t.nbytes), [k // 8]
        width = None
        if edit["from"] == "merged":
            w = self.where.get(t.name) and self.where[t.name].tensors[t.name]
            need(w is not None and w.shape == t.shape, what + ": not in the merged model")
            need(t.dtype in FLOATS and w.dtype in FLOATS, what + ": its type")
            width = edit["width"]
            need(elements % width == 0, what + ": width")
            sizes.append(SIZE[w.dtype])
            self.check_matrix(i, edit, elements // width, width)
        self.check_chunks(edit["chunks"], elements, max(sizes), width, what)

    def check_matrix(self, i, edit, height, width):
        what = "tensors[%d]" % i
        for p in edit["parts"]:
            need(p["row"] + p["rows"] <= height, what + ": rows outside")
            need(p["col"] + p["cols"] <= width, what + ": columns outside")
        need(not edit["rows"] or edit["rows"][-1] < height, what + ".rows outside")
        for j, p in enumerate(edit["parts"], edit["first part"]):
            if p["kind"] == "dense":
                self.expect("dense.%d" % j, FLOATS, (p["rows"], p["cols"]))
                continue
            left = self.file.tensors.get("left.%d" % j)
            need(left and len(left.shape) == 2, "left.%d" % j)
            self.expect("left.%d" % j, FLOATS, (p["rows"], left.shape[1]))
            self.expect("right.%d" % j, FLOATS, (left.shape[1], p["cols"]))
        if edit["gain"]:
            self.expect("gain.%d" % i, "F32", [height if edit["gain"] == "row" else width])

    @staticmethod
    def check_chunks(chunks, elements, size, width, what):
        at = 0
        for n, _ in chunks:
            need(n <= CHUNK_ELEMENTS and n * size <= CHUNK_BYTES, what + ": a chunk too large")
            if width:
                rows = at % width == 0 and n % width == 0
                need(rows or at // width == (at + n - 1) // width, what + ": a chunk of bits of rows")
            at += n
        need(at == elements, what + ": chunks do not add up")

    def check_others(self):
        total = 0
        for i, o in enumerate(self.base["others"]):
            if o["stored"]:
                e = self.expect("file.%d" % i, "U8", [o["size"]])
                total += e.nbytes
                need(e.nbytes <= FILE_LIMIT, "file.%d: more than 16 MiB" % i)
        need(total <= FILES_LIMIT, "stored files: more than 256 MiB")

    # the way back

    def prediction(self, i, edit, t):
        c = self.where[t.name]
        w = c.tensors[t.name]
        raw = np.frombuffer(c.data(t.name), dtype=UINT[8 * SIZE[w.dtype]])
        w = contract.widen(raw, w.dtype).reshape(-1, edit["width"])
        parts = []
        for j, p in enumerate(edit["parts"], edit["first part"]):
            names = ("left", "right") if p["kind"] == "low-rank" else ("dense",)
            names = ["%s.%d" % (n, j) for n in names]
            parts.append((p, [self.floats(n, FLOATS, self.file.tensors[n].shape) for n in names]))
        gain = None
        if edit["gain"]:
            gain = self.floats("gain.%d" % i, "F32", self.file.tensors["gain.%d" % i].shape)
        return predicted(w, edit, parts, gain, t.dtype).reshape(-1)

    def tensor(self, t):
        """The bytes of a tensor of the base."""
        if t.name not in self.edit_at:
            return self.where[t.name].data(t.name)
        i = self.edit_at[t.name]
        edit, residual = self.edits[i], memoryview(self.file.data("residual.%d" % i))
        k = 8 * SIZE[t.dtype] if t.dtype in FLOATS else 8
        if edit["from"] == "merged":
            out = self.prediction(i, edit, t)
        else:
            out = np.zeros(t.nbytes * 8 // k, dtype=UINT[k])
        at = where = 0
        for j, (n, size) in enumerate(edit["chunks"]):
            z = chunk(residual[where : where + size], n, k, "residual.%d: chunk %d" % (i, j))
            out[at : at + n] = corrected(out[at : at + n], z, k)
            at, where = at + n, where + size
        return out.astype(UINT[k], copy=False).tobytes()

    def write_weights(self, i, path, leaves):
        f, (head, tensors) = self.base["files"][i], self.heads[i]
        h = hashlib.sha256(head)
        with open(path, "wb") as out:
            out.write(head)
            for t in tensors.values():
                data = self.tensor(t)
                out.write(data)
                h.update(data)
                leaves.append((t.name, t.dtype, t.shape, sha256(data)))
        need(h.hexdigest() == f["sha256"], "base file %r: its digest" % f["name"])

    def write_other(self, i, folder):
        o = self.base["others"][i]
        data = self.file.data("file.%d" % i) if o["stored"] else self.merged_other(o)
        need(len(data) == o["size"] and sha256(data) == o["sha256"], "%r: its digest" % o["name"])
        path = os.path.join(folder, *o["name"].split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)

    def write(self, path):
        leaves = []
        if self.base["directory"]:
            os.makedirs(path)
        for i, f in enumerate(self.base["files"]):
            to = os.path.join(path, f["name"]) if self.base["directory"] else path
            self.write_weights(i, to, leaves)
        need(merkle(leaves) == self.base["root"], "the base's root")
        for i in range(len(self.base["others"])):
            self.write_other(i, path)


def restore(record, merged, out):
    """The base under `out`, or Refused and nothing there."""
    undo, temporary = Undo(record, merged), out + ".part"
    try:
        undo.write(temporary)
        os.rename(temporary, out)
    finally:
        if os.path.isdir(temporary):
            shutil.rmtree(temporary)
        elif os.path.exists(temporary):
            os.unlink(temporary)
    return undo


def main(argv):
    if len(argv) != 4:
        print("usage: undo.py RECORD MERGED OUT", file=sys.stderr)
        return 2
    if os.path.lexists(argv[3]):
        print("undo.py: %s: exists" % argv[3], file=sys.stderr)
        return 2
    try:
        restore(*argv[1:])
    except Refused as e:
        print("undo.py: %s" % str(e).replace("\n", " "), file=sys.stderr)
        return e.status
    except OSError as e:
        print("undo.py: %s: %s" % (argv[3], e.strerror), file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
