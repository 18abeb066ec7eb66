"""The clients of `ottla bench cold`: one that is in a hurry, and one that reads old records.

Owns both loops, each a process of its own (`python -m ottla.bench.cold_roles ROLE HOST PORT …`), so
that neither waits for the other's interpreter. Each prints one JSON object when it is told to end.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections.abc import Callable

from ottla.bench import asking, pump, wire
from ottla.protocol.codec import decoder
from ottla.protocol.messages import fetch, list_offsets
from ottla.records.reader import read_batches

HOT_RECORDS, HOT_VALUE_BYTES = 10, 100
_PACE_S = 0.005
_ANSWER_MAX = 4 << 20
_SIZE = struct.Struct(">i")


def fetch_request(topic: str, offset: int, bytes_max: int, wait_ms: int) -> bytes:
    """Fetch, version 12, without a session, of partition 0."""
    wanted = fetch.FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=bytes_max)
    request = fetch.FetchRequest(
        max_wait_ms=wait_ms,
        min_bytes=1,
        max_bytes=bytes_max,
        topics=[fetch.FetchTopic(topic=topic, partitions=[wanted])],
    )
    return asking.frame(request, 12)


def end_offset(address: tuple[str, int], topic: str) -> int:
    wanted = list_offsets.ListOffsetsPartition(partition_index=0, timestamp=-1)
    request = list_offsets.ListOffsetsRequest(
        replica_id=-1, topics=[list_offsets.ListOffsetsTopic(name=topic, partitions=[wanted])]
    )
    answer = asking.ask(address, request, 7, list_offsets.ListOffsetsResponse)
    return answer.topics[0].partitions[0].offset


class _Frames:
    """A socket's answers, whole."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()

    def received(self) -> list[bytes]:
        """Those that are complete with what has arrived. Raises pump.LoadFailed at the end."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise pump.LoadFailed("the broker closed a connection")
        self._buffer += data
        found = []
        while len(self._buffer) >= 4:
            end = 4 + _SIZE.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[4:end]))
            del self._buffer[:end]
        return found


def hot(address: tuple[str, int], topic: str, over: Callable[[], bool]) -> dict[str, list[float]]:
    """Produce at a fixed pace and read at the end; milliseconds of each, in order.

    A request leaves when it is due, whether the last one was answered or not: a broker that
    stalls is seen by all that come meanwhile.
    """
    batch = wire.batch(HOT_RECORDS, HOT_VALUE_BYTES, int(time.time() * 1000))
    request, error_at = wire.produce(topic, 0, batch, 1), wire.produce_error_at(topic) - 4
    producer, consumer = _Frames(address), _Frames(address)
    first = offset = end_offset(address, topic)
    sent_at: list[float] = []
    answered = 0
    produced_ms: list[float] = []
    consumed_ms: list[float] = []
    consumer.socket.sendall(fetch_request(topic, offset, 1 << 20, 500))
    due = time.perf_counter()
    while True:
        now = time.perf_counter()
        ending = over()
        if ending and answered == len(sent_at) and offset == first + len(sent_at) * HOT_RECORDS:
            return {"produce_ms": produced_ms, "consume_ms": consumed_ms}
        if not ending and now >= due:
            sent_at.append(now)
            producer.socket.sendall(request)
            due += _PACE_S
        readable, _, _ = select.select(
            [producer.socket, consumer.socket], [], [], max(0.0, min(due - now, 0.1))
        )
        if producer.socket in readable:
            for answer in producer.received():
                if error := struct.unpack_from(">h", answer, error_at)[0]:
                    raise pump.LoadFailed(f"a hot produce was answered with error {error}")
                produced_ms.append((time.perf_counter() - sent_at[answered]) * 1e3)
                answered += 1
        if consumer.socket in readable:
            for answer in consumer.received():
                end = _end_of(answer, offset)
                while offset < end:
                    batch_number = (offset - first) // HOT_RECORDS
                    consumed_ms.append((time.perf_counter() - sent_at[batch_number]) * 1e3)
                    offset += HOT_RECORDS
                consumer.socket.sendall(fetch_request(topic, offset, 1 << 20, 500))


def _end_of(answer: bytes, offset: int) -> int:
    """Where the next fetch goes on. Raises pump.LoadFailed for an error."""
    found, _ = decoder(fetch.FetchResponse, 12)(memoryview(answer), 5)
    data = found.responses[0].partitions[0]
    if data.error_code:
        raise pump.LoadFailed(f"a hot fetch was answered with error {data.error_code}")
    records = data.records if isinstance(data.records, bytes | bytearray | memoryview) else b""
    for batch in read_batches(records):
        offset = max(offset, batch.last_offset + 1)
    return offset


def cold(
    address: tuple[str, int], topic: str, bytes_per_s: float, offsets: range
) -> dict[str, float]:
    """Read the batches of 1 MiB that begin at these offsets, at most so fast."""
    peer = socket.create_connection(address, timeout=120)
    scratch = memoryview(bytearray(1 << 18))
    total, begun = 0, time.perf_counter()
    for offset in offsets:
        peer.sendall(fetch_request(topic, offset, _ANSWER_MAX // 4, 500))
        _take(peer, scratch[: _SIZE.size])
        left = _SIZE.unpack_from(scratch)[0]
        if left < 1 << 19:
            raise pump.LoadFailed(f"a fetch at {offset} was answered with {left} bytes")
        total += left
        while left:
            # Without copying them where the system can: this machine is the broker's too, and what
            # a first look at bytes fresh from the disk costs would be its reader's, not its own.
            left -= _take(peer, scratch[: min(left, len(scratch))], socket.MSG_TRUNC)
        early = begun + total / bytes_per_s - time.perf_counter()
        if early > 0:
            time.sleep(early)
    return {"bytes": total, "seconds": time.perf_counter() - begun}


def _take(sock: socket.socket, into: memoryview, flags: int = 0) -> int:
    """Receive so many bytes, and say how many they are. Raises pump.LoadFailed at the end."""
    got = 0
    while got < len(into):
        count = sock.recv_into(into[got:], 0, flags)
        if not count:
            raise pump.LoadFailed("the broker closed a connection")
        got += count
    return got


def main(argv: list[str]) -> None:
    role, host, port, topic, *rest = argv
    address = (host, int(port))
    if role == "cold":
        rate, each, begin, end = rest
        offsets = range(int(begin), int(end), int(each))
        print(json.dumps(cold(address, topic, float(rate), offsets)))
        return

    def over() -> bool:
        return bool(select.select([sys.stdin], [], [], 0)[0])

    print(json.dumps(hot(address, topic, over)))


if __name__ == "__main__":
    main(sys.argv[1:])
