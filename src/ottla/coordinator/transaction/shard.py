"""TransactionShard: the transactional ids of one partition of __transaction_state.

Owns the durable state, which `replay` alone changes, and the decisions about it: what Kafka's
TransactionCoordinator decides, in its order. A pure state machine: the clock is injected, timers
are effects, markers and producer ids are the node's. Must not append, wait or answer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from functools import partial
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar

from ottla.coordinator.decision import (
    Decision,
    Do,
    Effect,
    Entry,
    Follow,
    Schedule,
    WhenCommitted,
)
from ottla.coordinator.entries.transaction_log import TransactionLogKey, TransactionLogValue
from ottla.coordinator.transaction.ending import Identity, judge_end
from ottla.coordinator.transaction.metadata import (
    BUMPING,
    NO_EPOCH,
    NO_ID,
    Transaction,
    first,
    is_exhausted,
)
from ottla.coordinator.transaction.states import MOVES, RESTING, TransactionState
from ottla.core import group_options as options
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.coordinator.transaction.ports import Admitted
    from ottla.core.config import Config
    from ottla.core.model import TopicPartition
    from ottla.core.ports import Clock

_S = TransactionState
# Names of the module: to look a member up in an enum takes as long as to make an object.
_ONGOING, _NO_ERROR = _S.ONGOING, ErrorCode.NONE
_SCAN, _EXPIRE = "transactions that took too long", "ids that nobody uses"
_SETTLE = "completions that are not written yet"
SETTLE_S: Final = 0.1
"""So much later a completion is written, unless the id's next entry has made it needless."""
SETTLED_AT_ONCE: Final = 1000
"""Completions that are written in one go."""
GRACE_S: Final = 10.0
"""After a start an open transaction lives at least that long, or its own timeout: its producer
was cut off, and what the wall clock says of the time before may be wrong."""
EXPIRED_AT_ONCE: Final = 1000
"""Ids that are forgotten in one go."""


class Needs(Enum):
    """What a decision could not be made without: to be fetched, and then asked for again."""

    PRODUCER_ID = "a producer id"


R = TypeVar("R")
Told: TypeAlias = Identity | ErrorCode | Needs
"""As whom a producer goes on, or why not."""


class Node(Protocol):
    """What a shard asks of the node it is on."""

    def take_producer_id(self) -> int | None:
        """An id that nobody has; None if none is at hand."""

    def ids_count(self) -> int:
        """Transactional ids on this node, in all shards."""

    def prepared(self, shard: TransactionShard, transactions: Sequence[Transaction]) -> None:
        """These must have their markers written; what they would end with is durable."""

    def expired(self, transactions: Sequence[Transaction]) -> None:
        """These have taken too long: have each aborted, by `abort_expired`."""

    def completed(self, transactional_id: str) -> None:
        """A transaction has ended; another may begin."""

    def unwritten(self, shard: TransactionShard) -> None:
        """It has completions to be written: have it asked to `settle_later`."""


