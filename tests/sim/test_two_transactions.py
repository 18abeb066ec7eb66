"""I38 to I43 at every moment of two transactions of one producer, one behind the other.

That the first is complete need not be in __transaction_state when the second begins. The node ends
at each moment in turn, and comes back: found prepared, the first has its markers sent once more, which
must end nothing of the second.

OTTLA_SOAK=1 ends it at each; else at some, which a seed that is printed says.
"""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from typing import Any, NamedTuple

import pytest

from ottla.coordinator.transaction.metadata import EXHAUSTED_EPOCH
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
)
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.builder import Producer
from ottla.testing.simnode import SimNode
from tests.asking import batch, committed_values, produce
from tests.sim.test_committed_offsets import ask, fetch
from tests.sim.test_copiers import AGAIN, error_of

SOAK = os.environ.get("OTTLA_SOAK") == "1"
MOMENTS_TRIED = 10
PARTITIONS = (0, 1)
TIMEOUT_MS = 60_000


class Case(NamedTuple):
    """What is run, and how its node ends."""

    bumps: bool
    """By the rules of transaction version 2, or the old ones."""
    ends: tuple[bool, bool]
    """Whether each of the two is committed."""
    policy: str
    how: str
    goes_on: bool
    """Whether the producer is still there afterwards; else another takes its place."""
    exhausted: bool = False
    """Whether the first is the last one of its producer id."""


Steps = Generator[tuple[Any, int], Any, None]


class Client:
    """The producer: what it sends, one request after the other, and what it was told."""

    def __init__(self, case: Case, name: bytes) -> None:
        self.case = case
        self.name = name
        self.told: list[str] = []
        """Of each transaction whose end was asked for: asked, or done."""

    def own(self) -> dict[str, Any]:
        return {"transactional_id": "x", "producer_id": self.id, "producer_epoch": self.epoch}

    def init(self) -> Steps:
        answer = yield (
            InitProducerIdRequest(transactional_id="x", transaction_timeout_ms=TIMEOUT_MS),
            4,
        )
        self.id, self.epoch = answer.producer_id, answer.producer_epoch
        self.sequence = 0

    def transaction(self, number: int, committed: bool) -> Steps:
        bumps = self.case.bumps
        if not bumps:
            yield self.add_partitions(), 3
            yield AddOffsetsToTxnRequest(group_id="g", **self.own()), 3
        for partition in PARTITIONS:
            yield self.batch(partition, b"%s%d" % (self.name, number)), 12 if bumps else 9
        self.sequence += 1
        yield self.offsets(number), 5 if bumps else 3
        self.told.append("asked")
        answer = yield EndTxnRequest(committed=committed, **self.own()), 5 if bumps else 3
        self.told[-1] = "done"
        if bumps:
            self.id, self.epoch = answer.producer_id, answer.producer_epoch
            self.sequence = 0

    def add_partitions(self) -> AddPartitionsToTxnRequest:
        return AddPartitionsToTxnRequest(
            v3_and_below_transactional_id="x",
            v3_and_below_producer_id=self.id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=[AddPartitionsToTxnTopic(name="out", partitions=list(PARTITIONS))],
        )

    def batch(self, partition: int, value: bytes) -> Any:
        producer = Producer(self.id, self.epoch, self.sequence)
        records = batch(value, producer=producer, attributes=TRANSACTIONAL_BIT)
        request = produce({("out", partition): records})
        request.transactional_id = "x"
        return request

    def offsets(self, offset: int) -> TxnOffsetCommitRequest:
        part = TxnOffsetCommitRequestPartition(
            partition_index=0, committed_offset=offset, committed_metadata=""
        )
        topics = [TxnOffsetCommitRequestTopic(name="t", partitions=[part])]
        return TxnOffsetCommitRequest(group_id="g", topics=topics, **self.own())


class _Ended(BaseException):
    """The node is no more: nobody catches this but who has ended it."""


