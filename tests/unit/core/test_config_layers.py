"""What is set while the broker runs, and how tools are told of it. As seen of Apache Kafka 4.3.1."""

import pytest

from ottla.core import options, topic_options
from ottla.core.config import Config, InvalidConfig, Kind
from ottla.core.config_entries import (
    ConfigEntry,
    Source,
    broker_entries,
    cluster_entries,
    created_entries,
    group_entries,
    topic_entries,
)
from ottla.core.group_options import COORDINATOR_OPTIONS, GROUP_OPTIONS
from ottla.core.options import broker_config, overrides


def by_name(entries) -> dict[str, ConfigEntry]:
    return {entry.name: entry for entry in entries}


def told(entry: ConfigEntry) -> tuple[str | None, int, list[tuple[str, str, int]]]:
    return entry.text, entry.source, [tuple(one) for one in entry.synonyms]


def test_the_layer_of_one_broker_lies_over_that_of_all_and_that_over_the_file():
    config = broker_config({"log.segment.bytes": "2000000"})
    assert config.override({"log.segment.bytes": "3000000"}, {}) == []
    assert config[topic_options.SEGMENT_BYTES] == 3_000_000
    config.override({"log.segment.bytes": "3000000"}, {"log.segment.bytes": "4000000"})
    assert config[topic_options.SEGMENT_BYTES] == 4_000_000
    config.override({}, {})
    assert config[topic_options.SEGMENT_BYTES] == 2_000_000


def test_a_finer_unit_set_while_running_wins_over_the_file():
    config = broker_config({"log.retention.hours": "24"})
    config.override({"log.retention.ms": "777"}, {})
    assert config[topic_options.RETENTION_MS] == 777


def test_listeners_hear_of_every_override_once_it_holds():
    config, heard = broker_config({}), []
    config.on_change(lambda: heard.append(config[options.CONNECTIONS_MAX]))
    config.override({"max.connections": "7"}, {})
    config.override({}, {})
    assert heard == [7, 10_000]


def test_what_cannot_be_taken_is_passed_over_and_told():
    config = broker_config({})
    wrong = {"nope": "1", "num.partitions": "3", "max.connections": "x"}
    faults = config.override({**wrong, "max.connections.per.ip": "5"}, {})
    assert len(faults) == 3
    assert config[options.CONNECTIONS_PER_IP_MAX] == 5
    assert dict(config.cluster_wide) == {"max.connections.per.ip": "5"}


def test_what_is_live_is_what_kafka_changes_while_it_runs():
    config = broker_config({})
    for name in ("max.connections", "log.retention.ms", "message.max.bytes", "compression.type"):
        assert config.is_live(name), name
    for name in ("log.retention.hours", "log.roll.hours", "num.partitions", "node.id", "log.dirs"):
        assert not config.is_live(name), name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("node.id", Kind.INT),
        ("auto.create.topics.enable", Kind.BOOLEAN),
        ("compression.type", Kind.STRING),
        ("log.cleanup.policy", Kind.LIST),
        ("listeners", Kind.LIST),
        ("log.dirs", Kind.LIST),
        ("log.retention.ms", Kind.LONG),
        ("log.retention.hours", Kind.INT),
        ("log.cleaner.min.cleanable.ratio", Kind.DOUBLE),
        ("offsets.topic.replication.factor", Kind.SHORT),
        ("default.replication.factor", Kind.INT),
        ("queued.max.request.bytes", Kind.LONG),
        ("connections.max.idle.ms", Kind.LONG),
        ("producer.id.expiration.ms", Kind.INT),
        ("message.max.bytes", Kind.INT),
        ("max.connections.per.ip.overrides", Kind.STRING),
        ("group.consumer.assignors", Kind.LIST),
    ],
)
def test_kinds_are_kafkas(name, kind):
    assert by_name(broker_entries(broker_config({})))[name].kind is kind


def test_values_are_written_as_java_writes_them():
    entries = by_name(broker_entries(broker_config({})))
    assert entries["log.cleaner.io.max.bytes.per.second"].text == "1.7976931348623157E308"
    assert entries["log.cleaner.min.cleanable.ratio"].text == "0.5"
    assert entries["delete.topic.enable"].text == "true"
    assert entries["broker.rack"].text is None
    assert entries["max.connections.per.ip.overrides"].text == ""


def test_a_topics_own_setting_comes_before_what_it_overrides():
    config = broker_config({"log.segment.bytes": "268435456"})
    entries = by_name(topic_entries(config, {"segment.bytes": " 2000000 "}))
    assert told(entries["segment.bytes"]) == (
        "2000000",
        Source.TOPIC,
        [
            ("segment.bytes", "2000000", 1),
            ("log.segment.bytes", "268435456", 4),
            ("log.segment.bytes", "1073741824", 5),
        ],
    )


