"""Who may commit offsets in a transaction (KIP-447): members of a group in its generation.

A producer is told apart from the one that took its place by the group, not by a transactional id
of its own: what a member that was replaced commits would be read twice.
"""

from __future__ import annotations

from typing import Any

import pytest

from ottla.coordinator.group.shard import Commit, Member
from ottla.core.model import NO_TOPIC_ID
from ottla.protocol.errors import ErrorCode as E
from ottla.records.builder import Producer
from tests import groups
from tests.unit.coordinator.group import consumer_world
from tests.unit.coordinator.group.consumer_world import topic_id

NOBODY = Member()
DONE = [E.NONE]


def in_classic(world: groups.World, member: Member, version: int = 3) -> Any:
    one = [Commit("t", NO_TOPIC_ID, 0, 5, -1, "")]
    asked = world.runtime.submit(
        groups.GROUP,
        lambda shard: shard.commit_in_transaction(
            groups.GROUP, member, one, Producer(7, 0), version=version
        ),
    )
    world.loop.run()
    return asked.result()


@pytest.mark.parametrize("version", [3, 5])
def test_members_of_the_generation_commit_and_nobody_else(version: int) -> None:
    world = groups.World()
    [member] = world.stable(1)
    now = world.group.generation
    assert in_classic(world, Member(member, None, now), version) == DONE
    for epoch in (now - 1, now + 1, -1):
        told = in_classic(world, Member(member, None, epoch), version)
        assert told is E.ILLEGAL_GENERATION
    assert in_classic(world, Member("other", None, now), version) is E.UNKNOWN_MEMBER_ID
    assert in_classic(world, Member("", None, now), version) is E.UNKNOWN_MEMBER_ID


def test_a_member_that_was_replaced_commits_nothing() -> None:
    world = groups.World()
    [first, second] = world.stable(2)
    before = world.group.generation
    world.leave(first)
    assert in_classic(world, Member(first, None, before)) is E.UNKNOWN_MEMBER_ID
    joined = world.join(second)
    world.loop.run()
    assert joined.result().generation_id == before + 1
    assert in_classic(world, Member(second, None, before)) is E.ILLEGAL_GENERATION


def test_who_names_no_member_commits_beside_a_group_as_before_kip_447() -> None:
    world = groups.World()
    world.stable(1)
    assert in_classic(world, NOBODY) == DONE


def test_a_rebalance_that_is_not_through_holds_up_no_transaction() -> None:
    """A plain commit is told REBALANCE_IN_PROGRESS then; a producer would have to abort."""
    world = groups.World()
    member = world.promised()
    joined = world.join(member)
    world.loop.run()
    assert world.state == "CompletingRebalance"
    epoch = joined.result().generation_id
    assert in_classic(world, Member(member, None, epoch)) == DONE


def of_consumers() -> tuple[consumer_world.World, int]:
    """A group of KIP-848 whose member "m" has been through some epochs."""
    world = consumer_world.World({"t": 1})
    told = world.beat("m", 0, subscribed_topic_names=["t"], owned={}, rebalance_timeout_ms=30_000)
    assert told.error_code == E.NONE
    return world, told.member_epoch


def in_consumers(world: consumer_world.World, member: Member, version: int = 3) -> Any:
    one = [Commit("t", topic_id("t"), 0, 5, -1, "")]
    decision = world.shard.commit_in_transaction(
        consumer_world.GROUP, member, one, Producer(7, 0), version=version
    )
    return decision.reply


@pytest.mark.parametrize("version", [3, 5])
def test_members_of_a_consumer_group_commit_in_their_epoch(version: int) -> None:
    """Of any version of the request: it has no code of its own for an epoch that is over."""
    world, epoch = of_consumers()
    assert in_consumers(world, Member("m", None, epoch), version) == DONE
    assert in_consumers(world, Member("m", None, epoch + 1), version) is E.ILLEGAL_GENERATION
    assert in_consumers(world, Member("m", None, epoch - 1), version) is E.ILLEGAL_GENERATION
    assert in_consumers(world, Member("other", None, epoch), version) is E.UNKNOWN_MEMBER_ID
    assert in_consumers(world, NOBODY, version) == DONE
