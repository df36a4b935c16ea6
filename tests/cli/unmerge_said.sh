#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# unmerge_said - what merge --undo, unmerge and inspect say of a record; --undo beside the other options of merge;
# command lines that ask for something else.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies gpt2 gpt2-adapter
cp -r gpt2-adapter other
edit scale other/adapter_model.safetensors lora_B -0.3

# BASE OUT RECORD: OUT and RECORD lead back to BASE.
back()
{
	done_well "$LORACTL" unmerge -q "$2" --undo "$3" -o back
	diff -r "$1" back || fail "$1 does not come back"
	rm -rf back
}

# --- what merge and unmerge say

done_well "$LORACTL" merge gpt2 gpt2-adapter -o out --undo record
expect_stdout '^undo  .*[0-9] (B|KiB), [0-9.]+ % of the adapted weights; with the factors [0-9.]+ KiB$'
expect_json 'x["undo"]["name"]' record out/loractl-receipt.json
expect_json 'x["undo"]["sha256"]' "$(sha256sum record | cut -d ' ' -f 1)" out/loractl-receipt.json
expect_equal "$(stat -c %a record)" "$(stat -c %a gpt2/config.json)"
done_well "$LORACTL" unmerge out --undo record -o back
expect_stdout '^tensors +12 restored, [0-9]+ as they were$'
expect_stdout "^files +6, every SHA-256 the base's\$"
expect_stdout "^root +$(tools root gpt2/model.safetensors)\$"
expect_empty "$ERR"
rm -rf back
done_well "$LORACTL" unmerge out --undo record -o back --json
expect_json 'x["schema"], x["exact"], x["restored"], x["files"], x["left"], x["bytes"]' \
	"('loractl.unmerge/1', True, 12, 6, 0, $(stat -c %s gpt2/model.safetensors))"
expect_json 'x["root"]' "$(tools root gpt2/model.safetensors)"
expect_json '"expected" in x or "measured" in x' False
rm -rf back

done_reading "$LORACTL" inspect record
expect_stdout '^record: undo$'
expect_stdout '^  restores +12 tensors and 6 files'
expect_stdout "^  base +$(tools root gpt2/model.safetensors)\$"
expect_stdout "^  from +$(tools root out/model.safetensors)\$"
expect_stdout '^  undoes +gpt2-adapter$'
done_reading "$LORACTL" inspect --json record
expect_json 'x["kind"], x["adapters"], x["tensors_restored"], x["files"], x["left"], x["self_contained"]' \
	"('undo', ['gpt2-adapter'], 12, 6, 0, True)"
expect_json 'x["base_root"], x["merged_root"]' "('$(tools root gpt2/model.safetensors)', '$(tools root out/model.safetensors)')"
expect_json 'x["bytes"], x["base_bytes"]' "($(stat -c %s record), $(stat -c %s gpt2/model.safetensors))"
expect_json 'x["residual"]' "$(tools header record | awk '$1 ~ /^residual/ { n += $3 } END { print n }')"
done_reading "$LORACTL" inspect --tensors record
expect_stdout '^record\.json +U8 '
expect_stdout '^left\.0 +F32 +\[84, 5\]'
done_reading "$LORACTL" inspect --tensors --json record
expect_json 'len(x["tensors"])' "$(tools header record | wc -l)"
rm -rf out record

# --- --undo and the other options of merge

done_well "$LORACTL" merge gpt2 gpt2-adapter -o out --undo record --no-receipt
[ ! -e out/loractl-receipt.json ] || fail "a receipt in spite of --no-receipt"
back gpt2 out record
rm -rf out record
done_well "$LORACTL" merge gpt2 gpt2-adapter -o out --undo record --verify
back gpt2 out record
# --force replaces the model, and the record has a name of its own.
done_well "$LORACTL" merge -q gpt2 other -o want --undo want.undo
rm record
expect_exit 0 "$LORACTL" merge -q gpt2 other -o out --undo record --force
expect_same record want.undo
expect_same out/model.safetensors want/model.safetensors
back gpt2 out record
rm -rf want want.undo
done_reading "$LORACTL" merge gpt2 gpt2-adapter --dry-run --undo other.undo
expect_stdout '^undo +[0-9.]+ (B|KiB), [0-9.]+ % of the adapted weights$'
shown=$(sed -n 's/^undo  *\([^,]*\),.*/\1/p' "$OUT")
done_well "$LORACTL" merge gpt2 gpt2-adapter -o again --undo again.undo
expect_stdout "^undo +${shown//./\\.}, " # what the dry run predicted
done_reading "$LORACTL" merge gpt2 gpt2-adapter --dry-run --undo other.undo --json
expect_json 'x["merged"], x["undo"]' '(None, None)'
done_well "$LORACTL" merge gpt2 gpt2-adapter -o json --undo json.undo --json
expect_same "$OUT" json/loractl-receipt.json
expect_same json.undo again.undo
rm -rf out record again again.undo json json.undo

# --- a command line that asks for something else

refused 2 'undo.*approximate|approximate.*undo' "$LORACTL" unmerge out --undo record --approximate gpt2-adapter -o x
refused 2 '--undo' "$LORACTL" unmerge out -o x
refused 2 '--undo' "$LORACTL" unmerge out gpt2-adapter -o x
refused 2 "drop 'gpt2-adapter'" "$LORACTL" unmerge out gpt2-adapter --undo record -o x
refused 2 '--base' "$LORACTL" unmerge out --undo record --base gpt2 -o x
refused 2 'adapters' "$LORACTL" unmerge out --approximate -o x
refused 2 "'-o OUT'" "$LORACTL" unmerge out --undo record
refused 3 "'nowhere'" "$LORACTL" unmerge nowhere --undo record -o x
refused 3 "'nowhere'" "$LORACTL" unmerge gpt2 --undo nowhere -o x
