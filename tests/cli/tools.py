#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command need to write, damage and read models, with the standard library alone.

    tools.py VERB ARGUMENT...

Every function below whose name has no leading underscore is a verb. Nothing here is shared with the program:
the file format, the roots and the arithmetic are written down a second time, from their definitions.

1. A verb that edits a file changes what it names and keeps everything else: order, metadata, other bytes.
2. A verb that checks prints one line for each thing that is wrong, and ends with 1 if there was one.
"""

import array
import collections
import glob
import hashlib
import json
import math
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time

WIDTH = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
         "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
INDEX = "model.safetensors.index.json"
RECEIPT = "loractl-receipt.json"


# --- safetensors

class Tensor:
    def __init__(self, dtype, shape, data):
        self.dtype, self.shape, self.data = dtype, list(shape), data

    def values(self):
        """As Python floats, exactly."""
        if self.dtype == "BF16":
            wide = array.array("I", [x << 16 for x in array.array("H", self.data)])
            return array.array("f", wide.tobytes()).tolist()
        if self.dtype == "F16":
            return list(struct.unpack("<%de" % (len(self.data) // 2), self.data))
        return array.array({"F32": "f", "F64": "d"}[self.dtype], self.data).tolist()

    def store(self, values):
        """Values that the type cannot hold are rounded by dropping bits (BF16) or as struct does."""
        if self.dtype == "BF16":
            wide = array.array("I", array.array("f", values).tobytes())
            self.data = array.array("H", [x >> 16 for x in wide]).tobytes()
        elif self.dtype == "F16":
            self.data = struct.pack("<%de" % len(values), *values)
        else:
            self.data = array.array({"F32": "f", "F64": "d"}[self.dtype], values).tobytes()


class File:
    """`tensors` is in the order of the header; the bytes are written in the order in which they stood."""

    def __init__(self, path=None):
        self.metadata, self.tensors, self.begin = None, collections.OrderedDict(), {}
        if path is None:
            return
        with open(path, "rb") as file:
            raw = file.read()
        size = struct.unpack("<Q", raw[:8])[0]
        for name, entry in json.loads(raw[8:8 + size], object_pairs_hook=collections.OrderedDict).items():
            if name == "__metadata__":
                self.metadata = entry
                continue
            begin, end = entry["data_offsets"]
            self.begin[name] = begin
            self.tensors[name] = Tensor(entry["dtype"], entry["shape"], raw[8 + size + begin:8 + size + end])

    def by_place(self):
        return sorted(self.tensors, key=lambda name: self.begin.get(name, math.inf))

    def save(self, path):
        offsets, at = {}, 0
        for name in self.by_place():
            offsets[name] = [at, at + len(self.tensors[name].data)]
            at = offsets[name][1]
        header = collections.OrderedDict()
        if self.metadata is not None:
            header["__metadata__"] = self.metadata
        for name, tensor in self.tensors.items():
            header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets[name]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in self.by_place():
                file.write(self.tensors[name].data)


def _product(shape):
    return math.prod(shape)


def _shape(text):
    return [int(x) for x in text.split(",")] if text else []


def _weights(path):
    """The weight files of a model, as paths."""
    if not os.path.isdir(path):
        return [path]
    single = os.path.join(path, "model.safetensors")
    if os.path.exists(single):
        return [single]
    with open(os.path.join(path, INDEX)) as file:
        names = set(json.load(file)["weight_map"].values())
    return [os.path.join(path, name) for name in sorted(names)]


def _adapter_file(path):
    return os.path.join(path, "adapter_model.safetensors") if os.path.isdir(path) else path


# --- edits

def header(path):
    """One line a tensor: name, type, shape, offsets."""
    file = File(path)
    for name in file.by_place():
        tensor = file.tensors[name]
        print(name, tensor.dtype, ",".join(map(str, tensor.shape)), file.begin[name])


def rename(path, old, new):
    file = File(path)
    if old not in file.tensors:
        raise KeyError(old)
    file.begin[new] = file.begin.pop(old)
    file.tensors = collections.OrderedDict((new if name == old else name, tensor)
                                           for name, tensor in file.tensors.items())
    file.save(path)


def substitute(path, pattern, text):
    """re.sub() on every name."""
    file = File(path)
    names = {name: re.sub(pattern, text, name) for name in file.tensors}
    file.begin = {names[name]: begin for name, begin in file.begin.items()}
    file.tensors = collections.OrderedDict((names[name], tensor) for name, tensor in file.tensors.items())
    file.save(path)


def drop(path, *names):
    file = File(path)
    for name in names:
        del file.tensors[name], file.begin[name]
    file.save(path)


def keep(path, pattern):
    """Drops every tensor whose name does not match."""
    file = File(path)
    drop(path, *[name for name in file.tensors if not re.search(pattern, name)])


def poke(path, name, position, value):
    """One element; the value as Python reads it: 1.5, nan, -inf."""
    file = File(path)
    values = file.tensors[name].values()
    values[int(position)] = float(value)
    file.tensors[name].store(values)
    file.save(path)


def fill(path, pattern, value):
    file = File(path)
    for name, tensor in file.tensors.items():
        if re.search(pattern, name):
            tensor.store([float(value)] * _product(tensor.shape))
    file.save(path)


def scale(path, pattern, factor):
    file = File(path)
    for name, tensor in file.tensors.items():
        if re.search(pattern, name):
            tensor.store([x * float(factor) for x in tensor.values()])
    file.save(path)


def cast(path, dtype, pattern="."):
    file = File(path)
    for name, tensor in file.tensors.items():
        if re.search(pattern, name):
            values = tensor.values()
            tensor.dtype = dtype
            tensor.store(values)
    file.save(path)


def shape(path, name, dims):
    """Another shape; with another number of elements, zeros are added or the end is cut off."""
    file = File(path)
    tensor = file.tensors[name]
    tensor.shape = _shape(dims)
    size = _product(tensor.shape) * WIDTH[tensor.dtype]
    tensor.data = (tensor.data + bytes(size))[:size]
    file.save(path)


def add(path, name, dtype, dims, value):
    """A tensor behind the others. VALUE is a number, or `random`."""
    file = File(path) if os.path.exists(path) else File()
    source = random.Random(name)
    tensor = Tensor(dtype, _shape(dims), b"")
    count = _product(tensor.shape)
    tensor.store([source.uniform(-0.5, 0.5) if value == "random" else float(value) for _ in range(count)])
    file.tensors[name] = tensor
    file.save(path)


def metadata(path, *pairs):
    """KEY=VALUE..., none: no __metadata__ at all."""
    file = File(path)
    file.metadata = collections.OrderedDict(pair.split("=", 1) for pair in pairs) or None
    file.save(path)


def reverse(path):
    """The bytes of the tensors in the opposite order; the header as it was."""
    file = File(path)
    file.begin = {name: -begin for name, begin in file.begin.items()}
    file.save(path)


def set_json(path, *pairs):
    """KEY=JSON sets, KEY alone deletes. The order stays."""
    with open(path) as file:
        value = json.load(file, object_pairs_hook=collections.OrderedDict)
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if equals:
            value[key] = json.loads(text)
        else:
            del value[key]
    with open(path, "w") as file:
        json.dump(value, file, indent=2)


def duplicate_key(path, key, text):
    """Writes KEY: JSON as a first member, beside the one that is there."""
    with open(path) as file:
        body = file.read()
    assert json.loads(body).get(key) is not None
    with open(path, "w") as file:
        file.write(body.replace("{", "{%s: %s, " % (json.dumps(key), text), 1))


def raw(path, text, size="0"):
    """A header of these bytes (Python escapes are read) and SIZE zeros behind it."""
    data = text.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(data)) + data + bytes(int(size)))


def shards(folder, count):
    """model.safetensors -> COUNT shards and an index, tensors dealt out in turn."""
    count = int(count)
    whole = File(os.path.join(folder, "model.safetensors"))
    files, weight_map, total = [File() for _ in range(count)], collections.OrderedDict(), 0
    names = ["model-%05d-of-%05d.safetensors" % (i + 1, count) for i in range(count)]
    for i, (name, tensor) in enumerate(whole.tensors.items()):
        files[i % count].tensors[name] = tensor
        files[i % count].begin[name] = whole.begin[name]
        weight_map[name] = names[i % count]
        total += len(tensor.data)
    for name, file in zip(names, files):
        file.metadata = {"format": "pt"}
        file.save(os.path.join(folder, name))
    with open(os.path.join(folder, INDEX), "w") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, file, indent=2)
    os.remove(os.path.join(folder, "model.safetensors"))


def small(base, adapter, width="6", height="5", rank="2"):
    """A model directory with two adapted tensors and one other, a few hundred bytes, and its adapter."""
    width, height, rank = int(width), int(height), int(rank)
    os.makedirs(base)
    os.makedirs(adapter)
    layers = "model.layers.0.self_attn."
    with open(os.path.join(base, "config.json"), "w") as file:
        json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width,
                   "tie_word_embeddings": False}, file)
    model, factors = os.path.join(base, "model.safetensors"), os.path.join(adapter, "adapter_model.safetensors")
    add(model, "model.norm.weight", "F32", str(width), "1")
    for name in ("q_proj", "v_proj"):
        add(model, layers + name + ".weight", "F32", "%d,%d" % (height, width), "random")
        stem = "base_model.model." + layers + name
        add(factors, stem + ".lora_A.weight", "F32", "%d,%d" % (rank, width), "random")
        add(factors, stem + ".lora_B.weight", "F32", "%d,%d" % (height, rank), "random")
    with open(os.path.join(adapter, "adapter_config.json"), "w") as file:
        json.dump({"peft_type": "LORA", "r": rank, "lora_alpha": 3, "target_modules": ["q_proj", "v_proj"]}, file)


def large(base, adapter, mebibytes, rank="16"):
    """As `small`, but of that size: f32, W of ones and zeros in turn, A of ones and B of small numbers."""
    side = int(math.sqrt(int(mebibytes) * (1 << 20) / 4 / 2))
    small(base, adapter, "8", "8", "1")
    layers = "model.layers.0.self_attn."
    row = struct.pack("<ff", 1.0, 0.0) * (side // 2) + struct.pack("<f", 1.0) * (side % 2)
    entries, at = collections.OrderedDict(), 0
    for name in ("q_proj", "v_proj"):
        entries[layers + name + ".weight"] = {"dtype": "F32", "shape": [side, side],
                                              "data_offsets": [at, at + 4 * side * side]}
        at += 4 * side * side
    text = json.dumps(entries).encode()
    with open(os.path.join(base, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(2 * side):
            file.write(row)
    factors = File()
    for name in ("q_proj", "v_proj"):
        stem = "base_model.model." + layers + name
        one, small_number = struct.pack("<f", 1.0), struct.pack("<f", 0.01)
        factors.tensors[stem + ".lora_A.weight"] = Tensor("F32", [int(rank), side], one * (side * int(rank)))
        factors.tensors[stem + ".lora_B.weight"] = Tensor("F32", [side, int(rank)],
                                                          small_number * (side * int(rank)))
    factors.save(os.path.join(adapter, "adapter_model.safetensors"))
    set_json(os.path.join(adapter, "adapter_config.json"), "r=" + rank)


# --- roots

def _merkle(files):
    """The root of all tensors of some safetensors files, as src/checkpoint/checkpoint.h defines it."""
    leaves = []
    for path in files:
        for name, tensor in File(path).tensors.items():
            spelt = name.encode()
            text = b"\0loractl tensor 1\0" + struct.pack("<I", len(spelt)) + spelt + tensor.dtype.encode() + b"\0"
            text += struct.pack("<I", len(tensor.shape)) + struct.pack("<%dQ" % len(tensor.shape), *tensor.shape)
            leaves.append((spelt, hashlib.sha256(text + hashlib.sha256(tensor.data).digest()).digest()))
    nodes = [digest for _, digest in sorted(leaves)]
    while len(nodes) > 1:
        level = [hashlib.sha256(b"\1" + nodes[i] + nodes[i + 1]).digest() for i in range(0, len(nodes) - 1, 2)]
        nodes = level + nodes[len(nodes) - len(nodes) % 2:]
    return nodes[0] if nodes else hashlib.sha256(b"").digest()


def _root(path):
    return _merkle(_weights(path)).hex()


def _adapter_root(path):
    """As include/loractl/adapter.h defines it."""
    path = _adapter_file(path)
    with open(os.path.join(os.path.dirname(path), "adapter_config.json")) as file:
        config = json.load(file, parse_float=_Spelt)
    canonical = _canonical(config).encode()
    return hashlib.sha256(b"loractl adapter 1\0" + _merkle([path]) + hashlib.sha256(canonical).digest()).hexdigest()


class _Spelt(float):
    """A number that remembers how it was written."""

    def __new__(cls, text):
        self = super().__new__(cls, text)
        self.text = text
        return self


def _canonical(value):
    if isinstance(value, dict):
        return "{" + ",".join(json.dumps(key) + ":" + _canonical(value[key])
                              for key in sorted(value, key=str.encode)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return value.text if isinstance(value, _Spelt) else json.dumps(value, ensure_ascii=False)


def root(path):
    print(_root(path))


def adapter_root(path):
    print(_adapter_root(path))


# --- a merge, judged from the files alone

class Judge:
    def __init__(self):
        self.faults = 0

    def expect(self, holds, text):
        if not holds:
            print(text)
            self.faults += 1

    def equal(self, have, want, text):
        self.expect(have == want, "%s: %r, not %r" % (text, have, want))

    def close(self, have, want, tolerance, text):
        good = isinstance(have, (int, float)) and abs(have - want) <= tolerance * max(abs(want), 1e-30)
        self.expect(good, "%s: %r, not %r" % (text, have, want))

    def end(self):
        sys.exit(1 if self.faults else 0)


class Adapter:
    """A PEFT LoRA on linear layers: module -> (A, B, rank, s), the weight included."""

    def __init__(self, text, rewrite):
        self.path, _, weight = text.rpartition("=") if "=" in text else (text, "", "1")
        self.weight, self.modules = float(weight), collections.OrderedDict()
        path = _adapter_file(self.path)
        with open(os.path.join(os.path.dirname(path), "adapter_config.json")) as file:
            config = json.load(file)
        tensors = File(path).tensors
        for name, a in tensors.items():
            if not name.endswith(".lora_A.weight"):
                continue
            module = re.sub(r"^base_model\.model\.", "", name[:-len(".lora_A.weight")])
            rank = a.shape[0]
            alpha = self.pattern(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
            s = self.weight * alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
            target = re.sub(rewrite[0], rewrite[1], module) if rewrite else module
            self.modules[target + ".weight"] = (a, tensors[name.replace("lora_A", "lora_B")], rank, s)

    @staticmethod
    def pattern(patterns, module, default):
        for key, value in patterns.items():
            if re.match(r"(.*\.)?(%s)$" % key, module):
                return value
        return default


def _update(edits, out, width, transposed):
    """sum of s*B*A over the adapters and the sum of the absolute products, both in f64, as rows of W."""
    total, bound = [[0.0] * width for _ in range(out)], [[0.0] * width for _ in range(out)]
    for a, b, rank, s in edits:
        rows, factors = a.values(), b.values()
        rows = [rows[k * width:(k + 1) * width] for k in range(rank)]
        for i in range(out):
            for k in range(rank):
                f = s * factors[i * rank + k]
                g = abs(f)
                total[i] = [x + f * y for x, y in zip(total[i], rows[k])]
                bound[i] = [x + g * abs(y) for x, y in zip(bound[i], rows[k])]
    if transposed:
        return [list(x) for x in zip(*total)], [list(x) for x in zip(*bound)]
    return total, bound


DIGITS = {"F32": 24, "F16": 11, "BF16": 8}  # of the significand
LEAST = {"F32": -149, "F16": -24, "BF16": -133}  # exponent of the smallest number


def _half_unit(value, dtype):
    exponent = math.frexp(value)[1] if value else -1000
    return math.ldexp(0.5, max(exponent - DIGITS[dtype], LEAST[dtype]))


class Module:
    """One adapted tensor: is it the base's plus the update, rounded once, and what do the figures say?"""

    def __init__(self, before, after, edits, transposed):
        out, width = reversed(before.shape) if transposed else before.shape
        total, bound = _update(edits, out, width, transposed)
        w, self.wrong = before.values(), 0
        d, limit, t = sum(total, []), sum(bound, []), after.values()
        rank = sum(edit[2] for edit in edits)
        norm_d = norm_w = norm_e = 0.0
        same = moved = 0
        for x, y, z, slack in zip(w, d, t, limit):
            error = z - (x + y)
            # single precision sums, one product and one addition, then the type of the output
            allowed = (rank + 3) * 2.0 ** -24 * (slack + abs(x)) + _half_unit(max(abs(z), abs(x + y)), after.dtype)
            self.wrong += not abs(error) <= allowed
            norm_d, norm_w, norm_e = norm_d + y * y, norm_w + x * x, norm_e + error * error
            if y:
                moved += 1
                same += x == z
        self.rho = math.sqrt(norm_d / norm_w)
        self.noise = math.sqrt(norm_e / norm_d)
        self.unchanged = same / moved if moved else 0.0
        self.rank, self.scale, self.elements = rank, edits[0][3], len(w)


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _check_files(judge, have, path, what):
    """The list `files` of a receipt against the disk."""
    names = [entry["name"] for entry in have]
    judge.equal(len(set(names)), len(names), what + ": names that occur twice")
    judge.expect(os.path.isdir(path) or len(names) == 1, what + ": one file, and %r" % names)
    for entry in have:
        place = os.path.join(path, entry["name"]) if os.path.isdir(path) else path
        judge.equal(set(entry), {"name", "size", "sha256"}, what + ": fields")
        judge.expect("/" not in entry["name"], what + ": a path: " + entry["name"])
        if not os.path.exists(place):
            judge.expect(False, what + ": no such file: " + entry["name"])
            continue
        judge.equal(entry["size"], os.path.getsize(place), what + ": size of " + entry["name"])
        judge.equal(entry["sha256"], _digest(place), what + ": sha256 of " + entry["name"])
    for place in _weights(path) if os.path.isdir(path) else []:
        judge.expect(os.path.basename(place) in names, what + ": not listed: " + os.path.basename(place))


