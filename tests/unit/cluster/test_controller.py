"""Creating and deleting topics. The codes are those seen of Apache Kafka 4.3.1 (H74-H76)."""

import json

import pytest

from ottla.cluster.changes import PartitionChanged, TopicCreated, TopicDeleted
from ottla.cluster.controller import TopicRef
from ottla.cluster.image import Node
from ottla.cluster.keys import put_node
from ottla.cluster.store import Delete, Put, StoreError
from ottla.cluster.topics import NewTopic
from ottla.protocol.errors import ErrorCode as E
from ottla.testing.simstore import SimStore
from tests.unit.cluster.support import Cluster


@pytest.fixture
def cluster() -> Cluster:
    return Cluster().start()


def errors(results) -> list[E]:
    return [result.error for result in results]


def test_a_created_topic_is_in_the_image_when_the_answer_comes(cluster):
    [result] = cluster.create(NewTopic("t", 3, 1, configs={"retention.ms": "1"}))
    assert result.error is E.NONE
    topic = cluster.image.topics["t"]
    assert topic is cluster.image.by_id[result.topic_id]
    assert result.topic == topic
    assert [(p.leader, p.leader_epoch, p.replicas, p.isr) for p in topic.partitions] == [
        (0, 0, (0,), (0,))
    ] * 3
    assert topic.configs == {"retention.ms": "1"}
    assert cluster.changes == [TopicCreated(topic)]


def test_a_topic_id_is_a_random_uuid_of_version_4(cluster):
    results = cluster.create(*(NewTopic(f"t{n}") for n in range(50)))
    ids = {result.topic_id for result in results}
    assert len(ids) == 50
    assert all(one[6] >> 4 == 4 and one[8] >> 6 == 2 and one[0] >> 2 != 62 for one in ids)


def test_defaults_are_the_brokers():
    cluster = Cluster(num_partitions="4").start()
    [result] = cluster.create(NewTopic("t"))
    assert len(result.topic.partitions) == 4
    assert result.topic.partitions[0].replicas == (0,)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\0b", "x" * 250, "é"], ids=range(8)
)
def test_h74_an_illegal_name_is_refused_and_reaches_nothing(cluster, name):
    before = dict(cluster.store.entries)
    assert errors(cluster.create(NewTopic(name))) == [E.INVALID_TOPIC_EXCEPTION]
    assert errors(cluster.wait(cluster.controller.auto_create([name]))) == [
        E.INVALID_TOPIC_EXCEPTION
    ]
    assert cluster.store.entries == before


def test_h74_a_name_that_collides_with_another_is_refused(cluster):
    cluster.create(NewTopic("a_b"))
    [result] = cluster.create(NewTopic("a.b"))
    assert result.error is E.INVALID_TOPIC_EXCEPTION
    assert "a_b" in result.message


def test_h74_names_of_one_request_may_not_collide_either(cluster):
    # Apache Kafka 4.3.1 makes both: its check looks at existing topics only.
    results = cluster.create(NewTopic("c.d"), NewTopic("c_d"))
    assert errors(results) == [E.NONE, E.INVALID_TOPIC_EXCEPTION]


def test_h75_a_name_twice_in_a_request_is_refused_once_and_the_others_are_made(cluster):
    results = cluster.create(NewTopic("dup"), NewTopic("other"), NewTopic("dup"))
    assert [(result.name, result.error) for result in results] == [
        ("dup", E.INVALID_REQUEST),
        ("other", E.NONE),
    ]


