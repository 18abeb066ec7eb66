"""Fetch sessions (KIP-227): what is remembered, what is left out, what is evicted."""

from __future__ import annotations

import pytest

from ottla.core.model import NO_TOPIC_ID
from ottla.handlers.fetch_sessions import Session, Sessions, Wanted, wanted_by
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
)


class ManualClock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 1_700_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sessions(clock: ManualClock) -> Sessions:
    return Sessions(clock, slots_max=2, partitions_max=100, eviction_ms=120_000)


def wanted(partition: int, offset: int = 0) -> Wanted:
    return Wanted("t", NO_TOPIC_ID, partition, offset, 1 << 20, -1, -1)


def incremental(session_id: int, epoch: int, *changed: int, forget: int = -1) -> FetchRequest:
    partitions = [
        FetchPartition(partition=index, fetch_offset=7, partition_max_bytes=99) for index in changed
    ]
    return FetchRequest(
        session_id=session_id,
        session_epoch=epoch,
        topics=[FetchTopic(topic="t", partitions=partitions)] if changed else [],
        forgotten_topics_data=[ForgottenTopic(topic="t", partitions=[forget])]
        if forget >= 0
        else [],
    )


def begun(sessions: Sessions, *partitions: int) -> Session:
    session = sessions.begin([wanted(index) for index in partitions], by_id=False)
    assert session is not None
    return session


def test_a_new_session_has_an_id_that_is_not_zero_and_expects_epoch_one(sessions: Sessions) -> None:
    session = begun(sessions, 0)
    assert session.id > 0
    assert sessions.resume(incremental(session.id, 1), by_id=False) is session
    assert session.epoch == 2


def test_an_incremental_request_reads_everything_the_session_knows(sessions: Sessions) -> None:
    session = begun(sessions, 0, 1)
    sessions.resume(incremental(session.id, 1, 1, 2), by_id=False)
    assert [one.partition for one in session.partitions.values()] == [0, 1, 2]
    assert session.partitions[("t", NO_TOPIC_ID, 1)].offset == 7


def test_a_forgotten_partition_is_read_no_more(sessions: Sessions) -> None:
    session = begun(sessions, 0, 1)
    sessions.resume(incremental(session.id, 1, forget=0), by_id=False)
    assert [one.partition for one in session.partitions.values()] == [1]


def test_an_unknown_session_is_said_to_be_unknown(sessions: Sessions) -> None:
    outcome = sessions.resume(incremental(12345, 1), by_id=False)
    assert outcome is ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_an_epoch_out_of_step_is_refused_and_changes_nothing(sessions: Sessions) -> None:
    session = begun(sessions, 0)
    outcome = sessions.resume(incremental(session.id, 3, 5), by_id=False)
    assert outcome is ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert len(session.partitions) == 1


def test_a_session_by_name_can_not_go_on_by_id(sessions: Sessions) -> None:
    session = begun(sessions, 0)
    outcome = sessions.resume(incremental(session.id, 1), by_id=True)
    assert outcome is ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR


def test_an_ended_session_is_gone(sessions: Sessions) -> None:
    session = begun(sessions, 0)
    sessions.end(session.id)
    assert len(sessions) == 0


def test_with_every_slot_in_use_there_is_no_session(sessions: Sessions) -> None:
    begun(sessions, 0)
    begun(sessions, 0)
    assert sessions.begin([wanted(0)], by_id=False) is None


def test_the_session_idle_for_longest_gives_its_slot_away(
    sessions: Sessions, clock: ManualClock
) -> None:
    first, second = begun(sessions, 0), begun(sessions, 0)
    clock.now += 100
    sessions.resume(incremental(first.id, 1), by_id=False)
    clock.now += 30
    third = begun(sessions, 0)
    assert sessions.resume(incremental(first.id, 2), by_id=False) is first
    assert sessions.resume(incremental(third.id, 1), by_id=False) is third
    gone = sessions.resume(incremental(second.id, 1), by_id=False)
    assert gone is ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def data(**fields: int) -> PartitionData:
    values = {"partition_index": 0, "high_watermark": 5, "log_start_offset": 0, **fields}
    return PartitionData(records=b"", **values)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (data(), data(), False),
        (data(), data(high_watermark=6), True),
        (data(), data(log_start_offset=2), True),
        (data(error_code=3), data(), True),
        (data(error_code=3), data(error_code=3), True),
    ],
)
def test_an_incremental_answer_carries_only_what_is_news(
    before: PartitionData, after: PartitionData, told: bool
) -> None:
    one = wanted(0)
    assert one.news(before), "the first time everything is news"
    assert one.news(after) is told


def test_records_are_always_news() -> None:
    one = wanted(0)
    one.news(data())
    full = data()
    full.records = b"batch"
    assert one.news(full)


def test_what_was_served_is_read_last_next_time(sessions: Sessions) -> None:
    session = begun(sessions, 0, 1, 2)
    first = next(iter(session.partitions.values()))
    session.rotate([first])
    assert [one.partition for one in session.in_turn(session.named)] == [1, 2, 0]
    sessions.resume(incremental(session.id, 1, 0, 3), by_id=False)
    assert [one.partition for one in session.in_turn(session.named)] == [1, 2, 0, 3], (
        "it keeps its turn"
    )


def test_a_request_names_its_partitions_in_order() -> None:
    request = incremental(0, 0, 3, 1)
    assert [one.partition for one in wanted_by(request)] == [3, 1]


def test_partitions_that_all_sessions_remember_are_limited(
    sessions: Sessions, clock: ManualClock
) -> None:
    first = begun(sessions, *range(60))
    assert sessions.begin([wanted(index) for index in range(41)], by_id=False) is None
    second = begun(sessions, *range(40))
    outcome = sessions.resume(incremental(second.id, 1, 40), by_id=False)
    assert outcome is ErrorCode.FETCH_SESSION_ID_NOT_FOUND, "it grew too large and is lost"
    sessions.end(first.id)
    sessions.end(first.id)
    third = begun(sessions, *range(100))
    clock.now += 121
    assert begun(sessions, *range(100)) is not third, "the idle one gave its place"
    assert len(sessions) == 1
