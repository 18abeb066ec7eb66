"""Transactions: the coordinator of transactions on this node, as handlers and the data path ask it.

Owns the runtime of its shards, the producer ids at hand, and who waits for a transaction's end.
Must not decide what a shard decides, nor know a message or a partition.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ottla.cluster.store import StoreError
from ottla.coordinator.decision import Decision
from ottla.coordinator.runtime import Runtime
from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.hanging import NAME_MAX, Hanging
from ottla.coordinator.transaction.metadata import BUMPING
from ottla.coordinator.transaction.sending import Sending
from ottla.coordinator.transaction.shard import SETTLE_S, Needs, TransactionShard
from ottla.core import group_options as options
from ottla.core.pending import Pending, Soon, when_told
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.coordinator.journal import Journals
    from ottla.coordinator.keeper import Codec
    from ottla.coordinator.transaction.metadata import Transaction
    from ottla.coordinator.transaction.ports import Admitted, Markers, OpenTransactions
    from ottla.core.config import Config
    from ottla.core.model import ProducerId, TopicPartition
    from ottla.core.ports import Clock, Timer, Timers

_log = logging.getLogger("ottla.coordinator")

_CONCURRENT = ErrorCode.CONCURRENT_TRANSACTIONS
_LOADING = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
AT_ONCE: Final = 50
"""Transactions that are aborted, or taken up again after a start, before others get their turn."""


class Parts:
    """What the coordinator is put together from."""

    __slots__ = (
        "clock",
        "codec",
        "config",
        "coordinator_epoch",
        "journals",
        "markers",
        "next_producer_id",
        "open_transactions",
        "timers",
    )

    def __init__(  # noqa: PLR0913  # each by name
        self,
        *,
        journals: Journals,
        codec: Codec,
        markers: Markers,
        open_transactions: OpenTransactions,
        next_producer_id: Callable[[], Pending[ProducerId]],
        coordinator_epoch: Callable[[int], int | None],
        config: Config,
        clock: Clock,
        timers: Timers,
    ) -> None:
        """`coordinator_epoch` is the leader epoch of a partition of __transaction_state, None if
        it is gone."""
        self.journals = journals
        self.codec = codec
        self.markers = markers
        self.open_transactions = open_transactions
        self.next_producer_id = next_producer_id
        self.coordinator_epoch = coordinator_epoch
        self.config = config
        self.clock = clock
        self.timers = timers


class Transactions:
    """Every method asks and answers at once, or by a Pending that never fails; errors are
    ErrorCodes."""

    def __init__(self, parts: Parts) -> None:
        self._config = parts.config
        self._timers = parts.timers
        self._next_producer_id = parts.next_producer_id
        self._coordinator_epoch = parts.coordinator_epoch
        self._ids: deque[int] = deque()
        """Producer ids that were fetched and not taken yet: at most one for each who waits."""
        self._waiting: dict[str, dict[_Joining, None]] = {}
        """In the order of their coming; each goes out of the dict at once, be it of thousands."""
        self.runtime: Runtime[TransactionShard] = Runtime(
            parts.journals,
            lambda number: TransactionShard(number, parts.config, parts.clock, self),
            parts.codec,
            parts.clock,
            parts.timers,
        )
        self._sending = Sending(parts.markers, parts.timers, self.runtime.loaded_shard)
        self.hanging = Hanging(parts, self.runtime, self._ask)
        self._doubted = self.hanging.doubted

    def start(self) -> None:
        """Load what there is: what was prepared is ended, what is open may time out, and what
        nobody knows of is looked for."""
        self.hanging.begin()
        self.runtime.start(self.hanging.look)

    def stop(self) -> None:
        """Take nothing more; what is complete is so in the log, too."""
        self.hanging.stop()
        for shard in self.runtime.loaded_shards():
            self.runtime.submit_to(shard.partition, lambda one: one.settle(len(one.transactions)))
        self.runtime.stop()

    # --- requests --------------------------------------------------------------------------

    def init_producer_id(
        self, name: str, timeout_ms: int, expected: Identity | None
    ) -> Soon[Identity | ErrorCode]:
        return self._ask(name, lambda shard: shard.init_producer_id(name, timeout_ms, expected))

    def add_partitions(
        self, name: str, producer: Identity, partitions: Sequence[TopicPartition], version: int
    ) -> Soon[ErrorCode]:
        """CONCURRENT_TRANSACTIONS while the transaction before is being ended."""
        if self._doubted and producer.producer_id in self._doubted:
            return _LOADING
        return self.runtime.ask(
            name, lambda shard: shard.add_partitions(name, producer, partitions, version)
        )

    def join(
        self, name: str, producer: Identity, partitions: Sequence[TopicPartition], version: int
    ) -> Soon[ErrorCode]:
        """As `add_partitions`; but the end of the transaction before is waited for, for a short
        while: who is told to come again does so after 20 ms, and it takes a fraction of that."""
        added = self.add_partitions(name, producer, partitions, version)
        if not isinstance(added, Pending) and added is not _CONCURRENT:
            return added
        joining = _Joining(name, producer, partitions, version)
        when_told(added, partial(self._added, joining))
        return joining.result

    def verify(
        self, name: str, producer: Identity, partitions: Sequence[TopicPartition]
    ) -> Soon[Admitted]:
        return self.runtime.ask(name, lambda shard: shard.verify(name, producer, partitions))

    def end(
        self, name: str, producer: Identity, committed: bool, version: int
    ) -> Soon[Identity | ErrorCode]:
        if self._doubted and producer.producer_id in self._doubted:
            return _LOADING
        return self._ask(name, lambda shard: shard.end(name, producer, committed, version))

    def _ask(self, name: str, decide: Callable[[TransactionShard], Decision[Any]]) -> Soon[Any]:
        """Have the shard decide; again, with a producer id at hand, where it needs one."""
        asked = self.runtime.ask(name, decide)
        if not isinstance(asked, Pending) and asked is not Needs.PRODUCER_ID:
            return asked
        result: Pending[Any] = Pending()
        if isinstance(asked, Pending):
            asked.then(lambda: self._answered(name, decide, asked.result(), result))
        else:
            self._fetch_id(name, decide, result)
        return result

    def _answered(
        self,
        name: str,
        decide: Callable[[TransactionShard], Decision[Any]],
        told: Any,
        result: Pending[Any],
    ) -> None:
        if told is Needs.PRODUCER_ID:
            self._fetch_id(name, decide, result)
        else:
            result.complete(told)

    def _fetch_id(
        self, name: str, decide: Callable[[TransactionShard], Decision[Any]], result: Pending[Any]
    ) -> None:
        fetched = self._next_producer_id()

        def there() -> None:
            try:
                self._ids.append(fetched.result())
            except StoreError:
                # What Kafka says while it waits for a block of ids: clients try again.
                result.complete(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
                return
            asked = self.runtime.submit(name, decide)
            asked.then(lambda: self._answered(name, decide, asked.result(), result))

        fetched.then(there)

    # --- the data path (the port Admission) ------------------------------------------------

    def admit(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Sequence[TopicPartition],
        *,
        add: bool,
    ) -> Soon[Admitted]:
        producer = Identity(producer_id, producer_epoch)
        if add:
            joined: Soon[Any] = self.join(transactional_id, producer, partitions, BUMPING)
            return joined
        if self._doubted and producer_id in self._doubted:
            return _LOADING
        shard = self.runtime.settled(transactional_id)
        if shard is not None:  # each batch that begins a transaction asks: the short way
            return shard.verified(transactional_id, producer, partitions)
        return self.verify(transactional_id, producer, partitions)

    # --- joining, once the transaction before has ended ------------------------------------

    def _add(self, joining: _Joining) -> None:
        when_told(self.add_partitions(*joining.asks), partial(self._added, joining))

    def _added(self, joining: _Joining, told: ErrorCode) -> None:
        if told is not ErrorCode.CONCURRENT_TRANSACTIONS or joining.is_late:
            joining.finish(told)
        else:
            self._wait(joining)

    def _wait(self, joining: _Joining) -> None:
        """Until the transaction before has ended, or it takes too long."""
        if not self._is_ending(joining.name):
            # It has ended since: the answer waited for what others had on their way to the disk.
            self._timers.soon(partial(self._add, joining))
            return
        if joining.timer is None:
            wait_s = self._config[options.ADD_PARTITIONS_WAIT_MS] / 1000
            joining.timer = self._timers.after(wait_s, partial(self._late, joining))
        self._waiting.setdefault(joining.name, {})[joining] = None

    def _is_ending(self, name: str) -> bool:
        """Whether a transaction is prepared: then `completed` is still to come."""
        shard = self.runtime.loaded_shard(name)
        found = None if shard is None else shard.transactions.get(name)
        return found is not None and found.is_prepared

    def _late(self, joining: _Joining) -> None:
        joining.is_late = True
        waiting = self._waiting.get(joining.name)
        if waiting is None or joining not in waiting:
            return  # it is being tried just now, for the last time
        del waiting[joining]
        if not waiting:
            del self._waiting[joining.name]
        joining.finish(ErrorCode.CONCURRENT_TRANSACTIONS)

    # --- what shards ask (the port shard.Node) ---------------------------------------------

    def take_producer_id(self) -> int | None:
        return self._ids.popleft() if self._ids else None

    def ids_count(self) -> int:
        return sum(len(shard.transactions) for shard in self.runtime.loaded_shards())

    def prepared(self, shard: TransactionShard, transactions: Sequence[Transaction]) -> None:
        epoch = self._coordinator_epoch(shard.partition)
        if epoch is None:
            return  # and all that was known of them with it
        many = len(transactions) > AT_ONCE
        for one in transactions[:AT_ONCE] if many else transactions:
            if one.is_prepared:
                self._sending.send(shard, one, epoch)
        if many:
            self._timers.soon(partial(self.prepared, shard, transactions[AT_ONCE:]))

    def expired(self, transactions: Sequence[Transaction]) -> None:
        _log.info(
            "transactions that took longer than their timeouts are aborted: %d, %r among them",
            len(transactions),
            transactions[0].id[:NAME_MAX],
        )
        self._abort(transactions)

    def _abort(self, transactions: Sequence[Transaction]) -> None:
        for one in transactions[:AT_ONCE]:
            self._ask(one.id, partial(_abort, one.id, Identity(one.producer_id, one.epoch)))
        if rest := transactions[AT_ONCE:]:
            self._timers.soon(partial(self._abort, rest))

    def completed(self, transactional_id: str) -> None:
        for joining in self._waiting.pop(transactional_id, ()):
            self._timers.soon(partial(self._add, joining))

    def unwritten(self, shard: TransactionShard) -> None:
        asked = self.runtime.submit_to(shard.partition, TransactionShard.settle_later)
        asked.then(lambda: self._unless_scheduled(shard, asked.result()))

    def _unless_scheduled(self, shard: TransactionShard, error: ErrorCode | None) -> None:
        if error and shard in self.runtime.loaded_shards():  # too much is asked of it just now
            self._timers.after(SETTLE_S, partial(self.unwritten, shard))


class _Joining:
    """Partitions on their way into a transaction."""

    __slots__ = ("asks", "is_late", "result", "timer")

    def __init__(
        self, name: str, producer: Identity, partitions: Sequence[TopicPartition], version: int
    ) -> None:
        self.asks = name, producer, partitions, version
        self.result: Pending[ErrorCode] = Pending()
        self.timer: Timer | None = None
        self.is_late = False

    @property
    def name(self) -> str:
        return self.asks[0]

    def finish(self, told: ErrorCode) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.result.complete(told)


def _abort(name: str, producer: Identity, shard: TransactionShard) -> Decision[Any]:
    return shard.abort_expired(name, producer)
