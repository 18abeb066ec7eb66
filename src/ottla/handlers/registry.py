"""THE table of what is served: ApiVersions, the dispatcher, the docs and the tests read it.

Ranges are those of Apache Kafka 4.3.1. Nothing stands here before it is done: each version's
fields are read and its rules hold. Importing this imports no handler and no message.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Permission = Literal["", "READ", "WRITE", "DESCRIBE", "CREATE", "DELETE", "CLUSTER", "IDEMPOTENT"]


class Api(NamedTuple):
    """One API key.

    `module` is the name of the handler in `ottla.handlers` and of the messages in
    `ottla.protocol.messages`. Versions from `lowest` to `highest` are advertised, and taken from
    `accepted` on. `permission` is what an authorizer would be asked; "" needs none.
    """

    key: int
    name: str
    module: str
    lowest: int
    highest: int
    permission: Permission
    accepted: int


def _api(
    key: int, name: str, module: str, versions: tuple[int, int], permission: Permission
) -> Api:
    return Api(key, name, module, versions[0], versions[1], permission, versions[0])


APIS: tuple[Api, ...] = (
    # Advertised from 0, because librdkafka before 2.11 drops gzip, lz4 and snappy without it
    # (KAFKA-18659); a request below 3 ends the connection, as in Kafka.
    Api(0, "Produce", "produce", 0, 13, "WRITE", accepted=3),
    _api(1, "Fetch", "fetch", (4, 18), "READ"),
    _api(2, "ListOffsets", "list_offsets", (1, 11), "DESCRIBE"),
    _api(3, "Metadata", "metadata", (0, 13), "DESCRIBE"),
    _api(8, "OffsetCommit", "offset_commit", (2, 10), "READ"),
    _api(9, "OffsetFetch", "offset_fetch", (1, 10), "DESCRIBE"),
    _api(10, "FindCoordinator", "find_coordinator", (0, 6), "DESCRIBE"),
    _api(11, "JoinGroup", "join_group", (0, 9), "READ"),
    _api(12, "Heartbeat", "heartbeat", (0, 4), "READ"),
    _api(13, "LeaveGroup", "leave_group", (0, 5), "READ"),
    _api(14, "SyncGroup", "sync_group", (0, 5), "READ"),
    _api(15, "DescribeGroups", "describe_groups", (0, 6), "DESCRIBE"),
    _api(16, "ListGroups", "list_groups", (0, 5), "DESCRIBE"),
    _api(18, "ApiVersions", "api_versions", (0, 4), ""),
    _api(19, "CreateTopics", "create_topics", (2, 7), "CREATE"),
    _api(20, "DeleteTopics", "delete_topics", (1, 6), "DELETE"),
    _api(21, "DeleteRecords", "delete_records", (0, 2), "DELETE"),
    _api(22, "InitProducerId", "init_producer_id", (0, 5), "IDEMPOTENT"),
    _api(23, "OffsetForLeaderEpoch", "offset_for_leader_epoch", (2, 4), "DESCRIBE"),
    _api(24, "AddPartitionsToTxn", "add_partitions_to_txn", (0, 5), "WRITE"),
    _api(25, "AddOffsetsToTxn", "add_offsets_to_txn", (0, 4), "WRITE"),
    _api(26, "EndTxn", "end_txn", (0, 5), "WRITE"),
    _api(27, "WriteTxnMarkers", "write_txn_markers", (1, 2), "CLUSTER"),
    _api(28, "TxnOffsetCommit", "txn_offset_commit", (0, 5), "READ"),
    _api(32, "DescribeConfigs", "describe_configs", (1, 4), "DESCRIBE"),
    _api(33, "AlterConfigs", "alter_configs", (0, 2), "CLUSTER"),
    _api(34, "AlterReplicaLogDirs", "alter_replica_log_dirs", (1, 2), "CLUSTER"),
    _api(35, "DescribeLogDirs", "describe_log_dirs", (1, 5), "CLUSTER"),
    _api(37, "CreatePartitions", "create_partitions", (0, 3), "CLUSTER"),
    _api(42, "DeleteGroups", "delete_groups", (0, 2), "DELETE"),
    _api(43, "ElectLeaders", "elect_leaders", (0, 2), "CLUSTER"),
    _api(44, "IncrementalAlterConfigs", "incremental_alter_configs", (0, 1), "CLUSTER"),
    _api(45, "AlterPartitionReassignments", "alter_partition_reassignments", (0, 1), "CLUSTER"),
    _api(46, "ListPartitionReassignments", "list_partition_reassignments", (0, 0), "CLUSTER"),
    _api(47, "OffsetDelete", "offset_delete", (0, 0), "DELETE"),
    _api(57, "UpdateFeatures", "update_features", (0, 2), "CLUSTER"),
    _api(60, "DescribeCluster", "describe_cluster", (0, 2), "CLUSTER"),
    _api(61, "DescribeProducers", "describe_producers", (0, 0), "READ"),
    _api(65, "DescribeTransactions", "describe_transactions", (0, 0), "DESCRIBE"),
    _api(66, "ListTransactions", "list_transactions", (0, 2), "DESCRIBE"),
    _api(68, "ConsumerGroupHeartbeat", "consumer_group_heartbeat", (0, 1), "READ"),
    _api(69, "ConsumerGroupDescribe", "consumer_group_describe", (0, 1), "DESCRIBE"),
    _api(74, "ListConfigResources", "list_config_resources", (0, 1), "CLUSTER"),
    _api(75, "DescribeTopicPartitions", "describe_topic_partitions", (0, 0), "DESCRIBE"),
)

API: dict[int, Api] = {api.key: api for api in APIS}

API_VERSIONS_KEY = 18
