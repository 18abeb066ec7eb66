"""Transactions: what one costs a broker, beside a plain produce of the same records.

Owns the producers and what is compared. A transaction is measured as clients have it: begun by its
first produce and ended by EndTxn (KIP-890), and in the old way, with AddPartitionsToTxn before.
Must not judge but by medians of rounds that alternate. Linux alone: epoll.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ottla.bench import asking, contenders, pump, usage
from ottla.bench.contenders import Contender, Peer
from ottla.bench.group_crowd import Crowd, Program, Question
from ottla.bench.group_figures import OURS, Figure, spreads
from ottla.bench.stats import ratios
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages import add_partitions_to_txn as ap
from ottla.protocol.messages import end_txn as et
from ottla.protocol.messages import find_coordinator as fc
from ottla.protocol.messages import init_producer_id as ip
from ottla.protocol.messages import produce as pr
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.builder import NO_PRODUCER, Producer, build_batch
from ottla.records.reader import Record

Say = Callable[[str], None]

BUDGET_RATIO = 8.0
"""Of a transaction of one record on one partition, over a plain acks=all produce of it."""
EXPLANATION = """\
CPU of the broker (user and system, all threads, by the kernel's count) for one transaction, and for
one plain produce with acks=all of the same records, by 16 producers at a time that wait for every
answer, and look for it without sleeping: to wake them up would cost the broker up to 6 µs of each
answer, and only where it is slower than they are. ratio: the one over the other in the same round.
least-most: the best and the worst round.
new: the first produce adds its partitions, EndTxn 5 ends it and raises the epoch (KIP-890).
old: AddPartitionsToTxn 3, Produce 9, EndTxn 3, as clients before Kafka 4 do it; a transaction that
  comes while the markers of the one before are written is tried again after 20 ms, as Java does.
ottla runs with flush.policy=os, which is what Kafka does; "ottla, synced" is a second one with
  flush.policy=commit, its default: each append is on disk before what follows from it."""

SYNCED = "ottla, synced"

_PRODUCERS = 16
_VALUE_BYTES = 100
_AGAIN_S = 0.02  # Java's wait where the transaction before is still being ended
_WARM_UP_S, _WARM_UP_PEER_S = 0.7, 8.0
_SECONDS_MAX = 120.0
_INIT, _FIND, _ADD, _END_OLD, _END_NEW = 4, 2, 3, 3, 5
_PRODUCE_OLD, _PRODUCE_NEW = 9, 12
_TRANSACTION = 1
_WAIT = frozenset(
    {
        ErrorCode.CONCURRENT_TRANSACTIONS,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)


@dataclass(frozen=True, slots=True)
class Size:
    """What one transaction writes."""

    name: str
    records: int
    partitions: int
    budget: float | None


SIZES = (
    Size("1 record, 1 partition", 1, 1, BUDGET_RATIO),
    Size("100 records, 10 partitions", 100, 10, None),
)
PLAIN, NEW, OLD = "plain", "new", "old"


@dataclass(slots=True)
class Batches:
    """What a producer sends to its partitions: the same records over and over."""

    topic: str
    size: Size
    who: int
    now_ms: int = field(default_factory=lambda: int(time.time() * 1000))

    def request(self, transactional_id: str | None, producer: Producer) -> pr.ProduceRequest:
        attributes = 0 if transactional_id is None else TRANSACTIONAL_BIT
        each = self.size.records // self.size.partitions
        value = bytes(i * 7 % 251 for i in range(_VALUE_BYTES))
        records = build_batch(
            (Record(None, value, self.now_ms) for _ in range(each)),
            producer=producer,
            attributes=attributes,
        )
        parts = [
            pr.PartitionProduceData(index=index, records=memoryview(records))
            for index in self.partitions()
        ]
        return pr.ProduceRequest(
            transactional_id=transactional_id,
            acks=-1,
            timeout_ms=30_000,
            topic_data=[pr.TopicProduceData(name=self.topic, partition_data=parts)],
        )

    def partitions(self) -> list[int]:
        """Of its own, so that producers don't wait for each other's logs."""
        first = self.who * self.size.partitions
        return list(range(first, first + self.size.partitions))


class Done:
    """How many were done, and until when another is begun."""

    def __init__(self) -> None:
        self.count = 0
        self.until = 0.0
        self.waits = 0
        """How often a transaction was tried again because the one before was being ended."""
        self.resting = 0

    def goes_on(self) -> bool:
        return time.perf_counter() < self.until


def _checked(question: Question, answer: Any, code: int) -> None:
    if code:
        name = type(question[0]).__name__
        raise pump.LoadFailed(f"{name} was answered {ErrorCode(code).name}: {answer!r}"[:300])


def _plain(batches: Batches, done: Done) -> Program:
    request = batches.request(None, NO_PRODUCER)
    question: Question = (request, _PRODUCE_OLD, pr.ProduceResponse)
    while done.goes_on():
        answer = yield question
        for part in answer.responses[0].partition_responses:
            _checked(question, answer, part.error_code)
        done.count += 1
    yield from _rest(done)


def _rest(done: Done) -> Program:
    """Its time is over; others may still have answers to come."""
    done.resting += 1
    while True:
        yield 0.05


def _transactions(name: str, batches: Batches, done: Done, new: bool) -> Program:
    begin = ip.InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=60_000)
    question: Question = (begin, _INIT, ip.InitProducerIdResponse)
    while (answer := (yield question)).error_code in _WAIT:
        yield _AGAIN_S
    _checked(question, answer, answer.error_code)
    producer_id, epoch = answer.producer_id, answer.producer_epoch
    sequence = 0
    while done.goes_on():
        if not new:
            yield from _add(name, batches, Producer(producer_id, epoch), done)
        producer = Producer(producer_id, epoch, sequence)
        version = _PRODUCE_NEW if new else _PRODUCE_OLD
        yield from _produce((batches.request(name, producer), version, pr.ProduceResponse), done)
        sequence += batches.size.records // batches.size.partitions
        end = et.EndTxnRequest(
            transactional_id=name, producer_id=producer_id, producer_epoch=epoch, committed=True
        )
        question = (end, _END_NEW if new else _END_OLD, et.EndTxnResponse)
        answer = yield question
        _checked(question, answer, answer.error_code)
        if new:
            if (answer.producer_id, answer.producer_epoch) != (producer_id, epoch):
                sequence = 0
            producer_id, epoch = answer.producer_id, answer.producer_epoch
        done.count += 1
    yield from _rest(done)


def _add(name: str, batches: Batches, producer: Producer, done: Done) -> Program:
    topics = [ap.AddPartitionsToTxnTopic(name=batches.topic, partitions=batches.partitions())]
    request = ap.AddPartitionsToTxnRequest(
        v3_and_below_transactional_id=name,
        v3_and_below_producer_id=producer.id,
        v3_and_below_producer_epoch=producer.epoch,
        v3_and_below_topics=topics,
    )
    question: Question = (request, _ADD, ap.AddPartitionsToTxnResponse)
    while True:
        answer = yield question
        codes = {
            part.partition_error_code
            for topic in answer.results_by_topic_v3_and_below
            for part in topic.results_by_partition
        }
        if not codes & _WAIT:
            break
        done.waits += 1
        yield _AGAIN_S
    _checked(question, answer, max(codes))


def _produce(question: Question, done: Done) -> Program:
    while True:
        answer = yield question
        codes = {part.error_code for part in answer.responses[0].partition_responses}
        # Kafka tells who produces that the transaction before is still being ended in this way.
        if not codes & (_WAIT | {ErrorCode.NOT_ENOUGH_REPLICAS}):
            break
        done.waits += 1
        yield _AGAIN_S
    _checked(question, answer, max(codes))


# --- measuring -----------------------------------------------------------------------------


def measure(rounds: int, seconds: float, peers: Sequence[Peer], say: Say) -> Iterator[list[Figure]]:
    """The figures of one size after the other. Raises LoadFailed, Unmeasurable."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ottla-transactions-"))
        brokers = []
        for name, policy in ((OURS, "os"), (SYNCED, "commit")):
            own = contenders.own_broker(f"{folder}/{policy}", (f"flush.policy={policy}",))
            running = stack.enter_context(own)
            brokers.append(Contender(name, running.address, running.pid))
        brokers += [one for peer in peers if (one := peer.contender()).pid is not None]
        for size in SIZES:
            yield _measure_size(size, brokers, (rounds, seconds), say)


