"""The requests that the load generator sends are what they say, and it looks where the error stands."""

import struct

import pytest

from ottla.bench import wire
from ottla.protocol import frame as frames
from ottla.protocol.codec import decoder, encoder
from ottla.protocol.messages import create_topics, delete_topics, fetch, metadata, produce
from ottla.records.batch import BatchView, crc_ok

TOPIC = "some-topic"
ERROR = 77


def read(sent, message):
    """The body and header of a request, which must end where its size says."""
    assert struct.unpack_from(">i", sent)[0] == len(sent) - 4
    view = memoryview(sent)[4:]
    header, at = frames.decode_request_header(view)
    body, end = decoder(message, header.api_version)(view, at)
    assert end == len(view)
    assert header.api_key == message.KEY
    return body, header


def answered(message, version):
    """A whole answer, size included, as the pump receives it."""
    body = encoder(type(message), version)(message)
    return b"".join(frames.response_frame(7, version >= message.FLEXIBLE, body))


def test_a_produce_is_one_batch_to_one_partition():
    records = wire.batch(160, 100, 1_700_000_000_000)
    body, _ = read(wire.produce(TOPIC, 3, records, acks=1), produce.ProduceRequest)
    assert (body.acks, body.transactional_id) == (1, None)
    [topic] = body.topic_data
    [partition] = topic.partition_data
    assert (topic.name, partition.index) == (TOPIC, 3)
    assert bytes(partition.records) == records
    view = memoryview(bytearray(records))
    assert (BatchView(view).records_count, crc_ok(view)) == (160, True)


def test_a_fetch_asks_for_one_partition_from_the_beginning():
    body, _ = read(wire.fetch(TOPIC, 2, 1 << 20), fetch.FetchRequest)
    assert (body.session_epoch, body.max_bytes) == (-1, 1 << 20)
    [topic] = body.topics
    [partition] = topic.partitions
    assert (topic.topic, partition.partition, partition.fetch_offset) == (TOPIC, 2, 0)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (wire.create_topic(TOPIC, 4), create_topics.CreateTopicsRequest),
        (wire.delete_topic(TOPIC), delete_topics.DeleteTopicsRequest),
        (wire.metadata(TOPIC), metadata.MetadataRequest),
    ],
)
def test_a_request_about_topics_names_the_topic(sent, message):
    body, _ = read(sent, message)
    names = getattr(body, "topic_names", None) or [topic.name for topic in body.topics]
    assert names == [TOPIC]


def test_the_error_of_a_produce_is_where_the_pump_looks():
    partition = produce.PartitionProduceResponse
    topic = produce.TopicProduceResponse
    answer = answered(
        produce.ProduceResponse(
            responses=[
                topic(name=TOPIC, partition_responses=[partition(index=3, error_code=ERROR)])
            ]
        ),
        9,
    )
    assert struct.unpack_from(">h", answer, wire.produce_error_at(TOPIC))[0] == ERROR


def test_the_error_of_a_fetch_is_where_the_pump_looks():
    partition = fetch.PartitionData(partition_index=2, error_code=ERROR, records=b"")
    topic = fetch.FetchableTopicResponse(topic=TOPIC, partitions=[partition])
    answer = answered(fetch.FetchResponse(responses=[topic]), 12)
    assert struct.unpack_from(">h", answer, wire.fetch_error_at(TOPIC))[0] == ERROR


def test_the_error_of_a_topic_s_creation_is_read_from_its_answer():
    result = create_topics.CreatableTopicResult(name=TOPIC, error_code=ERROR)
    answer = answered(create_topics.CreateTopicsResponse(topics=[result]), 2)
    assert wire.create_topic_error(TOPIC, answer[4:]) == ERROR
