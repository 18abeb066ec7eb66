"""A node whose disk refuses: what is answered, what goes on, and what the operator is told."""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from errno import EACCES, EEXIST, EIO, ENOENT, ENOSPC

import pytest

from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.create_topics import CreatableTopic, CreateTopicsRequest
from ottla.protocol.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest
from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from ottla.testing.simfile import Fault
from ottla.testing.simnode import Call, SimConnection, SimNode
from tests.asking import (
    NOW_MS,
    Want,
    batch,
    batches,
    fetch,
    fetched,
    get,
    produce,
    produced,
    put,
    stored,
)
from tests.sim.histories import named_by, seed_ranges

MISUSED = 4000 if os.environ.get("OTTLA_SOAK") == "1" else 120
STORAGE_ERROR = ErrorCode.KAFKA_STORAGE_ERROR


@pytest.fixture
def node() -> SimNode:
    node = SimNode()
    node.create_topic("t", 2)
    put(node, batch(b"makes the files"))
    put(node, batch(b"here too"), partition=1)
    return node


def said(caplog: pytest.LogCaptureFixture, part: str) -> int:
    return sum(part in record.getMessage() for record in caplog.records)


def test_after_a_sync_error_those_who_wait_are_told_and_nothing_is_acknowledged_any_more(
    node: SimNode, caplog: pytest.LogCaptureFixture
) -> None:
    node.disk.faults = [Fault("sync", EIO, path="t-0")]
    calls = [
        node.connect().ask(produce({("t", number): batch(b"lost")}), 9) for number in (0, 1, 0)
    ]
    node.settle()
    assert [produced(call).error_code for call in calls] == [STORAGE_ERROR] * 3
    for acks in (-1, 1):
        assert put(node, batch(b"later"), acks).error_code == STORAGE_ERROR
        assert put(node, batch(b"later"), acks, partition=1).error_code == STORAGE_ERROR
    node.advance(60.0)
    assert said(caplog, "offline") == 1
    assert caplog.records[-1].levelno == logging.CRITICAL


def test_after_a_sync_error_what_was_synced_can_be_read_and_nothing_else(node: SimNode) -> None:
    node.disk.faults = [Fault("sync", EIO)]
    put(node, batch(b"lost"))
    part = get(node)
    assert (part.error_code, part.high_watermark) == (0, 1)
    assert [one.base_offset for one in batches(part)] == [0]
    assert get(node, Want(1)).error_code == ErrorCode.NONE, "it is written, if not committed"


def test_a_topic_made_after_a_sync_error_takes_nothing_either(node: SimNode) -> None:
    node.disk.faults = [Fault("sync", EIO)]
    put(node, batch(b"lost"))
    node.create_topic("new")
    for acks in (-1, 1):
        assert put(node, batch(b"x"), acks, topic="new").error_code == STORAGE_ERROR


def test_a_fetch_that_waits_goes_on_waiting_after_a_sync_error_and_ends_at_its_time(
    node: SimNode,
) -> None:
    call = node.connect().ask(fetch(Want(1), max_wait_ms=500), 12)
    node.disk.faults = [Fault("sync", EIO)]
    put(node, batch(b"lost"))
    node.advance(0.6)
    (part,) = fetched(call)
    assert (part.error_code, part.high_watermark, bytes(part.records)) == (0, 1, b"")