def _check_index(judge, base, out):
    """The same but for the total size, which is that of the tensors' bytes."""
    maps = []
    for folder in base, out:
        with open(os.path.join(folder, INDEX)) as file:
            maps.append(json.load(file))
    if "total_size" in maps[0].get("metadata", {}):
        maps[0]["metadata"]["total_size"] = sum(len(tensor.data) for path in _weights(out)
                                                for tensor in File(path).tensors.values())
    judge.equal(maps[1], maps[0], "index")
    judge.equal(list(maps[1]["weight_map"]), list(maps[0]["weight_map"]), "order of the index")


def _check_layout(judge, base, out, adapted, dtype):
    """The same files, tensors, order, types; what no adapter touches has the same bytes."""
    if os.path.isdir(base):
        judge.equal(sorted(set(os.listdir(out)) - {RECEIPT}), sorted(set(os.listdir(base)) - {RECEIPT}),
                    "files of " + out)
        weights = {os.path.basename(path) for path in _weights(base)} | {INDEX, RECEIPT}
        for name in sorted(set(os.listdir(base)) & set(os.listdir(out)) - weights):
            judge.equal(_digest(os.path.join(out, name)), _digest(os.path.join(base, name)), "bytes of " + name)
            judge.expect(not os.path.islink(os.path.join(out, name)), "a link: " + name)
    judge.equal([os.path.basename(p) for p in _weights(out)] if os.path.isdir(base) else 1,
                [os.path.basename(p) for p in _weights(base)] if os.path.isdir(base) else 1, "shards")
    if os.path.exists(os.path.join(base, INDEX)):
        _check_index(judge, base, out)
    pairs = {}
    for before, after in zip(_weights(base), _weights(out)):
        x, y = File(before), File(after)
        name = os.path.basename(before)
        judge.equal(list(y.tensors), list(x.tensors), name + ": names in the order of the header")
        judge.equal(y.by_place(), x.by_place(), name + ": names in the order of the bytes")
        judge.equal(y.metadata, x.metadata, name + ": metadata")
        for tensor in set(x.tensors) & set(y.tensors):
            a, b = x.tensors[tensor], y.tensors[tensor]
            judge.equal(b.shape, a.shape, tensor + ": shape")
            judge.equal(b.dtype, dtype if dtype and tensor in adapted else a.dtype, tensor + ": type")
            if tensor not in adapted:
                judge.expect(a.data == b.data, tensor + ": no adapter touches it, and its bytes changed")
            pairs[tensor] = (a, b)
    return pairs


