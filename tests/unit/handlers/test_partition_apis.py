"""CreatePartitions, DescribeTopicPartitions and what one node answers to those who move replicas.

The answers are those seen of Apache Kafka 4.3.1.
"""

from __future__ import annotations

from typing import Any

import pytest

from ottla.cluster.partitions import MorePartitions
from ottla.cluster.topics import TopicResult
from ottla.handlers.nodes import NOT_ASKED, TOPIC_OPERATIONS
from ottla.handlers.reply import Parked
from ottla.protocol.errors import ErrorCode as E
from ottla.protocol.messages import alter_partition_reassignments as moves
from ottla.protocol.messages import alter_replica_log_dirs as dirs
from ottla.protocol.messages import create_partitions as more
from ottla.protocol.messages import describe_topic_partitions as pages
from ottla.protocol.messages import elect_leaders as elections
from ottla.protocol.messages import list_partition_reassignments as moving
from ottla.protocol.messages import update_features as features
from tests.unit.handlers.node import FakeLog, FakeNode, topic_id, topic_image


@pytest.fixture
def node() -> FakeNode:
    return FakeNode(topic_image("big", 1, 5), topic_image("p1", 2, 3), topic_image("q2", 3, 2))


# --- CreatePartitions ----------------------------------------------------------------------


def growing(timeout_ms: int = 5000) -> more.CreatePartitionsRequest:
    assignment = more.CreatePartitionsAssignment(broker_ids=[0])
    return more.CreatePartitionsRequest(
        topics=[
            more.CreatePartitionsTopic(name="a", count=3, assignments=None),
            more.CreatePartitionsTopic(name="b", count=2, assignments=[assignment]),
            more.CreatePartitionsTopic(name="a", count=4, assignments=[]),
        ],
        timeout_ms=timeout_ms,
        validate_only=True,
    )


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_the_controller_is_asked_and_its_words_are_the_answer(node: FakeNode, version: int) -> None:
    results = [TopicResult("a", E.INVALID_REQUEST, "Duplicate topic name."), TopicResult("b")]
    node.controller.answer.complete(results)
    answer = node.ask(growing(), version).results
    assert node.controller.asked == [
        MorePartitions("a", 3, None),
        MorePartitions("b", 2, [[0]]),
        MorePartitions("a", 4, []),
    ]
    assert node.controller.validate_only
    assert [(r.name, r.error_code, r.error_message) for r in answer] == [
        ("a", E.INVALID_REQUEST, "Duplicate topic name."),
        ("b", E.NONE, None),
    ]


def test_what_takes_longer_than_the_client_waits_has_timed_out(node: FakeNode) -> None:
    parked = node.ask(growing(timeout_ms=250), 3)
    assert isinstance(parked, Parked)
    assert parked.deadline_s == 0.25
    results = node.as_sent(parked.resume(), 37, 3).results
    assert [(r.name, r.error_code, r.error_message) for r in results] == [
        ("a", E.REQUEST_TIMED_OUT, None),
        ("b", E.REQUEST_TIMED_OUT, None),
    ]


# --- DescribeTopicPartitions ---------------------------------------------------------------


def page(
    node: FakeNode, names: list[str], limit: int = 2000, cursor: tuple[str, int] | None = None
) -> tuple[list[tuple[int, str, list[int]]], tuple[str, int] | None]:
    request = pages.DescribeTopicPartitionsRequest(
        topics=[pages.TopicRequest(name=name) for name in names],
        response_partition_limit=limit,
        cursor=cursor and pages.RequestCursor(topic_name=cursor[0], partition_index=cursor[1]),
    )
    answer = node.ask(request, 0)
    following = answer.next_cursor
    topics = [
        (t.error_code, t.name, [p.partition_index for p in t.partitions]) for t in answer.topics
    ]
    return topics, following and (following.topic_name, following.partition_index)


BIG, P1 = (0, "big", [0, 1, 2, 3, 4]), (0, "p1", [0, 1, 2])


