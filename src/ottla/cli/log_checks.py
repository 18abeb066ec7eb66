"""What must be true of a partition's files, checked without believing them.

Owns the checks of `log verify`. Must not print or open anything: bytes in, findings out.

A tail that is no whole batch, in the newest segment and past what was synced, is what a crash
leaves and recovery cuts: `torn`. Everything else unsound is damage: `problems`. A bit that flipped
in the very last batch after a crash can't be told from a torn tail, by anybody.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from ottla.cli.log_files import (
    INDEX_ENTRY,
    SNAPSHOT_ENTRY,
    SNAPSHOT_HEADER,
    TIME_ENTRY,
    TXN_ENTRY,
    Data,
    index_entries,
    snapshot_entries,
    time_entries,
    txn_entries,
    unpadded,
)
from ottla.records.batch import HEADER_SIZE, MAGIC, BatchView, RecordError, batch_length, crc_ok
from ottla.records.crc import crc32c
from ottla.records.reader import records_of

_MAGIC_AT = 16
_OLD_SIZE_MIN = 26
"""Bytes of the smallest message of magic 0, its offset and size included."""
OFFSETS_MAX = 1 << 31
"""How far apart offsets of one segment can be: indexes hold 32 bits."""


def _longs() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Walk:
    """One segment, walked from its first byte. The arrays have an item a batch, in order."""

    base_offset: int
    positions: array[int] = field(default_factory=_longs)
    first_offsets: array[int] = field(default_factory=_longs)
    last_offsets: array[int] = field(default_factory=_longs)
    max_timestamps: array[int] = field(default_factory=_longs)
    records_count: int = 0
    leader_epoch: int = -1
    torn: str | None = None
    problems: list[str] = field(default_factory=list)


def walk_segment(data: Data, base_offset: int, next_offset: int, torn_from: int | None) -> Walk:
    """Check every batch and record of a segment.

    `next_offset` is one more than the last offset before it. `torn_from` is the offset from
    which on an unsound tail is only torn; None in every segment but the newest.
    """
    walk = Walk(base_offset)
    view = memoryview(data)
    least = max(base_offset, next_offset)
    at = 0
    while at < len(view):
        fault = _fault(view, at)
        if fault is None:
            batch = BatchView(view, at)
            _take(walk, batch, at, least)
            least = max(least, batch.last_offset + 1)
            at += batch.length
            continue
        if _whole_old(view, at):
            walk.problems.append(f"byte {at}: magic {view[at + _MAGIC_AT]}, older than Kafka 0.11")
            at += batch_length(view, at)
            continue
        following = _next_sound(data, view, at + 1, least)
        if following is None:
            left = f"byte {at}: {fault}; the last {len(view) - at:,} bytes are unreadable"
            if torn_from is not None and least >= torn_from:
                walk.torn = left
            else:
                walk.problems.append(left)
            break
        walk.problems.append(f"byte {at}: {fault}; the next sound batch is at byte {following}")
        at = following
    return walk


def sound_ranges(data: Data, least: int, before: int | None) -> Iterator[tuple[int, int, int, int]]:
    """Runs of sound batches: (first byte, end, first offset, last offset), in order.

    `least` is the smallest offset that may come; all end below `before`, the next segment's. Where
    offsets are left out a run ends, and the next begins at the same byte.
    """
    view = memoryview(data)
    begin = at = 0
    first = last = least - 1
    while at < len(view):
        if _fault(view, at) is None:
            batch = BatchView(view, at)
            if batch.base_offset >= least and (before is None or batch.last_offset < before):
                if batch.base_offset > least and at > begin:
                    yield begin, at, first, last
                    begin = at
                first = batch.base_offset if begin == at else first
                last, least = batch.last_offset, batch.last_offset + 1
                at += batch.length
                continue
        if at > begin:
            yield begin, at, first, last
        following = _next_sound(data, view, at + 1, least)
        if following is None:
            return
        begin = at = following
    if at > begin:
        yield begin, at, first, last


def lacks_records(data: Data) -> bool:
    """Whether a sound batch has fewer records than offsets: only compaction takes some out.

    Ends at the first byte that is no batch's.
    """
    view = memoryview(data)
    at = 0
    while at < len(view) and _fault(view, at) is None:
        batch = BatchView(view, at)
        if batch.records_count <= batch.last_offset_delta:
            return True
        at += batch.length
    return False


def _fault(view: memoryview, at: int) -> str | None:
    """Why there is no whole, unharmed batch at `at`."""
    left = len(view) - at
    if left < HEADER_SIZE:
        return f"{left} bytes, where a batch's header takes {HEADER_SIZE}"
    length = batch_length(view, at)
    magic = view[at + _MAGIC_AT]
    if length == 12 and magic == 0 and not any(view[at : at + HEADER_SIZE]):
        return "zeros where a batch should begin"
    if magic != MAGIC:
        return f"magic {magic} instead of {MAGIC}"
    if length < HEADER_SIZE:
        return f"a batch of {length} bytes, less than its header"
    if length > left:
        return f"a batch of {length:,} bytes where {left:,} are left"
    if not crc_ok(view[at : at + length]):
        return "the checksum doesn't fit the batch"
    return None


def _whole_old(view: memoryview, at: int) -> bool:
    """Whether something like a message of magic 0 or 1 is there. Zeros are not."""
    if len(view) - at < _OLD_SIZE_MIN or view[at + _MAGIC_AT] > 1:
        return False
    return _OLD_SIZE_MIN <= batch_length(view, at) <= len(view) - at


def _next_sound(data: Data, view: memoryview, start: int, least: int) -> int | None:
    """Where the next sound batch with an offset that may follow begins."""
    at = start
    while True:
        found = data.find(b"\x02", at + _MAGIC_AT)
        if found < 0:
            return None
        at = found - _MAGIC_AT
        if len(view) - at < HEADER_SIZE:
            return None
        offset = int.from_bytes(view[at : at + 8], "big")
        # Cheap tests first: the checksum of a false batch could cost a walk over the file.
        if 0 <= offset - least < OFFSETS_MAX and _fault(view, at) is None:
            return at
        at += 1


def _take(walk: Walk, batch: BatchView, at: int, least: int) -> None:
    """Note a batch whose bytes are sound, and what its fields and records get wrong."""
    first, last = batch.base_offset, batch.last_offset
    place = f"byte {at}, offset {first}"
    if first < least:
        walk.problems.append(f"{place}: offsets before it reach {least - 1} already")
    if batch.last_offset_delta < 0:
        walk.problems.append(f"{place}: its last offset is {last}")
    elif last - walk.base_offset >= OFFSETS_MAX:
        walk.problems.append(f"{place}: too far from the segment's base offset {walk.base_offset}")
    if batch.leader_epoch < walk.leader_epoch:
        walk.problems.append(
            f"{place}: leader epoch {batch.leader_epoch} after {walk.leader_epoch}"
        )
    walk.leader_epoch = max(walk.leader_epoch, batch.leader_epoch)
    walk.positions.append(at)
    walk.first_offsets.append(first)
    walk.last_offsets.append(last)
    walk.max_timestamps.append(batch.max_timestamp)
    seen, fault = _walk_records(batch)
    walk.records_count += seen
    if fault:
        walk.problems.append(f"{place}: {fault}")


def _walk_records(batch: BatchView) -> tuple[int, str | None]:
    """How many records there are, and what is wrong with them.

    Compaction takes records out: then there are fewer than offsets, and none at all at times.
    """
    count, last = 0, batch.base_offset - 1
    if batch.records_count < 0:
        return 0, f"the header counts {batch.records_count} records"
    if batch.records_count == 0 and batch.length == HEADER_SIZE:
        return 0, None
    try:
        for record in records_of(batch):
            count += 1
            if not last < record.offset <= batch.last_offset:
                return count, f"record {count} has offset {record.offset}, after {last}"
            last = record.offset
    except RecordError as error:
        return count, f"after {count} of {batch.records_count} records: {error}"
    return count, None


def check_index(walk: Walk, data: Data) -> Iterator[str]:
    """Faults of an offset index: each entry is the last offset of a batch, and where it begins."""
    content = unpadded(data, INDEX_ENTRY.size)
    if len(data) % INDEX_ENTRY.size:
        yield f"{len(data)} bytes are no multiple of {INDEX_ENTRY.size}"
    before_offset, before_position = -1, -1
    for number, entry in enumerate(index_entries(content)):
        offset = walk.base_offset + entry.relative_offset
        if entry.relative_offset <= before_offset or entry.position <= before_position:
            yield f"entry {number} (offset {offset}, byte {entry.position}) doesn't rise"
        before_offset, before_position = entry.relative_offset, entry.position
        at = bisect_left(walk.positions, entry.position)
        if at == len(walk.positions) and walk.torn:
            continue  # it points into the torn tail: recovery drops it too
        if at == len(walk.positions) or walk.positions[at] != entry.position:
            yield f"entry {number} (offset {offset}) points at byte {entry.position}, no batch"
        elif walk.last_offsets[at] != offset:
            yield (
                f"entry {number} says offset {offset} for the batch at byte {entry.position}, "
                f"which ends with {walk.last_offsets[at]}"
            )


def check_time_index(walk: Walk, data: Data) -> Iterator[str]:
    """Faults of a time index: each entry is the greatest timestamp of the batch it names."""
    content = unpadded(data, TIME_ENTRY.size)
    if len(data) % TIME_ENTRY.size:
        yield f"{len(data)} bytes are no multiple of {TIME_ENTRY.size}"
    before_time, before_offset = -1, -1
    for number, entry in enumerate(time_entries(content)):
        offset = walk.base_offset + entry.relative_offset
        if entry.timestamp <= before_time or entry.relative_offset < before_offset:
            yield f"entry {number} (timestamp {entry.timestamp}, offset {offset}) doesn't rise"
        before_time, before_offset = entry.timestamp, entry.relative_offset
        at = bisect_left(walk.last_offsets, offset)
        if at == len(walk.last_offsets) and walk.torn:
            continue
        if at == len(walk.last_offsets) or walk.first_offsets[at] > offset:
            yield f"entry {number} names offset {offset}, which no batch holds"
        elif walk.max_timestamps[at] != entry.timestamp:
            yield (
                f"entry {number} says timestamp {entry.timestamp} for offset {offset}, whose "
                f"batch has {walk.max_timestamps[at]}"
            )


def check_txn_index(data: Data) -> Iterator[str]:
    """Faults of an index of aborted transactions."""
    if len(data) % TXN_ENTRY.size:
        yield f"{len(data)} bytes are no multiple of {TXN_ENTRY.size}"
    before = -1
    for number, entry in enumerate(txn_entries(bytes(data))):
        if entry.version != 0:
            yield f"entry {number} has version {entry.version}, not 0"
        if not 0 <= entry.first_offset <= entry.last_offset or entry.last_offset < before:
            yield f"entry {number} spans offsets {entry.first_offset} to {entry.last_offset}"
        before = entry.last_offset


def check_snapshot(data: Data) -> Iterator[str]:
    """Faults of a snapshot of producers (ProducerSnapshot v1)."""
    content = bytes(data)
    if len(content) < SNAPSHOT_HEADER.size:
        yield f"{len(content)} bytes, where the header takes {SNAPSHOT_HEADER.size}"
        return
    version, crc, count = SNAPSHOT_HEADER.unpack_from(content)
    if version != 1:
        yield f"version {version}, not 1"
        return
    if crc32c(content[6:]) != crc:
        yield "the checksum doesn't fit"
    if len(content) != SNAPSHOT_HEADER.size + count * SNAPSHOT_ENTRY.size:
        yield f"{len(content)} bytes don't hold {count} producers"
        return
    producers = [entry.producer_id for entry in snapshot_entries(content)]
    if len(set(producers)) != len(producers):
        yield "a producer is in it twice"


def check_epochs(text: str) -> Iterator[str]:
    """Faults of a leader-epoch-checkpoint: version, count, then rising epochs and offsets."""
    lines = text.split("\n")
    entries = [
        line.rstrip(" \t").split(" ") for line in lines[2:] if line
    ]  # ours end in a checksum
    numbers = [word for words in entries for word in words]
    if lines[0] != "0" or len(lines) < 2 or lines[1] != str(len(entries)):
        yield "it doesn't begin with 0 and the number of its lines"
    if any(len(words) != 2 for words in entries) or not all(n.isdecimal() for n in numbers):
        yield "a line isn't an epoch and an offset"
        return
    pairs = [(int(epoch), int(offset)) for epoch, offset in entries]
    for before, after in pairwise(pairs):
        if after[0] <= before[0] or after[1] < before[1]:
            yield f"epoch {after[0]} from offset {after[1]} on, after epoch {before[0]}"
