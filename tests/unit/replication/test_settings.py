"""From a topic's options to the words of records and storage: each arrives where it is used."""

from __future__ import annotations

import pytest

from ottla.core.options import broker_config
from ottla.records.compress import GZIP, NONE, ZSTD
from ottla.replication.settings import PartitionSettings, partition_settings


def settings(broker: dict[str, str] | None = None, **own: str) -> PartitionSettings:
    given = {name.replace("_", "."): value for name, value in own.items()}
    return partition_settings(broker_config(broker or {}), given)


def test_by_default_batches_stay_closed_and_limits_are_kafkas() -> None:
    found = settings()
    assert found.opening is None
    assert not found.rules.walks
    assert found.rules.message_max_bytes == 1_048_588
    assert found.log.segment_bytes == found.rules.segment_bytes == 1 << 30
    assert found.log.producer_id_expiration_ms == 86_400_000


def test_the_brokers_limit_on_decompression_arrives_where_batches_are_opened() -> None:
    found = settings({"decompressed.max.bytes": "1048576"}, record_validation="records")
    assert found.opening is not None
    assert found.opening.rules.decompressed_max == 1 << 20


def test_a_topics_own_setting_goes_before_the_brokers() -> None:
    broker = {"message.max.bytes": "5000", "log.segment.bytes": "2000000"}
    found = settings(broker, max_message_bytes="7000")
    assert (found.rules.message_max_bytes, found.log.segment_bytes) == (7000, 2_000_000)


@pytest.mark.parametrize(
    ("own", "codec", "walks"),
    [
        ({"compression_type": "producer"}, None, False),
        ({"compression_type": "uncompressed"}, NONE, False),
        ({"compression_type": "gzip"}, GZIP, False),
        ({"compression_type": "zstd", "record_validation": "records"}, ZSTD, True),
        ({"record_validation": "records"}, None, True),
        ({"cleanup_policy": "compact"}, None, True),
        ({"cleanup_policy": "compact,delete"}, None, True),
    ],
)
def test_a_batch_is_opened_where_a_codec_or_a_walk_asks_for_it(
    own: dict[str, str], codec: int | None, walks: bool
) -> None:
    found = settings(**own)
    assert found.rules.walks is walks
    assert (found.opening is not None) is (walks or codec is not None)
    if found.opening is not None:
        assert found.opening.codec == codec


def test_what_belongs_to_the_log_arrives_there() -> None:
    found = settings(
        {"transactional.id.expiration.ms": "1", "producer.id.expiration.ms": "77"},
        segment_ms="11",
        segment_jitter_ms="12",
        segment_index_bytes="1200",
        index_interval_bytes="13",
        flush_messages="14",
        flush_ms="15",
    ).log
    assert found.segment_jitter_ms == 12
    assert (found.segment_ms, found.segment_index_bytes, found.index_interval_bytes) == (
        11,
        1200,
        13,
    )
    assert (found.flush_messages, found.flush_ms, found.producer_id_expiration_ms) == (14, 15, 77)


def test_time_limits_of_records_arrive_in_the_rules() -> None:
    found = settings(
        message_timestamp_type="LogAppendTime",
        message_timestamp_before_max_ms="16",
        message_timestamp_after_max_ms="17",
    ).rules
    assert (found.timestamp_type, found.before_max_ms, found.after_max_ms) == (
        "LogAppendTime",
        16,
        17,
    )
