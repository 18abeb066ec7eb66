"""More partitions and other settings. Codes and words are those seen of Apache Kafka 4.3.1."""

import pytest

from ottla.cluster.changes import PartitionsAdded, SettingsChanged, TopicConfigChanged
from ottla.cluster.configs import Alteration, ConfigOp
from ottla.cluster.controller import TopicRef
from ottla.cluster.image import Node
from ottla.cluster.keys import ALL_BROKERS, broker_settings, group_settings, put_node
from ottla.cluster.partitions import MorePartitions
from ottla.cluster.store import StoreError
from ottla.cluster.topics import NewTopic
from ottla.protocol.errors import ErrorCode as E
from ottla.testing.simstore import SimStore
from tests.unit.cluster.support import Cluster

SET, DELETE, APPEND, SUBTRACT = ConfigOp
TOPIC, BROKER, GROUP = 2, 4, 32


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster().start()
    cluster.create(NewTopic("t", 2), NewTopic("u", 1))
    cluster.changes.clear()
    return cluster


def grow(cluster: Cluster, *more: MorePartitions, **how):
    return cluster.wait(cluster.controller.create_partitions(more, **how))


def alter(cluster: Cluster, *alterations: Alteration, **how):
    return cluster.wait(cluster.controller.alter_configs(alterations, **how))


def codes(outcomes) -> list[E]:
    return [E.NONE if one is None else one.error for one in outcomes]


def inc(kind: int, name: str, *changes) -> Alteration:
    return Alteration(kind, name, changes)


def whole(kind: int, name: str, **configs: str) -> Alteration:
    changes = [(key.replace("_", "."), SET, text) for key, text in configs.items()]
    return Alteration(kind, name, changes, replaces_all=True)


# --- partitions ----------------------------------------------------------------------------


def test_a_topic_has_its_new_partitions_when_the_answer_comes(cluster):
    [result] = grow(cluster, MorePartitions("t", 5))
    assert result.error is E.NONE
    topic = cluster.image.topics["t"]
    assert [p.leader for p in topic.partitions] == [0] * 5
    assert cluster.image.partitions_count == 6
    assert cluster.changes == [PartitionsAdded(topic, 2)]
    assert Cluster(cluster.store, node_id=0).start().image.topics["t"].partitions[4].isr == (0,)


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        (MorePartitions("t", 2), E.INVALID_PARTITIONS, "Topic already has 2 partition(s)."),
        (
            MorePartitions("t", 1),
            E.INVALID_PARTITIONS,
            "The topic t currently has 2 partition(s); 1 would not be an increase.",
        ),
        (
            MorePartitions("t", 0),
            E.INVALID_PARTITIONS,
            "The topic t currently has 2 partition(s); 0 would not be an increase.",
        ),
        (
            MorePartitions("t", -1, [[0]]),
            E.INVALID_PARTITIONS,
            "The topic t currently has 2 partition(s); -1 would not be an increase.",
        ),
        (MorePartitions("nope", 2), E.UNKNOWN_TOPIC_OR_PARTITION, None),
        (MorePartitions("", 2), E.UNKNOWN_TOPIC_OR_PARTITION, None),
        (MorePartitions("a/b", 2), E.UNKNOWN_TOPIC_OR_PARTITION, None),
        (
            MorePartitions("t", 3, []),
            E.INVALID_REPLICA_ASSIGNMENT,
            "Attempted to add 1 additional partition(s), but only 0 assignment(s) were specified.",
        ),
        (
            MorePartitions("t", 3, [[77]]),
            E.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes broker 77, but no such broker is registered.",
        ),
        (
            MorePartitions("t", 3, [[0, 0]]),
            E.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes the broker 0 more than once.",
        ),
        (
            MorePartitions("t", 3, [[]]),
            E.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes an empty replica list.",
        ),
        (MorePartitions("t", 3, [[0]]), E.NONE, None),
    ],
)
def test_what_is_asked_for_gets_the_code_and_the_words_of_kafka(cluster, more, error, said):
    [result] = grow(cluster, more)
    assert (result.error, result.message) == (error, said)
    assert len(cluster.image.topics["t"].partitions) == (2 if error else 3)


