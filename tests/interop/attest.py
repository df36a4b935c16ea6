#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Statements about merges, judged by a verifier of its own: DSSE and in-toto from their specifications, Ed25519 from
`cryptography`, SHA-256 from hashlib. It accepts what `merge --sign` wrote and rejects every forgery below; and
`loractl verify` agrees with it about each.

    attest.py LORACTL
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TINY = os.path.join(os.environ["SRC"], "tests", "data", "tiny")
TYPE = "application/vnd.in-toto+json"


class Rejected(Exception):
    pass


def pae(kind, payload):
    kind = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def decode(text):
    return base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)


def verify(path, public):
    """The statement in that envelope, if the key signed it and the files beside it are its subjects."""
    try:
        envelope = json.load(open(path))
        payload = decode(envelope["payload"])
        message = pae(envelope["payloadType"], payload)
        signatures = [decode(s["sig"]) for s in envelope["signatures"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Rejected("malformed: %s" % error)
    if envelope["payloadType"] != TYPE:
        raise Rejected("type")
    for signature in signatures:
        try:
            public.verify(signature, message)
            break
        except InvalidSignature:
            pass
    else:
        raise Rejected("signature")
    statement = json.loads(payload)
    if statement["_type"] != "https://in-toto.io/Statement/v1":
        raise Rejected("statement type")
    for subject in statement["subject"]:
        if "sha256" not in subject["digest"]:
            continue
        file = os.path.join(os.path.dirname(path), subject["name"])
        if not os.path.isfile(file) or hashlib.sha256(open(file, "rb").read()).hexdigest() != subject["digest"]["sha256"]:
            raise Rejected("subject " + subject["name"])
    return statement


def minisign_public(path):
    data = base64.b64decode(open(path).read().split("\n")[1])
    assert data[:2] == b"Ed" and len(data) == 42
    return Ed25519PublicKey.from_public_bytes(data[10:])


def minisign_secret(path):
    data = base64.b64decode(open(path).read().split("\n")[1])
    return Ed25519PrivateKey.from_private_bytes(data[62:94])


def seal(payload, key, kind=TYPE, keyid=""):
    signature = key.sign(pae(kind, payload))
    return {"payload": base64.b64encode(payload).decode(), "payloadType": kind,
            "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}]}


def main(loractl):
    work = tempfile.mkdtemp(prefix="attest-")
    os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_STATE_HOME"] = os.path.join(work, "home")
    os.chdir(work)

    def run(*arguments):
        return subprocess.run([loractl, *arguments], capture_output=True, text=True).returncode

    for name in ("good", "other"):
        assert run("keygen", "-o", name, "--no-passphrase") == 0
    shutil.copytree(os.path.join(TINY, "llama"), "base")
    assert run("merge", "base", os.path.join(TINY, "llama-adapter"), "-o", "out", "--sign", "good.key") == 0
    public, secret = minisign_public("good.pub"), minisign_secret("good.key")
    assert secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) == \
        public.public_bytes(Encoding.Raw, PublicFormat.Raw), "the two halves of the key"
    path = os.path.join("out", "loractl-receipt.intoto.json")
    original = open(path).read()

    # What it says.
    statement = verify(path, public)
    receipt = json.load(open("out/loractl-receipt.json"))
    predicate = statement["predicate"]
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert [(s["name"], s["digest"]) for s in statement["subject"]] == \
        [(f["name"], {"sha256": f["sha256"]}) for f in receipt["merged"]["files"]] + \
        [("merged", {"loractlRoot1": receipt["merged"]["root"]})]
    definition = predicate["buildDefinition"]
    assert definition["buildType"] == "urn:loractl:merge:1"
    assert definition["externalParameters"] == {"operation": "merge", "adapters": receipt["adapters"],
                                                "options": receipt["options"]}
    assert definition["internalParameters"] == {"arithmetic": receipt["arithmetic"]}
    assert definition["resolvedDependencies"][1]["digest"]["sha256"] == \
        hashlib.sha256(open("base/model.safetensors", "rb").read()).hexdigest()
    assert predicate["runDetails"]["byproducts"][0]["digest"]["sha256"] == \
        hashlib.sha256(open("out/loractl-receipt.json", "rb").read()).hexdigest()
    payload = decode(json.loads(original)["payload"])
    assert payload == json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    print("accepted: the statement of a merge")

    # What stays right: other JSON around it, the other alphabet, a false hint, a second signature that is nobody's.
    def agree(name, envelope, accepted, write=None):
        with open(path, "w") as file:
            file.write(envelope if isinstance(envelope, str) else json.dumps(envelope))
        if write:
            write()
        try:
            verify(path, public)
            mine = True
        except Rejected:
            mine = False
        status = run("verify", path, "-p", "good.pub")
        assert mine == accepted, "%s: the reference says %s" % (name, mine)
        assert (status == 0) == accepted and status in (0, 1, 3), "%s: loractl verify exits with %d" % (name, status)
        print("%s: %s" % ("accepted" if accepted else "rejected", name))

    envelope = json.loads(original)

    def changed(**members):
        return dict(envelope, **members)

    signature = envelope["signatures"][0]
    other = minisign_secret("other.key")
    agree("indented, other order", json.dumps(envelope, indent=3, sort_keys=True), True)
    agree("URL-safe base64", changed(payload=envelope["payload"].replace("+", "-").replace("/", "_"), signatures=[
        dict(signature, sig=signature["sig"].replace("+", "-").replace("/", "_"))]), True)
    agree("a keyid that is false", changed(signatures=[dict(signature, keyid="0" * 16)]), True)
    agree("no keyid", changed(signatures=[{"sig": signature["sig"]}]), True)
    agree("another's signature in front", changed(signatures=seal(payload, other)["signatures"] + [signature]), True)

    # Ten forgeries, and some more.
    flipped = bytearray(decode(signature["sig"]))
    flipped[40] ^= 4
    false = json.loads(payload)
    false["subject"][0]["digest"]["sha256"] = "0" * 64
    model = open("out/model.safetensors", "rb").read()

    def spoil():
        with open("out/model.safetensors", "wb") as file:
            file.write(model[:-1] + bytes([model[-1] ^ 1]))

    group = 2 ** 252 + 27742317777372353535851937790883648493
    raised = decode(signature["sig"])
    raised = raised[:32] + (int.from_bytes(raised[32:], "little") + group).to_bytes(32, "little")
    raw = secret.sign(payload)
    agree("1: a bit of the signature", changed(signatures=[
        dict(signature, sig=base64.b64encode(bytes(flipped)).decode())]), False)
    agree("2: another payload", changed(payload=base64.b64encode(json.dumps(false).encode()).decode()), False)
    agree("3: another's key, with our key's id", seal(payload, other, keyid=signature["keyid"]), False)
    agree("4: another payload type", seal(payload, secret, kind="application/json"), False)
    agree("5: the type changed after signing", changed(payloadType="application/vnd.in-toto+json "), False)
    agree("6: a signature over the bare payload", changed(signatures=[
        dict(signature, sig=base64.b64encode(raw).decode())]), False)
    agree("7: no signature", changed(signatures=[]), False)
    agree("8: s + L, another spelling of the signature", changed(signatures=[
        dict(signature, sig=base64.b64encode(raised).decode())]), False)
    agree("9: a subject that is not there", seal(json.dumps(dict(
        json.loads(payload), subject=[{"name": "nothing", "digest": {"sha256": "0" * 64}}])).encode(), secret), False)
    agree("10: a statement of another type", seal(json.dumps(dict(
        json.loads(payload), _type="https://in-toto.io/Statement/v0.1")).encode(), secret), False)
    agree("11: a signature that is cut off", changed(signatures=[dict(signature, sig=signature["sig"][:-4])]), False)
    agree("12: the file changed", original, False, spoil)
    with open("out/model.safetensors", "wb") as file:
        file.write(model)
    # Minisign's signature over the same bytes is not one over a statement.
    with open("payload", "wb") as file:
        file.write(payload)
    assert run("sign", "payload", "-k", "good.key") == 0
    minisig = base64.b64decode(open("payload.minisig").read().split("\n")[1])[10:]
    agree("13: minisign's signature over the payload", changed(signatures=[
        dict(signature, sig=base64.b64encode(minisig).decode())]), False)
    for name, text in (("not JSON", "{"), ("an array", "[]"), ("no payload", json.dumps({"payloadType": TYPE, "signatures": []})),
                       ("payload no base64", json.dumps(changed(payload="!" + envelope["payload"])))):
        agree("14: " + name, text, False)
    agree("again, as it was", original, True)

    # Subjects that lead out of the directory are refused by us, whatever stands there.
    out = seal(json.dumps(dict(json.loads(payload), subject=[{"name": "../payload", "digest": {
        "sha256": hashlib.sha256(payload).hexdigest()}}])).encode(), secret)
    with open(path, "w") as file:
        json.dump(out, file)
    assert run("verify", path, "-p", "good.pub") == 1, "a subject outside the directory was accepted"
    shutil.rmtree(work)


main(os.path.abspath(sys.argv[1]))
