"""Brokers that keep an acknowledgement for every message: a model on SQLite, Redis, RabbitMQ.

Owns their processes and the least client that each needs. Each does the same: `count` messages
written, delivered and acknowledged, a hundred at a time, and says what its broker's CPU was.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ottla.bench import usage
from ottla.bench.techniques.model import NotHere

_START_S = 30.0
_RABBITMQ = "/usr/lib/rabbitmq/bin"  # where Debian's is that doesn't become another user


def sqlite(folder: str, bodies: Sequence[bytes], count: int) -> Mapping[str, float]:
    """Rows with a state, in this process: new, delivered, and gone when acknowledged."""
    path = Path(folder) / "queue.db"
    for old in path.parent.glob(path.name + "*"):
        old.unlink()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=OFF")  # nobody waits for the disk in this experiment
        db.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, state INTEGER, body BLOB)")
        db.execute("CREATE INDEX waiting ON messages (id) WHERE state = 0")
        begun, cpu_begun = time.perf_counter(), time.process_time()
        for _ in range(count // len(bodies)):
            db.execute("BEGIN")
            db.executemany(
                "INSERT INTO messages (state, body) VALUES (0, ?)", [(body,) for body in bodies]
            )
            db.execute("COMMIT")
            db.execute("BEGIN")
            taken = db.execute(
                "SELECT id, body FROM messages WHERE state = 0 ORDER BY id LIMIT ?", (len(bodies),)
            ).fetchall()
            ids = [(row[0],) for row in taken]
            db.executemany("UPDATE messages SET state = 1 WHERE id = ?", ids)
            db.execute("COMMIT")
            db.execute("BEGIN")
            db.executemany("DELETE FROM messages WHERE id = ? AND state = 1", ids)
            db.execute("COMMIT")
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
        left = db.execute("SELECT count(*) FROM messages").fetchone()[0]
    assert left == 0, f"{left} messages are left in the queue"
    return _figures(cpu, seconds, count)


def _figures(cpu_s: float, seconds: float, count: int) -> Mapping[str, float]:
    return {"broker CPU": cpu_s / count * 1e6, "rate": count / seconds / 1e3}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def _server(
    command: Sequence[str], port: int, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """A server that listens on a port; its process id. Raises NotHere if it doesn't come up."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotHere(f"{command[0]} is installed and did not start")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(_START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def redis(folder: str, bodies: Sequence[bytes], count: int) -> Mapping[str, float]:
    """Redis Streams: a consumer group whose pending list has an entry for each message."""
    program = shutil.which("redis-server")
    if program is None:
        raise NotHere("redis-server is not installed")
    port = _free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    with _server(command, port) as pid, contextlib.closing(_Redis(port)) as db:
        db.ask([[b"XGROUP", b"CREATE", b"s", b"g", b"$", b"MKSTREAM"]])
        reading = (b"XREADGROUP", b"GROUP", b"g", b"c", b"COUNT")
        before, begun = usage.cpu(pid).total, time.perf_counter()
        for _ in range(count // len(bodies)):
            db.ask([[b"XADD", b"s", b"*", b"body", body] for body in bodies])
            [streams] = db.ask([[*reading, b"%d" % len(bodies), b"STREAMS", b"s", b">"]])
            ids = [entry[0] for entry in streams[0][1]]
            [done] = db.ask([[b"XACK", b"s", b"g", *ids]])
            assert done == len(bodies), f"{done} of {len(bodies)} messages were acknowledged"
        seconds = time.perf_counter() - begun
        spent = usage.cpu(pid).total - before
    return _figures(spent, seconds, count)


class _Redis:
    """As much of the Redis protocol (RESP2) as the streams need."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._stream = self._socket.makefile("rb")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def ask(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        """All of them in one send; their answers."""
        parts: list[bytes] = []
        for words in commands:
            parts.append(b"*%d\r\n" % len(words))
            parts += (b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        self._socket.sendall(b"".join(parts))
        return [self._answer() for _ in commands]

    def _answer(self) -> Any:
        line = self._stream.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise NotHere(f"redis-server answered {rest.decode()}")
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return self._stream.read(int(rest) + 2)[:-2] if int(rest) >= 0 else None
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        return rest


def rabbitmq(folder: str, bodies: Sequence[bytes], count: int) -> Mapping[str, float]:
    """RabbitMQ's classic queue, through pika: each message is acknowledged by its tag."""
    program = shutil.which("rabbitmq-server", path=f"{_RABBITMQ}:{os.environ.get('PATH', '')}")
    if program is None:
        raise NotHere("rabbitmq-server is not installed")
    try:
        pika: Any = importlib.import_module("pika")
    except ImportError:
        raise NotHere(
            "rabbitmq-server is installed; its client is not (pip install pika)"
        ) from None
    port, home = _free_port(), Path(folder) / "rabbitmq"
    home.mkdir(exist_ok=True)
    environment = {
        "RABBITMQ_NODENAME": f"ottla{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(_free_port()),
        "RABBITMQ_MNESIA_BASE": str(home),
        "RABBITMQ_LOG_BASE": str(home),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "HOME": str(home),
    }
    with _server([program], port, environment) as pid:
        parameters = pika.ConnectionParameters("127.0.0.1", port)
        with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
            channel = connection.channel()
            channel.queue_declare("techniques")
            channel.basic_qos(prefetch_count=len(bodies))
            before, begun = usage.cpu(pid).total, time.perf_counter()
            _acknowledged_each(channel, bodies, count)
            seconds = time.perf_counter() - begun
            spent = usage.cpu(pid).total - before
    return _figures(spent, seconds, count)


def _acknowledged_each(channel: Any, bodies: Sequence[bytes], count: int) -> None:
    arriving = channel.consume("techniques", inactivity_timeout=_START_S)
    for _ in range(count // len(bodies)):
        for body in bodies:
            channel.basic_publish("", "techniques", body)
        for _ in bodies:
            method, _, _ = next(arriving)
            if method is None:
                raise NotHere("RabbitMQ started and delivered nothing")
            channel.basic_ack(method.delivery_tag)
    channel.cancel()
