"""Compaction of this node's partitions: what the cleaner of the log directory must be told.

Owns the mapping from options and partitions to `storage/cleaner`, and what is said in the log. Must
not compact anything, nor know where the work is done.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ottla.core import options
from ottla.protocol.errors import ErrorCode
from ottla.storage.cleaner.cleaner import Cleaner, Failure, Limits, Work

if TYPE_CHECKING:
    from ottla.core.config import Config
    from ottla.core.model import TopicPartition
    from ottla.core.ports import Clock, Timers
    from ottla.replication.table import PartitionTable
    from ottla.storage.reading import LogPosition

_log = logging.getLogger("ottla.replication")

BUFFER_BYTES_MIN = 1 << 20
"""Less could not hold the keys of a few batches; Kafka asks for this much, too."""


def cleaner_of(
    table: PartitionTable, config: Config, ports: tuple[Clock, Timers], work: Work
) -> Cleaner:
    """The cleaner of the table's directory, not started yet."""

    def bounds(key: TopicPartition) -> Sequence[LogPosition] | None:
        partition = table.get(key.topic, key.partition)
        if isinstance(partition, ErrorCode) or table.failure is not None:
            return None
        return partition.high_position, partition.stable_position

    def limits() -> Limits:
        return Limits(
            enabled=config[options.CLEANER_ENABLE],
            backoff_ms=config[options.CLEANER_BACKOFF_MS],
            buffer_bytes=max(config[options.CLEANER_BUFFER_BYTES], BUFFER_BYTES_MIN),
            bytes_per_s_max=config[options.CLEANER_RATE_MAX],
            decompressed_max=config[options.DECOMPRESSED_BYTES_MAX],
        )

    cleaner = Cleaner(table.directory, ports, work, bounds, limits)
    cleaner.on_failure = _failed
    cleaner.on_disk_error = table.disk_failed
    return cleaner


def _failed(key: TopicPartition, failure: Failure) -> None:
    if failure.lasting:
        _log.error(
            "%s is not compacted any more: %s. It is served as it is; a restart tries again",
            key,
            failure.text,
        )
    else:
        _log.warning("%s could not be compacted: %s. It is tried again", key, failure.text)
