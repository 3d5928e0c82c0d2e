#!/usr/bin/env python3
"""Makes the vectors of SPEC §20 from the text alone, with other people's CBOR and Ed25519.

Needs the packages cbor2 and cryptography. What it writes is committed.
"""

from pathlib import Path

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HERE = Path(__file__).parent / "vectors" / "wish"
KEY = Ed25519PrivateKey.from_private_bytes(bytes([7] * 32))
ALICE = KEY.public_key().public_bytes_raw()
WEAK = bytes([1]) + bytes(31)
A, B = bytes([1] * 32), bytes([2] * 32)
FETCH = ["fetch/1", "sha256", bytes([1] * 32), False]
BUILD = [
    "wasi-p1/1", [["/in/a", ["a"], None, None, None]], [], "{}", [["a", A], ["b", B]], ["out"], [],
]


def wish(actions, number=1, attester=ALICE, context=b"assize 2026-11 wish\n", signed=None):
    signature = KEY.sign(context + cbor2.dumps([attester, number, actions if signed is None else signed]))
    return cbor2.dumps([attester, number, actions, signature])


MANY = [n.to_bytes(32, "big") for n in range(257)]
VECTORS = {
    "ok_wish.wish": wish([A, B]),
    "ok_withdrawn.wish": wish([]),
    "ok_longest.wish": wish(MANY[:256], number=2**64 - 1),
    "too_many.wish": wish(MANY),
    "out_of_order.wish": wish([B, A]),
    "twice.wish": wish([A, A]),
    "other_actions_signed.wish": wish([A], signed=[B]),
    "signed_as_statement.wish": wish([A], context=b"assize 2026-11 statement\n"),
    "weak_key.wish": wish([A], attester=WEAK),
    "number_negative.wish": wish([A], number=-1),
    "action_short.wish": wish([A[:31]]),
    "trailing.wish": wish([A]) + b"\0",
    "signature_missing.wish": cbor2.dumps([ALICE, 1, [A]]),
    "number_long.wish": wish([A]).replace(ALICE + b"\x01", ALICE + b"\x18\x01", 1),
    "ok_request.request": cbor2.dumps(["action", A]),
    "request_short.request": cbor2.dumps(["action", A[:31]]),
    "request_more.request": cbor2.dumps(["action", A, 1]),
    "ok_fetch.answer": cbor2.dumps(["action", FETCH, None, []]),
    "ok_build.answer": cbor2.dumps(["action", BUILD, "lua", [96, 0]]),
    "ok_absent.answer": cbor2.dumps(["absent"]),
    "lengths_fewer.answer": cbor2.dumps(["action", BUILD, "lua", [96]]),
    "lengths_of_a_fetch.answer": cbor2.dumps(["action", FETCH, None, [96]]),
    "name_bad.answer": cbor2.dumps(["action", FETCH, "-", []]),
    "name_missing.answer": cbor2.dumps(["action", FETCH, []]),
    "absent_more.answer": cbor2.dumps(["absent", 1]),
}

HERE.mkdir(parents=True, exist_ok=True)
for name, content in VECTORS.items():
    (HERE / name).write_bytes(content)
