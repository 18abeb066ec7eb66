"""A Produce request as a whole, whatever is in it and whatever it has to wait for.

Owns its way from judging to the answer. Every partition is judged first, then all are prepared,
then all are appended: where something must be waited for before the effect, the whole request
waits, once. The first batch of a transaction in a partition waits for the transaction's coordinator
before it is prepared. Must not encode anything; most requests never come here (`produce.quick`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla.coordinator.transaction.ports import said_of
from ottla.core.pending import Pending, when_all
from ottla.core.ports import DiskError, OffloadError
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.produce import (
    BatchIndexAndErrorMessage,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.opening import Opened, Opening, open_batch
from ottla.records.validate import Rejected, check_header

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ottla.coordinator.transaction.ports import Admitted
    from ottla.core.model import Offset
    from ottla.core.pending import Soon
    from ottla.handlers.context import Context, Request
    from ottla.records.batch import BatchView
    from ottla.replication.partition import Partition
    from ottla.storage.producers import Verification

ACKS_NONE, ACKS_LEADER, ACKS_ALL = 0, 1, -1
ABORTABLE_SINCE, ADDS_SINCE = 11, 12
TOPIC_IDS_SINCE = 13
_PREPARE_S_MIN = 10.0
"""The least that is waited for a disk or worker, whatever timeout a client has in mind."""

# What Kafka refuses in its log, and then tells where that starts, but for `Rejected.before_log`.
_TELL_START = frozenset(
    {
        ErrorCode.INVALID_RECORD,
        ErrorCode.INVALID_TIMESTAMP,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.INVALID_TXN_STATE,
        ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
    }
)


def start_told(error: ErrorCode, batch: BatchView | None, start: Offset) -> int:
    """The start of the log that goes with a refusal; -1 where Kafka tells of none."""
    if error not in _TELL_START:
        return -1
    if error is ErrorCode.INVALID_PRODUCER_EPOCH and batch is not None:
        # Of a transaction's batches it judges the epoch before its log is asked.
        return -1 if batch.attributes & TRANSACTIONAL_BIT else start
    return start


# What a coordinator says that will pass: a producer that is told so would give the batch up, or
# look for another leader. By this one it only comes again.
_WILL_PASS = frozenset(
    {
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)


def _refusal(error: ErrorCode, version: int) -> Rejected:
    """What a coordinator's error is to a producer of this version (KIP-890)."""
    text = f"the partition could not be verified to be in the transaction: {error.name}"
    if error is ErrorCode.PRODUCER_FENCED:
        return Rejected(ErrorCode.INVALID_PRODUCER_EPOCH, before_log=True)
    if error in _WILL_PASS or (error is ErrorCode.CONCURRENT_TRANSACTIONS and version < ADDS_SINCE):
        return Rejected(ErrorCode.NOT_ENOUGH_REPLICAS, text, before_log=True)
    if error is ErrorCode.TRANSACTION_ABORTABLE and version < ABORTABLE_SINCE:
        error = ErrorCode.INVALID_TXN_STATE
    if error is ErrorCode.INVALID_TXN_STATE:
        text = "the partition is not in the transaction"
        return Rejected(error, text, before_log=True)
    return Rejected(error, before_log=True)


class Item:
    """One partition of the request on its way: judged, prepared, appended, answered."""

    __slots__ = ("batch", "end", "partition", "pending", "response", "verification")

    def __init__(self, response: PartitionProduceResponse) -> None:
        self.response = response
        self.partition: Partition | None = None
        self.batch: BatchView | None = None
        """None once there is nothing left to append."""
        self.pending: Pending[Rejected | Opened] | Pending[None] | None = None
        """First the batch being opened by the worker, if it is, then its log being prepared."""
        self.end: Offset | None = None
        """What the high watermark must reach for acks=-1."""
        self.verification: Verification | None = None
        """What the log must be shown of a transaction that is not open there yet."""

    def verify(self, adds: bool) -> bool:
        """Begin to verify its batch, which is a transaction's; whether the coordinator is asked."""
        batch, partition = self.batch, self.partition
        assert batch is not None, "only what may still be appended"
        assert partition is not None, "a batch is kept only beside its partition"
        who = batch.producer_id, batch.producer_epoch
        self.verification = partition.verify(*who, batch.base_sequence, bumps=adds)
        return self.verification is not None

    @property
    def is_overtaken(self) -> bool:
        """Whether a marker has come since its verification was begun."""
        batch, partition, verification = self.batch, self.partition, self.verification
        if batch is None or partition is None or verification is None:
            return False
        return not partition.is_verifying(batch.producer_id, verification)

    def refuted(self, error: ErrorCode) -> None:
        """The coordinator refuses it."""
        batch, partition, verification = self.batch, self.partition, self.verification
        if batch is not None and partition is not None and verification is not None:
            partition.refuted(batch.producer_id, verification, error)

    def refuse(self, error: ErrorCode, rejected: Rejected | None = None) -> None:
        response = self.response
        response.error_code = error
        if self.partition is not None:
            response.log_start_offset = start_told(error, self.batch, self.partition.log.start)
        self.batch = None
        if rejected is not None:
            if rejected.before_log:
                response.log_start_offset = -1
            response.error_message = rejected.message
            response.record_errors = [
                BatchIndexAndErrorMessage(batch_index=index, batch_index_error_message=text)
                for index, text in rejected.record_errors
            ]


