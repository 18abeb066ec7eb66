"""What groups commit in transactions: pending until those end, and then counting or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.coordinator.decision import Decision
from ottla.coordinator.entries.offsets_topic import GroupMetadataKey
from ottla.coordinator.group.listing import delete_group
from ottla.coordinator.group.offsets import NOTHING
from ottla.coordinator.group.shard import Commit, Member, Told
from ottla.protocol.errors import ErrorCode
from ottla.records.builder import Producer
from tests.unit.coordinator.group.test_committed_offsets import DAY_MS, T_ID
from tests.unit.coordinator.group.test_committed_offsets import World as PlainWorld

UNSTABLE = Told(NOTHING, ErrorCode.UNSTABLE_OFFSET_COMMIT)


class World(PlainWorld):
    """Decisions in transactions are replayed as the keeper does it; `history` is the log."""

    def restart(self) -> None:
        self.history: list[Any] = []
        super().restart()

    def do(self, decision: Decision[Any]) -> Any:
        producer_id = -1 if decision.producer is None else decision.producer.id
        for entry in decision.entries:
            self.history.append((entry, producer_id))
            self.shard.replay(entry, producer_id)
        return decision.reply

    def commit_in(self, producer_id: int, offset: int, group: str = "g", **more: Any) -> Any:
        one = Commit("t", T_ID, 0, offset, 3, more.pop("metadata", "m"))
        member = more.pop("member", Member())
        decision = self.shard.commit_in_transaction(
            group, member, [one], Producer(producer_id, 0), version=3
        )
        return self.do(decision)

    def end(self, producer_id: int, committed: bool = True) -> None:
        self.history.append((producer_id, committed))
        self.shard.end_transaction(producer_id, committed)

    def fetch_stable(self, group: str = "g") -> Told:
        (told,) = self.do(self.shard.fetch_offsets(group, [("t", 0)], require_stable=True))
        return told

    def expire_all(self) -> None:
        self.loop.now_s += 8 * DAY_MS / 1000
        self.expire()


@pytest.fixture
def world() -> World:
    return World()


def test_an_offset_counts_when_its_transaction_is_committed(world: World) -> None:
    world.commit(1)
    assert world.commit_in(7, 5) == [ErrorCode.NONE]
    assert (world.fetch(), world.fetch_stable()) == (1, UNSTABLE)
    world.end(7)
    assert (world.fetch(), world.fetch_stable().committed.offset) == (5, 5)


def test_an_offset_never_counts_whose_transaction_is_aborted(world: World) -> None:
    world.commit(1)
    world.commit_in(7, 5)
    world.end(7, committed=False)
    assert (world.fetch(), world.fetch_stable().committed.offset) == (1, 1)


def test_of_two_in_one_transaction_the_later_counts(world: World) -> None:
    world.commit_in(7, 5)
    world.commit_in(7, 4)
    world.end(7)
    assert world.fetch() == 4


def test_a_commit_without_a_transaction_counts_more_than_one_that_was_pending(world: World) -> None:
    world.commit_in(7, 5)
    world.commit(9)
    assert (world.fetch(), world.fetch_stable()) == (9, UNSTABLE)
    world.end(7)
    assert (world.fetch(), world.fetch_stable().committed.offset) == (9, 9)


def test_a_commit_in_a_transaction_counts_more_than_a_plain_one_before_it(world: World) -> None:
    world.commit_in(7, 5)
    world.commit(9)
    world.commit_in(7, 6)
    world.end(7)
    assert world.fetch() == 6


@pytest.mark.parametrize(("first", "second"), [(7, 8), (8, 7)])
def test_of_two_transactions_the_one_that_wrote_later_counts(
    world: World, first: int, second: int
) -> None:
    world.commit_in(7, 5)
    world.commit_in(8, 6)
    world.end(first)
    assert world.fetch_stable() == UNSTABLE
    world.end(second)
    assert world.fetch_stable().committed.offset == 6


def test_the_end_of_a_transaction_told_twice_changes_nothing(world: World) -> None:
    world.commit_in(7, 5)
    world.end(7)
    world.commit(1)
    world.end(7)
    world.end(7, committed=False)
    assert world.fetch() == 1


def test_replay_of_the_log_makes_the_same_of_it(world: World) -> None:
    world.commit_in(7, 5)
    world.commit(9)
    world.commit_in(8, 6)
    world.end(8, committed=False)
    world.commit_in(7, 3, group="h")
    world.end(7)
    world.commit_in(9, 1)
    before, history = world.shard.offsets, world.history
    world.restart()
    for one, two in history:
        if isinstance(one, int):
            world.shard.end_transaction(one, two)
        else:
            world.shard.replay(one, two)
    assert world.shard.offsets.groups == before.groups
    assert list(world.shard.offsets.pending_places("g")) == [("t", 0)]
    assert not world.shard.offsets.has_pending("h")


def test_a_group_that_only_has_something_pending_is_known(world: World) -> None:
    world.commit_in(7, 5)
    (told,) = world.do(world.shard.fetch_offsets("g", [("t", 0)]))
    assert told == Told(NOTHING)
    group = world.shard.group("g")
    assert group is not None
    assert group.listed().group_state == "Empty"


def test_deleting_offsets_takes_what_is_pending_along(world: World) -> None:
    world.commit(1)
    world.commit_in(7, 5)
    assert world.do(world.shard.delete_offsets("g", [("t", 0)])) == [ErrorCode.NONE]
    assert world.fetch_stable() == Told(NOTHING)
    world.end(7)
    assert world.fetch() == -1


def test_deleting_the_offset_of_one_transaction_leaves_its_others(world: World) -> None:
    world.commit_in(7, 5)
    world.commit_in(7, 6, group="h")
    world.do(world.shard.delete_offsets("g", [("t", 0)]))
    world.end(7)
    assert (world.fetch(), world.fetch("h")) == (-1, 6)


def test_a_group_is_deleted_with_what_is_pending(world: World) -> None:
    world.commit(1)
    world.commit_in(7, 5)
    assert world.do(delete_group(world.shard, "g")) is ErrorCode.NONE
    world.end(7)
    assert world.shard.group("g") is None
    assert world.fetch() == -1


def test_a_group_does_not_expire_while_something_is_pending(world: World) -> None:
    world.commit_in(7, 5)
    world.expire_all()
    assert world.shard.group("g") is not None
    world.end(7, committed=False)
    world.expire_all()
    assert world.shard.group("g") is None
    assert world.history[-1][0].key == GroupMetadataKey(group="g")


def test_a_topics_deletion_takes_what_is_pending_along(world: World) -> None:
    world.commit_in(7, 5)
    world.do(world.shard.retention.forget_topic(world.topics["t"]))
    assert world.fetch_stable() == Told(NOTHING)
    world.end(7)
    assert world.fetch() == -1


def test_a_generation_of_a_group_that_is_not_there_is_refused(world: World) -> None:
    refused = world.commit_in(7, 5, member=Member("m", None, 1))
    assert refused is ErrorCode.ILLEGAL_GENERATION
    assert world.history == []


def test_h101_past_so_many_groups_no_transaction_begins_another() -> None:
    world = World(groups_max="2")
    assert world.commit_in(7, 1, group="a") == [ErrorCode.NONE]
    assert world.commit_in(7, 1, group="b") == [ErrorCode.NONE]
    assert world.commit_in(7, 1, group="c") is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert world.commit_in(7, 2, group="a") == [ErrorCode.NONE]


def test_one_partition_whose_metadata_is_too_long_leaves_the_others(world: World) -> None:
    commits = [Commit("t", T_ID, n, 5, -1, "m" * (5000 * n)) for n in (0, 1)]
    asked = world.shard.commit_in_transaction("g", Member(), commits, Producer(7, 0), version=3)
    assert world.do(asked) == [ErrorCode.NONE, ErrorCode.OFFSET_METADATA_TOO_LARGE]
    world.end(7)
    assert world.fetch() == 5


def test_what_is_pending_counts_for_the_limit_until_its_transaction_ends() -> None:
    world = World(group_offsets_bytes_max="1024")
    full = [ErrorCode.INVALID_COMMIT_OFFSET_SIZE]
    for producer_id in range(5):
        assert world.commit_in(producer_id, 1) == [ErrorCode.NONE]
    assert world.commit_in(7, 1) == full
    assert world.commit_in(4, 2) == [ErrorCode.NONE], "the same place in the same transaction"
    world.end(0, committed=False)
    assert world.commit_in(7, 1) == [ErrorCode.NONE]
    for producer_id in (1, 2, 3, 4, 7):
        world.end(producer_id)
    assert world.shard.offsets.bytes_of("g") == 201, "one place, and one character beside it"
    world.commit_in(8, 1)
    world.do(world.shard.delete_offsets("g", [("t", 0)]))
    assert world.shard.offsets.bytes_count == 0
