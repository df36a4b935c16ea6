#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# verify_merged - the command around the proof of a merged model: what runs by default, what is skipped and why, usage,
# reports and what they may replace, statements, memory of weights in receipts. Numbers are tests/interop/verify.py's.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1

tiny=$SRC/tests/data/tiny
base=$tiny/llama adapter=$tiny/llama-adapter
claim=(--base "$base" --adapter "$adapter")
"$LORACTL" merge "$base" "$adapter" -o merged -q || fail merge

# EXPRESSION: of the report in $1
holds()
{
	python3 -c 'import json, sys
r = json.load(open(sys.argv[1])); L = r["levels"]
assert eval(sys.argv[2]), r' "$1" "$2" || fail "not so: $2"
}

# --- by default: all that applies, but latency

expect_exit 0 "$LORACTL" verify merged "${claim[@]}"
expect_stdout '^merged: verified$'
expect_stdout '^  bytes  *passed$'
expect_stdout '^  modules  *passed$'
expect_stdout '^  logits  *passed$'
expect_empty "$ERR"
expect_exit 0 "$LORACTL" verify merged "${claim[@]}" --json
holds "$OUT" 'r["schema"] == "loractl.verify/1" and r["passed"] is True and r["receipt"] is True'
holds "$OUT" '"not signed" in L["signature"]["skipped"] and "--level latency" in L["latency"]["skipped"]'
holds "$OUT" 'L["bytes"]["tensors"] == 39 and L["bytes"]["mismatched"] == 0 and L["bytes"]["max_ulp"] == 0'
holds "$OUT" 'L["modules"]["modules"] == 28 and 0 < L["modules"]["worst"] <= L["modules"]["bound"]'
holds "$OUT" '0 <= L["logits"]["kl"] < L["logits"]["kl_adapter"] / 100 and L["logits"]["first_divergence"] is None'
cp "$OUT" first
expect_exit 0 "$LORACTL" verify merged "${claim[@]}" --json --threads 1 --level bytes,modules
holds "$OUT" 'L["modules"] == json.load(open("first"))["levels"]["modules"] and "not asked" in L["logits"]["skipped"]'
expect_exit 0 "$LORACTL" verify merged "${claim[@]}" -q
expect_empty "$OUT"

# Another seed probes with other inputs.
expect_exit 0 "$LORACTL" verify merged "${claim[@]}" --json --seed 1 --level modules
holds "$OUT" 'L["modules"]["worst"] != json.load(open("first"))["levels"]["modules"]["worst"]'

# --- what is missing, and what cannot be

expect_exit 1 "$LORACTL" verify merged
expect_stderr_line 'not to be trusted|not signed'
expect_exit 3 "$LORACTL" verify merged --level bytes
expect_stderr_line "level 'bytes' of 'merged': it needs --base and --adapter"
expect_exit 2 "$LORACTL" verify merged --base "$base"
expect_stderr_line '--base without --adapter'
expect_exit 2 "$LORACTL" verify merged --adapter "$adapter"
expect_exit 2 "$LORACTL" verify merged merged "${claim[@]}"
expect_exit 2 "$LORACTL" verify merged "${claim[@]}" --level bits
expect_exit 2 "$LORACTL" verify merged "${claim[@]}" --sign k.key
expect_stderr_line 'add --report'
expect_exit 3 "$LORACTL" verify merged --base "$base" --adapter nowhere
expect_exit 3 "$LORACTL" verify merged --base nowhere --adapter "$adapter"
expect_exit 3 "$LORACTL" verify merged --base "$tiny/gpt2" --adapter "$tiny/gpt2-adapter/none"
expect_exit 1 "$LORACTL" verify merged --base "$tiny/gpt2" --adapter "$adapter"
expect_stderr_line 'is not the base of the receipt'
expect_exit 1 "$LORACTL" verify merged "${claim[@]}" --adapter "$adapter"
expect_stderr_line 'the receipt names 1 adapters, 2 are given'

# Weights alone are no model that the engine could run: the other levels are.
"$LORACTL" merge "$base/model.safetensors" "$adapter" -o one.safetensors -q || fail merge
expect_exit 0 "$LORACTL" verify one.safetensors --base "$base/model.safetensors" --adapter "$adapter" --json
holds "$OUT" 'L["bytes"]["passed"] and L["modules"]["passed"] and L["logits"]["skipped"]'
expect_exit 3 "$LORACTL" verify one.safetensors --base "$base/model.safetensors" --adapter "$adapter" --level logits

# --- another structure is another latency: no clock is asked

"$LORACTL" merge "$base" "$adapter" -o wide --dtype f32 -q || fail merge
expect_exit 0 "$LORACTL" verify wide "${claim[@]}" -q
expect_exit 1 "$LORACTL" verify wide "${claim[@]}" --level latency --json
expect_stderr_line 'does not cost what the base does'
holds "$OUT" 'L["latency"]["structural"] is False and L["latency"]["rounds"] == 0'

# --- what it says no to (all of it: tests/interop/verify.py)

