"""The options of topics, each with the broker's name for its default.

Names, defaults and bounds are those of Apache Kafka 4.3.1; `record.validation` is ours. Owns the
declarations and nothing else: `topic_config.py` makes settings of them.
"""

from __future__ import annotations

from typing import Any, TypedDict, TypeVar, Unpack

from ottla.core.config import INT_MAX, LONG_MAX, BrokerName, Option

T = TypeVar("T", bool, int, float, str)

HOUR_MS = 3_600_000
MINUTE_MS = 60_000


class _Bounds(TypedDict, total=False):
    at_least: float
    at_most: float
    also: tuple[int, ...]
    one_of: tuple[str, ...]
    many: bool


def _topic(
    name: str, default: T, doc: str, *broker: str | BrokerName, **bounds: Unpack[_Bounds]
) -> Option[T]:
    names = tuple(BrokerName(n) if isinstance(n, str) else n for n in broker)
    return Option(name, default, doc, scope="topic", live=True, broker_names=names, **bounds)


CLEANUP_POLICY = _topic(
    "cleanup.policy",
    "delete",
    "What happens to old segments: `delete` by time and size, `compact` by key, both, or, "
    "where it is empty, nothing.",
    "log.cleanup.policy",
    one_of=("compact", "delete"),
    many=True,
)
COMPRESSION_TYPE = _topic(
    "compression.type",
    "producer",
    "The codec in which batches are stored; `producer`: as they were sent.",
    "compression.type",
    one_of=("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
)
GZIP_LEVEL = _topic(
    "compression.gzip.level",
    -1,
    "Level where `compression.type` is gzip; -1: the codec's own.",
    "compression.gzip.level",
    at_least=1,
    at_most=9,
    also=(-1,),
)
LZ4_LEVEL = _topic(
    "compression.lz4.level",
    9,
    "Level where `compression.type` is lz4.",
    "compression.lz4.level",
    at_least=1,
    at_most=17,
)
ZSTD_LEVEL = _topic(
    "compression.zstd.level",
    3,
    "Level where `compression.type` is zstd.",
    "compression.zstd.level",
    at_least=-131_072,
    at_most=22,
)
DELETE_RETENTION_MS = _topic(
    "delete.retention.ms",
    86_400_000,
    "How long a compacted topic keeps the markers of deleted keys.",
    "log.cleaner.delete.retention.ms",
    at_least=0,
    at_most=LONG_MAX,
)
FILE_DELETE_DELAY_MS = _topic(
    "file.delete.delay.ms",
    60_000,
    "How long a deleted segment's file stays, renamed.",
    "log.segment.delete.delay.ms",
    at_least=0,
    at_most=LONG_MAX,
)
FLUSH_MESSAGES = _topic(
    "flush.messages",
    LONG_MAX,
    "Sync after this many records. Under `flush.policy=commit` every append is synced anyway.",
    "log.flush.interval.messages",
    at_least=1,
    at_most=LONG_MAX,
)
FLUSH_MS = _topic(
    "flush.ms",
    LONG_MAX,
    "Sync after this time. Under `flush.policy=commit` every append is synced anyway.",
    BrokerName("log.flush.interval.ms", unset=True),
    at_least=0,
    at_most=LONG_MAX,
)
INDEX_INTERVAL_BYTES = _topic(
    "index.interval.bytes",
    4096,
    "Bytes of log between two index entries.",
    "log.index.interval.bytes",
    at_least=0,
    at_most=INT_MAX,
)
MAX_COMPACTION_LAG_MS = _topic(
    "max.compaction.lag.ms",
    LONG_MAX,
    "How long a record may stay uncompacted.",
    "log.cleaner.max.compaction.lag.ms",
    at_least=1,
    at_most=LONG_MAX,
)
MAX_MESSAGE_BYTES = _topic(
    "max.message.bytes",
    1_048_588,
    "The largest batch, as sent; a larger one is refused with MESSAGE_TOO_LARGE.",
    "message.max.bytes",
    at_least=0,
    at_most=INT_MAX,
)
TIMESTAMP_AFTER_MAX_MS = _topic(
    "message.timestamp.after.max.ms",
    HOUR_MS,
    "How far a record's time may lie ahead of the broker's clock.",
    "log.message.timestamp.after.max.ms",
    at_least=0,
    at_most=LONG_MAX,
)
TIMESTAMP_BEFORE_MAX_MS = _topic(
    "message.timestamp.before.max.ms",
    LONG_MAX,
    "How far a record's time may lie behind the broker's clock.",
    "log.message.timestamp.before.max.ms",
    at_least=0,
    at_most=LONG_MAX,
)
TIMESTAMP_TYPE = _topic(
    "message.timestamp.type",
    "CreateTime",
    "Whether records keep their sender's time or get the broker's.",
    "log.message.timestamp.type",
    one_of=("CreateTime", "LogAppendTime"),
)
MIN_CLEANABLE_RATIO = _topic(
    "min.cleanable.dirty.ratio",
    0.5,
    "The share of a compacted log that must be uncompacted before it is compacted again.",
    "log.cleaner.min.cleanable.ratio",
    at_least=0,
    at_most=1,
)
MIN_COMPACTION_LAG_MS = _topic(
    "min.compaction.lag.ms",
    0,
    "How long a record stays uncompacted at least.",
    "log.cleaner.min.compaction.lag.ms",
    at_least=0,
    at_most=LONG_MAX,
)
MIN_INSYNC_REPLICAS = _topic(
    "min.insync.replicas",
    1,
    "Replicas that must be in sync for acks=all to be accepted.",
    "min.insync.replicas",
    at_least=1,
    at_most=INT_MAX,
)
PREALLOCATE = _topic(
    "preallocate",
    False,
    "Taken and without effect: ottla reserves space in steps, and a file's length is always the "
    "bytes written.",
    "log.preallocate",
)
RECORD_VALIDATION = _topic(
    "record.validation",
    "header",
    "How deep a batch is checked: `header`, its header and checksum, and it is never opened; "
    "`records`, each record, as Kafka does. Compacted and internal topics always use `records`. "
    "ottla's own.",
    "record.validation",
    one_of=("header", "records"),
)
RETENTION_BYTES = _topic(
    "retention.bytes",
    -1,
    "Size past which a partition's oldest segments are deleted; negative: no limit.",
    "log.retention.bytes",
    at_least=-LONG_MAX,
    at_most=LONG_MAX,
)
RETENTION_MS = _topic(
    "retention.ms",
    604_800_000,
    "Age past which segments are deleted; -1: no limit.",
    BrokerName("log.retention.ms", unset=True),
    BrokerName("log.retention.minutes", MINUTE_MS, unset=True),
    BrokerName("log.retention.hours", HOUR_MS),
    at_least=-1,
    at_most=LONG_MAX,
)
SEGMENT_BYTES = _topic(
    "segment.bytes",
    1 << 30,
    "Size at which the active segment is closed and the next one starts.",
    "log.segment.bytes",
    at_least=1 << 20,
    at_most=INT_MAX,
)
SEGMENT_INDEX_BYTES = _topic(
    "segment.index.bytes",
    10_485_760,
    "Size of an index at which the active segment is closed.",
    "log.index.size.max.bytes",
    at_least=4,
    at_most=INT_MAX,
)
SEGMENT_JITTER_MS = _topic(
    "segment.jitter.ms",
    0,
    "The most by which `segment.ms` is shortened at random, so that segments don't roll together.",
    BrokerName("log.roll.jitter.ms", unset=True),
    BrokerName("log.roll.jitter.hours", HOUR_MS),
    at_least=0,
    at_most=LONG_MAX,
)
SEGMENT_MS = _topic(
    "segment.ms",
    604_800_000,
    "Age at which the active segment is closed.",
    BrokerName("log.roll.ms", unset=True),
    BrokerName("log.roll.hours", HOUR_MS),
    at_least=1,
    at_most=LONG_MAX,
)
UNCLEAN_ELECTION = _topic(
    "unclean.leader.election.enable",
    False,
    "Whether a replica that is not in sync may lead when no other is left.",
    "unclean.leader.election.enable",
)

TOPIC_OPTIONS: dict[str, Option[Any]] = {
    value.name: value for value in list(globals().values()) if isinstance(value, Option)
}
