"""Hostile peers on real sockets, against a dispatcher that only echoes (rows H1 to H7, H15, H22 to H26).

What handlers answer to hostile messages is tested where they are. Time is the test's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import struct
import sys

import pytest

from ottla.core.model import FileSlice
from ottla.core.pending import Pending
from ottla.handlers.context import ConnectionState
from ottla.handlers.reply import Parked
from ottla.protocol.connection import ConnectionLimits, ReceiveMemory
from ottla.protocol.frame import decode_request_header, response_frame
from ottla.server.listener import CannotListen, ListenerLimits, Listeners
from ottla.server.service import Service
from tests.unit.server.doubles import Clock, Timers

HEARTBEAT = 12
PATIENCE_S = 20  # until a test is called hung


def framed(body):
    return struct.pack(">i", len(body)) + body


def request(correlation_id=1, rest=b"", client_id=b"me"):
    head = struct.pack(">hhih", HEARTBEAT, 0, correlation_id, len(client_id))
    return framed(head + client_id + rest)


class Echo:
    """Answers a request with its header's correlation id and its body."""

    def __init__(self):
        self.count = 0
        self.act = None

    def dispatch(self, connection, frame):
        self.count += 1
        header, at = decode_request_header(frame)
        if self.act is not None:
            return self.act(header.correlation_id)
        return response_frame(header.correlation_id, False, [bytes(frame[at:])])

    def resume(self, parked):
        return parked.resume()


class Server:
    def __init__(self, limits=None, listener_limits=None, memory=64 << 20, portable=False):
        loop = asyncio.get_running_loop()
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.echo = Echo()
        self.memory = ReceiveMemory(memory)
        self.service = Service(
            loop=loop,
            dispatcher=self.echo,
            clock=self.clock,
            timers=self.timers,
            limits=limits or ConnectionLimits(),
            memory=self.memory,
            portable=portable or sys.platform != "linux",
        )
        self.listeners = Listeners(
            self.service,
            listener_limits or ListenerLimits(),
            lambda peer, endpoint: ConnectionState(peer, "PLAINTEXT", endpoint),
        )
        self.endpoints = self.listeners.listen(["127.0.0.1"], 0)
        self.port = self.endpoints[0].port

    async def connect(self):
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24))

    async def until(self, condition):
        """Let the loop turn until something is so. It must become so without a clock."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0)

    async def until_arrived(self, driver, count):
        await self.until(lambda: driver._connection.partial_bytes == count)

    @property
    def newest(self):
        return list(self.listeners._drivers)[-1]


class Peer:
    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    def send(self, data):
        self.writer.write(data)

    async def answer(self):
        async with asyncio.timeout(PATIENCE_S):
            (size,) = struct.unpack(">i", await self.reader.readexactly(4))
            return await self.reader.readexactly(size)

    async def disconnected(self):
        """What came before the server ended the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def works(self):
        self.send(request(77, b"still"))
        return await self.answer() == struct.pack(">i", 77) + b"still"

    async def close(self):
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def serving(test, **server):
    """Run `test(server)`; afterwards a well-formed connection works, and nothing is left open."""
    gc.collect()
    before = len(os.listdir("/dev/fd"))

    async def run():
        node = Server(**server)
        good = await node.connect()
        assert await good.works()
        await test(node)
        node.echo.act = None
        assert await good.works()
        again = await node.connect()
        assert await again.works()
        for peer in (good, again):
            await peer.close()
        await node.until(lambda: node.listeners.connections_count == 0)
        node.listeners.close()
        assert node.memory.used == 0
        assert node.timers.waiting == []

    asyncio.run(run())
    gc.collect()
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct.pack(">i", -1), id="H1 length -1"),
        pytest.param(struct.pack(">I", 0x80000000), id="H1 length -2^31"),
        pytest.param(struct.pack(">i", (100 << 20) + 1), id="H2 length above the limit"),
        pytest.param(struct.pack(">i", 0), id="H4 length 0"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="H7 HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="H7 TLS"),
        pytest.param(framed(b"\0\x0c\0\0\0\0\0\1\0"), id="H15 header cut"),
        pytest.param(framed(b"\0\x0c\0\0\0\0\0\1\0\x09me"), id="H15 cut inside the client id"),
        pytest.param(framed(b"\0\x0c\0\0\0\0\0\1\xff\xfeme"), id="H15 client id of -2"),
        pytest.param(framed(b"\0\x0c\0\0\0\0\0\1\x7f\xffme"), id="H15 client id of 32767"),
        pytest.param(framed(b"\0\x0c\0\0\0\0\0\1\0\2\xff\xfe"), id="H15 client id not UTF-8"),
    ],
)
def test_what_cannot_be_a_request_ends_its_connection_alone(data):
    async def test(node):
        bad = await node.connect()
        bad.send(request(1, b"before") + data)
        # The request before it is answered all the same, and nothing else is.
        assert await bad.disconnected() in (framed(struct.pack(">i", 1) + b"before"), b"")
        assert sum(node.service.complaints.counts.values()) == 1
        await bad.close()

    serving(test)