SCHEMA = ("tool", "arithmetic", "base", "adapters", "merged", "options", "modules", "added", "unmatched",
          "untouched", "undo")


def _check_receipt(judge, receipt, base, adapters, modules, tensors):
    judge.equal(receipt.get("schema"), "loractl.receipt/1", "schema")
    for key in SCHEMA:
        judge.expect(key in receipt, "receipt: no " + key)
    judge.equal(receipt["base"]["root"], _root(base), "root of the base")
    _check_files(judge, receipt["base"]["files"], base, "base.files")
    judge.equal([x["weight"] for x in receipt["adapters"]], [x.weight for x in adapters], "adapters' weights")
    for entry, adapter in zip(receipt["adapters"], adapters):
        judge.equal(entry["root"], _adapter_root(adapter.path), "root of the adapter")
        judge.equal(entry["name"], os.path.basename(os.path.normpath(adapter.path)), "name of the adapter")
    judge.equal((receipt["added"], receipt["unmatched"], receipt["undo"]), ([], [], None), "added, unmatched, undo")
    judge.equal(receipt["untouched"], tensors - len(modules), "untouched")
    judge.equal(sorted(x["tensor"] for x in receipt["modules"]), sorted(modules), "modules' tensors")
    judge.expect(isinstance(receipt["options"], dict), "options is no object")
    for entry in receipt["modules"]:
        judge.expect({"tensor", "kind", "rank", "scale", "scale_from", "rho", "unchanged", "noise"} <= set(entry),
                     "fields of a module: %r" % sorted(entry))
        judge.expect(isinstance(entry["kind"], str) and isinstance(entry["scale_from"], str), "kind, scale_from")


