"""`ottla log repair`: say what damage costs, and bring a damaged partition back at that price.

Owns the two ways of doing it: `--cut` gives up everything from the damage on, `--skip` only the
damaged bytes. (The metadata store is `log_repair_store.py`'s.) Changes nothing without one of the
two, nor while a broker has the directory open.
What is given up is kept: the files as they were lie in a directory aside, which brokers pass over.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from ottla.cli.errors import BadInput, CommandError
from ottla.cli.log_checks import lacks_records, sound_ranges
from ottla.cli.log_files import PartitionFiles, mapped, new_aside, partitions_under
from ottla.cli.log_repair_store import StoreRepair
from ottla.cli.render import counted, object_line
from ottla.core.model import Offset, TopicPartition
from ottla.host.files import open_regular
from ottla.host.lock import DirectoryInUse, lock_directory
from ottla.storage import checkpoints
from ottla.storage.segment import stem

if TYPE_CHECKING:
    from ottla.cli import arguments

_DERIVED = (".index", ".timeindex", ".txnindex")


@dataclass(slots=True)
class Damage:
    """Bytes of a segment that are no batch. Offsets and positions are exclusive at their ends."""

    partition: str
    segment: int
    position: int
    end: int
    offset: int
    offset_end: int
    """Where sound batches go on; the same as `cut_end` if none do."""
    cut_end: int
    """One more than the last offset that is known to have been there."""
    maybe_compacted: bool = False
    """Offsets are missing, and nothing tells whether compaction has removed them. Both ways keep
    what lies behind, and let brokers pass over it."""

    def lost(self, how: str) -> int:
        """Offsets that one of the two ways gives up."""
        return (self.offset_end if how == "skip" else self.cut_end) - self.offset


Found = list[tuple[PartitionFiles, list[Damage]]]


def run(options: arguments.LogRepair) -> int:
    """Print the damage and what each way costs; 1 if there is some and nothing was asked for.

    Raises BadInput where there is no log, CommandError where a broker has the directory.
    """
    if options.cut and options.skip:
        raise BadInput("--cut and --skip exclude each other: choose one")
    how = "cut" if options.cut else "skip" if options.skip else ""
    partitions, _ = partitions_under(options.path)
    directories = {_above(files) for files in partitions}
    store = StoreRepair(os.path.abspath(options.path), partitions)
    directories |= {store.path} if store.is_there else set()
    locks = []
    try:
        if how or options.adopt:
            locks = [lock_directory(path) for path in directories]
        is_locked = bool(how or options.adopt)
        lost = store.repair(adopt=options.adopt, is_locked=is_locked, as_json=options.json)
        unlifted = 0
        found, doubtful = _find(partitions, store)
        _tell_doubtful(doubtful, how, as_json=options.json)
        if how:
            _note_doubtful(doubtful)
        for files, damages in found:
            _tell(damages, how, as_json=options.json)
            if how and damages:
                _repair(files, damages, how, as_json=options.json)
            if os.path.exists(_quarantine(files)):
                unlifted += not damages and not how
                _lift(files, damages, how, as_json=options.json)
    except (DirectoryInUse, OSError) as error:
        raise CommandError(f"{options.path} can't be repaired: {error}") from error
    finally:
        for lock in locks:
            lock.release()
    count = sum(len(damages) for _, damages in found + doubtful)
    if not count and not unlifted and not lost and not options.json:
        sys.stdout.write("nothing to repair\n")
    return 1 if ((count or unlifted) and not how) or (lost and not options.adopt) else 0


def _find(partitions: Sequence[PartitionFiles], store: StoreRepair) -> tuple[Found, Found]:
    """What is damaged in each, and where it can't be known whether anything is."""
    found: Found = []
    doubtful: Found = []
    for files in partitions:
        all_of_it = [*damage_of(files, store.is_compacted(files.topic))]
        found.append((files, [one for one in all_of_it if not one.maybe_compacted]))
        doubtful.append((files, [one for one in all_of_it if one.maybe_compacted]))
    return found, doubtful


def _quarantine(files: PartitionFiles) -> str:
    return os.path.join(files.path, checkpoints.QUARANTINE)


def _lift(files: PartitionFiles, damages: list[Damage], how: str, *, as_json: bool) -> None:
    """Let a broker use the partition again: what was damaged is repaired, or whole again."""
    if how:
        os.remove(_quarantine(files))
        _sync(files.path)
    elif not damages and not as_json:
        sys.stdout.write(
            f"{files.name}: damage was found here before, and there is none any more\n"
            "  --cut or --skip gives up nothing, and lets the partition be used again\n"
        )


