#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_values - what is not finite, in an adapter, in an adapted tensor or in the result, is refused and its place
# named; values at the edge are right.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
stem=base_model.model.model.layers.0.self_attn.q_proj
target=model.layers.0.self_attn.q_proj.weight
edit small base adapter 6 5 2

# Fresh copies, b and a.
fresh()
{
	rm -rf a b out
	cp -r base b
	cp -r adapter a
}

# NAME POSITION VALUE of the adapter, of the base
poke_a() { edit poke a/adapter_model.safetensors "$@"; }
poke_b() { edit poke b/model.safetensors "$@"; }

# PATTERN OPTION...
bad()
{
	local threads

	rm -rf out
	for threads in 1 3; do
		refused 3 "$1" "$LORACTL" merge b a -o out --threads $threads "${@:2}"
		refused 3 "$1" "$LORACTL" merge b a --dry-run --threads $threads "${@:2}"
	done
}

good()
{
	rm -rf out
	done_well "$LORACTL" merge -q b a -o out "$@"
}

for value in nan inf -inf; do
	fresh
	poke_a $stem.lora_A.weight 7 $value # row 1, column 1
	bad "q_proj"
	fresh
	poke_a $stem.lora_B.weight 9 $value # row 4, column 1
	bad "q_proj"
	# In the base: [4, 1] of q_proj is element 25.
	fresh
	poke_b $target 25 $value
	bad "'$target'.*\[?4, ?1\]?"
	# No adapter touches it: its bytes are copied as they are.
	fresh
	poke_b model.norm.weight 2 $value
	good
	judged merged b out out/loractl-receipt.json a
done
fresh
edit drop a/adapter_model.safetensors base_model.model.model.layers.0.self_attn.v_proj.lora_{A,B}.weight
poke_b model.layers.0.self_attn.v_proj.weight 0 nan
good
fresh
edit cast a/adapter_model.safetensors BF16
poke_a $stem.lora_A.weight 0 nan
bad "q_proj"
fresh
edit cast b/model.safetensors F16
poke_b $target 29 -inf # [4, 5]
bad "'$target'.*\[?4, ?5\]?"

# Finite factors whose product is not; the sum of two that are; s itself.
fresh
edit fill a/adapter_model.safetensors 'q_proj' 1e-3
poke_a $stem.lora_A.weight 3 3e38 # column 3 of every row
poke_a $stem.lora_B.weight 4 1e5  # row 2
bad "'$target'.*\[?2, ?3\]?"
fresh
edit fill a/adapter_model.safetensors 'q_proj' 1e-3
poke_a $stem.lora_A.weight 3 2e38
poke_a $stem.lora_B.weight 4 1.1
poke_b $target 15 3.4e38 # [2, 3]: 1.5 * 1.1 * 2e38 more
bad "'$target'.*\[?2, ?3\]?"
fresh
edit set_json a/adapter_config.json lora_alpha=1e60
bad 'alpha|scale|adapter_config'

# The type of the output cannot hold it: 65504 is the largest of F16, and 65520 is rounded away from it.
fresh
edit fill a/adapter_model.safetensors 'lora_B' 0
poke_a $stem.lora_B.weight 0 1
edit fill a/adapter_model.safetensors 'q_proj.lora_A' 0
poke_a $stem.lora_A.weight 0 1
edit set_json a/adapter_config.json lora_alpha=2 # s = 1: W[0, 0] += 1
poke_b $target 0 65518
good --dtype f16
expect_equal "$(tools element out/model.safetensors $target 0)" 65504.0
poke_b $target 0 65519
bad "'$target'.*\[?0, ?0\]?" --dtype f16
good --dtype bf16
good
edit cast b/model.safetensors F16 'norm|v_proj'
poke_b $target 0 -65521.5
bad "'$target'.*\[?0, ?0\]?" --dtype f16
# BF16: 0x7f7f is 3.3895e38; halfway to the next is rounded to infinity.
fresh
edit fill a/adapter_model.safetensors 'lora_B' 0
poke_a $stem.lora_B.weight 0 1
poke_b $target 0 3.4e38
bad "'$target'.*\[?0, ?0\]?" --dtype bf16
good

# Minus zero is zero: an update of 0 leaves -0 or makes 0, and that is no change.
fresh
edit fill b/model.safetensors q_proj -0.0
edit fill a/adapter_model.safetensors lora_B 0
bad 'noop|no-op|changes nothing|changes no|no value'
good --allow-noop
expect_json 'x["untouched"] + len(x["modules"])' 3 out/loractl-receipt.json
for entry in 0 29; do
	case $(tools element out/model.safetensors $target $entry) in
	0.0 | -0.0) ;;
	*) fail "element $entry is no zero" ;;
	esac
done

# Ties go to even, in each 16-bit type: one half of a unit above an even and an odd number, and a little more. Where
# it is too little for single precision, in which W + D is rounded first, it is a tie still.
fresh
edit fill a/adapter_model.safetensors 'lora_B' 0
poke_a $stem.lora_B.weight 0 1
edit fill a/adapter_model.safetensors 'q_proj.lora_A' 0
for pair in 'F16 0 1 0.00048828125 1.0' 'F16 1 1.0009765625 0.00048828125 1.001953125' 'F16 2 1 0.0004884 1.0009765625' \
	'F16 2 1 0.00048828131 1.0' \
	'BF16 3 1 0.00390625 1.0' 'BF16 4 1.0078125 0.00390625 1.015625' 'BF16 5 -1 -0.00390625 -1.0'; do
	read -r dtype column before update after <<<"$pair"
	cp -r b kept
	cp -r a kept_a
	edit set_json a/adapter_config.json lora_alpha=2
	edit cast b/model.safetensors "$dtype"
	poke_b $target "$column" "$before"
	poke_a $stem.lora_A.weight "$column" "$update"
	good --allow-noop
	expect_equal "$(tools element out/model.safetensors $target "$column")" "$after"
	rm -rf b a
	mv kept b
	mv kept_a a
done
# A number too small for the type: 2^-25 is halfway between 0 and the least of F16, and becomes 0.
fresh
edit fill b/model.safetensors q_proj 0
edit fill a/adapter_model.safetensors 'lora_B' 0
poke_a $stem.lora_B.weight 0 1
edit fill a/adapter_model.safetensors 'q_proj.lora_A' 0
poke_a $stem.lora_A.weight 0 0.0000000298023223876953125
poke_a $stem.lora_A.weight 1 0.00000002980232594040899
poke_a $stem.lora_A.weight 2 1e-40
edit set_json a/adapter_config.json lora_alpha=2
good --dtype f16
expect_equal "$(tools element out/model.safetensors $target 0)" 0.0
expect_equal "$(tools element out/model.safetensors $target 1)" 5.960464477539063e-08
good # in F32 a number below the normal ones stays
expect_equal "$(tools element out/model.safetensors $target 2)" "$(tools element a/adapter_model.safetensors $stem.lora_A.weight 2)"
