#!/usr/bin/env python3
"""Makes the vectors of SPEC §10, §12 and §17 from the text alone, with other people's CBOR, BLAKE3 and Ed25519.

Needs the packages cbor2, blake3 and cryptography. What it writes is committed.
"""

from pathlib import Path

import cbor2
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HERE = Path(__file__).parent / "vectors"
STATEMENT, SUCCESSION, REVOCATION = (f"assize 2026-11 {kind}\n".encode() for kind in ("statement", "succession", "revocation"))


def key(n):
    private = Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)
    return private, private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def identity(statement):
    return blake3(statement, derive_key_context="assize 2026-11 statement").digest()


ALICE, A = key(1)
BOB, B = key(2)
ACTION, NAR, WITNESS, ZEROS = b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 32, bytes(32)
PLATFORM = ["wasmtime-48.0.8", "x86_64", "linux"]
BUILT = ["built", ACTION, [["out", NAR, 112]], WITNESS, PLATFORM]


def encoded(seq=0, prev=ZEROS, body=BUILT, attester=A, version=1, time=1_800_000_000):
    return cbor2.dumps([version, attester, seq, prev, time, body])


def signed(statement, signer=ALICE, context=STATEMENT):
    return signer.sign(context + statement) + statement


def write(name, data):
    (HERE / name).write_bytes(data)


def statement(name, *args, **fields):
    write(f"statement/{name}.stm", signed(encoded(*args, **fields)))


FIRST = encoded()
ID = identity(FIRST)
CONSENT = BOB.sign(SUCCESSION + A + B)

statement("ok_built")
statement("ok_built_without_witness", body=["built", ACTION, [["dev", NAR, 112], ["out", NAR, 112]], None, PLATFORM])
statement("ok_failed", body=["failed", ACTION, 2, ["exit", 1], PLATFORM])
statement("ok_retract", 1, ID, ["retract", 0, 0])
statement("ok_succeed", 1, ID, ["succeed", B, CONSENT])
statement("version_unknown", version=2)
statement("prev_at_start", prev=ID)
statement("prev_zeros", 1)
statement("time_late", time=253_402_300_800)
statement("outputs_none", body=["built", ACTION, [], WITNESS, PLATFORM])
statement("outputs_out_of_order", body=["built", ACTION, [["out", NAR, 1], ["dev", NAR, 1]], WITNESS, PLATFORM])
statement("outputs_twice", body=["built", ACTION, [["out", NAR, 1], ["out", NAR, 1]], WITNESS, PLATFORM])
statement("output_name_bad", body=["built", ACTION, [["a/b", NAR, 1]], WITNESS, PLATFORM])
statement("witness_short", body=["built", ACTION, [["out", NAR, 1]], WITNESS[1:], PLATFORM])
statement("platform_short", body=["built", ACTION, [["out", NAR, 1]], WITNESS, PLATFORM[1:]])
statement("ending_exit_zero", body=["failed", ACTION, 1, ["exit", 0], PLATFORM])
statement("ending_signal_high", body=["failed", ACTION, 1, ["signal", 31], PLATFORM])
statement("ending_timed_out", body=["failed", ACTION, 1, ["timeout", 0], PLATFORM])
statement("retract_itself", 1, ID, ["retract", 0, 1])
statement("retract_backwards", 2, ID, ["retract", 1, 0])
statement("succeed_itself", 1, ID, ["succeed", A, ALICE.sign(SUCCESSION + A + A)])
statement("consent_missing", 1, ID, ["succeed", B, bytes(64)])
statement("consent_to_another", 1, ID, ["succeed", B, BOB.sign(SUCCESSION + B + A)])
statement("kind_unknown", body=["praised", ACTION])
statement("body_long", body=BUILT + [1])
statement("attester_short", attester=A[1:])
write("statement/signature_forged.stm", signed(encoded(), BOB))
write("statement/signature_changed.stm", signed(encoded(time=1))[:64] + encoded(time=2))
write("statement/context_revocation.stm", signed(encoded(), context=REVOCATION))
write("statement/context_none.stm", signed(encoded(), context=b""))
write("statement/signature_short.stm", signed(encoded())[:63])
write("statement/key_weak.stm", bytes([1]) + bytes(63) + encoded(attester=bytes([1]) + bytes(31)))
write("statement/trailing_byte.stm", signed(encoded() + b"\0"))
write("statement/integer_long.stm", signed(encoded().replace(cbor2.dumps(ZEROS), cbor2.dumps(ZEROS), 1).replace(b"\x86\x01", b"\x86\x18\x01", 1)))
write("statement/array_indefinite.stm", signed(b"\x9f" + encoded()[1:] + b"\xff"))
write("statement/map.stm", signed(cbor2.dumps({0: 1, 1: A})))
write("statement/empty.stm", b"")

MAGIC = b"assize evidence 1\n"


def item(*fields):
    return cbor2.dumps(list(fields))


def evidence(name, *items, magic=MAGIC):
    write(f"evidence/{name}.evidence", magic + b"".join(items))


