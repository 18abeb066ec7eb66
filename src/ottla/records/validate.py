"""Every check on a produced batch, in Apache Kafka's order, each with its ErrorCode.

Owns what a batch must satisfy before it gets a place in the log. Must not know the log: the
producer's sequence and epoch are `storage/producers`'s to judge. A client's fault is a value.

`record.validation` says how deep. header: the batch is never opened, `check_header` is all.
records: `check_records` follows, and walks each record as Kafka does. Where ours differs from
Kafka 4.3.1, the check says so; all was asked of a running one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, final

from ottla.core.model import NO_TIMESTAMP
from ottla.core.ports import Buffer
from ottla.core.value import Value
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import (
    CODEC_MASK,
    CONTROL_BIT,
    CRC_START,
    HEADER_SIZE,
    LOG_APPEND_TIME_BIT,
    LOG_OVERHEAD,
    MAGIC,
    TRANSACTIONAL_BIT,
    BatchView,
    RecordError,
    batch_length,
)
from ottla.records.compress import ZSTD
from ottla.records.crc import crc32c
from ottla.records.reader import DECOMPRESSED_MAX, frame_at, payload

UNLIMITED: Final = (1 << 63) - 1
RECORD_ERRORS_MAX: Final = 1000
"""Record errors told in one answer; the batch is refused whole however many there are."""

_SIZE_MIN = 14
"""Kafka's smallest value of the length field: the overhead of a magic 0 record."""
_MAGIC_END = 17
_ZSTD_SINCE = 7
_USUAL = frozenset(codec | bit for codec in range(ZSTD) for bit in (0, TRANSACTIONAL_BIT))
"""Attributes of which every version of the request may have made use."""
_INT64 = range(-(1 << 63), 1 << 63)
_TIMESTAMPS_TEXT = "One or more records have been rejected due to invalid timestamp"

Depth: TypeAlias = Literal["header", "records"]
TimestampType: TypeAlias = Literal["CreateTime", "LogAppendTime"]


class Rules(Value):
    """What a topic's settings ask of a batch. Sizes in bytes, `*_ms` in milliseconds.

    Defaults are Kafka's, `depth` ours. Picklable, so that a worker can apply it.
    """

    message_max_bytes: int = (1 << 20) + 12
    segment_bytes: int = 1 << 30
    compacted: bool = False
    depth: Depth = "header"
    timestamp_type: TimestampType = "CreateTime"
    before_max_ms: int = UNLIMITED
    after_max_ms: int = 3_600_000
    compression_type: str = "producer"
    decompressed_bytes_max: int = DECOMPRESSED_MAX

    @property
    def walks(self) -> bool:
        """Whether `check_records` must follow `check_header`: always where keys are needed."""
        return self.compacted or self.depth == "records"

    @property
    def decompressed_max(self) -> int:
        """Bytes that a batch may decompress to (H51): the broker's limit, or less for a topic's."""
        return min(64 * self.message_max_bytes, self.decompressed_bytes_max)


@final
class Rejected(Value):
    """Why a batch is refused, in the terms of a Produce answer.

    `record_errors`: index in the batch and what is wrong, for the versions that tell (8+).
    `before_log`: Kafka refuses it before it asks a log, so that the answer tells no log start.
    """

    error: ErrorCode
    message: str | None = None
    record_errors: Sequence[tuple[int, str | None]] = ()
    before_log: bool = False


