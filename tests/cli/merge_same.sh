#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_same - the same bits for every number of threads, on every kernel, however the base is cut into files.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter
cp -r llama llama-shards
edit shards llama-shards 5
cp -r gpt2-adapter other
edit scale other/adapter_model.safetensors lora_B -0.3

# NAME=VALUE OUT BASE ADAPTER...
merge()
{
	done_well env "$1" "$LORACTL" merge -q "${@:3}" -o "$2"
}

kernels=(generic)
for kernel in avx2 avx512 neon; do
	run env LORACTL_CPU=$kernel "$LORACTL" -v --version
	case $STATUS in
	0)
		kernels+=("$kernel")
		expect_stdout "^kernels: $kernel\$"
		;;
	2) expect_stderr_line "LORACTL_CPU.*'$kernel'" ;; # this processor has none of these
	*) fail "LORACTL_CPU=$kernel: exit status $STATUS" ;;
	esac
done
echo "kernels: ${kernels[*]}"
refused 2 "LORACTL_CPU.*'abacus'" env LORACTL_CPU=abacus "$LORACTL" merge gpt2 gpt2-adapter -o out
refused 2 "LORACTL_CPU" env LORACTL_CPU=AVX2 "$LORACTL" merge gpt2 gpt2-adapter -o out

for base in llama llama-shards gpt2; do
	adapters=("${base%-shards}-adapter")
	[ $base != gpt2 ] || adapters+=(other:0.7)
	"$LORACTL" merge -q $base "${adapters[@]}" -o want >"$OUT" || fail "$base: exit $?"
	for kernel in "${kernels[@]}"; do
		for threads in 1 2 3 8; do
			[ "$threads" != 3 ] || [ "$kernel" = generic ] || continue
			merge LORACTL_CPU=$kernel have $base "${adapters[@]}" --threads $threads
			diff -r want have || fail "$base, $kernel, $threads threads: another result"
			rm -rf have
		done
	done
	for dtype in f32 f16 bf16; do
		for kernel in "${kernels[@]}"; do
			merge LORACTL_CPU=$kernel "$dtype-$kernel" $base "${adapters[@]}" --dtype $dtype
			diff -r "$dtype-generic" "$dtype-$kernel" || fail "$base, $dtype, $kernel: another result"
		done
		rm -rf "$dtype"-*
	done
	[ $base = llama-shards ] || judged merged $base want want/loractl-receipt.json "${adapters[@]/:/=}" values=no
	mv want "want-$base"
done

# The shards hold what the single file holds, and the roots are the same.
judged merged llama-shards want-llama-shards want-llama-shards/loractl-receipt.json llama-adapter values=no
judged same_tensors want-llama want-llama-shards
for key in '["merged"]["root"]' '["base"]["root"]' '["modules"]' '["untouched"]' '["adapters"]'; do
	expect_json "x$key" "$(tools get want-llama/loractl-receipt.json "x$key")" want-llama-shards/loractl-receipt.json
done
for receipt in want-llama want-llama-shards; do
	# with the digests remembered and with none
	for cache in '' new; do
		[ -z "$cache" ] || rm -rf "$XDG_CACHE_HOME/loractl"
		merge A= have "${receipt#want-}" llama-adapter
		diff -r $receipt have || fail "${receipt#want-}: another result${cache:+ with a new cache}"
		rm -rf have
	done
done
# What is remembered is not believed for another file of the same name and size.
"$LORACTL" inspect -q llama >/dev/null
edit poke llama/model.safetensors model.norm.weight 0 0.125
merge A= have llama llama-adapter
expect_json 'x["base"]["root"]' "$(tools root llama)" have/loractl-receipt.json
judged merged llama have have/loractl-receipt.json llama-adapter values=no

expect_only llama llama-adapter llama-shards gpt2 gpt2-adapter other have want-llama want-llama-shards want-gpt2
