"""Retention on a simulated node: what goes, when, and what never does (I34).

A segment takes two of the batches here, and a third one rolls it.
"""

from __future__ import annotations

import random

import pytest

from ottla.core.model import Offset
from ottla.replication.partition import Partition
from ottla.storage.reading import LogPosition
from ottla.storage.retention import judge
from ottla.testing.simnode import SimNode
from tests.asking import Want, batch, batches, get, put

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
BIG = bytes(500_000)
CHECK_S = 300


class World:
    def __init__(self, seed: int = 0, **topic: str) -> None:
        self.node = SimNode(seed, log_segment_bytes=str(1 << 20))
        self.node.create_topic("t", **topic)

    def put(self, count: int, age_ms: int = 0) -> None:
        """Batches of one record, as old as is said."""
        for _ in range(count):
            now_ms = self.node.loop.wall_ms()
            assert put(self.node, batch(BIG, timestamp=now_ms - age_ms)).error_code == 0

    def check(self) -> None:
        """Until retention has looked, deleted, and looked again at what it has rolled."""
        for _ in range(2):
            self.node.advance(CHECK_S)

    @property
    def start(self) -> int:
        return self.node.partition("t").log.start

    @property
    def bases(self) -> list[int]:
        return [segment.base_offset for segment in self.node.partition("t").log.segments]

    @property
    def logs(self) -> list[str]:
        self.node.disk.on_loop = False
        found = self.node.disk.names("/data/t-0")
        self.node.disk.on_loop = True
        return [name for name in found if name.endswith(".log")]


def test_segments_older_than_retention_ms_go_and_the_younger_stay() -> None:
    world = World(retention_ms=str(DAY_MS))
    world.put(4, age_ms=2 * DAY_MS)
    world.put(2, age_ms=HOUR_MS)
    assert world.bases == [0, 2, 4]
    world.check()
    assert (world.start, world.bases) == (4, [4])
    assert world.logs == ["00000000000000000004.log"]


def test_the_largest_timestamp_of_a_segment_counts() -> None:
    world = World(retention_ms=str(DAY_MS))
    world.put(1, age_ms=HOUR_MS)
    world.put(3, age_ms=2 * DAY_MS)
    world.check()
    assert world.start == 0, "the first segment holds one young record"


def test_where_all_is_old_the_last_segment_is_rolled_and_goes_as_kafka_has_it() -> None:
    world = World(retention_ms=str(DAY_MS))
    world.put(3, age_ms=2 * DAY_MS)
    world.check()
    assert (world.start, world.bases) == (3, [3])
    world.put(1)
    assert world.node.partition("t").log.end == 4
    assert len(batches(get(world.node, Want(offset=3)))) == 1