def check_header(
    records: memoryview | None, rules: Rules, now_ms: int, produce_version: int
) -> BatchView | Rejected:
    """The one batch that a partition of a Produce request holds, if its header is sound.

    The hot path: nothing is allocated beside the view. An incomplete batch behind the first
    is left out of the view, as Kafka leaves it out of the log.
    """
    if records is None or (size := len(records)) < HEADER_SIZE:
        return _framing_fault(records) or _unframed()
    batch = BatchView(records)
    length = batch.length
    if length != size or batch.magic != MAGIC:
        fault = _framing_fault(records)
        if fault is not None:
            return fault
    if batch.base_offset != 0:
        return Rejected(ErrorCode.INVALID_RECORD, "the base offset must be 0")
    if length > rules.message_max_bytes:
        return Rejected(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"the batch has {length} bytes, max.message.bytes is {rules.message_max_bytes}",
        )
    if crc32c(batch.view[CRC_START:]) != batch.crc:
        return Rejected(ErrorCode.CORRUPT_MESSAGE, "the checksum does not fit")
    attributes = batch.attributes
    if (  # at one glance what most are: `_fields_fault` finds nothing wrong with such a one
        attributes in _USUAL
        and 0 < batch.records_count == batch.last_offset_delta + 1
        and (
            batch.base_sequence >= 0 <= batch.producer_epoch
            if batch.producer_id >= 0
            else attributes < TRANSACTIONAL_BIT
        )
        and batch.max_timestamp - now_ms <= rules.after_max_ms
        and now_ms - batch.base_timestamp <= rules.before_max_ms
        and length <= rules.segment_bytes
    ):
        return batch
    return _fields_fault(batch, rules, now_ms, produce_version) or batch


def check_records(batch: Buffer, rules: Rules, now_ms: int) -> Rejected | int:
    """Walk each record of a batch whose header is sound.

    The batch's true greatest timestamp, which its header may have wrong: Kafka answers no error
    then, and stores the records' own (`opening.Opened.apply`).
    """
    return _walk(BatchView(memoryview(batch)), rules, now_ms)


def _framing_fault(records: memoryview | None) -> Rejected | None:
    """What is wrong with how the batch is cut; the way of no well-formed request."""
    length = None if records is None else _whole_length(records)
    if records is None or length is None:
        return _unframed()
    if isinstance(length, Rejected):
        return length
    if records[_MAGIC_END - 1] != MAGIC:
        text = "only record batches of magic 2 are accepted"
        return Rejected(ErrorCode.INVALID_RECORD, text, before_log=True)
    rest = _whole_length(records[length:])
    if isinstance(rest, Rejected):
        return rest
    if rest is not None:
        text = "more than one batch for a partition"
        return Rejected(ErrorCode.INVALID_RECORD, text, before_log=True)
    if length < HEADER_SIZE:
        return Rejected(ErrorCode.CORRUPT_MESSAGE, f"a batch of {length} bytes has no header")
    return None


def _whole_length(view: memoryview) -> int | Rejected | None:
    """Bytes of the batch that begins the view; None if it is not whole (H33, H34)."""
    if len(view) < LOG_OVERHEAD:
        return None
    length = batch_length(view, 0)
    if length - LOG_OVERHEAD < _SIZE_MIN:
        return Rejected(ErrorCode.CORRUPT_MESSAGE, f"a batch length of {length - LOG_OVERHEAD}")
    if len(view) < _MAGIC_END:
        return None
    if view[_MAGIC_END - 1] > MAGIC:  # unsigned: a negative magic is greater, too
        return Rejected(ErrorCode.CORRUPT_MESSAGE, f"a batch of magic {view[_MAGIC_END - 1]}")
    return length if length <= len(view) else None


def _unframed() -> Rejected:
    return Rejected(ErrorCode.INVALID_RECORD, "there is no whole batch", before_log=True)


