"""The options of groups and transactions: the broker's, and those that one group may set.

Names, defaults and bounds are those of Apache Kafka 4.3.1, but where the text says otherwise. Owns
the declarations and nothing else; who uses one reads it by `config[group_options.GROUP_MAX_SIZE]`.
"""

from __future__ import annotations

from typing import Any

from ottla.core.config import INT_MAX, LONG_MAX, SHORT_MAX, BrokerName, Option

# --- classic groups ------------------------------------------------------------------------

GROUP_INITIAL_DELAY_MS = Option(
    "group.initial.rebalance.delay.ms",
    0,
    "How long a classic group that was empty waits for more members before it first balances. "
    "Kafka's default is 3000.",
    at_most=INT_MAX,
)
GROUP_SESSION_MS_MIN = Option(
    "group.min.session.timeout.ms",
    6000,
    "The shortest session timeout that a member of a classic group may ask for.",
    at_most=INT_MAX,
)
GROUP_SESSION_MS_MAX = Option(
    "group.max.session.timeout.ms",
    1_800_000,
    "The longest session timeout that a member of a classic group may ask for.",
    at_most=INT_MAX,
)
GROUP_MAX_SIZE = Option(
    "group.max.size",
    5000,
    "Members that a classic group may have. Kafka's default is no limit.",
    at_least=1,
    at_most=INT_MAX,
)
GROUP_BYTES_MAX = Option(
    "group.metadata.bytes.max",
    16 << 20,
    "How much the members of one group may say together, of a classic group with what they are "
    "assigned. ottla's own.",
    at_least=1024,
    at_most=INT_MAX,
)
GROUP_REGEX_BYTES_MAX = Option(
    "group.regex.bytes.max",
    16 << 20,
    "How long the names of the topics may be, together, that the regular expressions of a consumer "
    "group name; past it topics are passed over, the last by name, and the group's timeline says "
    "so. Those of one expression are kept to what a record may hold. ottla's own.",
    at_least=1024,
    at_most=INT_MAX,
)
GROUP_REBALANCES_MAX = Option(
    "group.rebalances.per.minute.max",
    120,
    "Rebalances that a classic group may begin within a minute. Past it the next one takes in "
    "members until it is due, so that those who come and go without end share it. ottla's own.",
    at_least=1,
    at_most=INT_MAX,
)
GROUPS_MAX = Option(
    "groups.max",
    100_000,
    "Groups with members that a node coordinates, and groups that it keeps committed offsets of; "
    "past it no new one is begun. What is still to be read after a start does not count yet. "
    "ottla's own.",
    at_least=1,
    at_most=INT_MAX,
)

# --- consumer groups (KIP-848) -------------------------------------------------------------

CONSUMER_SESSION_MS = Option(
    "group.consumer.session.timeout.ms",
    45_000,
    "How long a member of a consumer group may be silent before it is out.",
    at_least=1,
    at_most=INT_MAX,
)
CONSUMER_SESSION_MS_MIN = Option(
    "group.consumer.min.session.timeout.ms",
    45_000,
    "The shortest session timeout that a consumer group may set for itself.",
    at_least=1,
    at_most=INT_MAX,
)
CONSUMER_SESSION_MS_MAX = Option(
    "group.consumer.max.session.timeout.ms",
    60_000,
    "The longest session timeout that a consumer group may set for itself.",
    at_least=1,
    at_most=INT_MAX,
)
CONSUMER_HEARTBEAT_MS = Option(
    "group.consumer.heartbeat.interval.ms",
    5000,
    "How often a member of a consumer group is told to send a heartbeat.",
    at_least=1,
    at_most=INT_MAX,
)
CONSUMER_HEARTBEAT_MS_MIN = Option(
    "group.consumer.min.heartbeat.interval.ms",
    5000,
    "The shortest heartbeat interval that a consumer group may set for itself.",
    at_least=1,
    at_most=INT_MAX,
)
CONSUMER_HEARTBEAT_MS_MAX = Option(
    "group.consumer.max.heartbeat.interval.ms",
    15_000,
    "The longest heartbeat interval that a consumer group may set for itself.",
    at_least=1,
    at_most=INT_MAX,
)
CONSUMER_WAITING_HEARTBEAT_MS = Option(
    "group.consumer.waiting.heartbeat.interval.ms",
    1000,
    "The heartbeat interval of members of a consumer group that wait for a target assignment, or "
    "for what others give up, where the usual one is longer: it is how soon they learn of it. "
    "ottla's own.",
    at_least=1,
    at_most=INT_MAX,
)
CONSUMER_ASSIGNMENT_MS = Option(
    "group.consumer.assignment.interval.ms",
    1000,
    "The least time between two computations of a consumer group's target assignment.",
    live=True,
    at_least=0,
    at_most=INT_MAX,
)
CONSUMER_ASSIGNMENT_MS_MIN = Option(
    "group.consumer.min.assignment.interval.ms",
    0,
    "The shortest assignment interval that a consumer group may set for itself.",
    at_least=0,
    at_most=INT_MAX,
)
CONSUMER_ASSIGNMENT_MS_MAX = Option(
    "group.consumer.max.assignment.interval.ms",
    15_000,
    "The longest assignment interval that a consumer group may set for itself.",
    at_least=0,
    at_most=INT_MAX,
)
CONSUMER_MAX_SIZE = Option(
    "group.consumer.max.size",
    5000,
    "Members that a consumer group may have. Kafka's default is no limit.",
    at_least=1,
    at_most=INT_MAX,
)
CONSUMER_ASSIGNORS = Option(
    "group.consumer.assignors",
    "uniform,range",
    "The assignors that consumer groups may choose from; the first is the default.",
    one_of=("uniform", "range"),
    many=True,
)
CONSUMER_MIGRATION = Option(
    "group.consumer.migration.policy",
    "bidirectional",
    "Which way a group may go, online, between the classic and the consumer protocol.",
    one_of=("bidirectional", "upgrade", "downgrade", "disabled"),
)

