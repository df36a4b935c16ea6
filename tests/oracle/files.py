# SPDX-License-Identifier: Apache-2.0
"""Model files for the oracle: safetensors read and written by hand, base directories, adapter
directories.

A tensor here is its bits: `raw` is an array of unsigned integers of the element's width, in the
tensor's shape. The parser is written from the format's description (8 bytes little-endian length,
a JSON header of name -> dtype, shape, offsets, then the data), so that no library stands between
the program's output and the comparison.

    1. read() refuses what the format forbids: holes, overlaps, sizes that do not follow from the
       shape, duplicate names.
    2. Tensors come in the order of their data in the file, because an output has to keep it.
"""

import json
import os
import struct
from collections import OrderedDict

import numpy as np

SIZE = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "U16": 2,
    "U32": 4,
    "U64": 8,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
UINT = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class Tensor:
    """dtype by its safetensors name, raw bits in the tensor's shape."""

    def __init__(self, dtype, raw):
        self.dtype, self.raw = dtype, raw

    @property
    def shape(self):
        return self.raw.shape

    def same(self, other):
        return (
            self.dtype == other.dtype
            and self.shape == other.shape
            and bool((self.raw == other.raw).all())
        )

    def __repr__(self):
        return "%s%s" % (self.dtype, list(self.shape))


def no_duplicates(pairs):
    out = OrderedDict()
    for key, value in pairs:
        if key in out:
            raise ValueError("duplicate key '%s'" % key)
        out[key] = value
    return out


def load_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f, object_pairs_hook=no_duplicates)


def read(path):
    """(tensors in the order of their data, metadata) of one safetensors file."""
    with open(path, "rb") as f:
        data = f.read()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n].decode("utf-8"), object_pairs_hook=no_duplicates)
    meta = header.pop("__metadata__", {})
    body = memoryview(data)[8 + n :]
    tensors, end = OrderedDict(), 0
    for name, h in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        a, b = h["data_offsets"]
        count = int(np.prod(h["shape"], dtype=np.int64))
        if a != end or b - a != count * SIZE[h["dtype"]]:
            raise ValueError("%s: tensor '%s': offsets %d..%d" % (path, name, a, b))
        raw = np.frombuffer(body[a:b], dtype=UINT[SIZE[h["dtype"]]]).reshape(h["shape"])
        tensors[name], end = Tensor(h["dtype"], raw), b
    if end != len(body):
        raise ValueError("%s: %d bytes after the last tensor" % (path, len(body) - end))
    return tensors, meta


def write(path, tensors, meta=None):
    """One safetensors file with the tensors in the order given."""
    header, at = OrderedDict(), 0
    if meta is not None:
        header["__metadata__"] = meta
    for name, t in tensors.items():
        size = t.raw.nbytes
        header[name] = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)))
        f.write(text)
        for t in tensors.values():
            f.write(np.ascontiguousarray(t.raw).tobytes())


class Base:
    """A base model on disk. `tensors` maps names to tensors, `files` each file to its names in
    order."""

    def __init__(self, path):
        self.path, self.config, self.tensors, self.files, self.meta = (
            path,
            {},
            OrderedDict(),
            OrderedDict(),
            {},
        )
        if os.path.isfile(path):
            self._take(os.path.dirname(path), os.path.basename(path))
            return
        config = os.path.join(path, "config.json")
        if os.path.exists(config):
            self.config = load_json(config)
        index = os.path.join(path, "model.safetensors.index.json")
        if os.path.exists(index):
            self.index = load_json(index)
            for name in OrderedDict.fromkeys(self.index["weight_map"].values()):
                self._take(path, name)
            if set(self.tensors) != set(self.index["weight_map"]):
                raise ValueError("%s: the index and the shards name different tensors" % path)
            for name, file in self.index["weight_map"].items():
                if name not in self.files[file]:
                    raise ValueError("%s: '%s' is not in %s" % (path, name, file))
        else:
            self.index = None
            self._take(path, "model.safetensors")

    def _take(self, folder, name):
        tensors, meta = read(os.path.join(folder, name))
        for key in tensors:
            if key in self.tensors:
                raise ValueError("'%s' is in two shards" % key)
        self.tensors.update(tensors)
        self.files[name], self.meta[name] = list(tensors), meta


class Adapter:
    """A PEFT directory, or the weights' file in one."""

    def __init__(self, path):
        path = os.path.dirname(path) if os.path.isfile(path) else path
        self.path = path
        self.config = load_json(os.path.join(path, "adapter_config.json"))
        self.tensors, self.meta = read(os.path.join(path, "adapter_model.safetensors"))
