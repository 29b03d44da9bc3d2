"""Lays out the frozen segment of format version 1, from docs/format.md alone.

Written apart from kvd's own code, so that the two hold each other to the document. It was run once:
`python3 tests/python/make_golden.py > tests/fixtures/v1/segment-00000000000000000001.log`
"""

import struct
import sys
from zlib import crc32

IDENTITY = bytes(range(16))
NUMBER, EPOCH = 1, 0
SEED = crc32(IDENTITY + struct.pack("<QQ", NUMBER, EPOCH))


def segment_header():
    head = b"\x89kvdlog\n" + struct.pack("<HHI", 1, 1, 0) + IDENTITY
    head += struct.pack("<QQQQQIIQQ", NUMBER, EPOCH, 1, 0, 1, 0, 0, 0, 1_700_000_000_000)
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


def main():
    data = segment_header()
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


main()