def _check_figures(judge, entry, module, dtype):
    name = entry["tensor"]
    judge.equal(entry["rank"], module.rank, name + ": rank")
    judge.close(entry["scale"], module.scale, 1e-6, name + ": scale")
    judge.close(entry["rho"], module.rho, 1e-4, name + ": rho")
    judge.expect(abs(entry["unchanged"] - module.unchanged) <= 2.5 / module.elements + 1e-9,
                 "%s: unchanged: %r, not %r" % (name, entry["unchanged"], module.unchanged))
    if dtype == "F32":  # the noise of the sum itself is as large: only its size
        judge.expect(entry["noise"] < 1e-4, "%s: noise: %r" % (name, entry["noise"]))
    else:
        judge.close(entry["noise"], module.noise, 1e-3, name + ": noise")


def merged(base, out, receipt, *arguments):
    """BASE OUT RECEIPT ADAPTER[=WEIGHT]... [dtype=F32] [rewrite=PATTERN:TEXT] [values=no]: is OUT what the
    manual promises of that merge? RECEIPT may be `-`; OUT may be `-` for a dry run."""
    judge, options, adapters = Judge(), {}, []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in ("dtype", "rewrite", "values"):
            options[key] = value
        else:
            adapters.append(argument)
    rewrite = options["rewrite"].split(":") if "rewrite" in options else None
    adapters = [Adapter(text, rewrite) for text in adapters]
    modules = collections.OrderedDict()
    for adapter in adapters:
        for name, edit in adapter.modules.items():
            modules.setdefault(name, []).append(edit)
    dtype = options.get("dtype")
    pairs = _check_layout(judge, base, out, modules, dtype) if out != "-" else None
    found = None
    if receipt != "-":
        with open(receipt) as file:
            found = json.load(file)
        tensors = sum(len(File(path).tensors) for path in _weights(base))
        _check_receipt(judge, found, base, adapters, modules, tensors)
        if out == "-":
            judge.expect("merged" in found and found["merged"] is None, "merged is not null")
        else:
            judge.equal(found["merged"]["root"], _root(out), "root of the merged model")
            _check_files(judge, found["merged"]["files"], out, "merged.files")
    if out != "-" and options.get("values") != "no":
        _check_values(judge, base, pairs, modules, found)
    judge.end()


