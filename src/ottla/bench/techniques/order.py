"""Sequential I/O: the same records, one after the other into a file, or each to a place of its own.

Owns the files of this experiment. What is written is forced to the disk before the clock stops,
or memory would be measured.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence

from ottla.bench import usage
from ottla.bench.techniques.model import Experiment, Measure, NotHere, Way

_RECORD_BYTES = 1024
_FILE_RECORDS = 128 << 10
_SECONDS_MAX = 1.2
_LOOK_EVERY = 64

_QUOTED = (
    "Kafka's design page: linear writes on a RAID-5 of six 7200 rpm disks about 600 MB/s, random "
    "writes about 100 KB/s, more than 6,000 times less. That was said of disks that turn; a "
    "solid-state disk narrows it."
)
_USUAL = "600 MB/s against 100 KB/s: 6,000 times, of turning disks"


def experiments(folder: str) -> list[Experiment]:
    record = os.urandom(_RECORD_BYTES)
    places = list(range(_FILE_RECORDS))
    random.Random(1).shuffle(places)
    rate = Measure("written", "MB/s", more_is_better=True)
    cpu = Measure("CPU", "s/GB")

    def appended(each_synced: bool) -> Mapping[str, float]:
        _on_a_disk(folder)
        return _write(f"{folder}/appended", record, None, each_synced)

    def scattered(each_synced: bool) -> Mapping[str, float]:
        path = f"{folder}/scattered"
        _on_a_disk(folder)
        _lay_out(path)
        return _write(path, record, places, each_synced)

    return [
        Experiment(
            "1 Sequential I/O",
            "Records of 1 KiB until all are on the disk",
            "The same records are appended to a new file, or written each to its own place in a "
            "file of 128 MiB that lies on the disk, in random order, as a store that updates in "
            "place does. One fdatasync ends it. As many as fit into 1.2 s before that, at most 128 "
            "MiB: a slow way would take minutes for as many as the other.",
            _QUOTED,
            [rate, cpu],
            [
                Way("appended", lambda: appended(False)),
                Way("random places", lambda: scattered(False)),
            ],
            usual=_USUAL,
        ),
        Experiment(
            "1 Sequential I/O",
            "Records of 1 KiB, each on the disk before the next",
            "As above, with an fdatasync after every record. Here the disk's answer is waited for "
            "each time, and the order matters little; batching (below) is what helps.",
            _QUOTED,
            [rate, cpu],
            [
                Way("appended", lambda: appended(True)),
                Way("random places", lambda: scattered(True)),
            ],
        ),
    ]


def _on_a_disk(folder: str) -> None:
    kind = usage.file_system(folder)
    if kind in usage.IN_MEMORY:
        raise NotHere(f"{folder} is in memory ({kind}); TMPDIR names another folder")


def _lay_out(path: str) -> None:
    """A whole file on the disk, and none of it in memory."""
    if not os.path.exists(path):
        with open(path, "wb") as file:
            for _ in range(_FILE_RECORDS * _RECORD_BYTES >> 20):
                file.write(bytes(1 << 20))
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _write(
    path: str, record: bytes, places: Sequence[int] | None, each_synced: bool
) -> Mapping[str, float]:
    """At most a whole file, for at most some time."""
    sync = getattr(os, "fdatasync", os.fsync)
    flags = os.O_WRONLY | (os.O_APPEND | os.O_CREAT | os.O_TRUNC if places is None else 0)
    fd = os.open(path, flags, 0o644)
    try:
        written = 0
        begun, cpu_begun = time.perf_counter(), time.process_time()
        for index in range(_FILE_RECORDS):
            if places is None:
                os.write(fd, record)
            else:
                os.pwrite(fd, record, places[index] * _RECORD_BYTES)
            written += 1
            if each_synced:
                sync(fd)
            over = index % _LOOK_EVERY == 0 and time.perf_counter() - begun > _SECONDS_MAX
            if over:
                break
        sync(fd)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
    finally:
        os.close(fd)
    total = written * _RECORD_BYTES
    return {"written": total / seconds / 1e6, "CPU": cpu / total * 1e9}
