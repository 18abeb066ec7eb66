"""What groups commit, read and take back: the shard's decisions about offsets."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.cluster.image import ClusterImage, TopicImage
from ottla.coordinator.decision import Decision, Entry, Schedule
from ottla.coordinator.entries.offsets_topic import (
    GroupMetadataKey,
    GroupMetadataValue,
    LegacyOffsetCommitKey,
    OffsetCommitKey,
    OffsetCommitValue,
    encode_entry,
)
from ottla.coordinator.group.offsets import NOTHING, tombstone
from ottla.coordinator.group.retention import EXPIRE, SWEEP
from ottla.coordinator.group.shard import Commit, GroupShard, Member
from ottla.core.model import TopicId
from ottla.core.options import broker_config
from ottla.protocol.errors import ErrorCode
from ottla.testing.simloop import SimLoop

T_ID, U_ID = TopicId(b"t" * 16), TopicId(b"u" * 16)
DAY_MS = 86_400_000


class World:
    """A shard whose decisions are replayed at once."""

    def __init__(self, **given: str) -> None:
        self.config = broker_config({name.replace("_", "."): text for name, text in given.items()})
        self.loop = SimLoop()
        self.topics = {"t": TopicImage("t", T_ID, (), {}), "u": TopicImage("u", U_ID, (), {})}
        self.written: list[Entry] = []
        self.restart()

    def image(self) -> ClusterImage:
        by_id = {topic.id: topic for topic in self.topics.values()}
        return ClusterImage("c", topics=self.topics, by_id=by_id)

    def restart(self) -> None:
        self.shard = GroupShard(0, self.config, self.image, self.loop)
        for entry in self.written:
            self.shard.replay(entry)

    def do(self, decision: Decision[Any]) -> Any:
        for entry in decision.entries:
            encode_entry(entry)  # it can be written
            self.written.append(entry)
            self.shard.replay(entry)
        return decision.reply

    def commit(self, offset: int, group: str = "g", topic: str = "t", **more: Any) -> Any:
        member = more.pop("member", Member())
        topic_id = self.topics[topic].id
        one = Commit(topic, topic_id, 0, offset, 3, more.pop("metadata", "m"))
        version = more.pop("version", 8)
        return self.do(self.shard.commit_offsets(group, member, [one], version=version, **more))

    def fetch(self, group: str = "g", topic: str = "t") -> int:
        (told,) = self.do(self.shard.fetch_offsets(group, [(topic, 0)]))
        assert not told.error
        return int(told.committed.offset)

    def expire(self) -> int:
        """Look for what expires until all groups were looked at; how often it took."""
        decision, looks = self.shard.retention.expire(list(self.shard.group_ids())), 1
        while True:
            self.do(decision)
            (again,) = (one for one in decision.effects if isinstance(one, Schedule))
            if again.delay_s:
                return looks
            decision, looks = again.decide(), looks + 1


@pytest.fixture
def world() -> World:
    return World()


def test_what_was_committed_last_is_what_is_told(world: World) -> None:
    assert world.commit(5) == [ErrorCode.NONE]
    assert world.commit(3) == [ErrorCode.NONE]
    (told,) = world.do(world.shard.fetch_offsets("g", [("t", 0)]))
    assert (told.committed.offset, told.committed.leader_epoch) == (3, 3)
    assert told.committed.metadata == "m"
    assert told.committed.topic_id == T_ID


def test_of_what_was_never_committed_nothing_is_told_and_no_zero(world: World) -> None:
    world.commit(0)
    tolds = world.do(world.shard.fetch_offsets("g", [("t", 0), ("t", 1), ("u", 0), ("x", 0)]))
    assert [told.committed.offset for told in tolds] == [0, -1, -1, -1]
    assert tolds[1].committed == NOTHING
    assert world.fetch("another") == -1


def test_h101_past_so_many_groups_with_offsets_no_other_is_begun() -> None:
    world = World(groups_max="2")
    assert world.commit(1, "g") == world.commit(1, "h") == [ErrorCode.NONE]
    assert world.commit(1, "i") is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert world.fetch("i") == -1
    assert world.commit(2, "h") == [ErrorCode.NONE]
    world.restart()
    assert world.commit(1, "i") is ErrorCode.GROUP_MAX_SIZE_REACHED


def test_all_of_a_group_is_told_by_topic_and_partition(world: World) -> None:
    assert world.do(world.shard.fetch_all_offsets("g")) == {}
    world.commit(5)
    world.commit(6, topic="u")
    world.commit(7, group="h")
    told = world.do(world.shard.fetch_all_offsets("g"))
    assert {
        topic: {n: one.committed.offset for n, one in parts.items()}
        for topic, parts in told.items()
    } == {
        "t": {0: 5},
        "u": {0: 6},
    }


@pytest.mark.parametrize(
    ("version", "error"), [(8, ErrorCode.ILLEGAL_GENERATION), (9, ErrorCode.GROUP_ID_NOT_FOUND)]
)
def test_a_generation_of_a_group_that_is_not_there_is_refused(
    world: World, version: int, error: ErrorCode
) -> None:
    assert world.commit(5, member=Member("m", None, 1), version=version) is error
    assert world.written == []


def test_a_generation_of_a_group_without_members_is_refused(world: World) -> None:
    world.commit(5)
    assert world.commit(6, member=Member("m", None, 1)) is ErrorCode.UNKNOWN_MEMBER_ID
    assert world.fetch() == 5


def test_metadata_is_measured_in_units_of_utf_16(world: World) -> None:
    assert world.commit(5, metadata="é" * 4096) == [ErrorCode.NONE]
    assert world.commit(5, metadata="𝄞" * 2048) == [ErrorCode.NONE]
    for text in ("x" * 4097, "𝄞" * 2049):
        assert world.commit(6, metadata=text) == [ErrorCode.OFFSET_METADATA_TOO_LARGE]
    assert world.fetch() == 5


def test_one_partition_that_is_refused_leaves_the_others(world: World) -> None:
    commits = [Commit("t", T_ID, 0, 5, -1, "x" * 5000), Commit("t", T_ID, 1, 6, -1, "")]
    decision = world.shard.commit_offsets("g", Member(), commits, version=8)
    assert world.do(decision) == [ErrorCode.OFFSET_METADATA_TOO_LARGE, ErrorCode.NONE]
    tolds = world.do(world.shard.fetch_offsets("g", [("t", 0), ("t", 1)]))
    assert [told.committed.offset for told in tolds] == [-1, 6]


def test_offsets_are_deleted_one_by_one_and_the_group_stays(world: World) -> None:
    assert world.do(world.shard.delete_offsets("g", [("t", 0)])) is ErrorCode.GROUP_ID_NOT_FOUND
    world.commit(5)
    assert world.do(world.shard.delete_offsets("g", [("t", 0), ("t", 9)])) == [ErrorCode.NONE] * 2
    assert world.fetch() == -1
    for _ in range(2):
        assert world.do(world.shard.delete_offsets("g", [("t", 0)])) == [ErrorCode.NONE]
        world.restart()


def test_a_deleted_topic_takes_what_was_committed_of_it_along(world: World) -> None:
    world.commit(5)
    world.commit(6, topic="u")
    world.commit(7, group="h")
    world.do(world.shard.retention.forget_topic(world.topics["t"]))
    assert [world.fetch(), world.fetch("h"), world.fetch(topic="u")] == [-1, -1, 6]


def test_what_was_committed_of_a_new_topic_of_the_same_name_stays(world: World) -> None:
    gone = world.topics["t"]
    world.topics["t"] = TopicImage("t", TopicId(b"n" * 16), (), {})
    world.commit(5)
    world.do(world.shard.retention.forget_topic(gone))
    assert world.fetch() == 5


def test_what_a_crash_left_of_a_deleted_topic_is_taken_back_at_the_next_load(world: World) -> None:
    world.commit(5)
    world.commit(6, topic="u")
    del world.topics["t"]
    world.restart()
    assert (world.fetch(), world.fetch(topic="u")) == (-1, 6)
    told = world.do(world.shard.fetch_all_offsets("g"))
    assert list(told) == ["u"]
    (sweep,) = (one for one in world.shard.loaded().effects if one.key == SWEEP)
    world.do(sweep.decide())
    assert world.written[-1] == tombstone("g", "t", 0)
    assert list(world.shard.offsets.of_group("g")) == ["u"]


# --- retention (KIP-211) ---------------------------------------------------------------------


def test_an_offset_expires_when_nothing_was_committed_for_as_long_as_retention_says() -> None:
    world = World(offsets_retention_minutes="60")
    world.commit(5)
    world.loop.advance(1800)
    world.commit(6, topic="u")
    world.loop.advance(1799)
    world.expire()
    assert (world.fetch(), world.fetch(topic="u")) == (5, 6)
    world.loop.advance(1)
    world.expire()
    assert (world.fetch(), world.fetch(topic="u")) == (-1, 6)


def test_a_commit_that_says_how_long_is_kept_that_long() -> None:
    world = World(offsets_retention_minutes="60")
    world.commit(5, retention_ms=1000)
    world.commit(6, topic="u", retention_ms=2 * DAY_MS)
    world.restart()
    world.loop.advance(2)
    world.expire()
    assert (world.fetch(), world.fetch(topic="u")) == (-1, 6)
    world.loop.advance(DAY_MS / 1000)
    world.expire()
    assert world.fetch(topic="u") == 6


def test_a_group_whose_last_offset_expires_is_gone(world: World) -> None:
    world.commit(5)
    world.loop.advance(8 * 86_400)
    world.expire()
    assert world.written[-1] == Entry(GroupMetadataKey(group="g"), None)
    assert world.shard.group("g") is None
    world.restart()
    assert world.shard.group("g") is None


def test_an_empty_group_that_never_committed_is_gone_at_the_next_look(world: World) -> None:
    value = GroupMetadataValue(protocol_type="consumer", generation=3, current_state_timestamp=1)
    world.do(Decision(None, [Entry(GroupMetadataKey(group="g"), value)]))
    assert world.shard.group("g") is not None
    world.expire()
    assert world.written[-1] == Entry(GroupMetadataKey(group="g"), None)
    assert world.shard.group("g") is None


def test_retention_can_be_changed_by_a_restart_only_but_holds_for_all_there_is() -> None:
    world = World(offsets_retention_minutes="1")
    for number in range(50):
        world.commit(number, group=f"g{number}")
    world.loop.advance(61)
    world.expire()
    assert world.shard.offsets.groups == {}


def test_a_large_shard_is_looked_through_in_several_turns(world: World) -> None:
    for number in range(5000):
        world.commit(number, group=f"g{number}")
    assert world.expire() > 2
    world.loop.advance(8 * 86_400)
    assert world.expire() > 2
    assert world.shard.offsets.groups == {}


def test_a_loaded_shard_begins_to_look_for_what_expires() -> None:
    world = World(offsets_retention_check_interval_ms="5000")
    (effect,) = (one for one in world.shard.loaded().effects if one.key == EXPIRE)
    assert effect.delay_s == 5.0


# --- transactions, as Kafka may have left them -----------------------------------------------


def _pending(world: World, offset: int | None, producer: int = 7) -> None:
    value = None
    if offset is not None:
        value = OffsetCommitValue(offset=offset, commit_timestamp=1, topic_id=T_ID)
    key = OffsetCommitKey(group="g", topic="t", partition=0)
    world.shard.replay(Entry(key, value), producer)


def test_an_offset_of_an_open_transaction_counts_once_it_is_committed(world: World) -> None:
    world.commit(5)
    _pending(world, 9)
    assert world.fetch() == 5
    (told,) = world.do(world.shard.fetch_offsets("g", [("t", 0)], require_stable=True))
    assert told.error is ErrorCode.UNSTABLE_OFFSET_COMMIT
    assert told.committed == NOTHING
    world.shard.end_transaction(7, True)
    assert world.fetch() == 9
    (told,) = world.do(world.shard.fetch_offsets("g", [("t", 0)], require_stable=True))
    assert told.error is ErrorCode.NONE


def test_an_offset_of_an_aborted_transaction_never_counts(world: World) -> None:
    world.commit(5)
    _pending(world, 9)
    _pending(world, 11, producer=8)
    world.shard.end_transaction(7, False)
    assert world.shard.offsets.is_pending("g", "t", 0)
    world.shard.end_transaction(8, False)
    assert not world.shard.offsets.is_pending("g", "t", 0)
    assert world.fetch() == 5


def test_what_is_pending_does_not_expire(world: World) -> None:
    world.commit(5)
    _pending(world, 9)
    world.loop.advance(8 * 86_400)
    world.expire()
    assert world.fetch() == 5


def test_offsets_in_the_oldest_form_are_read_as_well(world: World) -> None:
    key = LegacyOffsetCommitKey(group="g", topic="t", partition=0)
    world.shard.replay(Entry(key, OffsetCommitValue(offset=4, commit_timestamp=1)))
    assert world.fetch() == 4


# --- how much it may be ----------------------------------------------------------------------


def many(*partitions: int, metadata: str = "") -> list[Commit]:
    return [Commit("t", T_ID, partition, 1, -1, metadata) for partition in partitions]


def commit_all(world: World, commits: list[Commit], group: str = "g") -> Any:
    return world.do(world.shard.commit_offsets(group, Member(), commits, version=8))


def test_a_group_that_is_full_commits_no_further_partition_but_goes_on_with_those_it_has() -> None:
    world = World(group_offsets_bytes_max="1024")
    full = ErrorCode.INVALID_COMMIT_OFFSET_SIZE
    assert commit_all(world, many(*range(7))) == [ErrorCode.NONE] * 5 + [full] * 2
    assert commit_all(world, many(4, 5)) == [ErrorCode.NONE, full]
    assert commit_all(world, many(0, metadata="x" * 100)) == [full]
    assert commit_all(world, many(9), "another") == [ErrorCode.NONE]
    world.restart()
    assert commit_all(world, many(4, 5)) == [ErrorCode.NONE, full]
    world.do(world.shard.delete_offsets("g", [("t", 0)]))
    assert commit_all(world, many(5)) == [ErrorCode.NONE]


def test_all_groups_together_have_a_limit_too() -> None:
    world = World(offsets_bytes_max="1024")
    assert commit_all(world, many(0, 1, 2)) == [ErrorCode.NONE] * 3
    full = ErrorCode.INVALID_COMMIT_OFFSET_SIZE
    assert commit_all(world, many(0, 1, 2), "another") == [ErrorCode.NONE] * 2 + [full]


def test_texts_count_and_a_shorter_one_makes_room() -> None:
    world = World(group_offsets_bytes_max="1024")
    assert commit_all(world, many(0, metadata="x" * 800)) == [ErrorCode.NONE]
    assert commit_all(world, many(1)) == [ErrorCode.INVALID_COMMIT_OFFSET_SIZE]
    assert commit_all(world, many(0)) == [ErrorCode.NONE]
    assert commit_all(world, many(1)) == [ErrorCode.NONE]
    assert world.shard.offsets.bytes_of("g") == world.shard.offsets.bytes_count == 400