@pytest.mark.parametrize(
    ("topic", "error"),
    [
        (NewTopic("p", 0, 1), E.INVALID_PARTITIONS),
        (NewTopic("p", -5, 1), E.INVALID_PARTITIONS),
        (NewTopic("p", 10**9, 1), E.POLICY_VIOLATION),
        (NewTopic("p", 10_001, 1), E.POLICY_VIOLATION),
        (NewTopic("r", 1, 0), E.INVALID_REPLICATION_FACTOR),
        (NewTopic("r", 1, 2), E.INVALID_REPLICATION_FACTOR),
        (NewTopic("r", 1, -2), E.INVALID_REPLICATION_FACTOR),
        (NewTopic("r", 0, 0), E.INVALID_REPLICATION_FACTOR),
        (NewTopic("r", 0, 2), E.INVALID_PARTITIONS),
        (NewTopic("m", assignments=[(0, [0])]), E.NONE),
        (NewTopic("m", 1, -1, [(0, [0])]), E.INVALID_REQUEST),
        (NewTopic("m", -1, 1, [(0, [0])]), E.INVALID_REQUEST),
        (NewTopic("m", 1, 1, [(0, [0])]), E.INVALID_REQUEST),
        (NewTopic("m", assignments=[(0, [0, 0])]), E.INVALID_REPLICA_ASSIGNMENT),
        (NewTopic("m", assignments=[(0, [7])]), E.INVALID_REPLICA_ASSIGNMENT),
        (NewTopic("m", assignments=[(0, [-1])]), E.INVALID_REPLICA_ASSIGNMENT),
        (NewTopic("m", assignments=[(1, [0])]), E.INVALID_REPLICA_ASSIGNMENT),
        (NewTopic("m", assignments=[(0, [])]), E.INVALID_REPLICA_ASSIGNMENT),
        (NewTopic("m", assignments=[(0, [0]), (0, [0])]), E.INVALID_REPLICA_ASSIGNMENT),
        (NewTopic("c", 1, 1, configs={"nope": "1"}), E.INVALID_CONFIG),
        (NewTopic("c", 1, 1, configs={"segment.bytes": "-1"}), E.INVALID_CONFIG),
        (NewTopic("c", 1, 1, configs={"segment.bytes": None}), E.INVALID_CONFIG),
        (NewTopic("c", 0, 1, configs={"nope": "1"}), E.INVALID_CONFIG),
        (NewTopic("bad/name", 0, 0, configs={"nope": "1"}), E.INVALID_TOPIC_EXCEPTION),
        (NewTopic("there", 0, 0, configs={"nope": "1"}), E.TOPIC_ALREADY_EXISTS),
        (NewTopic("th_ere"), E.NONE),
        (NewTopic("__cluster_metadata"), E.INVALID_REQUEST),
        (NewTopic("__consumer_offsets", 1, 1), E.NONE),
        (NewTopic("__foo", 1, 1), E.NONE),
    ],
)
def test_h76_what_is_asked_for_gets_the_code_that_kafka_gives(cluster, topic, error):
    cluster.create(NewTopic("there"))
    assert errors(cluster.create(topic)) == [error]
    assert (topic.name in cluster.image.topics) == (error in (E.NONE, E.TOPIC_ALREADY_EXISTS))


def test_the_cap_of_all_partitions_counts_those_on_their_way():
    cluster = Cluster(max_partitions_total="10").start()
    results = cluster.create(NewTopic("a", 6), NewTopic("b", 6), NewTopic("c", 4))
    assert errors(results) == [E.NONE, E.POLICY_VIOLATION, E.NONE]
    assert errors(cluster.create(NewTopic("d", 1))) == [E.POLICY_VIOLATION]
    assert errors(cluster.create(NewTopic("e", assignments=[(0, [0])]))) == [E.POLICY_VIOLATION]


def test_replicas_are_spread_and_the_first_leads():
    cluster = Cluster().start()
    cluster.store.transact([], [put_node(Node(n, "h", 1)) for n in (1, 2)])
    cluster.store.run()
    [result] = cluster.create(NewTopic("t", 6, 2))
    partitions = result.topic.partitions
    assert sorted(p.leader for p in partitions) == [0, 0, 1, 1, 2, 2]
    assert all(len(set(p.replicas)) == 2 and p.leader == p.replicas[0] for p in partitions)
    [result] = cluster.create(NewTopic("m", assignments=[(1, [2, 0]), (0, [1, 2])]))
    assert [p.replicas for p in result.topic.partitions] == [(1, 2), (2, 0)]


def test_validate_only_answers_as_if_and_makes_nothing(cluster):
    [result] = cluster.create(NewTopic("v", 2, 1), validate_only=True)
    assert result.error is E.NONE
    assert len(result.topic.partitions) == 2
    assert cluster.image.topics == {}
    assert errors(cluster.create(NewTopic("v", 0, 1), validate_only=True)) == [E.INVALID_PARTITIONS]


def test_no_topics_at_all_are_answered_at_once(cluster):
    assert cluster.controller.create_topics([]).result() == []
    assert cluster.controller.delete_topics([]).result() == []


def test_the_second_of_two_creations_at_once_learns_that_it_exists(cluster):
    first = cluster.controller.create_topics([NewTopic("t", 1)])
    second = cluster.controller.create_topics([NewTopic("t", 5)])
    cluster.store.run()
    assert errors(first.result()) == [E.NONE]
    assert errors(second.result()) == [E.TOPIC_ALREADY_EXISTS]
    assert len(cluster.image.topics["t"].partitions) == 1


