# SPDX-License-Identifier: Apache-2.0
"""Records that our program did not write, made from loractl-undo(5) alone.

make() takes a base, any model as the merged one, and any edits at all: a record is valid as soon as
its residuals repair what its predictions miss. What the page leaves open (the chunks' sizes, their
coding, the streams' coding, the order of the tensors) is drawn at random. Small predictions are
computed one element after the other with rationals, sharing nothing with the reader.
"""

import copy
import hashlib
import json
import math
import os
import struct
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import zstandard

import contract
import files
import undo
from files import Tensor

FLOATS = ("F32", "F16", "BF16")
SCALAR_STEPS = 30000  # rational fused steps that one prediction may cost


class Part:
    """low-rank with left and right, dense with dense; all are Tensors."""

    def __init__(self, scale, row, col, left=None, right=None, dense=None):
        self.scale, self.row, self.col = np.float32(scale), row, col
        self.left, self.right, self.dense = left, right, dense
        self.kind = "dense" if left is None else "low-rank"
        self.rows = (dense if left is None else left).shape[0]
        self.cols = (dense if left is None else right).shape[1]


class Edit:
    """How one tensor is predicted; gain: (row or column, float32 array)."""

    def __init__(self, width=None, parts=(), rows=(), gain=None, nothing=False):
        self.width, self.parts, self.rows = width, list(parts), [int(r) for r in rows]
        self.gain, self.nothing = gain, nothing


class Record:
    """A record that can be bent: json is record.json, tensors maps names to [type, shape,
    bytes]."""

    def __init__(self):
        self.json, self.tensors, self.meta = OrderedDict(), OrderedDict(), {}
        self.meta["format"] = "loractl.undo/1"
        self.text = None  # instead of json
        self.bend_header = lambda header: header
        self.bend_file = lambda data: data

    def copy(self):
        return copy.deepcopy(self)

    def put(self, name, dtype, shape, data):
        self.tensors[name] = [dtype, list(shape), bytes(data)]

    def put_tensor(self, name, t):
        self.put(name, t.dtype, t.shape, np.ascontiguousarray(t.raw).tobytes())

    def chunks(self, i):
        """[elements, bytes of the chunk] of tensor i."""
        data, at, out = self.tensors["residual.%d" % i][2], 0, []
        for n, size in self.json["tensors"][i]["chunks"]:
            out.append([n, data[at : at + size]])
            at += size
        return out

    def set_chunks(self, i, chunks):
        data = b"".join(c for _, c in chunks)
        self.put("residual.%d" % i, "U8", [len(data)], data)
        self.json["tensors"][i]["chunks"] = [[n, len(c)] for n, c in chunks]

    def save(self, path, order=None):
        tensors = OrderedDict(self.tensors)
        if "record.json" not in tensors:
            text = json.dumps(self.json).encode() if self.text is None else self.text
            tensors["record.json"] = ["U8", [len(text)], text]
        names = list(tensors) if order is None else order(list(tensors))
        header, at = OrderedDict(), 0
        if self.meta is not None:
            header["__metadata__"] = self.meta
        for n in names:
            dtype, shape, data = tensors[n]
            header[n] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
            at += len(data)
        text = json.dumps(self.bend_header(header)).encode()
        data = b"".join([struct.pack("<Q", len(text)), text, *(tensors[n][2] for n in names)])
        with open(path, "wb") as f:
            f.write(self.bend_file(data))


# ------------------------------------------------------------------------------------------------
# prediction, one element after the other


def f32(x):
    with np.errstate(all="ignore"):
        return float(np.float32(x))


