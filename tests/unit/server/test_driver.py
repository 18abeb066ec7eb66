"""The driver over a socket and a loop that the test holds in its hands."""

from __future__ import annotations

import gc
import logging
import random
import struct
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ottla.core.metrics import ApiTally, AskerTally
from ottla.core.model import FileSlice
from ottla.core.pending import Pending, completed
from ottla.handlers.reply import Closing, Parked
from ottla.protocol.connection import BUFFER_BYTES_IDLE, ConnectionLimits, ReceiveMemory
from ottla.protocol.primitives import CodecError
from ottla.server.driver import Driver
from ottla.server.service import Service
from ottla.server.transfer import Sender
from tests.unit.server.doubles import Clock, Loop, MemoryFile, Socket, Timers


class State:
    peer = "1.2.3.4:5"

    def __init__(self):
        self.tally = AskerTally()


def framed(body):
    return struct.pack(">i", len(body)) + body


class Dispatcher:
    """Answers a frame with itself, unless a script says otherwise for its first byte."""

    def __init__(self):
        self.seen = []
        self.script = {}

    def dispatch(self, connection, frame):
        body = bytes(frame)
        self.seen.append(body)
        act = self.script.get(body[:1])
        return [framed(body)] if act is None else act(body)

    def resume(self, parked):
        return parked.resume()


class Rig:
    def __init__(self, memory=-1, **limits):
        self.loop = Loop()
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.dispatcher = Dispatcher()
        self.service = Service(
            loop=self.loop,
            dispatcher=self.dispatcher,
            clock=self.clock,
            timers=self.timers,
            limits=ConnectionLimits(**limits),
            memory=ReceiveMemory(memory),
            portable=True,
        )
        self.closed = []
        self.sock = Socket()
        self.driver = self.connect(self.sock)

    def connect(self, sock):
        return Driver(self.service, sock, State(), self.closed.append)

    def receive(self, *bodies, raw=b""):
        """Let the peer send frames, and the driver read as long as it wants to."""
        self.sock.incoming += b"".join(map(framed, bodies)) + raw
        self.turn()

    def turn(self):
        self.loop.run()
        while self.sock.incoming and (read := self.loop.readers.get(self.sock.fd)):
            read()
            self.loop.run()

    def drain(self, space=1 << 40):
        """Let the peer take some of its answers."""
        self.sock.space = space
        if write := self.loop.writers.get(self.sock.fd):
            write()
        self.turn()

    @property
    def reading(self):
        return self.sock.fd in self.loop.readers


@pytest.fixture
def rig():
    return Rig()


class Wait:
    """A dispatcher's act that parks, and is completed by the test."""

    def __init__(self, rig, letter, **parked):
        self.pending = Pending()
        self.parked = parked
        self.resumed = []
        self.abandoned = 0
        self.answer = None
        rig.dispatcher.script[letter] = self

    def __call__(self, body):
        def resume():
            self.resumed.append(self.pending.done)
            return [framed(body)] if self.answer is None else self.answer

        def abandon():
            self.abandoned += 1

        return Parked(self.pending, resume, abandon=abandon, **self.parked)


# --- answers --------------------------------------------------------------------------------------


def test_answers_of_one_read_leave_with_one_call(rig):
    rig.receive(b"a", b"b", b"c")
    assert (rig.sock.answers(), rig.sock.sends) == ([b"a", b"b", b"c"], 1)


@pytest.mark.parametrize("space", [0, 1, 6])
def test_a_lone_answer_that_the_socket_does_not_take_leaves_before_the_next(rig, space):
    rig.sock.space = space
    rig.receive(b"one")
    assert rig.driver._connection.in_process == 1
    rig.receive(b"two")
    rig.drain()
    assert rig.sock.answers() == [b"one", b"two"]
    assert rig.driver._connection.in_process == 0
    assert rig.reading


def test_a_lone_request_whose_connection_is_closed_meanwhile_is_not_answered(rig):
    def act(body):
        rig.driver.close()
        return [framed(body)]

    rig.dispatcher.script[b"c"] = act
    rig.receive(b"c")
    assert (rig.sock.sends, rig.sock.closed) == (0, True)


