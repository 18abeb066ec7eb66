"""ListPartitionReassignments, key 46, versions 0 to 0.

No reassignment is ever under way (`alter_partition_reassignments.py`), whatever is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.handlers.reply import Reply
from ottla.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request


def handle(_context: Context, _request: Request[ListPartitionReassignmentsRequest]) -> Reply:
    """An empty list: also, as in Kafka, for topics that are unknown."""
    return Reply(ListPartitionReassignmentsResponse(error_message=None))
