"""Opening a log: after a clean stop by trusting it, after any other by reading it.

Owns what is done about what is found: `findings` has the table. A torn tail is cut; nothing else is
dropped without a word. Blocks: at start and in tools only. Doing it twice gives the same, also
with a crash in between, because every step only removes what the next recovery would remove too.
What is cut, and what is kept though it makes no sense: docs/design/0004-torn-or-damaged.md.
"""

from __future__ import annotations

from itertools import pairwise

from ottla.core.model import LeaderEpoch, Offset, TopicId
from ottla.core.ports import (
    CreateFile,
    Disk,
    DiskError,
    File,
    ReplaceFile,
    Step,
    SyncDirectory,
    SyncFile,
    UnlinkFile,
)
from ottla.core.value import Value
from ottla.records.batch import CONTROL_BIT, CRC_START, HEADER_SIZE, BatchView
from ottla.records.crc import crc32c
from ottla.storage import epochs as leader_epochs
from ottla.storage.aborted import SUFFIX, AbortedIndex, open_aborted
from ottla.storage.checked import ANYWHERE
from ottla.storage.checkpoints import QUARANTINE, AbortedSeals, decode_quarantine
from ottla.storage.cleaner import swap
from ottla.storage.derived import (
    doubt_aborted,
    epochs_of,
    find_aborted,
    named_offsets,
    place_open,
    producers_of,
)
from ottla.storage.findings import Case, Finding
from ottla.storage.index import (
    OFFSET_ENTRY,
    TIME_ENTRY,
    SparseIndex,
    open_index,
)
from ottla.storage.log import Opened
from ottla.storage.opening import UNBELIEVABLE, is_of_one_file, read_derived
from ottla.storage.reading import INTACT
from ottla.storage.resuming import resume
from ottla.storage.scanning import batches, contains_batch
from ottla.storage.segment import POSITION_MAX, Segment, stem
from ottla.storage.settings import LogSettings

_FIRST = Offset(0)


class Hints(Value):
    """What the log directory's checkpoints say of a log."""

    clean: bool = False
    """Everything was synced and closed in order: believe the files."""
    recovery_point: Offset = _FIRST
    """Everything below was on disk for certain."""
    start: Offset = _FIRST
    cleaned: Offset = _FIRST
    """Below here offsets may be missing, whatever the topic's policy is by now."""
    now_ms: int = 0
    """When a segment counts as made, for rolls by time of records without timestamps."""
    start_certain: bool = False
    """Whether `start` is what we wrote; Kafka leaves out one that is a segment's."""
    aborted: AbortedSeals | None = None
    """What its indexes of aborted transactions are to be like. None: nothing vouches for them."""


class Recovery:
    """A log being opened: what was found so far, and the steps that make it so."""

    def __init__(self, disk: Disk, directory: str, settings: LogSettings, hints: Hints) -> None:
        self.disk = disk
        self.directory = directory
        self.settings = settings
        self.hints = hints
        self.findings: list[Finding] = []
        self.opened: list[File] = []
        """What has a descriptor, to be let go of if the log can't be opened."""
        self.touched: list[File] = []
        self.edits: list[Step] = []
        self.unsound: set[Offset] = set()
        """Segments whose indexes must be made anew."""
        self.aborted_unsound: set[Offset] = set()
        """Segments whose aborted transactions must be found anew."""
        self.read_from: Offset | None = None
        """Where the reading of batches began; None: all was trusted."""
        self.epochs_read: list[tuple[LeaderEpoch, Offset]] = []
        self.producers_read = False
        """Whether any batch read had a producer: if not, there is no need to look again."""

    @property
    def holes_until(self) -> int:
        """Below this offset compaction may have left holes."""
        return ANYWHERE if self.settings.compacted else self.hints.cleaned

    def may_lack(self, expected: int, offset: int) -> bool:
        """Whether a batch at `offset` can come where `expected` would: compaction leaves holes."""
        return offset > expected and (self.settings.compacted or offset <= self.hints.cleaned)

    def may_skip(self, expected: int, base_offset: int) -> bool:
        """Whether a segment can begin behind where the one before ends, for the same reason.

        Only where a compaction has been for certain: else the end of that one may be torn off.
        """
        certain = max(self.hints.recovery_point, self.hints.cleaned)
        return expected < base_offset <= min(certain, self.holes_until)

    def found(self, case: Case, path: str, position: int = 0, reason: str = "") -> None:
        self.findings.append(Finding(case, path, position, reason))