def test_a_write_that_fails_takes_the_directory_offline(
    node: SimNode, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = node.connect().ask(produce({("t", 1): batch(b"written, not synced")}), 9)
    node.disk.faults = [Fault("write", EIO, path="t-0")]
    refused = node.connect().ask(produce({("t", 0): batch(b"x")}), 9)
    node.settle()
    assert produced(refused).error_code == STORAGE_ERROR
    assert produced(waiting).error_code == STORAGE_ERROR
    assert put(node, batch(b"x"), 1).error_code == STORAGE_ERROR
    assert said(caplog, "offline") == 1


@pytest.mark.parametrize("short", [0, 30, 80])
def test_a_full_disk_refuses_the_batch_and_takes_later_ones(
    node: SimNode, caplog: pytest.LogCaptureFixture, short: int
) -> None:
    node.disk.faults = [Fault("write", ENOSPC, path=".log", short=short, times=2)]
    assert put(node, batch(b"refused")).error_code == STORAGE_ERROR
    assert put(node, batch(b"refused"), 1).error_code == STORAGE_ERROR
    kept = batch(b"kept")
    assert put(node, kept).base_offset == 1
    assert [stored(bytes(one.view)) for one in batches(get(node))][1:] == [stored(kept)]
    assert said(caplog, "disk is full") == 1, "and not once a request"


def test_a_full_disk_at_a_roll_refuses_the_batch_and_takes_later_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = SimNode()
    node.create_topic("t", segment_index_bytes="16", index_interval_bytes="0")
    while len(node.partition("t").log.segments) < 2:
        assert put(node, batch(b"x")).error_code == 0
    segments = len(node.partition("t").log.segments)
    node.disk.faults = [Fault("create", ENOSPC)]
    outcomes = [put(node, batch(b"x")) for _ in range(6)]
    assert [part.error_code for part in outcomes].count(STORAGE_ERROR) == 1
    assert said(caplog, "disk is full") == 1
    assert len(node.partition("t").log.segments) > segments
    good = [part.base_offset for part in outcomes if not part.error_code]
    assert good == list(range(good[0], good[0] + 5)), "a refused batch takes no offset"


@pytest.mark.parametrize("errno", [EACCES, ENOENT, EEXIST])
@pytest.mark.parametrize("action", ["create", "make directory"])
def test_a_name_that_is_refused_refuses_its_partition_s_produce_alone(
    caplog: pytest.LogCaptureFixture, action: str, errno: int
) -> None:
    """An owner, a permission, something in its place: nothing is said by it of what was written."""
    node = SimNode()
    node.create_topic("t", 2)
    node.disk.faults = [Fault(action, errno, path="t-0")]
    assert put(node, batch(b"x")).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert put(node, batch(b"x"), partition=1).error_code == 0
    assert put(node, batch(b"x")).error_code == 0, "it may be asked again"
    assert said(caplog, "offline") == 0
    assert said(caplog, "until it can be") == 1


def test_a_broken_disk_at_a_roll_takes_the_directory_offline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = SimNode()
    node.create_topic("t")
    node.disk.faults = [Fault("create", EIO)]
    assert put(node, batch(b"x")).error_code == STORAGE_ERROR
    assert said(caplog, "offline") == 1


def test_a_disk_that_hangs_at_a_first_append_costs_a_request_its_time_not_its_connection() -> None:
    node = SimNode()
    node.create_topic("t")
    connection = node.connect()
    call = connection.ask(produce({("t", 0): batch(b"x")}, timeout_ms=20_000), 9)
    other = connection.ask(produce({("gone", 0): batch(b"x")}), 9)
    node.loop.run()
    node.loop.advance(21.0)
    assert produced(call).error_code == ErrorCode.REQUEST_TIMED_OUT
    assert produced(other).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    node.settle()
    assert put(node, batch(b"y")).base_offset == 0, "the one that timed out was not appended"


class Unlucky:
    """Random producers on a disk that refuses anything at any time; it is never acknowledged
    what a power cut right after could take back (I30)."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.node = SimNode(seed)
        self.node.create_topic("t", 2, segment_index_bytes="40", index_interval_bytes="0")
        self.calls: list[tuple[int, bytes, Call]] = []
        self.seen: Counter[str] = Counter()

    def run(self) -> Counter[str]:
        connections = [self.node.connect() for _ in range(2)]
        for _ in range(60):
            number = self.random.randrange(2)
            raw = batch(self.random.randbytes(30))
            call = self.random.choice(connections).ask(produce({("t", number): raw}), 9)
            self.calls.append((number, raw, call))
            if self.random.random() < 0.1:
                action = self.random.choice(("write", "create", "sync", "sync directory"))
                errno = self.random.choice((ENOSPC, ENOSPC, EIO))
                skip = self.random.randrange(5)
                short = self.random.randrange(40)
                self.node.disk.faults = [Fault(action, errno, skip=skip, short=short)]
            self.node.steps(self.random.choice((0, 1, 5, 20)))
        self.node.settle()
        assert all(call.done for _, _, call in self.calls)
        self.node.disk.faults.clear()
        self.node.crash("nothing")
        for number, raw, call in self.calls:
            part = produced(call)
            self.seen[ErrorCode(part.error_code).name] += 1
            if not part.error_code:
                there = get(self.node, Want(part.base_offset, partition=number))
                assert stored(bytes(batches(there)[0].view)) == stored(raw)
        return self.seen


REFUSED = (
    "write", "truncate", "create", "replace", "sync", "sync directory", "rename", "remove",
    "make directory", "read nowait", "warm", "ask for the space of",
)  # fmt: skip
"""What a node asks of its disk while it serves these clients. What a start alone asks for is refused
one by one in tests/unit/testing, and not in a history."""


class Misused(Unlucky):
    """The same, with readers of cold and warm files, DeleteRecords, topics made and deleted, and
    time that passes, so that every call of the disk is made at some time, and refused."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.starts = [0, 0]
        self.asked: list[Call] = []
        self.topics: list[str] = []
        self.met: Counter[str] = Counter()

    def run(self) -> Counter[str]:
        acting = (self.send, self.send, self.send, self.read, self.read, self.delete, self.admin)
        for _ in range(80):
            self.random.choice(acting)()
            if self.random.random() < 0.15:
                self.note_met()
                action = self.random.choice(REFUSED)
                errno = self.random.choice((ENOSPC, EIO))
                skip = self.random.randrange(4)
                self.node.disk.faults = [Fault(action, errno, skip=skip, short=7)]
            if self.random.random() < 0.1:
                self.node.disk.evict()
            if self.random.random() < 0.05:
                self.node.settle()  # or requests would time out
                self.node.loop.advance(61.0)
            self.node.steps(self.random.choice((0, 1, 5, 20)))
        self.node.settle()
        self.note_met()
        assert all(call.done for _, _, call in self.calls), "everything is answered"
        self.node.disk.faults.clear()
        self.node.advance(35.0)
        assert all(call.done for call in self.asked), "everything is answered"
        self.node.crash("nothing")
        self.judge()
        return self.seen

    def note_met(self) -> None:
        for fault in self.node.disk.faults:
            self.met[fault.action] += 1 - fault.times

    def connection(self) -> SimConnection:
        return self.node.connect()

    def send(self) -> None:
        number = self.random.randrange(2)
        raw = batch(self.random.randbytes(30))
        self.calls.append((number, raw, self.connection().ask(produce({("t", number): raw}), 9)))

    def read(self) -> None:
        want = Want(self.random.randrange(30), partition=self.random.randrange(2))
        if self.random.random() < 0.3:
            topics = [
                ListOffsetsTopic(
                    name="t",
                    partitions=[
                        ListOffsetsPartition(partition_index=want.partition, timestamp=NOW_MS)
                    ],
                )
            ]
            self.asked.append(self.connection().ask(ListOffsetsRequest(topics=topics), 7))
        else:
            self.asked.append(self.connection().ask(fetch(want, max_wait_ms=500), 12))

    def delete(self) -> None:
        number = self.random.randrange(2)
        log = self.node.partition("t", number).log
        if self.random.random() < 0.3:
            offset = self.random.randint(log.start, log.flushed)
            self.starts[number] = max(self.starts[number], offset)
            part = DeleteRecordsPartition(partition_index=number, offset=offset)
            topics = [DeleteRecordsTopic(name="t", partitions=[part])]
            body = DeleteRecordsRequest(topics=topics, timeout_ms=30_000)
            self.asked.append(self.connection().ask(body, 2))

    def admin(self) -> None:
        if self.topics and self.random.random() < 0.5:
            name = self.topics.pop()
            body = DeleteTopicsRequest(topic_names=[name], timeout_ms=1000)
            self.asked.append(self.connection().ask(body, 5))
        else:
            name = f"other-{len(self.asked)}"
            self.topics.append(name)
            topic = CreatableTopic(name=name, num_partitions=1, replication_factor=1)
            self.asked.append(
                self.connection().ask(CreateTopicsRequest(topics=[topic], timeout_ms=1000), 7)
            )
            self.asked.append(self.connection().ask(produce({(name, 0): batch(b"first")}), 9))

    def judge(self) -> None:
        """What was acknowledged and not deleted is there, at its offset."""
        for number, raw, call in self.calls:
            part = produced(call)
            self.seen[ErrorCode(part.error_code).name] += 1
            if part.error_code or part.base_offset < self.starts[number]:
                continue
            there = get(self.node, Want(part.base_offset, partition=number))
            assert there.error_code == 0, there
            assert stored(bytes(batches(there)[0].view)) == stored(raw)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_acknowledged_survives_whatever_the_disk_refused(seed: int) -> None:
    seen = Unlucky(seed).run()
    assert set(seen) <= {"NONE", "KAFKA_STORAGE_ERROR"}, seen


@pytest.mark.parametrize("seeds", seed_ranges(MISUSED, 120), ids=lambda seeds: f"from-{seeds[0]}")
def test_i30_whatever_call_the_disk_refuses_all_is_answered_and_nothing_is_lost(
    seeds: range,
) -> None:
    seen: Counter[str] = Counter()
    for seed in seeds:
        with named_by(seed):
            history = Misused(seed)
            seen += history.run()
            seen += history.met
    print(f"\n{dict(seen)}")
    assert {one for one in seen if one.isupper()} <= {"NONE", "KAFKA_STORAGE_ERROR"}, seen
    if len(seeds) > 1:
        assert {action for action in REFUSED if not seen[action]} == set(), "these were not refused"


def test_those_histories_show_both_outcomes() -> None:
    seen = sum((Unlucky(seed).run() for seed in range(10)), Counter())
    assert min(seen["NONE"], seen["KAFKA_STORAGE_ERROR"]) > 50


def test_where_the_operating_system_flushes_a_sync_that_fails_ends_the_directory_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = SimNode(flush_policy="os")
    node.create_topic("t", segment_index_bytes="16", index_interval_bytes="0")
    node.disk.faults = [Fault("sync", EIO, path=".log")]  # at the first roll: nothing else syncs it
    codes = [put(node, batch(b"x")).error_code for _ in range(10)]
    good = codes.index(STORAGE_ERROR)
    assert good > 1
    assert set(codes[good:]) == {STORAGE_ERROR}
    assert said(caplog, "offline") == 1
    assert get(node).high_watermark == good


def test_a_directory_that_went_offline_is_not_marked_as_stopped_cleanly(node: SimNode) -> None:
    put(node, batch(b"kept"))
    node.disk.faults = [Fault("sync", EIO)]
    put(node, batch(b"lost"))
    node.stop()
    assert not node.directory.was_clean
    assert put(node, batch(b"after")).error_code == 0
