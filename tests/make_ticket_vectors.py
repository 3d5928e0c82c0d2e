#!/usr/bin/env python3
"""Makes the vectors of SPEC §19 from the text alone, with other people's CBOR and BLAKE3.

Needs the packages cbor2 and blake3. What it writes is committed.
"""

from base64 import b32encode
from pathlib import Path

import cbor2
from blake3 import blake3

HERE = Path(__file__).parent / "vectors" / "ticket"
NODE = bytes([9] * 32)
# The public key of the secret key of 32 bytes 07, as in the vectors of statements.
ALICE = bytes.fromhex("ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c")
ADDRESS = "/ip4/192.0.2.1/tcp/4720"


def text(encoding, check=None):
    check = blake3(encoding, derive_key_context="assize 2026-11 ticket check").digest()[:4] if check is None else check
    return "peer:" + b32encode(encoding + check).decode().rstrip("=").lower()


def ticket(node=NODE, attester=ALICE, addresses=(ADDRESS,), version=1):
    return cbor2.dumps([version, node, attester, list(addresses)])


GOOD = text(ticket())
VECTORS = {
    "ok_ticket": GOOD,
    "ok_no_attester": text(ticket(attester=None)),
    "ok_large_letters": GOOD.upper(),
    "ok_eight_longest_addresses": text(ticket(addresses=["a" * 256] * 8)),
    "ok_address_that_nobody_understands": text(ticket(addresses=["/carrier-pigeon/nest/7"])),
    "beginning_other": "node:" + GOOD[5:],
    "beginning_missing": GOOD[5:],
    "text_too_long": "peer:" + "a" * 4092,
    "character_outside": GOOD[:-1] + "1",
    "padded": GOOD + "=",
    "check_wrong": text(ticket(), b"\0\0\0\0"),
    "check_missing": text(ticket(), b""),
    "cut": GOOD[:-8],
    "empty": "peer:",
    "version_other": text(ticket(version=2)),
    "node_short": text(ticket(node=bytes(31))),
    "attester_short": text(ticket(attester=bytes(31))),
    "attester_weak": text(ticket(attester=bytes([1] + [0] * 31))),
    "address_none": text(ticket(addresses=[])),
    "address_nine": text(ticket(addresses=[ADDRESS] * 9)),
    "address_empty": text(ticket(addresses=[""])),
    "address_too_long": text(ticket(addresses=["a" * 257])),
    "address_space": text(ticket(addresses=["/ip4/192.0.2.1 /tcp/4720"])),
    "address_escape": text(ticket(addresses=["/dns/\x1b[31m/tcp/4720"])),
    "address_not_ascii": text(ticket(addresses=["/dns/m\u00fcnchen.example/tcp/4720"])),
    "more_behind": text(ticket() + b"\0"),
    "indefinite_length": text(b"\x9f" + ticket()[1:] + b"\xff"),
    "not_shortest": text(b"\x84\x18\x01" + ticket()[2:]),
}

HERE.mkdir(parents=True, exist_ok=True)
for name, content in VECTORS.items():
    (HERE / f"{name}.ticket").write_text(content)