def revocation(signer, attester, since, context=REVOCATION):
    return item("revocation", attester, since, signer.sign(context + attester + since.to_bytes(8, "big")))


ONE = signed(FIRST)
RIVAL = signed(encoded(time=1_800_000_001))
NEXT = signed(encoded(1, ID))
STRAY = signed(encoded(1, identity(RIVAL[64:])))
FOREIGN = signed(encoded(attester=B), BOB)

evidence("ok_empty")
evidence(
    "ok_all",
    item("statement", ONE),
    item("statement", NEXT),
    revocation(BOB, B, 7),
    item("equivocation", ONE, RIVAL),
)
evidence("ok_equivocation_by_chain", item("equivocation", ONE, STRAY))
evidence("ok_equivocation_backwards", item("equivocation", STRAY, ONE))
evidence("magic_missing", item("statement", ONE), magic=b"")
evidence("magic_other", magic=b"assize evidence 2\n")
evidence("equivocation_same_statement", item("equivocation", ONE, ONE))
evidence("equivocation_in_order", item("equivocation", ONE, NEXT))
evidence("equivocation_two_attesters", item("equivocation", ONE, FOREIGN))
evidence("equivocation_forged", item("equivocation", ONE, signed(encoded(time=5), BOB)))
evidence("revocation_forged", revocation(ALICE, B, 0))
evidence("revocation_as_statement", revocation(BOB, B, 0, STATEMENT))
evidence("statement_forged", item("statement", signed(encoded(), BOB)))
evidence("kind_unknown", item("praise", ONE))
evidence("item_cut", item("statement", ONE)[:-1])
evidence("item_behind_good_one_cut", item("statement", ONE), item("statement", NEXT)[:20])
evidence("item_long_length", b"\x98\x02" + item("statement", ONE)[1:])
evidence("item_not_an_array", cbor2.dumps("statement"))

# SPEC §17: requests, answers and gossip.
FIRST_ITEM = ["statement", signed(FIRST)]
REVOKED = ["revocation", A, 3, ALICE.sign(REVOCATION + A + (3).to_bytes(8, "big"))]
FORK = ["equivocation", signed(encoded(time=1)), signed(encoded(time=2))]


def digest(*proofs):
    places = [p[2] for p in proofs if p[0] == "revocation"]
    known = min(places).to_bytes(8, "big") if places else b""
    known += b"\xff" if any(p[0] == "equivocation" for p in proofs) else b""
    return blake3(known, derive_key_context="assize 2026-11 proofs").digest() if proofs else ZEROS


def message(name, value, behind=b""):
    write(f"message/{name}", cbor2.dumps(value) + behind)


LOW, HIGH = sorted((A, B))
HEAD = [LOW, 1, ID, digest(REVOKED, FORK)]
message("ok_heads_all.request", ["heads", None])
message("ok_heads_behind.request", ["heads", A])
message("ok_statements.request", ["statements", A, 2**64 - 1])
message("ok_proofs.request", ["proofs", A])
message("request_unknown.request", ["blobs", A])
message("request_long.request", ["proofs", A, 0])
message("request_key_short.request", ["proofs", A[1:]])
message("request_trailing.request", ["heads", None], b"\x00")
message("request_too_long.request", ["heads", bytes(9216)])
message("ok_heads.answer", ["heads", [HEAD, [HIGH, 0, ZEROS, ZEROS]], True])
message("ok_heads_none.answer", ["heads", [], False])
message("ok_items.answer", ["items", [FIRST_ITEM, REVOKED, FORK]])
message("ok_items_none.answer", ["items", []])
message("ok_busy.answer", ["busy"])
message("ok_absent.answer", ["absent"])
message("ok_action.request", ["action", ACTION])
message("ok_log.request", ["log", ACTION])
message("ok_log.answer", ["log", b"\x1b[31merror\n", 2**40])
message("ok_log_empty.answer", ["log", b"", 0])
message("log_long.answer", ["log", bytes(65537), 0])
message("log_text.answer", ["log", "error", 0])
message("ok_have.request", ["have", [ACTION, NAR]])
message("have_nothing.request", ["have", []])
message("have_out_of_order.request", ["have", [NAR, ACTION]])
message("have_too_many.request", ["have", [n.to_bytes(32, "big") for n in range(257)]])
message("ok_here.answer", ["here", [NAR]])
message("ok_here_none.answer", ["here", []])
message("here_twice.answer", ["here", [NAR, NAR]])
message("heads_out_of_order.answer", ["heads", [[HIGH, 0, ZEROS, ZEROS], HEAD], False])
message("heads_twice.answer", ["heads", [HEAD, HEAD], False])
message("heads_digest_short.answer", ["heads", [[LOW, 1, ID, ZEROS[1:]]], False])
message("items_too_many.answer", ["items", [REVOKED] * 1025])
message("answer_unknown.answer", ["sorry"])
message("ok_gossip.gossip", [FIRST_ITEM, REVOKED])
message("gossip_about_nothing.gossip", [])
message("gossip_no_list.gossip", {})