@pytest.mark.parametrize(
    ("names", "limit", "cursor", "topics", "following"),
    [
        ([], 2000, None, [BIG, P1, (0, "q2", [0, 1])], None),
        (["q2", "nope", "big", "q2"], 2000, None, [BIG, (3, "nope", []), (0, "q2", [0, 1])], None),
        (["big", "p1"], 3, None, [(0, "big", [0, 1, 2])], ("big", 3)),
        (["big", "p1"], 3, ("big", 3), [(0, "big", [3, 4]), (0, "p1", [0])], ("p1", 1)),
        (["big", "p1"], 5, None, [BIG], ("p1", 0)),
        (["big", "nope", "p1"], 5, None, [BIG], ("nope", 0)),
        (["big", "nope", "zzz"], 6, None, [BIG, (3, "nope", []), (3, "zzz", [])], None),
        (["aaa", "big"], 2, None, [(3, "aaa", []), (0, "big", [0, 1])], ("big", 2)),
        (["big", "p1"], 3, ("p1", 0), [P1], None),
        (["big", "p1"], 3, ("big", 99), [(0, "big", []), P1], None),
        (["big", "p1"], 3, ("c", 0), [(42, "big", []), (42, "p1", [])], None),
        (["big", "p1"], 3, ("nope", 1), [(42, "big", []), (42, "p1", [])], None),
        (["big", "p1"], 3, ("big", -1), [(42, "big", []), (42, "p1", [])], None),
        (["big"], 3, ("", 0), [(42, "big", [])], None),
        (["big"], 0, None, [(0, "big", [0])], ("big", 1)),
        (["big"], -1, None, [(0, "big", [0])], ("big", 1)),
        (["big"], 99_999, None, [BIG], None),
        ([], 3, ("big", 2), [(0, "big", [2, 3, 4])], ("p1", 0)),
        ([], 3, ("c", 2), [P1], ("q2", 0)),
        ([], 3, ("zzz", 2), [], None),
        ([], 3, ("c", -2), [], None),
        (["a/b", ".", "p1"], 3, None, [(17, ".", []), (17, "a/b", []), P1], None),
        (["", "p1"], 3, None, [(17, "", []), P1], None),
    ],
)
def test_topics_come_by_name_page_after_page(
    node: FakeNode, names: list[str], limit: int, cursor: Any, topics: Any, following: Any
) -> None:
    assert page(node, names, limit, cursor) == (topics, following)


def test_the_brokers_limit_holds_for_every_client() -> None:
    node = FakeNode(topic_image("big", 1, 5), max_request_partition_size_limit="2")
    assert page(node, [], 4) == ([(0, "big", [0, 1])], ("big", 2))


def test_a_partition_is_told_as_metadata_tells_it(node: FakeNode) -> None:
    names = [pages.TopicRequest(name="p1"), pages.TopicRequest(name="__consumer_offsets")]
    request = pages.DescribeTopicPartitionsRequest(topics=names)
    internal, topic = node.ask(request, 0).topics
    assert (internal.error_code, internal.is_internal) == (3, True)
    assert internal.topic_authorized_operations == TOPIC_OPERATIONS
    assert (topic.topic_id, topic.is_internal) == (topic_id(2), False)
    assert topic.topic_authorized_operations == TOPIC_OPERATIONS
    first = topic.partitions[0]
    assert (first.error_code, first.leader_id, first.leader_epoch) == (0, 0, 3)
    assert (first.replica_nodes, first.isr_nodes, first.offline_replicas) == ([0], [0], [])
    assert (first.eligible_leader_replicas, first.last_known_elr) == ([], [])


def test_a_partition_that_nobody_leads_says_so() -> None:
    node = FakeNode(topic_image("t", 1, leader=-1))
    (topic,) = node.ask(pages.DescribeTopicPartitionsRequest(), 0).topics
    assert topic.partitions[0].error_code == E.LEADER_NOT_AVAILABLE


def test_a_refused_topic_tells_no_operations(node: FakeNode) -> None:
    request = pages.DescribeTopicPartitionsRequest(
        topics=[pages.TopicRequest(name="p1")],
        cursor=pages.RequestCursor(topic_name="x", partition_index=0),
    )
    (topic,) = node.ask(request, 0).topics
    assert topic.topic_authorized_operations == NOT_ASKED


# --- ElectLeaders --------------------------------------------------------------------------


def elect(
    node: FakeNode, asked: list[tuple[str, list[int]]] | None, kind: int = 0, version: int = 2
) -> Any:
    named = asked and [
        elections.TopicPartitions(topic=name, partitions=numbers) for name, numbers in asked
    ]
    request = elections.ElectLeadersRequest(
        election_type=kind, topic_partitions=asked if asked in (None, []) else named
    )
    answer = node.ask(request, version)
    results = [
        (r.topic, [(p.partition_id, p.error_code, p.error_message) for p in r.partition_result])
        for r in answer.replica_election_results
    ]
    return answer.error_code, results


NOT_NEEDED = (E.ELECTION_NOT_NEEDED, "Leader election not needed for topic partition.")


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("kind", [0, 1])
def test_a_partition_that_is_led_needs_no_election(node: FakeNode, kind: int, version: int) -> None:
    assert elect(node, [("p1", [0, 0]), ("p1", [1])], kind, version) == (
        0,
        [("p1", [(0, *NOT_NEEDED), (0, *NOT_NEEDED)]), ("p1", [(1, *NOT_NEEDED)])],
    )