def _fields_fault(
    batch: BatchView, rules: Rules, now_ms: int, produce_version: int
) -> Rejected | None:
    """What is wrong with the fields that the checksum covers."""
    attributes = batch.attributes
    codec = attributes & CODEC_MASK
    if codec >= ZSTD and (codec > ZSTD or produce_version < _ZSTD_SINCE):
        # Kafka answers UNKNOWN_SERVER_ERROR to codecs 5 to 7.
        return Rejected(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, before_log=codec == ZSTD)
    count = batch.records_count
    if count <= 0 or batch.last_offset_delta != count - 1:
        return Rejected(
            ErrorCode.INVALID_RECORD,
            f"{count} records with a last offset delta of {batch.last_offset_delta}",
        )
    if batch.producer_id >= 0:
        # Kafka lets an epoch of -1 pass, and answers INVALID_PRODUCER_EPOCH to a lower one.
        if batch.base_sequence < 0 or batch.producer_epoch < 0:
            return Rejected(ErrorCode.INVALID_RECORD, "a producer id without sequence or epoch")
    elif attributes & TRANSACTIONAL_BIT:
        # Kafka stores it, where the request names a transaction: nothing could ever end it.
        return Rejected(ErrorCode.INVALID_RECORD, "a transactional batch without producer id")
    if attributes & (CONTROL_BIT | LOG_APPEND_TIME_BIT):
        if attributes & CONTROL_BIT:
            return Rejected(ErrorCode.INVALID_RECORD, "a control batch from a client")
        # On a CreateTime topic Kafka clears the bit, which takes opening the batch (H45).
        return Rejected(ErrorCode.INVALID_TIMESTAMP, "LogAppendTime is not the producer's to set")
    base = batch.base_timestamp
    if (
        batch.max_timestamp > now_ms + rules.after_max_ms
        or (base < now_ms - rules.before_max_ms and base != NO_TIMESTAMP)
    ) and not (rules.walks or rules.timestamp_type == "LogAppendTime"):
        # A walk judges the records' own timestamps, whatever the header says of them.
        return Rejected(ErrorCode.INVALID_TIMESTAMP, _TIMESTAMPS_TEXT)
    if batch.length > rules.segment_bytes:
        return Rejected(
            ErrorCode.RECORD_LIST_TOO_LARGE,
            f"the batch has {batch.length} bytes, segment.bytes is {rules.segment_bytes}",
        )
    return None


def _walk(batch: BatchView, rules: Rules, now_ms: int) -> Rejected | int:
    """The batch's greatest timestamp, or why its records are refused."""
    found: list[tuple[int, str | None]] = []
    error = ErrorCode.INVALID_RECORD
    oldest, newest = _timestamp_bounds(rules, now_ms)
    greatest = NO_TIMESTAMP
    at = 0
    try:
        data = payload(batch, rules.decompressed_max)
        for index in range(batch.records_count):
            frame = frame_at(data, at)
            at = frame.end
            if frame.offset_delta != index or frame.attributes & CODEC_MASK:
                # Kafka stores both: two records may then claim one offset (H43, H55).
                return Rejected(ErrorCode.INVALID_RECORD, f"record {index} is out of place")
            timestamp = batch.base_timestamp + frame.timestamp_delta
            greatest = max(greatest, timestamp)
            if rules.compacted and frame.key_length < 0:
                _note(found, index, "Compacted topic cannot accept message without key")
            elif not oldest <= timestamp <= newest and timestamp != NO_TIMESTAMP:
                error = ErrorCode.INVALID_TIMESTAMP
                _note(found, index, f"Timestamp {timestamp} is outside [{oldest}, {newest}]")
    except RecordError as fault:
        return Rejected(ErrorCode.INVALID_RECORD, str(fault))
    if at != len(data):
        return Rejected(ErrorCode.INVALID_RECORD, f"{len(data) - at} bytes after the last record")
    if found:
        text = f"One or more records have been rejected due to {len(found)} record errors"
        return Rejected(
            error, text if error == ErrorCode.INVALID_RECORD else _TIMESTAMPS_TEXT, found
        )
    return greatest


def _timestamp_bounds(rules: Rules, now_ms: int) -> tuple[int, int]:
    """The oldest and newest timestamp that a record may have; always such as the log can hold."""
    if rules.timestamp_type == "LogAppendTime":
        return _INT64[0], _INT64[-1]
    return max(now_ms - rules.before_max_ms, _INT64[0]), min(
        now_ms + rules.after_max_ms, _INT64[-1]
    )


def _note(found: list[tuple[int, str | None]], index: int, text: str) -> None:
    if len(found) < RECORD_ERRORS_MAX:
        found.append((index, text))
