"""Transaction: what is known of one transactional id, and what it would become.

Owns one id's state and the arithmetic of producer ids and epochs (KIP-98, KIP-360, KIP-890): each
method that is named after a step gives the value to be logged, and changes nothing, but for
`complete`. Must not judge who may ask for a step.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Final, TypeAlias

from ottla.coordinator.entries.transaction_log import (
    Named,
    PartitionsSchema,
    TransactionLogKey,
    TransactionLogValue,
)
from ottla.coordinator.transaction.states import MOVES, PREPARED, TransactionState
from ottla.core.model import TopicPartition

NO_ID: Final = -1
NO_EPOCH: Final = -1
EPOCH_MAX: Final = (1 << 15) - 1
EXHAUSTED_EPOCH: Final = EPOCH_MAX - 1
"""From here on a producer gets another id: one epoch is left over, to fence it with."""
CLASSIC, BUMPING = 0, 2
"""Versions of transactions: from 2 on every one has an epoch of its own (KIP-890)."""

_S = TransactionState
_ONGOING, _PREPARE_COMMIT, _PREPARE_ABORT = _S.ONGOING, _S.PREPARE_COMMIT, _S.PREPARE_ABORT
_COMPLETE_COMMIT, _COMPLETE_ABORT = _S.COMPLETE_COMMIT, _S.COMPLETE_ABORT
"""Names of the module: to look a member up in an enum takes as long as to make an object."""
_STATES = tuple(TransactionState)
"""By number: to ask the enum takes ten times as long."""
Partitions: TypeAlias = frozenset[TopicPartition]
_NONE: Partitions = frozenset()


class _Ordered(Named):
    """Partitions by topic, both in order, and the same as a set: what the next ones are added to.

    With thousands that come one by one, to order and to name all of them each time would take
    seconds of the loop in the end."""

    __slots__ = ("partitions",)

    def __init__(self, named: Iterable[PartitionsSchema], partitions: Partitions) -> None:
        list.__init__(self, named)
        self.packed = None
        self.partitions = partitions

    def with_more(self, more: Collection[TopicPartition]) -> _Ordered:
        """These and `more`. What both have is shared, and stays as it is."""
        new = frozenset(more) - self.partitions
        found = _Ordered(self, self.partitions | new)
        for added in schemas(new):
            at = bisect_left(found, added.topic, key=_topic_of)
            if at == len(found) or found[at].topic != added.topic:
                found.insert(at, added)
            else:
                # Two runs in order: sorted merges them in one pass.
                numbers = sorted([*found[at].partition_ids, *added.partition_ids])
                found[at] = PartitionsSchema(topic=added.topic, partition_ids=numbers)
        return found


_NOWHERE: list[PartitionsSchema] = _Ordered((), _NONE)


def _topic_of(one: PartitionsSchema) -> str:
    return one.topic


_FEW = 16
"""Partitions that are worth being remembered together."""


@lru_cache(maxsize=1024)
def _begun_with(partitions: tuple[TopicPartition, ...]) -> _Ordered:
    """What a transaction begins with. A producer begins one after the other with the same ones."""
    together = frozenset(partitions)
    return _Ordered(schemas(together), together)


class Transaction:
    """One transactional id. `adopt` alone changes what is durable.

    `last_epoch` is the producer's one before, which it may still name when it asks again for an
    epoch that it has been given; the log has no place for it, in Kafka neither. `deadline_s`
    and `used_s` are monotonic: when an ongoing one is aborted, and when the id was last used.
    """

    __slots__ = (
        "_named",
        "deadline_s",
        "epoch",
        "id",
        "is_prepared",
        "key",
        "last_epoch",
        "next_producer_id",
        "partitions",
        "previous_producer_id",
        "producer_id",
        "start_ms",
        "state",
        "timeout_ms",
        "update_ms",
        "used_s",
        "version",
    )

    def __init__(self, transactional_id: str, value: TransactionLogValue) -> None:
        self.id = transactional_id
        self.key = TransactionLogKey(transactional_id=transactional_id)
        self.last_epoch = NO_EPOCH
        self.deadline_s = 0.0
        self.used_s = 0.0
        self._named: list[PartitionsSchema] = _NOWHERE
        """`partitions` as the log has them. The next step's value may share it: nobody changes
        what a value holds."""
        self.partitions: Partitions = _NONE
        self.adopt(value)

    def adopt(self, value: TransactionLogValue) -> None:
        """Be what the log says, whatever it was before: a compacted log leaves steps out."""
        self.producer_id = value.producer_id
        self.previous_producer_id = value.previous_producer_id
        self.next_producer_id = value.next_producer_id
        self.epoch = value.producer_epoch
        self.timeout_ms = value.transaction_timeout_ms
        self.state = state = _STATES[value.transaction_status]
        self.is_prepared = state in PREPARED
        named = value.transaction_partitions or _NOWHERE
        if named is not self._named:
            self._named = named
            if type(named) is _Ordered:
                self.partitions = named.partitions
            else:
                self.partitions = frozenset(
                    [TopicPartition(one.topic, n) for one in named for n in one.partition_ids]
                )
        self.update_ms = value.transaction_last_update_timestamp_ms
        self.start_ms = value.transaction_start_timestamp_ms
        self.version = value.client_transaction_version

    def complete(self, now_ms: int) -> None:
        """All markers are written; the producer goes on as it was told when it was prepared.

        This step is taken before it is logged, and mostly without: `as_logged` is what would be."""
        state = _COMPLETE_COMMIT if self.state is _PREPARE_COMMIT else _COMPLETE_ABORT
        assert state in MOVES[self.state], f"{self.id}: {self.state.name} -> {state.name}"
        self.state = state
        self.is_prepared = False
        self.previous_producer_id = self.producer_id
        if self.next_producer_id != NO_ID:
            self.producer_id, self.epoch = self.next_producer_id, 0
            self.next_producer_id = NO_ID
        self._named, self.partitions = _NOWHERE, _NONE
        self.update_ms = now_ms

    def as_logged(self) -> TransactionLogValue:
        """What `adopt` would take this from."""
        return TransactionLogValue(
            producer_id=self.producer_id,
            previous_producer_id=self.previous_producer_id,
            next_producer_id=self.next_producer_id,
            producer_epoch=self.epoch,
            transaction_timeout_ms=self.timeout_ms,
            transaction_status=self.state,
            transaction_partitions=self._named,
            transaction_last_update_timestamp_ms=self.update_ms,
            transaction_start_timestamp_ms=self.start_ms,
            client_transaction_version=self.version,
        )

    # --- questions -------------------------------------------------------------------------

    @property
    def is_exhausted(self) -> bool:
        return is_exhausted(self.epoch)

    def may_be(self, producer_id: int, epoch: int) -> bool:
        """Whether a producer that says it was this one may be (KIP-360): it is, or it asks again
        for the id that came after its last epoch."""
        if producer_id == self.producer_id:
            return True
        return producer_id == self.previous_producer_id and is_exhausted(epoch)

    # --- steps -----------------------------------------------------------------------------

    def with_epoch(
        self, epoch: int, timeout_ms: int, now_ms: int, producer_id: int
    ) -> TransactionLogValue:
        """Empty, with this epoch: what InitProducerId ends with."""
        begun = None, -1, self.version
        return self._moved(
            _S.EMPTY, now_ms, *begun, producer_id=producer_id, epoch=epoch, timeout_ms=timeout_ms
        )

    def with_partitions(
        self, more: Collection[TopicPartition], now_ms: int, version: int
    ) -> TransactionLogValue:
        """Ongoing, these partitions in it."""
        begun = self.state is _ONGOING
        before = self._named
        if not before and len(more) <= _FEW:
            named = _begun_with(tuple(more))
        elif type(before) is _Ordered:
            named = before.with_more(more)
        else:  # none yet, or nobody knows in which order the log has them
            partitions = self.partitions.union(more)
            named = _Ordered(schemas(partitions), partitions)
        return self._moved(_ONGOING, now_ms, named, self.start_ms if begun else now_ms, version)

    def prepared(
        self, committed: bool, now_ms: int, version: int, next_producer_id: int
    ) -> TransactionLogValue:
        """It will end so. Under version 2 the epoch rises by one; at its end, there is an id to
        go on with."""
        epoch = self.epoch
        if version >= BUMPING:
            epoch = min(epoch + 1, EPOCH_MAX)
        return self._moved(
            _PREPARE_COMMIT if committed else _PREPARE_ABORT,
            now_ms,
            self._named,
            self.start_ms if self.state is _ONGOING else now_ms,
            version,
            epoch=epoch,
            next_producer_id=next_producer_id,
        )

    def taken_back(
        self,
        partitions: Collection[TopicPartition],
        last_epoch: int,
        now_ms: int,
        next_producer_id: int,
    ) -> TransactionLogValue:
        """It will be aborted, in these partitions too, by the epoch that follows `last_epoch`: the
        highest that its producer was given, of which this knows nothing."""
        together = self.partitions.union(partitions)
        return self._moved(
            _PREPARE_ABORT,
            now_ms,
            _Ordered(schemas(together), together),
            self.start_ms if self.state is _ONGOING else now_ms,
            BUMPING,
            epoch=min(last_epoch + 1, EPOCH_MAX),
            next_producer_id=next_producer_id,
        )

    def _moved(  # noqa: PLR0913  # the fields of a record, those first that every step has
        self,
        state: TransactionState,
        now_ms: int,
        named: list[PartitionsSchema] | None,
        start_ms: int,
        version: int,
        *,
        producer_id: int | None = None,
        epoch: int | None = None,
        next_producer_id: int = NO_ID,
        timeout_ms: int | None = None,
    ) -> TransactionLogValue:
        assert state in MOVES[self.state], f"{self.id}: {self.state.name} -> {state.name}"
        return TransactionLogValue(
            producer_id=self.producer_id if producer_id is None else producer_id,
            previous_producer_id=self.producer_id,
            next_producer_id=next_producer_id,
            producer_epoch=self.epoch if epoch is None else epoch,
            transaction_timeout_ms=self.timeout_ms if timeout_ms is None else timeout_ms,
            transaction_status=state,
            transaction_partitions=named,
            transaction_last_update_timestamp_ms=now_ms,
            transaction_start_timestamp_ms=start_ms,
            client_transaction_version=version,
        )


def is_exhausted(epoch: int) -> bool:
    return epoch >= EXHAUSTED_EPOCH


def first(producer_id: int, timeout_ms: int, now_ms: int) -> TransactionLogValue:
    """Empty, for an id that was not known."""
    return TransactionLogValue(
        producer_id=producer_id,
        previous_producer_id=producer_id,  # Kafka makes a state first, and then moves it
        producer_epoch=0,
        transaction_timeout_ms=timeout_ms,
        transaction_status=_S.EMPTY,
        transaction_partitions=None,
        transaction_last_update_timestamp_ms=now_ms,
        transaction_start_timestamp_ms=-1,
    )


def schemas(partitions: Collection[TopicPartition]) -> list[PartitionsSchema]:
    """Partitions as records and answers group them: by topic."""
    if len(partitions) == 1:
        [(topic, partition)] = partitions
        return [PartitionsSchema(topic=topic, partition_ids=[partition])]
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        by_topic.setdefault(topic, []).append(partition)
    return [
        PartitionsSchema(topic=topic, partition_ids=numbers) for topic, numbers in by_topic.items()
    ]