def test_what_is_not_there_cannot_be_led(node: FakeNode) -> None:
    unknown = E.UNKNOWN_TOPIC_OR_PARTITION
    assert elect(node, [("nope", [0]), ("p1", [99, -1]), ("", [0])]) == (
        0,
        [
            ("nope", [(0, unknown, "No such topic as nope")]),
            (
                "p1",
                [
                    (99, unknown, "No such partition as p1-99"),
                    (-1, unknown, "No such partition as p1--1"),
                ],
            ),
            ("", [(0, unknown, "No such topic as ")]),
        ],
    )


def test_all_partitions_are_every_topic_with_nothing_elected(node: FakeNode) -> None:
    assert elect(node, None) == (0, [("big", []), ("p1", []), ("q2", [])])
    assert elect(node, []) == (0, [])


def test_an_unknown_kind_of_election_is_refused_for_each_and_all(node: FakeNode) -> None:
    refusal = (0, E.INVALID_REQUEST, "Unknown election type 5")
    assert elect(node, [("p1", [0])], 5) == (E.INVALID_REQUEST, [("p1", [refusal])])


@pytest.mark.parametrize(
    ("kind", "error"),
    [(0, E.PREFERRED_LEADER_NOT_AVAILABLE), (1, E.ELIGIBLE_LEADERS_NOT_AVAILABLE)],
)
def test_where_nobody_leads_there_is_nobody_to_elect(kind: int, error: E) -> None:
    node = FakeNode(topic_image("t", 1, leader=-1))
    _, [(_, [(_, code, _)])] = elect(node, [("t", [0])], kind)
    assert code == error


# --- reassignments -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number", "replicas", "error", "said"),
    [
        ("p1", 0, [0], E.NONE, None),
        ("p1", 0, None, E.NO_REASSIGNMENT_IN_PROGRESS, None),
        ("nope", 0, [0], 3, "Unable to find a topic named nope."),
        ("nope", 0, None, 3, "Unable to find a topic named nope."),
        ("p1", 99, [0], 3, "Unable to find partition p1:99."),
        ("p1", -1, None, 3, "Unable to find partition p1:-1."),
        ("p1", 0, [77], 39,
         "The manual partition assignment includes broker 77, but no such broker is registered."),
        ("p1", 0, [0, 0], 39,
         "The manual partition assignment includes the broker 0 more than once."),
        ("p1", 0, [], 39, "The manual partition assignment includes an empty replica list."),
        ("p1", 0, [-1], 39,
         "The manual partition assignment includes broker -1, but no such broker is registered."),
    ],
)  # fmt: skip
def test_replicas_stay_where_they_are(
    node: FakeNode, name: str, number: int, replicas: list[int] | None, error: int, said: Any
) -> None:
    for version, may_resize in ((0, True), (1, True), (1, False)):
        partition = moves.ReassignablePartition(partition_index=number, replicas=replicas)
        answer = node.ask(
            moves.AlterPartitionReassignmentsRequest(
                allow_replication_factor_change=may_resize,
                topics=[moves.ReassignableTopic(name=name, partitions=[partition])],
            ),
            version,
        )
        assert (answer.error_code, answer.error_message) == (0, None)
        assert answer.allow_replication_factor_change is may_resize
        (one,) = answer.responses[0].partitions
        assert (one.partition_index, one.error_code, one.error_message) == (number, error, said)


@pytest.mark.parametrize("topics", [None, [], ["p1"], ["nope"]])
def test_no_reassignment_is_ever_under_way(node: FakeNode, topics: list[str] | None) -> None:
    named = None if topics is None else [
        moving.ListPartitionReassignmentsTopics(name=name, partition_indexes=[0])
        for name in topics
    ]  # fmt: skip
    answer = node.ask(moving.ListPartitionReassignmentsRequest(topics=named), 0)
    assert (answer.error_code, answer.error_message, answer.topics) == (0, None, [])


# --- AlterReplicaLogDirs -------------------------------------------------------------------


def moved(node: FakeNode, *asked: tuple[str, str, list[int]], version: int = 2) -> dict[str, Any]:
    request = dirs.AlterReplicaLogDirsRequest(
        dirs=[
            dirs.AlterReplicaLogDir(
                path=path, topics=[dirs.AlterReplicaLogDirTopic(name=name, partitions=numbers)]
            )
            for path, name, numbers in asked
        ]
    )
    return {
        topic.topic_name: {p.partition_index: p.error_code for p in topic.partitions}
        for topic in node.ask(request, version).results
    }