def test_large_claims_with_nothing_behind_them_cost_nothing():  # H3
    async def test(node):
        bad = [await node.connect() for _ in range(200)]
        for peer in bad:
            peer.send(struct.pack(">i", 100 << 20) + bytes(100))
        await node.until(lambda: node.listeners.connections_count == 201)
        for peer in bad:
            await peer.writer.drain()
        assert node.memory.used == 0
        node.timers.advance(31)
        for peer in bad:
            await peer.disconnected()
            await peer.close()

    serving(test)


def test_a_byte_now_and_then_does_not_keep_a_frame_alive():  # H5
    async def test(node):
        bad = await node.connect()
        assert await bad.works()
        whole = request(1, bytes(1000))
        driver = node.newest
        for at in range(4):
            assert not driver._closed
            bad.send(whole[at : at + 1])
            await node.until_arrived(driver, at + 1)
            node.timers.advance(9)
        assert await bad.disconnected() == b""
        await bad.close()

    serving(test)


def test_a_peer_that_says_nothing_is_not_kept():  # H6
    async def test(node):
        bad = await node.connect()
        await node.until(lambda: node.listeners.connections_count == 2)
        node.timers.advance(10.1)
        assert await bad.disconnected() == b""
        await bad.close()

    serving(test)


def test_bytes_behind_the_body_are_for_the_decoder_to_ignore():  # H22
    async def test(node):
        peer = await node.connect()
        peer.send(request(5, b"body" + bytes(3)))
        assert await peer.answer() == struct.pack(">i", 5) + b"body" + bytes(3)
        await peer.close()

    serving(test)


def test_ten_thousand_requests_whose_answers_are_not_read_are_not_all_taken():  # H23
    async def test(node):
        bad = await node.connect()
        bad.writer.transport.pause_reading()
        count = node.echo.count
        body = bytes(10_000)
        for number in range(10_000):
            bad.send(request(number, body))
        driver = node.newest
        await node.until(lambda: not driver._reading and driver._writing)
        assert node.echo.count - count < 2000
        assert driver._connection.in_process <= 64
        bad.writer.transport.resume_reading()
        for number in range(2000):
            assert (await bad.answer())[:4] == struct.pack(">i", number)
        bad.writer.transport.pause_reading()
        await node.until(lambda: not driver._reading and driver._writing)
        for _ in range(3):
            node.timers.advance(60)
        assert driver._closed
        bad.writer.transport.abort()

    serving(test)


def test_a_frame_in_pieces_of_one_byte_is_a_frame():  # H24
    async def test(node):
        peer = await node.connect()
        peer.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = request(3, b"pieces")
        driver = None
        for at in range(len(data)):
            peer.send(data[at : at + 1])
            await peer.writer.drain()
            await node.until(lambda: node.listeners.connections_count == 2)
            driver = driver or node.newest
            if at + 1 < len(data):
                await node.until_arrived(driver, at + 1)
        assert await peer.answer() == struct.pack(">i", 3) + b"pieces"
        await peer.close()

    serving(test)


def test_correlation_ids_are_echoed_repeated_and_negative_ones_too():  # H25
    async def test(node):
        peer = await node.connect()
        ids = [7, 7, -1, -(2**31), 2**31 - 1, 7]
        peer.send(b"".join(request(number) for number in ids))
        for number in ids:
            assert await peer.answer() == struct.pack(">i", number)
        await peer.close()

    serving(test)


def test_beyond_the_limit_of_one_address_a_connection_is_closed_at_once():  # H26
    async def test(node):
        kept = [await node.connect() for _ in range(3)]
        refused = await node.connect()
        assert await refused.disconnected() == b""
        assert all([await peer.works() for peer in kept])
        for peer in [*kept, refused]:
            await peer.close()
        await node.until(lambda: node.listeners.connections_count == 1)

    serving(test, listener_limits=ListenerLimits(connections_per_ip_max=4))


def test_beyond_the_limit_of_the_node_a_connection_is_closed_at_once():
    async def test(node):
        kept = [await node.connect() for _ in range(3)]
        refused = await node.connect()
        assert await refused.disconnected() == b""
        for peer in [*kept, refused]:
            await peer.close()
        await node.until(lambda: node.listeners.connections_count == 1)

    serving(test, listener_limits=ListenerLimits(connections_max=4))


def test_a_storm_of_connections_waits_in_the_kernel():  # H27
    async def test(node):
        peers = [await node.connect() for _ in range(20)]
        await node.until(lambda: not node.listeners._accepting)
        assert node.listeners.connections_count == 10  # the rate is 10 a second, all used up
        node.timers.advance(0.11)
        await node.until(lambda: node.listeners.connections_count == 10 + 1)
        while node.listeners.connections_count < 21:
            node.timers.advance(1)
            await asyncio.sleep(0)
        for peer in peers:
            assert await peer.works()
            await peer.close()
        node.timers.advance(1)

    serving(test, listener_limits=ListenerLimits(connections_per_s_max=10))


