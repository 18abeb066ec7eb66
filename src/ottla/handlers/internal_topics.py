"""Internal topics: the coordinators' journals over this node's partitions, and their runtimes.

Owns the adapter between `coordinator.journal` and `replication`, which don't know each other, the
making of such a topic, and what a topic's deletion means to groups. Must not decide anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ottla.cluster.changes import TopicDeleted
from ottla.cluster.topics import NewTopic
from ottla.coordinator.decision import Decision, Ending, Entry
from ottla.coordinator.entries import offsets_topic as offsets_entries
from ottla.coordinator.entries import transaction_log
from ottla.coordinator.group.classic_protocol import Node as GroupNode
from ottla.coordinator.group.shard import GroupShard
from ottla.coordinator.runtime import Runtime
from ottla.coordinator.transaction.coordinator import Parts, Transactions
from ottla.core import group_options
from ottla.core.pending import Pending
from ottla.core.ports import DiskError
from ottla.handlers.open_transactions import LocalTransactions
from ottla.protocol.errors import ErrorCode
from ottla.records.control import ControlType, EndMarker
from ottla.replication.partition import Appended
from ottla.storage.checked import Cold
from ottla.storage.producers import Verification

if TYPE_CHECKING:
    from ottla.cluster.changes import Change
    from ottla.cluster.image import TopicImage
    from ottla.cluster.topics import TopicResult
    from ottla.coordinator.transaction.ports import Markers
    from ottla.core.config import Config
    from ottla.core.model import Offset
    from ottla.core.ports import Disk
    from ottla.handlers.context import Context
    from ottla.records.batch import BatchView
    from ottla.replication.partition import Partition

_log = logging.getLogger("ottla.coordinator")

_NO_ERROR = ErrorCode.NONE  # a name of the module is found in a fraction of the time
OFFSETS_TOPIC = "__consumer_offsets"
TRANSACTIONS_TOPIC = "__transaction_state"


class PartitionJournal:
    """The port `Journal` over a partition that this node leads."""

    def __init__(self, of: Partition, disk: Disk) -> None:
        self._partition = of
        self._disk = disk
        # The partition's own, without a frame of ours around them: each entry asks for them.
        self.prepare = of.prepare
        self.put_own = of.put_own
        self.committed = of.committed
        self.is_committed = of.is_committed
        self.is_all_committed = of.is_all_committed

    @property
    def batch_bytes_max(self) -> int:
        return self._partition.rules.message_max_bytes

    @property
    def start(self) -> Offset:
        return self._partition.log.start

    @property
    def end(self) -> Offset:
        return self._partition.log.end

    def append(self, batch: BatchView, verification: object | None = None) -> Offset | ErrorCode:
        assert verification is None or isinstance(verification, Verification), "not a log's own"
        outcome = self._partition.append_as_leader(batch, verification)
        return outcome if type(outcome) is ErrorCode else outcome.end

    def end_transaction(self, ending: Ending) -> Pending[None] | Offset | ErrorCode:
        kind = ControlType.COMMIT if ending.committed else ControlType.ABORT
        outcome = self._partition.append_marker(
            ending.producer_id,
            ending.producer_epoch,
            EndMarker(kind, ending.coordinator_epoch),
            ending.version,
            ending.by_admin,
        )
        return outcome.end if isinstance(outcome, Appended) else outcome

    def state(self) -> ErrorCode:
        log = self._partition.log
        if not (log.failed or log.closed):  # not log.usable, without the call
            return _NO_ERROR
        gone = self._partition.deleted
        return ErrorCode.NOT_COORDINATOR if gone else ErrorCode.COORDINATOR_NOT_AVAILABLE

    def read(
        self, offset: Offset, bytes_max: int
    ) -> Pending[bytes | ErrorCode] | bytes | ErrorCode:
        piece = self._partition.read(offset, bytes_max)
        if piece is None:
            return b""
        if isinstance(piece, ErrorCode):
            _log.error("%s can't be loaded: %s", self._partition.key, piece.name)
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if isinstance(piece, Cold):
            return self._warmed(offset, bytes_max, piece)
        try:
            content = piece.file.read_nowait(piece.position, piece.length)
        except DiskError as error:
            piece.release()
            _log.error("%s can't be loaded: %s", self._partition.key, error)
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if content is None:
            return self._warmed(offset, bytes_max, Cold(piece))
        piece.release()
        return content

    def _warmed(self, offset: Offset, bytes_max: int, cold: Cold) -> Pending[bytes | ErrorCode]:
        """Read again, once the bytes are in memory."""
        result: Pending[bytes | ErrorCode] = Pending()
        warming = cold.bring(self._disk)

        def warm() -> None:
            cold.slice.release()
            try:
                warming.result()
            except DiskError as error:
                result.fail(error)
                return
            again = self.read(offset, bytes_max)
            if isinstance(again, Pending):
                again.then(lambda: _pass_on(again, result))
            else:
                result.complete(again)  # an error too: nothing would be taken for the log's end

        warming.then(warm)
        return result


def _pass_on(source: Pending[bytes | ErrorCode], target: Pending[bytes | ErrorCode]) -> None:
    try:
        target.complete(source.result())
    except DiskError as error:
        target.fail(error)


class InternalTopic:
    """The port `Journals` over one topic, made with `settings()` when it is first needed."""

    def __init__(
        self,
        name: str,
        context: Context,
        on_change: Callable[[Callable[[Change], None]], None],
        settings: Callable[[Config], NewTopic],
    ) -> None:
        self.name = name
        self._context = context
        self._settings = settings
        self._told: list[Callable[[], None]] = []
        self._count: int | None = None
        """Until something changes: each request asks for it."""
        on_change(self._changed)

    def count(self) -> int:
        if self._count is None:
            topic = self._context.image().topics.get(self.name)
            self._count = 0 if topic is None else len(topic.partitions)
        return self._count

    def open(self, partition: int) -> PartitionJournal | ErrorCode:
        found = self._context.table.get(self.name, partition)
        if isinstance(found, ErrorCode):
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        journal = PartitionJournal(found, self._context.disk)
        return journal.state() or journal

    def make(self) -> Pending[ErrorCode]:
        context = self._context
        wanted = self._settings(context.config)
        replicas = min(wanted.replication_factor, len(context.image().nodes))
        making = context.controller.create_topics([wanted.replace(replication_factor=replicas)])
        result: Pending[ErrorCode] = Pending()
        making.then(lambda: result.complete(_made(making.result()[0])))
        return result

    def on_gone(self, call: Callable[[], None]) -> None:
        self._told.append(call)

    def _changed(self, change: Change) -> None:
        self._count = None
        if isinstance(change, TopicDeleted) and change.topic.name == self.name:
            for call in self._told:
                call()


def _made(result: TopicResult) -> ErrorCode:
    if result.error in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS):
        return ErrorCode.NONE
    _log.error("%s could not be made: %s %s", result.name, result.error.name, result.message)
    return ErrorCode.COORDINATOR_NOT_AVAILABLE


class OffsetsCodec:
    """How entries of groups are written."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def encode(self, entry: Entry) -> tuple[bytes, bytes | None]:
        return offsets_entries.encode_entry(entry)

    def decode(self, key: bytes, value: bytes | None) -> Entry | None:
        return offsets_entries.decode_entry(key, value)

    def compression(self) -> int:
        return self._config[group_options.OFFSETS_CODEC]


