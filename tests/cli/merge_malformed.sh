#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_malformed - a base or an adapter whose bytes are wrong: refused with status 3, the file named, nothing read
# beyond its end, nothing written.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
edit small base adapter 6 5 2
cp -r base b
cp -r adapter a

# PATTERN: the base in b is refused
bad_base()
{
	refused 3 "$1" soon "$LORACTL" merge b adapter -o out
}

# HEADER [BYTES]: a base with this header and so many bytes of data
bad_header()
{
	edit raw b/model.safetensors "$@"
	bad_base 'model\.safetensors'
	cp b/model.safetensors a/adapter_model.safetensors
	run soon "$LORACTL" merge -q base a -o out
	[ "$STATUS" -eq 3 ] && [ ! -e out ] || fail "as an adapter: exit status $STATUS: $(head -n 3 "$ERR")"
	expect_one_error 'adapter_model\.safetensors'
}

whole=base/model.safetensors

# --- the head

for length in '\xff\xff\xff\xff\xff\xff\xff\xff' '\xff\xff\xff\xff\xff\xff\xff\x7f' '\0\0\0\0\0\0\0\x80' \
	'\0\0\0\0\1\0\0\0' '\xf8\xff\xff\xff\xff\xff\xff\xff' '\0\0\0\0\0\0\0\0' '\1\0\0\0\0\0\0\0'; do
	printf "$length" | cat - <(tail -c +9 $whole) >b/model.safetensors
	bad_base 'model\.safetensors'
done
t='"dtype":"F32","shape":[2],"data_offsets"'
bad_header ''
bad_header ' ' 8
bad_header 'x' 8
bad_header '[]'
bad_header '{"a":1}' 8
bad_header '{"a":null}' 8
bad_header '{"a":{}}' 8
bad_header "{\"a\":{$t:[0,8]}" 8          # no end
bad_header "{\"a\":{$t:[0,8]}}x" 8        # something behind it
bad_header "{\"a\":{$t:[0,8]},}" 8        # a comma too many
bad_header "{\"a\":{$t:[0,8]}}{}" 8
bad_header "{'a':{$t:[0,8]}}" 8
bad_header "// {\"a\":{$t:[0,8]}}" 8
bad_header "{\"a\":{$t:[0,8]}}\\0 \\0" 8
# offsets
bad_header "{\"a\":{$t:[0,8]},\"b\":{$t:[4,12]}}" 12  # overlapping
bad_header "{\"a\":{$t:[0,8]},\"b\":{$t:[0,8]}}" 8    # twice the same bytes
bad_header "{\"a\":{$t:[0,8]},\"b\":{$t:[12,20]}}" 20 # a hole
bad_header "{\"a\":{$t:[4,12]}}" 12                   # a hole in front
bad_header "{\"a\":{$t:[0,8]}}" 12                    # and behind
bad_header "{\"a\":{$t:[8,16]}}" 8                    # out of range
bad_header "{\"a\":{$t:[8,0]}}" 8                     # backwards
bad_header "{\"a\":{$t:[0,4]}}" 4                     # another size than the shape's
bad_header "{\"a\":{$t:[-8,0]}}" 8
bad_header "{\"a\":{$t:[0]}}" 8
bad_header "{\"a\":{$t:[0,8,16]}}" 8
bad_header "{\"a\":{$t:[0,8.5]}}" 8
bad_header "{\"a\":{$t:[0,\"8\"]}}" 8
bad_header "{\"a\":{$t:8}}" 8
bad_header "{\"a\":{$t:[18446744073709551608,18446744073709551616]}}" 8
bad_header "{\"a\":{$t:[18446744073709551608,0]}}" 8
bad_header "{\"a\":{$t:[9223372036854775800,9223372036854775808]}}" 8
# shapes and types
o='"data_offsets":[0,8]'
bad_header "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387906],$o}}" 8 # times 4 is 8, modulo 2^64
bad_header "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,2],$o}}" 8
bad_header "{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551615,18446744073709551614],$o}}" 8
bad_header "{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551618],$o}}" 8
bad_header "{\"a\":{\"dtype\":\"F32\",\"shape\":[0,18446744073709551616],\"data_offsets\":[0,0]}}"
bad_header "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],$o}}" 8
bad_header "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.5],$o}}" 8
bad_header "{\"a\":{\"dtype\":\"F32\",\"shape\":[\"2\"],$o}}" 8
bad_header "{\"a\":{\"dtype\":\"F32\",\"shape\":2,$o}}" 8
bad_header "{\"a\":{\"dtype\":\"F32\",\"shape\":null,$o}}" 8
bad_header "{\"a\":{\"dtype\":\"F32\",$o}}" 8
bad_header "{\"a\":{\"shape\":[2],$o}}" 8
bad_header "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}" 8
bad_header "{\"a\":{\"dtype\":\"Q9\",\"shape\":[2],$o}}" 8
bad_header "{\"a\":{\"dtype\":\"\",\"shape\":[2],$o}}" 8
bad_header "{\"a\":{\"dtype\":7,\"shape\":[2],$o}}" 8
bad_header "{\"a\":{\"dtype\":\"F32\\u0000\",\"shape\":[2],$o}}" 8
# names, keys, text
bad_header "{\"a\":{$t:[0,8]},\"a\":{$t:[8,16]}}" 16
bad_header "{\"a\":{$t:[0,8]},\"\\\\u0061\":{$t:[8,16]}}" 16 # spelt otherwise
bad_header "{\"a\":{$t:[0,8],\"dtype\":\"F32\"}}" 8
bad_header "{\"a\":{$t:[0,8],\"shape\":[2]}}" 8
bad_header "{\"__metadata__\":{\"a\":\"1\"},\"__metadata__\":{},\"a\":{$t:[0,8]}}" 8
bad_header "{\"__metadata__\":{\"a\":1},\"a\":{$t:[0,8]}}" 8
bad_header "{\"__metadata__\":[],\"a\":{$t:[0,8]}}" 8
bad_header "{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"},\"a\":{$t:[0,8]}}" 8
bad_header "{\"a\\xff\":{$t:[0,8]}}" 8
bad_header "{\"a\\xc0\\x80\":{$t:[0,8]}}" 8
bad_header "{\"a\\xed\\xa0\\x80\":{$t:[0,8]}}" 8
bad_header "{\"\\\\ud800\":{$t:[0,8]}}" 8
bad_header "{\"a\\nb\":{$t:[0,8]}}" 8
bad_header "{\"a\\\\u0000b\":{$t:[0,8]}}" 8
deep=$(printf '[%.0s' {1..20000})
bad_header "{\"a\":$deep" 8
bad_header "{\"a\":{\"shape\":$deep" 8
bad_header "{\"__metadata__\":$deep" 8