# --- offsets -------------------------------------------------------------------------------

OFFSET_METADATA_BYTES_MAX = Option(
    "offset.metadata.max.bytes",
    4096,
    "The largest text that may be committed beside an offset.",
    at_most=INT_MAX,
)
GROUP_OFFSETS_BYTES_MAX = Option(
    "group.offsets.bytes.max",
    64 << 20,
    "How much one group's committed offsets may take, at 200 bytes each and the text beside it; "
    "past it commits of further partitions, or of longer texts, are refused with "
    "INVALID_COMMIT_OFFSET_SIZE. ottla's own.",
    at_least=1 << 10,
    at_most=LONG_MAX,
)
OFFSETS_BYTES_MAX = Option(
    "offsets.bytes.max",
    1 << 30,
    "The same, for all groups that a node coordinates. ottla's own.",
    at_least=1 << 10,
    at_most=LONG_MAX,
)
OFFSETS_COMMIT_MS = Option(
    "offsets.commit.timeout.ms",
    5000,
    "How long a commit of offsets may wait to be written.",
    at_least=1,
    at_most=INT_MAX,
)
OFFSETS_RETENTION_CHECK_MS = Option(
    "offsets.retention.check.interval.ms",
    600_000,
    "How often to look for committed offsets that have expired.",
    at_least=1,
    at_most=LONG_MAX,
)
OFFSETS_RETENTION_MINUTES = Option(
    "offsets.retention.minutes",
    10_080,
    "How long committed offsets are kept once their group is empty, in minutes.",
    at_least=1,
    at_most=INT_MAX,
)
OFFSETS_CODEC = Option(
    "offsets.topic.compression.codec",
    0,
    "The codec of the offsets topic: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.",
    at_least=0,
    at_most=4,
)
OFFSETS_PARTITIONS = Option(
    "offsets.topic.num.partitions",
    50,
    "Partitions of the offsets topic. Once it is there, changing this does it harm.",
    at_least=1,
    at_most=INT_MAX,
)
OFFSETS_REPLICATION = Option(
    "offsets.topic.replication.factor",
    3,
    "Replicas of the offsets topic; all nodes, where there are fewer.",
    at_least=1,
    at_most=SHORT_MAX,
)
OFFSETS_SEGMENT_BYTES = Option(
    "offsets.topic.segment.bytes",
    104_857_600,
    "Size of a segment of the offsets topic.",
    at_least=1,
    at_most=INT_MAX,
)

# --- transactions --------------------------------------------------------------------------

