"""A log directory: its lock, its identity, and the logs in it.

Owns which logs there are: opening and stopping them all, the clean marker, making, deleting and
setting aside. Must not append, read, or say what the checkpoints hold (`checkpoint_files` does).

The clean marker is removed, durably, before anything is written; and written last, once all is
synced (I32).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import ENOTDIR
from typing import NamedTuple, Protocol

from ottla.core.model import NO_TOPIC_ID, TopicId, TopicPartition
from ottla.core.pending import Pending
from ottla.core.ports import (
    Clock,
    Disk,
    DiskError,
    File,
    MakeDirectory,
    RemoveTree,
    RenamePath,
    ReplaceFile,
    Step,
    SyncDirectory,
    SyncFile,
    Timers,
    UnlinkFile,
)
from ottla.storage import checkpoints
from ottla.storage.checkpoint_files import CheckpointFiles
from ottla.storage.checkpoints import MetaProperties
from ottla.storage.epochs import FILE_NAME as EPOCHS
from ottla.storage.findings import Finding
from ottla.storage.log import Log, Opened
from ottla.storage.opening import ahead_of, read_derived
from ottla.storage.recovery import open_log
from ottla.storage.removal import Removals, aside_name
from ottla.storage.rounds import FlushPolicy, Rounds
from ottla.storage.settings import LogSettings
from ottla.storage.starts import Starts

_LOGS_AT_ONCE = 100
_STOPPED_AT_ONCE = 16  # each may need three descriptors until it is synced
_OPENED_AT_ONCE = 64  # steps that make what was found durable: a few for each log
_DELETE = "-delete"
_STRAY = "-stray"
_SET_ASIDE = (_DELETE, _STRAY, "-future")
_NAMES_IN_A_LOG = (checkpoints.PARTITION_METADATA, EPOCHS, checkpoints.QUARANTINE)
_NOT_OURS = frozenset({"__cluster_metadata"})


class Lock(Protocol):
    """What keeps other processes out, once taken."""

    def release(self) -> None: ...


class WrongDirectory(Exception):
    """The directory belongs to another cluster or node. The text is for the operator."""


class Found(NamedTuple):
    """What recovery found at one log."""

    partition: TopicPartition
    finding: Finding


class _Departure(NamedTuple):
    """A deleted log whose directory is still there under its own name."""

    partition: TopicPartition
    log: Log
    aside: str
    gone: Pending[None]
    leaving: Pending[None]
    """Done when the name is free for a namesake."""


SettingsFor = Callable[[TopicPartition, TopicId], LogSettings]


class LogDirectory:
    """All logs below one path. `open` first, `stop` last; both block."""

    def __init__(
        self, path: str, disk: Disk, clock: Clock, timers: Timers, policy: FlushPolicy
    ) -> None:
        self.path = path
        self.disk = disk
        self.clock = clock
        self.rounds = Rounds(disk, timers, policy)
        self.logs: dict[TopicPartition, Log] = {}
        self.adoptable: set[TopicPartition] = set()
        """Logs whose partition.metadata is damaged or lost, not only not durable yet: they are
        those of the topic so named. What was never synced may be a deleted namesake's."""
        self.checkpoints = CheckpointFiles(path, disk, self.logs, self.adoptable)
        self.removals = Removals(disk, clock, timers)
        self.starts = Starts(path, disk, self.checkpoints, self.removals)
        self.identity: MetaProperties | None = None
        self.was_clean = False
        self.found: list[Found] = []
        self.rebuilt: list[str] = []
        """Files of the directory itself that could not be believed and were made anew."""
        self._lock: Lock | None = None
        self._leaving: dict[TopicPartition, Pending[None]] = {}
        self._departing: list[_Departure] = []
        self._timers = timers

    # -- start

    def open(
        self,
        lock: Callable[[str], Lock],
        proposed: MetaProperties,
        settings_for: SettingsFor,
    ) -> None:
        """Take the directory and open every log in it.

        `proposed` is who we are: written to a new directory, compared with an old one, whose
        directory id is kept. Raises what `lock` raises, WrongDirectory, DiskError.
        """
        self.disk.perform_now([MakeDirectory(self.path)])
        self._lock = lock(self.path)
        opened = False
        try:
            self._identify(proposed)
            marker = f"{self.path}/{checkpoints.CLEAN_MARKER}"
            raw = read_derived(self.disk, marker)
            self.was_clean = checkpoints.decode_clean_marker(raw) is not None
            self.disk.perform_now([UnlinkFile(marker), SyncDirectory(self.path)])
            self._open_logs(settings_for)
            opened = True
        finally:
            if not opened:
                self.release()

    def _identify(self, proposed: MetaProperties) -> None:
        path = f"{self.path}/{checkpoints.META_PROPERTIES}"
        raw = read_derived(self.disk, path)
        found = checkpoints.decode_meta_properties(raw)
        if raw is None:
            above = self.path.rpartition("/")[0] or ("/" if self.path.startswith("/") else ".")
            self.disk.perform_now([ReplaceFile(path, proposed.encode()), SyncDirectory(above)])
            found = proposed
        elif found is None:
            # Everything in it is known: whoever opens the directory got it from the metadata.
            self.disk.perform_now([ReplaceFile(path, proposed.encode())])
            self.rebuilt.append(path)
            found = proposed
        elif found.cluster_id != proposed.cluster_id:
            raise WrongDirectory(
                f"{self.path} belongs to cluster {found.cluster_id}, not {proposed.cluster_id}"
            )
        elif found.node_id != proposed.node_id:
            raise WrongDirectory(
                f"{self.path} belongs to node {found.node_id}, not {proposed.node_id}"
            )
        self.identity = found

    def _open_logs(self, settings_for: SettingsFor) -> None:
        known = self.checkpoints.read(self.was_clean, self.clock.wall_ms())
        self.rebuilt += known.unsound
        later: list[Step] = []
        there: list[tuple[TopicPartition, str]] = []
        for name in self.disk.names(self.path):
            path = f"{self.path}/{name}"
            if name.endswith(_DELETE):
                self.removals.add([[RemoveTree(path)]], 0)
            if partition := partition_of(name):
                there.append((partition, path))
        for partition, path in ahead_of(self.disk, there, known.certain):
            metadata = read_derived(self.disk, f"{path}/{checkpoints.PARTITION_METADATA}")
            topic_id = checkpoints.decode_partition_metadata(metadata) or NO_TOPIC_ID
            hints = known.hints(partition)
            if topic_id == NO_TOPIC_ID:
                if hints.recovery_point == 0 and is_foreign(self.disk, path):
                    continue  # somebody's, with a name like a partition's
                if metadata is not None or hints.recovery_point > 0:
                    self.adoptable.add(partition)
            settings = settings_for(partition, topic_id)
            opened, findings = open_log(self.disk, path, topic_id, settings, hints, later)
            self.found += [Found(partition, finding) for finding in findings]
            self.logs[partition] = self._log(path, settings, opened)
            if len(later) >= _OPENED_AT_ONCE:
                self._perform_together(later)
                later.clear()
        self._perform_together(later)
        all_here = self.checkpoints.take_over(known)
        # A new directory has nothing to tell; its first start is spared four syncs.
        if not all_here or (self.logs and not self.was_clean) or self.rebuilt:
            self.disk.perform_now(self.checkpoints.steps())

    def _log(self, path: str, settings: LogSettings, opened: Opened) -> Log:
        return Log(path, self.disk, self.clock, self.rounds, settings, opened)

    # -- logs come and go

    def create(self, partition: TopicPartition, topic_id: TopicId, settings: LogSettings) -> Log:
        """A new, empty log; its files appear at its first append.

        If its namesake is still being deleted, its `prepare` waits for that.
        """
        assert partition not in self.logs, f"{partition} is there already"
        log = self._log(f"{self.path}/{partition}", settings, Opened(topic_id))
        self.logs[partition] = log
        leaving = self._leaving.get(partition)
        if leaving is not None:
            log.hold_until(leaving)
        return log

    def delete(self, partition: TopicPartition) -> Pending[None]:
        """Remove a log: its name at once and durably, its files after. Fails with DiskError.

        Under its new name the directory is what Kafka makes of it, and goes at the next start
        if we don't get to the end. The checkpoints forget it first: a namesake to come must not
        inherit its recovery point.
        """
        log = self.logs.pop(partition)
        self.checkpoints.cleaned.pop(partition, None)
        gone: Pending[None] = Pending()
        leaving: Pending[None] = Pending()
        self._leaving[partition] = leaving
        aside = aside_name(log.directory, log.topic_id, _DELETE, set())

        def remove() -> None:
            self._departing.append(_Departure(partition, log, aside, gone, leaving))
            if len(self._departing) == 1:
                self._timers.soon(self._depart)

        def close() -> None:
            log.close()
            self.rounds.when_idle(remove)  # a round in flight may sync the directory by its name

        log.making.when_idle(close)
        return gone

    def _depart(self) -> None:
        """Rename the directories of deleted logs, many at a time, and remove them later."""
        departing, self._departing = self._departing, []
        steps = self.checkpoints.steps()
        if self.rounds.failure is None:
            there = [one for one in departing if one.log.on_disk]
            for one in there:
                steps.append(MakeDirectory(one.log.directory))  # may not have come about
                steps.append(RenamePath(one.log.directory, one.aside))
            steps.append(SyncDirectory(self.path))
        else:
            there = []
        done = self.disk.perform(steps)

        def finish() -> None:
            try:
                done.result()
            except DiskError as error:
                for one in departing:
                    one.leaving.fail(error)  # stays: a namesake must not write among the old files
                    one.gone.fail(error)
                return
            for one in there:
                delay_s = one.log.settings.file_delete_delay_ms / 1000
                self.removals.add(_works(one.log, one.aside), delay_s)
            for one in departing:
                del self._leaving[one.partition]
                one.leaving.complete(None)
                one.gone.complete(None)

        done.then(finish)

    def adopt(self, log: Log, topic_id: TopicId) -> None:
        """Take a log whose partition.metadata can't be believed for that of the topic so named.

        At start only: blocks. Raises DiskError.
        """
        log.topic_id = topic_id
        if log.segments:  # else its first append writes it
            path = f"{log.directory}/{checkpoints.PARTITION_METADATA}"
            content = checkpoints.encode_partition_metadata(topic_id)
            self.disk.perform_now([ReplaceFile(path, content)])
            self.rebuilt.append(path)

    def set_aside(self, partitions: Sequence[TopicPartition]) -> list[str]:
        """Keep logs that nobody owns under names of their own, as Kafka does; those names.

        At start only: blocks. Raises DiskError. The checkpoints forget them before a namesake can
        be made: by what they say of these logs it would be damaged, or begin where they began.
        """
        renames = []
        taken = set(self.disk.names(self.path))
        for partition in partitions:
            log = self.logs.pop(partition)
            log.close()
            self.checkpoints.cleaned.pop(partition, None)
            self.adoptable.discard(partition)
            aside = aside_name(log.directory, log.topic_id, _STRAY, taken)
            renames.append(RenamePath(log.directory, aside))
        if renames:
            self.disk.perform_now([*renames, SyncDirectory(self.path), *self.checkpoints.steps()])
        return [one.target for one in renames]

    # -- while it runs

    def checkpoint(self) -> Pending[None]:
        """Write the offset checkpoints. To be called about once a minute. Fails with DiskError."""
        self._snapshot()
        self._write_indexes(list(self.logs.values()))
        done = self.disk.perform(self.checkpoints.steps())
        result: Pending[None] = Pending()

        def finish() -> None:
            try:
                done.result()
            except DiskError as error:
                result.fail(error)
            else:
                result.complete(None)

        done.then(finish)
        return result

    def _snapshot(self) -> None:
        """Let a start after a crash find what producers did without reading much.

        In the order of other steps, so that no namesake to come gets one of them; some logs at a
        time, so that no roll waits for all.
        """
        steps = [log.snapshot_steps() for log in self.logs.values()]
        there = [step for step in steps if step]
        for at in range(0, len(there), _LOGS_AT_ONCE):
            several = [step for one in there[at : at + _LOGS_AT_ONCE] for step in one]
            self._close_made(self.disk.perform(several))

    def _write_indexes(self, logs: list[Log]) -> None:
        """Lead a start after a crash to where the recovery point lies, not a mebibyte before it.

        Some logs in each turn of the loop, so that no request waits for all.
        """
        some, rest = logs[:_LOGS_AT_ONCE], logs[_LOGS_AT_ONCE:]
        for log in some:
            if log.usable and log.segments:
                log.segments[-1].write_indexes()
        if rest:
            self._timers.soon(lambda: self._write_indexes(rest))

    @staticmethod
    def _close_made(made: Pending[list[File]]) -> None:
        def close() -> None:
            with suppress(DiskError):  # a start then reads more
                for file in made.result():
                    file.close()

        made.then(close)

    # -- stop

    def stop(self, broker_epoch: int) -> None:
        """Make everything durable, mark the stop as clean, let go. Raises DiskError.

        Blocks, and only when nothing else runs. After a failed sync, or with a log that may not
        be as its files say, the marker is left out and the next start reads the logs.
        """
        try:
            if self.rounds.failure is None:
                self._finish(broker_epoch)
        finally:
            self.release()

    def _finish(self, broker_epoch: int) -> None:
        sound = all(not log.failed for log in self.logs.values())
        logs = [log for log in self.logs.values() if not log.failed]
        for at in range(0, len(logs), _STOPPED_AT_ONCE):
            self._complete(logs[at : at + _STOPPED_AT_ONCE])
        for log in self.logs.values():
            if not log.failed:
                log.all_synced()
        steps = self.checkpoints.steps()
        if sound:
            marker = checkpoints.encode_clean_marker(broker_epoch)
            steps.append(ReplaceFile(f"{self.path}/{checkpoints.CLEAN_MARKER}", marker))
        self.disk.perform_now(steps)

    def _complete(self, logs: list[Log]) -> None:
        """Make logs durable together: the disk takes many syncs at a time."""
        self._perform_together([step for log in logs for step in log.closing_steps()])

    def _perform_together(self, steps: list[Step]) -> None:
        """Steps of several logs by their kinds: bytes first, names last."""
        kinds: dict[type, list[Step]] = {
            kind: [] for kind in (SyncFile, ReplaceFile, UnlinkFile, SyncDirectory)
        }
        for step in steps:
            kinds[type(step)].append(step)
        if steps:
            self.disk.perform_now([step for several in kinds.values() for step in several])

    def release(self) -> None:
        """Close all files and give up the lock, whatever state the logs are in."""
        for log in self.logs.values():
            log.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _works(log: Log, aside: str) -> list[list[Step]]:
    """What removes a log's directory, now named `aside`: a segment at a time, then the rest."""
    works: list[list[Step]] = []
    for segment in log.segments:
        names = [file.path.rpartition("/")[2] for file in segment.files()]
        works.append([UnlinkFile(f"{aside}/{name}") for name in names])
    return [*works, [RemoveTree(aside)]]


def is_foreign(disk: Disk, path: str) -> bool:
    """Whether what has a name like a partition's directory is none: a file, or somebody's folder.

    Such a one is left alone: nothing in it is changed, and nothing made beside it.
    """
    try:
        names = disk.names(path)
    except DiskError as error:
        return error.errno == ENOTDIR
    return bool(names) and not any(
        (len(name) > 20 and name[:20].isdigit()) or name.startswith(_NAMES_IN_A_LOG)
        for name in names
    )


def partition_of(name: str) -> TopicPartition | None:
    """The partition whose directory has this name; None if it is none of ours."""
    topic, dash, number = name.rpartition("-")
    if not dash or not topic or topic in _NOT_OURS or name.endswith(_SET_ASIDE):
        return None
    if not (number.isascii() and number.isdigit()) or str(int(number)) != number:
        return None
    return TopicPartition(topic, int(number))