def fma(a, b, c):
    """round32(a * b + c) of finite floats that are f32 values."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c  # the product is exact in f64, so that IEEE gives the zero its sign
    near = float(contract.fraction_round(exact, "F32"))
    return near if near else math.copysign(0.0, exact)


def divide(w, g):
    return 0.0 if g == 0 else f32(w / g)


def element(edit, w, i, j, arrays):
    """p of row i, column j. Sums, products and quotients of f32 values that are rounded to f64
    first and then to f32 are rounded correctly, as 53 >= 2 * 24 + 2."""
    D = 0.0
    for p, a in zip(edit.parts, arrays):
        y, x = i - p.row, j - p.col
        if not (0 <= y < p.rows and 0 <= x < p.cols):
            continue
        if p.kind == "dense":
            c = a[0][y][x]
        else:
            c = 0.0
            for k, left in enumerate(a[0][y]):
                c = fma(left, a[1][k][x], c)
        D = f32(D + f32(float(p.scale) * c))
    if edit.gain is not None:
        w = divide(w, float(edit.gain[1][i if edit.gain[0] == "row" else j]))
    return f32(w - D)


def values(t):
    return contract.widen(t.raw, t.dtype).reshape(t.shape).astype(np.float64).tolist()


def predict_slowly(edit, merged, dtype):
    w = contract.widen(merged.raw, merged.dtype).reshape(-1, edit.width).astype(np.float64)
    arrays = [[values(t) for t in (p.left, p.right, p.dense) if t is not None] for p in edit.parts]
    p = np.zeros(w.shape, dtype=np.float32)
    for i, row in enumerate(w.tolist()):
        if i not in edit.rows:
            p[i] = [element(edit, x, i, j, arrays) for j, x in enumerate(row)]
    bits = contract.round_to(p, dtype)
    bits[edit.rows] = 0
    return bits.reshape(-1)


def predict_fast(edit, merged, dtype):
    """The reader's own way, for what is too large."""
    w = contract.widen(merged.raw, merged.dtype).reshape(-1, edit.width)
    parts = []
    for p in edit.parts:
        a = [contract.widen(t.raw, t.dtype) for t in (p.left, p.right, p.dense) if t is not None]
        parts.append((part_json(p), a))
    gain = edit.gain and edit.gain[1]
    said = {"gain": edit.gain and edit.gain[0], "rows": edit.rows}
    return undo.predicted(w, said, parts, gain, dtype).reshape(-1)


def predict(edit, merged, dtype):
    steps = merged.raw.size + sum(
        p.rows * p.cols * (p.left.shape[1] if p.left else 1) for p in edit.parts
    )
    return (predict_slowly if steps <= SCALAR_STEPS else predict_fast)(edit, merged, dtype)


# ------------------------------------------------------------------------------------------------
# residual


def order_of(u, k):
    return u ^ ((1 << (k - 1)) - 1) if k > 8 and u >> (k - 1) else u


def residual(b, p, k):
    """z of bits b of the base and p of the prediction."""
    r = (order_of(b, k) - order_of(p, k)) % (1 << k)
    if r >> (k - 1):
        r -= 1 << k
    return 2 * r if r >= 0 else -2 * r - 1


def zstd(data, level=3, checksum=False, size=True):
    return zstandard.ZstdCompressor(
        level=level, write_content_size=size, write_checksum=checksum
    ).compress(data)


def write_stream(data, rng=None, kind=None):
    if kind is None:
        kind = int(rng.choice([0, 1, 2] if not any(data) else [1, 2]))
    if kind == 0:
        return b"\0"
    if kind == 1:
        return b"\1" + data
    frame = zstd(data, int(rng.integers(1, 20)), bool(rng.integers(2))) if rng else zstd(data)
    return b"\2" + struct.pack("<I", len(frame)) + frame