def test_a_parked_request_is_answered_in_its_place(rig):
    wait = Wait(rig, b"w")
    rig.receive(b"a", b"w", b"b")
    assert rig.sock.answers() == [b"a"]
    assert rig.dispatcher.seen == [b"a", b"w", b"b"]
    wait.pending.complete(None)
    assert wait.resumed == []  # a completion only takes note
    rig.loop.run()
    assert rig.sock.answers() == [b"a", b"w", b"b"]
    assert wait.resumed == [True]


def test_what_is_ready_together_is_written_with_one_call(rig):
    waits = [Wait(rig, letter) for letter in (b"x", b"y", b"z")]
    rig.receive(b"x", b"y", b"z")
    for wait in reversed(waits):
        wait.pending.complete(None)
    rig.loop.run()
    assert (rig.sock.answers(), rig.sock.sends) == ([b"x", b"y", b"z"], 1)


def test_a_pending_that_is_done_already_is_resumed_after_the_handlers_of_this_read(rig):
    rig.dispatcher.script[b"d"] = lambda body: Parked(completed(None), lambda: [framed(body)])
    rig.receive(b"d", b"e")
    assert rig.sock.answers() == [b"d", b"e"]


def test_a_request_may_park_again(rig):
    second = Pending()
    wait = Wait(rig, b"w")
    wait.answer = Parked(second, lambda: [framed(b"at last")])
    rig.receive(b"w", b"a")
    wait.pending.complete(None)
    rig.loop.run()
    assert rig.sock.answers() == []
    second.complete(None)
    rig.loop.run()
    assert rig.sock.answers() == [b"at last", b"a"]


def test_a_deadline_resumes_a_request_whose_pending_is_not_done(rig):
    wait = Wait(rig, b"w", deadline_s=0.5)
    rig.receive(b"w")
    rig.timers.advance(0.4)
    rig.loop.run()
    assert wait.resumed == []
    rig.timers.advance(0.2)
    rig.loop.run()
    assert (wait.resumed, rig.sock.answers()) == ([False], [b"w"])
    wait.pending.complete(None)  # comes too late, and disturbs nobody
    rig.loop.run()
    assert wait.resumed == [False]


def test_a_deadline_is_taken_back_when_its_request_is_done(rig):
    before = len(rig.timers.waiting)
    wait = Wait(rig, b"w", deadline_s=30)
    rig.receive(b"w")
    assert len(rig.timers.waiting) == before + 1
    wait.pending.complete(None)
    rig.loop.run()
    assert len(rig.timers.waiting) == before


def test_no_answer_is_no_answer(rig):
    rig.dispatcher.script[b"0"] = lambda body: []
    rig.receive(b"0", b"a", b"0")
    assert rig.sock.answers() == [b"a"]


def test_a_request_counts_once_whatever_becomes_of_it(rig):
    asked = rig.driver.state.tally.asked
    rig.dispatcher.script[b"0"] = lambda body: []
    rig.receive(b"0")
    rig.receive(b"a")
    rig.receive(b"0", b"a", b"b")
    assert asked() == 5
    rig.sock.space = 0
    rig.receive(b"a")
    rig.receive(b"a", b"b")
    assert asked() == 8
    rig.drain()
    wait = Wait(rig, b"w")
    rig.receive(b"w", b"0", b"a", b"0")
    assert asked() == 12
    wait.pending.complete(None)
    rig.turn()
    assert (asked(), len(rig.sock.answers())) == (12, 8)
    wait = Wait(rig, b"c")
    rig.receive(b"c", b"a", b"b")
    rig.dispatcher.script.clear()
    wait.answer = Closing([framed(b"last")])
    wait.pending.complete(None)
    rig.turn()
    assert asked() == 15  # those behind the last answer, too, which are never answered


def test_what_a_connection_has_asked_is_counted_when_it_ends(rig):
    api, askers = ApiTally("Any"), set()
    rig.driver.state.tally.turn(askers, api)
    rig.receive(b"a", b"b")
    assert (api.requests, len(askers)) == (0, 1)
    rig.driver.close()
    assert (api.requests, len(askers)) == (2, 0)
    rig.driver.state.tally.turn(askers, ApiTally("Other"))
    assert (api.requests, len(askers)) == (2, 0)


