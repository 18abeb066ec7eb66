"""Cases of what is known of the cluster: ApiVersions, Metadata, topics, the node, its directory."""

from __future__ import annotations

from typing import Any

from ottla.handlers.registry import API
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from ottla.protocol.messages.describe_cluster import DescribeClusterRequest
from ottla.protocol.messages.describe_log_dirs import (
    DescribableLogDirTopic,
    DescribeLogDirsRequest,
)
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from tests.oracle.answers.case import each, error, success
from tests.oracle.answers.data_cases import UNKNOWN_ID, filled
from tests.oracle.answers.peer import CLOSED, Peer

METADATA, API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS = 3, 18, 19, 20
DESCRIBE_LOG_DIRS, DESCRIBE_CLUSTER = 35, 60

# --- ApiVersions -----------------------------------------------------------------------------


def api_versions(peer: Peer, version: int, name: str = "test", number: str = "1.0") -> Any:
    request = ApiVersionsRequest(client_software_name=name, client_software_version=number)
    return served(peer.ask(request, version))


def served(answer: Any) -> Any:
    """With the ranges by key, of those keys that ottla serves: others are not done yet."""
    keys = {one["api_key"]: one for one in answer["api_keys"] if one["api_key"] in API}
    return answer | {"api_keys": keys}


@success(API_VERSIONS)
def what_is_served(peer: Peer, version: int) -> Any:
    return api_versions(peer, version)


@each(API_VERSIONS, 0, higher=5, highest=32767)
def h12_version(peer: Peer, _version: int, given: int) -> Any:
    """Answered in v0."""
    raw = peer.exchange(peer.frame(API_VERSIONS, given, b"\0"))
    return peer.decoded(API_VERSIONS, 0, raw)


SOFTWARE = {
    "empty": ("", "1"),
    "empty_version": ("a", ""),
    "space": ("a b", "1"),
    "dash_first": ("-a", "1"),
    "dash_last": ("a-", "1"),
    "dots_inside": ("a.b-c", "1.0-x"),
    "unicode": ("ä", "1"),
    "newline": ("a\n", "1"),
}


@each(API_VERSIONS, 3, 4, **SOFTWARE)
def h13_software(peer: Peer, version: int, given: tuple[str, str]) -> Any:
    return api_versions(peer, version, *given)


# --- Metadata ----------------------------------------------------------------------------------


def metadata(peer: Peer, version: int, *names: str, **more: Any) -> Any:
    topics = [MetadataRequestTopic(name=name) for name in names]
    more = {"allow_auto_topic_creation": False} | more
    return peer.ask(MetadataRequest(topics=topics, **more), version)


@success(METADATA)
def a_topic_by_name(peer: Peer, version: int) -> Any:
    return metadata(peer, version, peer.topic(2))


@success(METADATA, range(1, 14))
def the_nodes_alone(peer: Peer, version: int) -> Any:
    return metadata(peer, version)


@success(METADATA, range(8, 14))
def allowed_operations(peer: Peer, version: int) -> Any:
    asked = {"include_topic_authorized_operations": True}
    if version <= 10:
        asked["include_cluster_authorized_operations"] = True
    return metadata(peer, version, peer.topic(), **asked)


@success(METADATA, (12, 13))
def a_topic_by_id(peer: Peer, version: int) -> Any:
    topics = [MetadataRequestTopic(name=None, topic_id=peer.id_of(peer.topic()))]
    return peer.ask(MetadataRequest(topics=topics), version)


@success(METADATA, (0, 1, 4, 9, 12, 13))
def a_topic_is_created_on_the_way(peer: Peer, version: int) -> Any:
    """What is compared is that it is there in the end, since Kafka answers before it is."""
    name = f"automatic-{version}"
    first = metadata(peer, version, name, allow_auto_topic_creation=True)
    return {"asked": len(first["topics"]), "is_internal": first["topics"][0].get("is_internal")}


