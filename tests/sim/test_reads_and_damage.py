"""A node as its clients see it: what they read, in order, and what they are told of damage.

I4 (no skip, no repeat), I5 (an honest failure leaves nothing) and I28 (a damaged partition).
"""

from __future__ import annotations

import random

import pytest

from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from ottla.records.builder import Producer
from ottla.testing.simnode import SimNode
from tests.asking import Want, batch, batches, fetch, get, put
from tests.sim.histories import named_by

LATEST, EARLIEST = -1, -2


def value(number: int) -> bytes:
    return b"value %06d" % number * 20


@pytest.mark.parametrize("seed", range(20))
def test_i4_a_consumer_sees_every_record_once_and_in_order_over_rolls_restarts_and_cold_reads(
    seed: int,
) -> None:
    dice = random.Random(seed)
    node = SimNode(seed)
    node.create_topic("t", 1, segment_index_bytes="80", index_interval_bytes="500")
    written = position = 0
    seen: list[int] = []
    with named_by(seed):
        while position < 300:
            for _ in range(dice.randrange(4)):
                count = dice.randrange(1, 5)
                put(node, batch(*(value(written + n) for n in range(count))))
                written += count
            part = get(node, Want(position, bytes_max=dice.choice((1, 3000, 1 << 20))))
            assert part.error_code == 0
            for one in batches(part):
                seen += range(one.base_offset, one.last_offset + 1)
                assert value(one.base_offset) in bytes(one.view)
                position = one.last_offset + 1
            dice.choice((node.kill, node.disk.evict, int, int, int))()
    assert seen == list(range(position))


def test_i5_a_batch_that_was_refused_for_certain_is_not_there() -> None:
    node = SimNode()
    node.create_topic("t", 1, max_message_bytes="500")
    assert put(node, batch(b"there", producer=Producer(5, 0, 0))).error_code == 0
    damaged = bytearray(batch(b"damaged"))
    damaged[-2] ^= 1
    refusals = {
        ErrorCode.CORRUPT_MESSAGE: bytes(damaged),
        ErrorCode.MESSAGE_TOO_LARGE: batch(bytes(1000)),
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER: batch(b"late", producer=Producer(5, 0, 7)),
    }
    for error, raw in refusals.items():
        assert put(node, raw).error_code == error
    node.kill()
    part = get(node, Want(0))
    assert part.high_watermark == 1
    assert [one.records_count for one in batches(part)] == [1]


@pytest.fixture
def hurt() -> SimNode:
    """Thirty records in each of two partitions, a clean stop, and a byte of the first gone wrong."""
    node = SimNode()
    node.create_topic("t", 2)
    for number in range(30):
        put(node, batch(value(number)))
        put(node, batch(value(number)), partition=1)
    node.stop()
    path = "/data/t-0/00000000000000000000.log"
    node.disk.on_loop = False
    raw = node.disk.read_file(path)
    assert raw is not None
    node.disk.open(path).write(b"\xff", raw.index(value(12)) + 5)
    node.disk.on_loop = True
    return node


def offsets_of(node: SimNode, partition: int, timestamp: int) -> tuple[int, int]:
    asked = ListOffsetsPartition(partition_index=partition, timestamp=timestamp)
    topic = ListOffsetsTopic(name="t", partitions=[asked])
    call = node.connect().ask(ListOffsetsRequest(topics=[topic]), 7)
    node.settle()
    answer = call.answer.topics[0].partitions[0]
    return answer.error_code, answer.offset


def test_i28_below_damage_is_served_the_rest_answers_an_error_and_others_go_on(
    hurt: SimNode,
) -> None:
    found, position = [], 0
    while not (part := get(hurt, Want(position))).error_code:
        for one in batches(part):
            found.append(one.base_offset)
            position = one.last_offset + 1
    assert found == list(range(12))
    assert part.error_code == ErrorCode.KAFKA_STORAGE_ERROR
    for offset in (12, 13, 29, 30):
        assert get(hurt, Want(offset)).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert get(hurt, Want(3)).error_code == 0
    assert put(hurt, batch(b"more")).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert offsets_of(hurt, 0, LATEST)[0] == ErrorCode.KAFKA_STORAGE_ERROR
    assert offsets_of(hurt, 0, EARLIEST) == (0, 0)
    assert put(hurt, batch(b"more"), partition=1).error_code == 0
    assert offsets_of(hurt, 1, LATEST) == (0, 31)


def test_i28_a_fetch_that_waits_at_the_end_is_told_when_damage_is_found(hurt: SimNode) -> None:
    call = hurt.connect().ask(fetch(Want(30), max_wait_ms=60_000, min_bytes=1), 12)
    hurt.settle()
    assert not call.done
    get(hurt, Want(12))
    hurt.settle()
    assert call.done
    ((part,),) = (topic.partitions for topic in call.answer.responses)
    assert part.error_code == ErrorCode.KAFKA_STORAGE_ERROR


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_i28_after_a_restart_nothing_is_taken_until_the_damage_is_repaired(
    hurt: SimNode, end: str
) -> None:
    assert get(hurt, Want(12)).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    for _ in range(2):
        getattr(hurt, end)()
        assert put(hurt, batch(b"more")).error_code == ErrorCode.KAFKA_STORAGE_ERROR
        assert get(hurt, Want(30)).error_code == ErrorCode.KAFKA_STORAGE_ERROR
        assert offsets_of(hurt, 0, LATEST)[0] == ErrorCode.KAFKA_STORAGE_ERROR
        assert get(hurt, Want(3)).error_code == 0
        assert put(hurt, batch(b"more"), partition=1).error_code == 0


def test_i28_a_note_of_damage_that_is_damaged_itself_still_keeps_appends_out(
    hurt: SimNode,
) -> None:
    get(hurt, Want(12))
    hurt.settle()
    hurt.disk.on_loop = False
    note = hurt.disk.open("/data/t-0/quarantine")
    note.write(b"x", 0)
    hurt.disk.on_loop = True
    hurt.kill()
    assert put(hurt, batch(b"more")).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert get(hurt, Want(12)).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert get(hurt, Want(3)).error_code == 0
