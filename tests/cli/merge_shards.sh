#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_shards - models of many files: few descriptors whatever their number, little memory whatever the number of
# threads, and the same result.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter

few() { (ulimit -n 64 && exec "$LORACTL" "$@"); }

# --- as many shards as tensors, and hundreds, with 64 descriptors

cp -r llama many
python3 - "$SRC/tests/cli" many <<'PYTHON' || fail "no model of hundreds of tensors"
import struct, sys
sys.path.insert(0, sys.argv[1])
import tools
path = sys.argv[2] + "/model.safetensors"
file = tools.File(path)
for i in range(300):
    file.tensors["extra.%d.weight" % i] = tools.Tensor("F32", [3], struct.pack("<3f", i, -i, 1 / (i + 1)))
    file.begin["extra.%d.weight" % i] = 1 << 40 | i
file.save(path)
PYTHON
for base in llama many; do
	"$LORACTL" merge -q $base llama-adapter -o whole || fail "exit $?"
	count=39
	[ $base = llama ] || count=300
	cp -r $base cut
	edit shards cut $count
	for threads in 1 2 64; do
		rm -rf "$XDG_CACHE_HOME"
		mkdir "$XDG_CACHE_HOME"
		done_well few merge -q cut llama-adapter -o out --threads $threads --verify
		judged same_tensors whole out
		[ $threads = 1 ] || diff -r out first || fail "$base, $threads threads: another result"
		[ -e first ] || cp -r out first
		rm -rf out
	done
	judged merged cut first first/loractl-receipt.json llama-adapter values=no
	done_well few inspect first
	rm -rf cut first whole
done
rm -rf many

# --- memory: 16 shards of 32 MiB of zeros, which take no room on the disk

[ -z "$sanitized" ] || exit 0
python3 - <<'PYTHON' || fail "no large model"
import json, os, struct
os.makedirs("large")
os.makedirs("wide")
rows, columns, rank = 4096, 2048, 64
weight_map, factors = {}, {}
def save(path, tensors, bytes_of):
    header, at = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, (_, _, size) in tensors.items():
            bytes_of(file, name, size)
        file.truncate(8 + len(text) + at)
for i in range(16):
    shard = "model-%05d-of-00016.safetensors" % (i + 1)
    save("large/" + shard,
         {"model.layers.%d.mlp.%s.weight" % (i, m): ("BF16", [rows, columns], 2 * rows * columns)
          for m in ("up_proj", "gate_proj")}, lambda file, name, size: None)
    for m in ("up_proj", "gate_proj"):
        stem = "model.layers.%d.mlp.%s" % (i, m)
        weight_map[stem + ".weight"] = shard
        factors["base_model.model.%s.lora_A.weight" % stem] = ("F32", [rank, columns], 4 * rank * columns)
        factors["base_model.model.%s.lora_B.weight" % stem] = ("F32", [rows, rank], 4 * rank * rows)
json.dump({"metadata": {}, "weight_map": weight_map}, open("large/model.safetensors.index.json", "w"))
json.dump({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, open("large/config.json", "w"))
save("wide/adapter_model.safetensors", factors, lambda file, name, size: file.write(struct.pack("<f", 0.01) * (size // 4)))
json.dump({"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["up_proj", "gate_proj"]},
          open("wide/adapter_config.json", "w"))
PYTHON
for threads in 1 8 64 256; do
	peak=$(python3 - "$LORACTL" merge -q large wide --dry-run --no-receipt --threads $threads <<'PYTHON'
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if status == 0 else "exit %d" % status)
PYTHON
	)
	echo "$threads threads: $peak KiB"
	[ "$peak" -le 262144 ] || fail "$threads threads: $peak KiB, more than 256 MiB"
done