LEFTOVER_SUFFIXES = (".tmp", ".deleted", ".cleaned", ".swap")


def open_log(
    disk: Disk,
    directory: str,
    topic_id: TopicId,
    settings: LogSettings,
    hints: Hints,
    later: list[Step] | None = None,
) -> tuple[Opened, list[Finding]]:
    """Open the log in `directory`; its files are sound and durable then.

    With `later` it gets the steps that make them durable, for the caller to do before anything is
    read or written: those of many logs together take less.

    One of which a file can't be read opens failed and shows nothing, and the other logs of the disk
    serve; a derived file that can't be read is removed, and made anew as if it had been missing.
    Raises DiskError where another file would fare no better, or a write is refused.
    """
    removed: list[str] = []
    unsound: set[Offset] = set()
    while True:
        work = Recovery(disk, directory, settings, hints)
        work.unsound |= unsound
        try:
            return _open(work, topic_id, later)
        except DiskError as error:
            if not is_of_one_file(error):
                raise
            unsound = work.unsound  # an index that was missing is there by now, and empty
            for file in work.opened:
                file.close()
            if error.path in removed or not _remove_derived(disk, error.path):
                work.found(Case.UNREADABLE, error.path, reason=str(error))
                opened = Opened(topic_id, hints.start, hints.recovery_point, failed=True)
                return opened.replace(on_disk=True), work.findings
            removed.append(error.path)


def _remove_derived(disk: Disk, path: str) -> bool:
    """Remove a file that can be made anew from the batches; False if it is none, or stays.

    An index of aborted transactions leaves one that nobody can believe: where the batches can't be
    read either, a later start must see that it is missed, and most segments have none.
    """
    if not path.endswith((".index", ".timeindex", SUFFIX, ".snapshot", leader_epochs.FILE_NAME)):
        return False
    missed = path.endswith(SUFFIX)
    try:
        disk.perform_now([ReplaceFile(path, UNBELIEVABLE) if missed else UnlinkFile(path)])
    except DiskError:
        return False
    return True


def _open(
    work: Recovery, topic_id: TopicId, later: list[Step] | None
) -> tuple[Opened, list[Finding]]:
    disk, directory, hints = work.disk, work.directory, work.hints
    names = _sweep(work, _finish_swaps(work, disk.names(directory)))
    segments = _without_strays(
        work, [_open_segment(work, base, names) for base in named_offsets(names, ".log")]
    )
    segments = _without_deleted(work, segments)
    if hints.clean and segments and not _trust(work, segments):
        work.found(Case.END_MISSING, directory)
        hints = work.hints = hints.replace(clean=False)
    failed = not hints.clean and _verify(work, segments)
    end = segments[-1].end if segments else hints.start
    if end < hints.recovery_point and not failed:
        work.found(Case.DAMAGED, directory, end)
        failed = True
    if end < hints.start:
        # Nothing above the start can be read: it was never synced and is lost (flush.policy=os), or
        # damaged. The log goes on at its start: what comes now is not what was deleted.
        if failed:
            for segment in segments:
                segment.close()
        else:
            _discard(work, segments, Case.BELOW_START)
        segments, end = [], hints.start
    epochs = epochs_of(work, segments, end)
    doubt_aborted(work, names, segments)
    find_aborted(work, names, segments)
    producers = producers_of(work, names, segments, end)
    place_open(producers, segments)
    if not failed:
        _make_durable(work, later)
    start = _start(segments, hints.start, end)
    certain = hints.recovery_point if failed else end
    closed = hints.clean and not work.edits and f"{end:020d}.snapshot" in names
    damaged_at = _quarantined_at(work, names)
    failed = failed or damaged_at is not None
    opened = Opened(
        topic_id,
        start,
        certain,
        segments,
        epochs,
        producers,
        failed,
        INTACT if damaged_at is None else damaged_at,
        on_disk=True,
        complete=closed and not failed,
    )
    return opened, work.findings


