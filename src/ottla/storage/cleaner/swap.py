"""Putting a compacted segment in the place of those it was made of: a crash finds either.

Owns Kafka's suffixes and the order of steps. `.cleaned` while a segment is written, `.swap` once it
is whole and synced and takes over, `.deleted` for those whose place it takes.

    1. rename each `.cleaned` to `.swap`, the log last; sync the directory
    2. rename the old files to `.deleted`; sync the directory
    3. rename each `.swap` to its name; sync the directory

The old segments hold until nothing of 1 is missing any more: from then on the new one does. A
crash before that leaves something `.cleaned` and all that is old; a crash after it leaves the
`.swap` of a log, whose first and last offset say what is to go, until 2 is durable. A `.swap`
without its log's comes from the midst of 3. Directories left behind by Kafka are understood by the
same rules: it renames in another order, and says by the same signs how far it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from ottla.core.ports import (
    Disk,
    File,
    OpenFile,
    RenamePath,
    Step,
    SyncDirectory,
    UnlinkFile,
)
from ottla.storage.aborted import SUFFIX as ABORTED
from ottla.storage.segment import SUFFIXES, stem
from ottla.storage.snapshots import snapshot_path

if TYPE_CHECKING:
    from ottla.storage.cleaner.round import Cleaned

CLEANED: Final = ".cleaned"
SWAP: Final = ".swap"
DELETED: Final = ".deleted"
_LOG: Final = ".log"
_ALL: Final = (*SUFFIXES, ABORTED)
_DIGITS: Final = 20


def commit_steps(directory: str, cleaned: Cleaned) -> list[Step]:
    """The first part. The Files that it opens are the segment's, in the order of its suffixes."""
    path = stem(directory, cleaned.base_offset)
    return [
        *(
            RenamePath(f"{path}{suffix}{CLEANED}", f"{path}{suffix}{SWAP}")
            for suffix in reversed(cleaned.suffixes)
        ),
        SyncDirectory(directory),
        *(
            OpenFile(f"{path}{suffix}{SWAP}", becomes=f"{path}{suffix}")
            for suffix in cleaned.suffixes
        ),
    ]


def settle_steps(
    directory: str, cleaned: Cleaned, old: Iterable[str], bases: Iterable[int]
) -> list[Step]:
    """The second and third part. `old` are the paths of the files that go, `bases` the offsets
    where no segment begins any more: what their snapshots say of producers, later ones do too.
    """
    path = stem(directory, cleaned.base_offset)
    return [
        *(RenamePath(one, f"{one}{DELETED}") for one in old),
        SyncDirectory(directory),
        *(
            RenamePath(f"{path}{suffix}{SWAP}", f"{path}{suffix}")
            for suffix in reversed(cleaned.suffixes)
        ),
        SyncDirectory(directory),
        *(UnlinkFile(snapshot_path(directory, base)) for base in bases),
    ]


def removal_steps(old: Iterable[str]) -> list[Step]:
    """What removes files that `settle_steps` has set aside, some time later."""
    return [UnlinkFile(f"{one}{DELETED}") for one in old]


def discard_steps(directory: str, base_offset: int) -> list[Step]:
    """Take back what was not committed, or not even finished."""
    path = stem(directory, base_offset)
    return [
        *(UnlinkFile(f"{path}{suffix}{SWAP}") for suffix in _ALL),
        SyncDirectory(directory),
        *(UnlinkFile(f"{path}{suffix}{CLEANED}") for suffix in _ALL),
    ]


class Interrupted(NamedTuple):
    """What a crash has left of compactions, by name."""

    committed: Sequence[str]
    """`.swap` files that are to get their names, by base offset."""
    dropped: Sequence[str]
    """`.swap` files of what was not committed."""


def interrupted(names: Iterable[str]) -> Interrupted:
    """Tell apart the `.swap` files in a directory.

    What begins at or behind something `.cleaned` was not committed. (Kafka, which also splits a
    segment in two by these means, has it so for that.)
    """
    listed = sorted(names)
    cleaned = [name for name in listed if name.endswith(CLEANED)]
    swaps = [name for name in listed if name.endswith(SWAP) and _base_of(name) is not None]
    least = cleaned[0][:_DIGITS] if cleaned else "~"
    return Interrupted(
        [name for name in swaps if name[:_DIGITS] < least],
        [name for name in swaps if name[:_DIGITS] >= least],
    )


def finish(
    disk: Disk, directory: str, names: Sequence[str], end_of: Callable[[File], int | None]
) -> list[str]:
    """Bring what was interrupted to its end, durably: the paths of logs that took over.

    `end_of` tells the offset after a log's last batch, None where its bytes are not all batches:
    such a one does not take over. Blocks: at start only. Raises DiskError. Doing it again, also
    after a crash in between, comes to the same.
    """
    found = interrupted(names)
    dropped = list(found.dropped)
    ends: dict[str, int] = {}
    for name in found.committed:
        if name.endswith(_LOG + SWAP):
            file = disk.open(f"{directory}/{name}")
            end = end_of(file)
            file.close()
            if end is not None:
                ends[name[:_DIGITS]] = end
            elif name.removesuffix(SWAP) in names:
                dropped += [one for one in found.committed if one[:_DIGITS] == name[:_DIGITS]]
    committed = [name for name in found.committed if name not in dropped]
    replaced = [name for name in names if _is_within(name, ends)]
    steps: list[Step] = []
    for gone in (dropped, replaced):
        if gone:
            steps += [UnlinkFile(f"{directory}/{name}") for name in gone]
            steps.append(SyncDirectory(directory))
    for name in reversed(committed):
        steps.append(RenamePath(f"{directory}/{name}", f"{directory}/{name.removesuffix(SWAP)}"))
    if steps:
        disk.perform_now([*steps, SyncDirectory(directory)])
    return [f"{directory}/{base}{_LOG}" for base in ends]


def _is_within(name: str, ends: dict[str, int]) -> bool:
    """Whether a file belongs to a segment in whose place another one comes."""
    base = _base_of(name)
    suffix = name[_DIGITS:]
    if base is None or suffix not in _ALL:
        return False
    return any(int(begin) <= base < max(end, int(begin) + 1) for begin, end in ends.items())


def _base_of(name: str) -> int | None:
    digits = name[:_DIGITS]
    return int(digits) if len(digits) == _DIGITS and digits.isdecimal() else None