class Run:
    """One case, whose node may end at any moment of its two transactions."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case = case
        self.left: int | None = None
        """The moment at which the node ends; None: it does not."""
        self.taken = 0
        self.node = SimNode(
            seed,
            flush_policy=case.policy,
            offsets_topic_num_partitions="1",
            transaction_state_log_num_partitions="1",
        )
        self.node.create_topic("out", len(PARTITIONS))
        self.node.create_topic("t", 1)
        self.client = Client(case, b"a")
        self.go(self.client.init())
        if case.exhausted:
            [shard] = self.node.context.transactions.runtime.loaded_shards()
            self.client.epoch = shard.transactions["x"].epoch = EXHAUSTED_EPOCH
        self.is_ended = False
        self.node.disk.due = self.due

    def both(self, left: int | None) -> None:
        self.taken, self.left = 0, left
        for number, committed in enumerate(self.case.ends, 1):
            if not self.is_ended or self.case.goes_on:
                self.go(self.client.transaction(number, committed))
        self.left = None

    def go(self, steps: Steps) -> None:
        """Ask one thing after the other, each until it is done; if the node ends and the
        producer does not go on, no more."""
        asked = next(steps)
        while True:
            answer = self.ask(*asked)
            if answer is None:
                return
            try:
                asked = steps.send(answer)
            except StopIteration:
                return

    def ask(self, request: Any, version: int) -> Any:
        """The answer; None if the node has ended, and its producer with it."""
        for _ in range(1_000):
            try:
                call = self.node.connect().ask(request, version)
                while not call.done:
                    self.step()
                error = error_of(call.answer)
                if error not in AGAIN:
                    assert not error, (error, request)
                    return call.answer
                for _ in range(5):
                    self.step()
            except _Ended:
                if self.case.how == "kill":
                    self.node.kill()
                else:
                    self.node.crash("prefix")
                if not self.case.goes_on:
                    return None
        raise AssertionError("it hangs")

    def step(self) -> None:
        """Let one thing happen, or a little time pass."""
        if not self.node.step():
            self.node.loop.advance(0.005)
        self.count()

    def due(self, action: str, path: str) -> Any:
        self.count()
        return self.node.disk.__class__.due(self.node.disk, action, path)

    def count(self) -> None:
        """Each step is a moment, and each call of the disk: several are made in one step."""
        self.taken += 1
        if self.taken == self.left:
            self.is_ended = True
            raise _Ended

    def check(self) -> None:
        """Another producer takes the place of this one; and then all is as it was decided."""
        after = Client(self.case, b"b")
        self.go(after.init())
        self.go(after.transaction(9, True))
        self.node.advance(1)
        contents = [committed_values(self.node, "out", number) for number in PARTITIONS]
        assert contents[0] == contents[1], "one and the same in both partitions"
        assert contents[0][-1] == b"b9"
        told = [*self.client.told, "not asked", "not asked"]
        for number, committed in enumerate(self.case.ends, 1):
            is_there = b"a%d" % number in contents[0]
            if told[number - 1] == "done":
                assert is_there == committed, number
            elif is_there:
                assert committed
                assert told[number - 1] == "asked", number
        for topic in ("out", "__consumer_offsets"):
            partition = self.node.partition(topic)
            assert partition.last_stable == partition.high_watermark, "something hangs"
        answer = ask(self.node, fetch("g", require_stable=True), 8)
        part = answer.groups[0].topics[0].partitions[0]
        assert (part.error_code, part.committed_offset) == (0, 9)


CASES = [
    Case(bumps, ends, policy, how, goes_on)
    for bumps in (False, True)
    for ends in ((True, True), (True, False), (False, True))
    for policy, how in (("os", "kill"), ("commit", "kill"), ("commit", "crash"))
    for goes_on in (False, True)
] + [Case(True, (True, True), "commit", how, False, True) for how in ("kill", "crash")]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_i43_what_was_complete_and_not_written_so_ends_nothing_of_the_next(case: Case) -> None:
    whole = Run(case, 0)
    whole.both(None)
    moments = list(range(1, whole.taken + 1))
    whole.check()
    if not SOAK:
        seed = random.randrange(1 << 30)
        print(f"seed {seed}")
        moments = random.Random(seed).sample(moments, MOMENTS_TRIED)
    for left in moments:
        run = Run(case, 0)
        try:
            run.both(left)
            run.check()
        except AssertionError as error:
            raise AssertionError(f"ended at moment {left}: {error}") from error


@pytest.mark.parametrize("policy", ["os", "commit"])
@pytest.mark.parametrize("bumps", [False, True])
def test_after_a_clean_stop_no_marker_is_sent_again(bumps: bool, policy: str) -> None:
    run = Run(Case(bumps, (True, False), policy, "stop", False), 0)
    run.both(None)
    run.node.settle()  # without a moment's rest: nothing of it is due yet
    ends = [run.node.partition("out", number).log.end for number in PARTITIONS]
    run.node.stop()
    run.node.advance(1)
    assert [run.node.partition("out", number).log.end for number in PARTITIONS] == ends
    run.check()