def _start(segments: list[Segment], wanted: Offset, end: Offset) -> Offset:
    if not segments:
        return wanted
    return Offset(min(max(segments[0].base_offset, wanted), end))


def _quarantined_at(work: Recovery, names: list[str]) -> Offset | None:
    """Where damage was found before: at the end, if the note of it can't be read."""
    if QUARANTINE not in names:
        return None
    path = f"{work.directory}/{QUARANTINE}"
    work.found(Case.QUARANTINED, path)
    offset = decode_quarantine(read_derived(work.disk, path))
    return INTACT if offset is None else offset


def _finish_swaps(work: Recovery, names: list[str]) -> list[str]:
    """Bring compactions to their end that a crash has cut short; the names afterwards."""

    def end_of(file: File) -> int | None:
        end, size, position = None, file.size(), 0
        for batch, at in batches(file, 0, size, whole=False):
            end, position = int(batch.last_offset) + 1, at + batch.length
        return end if position == size else None

    if not any(name.endswith(swap.SWAP) for name in names):
        return names
    for path in swap.finish(work.disk, work.directory, names, end_of):
        work.found(Case.SWAPPED, path)
    return work.disk.names(work.directory)


def _sweep(work: Recovery, names: list[str]) -> list[str]:
    """Remove what was on its way in or out."""
    kept = []
    for name in names:
        base, _, suffix = name.rpartition(".")
        path = f"{work.directory}/{name}"
        if name.endswith(LEFTOVER_SUFFIXES):
            work.found(Case.LEFTOVER, path)
        elif suffix in ("index", "timeindex", "txnindex") and f"{base}.log" not in names:
            work.found(Case.ORPHAN, path)
        else:
            kept.append(name)
            continue
        work.edits.append(UnlinkFile(path))
    return kept


def _open_segment(work: Recovery, base: Offset, names: list[str]) -> Segment:
    """Open a segment's files; its end is not known yet."""
    path = stem(work.directory, base)
    indexes: list[SparseIndex] = []
    for suffix, entry in ((".index", OFFSET_ENTRY), (".timeindex", TIME_ENTRY)):
        here = f"{base:020d}{suffix}" in names
        if here:
            file = work.disk.open(path + suffix)
        else:
            file = work.disk.perform_now([CreateFile(path + suffix)])[0]
        work.opened.append(file)
        index = open_index(file, entry) if here else None
        if index is None:
            work.unsound.add(base)
            index = SparseIndex(file, entry, 0, None)
        indexes.append(index)
    log = work.disk.open(path + ".log")
    work.opened.append(log)
    segment = Segment(base, log, indexes[0], indexes[1])
    if f"{base:020d}{SUFFIX}" in names:
        file = work.disk.open(path + SUFFIX)
        work.opened.append(file)
        segment.aborted = open_aborted(file, base)
        if segment.aborted is None:
            work.found(Case.INDEX_REBUILT, file.path)
            segment.aborted = AbortedIndex(file)
            work.aborted_unsound.add(base)
    segment.size = segment.log.size()
    segment.holes_until = work.holes_until
    segment.created_ms = work.hints.now_ms
    return segment


def _without_strays(work: Recovery, segments: list[Segment]) -> list[Segment]:
    """Without empty segments in the middle: a roll that the disk refused left them there.

    The first one stays if it can have been compacted to nothing: Kafka leaves it, and it says where
    the log begins. Otherwise something was in it, and is missed when the log begins too late.
    """
    stays = segments[-1:]
    if len(segments) > 1 and segments[1].base_offset <= work.holes_until:
        stays = [segments[0], segments[-1]]
    kept = [one for one in segments if one.size > 0 or one in stays]
    _discard(work, [one for one in segments if one not in kept])
    return kept


def _without_deleted(work: Recovery, segments: list[Segment]) -> list[Segment]:
    """Without segments below the start: a crash came between its checkpoint and their removal."""
    start = work.hints.start
    gone = [one for one, after in pairwise(segments) if after.base_offset <= start]
    _discard(work, gone, Case.BELOW_START)
    return segments[len(gone) :]


