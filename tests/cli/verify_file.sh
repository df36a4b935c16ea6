#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# verify_file - signed files, and everything that is wrong with one: changed, cut off, another's, tampered comments,
# malformed and huge signatures, bad keys. Not to be trusted is 1, not to be judged is 3.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1

for name in a b; do
	"$LORACTL" keygen -o $name --no-passphrase -q || fail "keygen"
done
seq 1 100000 >file
expect_exit 0 "$LORACTL" sign file -k a.key --comment 'good one'
expect_stdout '^file: signed by key [0-9A-F]{16}$'
expect_exit 0 "$LORACTL" verify file -p a.pub
expect_empty "$ERR"
expect_stdout '^file: verified$'
expect_stdout 'good one'
cp file.minisig good

# --- not to be trusted

# MESSAGE: the signed file does not pass
refused()
{
	expect_exit 1 "$LORACTL" verify file -p a.pub
	expect_stderr_line "^loractl verify: 'file' is not to be trusted: $1"
	expect_stdout '^file: NOT verified$'
	expect_exit 1 "$LORACTL" verify file -p a.pub --json
	python3 -c 'import json, sys
x = json.load(open(sys.argv[1]))
s = x["levels"]["signature"]
assert x["schema"] == "loractl.verify/1" and x["passed"] is False and s["passed"] is False, x
assert s["problems"], x' "$OUT" || fail "the report is wrong: $(cat "$OUT")"
	cp good file.minisig
}

# LINE BYTE: flips a bit of the decoded base64 of the signature
flip()
{
	python3 - "$1" "$2" <<'PY'
import base64, sys
lines = open("good").read().split("\n")
line, at = int(sys.argv[1]), int(sys.argv[2])
data = bytearray(base64.b64decode(lines[line]))
data[at] ^= 1
lines[line] = base64.b64encode(data).decode()
open("file.minisig", "w").write("\n".join(lines))
PY
}

cp file kept
printf x >>file
refused 'the signature is not right: this is not what key [0-9A-F]{16} signed'
cp kept file
printf X | dd of=file conv=notrunc bs=1 seek=400000 2>/dev/null
refused 'the signature is not right'
: >file
refused 'the signature is not right'
cp kept file
for at in 10 41 73; do
	flip 1 $at
	refused 'the signature is not right'
done
flip 1 2
refused 'signed by key [0-9A-F]{16}, not by'
for at in 0 63; do
	flip 3 $at
	refused 'the trusted comment was changed'
done
sed -i 's/good one/bad one/' file.minisig
refused 'the trusted comment was changed'
sed -i 's/^trusted comment: .*/trusted comment: /' file.minisig
refused 'the trusted comment was changed'
# The untrusted comment may say anything.
sed -i '1s/.*/untrusted comment: hello/' file.minisig
expect_exit 0 "$LORACTL" verify file -p a.pub
# Another key's; another file's; none.
expect_exit 1 "$LORACTL" verify file -p b.pub
expect_stderr_line "signed by key [0-9A-F]{16}, not by [0-9A-F]{16} \('b\.pub'\)"
echo other >other
"$LORACTL" sign other -k a.key -q
cp other.minisig file.minisig
refused 'the signature is not right'
rm file.minisig
refused "it is not signed: there is no 'file\.minisig'"
# A key with the number of the trusted one and another point.
python3 - <<'PY'
import base64
a, b = (bytearray(base64.b64decode(open(n + ".pub").read().split("\n")[1])) for n in "ab")
b[2:10] = a[2:10]
open("forged.pub", "w").write("untrusted comment: x\n%s\n" % base64.b64encode(b).decode())
PY
expect_exit 1 "$LORACTL" verify file -p forged.pub
expect_stderr_line 'the signature is not right'
# Moved under another name: said, with the name that was signed.
mv file moved && mv file.minisig moved.minisig
expect_exit 0 "$LORACTL" verify moved -p a.pub
expect_stderr_line "warning: 'moved' was signed under the name 'file'"
mv moved file && mv moved.minisig file.minisig

# --- not to be judged

