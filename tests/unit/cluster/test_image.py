"""Images and changes: a new image shares with the old one what did not change."""

import pytest

from ottla.cluster.changes import (
    NodeChanged,
    NodeGone,
    PartitionChanged,
    PartitionsAdded,
    TopicConfigChanged,
    TopicCreated,
    TopicDeleted,
    apply,
)
from ottla.cluster.image import ClusterImage, Node, PartitionImage, TopicImage
from ottla.cluster.keys import difference


def partition(epoch: int = 0) -> PartitionImage:
    return PartitionImage(0, epoch, (0,), (0,))


def topic(name: str, number: int, partitions: int = 1, **configs: str) -> TopicImage:
    return TopicImage(name, bytes([number] * 16), (partition(),) * partitions, configs)


@pytest.fixture
def image() -> ClusterImage:
    image = ClusterImage("cluster")
    for change in (TopicCreated(topic("a", 1, 3)), TopicCreated(topic("b", 2))):
        image = apply(image, change)
    return image


def test_a_created_topic_is_found_by_name_and_by_id(image):
    assert image.topics["a"] is image.by_id[bytes([1] * 16)]
    assert image.partitions_count == 4


def test_the_old_image_stays_as_it_was(image):
    apply(image, TopicDeleted(image.topics["a"]))
    apply(image, NodeChanged(Node(1, "host", 9092)))
    assert set(image.topics) == {"a", "b"}
    assert image.nodes == {}


def test_a_change_shares_every_topic_and_partition_it_does_not_touch(image):
    was = image.topics["a"]
    change = PartitionChanged(was.id, "a", 1, was.partitions[1], partition(epoch=1))
    after = apply(image, change)
    assert after.topics["b"] is image.topics["b"]
    assert after.topics["a"].partitions[0] is was.partitions[0]
    assert after.topics["a"].partitions[1].leader_epoch == 1
    assert after.by_id[was.id] is after.topics["a"]


def test_a_deleted_topic_is_gone_by_name_and_by_id(image):
    after = apply(image, TopicDeleted(image.topics["a"]))
    assert set(after.topics) == {"b"}
    assert set(after.by_id) == {bytes([2] * 16)}
    assert after.partitions_count == 1


def test_the_same_topic_is_not_created_twice(image):
    with pytest.raises(AssertionError, match="twice"):
        apply(image, TopicCreated(topic("a", 3)))


def test_more_partitions_are_counted_once(image):
    after = apply(image, PartitionsAdded(topic("a", 1, 5), 3))
    assert after.partitions_count == 6


def test_configs_and_nodes_change(image):
    after = apply(image, TopicConfigChanged(bytes([1] * 16), "a", {"retention.ms": "1"}))
    assert after.topics["a"].configs == {"retention.ms": "1"}
    after = apply(apply(after, NodeChanged(Node(1, "x", 1))), NodeChanged(Node(1, "y", 1)))
    assert after.nodes[1].host == "y"
    assert apply(after, NodeGone(1)).nodes == {}


def test_the_difference_of_two_images_leads_from_one_to_the_other(image):
    new = ClusterImage("cluster", nodes={1: Node(1, "x", 1)})
    for change in (
        TopicCreated(topic("a", 9, 2)),  # the same name, but another topic
        TopicCreated(topic("b", 2, 4, **{"retention.ms": "1"})),
        TopicCreated(topic("c", 3)),
    ):
        new = apply(new, change)
    for change in difference(image, new):
        image = apply(image, change)
    assert image == new
