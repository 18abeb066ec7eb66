"""A large consumer group: what the log takes at once, and what is left of it after a crash."""

from __future__ import annotations

import pytest

from ottla.cluster.image import ClusterImage, PartitionImage, TopicImage
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.consumer_group import ConsumerGroup
from ottla.core.model import LeaderEpoch, NodeId, TopicId
from ottla.protocol.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)
from tests.groups import GROUP, World

MEMBERS = 400
BATCH_BYTES = 1 << 13
T_ID = TopicId(b"t" * 16)


class Crowd:
    """Members that all arrive before the second target assignment is computed."""

    def __init__(self) -> None:
        self.world = World()
        one = PartitionImage(NodeId(0), LeaderEpoch(0), (NodeId(0),), (NodeId(0),))
        topic = TopicImage("t", T_ID, (one,) * MEMBERS)
        self.world.image = ClusterImage("c", topics={"t": topic}, by_id={T_ID: topic})
        self.world.journal.batch_bytes_max = BATCH_BYTES
        for number in range(MEMBERS):
            assert not self.beat(number, 0).error_code

    def beat(self, number: int, epoch: int) -> ConsumerGroupHeartbeatResponse:
        request = ConsumerGroupHeartbeatRequest(
            group_id=GROUP, member_id=f"member-{number:04}", member_epoch=epoch
        )
        if epoch == 0:
            request.rebalance_timeout_ms = 60_000
            request.subscribed_topic_names = ["t"]
            request.topic_partitions = []
        asked = self.world.runtime.submit(
            GROUP, lambda shard: shard.consumer.heartbeat(request, Caller("c", "/host", 1))
        )
        answer = asked.result()
        assert isinstance(answer, ConsumerGroupHeartbeatResponse)
        return answer

    @property
    def group(self) -> ConsumerGroup:
        found = self.world.shard.groups[GROUP]
        assert isinstance(found, ConsumerGroup)
        return found


def test_targets_that_no_batch_could_hold_are_written_in_several() -> None:
    crowd = Crowd()
    before = len(crowd.world.journal.batches)
    crowd.world.loop.advance(1.0)
    assert crowd.beat(1, 2).member_epoch == MEMBERS + 1
    batches = crowd.world.journal.batches[before:]
    assert len(batches) > 2
    assert max(map(len, batches)) <= BATCH_BYTES
    assert all(len(target[T_ID]) == 1 for target in crowd.group.targets.values())
    assert len(crowd.group.targets) == MEMBERS


@pytest.mark.parametrize("lost", [1, 2])
def test_targets_of_which_a_crash_kept_a_beginning_are_computed_anew(lost: int) -> None:
    crowd = Crowd()
    crowd.world.loop.advance(1.0)
    crowd.beat(1, 2)
    del crowd.world.journal.batches[-lost:]
    crowd.world.crash()
    group = crowd.group
    assert (group.epoch, group.assignment_epoch) == (MEMBERS + 1, 2)
    crowd.beat(1, 2)
    assert group.assignment_epoch == MEMBERS + 1
    given = sorted(number for target in group.targets.values() for number in target[T_ID])
    assert given == list(range(MEMBERS))
