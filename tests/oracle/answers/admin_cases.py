"""Cases of administration: configs, partitions, elections, reassignments, features, coordinators."""

from __future__ import annotations

from typing import Any

from ottla.protocol.messages import alter_configs, incremental_alter_configs
from ottla.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from ottla.protocol.messages.alter_replica_log_dirs import (
    AlterReplicaLogDir,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirTopic,
)
from ottla.protocol.messages.create_partitions import (
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
)
from ottla.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
)
from ottla.protocol.messages.describe_log_dirs import DescribeLogDirsRequest
from ottla.protocol.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    RequestCursor,
    TopicRequest,
)
from ottla.protocol.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.list_config_resources import ListConfigResourcesRequest
from ottla.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsTopics,
)
from ottla.protocol.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest
from tests.oracle.answers.case import each, error, success
from tests.oracle.answers.offset_cases import a_group
from tests.oracle.answers.peer import Peer
from tests.processes import wait_until

FIND_COORDINATOR, DESCRIBE_CONFIGS, ALTER_CONFIGS, MOVE_LOGS = 10, 32, 33, 34
CREATE_PARTITIONS, ELECT, INCREMENTAL, REASSIGN, REASSIGNMENTS = 37, 43, 44, 45, 46
UPDATE_FEATURES, CONFIG_RESOURCES, TOPIC_PARTITIONS = 57, 74, 75
TOPIC, BROKER, BROKER_LOGGER, UNKNOWN_TYPE = 2, 4, 8, 99
SET, DELETE, APPEND, SUBTRACT = range(4)
BATCHED_SINCE = 4

# --- coordinators ------------------------------------------------------------------------------


def coordinator(peer: Peer, version: int, *keys: str, key_type: int = 0) -> Any:
    request = FindCoordinatorRequest(
        key=keys[0] if keys else "", key_type=key_type, coordinator_keys=list(keys)
    )
    return peer.ask(request, version)


@success(FIND_COORDINATOR)
def of_a_group(peer: Peer, version: int) -> Any:
    """Kafka has none before it has made its topic, on the first question."""
    found: list[Any] = []

    def is_there() -> bool:
        found[:] = [coordinator(peer, version, "a-group")]
        return "coordinator_not_available" not in repr(found)

    wait_until(is_there, "a coordinator")
    return found


@each(FIND_COORDINATOR, 1, 3, 4, 6, unknown=7, negative=-1)
def key_type(peer: Peer, version: int, given: int) -> Any:
    return coordinator(peer, version, "a-group", key_type=given)


@error(FIND_COORDINATOR, 4, 6)
def several_keys_and_none(peer: Peer, version: int) -> Any:
    of_a_group(peer, version)
    return [coordinator(peer, version, *keys) for keys in (("a", "b", "a"), ())]


# --- configs -----------------------------------------------------------------------------------


def described(peer: Peer, version: int, *resources: DescribeConfigsResource, **more: Any) -> Any:
    """Settings by name, so that one too many is one difference."""
    answer = peer.ask(DescribeConfigsRequest(resources=list(resources), **more), version)
    for result in answer["results"]:
        result["configs"] = {config["name"]: config for config in result["configs"]}
    return answer


def resource(kind: int, name: str, *keys: str) -> DescribeConfigsResource:
    return DescribeConfigsResource(
        resource_type=kind, resource_name=name, configuration_keys=list(keys) or None
    )


@success(DESCRIBE_CONFIGS)
def all_of_a_topic(peer: Peer, version: int) -> Any:
    topic = peer.topic(retention_ms="1234")
    return described(peer, version, resource(TOPIC, topic))


@success(DESCRIBE_CONFIGS)
def some_with_synonyms(peer: Peer, version: int) -> Any:
    topic = peer.topic(retention_ms="1234")
    one = resource(TOPIC, topic, "retention.ms", "segment.bytes", "no.such.config")
    return described(peer, version, one, include_synonyms=True)


@error(DESCRIBE_CONFIGS)
def the_broker(peer: Peer, version: int) -> Any:
    one = resource(BROKER, "0", "log.segment.bytes", "num.partitions")
    return described(peer, version, one, include_synonyms=True)


