"""What is told of groups to those who are not in them: listed, described, deleted.

Owns the answers of ListGroups, DescribeGroups and DeleteGroups for one shard. Must not know which
protocol a group speaks: what it asks of a group is in `shard.Group`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.coordinator.decision import Decision
from ottla.coordinator.group.classic import ClassicGroup
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_groups import DescribedGroup
from ottla.protocol.messages.list_groups import ListedGroup

if TYPE_CHECKING:
    from ottla.coordinator.group.shard import GroupShard

_DEAD = "Dead"


def listed(
    shard: GroupShard, group_id: str, states: frozenset[str], types: frozenset[str]
) -> ListedGroup | None:
    """One group as ListGroups tells it; None if it is gone, or neither in one of these states and
    of one of these types, in lower case. Empty: any."""
    group = shard.group(group_id)
    if group is None:
        return None
    told = group.listed()
    if (not states or told.group_state.lower() in states) and (
        not types or told.group_type.lower() in types
    ):
        return told
    return None


def describe_group(shard: GroupShard, group_id: str, version: int) -> Decision[DescribedGroup]:
    """One classic group, or one that only ever committed; any other is Dead to who asks so."""
    group = shard.group(group_id)
    if isinstance(group, ClassicGroup):
        return Decision(group.described())
    if group is not None and group.listed().group_type == ClassicGroup.type_name:
        return Decision(DescribedGroup(group_id=group_id, group_state=group.listed().group_state))
    why = f"Group {group_id} not found."
    if group is not None:
        why = f"Group {group_id} is not a classic group."
    return Decision(absent(group_id, why, version))


def absent(group_id: str, why: str, version: int) -> DescribedGroup:
    """A group that is not there: an error from version 6 on, before that a state (KIP-1043)."""
    if version < 6:
        return DescribedGroup(group_id=group_id, group_state=_DEAD)
    return DescribedGroup(
        group_id=group_id,
        group_state=_DEAD,
        error_code=ErrorCode.GROUP_ID_NOT_FOUND,
        error_message=why,
    )


def delete_group(shard: GroupShard, group_id: str) -> Decision[ErrorCode]:
    """End a group that nobody is in, with all it has committed (H111)."""
    group = shard.group(group_id)
    if group is None:
        return Decision(ErrorCode.GROUP_ID_NOT_FOUND)
    tombstones = group.tombstones()
    if tombstones is None:
        return Decision(ErrorCode.NON_EMPTY_GROUP)
    # More partitions than a batch has room for must not keep a group for ever: where only some of
    # the tombstones could be written the group is still there, and may be deleted again.
    entries = [*shard.offset_tombstones(group_id), *tombstones]
    return Decision(ErrorCode.NONE, entries, atomic=False)
