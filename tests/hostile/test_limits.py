"""Rows of the hostile table that take many connections, much time or many bytes.

Each limit is lowered by its option and reached through a real broker. After each test the next
well-formed connection works, and memory and open files are back.
"""

from __future__ import annotations

import resource
import selectors
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.metadata import MetadataRequest
from tests.hostile.conftest import Start
from tests.hostile.wire import (
    MEASURED,
    WELL,
    Peer,
    Victim,
    answer_of,
    batch,
    cpu_s,
    fetch,
    fetched,
    framed,
    head,
    open_files,
    produce,
    produced,
    request,
)
from tests.processes import wait_until

MIB = 1 << 20
CLAIMS = 1000
PER_IP, IN_ALL = 50, 40
SOON_S = 5.0
"""How long "at once" may take where much else is under way."""
FAST = ("max.connection.creation.rate=100000", "max.connections.per.ip=5000")


@pytest.fixture(scope="module")
def patient(start: Start) -> Victim:
    """A broker that gives everybody time."""
    victim = start(*FAST)
    victim.create("large", 4)
    with victim.peer() as peer:
        for number in range(4):
            for _ in range(4):
                answer = peer.ask(produce("large", (number, batch(bytes(1_000_000)))), 9)
                assert produced(answer)[0] == 0
    victim.remember()
    return victim


@pytest.fixture(scope="module")
def hasty(start: Start) -> Victim:
    """A broker that waits for nobody."""
    victim = start(
        *FAST,
        "connection.first.request.timeout.ms=1000",
        "connection.request.timeout.ms=300",
        "connection.write.timeout.ms=300",
        "connections.max.idle.ms=900",
    )
    victim.create("large")
    with victim.peer() as peer:
        for _ in range(8):
            answer = peer.ask(produce("large", (0, batch(bytes(1_000_000)))), 9)
            assert produced(answer)[0] == 0
    victim.remember()
    return victim