# MESSAGE
unjudged()
{
	expect_exit 3 "$LORACTL" verify file -p a.pub --json
	expect_stderr_line "^loractl verify: 'file\.minisig': $1"
	expect_empty "$OUT"
	cp good file.minisig
}

count=$(wc -l <good)
for ((i = 0; i < count; i++)); do
	head -n $i good >file.minisig
	unjudged 'it is no signature|the signature is cut off'
done
for size in 1 18 30 60 119 140 200 250 300; do
	head -c $size good >file.minisig
	unjudged '(it is no signature|the signature is cut off)'
done
# Only the last newline may be missing.
head -c -1 good >file.minisig
expect_exit 0 "$LORACTL" verify file -p a.pub
sed 's/$/\r/' good >file.minisig
expect_exit 0 "$LORACTL" verify file -p a.pub
{ cat good; echo more; } >file.minisig
unjudged 'it is no signature: something follows its last line'
sed '2s/=*$//' good >file.minisig
unjudged 'it is no signature, or cut off: line 2'
sed '2s/./!/5' good >file.minisig
unjudged 'it is no signature, or cut off: line 2'
sed '4s/=$/ =/' good >file.minisig
unjudged 'the signature is cut off: line 4'
sed '1s/untrusted/trusted/' good >file.minisig
unjudged 'it is no signature: its first line'
sed '3s/trusted/Trusted/' good >file.minisig
unjudged 'the signature is cut off: line 3'
sed '3s/good/go\x1b[31mod/' good >file.minisig
unjudged "the signature's trusted comment is too long, or no plain text"
sed '3s/good/go\xffod/' good >file.minisig
unjudged "the signature's trusted comment"
sed '2s/^RU/RX/' good >file.minisig
unjudged 'it is no signature of a kind that is known'
{ head -n 2 good; printf 'trusted comment: '; printf '%09000d\n' 0; tail -n 1 good; } >file.minisig
unjudged "the signature's trusted comment is too long"
head -c 2000000 /dev/zero >file.minisig
expect_exit 3 "$LORACTL" verify file -p a.pub
expect_stderr_line "'file\.minisig' has 2000000 bytes: at most 16384 are read"
truncate -s 1T file.minisig
expect_exit 3 "$LORACTL" verify file -p a.pub
rm file.minisig && mkfifo file.minisig
expect_exit 3 "$LORACTL" verify file -p a.pub
expect_stderr_line 'a pipe, not a file'
rm file.minisig && cp good file.minisig

expect_exit 3 "$LORACTL" verify none -p a.pub
expect_stderr_line "'none' does not exist"
expect_exit 3 "$LORACTL" verify file -p none.pub
expect_exit 3 "$LORACTL" verify file -p a.key
expect_stderr_line "key 'a\.key': it is no public key"
expect_exit 3 "$LORACTL" verify file -p file
mkfifo pipe
expect_exit 3 "$LORACTL" verify pipe -p a.pub
expect_exit 2 "$LORACTL" verify
if can_bind; then
	chmod 000 file
	expect_exit 4 bound_by_permissions "$LORACTL" verify file -p a.pub
	expect_stderr_line "cannot open 'file': Permission denied"
	chmod 644 file && chmod 000 file.minisig
	expect_exit 4 bound_by_permissions "$LORACTL" verify file -p a.pub
	chmod 644 file.minisig && chmod 000 a.pub
	expect_exit 4 bound_by_permissions "$LORACTL" verify file -p a.pub
	chmod 644 a.pub
else
	fail "permissions bind nobody here: they cannot be tested"
fi

# --- keys

expect_exit 0 "$LORACTL" verify a.pub -p a.pub
expect_exit 1 "$LORACTL" verify b.pub -p a.pub
expect_exit 1 "$LORACTL" verify a.pub
expect_stderr_line "key [0-9A-F]{16} is not in the keyring"
head -c 60 a.pub >cut.pub
expect_exit 3 "$LORACTL" verify file -p cut.pub
expect_stderr_line "key 'cut\.pub': it is no public key, or cut off: line 2 is not 42 bytes in base64"

# --- signing goes wrong

