"""A whole node in one thread from a seed: its core as node.py puts it together, without sockets.

Owns what stands in for `host` and `server`: a recording disk, a store that outlives crashes, an
offload that only pickles, connections that park and resume as the driver does. Must not be kinder
than those: answers leave in order, a blocking read on the loop's thread is refused, and nothing
happens unless a test takes a step.
"""

from __future__ import annotations

import pickle
import random
from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from ottla.cluster.controller import Controller
from ottla.cluster.image import ClusterImage
from ottla.cluster.image import Node as NodeImage
from ottla.cluster.producer_ids import ProducerIds
from ottla.cluster.view import ClusterView
from ottla.core import options
from ottla.core.endpoints import Endpoint
from ottla.core.model import FileSlice, NodeId
from ottla.core.pending import Pending
from ottla.core.ports import DiskError, File, OffloadError
from ottla.handlers.context import ConnectionState, Context
from ottla.handlers.dispatch import Dispatch
from ottla.handlers.internal_topics import group_runtime, transactions
from ottla.handlers.markers import PartitionMarkers
from ottla.handlers.registry import API
from ottla.handlers.reply import Answer, Closing, Parked
from ottla.handlers.waiting import Waiting
from ottla.protocol.apis import FIRST_FLEXIBLE
from ottla.protocol.codec import CodecError, decoder, encoder
from ottla.protocol.connection import (
    ConnectionLimits,
    PeerError,
    ReceiveMemory,
    ServerConnection,
    Slot,
)
from ottla.protocol.frame import RequestHeader, request_frame
from ottla.replication.partition import Partition
from ottla.replication.retention import Retention
from ottla.replication.room import Room
from ottla.replication.table import PartitionTable
from ottla.storage.checkpoints import MetaProperties
from ottla.storage.directory import LogDirectory
from ottla.storage.rounds import FlushPolicy
from ottla.testing.simdisk import CrashPolicy, SimDisk
from ottla.testing.simfile import SimFile
from ottla.testing.simloop import SimLoop
from ottla.testing.simstore import SimStore

_HERE = Endpoint("sim.example", 9092)
_STEPS_MAX = 100_000


class RecordingDisk(SimDisk):
    """A SimDisk whose `log` also tells when a sync was asked for and when it returned well.

    ("sync begun" | "sync returned", path), beside what SimDisk itself notes when it is done.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.opened: list[tuple[int, SimFile]] = []

    def open(self, path: str) -> File:
        file = super().open(path)
        assert isinstance(file, SimFile)
        self.opened.append((self.boots, file))
        return file

    def _create(self, path: str, content: bytes) -> SimFile:
        file = super()._create(path, content)
        self.opened.append((self.boots, file))
        return file

    def sync(self, files: Sequence[File], directories: Sequence[str]) -> Pending[None]:
        paths = [*(file.path for file in files), *directories]
        self.log += [("sync begun", path) for path in paths]
        pending = super().sync(files, directories)
        result: Pending[None] = Pending()

        def returned() -> None:
            try:
                pending.result()
            except DiskError as error:
                result.fail(error)
            else:
                self.log += [("sync returned", path) for path in paths]
                result.complete(None)

        pending.then(returned)
        return result

    def pinned(self) -> list[str]:
        """Files of this boot that somebody still holds on to."""
        return [file.path for boot, file in self.opened if file.users and boot == self.boots]


class SimOffload:
    """The port `Offload`: the work is done by a later turn of the loop, with copies."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self.full = False
        self.runs_count = 0

    def run(self, work: Callable[..., Any], *arguments: Any) -> Pending[Any]:
        pending: Pending[Any] = Pending()
        if self.full:
            pending.fail(OffloadError("too much waits already"))
            return pending
        self.runs_count += 1
        sent = pickle.dumps((work, arguments))

        def do() -> None:
            function, copies = pickle.loads(sent)  # our own bytes
            pending.complete(pickle.loads(pickle.dumps(function(*copies))))

        self._loop.soon(do)
        return pending


class Call:
    """A request that was sent, and its answer once it is there."""

    def __init__(self, api_key: int, version: int, correlation_id: int) -> None:
        self.api_key = api_key
        self.version = version
        self.correlation_id = correlation_id
        self.answer: Any = None

    @property
    def done(self) -> bool:
        return self.answer is not None

    def decode(self, frame: memoryview) -> None:
        """Take the answer in, as a client would read it."""
        assert self.answer is None, "a request is answered once"
        api = API[self.api_key]
        messages = import_module(f"ottla.protocol.messages.{api.module}")
        response = getattr(messages, f"{api.name}Response")
        flexible = FIRST_FLEXIBLE.get(self.api_key)
        at = 5 if flexible is not None and self.version >= flexible and self.api_key != 18 else 4
        self.answer, end = decoder(response, self.version)(frame, at)
        assert end == len(frame), "an answer is as long as it says"


