"""Retention: every few minutes, look for segments that no longer have a reason to stay.

Owns when partitions are looked at, and what is said of it. What goes is `storage/retention.py`'s
decision; making it so, and in a way that survives a crash, is the log directory's. Must not delete
internal topics' records by time or size: what coordinators keep goes by compaction alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ottla.core import options
from ottla.core.ports import DiskError
from ottla.storage.retention import RetentionClock, judge

if TYPE_CHECKING:
    from ottla.core.config import Config
    from ottla.core.model import TopicPartition
    from ottla.core.pending import Pending
    from ottla.core.ports import Clock, Timers, Uptime
    from ottla.replication.partition import Partition
    from ottla.replication.table import PartitionTable
    from ottla.storage.checked import Cold

_log = logging.getLogger("ottla.retention")

_FIRST_CHECK_S = 30.0
"""As Kafka: not while everybody is coming back after a start."""
_LOOK_EVERY_S = 60.0
_PARTITIONS_A_TURN = 500


class Retention:
    """The retention of one node's partitions. `start` once they are loaded."""

    def __init__(
        self,
        table: PartitionTable,
        config: Config,
        clock: Clock,
        uptime: Uptime,
        timers: Timers,
    ) -> None:
        self._table = table
        self._timers = timers
        settle_ms = config[options.RETENTION_SETTLE_MS]
        kept = table.directory.checkpoints
        self.clock = RetentionClock(clock, uptime, settle_ms, kept.last_retention_ms)
        kept.retention_ms = self.clock.now_ms
        self._every_s = config[options.RETENTION_CHECK_MS] / 1000
        self._in_future: dict[TopicPartition, int] = {}
        self._in_future_told = 0

    def start(self) -> None:
        """Look at the clock from now on, and at the partitions soon."""
        self._look()
        self._timers.after(min(_FIRST_CHECK_S, self._every_s), self._check_later)

    def _look(self) -> None:
        news = self.clock.look()
        if news is not None:
            _log.warning("%s", news, extra={"fields": {"event": "clock"}})
        self._timers.after(_LOOK_EVERY_S, self._look)

    def _check_later(self) -> None:
        self.check()
        self._timers.after(self._every_s, self._check_later)

    def check(self) -> None:
        """Look at all partitions, some hundreds in one turn of the loop."""
        if self._table.directory.rounds.failure is None:
            self._go_on(iter(list(self._table)))

    def _go_on(self, partitions: Iterator[Partition]) -> None:
        for _ in range(_PARTITIONS_A_TURN):
            partition = next(partitions, None)
            if partition is None:
                self._tell_future()
                return
            self.check_one(partition)
        self._timers.soon(lambda: self._go_on(partitions))

    def room_changed(self, little: bool) -> None:
        """Refuse produce while there is little room, and let go at once of what may go."""
        self._table.little_room = little
        removals = self._table.directory.removals
        removals.urgent = little
        if little:
            removals.hurry()
            self.check()

    def check_one(self, partition: Partition) -> None:
        """Delete what of a partition is to go."""
        log = partition.log
        if partition.internal or partition.deleted or not log.usable or not log.segments:
            return
        # Kafka goes by the high watermark alone, and may delete the beginning of a transaction
        # that is still open.
        bound = min(partition.high_watermark, partition.last_stable)
        verdict = judge(log, self.clock.now_ms(), bound)
        ahead_ms = verdict.future_ms - self.clock.behind_ms()
        if ahead_ms > 0 and partition.key not in self._in_future:
            self._in_future[partition.key] = ahead_ms
        below = len(log.segments) > 1 and log.segments[1].base_offset <= log.start
        if verdict.start > log.start:
            _log.info(
                "%s: records before offset %d are deleted: retention.ms %d, retention.bytes %d",
                partition.key,
                verdict.start,
                log.settings.retention_ms,
                log.settings.retention_bytes,
            )
        if verdict.start > log.start or below:  # what a reader's bound has kept goes now
            moved = self._table.directory.starts.move(log, verdict.start)
            moved.then(partial(self._tell_failure, partition.key, moved))
        if verdict.roll and (rolled := log.roll()) is not None:
            rolled.then(partial(self._rolled, partition, rolled))
        doubt = None if verdict.doubted is None else verdict.doubted.doubt()
        if doubt is not None:
            brought = doubt.bring(self._table.directory.disk)
            brought.then(partial(self._looked, partition, doubt, brought))

    def _looked(self, partition: Partition, doubt: Cold, brought: Pending[None]) -> None:
        """How old a segment is, batches have said by now. What can't be read stays till later."""
        doubt.slice.release()
        with suppress(DiskError):
            brought.result()
            if self._table.directory.rounds.failure is None:
                self.check_one(partition)

    def _rolled(self, partition: Partition, rolled: Pending[None]) -> None:
        """The last segment goes too, once the high watermark is in the new one."""
        try:
            rolled.result()
        except DiskError as error:
            self._table.disk_failed(error)
            return
        synced = self._table.directory.rounds.sync_all()

        def again() -> None:
            if self._table.directory.rounds.failure is None:
                self.check_one(partition)

        synced.then(again)

    def _tell_future(self) -> None:
        """One line for all that were found since the last one."""
        new = list(self._in_future.items())[self._in_future_told :]
        self._in_future_told += len(new)
        if new:
            key, ahead_ms = max(new, key=lambda one: one[1])
            _log.warning(
                "partitions with a segment that holds a timestamp ahead of the clock: %d, of which "
                "%s by %.3g h. It and what follows stay until retention.ms has passed since then; "
                "retention.bytes and message.timestamp.after.max.ms are what helps",
                len(new),
                key,
                ahead_ms / 3_600_000,
            )

    @staticmethod
    def _tell_failure(key: TopicPartition, moved: Pending[None]) -> None:
        try:
            moved.result()
        except DiskError as error:
            _log.error("%s: what retention deletes could not be deleted: %s", key, error)
