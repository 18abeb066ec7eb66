"""Limits that more than one handler holds requests to, and what is said when one is reached.

Owns the judging alone; what a request beyond a limit is answered is its handler's to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla.core import options
from ottla.protocol.apis import API_NAMES
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ottla.cluster.topics import TopicResult
    from ottla.handlers.context import Context, Request


RESOURCES_MAX = 10_000
"""What one request may be told all settings of: each is answered with dozens."""


TEXT_MAX = 100
"""Characters of a peer's text that are worth a place in a log."""


def too_many(
    context: Context, request: Request[Any], count: int, *, at_most: int | None = None
) -> bool:
    """Whether a request that names `count` topics or partitions is beyond the limit (H28).

    `at_most` is a narrower one, where what is named is answered at length.
    """
    most = context.config[options.REQUEST_PARTITIONS_MAX]
    if at_most is not None:
        most = min(most, at_most)
    if count <= most:
        return False
    context.complaints.about(
        options.REQUEST_PARTITIONS_MAX.name,
        request.connection.peer,
        f"{API_NAMES[request.api_key]} names {count} of a kind, refused above {most}",
    )
    return True


def note_caps(context: Context, request: Request[Any], results: Iterable[TopicResult]) -> None:
    """Take note of topics that were refused for what max.partitions.* allow (H76)."""
    for result in results:
        if result.error == ErrorCode.POLICY_VIOLATION:
            context.complaints.about(
                "max.partitions", request.connection.peer, result.message or "too many partitions"
            )


def note_full(context: Context, peer: str, group_id: str, error: int) -> None:
    """Take note of a member or a commit that found no room: groups.max, group.max.size,
    group.consumer.max.size, group.metadata.bytes.max (H101, H106), group.offsets.bytes.max."""
    if error == ErrorCode.GROUP_MAX_SIZE_REACHED:
        what = f"group {group_id[:TEXT_MAX]!r}: it is full, its members say too much"
        context.complaints.about("group.max", peer, f"{what}, or there are too many groups")
    elif error == ErrorCode.INVALID_COMMIT_OFFSET_SIZE:
        what = f"group {group_id[:TEXT_MAX]!r} has no room for what it wants to commit: "
        options = "group.offsets.bytes.max, offsets.bytes.max"
        context.complaints.about("offsets.bytes.max", peer, what + options)