def test_a_topic_without_own_settings_lives_by_the_broker_or_the_default():
    config = broker_config({"log.segment.bytes": "268435456"})
    entries = by_name(topic_entries(config, {}))
    assert entries["segment.bytes"].source is Source.FILE
    assert told(entries["max.message.bytes"]) == (
        "1048588",
        Source.DEFAULT,
        [("message.max.bytes", "1048588", 5)],
    )
    # The names without a default of their own are not told at all.
    for name, text in (
        ("retention.ms", "604800000"),
        ("segment.ms", "604800000"),
        ("segment.jitter.ms", "0"),
        ("flush.ms", "9223372036854775807"),
    ):
        assert told(entries[name]) == (text, Source.DEFAULT, [])


def test_a_coarser_unit_is_told_only_behind_the_finest():
    # Seen of Kafka: it is in force, and yet the source is said to be the default.
    config = broker_config({"log.retention.hours": "24"})
    assert told(by_name(topic_entries(config, {}))["retention.ms"]) == ("86400000", 5, [])
    config.override({}, {"log.retention.ms": "888"})
    assert told(by_name(topic_entries(config, {}))["retention.ms"]) == (
        "888",
        Source.BROKER,
        [
            ("log.retention.ms", "888", 2),
            ("log.retention.hours", "24", 4),
            ("log.retention.hours", "168", 5),
        ],
    )


def test_a_new_topic_is_told_with_text_as_sent_and_every_name():
    config = broker_config({"log.retention.hours": "24"})
    entries = by_name(created_entries(config, {"segment.ms": " 70000 "}))
    assert entries["segment.ms"].text == " 70000 "
    assert (entries["retention.ms"].text, entries["retention.ms"].source) == ("86400000", 4)


def test_a_broker_tells_every_name_with_all_its_layers():
    config = broker_config({"log.retention.hours": "24"})
    config.override({"max.connections": "700"}, {"max.connections": "600"})
    entries = by_name(broker_entries(config))
    assert told(entries["max.connections"]) == (
        "600",
        Source.BROKER,
        [
            ("max.connections", "600", 2),
            ("max.connections", "700", 3),
            ("max.connections", "10000", 5),
        ],
    )
    assert told(entries["log.retention.hours"]) == (
        "24",
        Source.FILE,
        [("log.retention.hours", "24", 4), ("log.retention.hours", "168", 5)],
    )
    assert told(entries["log.retention.ms"]) == (None, Source.DEFAULT, [])
    assert told(entries["log.retention.minutes"]) == (None, Source.DEFAULT, [])
    assert not entries["max.connections"].read_only
    assert entries["log.retention.hours"].read_only
    assert entries.keys() == config.names.keys()


def test_of_all_brokers_only_what_is_set_is_told():
    config = broker_config({})
    assert list(cluster_entries(config)) == []
    config.override({"max.connections": "700"}, {"max.connections": "600"})
    (entry,) = cluster_entries(config)
    assert told(entry) == ("700", Source.CLUSTER, [("max.connections", "700", 3)])


def test_a_group_lives_by_the_broker_unless_it_says_otherwise():
    config = broker_config({"group.consumer.session.timeout.ms": "46000"})
    entries = by_name(group_entries(config, {"consumer.heartbeat.interval.ms": "6000"}))
    assert entries["consumer.session.timeout.ms"].text == "46000"
    assert entries["consumer.session.timeout.ms"].source is Source.FILE
    assert told(entries["consumer.heartbeat.interval.ms"]) == (
        "6000",
        Source.GROUP,
        [
            ("consumer.heartbeat.interval.ms", "6000", 8),
            ("group.consumer.heartbeat.interval.ms", "5000", 5),
        ],
    )


def test_every_option_of_groups_and_transactions_has_a_sound_default():
    for option in COORDINATOR_OPTIONS:
        assert option.parse(str(option.default)) == option.default
        assert option.doc.endswith("."), option.name
    for option in GROUP_OPTIONS.values():
        assert option.broker_names[0].name in broker_config({}).names


def test_limits_of_single_addresses_are_a_list():
    assert overrides("127.0.0.1:5, [::1]:7") == {"127.0.0.1": 5, "::1": 7}
    assert overrides("") == {}
    for wrong in ("x", "1.2.3.4:", ":5", "1.2.3.4:-1", "1.2.3.4:x"):
        with pytest.raises(InvalidConfig, match="Value must be address:count"):
            broker_config({"max.connections.per.ip.overrides": wrong})


def test_a_config_knows_only_the_options_it_was_made_with():
    assert list(Config([options.NODE_ID], {}).names) == ["node.id"]
