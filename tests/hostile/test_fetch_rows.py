"""Rows of the hostile table about Fetch.

One request can show each; the broker, and what must hold after each row, is in rows.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ottla.protocol.errors import ErrorCode as E
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from ottla.protocol.messages.fetch import FetchRequest
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from tests.hostile.conftest import Start
from tests.hostile.rows import (
    FETCH_MAX,
    MAX,
    PARKED_MAX,
    SESSIONS_MAX,
    UNKNOWN_ID,
    WIDE,
    WIDE_BATCH,
    broker_of_rows,
)
from tests.hostile.wire import (
    WELL,
    Victim,
    batch,
    fetch,
    fetched,
    produced,
    request,
)


@pytest.fixture(scope="module")
def broker(start: Start) -> Victim:
    return broker_of_rows(start)


@pytest.fixture(autouse=True)
def unharmed(broker: Victim) -> Iterator[None]:
    yield
    broker.unharmed()


# --- Fetch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-1, -(2**63), 2**63 - 1])
def test_h66_an_offset_outside_the_log_is_out_of_range(broker: Victim, offset: int) -> None:
    with broker.peer() as peer:
        part = fetched(peer.ask(fetch(WELL, (0, offset)), 12))
        assert (part.error_code, part.high_watermark) == (E.OFFSET_OUT_OF_RANGE, -1)


@pytest.mark.parametrize("most", [0, -1, -(2**31), MAX])
def test_h67_an_answer_holds_one_batch_at_least_and_no_more_than_its_cap(
    broker: Victim, most: int
) -> None:
    everything = [(number, 1) for number in range(WIDE)]
    with broker.peer() as peer:
        asked = fetch("wide", *everything, max_bytes=most, partition_max_bytes=most)
        (topic,) = peer.ask(asked, 12).responses
        sizes = [len(part.records) for part in topic.partitions if part.records]
        assert sum(sizes) <= FETCH_MAX
        assert len(sizes) == (1 if most <= 0 else FETCH_MAX // WIDE_BATCH)


def test_h67_a_session_serves_its_partitions_in_turn(broker: Victim) -> None:
    everything = [(number, 1) for number in range(WIDE)]
    with broker.peer() as peer:
        first = peer.ask(fetch("wide", *everything, session_epoch=0), 12)
        served = {p.partition_index for p in first.responses[0].partitions if p.records}
        for epoch in (1, 2):
            more = {"session_id": first.session_id, "session_epoch": epoch}
            answer = peer.ask(FetchRequest(max_bytes=MAX, topics=[], **more), 12)
            served |= {p.partition_index for p in answer.responses[0].partitions if p.records}
        assert served == set(range(WIDE))
        end = {"session_id": first.session_id, "session_epoch": -1}
        peer.ask(FetchRequest(topics=[], **end), 12)


def test_h68_a_fetch_without_end_is_answered_when_the_longest_wait_is_over(broker: Victim) -> None:
    for_ever = fetch(WELL, (0, 0), min_bytes=MAX, max_wait_ms=MAX)
    with broker.peer() as peer:
        assert fetched(peer.ask(for_ever, 12)).error_code == 0


def test_h68_fetches_beyond_those_that_may_wait_are_answered_at_once(broker: Victim) -> None:
    for_ever = request(fetch("a.b", (0, 0), min_bytes=MAX, max_wait_ms=MAX), 12)
    peers = [broker.peer() for _ in range(2 * PARKED_MAX)]
    for peer in peers:
        peer.send(for_ever)
    for peer in peers:
        peer.answer()
        peer.close()
    assert broker.has_complained("(fetch.parked.max")


def test_h69_sessions_are_known_by_id_and_epoch_and_there_is_an_end_of_them(
    broker: Victim,
) -> None:
    with broker.peer() as peer:

        def session(number: int, epoch: int) -> Any:
            more = {"session_id": number, "session_epoch": epoch}
            return peer.ask(FetchRequest(topics=[], **more), 12)

        ids = [
            peer.ask(fetch(WELL, (0, 0), session_epoch=0), 12).session_id
            for _ in range(2 * SESSIONS_MAX)
        ]
        assert 0 in ids, "without a free slot a client goes on without a session"
        assert len([number for number in ids if number]) <= SESSIONS_MAX
        assert session(ids[0], 5).error_code == E.INVALID_FETCH_SESSION_EPOCH
        assert session(MAX, 1).error_code == E.FETCH_SESSION_ID_NOT_FOUND
        assert session(-5, 1).error_code == E.FETCH_SESSION_ID_NOT_FOUND
        for number in filter(None, ids):
            session(number, -1)
    assert broker.has_complained("(max.incremental.fetch.session.cache.slots")


def test_h71_no_node_is_a_follower_here(broker: Victim) -> None:
    with broker.peer() as peer:
        part = fetched(peer.ask(fetch(WELL, (0, 0), replica_id=5), 12))
        assert part.error_code in (E.NOT_LEADER_OR_FOLLOWER, E.UNKNOWN_LEADER_EPOCH)


@pytest.mark.parametrize(
    ("epoch", "error"), [(99, E.UNKNOWN_LEADER_EPOCH), (MAX, E.UNKNOWN_LEADER_EPOCH), (-1, E.NONE)]
)
def test_h72_an_epoch_yet_to_come_is_unknown(broker: Victim, epoch: int, error: E) -> None:
    with broker.peer() as peer:
        part = fetched(peer.ask(fetch(WELL, (0, 0), current_leader_epoch=epoch), 12))
        assert part.error_code == error


@pytest.mark.parametrize("topic_id", [UNKNOWN_ID, bytes(16)], ids=["unknown", "zero"])
def test_h73_a_topic_id_that_is_nobodys_is_unknown(broker: Victim, topic_id: bytes) -> None:
    with broker.peer() as peer:
        assert fetched(peer.ask(fetch(topic_id, (0, 0)), 13)).error_code == E.UNKNOWN_TOPIC_ID
        part = PartitionProduceData(index=0, records=batch(b"a"))
        data = [TopicProduceData(topic_id=topic_id, partition_data=[part])]
        answer = peer.ask(ProduceRequest(acks=1, timeout_ms=100, topic_data=data), 13)
        assert produced(answer)[0] == E.UNKNOWN_TOPIC_ID


def test_h73_a_topic_is_asked_for_by_its_name_or_its_id(broker: Victim) -> None:
    with broker.peer() as peer:
        asked = [MetadataRequestTopic(name=None, topic_id=UNKNOWN_ID)]
        (topic,) = peer.ask(MetadataRequest(topics=asked), 12).topics
        assert topic.error_code == E.UNKNOWN_TOPIC_ID
        both = [DeleteTopicState(name=WELL, topic_id=UNKNOWN_ID)]
        (result,) = peer.ask(DeleteTopicsRequest(topics=both, timeout_ms=100), 6).responses
        assert result.error_code == E.INVALID_REQUEST