def test_an_automatic_creation_waits_for_one_that_is_under_way(cluster):
    first = cluster.controller.create_topics([NewTopic("t", 3)])
    second = cluster.controller.auto_create(["t"])
    third = cluster.controller.auto_create(["t"])
    cluster.store.run()
    ids = {pending.result()[0].topic_id for pending in (first, second, third)}
    assert ids == {cluster.image.topics["t"].id}
    assert errors(second.result()) == [E.NONE]


def test_h81_automatic_creation_is_capped_for_a_request_and_in_total():
    cluster = Cluster(auto_create_topics_request_max="3", auto_create_topics_total_max="5").start()
    names = [f"t{n}" for n in range(6)]
    results = cluster.wait(cluster.controller.auto_create(names))
    assert errors(results) == [E.NONE] * 3 + [E.UNKNOWN_TOPIC_OR_PARTITION] * 3
    results = cluster.wait(cluster.controller.auto_create(names))
    assert errors(results) == [E.NONE] * 5 + [E.UNKNOWN_TOPIC_OR_PARTITION]
    assert errors(cluster.create(NewTopic("explicit"))) == [E.NONE]


def test_another_node_that_was_faster_is_noticed():
    store = SimStore(1, unknown=0.0)
    one, two = Cluster(store).start(), Cluster(store, node_id=1).start()
    first = one.controller.create_topics([NewTopic("t", 1)])
    second = two.controller.create_topics([NewTopic("t", 2)])
    store.run()
    codes = sorted(errors(first.result() + second.result()))
    assert codes == [E.NONE, E.TOPIC_ALREADY_EXISTS]
    assert one.image.topics == two.image.topics


def test_a_deleted_topic_leaves_nothing_in_the_store(cluster):
    cluster.create(NewTopic("t", 3, configs={"retention.ms": "1"}), NewTopic("t2", 2))
    [result] = cluster.delete(TopicRef("t"))
    assert result.error is E.NONE
    assert result.topic.name == "t"
    assert not [key for key in cluster.store.entries if result.topic_id.hex() in key]
    assert "/name/t" not in cluster.store.entries
    assert set(cluster.image.topics) == {"t2"}
    assert isinstance(cluster.changes[-1], TopicDeleted)


def test_a_topic_made_again_under_its_name_is_another_one(cluster):
    [first] = cluster.create(NewTopic("t"))
    cluster.delete(TopicRef("t"))
    [second] = cluster.create(NewTopic("t"))
    assert second.error is E.NONE
    assert second.topic_id != first.topic_id


def test_a_topic_is_deleted_by_its_id(cluster):
    [made] = cluster.create(NewTopic("t"))
    [result] = cluster.delete(TopicRef(None, made.topic_id))
    assert (result.name, result.error) == ("t", E.NONE)
    assert cluster.image.topics == {}


def test_deletions_get_the_codes_that_kafka_gives(cluster):
    cluster.create(NewTopic("t"))
    unknown = bytes([9] * 16)
    assert errors(cluster.delete(TopicRef("nope"))) == [E.UNKNOWN_TOPIC_OR_PARTITION]
    assert errors(cluster.delete(TopicRef("a/b"))) == [E.UNKNOWN_TOPIC_OR_PARTITION]
    assert errors(cluster.delete(TopicRef(None, unknown))) == [E.UNKNOWN_TOPIC_ID]
    assert errors(cluster.delete(TopicRef("t", unknown))) == [E.INVALID_REQUEST]
    assert errors(cluster.delete(TopicRef())) == [E.INVALID_REQUEST]
    assert errors(cluster.delete(TopicRef("t"), TopicRef("t"))) == [E.INVALID_REQUEST]
    assert "t" in cluster.image.topics


def test_h75_a_topic_named_by_its_name_and_its_id_is_refused_once_and_stays(cluster):
    [made] = cluster.create(NewTopic("t"))
    cluster.create(NewTopic("u"))
    results = cluster.delete(TopicRef("t"), TopicRef("u"), TopicRef(None, made.topic_id))
    told = {(result.name, result.topic_id): result.error for result in results}
    assert told.pop(("t", made.topic_id)) == E.INVALID_REQUEST
    assert list(told.values()) == [E.NONE]
    assert set(cluster.image.topics) == {"t"}


def test_deletion_can_be_switched_off():
    cluster = Cluster(delete_topic_enable="false").start()
    cluster.create(NewTopic("t"))
    assert errors(cluster.delete(TopicRef("t"))) == [E.TOPIC_DELETION_DISABLED]


