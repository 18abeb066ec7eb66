"""`ottla log compact`: compact the logs of a directory that no broker has open.

Owns what stands in for a broker meanwhile: it takes the directory, opens every log as a start does,
compacts those that were meant, and stops. Must not compact by rules of its own: the choice, the
work and the swap are the broker's.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ottla.cli.errors import BadInput, CommandError
from ottla.cli.render import counted, object_line
from ottla.cluster import keys
from ottla.cluster.image import ClusterImage
from ottla.cluster.store import StoreError
from ottla.core.model import TopicId, TopicPartition
from ottla.core.options import broker_config
from ottla.core.pending import Pending
from ottla.core.ports import DiskError
from ottla.host.cleaning import CleaningWorker
from ottla.host.clock import SystemClock
from ottla.host.disk import OsDisk
from ottla.host.files import open_regular
from ottla.host.lock import DirectoryInUse, lock_directory
from ottla.host.sqlite_store import FILE_NAME, SqliteStore
from ottla.host.timers import TimerWheel
from ottla.replication.settings import partition_settings
from ottla.storage.checkpoints import (
    CLEAN_MARKER,
    META_PROPERTIES,
    MetaProperties,
    decode_clean_marker,
    decode_meta_properties,
)
from ottla.storage.cleaner.cleaner import Cleaner, Failure, Limits
from ottla.storage.directory import LogDirectory, partition_of
from ottla.storage.log import Log
from ottla.storage.reading import LogPosition
from ottla.storage.settings import LogSettings

if TYPE_CHECKING:
    from ottla.cli import arguments

_NO_LIMIT = 1.7976931348623157e308


class Size(NamedTuple):
    """What a log takes."""

    segments: int
    bytes: int


def run(options: arguments.LogCompact) -> int:
    """Compact, print a line a partition; 1 if one could not be. Raises CommandError."""
    path, only = _target(options.path)
    identity, epoch = _identity(path)
    loop = asyncio.new_event_loop()
    try:
        offline = _Offline(loop, path, only, options)
        try:
            offline.open(identity)
        except (DirectoryInUse, StoreError, DiskError) as error:
            raise CommandError(f"{path} can't be compacted: {error}") from error
        try:
            before = offline.sizes()
            loop.run_until_complete(offline.compact())
            offline.report(before)
        finally:
            offline.close(epoch)
    finally:
        loop.close()
    return 1 if offline.failures else 0


def _target(path: str) -> tuple[str, TopicPartition | None]:
    """The data directory, and the one partition that was meant if it was one."""
    path = os.path.abspath(path)
    if os.path.exists(os.path.join(path, META_PROPERTIES)):
        return path, None
    above, name = os.path.split(path)
    partition = partition_of(name)
    if partition is not None and os.path.exists(os.path.join(above, META_PROPERTIES)):
        return above, partition
    raise BadInput(f"{path} is no data directory and no partition's; try: ./ottla-data")


def _identity(path: str) -> tuple[MetaProperties, int]:
    """Whose directory it is, and the broker epoch of its last clean stop, -1 without one."""

    def content(name: str) -> bytes | None:
        try:
            with open(os.path.join(path, name), "rb", opener=open_regular) as file:
                return file.read()
        except FileNotFoundError:
            return None

    identity = decode_meta_properties(content(META_PROPERTIES))
    if identity is None:
        raise CommandError(f"{path}/{META_PROPERTIES} can't be read; start a broker on it first")
    epoch = decode_clean_marker(content(CLEAN_MARKER))
    return identity, -1 if epoch is None else epoch


class _Resting(CleaningWorker):
    """A worker that tells when there is nothing more to do."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop.call_soon_threadsafe)
        self.done = loop.create_future()

    def rest(self) -> None:
        super().rest()
        if not self.done.done():
            self.done.set_result(None)


