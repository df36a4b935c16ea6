#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_truncated - a base or an adapter that is cut off, at every length of its head and at many behind it, is
# refused with status 3, the file named, nothing written.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
edit small base adapter 6 5 2
cp -r base b
cp -r adapter a

# PATTERN: the base in b is refused
bad_base()
{
	refused 3 "$1" soon "$LORACTL" merge b adapter -o out
}

whole=base/model.safetensors
size=$(stat -c %s $whole)
head=$((8 + $(od -An -tu8 -N8 $whole)))
steps=({0..16})
for ((length = 17; length < head; length += ${sanitized:+7}${sanitized:-1})); do
	steps+=("$length")
done
for ((length = head; length < size; length += 13)); do
	steps+=("$length")
done
steps+=($((size - 1)))
for length in "${steps[@]}"; do
	head -c "$length" $whole >b/model.safetensors
	run "$LORACTL" merge -q b adapter -o out
	if [ "$STATUS" -ne 3 ] || [ "$(wc -l <"$ERR")" -ne 1 ] || [ -e out ] || [ -s "$OUT" ]; then
		fail "cut off at $length of $size: exit status $STATUS: $(head -n 3 "$ERR")"
	fi
done
bad_base 'model\.safetensors'
head -c $((size - 5)) $whole >b/model.safetensors
bad_base 'model\.safetensors'
: >b/model.safetensors
bad_base 'model\.safetensors'
{ cat $whole && printf 'x'; } >b/model.safetensors # a byte too many
bad_base 'model\.safetensors'
factors=adapter/adapter_model.safetensors
size=$(stat -c %s $factors)
for length in 0 1 7 8 9 40 $((size / 2)) $((size - 1)) $((size + 1)); do
	{ cat $factors && printf 'x'; } | head -c "$length" >a/adapter_model.safetensors
	refused 3 'adapter_model\.safetensors' "$LORACTL" merge base a -o out
done

# A shard that is cut off, where the others are whole.
cp -r base sharded
edit shards sharded 2
for one in 1 2; do
	cp -r sharded b2
	file=model-0000$one-of-00002.safetensors
	head -c -1 sharded/$file >b2/$file
	refused 3 "$file" "$LORACTL" merge b2 adapter -o out
	rm -r b2
done

expect_only base adapter a b sharded
