"""Records as the embedded broker's caller sees them: made, placed, packed and unpacked.

Owns what a key, value, header and timestamp may be, and which partition a key belongs to. Pure,
and run in the caller's thread, so that the broker's own has no work with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from ottla.embedded.errors import KafkaError
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import RecordError
from ottla.records.builder import build_batch
from ottla.records.reader import Record as Packed
from ottla.records.reader import read_batches, records_of

Data: TypeAlias = bytes | str | None
"""A key or a value; text is stored as UTF-8, None as Kafka's null."""

Header: TypeAlias = tuple[str, bytes | None]
Headers: TypeAlias = Mapping[str, Data] | Iterable[tuple[str, Data]]

BATCH_BYTES_MAX = 512 << 10
RECORD_OVERHEAD = 40
"""More than what one record takes beside its key, value and headers."""
TIMESTAMP_MAX = (1 << 63) - 1


class Placed(NamedTuple):
    """Where a batch went. `log_append_time` is -1 where the records keep their timestamps."""

    base_offset: int
    log_append_time: int


class Fetched(NamedTuple):
    """Batches of one partition, and what is to be skipped in them: producer and first offset of
    each transaction that was aborted."""

    data: bytes
    aborted: Sequence[tuple[int, int]] = ()


class Record(NamedTuple):
    """One record. As read or appended, every field is filled in.

    `timestamp` is in milliseconds since 1970, -1 meaning the time of appending; `partition` -1
    means that the key, or else the turn, decides. `offset` of a record to append is ignored.
    """

    value: bytes | None
    key: bytes | None = None
    headers: tuple[Header, ...] = ()
    timestamp: int = -1
    partition: int = -1
    offset: int = -1


def make_record(value: Data, key: Data, headers: Headers, timestamp: int | None) -> Record:
    """A record out of what the caller gave. Raises TypeError and ValueError."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    made = tuple((_name(name), as_bytes(data, f"header {name!r}")) for name, data in pairs)
    if timestamp is not None and not 0 <= timestamp <= TIMESTAMP_MAX:
        raise ValueError(f"a timestamp is in milliseconds since 1970, not {timestamp}")
    return Record(
        as_bytes(value, "a value"),
        as_bytes(key, "a key"),
        made,
        -1 if timestamp is None else timestamp,
    )


def checked(record: Record) -> Record:
    """A record as the caller made it, its text as bytes. Raises TypeError."""
    value, key = as_bytes(record.value, "a value"), as_bytes(record.key, "a key")
    return record._replace(value=value, key=key)


def as_bytes(data: Data, what: str) -> bytes | None:
    """What is stored for `data`. Raises TypeError, which calls it `what`."""
    if isinstance(data, str):
        return data.encode()
    if data is None or isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"{what} is bytes, str or None, not {type(data).__name__}")


def _name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a header is a str, not {type(name).__name__}")
    return name


def pack(records: list[Record], bytes_max: int) -> Iterator[list[Record]]:
    """The records of one partition, in groups that each make a batch of about `bytes_max`.

    A record that is larger on its own is a group on its own: it is the broker's to refuse it.
    """
    group: list[Record] = []
    size = 0
    for record in records:
        length = RECORD_OVERHEAD + len(record.key or b"") + len(record.value or b"")
        length += sum(len(name) * 4 + len(data or b"") + 10 for name, data in record.headers)
        if group and size + length > bytes_max:
            yield group
            group, size = [], 0
        group.append(record)
        size += length
    if group:
        yield group


def batch_of(records: list[Record]) -> memoryview:
    """One batch, in memory that the broker may stamp."""
    packed = (Packed(one.key, one.value, one.timestamp, one.headers) for one in records)
    return memoryview(bytearray(build_batch(packed)))


def located(records: list[Record], placed: Placed) -> list[Record]:
    """The records of a batch as they were stored."""
    if placed.log_append_time >= 0:
        records = [one._replace(timestamp=placed.log_append_time) for one in records]
    return [one._replace(offset=at) for at, one in enumerate(records, placed.base_offset)]


def unpack(fetched: Fetched, partition: int, start: int, decompressed_max: int) -> Iterator[Record]:
    """The records from offset `start` on in what a fetch brought. Raises KafkaError.

    Markers of transactions are left out, and so is what was aborted.
    """
    aborted = sorted(fetched.aborted, key=lambda one: one[1])
    skipped: set[int] = set()  # producers whose transaction, here, was aborted
    try:
        for batch in read_batches(fetched.data):
            while aborted and aborted[0][1] <= batch.last_offset:
                skipped.add(aborted.pop(0)[0])
            if batch.is_control:
                skipped.discard(batch.producer_id)  # it ends what was open
                continue
            if batch.last_offset < start:
                continue
            if batch.is_transactional and batch.producer_id in skipped:
                continue
            for one in records_of(batch, decompressed_max):
                if one.offset >= start:
                    headers = tuple(one.headers)
                    yield Record(one.value, one.key, headers, one.timestamp, partition, one.offset)
    except RecordError as error:
        message = f"partition {partition} holds a batch that can't be read: {error}"
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, message) from None


def next_offset(data: bytes, start: int) -> int:
    """The offset after the last batch in `data`, where compaction may have left a gap."""
    end = start
    for batch in read_batches(data):
        end = max(end, batch.last_offset + 1)
    return end


def partition_for(key: bytes, partitions_count: int) -> int:
    """Where Kafka's own producer puts a key: murmur2, its sign bit cut off."""
    return (_murmur2(key) & 0x7FFFFFFF) % partitions_count


def _murmur2(data: bytes) -> int:
    """As org.apache.kafka.common.utils.Utils.murmur2, unsigned."""
    mask, factor = 0xFFFFFFFF, 0x5BD1E995
    hashed = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * factor & mask
        word = (word ^ word >> 24) * factor & mask
        hashed = hashed * factor & mask ^ word
    if whole < len(data):
        hashed = (hashed ^ int.from_bytes(data[whole:], "little")) * factor & mask
    hashed = (hashed ^ hashed >> 13) * factor & mask
    return hashed ^ hashed >> 15