def _check_values(judge, base, pairs, modules, receipt):
    transposed = False
    config = os.path.join(base, "config.json")
    if os.path.exists(config):
        with open(config) as file:
            transposed = json.load(file).get("model_type") == "gpt2"
    entries = {x["tensor"]: x for x in receipt["modules"]} if receipt else {}
    for name, edits in modules.items():
        if name not in pairs:
            judge.expect(False, name + ": adapted, and not in the output")
            continue
        before, after = pairs[name]
        module = Module(before, after, edits, transposed)
        judge.expect(module.wrong == 0, "%s: %d elements are not W + s*B*A" % (name, module.wrong))
        if name in entries:
            _check_figures(judge, entries[name], module, after.dtype)


def head_alone(base, out, adapter):
    """GPT-2's head gets an update of its own: lm_head is wte plus the update, wte is as it was."""
    judge = Judge()
    before, after = (File(_weights(path)[0]).tensors for path in (base, out))
    (edit,) = Adapter(adapter, None).modules.values()
    module = Module(before["transformer.wte.weight"], after["lm_head.weight"], [edit], False)
    judge.equal(module.wrong, 0, "elements of lm_head that are not wte + s*B*A")
    for name in before:
        judge.expect(before[name].data == after[name].data, name + ": changed")
    judge.end()


