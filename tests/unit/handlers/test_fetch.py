"""Fetch: what is read, what is waited for, and what an answer carries.

What Kafka 4.3.1 answers was asked of a running one where a test says "as Kafka".
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from ottla.cluster.changes import PartitionChanged, TopicDeleted
from ottla.core import options
from ottla.core.model import FileSlice, LeaderEpoch, Offset
from ottla.core.pending import Pending
from ottla.handlers import fetch as handler
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.fetch import PartitionData, ReplicaState
from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import Producer
from ottla.records.control import ControlType, EndMarker
from ottla.replication.partition import Appended, Partition
from ottla.testing.simnode import Call, SimConnection, SimNode
from tests.asking import Want, batch, batches, fetch, fetched, get, produce, put

from .ways import both_ways

if TYPE_CHECKING:
    from collections.abc import Callable

ONE = batch(b"x" * 100)
SIZE = len(ONE)


def told(part: PartitionData) -> tuple[ErrorCode, int, int, int]:
    """Error, high watermark, last stable offset, log start."""
    return (
        ErrorCode(part.error_code),
        part.high_watermark,
        part.last_stable_offset,
        part.log_start_offset,
    )


def offsets(part: PartitionData) -> list[int]:
    return [one.base_offset for one in batches(part)]


@pytest.fixture
def node() -> SimNode:
    """Ten batches in each of t-0 and t-1; t-2 is empty."""
    node = SimNode()
    node.create_topic("t", 3)
    for partition in (0, 1):
        for _ in range(10):
            put(node, ONE, partition=partition)
    return node


@pytest.fixture
def connection(node: SimNode) -> SimConnection:
    return node.connect()


def ask(connection: SimConnection, *wants: Want, **more: Any) -> Call:
    """Ask without waiting, and let everything happen that needs no time."""
    call = connection.ask(fetch(*wants, **more), 12)
    connection.node.settle()
    return call


# --- the usual fetch, which has a way of its own

ASKED: dict[str, tuple[Want, dict[str, Any]]] = {
    "all": (Want(), {}),
    "one batch": (Want(3, bytes_max=1), {}),
    "inside": (Want(13), {}),
    "three": (Want(2, bytes_max=3 * SIZE), {}),
    "the whole answer is bounded": (Want(2), {"max_bytes": 2 * SIZE}),
    "less than nothing": (Want(2, bytes_max=-1), {"max_bytes": -5}),
    "an older segment": (Want(0, partition=1), {"min_bytes": 1 << 20}),
    "not enough": (Want(9), {"min_bytes": 1 << 20}),
    "enough": (Want(9), {"min_bytes": 0}),
    "the end": (Want(14), {}),
    "past it": (Want(999), {}),
    "below": (Want(-1), {}),
    "gone": (Want(topic="nowhere"), {}),
    "no such partition": (Want(partition=9), {}),
    "old epoch": (Want(epoch=0), {}),
    "new epoch": (Want(epoch=99), {}),
    "its epoch": (Want(epoch=1), {}),
    "diverging": (Want(fetched_epoch=0), {}),
    "a follower": (Want(), {"replica_id": 3, "replica_state": ReplicaState(replica_id=3)}),
    "in a session": (Want(), {"session": (0, 0)}),
    "in none that is known": (Want(), {"session": (7, 3)}),
}


def full_of_things() -> SimNode:
    """Ten batches and two transactions in t-0, one taken back and one open; rolls in t-1."""
    node = SimNode(flush_policy="os")
    node.create_topic("t", 2, segment_bytes=str(1 << 20))
    for _ in range(10):
        put(node, ONE)
    partition = node.partition("t")
    for producer_id in (7, 8):
        who = Producer(producer_id, 0, 0)
        raw = batch(b"v", b"w", producer=who, attributes=TRANSACTIONAL_BIT)
        view = BatchView(memoryview(bytearray(raw)))
        verification = partition.verify(producer_id, 0, 0, bumps=False)
        assert partition.prepare(view) is None
        assert isinstance(partition.append_as_leader(view, verification), Appended)
        if producer_id == 7:
            marker = EndMarker(ControlType.ABORT, 0)
            while isinstance(partition.append_marker(7, 0, marker, 1), Pending):
                node.settle()
    for _ in range(3):
        put(node, batch(b"x" * 600_000), partition=1)
    assert len(node.partition("t", 1).log.segments) == 3
    return node


@pytest.mark.parametrize("version", [6, 7, 11, 12, 13, 15, 18])
@pytest.mark.parametrize("isolation", [0, 1, 2])
@pytest.mark.parametrize("warm", [True, False])
def test_the_usual_fetch_is_answered_as_if_it_had_no_way_of_its_own(
    version: int, isolation: int, warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> list[object]:
        node = full_of_things()
        answers: list[object] = []
        ids = {"t": node.image.topics["t"].id, "nowhere": bytes(16)}
        for name, (by_name, more) in ASKED.items():
            want = by_name._replace(topic=ids[by_name.topic]) if version >= 13 else by_name
            if not warm:
                node.disk.evict()
            call = node.connect().ask(
                fetch(want, isolation_level=isolation, max_wait_ms=50, **more), version
            )
            node.settle()
            node.loop.advance(0.1)
            node.settle()
            answers.append((name, call.answer))
        tallies = [node.partition("t", number).tally for number in (0, 1)]
        answers += [(one.fetches, one.bytes_out) for one in tallies]
        return answers

    own, general = both_ways(monkeypatch, told, handler)
    assert own == general


@pytest.mark.parametrize("isolation", [0, 1])
def test_most_fetches_without_a_session_go_the_quick_way(node: SimNode, isolation: int) -> None:
    chunks = handler.quick(node.context, 12, fetch(Want(4), isolation_level=isolation))
    assert chunks is not None
    piece = chunks[1]
    assert isinstance(piece, FileSlice)
    assert piece.length == 6 * SIZE
    piece.release()


# --- what is read


@pytest.mark.parametrize("version", range(4, 19))
@pytest.mark.parametrize("isolation", [0, 1])
def test_every_version_is_answered_with_the_batches_from_the_offset_on(
    node: SimNode, version: int, isolation: int
) -> None:
    by = node.image.topics["t"].id if version >= 13 else "t"
    call = node.connect().ask(fetch(Want(4, by), isolation_level=isolation), version)
    node.settle()
    (part,) = fetched(call)
    assert told(part) == (ErrorCode.NONE, 10, 10, 0 if version >= 5 else -1)
    assert offsets(part) == list(range(4, 10))
    # As Kafka: a list, if empty, for read_committed; null otherwise.
    assert part.aborted_transactions == ([] if isolation else None)
    assert call.answer.responses[0].topic == ("" if version >= 13 else "t")
    assert (part.preferred_read_replica, part.diverging_epoch.epoch) == (-1, -1)


def test_an_offset_inside_a_batch_brings_the_whole_batch(node: SimNode) -> None:
    put(node, batch(b"a", b"b", b"c"), partition=2)
    assert offsets(get(node, Want(2, partition=2))) == [0]


@pytest.mark.parametrize("partition", [0, 2])
def test_nothing_to_read_is_empty_and_never_null(node: SimNode, partition: int) -> None:
    end = 10 if partition == 0 else 0
    part = get(node, Want(end, partition=partition))
    assert told(part) == (ErrorCode.NONE, end, end, 0)
    assert part.records is not None
    assert bytes(part.records) == b""


@pytest.mark.parametrize("offset", [11, 999, -1, -(1 << 63)])
def test_h66_an_offset_outside_the_log_is_out_of_range(node: SimNode, offset: int) -> None:
    part = get(node, Want(offset))
    assert told(part) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1, -1, -1)
    assert part.records is not None


def test_an_offset_below_the_start_is_out_of_range(node: SimNode) -> None:
    node.partition("t").log.set_start(Offset(3))
    assert get(node, Want(2)).error_code == ErrorCode.OFFSET_OUT_OF_RANGE
    assert told(get(node, Want(3))) == (ErrorCode.NONE, 10, 10, 3)


def test_what_is_written_and_not_committed_is_not_read_nor_out_of_range(node: SimNode) -> None:
    connection = node.connect()
    produced = connection.ask(produce({("t", 0): ONE}, acks=1), 9)
    assert produced.done
    for offset in (10, 11):
        part = fetched(connection.ask(fetch(Want(offset)), 12))[0]
        assert told(part) == (ErrorCode.NONE, 10, 10, 0)
        assert bytes(part.records) == b""
    node.settle()
    assert offsets(get(node, Want(10))) == [10]


@pytest.mark.parametrize(
    ("version", "topic", "partition", "error"),
    [
        (12, "gone", 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (12, "t", 3, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (12, "t", -1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (13, bytes(16), 0, ErrorCode.UNKNOWN_TOPIC_ID),  # H73
        (13, b"\1" * 16, 0, ErrorCode.UNKNOWN_TOPIC_ID),
    ],
)
def test_what_is_not_here_is_unknown(
    node: SimNode, version: int, topic: str | bytes, partition: int, error: ErrorCode
) -> None:
    part = get(node, Want(0, topic, partition), version)
    assert told(part) == (error, -1, -1, -1)
    assert part.aborted_transactions == [], "as Kafka: null only for what a log refuses"
    assert part.partition_index == partition


# --- epochs


@pytest.mark.parametrize(
    ("epoch", "error"),
    [(-1, 0), (-2, 0), (3, 0), (2, 74), (4, 75)],
)
def test_h72_the_epoch_a_client_believes_in_is_checked(
    node: SimNode, epoch: int, error: int
) -> None:
    node.partition("t").leader_epoch = LeaderEpoch(3)
    assert get(node, Want(0, epoch=epoch)).error_code == error
    assert get(node, Want(999, epoch=epoch)).error_code == (error or 1), "the epoch comes first"


def test_a_client_that_read_past_an_epochs_end_is_told_where_it_ended(node: SimNode) -> None:
    node.kill()
    put(node, ONE)  # offset 10, in epoch 1
    part = get(node, Want(11, fetched_epoch=0))
    assert (part.diverging_epoch.epoch, part.diverging_epoch.end_offset) == (0, 10)
    assert told(part) == (ErrorCode.NONE, 11, 11, 0)
    assert bytes(part.records) == b""
    assert offsets(get(node, Want(10, fetched_epoch=0))) == [10], "up to its end it is at one"


@pytest.mark.parametrize(("epoch", "error"), [(-2, 0), (-1, 0), (0, 0), (9, 1)])
def test_an_epoch_yet_to_come_was_never_fetched(node: SimNode, epoch: int, error: int) -> None:
    assert get(node, Want(0, fetched_epoch=epoch)).error_code == error


@pytest.mark.parametrize("version", [12, 15])
def test_h70_a_follower_is_not_served(node: SimNode, version: int) -> None:
    by = node.image.topics["t"].id if version >= 13 else "t"
    state = ReplicaState(replica_id=1)
    part = get(node, Want(0, by), version, replica_id=1, replica_state=state)
    assert told(part) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, -1, -1, -1)


# --- limits


@pytest.mark.parametrize(
    ("partition_max", "max_bytes", "counts"),
    [
        (1 << 20, 1 << 20, [10, 10]),
        (SIZE * 3, 1 << 20, [3, 3]),
        (SIZE * 3 + SIZE - 1, 1 << 20, [3, 3]),
        (1 << 20, SIZE * 12, [10, 2]),
        (SIZE * 4, SIZE * 6, [4, 2]),
        (1, 1 << 20, [1, 0]),
        (0, 0, [1, 0]),
        (-1, 1 << 20, [1, 0]),
        (1 << 20, -1, [1, 0]),
        (1 << 20, SIZE - 1, [1, 0]),
        (1 << 20, SIZE * 10, [10, 0]),
    ],
)
def test_h67_limits_are_kept_but_for_the_first_batch(
    connection: SimConnection, partition_max: int, max_bytes: int, counts: list[int]
) -> None:
    wants = [Want(0, partition=number, bytes_max=partition_max) for number in (2, 0, 1)]
    parts = fetched(ask(connection, *wants, max_bytes=max_bytes))
    assert [len(batches(part)) for part in parts] == [0, *counts]


def test_no_answer_is_larger_than_the_node_allows() -> None:
    node = SimNode(fetch_max_bytes="2000")
    node.create_topic("t")
    for _ in range(30):
        put(node, ONE)
    assert len(batches(get(node))) == 2000 // SIZE


@pytest.mark.parametrize("version", [4, 18])
@pytest.mark.parametrize("isolation", [-1, 2])
def test_an_isolation_level_that_does_not_exist_is_refused_whole(
    node: SimNode, version: int, isolation: int
) -> None:
    by = node.image.topics["t"].id if version >= 13 else "t"
    call = node.connect().ask(fetch(Want(0, by), isolation_level=isolation), version)
    node.settle()
    answer = call.answer
    told = answer.error_code if version >= 7 else answer.responses[0].partitions[0].error_code
    assert told == ErrorCode.INVALID_REQUEST


def test_h28_a_request_that_names_too_many_partitions_is_refused_whole() -> None:
    node = SimNode(request_partitions_max="2")
    node.create_topic("t", 3)
    wants = [Want(0, partition=number) for number in range(3)]
    for session in ((0, -1), (0, 0)):
        call = ask(node.connect(), *wants, session=session)
        assert (call.answer.error_code, call.answer.session_id) == (42, 0)
        assert fetched(call) == []


# --- waiting


def test_a_fetch_waits_until_as_much_as_it_asks_for_is_committed(
    node: SimNode, connection: SimConnection
) -> None:
    call = ask(connection, Want(10), Want(10, partition=1), min_bytes=3 * SIZE, max_wait_ms=9000)
    for partition in (0, 1):
        put(node, ONE, partition=partition)
        assert not call.done
    put(node, ONE)
    assert [offsets(part) for part in fetched(call)] == [[10, 11], [10]]


def test_what_is_read_while_a_fetch_waits_counts_once_as_sent(
    node: SimNode, connection: SimConnection
) -> None:
    tally = node.table.get("t", 0).tally
    before = (tally.fetches, tally.bytes_out)
    call = ask(connection, Want(8), min_bytes=3 * SIZE, max_wait_ms=9000)
    assert (tally.fetches, tally.bytes_out) == before  # two batches are there, and not sent yet
    put(node, ONE)
    [part] = fetched(call)
    assert tally.fetches == before[0] + 1
    assert tally.bytes_out == before[1] + 3 * SIZE
    assert offsets(part) == [8, 9, 10]


def test_what_is_there_already_counts_for_min_bytes(
    node: SimNode, connection: SimConnection
) -> None:
    call = ask(connection, Want(8), min_bytes=3 * SIZE, max_wait_ms=9000)
    assert not call.done
    put(node, ONE)
    assert offsets(fetched(call)[0]) == [8, 9, 10]


def test_a_fetch_that_waited_its_time_is_answered_with_what_is_there(
    node: SimNode, connection: SimConnection
) -> None:
    call = ask(connection, Want(9), min_bytes=5 * SIZE, max_wait_ms=500)
    node.advance(0.49)
    assert not call.done
    node.advance(0.02)
    assert offsets(fetched(call)[0]) == [9]


@pytest.mark.parametrize(("min_bytes", "max_wait_ms"), [(0, 9000), (-1, 9000), (1, 0), (1, -5)])
def test_a_fetch_that_asks_for_nothing_or_no_time_is_answered_at_once(
    connection: SimConnection, min_bytes: int, max_wait_ms: int
) -> None:
    assert ask(connection, Want(10), min_bytes=min_bytes, max_wait_ms=max_wait_ms).done


def test_h68_the_longest_wait_is_the_nodes_to_say(node: SimNode, connection: SimConnection) -> None:
    most = (1 << 31) - 1
    call = ask(connection, Want(10), min_bytes=most, max_wait_ms=most)
    node.advance(59.0)
    assert not call.done
    node.advance(2.0)
    assert call.done


def test_h68_past_the_cap_of_waiting_fetches_one_is_answered_at_once() -> None:
    node = SimNode(fetch_parked_max="2")
    node.create_topic("t")
    calls = [ask(node.connect(), Want(0), max_wait_ms=9000) for _ in range(3)]
    assert [call.done for call in calls] == [False, False, True]
    node.advance(9.1)
    assert calls[0].done
    assert not ask(node.connect(), Want(0), max_wait_ms=9000).done, "there is room again"


def test_an_error_of_one_partition_ends_the_wait_for_all(connection: SimConnection) -> None:
    call = ask(connection, Want(10), Want(0, "gone"), max_wait_ms=9000)
    assert [part.error_code for part in fetched(call)] == [0, 3]


def test_a_divergence_ends_the_wait(node: SimNode) -> None:
    node.kill()
    put(node, ONE)
    call = ask(node.connect(), Want(11, fetched_epoch=0), max_wait_ms=9000)
    assert fetched(call)[0].diverging_epoch.end_offset == 10


def test_a_deleted_topic_ends_the_wait(node: SimNode, connection: SimConnection) -> None:
    call = ask(connection, Want(10), max_wait_ms=9000)
    node.table.apply(TopicDeleted(node.image.topics["t"]))
    node.settle()
    assert fetched(call)[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_the_end_of_a_segment_ends_the_wait_for_what_lies_behind_it_is_there_already() -> None:
    node = SimNode()
    node.create_topic("t", segment_index_bytes="16", index_interval_bytes="0")
    for _ in range(8):
        put(node, ONE)
    first = node.partition("t").log.segments[0]
    call = ask(node.connect(), Want(0), min_bytes=SIZE * 7, max_wait_ms=9000)
    assert offsets(fetched(call)[0]) == list(range(first.end))


def test_later_requests_run_while_a_fetch_waits_and_are_answered_after_it(
    node: SimNode, connection: SimConnection
) -> None:
    waiting = connection.ask(fetch(Want(10), max_wait_ms=9000), 12)
    written = connection.ask(produce({("t", 0): ONE}, acks=1), 9)
    assert not written.done
    node.settle()
    assert (waiting.done, written.done) == (True, True), "its own produce is what woke it"


def test_those_who_no_longer_wait_leave_idle_partitions_alone(node: SimNode) -> None:
    for _ in range(3):
        connection = node.connect()
        ask(connection, Want(0, partition=2), max_wait_ms=9000)
        connection.close()
    ask(node.connect(), Want(0, partition=2), max_wait_ms=100)
    node.advance(0.2)
    assert not node.partition("t", 2).readers
    assert node.context.kept["fetch"].parked == 0


# --- sessions (KIP-227)


class Session:
    """A client's end of a session."""

    def __init__(self, connection: SimConnection, *wants: Want, version: int = 12) -> None:
        self.connection = connection
        self.version = version
        self.epoch = 0
        self.id = 0
        self.parts = self.go(*wants)

    def go(self, *wants: Want, **more: Any) -> list[PartitionData]:
        body = fetch(*wants, session=(self.id, self.epoch), **more)
        self.call = self.connection.ask(body, self.version)
        self.connection.node.settle()
        self.id = self.call.answer.session_id
        self.epoch += 1
        return fetched(self.call)