expect_exit 3 "$LORACTL" sign none -k a.key
expect_exit 3 "$LORACTL" sign file -k none.key
expect_exit 3 "$LORACTL" sign file -k a.pub
expect_stderr_line "key 'a\.pub': it is no secret key"
expect_exit 3 "$LORACTL" sign pipe -k a.key
expect_exit 2 "$LORACTL" sign file
expect_exit 2 "$LORACTL" sign -k a.key
expect_exit 2 "$LORACTL" sign file -k a.key --comment $'tab\there'
expect_same file.minisig good
# Another key's signature is not thrown away, nor is what is none.
expect_exit 2 "$LORACTL" sign file -k b.key
expect_stderr_line "'file\.minisig' exists and is not of this key: remove it, or use --force"
expect_same file.minisig good
expect_exit 0 "$LORACTL" sign file -k b.key --force
expect_exit 0 "$LORACTL" verify file -p b.pub
echo precious >file.minisig
expect_exit 2 "$LORACTL" sign file -k b.key
cp good file.minisig
# A key whose halves differ would give its seed away.
python3 - <<'PY'
import base64
data = bytearray(base64.b64decode(open("a.key").read().split("\n")[1]))
data[-40] ^= 1 # of the point
open("halves.key", "w").write("untrusted comment: x\n%s\n" % base64.b64encode(data).decode())
data = bytearray(base64.b64decode(open("a.key").read().split("\n")[1]))
data[2:4] = b"Sc"
data[38:46] = (1 << 40).to_bytes(8, "little")
data[46:54] = (1 << 50).to_bytes(8, "little")
open("costly.key", "w").write("untrusted comment: x\n%s\n" % base64.b64encode(data).decode())
PY
chmod 600 halves.key costly.key
expect_exit 3 "$LORACTL" sign file -k halves.key
expect_stderr_line "the secret key is damaged: its halves differ"
expect_exit 3 "$LORACTL" sign file -k costly.key --passphrase-fd 3 3< <(echo x)
expect_stderr_line 'at most 2048 MiB'
chmod 644 a.key
expect_exit 0 "$LORACTL" sign file -k a.key
expect_stderr_line "warning: 'a\.key' is open to others \(mode 644\): chmod 600 it"
head -c 100000 /dev/zero >big.key
chmod 600 big.key
expect_exit 3 "$LORACTL" sign file -k big.key
if can_bind; then
	chmod 000 a.key
	expect_exit 4 bound_by_permissions "$LORACTL" sign file -k a.key
	expect_stderr_line "cannot open 'a\.key': Permission denied"
	chmod 600 a.key
fi
# No secret in any message or core: the seed's bytes are not printed by anything above.
expect_exit 0 "$LORACTL" sign file -k a.key -v
! grep -qF "$(tail -n 1 a.key | cut -c 40-80)" "$OUT" "$ERR" || fail "a secret was printed"

# --- several paths

printf x >>other
expect_exit 1 "$LORACTL" verify file other -p a.pub --json
python3 -c 'import json, sys
x = json.load(open(sys.argv[1]))
assert [v["passed"] for v in x] == [True, False], x
assert set(x[0]["levels"]) == {"signature", "bytes", "modules", "logits", "latency"}
assert all("skipped" in x[0]["levels"][k] for k in ("bytes", "modules", "logits", "latency"))
s = x[0]["levels"]["signature"]
assert s["signer"] == s["key_id"] and s["version"] is None and s["rollback"] is None and s["name"] == "file", s
assert x[1]["levels"]["signature"]["signer"] is None' "$OUT" || fail "the report is wrong: $(cat "$OUT")"
expect_exit 1 "$LORACTL" verify other file -p a.pub -q
expect_empty "$OUT"
expect_exit 0 "$LORACTL" verify file -p a.pub --level signature
expect_exit 3 "$LORACTL" verify file -p a.pub --level signature,bytes
expect_stderr_line "cannot verify the level 'bytes' of 'file': it is no merged model"
for bad in nothing '' 'signature,' 'bytes,signatur'; do
	expect_exit 2 "$LORACTL" verify file -p a.pub --level="$bad"
done