@contextmanager
def many(victim: Victim, count: int) -> Iterator[list[Peer]]:
    """That many connections, closed in the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this process may have {hard} descriptors, and needs {wanted}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    with ExitStack() as stack:
        yield [stack.enter_context(victim.peer()) for _ in range(count)]


# --- frames in pieces -------------------------------------------------------------------------

Asked = tuple[Any, int, Callable[[Any], bool]]
PIECES: dict[str, Asked] = {
    "Produce": (produce(WELL, (0, batch(b"pieces"))), 9, lambda answer: produced(answer)[0] == 0),
    "Fetch": (fetch(WELL, (0, 0)), 12, lambda answer: fetched(answer).error_code == 0),
}


@pytest.mark.parametrize(("asked", "version", "well"), PIECES.values(), ids=PIECES)
def test_h24_a_frame_cut_in_two_anywhere_is_a_frame(
    patient: Victim, asked: Any, version: int, well: Callable[[Any], bool]
) -> None:
    frame = request(asked, version)
    with patient.peer() as peer, patient.peer() as other:
        for at in range(1, len(frame)):
            peer.send(frame[:at])
            other.ping()  # the broker has taken the first piece by then,
            other.ping()  # or, if it looked at this connection first, by then
            peer.send(frame[at:])
            assert well(answer_of(asked, version, peer.answer())), at
    patient.unharmed()


@pytest.mark.parametrize(("asked", "version", "well"), PIECES.values(), ids=PIECES)
def test_h24_a_frame_in_pieces_of_one_byte_is_a_frame(
    patient: Victim, asked: Any, version: int, well: Callable[[Any], bool]
) -> None:
    frame = request(asked, version)
    with patient.peer() as peer, patient.peer() as other:
        for at in range(len(frame)):
            peer.send(frame[at : at + 1])
            other.ping()
            other.ping()
        assert well(answer_of(asked, version, peer.answer()))
    patient.unharmed()


# --- claims -----------------------------------------------------------------------------------


def test_h3_a_thousand_claims_of_100_mib_take_what_was_sent_and_no_more(patient: Victim) -> None:
    claim = struct.pack(">i", 100 * MIB) + head(0, 9) + bytes(16 << 10)
    with many(patient, CLAIMS) as peers:
        for peer in peers:
            peer.send(claim)
        with patient.peer() as other:
            other.ping()
            other.ping()
        assert patient.memory_more() <= 128 * MIB
        patient.well()
    patient.unharmed()


def test_what_all_connections_send_together_is_bounded(start: Start) -> None:
    """H3: twenty times 8 MiB, where 16 MiB may be held; nobody is refused, all are served."""
    victim = start(*FAST, "queued.max.request.bytes=16777216", "socket.request.max.bytes=20000000")
    asked = MetadataRequest(topics=[])
    large = framed(request(asked, 4)[4:] + bytes(8 * MIB))
    with many(victim, 20) as peers, selectors.DefaultSelector() as selector:
        left = {peer: memoryview(large) for peer in peers}
        for peer in peers:
            peer.socket.setblocking(False)
            selector.register(peer.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, peer)
        answered = set()
        worst = 0
        while len(answered) < len(peers):
            for key, events in selector.select(30):
                peer = key.data
                if events & selectors.EVENT_WRITE and left[peer]:
                    left[peer] = left[peer][peer.socket.send(left[peer][: 1 << 18]) :]
                if not left[peer]:
                    selector.modify(peer.socket, selectors.EVENT_READ, peer)
                if events & selectors.EVENT_READ:
                    assert peer.socket.recv(1 << 16)
                    answered.add(peer)
            worst = max(worst, victim.memory_more())
    assert worst <= 64 * MIB
    assert victim.has_complained("(queued.max.request.bytes")
    victim.unharmed()


def test_who_is_slow_does_not_keep_the_memory_that_others_wait_for(start: Start) -> None:
    """H5: at one byte a second these would have it for months."""
    victim = start(
        *FAST,
        "queued.max.request.bytes=8388608",
        "connection.request.timeout.ms=300",
        "connection.request.bytes.per.second.min=1",
    )
    claim = struct.pack(">i", 10 * MIB) + head(0, 9) + bytes(6 * MIB)
    with victim.peer() as one, victim.peer() as other, victim.peer() as good:
        for peer in (one, other):
            peer.ping()
            peer.send(claim)
        good.ping()
        assert produced(good.ask(produce(WELL, (0, batch(bytes(1_000_000)))), 9))[0] == 0
        assert one.rest() == b""
        other.close()
    victim.unharmed()


# --- those who are slow, or silent ------------------------------------------------------------


def test_h5_a_byte_now_and_then_does_not_keep_a_frame_alive(hasty: Victim) -> None:
    whole = framed(head(0, 9) + bytes(10_000))
    with hasty.peer() as peer:
        peer.ping()
        at = 0

        def drips() -> bool:
            nonlocal at
            if peer.is_closed():
                return True
            with suppress(ConnectionError):
                peer.send(whole[at : at + 1])
            at += 1
            return False

        wait_until(drips, "the broker to lose patience", seconds=10)
        assert at < len(whole)
    assert len(hasty.logged("(frame deadline")) >= 1
    hasty.unharmed()


def test_half_frames_are_given_up(hasty: Victim) -> None:
    """H5: whatever the half that was sent."""
    whole = request(produce(WELL, (0, batch(bytes(2000)))), 9)
    with many(hasty, 60) as peers:
        for number, peer in enumerate(peers):
            peer.send(whole[: 1 + number * (len(whole) - 2) // len(peers)])
        for peer in peers:
            assert peer.rest() == b""
    hasty.unharmed()


def test_h6_who_says_nothing_is_not_kept(hasty: Victim) -> None:
    with many(hasty, 100) as peers:
        for peer in peers:
            assert peer.rest() == b""
    hasty.unharmed()


def test_an_idle_connection_is_closed_without_a_word(hasty: Victim) -> None:
    """connections.max.idle.ms: clients expect it, so it is no reason to log anything."""
    before = len(hasty.logged("WARNING"))
    with hasty.peer() as peer:
        peer.ping()
        assert peer.rest() == b""
    assert len(hasty.logged("WARNING")) == before
    hasty.unharmed()


# --- those who never read ---------------------------------------------------------------------


@pytest.mark.skipif(not MEASURED, reason="descriptors of another process are read from /proc")
def test_readers_that_never_read_are_bounded_and_dropped(hasty: Victim) -> None:
    """H23: of file slices nothing is held in memory, of other answers so many bytes."""
    slices = request(fetch("large", (0, 0), max_bytes=8 * MIB, partition_max_bytes=8 * MIB), 12)
    listing = request(MetadataRequest(topics=None), 9)
    with ExitStack() as stack:
        for number in range(30):
            peer = stack.enter_context(hasty.peer(receive_buffer=4096))
            peer.ping()
            peer.socket.setblocking(False)
            data = (slices if number % 2 else listing) * 500
            assert peer.socket.send(data) > 0
        assert hasty.memory_more() <= 64 * MIB
        wait_until(
            lambda: len(_sockets(hasty)) <= hasty.sockets,
            "the broker to drop who takes no answers",
            seconds=20,
        )
    assert len(hasty.logged("(write deadline")) >= 1
    hasty.unharmed()


def _sockets(victim: Victim) -> list[str]:
    return [name for name in open_files(victim.broker.pid) if name == "socket"]


def test_h23_ten_thousand_requests_at_once_are_answered_in_order(patient: Victim) -> None:
    count = 10_000
    asked = b"".join(request(ApiVersionsRequest(), 0, number) for number in range(count))
    with patient.peer() as peer, selectors.DefaultSelector() as selector:
        peer.socket.setblocking(False)
        selector.register(peer.socket, selectors.EVENT_WRITE)
        left = memoryview(asked)
        # Nothing is read while there is anything to send that the broker takes.
        while left and selector.select(0.2):
            left = left[peer.socket.send(left) :]
        assert patient.memory_more() <= 32 * MIB
        peer.socket.settimeout(30)
        seen = 0
        while seen < count:
            assert struct.unpack_from(">i", peer.answer()) == (seen,)
            seen += 1
            if left:
                peer.socket.setblocking(False)
                with suppress(BlockingIOError):
                    left = left[peer.socket.send(left) :]
                peer.socket.settimeout(30)
    patient.unharmed()


# --- storms -----------------------------------------------------------------------------------


def test_h26_connections_beyond_those_of_one_address_are_closed_at_once(start: Start) -> None:
    victim = start("max.connection.creation.rate=100000", f"max.connections.per.ip={PER_IP}")
    _refused_beyond(victim, PER_IP, "(max.connections.per.ip")


def test_h26_connections_beyond_all_are_closed_at_once(start: Start) -> None:
    victim = start("max.connection.creation.rate=100000", f"max.connections={IN_ALL}")
    _refused_beyond(victim, IN_ALL, "(max.connections:")


def test_h26_an_address_may_have_a_limit_of_its_own(start: Start) -> None:
    victim = start("max.connections.per.ip=1", "max.connections.per.ip.overrides=127.0.0.1:5")
    _refused_beyond(victim, 5, "(max.connections.per.ip")


def _refused_beyond(victim: Victim, most: int, complaint: str) -> None:
    with many(victim, most) as kept:
        for peer in kept:
            peer.ping()
        for _ in range(20):
            with victim.peer() as refused:
                assert refused.rest(within_s=SOON_S) == b""
        for peer in kept:
            peer.ping()
    assert victim.has_complained(complaint)
    victim.unharmed()


def test_h27_a_storm_of_connections_is_let_in_at_the_rate(start: Start) -> None:
    rate = 50
    victim = start(f"max.connection.creation.rate={rate}")
    begin = time.monotonic()
    with many(victim, 3 * rate) as peers:
        for peer in peers:
            peer.ping()
        # A second's worth is there at once, or nearly; the rest comes at the rate.
        assert time.monotonic() - begin >= 1.5
    assert victim.has_complained("(max.connection.creation.rate")
    victim.unharmed()


# --- bytes of other protocols -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "an HTTP request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), "a TLS handshake"),
    ],
    ids=["HTTP", "TLS"],
)
def test_h7_other_protocols_are_hinted_at_in_the_log_and_only_now_and_then(
    start: Start, said: bytes, hint: str
) -> None:
    victim = start(*FAST)
    for _ in range(100):
        with victim.peer() as peer:
            peer.send(said)
            assert peer.rest() == b""
    assert victim.has_complained(hint)
    victim.unharmed()


# --- file descriptors -------------------------------------------------------------------------


@pytest.mark.skipif(not MEASURED, reason="descriptors of another process are read from /proc")
def test_without_descriptors_accepting_pauses_and_the_log_still_rolls(start: Start) -> None:
    victim = start(
        *FAST,
        "file.descriptors.reserved=30",
        wrapper=("sh", "-c", 'ulimit -n 120; exec "$@"', "sh"),
    )
    victim.create("rolls", segment_bytes=1 << 20)
    victim.remember()
    pid = victim.broker.pid
    with victim.peer() as good, many(victim, 150) as waiting:
        wait_until(lambda: victim.logged("(file descriptors") != [], "accepting to pause")
        assert len(open_files(pid)) <= 120 - 30 + 2
        used, begin = cpu_s(pid), time.monotonic()
        wait_until(lambda: time.monotonic() > begin + 0.5, "half a second of idling")
        assert cpu_s(pid) - used <= 0.1, "it spins"
        # New segments take descriptors, which are there.
        for _ in range(12):
            answer = good.ask(produce("rolls", (0, batch(bytes(400_000)))), 9)
            assert produced(answer)[0] == 0
        assert len(list((victim.broker.directory / "rolls-0").glob("*.log"))) >= 4
        # It recovers by itself: those that waited are served as others leave.
        served = 0
        for peer in waiting:
            peer.ping()
            peer.close()
            served += 1
        assert served == len(waiting)
    assert len(victim.logged("(file descriptors")) >= 1
    victim.well()
