"""A record batch as bytes: its header read, its place in the log stamped, its checksum.

Owns the 61 bytes in front of the records (magic 2, KIP-98). Must not open a batch: what lies
behind the header is `reader`'s, and whether a header makes sense is `validate`'s.

Layout, big-endian: base offset int64 · length int32, of what follows it · leader epoch int32 ·
magic int8 · CRC-32C uint32, of all that follows it · attributes int16 · last offset delta int32 ·
base timestamp int64 · max timestamp int64 · producer id int64 · producer epoch int16 ·
base sequence int32 · number of records int32.
"""

from __future__ import annotations

import struct
from typing import Final

from ottla.core.model import Offset
from ottla.core.ports import Buffer
from ottla.records.crc import crc32c

HEADER_SIZE: Final = 61
LOG_OVERHEAD: Final = 12
"""Bytes of base offset and length: what the length field doesn't count."""
MAGIC: Final = 2
CRC_START: Final = 21
"""Where the checksummed bytes begin: base offset, length and leader epoch lie before it."""

CODEC_MASK: Final = 0x07
LOG_APPEND_TIME_BIT: Final = 0x08
TRANSACTIONAL_BIT: Final = 0x10
CONTROL_BIT: Final = 0x20
DELETE_HORIZON_BIT: Final = 0x40
SEQUENCES: Final = 1 << 31
"""How many sequence numbers there are; after 2^31-1 comes 0."""

HEADER: Final = struct.Struct(">qiibIhiqqqhii")
assert HEADER.size == HEADER_SIZE
# The same in two, for who writes a batch: up to its checksum, and what that covers.
HEADER_FRONT: Final = struct.Struct(">qiibI")
HEADER_CHECKED: Final = struct.Struct(">hiqqqhii")
assert HEADER_FRONT.size == CRC_START
assert HEADER_FRONT.size + HEADER_CHECKED.size == HEADER_SIZE

_unpack_header = HEADER.unpack_from
_OFFSET_AND_LENGTH = struct.Struct(">qi")
_PLACE = struct.Struct(">qii")  # base offset, length, leader epoch
_CRC = struct.Struct(">I")
_ATTRIBUTES = struct.Struct(">h")
_MAX_TIMESTAMP = struct.Struct(">q")
_CRC_AT = 17
_MAX_TIMESTAMP_AT = 35


class RecordError(Exception):
    """Bytes that are not the batch or the records that they claim to be.

    For readers and tools. A produced batch is judged by `validate`, which answers a value.
    """


class BatchView:
    """The header fields of one batch, and a view of the whole of it. Copies nothing.

    `length` is what the batch takes in the log, its first 12 bytes included. `view` holds
    exactly the batch, or as much of it as was there.
    """

    __slots__ = (
        "attributes",
        "base_offset",
        "base_sequence",
        "base_timestamp",
        "crc",
        "last_offset_delta",
        "leader_epoch",
        "length",
        "magic",
        "max_timestamp",
        "producer_epoch",
        "producer_id",
        "records_count",
        "view",
    )

    base_offset: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records_count: int

    def __init__(self, view: memoryview, position: int = 0) -> None:
        """Read the header at `position`: 61 bytes must be there, sense they need not make."""
        (
            self.base_offset,
            size,
            self.leader_epoch,
            self.magic,
            self.crc,
            self.attributes,
            self.last_offset_delta,
            self.base_timestamp,
            self.max_timestamp,
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
            self.records_count,
        ) = _unpack_header(view, position)
        self.length = length = size + LOG_OVERHEAD
        if position or length < len(view):
            # A length that can't be still leaves the header in view.
            view = view[position : position + max(length, HEADER_SIZE)]
        self.view = view

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def log_append_time(self) -> bool:
        """Whether every record's timestamp is `max_timestamp`, the broker's (KIP-32)."""
        return bool(self.attributes & LOG_APPEND_TIME_BIT)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL_BIT)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL_BIT)

    @property
    def last_offset(self) -> Offset:
        return Offset(self.base_offset + self.last_offset_delta)

    @property
    def last_sequence(self) -> int:
        """The last record's sequence number; -1 if the batch has none. Wraps after 2^31-1."""
        if self.base_sequence < 0:
            return -1
        return (self.base_sequence + self.last_offset_delta) % SEQUENCES

    def stamp(self, base_offset: int, leader_epoch: int) -> None:
        """Give it its place in the log without decoding its records; the fields keep in step.

        What is written lies before the bytes that the checksum covers, so it stays valid. The
        length stands between the two: writing it again is cheaper than a second call.
        """
        _PLACE.pack_into(self.view, 0, base_offset, self.length - LOG_OVERHEAD, leader_epoch)
        self.base_offset = base_offset
        self.leader_epoch = leader_epoch

    def stamp_log_append_time(self, now_ms: int) -> None:
        """`stamp_log_append_time` the bytes, and keep the fields in step with them."""
        self.crc = stamp_log_append_time(self.view, now_ms)
        self.attributes |= LOG_APPEND_TIME_BIT
        self.max_timestamp = now_ms

    def stamp_max_timestamp(self, timestamp: int) -> None:
        """Correct the greatest timestamp, and the checksum that covers it."""
        _MAX_TIMESTAMP.pack_into(self.view, _MAX_TIMESTAMP_AT, timestamp)
        self.crc = stamp_crc(self.view)
        self.max_timestamp = timestamp


def stamp(batch: bytearray, base_offset: int, leader_epoch: int) -> None:
    """`BatchView.stamp` of a whole batch that nobody has a view of."""
    _PLACE.pack_into(batch, 0, base_offset, len(batch) - LOG_OVERHEAD, leader_epoch)


def stamp_log_append_time(view: memoryview, now_ms: int) -> int:
    """Make `now_ms` the timestamp of all records, as `message.timestamp.type` asks; the new CRC.

    The records keep their deltas: readers ignore them once the attribute bit is set (KIP-32).
    """
    (attributes,) = _ATTRIBUTES.unpack_from(view, CRC_START)
    _ATTRIBUTES.pack_into(view, CRC_START, attributes | LOG_APPEND_TIME_BIT)
    _MAX_TIMESTAMP.pack_into(view, _MAX_TIMESTAMP_AT, now_ms)
    return stamp_crc(view)


def stamp_crc(view: memoryview) -> int:
    """Recompute the checksum after a change behind it. `view` holds exactly the batch."""
    crc = crc32c(view[CRC_START:])
    _CRC.pack_into(view, _CRC_AT, crc)
    return crc


def crc_ok(view: memoryview) -> bool:
    """Whether the checksum fits. `view` holds exactly the batch, of at least 61 bytes."""
    crc: int = _CRC.unpack_from(view, _CRC_AT)[0]
    return crc32c(view[CRC_START:]) == crc


def batch_length(buffer: Buffer, position: int) -> int:
    """Bytes in the log of the batch at `position`, as its length field claims; 12 must be there."""
    return int(_OFFSET_AND_LENGTH.unpack_from(buffer, position)[1]) + LOG_OVERHEAD