class Produce:
    """One Produce request from arrival to answer. Holds views of the buffer until appended."""

    __slots__ = ("acks", "answer", "context", "items", "request", "transactional", "waited")

    def __init__(self, context: Context, request: Request[ProduceRequest]) -> None:
        self.context = context
        self.request = request
        self.acks = request.body.acks
        self.items: list[Item] = []
        self.answer = ProduceResponse(responses=[])
        self.waited: Pending[None] | None = None
        """What it waits for before its effect."""
        self.transactional = False
        """Whether any batch of it belongs to a transaction."""

    # --- before the effect -----------------------------------------------------------------

    def judge(self, sound: Sequence[BatchView]) -> None:
        """Decide for each partition whether its batch may be appended. No effect yet.

        `sound` are those of the first partitions, where somebody has just looked at them.
        """
        request = self.request
        version = request.api_version
        now_ms = self.context.clock.wall_ms()
        for topic in request.body.topic_data:
            if not topic.partition_data:
                continue  # Kafka's answer leaves it out, too
            responses: list[PartitionProduceResponse] = []
            self.answer.responses.append(
                TopicProduceResponse(
                    name=topic.name, topic_id=topic.topic_id, partition_responses=responses
                )
            )
            for part in topic.partition_data:
                response = PartitionProduceResponse(index=part.index, base_offset=-1)
                responses.append(response)
                item = Item(response)
                self.items.append(item)
                partition = self._find(topic.name, topic.topic_id, part.index)
                # `type … is`: isinstance asks an enum's metaclass, which takes five times as long.
                if type(partition) is ErrorCode:
                    item.refuse(partition)
                    continue
                item.partition = partition
                batch: BatchView | Rejected
                if len(self.items) <= len(sound):
                    batch = sound[len(self.items) - 1]
                else:
                    batch = check_header(part.records, partition.rules, now_ms, version)
                if type(batch) is Rejected:
                    item.refuse(batch.error, batch)
                    continue
                item.batch = batch
                if batch.attributes & TRANSACTIONAL_BIT:
                    self.transactional = True
                if partition.opening is not None:
                    self._open(item, partition.opening, batch, now_ms)
        if len(self.items) > 1:
            self._refuse_repeated()
            if too_many(self.context, self.request, len(self.items)):
                self._refuse_all(ErrorCode.INVALID_REQUEST)
        if self.context.table.little_room:
            for item in self.items:
                if item.batch is not None:
                    item.refuse(ErrorCode.KAFKA_STORAGE_ERROR)
        if self.transactional and request.body.transactional_id is None:
            self._refuse_all(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)

    def _find(self, name: str, topic_id: bytes, index: int) -> Partition | ErrorCode:
        table = self.context.table
        if self.request.api_version >= TOPIC_IDS_SINCE:
            partition = table.get_by_id(topic_id, index)
        else:
            partition = table.get(name, index)
        if type(partition) is not ErrorCode:
            if not ACKS_ALL <= self.acks <= ACKS_LEADER:
                return ErrorCode.INVALID_REQUIRED_ACKS
            if partition.internal:
                return ErrorCode.INVALID_TOPIC_EXCEPTION
        return partition

    def _refuse_all(self, error: ErrorCode, message: str | None = None) -> None:
        for item in self.items:
            item.response.log_start_offset = -1
            item.refuse(error)
            item.response.error_message = message

    def _refuse_repeated(self) -> None:
        """Refuse partitions that are named twice: Kafka acknowledges both and keeps one."""
        seen: dict[int, Item] = {}
        for item in self.items:
            first = seen.setdefault(id(item.partition), item)
            if item.partition is not None and first is not item:
                first.refuse(ErrorCode.INVALID_REQUEST)
                item.refuse(ErrorCode.INVALID_REQUEST)

    def _open(self, item: Item, opening: Opening, batch: BatchView, now_ms: int) -> None:
        """Walk the records, and pack them anew, where the topic asks: elsewhere if large."""
        self.context.metrics.open(
            "record.validation" if opening.codec is None else "compression.type"
        )
        if opening.is_small(batch):
            self._opened(item, opening.open(batch.view, now_ms))
        else:
            item.pending = self.context.offload.run(open_batch, bytes(batch.view), opening, now_ms)

    @staticmethod
    def _opened(item: Item, outcome: Rejected | Opened) -> None:
        if isinstance(outcome, Rejected):
            item.refuse(outcome.error, outcome)
        else:
            assert item.batch is not None, "only a batch that was accepted so far is opened"
            item.batch = outcome.apply(item.batch)

    # --- transactions, before the effect ---------------------------------------------------

    def admit(self) -> Reply | Parked:
        """Ask the transaction's coordinator about what its partitions don't know of yet."""
        asked: list[Item] = []
        producers: set[tuple[int, int]] = set()
        for item in self.items:
            batch, partition = item.batch, item.partition
            if batch is None or partition is None or not batch.attributes & TRANSACTIONAL_BIT:
                continue
            producers.add((batch.producer_id, batch.producer_epoch))
            asked.append(item)
        if len(producers) > 1:
            self._refuse_all(ErrorCode.INVALID_PRODUCER_ID_MAPPING, "more than one producer")
            return self.proceed()
        return self._ask(asked) if asked else self.proceed()

    def _ask(self, items: list[Item], *, is_again: bool = False) -> Reply | Parked:
        """As `admit`, of batches of one producer."""
        adds = self.request.api_version >= ADDS_SINCE
        asked = [item for item in items if item.verify(adds)]
        if not asked:
            return self.proceed()
        batch = asked[0].batch
        assert batch is not None, "what is verified may still be appended"
        admitted = self.context.transactions.admit(
            self.request.body.transactional_id or "",
            batch.producer_id,
            batch.producer_epoch,
            [item.partition.key for item in asked if item.partition is not None],
            add=adds,
        )
        return self.admitting(asked, admitted, is_again=is_again)

    def admitting(
        self, asked: list[Item], admitted: Soon[Admitted], *, is_again: bool = False
    ) -> Reply | Parked:
        """Go on when the coordinator has answered."""
        if not isinstance(admitted, Pending):
            return self._admitted(asked, admitted, is_again)
        if admitted.done:
            return self._admitted(asked, admitted.result(), is_again)
        deadline_s = max(self.request.body.timeout_ms / 1000, _PREPARE_S_MIN)

        def resume() -> Reply | Parked:
            # Too late is what Kafka makes of a connection that breaks.
            late = ErrorCode.NETWORK_EXCEPTION
            return self._admitted(asked, admitted.result() if admitted.done else late, is_again)

        return Parked(admitted, resume, deadline_s, before_effect=True)

    def _admitted(self, asked: list[Item], admitted: Admitted, is_again: bool) -> Reply | Parked:
        """Refuse what the coordinator has refused, in codes that the client's version knows."""
        for item in asked:
            assert item.partition is not None, "only what has a partition was asked about"
            error = said_of(item.partition.key, admitted)
            if error:
                item.refuted(error)
                refused = _refusal(error, self.request.api_version)
                item.refuse(refused.error, refused)
        # Who has waited for the transaction before was overtaken by its marker, and what was begun
        # before that is worth nothing to the log (I41). Once: another marker is this one's end. Not
        # of older versions, where a batch of the transaction before has the same epoch.
        if not is_again and self.request.api_version >= ADDS_SINCE:
            overtaken = [item for item in asked if item.is_overtaken]
            if overtaken:
                return self._ask(overtaken, is_again=True)
        return self.proceed()

    # --- before the effect, for all --------------------------------------------------------

    def proceed(self) -> Reply | Parked:
        """Append all, or park once for all that must be waited for first, and come back here."""
        in_time = self.waited is None or self.waited.done
        waiting: list[Pending[Any]] = []
        for item in self.items:
            if item.pending is not None and item.batch is not None:
                self._settle(item, waiting, in_time)
            batch, partition = item.batch, item.partition
            if batch is not None and partition is not None and item.pending is None:
                pending = item.pending = partition.prepare(batch)
                if pending is not None:
                    waiting.append(pending)
        if waiting:
            # With a deadline: a connection that waits for a disk that hangs would not even
            # notice that its client has gone.
            deadline_s = max(self.request.body.timeout_ms / 1000, _PREPARE_S_MIN)
            self.waited = when_all(waiting)
            return Parked(self.waited, self.proceed, deadline_s, before_effect=True)
        for item in self.items:
            if item.batch is not None:
                self._append(item, item.batch)
        return self._acknowledge()

    def _settle(self, item: Item, waiting: list[Pending[Any]], in_time: bool) -> None:
        """Take in what has been waited for, or note that it must still be."""
        pending, partition = item.pending, item.partition
        assert pending is not None, "called for what is waited for"
        assert partition is not None, "a batch is kept only beside its partition"
        if not pending.done:
            if in_time:
                waiting.append(pending)
            else:
                item.refuse(ErrorCode.REQUEST_TIMED_OUT)
            return
        item.pending = None
        try:
            outcome = pending.result()
        except OffloadError:
            # Of the errors by which a client comes again, the one that all clients know.
            item.refuse(ErrorCode.REQUEST_TIMED_OUT)
        except DiskError as error:
            partition.on_disk_error(error)
            item.refuse(ErrorCode.KAFKA_STORAGE_ERROR)
        else:
            if outcome is not None:
                self._opened(item, outcome)

    # --- the effect, and after -------------------------------------------------------------

    def _append(self, item: Item, batch: BatchView) -> None:
        partition = item.partition
        assert partition is not None, "a batch is kept only beside its partition"
        outcome = partition.append_as_leader(batch, item.verification)
        if type(outcome) is ErrorCode:
            item.refuse(outcome)
            return
        item.batch = None  # the view ends with the receive buffer's loan
        item.end = outcome.end
        response = item.response
        response.base_offset = outcome.base_offset
        response.log_append_time_ms = outcome.log_append_time_ms
        response.log_start_offset = partition.log.start

    def _acknowledge(self) -> Reply | Parked:
        if self.acks == ACKS_ALL:
            waiting = []
            for item in self.items:
                if item.end is not None and item.partition is not None:
                    pending = item.partition.committed(item.end)
                    if pending is not None:
                        waiting.append(pending)
            if waiting:
                return when_committed(waiting, self.request.body, self._committed)
        elif self.acks == ACKS_NONE:
            # The client waits for no answer: a closed connection is all that it can notice.
            failed = any(item.response.error_code for item in self.items)
            return Reply(None, close=failed)
        return Reply(self.answer)

    def _committed(self) -> Reply:
        """Answer for what the high watermark has passed by now, and say what it has not."""
        for item in self.items:
            partition = item.partition
            if item.end is None or partition is None or partition.is_committed(item.end):
                continue
            response = item.response
            response.base_offset = response.log_append_time_ms = response.log_start_offset = -1
            response.error_code = why_not_committed(partition)
        return Reply(self.answer)


