"""`ottla bench recover`: how long a start takes where there is much to open, or to read again.

Owns the order of things: a directory is filled, its broker stopped or killed, its pages dropped or
not, and the next start timed. Must not touch what a broker has written: what a start finds is what
the broker before it left. Figures and their budgets are in `recover_figures`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ottla.bench import asking, dropping, restarted, usage
from ottla.bench.even import Growing
from ottla.bench.recover_figures import Found, Line, Timed
from ottla.bench.restarted import Process
from ottla.bench.rounds import Say
from ottla.bench.start import compiled_into
from ottla.storage.checkpoints import RECOVERY_POINTS

_TOPIC = "recover"
_UNSYNCED_GIB_MAX = 1.0
_UNSYNCED_PARTITIONS = 4
"""A segment that was closed is synced, and needs no recovery: each of these has one."""
_SINCE_SHARE = 0.025
"""Of the logs' size, written after the last recovery points; and as much before them."""
_NEVER = ("log.flush.offset.checkpoint.interval.ms=3600000", "flush.policy=os")
_QUICK = ("flush.policy=os",)
_POINTS_S_MIN, _POINTS_S_MAX, _POINTS_GIB = 2.0, 10.0, 20.0
_TRIES = 3
_SPARE_GIB = 3.0
_RESERVED = 2.0  # times what is written: a log's next space is reserved, twice as far each time


@dataclass(frozen=True, slots=True)
class Wanted:
    partitions: int = 2000
    gib: float = 20.0
    rounds: int = 3

    @property
    def unsynced_gib(self) -> float:
        return min(_UNSYNCED_GIB_MAX, self.gib)

    @property
    def needed_gib(self) -> float:
        """Of the disk, at most."""
        return _RESERVED * self.gib + 2 * self.unsynced_gib + _SPARE_GIB

    @property
    def points_s(self) -> float:
        """How long recovery points may take: what is written after them must fit into it."""
        return min(max(_POINTS_S_MIN, _POINTS_S_MAX * self.gib / _POINTS_GIB), _POINTS_S_MAX)


def check(wanted: Wanted, folder: str, free_bytes: int, file_system: str) -> None:
    """Raises ValueError where the folder is no place for it."""
    if file_system in usage.IN_MEMORY:
        raise ValueError(
            f"{folder} is in memory ({file_system}), not on a disk; name another place by TMPDIR"
        )
    free_gib = free_bytes / (1 << 30)
    if free_gib < wanted.needed_gib:
        raise ValueError(
            f"{wanted.gib:g} GiB of logs need {wanted.needed_gib:.1f} GiB of disk while they are "
            f"measured, and {folder} has {free_gib:.1f}; name less with --gib, or another place by "
            "TMPDIR"
        )


def measure(wanted: Wanted, say: Say) -> Found:
    """All of it. Raises ValueError where there is no room, pump.LoadFailed, OSError."""
    with tempfile.TemporaryDirectory(prefix="ottla-recover-") as folder:
        check(wanted, folder, shutil.disk_usage(folder).free, usage.file_system(folder))
        found = Found(wanted.partitions, wanted.gib, wanted.unsynced_gib)
        bench = _Bench(folder, wanted, found, say)
        bench.empty()
        for turn in range(wanted.rounds):
            bench.turn = turn
            bench.unsynced()
        bench.large()
    return found