@pytest.mark.parametrize("version", [1, 2])
def test_the_one_directory_is_fine_and_any_other_is_not_there(node: FakeNode, version: int) -> None:
    node.partition("p1", 0, FakeLog())
    here = node.table.directory.path
    assert moved(node, (here, "p1", [0, 0]), version=version) == {"p1": {0: E.NONE}}
    assert moved(node, (here, "p1", [9]), version=version) == {"p1": {9: 3}}
    for path in ("/nope", "data", f"{here}/", ""):
        assert moved(node, (path, "p1", [0]), version=version) == {"p1": {0: E.LOG_DIR_NOT_FOUND}}
        assert moved(node, (path, "nope", [0])) == {"nope": {0: E.LOG_DIR_NOT_FOUND}}


def test_the_last_directory_named_for_a_partition_counts(node: FakeNode) -> None:
    node.partition("p1", 0, FakeLog())
    here = node.table.directory.path
    assert moved(node, (here, "p1", [0]), ("/x", "p1", [0])) == {"p1": {0: E.LOG_DIR_NOT_FOUND}}
    assert moved(node, ("/x", "p1", [0]), (here, "p1", [0])) == {"p1": {0: E.NONE}}


def test_a_directory_that_is_offline_says_so(node: FakeNode) -> None:
    node.table.failure = OSError()
    here = node.table.directory.path
    assert moved(node, (here, "p1", [0])) == {"p1": {0: E.KAFKA_STORAGE_ERROR}}


# --- UpdateFeatures ------------------------------------------------------------------------


def update(node: FakeNode, version: int, *asked: tuple[str, int, int]) -> tuple[int, Any, Any]:
    request = features.UpdateFeaturesRequest(
        feature_updates=[
            features.FeatureUpdateKey(
                feature=name,
                max_version_level=level,
                upgrade_type=kind,
                allow_downgrade=kind == 2,
            )
            for name, level, kind in asked
        ]
    )
    answer = node.ask(request, version)
    results = [(r.feature, r.error_code, r.error_message) for r in answer.results]
    return answer.error_code, answer.error_message, results


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("kind", [1, 2])
def test_a_feature_may_be_set_to_what_it_is(node: FakeNode, version: int, kind: int) -> None:
    results = [("metadata.version", 0, "NONE")] if version < 2 else []
    assert update(node, version, ("metadata.version", 30, kind)) == (0, None, results)
    assert update(node, version) == (0, None, [])


INVALID = "Invalid update version {} for feature {}. "


@pytest.mark.parametrize(
    ("name", "level", "kind", "said"),
    [
        ("nope", 1, 1, INVALID.format(1, "nope")
         + "Local controller 0 does not support this feature."),
        ("nope", 0, 2, INVALID.format(0, "nope") + "Feature nope not found."),
        ("", 30, 1, INVALID.format(30, "") + "Local controller 0 does not support this feature."),
        ("metadata.version", 31, 1, INVALID.format(31, "metadata.version")
         + "Local controller 0 only supports versions 7-30"),
        ("metadata.version", 3, 3, INVALID.format(3, "metadata.version")
         + "Local controller 0 only supports versions 7-30"),
        ("metadata.version", -1, 1, INVALID.format(-1, "metadata.version")
         + "A feature version cannot be less than 0."),
        ("metadata.version", 20, 1, INVALID.format(20, "metadata.version")
         + "Can't downgrade the version of this feature without setting the upgrade type to "
         "either safe or unsafe downgrade."),
        ("metadata.version", 20, 2, "Unsupported metadata.version downgrade from 30 to 20. "
         "Refusing to perform the requested downgrade because it might delete metadata "
         "information."),
        ("metadata.version", 20, 3, "Unsupported metadata.version downgrade from 30 to 20. "
         "Unsafe metadata downgrade is not supported in this version."),
        ("metadata.version", 30, 0, INVALID.format(30, "metadata.version")
         + "The controller does not support the given upgrade type."),
        ("metadata.version", 30, 9, INVALID.format(30, "metadata.version")
         + "The controller does not support the given upgrade type."),
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_kafkas_words(
    node: FakeNode, name: str, level: int, kind: int, said: str
) -> None:
    prefix = "The update failed for all features since the following feature had an error: "
    for version in (1, 2):
        expected = (E.INVALID_UPDATE_VERSION, prefix + said, [])
        assert update(node, version, (name, level, kind)) == expected


def test_before_kinds_of_upgrade_there_was_leave_to_downgrade(node: FakeNode) -> None:
    assert "without setting the upgrade type" in update(node, 0, ("metadata.version", 20, 1))[1]
    assert "might delete metadata" in update(node, 0, ("metadata.version", 20, 2))[1]


def test_of_a_feature_named_twice_the_last_counts(node: FakeNode) -> None:
    asked = (("metadata.version", 29, 2), ("metadata.version", 30, 1))
    assert update(node, 2, *asked)[0] == 0
    assert update(node, 2, *reversed(asked))[0] == E.INVALID_UPDATE_VERSION
