"""What recovery may find in a log's directory, and why it does about it what it does.

Owns the table of cases. `recovery` acts on them; whoever starts a node or reads its log is told.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Case(Enum):
    """What may be found, and why we do about it what we do."""

    SWAPPED = "A compacted segment was about to take the place of others: it has it now."
    LEFTOVER = "A file aside (.tmp, .deleted, .cleaned, .swap) was on its way in or out: removed."
    ORPHAN = "An index without its .log has nothing to index: removed."
    INDEX_REBUILT = "An index that is missing or can't be right is derived data: made anew."
    SNAPSHOT_UNSOUND = "A producer snapshot is derived data: an older one and the log replace it."
    SNAPSHOT_AHEAD = "A snapshot past the end describes records that were lost: removed."
    EPOCHS_UNSOUND = "A leader-epoch-checkpoint that can't be read is made anew from the batches."
    TORN_TAIL = "Nothing sound follows the last sound batch: a write that never finished. Cut."
    BELOW_START = "A segment wholly below the log's start was on its way out: removed."
    EMPTY_SEGMENT = "A segment made for batches that never arrived: removed."
    DAMAGED = (
        "Something sound follows bytes that are not, or they were on disk for certain: no torn "
        "write does that. Kept as evidence; readable below, no appends."
    )
    QUARANTINED = (
        "Damage was found here before, and nobody has repaired it: readable below it, no appends."
    )
    UNREADABLE = (
        "A file that can't be made anew can't be read: all is kept, nothing of the log is shown or "
        "taken. Mend the disk, the owner or the permissions, or bring the directory back from a "
        "copy; then restart."
    )
    END_MISSING = "The stop was clean, but the log is not as it was then: read as after a crash."


class Finding(NamedTuple):
    """One thing found at one log."""

    case: Case
    path: str
    position: int
    reason: str = ""
    """What the disk said, where it refused."""