TRANSACTION_MS_MAX = Option(
    "transaction.max.timeout.ms",
    900_000,
    "The longest timeout that a transaction may ask for.",
    at_least=1,
    at_most=INT_MAX,
)
TRANSACTIONAL_ID_EXPIRATION_MS = Option(
    "transactional.id.expiration.ms",
    604_800_000,
    "How long a transactional id is remembered that nobody uses.",
    at_least=1,
    at_most=INT_MAX,
)
TRANSACTIONS_ABORT_CHECK_MS = Option(
    "transaction.abort.timed.out.transaction.cleanup.interval.ms",
    10_000,
    "How long a transaction that took too long may wait at most until it is aborted.",
    at_least=1,
    at_most=INT_MAX,
)
TRANSACTIONS_EXPIRY_CHECK_MS = Option(
    "transaction.remove.expired.transaction.cleanup.interval.ms",
    3_600_000,
    "How often to look for transactional ids that have expired.",
    at_least=1,
    at_most=INT_MAX,
)
TRANSACTION_VERIFICATION = Option(
    "transaction.partition.verification.enable",
    True,
    "Whether a transactional batch is taken only once its partition is known to be in a "
    "transaction.",
    live=True,
)
TRANSACTION_2PC = Option(
    "transaction.two.phase.commit.enable",
    False,
    "Whether transactions may be prepared by one client and ended by another (KIP-939).",
)
ADD_PARTITIONS_WAIT_MS = Option(
    "add.partitions.to.txn.retry.backoff.max.ms",
    100,
    "How long a request that begins a transaction, or a batch that does, waits for the one before "
    "it to have ended; then it is told to try again.",
    at_least=0,
    at_most=INT_MAX,
)
TRANSACTIONAL_IDS_MAX = Option(
    "transactional.ids.max",
    100_000,
    "Transactional ids that a node coordinates; past it a new one is refused with "
    "POLICY_VIOLATION. ottla's own.",
    at_least=1,
    at_most=INT_MAX,
)
TRANSACTIONAL_ID_LENGTH_MAX = Option(
    "transactional.id.length.max",
    1024,
    "Characters of a transactional id; a producer with a longer one is refused with "
    "INVALID_REQUEST. ottla's own.",
    at_least=1,
    at_most=SHORT_MAX,
)
TRANSACTION_PARTITIONS_MAX = Option(
    "transaction.partitions.max",
    20_000,
    "Partitions that one transaction may have; past it more are refused with POLICY_VIOLATION. "
    "ottla's own.",
    at_least=1,
    at_most=INT_MAX,
)
TRANSACTIONS_PARTITIONS = Option(
    "transaction.state.log.num.partitions",
    50,
    "Partitions of the topic of transactions. Once it is there, changing this does it harm.",
    at_least=1,
    at_most=INT_MAX,
)
TRANSACTIONS_REPLICATION = Option(
    "transaction.state.log.replication.factor",
    3,
    "Replicas of the topic of transactions; all nodes, where there are fewer.",
    at_least=1,
    at_most=SHORT_MAX,
)
TRANSACTIONS_MIN_ISR = Option(
    "transaction.state.log.min.isr",
    2,
    "`min.insync.replicas` of the topic of transactions; all its replicas, where there are fewer.",
    at_least=1,
    at_most=INT_MAX,
)
TRANSACTIONS_SEGMENT_BYTES = Option(
    "transaction.state.log.segment.bytes",
    104_857_600,
    "Size of a segment of the topic of transactions.",
    at_least=1,
    at_most=INT_MAX,
)

COORDINATOR_OPTIONS: tuple[Option[Any], ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Option)
)

# --- what one group may set for itself -----------------------------------------------------


def _of_group(name: str, broker: Option[int]) -> Option[int]:
    return Option(
        name,
        broker.default,
        broker.doc,
        scope="group",
        live=True,
        at_least=broker.at_least,
        at_most=broker.at_most,
        broker_names=(BrokerName(broker.name),),
    )


GROUP_OPTIONS: dict[str, Option[Any]] = {
    name: _of_group(name, broker)
    for name, broker in {
        "consumer.session.timeout.ms": CONSUMER_SESSION_MS,
        "consumer.heartbeat.interval.ms": CONSUMER_HEARTBEAT_MS,
        "consumer.assignment.interval.ms": CONSUMER_ASSIGNMENT_MS,
    }.items()
}
"""By name; each one's default is what its broker option says."""

GROUP_BOUNDS: dict[str, tuple[Option[int], Option[int]]] = {
    "consumer.session.timeout.ms": (CONSUMER_SESSION_MS_MIN, CONSUMER_SESSION_MS_MAX),
    "consumer.heartbeat.interval.ms": (CONSUMER_HEARTBEAT_MS_MIN, CONSUMER_HEARTBEAT_MS_MAX),
    "consumer.assignment.interval.ms": (CONSUMER_ASSIGNMENT_MS_MIN, CONSUMER_ASSIGNMENT_MS_MAX),
}
"""The broker's options between which a group's value must lie."""