def offsets_topic(config: Config) -> NewTopic:
    """__consumer_offsets as Kafka makes it: compacted, by the options offsets.topic.*."""
    return NewTopic(
        OFFSETS_TOPIC,
        partitions_count=config[group_options.OFFSETS_PARTITIONS],
        replication_factor=config[group_options.OFFSETS_REPLICATION],
        configs={
            "cleanup.policy": "compact",
            "compression.type": "producer",
            "segment.bytes": str(config[group_options.OFFSETS_SEGMENT_BYTES]),
        },
    )


def group_runtime(
    context: Context, on_change: Callable[[Callable[[Change], None]], None]
) -> Runtime[GroupShard]:
    """The coordinators of groups, for `Context.groups`. `on_change` is the view's: it must have
    told the table already when it tells this."""
    node = GroupNode(
        context.controller.unique_text,
        lambda: sum(len(shard.groups) for shard in context.groups.shards()),
        lambda: sum(len(shard.offsets.groups) for shard in context.groups.shards()),
        lambda: sum(shard.offsets.bytes_count for shard in context.groups.shards()),
    )
    runtime = Runtime(
        InternalTopic(OFFSETS_TOPIC, context, on_change, offsets_topic),
        lambda number: GroupShard(number, context.config, context.image, context.clock, node),
        OffsetsCodec(context.config),
        context.clock,
        context.timers,
    )

    def changed(change: Change) -> None:
        if isinstance(change, TopicDeleted) and change.topic.name != OFFSETS_TOPIC:
            runtime.submit_everywhere(partial(_forget, change.topic))

    on_change(changed)
    return runtime


def _forget(topic: TopicImage, shard: GroupShard) -> Decision[None]:
    return shard.retention.forget_topic(topic)


class TransactionsCodec:
    """How entries of transactions are written: never compressed, as in Kafka."""

    encode = staticmethod(transaction_log.encode_entry)
    decode = staticmethod(transaction_log.decode_entry)

    def compression(self) -> int:
        return 0


def transactions_topic(config: Config) -> NewTopic:
    """__transaction_state as Kafka makes it: compacted, by the options transaction.state.log.*."""
    replicas = config[group_options.TRANSACTIONS_REPLICATION]
    return NewTopic(
        TRANSACTIONS_TOPIC,
        partitions_count=config[group_options.TRANSACTIONS_PARTITIONS],
        replication_factor=replicas,
        configs={
            "cleanup.policy": "compact",
            "compression.type": "uncompressed",
            "min.insync.replicas": str(config[group_options.TRANSACTIONS_MIN_ISR]),
            "segment.bytes": str(config[group_options.TRANSACTIONS_SEGMENT_BYTES]),
            "unclean.leader.election.enable": "false",
        },
    )


MADE = (offsets_topic, transactions_topic)
"""What every internal topic is made as, by the broker's options."""


def transactions(
    context: Context, on_change: Callable[[Callable[[Change], None]], None], markers: Markers
) -> Transactions:
    """The coordinator of transactions, for `Context.transactions`."""

    def coordinator_epoch(number: int) -> int | None:
        found = context.table.get(TRANSACTIONS_TOPIC, number)
        return None if isinstance(found, ErrorCode) else found.leader_epoch

    return Transactions(
        Parts(
            journals=InternalTopic(TRANSACTIONS_TOPIC, context, on_change, transactions_topic),
            codec=TransactionsCodec(),
            markers=markers,
            open_transactions=LocalTransactions(context.table),
            next_producer_id=context.next_producer_id,
            coordinator_epoch=coordinator_epoch,
            config=context.config,
            clock=context.clock,
            timers=context.timers,
        )
    )
