"""The handle of an embedded broker: topics, records and offsets without a client."""

import pickle
import threading

import pytest

import ottla
from ottla import ErrorCode, KafkaError, Record


def code_of(raised) -> ErrorCode:
    return raised.value.code


def test_a_record_is_read_as_it_was_appended(broker):
    broker.create_topic("orders", partitions=3)
    appended = broker.append(
        "orders",
        "zwölf",
        key=b"\x00k",
        headers={"a": "1", "b": None, "c": b"\xff"},
        timestamp=1_700_000_000_123,
        partition=2,
    )
    assert appended == Record(
        value="zwölf".encode(),
        key=b"\x00k",
        headers=(("a", b"1"), ("b", None), ("c", b"\xff")),
        timestamp=1_700_000_000_123,
        partition=2,
        offset=0,
    )
    assert list(broker.read("orders")) == [appended]


def test_nulls_and_repeated_headers_are_kept(broker):
    appended = broker.append("tombstones", None, headers=[("h", "1"), ("h", "2")])
    assert (appended.key, appended.value) == (None, None)
    assert appended.headers == (("h", b"1"), ("h", b"2"))
    assert list(broker.read("tombstones")) == [appended]


def test_a_topic_is_made_by_the_first_record_unless_that_is_switched_off(broker):
    broker.append("made-on-the-way", "x")
    assert broker.topics() == {"made-on-the-way": 1}
    with ottla.Broker(config={"auto.create.topics.enable": False}) as strict:
        with pytest.raises(KafkaError, match="there is no topic 'x'") as raised:
            strict.append("x", "y")
        assert code_of(raised) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert strict.topics() == {}


def test_options_by_kafkas_names_hold_for_new_topics():
    with ottla.Broker(config={"num.partitions": 3}) as broker:
        broker.create_topic("by-default")
        broker.create_topic("two", 2, configs={"retention.ms": 1000, "cleanup.policy": "compact"})
        assert broker.topics() == {"by-default": 3, "two": 2}
        configs = broker.topic_configs("two")
        assert (configs["retention.ms"], configs["cleanup.policy"]) == ("1000", "compact")
        assert broker.topic_configs("by-default")["retention.ms"] == "604800000"


def test_without_keys_the_partitions_take_turns_and_keys_stay_together(broker):
    broker.create_topic("t", partitions=3)
    turns = [broker.append("t", "x").partition for _ in range(6)]
    assert turns == [0, 1, 2, 0, 1, 2]
    keyed = [broker.append("t", "x", key="same").partition for _ in range(6)]
    assert len(set(keyed)) == 1