def test_a_request_whose_answer_nobody_takes_any_more_is_counted(rig, monkeypatch):
    def reset(_data, _flags=0):
        raise ConnectionResetError

    api = ApiTally("Any")
    rig.driver.state.tally.turn(set(), api)
    monkeypatch.setattr(rig.sock, "send", reset)
    rig.receive(b"a")
    assert (rig.sock.closed, api.requests) == (True, 1)


# --- waiting before the effect ---------------------------------------------------------------------


def test_nothing_is_dispatched_or_received_while_the_buffer_is_lent(rig):
    wait = Wait(rig, b"w", before_effect=True)
    rig.receive(b"w", b"a", b"b")
    rig.receive(b"c")
    assert rig.dispatcher.seen == [b"w"]
    assert not rig.reading
    assert rig.sock.incoming == framed(b"c")
    wait.pending.complete(None)
    rig.turn()
    assert rig.dispatcher.seen == [b"w", b"a", b"b", b"c"]
    assert rig.sock.answers() == [b"w", b"a", b"b", b"c"]
    assert rig.reading


def test_a_lent_view_stays_what_it_was():
    rig = Rig()
    pending = Pending()
    kept = []

    def act(view_of):
        return Parked(pending, lambda: [framed(bytes(kept[0]))], before_effect=True)

    original = rig.dispatcher.dispatch

    def dispatch(connection, frame):
        if bytes(frame[:1]) == b"w":
            kept.append(frame)
        return original(connection, frame)

    rig.service.dispatch = dispatch
    rig.dispatcher.script[b"w"] = act
    rig.receive(b"w" + bytes(range(200)), b"a" * 5000, b"b" * 100)
    rig.receive(b"c" * 100)
    pending.complete(None)
    rig.turn()
    assert rig.sock.answers()[0] == b"w" + bytes(range(200))
    assert len(rig.sock.answers()) == 4


def test_after_its_effect_a_request_that_parks_again_lends_nothing(rig):
    synced = Pending()
    wait = Wait(rig, b"w", before_effect=True)
    wait.answer = Parked(synced, lambda: [framed(b"w")])
    rig.receive(b"w", b"a")
    wait.pending.complete(None)
    rig.turn()
    assert rig.dispatcher.seen == [b"w", b"a"]
    assert rig.sock.answers() == []
    synced.complete(None)
    rig.turn()
    assert rig.sock.answers() == [b"w", b"a"]


# --- back-pressure ---------------------------------------------------------------------------------


def test_at_the_limit_of_requests_reading_pauses_until_answers_have_left():  # H23
    rig = Rig(requests_max=4)
    rig.sock.space = 0
    rig.receive(*[b"%d" % number for number in range(10)])
    assert rig.dispatcher.seen == [b"0", b"1", b"2", b"3"]
    assert not rig.reading
    rig.drain(space=5)  # answers that were joined count until all of them have left
    assert len(rig.dispatcher.seen) == 4
    rig.drain()
    assert len(rig.dispatcher.seen) == 10
    assert rig.sock.answers() == [b"%d" % number for number in range(10)]
    assert rig.reading


def test_parked_requests_count_too():
    rig = Rig(requests_max=3)
    waits = [Wait(rig, letter) for letter in (b"x", b"y", b"z")]
    rig.receive(b"x", b"y", b"z", b"a")
    assert len(rig.dispatcher.seen) == 3
    waits[1].pending.complete(None)
    rig.turn()
    assert len(rig.dispatcher.seen) == 3  # answered, but not sent
    waits[0].pending.complete(None)
    waits[2].pending.complete(None)
    rig.turn()
    assert rig.sock.answers() == [b"x", b"y", b"z", b"a"]


def test_answers_that_are_not_taken_stop_the_reading():
    rig = Rig(output_bytes_max=1000)
    rig.sock.space = 0
    rig.receive(*[b"%d" % number + bytes(400) for number in range(8)])
    assert len(rig.dispatcher.seen) == 3
    assert not rig.reading
    rig.drain()
    assert len(rig.dispatcher.seen) == 8


def test_receive_memory_that_is_short_stops_the_reading_until_there_is_some():
    rig = Rig(memory=20_000)
    rig.service.memory.take(20_000, "one")
    rig.service.memory.take(1, "one past the limit")
    rig.receive(b"a" * 10_000)
    assert (rig.dispatcher.seen, rig.reading) == ([], False)
    rig.service.memory.give(1, "one past the limit")
    rig.service.memory.give(20_000, "one")
    rig.turn()
    assert len(rig.dispatcher.seen) == 1