def test_h76_more_partitions_than_a_cap_are_refused_before_anything_is_made(cluster):
    [result] = grow(cluster, MorePartitions("t", 2_000_000_000))
    assert result.error is E.POLICY_VIOLATION
    small = Cluster(max_partitions_total="6").start()
    small.create(NewTopic("a", 2), NewTopic("b", 2))
    first = small.controller.create_partitions([MorePartitions("a", 4)])
    second = small.controller.create_partitions([MorePartitions("b", 3)])
    small.store.run()
    assert [first.result()[0].error, second.result()[0].error] == [E.NONE, E.POLICY_VIOLATION]


@pytest.mark.parametrize("name", ["__consumer_offsets", "__transaction_state"])
def test_an_internal_topic_cannot_grow_as_its_ids_would_be_looked_for_elsewhere(cluster, name):
    cluster.create(NewTopic(name, 8))
    [result] = grow(cluster, MorePartitions(name, 9))
    assert result.error is E.INVALID_PARTITIONS
    assert name in result.message
    assert len(cluster.image.topics[name].partitions) == 8


def test_a_name_twice_is_refused_once_and_the_others_grow(cluster):
    results = grow(cluster, MorePartitions("t", 3), MorePartitions("u", 4), MorePartitions("t", 4))
    assert [(r.name, r.error) for r in results] == [("t", E.INVALID_REQUEST), ("u", E.NONE)]


def test_validate_only_adds_nothing(cluster):
    assert grow(cluster, MorePartitions("t", 3), validate_only=True)[0].error is E.NONE
    assert len(cluster.image.topics["t"].partitions) == 2


def test_new_replicas_are_as_many_as_the_old_ones():
    cluster = Cluster().start()
    cluster.store.transact([], [put_node(Node(n, "h", 1)) for n in (1, 2)])
    cluster.store.run()
    cluster.create(NewTopic("t", 1, 2))
    assert grow(cluster, MorePartitions("t", 4))[0].error is E.NONE
    assert {len(set(p.replicas)) for p in cluster.image.topics["t"].partitions} == {2}
    [result] = grow(cluster, MorePartitions("t", 5, [[1]]))
    assert result.error is E.INVALID_REPLICA_ASSIGNMENT
    assert "not consistent with previous partitions" in result.message


def test_two_that_grow_a_topic_at_once_come_one_after_the_other(cluster):
    first = cluster.controller.create_partitions([MorePartitions("t", 4)])
    second = cluster.controller.create_partitions([MorePartitions("t", 3)])
    third = cluster.controller.create_partitions([MorePartitions("t", 6)])
    cluster.store.run()
    assert [p.result()[0].error for p in (first, second, third)] == [
        E.NONE,
        E.INVALID_PARTITIONS,
        E.NONE,
    ]
    assert len(cluster.image.topics["t"].partitions) == 6


def test_another_node_that_grew_the_topic_first_is_noticed():
    store = SimStore(3, unknown=0.0)
    one, two = Cluster(store).start(), Cluster(store, node_id=1).start()
    one.create(NewTopic("t", 1, 1))
    store.run()
    first = one.controller.create_partitions([MorePartitions("t", 3)])
    second = two.controller.create_partitions([MorePartitions("t", 5)])
    third = two.controller.create_partitions([MorePartitions("t", 5)])
    store.run()
    errors = {p.result()[0].error for p in (first, second)}
    assert errors <= {E.NONE, E.INVALID_PARTITIONS}
    assert third.result()[0].error is E.INVALID_PARTITIONS
    assert len(one.image.topics["t"].partitions) == 5
    assert one.image.topics == two.image.topics


# --- settings of topics --------------------------------------------------------------------


