"""What a log needs to know of its topic's configuration.

Owns LogSettings only. Must not know options' names or where the values come from: whoever reads
the configuration builds one, and may replace it on a live log at any time.
"""

from __future__ import annotations

from zlib import crc32

from ottla.core.value import Value

_NEVER = (1 << 63) - 1


class LogSettings(Value):
    """Sizes in bytes, times in milliseconds; the defaults are Kafka's."""

    segment_bytes: int = 1 << 30
    segment_ms: int = 7 * 24 * 3600 * 1000
    segment_jitter_ms: int = 0
    """The most by which a segment rolls earlier; which segment by how much is its own chance."""
    segment_index_bytes: int = 10 << 20
    index_interval_bytes: int = 4096
    flush_messages: int = _NEVER
    """Under flush.policy=os: sync once this many offsets are not yet on disk."""
    flush_ms: int = _NEVER
    """Under flush.policy=os: sync at most this long after an append."""
    retention_ms: int = -1
    """Age past which segments are deleted; -1: none is for its age."""
    retention_bytes: int = -1
    """Size down to which the oldest are deleted; -1: none is for the log's size."""
    file_delete_delay_ms: int = 60_000
    """How long the files of a deleted segment stay, renamed."""
    producer_id_expiration_ms: int = 24 * 3600 * 1000
    producers_max: int = 100_000
    """Producers remembered per partition; past it the one idle longest is forgotten."""

    compacted: bool = False
    """Whether it is compacted, so that offsets may be missing: recovery takes a gap for damage
    where they may not."""
    min_cleanable_ratio: float = 0.5
    """The share that must be uncompacted before it is compacted again."""
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = _NEVER
    delete_retention_ms: int = 24 * 3600 * 1000
    """How long a record without a value stays, after it was first compacted."""

    def jitter_ms(self, directory: str, base_offset: int) -> int:
        """By how much earlier one segment rolls, where segments do.

        Chance without a source of it: logs of one age differ, and one log always agrees.
        """
        chance = crc32(b"%d" % base_offset, crc32(directory.encode()))
        return chance % min(self.segment_jitter_ms, self.segment_ms)

    @property
    def index_entries_max(self) -> int:
        """Entries of the offset index at which a segment is full."""
        return max(1, self.segment_index_bytes // 8)

    @property
    def time_entries_max(self) -> int:
        """As for the offset index; one entry is kept back for the one added when it closes."""
        return max(1, self.segment_index_bytes // 12 - 1)