def test_who_holds_memory_that_others_wait_for_must_not_be_slow():
    rig = Rig(memory=20_000, bytes_per_s_min=1)
    rig.receive(raw=struct.pack(">i", 30_000) + bytes(10_000))
    rig.timers.advance(31)
    assert not rig.sock.closed, "it comes at the rate, and nobody waits"
    rig.service.memory.wait(lambda: None)
    rig.timers.advance(31)
    assert rig.sock.closed


def test_the_buffer_of_a_closed_connection_is_free_without_a_collector(rig):
    frames = []

    def refuse(body):
        raise CodecError("no such request")

    rig.dispatcher.script[b"x"] = refuse
    take = rig.dispatcher.dispatch

    def dispatch(state, frame):
        frames.append(weakref.ref(frame))
        return take(state, frame)

    rig.service.dispatch = dispatch
    gc.disable()
    try:
        rig.receive(b"x" * 100_000)
        assert rig.sock.closed
        assert [frame() for frame in frames] == [None]
    finally:
        gc.enable()


def test_a_buffer_shrinks_some_seconds_after_the_last_request(rig):
    rig.receive(b"a" * 100_000)
    rig.timers.advance(20)
    assert rig.driver._connection.capacity == BUFFER_BYTES_IDLE
    rig.receive(b"b" * 100_000)
    assert len(rig.sock.answers()) == 2


# --- deadlines --------------------------------------------------------------------------------------


def test_a_peer_that_sends_nothing_is_disconnected(rig):  # H6
    rig.timers.advance(9)
    assert not rig.sock.closed
    rig.timers.advance(1.1)
    assert rig.sock.closed


def test_a_first_frame_that_comes_byte_by_byte_is_not_waited_for(rig):
    for _ in range(11):
        rig.receive(raw=b"\1")
        rig.timers.advance(1)
    assert rig.sock.closed


def test_a_frame_that_does_not_finish_in_time_ends_the_connection(rig):  # H5
    rig.receive(b"a")
    for _ in range(4):
        rig.receive(raw=b"\0")
        rig.timers.advance(10)
    assert rig.sock.closed
    assert rig.service.complaints.counts == {"frame deadline": 1}


def test_a_large_frame_may_take_long_as_long_as_it_comes_along(rig):
    rig.receive(b"a")
    data = framed(b"b" * 200_000)
    for at in range(0, len(data), 2000):
        rig.receive(raw=data[at : at + 2000])
        rig.timers.advance(1)
    assert rig.sock.answers() == [b"a", b"b" * 200_000]


def test_time_in_which_we_do_not_read_is_not_held_against_a_frame():
    rig = Rig()
    wait = Wait(rig, b"w", before_effect=True)
    rig.receive(b"w", raw=framed(b"late")[:5])
    rig.timers.advance(100)
    wait.pending.complete(None)
    rig.turn()
    rig.timers.advance(29)
    assert not rig.sock.closed
    rig.timers.advance(2)
    assert rig.sock.closed


def test_an_idle_connection_is_closed_after_its_time(rig):
    rig.receive(b"a")
    rig.timers.advance(500)
    rig.receive(b"b")
    rig.timers.advance(599)
    assert not rig.sock.closed
    rig.timers.advance(2)
    assert rig.sock.closed
    assert rig.service.complaints.counts == {}


def test_a_connection_with_a_request_in_process_is_not_idle(rig):
    wait = Wait(rig, b"w")
    rig.receive(b"w")
    rig.timers.advance(5000)
    assert not rig.sock.closed
    wait.pending.complete(None)
    rig.turn()
    assert rig.sock.answers() == [b"w"]


def test_a_peer_that_does_not_take_its_answers_is_disconnected(rig):  # I46
    file = MemoryFile(bytes(1 << 20))
    rig.dispatcher.script[b"f"] = lambda body: [
        struct.pack(">i", 1 << 20),
        FileSlice(file, 0, 1 << 20),
    ]
    rig.sock.space = 1000
    rig.receive(b"f")
    rig.timers.advance(30)
    rig.drain(space=10)
    rig.timers.advance(29)
    assert (rig.sock.closed, file.pins) == (False, 1)
    rig.timers.advance(2)
    assert (rig.sock.closed, file.pins) == (True, 0)