def write_planes(z, k, rng=None, kind=None):
    return b"".join(
        write_stream(bytes((v >> 8 * j) & 255 for v in z), rng, kind) for j in range(k // 8)
    )


def gap_bytes(z):
    out, gap = bytearray(), 0
    for v in z:
        if v == 0:
            gap += 1
            continue
        out += b"\xff" * (gap // 255) + bytes([gap % 255])
        gap = 0
    return bytes(out)


def write_chunk(z, k, rng=None, code=None, kind=None):
    """One chunk of the z given; code and the streams' kind at random if not given."""
    if code is None:
        code = int(rng.choice([1, 2] if any(z) else [0, 2]))
    if code == 0:
        return b"\0"
    if code == 2:
        return b"\2" + write_planes(z, k, rng, kind)
    there, steps = [v for v in z if v], gap_bytes(z)
    head = b"\1" + struct.pack("<II", len(there), len(steps))
    return head + write_stream(steps, rng, kind) + write_planes(there, k, rng, kind)


def cuts(rng, elements, size, width):
    """Lengths of chunks of at most 524288 elements and 1 MiB: whole rows, single rows, or parts of
    rows. size: the widest of an element in the base and in the merged model."""
    most, out, at = min(524288, (1 << 20) // size), [], 0
    style = int(rng.integers(4))
    while at < elements:
        if not width:
            n = int(rng.integers(1, most + 1)) if style else most
        elif at % width or width > most or (style == 1 and rng.random() < 0.5):
            rest = width - at % width
            n = min(rest, most) if style == 0 else int(rng.integers(1, min(rest, most) + 1))
        else:
            rows = (elements - at) // width
            rows = min(rows, most // width)
            n = width * (rows if style == 0 else 1 if style == 2 else int(rng.integers(1, rows + 1)))
        n = min(n, elements - at)
        out.append(n)
        at += n
    return out


# ------------------------------------------------------------------------------------------------
# the record


def part_json(p):
    return OrderedDict(
        kind=p.kind, scale=float(p.scale), row=p.row, rows=p.rows, col=p.col, cols=p.cols
    )


def sha(data):
    return hashlib.sha256(data).hexdigest()


def slurp(path):
    with open(path, "rb") as f:
        return f.read()


def data_of(t):
    return np.ascontiguousarray(t.raw).tobytes()


def root_of(model):
    return undo.merkle([(n, t.dtype, t.shape, sha(data_of(t))) for n, t in model.tensors.items()])


def paths(model):
    """[(name, path)] of its weight files."""
    if os.path.isfile(model.path):
        return [(os.path.basename(model.path), model.path)]
    return [(n, os.path.join(model.path, n)) for n in sorted(model.files)]


def others(model):
    """Names of all other files of a directory, with / between components."""
    out = []
    if os.path.isdir(model.path):
        for top, _, names in os.walk(model.path):
            out += [os.path.relpath(os.path.join(top, n), model.path) for n in names]
    return sorted(set(out) - set(model.files))


def head(data):
    return data[: 8 + struct.unpack("<Q", data[:8])[0]]


def named(name, data, **more):
    return OrderedDict(name=name, size=len(data), sha256=sha(data), **more)


def base_json(rec, base, merged, rng, leave, most):
    out = OrderedDict(root=root_of(base), directory=os.path.isdir(base.path))
    out["files"], out["others"], out["left"] = [], [], []
    for i, (name, path) in enumerate(paths(base)):
        data = slurp(path)
        rec.put("head.%d" % i, "U8", [len(head(data))], head(data))
        out["files"].append(named(name, data))
    for name in others(base):
        data = slurp(os.path.join(base.path, name))
        there = os.path.join(merged.path, name)
        same = os.path.isfile(there) and slurp(there) == data
        if name in leave or (len(data) > most and not same):
            out["left"].append(OrderedDict(name=name, size=len(data)))
            continue
        stored = not same or (len(data) <= most and bool(rng.integers(2)))
        if stored:
            rec.put("file.%d" % len(out["others"]), "U8", [len(data)], data)
        out["others"].append(named(name, data, stored=stored))
    return out


def merged_json(base, merged):
    out = OrderedDict(root=root_of(merged), files=[], tensors=[], others=[])
    for name, path in paths(merged):
        data = slurp(path)
        out["files"].append(OrderedDict(name=name, size=len(data), head_sha256=sha(head(data))))
    for name, t in merged.tensors.items():
        out["tensors"].append(OrderedDict(name=name, sha256=sha(data_of(t))))
    for name in set(others(base)) & set(others(merged)):
        data = slurp(os.path.join(merged.path, name))
        if data != slurp(os.path.join(base.path, name)):
            out["others"].append(named(name, data))
    return out


def plan(base, merged, edits):
    """Edits for all tensors that need one, in the base's order."""
    out = OrderedDict()
    for name, t in base.tensors.items():
        m = merged.tensors.get(name)
        if name in edits:
            out[name] = edits[name]
        elif m is None or not t.same(m):
            float_too = m is not None and m.shape == t.shape and {t.dtype, m.dtype} <= set(FLOATS)
            if not float_too or t.raw.size == 0:
                out[name] = Edit(nothing=True)
            else:
                out[name] = Edit(t.shape[-1] if t.shape else 1)
    return out


def bits_of(t, edit, m):
    """(bits of the base, bits of the prediction, k, widest element in bytes)"""
    if t.dtype in FLOATS:
        raw, k = t.raw.reshape(-1), 8 * t.raw.itemsize
    else:
        raw, k = np.frombuffer(data_of(t), dtype=np.uint8), 8
    if edit.nothing:
        return raw.tolist(), [0] * raw.size, k, k // 8
    return raw.tolist(), predict(edit, m, t.dtype).tolist(), k, max(k // 8, m.raw.itemsize)


def put_edit(rec, i, name, t, m, edit, rng):
    said = OrderedDict([("name", name), ("from", "nothing" if edit.nothing else "merged")])
    first = sum(len(x.get("parts", [])) for x in rec.json["tensors"])
    if not edit.nothing:
        said.update(width=edit.width)
    said.update(parts=[part_json(p) for p in edit.parts], rows=edit.rows)
    said.update(gain=edit.gain and edit.gain[0], chunks=[])
    for j, p in enumerate(edit.parts, first):
        for side in ("left", "right", "dense"):
            if getattr(p, side) is not None:
                rec.put_tensor("%s.%d" % (side, j), getattr(p, side))
    if edit.gain:
        rec.put_tensor("gain.%d" % i, Tensor("F32", edit.gain[1].astype(np.float32).view(np.uint32)))
    rec.json["tensors"].append(said)
    b, p, k, size = bits_of(t, edit, m)
    chunks, at = [], 0
    for n in cuts(rng, len(b), size, edit.width):
        z = [residual(x, y, k) for x, y in zip(b[at : at + n], p[at : at + n])]
        chunks.append([n, write_chunk(z, k, rng)])
        at += n
    rec.set_chunks(i, chunks)


def make(base, merged, edits=None, rng=None, leave=(), most=16 << 20):
    """A valid Record that leads from the model at `merged` to the one at `base`. edits: name of a
    tensor -> Edit; a tensor that changed and is not among them gets one without parts. Other files that are named in `leave`, or
    have more than `most` bytes and nothing like them in the merged model, are left."""
    rng = rng or np.random.default_rng(1)
    base, merged, rec = files.Base(base), files.Base(merged), Record()
    rec.json.update(schema="loractl.undo/1", tool="somebody else", version="0", arithmetic=1)
    rec.json["base"] = base_json(rec, base, merged, rng, leave, most)
    rec.json["merged"] = merged_json(base, merged)
    rec.json["adapters"] = [OrderedDict(name="an adapter", root="0" * 64, weight=1)]
    rec.json["tensors"] = []
    for i, (name, edit) in enumerate(plan(base, merged, edits or {}).items()):
        put_edit(rec, i, name, base.tensors[name], merged.tensors.get(name), edit, rng)
    return rec


def write(path, base, merged, edits=None, rng=None, leave=()):
    """make(), into a file, the tensors in any order."""
    rng = rng or np.random.default_rng(1)
    rec = make(base, merged, edits, rng, leave)
    rec.save(path, lambda names: [names[i] for i in rng.permutation(len(names))])
    return rec