def test_many_records_keep_their_order_and_are_returned_with_their_offsets(broker):
    broker.create_topic("t", partitions=2)
    values = [f"{number:06}" * 20 for number in range(20_000)]  # several batches
    stored = broker.extend("t", values)
    assert [record.value.decode() for record in stored] == values
    assert [record.offset for record in stored] == [number // 2 for number in range(20_000)]
    found = list(broker.read("t"))
    assert [r for r in found if r.partition == 1] == [r for r in stored if r.partition == 1]
    assert len(found) == len(stored)
    assert broker.extend("t", []) == []


def test_records_of_one_broker_can_be_appended_to_another(broker):
    broker.create_topic("t", partitions=2)
    stored = broker.extend("t", [Record(b"v", key=b"k", headers=(("h", b"1"),)), "plain", None])
    with ottla.Broker() as other:
        other.create_topic("copy", partitions=2)
        assert other.extend("copy", broker.read("t")) == list(broker.read("t"))
        assert set(other.read("copy")) == set(stored)


def test_reading_starts_at_an_offset_and_stops_at_a_count_or_the_high_watermark(broker):
    broker.extend("t", map(str, range(10)))
    assert broker.offsets("t") == (0, 10)

    def values(**how):
        return [int(record.value) for record in broker.read("t", **how)]

    assert values(offset=7) == [7, 8, 9]
    assert values(offset=2, count=3) == [2, 3, 4]
    assert values(offset=10) == []
    assert values(count=0) == []
    reading = broker.read("t")
    broker.append("t", "later")  # past the high watermark of when the reading began
    assert len(list(reading)) == 10


def test_reading_waits_for_what_is_not_there_yet(broker):
    broker.create_topic("t", partitions=4)
    broker.append("t", "first", partition=3)
    reading = broker.read("t", count=3, timeout=30)
    assert next(reading).value == b"first"
    writer = threading.Thread(target=lambda: broker.extend("t", ["second", "third"]))
    writer.start()
    assert {record.value for record in reading} == {b"second", b"third"}
    writer.join()


def test_waiting_in_vain_says_what_came(broker):
    broker.append("t", "only one")
    with pytest.raises(TimeoutError, match=r"2 records of t did not come within 0\.05 s.* 1"):
        list(broker.read("t", count=2, timeout=0.05))


def test_a_time_finds_the_first_record_at_or_after_it(broker):
    for timestamp in (1000, 2000, 3000):
        broker.append("t", "x", timestamp=timestamp)
    assert broker.offset_for_time("t", 1500) == 1
    assert broker.offset_for_time("t", 3000) == 2
    assert broker.offset_for_time("t", 3001) is None


def test_records_of_a_topic_with_the_brokers_time_are_returned_with_it(broker):
    broker.create_topic("t", configs={"message.timestamp.type": "LogAppendTime"})
    appended = broker.append("t", "x", timestamp=5)
    assert appended.timestamp > 1_600_000_000_000
    assert list(broker.read("t")) == [appended]


def test_compressed_records_are_read(broker):
    broker.create_topic("t", configs={"compression.type": "zstd"})
    stored = broker.extend("t", ["x" * 1000] * 100)
    assert list(broker.read("t")) == stored


def test_a_topics_options_can_be_changed_while_it_is_in_use(broker):
    broker.create_topic("t", configs={"retention.ms": 1000, "segment.ms": 2000})
    broker.set_topic_configs("t", {"max.message.bytes": 2000, "retention.ms": None})
    configs = broker.topic_configs("t")
    assert configs["max.message.bytes"] == "2000"
    assert (configs["retention.ms"], configs["segment.ms"]) == ("604800000", "2000")
    with pytest.raises(KafkaError, match=r"max\.message\.bytes is 2000"):
        broker.append("t", "x" * 3000)


def test_a_topic_grows_while_it_is_in_use(broker):
    broker.append("t", "x")
    broker.create_partitions("t", 3)
    assert broker.topics() == {"t": 3}
    assert broker.append("t", "y", partition=2).offset == 0
    with pytest.raises(KafkaError, match="3 partition") as raised:
        broker.create_partitions("t", 3)
    assert code_of(raised) == ErrorCode.INVALID_PARTITIONS


def test_a_deleted_topic_is_gone_and_its_name_free(broker):
    broker.append("t", "x")
    broker.delete_topic("t")
    assert broker.topics() == {}
    broker.create_topic("t")
    assert broker.offsets("t") == (0, 0)
    assert broker.append("t", "y").offset == 0


@pytest.mark.parametrize(
    ("call", "code", "sentence"),
    [
        (lambda b: b.create_topic("t"), ErrorCode.TOPIC_ALREADY_EXISTS, "'t' already exists"),
        (lambda b: b.create_topic("a b"), ErrorCode.INVALID_TOPIC_EXCEPTION, "a b"),
        (lambda b: b.create_topic("u", configs={"x.y": "1"}), ErrorCode.INVALID_CONFIG, r"x\.y"),
        (lambda b: b.delete_topic("u"), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "no such topic"),
        (lambda b: b.read("u"), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "no topic 'u'"),
        (lambda b: b.read("t", 1), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "one partition"),
        (lambda b: b.offsets("t", 7), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "number 7"),
        (lambda b: b.offset_for_time("u", 1), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "'u'"),
        (lambda b: b.topic_configs("u"), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "'u'"),
        (lambda b: b.set_topic_configs("u", {}), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "'u'"),
        (lambda b: b.set_topic_configs("t", {"x.y": 1}), ErrorCode.INVALID_CONFIG, r"x\.y"),
        (lambda b: b.append("t", "x", partition=1), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "1"),
        (lambda b: b.append("a b", "x"), ErrorCode.INVALID_TOPIC_EXCEPTION, "a b"),
        (lambda b: b.read("t", offset=1), ErrorCode.OFFSET_OUT_OF_RANGE, "from 0 to 0, not 1"),
        (
            lambda b: b.append("t", "x" * 2_000_000),
            ErrorCode.MESSAGE_TOO_LARGE,
            "max.message.bytes",
        ),
    ],
)
def test_a_refusal_is_a_kafka_error_with_its_code_and_a_sentence(broker, call, code, sentence):
    broker.create_topic("t")
    with pytest.raises(KafkaError, match=sentence) as raised:
        call(broker)
    assert code_of(raised) == code
    assert code.name in str(raised.value)
    assert pickle.loads(pickle.dumps(raised.value)).code == code


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda b: b.create_topic("u", 0), ValueError, "at least one partition"),
        (lambda b: b.append("t", 1), TypeError, "bytes, str or None, not int"),
        (lambda b: b.append("t", "x", headers={"h": 1}), TypeError, "header 'h'"),
        (lambda b: b.append("t", "x", headers=[(b"h", "1")]), TypeError, "name of a header"),
        (lambda b: b.append("t", "x", timestamp=-1), ValueError, "milliseconds since 1970"),
        (lambda b: b.append("t", "x", partition=-1), ValueError, "from 0 on"),
        (lambda b: b.extend("t", [Record(7)]), TypeError, "bytes, str or None, not int"),
        (lambda b: b.read("t", timeout=1), ValueError, "needs a count"),
        (lambda b: b.read("t", count=-1), ValueError, "at least 0"),
        (lambda b: b.read("t", offset=0), ValueError, "say which"),
        (lambda b: b.offset_for_time("t", -1), ValueError, "milliseconds"),
    ],
)
def test_a_bad_argument_is_a_value_or_type_error_and_stores_nothing(broker, call, error, sentence):
    broker.create_topic("t", 2)
    with pytest.raises(error, match=sentence):
        call(broker)
    assert list(broker.read("t")) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"config": {"num.partition": "3"}}, "num.partition"),
        ({"config": {"num.partitions": "three"}}, "num.partitions"),
        ({"config": {"log.dirs": "/x"}}, "as data_dir"),
        ({"config": {"listeners": "PLAINTEXT://127.0.0.1:0"}, "port": 9092}, "not both"),
        ({"port": 70_000}, "0 to 65535"),
        ({"timeout": 0}, "more than 0"),
    ],
)
def test_a_bad_option_is_a_value_error_before_anything_starts(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        ottla.Broker(**arguments)


def test_the_handle_may_be_used_by_many_threads_at_once(broker):
    broker.create_topic("t", partitions=2)

    def append():
        for number in range(50):
            broker.append("t", str(number))

    threads = [threading.Thread(target=append) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = list(broker.read("t"))
    assert len(records) == 400
    assert [r.offset for r in records if r.partition == 0] == list(range(200))


def test_a_call_that_takes_too_long_is_a_timeout_error(tmp_path, monkeypatch):
    from ottla.embedded.inside import Inside

    async def never(self, topic, partitions):
        import asyncio

        await asyncio.Event().wait()

    with ottla.Broker(tmp_path) as broker:
        broker.append("t", "x")
    with ottla.Broker(tmp_path, timeout=0.05) as broker:
        with monkeypatch.context() as patch:
            patch.setattr(Inside, "offsets", never)
            with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
                broker.offsets("t")
        broker._timeout_s = 30.0  # what does come may take longer than that on a busy machine
        assert broker.offsets("t") == (0, 1)