def when_committed(
    waiting: Sequence[Pending[None]], body: ProduceRequest, resume: Callable[[], Reply]
) -> Parked:
    """Park until all of it is committed, as long as the client has patience."""
    together = waiting[0] if len(waiting) == 1 else when_all(waiting)
    deadline_s = max(body.timeout_ms, 0) / 1000
    return Parked(together, resume, deadline_s, abandon=together.abandon)


def why_not_committed(partition: Partition) -> ErrorCode:
    """What is said of a batch that was appended, and waited for long enough."""
    if partition.deleted:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if partition.log.failed:
        return ErrorCode.KAFKA_STORAGE_ERROR
    return ErrorCode.REQUEST_TIMED_OUT


def go_on_after(
    sound: Sequence[BatchView], context: Context, request: Request[ProduceRequest]
) -> Reply | Parked:
    """The whole way, but that the first batches, these, have been looked at: the checksum of a
    large one takes most of the time that it takes."""
    produce = Produce(context, request)
    produce.judge(sound)
    return produce.admit() if produce.transactional else produce.proceed()


def go_on_with(
    sound: Sequence[BatchView],
    verifications: Sequence[Verification | None],
    admitted: Soon[Admitted],
    context: Context,
    request: Request[ProduceRequest],
) -> Reply | Parked:
    """From where the coordinator has been asked, of those partitions that have a verification.
    `sound` are all batches."""
    produce = Produce(context, request)
    produce.judge(sound)
    for item, verification in zip(produce.items, verifications, strict=True):
        item.verification = verification
    asked = [item for item in produce.items if item.verification is not None]
    return produce.admitting(asked, admitted)