def _discard(work: Recovery, segments: list[Segment], case: Case = Case.EMPTY_SEGMENT) -> None:
    for one in segments:
        work.found(case, one.log.path)
        work.edits += [UnlinkFile(file.path) for file in one.files()]
        work.touched = [file for file in work.touched if file not in one.files()]
        one.close()


# -- after a clean stop


def _trust(work: Recovery, segments: list[Segment]) -> bool:
    """Learn the segments without reading them; False if the last is not as it was left."""
    if _lacks_first(work, segments):
        return False
    for segment, after in pairwise(segments):
        _learn(work, segment, after.base_offset)
    last = segments[-1]
    _learn(work, last, last.base_offset)
    entry = last.offsets.last
    position = 0 if entry is None else entry[1]
    newest = -1
    for batch, at in batches(last.log, position, last.size, whole=False):
        last.end = Offset(batch.last_offset + 1)
        position = at + batch.length
        newest = max(newest, batch.max_timestamp)
    if newest > last.max_timestamp:  # a stop adds the entry of the largest
        work.unsound.add(last.base_offset)
        _learn(work, last, last.end)
    last.checked_end = last.end
    return position == last.size and last.end == work.hints.recovery_point


def _lacks_first(work: Recovery, segments: list[Segment]) -> bool:
    """Whether segments are missing in front: a start is durable before what lies below it goes."""
    first, start = segments[0].base_offset, work.hints.start
    return work.hints.start_certain and first > start and not first <= work.holes_until


def _learn(work: Recovery, segment: Segment, end: Offset) -> None:
    """What a segment's indexes and first header say of it; its batches only if they don't.

    By the largest timestamp it is told what is old enough to go, and where nothing is to be looked
    for: no less than the first batch's own is believed.
    """
    raw = segment.log.read(0, HEADER_SIZE)
    if len(raw) == HEADER_SIZE:
        segment.first_timestamp = BatchView(memoryview(raw)).max_timestamp
    times = segment.times.last
    if (segment.first_timestamp or 0) > (0 if times is None else times[0]):
        work.unsound.add(segment.base_offset)
    if segment.base_offset in work.unsound:
        work.found(Case.INDEX_REBUILT, segment.log.path)
        _rebuild(work, segment, None)
        segment.seal()
        work.touched += segment.files()
        segment.size = segment.log.size()  # a read that comes to where it stopped reports it
        times = segment.times.last
    if times is not None:
        segment.max_timestamp = times[0]
        segment.max_timestamp_offset = segment.base_offset + times[1]
    segment.doubted = (-1, 0) if times is None else times
    segment.end = end
    segment.opened()


# -- after any other stop


def _verify(work: Recovery, segments: list[Segment]) -> bool:
    """Read everything from the recovery point on; cut a torn tail. True if the log is damaged."""
    certain = work.hints.recovery_point
    # A log's start is durable before segments below it go. So one that begins later has lost its
    # first segments; unless that was so at the recovery point (Kafka doesn't write a start that
    # is a segment's).
    expected: Offset | None = None
    if segments and (
        segments[0].base_offset > max(work.hints.start, certain) or _lacks_first(work, segments)
    ):
        expected = work.hints.start
    for at, segment in enumerate(segments):
        begins = segment.base_offset
        if expected is not None and begins != expected and not work.may_skip(expected, begins):
            return _end_log(work, segments, at, expected, 0)
        # The round that got past the next one's base has also synced this one's indexes. An empty
        # one proves nothing: a refused roll may have left it, and this one have been gone on with.
        if (
            at + 1 < len(segments)
            and segments[at + 1].base_offset < certain
            and segments[at + 1].log.size()
        ):
            expected = segments[at + 1].base_offset
            _learn(work, segment, expected)
            continue
        sound = _rebuild(work, segment, certain)
        expected = segment.end
        if sound != segment.log.size():
            return _end_log(work, segments, at, expected, sound)
        if at + 1 < len(segments):
            segment.seal()
            work.touched += segment.files()  # a later recovery believes the indexes of closed ones
    return False