class _Offline:
    """The part of a broker that compacts."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        only: TopicPartition | None,
        options: arguments.LogCompact,
    ) -> None:
        self._loop = loop
        self._only = only
        self._options = options
        self._clock, self._timers = SystemClock(), TimerWheel(loop)
        self._disk = OsDisk(loop.call_soon_threadsafe)
        self._directory = LogDirectory(path, self._disk, self._clock, self._timers, "commit")
        self._work = _Resting(loop)
        ports = (self._clock, self._timers)
        self._cleaner = Cleaner(self._directory, ports, self._work, self._bounds, self._limits)
        self._cleaner.on_failure = self._failed
        self.failures: dict[TopicPartition, str] = {}

    def open(self, identity: MetaProperties) -> None:
        """Raises DirectoryInUse, StoreError, DiskError."""
        # First of all: nobody opens the store of a broker that runs.
        lock = lock_directory(self._directory.path)
        try:
            settings = self._settings_for(_image(self._directory.path))
        except StoreError:
            lock.release()
            raise
        self._directory.open(lambda _path: lock, identity, settings)

    def _settings_for(
        self, image: ClusterImage
    ) -> Callable[[TopicPartition, TopicId], LogSettings]:
        config = broker_config({})

        def settings(partition: TopicPartition, _id: TopicId) -> LogSettings:
            topic = image.topics.get(partition.topic)
            found = partition_settings(config, {} if topic is None else topic.configs).log
            meant = found.compacted if self._only is None else partition == self._only
            # Somebody asks for it now: no share of dirt is too small, no record too young.
            return found.replace(
                compacted=meant,
                min_cleanable_ratio=0.0,
                min_compaction_lag_ms=0,
                file_delete_delay_ms=0,
            )

        return settings

    def _chosen(self) -> list[tuple[TopicPartition, Log]]:
        return [(name, log) for name, log in self._directory.logs.items() if log.settings.compacted]

    def sizes(self) -> dict[TopicPartition, Size]:
        return {name: Size(len(log.segments), log.size) for name, log in self._chosen()}

    async def compact(self) -> None:
        """Close what is still being written to, and compact all below it."""
        for _, log in self._chosen():
            rolled = log.roll()
            if rolled is not None:
                await self._done(rolled)
        await self._done(self._directory.rounds.sync_all())
        self._cleaner.start()
        await self._work.done
        self._cleaner.stop()
        while len(self._directory.removals):
            await asyncio.sleep(0.01)

    async def _done(self, pending: Pending[None]) -> None:
        future = self._loop.create_future()
        pending.then(lambda: future.set_result(None))
        await future
        pending.result()

    def _bounds(self, partition: TopicPartition) -> Sequence[LogPosition]:
        log = self._directory.logs[partition]
        bounds = [log.flushed_position()]
        first = log.producers.unstable.first
        if first is not None:
            bounds.append(first.place or LogPosition(first.first_offset, None, 0))
        return bounds

    def _limits(self) -> Limits:
        mib = self._options.buffer_mib
        return Limits(
            enabled=True,
            backoff_ms=15_000,
            buffer_bytes=mib << 20,
            bytes_per_s_max=_NO_LIMIT,
            decompressed_max=64 << 20,
        )

    def _failed(self, partition: TopicPartition, failure: Failure) -> None:
        self.failures[partition] = failure.text

    def report(self, before: dict[TopicPartition, Size]) -> None:
        for name, now in self.sizes().items():
            was, why = before[name], self.failures.get(name)
            if self._options.json:
                found = {"partition": str(name), "before": was._asdict(), "after": now._asdict()}
                sys.stdout.write(object_line({**found, "failure": why}))
            else:
                sys.stdout.write(f"{name}: {_text(was)}, now {_text(now)}\n")
                if why is not None:
                    sys.stdout.write(f"  not compacted: {why}\n")
        if not before and not self._options.json:
            sys.stdout.write("there is no compacted topic; name a partition's directory\n")

    def close(self, epoch: int) -> None:
        """Stop as a broker does, so that the next start finds all in order."""
        self._work.close()
        self._disk.close()
        self._directory.stop(epoch)


def _image(path: str) -> ClusterImage:
    """The topics that are known of; none in a directory that Apache Kafka has made."""
    file = os.path.join(path, FILE_NAME)
    if not os.path.exists(file):
        return ClusterImage(cluster_id="")
    store = SqliteStore(file)
    try:
        return keys.image_of(store.read(keys.ROOT).result())
    finally:
        store.close()


def _text(size: Size) -> str:
    return f"{counted(size.bytes, 'byte')} in {counted(size.segments, 'segment')}"