def test_a_topics_settings_are_in_the_image_when_the_answer_comes(cluster):
    assert codes(alter(cluster, inc(TOPIC, "t", ("retention.ms", SET, "5")))) == [E.NONE]
    topic = cluster.image.topics["t"]
    assert topic.configs == {"retention.ms": "5"}
    changed = TopicConfigChanged(topic.id, "t", topic.configs, topic.configs_revision)
    assert cluster.changes == [changed]
    assert codes(alter(cluster, inc(TOPIC, "t", ("retention.ms", DELETE, None)))) == [E.NONE]
    assert cluster.image.topics["t"].configs == {}
    assert cluster.image.topics["t"].configs_revision == 0


def test_the_older_request_replaces_all_that_was_set(cluster):
    alter(cluster, inc(TOPIC, "t", ("retention.ms", SET, "5"), ("segment.ms", SET, "7")))
    assert codes(alter(cluster, whole(TOPIC, "t", max_message_bytes="5000"))) == [E.NONE]
    assert cluster.image.topics["t"].configs == {"max.message.bytes": "5000"}
    assert codes(alter(cluster, whole(TOPIC, "t"))) == [E.NONE]
    assert cluster.image.topics["t"].configs == {}


@pytest.mark.parametrize(
    ("changes", "after"),
    [
        ([("cleanup.policy", APPEND, "compact")], "delete,compact"),
        ([("cleanup.policy", APPEND, "delete")], "delete"),
        ([("cleanup.policy", APPEND, "compact,delete")], "delete,compact"),
        ([("cleanup.policy", SUBTRACT, "delete")], ""),
        ([("cleanup.policy", SUBTRACT, "compact")], "delete"),
    ],
)
def test_lists_are_changed_item_by_item_from_what_holds(cluster, changes, after):
    assert codes(alter(cluster, inc(TOPIC, "t", *changes))) == [E.NONE]
    assert cluster.image.topics["t"].configs == {"cleanup.policy": after}


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        (
            inc(TOPIC, "t", ("retention.ms", APPEND, "5")),
            E.INVALID_CONFIG,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            inc(TOPIC, "t", ("nope", SUBTRACT, "5")),
            E.INVALID_CONFIG,
            "Can't SUBTRACT to key nope because its type is not LIST.",
        ),
        (
            inc(TOPIC, "t", ("cleanup.policy", APPEND, "foo")),
            E.INVALID_CONFIG,
            "Invalid value foo for configuration cleanup.policy: String must be one of: "
            "compact, delete",
        ),
        (
            inc(TOPIC, "t", ("nope", SET, "1")),
            E.INVALID_CONFIG,
            "Unknown topic config name: nope",
        ),
        (inc(TOPIC, "t", ("nope", DELETE, None)), E.NONE, None),
        (inc(TOPIC, "t"), E.NONE, None),
        (
            inc(TOPIC, "t", ("retention.ms", SET, None)),
            E.INVALID_REQUEST,
            "Null value not supported for : retention.ms",
        ),
        (
            inc(TOPIC, "t", ("retention.ms", SET, "1"), ("retention.ms", DELETE, None)),
            E.INVALID_REQUEST,
            "Error due to duplicate config keys",
        ),
        (
            inc(TOPIC, "t", ("retention.ms", 9, "1")),
            E.INVALID_REQUEST,
            "Unknown config operation 9",
        ),
        (
            inc(TOPIC, "t", ("segment.bytes", SET, "-1")),
            E.INVALID_CONFIG,
            "Invalid value -1 for configuration segment.bytes: Value must be at least 1048576",
        ),
        (
            inc(
                TOPIC,
                "t",
                ("min.compaction.lag.ms", SET, "100"),
                ("max.compaction.lag.ms", SET, "50"),
            ),
            E.INVALID_CONFIG,
            "conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms "
            "(50)",
        ),
        (
            inc(TOPIC, "nope", ("retention.ms", SET, "1")),
            E.UNKNOWN_TOPIC_OR_PARTITION,
            "The topic 'nope' does not exist.",
        ),
        (
            inc(TOPIC, "", ("retention.ms", SET, "1")),
            E.INVALID_REQUEST,
            "Default topic resources are not allowed.",
        ),
        (inc(TOPIC, "a/b", ("retention.ms", SET, "1")), E.INVALID_TOPIC_EXCEPTION, ...),
        (inc(1, "x", ("a", SET, "b")), E.INVALID_REQUEST, "Unknown resource type 1"),
        (inc(64, "x"), E.INVALID_REQUEST, "Unknown resource type 64"),
        (inc(8, "x"), E.INVALID_REQUEST, "Unknown resource type 8"),
        (inc(16, ""), E.INVALID_REQUEST, "Subscription name can't be empty"),
        (inc(16, "x"), E.INVALID_REQUEST, "Client metrics are not collected here."),
    ],
)
def test_h78_what_may_not_be_set_gets_the_code_and_the_words_of_kafka(cluster, wanted, error, said):
    before = dict(cluster.store.entries)
    [outcome] = alter(cluster, wanted)
    assert codes([outcome]) == [error]
    if said is not ...:
        assert (outcome and outcome.message) == said
    assert cluster.store.entries == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metric.reporters", "com.evil.Reporter"),
        ("ssl.keystore.location", "/etc/passwd"),
        ("log.dirs", "/etc"),
        ("authorizer.class.name", "x"),
        ("message.max.bytes", "-1"),
        ("max.connections", "-1"),
    ],
)
def test_h78_class_names_paths_and_negative_sizes_are_set_nowhere(cluster, name, text):
    before = dict(cluster.store.entries)
    for kind, whose in ((TOPIC, "t"), (BROKER, ""), (BROKER, "0"), (GROUP, "g")):
        [outcome] = alter(cluster, inc(kind, whose, (name, SET, text)))
        assert outcome.error in (E.INVALID_CONFIG, E.INVALID_REQUEST)
    assert cluster.store.entries == before


