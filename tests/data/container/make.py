#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make.py FILE - writes the container made.lora, from lora-container(5) alone and with nothing but Python's library.

It has what no packer writes today and every reader must take: a compat bit, a record of an unknown type, versions that
begin at 5, members of a manifest that nobody knows; and every way to store a plane but frames: widths 1, 2, 4 and 8, rotated
or not, differences, repeats, a chain of two differences. made.lora is committed and never changes."""
import hashlib
import json
import struct
import sys


def sha(data):
    return hashlib.sha256(data).digest()


def record(kind, critical, payload):
    head = struct.pack("<HHIQQ", kind, critical, 0, len(payload), 0)
    return head + sha(head)[:8], payload + bytes(-len(payload) % 8)


class Container:
    def __init__(self, compat):
        block = b"\x89LOR\r\n\x1a\n" + struct.pack("<HHIIIQ", 1, 0, 0, 0, compat, 0)
        self.data = block + sha(block)
        self.link, self.sequence, self.objects = sha(block)[:16], 0, []
        self.group = []

    def at(self):
        return len(self.data) + sum(len(h) + len(p) for h, p in self.group)

    def put(self, kind, critical, payload):
        place = self.at()
        self.group.append(record(kind, critical, payload))
        return place

    def commit(self, version=0, manifest=b"", manifest_at=0, index=b"", index_at=0):
        body = sha(b"".join(p + h for h, p in self.group))
        self.sequence += 1
        payload = struct.pack("<QQQQQQ", self.at(), self.sequence, len(self.data), version, manifest_at, len(manifest))
        payload += sha(manifest) if manifest else bytes(32)
        payload += struct.pack("<Q", index_at) + (sha(index) if index else bytes(32)) + bytes(8) + body + self.link
        head = struct.pack("<HHIQQ", 6, 1, 0, 208, 0)
        head += sha(head)[:8]
        check = sha(head + payload)
        self.data += b"".join(h + p for h, p in self.group) + head + payload + check
        self.group, self.link = [], check[:16]

    def store(self, new):
        """new: (bytes, width, rotated, parent or None). DATA and INDEX; the INDEX and its place."""
        data, index = b"", struct.pack("<Q", len(new))
        for raw, width, rotated, parent in new:
            mixed = raw if parent is None else bytes(x ^ y for x, y in zip(raw, self.objects[parent]))
            flags = rotated + 2 * (parent is not None)
            index += sha(raw) + struct.pack("<QBBHI", len(raw), width, flags, 0, parent or 0)
            bits, numbers = 8 * width, []
            for i in range(0, len(mixed), width):
                x = int.from_bytes(mixed[i:i + width], "little")
                numbers.append((x << 1 | x >> bits - 1) & (1 << bits) - 1 if rotated else x)
            for k in range(width):
                plane = bytes(x >> 8 * k & 255 for x in numbers)
                if len(set(plane)) == 1:
                    index, data = index + struct.pack("<I", 2 << 24 | 1), data + plane[:1]
                else:
                    index, data = index + struct.pack("<I", len(plane)), data + plane
            self.objects.append(raw)
        self.put(1, 1, data)
        return index, self.put(2, 1, index)


def manifest(version, parent, files, **more):
    """files: name -> parts, each (bytes, tensor's members or {})."""
    listed, root = [], hashlib.sha256(b"loractl content 1\0")
    for name in sorted(files, key=str.encode):
        whole = b"".join(raw for raw, _ in files[name])
        listed.append({"name": name, "size": len(whole), "sha256": sha(whole).hex(),
                       "parts": [{"sha256": sha(raw).hex(), "size": len(raw), **facts} for raw, facts in files[name]]})
        root.update(struct.pack("<I", len(name.encode())) + name.encode() + struct.pack("<Q", len(whole)) + sha(whole))
    value = {"base_root": "ab" * 32 if version > 5 else None, "files": listed, "message": 'say "\\" \t\n\x01 \u00e9',
             "metadata": {"key": "value", "\u00fc": ""}, "name": "h\u00e4nd made", "parent": parent, "root": root.hexdigest(),
             "schema": "loractl.manifest/1", "version": version, **more}
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def noise(count, seed):
    out, state = bytearray(), seed
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2 ** 31
        out.append(state >> 16 & 255)
    return bytes(out)


def safetensors(tensors):
    """name -> (dtype, shape, bytes); parts of the file."""
    header, at = {}, 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(header).encode()
    return [(struct.pack("<Q", len(text)) + text, {})] + [
        (raw, {"dtype": dtype, "shape": shape, "tensor": name}) for name, (dtype, shape, raw) in tensors.items()]


def versions():
    """The three versions: dictionaries of files."""
    a = {"half": ("F16", [4, 4], noise(32, 1)), "brain": ("BF16", [3, 5], noise(30, 2)), "single": ("F32", [], noise(4, 3)),
         "double": ("F64", [2], noise(16, 4)), "whole": ("I32", [3], noise(12, 5)), "byte": ("U8", [7], noise(7, 6)),
         "zero": ("F32", [8], bytes(32))}
    b = dict(a, brain=("BF16", [3, 5], bytes([a["brain"][2][0] ^ 4]) + a["brain"][2][1:]),
             double=("F64", [2], a["double"][2][:9] + b"\x55" + a["double"][2][10:]))
    c = dict(b, brain=("BF16", [3, 5], b["brain"][2][:29] + bytes([b["brain"][2][29] ^ 1])))
    text = [(b"{\"r\": 4}\n", {})]
    return [{"adapter_model.safetensors": safetensors(a), "adapter_config.json": text, "empty": []},
            {"adapter_model.safetensors": safetensors(b), "adapter_config.json": text, "folder/name with \u00e9": [(b"x", {}), (b"yz", {})]},
            {"adapter_model.safetensors": safetensors(c), "adapter_config.json": text}]


WIDTHS = {"F16": (2, 1), "BF16": (2, 1), "F32": (4, 1), "F64": (8, 1), "I32": (4, 0), "U8": (1, 0)}


def build():
    c = Container(compat=0x80000001)
    parent = "cd" * 32
    last = {}
    for number, files in enumerate(versions(), 5):
        new, have = [], {sha(o) for o in c.objects}
        for name in sorted(files):
            for raw, facts in files[name]:
                if sha(raw) in have:
                    continue
                have.add(sha(raw))
                width, rotated = WIDTHS[facts["dtype"]] if facts else (1, 0)
                new.append((raw, width, rotated, last.get(facts.get("tensor")) if facts else None))
                if facts:
                    last[facts["tensor"]] = len(c.objects) + len(new) - 1
        if number == 6:
            c.put(77, 0, b"of a later version of the format")
        index, index_at = c.store(new)
        text = manifest(number, parent, files, **({"zebra": {"a": [1, None, True]}} if number == 6 else {}))
        at = c.put(3, 1, text)
        if number == 7:
            c.put(4, 0, sha(text) + b"untrusted comment: none\nRUQBAgMEBQYHCAAA\n")
        c.commit(number, text, at, index, index_at)
        parent = sha(text).hex()
    c.put(5, 0, bytes.fromhex(parent) + b"{}")
    c.put(4, 0, b"\x01" * 32 + b"of a version that is not here")
    c.commit()
    return c.data


if __name__ == "__main__":
    open(sys.argv[1], "wb").write(build())