def test_a_full_fetch_begins_a_session_and_tells_everything(connection: SimConnection) -> None:
    session = Session(connection, Want(0), Want(0, partition=2))
    assert session.id > 0
    assert [offsets(part) for part in session.parts] == [list(range(10)), []]


def test_an_incremental_fetch_names_what_changed_and_is_told_what_is_new(
    node: SimNode, connection: SimConnection
) -> None:
    session = Session(connection, Want(10), Want(0, partition=2))
    assert session.go() == []
    put(node, ONE, partition=2)
    (part,) = session.go()
    assert (part.partition_index, offsets(part)) == (2, [0])
    (part,) = session.go()
    assert offsets(part) == [0], "the client has not moved on"
    assert session.go(Want(1, partition=2)) == []
    assert session.go(Want(10, partition=1), forget=(Want(partition=2),))[0].partition_index == 1
    put(node, ONE, partition=2)
    assert session.go() == []


def test_an_incremental_fetch_waits_too(node: SimNode, connection: SimConnection) -> None:
    session = Session(connection, Want(10))
    call = connection.ask(fetch(session=(session.id, 1), max_wait_ms=9000), 12)
    node.settle()
    assert not call.done
    put(node, ONE)
    assert offsets(fetched(call)[0]) == [10]


def test_errors_and_divergences_are_told_each_time(node: SimNode) -> None:
    node.kill()
    put(node, ONE)
    session = Session(node.connect(), Want(11, fetched_epoch=0), Want(0, "gone"))
    for parts in (session.parts, session.go(), session.go()):
        assert [(p.diverging_epoch.end_offset, p.error_code) for p in parts] == [(10, 0), (-1, 3)]