def damage_of(files: PartitionFiles, compacted: bool | None) -> list[Damage]:
    """What is damaged, in order. A tail that the next start cuts by itself is none.

    `compacted`: whether its topic is to be; None if that is not known.
    """
    bases = files.segments()
    at = 0
    cleaned = _cleaned(files)
    holes_until = 1 << 63 if compacted else cleaned or 0
    in_doubt = cleaned is None
    certain = _known(files, checkpoints.RECOVERY_POINTS)
    expected = _first_of(files, bases, certain)
    last = bases[0] if bases else 0
    found: list[Damage] = []

    def miss(segment: int, position: int, offset_end: int) -> None:
        if expected < offset_end > holes_until:
            where = (segment, position, position, expected, offset_end, 0)
            found.append(Damage(files.name, *where, maybe_compacted=in_doubt))

    for base, after in zip_longest(bases, bases[1:]):
        miss(last, at, base)
        last = base
        data = mapped(files.file(base, ".log"))
        at = 0
        expected = max(expected, base)
        for begin, end, first, final in sound_ranges(data, expected, after):
            if begin > at:
                found.append(Damage(files.name, base, at, begin, expected, first, 0))
            else:
                miss(base, at, first)
            at, expected = end, final + 1
        if at < len(data) and (after is not None or expected < files.synced_until):
            known = max(_end_of(files) if after is None else after, expected)
            found.append(Damage(files.name, base, at, len(data), expected, known, 0))
            expected = known
    if expected < certain:  # whole batches are gone, or whole segments: no byte is wrong
        found.append(Damage(files.name, last, at, at, expected, certain, 0))
        expected = certain
    known_not = compacted is False and any(one.maybe_compacted for one in found)
    if known_not and not any(lacks_records(mapped(files.file(one, ".log"))) for one in bases):
        in_doubt = False
    for one in found:
        one.maybe_compacted &= in_doubt
        one.cut_end = max(expected, one.offset_end, _end_of(files))
    return found


def _first_of(files: PartitionFiles, bases: list[int], certain: int) -> int:
    """Where the log is known to have begun: before its first segment, if others are missing."""
    start = _known(files, checkpoints.LOG_STARTS)
    if not bases:
        return start
    sealed = checkpoints.is_sealed(_content(_above(files), checkpoints.LOG_STARTS))
    # Kafka leaves out a start that is a segment's: only what begins past all is missing then.
    return start if bases[0] > (start if sealed else max(start, certain)) else bases[0]


def _end_of(files: PartitionFiles) -> int:
    """How far the log is known to have gone, by the checkpoints of its data directory."""
    return max(
        _known(files, checkpoints.RECOVERY_POINTS), _known(files, checkpoints.HIGH_WATERMARKS)
    )


def _known(files: PartitionFiles, name: str) -> int:
    return _offsets(_above(files), name).get(_key(files), Offset(0))


def _cleaned(files: PartitionFiles) -> int | None:
    """Below this offset compaction may have left holes; None if what would tell is lost."""
    raw = _content(_above(files), checkpoints.CLEANED)
    offsets = None if raw is None else checkpoints.decode_offsets(raw)
    return None if offsets is None else offsets.get(_key(files), Offset(0))


def _offsets(above: str, name: str) -> dict[TopicPartition, Offset]:
    return checkpoints.decode_offsets(_content(above, name)) or {}


def _content(above: str, name: str) -> bytes | None:
    """Of a file in a data directory; None if it is not there."""
    path = os.path.join(above, name)
    if not os.path.exists(path):
        return None
    with open(path, "rb", opener=open_regular) as file:
        return file.read()


def _above(files: PartitionFiles) -> str:
    """The data directory that a partition's lies in."""
    return os.path.dirname(os.path.abspath(files.path))


def _key(files: PartitionFiles) -> TopicPartition:
    return TopicPartition(files.topic, files.partition)


def _tell(damages: list[Damage], how: str, *, as_json: bool) -> None:
    for one in damages:
        if as_json:
            sys.stdout.write(object_line(asdict(one)))
            continue
        where = f"is damaged from byte {one.position:,} to {one.end:,}"
        if one.end == one.position:
            where = f"lacks what belongs at byte {one.end:,}"
        if one.offset < one.segment:
            where = "lacks what came before it"
        sys.stdout.write(
            f"{one.partition}: {one.segment:020}.log {where}: offset {one.offset} on\n"
        )
    if damages and not how and not as_json:
        skipped = sum(one.lost("skip") for one in damages)
        sys.stdout.write(
            f"  --cut gives up {counted(damages[0].lost('cut'), 'offset')} from "
            f"{damages[0].offset} on; --skip gives up {counted(skipped, 'offset')} and keeps what "
            "lies behind. What is given up is kept in a directory aside\n"
        )