RESOURCES = {
    "unknown_topic": resource(TOPIC, "nowhere"),
    "illegal_topic": resource(TOPIC, "a/b"),
    "empty_topic": resource(TOPIC, ""),
    "unknown_broker": resource(BROKER, "7"),
    "broker_by_name": resource(BROKER, "here"),
    "cluster_default": resource(BROKER, "", "retention.ms"),
    "unknown_type": resource(UNKNOWN_TYPE, "x"),
    "no_keys": DescribeConfigsResource(
        resource_type=TOPIC, resource_name="nowhere", configuration_keys=[]
    ),
}


@each(DESCRIBE_CONFIGS, 1, 4, **RESOURCES)
def description_of(peer: Peer, version: int, given: DescribeConfigsResource) -> Any:
    return described(peer, version, given)


def alter(peer: Peer, version: int, kind: int, name: str, **settings: str | None) -> Any:
    configs = [
        alter_configs.AlterableConfig(name=key.replace("_", "."), value=value)
        for key, value in settings.items()
    ]
    one = alter_configs.AlterConfigsResource(
        resource_type=kind, resource_name=name, configs=configs
    )
    return peer.ask(alter_configs.AlterConfigsRequest(resources=[one]), version)


@success(ALTER_CONFIGS)
def all_is_replaced(peer: Peer, version: int) -> Any:
    topic = peer.topic(retention_ms="1234")
    answer = alter(peer, version, TOPIC, topic, cleanup_policy="compact")
    return [answer, settled(peer, topic, "cleanup.policy", "compact")]


def settled(peer: Peer, topic: str, key: str, value: str) -> Any:
    """A topic's settings once `key` is seen to be `value`: Kafka answers before they hold."""
    found: list[Any] = []

    def holds() -> bool:
        found[:] = [described(peer, 1, resource(TOPIC, topic))]
        return bool(found[0]["results"][0]["configs"][key]["value"] == value)

    wait_until(holds, f"{key} of {topic}")
    return found


BAD_SETTINGS: dict[str, dict[str, str | None]] = {
    "unknown": {"no_such_config": "1"},
    "class_name": {"interceptor_classes": "java.lang.Runtime"},
    "file_path": {"ssl_keystore_location": "/etc/passwd"},
    "negative_size": {"segment_bytes": "-1"},
    "no_number": {"retention_ms": "soon"},
    "null": {"retention_ms": None},
    "broker_config": {"log_retention_ms": "5"},
}


@each(ALTER_CONFIGS, 0, 2, **BAD_SETTINGS)
def h78_setting(peer: Peer, version: int, given: dict[str, str | None]) -> Any:
    return alter(peer, version, TOPIC, peer.topic(), **given)


@each(ALTER_CONFIGS, 0, 2, unknown=(TOPIC, "nowhere"), illegal=(TOPIC, "a/b"), broker=(BROKER, "7"))
def settings_of(peer: Peer, version: int, given: tuple[int, str]) -> Any:
    return alter(peer, version, *given, retention_ms="5")


Change = tuple[str, int, str | None]


def change(peer: Peer, version: int, kind: int, name: str, *changes: Change) -> Any:
    configs = [
        incremental_alter_configs.AlterableConfig(name=key, config_operation=operation, value=value)
        for key, operation, value in changes
    ]
    one = incremental_alter_configs.AlterConfigsResource(
        resource_type=kind, resource_name=name, configs=configs
    )
    request = incremental_alter_configs.IncrementalAlterConfigsRequest(resources=[one])
    return peer.ask(request, version)


@success(INCREMENTAL)
def each_operation(peer: Peer, version: int) -> Any:
    topic = peer.topic(retention_ms="1234", cleanup_policy="delete")
    changes: list[Change] = [
        ("cleanup.policy", APPEND, "compact"),
        ("cleanup.policy", SUBTRACT, "delete"),
        ("retention.ms", DELETE, None),
        ("segment.bytes", SET, str(1 << 21)),
    ]
    answers = [change(peer, version, TOPIC, topic, one) for one in changes]
    return [answers, settled(peer, topic, "segment.bytes", str(1 << 21))]


