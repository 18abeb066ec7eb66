"""Every byte of every file of a data directory gone wrong, and every file cut at every length.

Whatever it is and whatever the stop was like: no wrong record is served, none that was on disk for
certain is missing without an error, and the other partition serves all it has (I28, I29).

OTTLA_SOAK=1 does the same to a segment of 64 KiB.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from ottla.core.model import NO_TOPIC_ID, FileSlice, LeaderEpoch, Offset, TopicId, TopicPartition
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import CONTROL_BIT, TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.compress import CODEC_NAMES
from ottla.records.control import ControlType, EndMarker, build_end_marker
from ottla.records.reader import Record
from ottla.storage.aborted import Aborted
from ottla.storage.checked import Cold
from ottla.storage.checkpoints import CLEAN_MARKER, MetaProperties
from ottla.storage.directory import LogDirectory
from ottla.storage.index import NotResident
from ottla.storage.log import Log
from ottla.storage.reading import aborted_between
from ottla.storage.settings import LogSettings
from ottla.testing.simdisk import SimDisk
from ottla.testing.simimage import files_below, folder_of
from ottla.testing.simloop import SimLoop

SOAK = os.environ.get("OTTLA_SOAK") == "1"
SEGMENT_BYTES = (64 if SOAK else 9) << 10
FLIPS = tuple(1 << bit for bit in range(8)) if SOAK else (0x01,)
SETTINGS = LogSettings(segment_bytes=SEGMENT_BYTES, index_interval_bytes=1000)
HURT, WELL = TopicPartition("hurt", 0), TopicPartition("well", 0)
IDS = {HURT: TopicId(bytes([1] * 16)), WELL: TopicId(bytes([2] * 16))}
ME = MetaProperties("cluster", 0, "directory")
STOPS = ("clean", "unclean")


class _Lock:
    def release(self) -> None:
        pass


class World:
    """A log directory on a simulated disk, as a broker has it."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.disk = SimDisk()
        self.disk.root = folder_of(files)
        self.loop = SimLoop()
        self.directory = LogDirectory("/data", self.disk, self.loop, self.loop, "commit")
        self.directory.open(lambda _: _Lock(), ME, lambda _partition, _id: SETTINGS)

    def settle(self) -> None:
        while self.loop.turn() or self.disk.busy:
            self.disk.step()

    def append(self, log: Log, raw: bytes | bytearray, epoch: int) -> None:
        batch = BatchView(memoryview(bytearray(raw)))
        prepare = log.prepare_abort if batch.attributes & CONTROL_BIT else log.prepare
        while prepare(batch.length, LeaderEpoch(epoch), batch.max_timestamp) is not None:
            self.settle()
        if batch.attributes & CONTROL_BIT:
            log.append_marker(batch, LeaderEpoch(epoch))
        else:
            log.append(batch, LeaderEpoch(epoch))

    def read(self, log: Log) -> tuple[bytes, bool]:
        """All that a consumer gets from the start on, and whether it ends with an error."""
        parts = []
        offset = log.start
        bound = log.end_position()
        while True:
            piece = log.read(offset, 1 << 20, bound)
            if isinstance(piece, Cold):
                piece.bring(self.disk)
                self.settle()
                piece.slice.release()
            elif isinstance(piece, FileSlice):
                parts.append(piece.file.read(piece.position, piece.length))
                piece.release()
                offset = _end_of(parts[-1])
            else:
                assert piece in (None, ErrorCode.KAFKA_STORAGE_ERROR)
                return b"".join(parts), piece is not None

    def aborted(self, log: Log) -> list[Aborted]:
        """All that a reader of committed records is told to skip."""
        while True:
            try:
                return aborted_between(log.segments, Offset(0), log.end)
            except NotResident as missing:
                cold = Cold(missing.slice())
            cold.bring(self.disk)
            self.settle()
            cold.slice.release()


def _end_of(raw: bytes) -> Offset:
    at = 0
    while at < len(raw):
        batch = BatchView(memoryview(raw), at)
        at += batch.length
    assert at == len(raw), "a slice ends inside a batch"
    return Offset(batch.last_offset + 1)


