"""One segment: a `.log` with its two indexes. Append at its end, locate by offset or by time.

Owns the bytes and what is known about them; the file's length is always the bytes written. Must not
know other segments, assign offsets, or block: a search that meets pages which are not in memory
raises NotResident, and one that meets bytes which are no batch raises Damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EIO
from typing import Final

from ottla.core.model import FileSlice, Offset
from ottla.core.ports import Buffer, CreateFile, DiskError, File, Step
from ottla.records.batch import HEADER_SIZE, MAGIC, BatchView
from ottla.storage.aborted import AbortedIndex
from ottla.storage.checked import Absent, Cold, Region, Seen, Spans, Unchecked, region_for
from ottla.storage.doubted import Doubted
from ottla.storage.index import OFFSET_ENTRY, TIME_ENTRY, Entry, NotResident, SparseIndex
from ottla.storage.read_ahead import ReadAhead, readable

POSITION_MAX: Final = (1 << 31) - 1
"""Positions and relative offsets are int32 in Kafka's indexes."""
SUFFIXES: Final = (".log", ".index", ".timeindex")

# Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, two timestamps.
_SCAN = struct.Struct(">qiibIhiqq")
_CHUNK = 8192  # read at once by a scan: about two index intervals
_PAGE = 4096
_PROBE_EVERY = 128 << 10  # pages come and go in the kernel in pieces of about this size
_PROBE_EVERY_KNOWN = 1 << 20
"""Of what was brought in a moment ago. In a virtual machine the first look at a page that the disk
has filled takes some 70 µs, which sendfile alone never spends."""
_TAIL_BYTES = 8 << 20
_RECENT_MAX = 64
_RESERVE_FROM = 1 << 20
_RESERVE_MAX = 64 << 20


class Damaged(DiskError):
    """Bytes inside the log that are not a batch. Ours to report: KAFKA_STORAGE_ERROR (I29)."""

    def __init__(self, path: str, position: int) -> None:
        super().__init__("read", path, OSError(EIO, f"there is no batch at byte {position}"))
        self.position = position


class Place:
    """A batch as a scan sees it. A slotted object: a NamedTuple takes twice as long to make."""

    __slots__ = (
        "base_offset", "last_offset", "leader_epoch", "length", "max_timestamp", "position",
    )  # fmt: skip

    def __init__(  # what a header says
        self,
        position: int,
        length: int,
        base_offset: int,
        last_offset: int,
        max_timestamp: int,
        leader_epoch: int,
    ) -> None:
        self.position = position
        self.length = length
        self.base_offset = base_offset
        self.last_offset = last_offset
        self.max_timestamp = max_timestamp
        self.leader_epoch = leader_epoch


def stem(directory: str, base_offset: int) -> str:
    """The path of a segment's files without suffix: Kafka's 20 digits."""
    return f"{directory}/{base_offset:020d}"


def creation_steps(directory: str, base_offset: int) -> list[Step]:
    """Make a segment's files; their Files come in the order of SUFFIXES."""
    path = stem(directory, base_offset)
    return [CreateFile(path + suffix) for suffix in SUFFIXES]


