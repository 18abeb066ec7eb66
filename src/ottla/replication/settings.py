"""From a topic's configuration to what its partitions and their logs need of it.

Owns the mapping between the options' vocabulary and that of `records` and `storage`, which know
no option. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ottla.core import options
from ottla.core.config import Config
from ottla.core.topic_config import topic_config
from ottla.core.value import Value
from ottla.records.builder import codec_of
from ottla.records.opening import Opening
from ottla.records.validate import Depth, Rules, TimestampType
from ottla.storage.settings import LogSettings


class PartitionSettings(Value):
    """One topic's settings, as its partitions use them. `opening` None: batches stay closed."""

    log: LogSettings
    rules: Rules
    opening: Opening | None


def partition_settings(config: Config, own: Mapping[str, str]) -> PartitionSettings:
    """The settings of a topic whose own ones are `own`; the rest are the broker's."""
    topic = topic_config(config, own)
    rules = Rules(
        message_max_bytes=topic.max_message_bytes,
        segment_bytes=topic.segment_bytes,
        compacted=topic.compact,
        depth=cast(Depth, topic.record_validation),
        timestamp_type=cast(TimestampType, topic.timestamp_type),
        before_max_ms=topic.timestamp_before_max_ms,
        after_max_ms=topic.timestamp_after_max_ms,
        compression_type=topic.compression_type,
        decompressed_bytes_max=config[options.DECOMPRESSED_BYTES_MAX],
    )
    codec = codec_of(topic.compression_type)
    opens = rules.walks or codec is not None
    log = LogSettings(
        segment_bytes=topic.segment_bytes,
        # A record is compacted at the latest when this lag is over; so its segment must be closed.
        segment_ms=min(topic.segment_ms, topic.max_compaction_lag_ms)
        if topic.compact
        else topic.segment_ms,
        segment_jitter_ms=topic.segment_jitter_ms,
        segment_index_bytes=topic.segment_index_bytes,
        index_interval_bytes=topic.index_interval_bytes,
        flush_messages=topic.flush_messages,
        flush_ms=topic.flush_ms,
        retention_ms=topic.retention_ms if topic.delete else -1,
        retention_bytes=topic.retention_bytes if topic.delete else -1,
        file_delete_delay_ms=topic.file_delete_delay_ms,
        compacted=topic.compact,
        min_cleanable_ratio=topic.min_cleanable_ratio,
        min_compaction_lag_ms=topic.min_compaction_lag_ms,
        max_compaction_lag_ms=topic.max_compaction_lag_ms,
        delete_retention_ms=topic.delete_retention_ms,
        producer_id_expiration_ms=config[options.PRODUCER_ID_EXPIRATION_MS],
        producers_max=config[options.PRODUCER_IDS_MAX],
    )
    return PartitionSettings(
        log=log,
        rules=rules,
        opening=Opening(rules, codec, topic.compression_level) if opens else None,
    )
