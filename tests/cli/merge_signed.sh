#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_signed - merge --require-signed takes what was signed, as it was opened; merge --sign writes a statement that
# verify takes, and that no change survives.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1

tiny=$SRC/tests/data/tiny
cp -r "$tiny/llama" base
cp -r "$tiny/llama-adapter" adapter
chmod -R u+w base adapter
for name in a b; do
	"$LORACTL" keygen -o $name --no-passphrase -q
done

# MESSAGE: the adapter is not merged
refused()
{
	expect_exit 1 "$LORACTL" merge base adapter -o out --require-signed
	expect_stderr_line "^loractl merge: 'adapter' is not to be trusted: $1"
	[ ! -e out ] || fail "an output was made"
	rm -rf adapter
	cp -a signed adapter
}

cp -a adapter signed
refused "it is not signed: there is no 'loractl-files.json' in it"
"$LORACTL" sign adapter -k a.key -q
rm -rf signed && cp -a adapter signed
refused 'signed by key [0-9A-F]{16}, which is not in the keyring'
"$LORACTL" trust add a.pub --as team -q
expect_exit 0 "$LORACTL" merge base adapter -o out --require-signed
rm -r out
expect_exit 0 "$LORACTL" merge base adapter --dry-run --require-signed
# A file that the adapter does not consist of is none of the merge's business; verify names it.
echo new >adapter/README2
expect_exit 0 "$LORACTL" merge base adapter -o out --require-signed -q
expect_exit 1 "$LORACTL" verify adapter -q
rm -r out adapter && cp -a signed adapter

printf '\x01' | dd of=adapter/adapter_model.safetensors conv=notrunc bs=1 seek=100000 2>/dev/null
refused "'adapter_model.safetensors' was changed"
sed -i 's/"lora_alpha": 16/"lora_alpha": 61/' adapter/adapter_config.json
cmp -s adapter/adapter_config.json signed/adapter_config.json && fail "the config was not changed"
refused "'adapter_config.json' was changed"
root=$("$LORACTL" inspect base | sed -n 's/^ *root *//p')
echo "{\"base_root\": \"$root\"}" >adapter/loractl.json
refused "'loractl.json' was added"
# A binding that was signed cannot be taken away, nor replaced.
echo "{\"base_root\": \"$root\"}" >adapter/loractl.json
"$LORACTL" sign adapter -k a.key -q
rm -rf signed && cp -a adapter signed
expect_exit 0 "$LORACTL" merge base adapter -o out --require-signed --require-bound -q
rm -r out
rm adapter/loractl.json
refused "'loractl.json' was removed"
echo '{}' >adapter/loractl.json
refused "'loractl.json' was changed"
# By a link, the same bytes: it is the bytes that count.
mv adapter/adapter_model.safetensors moved && ln -s ../moved adapter/adapter_model.safetensors
expect_exit 0 "$LORACTL" merge base adapter -o out --require-signed -q
rm -r out
"$LORACTL" trust add a.pub --as team --scope 'other*' -q
refused "key [0-9A-F]{16} of 'team' is not trusted for the name 'adapter'"
"$LORACTL" trust add a.pub --as team --until 2020-01-01 -q
refused "key [0-9A-F]{16} of 'team' was trusted until"
"$LORACTL" trust add a.pub --as team -q

# One file: by the list of its directory, or every part by its own signature.
expect_exit 0 "$LORACTL" merge base adapter/adapter_model.safetensors -o out --require-signed -q
rm -r out adapter/loractl-files.json adapter/loractl-files.json.minisig
expect_exit 1 "$LORACTL" merge base adapter/adapter_model.safetensors -o out --require-signed
for part in adapter_model.safetensors adapter_config.json loractl.json; do
	expect_stderr 'is not signed'
	"$LORACTL" sign adapter/$part -k a.key -q
	[ $part = loractl.json ] || expect_exit 1 "$LORACTL" merge base adapter/adapter_model.safetensors -o out --require-signed
done
expect_exit 0 "$LORACTL" merge base adapter/adapter_model.safetensors -o out --require-signed -q
rm -r out
echo '{ }' >adapter/loractl.json
expect_exit 1 "$LORACTL" merge base adapter/adapter_model.safetensors -o out --require-signed
expect_stderr 'the signature is not right'
rm -r adapter && cp -a signed adapter
expect_exit 2 "$LORACTL" merge base adapter -o out --require-signed --tokenizer adapter
# Two adapters: both have to be.
cp -r "$tiny/llama-adapter" second
expect_exit 1 "$LORACTL" merge base adapter second -o out --require-signed
expect_stderr_line "'second' is not to be trusted"

# --- the statement

expect_exit 0 "$LORACTL" merge base adapter -o out --sign a.key -q
expect_equal "$(find out -name '*intoto*')" out/loractl-receipt.intoto.json
expect_exit 0 "$LORACTL" verify out/loractl-receipt.intoto.json
expect_stdout '^  signer +team '
expect_exit 1 "$LORACTL" verify out/loractl-receipt.intoto.json -p b.pub
expect_stderr_line 'no signature of it is right by a key that is trusted'
cp out/model.safetensors kept
printf '\x01' | dd of=out/model.safetensors conv=notrunc bs=1 seek=900000 2>/dev/null
expect_exit 1 "$LORACTL" verify out/loractl-receipt.intoto.json
expect_stderr_line "its subject 'model.safetensors' was changed"
rm out/model.safetensors
expect_exit 1 "$LORACTL" verify out/loractl-receipt.intoto.json
expect_stderr_line "its subject 'model.safetensors' is not there"
mv kept out/model.safetensors
expect_exit 0 "$LORACTL" verify out/loractl-receipt.intoto.json
# Nothing of the machine or the hour is in it.
expect_exit 0 "$LORACTL" merge base adapter -o again --sign a.key -q
expect_same out/loractl-receipt.intoto.json again/loractl-receipt.intoto.json
# A model in one file has it beside.
expect_exit 0 "$LORACTL" merge base/model.safetensors adapter -o one.safetensors --sign a.key -q
expect_exit 0 "$LORACTL" verify one.safetensors.receipt.intoto.json
expect_exit 0 "$LORACTL" merge base/model.safetensors adapter -o one.safetensors --sign b.key -q --force
expect_exit 1 "$LORACTL" verify one.safetensors.receipt.intoto.json
"$LORACTL" trust revoke a.pub
expect_exit 1 "$LORACTL" verify out/loractl-receipt.intoto.json
expect_stderr_line 'is revoked'

# A key that cannot be used fails before the work.
expect_exit 2 "$LORACTL" merge base adapter -o new --sign a.key --no-receipt
expect_exit 2 "$LORACTL" merge base adapter -o new --sign a.key --dry-run
expect_exit 3 "$LORACTL" merge base adapter -o new --sign none.key
expect_exit 3 "$LORACTL" merge base adapter -o new --sign a.pub
[ ! -e new ] || fail "a model was made that could not be signed"
