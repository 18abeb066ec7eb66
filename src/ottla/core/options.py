"""The options of the broker, each declared once: name, type, default, bounds and doc.

Names, defaults and bounds are those of Apache Kafka 4.3.1 where Kafka has the option; where ours
differ on purpose the doc says so. Owns the declarations and nothing else; who uses one reads it
by `config[options.NUM_PARTITIONS]`. Those of topics are in `topic_options.py`; docs/CONFIG.md is
generated from both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ottla.core.config import INT_MAX, LONG_MAX, Config, InvalidConfig, Option
from ottla.core.group_options import COORDINATOR_OPTIONS
from ottla.core.passed_over import IGNORED
from ottla.core.topic_options import TOPIC_OPTIONS

_NOT_OVERRIDES = "Value must be address:count, separated by commas"


def _overrides_fault(text: str) -> str:
    try:
        overrides(text)
    except ValueError:
        return _NOT_OVERRIDES
    return ""


def overrides(text: str) -> dict[str, int]:
    """`max.connections.per.ip.overrides`, parsed. Raises ValueError for anything else."""
    found: dict[str, int] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        address, _, count = part.rpartition(":")
        if not address or not (count.isascii() and count.isdecimal()):
            raise ValueError(text)
        found[address.strip().removeprefix("[").removesuffix("]")] = int(count)
    return found


# --- who this node is, and where it is reached ---------------------------------------------

NODE_ID = Option("node.id", 0, "The node's number, unique in the cluster.", at_least=0)
LISTENERS = Option(
    "listeners",
    "PLAINTEXT://127.0.0.1:9092,PLAINTEXT://[::1]:9092",
    "Where to listen, separated by commas. Port 0 picks a free one. `--listen` sets it. "
    "Kafka listens on every interface; ottla on loopback only, until there is authentication.",
    listed=True,
)
ADVERTISED_LISTENERS = Option(
    "advertised.listeners",
    "",
    "The addresses that clients are told to use; empty: those of `listeners`. `--advertise` "
    "sets it.",
    listed=True,
    nullable=True,
)
ADMIN_LISTENER = Option(
    "admin.listener",
    "",
    "HOST:PORT that answers HTTP: /metrics for Prometheus, /stats as JSON, /health. Empty: none; "
    "`ottla serve` without any listener named takes 127.0.0.1:9644. There is no authentication. "
    "`--admin` sets it. ottla's own.",
    nullable=True,
)
BROKER_RACK = Option("broker.rack", "", "The rack this node stands in; empty: none.", nullable=True)

# --- data ----------------------------------------------------------------------------------

LOG_DIR = Option(
    "log.dir", "./ottla-data", "The data directory. `--data-dir` sets it.", listed=True
)
LOG_DIRS = Option(
    "log.dirs",
    "",
    "The data directory; set, it takes the place of `log.dir`. One, for now.",
    listed=True,
    nullable=True,
)
FLUSH_POLICY = Option(
    "flush.policy",
    "commit",
    "When acks=all is answered: `commit`, after the sync that covers the batch; `os`, after the "
    "write, as Kafka does. ottla's own.",
    one_of=("commit", "os"),
)
FLUSH_THREADS = Option(
    "flush.threads", 8, "Threads that sync and make files. ottla's own.", at_least=1, at_most=64
)
OFFLOAD_TASKS_MAX = Option(
    "offload.tasks.max",
    256,
    "Pieces of work that may wait for the worker process (walking large batches, looking up a "
    "time); what comes past it is answered with an error that clients retry. ottla's own.",
    at_least=1,
    at_most=10_000,
)
OFFLOAD_MS_MAX = Option(
    "offload.task.timeout.ms",
    30_000,
    "How long one piece of such work may take. ottla's own.",
    at_least=1,
    at_most=LONG_MAX,
)
DECOMPRESSED_BYTES_MAX = Option(
    "decompressed.max.bytes",
    64 << 20,
    "The most that one batch may become when it is decompressed, or 64 times `max.message.bytes` "
    "where that is less and the batch is produced; a larger one is refused, or treated as "
    "unreadable. ottla's own.",
    at_least=1 << 20,
    at_most=INT_MAX,
)
FREE_BYTES_MIN = Option(
    "log.free.bytes.min",
    -1,
    "While the data directory's file system has less room than this, produce is refused with an "
    "error that clients retry; reading, commits and deletions go on. -1: a twentieth of it, at "
    "most 1 GiB; 0: produce is refused only when a write finds no room. ottla's own.",
    live=True,
    at_least=0,
    at_most=LONG_MAX,
    also=(-1,),
)
FREE_FILES_MIN = Option(
    "log.free.files.min",
    -1,
    "While fewer files than this can still be made on the data directory's file system (inodes, "
    "where their number is fixed), produce is refused in the same way: a start needs some, too. "
    "-1: a twentieth of all, from 64 to 1024; 0: only when a file can't be made. ottla's own.",
    live=True,
    at_least=0,
    at_most=LONG_MAX,
    also=(-1,),
)
RETENTION_CHECK_MS = Option(
    "log.retention.check.interval.ms",
    300_000,
    "How often to look for segments that retention no longer covers.",
    at_least=1,
    at_most=LONG_MAX,
)
RETENTION_SETTLE_MS = Option(
    "log.retention.clock.settle.ms",
    3_600_000,
    "How long a wall clock that has jumped ahead must go on steadily before retention by time goes "
    "by it; until then it goes by the time that has passed. ottla's own.",
    at_least=0,
    at_most=LONG_MAX,
)
SCRUB_INTERVAL_MS = Option(
    "log.scrub.interval.ms",
    7 * 24 * 3600 * 1000,
    "How long after all logs were read through to look for damage they are read through again; the "
    "first time within an hour of the start. 0: never. What a consumer asks for is checked before "
    "it is first sent in any case. ottla's own.",
    live=True,
    at_least=0,
    at_most=LONG_MAX,
)
SCRUB_BYTES_PER_S = Option(
    "log.scrub.max.bytes.per.second",
    2 << 20,
    "How fast they are read then: 2 MiB a second take about a thousandth of a core and get through "
    "a terabyte in six days. ottla's own.",
    live=True,
    at_least=1,
    at_most=LONG_MAX,
)
RECOVERY_CHECKPOINT_MS = Option(
    "log.flush.offset.checkpoint.interval.ms",
    60_000,
    "How often the recovery points are written down; less than 1000 is taken as 1000.",
    at_least=0,
    at_most=INT_MAX,
)
CLEANER_ENABLE = Option(
    "log.cleaner.enable",
    True,
    "Whether logs are compacted at all, in a worker process of their own.",
)
CLEANER_BACKOFF_MS = Option(
    "log.cleaner.backoff.ms",
    15_000,
    "How long to rest when there is nothing to compact.",
    live=True,
    at_least=0,
    at_most=LONG_MAX,
)
CLEANER_BUFFER_BYTES = Option(
    "log.cleaner.dedupe.buffer.size",
    134_217_728,
    "Memory for the keys of one compaction, about 32 bytes for each; more keys take several "
    "rounds. Less than 1 MiB is taken as 1 MiB.",
    live=True,
    at_most=LONG_MAX,
)
CLEANER_RATE_MAX = Option(
    "log.cleaner.io.max.bytes.per.second",
    1.7976931348623157e308,
    "The most that compaction reads and writes together in a second.",
    live=True,
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
    at_most=INT_MAX,
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
    -1,
    "A connection's receive buffer in the kernel; -1: what the system gives. Kafka's default is "
    "102400, which slows down large batches.",
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
    live=True,
    at_least=0,
    at_most=INT_MAX,
)
CONNECTIONS_PER_IP_MAX = Option(
    "max.connections.per.ip",
    1024,
    "Connections at one time from one address. Kafka has no limit by default.",
    live=True,
    at_least=0,
    at_most=INT_MAX,
)
CONNECTIONS_PER_IP_OVERRIDES = Option(
    "max.connections.per.ip.overrides",
    "",
    "Other limits than `max.connections.per.ip`, as address:count separated by commas. Kafka "
    "takes names of machines as well.",
    live=True,
    check=_overrides_fault,
)
CONNECTION_RATE_MAX = Option(
    "max.connection.creation.rate",
    500,
    "New connections a second; past it accepting pauses. Kafka has no limit by default.",
    live=True,
    at_least=0,
    at_most=INT_MAX,
)
DESCRIPTORS_RESERVED = Option(
    "file.descriptors.reserved",
    128,
    "File descriptors that connections leave to logs and topics: while fewer are free, accepting "
    "pauses. ottla's own.",
    at_least=0,
    at_most=INT_MAX,
)
DESCRIPTORS_LOGS_MAX = Option(
    "file.descriptors.logs.max",
    -1,
    "Files of logs that stay open while nobody uses them; those used least lately are closed, and "
    "opened again when needed. -1: half of what the process may have besides "
    "`file.descriptors.reserved`. ottla's own.",
    at_least=16,
    at_most=INT_MAX,
    also=(-1,),
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
    10_000,
    "How long a new connection may take to send its first whole request. ottla's own.",
    at_least=1,
    at_most=LONG_MAX,
)
FRAME_MS = Option(
    "connection.request.timeout.ms",
    30_000,
    "How long a request may take to arrive, once begun, unless it comes at the rate of "
    "`connection.request.bytes.per.second.min`. ottla's own.",
    at_least=1,
    at_most=LONG_MAX,
)
FRAME_RATE_MIN = Option(
    "connection.request.bytes.per.second.min",
    1024,
    "A request that arrives at this rate may take as long as it needs, unless others wait for the "
    "memory that it holds. ottla's own.",
    at_least=1,
    at_most=INT_MAX,
)
OUTPUT_BYTES_MAX = Option(
    "connection.output.max.bytes",
    4 << 20,
    "Bytes of answers waiting in memory for one connection; past it reading from it pauses. "
    "ottla's own.",
    at_least=1024,
    at_most=INT_MAX,
)
DESCRIBED_PARTITIONS_MAX = Option(
    "max.request.partition.size.limit",
    2000,
    "Partitions that one answer to DescribeTopicPartitions holds; the rest comes by its cursor.",
    at_least=1,
    at_most=INT_MAX,
)
REQUEST_PARTITIONS_MAX = Option(
    "request.partitions.max",
    100_000,
    "Topics or partitions that one request may name; past it all of it is INVALID_REQUEST. "
    "ottla's own.",
    at_least=1,
    at_most=200_000,
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

FETCH_SESSION_PARTITIONS_MAX = Option(
    "fetch.session.partitions.max",
    200_000,
    "Partitions that all fetch sessions remember together; a client beyond it goes on with full "
    "fetches. ottla's own.",
    at_least=0,
    at_most=INT_MAX,
)
FETCH_SESSION_EVICTION_MS = Option(
    "min.incremental.fetch.session.eviction.ms",
    120_000,
    "How long a fetch session is safe from giving its place to a new one. In Kafka a constant, not "
    "an option: the name is ottla's own.",
    at_least=0,
    at_most=INT_MAX,
)

ALL: tuple[Option[Any], ...] = (
    *(value for value in list(globals().values()) if isinstance(value, Option)),
    *COORDINATOR_OPTIONS,
    *TOPIC_OPTIONS.values(),
)


def broker_config(given: Mapping[str, str]) -> Config:
    """The broker's configuration. Raises InvalidConfig for a bad value or an unknown name."""
    return Config(ALL, given, IGNORED)


def data_directory(config: Config) -> str:
    """The one data directory. Raises InvalidConfig where several are named."""
    named = [part.strip() for part in config[LOG_DIRS].split(",") if part.strip()]
    if len(named) > 1:
        raise InvalidConfig(f"log.dirs takes one directory for now, not {len(named)}")
    return named[0] if named else config[LOG_DIR]