def test_a_time_index_that_was_cut_makes_no_segment_older_than_it_is() -> None:
    world = World(retention_ms=str(DAY_MS))
    world.put(1, age_ms=2 * DAY_MS)
    world.put(1)
    world.put(2, age_ms=2 * DAY_MS)
    world.put(1)
    world.node.stop()
    world.node.disk.on_loop = False
    index = world.node.disk.open("/data/t-0/00000000000000000000.timeindex")
    index.truncate(12)  # of its two entries the second is that of the young record
    world.node.disk.on_loop = True
    world.node.start()
    world.check()
    assert world.start == 0
    world.node.advance(DAY_MS // 1000)
    world.check()
    assert world.start >= 4


def test_of_the_size_no_more_goes_than_leaves_retention_bytes() -> None:
    world = World(retention_bytes="1500000", retention_ms="-1")
    world.put(8)
    assert world.bases == [0, 2, 4, 6]
    world.check()
    assert world.bases == [4, 6], "two segments of a million; with one less there were too few"


def test_without_the_policy_delete_nothing_goes_for_its_age_or_size() -> None:
    world = World(cleanup_policy="", retention_ms="1", retention_bytes="1")
    world.put(4, age_ms=2 * DAY_MS)
    world.check()
    assert world.bases == [0, 2]


def test_what_coordinators_keep_never_goes_for_its_age() -> None:
    node = SimNode(offsets_topic_num_partitions="1", log_retention_ms="1")
    partition = _with_a_commit(node)
    log = partition.log
    log.settings = log.settings.replace(retention_ms=1, retention_bytes=1)  # as a policy may say
    before = log.end
    assert before > 0
    node.advance(30 * 24 * 3600)
    assert partition.log.start == 0
    assert partition.log.segments[0].base_offset == 0


def _with_a_commit(node: SimNode) -> Partition:
    from ottla.protocol.messages import find_coordinator, offset_commit

    node.create_topic("t")
    connection = node.connect()
    for _ in range(20):
        ask = find_coordinator.FindCoordinatorRequest(key_type=0, coordinator_keys=["g"])
        call = connection.ask(ask, 4)
        node.settle()
        if call.answer.coordinators[0].error_code == 0:
            break
        node.advance(1)
    one = offset_commit.OffsetCommitRequestPartition(partition_index=0, committed_offset=1)
    topic = offset_commit.OffsetCommitRequestTopic(name="t", partitions=[one])
    commit = offset_commit.OffsetCommitRequest(
        group_id="g", generation_id_or_member_epoch=-1, topics=[topic]
    )
    for _ in range(20):
        call = connection.ask(commit, 7)
        node.settle()
        if call.answer.topics[0].partitions[0].error_code == 0:
            return node.partition("__consumer_offsets")
        node.advance(1)
    raise AssertionError("no commit came through")


def test_a_timestamp_of_the_future_keeps_its_segment_and_is_told_once(caplog) -> None:
    world = World(retention_ms=str(DAY_MS), message_timestamp_after_max_ms=str(400 * DAY_MS))
    world.put(3, age_ms=-365 * DAY_MS)
    world.check()
    world.check()
    assert world.start == 0
    assert sum("ahead of the clock" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("hours", [3, 48, 24 * 365 * 10])
def test_a_wall_clock_that_jumps_ahead_deletes_nothing_young(hours: int, caplog) -> None:
    world = World(retention_ms=str(2 * HOUR_MS))
    world.check()
    world.put(6)
    world.node.loop.wall_offset_ms += hours * HOUR_MS
    for _ in range(6):
        world.check()
    assert world.start == 0, "an hour has passed, not more"
    assert any("ahead of the time that has passed" in record.message for record in caplog.records)
    world.node.loop.wall_offset_ms -= hours * HOUR_MS
    world.check()
    assert world.start == 0
    world.node.advance(2 * 3600)
    world.check()
    assert world.start == 6, "time itself has passed"


def test_retention_goes_on_by_the_time_that_passes_while_the_clock_is_not_believed() -> None:
    world = World(retention_ms=str(HOUR_MS))
    world.check()
    world.put(2, age_ms=HOUR_MS - 600_000)
    world.put(2)
    world.node.loop.wall_offset_ms += 100 * DAY_MS
    world.node.advance(900)
    world.check()
    assert world.start == 2, "a quarter of an hour was enough for the first segment alone"


def test_a_clock_that_stays_steady_after_a_jump_is_believed_in_the_end() -> None:
    world = World(retention_ms=str(2 * DAY_MS))
    world.check()
    world.put(4)
    world.node.loop.wall_offset_ms += 3 * DAY_MS
    world.node.advance(3600 - CHECK_S)
    assert world.start == 0
    world.node.advance(3 * CHECK_S)
    assert world.start == 4


def test_a_clock_that_jumps_while_the_node_is_down_is_not_believed_either() -> None:
    world = World(retention_ms=str(2 * HOUR_MS))
    world.put(4)
    world.node.advance(120)
    _checkpoint(world.node)
    world.node.loop.wall_offset_ms += 365 * DAY_MS
    world.node.kill()
    world.node.advance(30 * 60)
    assert world.start == 0
    world.node.advance(2 * 3600)
    assert world.start == 4


def _checkpoint(node: SimNode) -> None:
    done = node.directory.checkpoint()
    node.settle()
    done.result()


def test_a_clock_that_is_set_back_keeps_more_and_harms_nothing() -> None:
    world = World(retention_ms=str(DAY_MS))
    world.check()
    world.put(2)
    world.node.loop.wall_offset_ms -= 10 * DAY_MS
    world.put(2)
    world.check()
    assert world.start == 0


@pytest.mark.parametrize("which", ["high_position", "stable_position"])
@pytest.mark.parametrize("options", [{"retention_ms": str(HOUR_MS)}, {"retention_bytes": "1"}])
def test_i34_nothing_goes_that_is_not_committed_or_in_an_open_transaction(
    which: str, options: dict[str, str]
) -> None:
    world = World(**{"retention_ms": "-1", **options})
    world.put(8, age_ms=2 * DAY_MS)
    partition = world.node.partition("t")
    assert world.bases == [0, 2, 4, 6]
    at = partition.log.segments[1]
    setattr(partition, which, LogPosition(Offset(3), at, 1))  # as if it lagged
    world.node.retention.check()
    assert world.start == 2, "the segment that it lies in stays"
    world.node.settle()
    assert world.bases == [2, 4, 6], "so does what follows, and nothing was rolled"


def test_what_is_exactly_as_old_or_as_large_as_it_may_be() -> None:
    world = World(retention_ms="-1", retention_bytes="1")
    world.put(5)
    log = world.node.partition("t").log
    left = sum(segment.size for segment in log.segments[1:])
    log.settings = log.settings.replace(retention_bytes=left)
    now_ms = world.node.loop.wall_ms()
    assert judge(log, now_ms, log.end).start == 2, "as much is left as is to stay"
    log.settings = log.settings.replace(retention_bytes=left + 1)
    assert judge(log, now_ms, log.end).start == 0
    log.settings = log.settings.replace(retention_bytes=-1, retention_ms=HOUR_MS)
    then_ms = log.segments[0].max_timestamp + HOUR_MS
    assert judge(log, then_ms, log.end).start == 0
    assert judge(log, then_ms + 1, log.end).start >= 2


def test_a_clock_that_jumps_again_must_be_steady_anew() -> None:
    world = World(retention_ms=str(2 * DAY_MS))
    world.check()
    world.put(4)
    for _ in range(3):
        world.node.loop.wall_offset_ms += 3 * DAY_MS
        world.node.advance(3600 - CHECK_S)
        assert world.start == 0, "each time it was as steady for less than an hour"
    world.node.advance(3 * CHECK_S)
    assert world.start == 4


@pytest.mark.parametrize("seed", range(40))
def test_whatever_crashes_the_start_is_durable_before_its_files_go(seed: int) -> None:
    chance = random.Random(seed)
    world = World(seed, retention_ms=str(DAY_MS))
    world.put(4, age_ms=2 * DAY_MS)
    world.put(3)
    world.node.retention.check()
    for _ in range(chance.randrange(30)):
        world.node.step()
    seen = world.start if world.node.partition("t").log.segments[0].base_offset else 0
    world.node.crash()
    log = world.node.partition("t").log
    assert not log.failed, "files went before the start that says so"
    assert log.start >= seen
    assert log.end == 7
    for offset in range(log.start, 7):
        assert batches(get(world.node, Want(offset=offset)))[0].base_offset == offset
    world.check()
    assert log.start == 4
