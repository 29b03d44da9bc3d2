"""Lays out the frozen segments of both format versions, from docs/format.md alone.

Written apart from kvd's own code, so that the two hold each other to the document. It was run once for each:
`python3 tests/python/make_golden.py 1 journal > tests/fixtures/v1/segment-00000000000000000001.log`
`python3 tests/python/make_golden.py 1 compacted > tests/fixtures/v1/segment-00000000000000000003.log`
`python3 tests/python/make_golden.py 2 journal > tests/fixtures/v2/segment-00000000000000000004.log`
`python3 tests/python/make_golden.py 2 compacted > tests/fixtures/v2/segment-00000000000000000003.log`
"""

import struct
import sys
from zlib import crc32

IDENTITY = bytes(range(16))
SECRET = bytes(range(0xF0, 0x100))
VERSION, COMPACTED = int(sys.argv[1]), sys.argv[2] == "compacted"
# The compacted one stands for segments 1 to 3 in the first version, and for 2 and 3 in the second.
FIRST = VERSION
NUMBER, EPOCH, GENERATION = (3, 0, 2) if COMPACTED else (1 if VERSION == 1 else 4, 0, 0)
SEED = crc32(IDENTITY + struct.pack("<QQ", NUMBER, EPOCH))
if COMPACTED:
    SEED = crc32(struct.pack("<I", GENERATION), SEED)
if VERSION == 2:
    SEED = crc32(SECRET, SEED)


def segment_header(length, next_version=1, link=(1, 0), durable=0, now=1_700_000_000_000, offset=0):
    head = b"\x89kvdlog\n" + struct.pack("<HHI", VERSION, 2 if COMPACTED else 1, GENERATION) + IDENTITY
    ranges = [(FIRST, 2)] if COMPACTED else []
    head += struct.pack("<QQQQQIIQQ", NUMBER, EPOCH, next_version, durable, *link, len(ranges), length, now)
    for first, last in ranges:
        head += struct.pack("<QQ", first, last)
    if VERSION == 2:
        head = head.ljust(112, b"\0") + struct.pack("<q", offset) + SECRET + struct.pack("<I", 0)
    head = head.ljust(4092, b"\0")
    return head + struct.pack("<I", crc32(head))


def place_sum(position, covered):
    return crc32(covered, crc32(struct.pack("<Q", position), SEED))


def varint(number):
    if number <= 250:
        return bytes([number])
    for mark, form, limit in ((0xFB, "<H", 2**16), (0xFC, "<I", 2**32), (0xFD, "<Q", 2**64)):
        if number < limit:
            return bytes([mark]) + struct.pack(form, number)
    raise ValueError(number)


def blob(data):
    return varint(len(data)) + data


def put(key, value, flags=0, deadline=0, space=0):
    return 1, bytes([space]) + varint(flags) + varint(deadline) + blob(key) + blob(value)


def remove(key, space=0):
    return 2, bytes([space]) + blob(key)


def flush(prefix=None):
    return 3, b"\0" if prefix is None else b"\1" + blob(prefix)


def record(position, version, marks, kind_and_payload):
    kind, payload = kind_and_payload
    covered = struct.pack("<IQBBH", len(payload), version, kind, marks, 0) + payload
    checksum = place_sum(position, covered)
    return checksum, struct.pack("<I", checksum) + covered


def batch(position, number, durable, next_version, now, chain, kind, records, offset=0):
    header = 72 if VERSION == 1 else 80
    body, sums = b"", b""
    if kind == 4:
        body = sums = b"".join(struct.pack("<QI", *dependency) for dependency in records)
    else:
        for version, marks, mutation in records:
            checksum, data = record(position + header + len(body), version, marks, mutation)
            body += data
            sums += struct.pack("<I", checksum)
    covered = struct.pack(
        "<QQQQQQIIIHH", number, durable[0], durable[1], next_version, now, len(body), chain, crc32(sums, SEED), len(records), kind, 0
    )
    if VERSION == 2:
        covered += struct.pack("<q", offset)
    checksum = place_sum(position, covered)
    magic = b"\xb7kvb" if VERSION == 1 else b"\xb7kvc"
    return checksum, magic + struct.pack("<I", checksum) + covered + body


def compacted_1():
    records = [(2, 3, put(b"k", b"", 0x7FFF_FFFF, 1_700_000_000_123)), (4, 3, remove(b"plain")), (7, 3, flush(b"user:"))]
    _, only = batch(4096, 1, (0, 9), 8, 1_700_000_000_789, 0, 1, records)
    sys.stdout.buffer.write(segment_header(4096 + len(only), durable=9) + only)


def journal_1():
    data = segment_header(0)
    first = [
        (1, 3, put(b"plain", b"value")),
        (2, 1, put(b"k", b"", 0x7FFF_FFFF, 1_700_000_000_123)),
        (3, 2, put(b"\x02", b"\xab" * 300, 1 << 31, 0, 1)),
        (4, 3, remove(b"plain")),
    ]
    second = [(5, 3, flush(b"user:")), (6, 3, flush())]
    chain = 0
    for number, durable, next_version, now, kind, records in (
        (1, (0, 0), 5, 1_700_000_000_456, 1, first),
        (2, (1, 4), 7, 1_700_000_000_789, 1, second),
        (3, (2, 6), 7, 1_700_000_000_789, 2, []),
    ):
        chain, written = batch(len(data), number, durable, next_version, now, chain, kind, records)
        data += written
    sys.stdout.buffer.write(data)


def compacted_2():
    first, dependencies = batch(4096, 1, (0, 8), 10, 1_700_000_000_700, 0, 4, [(1, 7)], -250)
    records = [(12, 3, put(b"k", b"", 0x7FFF_FFFF, 1_700_000_000_123)), (14, 3, put(b"last", b"v"))]
    _, rest = batch(4096 + len(dependencies), 2, (1, 8), 15, 1_700_000_000_789, first, 1, records, -250)
    length = 4096 + len(dependencies) + len(rest)
    header = segment_header(length, 10, (5, 77), 40, 1_700_000_000_700, -250)
    sys.stdout.buffer.write(header + dependencies + rest)


def journal_2():
    data = segment_header(0, 20, (9, 0xC0FFEE), 19, 1_700_000_000_800, -250)
    first = [
        (20, 3, put(b"plain", b"value")),
        (21, 1, put(b"k", b"", 0x7FFF_FFFF, 1_700_000_000_123)),
        (22, 2, put(b"\x02", b"\xab" * 300, 1 << 31, 0, 1)),
        (23, 3, remove(b"plain")),
    ]
    second = [(24, 7, remove(b"k")), (25, 3, flush(b"user:")), (26, 3, flush())]
    chain = 0xC0FFEE
    for number, durable, next_version, now, offset, kind, records in (
        (9, (8, 19), 24, 1_700_000_000_900, -250, 1, first),
        (10, (9, 23), 24, 1_700_000_000_950, 90_000, 3, []),
        (11, (10, 23), 27, 1_700_000_001_000, 90_000, 1, second),
        (12, (11, 26), 27, 1_700_000_001_000, 90_000, 2, []),
    ):
        chain, written = batch(len(data), number, durable, next_version, now, chain, kind, records, offset)
        data += written
    sys.stdout.buffer.write(data)


globals()[f"{sys.argv[2]}_{VERSION}"]()