def test_of_two_deletions_at_once_one_finds_nothing(cluster):
    cluster.create(NewTopic("t"))
    pendings = [cluster.controller.delete_topics([TopicRef("t")]) for _ in range(2)]
    cluster.store.run()
    codes = sorted(errors([pending.result()[0] for pending in pendings]))
    assert codes == [E.NONE, E.UNKNOWN_TOPIC_OR_PARTITION]


def test_a_store_that_refuses_is_a_storage_error(cluster):
    cluster.create(NewTopic("t"))
    cluster.store.close()
    assert errors(cluster.create(NewTopic("u"))) == [E.KAFKA_STORAGE_ERROR]
    assert errors(cluster.delete(TopicRef("t"))) == [E.KAFKA_STORAGE_ERROR]
    assert errors(cluster.create(NewTopic("u"))) == [E.KAFKA_STORAGE_ERROR]


def test_an_outcome_that_stays_unknown_is_answered_as_such(cluster):
    cluster.create(NewTopic("t"))
    cluster.store._unknown = 1.0
    assert errors(cluster.create(NewTopic("u"))) == [E.REQUEST_TIMED_OUT]
    assert errors(cluster.delete(TopicRef("t"))) == [E.REQUEST_TIMED_OUT]


def test_every_start_begins_a_new_epoch_of_each_partition_led():
    cluster = Cluster().start()
    cluster.create(NewTopic("t", 2))
    for epoch in (1, 2):
        again = Cluster(cluster.store).start()
        partitions = again.image.topics["t"].partitions
        assert [(p.leader, p.leader_epoch) for p in partitions] == [(0, epoch)] * 2
    seen = [one.now.leader_epoch for one in cluster.changes if isinstance(one, PartitionChanged)]
    assert seen == [1, 1, 2, 2]


def test_a_start_takes_up_a_partition_that_nobody_leads_and_leaves_those_of_others():
    cluster = Cluster().start()
    cluster.store.transact([], [put_node(Node(1, "h", 1))])
    cluster.store.run()
    [result] = cluster.create(NewTopic("t", assignments=[(0, [0, 1]), (1, [1, 0])]))
    key = f"/p/{result.topic_id.hex()}/0"
    value = {"leader": -1, "leader_epoch": 4, "replicas": [0, 1], "isr": [0]}
    cluster.store.transact([], [Put(key, json.dumps(value).encode())])
    cluster.store.run()
    partitions = Cluster(cluster.store).start().image.topics["t"].partitions
    assert [(p.leader, p.leader_epoch) for p in partitions] == [(0, 5), (1, 0)]


def test_every_start_gives_the_node_a_new_epoch():
    cluster = Cluster().start()
    again = Cluster(cluster.store).start()
    assert again.image.nodes[0].epoch > cluster.node.epoch
    assert again.image.nodes[0].epoch > 1
    assert cluster.image.nodes[0].host == "localhost"


def test_the_first_start_names_the_cluster_and_later_ones_keep_the_name():
    named = Cluster().start(cluster_id="given")
    assert named.image.cluster_id == "given"
    assert Cluster(named.store).start(cluster_id=None).image.cluster_id == "given"
    fresh = Cluster().start(cluster_id=None)
    assert len(fresh.image.cluster_id) == 22


def test_a_data_directory_of_another_cluster_is_refused():
    cluster = Cluster().start(cluster_id="one")
    with pytest.raises(StoreError, match="cluster one"):
        Cluster(cluster.store).start(cluster_id="two")


def test_a_start_whose_outcomes_stay_unknown_gives_up():
    with pytest.raises(StoreError, match="registered"):
        Cluster(SimStore(1, unknown=1.0)).start()


def test_metadata_that_cannot_be_understood_is_refused_with_its_key():
    for key, value, text in (
        ("/t/" + "01" * 16, b"{", "/t/0101"),
        ("/t/" + "01" * 16, b'{"name":"t","partitions":2}', "lacks partitions of topic t"),
        ("/b/0", b'{"host":"x"}', "/b/0"),
    ):
        store = SimStore(1, unknown=0.0)
        store.transact([], [Put(key, value)])
        store.run()
        with pytest.raises(StoreError, match=text):
            Cluster(store).start()


def test_a_node_that_goes_is_gone_from_the_image(cluster):
    cluster.store.transact([], [put_node(Node(5, "h", 1))])
    cluster.store.run()
    assert 5 in cluster.image.nodes
    cluster.store.transact([], [Delete("/b/5")])
    cluster.store.run()
    assert set(cluster.image.nodes) == {0}