def test_a_peer_that_takes_its_answers_slowly_is_kept(rig):
    rig.dispatcher.script[b"f"] = lambda body: [framed(bytes(1 << 20))]
    rig.sock.space = 0
    rig.receive(b"f")
    for _ in range(17):
        rig.drain(space=64 << 10)
        rig.timers.advance(50)
        assert not rig.sock.closed
    assert rig.sock.answers() == [bytes(1 << 20)]


# --- the end ----------------------------------------------------------------------------------------


def test_a_closing_answer_is_the_last_and_leaves_first(rig):
    rig.dispatcher.script[b"c"] = lambda body: Closing([framed(body)])
    rig.sock.space = 2
    rig.receive(b"c", b"never")
    assert not rig.sock.closed
    rig.drain()
    assert rig.sock.closed
    assert rig.sock.answers() == [b"c"]
    assert rig.dispatcher.seen == [b"c"]


def test_a_closing_answer_waits_for_those_before_it_and_ends_those_behind_it(rig):
    first, last, behind = (Wait(rig, letter) for letter in (b"x", b"y", b"z"))
    last.answer = Closing([])
    rig.receive(b"x", b"y", b"z")
    behind.pending.complete(None)
    last.pending.complete(None)
    rig.turn()
    assert not rig.sock.closed
    first.pending.complete(None)
    rig.turn()
    assert rig.sock.closed
    assert rig.sock.answers() == [b"x"]


@pytest.mark.parametrize("how", ["end", "reset"])
def test_when_the_peer_is_gone_what_waits_is_abandoned_once(rig, how):
    wait = Wait(rig, b"w", deadline_s=5)
    ready = Wait(rig, b"r")
    file = MemoryFile(bytes(100_000))
    rig.dispatcher.script[b"f"] = lambda body: [b"head", FileSlice(file, 0, 100_000)]
    rig.receive(b"w", b"r", b"f")
    assert file.pins == 1
    ready.pending.complete(None)  # noted, not resumed yet
    rig.sock.ended = True
    if how == "reset":
        rig.sock.error = ConnectionResetError()
    rig.loop.readers[rig.sock.fd]()
    rig.loop.run()
    assert rig.closed == [rig.driver]
    assert (wait.abandoned, ready.abandoned, wait.resumed, ready.resumed) == (1, 1, [], [])
    assert file.pins == 0
    assert rig.timers.waiting == []
    wait.pending.complete(None)
    rig.loop.run()
    assert wait.resumed == []
    assert rig.loop.readers == rig.loop.writers == {}


@pytest.mark.parametrize("error", [CodecError("bad"), ZeroDivisionError("ours")])
def test_a_failing_request_ends_its_connection_after_the_answers_before_it(rig, error, caplog):
    def fail(body):
        raise error

    rig.dispatcher.script[b"f"] = fail
    with caplog.at_level(logging.WARNING, "ottla.server"):
        rig.receive(b"a", struct.pack(">hhih", 0x6600, 3, 77, -1), b"b")
    assert rig.sock.closed
    assert rig.sock.answers() == [b"a"]
    assert "correlation id 77" in caplog.text
    assert ("ZeroDivisionError" in caplog.text) == isinstance(error, ZeroDivisionError)


def test_an_answer_that_the_disk_can_not_give_ends_its_connection_without_a_traceback(rig, caplog):
    file = MemoryFile(b"short")
    answer = [b"<", FileSlice(file, 0, 100_000)]
    rig.dispatcher.script[b"f"] = lambda body: answer
    with caplog.at_level(logging.WARNING):
        rig.receive(b"f")
        rig.loop.run()
    assert rig.sock.closed
    assert "memory ended 99995 bytes before" in caplog.text
    assert "Please report it" not in caplog.text
    assert file.pins == 0