@each(METADATA, 0, 4, 12, 13, unknown="nowhere", illegal="a/b", empty="", dots="..", long="x" * 250)
def h74_name(peer: Peer, version: int, given: str) -> Any:
    allowed = version < 4  # it could not say otherwise
    if allowed and given == "nowhere":
        return None
    return metadata(peer, version, given, allow_auto_topic_creation=allowed)


@error(METADATA)
def h74_name_that_collides_with_another(peer: Peer, version: int) -> Any:
    create(peer, 7, wanted("met.adata"))
    return metadata(peer, version, "met_adata", allow_auto_topic_creation=True)


@error(METADATA)
def h74_illegal_name_that_may_be_created(peer: Peer, version: int) -> Any:
    return metadata(peer, version, "a/b", allow_auto_topic_creation=True)


@each(METADATA, 12, 13, unknown=UNKNOWN_ID, zero=bytes(16))
def h73_id(peer: Peer, version: int, given: bytes) -> Any:
    topics = [MetadataRequestTopic(name=None, topic_id=given)]
    return peer.ask(MetadataRequest(topics=topics), version)


@error(METADATA, 10, 12, 13)
def h73_id_beside_a_name(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    both = [MetadataRequestTopic(name="another", topic_id=peer.id_of(topic))]
    request = MetadataRequest(topics=both, allow_auto_topic_creation=False)
    return peer.ask(request, version)


@error(METADATA, 12)
def ids_and_names_mixed(peer: Peer, version: int) -> Any:
    first, second = peer.topic(), peer.topic()
    mixed = [
        MetadataRequestTopic(name=first),
        MetadataRequestTopic(name=None, topic_id=peer.id_of(second)),
    ]
    return peer.ask(MetadataRequest(topics=mixed), version)


@error(METADATA, 1, 13)
def a_topic_twice(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    return metadata(peer, version, topic, topic)


# --- CreateTopics --------------------------------------------------------------------------------


def wanted(name: str, **more: Any) -> CreatableTopic:
    return CreatableTopic(**({"name": name, "num_partitions": 1, "replication_factor": 1} | more))


def create(peer: Peer, version: int, *topics: CreatableTopic, **more: Any) -> Any:
    answer = peer.ask(CreateTopicsRequest(topics=list(topics), timeout_ms=20_000, **more), version)
    if answer != CLOSED:
        for topic in answer["topics"]:
            if str(topic.get("topic_id", "None")) not in ("None", "0" * 32):
                topic["topic_id"] = "an id"
            if topic.get("configs"):
                topic["configs"] = {config["name"]: config for config in topic["configs"]}
    return answer


@success(CREATE_TOPICS)
def a_new_topic(peer: Peer, version: int) -> Any:
    settings = [CreatableTopicConfig(name="retention.ms", value="1234")]
    topic = wanted(f"created-{version}", num_partitions=2, configs=settings)
    return create(peer, version, topic)


@success(CREATE_TOPICS)
def only_validated(peer: Peer, version: int) -> Any:
    return create(peer, version, wanted(f"validated-{version}"), validate_only=True)


@success(CREATE_TOPICS)
def default_counts(peer: Peer, version: int) -> Any:
    topic = wanted(f"defaults-{version}", num_partitions=-1, replication_factor=-1)
    return create(peer, version, topic)


@success(CREATE_TOPICS, (7,))
def given_replicas(peer: Peer, version: int) -> Any:
    return create(peer, version, assigned("assigned", {0: [0], 1: [0]}))


def assigned(name: str, places: dict[int, list[int]], **more: Any) -> CreatableTopic:
    assignments = [
        CreatableReplicaAssignment(partition_index=number, broker_ids=ids)
        for number, ids in places.items()
    ]
    counts = {"num_partitions": -1, "replication_factor": -1} | more
    return wanted(name, assignments=assignments, **counts)


NAMES = {
    "empty": "",
    "dot": ".",
    "dots": "..",
    "path": "../x",
    "slash": "a/b",
    "nul": "a\0b",
    "long": "x" * 250,
    "longest": "y" * 249,
    "unicode": "thé",
    "newline": "a\n",
    "metadata": "__cluster_metadata",
}


@each(CREATE_TOPICS, 2, 7, **NAMES)
def h74_topic_name(peer: Peer, version: int, given: str) -> Any:
    return create(peer, version, wanted(given), validate_only=True)


@error(CREATE_TOPICS)
def h74_collision(peer: Peer, version: int) -> Any:
    one = create(peer, version, wanted("col.lision"))
    return [one, create(peer, version, wanted("col_lision"))]


@error(CREATE_TOPICS)
def it_exists(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    answers = [create(peer, version, wanted(topic), validate_only=only) for only in (True, False)]
    return answers


@error(CREATE_TOPICS, 2, 7)
def h75_twice(peer: Peer, version: int) -> Any:
    return create(peer, version, wanted("twice"), wanted("once"), wanted("twice"))


COUNTS: dict[str, dict[str, int]] = {
    "partitions_0": {"num_partitions": 0},
    "partitions_negative": {"num_partitions": -5},
    "replicas_0": {"replication_factor": 0},
    "replicas_negative": {"replication_factor": -2},
    "replicas_too_many": {"replication_factor": 3},
}


@each(CREATE_TOPICS, 2, 7, **COUNTS)
def h76(peer: Peer, version: int, given: dict[str, int]) -> Any:
    return create(peer, version, wanted(f"counts-{version}", **given))


@error(CREATE_TOPICS)
def h76_partitions_a_billion(peer: Peer, version: int) -> Any:
    return create(peer, version, wanted("a-billion", num_partitions=10**9))


ASSIGNMENTS = {
    "and_counts": assigned("assigned-too", {0: [0]}, num_partitions=1, replication_factor=1),
    "and_partitions": assigned("assigned-too", {0: [0]}, num_partitions=1),
    "replica_twice": assigned("assigned-too", {0: [0, 0]}),
    "replica_unknown": assigned("assigned-too", {0: [5]}),
    "replica_negative": assigned("assigned-too", {0: [-1]}),
    "no_replicas": assigned("assigned-too", {0: []}),
    "gap": assigned("assigned-too", {0: [0], 2: [0]}),
    "not_from_0": assigned("assigned-too", {1: [0]}),
    "other_sizes": assigned("assigned-too", {0: [0], 1: [0, 0]}),
}


@each(CREATE_TOPICS, 2, 7, **ASSIGNMENTS)
def h76_assignment(peer: Peer, version: int, given: CreatableTopic) -> Any:
    return create(peer, version, given, validate_only=True)


CONFIGS: dict[str, tuple[str, str | None]] = {
    "unknown": ("no.such.config", "1"),
    "empty_name": ("", "1"),
    "no_number": ("retention.ms", "soon"),
    "negative_size": ("segment.bytes", "-1"),
    "too_small": ("segment.bytes", "10"),
    "null": ("retention.ms", None),
    "empty": ("retention.ms", ""),
    "policy": ("cleanup.policy", "burn"),
    "policy_twice": ("cleanup.policy", "delete,delete"),
    "spaces": ("retention.ms", " 5 "),
    "ratio": ("min.cleanable.dirty.ratio", "1.5"),
    "boolean": ("preallocate", "maybe"),
    "codec": ("compression.type", "brotli"),
    "level": ("compression.gzip.level", "12"),
    "lags": ("min.compaction.lag.ms", str((1 << 63) - 1)),
    "broker_config": ("log.retention.ms", "5"),
    "other_case": ("Retention.ms", "5"),
}


@each(CREATE_TOPICS, 2, 7, **CONFIGS)
def h78_config(peer: Peer, version: int, given: tuple[str, str | None]) -> Any:
    settings = [CreatableTopicConfig(name=given[0], value=given[1])]
    return create(peer, version, wanted("configured", configs=settings), validate_only=True)


# --- DeleteTopics ----------------------------------------------------------------------------------


def remove(peer: Peer, version: int, *states: DeleteTopicState) -> Any:
    names = [state.name or "" for state in states]
    request = DeleteTopicsRequest(topic_names=names, topics=list(states), timeout_ms=20_000)
    return peer.ask(request, version)


@success(DELETE_TOPICS)
def a_topic_goes(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    return [remove(peer, version, DeleteTopicState(name=topic)) for _ in range(2)]


@success(DELETE_TOPICS, (6,))
def a_topic_goes_by_id(peer: Peer, version: int) -> Any:
    topic_id = peer.id_of(peer.topic())
    return [remove(peer, version, DeleteTopicState(topic_id=topic_id)) for _ in range(2)]


@each(DELETE_TOPICS, 1, 6, unknown="nowhere", illegal="a/b", empty="", dots="..")
def h74_deleted_name(peer: Peer, version: int, given: str) -> Any:
    return remove(peer, version, DeleteTopicState(name=given))


@each(
    DELETE_TOPICS,
    unknown=DeleteTopicState(topic_id=UNKNOWN_ID),
    neither=DeleteTopicState(),
    both=DeleteTopicState(name="nowhere", topic_id=UNKNOWN_ID),
)
def h73_deleted_id(peer: Peer, version: int, given: DeleteTopicState) -> Any:
    return remove(peer, version, given)


@error(DELETE_TOPICS, 1, 6)
def h75_deleted_twice(peer: Peer, version: int) -> Any:
    state = DeleteTopicState(name=peer.topic())
    return remove(peer, version, state, state)


@error(DELETE_TOPICS)
def h75_deleted_by_name_and_by_id(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    states = (DeleteTopicState(name=topic), DeleteTopicState(topic_id=peer.id_of(topic)))
    return remove(peer, version, *states)


# --- the node and its directory ------------------------------------------------------------------


@success(DESCRIBE_CLUSTER)
def the_cluster(peer: Peer, version: int) -> Any:
    asked = [False, True]
    return [
        peer.ask(DescribeClusterRequest(include_cluster_authorized_operations=one), version)
        for one in asked
    ]


@each(DESCRIBE_CLUSTER, 1, 2, controllers=2, unknown=3, zero=0)
def endpoint_type(peer: Peer, version: int, given: int) -> Any:
    return peer.ask(DescribeClusterRequest(endpoint_type=given), version)


@success(DESCRIBE_CLUSTER, (2,))
def fenced_nodes_too(peer: Peer, version: int) -> Any:
    return peer.ask(DescribeClusterRequest(include_fenced_brokers=True), version)


def directories(peer: Peer, version: int, topics: list[DescribableLogDirTopic]) -> Any:
    answer = peer.ask(DescribeLogDirsRequest(topics=topics), version)
    for result in answer["results"]:
        for name in ("total_bytes", "usable_bytes"):
            if result.get(name, -1) > 0:
                result[name] = "some"
    return answer


@success(DESCRIBE_LOG_DIRS)
def two_partitions_of_a_topic(peer: Peer, version: int) -> Any:
    topic = filled(peer, partitions=2)
    return directories(peer, version, [DescribableLogDirTopic(topic=topic, partitions=[0, 1, 1])])


@success(DESCRIBE_LOG_DIRS)
def null_means_all(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    answer = peer.ask(DescribeLogDirsRequest(topics=None), version)
    names = {one["name"] for result in answer["results"] for one in result["topics"]}
    return topic in names


@error(DESCRIBE_LOG_DIRS)
def directories_of_what_is_not_there(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    asked = [("nowhere", [0]), ("", [0]), ("a/b", [0]), (topic, [5, -1]), (topic, [])]
    answers = [
        directories(peer, version, [DescribableLogDirTopic(topic=name, partitions=numbers)])
        for name, numbers in asked
    ]
    return [*answers, directories(peer, version, [])]