def _batches() -> Iterator[bytes | bytearray]:
    """Plain, compressed by each codec, transactional, and the markers that end transactions."""
    sequence = 0
    for number in range(1 << 30):
        records = [
            Record(key=b"k%d" % n, value=b"%d %d " % (number, n) * 6, timestamp=1000 + number)
            for n in range(3)
        ]
        kind = number % 8
        if kind < len(CODEC_NAMES):
            yield build_batch(records, codec=kind)
        elif kind == 5:
            yield build_batch(records, producer=Producer(7, 0, sequence))
            sequence += 3
        elif kind == 6:
            yield build_batch(
                records,
                producer=Producer(8, 0, number // 8 * 3),
                attributes=TRANSACTIONAL_BIT,
            )
        else:
            yield build_end_marker(EndMarker(ControlType(number // 8 % 2), 0), 8, 0, 2000)


class Image(NamedTuple):
    files: dict[str, bytes]
    contents: dict[TopicPartition, bytes]
    certain: dict[TopicPartition, int]
    """Bytes of each partition that the checkpoints say were on disk for certain."""
    aborted: dict[TopicPartition, list[Aborted]]
    epochs: dict[TopicPartition, list[tuple[LeaderEpoch, Offset]]]


def _has_all(log: Log) -> bool:
    """Whether there are two segments, of which each has a transaction that was taken back."""
    return (
        len(log.segments) == 2
        and log.segments[1].size >= 1000
        and all(segment.aborted and segment.aborted.count for segment in log.segments)
    )


@cache
def image(stop: str) -> Image:
    """A directory after a clean stop, or as kill -9 leaves it some time after a checkpoint."""
    world = World({})
    logs = {key: world.directory.create(key, IDS[key], SETTINGS) for key in (HURT, WELL)}
    world.directory.checkpoints.retention_ms = lambda: 1_700_000_000_000
    world.directory.checkpoints.note_cleaned(WELL, Offset(0))
    source = _batches()
    certain = {}
    while not _has_all(logs[HURT]):
        epoch = 1 + (logs[HURT].end > 30)
        world.append(logs[HURT], next(source), epoch)
        if logs[WELL].end < 10:
            world.append(logs[WELL], build_batch([Record(value=b"well")]), epoch)
        world.settle()
        if logs[HURT].size < SEGMENT_BYTES - 1500:
            certain = {key: log.size for key, log in logs.items()}
            world.directory.checkpoint()
            world.settle()
    contents = {}
    for key, log in logs.items():
        contents[key], failed = world.read(log)
        assert not failed
    aborted = {key: world.aborted(log) for key, log in logs.items()}
    if stop == "clean":
        certain = {key: len(content) for key, content in contents.items()}
        world.directory.stop(1)
    files = files_below(world.disk.root)
    assert (f"/data/{CLEAN_MARKER}" in files) == (stop == "clean")
    epochs = {key: log.epochs.entries() for key, log in logs.items()}
    return Image(files, contents, certain, aborted, epochs)


def _epoch_bytes(content: bytes) -> set[int]:
    """Where leader epochs lie: outside the checksum, and a wrong one may fit its neighbours."""
    found: set[int] = set()
    at = 0
    while at < len(content):
        found.update(range(at + 12, at + 16))
        at += BatchView(memoryview(content), at).length
    return found


def judge(stop: str, path: str, content: bytes | None) -> str:
    """Open the directory with one file's content changed (None: gone) and read all there is."""
    whole = image(stop)
    files = dict(whole.files)
    if content is None:
        del files[path]
    else:
        files[path] = content
    world = World(files)
    states = []
    for key, expected in whole.contents.items():
        log = world.directory.logs[key]
        assert log.topic_id in (IDS[key], NO_TOPIC_ID)
        served, failed = world.read(log)
        state = "served"
        if served != expected[: len(served)]:
            differs = {at for at, byte in enumerate(served) if byte != expected[at]}
            assert differs <= _epoch_bytes(expected), f"wrong bytes from {min(differs)} on"
            state = "served with another leader epoch"
        shown = min(log.end, log.damaged_at)
        hidden = [one for one in whole.aborted[key] if one.last_offset < shown]
        found = [one for one in world.aborted(log) if one.last_offset < shown]
        assert found == hidden, "readers of committed records would see others"
        if not path.endswith(".log"):
            assert log.epochs.entries() == whole.epochs[key]
        if failed:
            state = "error"
        elif len(served) < len(expected):
            assert len(served) >= whole.certain[key], "missing without an error"
            state = "cut"
        if key == WELL and not path.startswith("/data/well"):
            assert state == "served", "a partition paid for another"
        states.append(state)
    world.directory.release()
    return states[0]


def files_of(stop: str, suffix: str) -> list[str]:
    """The directory's own files and those of the partition to be hurt, but for the one at rest."""
    return [
        path
        for path in image(stop).files
        if path.endswith(suffix) and not path.startswith("/data/well")
    ]


def repeat(stop: str, path: str, what: str) -> str:
    return f"{stop} {path} {what}"


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("suffix", [".log", "index", "snapshot", "checkpoint", "other"])
def test_i29_a_byte_gone_wrong_anywhere_is_never_served(stop, suffix):
    kinds = (".log", "index", "snapshot", "checkpoint")
    paths = files_of(stop, "" if suffix == "other" else suffix)
    if suffix == "other":
        paths = [path for path in paths if not path.endswith(kinds)]
    seen: Counter[str] = Counter()
    for path in paths:
        raw = image(stop).files[path]
        for at, byte in enumerate(raw):
            for wrong in {*(byte ^ bit for bit in FLIPS), 0, 0xFF} - {byte}:
                content = raw[:at] + bytes([wrong]) + raw[at + 1 :]
                try:
                    seen[judge(stop, path, content)] += 1
                except BaseException:
                    print(f"\nafter a {stop} stop, byte {at} of {path}: {byte:#x} -> {wrong:#x}")
                    raise
    print(f"\n{stop} stop, {suffix}: {seen.total()} cases, {dict(seen)}")
    if suffix == ".log":
        assert seen["error"] > seen.total() * 0.8
    else:
        assert seen["error"] == 0, "what is derived is made anew"


@pytest.mark.parametrize("stop", STOPS)
def test_i28_a_file_cut_anywhere_or_gone_costs_nothing_without_an_error(stop):
    seen: Counter[str] = Counter()
    for path in files_of(stop, ""):
        raw = image(stop).files[path]
        for length in (None, *range(len(raw))):
            try:
                seen[judge(stop, path, None if length is None else raw[:length])] += 1
            except BaseException:
                print(f"\nafter a {stop} stop, {path} cut to {length} of {len(raw)} bytes")
                raise
    print(f"\n{stop} stop: {seen.total()} cuts, {dict(seen)}")
    assert seen["error"]
    assert seen["served"]
