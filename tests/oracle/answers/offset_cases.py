"""Cases of committed offsets: OffsetCommit, OffsetFetch and OffsetDelete of groups without members."""

from __future__ import annotations

from typing import Any

from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
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
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from tests.oracle.answers.batches import batch
from tests.oracle.answers.case import each, error, success
from tests.oracle.answers.data_cases import PRODUCE, UNKNOWN_ID, produce
from tests.oracle.answers.peer import Peer
from tests.processes import wait_until

OFFSET_COMMIT, OFFSET_FETCH, OFFSET_DELETE = 8, 9, 47
COMMIT_IDS, FETCH_IDS, FETCH_GROUPS = 10, 10, 8
NOT_YET = ("coordinator_load_in_progress", "coordinator_not_available", "not_coordinator")


def coordinated(peer: Peer, group: str) -> str:
    """The group's name, once its coordinator is there to be asked."""

    def ready() -> bool:
        peer.ask(FindCoordinatorRequest(key=group), 1)
        answer = peer.ask(OffsetFetchRequest(group_id=group, topics=None), 5)
        assert isinstance(answer, dict), answer
        return answer["error_code"] not in NOT_YET

    wait_until(ready, f"the coordinator of {group}")
    return group


def a_group(peer: Peer) -> str:
    """A group of this case's own."""
    return coordinated(peer, f"group-{peer.case}")


def commit(
    peer: Peer,
    version: int,
    group: str,
    topic: str,
    *parts: tuple[Any, ...],
    topic_id: bytes | None = None,
    **more: Any,
) -> Any:
    """`parts` are (partition, offset[, leader epoch[, metadata]])."""
    names = ("partition_index", "committed_offset", "committed_leader_epoch", "committed_metadata")
    asked = [
        OffsetCommitRequestPartition(**dict(zip(names, part, strict=False)))
        for part in parts or [(0, 5)]
    ]
    if version >= COMMIT_IDS and topic_id is None:
        topic_id = peer.id_of(topic)
    wanted = OffsetCommitRequestTopic(name=topic, topic_id=topic_id or bytes(16), partitions=asked)
    request = OffsetCommitRequest(group_id=group, topics=[wanted], **more)
    return peer.ask(request, version)


def fetch(
    peer: Peer,
    version: int,
    group: str,
    topics: dict[str, list[int]] | None,
    topic_id: bytes | None = None,
    require_stable: bool = False,
    **more: Any,
) -> Any:
    if version < FETCH_GROUPS:
        named = (
            None
            if topics is None
            else [
                OffsetFetchRequestTopic(name=name, partition_indexes=numbers)
                for name, numbers in topics.items()
            ]
        )
        request = OffsetFetchRequest(group_id=group, topics=named, require_stable=require_stable)
        return peer.ask(request, version)
    wanted = None
    if topics is not None:
        wanted = []
        for name, numbers in topics.items():
            ident = topic_id
            if version >= FETCH_IDS and ident is None:
                ident = peer.id_of(name)
            wanted.append(
                OffsetFetchRequestTopics(
                    name=name, topic_id=ident or bytes(16), partition_indexes=numbers
                )
            )
    asked = OffsetFetchRequestGroup(group_id=group, topics=wanted, **more)
    return peer.ask(OffsetFetchRequest(groups=[asked], require_stable=require_stable), version)


def delete(peer: Peer, version: int, group: str, topic: str, *partitions: int) -> Any:
    parts = [OffsetDeleteRequestPartition(partition_index=number) for number in partitions]
    topics = [OffsetDeleteRequestTopic(name=topic, partitions=parts)]
    return peer.ask(OffsetDeleteRequest(group_id=group, topics=topics), version)


# --- OffsetCommit ------------------------------------------------------------------------------