def test_each_resource_stands_for_itself_and_one_named_twice_for_nothing(cluster):
    outcomes = alter(
        cluster,
        inc(TOPIC, "t", ("retention.ms", SET, "1")),
        inc(TOPIC, "t", ("retention.ms", SET, "2")),
        inc(TOPIC, "u", ("retention.ms", SET, "3")),
        inc(TOPIC, "nope", ("retention.ms", SET, "3")),
    )
    assert codes(outcomes) == [
        E.INVALID_REQUEST,
        E.INVALID_REQUEST,
        E.NONE,
        E.UNKNOWN_TOPIC_OR_PARTITION,
    ]
    assert outcomes[0].message == "Each resource must appear at most once."
    assert cluster.image.topics["t"].configs == {}
    assert cluster.image.topics["u"].configs == {"retention.ms": "3"}


def test_validate_only_sets_nothing(cluster):
    good, bad = ("retention.ms", SET, "1"), ("retention.ms", SET, "-9")
    assert codes(alter(cluster, inc(TOPIC, "t", good), validate_only=True)) == [E.NONE]
    assert codes(alter(cluster, inc(TOPIC, "t", bad), validate_only=True)) == [E.INVALID_CONFIG]
    assert cluster.image.topics["t"].configs == {}


def test_two_that_alter_a_topic_at_once_both_have_their_way(cluster):
    pendings = [
        cluster.controller.alter_configs([inc(TOPIC, "t", (name, SET, "9999"))])
        for name in ("retention.ms", "segment.ms", "max.message.bytes")
    ]
    cluster.store.run()
    assert [p.result() for p in pendings] == [[None]] * 3
    assert len(cluster.image.topics["t"].configs) == 3