class _Waiting(Waiting):
    """A parked request of a connection's: as the driver's."""

    __slots__ = ("connection",)

    def __init__(self, connection: SimConnection, parked: Parked) -> None:
        super().__init__(parked)
        self.connection = connection

    def ready(self) -> None:
        self.connection.node.ready(self)


class SimConnection:
    """A client's connection and the node's driver of it, in one. Bytes in, calls answered."""

    def __init__(self, node: SimNode, number: int) -> None:
        self.node = node
        self.number = number
        self.closed = False
        self.stalled = False
        """The client does not read: answers stay in the node, with the slices in them."""
        self._state = ConnectionState(f"10.0.0.{number}:1", "PLAINTEXT", _HERE)
        self._connection = ServerConnection(node.limits, node.memory)
        self._state.tally.asked = self._connection.asked
        self._inbox = bytearray()
        self._stream = bytearray()
        self._stopped = False  # whole frames may lie in the buffer
        self._lent_to: _Waiting | None = None
        self._calls: deque[Call] = deque()
        self._sent_count = 0

    # --- the client's end

    def ask(self, body: Any, version: int, *, answered: bool = True) -> Call:
        """Send a request; `answered` False for acks=0, which has no answer."""
        self._sent_count += 1
        call = Call(body.KEY, version, self._sent_count)
        if answered:
            self._calls.append(call)
        header = RequestHeader(body.KEY, version, call.correlation_id, "sim")
        chunks = encoder(type(body), version)(body)
        self.send(request_frame(header, [chunk for chunk in chunks if isinstance(chunk, bytes)]))
        return call

    def send(self, data: bytes) -> None:
        """Bytes on their way to the node, in any pieces."""
        assert not self.closed, "the node has closed this connection"
        self._inbox += data
        self.proceed()

    def read(self) -> None:
        """Take what the node has to send, also after having stalled."""
        self.stalled = False
        self.proceed()

    # --- the node's end

    def proceed(self) -> None:
        """Send what is ready and take up again what was stopped, as the driver does."""
        self._flush()
        while not (self.closed or self._held_up()):
            count = 0
            if not self._stopped:
                room = self._connection.room()
                assert room is not None, "receive memory has no limit here"
                count = min(len(room), len(self._inbox))
                if count == 0:
                    return
                room[:count] = self._inbox[:count]
                del self._inbox[:count]
            self._pump(count)
            self._flush()

    def _held_up(self) -> bool:
        connection = self._connection
        return self._lent_to is not None or connection.ending or connection.full

    def _pump(self, count: int) -> None:
        self._stopped = False
        try:
            for frame in self._connection.received(count):
                if not self._put(self.node.dispatch.dispatch(self._state, frame)):
                    self._stopped = True
                    return
        except (PeerError, CodecError):
            self._flush()
            self.close()

    def _put(self, answer: Answer) -> bool:
        connection = self._connection
        if isinstance(answer, Closing):
            return connection.answer(answer.chunks, last=True)
        if isinstance(answer, list):
            return connection.answer(answer)
        waiting = _Waiting(self, answer)
        connection.park(waiting)
        if answer.before_effect:
            self._lent_to = waiting
        waiting.wait(self.node.loop)
        return not (answer.before_effect or connection.full)

    def resume(self, waiting: _Waiting) -> None:
        """Let a parked request go on."""
        if self.closed or waiting.chunks is not None:
            return
        answer = self.node.dispatch.resume(waiting.parked)
        if isinstance(answer, Parked):
            waiting.parked = answer
            assert not answer.before_effect or self._lent_to is waiting, "an effect can't be undone"
            self._lend(waiting, answer.before_effect)
            waiting.wait(self.node.loop)
            return
        self._lend(waiting, False)
        last = isinstance(answer, Closing)
        chunks = answer.chunks if isinstance(answer, Closing) else answer
        self._abandon(self._connection.fill(waiting, chunks, last=last))

    def _lend(self, waiting: _Waiting, before_effect: bool) -> None:
        if self._lent_to is waiting and not before_effect:
            self._lent_to = None

    def _flush(self) -> None:
        connection = self._connection
        if self.closed or self.stalled:
            return
        answers, memory = connection.out_answers, connection.out_memory
        for chunk in connection.take():
            if isinstance(chunk, FileSlice):
                content = self.node.sendfile(chunk)
                assert len(content) == chunk.length, "a slice is as long as it says"
                self._stream += content
                chunk.release()
            else:
                self._stream += chunk
        connection.left(answers, memory)
        self._read_answers()
        if connection.ended:
            self.close()

    def _read_answers(self) -> None:
        while len(self._stream) >= 4:
            end = 4 + int.from_bytes(self._stream[:4], "big")
            if len(self._stream) < end:
                return
            frame = bytes(self._stream[4:end])
            del self._stream[:end]
            correlation_id = int.from_bytes(frame[:4], "big", signed=True)
            call = self._calls.popleft()
            assert call.correlation_id == correlation_id, "answers leave in order"
            self.node.disk.log.append(("answer", f"{self.number}:{correlation_id}"))
            call.decode(memoryview(frame))

    def close(self) -> None:
        """Either end lets go: answers are dropped, what is parked is abandoned."""
        if not self.closed:
            self.closed = True
            self._state.tally.leave()
            self._abandon(self._connection.drop())
            self._connection.close()

    def _abandon(self, slots: list[Slot]) -> None:
        for slot in slots:
            assert isinstance(slot, _Waiting)
            slot.chunks = []
            slot.abandon()