def test_a_failing_resume_ends_its_connection_alone(rig, caplog):
    other = Socket(fd=8)
    rig.connect(other)

    def fail():
        raise ZeroDivisionError

    pending = Pending()
    rig.dispatcher.script[b"f"] = lambda body: Parked(pending, fail)
    rig.receive(b"f")
    pending.complete(None)
    rig.loop.run()
    assert (rig.sock.closed, other.closed) == (True, False)
    assert "ZeroDivisionError" in caplog.text


def test_a_buffer_that_can_not_be_had_ends_its_connection_alone(rig, monkeypatch, caplog):
    def take(*_):
        raise MemoryError

    monkeypatch.setattr(ReceiveMemory, "take", take)
    other = Socket(fd=8)
    rig.connect(other)
    rig.receive(raw=struct.pack(">i", 100_000) + bytes(BUFFER_BYTES_IDLE - 4))
    assert (rig.sock.closed, other.closed) == (True, False)
    assert "MemoryError" in caplog.text


@pytest.mark.parametrize("how", ["at the end", "at a bad request"])
def test_a_connection_that_can_not_even_be_closed_raises_at_nobody(rig, monkeypatch, caplog, how):
    def fault(*_):
        raise AssertionError("a fault in closing")

    monkeypatch.setattr(Sender, "close", fault)
    rig.sock.ended = how == "at the end"
    rig.sock.incoming += struct.pack(">i", -1)
    rig.loop.readers[rig.sock.fd]()  # as the loop's selector calls it: what it raised would end all
    assert "a fault in closing" in caplog.text
    assert (rig.sock.closed, rig.reading) == (True, False)


def test_finishing_answers_what_is_in_process_and_takes_nothing_new(rig):
    wait = Wait(rig, b"w")
    rig.receive(b"w")
    rig.driver.finish()
    assert not rig.reading
    assert not rig.sock.closed
    wait.pending.complete(None)
    rig.turn()
    assert rig.sock.closed
    assert rig.sock.answers() == [b"w"]


def test_finishing_an_idle_connection_closes_it(rig):
    rig.driver.finish()
    assert rig.sock.closed
    assert rig.closed == [rig.driver]


@settings(max_examples=80, deadline=None, print_blob=True)
@given(seed=st.integers(0, 2**32))
def test_answers_keep_their_order_and_slices_are_released_whatever_happens(seed):  # I47, I45
    rng = random.Random(seed)
    rig = Rig(
        requests_max=rng.randint(1, 8),
        output_bytes_max=rng.choice([100, 1 << 20]),
        first_frame_s=1e6,
        write_s=1e6,
    )
    file = MemoryFile(bytes(100_000))
    waits = []

    def answer(body):
        if rng.random() < 0.3:
            return [struct.pack(">i", len(body) + 20_000) + body, FileSlice(file, 0, 20_000)]
        return [framed(body)]

    def act(body):
        if rng.random() < 0.5:
            return answer(body)

        def resume():
            if rng.random() < 0.3:
                again = Pending()
                waits.append(again)
                return Parked(again, resume)
            return answer(body)

        pending = Pending()
        waits.append(pending)
        return Parked(
            pending,
            resume,
            deadline_s=rng.choice([None, 1, 5]),
            before_effect=False,
        )

    rig.dispatcher.script[b"q"] = act
    requested = 0
    for _ in range(60):
        what = rng.random()
        if what < 0.4:
            bodies = [b"q%d" % (requested + n) for n in range(rng.randint(1, 6))]
            requested += len(bodies)
            rig.receive(*bodies)
        elif what < 0.7 and waits:
            pending = waits.pop(rng.randrange(len(waits)))
            pending.complete(None)
            rig.turn()
        elif what < 0.8:
            rig.timers.advance(rng.choice([0.5, 2]))
            rig.turn()
        else:
            rig.drain(space=rng.choice([0, 3, 1000, 1 << 40]))
        assert rig.driver.state.tally.asked() == len(rig.dispatcher.seen)
    if rng.random() < 0.3:
        rig.driver.close()
        assert file.pins == 0
        return
    for _ in range(1000):
        if not (waits or len(rig.dispatcher.seen) < requested or rig.loop.writers):
            break
        for pending in waits[:]:
            waits.remove(pending)
            pending.complete(None)
        rig.drain()
    rig.turn()
    assert [body.rstrip(b"\0") for body in rig.sock.answers()] == [
        b"q%d" % number for number in range(requested)
    ]
    assert file.pins == 0