class Segment:
    """Batches from `base_offset` up to `end`, exclusive, in `size` bytes."""

    __slots__ = (
        "_recent",
        "_reserved",
        "_since_entry",
        "_written_from",
        "aborted",
        "ahead",
        "base_offset",
        "checked_end",
        "checked_from",
        "created_ms",
        "damage",
        "doubted",
        "end",
        "first_timestamp",
        "holes_until",
        "log",
        "max_timestamp",
        "max_timestamp_offset",
        "newest_unknown_from",
        "offsets",
        "on_damage",
        "reserve_at",
        "size",
        "spans",
        "times",
        "torn",
    )

    def __init__(
        self, base_offset: Offset, log: File, offsets: SparseIndex, times: SparseIndex
    ) -> None:
        """An empty segment. Opening one that has content sets the rest (`recovery`)."""
        self.base_offset = base_offset
        self.log = log
        self.offsets = offsets
        self.times = times
        self.aborted: AbortedIndex | None = None
        """Transactions whose abort lies here; None while there are none."""
        self.size = 0
        self.end = base_offset
        self.max_timestamp = -1
        self.max_timestamp_offset = int(base_offset)
        self.doubted: Entry | None = None
        """What an index alone says of the largest timestamp here: see `doubt`."""
        self.newest_unknown_from: int | None = None
        """Where batches end that can be read, if the largest timestamp may lie behind them."""
        self.first_timestamp: int | None = None
        self.created_ms = 0
        self.torn = False
        # What lies below was in the file when this process came: looked at before it is served.
        self.checked_from = 0
        self.checked_end = base_offset
        self.holes_until = 0
        self.spans = Spans()
        self.ahead: ReadAhead | None = None
        """Once something had to be brought in from the disk."""
        self.damage: int | None = None
        """Where a look found bytes that are not sound; nothing from there on is served."""
        self.on_damage: Callable[[Segment, Offset], None] | None = None
        self._since_entry = 0
        self._written_from = 0
        self._reserved = 0
        self.reserve_at = _RESERVE_FROM
        """The size from which on there is more to reserve."""
        # Where the last reads began and ended: a consumer that goes on, or comes again, needs no
        # index. Bounded. An entry can't be wrong: it is the boundary between two batches that a
        # scan has seen, or the end of what was written then, and neither moves, for a segment only
        # grows. (A refused write is taken back before anybody learns of it. What changes a segment
        # otherwise, such as truncation or compaction, must make a new one.)
        self._recent: dict[int, int] = {}

    # -- writing

    def append(self, batch: Buffer, last_offset: int, timestamp: int, index_interval: int) -> None:
        """Write a stamped batch behind the last. Raises DiskError with the file as it was.

        `timestamp` is its largest. If the file can't be put back as it was, `torn` is set and
        nothing may be appended any more.
        """
        position = self.size
        try:
            self.log.write(batch, position)
        except DiskError:
            self.torn = True
            self._reserved = position
            self.reserve_at = max(position, _RESERVE_FROM)
            self.log.truncate(position)
            self.torn = False
            raise
        self._note(last_offset, len(batch), timestamp, position, index_interval)

    def note(self, batch: BatchView, position: int, index_interval: int) -> None:
        """Account for the batch at `position`, the end so far. Recovery's rebuild is this too."""
        last_offset = batch.base_offset + batch.last_offset_delta
        self._note(last_offset, batch.length, batch.max_timestamp, position, index_interval)

    def _note(
        self, last_offset: int, length: int, timestamp: int, position: int, index_interval: int
    ) -> None:
        if timestamp > self.max_timestamp:
            self.max_timestamp = timestamp
            self.max_timestamp_offset = last_offset
        if self._since_entry > index_interval:
            self.offsets.add(last_offset - self.base_offset, position)
            self._note_time()
            self._since_entry = 0
        self._since_entry += length
        if position == 0:
            self.first_timestamp = timestamp
        self.size = position + length
        # Not by a call of `Offset`, which takes longer than the sum.
        self.end = last_offset + 1  # type: ignore[assignment]

    def _note_time(self) -> None:
        last = self.times.last
        if self.max_timestamp > (-1 if last is None else last[0]):
            self.times.add(self.max_timestamp, self.max_timestamp_offset - self.base_offset)

    def note_sealed(self, was: bytes) -> None:
        """All batches are noted. Keep the last time entry that a stop has added to the index, which
        `was` so: to take it out of every log that stands still would cost a sync for each."""
        last = TIME_ENTRY.pack(self.max_timestamp, self.max_timestamp_offset - self.base_offset)
        if was.endswith(last) and len(was) == (self.times.count + 1) * TIME_ENTRY.size:
            self._note_time()

    def resumed(self, batch: BatchView, position: int, first_timestamp: int) -> None:
        """All up to `batch` at `position` is known, and that its indexes end with it."""
        time = self.times.last
        self.max_timestamp = -1 if time is None else time[0]
        self.max_timestamp_offset = self.base_offset + (0 if time is None else time[1])
        self.first_timestamp = first_timestamp
        self._since_entry = batch.length
        self.size = position + batch.length
        self.end = Offset(batch.last_offset + 1)

    def opened(self) -> None:
        """What was on disk before is known now; what is appended from here on is warm."""
        last = self.offsets.last
        self._since_entry = self.size - (0 if last is None else last[1])
        self._written_from = self._reserved = self.size
        self.reserve_at = max(self.size, _RESERVE_FROM)
        self.checked_from = self.size
        self.checked_end = self.end

    def reservation(self, segment_bytes: int) -> tuple[int, int] | None:
        """(position, length) to reserve now, if it is time for more. In steps that double."""
        size = self.size
        if size < self.reserve_at:
            return None
        step = min(max(1 << 20, 1 << (size.bit_length() - 1)), _RESERVE_MAX, segment_bytes - size)
        if step <= 0:
            self._reserved = self.reserve_at = POSITION_MAX
            return None
        self._reserved = self.reserve_at = size + step
        return size, step

    def seal(self) -> None:
        """No more appends: write the indexes out and free what was reserved. Raises DiskError."""
        self._note_time()
        self.offsets.write_out()
        self.times.write_out()
        if self.aborted is not None:
            self.aborted.settle()
        if self._reserved > self.size:
            self.log.truncate(self.size)
            self._reserved = self.size
            self.reserve_at = max(self.size, _RESERVE_FROM)

    def write_indexes(self) -> None:
        """Write out what gathers in memory: a crash would take it, and a start read more for it."""
        with suppress(DiskError):  # it stays in memory, and the next time tries again
            self.offsets.write_out()
            self.times.write_out()

    def files(self) -> list[File]:
        """Its files, in the order of SUFFIXES, and that of aborted transactions if it has one."""
        files = [self.log, self.offsets.file, self.times.file]
        if self.aborted is not None:
            files.append(self.aborted.file)
        return files

    def close(self) -> None:
        """Let go of the files; slices that are on their way keep theirs open."""
        self.doubted = None
        for file in self.files():
            file.close()

    # -- reading: all of it raises NotResident and Damaged

    def slice(
        self, offset: int, max_bytes: int, limit: int, limit_offset: int
    ) -> FileSlice | Cold | None:
        """Whole batches from the one with `offset` on, up to position `limit` (`limit_offset`).

        The first always, the rest while within `max_bytes` and before what is known to be
        unreadable. None if all batches end before `offset`. A slice whose pages are not in memory
        comes as Cold.
        """
        place = None
        position = self._recent.get(offset)
        if position is None:
            place = self.locate(offset, limit)
            if place is None:
                return None
            position = place.position
            self._remember(offset, position)
        elif position >= limit:
            return None
        unreadable = self.log.unreadable
        if unreadable:
            max_bytes = readable(unreadable, position, max_bytes)
        if self.ahead is not None and position < (fresh_from := self._fresh_from()):
            # What is fresh is no edge: it moves while the reader is away, and who went to a thread
            # for it would be sent there again and again.
            touched = min(position + max(max_bytes, HEADER_SIZE), limit, fresh_from)
            if self.ahead.at_edge(position, touched):
                return Absent(self, FileSlice(self.log, position, touched - position))
            self.ahead.go_on(self.log, position, touched, self.size)
        if position + max_bytes >= limit:
            end = limit
            self._remember(limit_offset, end)
        elif place is not None and place.length >= max_bytes:
            end = position + place.length
            self._remember(place.last_offset + 1, end)
        else:
            try:
                end = self._end_within(position, position + max_bytes, limit)
            except NotResident as missing:
                if missing.file is not self.log:
                    raise
                length = min(max(max_bytes, HEADER_SIZE), limit - position)
                return Absent(self, FileSlice(self.log, position, length))
        if position < self.checked_from:
            if self.damage is not None and end > self.damage:
                if position >= self.damage:
                    raise Damaged(self.log.path, self.damage)
                end = self.damage
            unchecked = self.check(position, end)
            if unchecked is not None:
                return unchecked
        absent = self._absent(position, end)  # before the slice pins the file: it may raise
        if unreadable and any(position <= at < end for at in unreadable):
            absent = True  # sendfile would come to it in the middle of an answer
        piece = FileSlice(self.log, position, end - position)
        return Absent(self, piece) if absent else piece

    def lacking(self, missing: NotResident, max_bytes: int) -> Cold:
        """What a search for `max_bytes` bytes has to wait for."""
        if missing.file is not self.log:
            return Cold(missing.slice())
        max_bytes = readable(self.log.unreadable, missing.position, max_bytes)
        needed = min(max(HEADER_SIZE, max_bytes), self.size - missing.position)
        length = max(missing.length, needed)
        return Absent(self, FileSlice(self.log, missing.position, length), needed)

    def lacking_header(self, missing: NotResident) -> Cold:
        """What a search for one batch has to wait for: what lies behind it may be unreadable."""
        return Cold(missing.slice(), HEADER_SIZE if missing.file is self.log else None)

    def check(self, position: int, end: int) -> Unchecked | None:
        """What must be looked at before these batches are served; None: they are known."""
        if position >= self.checked_from:
            return None
        if self.damage is not None and end > self.damage:
            raise Damaged(self.log.path, self.damage)
        region = region_for(self, position, end)
        if region is None:
            return None
        piece = FileSlice(self.log, region.start, region.wanted - region.start)
        return Unchecked(self, piece, region, min(end, region.limit) - region.start)

    def check_end(self) -> Unchecked | None:
        """As `check`, of the last of what was found in the file: whether anything is missing."""
        at = self.checked_from
        return self.check(at - 1, at) if at else None

    def looked_at(self, region: Region, seen: Seen) -> None:
        """Learn what a look has found."""
        if not seen.first_fits:
            self.offsets.clear()  # a rotten index: do without (I29)
            return
        self.spans.add(region.start, seen.end, seen.next_offset)
        if not seen.sound and region.limit > self.checked_from:
            # In what this process wrote: from now on only what was looked at is served of it.
            self.checked_from, self.checked_end = region.limit, Offset(region.offset_limit)
        if not seen.sound and (self.damage is None or seen.end < self.damage):
            self.damage = seen.end
            if self.on_damage is not None:
                self.on_damage(self, Offset(seen.next_offset))

    def offset_bound(self, position: int) -> Offset | None:
        """An offset that nothing before `position` reaches, by the index; None: ask the end.

        From an entry that lies, readers of committed records would not learn of all that was taken
        back: the batch that it leads to must be there.
        """
        found = self.offsets.floor(position - 1, 1)
        number = 0 if found is None else found[0] + 1
        if number >= self.offsets.count:
            return None
        relative, at = self.offsets.at(number)
        try:
            there = next(self.walk(at, self.size, at), None) if at >= position else None
        except Damaged:
            there = None
        if there is None or there.last_offset - self.base_offset != relative:
            self.offsets.clear()  # a rotten index: do without (I29)
            return None
        return Offset(there.last_offset)

    def locate(self, offset: int, limit: int) -> Place | None:
        """The batch that contains `offset`, or the first behind it; None past the last."""
        found = self.offsets.floor(offset - self.base_offset, 0)
        for place in self._walk_from(found, limit):
            if place.last_offset >= offset:
                return place
        return None

    def doubt(self, timestamp: int = 1 << 63) -> Cold | None:
        """What to bring before the largest timestamp is believed; None: batches said so, too.

        With a `timestamp` only where the index says that all are older: nobody would look here.
        An index that was cut between two entries looks whole. That it is shows in the batches
        behind the last entry's, of which none may be newer (I29).
        """
        if self.doubted is None or self.doubted[0] >= timestamp:
            return None
        start = 0
        try:
            with suppress(DiskError):
                found = self.offsets.floor(self.doubted[1] - 1, 0)
                start = 0 if found is None else found[1][1]
        except NotResident as missing:
            return Cold(missing.slice())
        return Doubted(self, start, self._written_from)

    def may_hold(self, timestamp: int) -> bool:
        """Whether there may be a batch with this timestamp or a later one, by what is believed."""
        return self.max_timestamp >= timestamp or self.newest_unknown_from is not None

    def first_since(self, timestamp: int, offset: int, limit: int) -> Place | None:
        """The first batch, not all before `offset`, whose largest timestamp is >= `timestamp`."""
        for place in self._walk_from(self._entry_before(timestamp), limit):
            if place.max_timestamp >= timestamp and place.last_offset >= offset:
                return place
        return None

    def _entry_before(self, timestamp: int) -> tuple[int, Entry] | None:
        """The offset-index entry to scan from for a timestamp; None: from the beginning.

        Time entries are made together with offset entries. So where the largest timestamp so far
        first reached `timestamp`, one interval later there is a time entry for it, and the last
        offset entry below that one's offset lies before the batch we look for.
        """
        found = self.times.floor(timestamp - 1, 0)
        if found is None or not self._is_true(found[1]):
            return None
        number = found[0] + 1
        if number < self.times.count:
            after = self.times.at(number)
            return self.offsets.floor(after[1] - 1, 0) if self._is_true(after) else None
        # Reached after the last time entry, so behind the last offset entry too: every offset
        # entry that was made later would have brought a time entry with it.
        count = self.offsets.count
        return None if self.offsets.last is None else (count - 1, self.offsets.last)

    def _is_true(self, time: Entry) -> bool:
        """Whether its batch is there, the first with that timestamp since an offset entry before.

        One that is wrong would lead behind records that are asked for (I29).
        """
        timestamp, relative = time
        offset = self.base_offset + relative
        try:
            for place in self._walk_from(self.offsets.floor(relative - 1, 0), self.size):
                if place.max_timestamp >= timestamp or place.last_offset >= offset:
                    is_it = place.base_offset <= offset <= place.last_offset
                    return is_it and place.max_timestamp == timestamp
        except Damaged:
            return False  # whoever scans comes to it
        return False

    def _end_within(self, position: int, target: int, limit: int) -> int:
        """The end of the last batch that ends at or before `target`, or of the first.

        Damage behind the first ends it too: what lies below is still read (I29). Nothing from
        `target` on is looked at, but for the first's header: it may be unreadable.
        """
        found = None
        if target - position > _CHUNK:  # else the index leads no nearer than the first read
            found = self.offsets.floor(target - HEADER_SIZE, 1)
            if found is not None and found[1][1] <= position:
                found = None
        if found is None:
            walk = self.walk(position, limit, target)
        else:
            walk = self._walk_from(found, limit, position, target)
        end = position
        try:
            for place in walk:
                batch_end = place.position + place.length
                if batch_end > target and place.position > position:
                    end = place.position
                    self._remember(place.base_offset, end)
                    break
                end = batch_end
                if end > target - HEADER_SIZE:  # there is no room for another
                    self._remember(place.last_offset + 1, end)
                    break
        except Damaged:
            if end == position:
                raise
        return end

    def _walk_from(
        self,
        found: tuple[int, Entry] | None,
        limit: int,
        otherwise: int = 0,
        target: int = POSITION_MAX,
    ) -> Iterator[Place]:
        """Batches from an index entry on, once it is seen to be true; else from `otherwise`."""
        if found is not None:
            relative, position = found[1]
            walk = self.walk(position, limit, target)
            try:
                first = next(walk, None) if 0 < position < limit else None
            except Damaged:
                first = None
            if first is not None and first.last_offset - self.base_offset == relative:
                yield first
                yield from walk
                return
            if position < limit:
                self.offsets.clear()  # a rotten index: do without (I29)
        yield from self.walk(otherwise, limit, target)

    def walk(self, position: int, limit: int, target: int = POSITION_MAX) -> Iterator[Place]:
        """The batches between two batch boundaries, by their headers, without blocking.

        Of bytes from `target` on no more is read than the header that is looked at.
        """
        chunk = b""
        chunk_at = 0
        while position < limit:
            at = position - chunk_at
            if not 0 <= at <= len(chunk) - _SCAN.size:
                read = self._read_headers(position, min(limit, max(target, position + HEADER_SIZE)))
                chunk, chunk_at, at = read, position, 0
                if len(chunk) < HEADER_SIZE:
                    raise Damaged(self.log.path, position)
            base, size, epoch, magic, _, _, delta, _, timestamp = _SCAN.unpack_from(chunk, at)
            length = size + 12
            if length < HEADER_SIZE or position + length > limit or magic != MAGIC or delta < 0:
                raise Damaged(self.log.path, position)
            yield Place(position, length, base, base + delta, timestamp, epoch)
            position += length

    def _read_headers(self, position: int, end: int) -> bytes:
        """A header, and what there is behind it for further ones."""
        length = min(_CHUNK, end - position)
        if self.ahead is not None and position < self._fresh_from():
            # The disk has filled these pages, and the first look at one is dear: see below.
            length = min(length, max(_PAGE - position % _PAGE, HEADER_SIZE))
        read = self.log.read_nowait(position, length)
        if read is None and length > HEADER_SIZE:
            read = self.log.read_nowait(position, HEADER_SIZE)
        if read is None:
            raise NotResident(self.log, position, min(_PROBE_EVERY, end - position))
        return read

    def _remember(self, offset: int, position: int) -> None:
        recent = self._recent
        if len(recent) >= _RECENT_MAX:
            del recent[next(iter(recent))]
        recent[offset] = position

    def _fresh_from(self) -> int:
        """Where the last 8 MiB begin of what this process itself wrote.

        Those pages were dirty a moment ago, and most fetches are for them: nobody asks for them.
        """
        written, tail = self._written_from, self.size - _TAIL_BYTES
        return written if written > tail else tail  # a call of max() takes longer than all this

    def _absent(self, position: int, end: int) -> bool:
        """Whether some pages are probably not in memory (a heuristic, 0.8 µs a probe)."""
        if position >= self._fresh_from():
            return False
        known = self.ahead is not None and self.ahead.holds(position, end)
        read = self.log.read_nowait
        for at in range(position, end - 1, _PROBE_EVERY_KNOWN if known else _PROBE_EVERY):
            if read(at, 1) is None:
                return True
        if known or position // _PAGE == (end - 1) // _PAGE:
            return False  # a header near the end was read on the way to it, or this was its page
        return read(end - 1, 1) is None


def new_segment(base_offset: Offset, files: list[File]) -> Segment:
    """The segment of freshly made files, in the order of SUFFIXES."""
    log, offsets, times = files
    return Segment(
        base_offset,
        log,
        SparseIndex(offsets, OFFSET_ENTRY, 0, None),
        SparseIndex(times, TIME_ENTRY, 0, None),
    )