BAD_CHANGES: dict[str, tuple[Change, ...]] = {
    "unknown": (("no.such.config", SET, "1"),),
    "class_name": (("interceptor.classes", SET, "java.lang.Runtime"),),
    "file_path": (("ssl.keystore.location", SET, "/etc/passwd"),),
    "negative_size": (("segment.bytes", SET, "-1"),),
    "no_number": (("retention.ms", SET, "soon"),),
    "null": (("retention.ms", SET, None),),
    "append_to_no_list": (("retention.ms", APPEND, "5"),),
    "twice": (("retention.ms", SET, "5"), ("retention.ms", SET, "6")),
}


@each(INCREMENTAL, 0, 1, **BAD_CHANGES)
def h78_change(peer: Peer, version: int, given: tuple[Change, ...]) -> Any:
    return change(peer, version, TOPIC, peer.topic(), *given)


@each(INCREMENTAL, 0, 1, unknown=(TOPIC, "nowhere"), illegal=(TOPIC, "a/b"), broker=(BROKER, "7"))
def change_of(peer: Peer, version: int, given: tuple[int, str]) -> Any:
    return change(peer, version, *given, ("retention.ms", SET, "5"))


@error(INCREMENTAL)
def an_unknown_operation(peer: Peer, version: int) -> Any:
    return change(peer, version, TOPIC, peer.topic(), ("retention.ms", 9, "5"))


@error(INCREMENTAL)
def a_resource_twice_by_operation(peer: Peer, version: int) -> Any:
    one = incremental_alter_configs.AlterConfigsResource(
        resource_type=TOPIC,
        resource_name=peer.topic(),
        configs=[
            incremental_alter_configs.AlterableConfig(
                name="retention.ms", config_operation=SET, value="5"
            )
        ],
    )
    request = incremental_alter_configs.IncrementalAlterConfigsRequest(resources=[one, one])
    with peer.less_patient():
        return peer.ask(request, version)


@error(INCREMENTAL)
def an_unknown_setting_of_the_broker(peer: Peer, version: int) -> Any:
    return change(peer, version, BROKER, "0", ("no.such.config", SET, "1"))


@error(INCREMENTAL)
def settings_of_an_unknown_type(peer: Peer, version: int) -> Any:
    return change(peer, version, UNKNOWN_TYPE, "x", ("retention.ms", SET, "5"))


@error(ALTER_CONFIGS)
def settings_of_a_type_that_is_unknown(peer: Peer, version: int) -> Any:
    return alter(peer, version, UNKNOWN_TYPE, "x", retention_ms="5")


@error(ALTER_CONFIGS)
def a_resource_twice(peer: Peer, version: int) -> Any:
    one = alter_configs.AlterConfigsResource(
        resource_type=TOPIC,
        resource_name=peer.topic(),
        configs=[alter_configs.AlterableConfig(name="retention.ms", value="5")],
    )
    with peer.less_patient():
        return peer.ask(alter_configs.AlterConfigsRequest(resources=[one, one]), version)


@success(CONFIG_RESOURCES)
def of_client_metrics_or_all(peer: Peer, version: int) -> Any:
    """Of all there are here, the topics that other cases have made are left out."""
    answer = peer.ask(ListConfigResourcesRequest(resource_types=[]), version)
    kept = [
        one for one in answer["config_resources"] if one.get("resource_type") not in (TOPIC, None)
    ]
    return answer | {"config_resources": kept}


@each(CONFIG_RESOURCES, unknown=[UNKNOWN_TYPE], brokers=[BROKER], brokers_twice=[BROKER, BROKER])
def resource_types(peer: Peer, version: int, given: list[int]) -> Any:
    return peer.ask(ListConfigResourcesRequest(resource_types=given), version)


# --- partitions --------------------------------------------------------------------------------


def grow(peer: Peer, version: int, *topics: CreatePartitionsTopic, **more: Any) -> Any:
    request = CreatePartitionsRequest(topics=list(topics), timeout_ms=20_000, **more)
    return peer.ask(request, version)


def more_of(name: str, count: int, *places: list[int]) -> CreatePartitionsTopic:
    assignments = [CreatePartitionsAssignment(broker_ids=ids) for ids in places]
    return CreatePartitionsTopic(name=name, count=count, assignments=assignments or None)


