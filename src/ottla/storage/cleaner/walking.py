"""Many records at once: their keys noted, and those told apart that stay and that go.

Owns the two loops that a compaction's time goes into. Must not know files, batches' headers or
transactions: the bytes of records in, offsets and runs of bytes out.

A record (magic 2): varint length · attributes int8 · timestamp delta varint · offset delta varint ·
key · value · headers; a key is a varint length and bytes, null is -1. Both loops look only as far
as they need to: headers are never read, nor are values, and a record that stays is not copied by
itself but as part of a run. The varints are written out, because to call a function for each
would take as long as all the rest.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ottla.records.batch import RecordError
from ottla.storage.cleaner.latest import (
    FAREWELL,
    GONE,
    TOKEN_BYTES,
    Latest,
    LatestOffsets,
    Superseded,
    hashed,
)

_LONG: Final = TOKEN_BYTES  # keys from this length on are hashed
_NULL: Final = 1  # -1 as a varint
NEVER: Final = 1 << 63


class Rules(NamedTuple):
    """Which records stay."""

    latest: Latest
    known_to: int
    """Records at this offset or later were not looked at: they stay."""
    tombstones: bool
    """Whether a record without a value may stay, if it is the latest of its key."""


class Kept(NamedTuple):
    """What stays of a batch. `runs` None: all of it."""

    records_count: int
    runs: list[tuple[int, int]] | None
    """Where what stays begins and ends, in order."""
    tombstones: bool
    """Whether something without a value is among it."""


def note_keys(
    offsets: LatestOffsets, data: bytes, span: tuple[int, int], count: int, base: int
) -> None:
    """Note the offset of each of `count` records' keys.

    `span` is where the records begin and end in `data`, `base` the offset that deltas count from.
    What these take the place of is marked, and what has no value. Raises RecordError.
    """
    latest, get = offsets.table, offsets.table.get
    marks, first = offsets.superseded.marks, offsets.superseded.first
    marks_count = len(marks)
    at, limit = span
    try:
        for _ in range(count):
            part = data[at]
            at += 1
            if part > 0x7F:
                more = data[at]
                at += 1
                part = part & 0x7F | more << 7
                if more > 0x7F:
                    part, at = _long_varint(data, at, part)
            end = at + (part >> 1)
            at += 1
            while data[at] > 0x7F:  # the timestamp
                at += 1
            delta = data[at + 1]
            at += 2
            if delta > 0x7F:
                more = data[at]
                at += 1
                delta = delta & 0x7F | more << 7
                if more > 0x7F:
                    delta, at = _long_varint(data, at, delta)
            part = data[at]
            at += 1
            if part > 0x7F:
                part, at = _long_varint(data, at, part & 0x7F, 7)
            place = base - first + (delta >> 1)
            if part & 1:  # without a key: it has no place here
                if 0 <= place < marks_count:
                    marks[place] = GONE
                at = end
                continue
            key_end = at + (part >> 1)
            if key_end >= end:
                raise RecordError("a key ends behind its record")
            key = data[at:key_end]
            if part >= _LONG << 1:
                key = hashed(key).digest()
            before = get(key, -1) - first
            latest[key] = first + place
            if 0 <= before < marks_count and before != place:
                marks[before] = GONE
            if data[key_end] == _NULL and 0 <= place < marks_count:
                marks[place] = FAREWELL
            at = end
    except IndexError:
        raise RecordError("a record is cut short") from None
    if at != limit:
        raise RecordError(f"{count} records end {at - limit:+d} bytes from where they should")


def kept_of(rules: Rules, data: bytes, span: tuple[int, int], count: int, base: int) -> Kept:
    """Tell apart what stays of `count` records. As for `note_keys`."""
    at, limit = span
    get = rules.latest.get
    runs: list[tuple[int, int]] = []
    run = at
    left_count = count
    tombstones = False
    try:
        for _ in range(count):
            begin = at
            part = data[at]
            at += 1
            if part > 0x7F:
                more = data[at]
                at += 1
                part = part & 0x7F | more << 7
                if more > 0x7F:
                    part, at = _long_varint(data, at, part)
            end = at + (part >> 1)
            at += 1
            while data[at] > 0x7F:
                at += 1
            delta = data[at + 1]
            at += 2
            if delta > 0x7F:
                more = data[at]
                at += 1
                delta = delta & 0x7F | more << 7
                if more > 0x7F:
                    delta, at = _long_varint(data, at, delta)
            part = data[at]
            at += 1
            if part > 0x7F:
                part, at = _long_varint(data, at, part & 0x7F, 7)
            offset = base + (delta >> 1)
            if part & 1:
                stays = offset >= rules.known_to
                key_end = at
            else:
                key_end = at + (part >> 1)
                key = data[at:key_end]
                if part >= _LONG << 1:
                    key = hashed(key).digest()
                stays = get(key, -1) <= offset
            if key_end >= end:
                raise RecordError("a key ends behind its record")
            if stays and data[key_end] == _NULL:
                stays = rules.tombstones or offset >= rules.known_to
                tombstones |= stays
            at = end
            if not stays:
                if begin > run:
                    runs.append((run, begin))
                run = end
                left_count -= 1
    except IndexError:
        raise RecordError("a record is cut short") from None
    if at != limit:
        raise RecordError(f"{count} records end {at - limit:+d} bytes from where they should")
    if left_count == count:
        return Kept(count, None, tombstones)
    if limit > run:
        runs.append((run, limit))
    return Kept(left_count, runs, tombstones)


def unmarked_of(
    superseded: Superseded, data: bytes, span: tuple[int, int], count: int, base: int
) -> Kept:
    """What stays of records that were noted, by their marks; none of them is a farewell."""
    at, limit = span
    marks, shift = superseded.marks, base - superseded.first
    runs: list[tuple[int, int]] = []
    run = at
    left_count = count
    try:
        for _ in range(count):
            begin = at
            part, at = _varint(data, at)
            end = at + (part >> 1)
            at += 1
            while data[at] > 0x7F:
                at += 1
            delta = data[at + 1]
            if delta > 0x7F:
                delta, _ = _varint(data, at + 1)
            if marks[shift + (delta >> 1)]:
                if begin > run:
                    runs.append((run, begin))
                run = end
                left_count -= 1
            at = end
    except IndexError:
        raise RecordError("a record is cut short") from None
    if at != limit:
        raise RecordError(f"{count} records end {at - limit:+d} bytes from where they should")
    if limit > run:
        runs.append((run, limit))
    return Kept(left_count, runs if left_count < count else None, False)


def greatest_delta(data: bytes, runs: list[tuple[int, int]]) -> int:
    """The greatest timestamp delta in some runs of records that were walked before."""
    greatest = -NEVER
    for begin, limit in runs:
        at = begin
        while at < limit:
            length, at = _varint(data, at)
            delta, _ = _varint(data, at + 1)
            greatest = max(greatest, (delta >> 1) ^ -(delta & 1))
            at += length >> 1
    return greatest


def rebased(data: bytes, runs: list[tuple[int, int]], shift: int) -> tuple[bytearray, int]:
    """The records of some runs, `shift` added to their timestamp deltas; and the greatest of them.

    For batches whose base timestamp becomes something else: the time until which deleted keys'
    markers are kept (KIP-534).
    """
    out = bytearray()
    greatest = -NEVER
    for begin, limit in runs:
        at = begin
        while at < limit:
            length, at = _varint(data, at)
            end = at + (length >> 1)
            raw, rest = _varint(data, at + 1)
            delta = ((raw >> 1) ^ -(raw & 1)) + shift
            delta = (delta + NEVER) % (2 * NEVER) - NEVER  # as Java's longs, where times are absurd
            greatest = max(greatest, delta)
            stamp = _packed(delta)
            out += _packed(1 + len(stamp) + end - rest)
            out.append(data[at])
            out += stamp
            out += data[rest:end]
            at = end
    return out, greatest


def _packed(value: int) -> bytes:
    value = value << 1 if value >= 0 else (-value << 1) - 1
    packed = bytearray()
    while value > 0x7F:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint as it stands, its sign still in the lowest bit, and where it ends."""
    value = data[at]
    at += 1
    return (value, at) if value < 0x80 else _long_varint(data, at, value & 0x7F, 7)


def _long_varint(data: bytes, at: int, value: int, shift: int = 14) -> tuple[int, int]:
    """The rest of a varint of which `shift` bits are known; bits above those may be set."""
    value &= (1 << shift) - 1
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise RecordError("a varint of more than 64 bits")