def _tell_doubtful(doubtful: Found, how: str, *, as_json: bool) -> None:
    for files, holes in doubtful:
        if as_json:
            sys.stdout.writelines(object_line(asdict(one)) for one in holes)
        elif holes:
            count = counted(sum(one.lost("skip") for one in holes), "offset")
            sys.stdout.write(
                f"{files.name}: {count} from {holes[0].offset} on left out: compacted away, or "
                f"lost. {checkpoints.CLEANED}, which would tell, is missing or damaged\n"
            )
            if not how:
                sys.stdout.write("  --cut or --skip lets brokers pass over that, and keeps all\n")


def _repair(files: PartitionFiles, damages: list[Damage], how: str, *, as_json: bool) -> None:
    above = _above(files)
    aside = new_aside(above, files.name)
    # Without the marker the next start reads the logs; without it a half done repair is one more
    # unclean stop, and can be done again.
    _remove(os.path.join(above, checkpoints.CLEAN_MARKER))
    _sync(above)
    touched = {one.segment for one in damages}
    if how == "cut":
        first = damages[0]
        touched = {base for base in files.segments() if base >= first.segment}
    touched &= {*files.segments()}  # all of them may be gone
    for base in sorted(touched, reverse=True):
        source = f"{stem(files.path, base)}.log"
        kept = os.path.join(aside, os.path.basename(source))
        shutil.copyfile(source, kept)
        _sync(kept)
    _sync(aside)
    if how == "cut":
        _cut(files, damages[0], sorted(touched))
    else:
        for base in sorted(touched):
            _skip(files, base, [one for one in damages if one.segment == base])
    # The log goes on where it was: nobody must find other records at offsets that were given out.
    end = Offset(damages[-1].cut_end)
    with open(f"{stem(files.path, end)}.log", "ab"):
        pass
    _sync(files.path)
    for name in (checkpoints.CLEANED, checkpoints.RECOVERY_POINTS):
        _note(above, name, {_key(files): end})
    if not as_json:
        lost = sum(one.lost("skip") for one in damages) if how == "skip" else damages[0].lost("cut")
        sys.stdout.write(
            f"  {counted(lost, 'offset')} given up; the damaged files are kept in {aside}\n"
        )


def _cut(files: PartitionFiles, damage: Damage, bases: list[int]) -> None:
    for base in reversed(bases):
        _drop_derived(files, base)
        path = f"{stem(files.path, base)}.log"
        if base == damage.segment and damage.position:
            os.truncate(path, damage.position)
            _sync(path)
        elif base == damage.segment == bases[0] and base == files.segments()[0]:
            os.truncate(path, 0)
            _sync(path)
        else:
            _remove(path)
    _sync(files.path)


def _skip(files: PartitionFiles, base: int, damages: list[Damage]) -> None:
    path = f"{stem(files.path, base)}.log"
    data = mapped(path)
    with open(f"{path}.tmp", "wb") as file:
        at = 0
        for one in damages:
            file.write(data[at : one.position])
            at = one.end
        file.write(data[at:])
    _sync(f"{path}.tmp")
    _drop_derived(files, base)
    os.replace(f"{path}.tmp", path)
    _sync(files.path)


def _drop_derived(files: PartitionFiles, base: int) -> None:
    """Indexes are made anew at the next start."""
    for suffix in _DERIVED:
        _remove(stem(files.path, base) + suffix)


def _note_doubtful(doubtful: Found) -> None:
    """Of all logs before anything else: what the file doesn't name has no holes."""
    ends: dict[str, dict[TopicPartition, Offset]] = {}
    for files, holes in doubtful:
        above = _above(files)
        for one in holes:
            ends.setdefault(above, {})[_key(files)] = Offset(one.offset_end)
    for above, more in ends.items():
        _note(above, checkpoints.CLEANED, more)


def _note(above: str, name: str, ends: dict[TopicPartition, Offset]) -> None:
    """That all below is on disk, or offsets are missing there: neither is damage any more."""
    path = os.path.join(above, name)
    offsets = _offsets(above, name)
    for partition, end in ends.items():
        offsets[partition] = max(offsets.get(partition, Offset(0)), end)
    with open(f"{path}.tmp", "wb") as file:
        file.write(checkpoints.encode_offsets(offsets))
    _sync(f"{path}.tmp")
    os.replace(f"{path}.tmp", path)
    _sync(above)


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.remove(path)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