def same_tensors(left, right):
    """Do two models hold the same tensors, wherever each stands?"""
    judge = Judge()
    x, y = {}, {}
    for path, into in ((left, x), (right, y)):
        for place in _weights(path):
            into.update(File(place).tensors)
    judge.equal(sorted(x), sorted(y), "names")
    for name in set(x) & set(y):
        judge.expect((x[name].dtype, x[name].shape, x[name].data) == (y[name].dtype, y[name].shape, y[name].data),
                     name + ": differs")
    judge.end()


def element(path, name, position):
    print(repr(File(path).tensors[name].values()[int(position)]))


def get(path, expression):
    """The value of a Python expression over the JSON document x, as Python prints it."""
    with open(path) as file:
        x = json.load(file)
    print(eval(expression, {"x": x, "json": json, "sorted": sorted, "len": len, "math": math}))


def anonymous(path, *words):
    """Nothing in that file tells of the machine or the moment: no absolute path, none of WORDS, no date."""
    judge = Judge()
    with open(path) as file:
        text = file.read()
    for word in words:
        judge.expect(word not in text, "%s occurs in %s" % (word, path))
    judge.expect(not re.search(r'"/', text), "an absolute path in " + path)
    judge.expect(not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text), "a date or time in " + path)
    year = time.time()
    for number in re.findall(r"\b\d{10,19}(?:\.\d+)?\b", re.sub(r'"[0-9a-f]{64}"', "", text)):
        for unit in (1, 1e3, 1e6, 1e9):
            judge.expect(abs(float(number) / unit - year) > 86400 * 365, "a time in %s: %s" % (path, number))
    judge.end()


