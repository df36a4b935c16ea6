#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints peft_pattern_cases.h: what Python's re says of every pair of key and module name.

The rule is PEFT's: re.match(rf"(.*\\.)?({key})$", name). Run it again after adding a key or a name:

    python3 tests/unit/peft_pattern_cases.py > tests/unit/peft_pattern_cases.h
"""
import re

KEYS = [
    # literal, and dots that match anything
    "q_proj", "self_attn.q_proj", "layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj",
    "proj", "_proj", "layers.1", "layers.10.self_attn.q_proj", "a.b", "a..b", ".", "", "q-proj",
    "model", "lm_head", "layersX0.self_attn.q_proj", "Q_PROJ",
    # anchors
    "^q_proj", "^model.layers.0.self_attn.q_proj", "^model", "q_proj$", "^lm_head$", "^.*q_proj",
    # wildcards, classes, alternation, groups
    ".*q_proj", r".*\.q_proj", r"layers\.\d+\.self_attn\.q_proj", r"layers\.[0-3]\..*", "q_proj|v_proj",
    "(q|v)_proj", "(?:q|v)_proj", r"layers\.(0|1)\.self_attn\.(q|v)_proj", "[qv]_proj", "[^q]_proj",
    "[]q]_proj", "[^]q]_proj", r"[\w]_proj", r"\w_proj", r"\W_proj", r"\D+", r"\S+", r"l\.\s", "q_?proj",
    "q_*proj", "q_+proj", r"layers\.\d{2}\..*", r"layers\.\d{1,2}\..*", r"layers\.\d{2,}\..*",
    r"layers\.[0-9]*?\.mlp\..*", ".*(?=proj)proj", "(?!v).*_proj", "(?<=q_)proj", "(?<!q_)proj",
    "(?P<which>q|v)_proj", "model.*q_proj", ".*attn.*", r"\bq_proj", r"q\b_proj", r"\Aq_proj", r"q_proj\Z",
    "experts.gate_up_proj", r".*\.gate_up_proj", "mlp.experts.*", r"\.", "a{2}", "a{x", "{", "a]b",
    r"(.*\.)?q_proj", "a)|(b", "q_proj|", "|q_proj", "ß", ".ß", r"\w+ß", "[ß]", "a.{1}b", r"\[x\]", r"\_proj", r"\-",
]
NAMES = [
    "q_proj", "v_proj", "lm_head", "proj", "model", "a.b", "aXb", "a.Xb", "a", "aa", "b",
    "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj",
    "model.layers.10.self_attn.q_proj", "layers.0.self_attn.q_proj", "layers.2.mlp.up_proj",
    "xmodel.layers.0.self_attn.q_proj", "model.layersX0.self_attn.q_proj", "x.q-proj", "axq_proj",
    "model.layers.0.mlp.experts.gate_up_proj", "model.q_projx", "model.]_proj", "a]b", "a{x", "{",
    "straße.ß", "x.[x]", "l.ayers", ".", "q_proj.", "Q_PROJ",
]


def quote(text):
    out = ""
    for byte in text.encode():
        out += f"\\{byte:03o}" if byte > 126 else "\\" + chr(byte) if chr(byte) in '"\\' else chr(byte)
    return f'"{out}"'


print("/* SPDX-License-Identifier: Apache-2.0 */")
print("/* Made by peft_pattern_cases.py; do not edit. 'y' where Python's re matches. */")
print("static const char *const pattern_names[] = {")
for name in NAMES:
    print(f"    {quote(name)},")
print("};\n")
print("static const struct {\n\tconst char *key, *matches; /* by name */\n} pattern_cases[] = {")
for key in KEYS:
    expression = re.compile(rf"(.*\.)?({key})$")
    bits = "".join("y" if expression.match(name) else "." for name in NAMES)
    print(f"    {{{quote(key)}, \"{bits}\"}},")
print("};")
