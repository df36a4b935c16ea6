#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_places - where the output may go: never onto, into or around an input, never over anything, and with
# --force only over a model that loractl wrote. Permissions.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
edit small base adapter 6 5 2
"$LORACTL" merge -q base adapter -o want >"$OUT" || fail "exit $?"

# PATTERN OUT [OPTION...]: refused, with and without --force
kept()
{
	refused 2 "$1" "$LORACTL" merge base adapter -o "$2" "${@:3}"
	refused 2 "$1" "$LORACTL" merge base adapter -o "$2" --force "${@:3}"
}

# --- equal to, inside of, around an input, however it is spelt

mkdir -p deep/er
ln -s base link
ln -s ../base deep/link
for out in base base/ ./base "$work/base" deep/../base link link/ deep/link; do
	kept '.' "$out"
done
for out in adapter adapter/ "$work/./adapter"; do
	kept '.' "$out"
done
for out in base/out base/./out "$work/base/out" link/out adapter/out adapter/../base/out deep/link/x; do
	refused 2 '.' "$LORACTL" merge base adapter -o "$out"
	refused 2 '.' "$LORACTL" merge base adapter -o "$out" --force
done
kept '.' .
kept '.' "$work"
kept '.' ..
kept '.' /
mkdir around
cp -r base adapter around
refused 2 '.' "$LORACTL" merge around/base around/adapter -o around
refused 2 '.' "$LORACTL" merge around/base around/adapter -o around --force
refused 2 '.' "$LORACTL" merge around/base around/adapter -o around/../around --force
rm -r around
# Single files.
cp base/model.safetensors single.safetensors
ln single.safetensors hard.safetensors
ln -s single.safetensors soft.safetensors
for out in single.safetensors ./single.safetensors hard.safetensors soft.safetensors; do
	refused 2 '.' "$LORACTL" merge single.safetensors adapter -o $out
	refused 2 '.' "$LORACTL" merge single.safetensors adapter -o $out --force
done
refused 2 '.' "$LORACTL" merge single.safetensors adapter -o adapter/out.safetensors
refused 2 '.' "$LORACTL" merge single.safetensors adapter/adapter_model.safetensors \
	-o adapter/adapter_model.safetensors --force
rm link deep/link single.safetensors hard.safetensors soft.safetensors

# --- what exists stays

mkdir empty full
echo mine >full/notes
echo mine >file
ln -s nowhere dangling
ln -s full tofull
mkfifo fifo
for out in empty full full/ file tofull dangling fifo want full/notes /dev/null; do
	refused 2 "'[^']*(${out##*/}|${out%/})'?" "$LORACTL" merge base adapter -o $out
done
for out in full file tofull dangling fifo full/notes /dev/null deep; do # strangers
	refused 2 '.' "$LORACTL" merge base adapter -o $out --force
done
cp base/model.safetensors single.safetensors
for out in file full want dangling; do
	refused 2 '.' "$LORACTL" merge single.safetensors adapter -o $out
	refused 2 '.' "$LORACTL" merge single.safetensors adapter -o $out --force
done
# A receipt of something else in the place of ours.
echo mine >x.safetensors.receipt.json
refused 2 'x\.safetensors\.receipt\.json' "$LORACTL" merge single.safetensors adapter -o x.safetensors
refused 2 '.' "$LORACTL" merge single.safetensors adapter -o x.safetensors --force
rm x.safetensors.receipt.json
# A directory that only looks like ours.
cp -r base looks
echo '{}' >looks/loractl-receipt.json
refused 2 '.' "$LORACTL" merge base adapter -o looks --force
cp base/model.safetensors looks2.safetensors
echo '{"schema": "other/1"}' >looks2.safetensors.receipt.json
refused 2 '.' "$LORACTL" merge single.safetensors adapter -o looks2.safetensors --force
rm -r looks looks2*

# --- --force replaces our own, in one step; a failure leaves the old one

rm -rf empty full file dangling tofull fifo
done_well "$LORACTL" merge -q base adapter:0.5 -o out
cp -r out old
refused 2 "'out'" "$LORACTL" merge base adapter -o out
expect_exit 0 "$LORACTL" merge -q base adapter -o out --force
diff -r out want || fail "not replaced by --force"
expect_exit 0 "$LORACTL" merge -q base adapter -o out/ --force
diff -r out want || fail "not replaced by --force with a slash"
done_well "$LORACTL" merge -q base adapter -o fresh --force # nothing to replace
diff -r fresh want || fail "another result with --force"
rm -r fresh
cp -r adapter bad
edit poke bad/adapter_model.safetensors base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight 0 nan
refused 3 'v_proj' "$LORACTL" merge base bad -o out --force
refused 3 'nothing' "$LORACTL" merge base nothing -o out --force
rm -rf out
mv old out
done_reading "$LORACTL" merge -q base adapter -o out --force --dry-run
# A file that somebody added is not lost with it, wherever it stands and whatever it is.
mkdir base/original base/.git
echo base >base/original/params
echo base >base/notes.md
echo base >base/pytorch_model.bin # not copied: it may be the weights
done_well "$LORACTL" merge -q base adapter -o ours
for stranger in NOTES zz.safetensors original/more .hidden pytorch_model.bin loractl-files.json original/config.json; do
	echo mine >ours/$stranger
	refused 2 "'ours' holds '${stranger//./\\.}'" "$LORACTL" merge base adapter -o ours --force
	rm ours/$stranger