class _Bench:
    def __init__(self, folder: str, wanted: Wanted, found: Found, say: Say) -> None:
        self.folder = folder
        self.wanted = wanted
        self.found = found
        self.turn = 0
        self._say = say
        self._environment = compiled_into(f"{folder}/compiled")

    def say(self, what: str, in_a_round: bool = True) -> None:
        which = f", round {self.turn + 1} of {self.wanted.rounds}" if in_a_round else ""
        self._say(f"recover: {what}{which}")

    def _timed(self, process: Process, growing: Growing) -> Timed:
        """A start: from the process's own to the last partition's answer."""
        first_s = process.until_answer()
        process.until(lambda: growing.is_whole(process.address))
        all_s = time.perf_counter() - process.begun
        return Timed(first_s, all_s, usage.cpu(process.pid).total)

    def _start(self, line: Line, process: Process, growing: Growing) -> Timed:
        timed = self._timed(process, growing)
        self.found.starts[line].append(timed)
        return timed

    def _chill(self, directory: str) -> None:
        self.found.dropped = dropping.drop(directory)
        if self.found.dropped == dropping.ALL:
            self.empty()  # the program itself is not what is measured
        self._touch_memory()
        share = dropping.cached_share(directory)
        if share is not None:
            self.found.cached.append(share)

    def _touch_memory(self) -> None:
        """On a virtual machine a page that was free for long is paid for at its first touch."""
        usage.touch_memory(min(usage.TOUCHED_MIB, int(self.wanted.gib * 1024)))

    def empty(self) -> None:
        """A start without logs, from memory."""
        directory = f"{self.folder}/empty"
        for _ in range(2):  # the first compiles, or reads from the disk
            with restarted.started(directory, (), self._environment) as process:
                took_s = process.until_answer()
                cpu_s = usage.cpu(process.pid).total
                process.stop()
            shutil.rmtree(directory)
        self.found.empty.append(Timed(took_s, took_s, cpu_s))

    # -- nothing but a log that no sync is known to cover

    def unsynced(self) -> None:
        directory = f"{self.folder}/unsynced"
        for line in (Line.UNSYNCED_WARM, Line.UNSYNCED_COLD):
            self.say(line.value)
            shutil.rmtree(directory, ignore_errors=True)
            growing = Growing(_TOPIC, _UNSYNCED_PARTITIONS)
            with restarted.started(directory, _NEVER, self._environment) as process:
                process.until_answer()
                asking.create_topic(process.address, _TOPIC, _UNSYNCED_PARTITIONS)
                size = self.wanted.unsynced_gib * (1 << 30)
                growing.grow(process.address, growing.batches_for(size))
            if line is Line.UNSYNCED_COLD:
                self._read_plainly(directory)
                self._chill(directory)
            else:
                os.sync()  # or the start would wait for the disk to write: here reading counts
            with restarted.started(directory, _NEVER, self._environment) as process:
                self._start(line, process, growing)
            self.found.unsynced_bytes = growing.size_bytes
        shutil.rmtree(directory)

    def _read_plainly(self, directory: str) -> None:
        """Twice, of which the second counts: as for the start after it, memory is not new then."""
        for _ in range(2):
            dropping.drop(directory)
            size, took_s = dropping.read_plainly(directory)
        self.found.plain_s_per_gib.append(took_s / size * (1 << 30))

    # -- many partitions

    def large(self) -> None:
        directory = f"{self.folder}/large"
        growing = Growing(_TOPIC, self.wanted.partitions)
        self._fill(directory, growing)
        self._clean_starts(directory, growing)
        self._killed_starts(directory, growing)

    def _fill(self, directory: str, growing: Growing) -> None:
        self.say(f"filling {self.wanted.gib:g} GiB", in_a_round=False)
        begun = time.perf_counter()
        with restarted.started(directory, _QUICK, self._environment) as process:
            process.until_answer()
            asking.create_topic(process.address, _TOPIC, self.wanted.partitions)
            size = self.wanted.gib * (1 << 30)
            growing.grow(process.address, growing.batches_for(size))
            self.found.filled_s = time.perf_counter() - begun
            self.say("stopping", in_a_round=False)
            process.stop()

    def _clean_starts(self, directory: str, growing: Growing) -> None:
        # One that does not count: what it reads is in memory for the next.
        with restarted.started(directory, (), self._environment) as process:
            self._timed(process, growing)
            process.stop()
        for turn in range(self.wanted.rounds):
            self.turn = turn
            for line in (Line.CLEAN_WARM, Line.CLEAN_COLD):
                self.say(line.value)
                if line is Line.CLEAN_COLD:
                    self._chill(directory)
                with restarted.started(directory, (), self._environment) as process:
                    self._start(line, process, growing)
                    self.found.stops_s.append(process.stop())

    def _killed_starts(self, directory: str, growing: Growing) -> None:
        """Each goes on from the start before it: what that has read is not read again."""
        points_s = self.wanted.points_s
        options = (f"log.flush.offset.checkpoint.interval.ms={int(points_s * 1000)}",)
        wanted: list[Line] = [Line.KILLED_WARM, Line.KILLED_COLD] * self.wanted.rounds
        process = restarted.start(directory, options, self._environment)
        try:
            self._timed(process, growing)
            for number, line in enumerate(wanted):
                self.turn = number // 2
                self.say(f"{line.value}: writing")
                self._write_around_points(directory, process, growing)
                process.kill()
                self.say(line.value)
                if line is Line.KILLED_COLD:
                    self._chill(directory)
                process = restarted.start(directory, options, self._environment)
                self._start(line, process, growing)
        finally:
            process.kill()

    def _write_around_points(self, directory: str, process: Process, growing: Growing) -> None:
        """Write, see that the recovery points are written down, and write once more."""
        points = Path(f"{directory}/{RECOVERY_POINTS}")
        batches = growing.batches_for(self.wanted.gib * _SINCE_SHARE * (1 << 30))
        growing.grow(process.address, batches)
        were = points.stat().st_mtime_ns
        process.until(lambda: points.stat().st_mtime_ns != were)
        written, since, written_ns = 0, 0, points.stat().st_mtime_ns
        # On a slow disk they are written down again meanwhile; then less is behind the last ones.
        while since < batches and written < _TRIES * batches:
            growing.grow(process.address, 1)
            written += 1
            now_ns = points.stat().st_mtime_ns
            since, written_ns = (since + 1 if now_ns == written_ns else 0), now_ns
        self.found.since_points_bytes.append(since * growing.batch_bytes * growing.partitions_count)