# --- norms

def _matrix(path, module):
    """s*B*A of one module, as a list of rows."""
    adapter = Adapter(path, None)
    a, b, rank, s = adapter.modules[module + ".weight"]
    out, width = b.shape[0], a.shape[1]
    return _update([(a, b, rank, s)], out, width, False)[0], rank


def _singular_values(rows):
    """One-sided Jacobi on the rows (Hestenes 1958): rotate pairs until all are orthogonal."""
    rows = [list(row) for row in rows]
    for _ in range(40):
        worst = 0.0
        for p in range(len(rows)):
            for q in range(p + 1, len(rows)):
                x, y = rows[p], rows[q]
                a = sum(u * u for u in x)
                b = sum(v * v for v in y)
                c = sum(u * v for u, v in zip(x, y))
                if a == 0 or b == 0 or abs(c) <= 1e-13 * math.sqrt(a * b):
                    continue
                worst = max(worst, abs(c) / math.sqrt(a * b))
                zeta = (b - a) / (2 * c)
                t = math.copysign(1, zeta) / (abs(zeta) + math.hypot(1, zeta))
                cosine = 1 / math.hypot(1, t)
                sine = cosine * t
                rows[p] = [cosine * u - sine * v for u, v in zip(x, y)]
                rows[q] = [sine * u + cosine * v for u, v in zip(x, y)]
        if worst == 0.0:
            break
    return sorted((math.sqrt(sum(u * u for u in row)) for row in rows), reverse=True)


def spectrum(report, adapter, module):
    """The norm, the singular values and the effective rank of MODULE in an inspection against s*B*A itself."""
    judge = Judge()
    with open(report) as file:
        entries = {x["name"]: x for x in json.load(file)["modules"]}
    matching = [x for name, x in entries.items() if name == module]
    if len(matching) != 1:
        print("no module %s among %s" % (module, ", ".join(sorted(entries)[:3])))
        sys.exit(1)
    entry = matching[0]
    rows, rank = _matrix(adapter, module)
    norm = math.sqrt(sum(x * x for row in rows for x in row))
    judge.close(entry["norm"], norm, 1e-5, "norm")
    values = _singular_values(rows)[:rank]
    judge.close(math.sqrt(sum(x * x for x in values)), norm, 1e-9, "the test's own singular values")
    if "singular_values" in entry:
        judge.equal(len(entry["singular_values"]), rank, "how many singular values")
        for have, want in zip(entry["singular_values"], values):
            judge.expect(abs(have - want) <= 1e-5 * values[0], "singular value %r, not %r" % (have, want))
    share = [x / sum(values) for x in values]
    judge.close(entry["effective_rank"], math.exp(-sum(x * math.log(x) for x in share if x > 0)), 1e-4,
                "effective_rank")
    judge.end()