def test_a_topic_that_appears_is_told(node: SimNode, connection: SimConnection) -> None:
    session = Session(connection, Want(10), Want(0, "new"))
    assert session.parts[1].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    node.create_topic("new")
    (part,) = session.go()
    assert told(part) == (ErrorCode.NONE, 0, 0, 0)
    assert session.go() == []


def test_what_had_data_comes_last_next_time(connection: SimConnection) -> None:
    limit = {"max_bytes": SIZE}
    session = Session(connection, Want(0), Want(0, partition=1))
    session.go(**limit)
    firsts = []
    for _ in range(4):
        parts = session.go(**limit)
        firsts.append([part.partition_index for part in parts if part.records])
    assert sorted(map(tuple, firsts)) == [(0,), (0,), (1,), (1,)]


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the partitions that are read from now on."""
    seen: list[int] = []
    read = Partition.read

    def noted(partition: Partition, *arguments: Any, **more: Any) -> Any:
        seen.append(partition.key.partition)
        return read(partition, *arguments, **more)

    monkeypatch.setattr(Partition, "read", noted)
    return seen


def test_an_incremental_fetch_looks_at_what_has_changed_and_at_nothing_else(
    node: SimNode, connection: SimConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.create_topic("u", 50)
    session = Session(connection, *(Want(0, "u", number) for number in range(50)))
    seen = looked_at(monkeypatch)
    assert (session.go(), seen) == ([], [])
    put(node, ONE, topic="u", partition=7)
    (part,) = session.go()
    assert (offsets(part), seen) == ([0], [7])
    assert (session.go(Want(1, "u", 7)), seen) == ([], [7, 7]), "the client has moved on"
    assert (session.go(), seen) == ([], [7, 7])
    assert session.go(isolation_level=1) == []
    assert len(seen) == 2 + 50, "what has nothing to say to one isolation level may to another"
    node.partition("u", 9).stir()
    assert (session.go(isolation_level=1), seen[52:]) == ([], [9])


def test_a_session_whose_partitions_sleep_is_not_gone_through_at_its_size(node: SimNode) -> None:
    node.create_topic("u", 1000)
    session = Session(node.connect(), *(Want(0, "u", number) for number in range(1000)))
    session.go()
    (kept,) = node.context.kept["fetch"].sessions._sessions.values()
    assert sys.getsizeof(kept.awake) == sys.getsizeof(set())


def test_what_sleeps_in_a_session_counts_for_its_fetch_that_waits(
    node: SimNode, connection: SimConnection
) -> None:
    session = Session(connection, Want(10), Want(10, partition=1), Want(0, partition=2))
    call = ask(connection, session=(session.id, 1), min_bytes=SIZE * 3, max_wait_ms=9000)
    put(node, ONE, partition=2)
    put(node, ONE)
    assert not call.done
    put(node, ONE, partition=2)
    assert [offsets(part) for part in fetched(call)] == [[10], [0, 1]]
    assert not any(node.partition("t", number).readers for number in range(3))


def _raise_epoch(node: SimNode) -> None:
    topic = node.image.topics["t"]
    was = topic.partitions[0]
    now = was.replace(leader_epoch=LeaderEpoch(was.leader_epoch + 1))
    node.table.apply(PartitionChanged(topic.id, "t", 0, was, now))


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (lambda node: node.partition("t").log.set_start(Offset(4)), [(ErrorCode.NONE, 10, 10, 4)]),
        (
            lambda node: node.table.apply(TopicDeleted(node.image.topics["t"])),
            [(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1, -1)],
        ),
        (lambda node: node.partition("t").fail(), []),
        (_raise_epoch, [(ErrorCode.FENCED_LEADER_EPOCH, -1, -1, -1)]),
    ],
    ids=["its start moves", "it is deleted", "its disk fails", "its leader epoch rises"],
)
def test_a_partition_that_slept_is_told_of_when(
    node: SimNode, change: Callable[[SimNode], None], answer: list[tuple[ErrorCode, int, int, int]]
) -> None:
    session = Session(node.connect(), Want(10, epoch=node.partition("t").leader_epoch))
    assert session.go() == []
    change(node)
    assert [told(part) for part in session.go()] == answer


def test_a_deletion_ends_the_wait_of_a_fetch_whose_partitions_all_sleep(
    node: SimNode, connection: SimConnection
) -> None:
    session = Session(connection, Want(10))
    call = ask(connection, session=(session.id, 1), max_wait_ms=9000)
    node.table.apply(TopicDeleted(node.image.topics["t"]))
    node.settle()
    assert fetched(call)[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize("how", ["ends", "is replaced", "forgets it", "names it anew"])
def test_a_partition_keeps_nobody_whose_session(
    node: SimNode, connection: SimConnection, how: str
) -> None:
    session = Session(connection, Want(10), Want(10, partition=1))
    assert node.partition("t").sleepers
    match how:
        case "ends":
            ask(connection, session=(session.id, -1))
        case "is replaced":
            ask(connection, session=(session.id, 0))
        case "forgets it":
            session.go(forget=(Want(),))
        case _:
            session.go(Want(0))
    assert not node.partition("t").sleepers


def test_a_fetch_that_waits_in_a_session_that_ends_goes_on_waiting(
    node: SimNode, connection: SimConnection
) -> None:
    session = Session(connection, Want(10))
    call = ask(connection, session=(session.id, 1), max_wait_ms=9000)
    ask(node.connect(), session=(session.id, -1))
    assert not call.done
    put(node, ONE)
    assert offsets(fetched(call)[0]) == [10]
    assert not node.partition("t").sleepers


def test_what_was_asked_for_while_a_fetch_waited_is_not_put_to_sleep_by_it(
    node: SimNode, connection: SimConnection
) -> None:
    session = Session(connection, Want(10))
    put(node, ONE, partition=1)
    waiting = ask(connection, Want(10), session=(session.id, 1), max_wait_ms=500)
    pipelined = connection.ask(fetch(Want(3), session=(session.id, 2)), 12)
    node.settle()
    node.advance(1)
    assert fetched(waiting) == []
    assert offsets(fetched(pipelined)[0]) == list(range(3, 10))
    session.epoch = 3
    assert offsets(session.go()[0]) == list(range(3, 10))


def test_the_final_epoch_ends_a_session_and_begins_none(connection: SimConnection) -> None:
    session = Session(connection, Want(0))
    call = ask(connection, Want(9), session=(session.id, -1))
    assert (call.answer.session_id, offsets(fetched(call)[0])) == (0, [9])
    call = ask(connection, session=(session.id, 1))
    assert call.answer.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_epoch_zero_with_a_session_replaces_it(connection: SimConnection) -> None:
    first = Session(connection, Want(0))
    call = ask(connection, Want(0), session=(first.id, 0))
    assert call.answer.session_id not in {0, first.id}
    call = ask(connection, session=(first.id, 1))
    assert (call.answer.error_code, call.answer.session_id) == (70, 0)


def test_a_session_left_without_partitions_ends_as_kafkas_does(
    connection: SimConnection,
) -> None:
    session = Session(connection, Want(0))
    old = session.id
    assert session.go(forget=(Want(),)) == []
    assert session.id == 0
    assert ask(connection, session=(old, 2)).answer.error_code == 70


def test_a_full_fetch_of_nothing_begins_a_session_that_can_be_filled(
    connection: SimConnection,
) -> None:
    session = Session(connection)
    assert session.id > 0
    assert offsets(session.go(Want(9))[0]) == [9]


@pytest.mark.parametrize(
    ("session", "version", "error"),
    [
        ((12345, 1), 12, ErrorCode.FETCH_SESSION_ID_NOT_FOUND),
        ((0, 2), 12, ErrorCode.INVALID_FETCH_SESSION_EPOCH),
        ((0, 1), 13, ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR),
    ],
)
def test_h69_a_session_that_does_not_fit_is_refused(
    connection: SimConnection, session: tuple[int, int], version: int, error: ErrorCode
) -> None:
    begun = Session(connection, Want(0))
    known = (session[0] or begun.id, session[1])
    call = connection.ask(fetch(session=known), version)
    assert (call.answer.error_code, call.answer.session_id, fetched(call)) == (error, 0, [])


def test_h69_with_no_slot_for_a_session_a_fetch_is_answered_without_one() -> None:
    node = SimNode(max_incremental_fetch_session_cache_slots="1")
    node.create_topic("t")
    put(node, ONE)
    assert node.config[options.FETCH_SESSIONS_MAX] == 1
    first, second = (Session(node.connect(), Want(0)) for _ in range(2))
    assert (first.id > 0, second.id) == (True, 0)
    assert offsets(second.parts[0]) == [0]


def test_sessions_by_id_know_topics_by_id(node: SimNode, connection: SimConnection) -> None:
    topic_id = node.image.topics["t"].id
    session = Session(connection, Want(10, topic_id), Want(0, b"\1" * 16), version=13)
    assert [part.error_code for part in session.parts] == [0, ErrorCode.UNKNOWN_TOPIC_ID]
    put(node, ONE)
    parts = session.go(forget=(Want(topic=b"\1" * 16),))
    assert [offsets(part) for part in parts] == [[10]]


def test_before_version_7_there_are_no_sessions(node: SimNode) -> None:
    call = node.connect().ask(fetch(Want(0), session=(0, 0)), 6)
    assert call.answer.session_id == 0
    assert "fetch" not in node.context.kept or not len(node.context.kept["fetch"].sessions)


def test_who_reads_thousands_of_partitions_is_served_by_turns(
    node: SimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer needs a descriptor for each partition, and the process may not have so many."""
    monkeypatch.setattr("ottla.handlers.fetch._FILES_MAX", 1)
    call = ask(node.connect(), Want(0), Want(0, partition=1), Want(0, partition=2))
    assert [len(part.records) > 0 for part in fetched(call)] == [True, False, False]
    node.disk.evict()
    call = ask(node.connect(), Want(0, partition=1), Want(0))
    assert [len(part.records) > 0 for part in fetched(call)] == [True, False]


def test_a_read_that_has_to_wait_more_than_once_is_counted_once() -> None:
    node = SimNode(flush_policy="os")
    node.create_topic("t", 1, segment_bytes=str(1 << 20), index_interval_bytes="100")
    for _ in range(30):
        put(node, batch(b"x" * 50_000))
    node.disk.evict()  # the index, which leads into the log, and the log
    assert fetched(ask(node.connect(), Want(7)))[0].records
    tally = node.partition("t").tally
    assert (tally.fetches, tally.cold) == (1, 1)


def test_a_partition_that_is_read_only_once_another_was_brought_is_counted_as_cold_too() -> None:
    node = SimNode(flush_policy="os")
    node.create_topic("t", 2)
    for index, value in ((0, b"x" * 100), (0, b"x" * 100), (1, b"x")):
        put(node, batch(value), partition=index)
    node.disk.evict()
    # The disk brings more of the first than there is room for; of its batches one fits.
    both = fetched(ask(node.connect(), Want(0), Want(0, partition=1), max_bytes=300))
    assert [len(part.records) for part in both] == [170, 69]
    assert [node.partition("t", index).tally.cold for index in (0, 1)] == [1, 1]
