"""Sending: the markers of prepared transactions, until every partition has one.

Owns what is under way and the trying again. Must not decide how a transaction ends, nor write
to a partition itself. Nothing here outlives the process: what is prepared is in the log, and a
shard that is loaded has it sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ottla.coordinator.decision import Ending
from ottla.coordinator.transaction.states import TransactionState
from ottla.core.pending import Pending, Soon
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.coordinator.transaction.metadata import Transaction
    from ottla.coordinator.transaction.ports import Markers
    from ottla.coordinator.transaction.shard import TransactionShard
    from ottla.core.model import TopicPartition
    from ottla.core.ports import Timers

_log = logging.getLogger("ottla.coordinator")

_PREPARE_COMMIT = TransactionState.PREPARE_COMMIT
AGAIN_S: Final = 0.5
"""After this long a marker that could not be written is tried again,"""
AGAIN_S_MAX: Final = 8.0
"""and then after twice as long each time, up to this: a partition may be damaged for days."""
TOLD_AT_ONCE: Final = 10
"""Partitions of one transaction that are named in the log; the rest have the same trouble."""
_OVER = frozenset(
    {
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.PRODUCER_FENCED,
    }
)
"""There is nothing left to do in that partition: it has the marker, is gone, or has gone on."""

_NOTHING: dict[TopicPartition, ErrorCode] = {}


class Sending:
    """`live` is the runtime's: the shard that has the transactional id now."""

    def __init__(
        self, markers: Markers, timers: Timers, live: Callable[[str], TransactionShard | None]
    ) -> None:
        self._markers = markers
        self._timers = timers
        self._live = live

    def send(self, shard: TransactionShard, prepared: Transaction, coordinator_epoch: int) -> None:
        """Have the markers of a prepared transaction written, and then have it completed."""
        ending = Ending(
            prepared.producer_id,
            prepared.epoch,
            prepared.state is _PREPARE_COMMIT,
            coordinator_epoch,
            prepared.version,
        )
        partitions = tuple(prepared.partitions)
        written = self._markers.write(ending, partitions) if partitions else _NOTHING
        if not isinstance(written, Pending) and not any(written.values()):
            shard.complete(prepared, ending[:2])  # as nearly always, under flush.policy=os
        else:
            self._when_written(_Way(shard, prepared, ending), written, AGAIN_S)

    def _when_written(
        self, way: _Way, written: Soon[dict[TopicPartition, ErrorCode]], again_s: float
    ) -> None:
        if isinstance(written, Pending):
            written.then(lambda: self._written(way, written.result(), again_s))
        else:
            self._written(way, written, again_s)

    def _written(self, way: _Way, results: dict[TopicPartition, ErrorCode], again_s: float) -> None:
        if not any(results.values()):
            way.end()
            return
        left = [one for one, error in results.items() if error not in _OVER]
        if again_s == AGAIN_S or not left:  # the first time, and when it is over: not in between
            _tell(way.prepared.id, results)
        if left:
            self._timers.after(again_s, partial(self._write_again, way, left, again_s))
        else:
            way.end()

    def _write_again(self, way: _Way, left: list[TopicPartition], waited_s: float) -> None:
        """Only if the coordinator still wants it of us. Under version 1 the next transaction has
        the same epoch: a marker that comes too late would end that one (I43)."""
        if self._live(way.prepared.id) is way.shard and way.is_wanted():
            written = self._markers.write(way.ending, left)
            self._when_written(way, written, min(2 * waited_s, AGAIN_S_MAX))


class _Way(NamedTuple):
    """What one prepared transaction's markers are written for.

    The shard is the one that had them sent. If it is unloaded, its successor sends anew, and what
    becomes of these is of no interest to it.
    """

    shard: TransactionShard
    prepared: Transaction
    ending: Ending

    def end(self) -> None:
        self.shard.complete(self.prepared, self.ending[:2])

    def is_wanted(self) -> bool:
        ending = self.ending
        return self.shard.is_prepared(self.prepared, ending[:2], ending.committed)


def _tell(name: str, results: dict[TopicPartition, ErrorCode]) -> None:
    troubled = [(one, error) for one, error in results.items() if error]
    for one, error in troubled[:TOLD_AT_ONCE]:
        if error in _OVER:
            _log.info("%s: the end of transaction %r was not needed: %s", one, name, error.name)
        else:
            _log.warning("%s: the end of transaction %r waits: %s", one, name, error.name)
