"""The files of a log directory: finding them, and taking apart what isn't a batch.

Owns the layout (partitions, segments) and the entries of indexes, snapshots and checkpoints, read
independently of `storage`, so that `log verify` can disagree with it. Must not judge: that is
`log_checks.py`'s. Never writes a file.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ottla.cli.errors import BadInput
from ottla.host.files import open_regular

Data = mmap.mmap | bytes

_PARTITION = re.compile(r"(.+)-([0-9]+)")
_SEGMENT = re.compile(r"([0-9]{20})\.log")
METADATA = "__cluster_metadata-0"
"""Apache Kafka's own metadata log (KRaft): batches, but no topic's, and snapshots beside them."""
_POINTS = "recovery-point-offset-checkpoint"
_NAME_BYTES_MAX = 255
_CHUNK = 1 << 20
_LEAVING = re.compile(r".+-[0-9]+\.[0-9a-zA-Z_-]+-(?:delete|future|stray)")

INDEX_ENTRY = struct.Struct(">ii")
TIME_ENTRY = struct.Struct(">qi")
TXN_ENTRY = struct.Struct(">hqqqq")
SNAPSHOT_HEADER = struct.Struct(">hIi")
SNAPSHOT_ENTRY = struct.Struct(">qhiqiqiq")


@dataclass(frozen=True, slots=True)
class PartitionFiles:
    """A partition's directory, and what the data directory around it says of it."""

    path: str
    topic: str
    partition: int
    synced_until: int = 0
    """Offset below which everything was on disk: what is unsound there isn't a torn tail."""

    @property
    def name(self) -> str:
        return f"{self.topic}-{self.partition}"

    def segments(self) -> list[int]:
        """The base offsets of the segments, in order."""
        found = (_SEGMENT.fullmatch(name) for name in os.listdir(self.path))
        return sorted(int(match[1]) for match in found if match)

    def file(self, base_offset: int, suffix: str) -> str:
        return os.path.join(self.path, f"{base_offset:020}{suffix}")

    def snapshots(self) -> list[str]:
        return sorted(name for name in os.listdir(self.path) if name.endswith(".snapshot"))


class IndexEntry(NamedTuple):
    relative_offset: int
    position: int


class TimeEntry(NamedTuple):
    timestamp: int
    relative_offset: int


class TxnEntry(NamedTuple):
    version: int
    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


class ProducerEntry(NamedTuple):
    producer_id: int
    epoch: int
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int
    coordinator_epoch: int
    txn_first_offset: int


def partitions_under(path: str) -> tuple[list[PartitionFiles], list[str]]:
    """The partitions in a data directory, or the one that `path` is; and directories passed over.

    Raises BadInput where there is neither.
    """
    path = os.path.normpath(path)
    try:
        names = sorted(os.listdir(path))
    except NotADirectoryError:
        raise BadInput(f"{path} is a file; try: ottla log dump {path}") from None
    except OSError as error:
        raise BadInput(f"can't read {path}: {error.strerror}; try: ./ottla-data") from None
    if any(_SEGMENT.fullmatch(name) for name in names) or "partition.metadata" in names:
        return [partition_at(path)], []
    synced = _synced_points(path)
    found, passed = [], []
    for name in names:
        inner = os.path.join(path, name)
        if not os.path.isdir(inner):
            continue
        match = _PARTITION.fullmatch(name)
        if name == METADATA:
            passed.append(name)
        elif match and not _LEAVING.fullmatch(name):
            place = (match[1], int(match[2]))
            found.append(PartitionFiles(inner, *place, synced(*place)))
        elif _LEAVING.fullmatch(name):
            passed.append(name)
    if not found and not os.path.exists(os.path.join(path, "meta.properties")):
        raise BadInput(f"there is no log in {path}; try a data directory, such as ./ottla-data")
    found.sort(key=lambda one: (one.topic, one.partition))
    return found, passed


def partition_at(path: str) -> PartitionFiles:
    """The partition in one directory; its name is the directory's."""
    path = os.path.abspath(path)
    match = _PARTITION.fullmatch(os.path.basename(path))
    if match is None:
        return PartitionFiles(path, os.path.basename(path), 0)
    place = (match[1], int(match[2]))
    return PartitionFiles(path, *place, _synced_points(os.path.dirname(path))(*place))


def _synced_points(directory: str) -> Callable[[str, int], int]:
    """How far each partition of a data directory was synced: all of it, after a clean stop."""
    if os.path.exists(os.path.join(directory, ".kafka_cleanshutdown")):
        return lambda _topic, _partition: 1 << 63
    points: dict[tuple[str, int], int] = {}
    try:
        with open(os.path.join(directory, _POINTS), opener=open_regular) as file:
            lines = file.read().split("\n")[2:]
    except (OSError, UnicodeDecodeError):
        lines = []
    for line in lines:
        words = line.split(" ")
        if len(words) == 3 and words[1].isdecimal() and words[2].isdecimal():
            points[words[0], int(words[1])] = int(words[2])
    return lambda topic, partition: points.get((topic, partition), 0)


def mapped(path: str) -> Data:
    """A file's bytes. Raises OSError, also where the disk can't give one of them.

    So all are read once before they are mapped: of a bad sector in a mapping the kernel tells by a
    signal that ends the process.
    """
    with open(path, "rb", opener=open_regular) as file:
        fd = file.fileno()
        if os.fstat(fd).st_size == 0:
            return b""
        at = 0
        try:
            while count := len(os.pread(fd, _CHUNK, at)):
                at += count
        except OSError as error:
            error.filename = path
            raise
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)


def unpadded(data: Data, entry_size: int) -> bytes:
    """An index without the zeros that Apache Kafka keeps at the end of the active one."""
    content = bytes(data)
    kept = len(content.rstrip(b"\0"))
    # The last bytes of a real entry may be zeros too: keep whole entries.
    return content[: min(len(content), -(-kept // entry_size) * entry_size)]


def index_entries(content: bytes) -> Iterator[IndexEntry]:
    whole = len(content) // INDEX_ENTRY.size * INDEX_ENTRY.size
    return map(IndexEntry._make, INDEX_ENTRY.iter_unpack(content[:whole]))


def time_entries(content: bytes) -> Iterator[TimeEntry]:
    whole = len(content) // TIME_ENTRY.size * TIME_ENTRY.size
    return map(TimeEntry._make, TIME_ENTRY.iter_unpack(content[:whole]))


def txn_entries(content: bytes) -> Iterator[TxnEntry]:
    whole = len(content) // TXN_ENTRY.size * TXN_ENTRY.size
    return map(TxnEntry._make, TXN_ENTRY.iter_unpack(content[:whole]))


def snapshot_entries(content: bytes) -> Iterator[ProducerEntry]:
    body = content[SNAPSHOT_HEADER.size :]
    whole = len(body) // SNAPSHOT_ENTRY.size * SNAPSHOT_ENTRY.size
    return map(ProducerEntry._make, SNAPSHOT_ENTRY.iter_unpack(body[:whole]))


def new_aside(above: str, name: str) -> str:
    """A new directory for what is given up of a partition so named; brokers pass it over.

    A topic's name is cut where the whole would be longer than a file system takes.
    """
    topic, dash, partition = os.fsencode(name).rpartition(b"-")
    for number in range(1, 1 << 20):
        ending = os.fsdecode(dash + partition) + f".damaged{number}-stray"
        cut = topic[: _NAME_BYTES_MAX - len(ending)]
        path = os.path.join(above, os.fsdecode(cut) + ending)
        if not os.path.exists(path):
            os.mkdir(path)
            return path
    raise AssertionError("no directory has a million of these")