def test_after_a_quiet_time_a_storm_gets_a_second_s_worth_at_once_and_no_more():  # H27
    async def test(node):
        node.timers.advance(60)
        peers = [await node.connect() for _ in range(30)]
        await node.until(lambda: not node.listeners._accepting)
        assert node.listeners.connections_count == 1 + 10
        while node.listeners.connections_count < 31:
            node.timers.advance(1)
            await asyncio.sleep(0)
        for peer in peers:
            assert await peer.works()
            await peer.close()
        node.timers.advance(1)

    serving(test, listener_limits=ListenerLimits(connections_per_s_max=10))


def test_without_descriptors_accepting_rests_and_goes_on(monkeypatch):
    async def test(node):
        (listening,) = node.listeners._listening
        accepts = []

        class Exhausted:
            def __init__(self, sock):
                self.sock = sock

            def accept(self):
                accepts.append(1)
                raise OSError(errno.EMFILE, "Too many open files")

        node.listeners._accept(Exhausted(listening))
        peer = await node.connect()
        assert await_none(node, accepts)
        node.timers.advance(0.2)
        assert await peer.works()
        await peer.close()

    def await_none(node, accepts):
        return not node.listeners._accepting and accepts == [1]

    serving(test)


@pytest.mark.parametrize("portable", [False, True])
def test_slices_of_a_file_arrive_as_they_are(tmp_path, portable):
    content = os.urandom(3 << 20)
    (tmp_path / "log").write_bytes(content)

    class RealFile:
        path = str(tmp_path / "log")

        def __init__(self):
            self.fd = os.open(self.path, os.O_RDONLY)
            self.pins = 0

        def fileno(self):
            return self.fd

        def retain(self):
            self.pins += 1

        def release(self):
            self.pins -= 1

        def read(self, position, length):
            return os.pread(self.fd, length, position)

        read_nowait = read

    file = RealFile()
    ranges = [(0, 1 << 20), (5, 100), (1 << 20, 2 << 20), (77, 30_000)]

    def act(correlation_id):
        body = []
        for position, length in ranges:
            body += [b"<", FileSlice(file, position, length), b">"]
        return response_frame(correlation_id, False, body)

    async def test(node):
        node.echo.act = act
        peer = await node.connect()
        for number in range(5):
            peer.send(request(number))
        wanted = b"".join(
            b"<" + content[position : position + length] + b">" for position, length in ranges
        )
        for number in range(5):
            assert await peer.answer() == struct.pack(">i", number) + wanted
        assert file.pins == 0
        # A reader that goes away in the middle leaves no pin behind.
        for number in range(5):
            peer.send(request(number))
        await peer.reader.readexactly(1000)
        peer.writer.transport.abort()
        await node.until(lambda: node.listeners.connections_count == 1)
        assert file.pins == 0
        # A file that ends too early ends the connection: the size has been said.
        ranges.append((len(content) - 10, 100_000))
        peer = await node.connect()
        peer.send(request(1))
        assert len(await peer.disconnected()) > 3 << 20
        assert file.pins == 0
        await peer.close()

    serving(test, portable=portable)
    os.close(file.fd)


def test_stopping_answers_what_waits_and_then_closes():
    async def run():
        node = Server()
        pending = Pending()
        node.echo.act = lambda number: Parked(
            pending, lambda: response_frame(number, False, [b"done"])
        )
        peer, idle = await node.connect(), await node.connect()
        peer.send(request(9))
        await node.until(lambda: node.echo.count == 1)
        stopped = node.listeners.stop()
        assert await idle.disconnected() == b""
        assert not stopped.done
        pending.complete(None)
        assert await peer.answer() == struct.pack(">i", 9) + b"done"
        assert await peer.disconnected() == b""
        assert stopped.done
        with pytest.raises(ConnectionRefusedError):
            await node.connect()
        await peer.close()
        await idle.close()

    asyncio.run(run())


def test_a_busy_port_is_said_in_one_sentence():
    async def run():
        node = Server()
        with pytest.raises(CannotListen, match=f"127.0.0.1:{node.port}: the port is in use"):
            node.listeners.listen(["127.0.0.1"], node.port)
        with pytest.raises(CannotListen, match="no address of that name"):
            node.listeners.listen(["no.such.host.invalid"], 0)
        node.listeners.close()

    asyncio.run(run())


def test_one_free_port_is_found_for_both_loopback_addresses():
    async def run():
        node = Server()
        endpoints = node.listeners.listen(["127.0.0.1", "::1"], 0)
        assert len({endpoint.port for endpoint in endpoints}) == 1
        for endpoint in endpoints:
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            assert await Peer(reader, writer).works()
            writer.close()
            await writer.wait_closed()
        node.listeners.close()

    asyncio.run(run())
