"""The loads: what they send is what they say, and an idempotent producer's numbers rise."""

import struct

import pytest

from ottla.bench import compiled, crowd, pump, run, shapes
from ottla.protocol import frame as frames
from ottla.protocol.codec import decoder
from ottla.protocol.messages import produce
from ottla.records.batch import BatchView, crc_ok

TOPIC = "some-topic"
IDEMPOTENT = [s for s in shapes.PRODUCE if s.kind == "produce"]


def batch_of(request):
    view = memoryview(bytearray(request))[4:]
    header, at = frames.decode_request_header(view)
    body, _ = decoder(produce.ProduceRequest, header.api_version)(view, at)
    [topic] = body.topic_data
    [partition] = topic.partition_data
    return header, partition.index, partition.records


@pytest.mark.parametrize("shape", IDEMPOTENT, ids=lambda s: s.name)
def test_each_request_of_an_idempotent_producer_continues_the_last(shape):
    ids = [(1000 + index, 2) for index in range(shape.connections)]
    load = shapes.idempotent_load(shape, TOPIC, 1, 1.0, ids)
    sequencer = pump.Sequencer(load.requests[-1], load.sequenced)
    for turn in range(3):
        header, partition, records = batch_of(sequencer.next(turn + 1))
        batch = BatchView(records)
        assert header.correlation_id == turn + 1
        assert partition == (shape.connections - 1) % shapes.PARTITIONS_COUNT
        assert (batch.producer_id, batch.producer_epoch) == (999 + shape.connections, 2)
        assert batch.base_sequence == turn * shape.records_count
        assert crc_ok(records)


def test_sequence_numbers_begin_again_after_the_greatest():
    shape = IDEMPOTENT[0]
    load = shapes.idempotent_load(shape, TOPIC, 1, 1.0, [(7, 0)] * shape.connections)
    request = pump.Sequencer(load.requests[0], load.sequenced).next((1 << 31) + 1)
    assert BatchView(batch_of(request)[2]).base_sequence == 0


@pytest.mark.parametrize("kind", run.KINDS)
def test_every_load_has_a_request_for_each_connection_and_names_of_its_own(kind):
    loads = run.KINDS[kind]
    assert len({shape.name for shape in loads}) == len(loads)
    for shape in loads:
        if shape.kind != "librdkafka":
            load = shapes.load(shape, TOPIC, 1, 1.0)
            assert len(load.requests) == shape.connections
            for request in load.requests:
                assert struct.unpack_from(">i", request)[0] == len(request) - 4


def test_the_bare_loop_gets_as_many_bytes():
    for shape in IDEMPOTENT:
        ours = len(shapes.load(shape, "bare", 1, 1.0).requests[0])
        assert len(shapes.bare_load(shape, 1.0).requests[0]) == ours


def test_a_load_is_split_between_clients_without_loss():
    load = shapes.load(IDEMPOTENT[0], TOPIC, 1, 1.0)
    parts = crowd.split(load, 3)
    assert sorted(request for part in parts for request in part.requests) == sorted(load.requests)
    assert len(crowd.split(shapes.load(shapes.PRODUCE[2], TOPIC, 1, 1.0), 3)) == 1


def test_what_several_clients_saw_is_put_together():
    one = pump.Measured(2, 10, 20, 1.0, [0.1, 0.4], 0.5)
    other = pump.Measured(1, 5, 10, 2.0, [0.2], 0.25)
    both = crowd.merged([one, other])
    assert (both.answers, both.bytes_in, both.bytes_out, both.seconds) == (3, 15, 30, 2.0)
    assert both.latencies == [0.1, 0.2, 0.4]
    assert both.client_cpu_s == 0.75


def test_a_load_is_chosen_by_a_part_of_its_name():
    assert [shape.name for shape in run.chosen("fetch", "mib")] == ["1 MiB"]
    with pytest.raises(ValueError, match="fits no load"):
        run.chosen("fetch", "nonsense")


def test_what_the_compiled_client_prints_is_read_back():
    found = compiled.told("1000 5000 9000 0.5 0.25 0.001 0.002 0.009\n")
    assert (found.answers, found.bytes_in, found.bytes_out) == (1000, 5000, 9000)
    assert (found.seconds, found.client_cpu_s) == (0.5, 0.25)
    assert [found.latency(share) for share in (0.5, 0.99, 0.999)] == [0.001, 0.002, 0.009]