def _measure_size(
    size: Size, brokers: Sequence[Contender], how: tuple[int, float], say: Say
) -> list[Figure]:
    rounds, seconds = how
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in (PLAIN, NEW, OLD)}
    with contextlib.ExitStack() as stack:
        topics = {}
        for broker in brokers:
            count = _PRODUCERS * size.partitions
            topic = topics[broker.name] = stack.enter_context(
                asking.new_topic(broker.address, count)
            )
            asking.until_ready(broker.address, topic, count)
            find = fc.FindCoordinatorRequest(key=topic, key_type=_TRANSACTION)
            while asking.ask(broker.address, find, _FIND, fc.FindCoordinatorResponse).error_code:
                time.sleep(_AGAIN_S)
            warm_up_s = _WARM_UP_S if broker.name in (OURS, SYNCED) else _WARM_UP_PEER_S
            for kind in found:
                say(f"transactions: {broker.name} warms up, {size.name}, {kind}")
                _cpu_us(broker, kind, topic, size, warm_up_s)
        for turn in range(rounds):
            for broker in brokers:
                for kind, values in found.items():
                    say(f"transactions: {size.name}, {kind}, {broker.name}, round {turn + 1}")
                    cost = _cpu_us(broker, kind, topics[broker.name], size, seconds)
                    values.setdefault(broker.name, []).append(cost)
    figures = [Figure(f"plain produce, {size.name}", "µs", spreads(found[PLAIN]))]
    for kind in (NEW, OLD):
        figures.append(Figure(f"{kind} transaction, {size.name}", "µs", spreads(found[kind])))
        times = {who: ratios(values, found[PLAIN][who]) for who, values in found[kind].items()}
        name = f"{kind} transaction, {size.name}: ratio"
        figures.append(Figure(name, "×", spreads(times), size.budget))
    return figures


def _cpu_us(broker: Contender, kind: str, topic: str, size: Size, seconds: float) -> float:
    """CPU of the broker for one, in µs. Raises LoadFailed."""
    assert broker.pid is not None
    done = Done()
    crowd = Crowd(broker.address, _PRODUCERS, sleeps=False)
    try:
        programs = [_program(kind, topic, size, who, done) for who in range(_PRODUCERS)]
        usage.touch_memory()
        before = usage.cpu(broker.pid)
        done.until = time.perf_counter() + seconds
        crowd.run(programs, lambda: done.resting == _PRODUCERS, seconds + _SECONDS_MAX)
        spent = usage.cpu(broker.pid) - before
    finally:
        crowd.close()
    if not done.count:
        raise pump.LoadFailed("nothing was done in time")
    return spent.total / done.count * 1e6


def _program(kind: str, topic: str, size: Size, who: int, done: Done) -> Program:
    batches = Batches(topic, size, who)
    if kind == PLAIN:
        return _plain(batches, done)
    return _transactions(f"{topic}-{kind}-{who}", batches, done, kind == NEW)
