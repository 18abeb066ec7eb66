"""TopicConfig: a topic's settings in force, typed.

Owns how a topic's own settings, the broker's values and the defaults become one snapshot, and
the check of settings that a client gives. Must not know who uses them: storage and records have
classes of their own, filled from this one by whoever builds a log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from ottla.core import topic_options
from ottla.core.config import Config, InvalidConfig, Option
from ottla.core.value import Value

T = TypeVar("T", bool, int, float, str)

_LEVELS = {
    "gzip": topic_options.GZIP_LEVEL,
    "lz4": topic_options.LZ4_LEVEL,
    "zstd": topic_options.ZSTD_LEVEL,
}


class TopicConfig(Value):
    """One topic's settings. Names are the options' names; times in ms, sizes in bytes.

    `retention_ms` and `retention_bytes` are -1 for "no limit". `compression_level` is that of
    `compression_type`, None where that has no level.
    """

    compact: bool
    delete: bool
    compression_type: str
    compression_level: int | None
    delete_retention_ms: int
    file_delete_delay_ms: int
    flush_messages: int
    flush_ms: int
    index_interval_bytes: int
    max_compaction_lag_ms: int
    max_message_bytes: int
    timestamp_after_max_ms: int
    timestamp_before_max_ms: int
    timestamp_type: str
    min_cleanable_ratio: float
    min_compaction_lag_ms: int
    min_insync_replicas: int
    record_validation: str
    retention_bytes: int
    retention_ms: int
    segment_bytes: int
    segment_index_bytes: int
    segment_jitter_ms: int
    segment_ms: int
    unclean_election: bool


def topic_config(config: Config, own: Mapping[str, str]) -> TopicConfig:
    """The settings of a topic whose own ones are `own`, which have passed `check_topic_config`."""

    def value(option: Option[T]) -> T:
        text = own.get(option.name)
        return config[option] if text is None else option.parse(text)

    policies = value(topic_options.CLEANUP_POLICY).split(",")
    compression_type = value(topic_options.COMPRESSION_TYPE)
    level = _LEVELS.get(compression_type)
    return TopicConfig(
        compact="compact" in policies,
        delete="delete" in policies,
        compression_type=compression_type,
        compression_level=None if level is None else value(level),
        delete_retention_ms=value(topic_options.DELETE_RETENTION_MS),
        file_delete_delay_ms=value(topic_options.FILE_DELETE_DELAY_MS),
        flush_messages=value(topic_options.FLUSH_MESSAGES),
        flush_ms=value(topic_options.FLUSH_MS),
        index_interval_bytes=value(topic_options.INDEX_INTERVAL_BYTES),
        max_compaction_lag_ms=value(topic_options.MAX_COMPACTION_LAG_MS),
        max_message_bytes=value(topic_options.MAX_MESSAGE_BYTES),
        timestamp_after_max_ms=value(topic_options.TIMESTAMP_AFTER_MAX_MS),
        timestamp_before_max_ms=value(topic_options.TIMESTAMP_BEFORE_MAX_MS),
        timestamp_type=value(topic_options.TIMESTAMP_TYPE),
        min_cleanable_ratio=value(topic_options.MIN_CLEANABLE_RATIO),
        min_compaction_lag_ms=value(topic_options.MIN_COMPACTION_LAG_MS),
        min_insync_replicas=value(topic_options.MIN_INSYNC_REPLICAS),
        record_validation=value(topic_options.RECORD_VALIDATION),
        retention_bytes=max(value(topic_options.RETENTION_BYTES), -1),
        retention_ms=value(topic_options.RETENTION_MS),
        segment_bytes=value(topic_options.SEGMENT_BYTES),
        segment_index_bytes=value(topic_options.SEGMENT_INDEX_BYTES),
        segment_jitter_ms=value(topic_options.SEGMENT_JITTER_MS),
        segment_ms=value(topic_options.SEGMENT_MS),
        unclean_election=value(topic_options.UNCLEAN_ELECTION),
    )


def check_topic_config(config: Config, own: Mapping[str, str]) -> TopicConfig:
    """The same for settings a client gives. Raises InvalidConfig: unknown, bad, or at odds."""
    for name, text in own.items():
        option = topic_options.TOPIC_OPTIONS.get(name)
        if option is None:
            raise InvalidConfig(f"Unknown topic config name: {name}")
        option.parse(text)
    settings = topic_config(config, own)
    if settings.min_compaction_lag_ms > settings.max_compaction_lag_ms:
        raise InvalidConfig(
            f"conflict topic config setting min.compaction.lag.ms "
            f"({settings.min_compaction_lag_ms}) > max.compaction.lag.ms "
            f"({settings.max_compaction_lag_ms})"
        )
    return settings
