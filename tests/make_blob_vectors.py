#!/usr/bin/env python3
"""Makes the vectors of SPEC §18 from the text alone, with other people's CBOR and a BLAKE3 of its own, since
none shows the nodes of its tree; its root is compared with that of the package.

Needs the packages cbor2 and blake3. What it writes is committed.
"""

from pathlib import Path
from struct import pack, unpack

import cbor2
from blake3 import blake3

HERE = Path(__file__).parent / "vectors" / "blob"
GROUP, PIECE = 16 << 10, 1 << 20
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
START, END, PARENT, ROOT = 1, 2, 4, 8
MASK = 0xFFFFFFFF


def compress(cv, block, counter, length, flags):
    m = list(unpack("<16I", block.ljust(64, b"\0")))
    v = [*cv, *IV[:4], counter & MASK, counter >> 32, length, flags]

    def g(a, b, c, d, x, y):
        v[a] = (v[a] + v[b] + x) & MASK
        v[d] = ((v[d] ^ v[a]) >> 16 | (v[d] ^ v[a]) << 16) & MASK
        v[c] = (v[c] + v[d]) & MASK
        v[b] = ((v[b] ^ v[c]) >> 12 | (v[b] ^ v[c]) << 20) & MASK
        v[a] = (v[a] + v[b] + y) & MASK
        v[d] = ((v[d] ^ v[a]) >> 8 | (v[d] ^ v[a]) << 24) & MASK
        v[c] = (v[c] + v[d]) & MASK
        v[b] = ((v[b] ^ v[c]) >> 7 | (v[b] ^ v[c]) << 25) & MASK

    for round in range(7):
        for n, (a, b, c, d) in enumerate(((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))):
            g(a, b, c, d, m[2 * n], m[2 * n + 1])
        for n, (a, b, c, d) in enumerate(((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))):
            g(a, b, c, d, m[8 + 2 * n], m[9 + 2 * n])
        m = [m[n] for n in ORDER]
    return [v[n] ^ v[n + 8] for n in range(8)]


def chunk(data, counter, root):
    cv = IV
    blocks = [data[n : n + 64] for n in range(0, len(data), 64)] or [b""]
    for n, block in enumerate(blocks):
        flags = (START if n == 0 else 0) | ((END | (ROOT if root else 0)) if n == len(blocks) - 1 else 0)
        cv = compress(cv, block, counter, len(block), flags)
    return pack("<8I", *cv)


def parent(left, right, root):
    return pack("<8I", *compress(IV, left + right, 0, 64, PARENT | (ROOT if root else 0)))


def split(length):
    """How many bytes are left of the root: the largest power of two of chunks that leaves some to the right."""
    return 1 << (length - 1).bit_length() - 1


def subtree(data, start, root):
    """The chaining value of the bytes from `start` on."""
    if len(data) <= 1024:
        return chunk(data, start // 1024, root)
    left = split(len(data))
    return parent(subtree(data[:left], start, False), subtree(data[left:], start + left, False), root)


def body(data, start, end, at=0):
    """What proves the bytes from `start` to `end`, of which `data` has those from `at` on."""
    if at >= end or at + len(data) <= start:
        return b""
    if len(data) <= GROUP:
        return data
    left = split(len(data))
    pair = subtree(data[:left], at, False) + subtree(data[left:], at + left, False)
    return pair + body(data[:left], start, end, at) + body(data[left:], start, end, at + left)


def write(name, value):
    HERE.mkdir(exist_ok=True)
    (HERE / name).write_bytes(value)


def request(nar, size, piece, zstd=False):
    return cbor2.dumps(["piece", nar, size, piece, zstd])


def vector(name, nar, size, piece, content):
    write(f"{name}.body", content)
    write(f"{name}.of", request(nar, size, piece))


NAR = b"\x0b" * 32
write("ok_first.range", request(NAR, PIECE + 1, 0))
write("ok_last_compressed.range", request(NAR, PIECE + 1, 1, True))
write("piece_behind_end.range", request(NAR, PIECE, 1))
write("piece_of_nothing.range", request(NAR, 0, 0))
write("range_unknown.range", cbor2.dumps(["bytes", NAR, 1, 0, False]))
write("range_short.range", cbor2.dumps(["piece", NAR, 1, 0]))
write("range_too_long.range", cbor2.dumps(["piece", bytes(100), 1, 0, False]))
write("ok_piece.offer", cbor2.dumps(["piece", True, PIECE + GROUP]))
write("ok_absent.offer", cbor2.dumps(["absent"]))
write("ok_busy.offer", cbor2.dumps(["busy"]))
write("offer_unknown.offer", cbor2.dumps(["soon"]))
write("offer_too_long.offer", cbor2.dumps(["piece", False, PIECE + GROUP + 1]))

# Three groups and a bit, in one piece; and twenty kilobytes behind the first piece of another.
SMALL = b"".join(n.to_bytes(4, "little") for n in range(3 * GROUP // 4 + 7))
LARGE = b"".join(n.to_bytes(4, "big") for n in range((PIECE + 20_000) // 4))
SMALL_ROOT, LARGE_ROOT = subtree(SMALL, 0, True), subtree(LARGE, 0, True)
assert SMALL_ROOT == blake3(SMALL).digest() and LARGE_ROOT == blake3(LARGE).digest()
SMALL_BODY = body(SMALL, 0, PIECE)
LAST_BODY = body(LARGE, PIECE, 2 * PIECE)
vector("ok_one_piece", SMALL_ROOT, len(SMALL), 0, SMALL_BODY)
vector("ok_last_piece", LARGE_ROOT, len(LARGE), 1, LAST_BODY)
vector("ok_one_group", blake3(b"short").digest(), 5, 0, b"short")
vector("leaf_flipped", SMALL_ROOT, len(SMALL), 0, SMALL_BODY[:-1] + bytes([SMALL_BODY[-1] ^ 1]))
vector("node_flipped", SMALL_ROOT, len(SMALL), 0, bytes([SMALL_BODY[0] ^ 1]) + SMALL_BODY[1:])
vector("body_cut", SMALL_ROOT, len(SMALL), 0, SMALL_BODY[:-1])
vector("body_longer", SMALL_ROOT, len(SMALL), 0, SMALL_BODY + b"\0")
vector("body_empty", SMALL_ROOT, len(SMALL), 0, b"")
vector("body_of_other_piece", LARGE_ROOT, len(LARGE), 0, LAST_BODY)
vector("body_of_other_archive", blake3(b"other").digest(), len(SMALL), 0, SMALL_BODY)
vector("size_less_by_one", SMALL_ROOT, len(SMALL) - 1, 0, SMALL_BODY)
vector("size_more_by_one", SMALL_ROOT, len(SMALL) + 1, 0, SMALL_BODY)
