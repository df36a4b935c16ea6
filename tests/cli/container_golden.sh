#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# container_golden - containers of released versions of the format are read for ever; they are listed here by digest, and
# none of these lines is ever changed (tests/data/container/README.md).
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
need python3
golden=$SRC/tests/data/container

sha256sum --quiet -c - <<SUMS >"$OUT" 2>&1 || fail "golden files have changed: $(cat "$OUT")"
9a20bdce28350b51ca827510c526c9a4d719ff1b0ce4af6bbd1f1cf7554774a1  $golden/made.lora
10aae854815216d6366d03f75374ac00e9699e2671cebb131e1a81f6f9313a15  $golden/packed.lora
SUMS
python3 "$golden/make.py" made.lora
expect_same made.lora "$golden/made.lora"

# Written by another writer: what it meant is what comes out.
expect_exit 0 "$LORACTL" fsck made.lora
for version in 5 6 7; do
	expect_exit 0 "$LORACTL" unpack made.lora@$version -o made.$version --manifest
	python3 - "$golden" $version made.$version >"$cli_folder/said" 2>&1 <<'PYTHON' || fail "version $version: $(cat "$cli_folder/said")"
import hashlib, os, sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import make
want = {name: b"".join(raw for raw, _ in parts) for name, parts in make.versions()[int(sys.argv[2]) - 5].items()}
top = sys.argv[3]
have = {os.path.relpath(os.path.join(d, n), top): open(os.path.join(d, n), "rb").read() for d, _, names in os.walk(top) for n in names}
manifest = have.pop("manifest.json")
signature = have.pop("manifest.json.minisig", None)
assert have == want, (sorted(have), sorted(want))
assert (signature is not None) == (sys.argv[2] == "7"), signature
assert hashlib.sha256(manifest).digest() in make.build(), "the manifest is another"
PYTHON
done
expect_exit 0 "$LORACTL" gc made.lora --keep 2
expect_exit 0 "$LORACTL" fsck made.lora
expect_exit 0 "$LORACTL" unpack made.lora@6 -o again --manifest
diff -r again made.6 >"$OUT" || fail "after gc version 6 is another: $(cat "$OUT")"
grep -aq 'of a later version of the format' made.lora || fail 'gc dropped a record that it does not know'

# Written by the first version of this program.
cp "$golden/packed.lora" packed.lora
expect_exit 0 "$LORACTL" fsck packed.lora
for version in 1 2 3; do
	expect_exit 0 "$LORACTL" unpack packed.lora@$version -o packed.$version
	diff -r packed.$version "$golden/packed/$version" >"$OUT" || fail "version $version is another: $(cat "$OUT")"
done
expect_exit 0 "$LORACTL" log packed.lora --json
expect_same "$OUT" "$golden/packed.log.json"

# The same content has the same manifests still: signatures over them stay good.
"$LORACTL" pack "$golden/packed/1" -o new.lora --name golden --message one -q >"$OUT" || fail 'pack'
"$LORACTL" pack "$golden/packed/2" -o new.lora --append --message two -q >"$OUT" || fail 'pack'
"$LORACTL" pack "$golden/packed/3" -o new.lora --append --message three --base "$SRC/tests/data/tiny/llama" -q >"$OUT" || fail 'pack'
manifests()
{
	python3 -c 'import json, sys; print([v["manifest"] for v in json.load(sys.stdin)["versions"]])'
}
expect_equal "$("$LORACTL" log new.lora --json | manifests)" "$(manifests <"$golden/packed.log.json")"