def _end_log(
    work: Recovery, segments: list[Segment], at: int, expected: Offset, sound: int
) -> bool:
    """The log stops making sense at `sound` in a segment: torn, or (True) damaged?"""
    segment = segments[at]
    path = segment.log.path
    keep = at if segment.base_offset != expected and sound == 0 else at + 1
    damaged = expected < work.hints.recovery_point or any(
        contains_batch(one.log.read(sound if one is segment else 0, one.log.size()), expected)
        for one in segments[at:]
    )
    if damaged:
        work.found(Case.DAMAGED, path, sound)
        for one in segments[keep:]:
            one.close()
    else:
        work.found(Case.TORN_TAIL, path, sound)
        segment.log.truncate(sound)
        work.touched.append(segment.log)
        _discard(work, segments[keep:])
    del segments[keep:]
    return damaged


def _forget(segment: Segment) -> None:
    """It is read from its beginning; a stop that looked clean may have been believed up to here."""
    segment.offsets.clear()
    segment.times.clear()
    segment.size = 0
    segment.end = segment.base_offset
    segment.max_timestamp, segment.max_timestamp_offset = -1, int(segment.base_offset)
    segment.first_timestamp = None


def _rebuild(work: Recovery, segment: Segment, verify_from: Offset | None) -> int:
    """Learn a segment from its batches and make its indexes anew; the end of the sound ones.

    Checksums from `verify_from` on (None: nowhere): what lies before was on disk for certain, and
    is not read again where the indexes lead to its end.
    A batch is sound if it follows: offsets go on, leader epochs don't fall.
    """
    size = segment.log.size()
    indexes = (segment.offsets, segment.times)
    were = [index.file.read(0, index.file.size()) for index in indexes]
    before = None
    if verify_from is not None and segment.aborted is None:
        before = resume(segment, verify_from)
    if before is None:
        _forget(segment)
    keeps = [index.count for index in indexes]
    if segment.aborted is not None:
        work.aborted_unsound.add(segment.base_offset)
    epoch = -1 if before is None else before.leader_epoch
    checked: tuple[int, Offset] | None = None
    room_until: Offset | None = None
    if work.read_from is None:
        work.read_from = segment.end
    whole = verify_from is not None
    for batch, position in batches(segment.log, segment.size, size, whole=whole):
        if batch.base_offset < segment.end or batch.leader_epoch < epoch:
            # One of the two lies. If it is the one before, a look at it finds that out.
            room_until, checked = Offset(batch.base_offset), None
            break
        if batch.last_offset - segment.base_offset > POSITION_MAX:
            break
        if verify_from is not None and batch.last_offset >= verify_from:
            # The checksum doesn't cover the base offset, but it can only be the next one.
            follows = batch.base_offset == segment.end
            if not follows and not work.may_lack(segment.end, batch.base_offset):
                break
            if crc32c(batch.view[CRC_START:]) != batch.crc:
                break
            checked = checked or (position, segment.end)
        if batch.leader_epoch != epoch:
            epoch = batch.leader_epoch
            work.epochs_read.append((LeaderEpoch(epoch), Offset(batch.base_offset)))
        if batch.producer_id >= 0:
            work.producers_read = True
            if batch.attributes & CONTROL_BIT:
                work.aborted_unsound.add(segment.base_offset)
        segment.note(batch, position, work.settings.index_interval_bytes)
    segment.note_sealed(were[1])
    # What was in an index and is no more must not come back in a crash, beside what comes now.
    for index, was, kept in zip(indexes, were, keeps, strict=True):
        if index.settle(was, kept):
            work.touched.append(index.file)
    segment.opened()
    if checked is not None:
        segment.checked_from, segment.checked_end = checked
    if room_until is not None:
        segment.checked_end = room_until
    if verify_from is None or segment.end > verify_from:
        work.touched.append(segment.log)
    return segment.size


def _make_durable(work: Recovery, later: list[Step] | None) -> None:
    steps: list[Step] = [SyncFile(file) for file in dict.fromkeys(work.touched)]
    steps += work.edits
    if not steps:
        return
    steps.append(SyncDirectory(work.directory))
    if later is None:
        work.disk.perform_now(steps)
    else:
        later += steps
