"""What a start derives from the batches: leader epochs, producers, open and aborted transactions.

Owns how each is made from the newest file that can be believed and the batches behind it. Blocks:
at start only. Must not judge a batch: `recovery` has done so, and cut what is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ottla.core.model import LeaderEpoch, Offset
from ottla.core.ports import CreateFile, ReplaceFile, UnlinkFile
from ottla.records.batch import CONTROL_BIT, BatchView
from ottla.storage import epochs as leader_epochs
from ottla.storage import snapshots
from ottla.storage.aborted import SUFFIX, Aborted, AbortedIndex
from ottla.storage.checkpoints import decode_epochs, encode_epochs
from ottla.storage.epochs import LeaderEpochs
from ottla.storage.findings import Case
from ottla.storage.index import Entry, NotResident, SparseIndex
from ottla.storage.producers import BadSnapshot, ProducerStates, decode_snapshot
from ottla.storage.reading import LogPosition
from ottla.storage.scanning import batches
from ottla.storage.segment import Segment, stem
from ottla.storage.snapshots import snapshot_path

if TYPE_CHECKING:
    from ottla.storage.recovery import Recovery

_FIRST = Offset(0)
_COORDINATOR_EPOCH, _OPEN_SINCE = 6, 7  # of a snapshot's entry


def named_offsets(names: list[str], suffix: str) -> list[Offset]:
    """The offsets that files of one kind are named by, rising."""
    stems = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    return sorted(Offset(int(text)) for text in stems if len(text) == 20 and text.isdigit())


def epochs_of(work: Recovery, segments: list[Segment], end: Offset) -> LeaderEpochs:
    path = f"{work.directory}/{leader_epochs.FILE_NAME}"
    raw = work.disk.read_file(path)
    entries = decode_epochs(raw)
    if not raw and any(segment.size for segment in segments):
        entries = None  # it is written before the first batch
    if entries is None:
        work.found(Case.EPOCHS_UNSOUND, path)
    epochs = LeaderEpochs(entries or [])
    epochs.truncate(end)
    if work.hints.clean and entries is not None:
        return epochs
    if not entries and segments and work.read_from != segments[0].base_offset:
        for _, batch, _ in _batches_since(segments, _FIRST):
            epochs.assign(LeaderEpoch(batch.leader_epoch), Offset(batch.base_offset))
    for epoch, offset in work.epochs_read:
        epochs.assign(epoch, offset)
    if epochs.entries() != entries:
        # The recovery point moves on, so what was learned here would not be learned again.
        work.edits.append(ReplaceFile(path, encode_epochs(epochs.entries()), False))
    return epochs


def producers_of(
    work: Recovery, names: list[str], segments: list[Segment], end: Offset
) -> ProducerStates:
    """From the newest snapshot that is sound and not past the end, and the batches after it."""
    producers = ProducerStates(work.settings.producers_max)
    begin: Offset | None = None
    bases = {segment.base_offset for segment in segments}
    for offset in reversed(named_offsets(names, snapshots.SUFFIX)):
        path = snapshot_path(work.directory, offset)
        if offset > end:
            work.found(Case.SNAPSHOT_AHEAD, path)
        elif begin is None:
            try:
                producers.load(decode_snapshot(work.disk.read_file(path) or b""))
                begin = offset
                continue
            except BadSnapshot:
                work.found(Case.SNAPSHOT_UNSOUND, path)
        elif offset in bases:
            continue
        work.edits.append(UnlinkFile(path))
    begin = begin or _FIRST
    if work.producers_read or work.read_from is None or begin < work.read_from:
        _replay(producers, segments, begin)
    return producers


def doubt_aborted(work: Recovery, names: list[str], segments: list[Segment]) -> None:
    """Note whose index of aborted transactions is not as the last checkpoint left it.

    A flipped bit may leave an entry that could be right, and a lost file leaves nothing to see.
    One that has changed since the checkpoint is in a segment that was read, or compacted. Where
    nothing vouches (in Kafka's directories; ours may have lost that file), all are found anew,
    unless there is no sign of transactions in the log.
    """
    seals = work.hints.aborted
    if seals is None:
        if any(one.aborted is not None for one in segments) or _tells_of_markers(work, names):
            work.aborted_unsound |= {one.base_offset for one in segments}
        return
    for segment in segments:
        base, index = segment.base_offset, segment.aborted
        is_like = None if index is None else (index.count, index.crc)
        if base not in work.aborted_unsound and is_like != seals.get(base):
            work.found(Case.INDEX_REBUILT, stem(work.directory, base) + SUFFIX)
            work.aborted_unsound.add(base)


def _tells_of_markers(work: Recovery, names: list[str]) -> bool:
    for offset in named_offsets(names, snapshots.SUFFIX):
        with suppress(BadSnapshot):
            path = snapshot_path(work.directory, offset)
            for entry in decode_snapshot(work.disk.read_file(path) or b""):
                if entry[_COORDINATOR_EPOCH] >= 0 or entry[_OPEN_SINCE] >= 0:
                    return True
    return False


def find_aborted(work: Recovery, names: list[str], segments: list[Segment]) -> None:
    """Make the indexes of aborted transactions anew that are missing, stale or unsound.

    From the newest snapshot that is not behind them: an older one than `producers_of` begins with,
    which may stand in the middle of a segment.
    """
    if not work.aborted_unsound:
        return
    first = min(work.aborted_unsound)
    producers = ProducerStates(work.settings.producers_max)
    begin = _FIRST
    for offset in reversed(named_offsets(names, snapshots.SUFFIX)):
        if offset <= first:
            try:
                path = snapshot_path(work.directory, offset)
                producers.load(decode_snapshot(work.disk.read_file(path) or b""))
            except BadSnapshot:
                continue
            begin = offset
            break
    for segment in segments:
        if segment.base_offset in work.aborted_unsound and segment.aborted is not None:
            segment.aborted.clear()
    _replay(producers, segments, begin, partial(_note_aborted, work))
    for segment in segments:
        if segment.base_offset in work.aborted_unsound and segment.aborted is not None:
            segment.aborted.settle()
            work.touched.append(segment.aborted.file)


def _note_aborted(work: Recovery, segment: Segment, aborted: Aborted) -> None:
    if segment.base_offset not in work.aborted_unsound:
        return
    if segment.aborted is None:
        path = stem(work.directory, segment.base_offset) + SUFFIX
        segment.aborted = AbortedIndex(work.disk.perform_now([CreateFile(path)])[0])
    segment.aborted.stage(aborted)
    segment.aborted.take()


def _replay(
    producers: ProducerStates,
    segments: list[Segment],
    begin: Offset,
    note: Callable[[Segment, Aborted], None] | None = None,
) -> None:
    """Take in what the producers wrote since `begin`; `note` is told of what was taken back."""
    for segment, batch, position in _batches_since(segments, begin):
        if note is not None and batch.attributes & CONTROL_BIT:
            aborted = producers.taken_back(batch, Offset(batch.base_offset))
            if aborted is not None:
                note(segment, aborted)
        began = producers.update(batch)
        if began is not None:
            began.place = LogPosition(began.first_offset, segment, position)


def place_open(producers: ProducerStates, segments: list[Segment]) -> None:
    """Find where those began that a snapshot told of. Where the log has lost it, readers stop
    before the segment: they miss what they could have had, and see nothing that is open."""
    for transaction in producers.unstable.open():
        first = transaction.first_offset
        if transaction.place.segment is not None:
            continue
        for segment in segments:
            if segment.end > first:
                found = next(_batches_since([segment], first), None)
                if found is None:
                    transaction.place = LogPosition(first, segment, 0)
                else:
                    _, batch, position = found
                    transaction.place = LogPosition(first, segment, position)
                    transaction.since_ms = batch.max_timestamp
                break


def _batches_since(
    segments: list[Segment], offset: Offset
) -> Iterator[tuple[Segment, BatchView, int]]:
    """Batches from `offset` on and where they lie; of control batches all bytes are in view."""
    for segment in segments:
        if segment.end <= offset:
            continue
        entry = _floor(segment.offsets, offset - segment.base_offset)
        position = 0 if entry is None else entry[1]
        for batch, at in batches(segment.log, position, segment.size, whole=False):
            if batch.base_offset >= offset:
                if batch.attributes & CONTROL_BIT and len(batch.view) < batch.length:
                    yield segment, BatchView(memoryview(segment.log.read(at, batch.length))), at
                else:
                    yield segment, batch, at


def _floor(index: SparseIndex, value: int) -> Entry | None:
    """As `SparseIndex.floor`, but reads what is not in memory; None if it can't be had."""
    for _ in range(64):
        try:
            found = index.floor(value, 0)
            return None if found is None else found[1]
        except NotResident as missing:
            missing.file.read(missing.position, missing.length)
    return None
