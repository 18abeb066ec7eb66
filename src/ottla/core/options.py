"""Every option, declared once: name, type, default, bounds and doc.

Names, defaults and bounds are those of Apache Kafka 4.3.1 where Kafka has the option; where ours
differ on purpose the doc says so. Owns the declarations and nothing else; who uses one reads it
by `config[options.NUM_PARTITIONS]`. docs/CONFIG.md is generated from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, TypeVar, Unpack

from ottla.core.config import BrokerName, Config, Option

T = TypeVar("T", bool, int, float, str)

INT_MAX = (1 << 31) - 1
LONG_MAX = (1 << 63) - 1
HOUR_MS = 3_600_000
MINUTE_MS = 60_000

# --- who this node is, and where it is reached ---------------------------------------------

NODE_ID = Option("node.id", 0, "The node's number, unique in the cluster.", at_least=0)
LISTENERS = Option(
    "listeners",
    "PLAINTEXT://127.0.0.1:9092,PLAINTEXT://[::1]:9092",
    "Where to listen, separated by commas. Port 0 picks a free one. `--listen` sets it. "
    "Kafka listens on every interface; ottla on loopback only, until there is authentication.",
)
ADVERTISED_LISTENERS = Option(
    "advertised.listeners",
    "",
    "The addresses that clients are told to use; empty: those of `listeners`. `--advertise` "
    "sets it.",
)
BROKER_RACK = Option("broker.rack", "", "The rack this node stands in; empty: none.")

# --- data ----------------------------------------------------------------------------------

LOG_DIR = Option("log.dir", "./ottla-data", "The data directory. `--data-dir` sets it.")
LOG_DIRS = Option(
    "log.dirs", "", "The data directory; set, it takes the place of `log.dir`. One, for now."
)
FLUSH_POLICY = Option(
    "flush.policy",
    "commit",
    "When acks=all is answered: `commit`, after the sync that covers the batch; `os`, after the "
    "write, as Kafka does. ottla's own.",
    one_of=("commit", "os"),
)
FLUSH_THREADS = Option(
    "flush.threads", 4, "Threads that sync and open files. ottla's own.", at_least=1, at_most=64
)
OFFLOAD_TASKS_MAX = Option(
    "offload.tasks.max",
    64,
    "Pieces of work that may wait for the worker process (walking large batches, looking up a "
    "time); further ones wait their turn in the requests' queue. ottla's own.",
    at_least=1,
    at_most=10_000,
)
DECOMPRESSED_BYTES_MAX = Option(
    "decompressed.max.bytes",
    64 << 20,
    "The most that one batch may become when it is decompressed; a larger one is refused, or "
    "treated as unreadable. ottla's own.",
    at_least=1 << 20,
    at_most=INT_MAX,
)
RETENTION_CHECK_MS = Option(
    "log.retention.check.interval.ms",
    300_000,
    "How often to look for segments that retention no longer covers.",
    at_least=1,
    at_most=LONG_MAX,
)
RECOVERY_CHECKPOINT_MS = Option(
    "log.flush.offset.checkpoint.interval.ms",
    60_000,
    "How often the recovery points are written down.",
    at_least=0,
    at_most=INT_MAX,
)
PRODUCER_ID_EXPIRATION_MS = Option(
    "producer.id.expiration.ms",
    86_400_000,
    "How long a partition remembers a producer that sends nothing.",
    live=True,
    at_least=1,
    at_most=INT_MAX,
)
PRODUCER_IDS_MAX = Option(
    "producer.ids.per.partition.max",
    100_000,
    "Producers that one partition remembers; past it the one silent for longest is forgotten. "
    "ottla's own.",
    at_least=1,
    at_most=INT_MAX,
)

# --- topics --------------------------------------------------------------------------------

NUM_PARTITIONS = Option(
    "num.partitions",
    1,
    "Partitions of a topic whose creator doesn't say.",
    at_least=1,
    at_most=INT_MAX,
)
DEFAULT_REPLICATION_FACTOR = Option(
    "default.replication.factor",
    1,
    "Replicas of a topic whose creator doesn't say.",
    at_least=1,
    at_most=(1 << 15) - 1,
)
AUTO_CREATE_TOPICS = Option(
    "auto.create.topics.enable",
    True,
    "Whether a topic is made when a client first asks for its metadata.",
)
AUTO_CREATE_REQUEST_MAX = Option(
    "auto.create.topics.request.max",
    100,
    "Topics that one Metadata request may create; the others are answered as unknown. ottla's own.",
    at_least=0,
    at_most=INT_MAX,
)
AUTO_CREATE_TOTAL_MAX = Option(
    "auto.create.topics.total.max",
    10_000,
    "Once there are this many topics, none is created automatically. ottla's own.",
    at_least=0,
    at_most=INT_MAX,
)
DELETE_TOPICS = Option(
    "delete.topic.enable", True, "Whether topics may be deleted by a client's request."
)
MAX_PARTITIONS_PER_TOPIC = Option(
    "max.partitions.per.topic",
    10_000,
    "Partitions one topic may have; more are refused with POLICY_VIOLATION. ottla's own.",
    at_least=1,
    at_most=INT_MAX,
)
MAX_PARTITIONS_TOTAL = Option(
    "max.partitions.total",
    100_000,
    "Partitions all topics may have together; more are refused with POLICY_VIOLATION. ottla's own.",
    at_least=1,
    at_most=INT_MAX,
)

# --- connections and requests --------------------------------------------------------------

REQUEST_BYTES_MAX = Option(
    "socket.request.max.bytes",
    104_857_600,
    "The largest request; a client that announces a larger one is disconnected.",
    at_least=1,
    at_most=INT_MAX,
)
SEND_BUFFER_BYTES = Option(
    "socket.send.buffer.bytes",
    102_400,
    "A connection's send buffer in the kernel; -1: what the system gives.",
    at_least=1,
    at_most=INT_MAX,
    also=(-1,),
)
RECEIVE_BUFFER_BYTES = Option(
    "socket.receive.buffer.bytes",
    102_400,
    "A connection's receive buffer in the kernel; -1: what the system gives.",
    at_least=1,
    at_most=INT_MAX,
    also=(-1,),
)
LISTEN_BACKLOG = Option(
    "socket.listen.backlog.size",
    511,
    "Connections that may wait to be accepted. Kafka's default is 50.",
    at_least=1,
    at_most=INT_MAX,
)
QUEUED_BYTES_MAX = Option(
    "queued.max.request.bytes",
    256 << 20,
    "Bytes of requests held in memory by all connections together; past it reading pauses. "
    "Kafka has no limit by default (-1).",
    at_least=1 << 20,
    at_most=LONG_MAX,
    also=(-1,),
)
CONNECTION_REQUESTS_MAX = Option(
    "connection.requests.max",
    64,
    "Requests of one connection in process; past it reading from it pauses. ottla's own.",
    at_least=1,
    at_most=10_000,
)
CONNECTIONS_MAX = Option(
    "max.connections",
    10_000,
    "Connections at one time; further ones are closed at once. Kafka has no limit by default.",
    at_least=1,
    at_most=INT_MAX,
)
CONNECTIONS_PER_IP_MAX = Option(
    "max.connections.per.ip",
    1024,
    "Connections at one time from one address. Kafka has no limit by default.",
    at_least=1,
    at_most=INT_MAX,
)
CONNECTION_RATE_MAX = Option(
    "max.connection.creation.rate",
    500,
    "New connections a second; past it accepting pauses. Kafka has no limit by default.",
    at_least=1,
    at_most=INT_MAX,
)
CONNECTION_IDLE_MS = Option(
    "connections.max.idle.ms",
    600_000,
    "A connection on which nothing happens for this long is closed; -1: never.",
    at_least=1,
    at_most=LONG_MAX,
    also=(-1,),
)
FIRST_FRAME_MS = Option(
    "connection.first.request.timeout.ms",
    30_000,
    "How long a new connection may take to send its first whole request. ottla's own.",
    at_least=1,
    at_most=LONG_MAX,
)
FRAME_MS = Option(
    "connection.request.timeout.ms",
    60_000,
    "How long a request may take to arrive, once begun. ottla's own.",
    at_least=1,
    at_most=LONG_MAX,
)
WRITE_MS = Option(
    "connection.write.timeout.ms",
    60_000,
    "A client that takes no byte of its answer for this long is disconnected. ottla's own.",
    at_least=1,
    at_most=LONG_MAX,
)
SHUTDOWN_MS = Option(
    "shutdown.timeout.ms",
    10_000,
    "How long a stopping node waits for requests in process. ottla's own.",
    at_least=0,
    at_most=LONG_MAX,
)

# --- fetch ---------------------------------------------------------------------------------

FETCH_BYTES_MAX = Option(
    "fetch.max.bytes",
    57_671_680,
    "The most a fetch is answered with, whatever it asks for (but always one batch).",
    at_least=1024,
    at_most=INT_MAX,
)
FETCH_WAIT_MS_MAX = Option(
    "fetch.max.wait.ms.limit",
    60_000,
    "The longest a fetch waits, whatever it asks for. ottla's own.",
    at_least=0,
    at_most=INT_MAX,
)
FETCH_PARKED_MAX = Option(
    "fetch.parked.max",
    10_000,
    "Fetches that may wait at one time; a further one is answered at once. ottla's own.",
    at_least=0,
    at_most=INT_MAX,
)
FETCH_SESSIONS_MAX = Option(
    "max.incremental.fetch.session.cache.slots",
    1000,
    "Incremental fetch sessions kept.",
    at_least=0,
    at_most=INT_MAX,
)

FETCH_SESSION_EVICTION_MS = Option(
    "min.incremental.fetch.session.eviction.ms",
    120_000,
    "How long a fetch session is safe from giving its place to a new one.",
    at_least=0,
    at_most=INT_MAX,
)

# --- topic options: the default for all topics is set by the broker's name -----------------


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
    "What happens to old segments: `delete` by time and size, `compact` by key, or both.",
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
    "log.flush.interval.ms",
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
    "log.retention.ms",
    BrokerName("log.retention.minutes", MINUTE_MS),
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
    "log.roll.jitter.ms",
    BrokerName("log.roll.jitter.hours", HOUR_MS),
    at_least=0,
    at_most=LONG_MAX,
)
SEGMENT_MS = _topic(
    "segment.ms",
    604_800_000,
    "Age at which the active segment is closed.",
    "log.roll.ms",
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

ALL: tuple[Option[Any], ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Option)
)
TOPIC: dict[str, Option[Any]] = {option.name: option for option in ALL if option.scope == "topic"}

IGNORED = frozenset(
    {
        "advertised.host.name",
        "auto.leader.rebalance.enable",
        "background.threads",
        "broker.id",
        "controller.listener.names",
        "controller.quorum.bootstrap.servers",
        "controller.quorum.voters",
        "group.initial.rebalance.delay.ms",
        "inter.broker.listener.name",
        "leader.imbalance.check.interval.seconds",
        "listener.security.protocol.map",
        "log.cleaner.enable",
        "log.cleaner.threads",
        "metadata.log.dir",
        "num.io.threads",
        "num.network.threads",
        "num.recovery.threads.per.data.dir",
        "num.replica.fetchers",
        "offsets.topic.num.partitions",
        "offsets.topic.replication.factor",
        "process.roles",
        "queued.max.requests",
        "share.coordinator.state.topic.min.isr",
        "share.coordinator.state.topic.replication.factor",
        "transaction.state.log.min.isr",
        "transaction.state.log.num.partitions",
        "transaction.state.log.replication.factor",
    }
)
"""Names of Kafka's that stand in ordinary `server.properties` files and have no effect here."""


def broker_config(given: Mapping[str, str]) -> Config:
    """The broker's configuration. Raises InvalidConfig for a bad value or an unknown name."""
    return Config(ALL, given, IGNORED)
