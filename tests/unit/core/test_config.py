"""How text becomes a value, and what is said when it doesn't."""

from __future__ import annotations

import pytest

from ottla.core import options, passed_over, topic_options
from ottla.core.config import Config, InvalidConfig
from ottla.core.config_files import from_properties
from ottla.core.endpoints import Endpoint, parse_listeners
from ottla.core.options import broker_config, data_directory
from ottla.core.topic_config import check_topic_config, topic_config


def test_what_is_not_given_has_its_default() -> None:
    config = broker_config({})
    assert config[options.NODE_ID] == 0
    assert config[options.AUTO_CREATE_TOPICS] is True
    assert config[options.LOG_DIR] == "./ottla-data"
    assert config[topic_options.SEGMENT_BYTES] == 1 << 30


def test_a_given_value_is_of_the_options_type() -> None:
    config = broker_config(
        {
            "node.id": " 7 ",
            "auto.create.topics.enable": "FALSE",
            "log.cleaner.min.cleanable.ratio": "0.25",
            "flush.policy": "os",
        }
    )
    assert config[options.NODE_ID] == 7
    assert config[options.AUTO_CREATE_TOPICS] is False
    assert config[topic_options.MIN_CLEANABLE_RATIO] == 0.25
    assert config[options.FLUSH_POLICY] == "os"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"node.id": "x"}, "Invalid value x for configuration node.id: Not a number of type INT"),
        ({"node.id": "1_0"}, "node.id: Not a number of type INT"),
        ({"node.id": "٣"}, "node.id: Not a number of type INT"),
        ({"node.id": "-1"}, "Invalid value -1 for configuration node.id: Value must be at least 0"),
        ({"num.partitions": str(1 << 31)}, "num.partitions: Value must be no more than 2147483647"),
        ({"auto.create.topics.enable": "yes"}, "Expected value to be either true or false"),
        ({"log.cleaner.min.cleanable.ratio": "nan"}, "Value must be a number"),
        ({"log.cleaner.min.cleanable.ratio": "half"}, "Not a number of type DOUBLE"),
        (
            {"flush.policy": "never"},
            "never for configuration flush.policy: String must be one of: commit, os",
        ),
        ({"log.cleanup.policy": "delete,keep"}, "String must be one of: compact, delete"),
        ({"log.cleanup.policy": "delete,"}, "String must be one of: compact, delete"),
        ({"log.segment.bytes": "1000"}, "log.segment.bytes: Value must be at least 1048576"),
        ({"log.retention.hours": "x"}, "log.retention.hours: Not a number of type INT"),
        ({"compression.gzip.level": "0"}, "Value must be between 1 and 9 or equal to -1"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_it_was_given_under(
    given: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        broker_config(given)
    assert said in str(refused.value)


def test_an_unknown_name_gets_the_nearest_one_as_a_hint() -> None:
    with pytest.raises(InvalidConfig, match=r"no option 'num.partition'; did you mean num.parti"):
        broker_config({"num.partition": "3"})
    with pytest.raises(InvalidConfig, match=r"no option 'zookeeper.connect'; docs/CONFIG.md lists"):
        broker_config({"zookeeper.connect": "there:2181"})


def test_a_topics_option_given_to_the_broker_names_the_brokers_option() -> None:
    with pytest.raises(InvalidConfig, match=r"segment.bytes is an option of topics; log.segment"):
        broker_config({"segment.bytes": "2000000"})


def test_names_of_kafkas_that_mean_nothing_here_are_passed_over_and_listed() -> None:
    config = broker_config({"num.io.threads": "8", "process.roles": "broker,controller"})
    assert config.ignored == ["num.io.threads", "process.roles"]


def test_the_finest_unit_wins_among_the_names_of_one_setting() -> None:
    hours = {"log.retention.hours": "2"}
    minutes = {"log.retention.minutes": "3"}
    millis = {"log.retention.ms": "5"}
    assert broker_config(hours)[topic_options.RETENTION_MS] == 7_200_000
    assert broker_config(hours | minutes)[topic_options.RETENTION_MS] == 180_000
    assert broker_config(hours | minutes | millis)[topic_options.RETENTION_MS] == 5


def test_no_limit_is_no_limit_in_every_unit() -> None:
    assert broker_config({"log.retention.hours": "-1"})[topic_options.RETENTION_MS] == -1


def test_every_option_has_a_name_of_its_own_and_a_sound_default() -> None:
    names = [name for option in options.ALL for name, *_ in option.broker_names or [(option.name,)]]
    assert len(names) == len(set(names))
    assert not passed_over.IGNORED & set(names)
    for option in options.ALL:
        text = option.text(option.default)
        assert option.parse(text or "") == option.default
        assert option.doc.endswith("."), option.name
        if option.scope == "topic":
            assert option.broker_names, option.name


def test_a_config_made_without_topic_options_does_not_know_them() -> None:
    with pytest.raises(InvalidConfig):
        Config([options.NODE_ID], {"log.segment.bytes": "2000000"})


def test_the_data_directory_has_two_names_of_which_the_plural_wins() -> None:
    assert data_directory(broker_config({})) == "./ottla-data"
    assert data_directory(broker_config({"log.dir": "a"})) == "a"
    assert data_directory(broker_config({"log.dir": "a", "log.dirs": " b "})) == "b"
    with pytest.raises(InvalidConfig, match="one directory for now, not 2"):
        data_directory(broker_config({"log.dirs": "a,b"}))


def test_the_file_that_comes_with_kafka_is_taken() -> None:
    config = broker_config(from_properties(KAFKAS_OWN))
    assert config[options.NODE_ID] == 1
    assert data_directory(config) == "/tmp/kraft-combined-logs"
    assert config[topic_options.RETENTION_MS] == 168 * 3_600_000
    listeners = parse_listeners(config[options.LISTENERS])
    assert [one.endpoint for one in listeners] == [Endpoint("", 9092)]


# config/server.properties of Apache Kafka 4.3, without its comments.
KAFKAS_OWN = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
"""


# --- topics ---------------------------------------------------------------------------------


def test_a_topics_own_setting_beats_the_brokers_which_beats_the_default() -> None:
    config = broker_config({"log.segment.bytes": "2000000", "log.retention.hours": "1"})
    settings = topic_config(config, {"segment.bytes": "3000000"})
    assert settings.segment_bytes == 3_000_000
    assert settings.retention_ms == 3_600_000
    assert settings.max_message_bytes == 1_048_588


def test_cleanup_policies_are_two_flags() -> None:
    config = broker_config({})
    both = topic_config(config, {"cleanup.policy": "compact, delete"})
    assert (both.compact, both.delete) == (True, True)
    compact = topic_config(config, {"cleanup.policy": "compact"})
    assert (compact.compact, compact.delete) == (True, False)
    neither = topic_config(config, {"cleanup.policy": ""})  # Kafka 4.3 takes it: keep all
    assert (neither.compact, neither.delete) == (False, False)


@pytest.mark.parametrize(
    ("codec", "level"),
    [("gzip", -1), ("lz4", 9), ("zstd", 3), ("snappy", None), ("producer", None)],
)
def test_the_compression_level_is_that_of_the_codec(codec: str, level: int | None) -> None:
    settings = topic_config(broker_config({}), {"compression.type": codec})
    assert settings.compression_level == level


def test_any_negative_size_is_no_limit() -> None:
    settings = topic_config(broker_config({}), {"retention.bytes": "-7"})
    assert settings.retention_bytes == -1


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"foo.bar": "1"}, "Unknown topic config name: foo.bar"),
        ({"num.partitions": "1"}, "Unknown topic config name"),
        ({"retention.ms": "x"}, "retention.ms: Not a number of type LONG"),
        ({"segment.bytes": "10"}, "segment.bytes: Value must be at least 1048576"),
        ({"preallocate": "yes"}, "preallocate: Expected value to be either true or false"),
        (
            {"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"},
            "min.compaction.lag.ms (10) > max.compaction.lag.ms (5)",
        ),
    ],
)
def test_what_a_client_may_not_set_is_refused(own: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        check_topic_config(broker_config({}), own)
    assert said in str(refused.value)