# MODEL TENSOR [ELEMENT]: the lowest bit of an element is flipped
flip()
{
	python3 - "$1/model.safetensors" "$2" "${3:-1}" <<'PY'
import json, struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
size = struct.unpack("<Q", data[:8])[0]
begin = 8 + size + json.loads(data[8:8 + size])[sys.argv[2]]["data_offsets"][0]
data[begin + 2 * int(sys.argv[3])] ^= 1
open(sys.argv[1], "wb").write(data)
PY
}

expect_exit 1 "$LORACTL" verify merged --base "$base" --adapter "$adapter:0.99" --level modules
expect_stderr_line 'merged with weight 1, not 0\.99'
"$LORACTL" merge "$base" "$adapter:0.99" -o foreign -q || fail merge
rm foreign/loractl-receipt.json
expect_exit 0 "$LORACTL" verify foreign --base "$base" --adapter "$adapter:0.99" -q
expect_exit 1 "$LORACTL" verify foreign "${claim[@]}" --level modules
expect_stderr_line "the update is 0\.99[0-9]* times the adapter's"
cp -r merged bit
# a bit that another tool may have rounded so
flip bit model.layers.3.mlp.down_proj.weight 1234
expect_exit 1 "$LORACTL" verify bit "${claim[@]}" --level bytes --json
holds "$OUT" 'L["bytes"]["mismatched"] == 1 and L["bytes"]["max_ulp"] == 1 and L["bytes"]["off"][1] == 1'
expect_stderr_line "'model.layers.3.mlp.down_proj.weight': 1 of "
cp -r foreign untouched
flip untouched model.embed_tokens.weight
expect_exit 1 "$LORACTL" verify untouched --base "$base" --adapter "$adapter:0.99" --level bytes
expect_stderr_line "'model.embed_tokens.weight': no adapter touches it"
for model in merged foreign; do
	cp -r $model config
	sed -i 's/"rms_norm_eps": [^,]*/"rms_norm_eps": 0.5/' config/config.json
	weight=1
	[ $model = merged ] || weight=0.99
	expect_exit 1 "$LORACTL" verify config --base "$base" --adapter "$adapter:$weight" --level bytes
	expect_stderr_line "'config.json'"
	rm -r config
done

# --- prompts

printf 'The sea is\n\nA house by the road\n' >prompts
expect_exit 0 "$LORACTL" verify merged "${claim[@]}" --level logits --prompts prompts --tokens 12 --json
holds "$OUT" 'L["logits"]["prompts"] == 2 and L["logits"]["tokens"] == 24 and L["logits"]["perplexity_merged"] > 1'
: >empty
expect_exit 3 "$LORACTL" verify merged "${claim[@]}" --level logits --prompts empty
expect_stderr_line "'empty' holds no prompt"
expect_exit 3 "$LORACTL" verify merged "${claim[@]}" --level logits --reference-logits "$base/model.safetensors"
expect_exit 1 "$LORACTL" verify merged "${claim[@]}" --level logits --max-kl 0.0000001
expect_stderr_line 'KL [0-9.e-]+ away from base \+ adapter'

# --- reports

"$LORACTL" keygen -o k --no-passphrase -q || fail keygen
expect_exit 0 "$LORACTL" verify merged "${claim[@]}" --report r.json --html r.html --sign k.key -q
holds r.json 'r["passed"] and len(r["tensors"]) == 28'
python3 - <<'PY' || fail "the page"
import html.parser, re
text = open("r.html").read()
class P(html.parser.HTMLParser):
    names = []
    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        assert tag not in ("script", "link", "img", "iframe"), tag
        assert not any(k in ("src", "href") for k, v in attrs), attrs
P().feed(text)
assert P.names.count("svg") == 4 and P.names.count("circle") > 84, P.names.count("svg")
assert "prefers-color-scheme:dark" in text and "is base + adapters" in text
assert not re.search(r"\b(nan|inf)\b", text), re.search(r".{40}\b(nan|inf)\b.{40}", text)
PY
expect_exit 0 "$LORACTL" verify r.intoto.json -p k.pub
python3 - <<'PY' || fail "the statement"
import base64, json
statement = json.loads(base64.b64decode(json.load(open("r.intoto.json"))["payload"]))
root = json.load(open("r.json"))["merged_root"]
assert statement["subject"] == [{"name": "merged", "digest": {"loractlRoot1": root}}], statement["subject"]
PY
# An earlier report may be replaced, with another answer; what is none may not.
printf '\001' | dd of=merged/model.safetensors bs=1 seek=100000 conv=notrunc 2>/dev/null
expect_exit 1 "$LORACTL" verify merged "${claim[@]}" --report r.json --html r.html --sign k.key -q
holds r.json 'r["passed"] is False and L["bytes"]["mismatched"] == 1 and len(L["bytes"]["problems"]) == 2'
grep -q 'is not base + adapters' r.html || fail "the page does not say no"
echo mine >note
expect_exit 2 "$LORACTL" verify wide "${claim[@]}" --level bytes --report note
expect_stderr_line "'note' exists and is no report"
[ "$(cat note)" = mine ] || fail "a stranger's file was replaced"