# --- what the README shows

def transcript(readme, folder):
    """Every command `$ ...` of the blocks that are indented by four spaces, and what stands below it, into
    FOLDER/N.command and FOLDER/N.shown. Prints how many. A line that ends with a backslash goes on."""
    with open(readme) as file:
        lines = file.read().splitlines()
    commands, open_block = [], False
    for line in lines:
        text = line[4:]
        if line.startswith("    $ "):
            commands.append([text[2:], []])
            open_block = True
        elif not line.startswith("    ") and line.strip():
            open_block = False
        elif open_block and commands[-1][0].endswith("\\"):
            commands[-1][0] = commands[-1][0][:-1] + text.lstrip("> ").lstrip()
        elif open_block:
            commands[-1][1].append(text)
    for number, (command, shown) in enumerate(commands, 1):
        while shown and not shown[-1].strip():
            shown.pop()
        for name, text in ("command", command), ("shown", "\n".join(shown)):
            with open(os.path.join(folder, "%d.%s" % (number, name)), "w") as file:
                file.write(text + "\n" if text else "")
    print(len(commands))


def as_shown(shown, printed):
    """Is PRINTED what SHOWN says? A line `...` stands for any lines. Masked on both sides: durations and rates,
    the only things that differ from run to run; and blanks at the end of a line, which a README cannot show."""
    def masked(text):
        text = re.sub(r"\b\d+(\.\d+)?( ?)([mu]?s|min|h)\b", r"TIME\2\3", text)
        return re.sub(r"\b\d+(\.\d+)?( ?[KMGT]?i?B/s)", r"RATE\2", text)

    with open(shown) as file:
        want = [masked(line.rstrip()) for line in file]
    with open(printed) as file:
        have = [masked(line.rstrip()) for line in file]
    while have and not have[-1]:
        have.pop()
    pattern = "".join("(.*\n)*" if line.strip() in ("...", "\u2026") else re.escape(line) + "\n" for line in want)
    if not re.fullmatch(pattern, "".join(line + "\n" for line in have)):
        print("the README shows:", *want, "and printed is:", *have, sep="\n")
        sys.exit(1)


# --- processes

def interrupt(name, wait, command, *arguments):
    """Runs COMMAND; as soon as a new file matches WAIT, sends SIGNAME. Prints the exit status as a shell has it, or
    `early` if it was done before. Its standard output goes to our standard error."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    there = set(glob.glob(wait))
    process = subprocess.Popen((command,) + arguments, stdout=sys.stderr)
    until = time.monotonic() + 60
    while process.poll() is None and not set(glob.glob(wait)) - there and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.05)
    if process.poll() is not None:
        print("early")
        return
    process.send_signal(getattr(signal, "SIG" + name))
    try:
        status = process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        print("it goes on")
        return
    print(status if status >= 0 else 128 - status)


def meddle(path, wait, command, *arguments):
    """Runs COMMAND; as soon as a new file matches WAIT, changes the last byte of PATH. Prints the exit status."""
    there = set(glob.glob(wait))
    process = subprocess.Popen((command,) + arguments, stdout=sys.stderr)
    while process.poll() is None and not set(glob.glob(wait)) - there:
        time.sleep(0.001)
    early = process.poll() is not None
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x3e")
    status = process.wait()
    print("early" if early else status)


def main():
    verb = globals().get(sys.argv[1]) if len(sys.argv) > 1 else None
    if not callable(verb) or isinstance(verb, type) or sys.argv[1] in ("main",) or sys.argv[1].startswith("_"):
        sys.exit("tools.py: no verb '%s'" % " ".join(sys.argv[1:2]))
    verb(*sys.argv[2:])


if __name__ == "__main__":
    main()