class TransactionShard:
    """Transactional ids and their transactions. Methods that return a Decision change nothing."""

    def __init__(self, partition: int, config: Config, clock: Clock, node: Node) -> None:
        self.partition = partition
        self.transactions: dict[str, Transaction] = {}
        self.open: dict[str, Transaction] = {}
        """Those that are ongoing."""
        self._config = config
        self._clock = clock
        self._node = node
        self._scan_at_s = inf
        self._unwritten: dict[str, Transaction] = {}
        """Those that are complete and, in the log, still prepared; by id."""
        self._is_to_settle = False

    # --- durable state ---------------------------------------------------------------------

    def replay(self, entry: Entry, producer_id: int = -1) -> None:  # noqa: ARG002  # as the port has it
        """Take an entry in. The only code that changes durable state; loading calls it too."""
        key, value = entry
        assert isinstance(key, TransactionLogKey), entry
        name = key.transactional_id
        if self._unwritten:
            self._unwritten.pop(name, None)  # this is it, or what came after it
        if value is None:
            self.transactions.pop(name, None)
            self.open.pop(name, None)
            return
        assert isinstance(value, TransactionLogValue), entry
        found = self.transactions.get(name)
        if found is None:
            found = self.transactions[name] = Transaction(name, value)
        else:
            found.adopt(value)
        found.used_s = self._clock.monotonic()
        if found.state is not _ONGOING:
            self.open.pop(name, None)
        elif name not in self.open:
            self.open[name] = found
            found.deadline_s = found.used_s + found.timeout_ms / 1000

    def end_transaction(self, producer_id: int, committed: bool) -> None:
        """Nothing here is written in a transaction."""

    def loaded(self) -> Decision[None]:
        """Take up what was going on: markers that may be missing, timeouts, expiry."""
        now_s, now_ms = self._clock.monotonic(), self._clock.wall_ms()
        for found in self.transactions.values():
            # A clock that has run backwards in between makes nothing older than it is.
            found.used_s = now_s - max(0, now_ms - found.update_ms) / 1000
        for found in self.open.values():
            timeout_s = found.timeout_ms / 1000
            left_s = timeout_s - (now_ms - found.start_ms) / 1000
            found.deadline_s = now_s + min(timeout_s, max(left_s, GRACE_S))
        effects: list[Effect] = [self._expire_later()]
        if self.open:
            effects += self._scan_in(min(one.deadline_s for one in self.open.values()) - now_s)
        prepared = [found for found in self.transactions.values() if found.is_prepared]
        if prepared:
            effects.append(WhenCommitted(self._node.prepared, self, prepared))
        return Decision(None, effects=effects)

    # --- a producer's epoch ----------------------------------------------------------------

    def init_producer_id(
        self, name: str, timeout_ms: int, expected: Identity | None
    ) -> Decision[Told]:
        """A producer begins, or goes on after an error: from now on older epochs are fenced.

        `expected` is what it had, where it says so (KIP-360).
        """
        found = self.transactions.get(name)
        if found is None:
            return self._first(name, timeout_ms)
        if found.is_prepared:
            return Decision(ErrorCode.CONCURRENT_TRANSACTIONS)
        if expected is not None and not found.may_be(*expected):
            return Decision(ErrorCode.PRODUCER_FENCED)
        if found.state is _S.ONGOING:
            # Its end takes the epoch that follows; the producer asks again and gets the one
            # after that, so that nobody shares one with the markers.
            return self._fence(found, ErrorCode.CONCURRENT_TRANSACTIONS)
        if found.is_exhausted and (expected is None or expected.epoch == found.epoch):
            producer_id = self._node.take_producer_id()
            if producer_id is None:
                return Decision(Needs.PRODUCER_ID)
            last = NO_EPOCH if expected is None else found.epoch
            return self._begin(found, Identity(producer_id, 0), last, timeout_ms)
        if expected is None:
            epoch, last = found.epoch + 1, NO_EPOCH
        elif expected.epoch == found.epoch:
            epoch, last = found.epoch + 1, found.epoch
        elif expected.epoch == found.last_epoch:
            epoch, last = found.epoch, found.last_epoch  # it asks again, and gets the same
        else:
            return Decision(ErrorCode.PRODUCER_FENCED)
        return self._begin(found, Identity(found.producer_id, epoch), last, timeout_ms)

    def _first(self, name: str, timeout_ms: int) -> Decision[Told]:
        if self._node.ids_count() >= self._config[options.TRANSACTIONAL_IDS_MAX]:
            return Decision(ErrorCode.POLICY_VIOLATION)
        producer_id = self._node.take_producer_id()
        if producer_id is None:
            return Decision(Needs.PRODUCER_ID)
        value = first(producer_id, timeout_ms, self._clock.wall_ms())
        key = TransactionLogKey(transactional_id=name)
        return Decision(Identity(producer_id, 0), [Entry(key, value)])

    def _begin(
        self, found: Transaction, producer: Identity, last_epoch: int, timeout_ms: int
    ) -> Decision[Told]:
        value = found.with_epoch(
            producer.epoch, timeout_ms, self._clock.wall_ms(), producer.producer_id
        )
        remember = Do(_remember, found, last_epoch)
        return Decision(producer, [Entry(found.key, value)], [remember])

    # --- what takes part -------------------------------------------------------------------

    def add_partitions(
        self, name: str, producer: Identity, partitions: Collection[TopicPartition], version: int
    ) -> Decision[ErrorCode]:
        """Make the partitions part of the transaction; begin one, where none is ongoing."""
        if not name:
            return Decision(ErrorCode.INVALID_REQUEST)
        found = self.transactions.get(name)
        if found is None:
            return Decision(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        # First of all: the producer may already use the id and epoch that it has after this.
        if found.is_prepared:
            return Decision(ErrorCode.CONCURRENT_TRANSACTIONS)
        if found.producer_id != producer.producer_id:
            return Decision(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        if found.epoch != producer.epoch:
            return Decision(ErrorCode.PRODUCER_FENCED)
        begins = found.state is not _ONGOING
        if not begins and found.partitions.issuperset(partitions):
            return Decision(ErrorCode.NONE)
        value = found.with_partitions(partitions, self._clock.wall_ms(), version)
        most = self._config[options.TRANSACTION_PARTITIONS_MAX]
        if len(found.partitions) + len(partitions) > most:
            count = sum(len(one.partition_ids) for one in value.transaction_partitions or ())
            if count > most:
                return Decision(ErrorCode.POLICY_VIOLATION)
        effects: Sequence[Effect] = ()
        if begins:
            timeout_s = found.timeout_ms / 1000
            if self._clock.monotonic() + timeout_s < self._scan_at_s:
                effects = self._scan_in(timeout_s)
        return Decision(_NO_ERROR, [Entry(found.key, value)], effects)

    def verify(
        self, name: str, producer: Identity, partitions: Collection[TopicPartition]
    ) -> Decision[Admitted]:
        """As `verified`, in the order of what else is asked."""
        return Decision(self.verified(name, producer, partitions))

    def verified(
        self, name: str, producer: Identity, partitions: Collection[TopicPartition]
    ) -> Admitted:
        """Whether each partition is part of the producer's transaction (KIP-890)."""
        if not name:
            return ErrorCode.INVALID_REQUEST
        found = self.transactions.get(name)
        if found is None or found.producer_id != producer.producer_id:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        if found.epoch != producer.epoch:
            return ErrorCode.PRODUCER_FENCED
        if found.is_prepared:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        there = found.partitions
        return {
            one: ErrorCode.NONE if one in there else ErrorCode.TRANSACTION_ABORTABLE
            for one in partitions
        }

    # --- the end ---------------------------------------------------------------------------

    def end(self, name: str, producer: Identity, committed: bool, version: int) -> Decision[Told]:
        """Decide how the transaction ends, and as whom the producer goes on; the partitions are
        told afterwards."""
        if not name:
            return Decision(ErrorCode.INVALID_REQUEST)
        found = self.transactions.get(name)
        if found is None:
            return Decision(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        judged = judge_end(found, producer, committed, version)
        if judged is _NO_ERROR:
            return Decision(Identity(found.producer_id, found.epoch))
        if judged is not None:
            return Decision(judged)
        return self._prepare(found, committed, version)

    def abort_expired(self, name: str, producer: Identity) -> Decision[Told]:
        """Abort a transaction that took too long, and fence its producer; unless it has ended."""
        found = self.open.get(name)
        if found is None or (found.producer_id, found.epoch) != producer:
            return Decision(ErrorCode.NONE)
        if found.deadline_s > self._clock.monotonic():
            return Decision(ErrorCode.NONE)  # the next one, of the same epoch: version 1
        return self._fence(found, ErrorCode.NONE)

    def _fence(self, found: Transaction, reply: ErrorCode) -> Decision[Told]:
        """Abort, with an epoch that the producer does not have, whatever its version."""
        decision = self._prepare(found, False, BUMPING)
        if isinstance(decision.reply, Identity):
            decision.reply = reply
        return decision

    def take_back(
        self, name: str, producer: Identity, partitions: Collection[TopicPartition]
    ) -> Decision[Told]:
        """Abort what the producer has begun in these partitions and this has lost, with all else
        that it has open; and fence it."""
        found = self.transactions.get(name)
        if found is None or found.producer_id != producer.producer_id:
            return Decision(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        if found.epoch > producer.epoch:
            return Decision(ErrorCode.PRODUCER_FENCED)
        if found.is_prepared:
            return Decision(ErrorCode.CONCURRENT_TRANSACTIONS)
        if _S.PREPARE_ABORT not in MOVES[found.state]:
            return Decision(ErrorCode.INVALID_TXN_STATE)
        next_id = NO_ID
        if is_exhausted(producer.epoch):
            taken = self._node.take_producer_id()
            if taken is None:
                return Decision(Needs.PRODUCER_ID)
            next_id = taken
        value = found.taken_back(partitions, producer.epoch, self._clock.wall_ms(), next_id)
        decision: Decision[Told] = Decision(
            ErrorCode.NONE,
            (Entry(found.key, value),),
            (
                Do(_remember, found, producer.epoch),
                WhenCommitted(self._node.prepared, self, [found]),
            ),
        )
        decision.any_size = True
        return decision

    def end_as_marked(self, name: str, producer: Identity, committed: bool) -> Decision[Told]:
        """End an ongoing transaction as one of its partitions says that it was decided."""
        found = self.open.get(name)
        if found is None or (found.producer_id, found.epoch) != producer:
            return Decision(ErrorCode.INVALID_TXN_STATE)
        decision = self._prepare(found, committed, BUMPING)
        if isinstance(decision.reply, Identity):
            decision.reply = ErrorCode.NONE
        return decision

    def _prepare(self, found: Transaction, committed: bool, version: int) -> Decision[Told]:
        next_id, last = NO_ID, found.last_epoch
        if version >= BUMPING:
            last = found.epoch
            if found.is_exhausted:
                taken = self._node.take_producer_id()
                if taken is None:
                    return Decision(Needs.PRODUCER_ID)
                next_id = taken
        value = found.prepared(committed, self._clock.wall_ms(), version, next_id)
        told = Identity(found.producer_id, value.producer_epoch)
        if next_id != NO_ID:
            told = Identity(next_id, 0)
        effects: Sequence[Effect] = (WhenCommitted(self._node.prepared, self, [found]),)
        if last != found.last_epoch:
            effects = (Do(_remember, found, last), *effects)
        decision: Decision[Told] = Decision(told, (Entry(found.key, value),), effects)
        # A step of the end is not refused for its size, which hardly differs from that of the entry
        # by which the last partition came in. The limit may have been lowered since.
        decision.any_size = True
        return decision

    def is_prepared(self, found: Transaction, producer: tuple[int, int], committed: bool) -> bool:
        """Whether that transaction is still about to end, and so."""
        if self.transactions.get(found.id) is not found:
            return False
        state = _S.PREPARE_COMMIT if committed else _S.PREPARE_ABORT
        return found.state is state and (found.producer_id, found.epoch) == producer

    def complete(self, found: Transaction, producer: tuple[int, int]) -> None:
        """Every partition has its marker: be complete, before the log says so.

        Should the log never come to say it, it has the transaction as prepared. A shard that is
        loaded then sends the markers once more, and they end nothing twice: for whatever else the
        producer writes anywhere, there would be a later entry first.
        """
        if not found.is_prepared or (found.producer_id, found.epoch) != producer:
            return  # it is a later one that is about to end
        found.complete(self._clock.wall_ms())
        found.used_s = self._clock.monotonic()
        self._unwritten[found.id] = found
        if not self._is_to_settle:
            self._is_to_settle = True
            self._node.unwritten(self)
        self._node.completed(found.id)

    def settle_later(self) -> Decision[None]:
        """Write the completions after a while, in which many become needless."""
        return Decision(None, effects=(Schedule(_SETTLE, SETTLE_S, self.settle),))

    def settle(self, at_once: int = SETTLED_AT_ONCE) -> Decision[None]:
        """Write the completions whose ids had no other entry since: the log has a last one of each
        id, and each last one is true."""
        entries = [
            Entry(found.key, found.as_logged())
            for found in islice(self._unwritten.values(), at_once)
        ]
        after = Follow(partial(self._settled, len(entries) == at_once))
        decision: Decision[None] = Decision(None, entries, (after,), atomic=False)
        decision.any_size = True  # as the step before
        return decision

    def _settled(self, is_full: bool) -> Sequence[Effect]:
        """What is left are those that were too many, or became complete while these waited for
        files: nobody else would have them written."""
        self._is_to_settle = bool(self._unwritten)
        if not self._unwritten:
            return ()
        return (Schedule(_SETTLE, 0.0 if is_full else SETTLE_S, self.settle),)

    # --- time ------------------------------------------------------------------------------

    def _scan_in(self, delay_s: float) -> list[Effect]:
        """Look for what took too long after that time, or at the usual interval."""
        delay_s = min(max(0.0, delay_s), self._config[options.TRANSACTIONS_ABORT_CHECK_MS] / 1000)
        return [
            Do(self._scan_is_at, self._clock.monotonic() + delay_s),
            Schedule(_SCAN, delay_s, self._scan),
        ]

    def _scan_is_at(self, at_s: float) -> None:
        self._scan_at_s = at_s

    def _scan(self) -> Decision[None]:
        now_s = self._clock.monotonic()
        late = [found for found in self.open.values() if found.deadline_s <= now_s]
        effects: list[Effect] = [Do(self._scan_is_at, inf)]
        if self.open:
            # Those that are late are looked at again at the interval: their abort may fail.
            left_s = (one.deadline_s - now_s for one in self.open.values())
            effects += self._scan_in(min((left for left in left_s if left > 0), default=inf))
        if late:
            effects.append(Do(self._node.expired, late))
        return Decision(None, effects=effects)

    def _expire_later(self, delay_s: float | None = None) -> Effect:
        if delay_s is None:
            delay_s = self._config[options.TRANSACTIONS_EXPIRY_CHECK_MS] / 1000
        return Schedule(_EXPIRE, delay_s, self.expire_ids)

    def expire_ids(self) -> Decision[None]:
        """Forget ids that have not been used for long, by the monotonic clock."""
        oldest_s = (
            self._clock.monotonic() - self._config[options.TRANSACTIONAL_ID_EXPIRATION_MS] / 1000
        )
        entries = []
        for found in self.transactions.values():
            if found.used_s <= oldest_s and found.state in RESTING:
                entries.append(Entry(found.key, None))
                if len(entries) == EXPIRED_AT_ONCE:
                    break
        more = len(entries) == EXPIRED_AT_ONCE
        again = self._expire_later(0.0 if more else None)
        return Decision(None, entries, [again], atomic=False)


def _remember(found: Transaction, last_epoch: int) -> None:
    found.last_epoch = last_epoch