# --- config.json and the index

rm -rf b
cp -r base b
for text in '' '{' '[]' '3' '{"model_type": "llama"' '{"model_type": "llama"} x' "$(printf '{"\xfe": 1}')" \
	'{"model_type": "llama", "model_type": "llama"}' "{\"a\": $deep" '{"model_type": "llama", "a": {"b": 1, "b": 2}}'; do
	printf %s "$text" >b/config.json
	bad_base 'config\.json'
done
rm b/config.json
mkdir b/config.json
refused '3|4' 'config\.json' "$LORACTL" merge b adapter -o out
rm -r b
cp -r base b
rm b/model.safetensors
bad_base "'?b'?|safetensors"
printf 'PK\3\4' >b/pytorch_model.bin
bad_base 'pytorch_model\.bin|pickle'
mkdir b/model.safetensors
refused '3|4' 'model\.safetensors' "$LORACTL" merge b adapter -o out
rmdir b/model.safetensors
mkfifo b/model.safetensors
bad_base 'model\.safetensors'
rm b/model.safetensors
ln -s nowhere b/model.safetensors
bad_base 'model\.safetensors'
rm b/model.safetensors
ln -s model.safetensors b/model.safetensors
refused '3|4' 'model\.safetensors' "$LORACTL" merge b adapter -o out
rm -r b
mkdir b
bad_base "'?b'?"

rm -r b
cp -r base sharded
edit shards sharded 2
index=model.safetensors.index.json
one=model-00001-of-00002.safetensors
moved=model.norm.weight

# PATTERN JQ: the index, edited
bad_index()
{
	rm -rf b
	cp -r sharded b
	python3 - b/$index "$2" <<'PYTHON'
import json, sys
path, code = sys.argv[1:]
with open(path) as file:
    x = json.load(file)
m = x["weight_map"]
exec(code)
with open(path, "w") as file:
    json.dump(x, file)
PYTHON
	bad_base "$1"
}

done_reading "$LORACTL" merge -q sharded adapter --dry-run
bad_index 'model-00003' "m['$moved'] = 'model-00003-of-00002.safetensors'"
bad_index "$index|\\.\\./" "m['$moved'] = '../base/model.safetensors'"
bad_index "$index|/" "m['$moved'] = '$work/base/model.safetensors'"
bad_index "$index|/" "m['$moved'] = 'sub/model.safetensors'"
for name in . .. '' ./$one 'model-00001-of-00002.safetensors/' '..\\\\x'; do
	bad_index "$index|safetensors|shard" "m['$moved'] = '$name'"
done
bad_index "$index" "m['$moved'] = 3"
bad_index "$index" "m['$moved'] = None"
bad_index "$index" "x['weight_map'] = []"
bad_index "$index" "del x['weight_map']"
bad_index "$index|safetensors" "x['weight_map'] = {}"
bad_index "model\\.nothing|$index" "m['model.nothing'] = '$one'"
bad_index "$moved" "del m['$moved']"
bad_index "$moved" "m['$moved'] = next(v for v in m.values() if v != m['$moved'])"
for text in '' '{' '[]' "{\"a\": $deep" "$(printf '{"weight_map": {"\xff": "x"}}')" \
	"{\"weight_map\": {\"$moved\": \"$one\", \"$moved\": \"$one\"}}"; do
	rm -rf b
	cp -r sharded b
	printf %s "$text" >b/$index
	bad_base "$index"
done
rm -rf b
cp -r sharded b
edit duplicate_key b/$index metadata '{}'
bad_base "$index"
# One tensor in two shards.
rm -rf b
cp -r sharded b
edit add b/model-00002-of-00002.safetensors "$(tools header b/$one | sed -n '1s/ .*//p')" F32 6 1
bad_base "'model\.[^']*'"
rm b/$one
bad_base "$one"

expect_only base adapter a b sharded
