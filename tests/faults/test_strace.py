"""The real process under strace: no acks=all answer leaves before a sync begun after its write returned.

kill -9 can't show this, since the page cache survives it; here the order of the system calls does.
"""

import re
import shutil
import socket
import struct
from pathlib import Path

import pytest

from ottla.bench import pump, wire
from tests.faults.strace import Call, calls, text_of
from tests.processes import Broker

CONNECTIONS_COUNT, REQUESTS_COUNT, DEPTH = 4, 40, 4
CALLS = (
    "openat,write,pwrite64,pwritev,pwritev2,writev,fdatasync,fsync,sendto,sendmsg,sendmmsg,"
    "rename,renameat,renameat2"
)
WRITES = {"write", "pwrite64", "pwritev", "pwritev2", "writev"}
SENDS = {"sendto", "sendmsg", "sendmmsg", "write", "writev"}
SYNCS = {"fdatasync", "fsync"}
NUMBERS = set(range(1, CONNECTIONS_COUNT * REQUESTS_COUNT + 1))
TOPIC = "synced"
KEPT = "log.retention.ms=-1"
"""The records are years old, and under strace a run may last until retention looks."""


def marker(number: int) -> bytes:
    return b"marker-%06d-marker" % number


def request(number: int) -> bytes:
    """An acks=all produce whose one record carries the marker of its correlation id."""
    from ottla.records.builder import build_batch
    from ottla.records.reader import Record

    records = build_batch([Record(None, marker(number), 1_700_000_000_000)])
    frame = bytearray(wire.produce(TOPIC, number % 3, records, acks=-1))
    struct.pack_into(">i", frame, wire.CORRELATION_AT, number)
    return bytes(frame)


def exchange(address: tuple[str, int]) -> None:
    """Several connections, each with some requests in flight; every answer is without an error."""
    socks = [socket.create_connection(address, timeout=60) for _ in range(CONNECTIONS_COUNT)]
    numbers = iter(sorted(NUMBERS))
    expected: dict[int, list[int]] = {sock.fileno(): [] for sock in socks}
    for _ in range(REQUESTS_COUNT // DEPTH):
        for sock in socks:
            batch = [next(numbers) for _ in range(DEPTH)]
            expected[sock.fileno()] += batch
            sock.sendall(b"".join(map(request, batch)))
        for sock in socks:
            for _ in range(DEPTH):
                size = struct.unpack(">i", _exactly(sock, 4))[0]
                answer = _exactly(sock, size)
                assert struct.unpack_from(">i", answer)[0] == expected[sock.fileno()].pop(0)
                error_at = wire.produce_error_at(TOPIC) - 4
                assert struct.unpack_from(">h", answer, error_at)[0] == 0
    for sock in socks:
        sock.close()


def _exactly(sock: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        piece = sock.recv(count - len(received))
        assert piece, "the broker closed the connection"
        received += piece
    return received


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """The system calls of a broker that answered every request."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed: apt-get install strace")
    folder = tmp_path_factory.mktemp("strace")
    trace = folder / "trace"
    wrapper = (program, "-f", "-ttt", "-yy", "-xx", "-s", "65536", "-e", f"trace={CALLS}")
    with Broker(folder / "data", KEPT, wrapper=(*wrapper, "-o", str(trace))) as broker:
        pump.ask((broker.host, broker.port), wire.create_topic(TOPIC, 3))
        exchange((broker.host, broker.port))
    return list(calls(Path(trace)))


def answers(traced: list[Call]) -> dict[int, int]:
    """Correlation id -> when the call began that sent the first byte of its answer."""
    begun: dict[int, int] = {}
    streams: dict[str, bytearray] = {}
    for call in traced:
        if call.name not in SENDS or "TCP" not in call.path or call.result <= 0:
            continue
        rest = streams.setdefault(call.path, bytearray())
        rest += call.data()
        while len(rest) >= 8:
            size, correlation = struct.unpack_from(">ii", rest)
            begun.setdefault(correlation, call.begun)
            if len(rest) < 4 + size:
                break
            del rest[: 4 + size]
    return begun


def written(traced: list[Call]) -> dict[int, Call]:
    """Correlation id -> the call that wrote its record to a log."""
    found = {}
    for call in traced:
        if call.name in WRITES and call.path.endswith(".log"):
            for number in re.findall(rb"marker-(\d{6})-marker", call.data()):
                found[int(number)] = call
    return found


def synced_between(traced: list[Call], path: str, begin: int, end: int) -> bool:
    """Whether a sync of `path` began after `begin` and had returned before `end`."""
    return any(
        call.path == path and call.begun > begin and call.returned < end
        for call in traced
        if call.name in SYNCS and call.result == 0
    )


def test_every_answer_leaves_after_a_sync_begun_after_its_write_returned(traced):
    writes, sent = written(traced), answers(traced)
    assert writes.keys() & sent.keys() >= NUMBERS, "strace did not see everything"
    early = [
        number
        for number in NUMBERS
        if not synced_between(traced, writes[number].path, writes[number].returned, sent[number])
    ]
    assert early == []


def test_a_file_s_name_is_synced_before_the_first_answer_about_it(traced):
    """The directory too: else a power cut takes the whole file, however well it was synced."""
    writes, sent = written(traced), answers(traced)
    made: dict[str, int] = {}
    for call in traced:
        if call.name == "openat" and "O_CREAT" in call.arguments and call.path.endswith(".log"):
            made.setdefault(call.path, call.returned)
    files = {call.path for call in writes.values()}
    assert files == made.keys() & files
    early = []
    for file in files:
        first_answer = min(sent[number] for number in NUMBERS if writes[number].path == file)
        if not synced_between(traced, str(Path(file).parent), made[file], first_answer):
            early.append(file)
    assert early == []


def test_i31_what_takes_a_name_over_was_synced_since_it_was_written(traced):
    """Or a power cut leaves the new name with nothing behind it, and the old content is gone."""
    unsynced = []
    seen = 0
    for call in traced:
        if call.name.startswith("rename") and call.result == 0:
            source = re.findall(r'"((?:\\x[0-9a-f]{2})+)"', call.arguments)[0]
            path = text_of(source)
            if not path.endswith(".tmp"):
                continue
            seen += 1
            written_at = max(
                one.returned
                for one in traced
                if one.name in WRITES and one.path == path and one.returned < call.begun
            )
            if not synced_between(traced, path, written_at, call.begun):
                unsynced.append(path)
    assert seen > 5
    assert unsynced == []