@success(OFFSET_COMMIT)
def two_partitions_and_read_again(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(2), a_group(peer)
    committed = commit(peer, version, group, topic, (0, 5, 0, "mine"), (1, 2**62, -1, None))
    return [committed, fetch(peer, 7, group, {topic: [0, 1]})]


@success(OFFSET_COMMIT)
def an_offset_and_then_a_lesser_one(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    answers = [commit(peer, version, group, topic, (0, offset)) for offset in (9, 3)]
    return [*answers, fetch(peer, 7, group, {topic: [0]})]


@error(OFFSET_COMMIT, 2, 8, 9, 10)
def nothing(peer: Peer, version: int) -> Any:
    return peer.ask(OffsetCommitRequest(group_id=a_group(peer), topics=[]), version)


@each(
    OFFSET_COMMIT,
    2,
    8,
    10,
    minus_one=-1,
    minus_two=-2,
    least=-(2**63),
    most=2**63 - 1,
)
def h109_offset(peer: Peer, version: int, given: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    committed = commit(peer, version, group, topic, (0, given, 3))
    return [committed, fetch(peer, 5, group, {topic: [0]})]


@each(
    OFFSET_COMMIT,
    2,
    10,
    largest="x" * 4096,
    larger="x" * 4097,
    largest_of_two_bytes="é" * 4096,
    largest_of_four_bytes="𝄞" * 2048,
    larger_of_four_bytes="𝄞" * 2049,
)
def h109_metadata(peer: Peer, version: int, given: str) -> Any:
    topic, group = peer.topic(2), a_group(peer)
    committed = commit(peer, version, group, topic, (0, 1, -1, given), (1, 1))
    return [committed, fetch(peer, 7, group, {topic: [0, 1]})]


@error(OFFSET_COMMIT, 2, 8, 9)
def h109_unknown_topic(peer: Peer, version: int) -> Any:
    return commit(peer, version, a_group(peer), "no-such-topic", (0, 1), (1, 1))


@error(OFFSET_COMMIT, 10)
def h109_unknown_topic_id(peer: Peer, version: int) -> Any:
    return commit(peer, version, a_group(peer), "x", (0, 1), topic_id=UNKNOWN_ID)


@error(OFFSET_COMMIT, 10)
def no_topic_id(peer: Peer, version: int) -> Any:
    return commit(peer, version, a_group(peer), "x", (0, 1), topic_id=bytes(16))


@each(OFFSET_COMMIT, 2, 10, next=1, negative=-1, far=2**31 - 1)
def h109_unknown_partition(peer: Peer, version: int, given: int) -> Any:
    return commit(peer, version, a_group(peer), peer.topic(), (0, 1), (given, 1))


@error(OFFSET_COMMIT, 2, 8, 10)
def h98_the_empty_group(peer: Peer, version: int) -> Any:
    coordinated(peer, "")
    topic = peer.topic()
    return [commit(peer, version, "", topic, (0, 7)), fetch(peer, 5, "", {topic: [0]})]


@each(
    OFFSET_COMMIT,
    2,
    8,
    9,
    10,
    generation={"generation_id_or_member_epoch": 1},
    generation_zero={"generation_id_or_member_epoch": 0, "member_id": "x"},
    member={"member_id": "x"},
)
def h102_unknown_group(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    topic, group = peer.topic(), a_group(peer)
    return [
        commit(peer, version, group, topic, (0, 1), **given),
        fetch(peer, 5, group, {topic: [0]}),
    ]


@each(
    OFFSET_COMMIT,
    2,
    8,
    9,
    10,
    generation={"generation_id_or_member_epoch": 1},
    member_and_generation={"generation_id_or_member_epoch": 0, "member_id": "x"},
    member={"member_id": "x"},
)
def h102_group_without_members(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    topic, group = peer.topic(), a_group(peer)
    first = commit(peer, version, group, topic, (0, 1))
    return [
        first,
        commit(peer, version, group, topic, (0, 2), **given),
        fetch(peer, 5, group, {topic: [0]}),
    ]


@each(OFFSET_COMMIT, 7, 8, 10, alone={}, with_generation={"generation_id_or_member_epoch": 1})
def h102_unknown_instance(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    topic, group = peer.topic(), a_group(peer)
    first = commit(peer, version, group, topic, (0, 1))
    given = {"group_instance_id": "an-instance", **given}
    return [first, commit(peer, version, group, topic, (0, 2), **given)]


@each(OFFSET_COMMIT, 2, 4, hour=3_600_000, negative=-5)
def retention_time(peer: Peer, version: int, given: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    committed = commit(peer, version, group, topic, (0, 1), retention_time_ms=given)
    return [committed, fetch(peer, 5, group, {topic: [0]})]


@error(OFFSET_COMMIT, 2, 10)
def a_partition_twice(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    committed = commit(peer, version, group, topic, (0, 1), (0, 2))
    return [committed, fetch(peer, 5, group, {topic: [0]})]


@error(OFFSET_COMMIT, 2, 8)
def an_internal_topic(peer: Peer, version: int) -> Any:
    name, group = "__consumer_offsets", a_group(peer)
    committed = commit(peer, version, group, name, (0, 1))
    return [committed, fetch(peer, 5, group, {name: [0]})]


# --- OffsetFetch -------------------------------------------------------------------------------


@success(OFFSET_FETCH)
def what_was_committed_and_what_was_not(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(3), a_group(peer)
    commit(peer, 8, group, topic, (0, 5, 2, "mine"), (2, 7))
    return fetch(peer, version, group, {topic: [0, 1, 2]})


@success(OFFSET_FETCH, range(2, 11))
def all_of_a_group(peer: Peer, version: int) -> Any:
    topics, group = [peer.topic(2), peer.topic()], a_group(peer)
    for topic in topics:
        commit(peer, 8, group, topic, (0, 5, 2, "mine"))
    return fetch(peer, version, group, None)


@error(OFFSET_FETCH, 1, 5, 7, 8, 9, 10)
def a_group_that_nobody_knows(peer: Peer, version: int) -> Any:
    group, topic = a_group(peer), peer.topic()
    answers = [fetch(peer, version, group, {topic: [0, 9, -1]}), fetch(peer, version, group, {})]
    return [*answers, fetch(peer, version, group, None)] if version > 1 else answers


@error(OFFSET_FETCH, 8, 9, 10)
def several_groups_and_one_twice(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    other = coordinated(peer, group + "-other")
    commit(peer, 8, group, topic, (0, 5))
    commit(peer, 8, other, topic, (0, 6))
    asked = [
        OffsetFetchRequestGroup(group_id=one, topics=None) for one in (group, other, group, "x")
    ]
    coordinated(peer, "x")
    return peer.ask(OffsetFetchRequest(groups=asked), version)


@error(OFFSET_FETCH, 8, 10)
def no_groups(peer: Peer, version: int) -> Any:
    return peer.ask(OffsetFetchRequest(groups=[]), version)


@error(OFFSET_FETCH, 10)
def a_topic_id_that_nobody_knows(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    commit(peer, 8, group, topic, (0, 5))
    return [
        fetch(peer, version, group, {"x": [0, 1]}, topic_id=UNKNOWN_ID),
        fetch(peer, version, group, {"x": [0]}, topic_id=bytes(16)),
    ]


@error(OFFSET_FETCH, 1, 7, 8, 9)
def a_topic_that_nobody_knows(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    commit(peer, 8, group, topic, (0, 5))
    return fetch(peer, version, group, {"no-such-topic": [0, 1]})


@error(OFFSET_FETCH, 7, 8, 10)
def require_stable_without_transactions(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    commit(peer, 8, group, topic, (0, 5))
    return fetch(peer, version, group, {topic: [0]}, require_stable=True)


@each(
    OFFSET_FETCH,
    9,
    10,
    member={"member_id": "x"},
    epoch={"member_epoch": 1},
    member_and_epoch={"member_id": "x", "member_epoch": 1},
    empty={"member_id": "", "member_epoch": 0},
)
def h102_a_member_of_a_group_without(peer: Peer, version: int, given: dict[str, Any]) -> Any:
    topic, group = peer.topic(), a_group(peer)
    before = fetch(peer, version, group, {topic: [0]}, **given)
    commit(peer, 8, group, topic, (0, 5))
    return [
        before,
        fetch(peer, version, group, {topic: [0]}, **given),
        fetch(peer, version, group, None, **given),
    ]


@error(OFFSET_FETCH, 1, 7, 8, 10)
def h98_fetch_of_the_empty_group(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    return fetch(peer, version, coordinated(peer, ""), {topic: [0]})


@error(OFFSET_FETCH, 5, 10)
def a_deleted_topics_offsets(peer: Peer, version: int) -> Any:
    from ottla.protocol.messages.delete_topics import DeleteTopicsRequest

    gone, kept, group = peer.topic(2), peer.topic(), a_group(peer)
    commit(peer, 8, group, gone, (0, 5), (1, 6))
    commit(peer, 8, group, kept, (0, 7))
    peer.ask(DeleteTopicsRequest(topic_names=[gone], timeout_ms=10_000), 5)

    def settled() -> bool:
        answer = fetch(peer, 5, group, None)
        return [topic["name"] for topic in answer["topics"]] == [kept]

    wait_until(settled, "its offsets to be gone")
    return fetch(peer, version, group, None)


# --- OffsetDelete ------------------------------------------------------------------------------


@success(OFFSET_DELETE)
def one_of_two(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(3), a_group(peer)
    commit(peer, 8, group, topic, (0, 5), (1, 6))
    deleted = delete(peer, version, group, topic, 0, 2, 3, -1)
    return [deleted, fetch(peer, 7, group, {topic: [0, 1]})]


@error(OFFSET_DELETE)
def all_of_them_and_again(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    commit(peer, 8, group, topic, (0, 5))
    return [
        delete(peer, version, group, topic, 0),
        fetch(peer, 7, group, None),
        delete(peer, version, group, topic, 0),
        commit(peer, 8, group, topic, (0, 6)),
        fetch(peer, 7, group, None),
    ]


@error(OFFSET_DELETE)
def offsets_of_an_unknown_group(peer: Peer, version: int) -> Any:
    return delete(peer, version, a_group(peer), peer.topic(), 0)


@error(OFFSET_DELETE)
def h98_delete_of_the_empty_group(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    commit(peer, 8, coordinated(peer, ""), topic, (0, 7))
    return delete(peer, version, "", topic, 0)


@error(OFFSET_DELETE)
def offsets_of_an_unknown_topic(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    commit(peer, 8, group, topic, (0, 5))
    return delete(peer, version, group, "no-such-topic", 0)


@error(OFFSET_DELETE)
def no_offsets(peer: Peer, version: int) -> Any:
    topic, group = peer.topic(), a_group(peer)
    commit(peer, 8, group, topic, (0, 5))
    return [
        delete(peer, version, group, topic),
        peer.ask(OffsetDeleteRequest(group_id=group, topics=[]), version),
    ]


# --- Produce -----------------------------------------------------------------------------------


@error(PRODUCE, 9)
def h62_internal_topics(peer: Peer, version: int) -> Any:
    """One that is there, and one that nothing has needed yet."""
    a_group(peer)  # Kafka makes the topic when it is asked for a coordinator, ottla for a group
    names = ("__consumer_offsets", "__transaction_state")
    return [produce(peer, name, batch(1), version) for name in names]
