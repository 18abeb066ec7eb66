"""The server's side of a connection, driven without a socket."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ottla.core.model import FileSlice
from ottla.protocol.connection import (
    BUFFER_BYTES_IDLE,
    ConnectionLimits,
    PeerError,
    ReceiveMemory,
    ServerConnection,
    Slot,
)


class CountedFile:
    path = "counted"

    def __init__(self):
        self.pins = 0

    def retain(self):
        self.pins += 1

    def release(self):
        self.pins -= 1
        assert self.pins >= 0, "released twice"


def framed(body):
    return struct.pack(">i", len(body)) + body


def connection(memory=-1, **limits):
    return ServerConnection(ConnectionLimits(**limits), ReceiveMemory(memory))


def feed(conn, data, piece_max=1 << 30):
    """Receive `data` as a driver does, in pieces of at most `piece_max`; the frames, copied."""
    frames = []
    data = memoryview(data)
    while data:
        room = conn.room()
        assert room is not None
        assert len(room) > 0
        count = min(len(room), len(data), piece_max)
        room[:count] = data[:count]
        data = data[count:]
        frames += [bytes(frame) for frame in conn.received(count)]
    return frames


def sent(conn):
    """Take what may be sent, and say that it has left."""
    answers, memory = conn.out_answers, conn.out_memory
    out = conn.take()
    conn.left(answers, memory)
    return out


# --- frames -------------------------------------------------------------------------------------


def test_frames_split_at_every_byte_come_out_whole():  # H24
    bodies = [b"", b"a", b"bc" * 50, bytes(range(256)) * 3]
    stream = b"".join(map(framed, bodies))
    assert feed(connection(), stream, piece_max=1) == bodies
    for at in range(len(stream) + 1):
        conn = connection()
        assert feed(conn, stream[:at]) + feed(conn, stream[at:]) == bodies
        assert conn.partial_bytes == 0


@settings(max_examples=60, print_blob=True)
@given(seed=st.integers(0, 2**32))
def test_any_stream_in_any_pieces_comes_out_as_it_went_in(seed):
    rng = random.Random(seed)
    sizes = [rng.choice([0, 1, 100, 5000, 70_000, 300_000]) for _ in range(rng.randint(1, 12))]
    bodies = [rng.randbytes(rng.randint(0, size)) for size in sizes]
    stream = memoryview(b"".join(map(framed, bodies)))
    conn = connection()
    frames = []
    while stream:
        at = rng.choice([1, 7, 4096, 60_000, 1 << 20])
        frames += feed(conn, stream[:at])
        stream = stream[at:]
        if rng.random() < 0.2:
            conn.relax(busy=rng.random() < 0.5)
    assert frames == bodies


def test_a_driver_that_stops_goes_on_with_the_next_frame():
    conn = connection()
    stream = framed(b"one") + framed(b"two") + framed(b"three")
    conn.room()[: len(stream)] = stream
    assert bytes(next(conn.received(len(stream)))) == b"one"
    assert bytes(next(conn.received(0))) == b"two"
    assert [bytes(frame) for frame in conn.received(0)] == [b"three"]


@pytest.mark.parametrize("size", [-1, -(2**31), 101, 2**31 - 1])
def test_a_size_that_cannot_be_is_refused_before_anything_is_allocated(size):  # H1, H2
    conn = connection(frame_bytes_max=100)
    with pytest.raises(PeerError):
        feed(conn, struct.pack(">i", size))
    assert conn.capacity == BUFFER_BYTES_IDLE


def test_the_largest_frame_is_taken():
    assert feed(connection(frame_bytes_max=100), framed(bytes(100))) == [bytes(100)]


@pytest.mark.parametrize(
    ("data", "word"),
    [(b"GET / HTTP/1.1\r\n", "HTTP"), (b"\x16\x03\x01\x02\x00\x01", "TLS"), (b"SSH-2.0", "SSH")],
)
def test_another_protocol_is_recognised(data, word):  # H7
    with pytest.raises(PeerError) as caught:
        feed(connection(), data)
    assert word in caught.value.hint


# --- the buffer ---------------------------------------------------------------------------------


def test_the_buffer_grows_with_what_has_arrived_not_with_what_is_claimed():  # H3
    conn = connection()
    feed(conn, struct.pack(">i", 100 << 20))
    assert conn.capacity == BUFFER_BYTES_IDLE
    arrived = 4
    while arrived < 1 << 20:
        feed(conn, bytes(1000))
        arrived += 1000
        conn.room()
        assert conn.capacity <= max(16 << 10, 2 * arrived)


def test_room_is_exactly_the_rest_of_a_large_frame():
    conn = connection()
    feed(conn, framed(bytes(100_000))[:90_000])
    feed(conn, bytes(10_004)[: 100_004 - 90_000])
    feed(conn, framed(bytes(100_000))[:50_000])
    assert len(conn.room()) == 50_004
    assert conn.capacity == 100_004


def test_the_next_frame_of_that_size_arrives_in_one_piece():
    conn = connection()
    frame = framed(bytes(100_000))
    feed(conn, frame)
    assert len(conn.room()) == len(frame)


def test_an_idle_buffer_shrinks_and_gives_its_memory_back():
    memory = ReceiveMemory(1 << 20)
    conn = ServerConnection(ConnectionLimits(), memory)
    feed(conn, framed(bytes(200_000)))
    assert memory.used == conn.capacity - BUFFER_BYTES_IDLE > 0
    conn.relax(busy=True)
    assert conn.capacity == 200_004  # the frame was of that size
    conn.relax(busy=False)
    assert (conn.capacity, memory.used) == (BUFFER_BYTES_IDLE, 0)
    assert len(conn.room()) == BUFFER_BYTES_IDLE


def test_a_buffer_with_part_of_a_frame_does_not_shrink():
    conn = connection()
    frame = framed(bytes(range(256)) * 400)
    feed(conn, frame[:50_000])
    conn.relax(busy=False)
    assert feed(conn, frame[50_000:]) == [frame[4:]]


def test_a_buffer_shared_by_smaller_frames_shrinks_to_their_size():
    conn = connection()
    feed(conn, framed(bytes(200_000)))
    conn.relax(busy=True)
    feed(conn, framed(bytes(10_000)))
    conn.relax(busy=True)
    assert conn.capacity == 10_004


def test_many_small_frames_widen_the_buffer_to_a_bound():
    conn = connection()
    feed(conn, framed(bytes(60)) * 20_000)
    conn.room()
    assert BUFFER_BYTES_IDLE < conn.capacity <= 64 << 10


def test_without_memory_there_is_no_room_until_some_is_given_back():
    memory = ReceiveMemory(90_000)
    first, beyond, second = (ServerConnection(ConnectionLimits(), memory) for _ in range(3))
    feed(first, framed(bytes(90_000)))
    feed(beyond, framed(bytes(50_000)))
    data = framed(bytes(50_000))
    assert feed(second, data[: second.capacity]) == []
    assert second.room() is None
    told = []
    memory.wait(lambda: told.append(1))
    first.relax(busy=False)
    assert told == [1]
    assert feed(second, data[second.capacity :]) == [data[4:]]
    second.close()
    beyond.close()
    assert memory.used == 0


def test_requests_that_are_half_there_do_not_wait_for_one_another():
    memory = ReceiveMemory(100_000)
    connections = [ServerConnection(ConnectionLimits(), memory) for _ in range(4)]
    data = framed(bytes(50_000))
    half = 32_768  # what the buffer has grown to by then
    for one in connections[:3]:
        feed(one, data[:half])
    feed(connections[3], data[:16_384])
    moving, *halted = sorted(connections, key=lambda one: one.room() is None)
    assert [one.room() is None for one in halted] == [True, True, True], "one may go past the limit"
    for one in [moving, *halted]:
        memory.wait(lambda: None)
        assert feed(one, data[one.partial_bytes :]) == [data[4:]]
        assert one.room() is not None  # and what it needs no more is given back at once
        assert one.capacity == BUFFER_BYTES_IDLE
    assert memory.used == 0


# --- answers ------------------------------------------------------------------------------------


def test_an_answer_with_nothing_before_it_goes_straight_out():
    conn = connection()
    assert conn.answer([b"a"])
    assert conn.answer([b"b"])
    assert (conn.out_answers, conn.out_memory, conn.out_sliced) == (2, 2, False)
    assert sent(conn) == [b"a", b"b"]
    assert conn.in_process == 0


def receive(conn, data):
    """Put bytes where they may be received; how many."""
    conn.room()[: len(data)] = data
    return len(data)


def test_a_frame_that_is_all_there_is_may_be_answered_without_a_trace():
    conn = connection()
    for body in (b"", b"one", b"another"):
        assert conn.sole(receive(conn, framed(body))) == body
        assert (conn.in_process, conn.partial_bytes) == (0, 0)


@pytest.mark.parametrize(
    "data",
    [b"\0\0", framed(b"x") + b"\0", framed(b"x")[:-1], framed(b"x") * 2, b"\xff" * 4],
    ids=["no size", "more", "less", "two", "a size below 0"],
)
def test_what_is_not_one_whole_frame_goes_the_usual_way(data):
    conn = connection()
    assert conn.sole(receive(conn, data)) is None


def test_a_frame_goes_the_usual_way_while_there_is_anything_else():
    conn = connection(frame_bytes_max=100)
    one = framed(b"one")
    conn.hold(8)
    assert conn.sole(receive(conn, one)) is None  # the answer before it has not left
    conn.left(1, 8)
    conn.park(Slot())
    assert conn.sole(receive(conn, one)) is None
    conn.drop()
    assert list(conn.received(receive(conn, one[:5]))) == []
    assert conn.sole(receive(conn, one[5:])) is None  # its beginning came before
    conn = connection(frame_bytes_max=100)
    assert conn.sole(receive(conn, framed(bytes(101)))) is None  # refused there, with its reason
    whole = framed(bytes(BUFFER_BYTES_IDLE - 4))
    conn = connection()
    assert conn.sole(receive(conn, whole)) is None  # it has filled the buffer: a wider one follows


def widened(memory=None):
    """A connection whose buffer a large frame has filled, and made wider."""
    conn = ServerConnection(ConnectionLimits(), memory or ReceiveMemory(-1))
    whole = framed(bytes(3 * BUFFER_BYTES_IDLE))
    while whole:
        size = min(len(whole), len(conn.room()))
        assert len(list(conn.received(receive(conn, whole[:size])))) == (size == len(whole))
        whole = whole[size:]
    conn.answer([b"answer"])
    sent(conn)
    conn.room()
    return conn


def test_a_large_frame_may_be_answered_without_a_trace_once_there_is_room_for_it():
    conn = widened()
    assert conn.capacity > 4 * BUFFER_BYTES_IDLE
    for size in (2 * BUFFER_BYTES_IDLE, 1, 3 * BUFFER_BYTES_IDLE):
        assert conn.sole(receive(conn, framed(bytes(size)))) == bytes(size)
        assert (conn.in_process, conn.partial_bytes) == (0, 0)


def test_a_buffer_stays_as_wide_as_frames_that_left_no_trace_need_it():
    conn = widened()
    wide = conn.capacity
    for size, kept in ((wide // 2, True), (8, False)):
        conn.relax(busy=True)
        conn.room()
        assert conn.sole(receive(conn, framed(bytes(size)))) is not None
        conn.relax(busy=True)
        assert (conn.capacity == wide) is kept


def test_a_wide_buffer_goes_the_usual_way_where_others_wait_for_memory():
    memory = ReceiveMemory(1 << 20)
    conn = widened(memory)
    count = receive(conn, framed(b"small"))
    memory.wait(lambda: None)
    assert conn.sole(count) is None
    assert list(conn.received(count)) == [b"small"]
    conn.room()
    assert conn.capacity == BUFFER_BYTES_IDLE, "it has given back what the others wait for"


def test_an_answer_waits_for_the_parked_one_before_it():
    conn = connection()
    slot = Slot()
    conn.park(slot)
    conn.answer([b"later"])
    assert conn.out == []
    conn.fill(slot, [b"first"])
    assert sent(conn) == [b"first", b"later"]


def test_no_answer_takes_no_place():
    conn = connection()
    conn.answer([])
    slot = Slot()
    conn.park(slot)
    conn.answer([])
    conn.answer([b"x"])
    conn.fill(slot, [])
    assert (conn.out_answers, sent(conn), conn.in_process) == (1, [b"x"], 0)


@settings(max_examples=100, print_blob=True)
@given(seed=st.integers(0, 2**32))
def test_answers_leave_in_the_order_of_their_requests_whatever_the_order_of_completion(seed):  # I47
    rng = random.Random(seed)
    limit = rng.randint(1, 20)
    conn = connection(requests_max=limit)
    file = CountedFile()
    requested = left = 0
    parked = {}
    unsent = []
    out = []
    for _ in range(300):
        action = rng.random()
        if action < 0.5 and not conn.full:
            number = requested
            requested += 1
            if rng.random() < 0.5:
                answer = [b"%d" % number]
                if rng.random() < 0.3:
                    answer.append(FileSlice(file, number, 1))
                conn.answer(answer)
            else:
                slot = parked[number] = Slot()
                conn.park(slot)
        elif action < 0.8 and parked:
            number = rng.choice(list(parked))
            assert conn.fill(parked.pop(number), [b"%d" % number]) == []
        elif action < 0.9:
            unsent.append((conn.out_answers, conn.out_memory))
            out += conn.take()
        elif unsent:
            answers, memory = unsent.pop(0)
            conn.left(answers, memory)
            left += answers
        assert conn.in_process == requested - left <= limit
    for slot in parked.values():
        conn.fill(slot, [b"%d" % next(n for n, s in parked.items() if s is slot)])
    out += conn.take()
    assert [int(chunk) for chunk in out if isinstance(chunk, bytes)] == list(range(requested))


def test_requests_count_until_their_answers_have_left():
    conn = connection(requests_max=2)
    assert conn.answer([b"a"])
    assert not conn.answer([b"b"])
    assert conn.full
    conn.take()
    assert conn.full
    conn.left(1, 1)
    assert not conn.full


def test_answers_in_memory_are_bounded_and_slices_are_not_memory():
    conn = connection(output_bytes_max=10)
    file = CountedFile()
    assert conn.answer([b"123", FileSlice(file, 0, 1 << 30)])
    assert not conn.answer([b"1234567"])
    answers, memory = conn.out_answers, conn.out_memory
    conn.take()
    conn.left(answers, memory)
    slot = Slot()
    conn.park(slot)
    assert not conn.answer([bytes(10)])  # held back behind a parked one, and counted all the same


def test_nothing_follows_a_last_answer():
    conn = connection()
    waiting, last, behind = Slot(), Slot(), Slot()
    for slot in (waiting, last, behind):
        conn.park(slot)
    file = CountedFile()
    conn.answer([b"x", FileSlice(file, 0, 1)])
    assert conn.fill(last, [b"bye"], last=True) == []
    assert (conn.ending, conn.ended) == (True, False)
    assert conn.fill(waiting, [b"first"]) == [behind]
    assert conn.ended
    assert sent(conn) == [b"first", b"bye"]
    assert file.pins == 0


def test_dropping_releases_every_slice_and_names_who_still_waits():
    conn = connection()
    file = CountedFile()
    conn.answer([b"1", FileSlice(file, 0, 1)])
    slot = Slot()
    conn.park(slot)
    conn.answer([b"2", FileSlice(file, 0, 1)])
    assert file.pins == 2
    assert conn.drop() == [slot]
    assert file.pins == 0