@success(CREATE_PARTITIONS)
def two_more(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    return [
        grow(peer, version, more_of(topic, 5), validate_only=True),
        grow(peer, version, more_of(topic, 3)),
        grow(peer, version, more_of(topic, 4, [0])),
    ]


COUNTS = {"same": 2, "fewer": 1, "none": 0, "negative": -3}


@each(CREATE_PARTITIONS, 0, 3, **COUNTS)
def h76_count(peer: Peer, version: int, given: int) -> Any:
    return grow(peer, version, more_of(peer.topic(2), given))


@each(CREATE_PARTITIONS, unknown="nowhere", illegal="a/b", empty="")
def partitions_of(peer: Peer, version: int, given: str) -> Any:
    return grow(peer, version, more_of(given, 3))


@error(CREATE_PARTITIONS)
def h76_a_billion(peer: Peer, version: int) -> Any:
    return grow(peer, version, more_of(peer.topic(), 10**9))


@error(CREATE_PARTITIONS)
def an_internal_topic(peer: Peer, version: int) -> Any:
    a_group(peer)  # it is made when somebody asks for it
    return grow(peer, version, more_of("__consumer_offsets", 60), validate_only=True)


PLACES = {"unknown": ([5],), "twice": ([0, 0],), "none": ([],), "too_many": ([0], [0])}


@each(CREATE_PARTITIONS, **PLACES)
def h76_places(peer: Peer, version: int, given: tuple[list[int], ...]) -> Any:
    return grow(peer, version, more_of(peer.topic(), 2, *given))


@error(CREATE_PARTITIONS)
def h75_twice(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    return grow(peer, version, more_of(topic, 2), more_of(topic, 3))


def partitions(peer: Peer, version: int, *names: str, **more: Any) -> Any:
    topics = [TopicRequest(name=name) for name in names]
    return peer.ask(DescribeTopicPartitionsRequest(topics=topics, **more), version)


@success(TOPIC_PARTITIONS)
def page_by_page(peer: Peer, version: int) -> Any:
    names = (peer.topic(3), peer.topic(2))
    cursor = RequestCursor(topic_name=names[0], partition_index=2)
    return [
        partitions(peer, version, *names),
        partitions(peer, version, *names, response_partition_limit=2),
        partitions(peer, version, *names, response_partition_limit=2, cursor=cursor),
    ]


@each(TOPIC_PARTITIONS, unknown="nowhere", illegal="a/b", empty="", dots="..")
def described_name(peer: Peer, version: int, given: str) -> Any:
    return partitions(peer, version, given)


@each(TOPIC_PARTITIONS, other_topic=("zzz", 0), past_the_end=("", 9), negative=("", -1))
def cursor_at(peer: Peer, version: int, given: tuple[str, int]) -> Any:
    topic = peer.topic()
    cursor = RequestCursor(topic_name=given[0] or topic, partition_index=given[1])
    return partitions(peer, version, topic, cursor=cursor)


# --- elections, reassignments, features ----------------------------------------------------------


def elect(peer: Peer, version: int, kind: int, *wanted: tuple[str, list[int]]) -> Any:
    there = [TopicPartitions(topic=name, partitions=numbers) for name, numbers in wanted]
    request = ElectLeadersRequest(election_type=kind, topic_partitions=there, timeout_ms=20_000)
    return peer.ask(request, version)


@success(ELECT)
def no_election_is_needed(peer: Peer, version: int) -> Any:
    topic = peer.topic(2)
    kinds = (0,) if version == 0 else (0, 1)
    return [elect(peer, version, kind, (topic, [0, 1])) for kind in kinds]


@error(ELECT, 0, 2)
def election_where_nothing_is(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    asked = [("nowhere", [0]), (topic, [7]), (topic, [-1]), (topic, [])]
    return [elect(peer, version, 0, one) for one in asked]


@error(ELECT, 1, 2)
def an_unknown_kind_of_election(peer: Peer, version: int) -> Any:
    return elect(peer, version, 9, (peer.topic(), [0]))


def reassign(peer: Peer, version: int, topic: str, number: int, replicas: list[int] | None) -> Any:
    one = ReassignablePartition(partition_index=number, replicas=replicas)
    topics = [ReassignableTopic(name=topic, partitions=[one])]
    request = AlterPartitionReassignmentsRequest(topics=topics, timeout_ms=20_000)
    return peer.ask(request, version)


@success(REASSIGN)
def where_they_are(peer: Peer, version: int) -> Any:
    return reassign(peer, version, peer.topic(), 0, [0])


TARGETS: dict[str, list[int] | None] = {
    "cancelled": None,
    "unknown": [5],
    "empty": [],
    "twice": [0, 0],
    "negative": [-1],
}


@each(REASSIGN, **TARGETS)
def target(peer: Peer, version: int, given: list[int] | None) -> Any:
    return reassign(peer, version, peer.topic(), 0, given)


@error(REASSIGN)
def reassignment_where_nothing_is(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    return [reassign(peer, version, name, at, [0]) for name, at in (("nowhere", 0), (topic, 9))]


@success(REASSIGNMENTS)
def none_is_under_way(peer: Peer, version: int) -> Any:
    topic = ListPartitionReassignmentsTopics(name=peer.topic(), partition_indexes=[0])
    asked = (None, [topic], [])
    return [peer.ask(ListPartitionReassignmentsRequest(topics=one), version) for one in asked]


@error(REASSIGNMENTS)
def reassignments_where_nothing_is(peer: Peer, version: int) -> Any:
    topic = ListPartitionReassignmentsTopics(name="nowhere", partition_indexes=[0])
    return peer.ask(ListPartitionReassignmentsRequest(topics=[topic]), version)


def move(peer: Peer, version: int, path: str, topic: str, *numbers: int) -> Any:
    there = AlterReplicaLogDirTopic(name=topic, partitions=list(numbers))
    dirs = [AlterReplicaLogDir(path=path, topics=[there])]
    return peer.ask(AlterReplicaLogDirsRequest(dirs=dirs), version)


@success(MOVE_LOGS)
def to_where_they_are(peer: Peer, version: int) -> Any:
    return move(peer, version, peer.directory(DescribeLogDirsRequest(topics=[])), peer.topic(), 0)


@each(MOVE_LOGS, unknown="/no/such/directory", relative="data", empty="")
def to(peer: Peer, version: int, given: str) -> Any:
    return move(peer, version, given, peer.topic(), 0, 7)


@error(MOVE_LOGS)
def logs_that_are_not_there(peer: Peer, version: int) -> Any:
    path = peer.directory(DescribeLogDirsRequest(topics=[]))
    topic = peer.topic()
    return [move(peer, version, path, topic, 7, -1), move(peer, version, path, "nowhere", 0)]


def update(peer: Peer, version: int, feature: str, level: int, kind: int = 1) -> Any:
    one = FeatureUpdateKey(feature=feature, max_version_level=level, upgrade_type=kind)
    request = UpdateFeaturesRequest(feature_updates=[one], timeout_ms=20_000, validate_only=True)
    return peer.ask(request, version)


@success(UPDATE_FEATURES)
def nothing_to_update(peer: Peer, version: int) -> Any:
    return peer.ask(UpdateFeaturesRequest(timeout_ms=20_000), version)


UPDATES = {
    "unknown": ("no.such.feature", 1, 1),
    "groups_as_they_are": ("group.version", 1, 1),
    "groups_higher": ("group.version", 2, 1),
    "groups_lower": ("group.version", 0, 1),
    "groups_off": ("group.version", 0, 2),
    "transactions_as_they_are": ("transaction.version", 2, 1),
    "transactions_higher": ("transaction.version", 3, 1),
    "transactions_lower": ("transaction.version", 1, 1),
    "transactions_of_old": ("transaction.version", 1, 2),
    "too_high": ("metadata.version", 999, 1),
    "negative": ("metadata.version", -1, 1),
    "unknown_kind": ("metadata.version", 30, 9),
}


@each(UPDATE_FEATURES, 1, 2, **UPDATES)
def feature(peer: Peer, version: int, given: tuple[str, int, int]) -> Any:
    return update(peer, version, *given)
