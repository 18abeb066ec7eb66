"""What may differ between Apache Kafka's answers and ottla's, each with its reason.

THE list: docs/COMPATIBILITY.md repeats it, a tidy test keeps the two in step, and the comparison
fails where an entry is no longer needed. Values that cannot be the same in two brokers (topic ids,
addresses, cluster ids, directories, producer and session ids, free space) get names in `peer.py`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

ANY = object()
TEXT = object()


class Allowed(NamedTuple):
    """In cases that match `cases`, at paths that match `path`, `kafka` there and `ottla` here."""

    name: str
    reason: str
    cases: str
    path: str
    kafka: Any = ANY
    ottla: Any = ANY

    def covers(self, case: str, path: str, kafka: Any, ottla: Any) -> bool:
        return (
            any(fnmatchcase(case, pattern) for pattern in self.cases.split(" "))
            and any(fnmatchcase(path, pattern) for pattern in self.path.split(" "))
            and _fits(self.kafka, kafka)
            and _fits(self.ottla, ottla)
        )


def _fits(wanted: Any, value: Any) -> bool:
    if wanted is TEXT:
        return isinstance(value, str)
    return wanted is ANY or wanted == value


WHOLE = "*"

ALLOWED: tuple[Allowed, ...] = (
    Allowed(
        "texts",
        "Messages for people are worded differently; that there is one, or none, is compared.",
        "*",
        "*error_message",
        TEXT,
        TEXT,
    ),
    Allowed(
        "refusals-explained",
        "A refused batch comes with a sentence on why, where Kafka tells its log alone.",
        "Produce-*",
        "*error_message",
        None,
        TEXT,
    ),
    Allowed(
        "markers-without-a-producer",
        "H117: a marker without producer id or epoch, or of a version below 0, is INVALID_REQUEST, "
        "which an admin can act on.",
        "WriteTxnMarkers-*-h117-without-*",
        "*error_code",
        "unknown_server_error",
        "invalid_request",
    ),
    Allowed(
        "a-marker-twice",
        "H117: a partition that is named twice for a producer gets one marker, and a marker without "
        "partitions says nothing beside others; Kafka never answers either.",
        "WriteTxnMarkers-*-h117-a-partition-twice "
        "WriteTxnMarkers-*-h117-one-without-partitions-beside-another",
        WHOLE,
    ),
    Allowed(
        "markers-one-by-one",
        "H117: each marker of a request has an answer of its own; Kafka has one for all of a producer.",
        "WriteTxnMarkers-*-h117-several-of-a-producer",
        "*markers*",
    ),
    Allowed(
        "null-records",
        "H31: Kafka's handler ends with a NullPointerException, and it never answers nor closes.",
        "Produce-*-h31-null",
        WHOLE,
        "no answer in time",
    ),
    Allowed(
        "record-errors-of-a-closed-batch",
        "Under record.validation=header a batch is refused by its header, so no single record is "
        "named. With record.validation=records each is, as in Kafka.",
        "Produce-*-h45-* Produce-*-h46-*",
        "*record_errors",
        ANY,
        [],
    ),
    Allowed(
        "append-time-set-by-a-producer",
        "H45: Kafka clears the bit, for which it opens the batch. INVALID_TIMESTAMP here, so that "
        "no batch is stored with a time that nobody gave it.",
        "Produce-*-batch-with-h45-append-time",
        WHOLE,
    ),
    Allowed(
        "unknown-codec",
        "H48: Kafka fails with UNKNOWN_SERVER_ERROR; UNSUPPORTED_COMPRESSION_TYPE says what is wrong.",
        "Produce-*-batch-with-h48-codec-*",
        "*error_code",
        "unknown_server_error",
        "unsupported_compression_type",
    ),
    Allowed(
        "producer-id-without-epoch",
        "H56: Kafka stores it, and can then neither fence nor follow that producer.",
        "Produce-*-batch-with-h56-id-without-epoch",
        WHOLE,
    ),
    Allowed(
        "a-partition-twice",
        "H65: Kafka acknowledges both batches and stores one. Both are INVALID_REQUEST here.",
        "Produce-*-h65-a-partition-twice",
        WHOLE,
    ),
    Allowed(
        "negative-fetch-sizes",
        "H67: Kafka fails with UNKNOWN_SERVER_ERROR; here it is as 0, one batch.",
        "Fetch-*-h67-max-bytes-negative",
        WHOLE,
    ),
    Allowed(
        "unknown-isolation-level",
        "Kafka fails with UNKNOWN_SERVER_ERROR; here it is INVALID_REQUEST.",
        "*-unknown-isolation-level ListOffsets-*-isolation-level-unknown",
        WHOLE,
    ),
    Allowed(
        "client-ids-are-utf-8",
        "H15: Kafka takes lengths below -1 for null, and replaces what is no UTF-8. Such a peer "
        "does not speak the protocol: its connection ends.",
        "ApiVersions-*-h15-client-id-length-minus-2 ApiVersions-*-h15-client-id-no-utf-8",
        WHOLE,
    ),
    Allowed(
        "tags-ascend",
        "H16: the protocol (KIP-482) wants tags ascending and once each; Kafka does not look. Such "
        "a peer does not speak the protocol: its connection ends.",
        "*-h16-tags-of-the-*-not-ascending *-h16-tags-of-the-*-twice",
        WHOLE,
    ),
    Allowed(
        "features",
        "What a feature stands for is advertised when it is served, not before.",
        "ApiVersions-*",
        "supported_features* finalized_features*",
    ),
    Allowed(
        "metadata-of-nobody",
        "H73: a topic with neither name nor id is INVALID_REQUEST, where Kafka fails with "
        "UNKNOWN_SERVER_ERROR.",
        "Metadata-*-h73-id-zero",
        WHOLE,
    ),
    Allowed(
        "topic-options-of-our-own",
        "record.validation is ottla's own; what concerns tiered storage and throttled replication "
        "can mean nothing here and is absent.",
        "CreateTopics-* DescribeConfigs-* AlterConfigs-* IncrementalAlterConfigs-*",
        "*configs.record.validation *configs.remote.* *configs.local.* *.replication.throttled.*",
    ),
    Allowed(
        "min-insync-replicas-of-the-cluster",
        "Kafka 4.3 sets min.insync.replicas for the whole cluster when it is formatted, for "
        "eligible leader replicas, which one node does not have.",
        "CreateTopics-* DescribeConfigs-* AlterConfigs-* IncrementalAlterConfigs-*",
        "*configs.min.insync.replicas.*",
    ),
    Allowed(
        "partitions-of-a-topic-are-capped",
        "Past its cap of 10,000 Kafka fails with UNKNOWN_SERVER_ERROR; POLICY_VIOLATION says why.",
        "CreatePartitions-*-h76-a-billion",
        WHOLE,
    ),
    Allowed(
        "internal-topics-do-not-grow",
        "INVALID_PARTITIONS: Kafka adds partitions to `__consumer_offsets` and `__transaction_state`, "
        "and after its next start finds no group nor transactional id that was there before.",
        "CreatePartitions-*-an-internal-topic",
        "*error_code *error_message",
    ),
    Allowed(
        "the-empty-name-alone",
        "DescribeTopicPartitions: INVALID_TOPIC_EXCEPTION for the empty name; Kafka fails the whole "
        "request with UNKNOWN_SERVER_ERROR.",
        "DescribeTopicPartitions-*-described-name-empty",
        WHOLE,
    ),
    Allowed(
        "a-resource-twice",
        "AlterConfigs: INVALID_REQUEST for each mention; Kafka never answers.",
        "AlterConfigs-*-a-resource-twice",
        WHOLE,
        "no answer in time",
    ),
    Allowed(
        "an-unknown-operation-on-a-setting",
        "INVALID_REQUEST for its resource; Kafka fails with UNKNOWN_SERVER_ERROR for all of them.",
        "IncrementalAlterConfigs-*-an-unknown-operation",
        WHOLE,
    ),
    Allowed(
        "an-unknown-setting-of-the-broker",
        "H78: only known names are stored, so a misspelt one is INVALID_CONFIG; Kafka keeps it, "
        "where it does nothing.",
        "IncrementalAlterConfigs-*-an-unknown-setting-of-the-broker",
        WHOLE,
    ),
    Allowed(
        "automatic-creation-says-why-not",
        "H74: a name that collides with another topic's is INVALID_TOPIC_EXCEPTION at once; Kafka "
        "answers UNKNOWN_TOPIC_OR_PARTITION for ever, and its log alone says why.",
        "Metadata-*-h74-name-that-collides-with-another",
        "*error_code",
        "unknown_topic_or_partition",
        "invalid_topic_exception",
    ),
    Allowed(
        "told-again",
        "A member of a consumer group that comes with its last epoch has missed an answer: it is "
        "told its assignment again, or it might never hear of what it got with that answer.",
        "ConsumerGroupHeartbeat-*-h110-epochs-of-others",
        "*.assignment",
        None,
    ),
    Allowed(
        "came-to-nothing",
        "A group of which there was no more than a promised member id is forgotten with the "
        "promise; Kafka keeps it as an empty group until retention looks at it.",
        "DeleteGroups-*-one-that-came-to-nothing",
        "*error_code",
        "none",
        "group_id_not_found",
    ),
    Allowed(
        "broken-subscriptions",
        "A classic member's subscription that can't be read makes a consumer group refuse it with "
        "INCONSISTENT_GROUP_PROTOCOL; Kafka's coordinator fails at it: UNKNOWN_SERVER_ERROR.",
        "ConsumerGroupHeartbeat-*-a-classic-subscription-that-can-not-be-read",
        "*error_code",
        "unknown_server_error",
        "inconsistent_group_protocol",
    ),
    Allowed(
        "strangers-end-no-group",
        "An empty consumer group is still there when a JoinGroup of the classic protocol was "
        "refused for an unknown member id; in Kafka its members are no longer known to be any of "
        "a consumer group.",
        "ConsumerGroupHeartbeat-*-an-empty-group-that-a-stranger-wants-to-join",
        "*error_code",
        "group_id_not_found",
        "unknown_member_id",
    ),
    Allowed(
        "who-waits-asks-sooner",
        "A member that waits for a target or for what others give up is told a heartbeat interval "
        "of a second, by group.consumer.waiting.heartbeat.interval.ms; in Kafka it learns of it "
        "after a whole interval.",
        "ConsumerGroupHeartbeat-* ConsumerGroupDescribe-*",
        "*heartbeat_interval",
        5000,
        1000,
    ),
    Allowed(
        "groups-stay-on",
        "`group.version` can't be set to 0: consumer groups can't be switched off.",
        "UpdateFeatures-*-feature-groups-off",
        WHOLE,
    ),
    Allowed(
        "transactions-stay-new",
        "`transaction.version` can't be set below 2: each client has the transactions that the "
        "versions of its requests speak of.",
        "UpdateFeatures-*-feature-transactions-of-old",
        WHOLE,
    ),
    Allowed(
        "zombies-stay-fenced",
        "I40: a producer that was replaced, and asks by EndTxn 5 for the end that a transaction of "
        "version 1 of its successor had, is fenced; Kafka 4.3.1 takes that for its own request come "
        "again, and gives it its successor's epoch.",
        "EndTxn-*-h113-a-zombie-after-a-transaction-of-old",
        "*ted.error_code *ted.producer_id *ted.producer_epoch",
    ),
    Allowed(
        "refused-batches-leave-nothing",
        "A batch of a transaction that was refused, or came again, sets no bound to the sequences "
        "of later ones: Kafka remembers the least one that it saw until the transaction begins or "
        "ends in that partition, also of a stranger; and keeps to the rules of the first version.",
        "Produce-*-after-a-refused-one-*",
        WHOLE,
    ),
    Allowed(
        "headers-come-first",
        "A batch that its header shows to be unsound, or that is sent to an internal topic, is "
        "refused before its transaction is looked at; Kafka asks the coordinator first, and may "
        "begin a transaction with it.",
        "Produce-*-not-in-the-transaction-and-without-a-sequence "
        "Produce-*-h62-an-internal-topic-in-a-transaction",
        WHOLE,
    ),
    Allowed(
        "refused-markers-end-it-too",
        "A partition that refuses a marker, since it has seen a later epoch or a later coordinator, "
        "has nothing left to do: the transaction completes. In Kafka it is being ended until its "
        "coordinator starts anew, and its producer waits.",
        "EndTxn-*-after-a-marker-of-a-later-epoch",
        "*transaction_state *producer_epoch *topics*",
    ),
    Allowed(
        "stable-is-not-before-the-start",
        "The last stable offset is never below the start of the log; in Kafka it is, where "
        "DeleteRecords has cut a batch of an open transaction.",
        "Fetch-*-stable-where-a-batch-of-an-open-transaction-was-cut",
        "*.offset *last_stable_offset",
        0,
        1,
    ),
    Allowed(
        "the-greatest-time-that-is-there",
        "ListOffsets by the greatest timestamp tells of records that are there; Kafka also of what "
        "DeleteRecords has taken away, as long as its segment is there.",
        "ListOffsets-*-the-greatest-time-is-of-what-was-deleted",
        "*.offset *.timestamp",
    ),
    Allowed(
        "transactions-one-by-one",
        "Of a transaction that is named twice in one request each part is done, and answered; Kafka "
        "does the last one and answers in its own way for each.",
        "AddPartitionsToTxn-*-a-transaction-twice",
        WHOLE,
    ),
    Allowed(
        "long-patterns",
        "H110: a pattern of more than 4,096 characters is INVALID_REGULAR_EXPRESSION, as that of a "
        "group's member is: each costs time for every transactional id.",
        "ListTransactions-*-h110-a-long-pattern",
        "*error_code",
        "none",
        "invalid_regular_expression",
    ),
    Allowed(
        "no-transactions-are-answered",
        "AddPartitionsToTxn for no transaction at all is answered with nothing; Kafka never "
        "answers, and nothing behind it on the connection.",
        "AddPartitionsToTxn-*-no-transactions",
        WHOLE,
    ),
)