@pytest.mark.parametrize("seed", range(10))
def test_nodes_that_alter_one_topic_lose_nothing_whatever_the_store_keeps_to_itself(seed):
    store = SimStore(seed, unknown=0.3)
    one, two = Cluster(store).start(), Cluster(store, node_id=1).start()
    one.create(NewTopic("t", 1, 1))
    store.run()
    assert "t" in one.image.topics, f"seed {seed}"
    names = ["retention.ms", "segment.ms", "max.message.bytes", "flush.ms"]
    pendings = {
        name: cluster.controller.alter_configs([inc(TOPIC, "t", (name, SET, "9999"))])
        for name, cluster in zip(names, (one, two, one, two), strict=True)
    }
    store.run()
    for name, pending in pendings.items():
        [outcome] = pending.result()
        assert outcome is None or outcome.error is E.REQUEST_TIMED_OUT, f"seed {seed}"
        if outcome is None:
            assert name in one.image.topics["t"].configs, f"seed {seed}"
    assert one.image.topics == two.image.topics


@pytest.mark.parametrize("seed", range(5))
def test_what_is_altered_while_its_topic_is_deleted_leaves_nothing_behind(seed):
    cluster = Cluster(SimStore(seed, unknown=0.0)).start()
    cluster.create(NewTopic("t", 2))
    deleting = cluster.controller.delete_topics([TopicRef("t")])
    altering = cluster.controller.alter_configs([inc(TOPIC, "t", ("retention.ms", SET, "1"))])
    growing = cluster.controller.create_partitions([MorePartitions("t", 9)])
    cluster.store.run()
    assert deleting.result()[0].error is E.NONE
    either = {E.NONE, E.UNKNOWN_TOPIC_OR_PARTITION}
    assert {*codes(altering.result()), growing.result()[0].error} <= either, f"seed {seed}"
    left = [key for key in cluster.store.entries if key.startswith(("/cfg/", "/p/", "/t/"))]
    assert left == [], f"seed {seed}"
    late = alter(cluster, inc(TOPIC, "t", ("retention.ms", SET, "1")))
    assert codes(late) == [E.UNKNOWN_TOPIC_OR_PARTITION]


def test_a_store_that_fails_says_so(cluster, monkeypatch):
    def failing(*_):
        from ottla.core.pending import Pending

        pending = Pending()
        pending.fail(StoreError("the disk is gone"))
        return pending

    monkeypatch.setattr(cluster.store, "transact", failing)
    [outcome] = alter(cluster, inc(TOPIC, "t", ("retention.ms", SET, "1")))
    assert (outcome.error, outcome.message) == (E.KAFKA_STORAGE_ERROR, "the disk is gone")
    [result] = grow(cluster, MorePartitions("t", 9))
    assert result.error is E.KAFKA_STORAGE_ERROR
    assert cluster.controller.create_partitions([MorePartitions("t", 8)]).done


# --- settings of brokers and groups --------------------------------------------------------


def test_a_brokers_settings_and_those_of_all_are_kept_apart(cluster):
    mine, everybodys = ("max.connections", SET, "600"), ("max.connections", SET, "700")
    assert (
        codes(alter(cluster, inc(BROKER, "0", mine), inc(BROKER, "", everybodys))) == [E.NONE] * 2
    )
    settings = cluster.image.settings
    assert settings[broker_settings(0)].configs == {"max.connections": "600"}
    assert settings[ALL_BROKERS].configs == {"max.connections": "700"}
    told = {change.whose for change in cluster.changes if isinstance(change, SettingsChanged)}
    assert told == {broker_settings(0), ALL_BROKERS}
    assert codes(alter(cluster, inc(BROKER, "0", ("max.connections", DELETE, None)))) == [E.NONE]
    assert cluster.image.settings.keys() == {ALL_BROKERS}
    assert Cluster(cluster.store).start().image.settings == cluster.image.settings


