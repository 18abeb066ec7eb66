"""Record batches for the cases, sound and otherwise. Must not depend on what is asked with them."""

from __future__ import annotations

import struct
import time
from typing import Any

from crc32c import crc32c

from ottla.records.builder import NO_PRODUCER, Producer, build_batch
from ottla.records.reader import Record

NOW_MS = int(time.time()) * 1000
"""The same for both brokers, and near enough for what they take."""
OLD_MS = 1_262_304_000_000

# Name -> (position, format), from the start of the batch.
FIELDS = {
    "base_offset": (0, ">q"),
    "length": (8, ">I"),
    "leader_epoch": (12, ">i"),
    "magic": (16, ">B"),
    "attributes": (21, ">h"),
    "last_delta": (23, ">i"),
    "count": (57, ">i"),
}
_CRC_AT, _CRC_FROM = 17, 21


def batch(
    count: int,
    producer: Producer = NO_PRODUCER,
    *,
    timestamp: int = NOW_MS,
    value: bytes = b"value",
    codec: int = 0,
) -> bytes:
    """A sound batch; every record has a key."""
    records = [Record(key=b"key", value=value, timestamp=timestamp) for _ in range(count)]
    return build_batch(records, producer=producer, codec=codec)


def changed(raw: bytes, *, crc_wrong: bool = False, **fields: Any) -> bytes:
    """The batch with other values in its header, and a checksum that fits unless `crc_wrong`."""
    out = bytearray(raw)
    for name, value in fields.items():
        position, form = FIELDS[name]
        struct.pack_into(form, out, position, value)
    checksum = crc32c(bytes(out[_CRC_FROM:])) ^ (1 if crc_wrong else 0)
    struct.pack_into(">I", out, _CRC_AT, checksum)
    return bytes(out)
