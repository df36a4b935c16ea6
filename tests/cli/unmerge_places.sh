#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# unmerge_places - where a record and where a base may go: never into or onto an input or each other, never over
# anything; a folder that is not there, or not to be written; a full disk.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
edit small base adapter 6 5 2

# --- the record

# PATTERN FILE: refused, with and without --force
kept()
{
	refused 2 "$1" "$LORACTL" merge base adapter -o out --undo "$2"
	refused 2 "$1" "$LORACTL" merge base adapter -o out --undo "$2" --force
}
mkdir -p deep/er
ln -s base link
kept "'out/record' would lie inside the output" out/record
kept "'\./out/a/record' would lie inside the output" ./out/a/record
kept "inside the output|'out'" out
kept "inside the output|'out'" ./out
kept "inside the output|'out/'" out/
kept 'inside the output' "$work/deep/../out/record"
kept "'base/record'.*" base/record
kept "'link/record'.*" link/record
kept "'base/model\.safetensors'" base/model.safetensors
kept 'adapter' adapter/record
kept 'adapter' adapter/adapter_model.safetensors
kept "'deep'" deep # a directory
# The receipt of a single file stands beside it.
cp base/model.safetensors single.safetensors
refused 2 'out\.safetensors\.receipt\.json' "$LORACTL" merge single.safetensors adapter -o out.safetensors --undo out.safetensors.receipt.json
refused 2 'out\.safetensors' "$LORACTL" merge single.safetensors adapter -o out.safetensors --undo out.safetensors
refused 2 'single\.safetensors' "$LORACTL" merge single.safetensors adapter -o out.safetensors --undo single.safetensors --force
rm single.safetensors link

# What exists stays, with --force too: a record may be the only way back from another model.
echo mine >file
mkfifo fifo
ln -s nowhere dangling
for name in file fifo adapter/adapter_config.json; do
	refused 2 "'$name'|'adapter'" "$LORACTL" merge base adapter -o out --undo $name
done
refused 2 "'file' exists, and may be a record" "$LORACTL" merge base adapter -o out --undo file --force
cp base/model.safetensors weights
refused 2 "'weights' exists, and may be a record" "$LORACTL" merge base adapter -o out --undo weights --force
refused 2 "'fifo'" soon "$LORACTL" merge base adapter -o out --undo fifo --force
refused 2 "'dangling' exists" "$LORACTL" merge base adapter -o out --undo dangling
refused 2 "'dangling' exists, and may be a record" "$LORACTL" merge base adapter -o out --undo dangling --force
rm fifo weights dangling
done_well "$LORACTL" merge -q base adapter -o out --undo record
cp record want
ln -s record tolink # a link to a record is none
refused 2 "'tolink' exists, and may be a record" "$LORACTL" merge base adapter -o new --undo tolink --force
rm tolink
refused 2 "'record' exists, and may be a record" "$LORACTL" merge base adapter -o other --undo record
refused 2 "'record' exists, and may be a record" "$LORACTL" merge base adapter:0.5 -o out --undo record --force
expect_same record want
refused 2 "'out' exists" "$LORACTL" merge base adapter -o out --undo new
expect_exit 0 "$LORACTL" merge -q base adapter:0.5 -o out --undo second --force
expect_exit 0 "$LORACTL" unmerge -q out --undo second -o back
diff -r base back || fail "another base after --force"
# A failure leaves the old pair.
cp -r out old
cp second old.undo
cp -r adapter bad
edit poke bad/adapter_model.safetensors base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight 0 nan
refused 3 'v_proj' "$LORACTL" merge base bad -o out --undo third --force
diff -r old out || fail "a failure changed the old model"
expect_same second old.undo
[ ! -e third ] || fail "a record of a merge that failed"
rm -rf old old.undo back second

# Folders.
for name in missing/record file/record; do
	refused '2|3|4' "${name%/*}" "$LORACTL" merge base adapter -o new --undo $name
done
expect_exit 0 "$LORACTL" merge -q base adapter -o new --undo deep/er/record
expect_same deep/er/record record
rm -rf new deep/er/record
if can_bind; then
	mkdir locked
	chmod 555 locked
	refused 4 "'locked/record'" bound_by_permissions "$LORACTL" merge base adapter -o new --undo locked/record
	refused 4 "'locked/back'" bound_by_permissions "$LORACTL" unmerge out --undo record -o locked/back
	cp record secret
	chmod 000 secret
	refused 4 "'secret'" bound_by_permissions "$LORACTL" unmerge out --undo secret -o x
	rm -f secret
	rmdir locked
fi

# --- the base that comes back

# PATTERN OUT
nowhere()
{
	refused 2 "$1" "$LORACTL" unmerge out --undo record -o "$2"
}
ln -s out link
nowhere "'out'" out
nowhere '.' out/back
nowhere '.' link/back
nowhere '.' "$work/deep/../out/back"
nowhere "'file' exists" file
nowhere "'deep' exists" deep
nowhere "'base' exists" base
nowhere '.' record
nowhere '.' record/back
nowhere '.' .
refused '2|3|4' 'missing' "$LORACTL" unmerge out --undo record -o missing/back
rm link

# --- a full disk: what was to be written is not there, what was there is

# KIB COMMAND: in a file system of that size, mounted for the command alone, where `small` is.
on_small_disk()
{
	local status=0

	mkdir small
	# shellcheck disable=SC2016
	unshare --mount bash -c 'mount -t tmpfs -o size="$1"k,mode=755 none small && shift && status=0
		"$@" || status=$?; left=$(ls -A small); [ -z "$left" ] || echo "left: $left"; exit $status' _ "$@" || status=$?
	rmdir small
	return $status
}
if unshare --mount bash -c "mount -t tmpfs none '$work/deep'" 2>/dev/null; then
	rm -rf base adapter out record
	copies llama llama-adapter
	expect_exit 0 "$LORACTL" merge -q llama llama-adapter -o out --undo record
	for kib in 4 40 200; do
		refused 4 "small/record" on_small_disk $kib "$LORACTL" merge llama llama-adapter -o new --undo small/record
	done
	for kib in 40 400 900; do
		refused 4 "small/back|cannot" on_small_disk $kib "$LORACTL" unmerge out --undo record -o small/back
		refused 4 "small/new|cannot" on_small_disk $kib "$LORACTL" merge llama llama-adapter -o small/new --undo new.undo
	done
else
	echo "no file system of its own: a full disk is for tests/faults alone"
fi