@pytest.mark.parametrize(
    ("whose", "change", "error", "said"),
    [
        ("99", ("max.connections", SET, "5"), E.INVALID_REQUEST,
         "Unexpected broker id, expected 0, but received 99"),
        ("abc", ("max.connections", SET, "5"), E.INVALID_REQUEST,
         "Node id must be an integer, but it is: abc"),
        ("9" * 5000, ("max.connections", SET, "5"), E.INVALID_REQUEST, ...),
        ("00", ("max.connections", SET, "5"), E.INVALID_REQUEST, ...),
        ("0", ("num.partitions", SET, "5"), E.INVALID_REQUEST,
         "Cannot update these configs dynamically: [num.partitions]"),
        ("", ("log.retention.hours", SET, "5"), E.INVALID_REQUEST,
         "Cannot update these configs dynamically: [log.retention.hours]"),
        ("0", ("num.io.threads", SET, "5"), E.INVALID_REQUEST,
         "Cannot update these configs dynamically: [num.io.threads]"),
        ("0", ("num.partitions", DELETE, None), E.NONE, None),
        ("0", ("nope", SET, "5"), E.INVALID_CONFIG, "Unknown broker config name: nope"),
        ("0", ("nope", DELETE, None), E.NONE, None),
        ("0", ("max.connections", SET, "x"), E.INVALID_REQUEST,
         "Invalid value x for configuration max.connections: Not a number of type INT"),
        ("", ("max.connections", SET, "-1"), E.INVALID_REQUEST,
         "Invalid value -1 for configuration max.connections: Value must be at least 0"),
        ("0", ("max.connections", SET, None), E.INVALID_REQUEST,
         "Null value not supported for : max.connections"),
        ("0", ("max.connections", APPEND, "600"), E.INVALID_CONFIG,
         "Config value append is not allowed for config key: max.connections"),
    ],
)  # fmt: skip
def test_what_a_broker_may_not_be_set_gets_the_code_and_the_words_of_kafka(
    cluster, whose, change, error, said
):
    [outcome] = alter(cluster, inc(BROKER, whose, change))
    assert codes([outcome]) == [error]
    if said is not ...:
        assert (outcome and outcome.message) == said
    assert cluster.image.settings == {}


def test_a_list_of_a_broker_is_changed_from_what_holds(cluster):
    alter(cluster, inc(BROKER, "", ("log.cleanup.policy", APPEND, "compact")))
    assert cluster.image.settings[ALL_BROKERS].configs == {"log.cleanup.policy": "delete,compact"}


@pytest.mark.parametrize(
    ("whose", "change", "error", "said"),
    [
        ("g", ("consumer.session.timeout.ms", SET, "50000"), E.NONE, None),
        ("", ("consumer.session.timeout.ms", SET, "50000"), E.INVALID_REQUEST,
         "Default group resources are not allowed."),
        ("g", ("nope", SET, "1"), E.INVALID_CONFIG, "Unknown group config name: nope"),
        ("g", ("consumer.session.timeout.ms", SET, "5"), E.INVALID_CONFIG,
         "consumer.session.timeout.ms must be greater than or equal to "
         "group.consumer.min.session.timeout.ms"),
        ("g", ("consumer.heartbeat.interval.ms", SET, "15001"), E.INVALID_CONFIG,
         "consumer.heartbeat.interval.ms must be less than or equal to "
         "group.consumer.max.heartbeat.interval.ms"),
    ],
)  # fmt: skip
def test_a_group_may_set_what_the_brokers_bounds_let_it(cluster, whose, change, error, said):
    [outcome] = alter(cluster, inc(GROUP, whose, change))
    assert codes([outcome]) == [error]
    assert (outcome and outcome.message) == said
    expected = set() if error else {group_settings("g")}
    assert cluster.image.settings.keys() == expected


def test_settings_are_kept_for_a_limited_number_of_groups(cluster, monkeypatch):
    monkeypatch.setattr("ottla.cluster.configs.SETTINGS_MAX", 2)
    change = ("consumer.session.timeout.ms", SET, "50000")
    for name, error in (("a", E.NONE), ("b/c", E.NONE), ("c", E.POLICY_VIOLATION), ("a", E.NONE)):
        assert codes(alter(cluster, inc(GROUP, name, change))) == [error]
    assert cluster.image.settings.keys() == {group_settings("a"), group_settings("b/c")}
