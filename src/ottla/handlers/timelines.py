"""Timelines of groups, for DescribeConfigs and for who embeds the broker.

Owns finding one. Looks at shards that are loaded, and waits for none: a timeline is soft state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla.coordinator.group.timeline import Timeline

if TYPE_CHECKING:
    from ottla.handlers.context import Context


def timeline_of(context: Context, group_id: str) -> list[dict[str, Any]] | None:
    """Events of a group, oldest first, as JSON objects; None for one that is not known here."""
    for shard in context.groups.loaded_shards():
        timeline = getattr(shard.groups.get(group_id), "timeline", None)
        if isinstance(timeline, Timeline):
            return [event.fields() for event in timeline.events()]
    return None
