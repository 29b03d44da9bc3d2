"""Lays out the frozen segments of format version 1, from docs/format.md alone.

Written apart from kvd's own code, so that the two hold each other to the document. It was run once for each:
`python3 tests/python/make_golden.py journal > tests/fixtures/v1/segment-00000000000000000001.log`
`python3 tests/python/make_golden.py compacted > tests/fixtures/v1/segment-00000000000000000003.log`
"""

import struct
import sys
from zlib import crc32

IDENTITY = bytes(range(16))
COMPACTED = sys.argv[1:] == ["compacted"]
# The compacted one stands for segments 1 to 3.
NUMBER, EPOCH, GENERATION = (3, 0, 2) if COMPACTED else (1, 0, 0)
SEED = crc32(IDENTITY + struct.pack("<QQ", NUMBER, EPOCH))
if COMPACTED:
    SEED = crc32(struct.pack("<I", GENERATION), SEED)


def segment_header(length):
    head = b"\x89kvdlog\n" + struct.pack("<HHI", 1, 2 if COMPACTED else 1, GENERATION) + IDENTITY
    ranges = [(1, 2)] if COMPACTED else []
    watermark = 9 if COMPACTED else 0
    head += struct.pack("<QQQQQIIQQ", NUMBER, EPOCH, 1, watermark, 1, 0, len(ranges), length, 1_700_000_000_000)
    for first, last in ranges:
        head += struct.pack("<QQ", first, last)
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


def batch(position, number, durable, next_version, now, chain, kind, records):
    body, sums = b"", b""
    for version, marks, mutation in records:
        checksum, data = record(position + 72 + len(body), version, marks, mutation)
        body += data
        sums += struct.pack("<I", checksum)
    covered = struct.pack(
        "<QQQQQQIIIHH", number, durable[0], durable[1], next_version, now, len(body), chain, crc32(sums, SEED), len(records), kind, 0
    )
    checksum = place_sum(position, covered)
    return checksum, b"\xb7kvb" + struct.pack("<I", checksum) + covered + body


def compacted():
    records = [(2, 3, put(b"k", b"", 0x7FFF_FFFF, 1_700_000_000_123)), (4, 3, remove(b"plain")), (7, 3, flush(b"user:"))]
    _, only = batch(4096, 1, (0, 9), 8, 1_700_000_000_789, 0, 1, records)
    sys.stdout.buffer.write(segment_header(4096 + len(only)) + only)


def journal():
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


if COMPACTED:
    compacted()
else:
    journal()
