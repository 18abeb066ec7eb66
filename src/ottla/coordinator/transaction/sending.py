"""Sending: the markers of prepared transactions, until every partition has one.

Owns what is under way and the trying again. Must not decide how a transaction ends, nor write
to a partition itself. Nothing here outlives the process: what is prepared is in the log, and a
shard that is loaded has it sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ottla.coordinator.decision import Decision, Ending
from ottla.coordinator.transaction.states import TransactionState
from ottla.core.pending import Pending, when_told
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.coordinator.transaction.metadata import Transaction
    from ottla.coordinator.transaction.ports import Markers
    from ottla.coordinator.transaction.shard import TransactionShard
    from ottla.core.model import TopicPartition
    from ottla.core.pending import Soon
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
        ErrorCode.TRANSACTION_COORDINATOR_FENCED,
    }
)
"""There is nothing left to do in that partition: it has the marker, is gone, or has gone on."""


class Sending:
    """`ask` is the runtime's: it has a transactional id's shard decide."""

    def __init__(
        self,
        markers: Markers,
        timers: Timers,
        ask: Callable[[str, Callable[[TransactionShard], Decision[Any]]], Soon[Any]],
    ) -> None:
        self._markers = markers
        self._timers = timers
        self._ask = ask

    def send(self, prepared: Transaction, coordinator_epoch: int) -> None:
        """Have the markers of a prepared transaction written, and then have it completed."""
        ending = Ending(
            prepared.producer_id,
            prepared.epoch,
            prepared.state is _PREPARE_COMMIT,
            coordinator_epoch,
            prepared.version,
        )
        self._write(prepared.id, ending, tuple(prepared.partitions), AGAIN_S)

    def _write(
        self, name: str, ending: Ending, partitions: Sequence[TopicPartition], again_s: float
    ) -> None:
        if not partitions:
            self._complete(name, ending)
            return
        written = self._markers.write(ending, partitions)
        if isinstance(written, Pending):
            written.then(lambda: self._written(name, ending, written.result(), again_s))
        else:
            self._written(name, ending, written, again_s)

    def _written(
        self,
        name: str,
        ending: Ending,
        results: dict[TopicPartition, ErrorCode],
        again_s: float,
    ) -> None:
        if not any(results.values()):
            self._complete(name, ending)
            return
        left = [one for one, error in results.items() if error not in _OVER]
        if again_s == AGAIN_S or not left:  # the first time, and when it is over: not in between
            _tell(name, results)
        if left:
            self._timers.after(again_s, partial(self._write_again, name, ending, left, again_s))
        else:
            self._complete(name, ending)

    def _write_again(
        self, name: str, ending: Ending, left: list[TopicPartition], waited_s: float
    ) -> None:
        """Only if the coordinator still wants it. Under version 1 the next transaction has the
        same epoch: a marker that comes too late would end that one (I43)."""
        asked = self._ask(
            name, lambda shard: Decision(shard.is_prepared(name, ending[:2], ending.committed))
        )

        def answered(wanted: bool | ErrorCode) -> None:
            if isinstance(wanted, ErrorCode):
                again = partial(self._write_again, name, ending, left, waited_s)
                self._unless_gone(wanted, again)
            elif wanted:
                self._write(name, ending, left, min(2 * waited_s, AGAIN_S_MAX))

        when_told(asked, answered)

    def _complete(self, name: str, ending: Ending) -> None:
        asked = self._ask(name, lambda shard: shard.complete(name, ending[:2]))
        if isinstance(asked, Pending):
            asked.then(lambda: self._completed(name, ending, asked.result()))
        elif asked:
            self._completed(name, ending, asked)

    def _completed(self, name: str, ending: Ending, error: ErrorCode) -> None:
        if error:
            self._unless_gone(error, partial(self._complete, name, ending))

    def _unless_gone(self, error: ErrorCode, again: Callable[[], None]) -> None:
        # Without its shard there is nothing to be completed; one that comes back sends anew.
        if error is not ErrorCode.NOT_COORDINATOR:
            self._timers.after(AGAIN_S, again)


def _tell(name: str, results: dict[TopicPartition, ErrorCode]) -> None:
    troubled = [(one, error) for one, error in results.items() if error]
    for one, error in troubled[:TOLD_AT_ONCE]:
        if error in _OVER:
            _log.info("%s: the end of transaction %r was not needed: %s", one, name, error.name)
        else:
            _log.warning("%s: the end of transaction %r waits: %s", one, name, error.name)