done
for stranger in mine original/mine .git; do
	mkdir ours/$stranger
	refused 2 "'ours' holds '${stranger//./\\.}'" "$LORACTL" merge base adapter -o ours --force
	rmdir ours/$stranger
done
ln -s ../../want ours/link
refused 2 "'ours' holds 'link'" "$LORACTL" merge base adapter -o ours --force
rm ours/link
mkfifo ours/fifo
refused 2 "'ours' holds 'fifo'" "$LORACTL" merge base adapter -o ours --force
rm ours/fifo
touch ours/b ours/a ours/c # the first of them by name
refused 2 "'ours' holds 'a'" "$LORACTL" merge base adapter -o ours --force
rm ours/[abc]
echo mine >ours/added_tokens.json # an adapter's tokenizer, if it is asked for
refused 2 "'ours' holds 'added_tokens\.json'" "$LORACTL" merge base adapter -o ours --force
cp -r adapter bringing
echo '{}' >bringing/added_tokens.json
refused 2 "'ours' holds 'added_tokens\.json'" "$LORACTL" merge base bringing -o ours --force
expect_exit 0 "$LORACTL" merge -q base bringing -o ours --force --tokenizer adapter
expect_equal "$(cat ours/added_tokens.json)" '{}'
rm -r base/original base/.git base/notes.md base/pytorch_model.bin bringing ours
# It was ours once, but is not what its receipt describes any more.
for edit in 'echo more >>changed/model.safetensors' 'rm changed/model.safetensors'; do
	cp -r want changed
	eval "$edit"
	refused 2 "'changed'.*no model that loractl wrote" "$LORACTL" merge base adapter -o changed --force
	rm -r changed
done
# Its own output as the base, or as a thing inside of it.
refused 2 '.' "$LORACTL" merge out adapter -o out --force
refused 2 '.' "$LORACTL" merge out adapter -o out/again --force
# A single file and its receipt.
done_well "$LORACTL" merge -q single.safetensors adapter:0.5 -o one.safetensors
refused 2 'one\.safetensors' "$LORACTL" merge single.safetensors adapter -o one.safetensors
expect_exit 0 "$LORACTL" merge -q single.safetensors adapter -o one.safetensors --force
expect_same one.safetensors want/model.safetensors
expect_json 'x["adapters"][0]["weight"]' 1 one.safetensors.receipt.json
refused 2 '.' "$LORACTL" merge base adapter -o one.safetensors --force # a directory for a file: not the same kind
rm -r one.* bad

# --- the folder around it

refused '2|3|4' "'?nothing" "$LORACTL" merge base adapter -o nothing/out
refused '2|3|4' '.' "$LORACTL" merge base adapter -o base/model.safetensors/out
expect_exit 0 "$LORACTL" merge -q base adapter -o deep/er/out
diff -r deep/er/out want || fail "another result in a folder"
done_well "$LORACTL" merge -q base adapter -o 'a b \ "c"'
diff -r 'a b \ "c"' want || fail "another result under an odd name"
done_well "$LORACTL" merge -q base adapter -o ./--name
long=$(printf 'n%.0s' {1..250})
done_well "$LORACTL" merge -q base adapter -o "$long" # a temporary name must not be longer than a name can be
done_well "$LORACTL" merge -q single.safetensors adapter -o "${long:0:235}" # with room for .receipt.json
rm -r -- ./--name ./nnn* 'a b \ "c"'
refused '2|4' '.' "$LORACTL" merge base adapter -o "$long$long"

# --- permissions

if can_bind; then
	bound() { bound_by_permissions "$LORACTL" "$@"; }
	for file in base/model.safetensors base/config.json adapter/adapter_model.safetensors adapter/adapter_config.json; do
		chmod 000 $file
		refused 4 "$(basename $file)" bound merge base adapter -o new
		chmod 644 $file
	done
	for folder in base adapter; do
		chmod 000 $folder
		refused 4 "'?$folder" bound merge base adapter -o new
		chmod 755 $folder
	done
	# A file that is no weight has to be copied too.
	echo text >base/tokenizer.model
	chmod 000 base/tokenizer.model
	refused 4 'tokenizer\.model' bound merge base adapter -o new
	rm -f base/tokenizer.model
	mkdir closed
	chmod 555 closed
	refused 4 "'?closed" bound merge base adapter -o closed/out
	chmod 000 closed
	refused 4 "'?closed" bound merge base adapter -o closed/out
	chmod 755 closed
	rmdir closed
	# Inputs that nobody may write are no hindrance, nor is a cache that cannot be written.
	chmod -R a-w base adapter "$XDG_CACHE_HOME"
	done_well bound merge -q base adapter -o new
	diff -r new want || fail "another result from inputs that are read-only"
	[ -w new/model.safetensors ] || fail "the output cannot be written"
	chmod -R u+w base adapter "$XDG_CACHE_HOME"
	rm -rf new
	run env XDG_CACHE_HOME=/dev/null/cache "$LORACTL" merge -q base adapter -o new
	expect_equal "$STATUS" 0
	rm -rf new
else
	echo "permissions are not tested: no way to be bound by them"
fi
