"""The rows of the hostile table about committed offsets, through a broker on a real socket.

What is expected is the table's column "Ours". After each row the next well-formed connection works,
and the broker's memory and open files are back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ottla.protocol.errors import ErrorCode as E
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from ottla.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from tests.hostile.conftest import Start
from tests.hostile.wire import WELL, Victim

WIDE = 300


@pytest.fixture(scope="module")
def broker(start: Start) -> Victim:
    victim = start("request.partitions.max=1000", "offsets.topic.num.partitions=1")
    victim.create("wide", WIDE)
    with victim.peer() as peer:
        assert codes(peer.ask(commit("warm", 1), 8)) == {0}
    victim.remember()
    return victim


@pytest.fixture(autouse=True)
def unharmed(broker: Victim) -> Iterator[None]:
    yield
    broker.unharmed()


def commit(
    group: str,
    *offsets: int,
    topic: str = WELL,
    metadata: str = "",
    first: int = 0,
    **more: Any,
) -> OffsetCommitRequest:
    parts = [
        OffsetCommitRequestPartition(
            partition_index=number, committed_offset=offset, committed_metadata=metadata
        )
        for number, offset in enumerate(offsets, first)
    ]
    topics = [OffsetCommitRequestTopic(name=topic, partitions=parts)]
    return OffsetCommitRequest(group_id=group, topics=topics, **more)


def fetch(*groups: str, topic: str = WELL, partition: int = 0) -> OffsetFetchRequest:
    topics = [OffsetFetchRequestTopics(name=topic, partition_indexes=[partition])]
    asked = [OffsetFetchRequestGroup(group_id=group, topics=topics) for group in groups]
    return OffsetFetchRequest(groups=asked)


def codes(answer: Any) -> set[int]:
    return {part.error_code for topic in answer.topics for part in topic.partitions}


def told(answer: Any) -> int:
    (part,) = answer.groups[0].topics[0].partitions
    assert part.error_code == 0
    return int(part.committed_offset)


def test_h98_the_empty_group_may_commit_and_read_but_not_delete(broker: Victim) -> None:
    with broker.peer() as peer:
        assert codes(peer.ask(commit("", 5), 8)) == {0}
        assert told(peer.ask(fetch(""), 8)) == 5
        parts = [OffsetDeleteRequestPartition(partition_index=0)]
        topics = [OffsetDeleteRequestTopic(name=WELL, partitions=parts)]
        answer = peer.ask(OffsetDeleteRequest(group_id="", topics=topics), 0)
        assert answer.error_code == E.INVALID_GROUP_ID


@pytest.mark.parametrize(
    ("member", "version", "error"),
    [
        ({"generation_id_or_member_epoch": 5, "member_id": "x"}, 8, E.ILLEGAL_GENERATION),
        ({"generation_id_or_member_epoch": 5, "member_id": "x"}, 9, E.GROUP_ID_NOT_FOUND),
        ({"generation_id_or_member_epoch": 2**31 - 1}, 8, E.ILLEGAL_GENERATION),
    ],
)
def test_h102_a_stranger_to_an_unknown_group_leaves_no_trace(
    broker: Victim, member: dict[str, Any], version: int, error: E
) -> None:
    with broker.peer() as peer:
        assert codes(peer.ask(commit("h102", 5, **member), version)) == {error}
        assert told(peer.ask(fetch("h102"), 8)) == -1


@pytest.mark.parametrize("offset", [-1, -2, 2**63 - 1, -(2**63)])
def test_h109_any_offset_is_taken(broker: Victim, offset: int) -> None:
    with broker.peer() as peer:
        assert codes(peer.ask(commit("h109", offset), 8)) == {0}
        assert told(peer.ask(fetch("h109"), 8)) == offset


def test_h109_metadata_that_are_too_large_are_refused(broker: Victim) -> None:
    with broker.peer() as peer:
        assert codes(peer.ask(commit("h109-m", 5, metadata="x" * 4097), 8)) == {
            E.OFFSET_METADATA_TOO_LARGE
        }
        assert codes(peer.ask(commit("h109-m", 6, metadata="x" * 4096), 8)) == {0}
        assert told(peer.ask(fetch("h109-m"), 8)) == 6


@pytest.mark.parametrize(
    ("topic", "first"), [("nothing", 0), (WELL, 1), (WELL, -1), (WELL, 2**31 - 1), ("", 0)]
)
def test_h109_what_is_not_there_is_unknown(broker: Victim, topic: str, first: int) -> None:
    with broker.peer() as peer:
        answer = peer.ask(commit("h109-u", 5, topic=topic, first=first), 8)
        assert codes(answer) == {E.UNKNOWN_TOPIC_OR_PARTITION}
        assert told(peer.ask(fetch("h109-u", topic=topic, partition=first), 8)) == -1


def test_more_than_a_batch_may_hold_is_refused_as_a_whole(broker: Victim) -> None:
    with broker.peer() as peer:
        request = commit("large", *range(WIDE), topic="wide", metadata="x" * 4000)
        assert codes(peer.ask(request, 8)) == {E.UNKNOWN_SERVER_ERROR}
        assert told(peer.ask(fetch("large", topic="wide"), 8)) == -1


def test_h28_more_than_a_request_may_name_is_refused(broker: Victim) -> None:
    with broker.peer() as peer:
        assert codes(peer.ask(commit("h28", *range(1001)), 8)) >= {E.INVALID_REQUEST}
        answer = peer.ask(fetch(*(f"g{number}" for number in range(1001))), 8)
        assert {group.error_code for group in answer.groups} == {E.INVALID_REQUEST}
        assert told(peer.ask(fetch("h28"), 8)) == -1


def test_h109_a_group_that_has_committed_its_fill_commits_no_more(start: Start) -> None:
    victim = start("offsets.topic.num.partitions=1", "group.offsets.bytes.max=2000")
    victim.create("wide", WIDE)
    with victim.peer() as peer:
        told = peer.ask(commit("h109-fill", *range(20), topic="wide"), 8)
        errors = [one.error_code for topic in told.topics for one in topic.partitions]
        assert errors == [0] * 10 + [E.INVALID_COMMIT_OFFSET_SIZE] * 10
        assert codes(peer.ask(commit("h109-fill", 7, topic="wide"), 8)) == {0}
        assert codes(peer.ask(commit("h109-more", 7, topic="wide"), 8)) == {0}
    assert "group.offsets.bytes.max" in victim.broker.said()
