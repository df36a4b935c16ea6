#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# blas - the BLAS is loaded by what computes with it, and by nothing else; where it is missing, or has no room, one
# line says so.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter

# Who loads it: the loader itself tells.
loading() { LD_DEBUG=files "$LORACTL" "$@"; }
run loading merge -q llama llama-adapter -o out
! grep -q openblas "$ERR" || fail "merge loads the BLAS"
run loading inspect llama
! grep -q openblas "$ERR" || fail "inspect of a model loads the BLAS"
run loading inspect llama-adapter
soname=$(sed -n 's/.*file=\(lib[a-z]*blas[^ ]*\) .*/\1/p' "$ERR" | head -n 1)
[ -n "$soname" ] || fail "inspect of an adapter does not load the BLAS, and this test tests nothing"

# Missing, or another library under its name.
mkdir "$cli_folder/lib"
echo 'no library' >"$cli_folder/lib/$soname"
without() { LD_LIBRARY_PATH=$cli_folder/lib "$@"; }
refused 4 "BLAS.*'$soname'" without "$LORACTL" inspect llama-adapter
done_well without "$LORACTL" merge -q llama llama-adapter -o out2
diff -r out out2 || fail "another result without a BLAS"
echo 'int nothing;' | "${CC:-cc}" -shared -fPIC -x c - -o "$cli_folder/lib/$soname"
refused 4 "BLAS.*'$soname'.*cblas_sgemm" without "$LORACTL" inspect llama-adapter
rm -rf out2

# One thread, unless somebody asks for more: two cores are two of our own.
if [ -z "$sanitized" ] && command -v strace >/dev/null; then # (a sanitizer starts one to look for leaks)
	strace -f -qq -e trace=clone,clone3 -o "$cli_folder/calls" "$LORACTL" inspect --threads 1 llama-adapter >"$OUT"
	expect_equal "$(grep -c 'clone.*= [0-9]' "$cli_folder/calls")" 1 # it waits for signals
fi

[ -z "$sanitized" ] || exit 0 # sanitizers need all of the address space
for kib in 12000 20000 60000 100000 200000 300000 400000; do
	limited() { (ulimit -v "$kib" && exec timeout -s KILL 10 "$LORACTL" "$@"); }
	refused 4 'BLAS.*address space|out of memory' limited inspect llama-adapter
done