class _NoLock:
    def release(self) -> None:
        pass


class SimNode:
    """One node; `crash`, `kill` and `stop` end a life of it, and `start` begins the next.

    `given` are options with `_` for `.`. What outlives a crash: the disk, as it may be found
    then, and the metadata store, whose transactions are durable once they are applied.
    """

    def __init__(self, seed: int = 0, **given: str) -> None:
        self.random = random.Random(seed)
        self.config = options.broker_config(
            {name.replace("_", "."): text for name, text in given.items()}
        )
        self.disk = RecordingDisk(seed)
        self._seed = seed
        self._stored: SimStore | None = None
        self._wall_ms = 1_700_000_000_000
        self.coordinates = True
        """Whether transactions that no coordinator of this node knows are to be ended; not where a
        test stands in for the coordinators itself."""
        self.stalls_count = 0
        """Slices that were not in memory when they were sent: residency is a guess."""
        self.start()

    # --- lives

    def start(self) -> None:
        """What node.py does at a start, in its order."""
        self.loop = loop = SimLoop(self._wall_ms)
        self.memory = ReceiveMemory(-1)
        self.limits = ConnectionLimits()
        self.connections: list[SimConnection] = []
        self._ready: list[_Waiting] = []
        self.store = store = SimStore(self._seed, unknown=0.0, wake=loop.soon)
        if self._stored is not None:
            store.entries, store.revision = self._stored.entries, self._stored.revision
            store.history = self._stored.history
        self._stored = store
        self.disk.on_loop = False
        self.view = view = ClusterView(store, NodeId(0))
        policy: FlushPolicy = "os" if self.config[options.FLUSH_POLICY] == "os" else "commit"
        self.directory = LogDirectory("/data", self.disk, loop, loop, policy)
        self.table = PartitionTable(self.directory, self.config, loop)
        self.offload = SimOffload(loop)
        controller = Controller(store, view, self.config, NodeId(0), self.random.randbytes)
        self.context = Context(
            config=self.config,
            node_id=NodeId(0),
            image=lambda: view.image,
            table=self.table,
            controller=controller,
            next_producer_id=ProducerIds(store).next_producer_id,
            clock=loop,
            disk=self.disk,
            timers=loop,
            offload=self.offload,
        )
        self.dispatch = Dispatch(self.context)
        self._wait(controller.start(NodeImage(NodeId(0), "sim.example", 9092, None), None))
        self.directory.open(
            lambda _path: _NoLock(),
            MetaProperties(view.image.cluster_id, 0, "a-directory"),
            self.table.settings_for(lambda: view.image),
        )
        self.table.load(view.image)
        view.on_change(self.table.apply)
        self.retention = Retention(self.table, self.config, loop, loop, loop)
        self.retention.start()
        changed = self.retention.room_changed
        room = Room("/data", self.disk, loop, self.config, changed)
        self.table.ran_full = room.ran_full
        room.start()
        context = self.context
        context.groups = group_runtime(context, view.on_change)
        context.transactions = transactions(context, view.on_change, PartitionMarkers(context))
        if not self.coordinates:
            context.transactions.hanging.stop()
        loop.soon(context.groups.start)
        loop.soon(context.transactions.start)
        self.disk.on_loop = True

    def crash(self, policy: CrashPolicy = "any") -> None:
        """The power fails and comes back."""
        self._end()
        self.disk.crash(policy)
        self.start()

    def kill(self) -> None:
        """kill -9, and a start: what was written to the page cache is still there."""
        self._end()
        self.disk.kill()
        self.start()

    def stop(self) -> None:
        """A clean stop, and a start. Raises DiskError."""
        self.settle()
        self.context.groups.stop()
        self.context.transactions.stop()
        self.settle()
        self._end()
        self.disk.on_loop = False
        self.directory.stop(broker_epoch=1)
        self.disk.kill()
        self.start()

    def _end(self) -> None:
        # Nothing of the old life may run any more, nor be found out by a late release.
        self._wall_ms = self.loop.wall_ms()
        for connection in self.connections:
            connection.close()
        self.loop.forget()
        self.store.close()

    # --- running

    @property
    def image(self) -> ClusterImage:
        return self.view.image

    def connect(self) -> SimConnection:
        connection = SimConnection(self, len(self.connections) + 1)
        self.connections.append(connection)
        return connection

    def ready(self, waiting: _Waiting) -> None:
        """A completion only takes note; one later turn resumes all that are ready."""
        if not self._ready:
            self.loop.soon(self._drain)
        self._ready.append(waiting)

    def _drain(self) -> None:
        ready, self._ready = self._ready, []
        for waiting in ready:
            waiting.connection.resume(waiting)
        for connection in dict.fromkeys(waiting.connection for waiting in ready):
            connection.proceed()

    def step(self) -> bool:
        """Let one thing happen, the loop's or the disk's; False if nothing waits to."""
        if self.loop.ready and (not self.disk.busy or self.random.random() < 0.5):
            return self.loop.turn()
        if self.disk.busy:
            self.disk.step()
            return True
        return False

    def steps(self, count: int) -> None:
        for _ in range(count):
            if not self.step():
                return

    def settle(self) -> None:
        """Go on until only time could make something happen."""
        for _ in range(_STEPS_MAX):
            if not self.step():
                return
        raise AssertionError("the node goes round in circles")

    def advance(self, seconds: float) -> None:
        """Let time pass, and then all that it brings about happen."""
        self.loop.advance(seconds)
        self.settle()

    def answer(self, call: Call) -> Any:
        """The answer to `call`, which must come without time passing."""
        self.settle()
        assert call.done, "not answered"
        return call.answer

    def _wait(self, pending: Pending[Any]) -> Any:
        while not pending.done:
            assert self.loop.turn(), "nothing will ever complete this"
        return pending.result()

    def sendfile(self, piece: FileSlice) -> bytes:
        """The bytes of a slice that is sent, as `sendfile` would; cold ones stall the loop."""
        try:
            content = piece.file.read_nowait(piece.position, piece.length)
        except DiskError:
            content = None  # the driver leaves it to sendfile, too
        if content is None:
            self.stalls_count += 1
            self.disk.on_loop = False
            content = piece.file.read(piece.position, piece.length)
            self.disk.on_loop = True
        return content

    # --- shortcuts for tests

    def create_topic(self, name: str, partitions: int = 1, **configs: str) -> bytes:
        """Make a topic as a client would; its id. `configs` with `_` for `.`."""
        from ottla.protocol.messages import create_topics as m

        topic = m.CreatableTopic(
            name=name,
            num_partitions=partitions,
            replication_factor=1,
            configs=[
                m.CreatableTopicConfig(name=key.replace("_", "."), value=value)
                for key, value in configs.items()
            ],
        )
        connection = self.connect()
        call = connection.ask(m.CreateTopicsRequest(topics=[topic], timeout_ms=1000), 7)
        (result,) = self.answer(call).topics
        assert result.error_code == 0, result.error_message
        connection.close()
        return bytes(result.topic_id)

    def delete_topic(self, name: str) -> None:
        """Delete a topic, up to the answer; its files may go later."""
        from ottla.protocol.messages import delete_topics as m

        connection = self.connect()
        call = connection.ask(m.DeleteTopicsRequest(topic_names=[name], timeout_ms=1000), 5)
        while not call.done:
            assert self.loop.turn() or self.step(), "not answered"
        (result,) = call.answer.responses
        assert result.error_code == 0, result.error_message
        connection.close()

    def partition(self, topic: str, number: int = 0) -> Partition:
        found = self.table.get(topic, number)
        assert isinstance(found, Partition), found
        return found
