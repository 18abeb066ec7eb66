"""The view: in order, whole transactions, and never past what it has seen."""

import pytest

from ottla.cluster.changes import (
    PartitionChanged,
    PartitionsAdded,
    TopicConfigChanged,
    TopicCreated,
)
from ottla.cluster.controller import TopicRef
from ottla.cluster.image import PartitionImage
from ottla.cluster.keys import configs_key, put_partition
from ottla.cluster.store import Compacted, Put, StoreCorrupt
from ottla.cluster.topics import NewTopic
from tests.unit.cluster.support import Cluster


@pytest.fixture
def cluster() -> Cluster:
    return Cluster().start()


def transact(cluster: Cluster, *writes) -> None:
    cluster.store.transact([], writes)
    cluster.store.run()


def test_a_listener_finds_the_whole_transaction_in_the_image(cluster):
    seen = []
    cluster.view.on_change(lambda change: seen.append(len(cluster.image.topics["t"].partitions)))
    cluster.create(NewTopic("t", 3))
    assert seen == [3]


def test_what_is_started_with_is_not_told_as_a_change():
    first = Cluster().start()
    first.create(NewTopic("t"))
    second = Cluster(first.store).start()
    assert "t" in second.image.topics
    assert second.changes == []


def test_when_waits_for_a_revision_and_keeps_the_order(cluster):
    order = []
    revision = cluster.image.revision
    for ahead in (2, 1, 0, 1):
        cluster.view.when(revision + ahead, lambda ahead=ahead: order.append(ahead))
    assert order == [0]
    transact(cluster, Put("/x", b"1"))
    assert order == [0, 1, 1]
    transact(cluster, Put("/x", b"2"))
    assert order == [0, 1, 1, 2]


def test_a_changed_partition_and_changed_configs_are_told_as_such(cluster):
    [made] = cluster.create(NewTopic("t", 2, configs={"retention.ms": "1"}))
    was = made.topic.partitions[1]
    transact(cluster, put_partition(made.topic_id, 1, PartitionImage(0, 7, (0,), (0,))))
    transact(cluster, Put(configs_key(made.topic_id), b'{"retention.ms":"2"}'))
    topic = cluster.image.topics["t"]
    assert cluster.changes[1:] == [
        PartitionChanged(topic.id, "t", 1, was, topic.partitions[1]),
        TopicConfigChanged(topic.id, "t", {"retention.ms": "2"}, topic.configs_revision),
    ]
    assert topic.partitions[1].leader_epoch == 7
    assert topic.partitions[0] is made.topic.partitions[0]


def test_added_partitions_are_told_as_such(cluster):
    [made] = cluster.create(NewTopic("t", 2))
    transact(cluster, put_partition(made.topic_id, 2, PartitionImage(0, 0, (0,), (0,))))
    topic = cluster.image.topics["t"]
    assert len(topic.partitions) == 3
    assert cluster.changes[-1] == PartitionsAdded(topic, 2)
    assert cluster.image.partitions_count == 3


def test_a_view_that_lost_its_place_reads_again_and_goes_on(cluster):
    cluster.create(NewTopic("gone"), NewTopic("kept"))
    [watch] = cluster.store._watches
    watch.cancel()
    cluster.store._watches.clear()
    other = Cluster(cluster.store, node_id=1).start()
    other.create(NewTopic("new"))
    other.delete(TopicRef("gone"))
    assert set(cluster.image.topics) == {"gone", "kept"}
    waited = []
    cluster.view.when(cluster.store.revision, lambda: waited.append(set(cluster.image.topics)))
    watch.on_event(Compacted(cluster.store.revision))
    cluster.store.run()
    assert waited == [{"kept", "new"}]
    assert cluster.view.gaps == 1
    assert set(cluster.image.nodes) == {0, 1}
    other.create(NewTopic("later"))
    assert isinstance(cluster.changes[-1], TopicCreated)
    assert cluster.image.topics == other.image.topics


def test_an_update_that_cannot_be_understood_stops_the_view_where_it_was(cluster):
    [made] = cluster.create(NewTopic("t"))
    before = cluster.image
    cluster.store.transact([], [Put(f"/p/{made.topic_id.hex()}/0", b"?")])
    with pytest.raises(StoreCorrupt, match="/p/"):
        cluster.store.run()
    assert cluster.image is before
